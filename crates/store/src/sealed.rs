//! The columns that hold sealed values: one list for the rotation of the secret key and for `waypost doctor`.

use crate::db::Conn;
use crate::error::Result;
use crate::on;
use crate::{identity_provider_state, identity_provider_token};

/// A column that holds sealed values.
#[derive(Debug, Clone, Copy)]
pub struct SealedColumn {
    /// The name of the table in the associated data of the sealed values: the table's name when the column was created.
    /// It must not change, even if the table is renamed.
    pub label: &'static str,
    /// The name of the column.
    pub column: &'static str,
    select: &'static str,
    update: &'static str,
    count: &'static str,
}

macro_rules! column {
    ($table:literal, $column:literal, $key:literal) => {
        column!($table, $column, $key, $table)
    };
    ($table:literal, $column:literal, $key:literal, $label:expr) => {
        SealedColumn {
            label: $label,
            column: $column,
            select: concat!(
                "SELECT ",
                $key,
                ", ",
                $column,
                " FROM ",
                $table,
                " WHERE ",
                $column,
                " IS NOT NULL AND ",
                $key,
                " > $1 AND substr(",
                $column,
                ", 1, length($2)) <> $2 ORDER BY ",
                $key,
                " LIMIT $3"
            ),
            update: concat!("UPDATE ", $table, " SET ", $column, " = $3 WHERE ", $key, " = $1 AND ", $column, " = $2"),
            count: concat!(
                "SELECT count(*) FROM ",
                $table,
                " WHERE ",
                $column,
                " IS NOT NULL AND substr(",
                $column,
                ", 1, length($1)) <> $1 AND substr(",
                $column,
                ", 1, length($2)) <> $2"
            ),
        }
    };
}

/// Every column that holds sealed values.
pub const COLUMNS: &[SealedColumn] = &[
    column!("agent_secrets", "value", "id"),
    column!("call_contents", "contents", "call_id"),
    column!("oauth_configs", "client_secret", "id"),
    column!("identity_provider_tokens", "access_token", "identity_id", identity_provider_token::SEAL_LABEL),
    column!("identity_provider_tokens", "refresh_token", "identity_id", identity_provider_token::SEAL_LABEL),
    column!("identity_provider_states", "verifier", "state_hash", identity_provider_state::SEAL_LABEL),
    column!("catalog_versions", "remote_url", "id"),
    column!("instances", "remote_url", "id"),
    column!("remote_connections", "credentials", "id"),
    column!("remote_connection_requests", "request", "state_hash"),
    column!("replaced_secrets", "value", "id"),
    column!("tool_secrets", "value", "id"),
    column!("webhooks", "secret", "id"),
    column!("webhooks", "previous_secret", "id"),
];

/// Returns the key and the sealed value of at most `limit` rows whose value does not begin with `prefix`, ordered by
/// key and starting after the key `after`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn list_outdated(
    conn: &mut Conn,
    column: &SealedColumn,
    after: &str,
    prefix: &str,
    limit: i64,
) -> Result<Vec<(String, String)>> {
    Ok(on!(conn, c => sqlx::query_as(column.select).bind(after).bind(prefix).bind(limit).fetch_all(c).await?))
}

/// Replaces the value `old` with `new`. Returns `false` if the row was changed in the meantime.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn replace(conn: &mut Conn, column: &SealedColumn, row: &str, old: &str, new: &str) -> Result<bool> {
    let changed = on!(conn, c => sqlx::query(column.update)
        .bind(row).bind(old).bind(new).execute(c).await?.rows_affected());
    Ok(changed > 0)
}

/// Counts the rows whose value begins with neither of the prefixes `current` and `previous`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_unreadable(conn: &mut Conn, column: &SealedColumn, current: &str, previous: &str) -> Result<i64> {
    Ok(on!(conn, c => sqlx::query_scalar(column.count).bind(current).bind(previous).fetch_one(c).await?))
}
