//! Deletion of expired rows, in small batches that block the writer only briefly.

use waypost_core::Timestamp;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// Tables with rows that expire: name and key.
const TABLES: &[(&str, &str)] = &[
    // The request's codes and sign-ins in progress at a provider are deleted as well.
    ("authorization_requests", "id"),
    ("email_codes", "id"),
    ("identity_provider_states", "state_hash"),
    ("remote_connection_requests", "state_hash"),
    ("initial_approvals", "instance_id"),
    ("browser_sessions", "token_hash"),
    ("access_tokens", "token_hash"),
    // The grant's codes and tokens are deleted as well. Used ones are kept until then, to detect reuse.
    ("oauth_grants", "id"),
    ("user_sessions", "id"),
    ("user_codes", "id"),
    ("user_sign_ins", "state_hash"),
    ("idempotency_keys", "actor, key"),
    ("editing_sessions", "id"),
    ("sign_in_attempts", "slot"),
];

/// The result of deleting a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeletedRows {
    /// The number of deleted rows, without cascaded deletions.
    pub rows: u64,
    /// Whether more expired rows may remain.
    pub has_more: bool,
}

/// Deletes at most `limit` rows of each table that expired before `before`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete(conn: &mut Conn, before: Timestamp, limit: u32) -> Result<DeletedRows> {
    let mut deleted = DeletedRows::default();
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
