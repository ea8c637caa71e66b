//! Invitations. Only the SHA-256 of the secret is stored.

use waypost_core::Timestamp;
use waypost_core::id::{InvitationId, OrganizationId};
use waypost_core::invitation::Invitation;
use waypost_core::organization::Role;

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::{on, organization};

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    id: String,
    organization_id: String,
    email: String,
    role: String,
    invited_by: String,
    created_at: i64,
    expires_at: i64,
    accepted_at: Option<i64>,
    revoked_at: Option<i64>,
}

/// The columns of [`Row`].
macro_rules! columns {
    () => {
        "id, organization_id, email, role, invited_by, created_at, expires_at, accepted_at, revoked_at"
    };
}

impl TryFrom<Row> for Invitation {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let role =
            row.role.parse().map_err(|reason| Error::Corrupt { table: "invitations", id: row.id.clone(), reason })?;
        Ok(Self {
            id: InvitationId::from_store(row.id),
            organization_id: OrganizationId::from_store(row.organization_id),
            email: row.email,
            role,
            invited_by: row.invited_by,
            created_at: Timestamp(row.created_at),
            expires_at: Timestamp(row.expires_at),
            accepted_at: row.accepted_at.map(Timestamp),
            revoked_at: row.revoked_at.map(Timestamp),
        })
    }
}

/// Locks the invitations of an organisation until the end of the transaction. Returns `false` if the organisation does
/// not exist. The limit on pending invitations and their uniqueness per email address are checked under this lock.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn lock(conn: &mut Conn, organization: &OrganizationId) -> Result<bool> {
    organization::lock(conn, organization).await
}

/// Inserts an invitation. `email_key` is [`waypost_core::email::Email::key`], and `token_hash` the hexadecimal SHA-256
/// of the secret.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn insert(conn: &mut Conn, invitation: &Invitation, email_key: &str, token_hash: &str) -> Result<()> {
    const SQL: &str = "INSERT INTO invitations (id, organization_id, email, email_key, role, token_hash, invited_by,
            created_at, expires_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    on!(conn, c => sqlx::query(SQL)
        .bind(invitation.id.as_str()).bind(invitation.organization_id.as_str()).bind(&invitation.email).bind(email_key)
        .bind(invitation.role.as_str()).bind(token_hash).bind(&invitation.invited_by)
        .bind(invitation.created_at.0).bind(invitation.expires_at.0).execute(c).await?.rows_affected());
    Ok(())
}

/// Returns the invitation with this ID.
///
/// # Errors
/// Returns an error if the database fails or the row cannot be read.
pub async fn find(conn: &mut Conn, organization: &OrganizationId, id: &InvitationId) -> Result<Option<Invitation>> {
    const SQL: &str = concat!("SELECT ", columns!(), " FROM invitations WHERE id = $1 AND organization_id = $2");
    let row: Option<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(id.as_str()).bind(organization.as_str()).fetch_optional(c).await?);
    row.map(Invitation::try_from).transpose()
}

/// Returns the newest invitations of an organisation, newest first. With `before`, returns only older ones.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn list(
    conn: &mut Conn,
    organization: &OrganizationId,
    before: Option<&InvitationId>,
    limit: i64,
) -> Result<Vec<Invitation>> {
    const NEWEST: &str =
        concat!("SELECT ", columns!(), " FROM invitations WHERE organization_id = $1 ORDER BY id DESC LIMIT $2");
    const OLDER: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM invitations WHERE organization_id = $1 AND id < $3 ORDER BY id DESC LIMIT $2"
    );
    let rows: Vec<Row> = match before {
        None => on!(conn, c => sqlx::query_as(NEWEST).bind(organization.as_str()).bind(limit).fetch_all(c).await?),
        Some(before) => on!(conn, c => sqlx::query_as(OLDER)
            .bind(organization.as_str()).bind(limit).bind(before.as_str()).fetch_all(c).await?),
    };
    rows.into_iter().map(Invitation::try_from).collect()
}

/// Returns the number of invitations of an organisation that are pending at `now`.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn count_pending(conn: &mut Conn, organization: &OrganizationId, now: Timestamp) -> Result<i64> {
    const SQL: &str = "SELECT count(*) FROM invitations WHERE organization_id = $1
        AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > $2";
    Ok(on!(conn, c => sqlx::query_scalar(SQL).bind(organization.as_str()).bind(now.0).fetch_one(c).await?))
}

