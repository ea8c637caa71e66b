//! `/invitations`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::Timestamp;
use waypost_core::id::InvitationId;
use waypost_core::invitation::InvitationState;
use waypost_ops::invitation_emails::{self, SentInvitation};
use waypost_ops::invitations::{self, InvitationView};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, created, no_store, parse_id};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};
use waypost_core::organization::Role;
use waypost_http_kit::request_info::RequestInfo;

/// The operations on invitations.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list, create)).routes(routes!(get, delete)).routes(routes!(resend))
}

/// An invitation to the organisation.
#[derive(Debug, Serialize, ToSchema)]
struct Invitation {
    #[schema(example = "inv_0123456789abcdef01234567")]
    id: String,
    /// The invited email. Only its owner can accept the invitation.
    email: String,
    role: Role,
    #[schema(inline)]
    state: InvitationState,
    /// The ID of the user or API key that created the invitation, or `operator`.
    invited_by: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// 48 hours after the invitation was last sent.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Null if the invitation has not been accepted.
    #[schema(format = DateTime)]
    accepted_at: Option<String>,
    /// Null if the invitation has not been revoked.
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
}

impl Invitation {
    fn new(view: InvitationView, now: Timestamp) -> Self {
        let invitation = view.invitation;
        let state = invitation.state(now);
        Self {
            id: invitation.id.to_string(),
            state,
            email: invitation.email,
            role: invitation.role,
            invited_by: invitation.invited_by,
            created_at: invitation.created_at.rfc3339(),
            expires_at: invitation.expires_at.rfc3339(),
            accepted_at: invitation.accepted_at.map(Timestamp::rfc3339),
            revoked_at: invitation.revoked_at.map(Timestamp::rfc3339),
        }
    }
}

/// An invitation that was just created or resent.
#[derive(Debug, Serialize, ToSchema)]
struct InvitationWithLink {
    #[serde(flatten)]
    invitation: Invitation,
    /// The link for accepting the invitation, returned only once. Pass it on to the invited person. Null if the
    /// installation sends email: the link then proves the ownership of the email, so it is sent to that email only.
    link: Option<String>,
    /// Whether an email with the link was queued. If this is false and `link` is null, resend the invitation.
    mailed: bool,
}

impl InvitationWithLink {
    fn new(sent: SentInvitation, now: Timestamp) -> Self {
        Self { invitation: Invitation::new(sent.listed, now), link: sent.link, mailed: sent.mailed }
    }
}

/// An invitation to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InvitationCreate {
    #[schema(min_length = 3, max_length = 254, example = "anna@example.com")]
    email: String,
    /// The role of the new member. It cannot exceed the caller's own role.
    role: Role,
}

/// Lists the invitations of the organisation, newest first.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/invitations", tag = "invitations", operation_id = "list_invitations", params(Paging),
    responses((status = 200, body = Page<Invitation>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Invitation>>> {
    let limit = paging.limit()?;
    let before: Option<InvitationId> = paging.parse_cursor()?;
    let invitations = invitations::list(&cx, web.ops(), &organization_id, before.as_ref(), limit + 1).await?;
    let items = invitations.into_iter().map(|view| Invitation::new(view, cx.now())).collect();
    Ok(Json(Page::paginate(items, limit, |invitation| invitation.id.clone())))
}

/// Invites a person by email.
///
/// If the installation sends email, the link is sent to that email only. Otherwise the link is in the response, and
/// accepting it creates an account that is valid for this organisation only. A pending invitation for the same email is
/// replaced. Requires the role `admin`.
#[utoipa::path(post, path = "/invitations", tag = "invitations", operation_id = "create_invitation",
    request_body = InvitationCreate, responses((status = 201, body = InvitationWithLink), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    info: RequestInfo,
    Json(new): Json<InvitationCreate>,
) -> ApiResult<Response> {
    web.check_invitation_limits(&info)?;
    let invited = invitations::create(&cx, web.ops(), &organization_id, &new.email, new.role).await?;
    let sent = invitation_emails::send(&cx, web.ops(), &invited, &web.public_url, web.mail.as_ref()).await?;
    let body = InvitationWithLink::new(sent, cx.now());
    Ok(no_store(created(&format!("invitations/{}", body.invitation.id), &body)))
}

/// Returns an invitation.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/invitations/{id}", tag = "invitations", operation_id = "get_invitation",
    params(("id" = String, Path, description = "The ID of the invitation (`inv_…`).")),
    responses((status = 200, body = Invitation), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Invitation>> {
    let invitation = invitations::get(&cx, web.ops(), &organization_id, &parse_id(&text, "invitation")?).await?;
    Ok(Json(Invitation::new(invitation, cx.now())))
}

/// Revokes an invitation. Its link stops working.
///
/// Requires the role `admin`.
#[utoipa::path(delete, path = "/invitations/{id}", tag = "invitations", operation_id = "delete_invitation",
    params(("id" = String, Path, description = "The ID of the invitation (`inv_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    invitations::revoke(&cx, web.ops(), &organization_id, &parse_id(&text, "invitation")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Resends a pending or expired invitation.
///
/// The invitation gets a new link that is valid for 48 hours, and the old link stops working. The new link is sent or
/// returned as for `create_invitation`. Requires the role `admin`.
#[utoipa::path(post, path = "/invitations/{id}/resend", tag = "invitations", operation_id = "resend_invitation",
    params(("id" = String, Path, description = "The ID of the invitation (`inv_…`).")),
    responses((status = 200, body = InvitationWithLink), Problems))]
async fn resend(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    info: RequestInfo,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let id = parse_id(&text, "invitation")?;
    web.check_invitation_limits(&info)?;
    let invited = invitations::resend(&cx, web.ops(), &organization_id, &id).await?;
    let sent = invitation_emails::send(&cx, web.ops(), &invited, &web.public_url, web.mail.as_ref()).await?;
    Ok(no_store(Json(InvitationWithLink::new(sent, cx.now())).into_response()))
}
