//! Fills a database of Waypost: with progress of users who never call, to see what size costs, and with users who are
//! signed in, to see what their tokens cost.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

use crate::analytics;
use crate::tokens::{self, Tokens};
use crate::waypost::SLUG;

/// A database whose server is stopped.
pub enum Database<'a> {
    /// The file.
    Sqlite(&'a Path),
    /// A pool.
    Postgres(&'a PgPool),
}

/// What to fill it with.
#[derive(Clone, Copy)]
pub enum What<'a> {
    /// So many progress rows, each of a user of its own.
    Progress(u32),
    /// A signed-in user for each of these tokens.
    SignedIn(&'a Tokens),
    /// So many attempts that were played, up to this time, with their events and calls; and a user of the console whose
    /// session has a token with this hash.
    Played(u64, i64, &'a str),
}

/// The end of every seeded grant: 2100-01-01.
const NEVER: i64 = 4_102_444_800_000;
/// Users that are signed in by one statement.
const CHUNK: usize = 1_000;

/// The tables that are written for a signed-in user. `{users}` has a row for each: the end of ids, the token's hash.
const SIGNED_IN: [&str; 3] = [
    "INSERT INTO end_users (id, organization_id, created_at)
        SELECT 'eu_' || u.column1, s.organization_id, 1767225600000
        FROM servers s CROSS JOIN (VALUES {users}) AS u WHERE s.slug = '{slug}'",
    "INSERT INTO oauth_grants (id, organization_id, server_id, end_user_id, client_id, client_name, scope, resource,
            generation, created_at, expires_at)
        SELECT 'ogr_' || u.column1, s.organization_id, s.id, 'eu_' || u.column1, 'bench', 'Bench', 'walk',
            'http://localhost/s/{slug}/mcp', 1, 1767225600000, {never}
        FROM servers s CROSS JOIN (VALUES {users}) AS u WHERE s.slug = '{slug}'",
    "INSERT INTO access_tokens (token_hash, grant_id, scope, created_at, expires_at)
        SELECT u.column2, 'ogr_' || u.column1, 'walk', 1767225600000, {never} FROM (VALUES {users}) AS u",
];

/// `end_users` and `progress`, the tables that are written for progress. Each seeded user has just started the walkthrough
/// with the most steps on the measured server. The ids sort by age and end at random, as the server's do. `{id}` and
/// `{numbers}` are the words in which the two databases differ.
const PROGRESS: [&str; 2] = [
    "INSERT INTO end_users (id, organization_id, tracking_id, created_at)
        SELECT 'eu_' || {id}, s.organization_id, 'seed-' || n.value, 1767225600000 + n.value
        FROM servers s CROSS JOIN {numbers} WHERE s.slug = '{slug}'",
    "INSERT INTO progress (id, organization_id, end_user_id, server_id, walkthrough_id, version_id, status,
            completed_steps, started_at, last_activity_at, metadata)
        SELECT 'wp_' || substr(u.id, 4), u.organization_id, u.id, s.id, v.walkthrough_id, v.id, 'in_progress', '',
            u.created_at, u.created_at, '{}'
        FROM servers s JOIN end_users u ON u.organization_id = s.organization_id AND u.tracking_id LIKE 'seed-%'
        CROSS JOIN (SELECT id, walkthrough_id FROM versions ORDER BY step_count DESC LIMIT 1) v WHERE s.slug = '{slug}'",
];

/// Fills the database, and lets it count what it has (`ANALYZE`).
///
/// When the tables change, the statements must follow: this goes around the server on purpose, since a million calls
/// would take minutes, and nobody signs in by hand here.
pub async fn seed(database: Database<'_>, what: What<'_>) -> Result<()> {
    let (statements, expected) = match what {
        What::Progress(n) => (progress(&database, n), 2 * u64::from(n)),
        What::SignedIn(tokens) => signed_in(tokens)?,
        What::Played(attempts, now, hash) => analytics::statements(&database, attempts, (now, hash)),
    };
    let inserted = match database {
        Database::Sqlite(file) => {
            let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(10));
            let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
            let mut transaction = pool.begin().await?;
            let mut inserted = 0;
            for text in statements {
                inserted += sqlx::query(AssertSqlSafe(text)).execute(&mut *transaction).await?.rows_affected();
            }
            transaction.commit().await?;
            sqlx::raw_sql("ANALYZE; PRAGMA wal_checkpoint(TRUNCATE)").execute(&pool).await?;
            pool.close().await;
            inserted
        }
        Database::Postgres(pool) => {
            let mut transaction = pool.begin().await?;
            let mut inserted = 0;
            for text in statements {
                inserted += sqlx::query(AssertSqlSafe(text)).execute(&mut *transaction).await?.rows_affected();
            }
            transaction.commit().await?;
            sqlx::query("VACUUM ANALYZE").execute(pool).await?;
            inserted
        }
    };
    ensure!(inserted == expected, "{inserted} rows were seeded instead of {expected}");
    Ok(())
}

/// The statements for `n` progress rows.
fn progress(database: &Database<'_>, n: u32) -> Vec<String> {
    let (id, numbers) = match database {
        Database::Sqlite(_) => (
            "printf('%012x', n.value) || lower(hex(randomblob(6)))",
            "(WITH RECURSIVE c (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < {n})
             SELECT value FROM c) n",
        ),
        Database::Postgres(_) => (
            "lpad(to_hex(n.value), 12, '0') || substr(md5(random()::text), 1, 12)",
            "generate_series(1, {n}) AS n (value)",
        ),
    };
    let numbers = numbers.replace("{n}", &n.to_string());
    let fill = |text: &str| text.replace("{id}", id).replace("{numbers}", &numbers).replace("{slug}", SLUG);
    PROGRESS.iter().map(|text| fill(text)).collect()
}

/// The statements for signed-in users, and how many rows they write.
fn signed_in(tokens: &Tokens) -> Result<(Vec<String>, u64)> {
    let mut users = Vec::new();
    for number in 0..tokens.len() {
        let hash = tokens::hash(&tokens.get(number)?);
        users.push(format!("('{number:012x}{}', '{hash}')", &hash[..12]));
    }
    let mut statements = Vec::new();
    for chunk in users.chunks(CHUNK) {
        let chunk = chunk.join(",");
        let fill =
            |text: &str| text.replace("{slug}", SLUG).replace("{never}", &NEVER.to_string()).replace("{users}", &chunk);
        statements.extend(SIGNED_IN.iter().map(|text| fill(text)));
    }
    Ok((statements, 3 * u64::try_from(users.len())?))
}
