//! Console sign-ins in progress at an identity provider of the installation. The state is stored as a hash; the
//! verifier is sealed.

use waypost_core::Timestamp;

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// A console sign-in in progress at an identity provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSignIn {
    /// The hexadecimal SHA-256 of the state.
    pub state_hash: String,
    /// The hexadecimal SHA-256 of the browser's cookie.
    pub browser_hash: String,
    /// The provider, such as `github`.
    pub provider: String,
    /// The nonce that the ID token must contain.
    pub nonce: String,
    /// The PKCE verifier, sealed to the row.
    pub code_verifier: String,
    /// The path to redirect to after the sign-in.
    pub next: String,
    /// The time at which the user was redirected to the provider.
    pub created_at: Timestamp,
    /// The time at which the state expires.
    pub expires_at: Timestamp,
}

/// Inserts a sign-in from `network`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, row: &UserSignIn, network: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO user_sign_ins (state_hash, browser_hash, provider, nonce, code_verifier, next,
            created_at, expires_at, network) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    on!(conn, c => sqlx::query(SQL)
        .bind(&row.state_hash).bind(&row.browser_hash).bind(&row.provider).bind(&row.nonce).bind(&row.code_verifier)
        .bind(&row.next).bind(row.created_at.0).bind(row.expires_at.0).bind(network).execute(c).await?.rows_affected());
    Ok(())
}

/// Deletes and returns a sign-in, so that a state can be used only once. Returns `None` if it does not exist, has
/// expired, or belongs to another browser.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn consume(
    conn: &mut Conn,
    state_hash: &str,
    browser_hash: &str,
    now: Timestamp,
) -> Result<Option<UserSignIn>> {
    const SQL: &str = "DELETE FROM user_sign_ins WHERE state_hash = $1 AND browser_hash = $2 AND expires_at > $3
        RETURNING provider, nonce, code_verifier, next, created_at, expires_at";
    let row: Option<(String, String, String, String, i64, i64)> = on!(conn, c => sqlx::query_as(SQL)
        .bind(state_hash).bind(browser_hash).bind(now.0).fetch_optional(c).await?);
    Ok(row.map(|(provider, nonce, code_verifier, next, created_at, expires_at)| UserSignIn {
        state_hash: state_hash.to_owned(),
        browser_hash: browser_hash.to_owned(),
        provider,
        nonce,
        code_verifier,
        next,
        created_at: Timestamp(created_at),
        expires_at: Timestamp(expires_at),
    }))
}