/// Replaces the secret of an invitation and extends its expiry. The old secret becomes invalid. Returns `false` if the
/// invitation does not exist, is accepted, or is revoked.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn renew(conn: &mut Conn, invitation: &Invitation, token_hash: &str) -> Result<bool> {
    const SQL: &str = "UPDATE invitations SET token_hash = $3, expires_at = $4, emailed_at = NULL WHERE id = $1 AND organization_id = $2
        AND accepted_at IS NULL AND revoked_at IS NULL";
    let renewed = on!(conn, c => sqlx::query(SQL)
        .bind(invitation.id.as_str()).bind(invitation.organization_id.as_str()).bind(token_hash)
        .bind(invitation.expires_at.0).execute(c).await?.rows_affected());
    Ok(renewed > 0)
}

/// Records that the link with this secret is sent only by email and not shown to anyone. Returns `false` if the
/// invitation does not exist, is accepted or revoked, or its secret has been replaced.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn mark_emailed(
    conn: &mut Conn,
    organization: &OrganizationId,
    id: &InvitationId,
    token_hash: &str,
    now: Timestamp,
) -> Result<bool> {
    const SQL: &str =
        "UPDATE invitations SET emailed_at = $4 WHERE id = $1 AND organization_id = $2 AND token_hash = $3
        AND accepted_at IS NULL AND revoked_at IS NULL";
    let marked = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(token_hash).bind(now.0).execute(c).await?.rows_affected());
    Ok(marked > 0)
}

/// Revokes all pending invitations of an email address except `except`. Returns their IDs.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke_for_email(
    conn: &mut Conn,
    organization: &OrganizationId,
    email_key: &str,
    except: Option<&InvitationId>,
    now: Timestamp,
) -> Result<Vec<InvitationId>> {
    const SQL: &str =
        "UPDATE invitations SET revoked_at = $3 WHERE email_key = $2 AND organization_id = $1 AND id <> $4
        AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > $3 RETURNING id";
    let except = except.map_or("", InvitationId::as_str);
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(organization.as_str()).bind(email_key).bind(now.0).bind(except).fetch_all(c).await?);
    Ok(ids.into_iter().map(InvitationId::from_store).collect())
}

/// Returns the highest role among the pending invitations of an email address, apart from `except`; `None` if there are
/// none.
///
/// # Errors
/// Returns an error if the database fails or a row cannot be read.
pub async fn find_highest_pending_role(
    conn: &mut Conn,
    organization: &OrganizationId,
    email_key: &str,
    except: Option<&InvitationId>,
    now: Timestamp,
) -> Result<Option<Role>> {
    const SQL: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM invitations WHERE email_key = $2 AND organization_id = $1 AND id <> $4
            AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > $3"
    );
    let except = except.map_or("", InvitationId::as_str);
    let rows: Vec<Row> = on!(conn, c => sqlx::query_as(SQL)
        .bind(organization.as_str()).bind(email_key).bind(now.0).bind(except).fetch_all(c).await?);
    let mut highest: Option<Role> = None;
    for row in rows {
        let role = Invitation::try_from(row)?.role;
        highest = Some(highest.map_or(role, |highest| if highest.covers(role) { highest } else { role }));
    }
    Ok(highest)
}

/// Revokes the invitations that an actor (a user or an API key) created in an organisation and that are neither
/// accepted nor already revoked, including expired ones. With `only`, revokes only those with that role. Returns their
/// IDs.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke_by_inviter(
    conn: &mut Conn,
    organization: &OrganizationId,
    inviter: &str,
    only: Option<Role>,
    now: Timestamp,
) -> Result<Vec<InvitationId>> {
    const SQL: &str = "UPDATE invitations SET revoked_at = $3 WHERE invited_by = $2 AND organization_id = $1
        AND ($4 = '' OR role = $4) AND accepted_at IS NULL AND revoked_at IS NULL RETURNING id";
    let only = only.map_or("", Role::as_str);
    let ids: Vec<String> = on!(conn, c => sqlx::query_scalar(SQL)
        .bind(organization.as_str()).bind(inviter).bind(now.0).bind(only).fetch_all(c).await?);
    Ok(ids.into_iter().map(InvitationId::from_store).collect())
}

/// Revokes an invitation. Returns `false` if it does not exist, is accepted, or is already revoked.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn revoke(conn: &mut Conn, organization: &OrganizationId, id: &InvitationId, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE invitations SET revoked_at = $3 WHERE id = $1 AND organization_id = $2
        AND accepted_at IS NULL AND revoked_at IS NULL";
    let revoked = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).execute(c).await?.rows_affected());
    Ok(revoked > 0)
}
