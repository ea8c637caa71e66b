//! Counts sign-in attempts per account and day, whether the account exists or not. A slot represents all accounts with
//! the same keyed hash. The caller derives the slot, so that the table contains no email addresses and has a bounded
//! size.

use waypost_core::Timestamp;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// Attempts are counted for this long after the first one.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Returns the number of attempts in a slot at `now`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count(conn: &mut Conn, slot: &str, now: Timestamp) -> Result<i64> {
    const SQL: &str = "SELECT attempts FROM sign_in_attempts WHERE slot = $1 AND expires_at > $2";
    let attempts: Option<i64> = on!(conn, c => sqlx::query_scalar(SQL).bind(slot).bind(now.0).fetch_optional(c).await?);
    Ok(attempts.unwrap_or(0))
}

/// Counts an attempt and returns the number of attempts, including this one.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn increment(conn: &mut Conn, slot: &str, now: Timestamp) -> Result<i64> {
    const SQL: &str = "INSERT INTO sign_in_attempts (slot, attempts, expires_at) VALUES ($1, 1, $3)
        ON CONFLICT (slot) DO UPDATE SET
            attempts = CASE WHEN sign_in_attempts.expires_at > $2 THEN sign_in_attempts.attempts + 1 ELSE 1 END,
            expires_at = CASE WHEN sign_in_attempts.expires_at > $2 THEN sign_in_attempts.expires_at
                ELSE excluded.expires_at END
        RETURNING attempts";
    Ok(on!(conn, c => sqlx::query_scalar(SQL)
        .bind(slot).bind(now.0).bind(now.plus(DAY_MS).0).fetch_one(c).await?))
}
