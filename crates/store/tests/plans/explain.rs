//! Reads query plans.

use serde_json::Value;
use waypost_store::{Db, Dialect, on};

use crate::fixture::{Fixture, NOW, execute};

/// Statements that may scan whole tables: tables with one row, or queries that need all rows.
const WHOLE: &[&str] = &[
    "UPDATE config_version SET version = version + 1, recorded_changes = recorded_changes + 1 \
     WHERE id = 1 RETURNING version",
    "SELECT version, recorded_changes FROM config_version WHERE id = 1",
    "SELECT id, slug, name, toolboxes_enabled, gateway_enabled, created_at FROM organizations ORDER BY slug",
    // Values are deleted when no deployment uses them any more, so there are few.
    "SELECT DISTINCT organization_id FROM replaced_secrets ORDER BY organization_id",
    // Runs once, when the installation is set up.
    "SELECT id FROM organizations WHERE NOT EXISTS (SELECT 1 FROM memberships \
     WHERE memberships.organization_id = organizations.id AND memberships.role = 'owner') ORDER BY id",
    // Looks up each server in the log by index.
    "SELECT servers.organization_id, servers.id FROM servers LEFT JOIN analytics_rollups ON \
     analytics_rollups.server_id = servers.id WHERE EXISTS (SELECT 1 FROM walkthrough_events WHERE \
     walkthrough_events.server_id = servers.id AND walkthrough_events.created_at >= \
     COALESCE(analytics_rollups.events_until, 0) AND walkthrough_events.created_at < $1) OR EXISTS (SELECT 1 \
     FROM tool_calls WHERE tool_calls.server_id = servers.id AND tool_calls.created_at >= \
     COALESCE(analytics_rollups.calls_until, 0) AND tool_calls.created_at < $1) OR EXISTS (SELECT 1 FROM \
     walkthrough_events WHERE walkthrough_events.server_id = servers.id AND walkthrough_events.created_at >= \
     COALESCE(analytics_rollups.events_until, 0) AND walkthrough_events.created_at < $2 LIMIT 1 OFFSET $3) OR \
     EXISTS (SELECT 1 FROM tool_calls WHERE tool_calls.server_id = servers.id AND tool_calls.created_at >= \
     COALESCE(analytics_rollups.calls_until, 0) AND tool_calls.created_at < $2 LIMIT 1 OFFSET $3)",
];
/// Names in SQLite's plans that are not tables: rows of a JSON document, and intermediate results.
const NO_TABLES: &[&str] = &["json_each", "batch", "source", "ranked", "CONSTANT", "(subquery", "turns"];

/// Statements that need all rows of one table, and look up every other table by index.
const WHOLE_TABLE: &[(&str, &str)] = &[
    ("SELECT server_id FROM analytics_rollups WHERE EXISTS", "analytics_rollups"),
    ("SELECT id FROM servers WHERE EXISTS", "servers"),
    // Without a value for LIMIT, PostgreSQL expects a tenth of the table. A statement with one is planned for it.
    ("DELETE FROM oauth_grants WHERE (id) IN", "oauth_grants"),
];

/// Inserts many rows and, on PostgreSQL, updates the statistics, so that the planner expects large tables. SQLite
/// expects many rows without statistics.
pub(crate) async fn insert_many_rows(db: &Db, one: &Fixture) {
    const MANY: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)";
    let Fixture { organization, server, walkthrough, version, .. } = one;
    let now = NOW.0;
    let mut tx = db.begin().await.unwrap();
    let sql = format!(
        "{MANY} INSERT INTO end_users (id, organization_id, created_at)
         SELECT 'eu_c' || i, '{organization}', {now} FROM n;
         {MANY} INSERT INTO progress (id, organization_id, end_user_id, server_id, walkthrough_id, version_id, status,
             completed_steps, started_at, last_activity_at, metadata)
         SELECT 'wp_c' || i, '{organization}', 'eu_c' || i, '{server}', '{walkthrough}', '{version}', 'in_progress', '',
             {now}, {now}, '{{}}' FROM n;
         {MANY} INSERT INTO oauth_grants (id, organization_id, server_id, end_user_id, client_id, client_name, scope, resource,
             generation, created_at, expires_at)
         SELECT 'ogr_c' || i, '{organization}', '{server}', 'eu_c' || i, 'client', 'Client', 'walk', 'https://a.example', 1,
             {now}, {now} FROM n WHERE i <= 1000;
         {MANY} INSERT INTO agents (id, organization_id, name, kind, state, created_at, created_by)
         SELECT 'agt_c' || i, '{organization}', 'c' || i, 'service', 'active', {now}, 'usr_1' FROM n WHERE i <= 1000;
         {MANY} INSERT INTO oauth_grants (id, organization_id, agent_id, client_id, client_name, scope, resource, generation,
             created_at, expires_at)
         SELECT 'ogr_d' || i, '{organization}', 'agt_c' || i, 'client', 'Client', 'gateway', 'https://a.example', 1, {now},
             {now} FROM n WHERE i <= 1000;"
    );
    execute(&mut tx, sql).await;
    if db.dialect() == Dialect::Postgres {
        execute(&mut tx, "ANALYZE".to_owned()).await;
    }
    tx.commit().await.unwrap();
}

