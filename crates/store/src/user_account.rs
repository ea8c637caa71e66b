//! What becomes of unverified accounts when their address is verified (docs/security.md).

use waypost_core::Timestamp;
use waypost_core::id::{ApiKeyId, InvitationId, OrganizationId, UserId};

use crate::db::Conn;
use crate::error::Result;
use crate::on;

/// How much of an account was revoked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Passwords.
    pub passwords: u64,
    /// Sessions.
    pub sessions: u64,
    /// Links to identity providers.
    pub identities: u64,
}

/// Takes from a user everything that signs them in: password, name, sessions, provider links, and links made by the operator.
///
/// # Errors
/// When the database fails.
pub async fn revoke(conn: &mut Conn, user: &UserId, now: Timestamp) -> Result<Revoked> {
    const PASSWORD: &str = "UPDATE users SET password_hash = NULL WHERE id = $1 AND password_hash IS NOT NULL";
    const REST: &str = "UPDATE users SET name = NULL WHERE id = $1";
    const SESSIONS: &str = "DELETE FROM user_sessions WHERE user_id = $1";
    const IDENTITIES: &str = "DELETE FROM user_identities WHERE user_id = $1";
    const LINKS: &str = "UPDATE user_codes SET consumed_at = $2 WHERE user_id = $1 AND consumed_at IS NULL";
    on!(conn, c => sqlx::query(LINKS).bind(user.as_str()).bind(now.0).execute(c).await?.rows_affected());
    let mut counts = [0; 4];
    for (count, sql) in counts.iter_mut().zip([PASSWORD, SESSIONS, IDENTITIES, REST]) {
        *count = on!(conn, c => sqlx::query(sql).bind(user.as_str()).execute(c).await?.rows_affected());
    }
    let [passwords, sessions, identities, _] = counts;
    Ok(Revoked { passwords, sessions, identities })
}

/// An API key that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedKey {
    /// The key.
    pub id: ApiKeyId,
    /// Its organisation.
    pub organization_id: OrganizationId,
    /// Its name.
    pub name: String,
}

/// Deletes the API keys that an actor, a user or an API key, created, and those that were created with one of these.
///
/// # Errors
/// When the database fails.
pub async fn delete_keys(conn: &mut Conn, creator: &str) -> Result<Vec<DeletedKey>> {
    const SQL: &str = "DELETE FROM api_keys WHERE created_by = $1 RETURNING id, organization_id, name";
    let (mut deleted, mut creators) = (Vec::new(), vec![creator.to_owned()]);
    while let Some(creator) = creators.pop() {
        let rows: Vec<(String, String, String)> =
            on!(conn, c => sqlx::query_as(SQL).bind(&creator).fetch_all(c).await?);
        for (id, organization_id, name) in rows {
            creators.push(id.clone());
            let (id, organization_id) = (ApiKeyId::from_store(id), OrganizationId::from_store(organization_id));
            deleted.push(DeletedKey { id, organization_id, name });
        }
    }
    Ok(deleted)
}

/// Revokes the open invitations of an actor, a user or an API key; returns each with its organisation.
///
/// # Errors
/// When the database fails.
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

/// Moves the memberships and the assigned tickets of one user to another one, and deletes the first. A membership that both
/// have stays as it is.
///
/// # Errors
/// When the database fails.
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
