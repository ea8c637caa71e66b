//! Seeded attempts with their events and calls, for the analytics page.

use crate::waypost::SLUG;

/// Period in milliseconds over which the attempts are spread, within the 30 days that the page shows.
const SPREAD_MS: i64 = 20 * 86_400_000;
/// Returns the number of events of the first `attempts` attempts. Each attempt starts and completes 8, 9 or 10 of 10
/// steps; with 10, the walkthrough is completed.
pub fn events(attempts: u64) -> u64 {
    (1..=attempts).map(|at| 9 + at % 3 + u64::from(at % 3 == 2)).sum()
}

/// The statements that write the rows. `{hex12 …}` formats a number in hexadecimal.
const PLAYED: [&str; 7] = [
    "INSERT INTO end_users (id, organization_id, tracking_id, created_at)
        SELECT 'eu_played' || {hex12 n.value}, s.organization_id, 'played-' || n.value, {at}
        FROM servers s CROSS JOIN {numbers} WHERE s.slug = '{slug}'",
    "INSERT INTO progress (id, organization_id, end_user_id, server_id, walkthrough_id, version_id, status,
            completed_steps, started_at, completed_at, last_activity_at, metadata)
        SELECT 'wp_played' || {hex12 n.value}, s.organization_id, 'eu_played' || {hex12 n.value}, s.id, v.walkthrough_id,
            v.id, CASE WHEN n.value % 3 = 2 THEN 'completed' ELSE 'in_progress' END, '', {at},
            CASE WHEN n.value % 3 = 2 THEN {at} + 600000 END, {at} + 600000, '{}'
        FROM servers s CROSS JOIN {numbers} CROSS JOIN {version} WHERE s.slug = '{slug}'",
    "INSERT INTO walkthrough_events (id, organization_id, server_id, walkthrough_id, end_user_id, progress_id, version_id,
            step_id, kind, created_at, client_name, elapsed_ms, took_ms)
        SELECT 'ev_' || {hex12 {at} + e.value * 60000} || {hex12 n.value * 16 + e.value}, s.organization_id, s.id,
            v.walkthrough_id, 'eu_played' || {hex12 n.value}, 'wp_played' || {hex12 n.value}, v.id, p.step_id,
            CASE e.value WHEN 0 THEN 'started' WHEN 11 THEN 'completed' ELSE 'step_completed' END,
            {at} + e.value * 60000, 'client-' || n.value % 3,
            CASE WHEN e.value > 0 THEN (n.value * 7919 + e.value * 104729) % 60000 END,
            CASE WHEN e.value = 11 THEN 600000 + n.value % 100000 END
        FROM servers s CROSS JOIN {numbers} CROSS JOIN {version} CROSS JOIN {kinds}
        LEFT JOIN version_steps p ON p.version_id = v.id AND p.position = e.value AND e.value BETWEEN 1 AND 10
        WHERE s.slug = '{slug}' AND (e.value <= 8 + n.value % 3 OR (e.value = 11 AND n.value % 3 = 2))",
    "INSERT INTO tool_calls (id, organization_id, server_id, end_user_id, tool, arguments, outcome, duration_us,
            client_name, protocol_version, request_id, created_at)
        SELECT 'tc_' || substr(id, 4), organization_id, server_id, end_user_id, 'next_walkthrough_step', '{}', 'ok',
            elapsed_ms % 5000 + 100, client_name, '2026-07-28', 'seeded', created_at
        FROM walkthrough_events WHERE kind = 'step_completed'",
    "INSERT INTO users (id, email, email_key, account_key, created_at, verified_at)
        VALUES ('usr_played0000000', 'played@bench.example', 'played@bench.example', 'played@bench.example', 1, 1)",
    "INSERT INTO memberships (organization_id, user_id, role, created_at)
        SELECT organization_id, 'usr_played0000000', 'member', 1 FROM servers WHERE slug = '{slug}'",
    "INSERT INTO user_sessions (id, token_hash, user_id, user_agent, address, created_at, last_used_at, expires_at)
        VALUES ('uss_played', '{hash}', 'usr_played0000000', 'bench', '127.0.0.1', {now}, {now}, {now} + 86400000)",
];

/// Returns the statements for `attempts` attempts before `now` (Unix milliseconds), and the number of rows they write.
pub fn statements(is_sqlite: bool, attempts: u64, now: i64, hash: &str) -> (Vec<String>, u64) {
    let series = |from: u64, to: u64, name: &str| {
        if is_sqlite {
            format!(
                "(WITH RECURSIVE c (value) AS (SELECT {from} UNION ALL SELECT value + 1 FROM c WHERE value < {to})
                  SELECT value FROM c) {name}"
            )
        } else {
            format!("(SELECT CAST(value AS BIGINT) AS value FROM generate_series({from}, {to}) AS g (value)) {name}")
        }
    };
    let step = SPREAD_MS / i64::try_from(attempts.max(1)).unwrap_or(i64::MAX);
    // No attempt starts in the last hour, because recent events are not packed.
    let at = format!("({} + n.value * {step})", now - SPREAD_MS - 3_600_000);
    let version = "(SELECT id, walkthrough_id FROM versions ORDER BY step_count LIMIT 1) v";
    let fill = |text: &str| {
        let text = text
            .replace("{at}", &at)
            .replace("{numbers}", &series(1, attempts, "n"))
            .replace("{kinds}", &series(0, 11, "e"))
            .replace("{version}", version)
            .replace("{slug}", SLUG)
            .replace("{hash}", hash)
            .replace("{now}", &now.to_string());
        hexadecimal(&text, is_sqlite)
    };
    let steps: u64 = (1..=attempts).map(|at| 8 + at % 3).sum();
    let rows = attempts * 2 + events(attempts) + steps + 3;
    (PLAYED.iter().map(|text| fill(text)).collect(), rows)
}

/// Replaces `{hex12 EXPRESSION}` with the database's function for twelve hexadecimal digits.
fn hexadecimal(text: &str, is_sqlite: bool) -> String {
    let mut parts = text.split("{hex12 ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (expression, rest) = part.split_once('}').unwrap_or((part, ""));
        out.push_str(&if is_sqlite {
            format!("printf('%012x', {expression})")
        } else {
            format!("lpad(to_hex({expression}), 12, '0')")
        });
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_placeholders_are_replaced() {
        assert_eq!(hexadecimal("a {hex12 n.value + 1} b", true), "a printf('%012x', n.value + 1) b");
        assert_eq!(hexadecimal("{hex12 n}{hex12 m}", false), "lpad(to_hex(n), 12, '0')lpad(to_hex(m), 12, '0')");
    }

    #[test]
    fn events_are_counted() {
        // 1: 9 steps; 2: 10 steps and the completion; 3: 8 steps; each with a start.
        assert_eq!(events(3), 10 + 12 + 9);
    }
}
