//! Cleanup of unverified accounts when their email address is verified (docs/security.md).

use waypost_core::Timestamp;
use waypost_core::id::{ApiKeyId, InvitationId, OrganizationId, UserId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// The number of credentials of an account that were revoked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RevocationCounts {
    /// The passwords.
    pub passwords: u64,
    /// The sessions.
    pub sessions: u64,
    /// The links to identity providers.
    pub identities: u64,
}

/// Revokes everything that lets a user sign in: password, sessions, provider links, and links created by the operator.
/// Also clears the name.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke_access(conn: &mut Conn, user: &UserId, now: Timestamp) -> Result<RevocationCounts> {
    const PASSWORD: &str = "UPDATE users SET password_hash = NULL WHERE id = $1 AND password_hash IS NOT NULL";
    const NAME: &str = "UPDATE users SET name = NULL WHERE id = $1";
    const SESSIONS: &str = "DELETE FROM user_sessions WHERE user_id = $1";
    const IDENTITIES: &str = "DELETE FROM user_identities WHERE user_id = $1";
    const LINKS: &str = "UPDATE user_codes SET consumed_at = $2 WHERE user_id = $1 AND consumed_at IS NULL";
    on!(conn, c => sqlx::query(LINKS).bind(user.as_str()).bind(now.0).execute(c).await?.rows_affected());
    let mut counts = [0; 4];
    for (count, sql) in counts.iter_mut().zip([PASSWORD, SESSIONS, IDENTITIES, NAME]) {
        *count = on!(conn, c => sqlx::query(sql).bind(user.as_str()).execute(c).await?.rows_affected());
    }
    let [passwords, sessions, identities, _] = counts;
    Ok(RevocationCounts { passwords, sessions, identities })
}

/// A deleted API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedApiKey {
    /// The ID of the key.
    pub id: ApiKeyId,
    /// The organisation.
    pub organization_id: OrganizationId,
    /// The name of the key.
    pub name: String,
}

/// Deletes the API keys that an actor (a user or an API key) created, and recursively those that were created with
/// these keys. Returns the deleted keys.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn delete_api_keys(conn: &mut Conn, creator: &str) -> Result<Vec<DeletedApiKey>> {
    const SQL: &str = "DELETE FROM api_keys WHERE created_by = $1 RETURNING id, organization_id, name";
    let (mut deleted, mut creators) = (Vec::new(), vec![creator.to_owned()]);
    while let Some(creator) = creators.pop() {
        let rows: Vec<(String, String, String)> =
            on!(conn, c => sqlx::query_as(SQL).bind(&creator).fetch_all(c).await?);
        for (id, organization_id, name) in rows {
            creators.push(id.clone());
            let (id, organization_id) = (ApiKeyId::from_store(id), OrganizationId::from_store(organization_id));
            deleted.push(DeletedApiKey { id, organization_id, name });
        }
    }
    Ok(deleted)
}

/// Revokes the pending invitations that an actor (a user or an API key) created. Returns each with its organisation.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke_invitations(
    conn: &mut Conn,
    actor: &str,
    now: Timestamp,
) -> Result<Vec<(OrganizationId, InvitationId)>> {
    const SQL: &str = "UPDATE invitations SET revoked_at = $2 WHERE invited_by = $1
        AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > $2 RETURNING organization_id, id";
    let rows: Vec<(String, String)> = on!(conn, c => sqlx::query_as(SQL).bind(actor).bind(now.0).fetch_all(c).await?);
    let ids = |(organization, id)| (OrganizationId::from_store(organization), InvitationId::from_store(id));
    Ok(rows.into_iter().map(ids).collect())
}

/// Moves the memberships and assigned tickets of one user to another, and deletes the first user. Existing memberships
/// of the second user are unchanged.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn merge(conn: &mut Conn, from: &UserId, into: &UserId) -> Result<()> {
    const MEMBERSHIPS: &str = "INSERT INTO memberships (organization_id, user_id, role, created_at)
        SELECT organization_id, $2, role, created_at FROM memberships WHERE user_id = $1
        ON CONFLICT (organization_id, user_id) DO NOTHING";
    const TICKETS: &str = "UPDATE tickets SET assignee_id = $2 WHERE assignee_id = $1";
    const DELETE: &str = "DELETE FROM users WHERE id = $1";
    for sql in [MEMBERSHIPS, TICKETS] {
        on!(conn, c => sqlx::query(sql).bind(from.as_str()).bind(into.as_str()).execute(c).await?.rows_affected());
    }
    on!(conn, c => sqlx::query(DELETE).bind(from.as_str()).execute(c).await?.rows_affected());
    Ok(())
}
