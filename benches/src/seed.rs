//! Fills a database of Waypost with progress of users who never call, to see what size costs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

use crate::waypost::SLUG;

/// A database whose server is stopped.
pub enum Database<'a> {
    /// The file.
    Sqlite(&'a Path),
    /// A pool.
    Postgres(&'a PgPool),
}

/// `end_users` and `progress`, the only tables that are written here. Each seeded user has just started the walkthrough
/// with the most steps on the measured server. The ids sort by age and end at random, as the server's do. `{id}` and
/// `{numbers}` are the words in which the two databases differ.
const STATEMENTS: [&str; 2] = [
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

/// Adds `n` progress rows, each of a user of its own, and lets the database count what it has (`ANALYZE`).
///
/// When the tables change, `STATEMENTS` must follow: this goes around the server on purpose, since a million calls would
/// take minutes.
pub async fn seed_progress(database: Database<'_>, n: u32) -> Result<()> {
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
    let inserted = match database {
        Database::Sqlite(file) => {
            let options = SqliteConnectOptions::new().filename(file).busy_timeout(Duration::from_secs(10));
            let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
            let mut transaction = pool.begin().await?;
            let mut inserted = 0;
            for text in STATEMENTS {
                inserted += sqlx::query(AssertSqlSafe(fill(text))).execute(&mut *transaction).await?.rows_affected();
            }
            transaction.commit().await?;
            sqlx::raw_sql("ANALYZE; PRAGMA wal_checkpoint(TRUNCATE)").execute(&pool).await?;
            pool.close().await;
            inserted
        }
        Database::Postgres(pool) => {
            let mut transaction = pool.begin().await?;
            let mut inserted = 0;
            for text in STATEMENTS {
                inserted += sqlx::query(AssertSqlSafe(fill(text))).execute(&mut *transaction).await?.rows_affected();
            }
            transaction.commit().await?;
            sqlx::query("VACUUM ANALYZE").execute(pool).await?;
            inserted
        }
    };
    ensure!(inserted == 2 * u64::from(n), "{inserted} rows were seeded instead of {}", 2 * u64::from(n));
    Ok(())
}
