//! `/members`.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::id::UserId;
use waypost_core::organization::{self, Role};
use waypost_ops::users;

use crate::Web;
use crate::extract::{Json, Path, Scope, parse_id};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on members.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(get, update, delete))
}

/// A member of the organisation.
#[derive(Debug, Serialize, ToSchema)]
struct Member {
    /// The ID of the user.
    #[schema(example = "usr_0123456789abcdef")]
    id: String,
    email: String,
    role: Role,
    /// Whether the email is verified. Until then, the account is valid for this organisation only.
    verified: bool,
    /// The time at which the user became a member.
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<organization::Member> for Member {
    fn from(member: organization::Member) -> Self {
        Self {
            id: member.user_id.to_string(),
            email: member.email,
            role: member.role,
            verified: member.is_verified,
            created_at: member.created_at.rfc3339(),
        }
    }
}

/// Changes to a member.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MemberUpdate {
    /// The new role. It cannot exceed the caller's own role.
    role: Role,
}

/// Lists the members of the organisation by email.
///
/// To add a member, create an invitation.
#[utoipa::path(get, path = "/members", tag = "members", operation_id = "list_members",
    responses((status = 200, body = Page<Member>), Problems))]
async fn list(State(web): State<Web>, Scope { cx, organization_id }: Scope) -> ApiResult<Json<Page<Member>>> {
    let items = users::list(&cx, web.ops(), &organization_id).await?.into_iter().map(Member::from).collect();
    Ok(Json(Page::complete(items)))
}

/// Returns a member.
#[utoipa::path(get, path = "/members/{id}", tag = "members", operation_id = "get_member",
    params(("id" = String, Path, description = "The ID of the user (`usr_…`).")),
    responses((status = 200, body = Member), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Member>> {
    let user: UserId = parse_id(&text, "member")?;
    Ok(Json(users::resolve(&cx, web.ops(), &organization_id, user.as_str()).await?.into()))
}

/// Changes the role of a member.
///
/// Requires the role `admin`. Neither the current nor the new role can exceed the caller's own role. The last owner's
/// role cannot be changed.
#[utoipa::path(patch, path = "/members/{id}", tag = "members", operation_id = "update_member",
    params(("id" = String, Path, description = "The ID of the user (`usr_…`).")), request_body = MemberUpdate,
    responses((status = 200, body = Member), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(changes): Json<MemberUpdate>,
) -> ApiResult<Json<Member>> {
    let user: UserId = parse_id(&text, "member")?;
    Ok(Json(users::update(&cx, web.ops(), &organization_id, &user, changes.role).await?.into()))
}

/// Removes a member from the organisation.
///
/// Everything the member created stays with the organisation. Requires the role `admin`.
#[utoipa::path(delete, path = "/members/{id}", tag = "members", operation_id = "delete_member",
    params(("id" = String, Path, description = "The ID of the user (`usr_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    let user: UserId = parse_id(&text, "member")?;
    users::delete(&cx, web.ops(), &organization_id, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}