/// Returns the tables that the database would scan although it must not.
pub(crate) async fn scans(db: &Db, sql: &str) -> Vec<String> {
    if WHOLE.contains(&sql) {
        return Vec::new();
    }
    let mut scans = match db.dialect() {
        Dialect::Sqlite => sqlite_scans(db, sql).await,
        Dialect::Postgres => postgres_scans(db, sql).await,
    };
    let allowed = WHOLE_TABLE.iter().find(|(start, _)| sql.starts_with(start)).map(|(_, table)| *table);
    // A plan contains the name of the table or of an index, which begins with the name of the table.
    scans.retain(|scan| !allowed.is_some_and(|table| scan.split(' ').any(|word| word.starts_with(table))));
    scans
}

/// Returns the tables that SQLite would scan.
async fn sqlite_scans(db: &Db, sql: &str) -> Vec<String> {
    let sql = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let mut conn = db.read().await.unwrap();
    let rows: Vec<(i64, i64, i64, String)> = on!(&mut conn, c => sqlx::query_as(sql).fetch_all(c).await.unwrap());
    let scans = rows.into_iter().map(|(.., detail)| detail).filter(|detail| {
        detail.strip_prefix("SCAN ").is_some_and(|rest| !NO_TABLES.iter().any(|name| rest.starts_with(name)))
    });
    scans.collect()
}

/// Returns the tables that PostgreSQL would scan, completely or through an index without a condition.
async fn postgres_scans(db: &Db, sql: &str) -> Vec<String> {
    let mut tx = db.begin().await.unwrap();
    let prepare = format!(
        "SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan; PREPARE explained AS {sql}"
    );
    execute(&mut tx, prepare).await;
    let count =
        "SELECT CAST(cardinality(parameter_types) AS BIGINT) FROM pg_prepared_statements WHERE name = 'explained'";
    let count: i64 = on!(&mut tx, c => sqlx::query_scalar(count).fetch_one(c).await.unwrap());
    let values = vec!["NULL"; usize::try_from(count).unwrap()].join(", ");
    let values = if values.is_empty() { values } else { format!("({values})") };
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE explained{values}"));
    let plan: String = match waypost_store::Conn::raw(&mut tx) {
        waypost_store::db::Raw::Postgres(c) => {
            use sqlx::{Executor, Row};
            let row = c.fetch_one(sqlx::raw_sql(explain)).await.unwrap();
            row.try_get_unchecked(0).unwrap()
        }
        waypost_store::db::Raw::Sqlite(_) => unreachable!("called only for PostgreSQL"),
    };
    execute(&mut tx, "DEALLOCATE explained".to_owned()).await;
    let mut found = Vec::new();
    walk(&serde_json::from_str(&plan).unwrap(), &mut found);
    found
}

fn walk(node: &Value, found: &mut Vec<String>) {
    match node {
        Value::Array(nodes) => nodes.iter().for_each(|node| walk(node, found)),
        Value::Object(members) => {
            let kind = members.get("Node Type").and_then(Value::as_str).unwrap_or_default();
            let by_index = matches!(kind, "Index Scan" | "Index Only Scan" | "Bitmap Index Scan");
            if kind == "Seq Scan" || (by_index && !members.contains_key("Index Cond")) {
                let of = members.get("Relation Name").or_else(|| members.get("Index Name"));
                found.push(format!("{kind} of {}", of.and_then(Value::as_str).unwrap_or_default()));
            }
            members.values().for_each(|member| walk(member, found));
        }
        _ => {}
    }
}
