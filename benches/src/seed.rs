//! Seeds a Waypost database with progress of inactive users, to measure the effect of size, with signed-in users, to
//! measure the cost of tokens, or with attempts and their events, to measure the analytics page.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, PgPool};

use crate::activity;
use crate::tokens::{self, Tokens};
use crate::waypost::SLUG;

/// The database of a stopped server.
pub enum Database<'a> {
    /// A SQLite file.
    Sqlite(&'a Path),
    /// A PostgreSQL pool.
    Postgres(&'a PgPool),
}

/// The data to seed.
#[derive(Clone, Copy)]
pub enum SeedData<'a> {
    /// The given number of progress rows, each for a separate user.
    Progress(u32),
    /// A signed-in user for each of these tokens.
    SignedInUsers(&'a Tokens),
    /// The given number of attempts before the given time (Unix milliseconds), with their events and calls, and a
    /// console user with a session whose token has the given hash.
    Activity(u64, i64, &'a str),
}

/// Expiry of all seeded grants and tokens: 2100-01-01.
const FAR_FUTURE: i64 = 4_102_444_800_000;
/// Number of signed-in users per statement.
const CHUNK_SIZE: usize = 1_000;

/// The statements for signed-in users. `{users}` contains a row per user: the suffix of the IDs and the token hash.
const SIGNED_IN: [&str; 3] = [
    "INSERT INTO end_users (id, organization_id, created_at)
        SELECT 'eu_' || u.column1, s.organization_id, 1767225600000
        FROM servers s CROSS JOIN (VALUES {users}) AS u WHERE s.slug = '{slug}'",
    "INSERT INTO oauth_grants (id, organization_id, server_id, end_user_id, client_id, client_name, scope, resource,
            generation, created_at, expires_at)
        SELECT 'ogr_' || u.column1, s.organization_id, s.id, 'eu_' || u.column1, 'bench', 'Bench', 'walk',
            'http://localhost/s/{slug}/mcp', 1, 1767225600000, {expires_at}
        FROM servers s CROSS JOIN (VALUES {users}) AS u WHERE s.slug = '{slug}'",
    "INSERT INTO access_tokens (token_hash, grant_id, scope, created_at, expires_at)
        SELECT u.column2, 'ogr_' || u.column1, 'walk', 1767225600000, {expires_at} FROM (VALUES {users}) AS u",
];

/// The statements for progress, which write to `end_users` and `progress`. Each seeded user has started the longest
/// walkthrough of the measured server. Like the server's IDs, the IDs are ordered by age and end randomly. `{id}` and
/// `{numbers}` are replaced per database.
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

/// Seeds the database and updates its statistics (`ANALYZE`).
///
/// The statements must be updated when the tables change. They bypass the server deliberately, because a million calls
/// would take minutes.
pub async fn seed(database: Database<'_>, data: SeedData<'_>) -> Result<()> {
    let (statements, expected) = match data {
        SeedData::Progress(n) => (progress(&database, n), 2 * u64::from(n)),
        SeedData::SignedInUsers(tokens) => signed_in(tokens)?,
        SeedData::Activity(attempts, now, hash) => {
            activity::statements(matches!(database, Database::Sqlite(_)), attempts, now, hash)
        }
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

/// Returns the statements for `n` progress rows.
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

/// Returns the statements for signed-in users, and the number of rows they write.
fn signed_in(tokens: &Tokens) -> Result<(Vec<String>, u64)> {
    let mut users = Vec::new();
    for number in 0..tokens.len() {
        let hash = tokens::hash(&tokens.get(number)?);
        users.push(format!("('{number:012x}{}', '{hash}')", &hash[..12]));
    }
    let mut statements = Vec::new();
    for chunk in users.chunks(CHUNK_SIZE) {
        let chunk = chunk.join(",");
        let fill = |text: &str| {
            text.replace("{slug}", SLUG).replace("{expires_at}", &FAR_FUTURE.to_string()).replace("{users}", &chunk)
        };
        statements.extend(SIGNED_IN.iter().map(|text| fill(text)));
    }
    Ok((statements, 3 * u64::try_from(users.len())?))
}
