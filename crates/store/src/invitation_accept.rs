//! Invitations from the perspective of the invited user.

use waypost_core::Timestamp;
use waypost_core::id::{InvitationId, OrganizationId};
use waypost_core::organization::{Organization, Role};

use crate::db::Conn;
use crate::error::{Error, Result};
use crate::on;

/// An invitation that can be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenInvitation {
    /// The invitation.
    pub id: InvitationId,
    /// The organisation.
    pub organization: Organization,
    /// The invited email address as entered.
    pub email: String,
    /// The key of that email address.
    pub email_key: String,
    /// The role of the new member.
    pub role: Role,
    /// The actor who created the invitation.
    pub invited_by: String,
    /// The time at which it expires.
    pub expires_at: Timestamp,
    /// Whether its link was sent only by email, so that possession of the link proves access to the email address.
    pub emailed: bool,
}

#[derive(sqlx_macros::FromRow)]
pub(crate) struct Row {
    invitation_id: String,
    #[sqlx(flatten)]
    organization: crate::organization::Row,
    email: String,
    email_key: String,
    role: String,
    invited_by: String,
    expires_at: i64,
    emailed_at: Option<i64>,
}

impl TryFrom<Row> for OpenInvitation {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        let corrupt = |reason| Error::Corrupt { table: "invitations", id: row.invitation_id.clone(), reason };
        Ok(Self {
            role: row.role.parse().map_err(corrupt)?,
            id: InvitationId::from_store(row.invitation_id),
            organization: row.organization.into(),
            email: row.email,
            email_key: row.email_key,
            invited_by: row.invited_by,
            expires_at: Timestamp(row.expires_at),
            emailed: row.emailed_at.is_some(),
        })
    }
}

/// Accepts an invitation. Returns `false` if it has been accepted or revoked, or has expired.
///
/// # Errors
/// Returns an error if the database fails.
pub async fn accept(conn: &mut Conn, organization: &OrganizationId, id: &InvitationId, now: Timestamp) -> Result<bool> {
    const SQL: &str = "UPDATE invitations SET accepted_at = $3 WHERE id = $1 AND organization_id = $2
        AND accepted_at IS NULL AND revoked_at IS NULL AND expires_at > $3";
    let accepted = on!(conn, c => sqlx::query(SQL)
        .bind(id.as_str()).bind(organization.as_str()).bind(now.0).execute(c).await?.rows_affected());
    Ok(accepted > 0)
}
