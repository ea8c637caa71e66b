//! Attempts to sign in within a day, counted for each account, whether it exists or not. A slot stands for an account; the
//! caller derives it, so that the table holds no addresses and has a bounded size.

use waypost_core::Timestamp;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// Attempts are counted for this long from the first one on.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Returns the number of attempts that are counted in a slot at `now`.
///
/// # Errors
/// When the database fails.
pub async fn count(conn: &mut Conn, slot: &str, now: Timestamp) -> Result<i64> {
    const SQL: &str = "SELECT attempts FROM sign_in_attempts WHERE slot = $1 AND expires_at > $2";
    let attempts: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL).bind(slot).bind(now.0).fetch_optional(c).await?);
    Ok(attempts.unwrap_or(0))
}

/// Counts an attempt and returns the number of those that are counted then, this one included.
///
/// # Errors
/// When the database fails.
pub async fn add(conn: &mut Conn, slot: &str, now: Timestamp) -> Result<i64> {
    const SQL: &str = "INSERT INTO sign_in_attempts (slot, attempts, expires_at) VALUES ($1, 1, $3)
        ON CONFLICT (slot) DO UPDATE SET
            attempts = CASE WHEN sign_in_attempts.expires_at > $2 THEN sign_in_attempts.attempts + 1 ELSE 1 END,
            expires_at = CASE WHEN sign_in_attempts.expires_at > $2 THEN sign_in_attempts.expires_at
                ELSE excluded.expires_at END
        RETURNING attempts";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(slot).bind(now.0).bind(now.plus(DAY_MS).0).fetch_one(c).await?))
}
