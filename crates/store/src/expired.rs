//! Deleting what has expired, some rows at a time, so that the writer is taken for a moment only.

use waypost_core::Timestamp;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// Tables whose rows end by themselves: name and key.
const TABLES: &[(&str, &str)] = &[
    // With its codes and what is away at a provider.
    ("authorization_requests", "id"),
    ("email_codes", "id"),
    ("upstream_states", "state_hash"),
    ("browser_sessions", "token_hash"),
    ("access_tokens", "token_hash"),
    // With its codes and refresh tokens: what was used up has to be known as such until then.
    ("oauth_grants", "id"),
    ("user_sessions", "id"),
    ("user_codes", "id"),
    ("user_sign_ins", "state_hash"),
    ("idempotency_keys", "actor, key"),
    ("editing_sessions", "id"),
    ("sign_in_attempts", "slot"),
];

/// What was deleted in one go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Rows, without those that went with them.
    pub rows: u64,
    /// Whether there may be more to delete.
    pub has_more: bool,
}

/// Deletes at most `limit` rows of each table that expired before `before`.
///
/// # Errors
/// When the database fails.
pub async fn delete(conn: &mut Conn, before: Timestamp, limit: u32) -> Result<Deleted> {
    let mut deleted = Deleted::default();
    for (table, key) in TABLES {
        let sql = format!(
            "DELETE FROM {table} WHERE ({key}) IN
                (SELECT {key} FROM {table} WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)"
        );
        let sql = sqlx::AssertSqlSafe(sql);
        let rows = on!(conn, c => sqlx::query(sql)
            .bind(before.0).bind(i64::from(limit)).execute(c).await?.rows_affected());
        deleted.rows += rows;
        deleted.has_more |= rows >= u64::from(limit);
    }
    Ok(deleted)
}
