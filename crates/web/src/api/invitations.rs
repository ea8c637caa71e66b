//! `/invitations`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::Timestamp;
use waypost_core::id::InvitationId;
use waypost_core::invitation::InvitationState;
use waypost_ops::invitations::{self, InvitationView};

use super::extract::{Json, Path, Query, Scope, created, id};
use super::members::Role;
use super::page::{Page, Paging};
use crate::Web;
use crate::invite;
use crate::problem::{ApiResult, Problems};
use crate::request_info::RequestInfo;

/// The operations on invitations.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, delete)).routes(routes!(resend))
}

/// What became of an invitation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum InvitationStateName {
    Pending,
    Accepted,
    Expired,
    Revoked,
}

/// An invitation to the organisation.
#[derive(Debug, Serialize, ToSchema)]
struct Invitation {
    #[schema(example = "inv_0123456789abcdef01234567")]
    id: String,
    /// The address of the only one who can accept it.
    email: String,
    role: Role,
    #[schema(inline)]
    state: InvitationStateName,
    /// The id of the user or the key that invited, or `operator`.
    invited_by: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// 48 hours after it was sent, RFC 3339.
    #[schema(format = DateTime)]
    expires_at: String,
    /// RFC 3339; null while it is not accepted.
    #[schema(format = DateTime)]
    accepted_at: Option<String>,
    /// RFC 3339; null while it is not taken back.
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
}

impl Invitation {
    fn new(listed: InvitationView, now: Timestamp) -> Self {
        let it = listed.invitation;
        let state = match it.state(now) {
            InvitationState::Pending => InvitationStateName::Pending,
            InvitationState::Accepted => InvitationStateName::Accepted,
            InvitationState::Expired => InvitationStateName::Expired,
            InvitationState::Revoked => InvitationStateName::Revoked,
        };
        Self {
            id: it.id.to_string(),
            state,
            email: it.email,
            role: it.role.into(),
            invited_by: it.invited_by,
            created_at: it.created_at.rfc3339(),
            expires_at: it.expires_at.rfc3339(),
            accepted_at: it.accepted_at.map(Timestamp::rfc3339),
            revoked_at: it.revoked_at.map(Timestamp::rfc3339),
        }
    }
}

/// An invitation that was just sent, or has to be handed over.
#[derive(Debug, Serialize, ToSchema)]
struct InvitationWithLink {
    #[serde(flatten)]
    invitation: Invitation,
    /// Where the invited person accepts, to hand over; it is shown once. `null` if the installation sends email: the link is
    /// only sent to the invited address then, because it proves that address.
    link: Option<String>,
    /// Whether an email with the link is on its way. If it is not, and `link` is null, resend the invitation.
    mailed: bool,
}

impl InvitationWithLink {
    fn new(sent: invite::SentInvitation, now: Timestamp) -> Self {
        Self { invitation: Invitation::new(sent.listed, now), link: sent.link, mailed: sent.mailed }
    }
}

/// Whom to invite.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewInvitation {
    #[schema(min_length = 3, max_length = 254, example = "anna@example.com")]
    email: String,
    /// The role that they will have, at most the caller's own.
    role: Role,
}

/// The invitations of the organisation, newest first. Needs the role `admin`.
#[utoipa::path(get, path = "/invitations", tag = "invitations", operation_id = "list_invitations", params(Paging),
    responses((status = 200, body = Page<Invitation>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Invitation>>> {
    let limit = paging.limit()?;
    let before: Option<InvitationId> = paging.after()?;
    let found = invitations::list(&cx, web.ops(), &organization_id, before.as_ref(), limit + 1).await?;
    let items = found.into_iter().map(|it| Invitation::new(it, cx.now())).collect();
    Ok(Json(Page::cut(items, limit, |it| it.id.clone())))
}

/// Invites a person by their address. The link is sent by email if the installation sends email, and only then: otherwise it
/// is in the response, and accepting it creates an account that is valid for this organisation only. An invitation that is open for
/// them is replaced. Needs the role `admin`.
#[utoipa::path(post, path = "/invitations", tag = "invitations", operation_id = "create_invitation",
    request_body = NewInvitation, responses((status = 201, body = InvitationWithLink), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    info: RequestInfo,
    Json(new): Json<NewInvitation>,
) -> ApiResult<Response> {
    let sent = invite::create(&web, (&cx, &info), &organization_id, (&new.email, new.role.into())).await?;
    let body = InvitationWithLink::new(sent, cx.now());
    Ok(secret(created(&format!("invitations/{}", body.invitation.id), &body)))
}

/// An invitation. Needs the role `admin`.
#[utoipa::path(get, path = "/invitations/{id}", tag = "invitations", operation_id = "get_invitation",
    params(("id" = String, Path, description = "`inv_…`")), responses((status = 200, body = Invitation), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Invitation>> {
    let found = invitations::show(&cx, web.ops(), &organization_id, &id(&text, "invitation")?).await?;
    Ok(Json(Invitation::new(found, cx.now())))
}

/// Takes an invitation back: its link opens nothing any more. Needs the role `admin`.
#[utoipa::path(delete, path = "/invitations/{id}", tag = "invitations", operation_id = "delete_invitation",
    params(("id" = String, Path, description = "`inv_…`")), responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    invitations::revoke(&cx, web.ops(), &organization_id, &id(&text, "invitation")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives an open or expired invitation a new link and 48 hours more; the old link stops working. It is
/// sent as by `create_invitation`. Needs the role `admin`.
#[utoipa::path(post, path = "/invitations/{id}/resend", tag = "invitations", operation_id = "resend_invitation",
    params(("id" = String, Path, description = "`inv_…`")),
    responses((status = 200, body = InvitationWithLink), Problems))]
async fn resend(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    info: RequestInfo,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let sent = invite::resend(&web, (&cx, &info), &organization_id, &id(&text, "invitation")?).await?;
    Ok(secret(Json(InvitationWithLink::new(sent, cx.now())).into_response()))
}

/// An answer that holds a secret is kept by nobody on the way.
fn secret(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
