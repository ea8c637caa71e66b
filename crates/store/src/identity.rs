//! Identities: who an end user is, by issuer and subject, once in an organisation.

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
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// Who it is.
    pub end_user_id: EndUserId,
    /// Who says so: the issuer of the provider, or `waypost`.
    pub issuer: String,
    /// What the issuer calls them.
    pub subject: String,
    /// The address that the issuer tells, as it was written.
    pub email: Option<String>,
    /// Whether the issuer has verified that address.
    pub email_verified: bool,
    /// When they signed in first.
    pub created_at: Timestamp,
    /// When they signed in last.
    pub last_sign_in_at: Timestamp,
}

#[derive(sqlx::FromRow)]
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

/// The identity of a subject, when they were seen before.
///
/// # Errors
/// When the database fails.
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

/// The oldest identity that another issuer than `issuer` gave to the verified address `email_key`. The same issuer
/// telling two subjects by one address means that it gave the address to somebody else.
///
/// # Errors
/// When the database fails.
pub async fn find_to_link(
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

/// Inserts an identity; false when the subject has one by now. PostgreSQL waits for a transaction that is inserting the
/// same, so the next [`find`] sees what it wrote.
///
/// # Errors
/// When the database fails.
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

/// Writes down a sign-in: its time, and what the issuer tells of the address now.
///
/// # Errors
/// When the database fails.
pub async fn signed_in(conn: &mut Conn, identity: &Identity, email_key: Option<&str>) -> Result<()> {
    const SQL: &str = "UPDATE identities SET email = $3, email_key = $4, email_verified = $5, last_sign_in_at = $6
        WHERE id = $1 AND organization_id = $2";
    on!(conn, c => sqlx::query(SQL)
        .bind(identity.id.as_str()).bind(identity.organization_id.as_str()).bind(identity.email.as_deref())
        .bind(email_key).bind(identity.email_verified).bind(identity.last_sign_in_at.0)
        .execute(c).await?.rows_affected());
    Ok(())
}
