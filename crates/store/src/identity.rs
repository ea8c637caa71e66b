//! Identities of end users: issuer and subject, unique within an organisation.

use waypost_core::Timestamp;
use waypost_core::id::{EndUserId, IdentityId, OrganizationId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// An identity of an end user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The identity.
    pub id: IdentityId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The end user.
    pub end_user_id: EndUserId,
    /// The issuer of the provider, or `waypost` for Waypost accounts.
    pub issuer: String,
    /// The subject at the issuer.
    pub subject: String,
    /// The email address as stated by the issuer.
    pub email: Option<String>,
    /// Whether the issuer has verified the email address.
    pub email_verified: bool,
    /// The time of the first sign-in.
    pub created_at: Timestamp,
    /// The time of the last sign-in.
    pub last_sign_in_at: Timestamp,
}

#[derive(sqlx_macros::FromRow)]
struct Row {
    id: String,
    organization_id: String,
    end_user_id: String,
    issuer: String,
    subject: String,
    email: Option<String>,
    email_verified: bool,
    created_at: i64,
    last_sign_in_at: i64,
}

impl From<Row> for Identity {
    fn from(row: Row) -> Self {
        Self {
            id: IdentityId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            end_user_id: EndUserId::from_store(row.end_user_id),
            issuer: row.issuer,
            subject: row.subject,
            email: row.email,
            email_verified: row.email_verified,
            created_at: Timestamp(row.created_at),
            last_sign_in_at: Timestamp(row.last_sign_in_at),
        }
    }
}

/// Returns the identity of a subject, if there is one.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find(
    conn: &mut Conn,
    organization: &OrganizationId,
    issuer: &str,
    subject: &str,
) -> Result<Option<Identity>> {
    const SQL: &str = "SELECT id, organization_id, end_user_id, issuer, subject, email, email_verified, created_at,
            last_sign_in_at FROM identities
        WHERE organization_id = $1 AND issuer = $2 AND subject = $3";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(issuer).bind(subject).fetch_optional(c).await?);
    Ok(row.map(Identity::from))
}

/// Returns the oldest identity with the verified email `email_key` from an issuer other than `issuer`. The same issuer
/// is excluded, because if it states one email address for two subjects, it has reassigned the address.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn find_linkable(
    conn: &mut Conn,
    organization: &OrganizationId,
    issuer: &str,
    email_key: &str,
) -> Result<Option<Identity>> {
    const SQL: &str = "SELECT id, organization_id, end_user_id, issuer, subject, email, email_verified, created_at,
            last_sign_in_at FROM identities
        WHERE organization_id = $1 AND email_key = $2 AND email_verified AND issuer <> $3 ORDER BY id LIMIT 1";
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(email_key).bind(issuer).fetch_optional(c).await?);
    Ok(row.map(Identity::from))
}

/// Inserts an identity. Returns `false` if the subject already has one. PostgreSQL waits for a concurrent transaction
/// that inserts the same identity, so the next [`find`] returns its row.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, identity: &Identity, email_key: Option<&str>) -> Result<bool> {
    const SQL: &str = "INSERT INTO identities (id, organization_id, end_user_id, issuer, subject, email, email_key,
            email_verified, created_at, last_sign_in_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (organization_id, issuer, subject) DO NOTHING";
    let inserted = on!(conn, c => sqlx::query(SQL)
        .bind(identity.id.as_str()).bind(identity.organization_id.as_str()).bind(identity.end_user_id.as_str())
        .bind(&identity.issuer).bind(&identity.subject).bind(identity.email.as_deref()).bind(email_key)
        .bind(identity.email_verified).bind(identity.created_at.0).bind(identity.last_sign_in_at.0)
        .execute(c).await?.rows_affected());
    Ok(inserted > 0)
}

/// Records a sign-in: its time, and the email address that the issuer now states.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn record_sign_in(conn: &mut Conn, identity: &Identity, email_key: Option<&str>) -> Result<()> {
    const SQL: &str = "UPDATE identities SET email = $3, email_key = $4, email_verified = $5, last_sign_in_at = $6
        WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(identity.id.as_str()).bind(identity.organization_id.as_str()).bind(identity.email.as_deref())
        .bind(email_key).bind(identity.email_verified).bind(identity.last_sign_in_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}
