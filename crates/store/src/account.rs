//! Waypost accounts of end users (`platform_oauth`).

use waypost_core::Timestamp;
use waypost_core::account::Account;
use waypost_core::id::{AccountId, OrganizationId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    email: String,
    password_hash: Option<String>,
    created_at: i64,
}

impl From<Row> for Account {
    fn from(row: Row) -> Self {
        Self {
            id: AccountId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            email: row.email,
            password_hash: row.password_hash,
            created_at: Timestamp(row.created_at),
        }
    }
}

/// Returns the account with this email key.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_by_email(conn: &mut Conn, organization: &OrganizationId, email_key: &str) -> Result<Option<Account>> {
    const SQL: &str = "SELECT id, organization_id, email, password_hash, created_at FROM accounts
        WHERE organization_id = $1 AND email_key = $2";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(email_key).fetch_optional(c).await?);
    Ok(row.map(Account::from))
}

/// Inserts an account. Returns `false` if the email address already has one. PostgreSQL waits for a concurrent
/// transaction that inserts the same account, so the next [`find_by_email`] returns its row.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, account: &Account, email_key: &str) -> Result<bool> {
    const SQL: &str = "INSERT INTO accounts (id, organization_id, email, email_key, password_hash,
            created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (organization_id, email_key) DO NOTHING";
    let inserted = on!(conn, c => sqlx::query(SQL)
        .bind(account.id.as_str()).bind(account.organization_id.as_str()).bind(&account.email).bind(email_key)
        .bind(account.password_hash.as_deref()).bind(account.created_at.0).execute(c).await?.rows_affected());
    Ok(inserted > 0)
}

/// Sets the password hash of an account.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn set_password(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &AccountId,
    password_hash: &str,
    now: Timestamp,
) -> Result<()> {
    const SQL: &str = "UPDATE accounts SET password_hash = $3, updated_at = $4 WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(password_hash).bind(now.0)
        .execute(c).await?.rows_affected());
    Ok(())
}
