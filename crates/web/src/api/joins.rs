//! `/joins` and `/servers/{server_id}/claim-links`: earlier progress that signed-in end users claimed.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::Timestamp;
use waypost_core::claim_link::DEFAULT_LIFETIME_MS;
use waypost_core::id::JoinId;
use waypost_core::join;
use waypost_ops::claim_links;
use waypost_ops::joins::{self, Listed};

use super::extract::{Json, Path, Query, Scope, id};
use super::page::{Page, Paging};
use crate::Web;
use crate::problem::{ApiResult, Problems};
use crate::request_info::RequestInfo;

pub(crate) const HOUR_MS: i64 = 3_600_000;

/// The operations on joins and claim links.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(undo)).routes(routes!(create_link))
}

/// How the anonymous end user was identified.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum JoinKind {
    Handle,
    Session,
    Tracking,
}

/// Progress of an anonymous end user on one server that a signed-in end user took over.
#[derive(Debug, Serialize, ToSchema)]
struct Join {
    #[schema(example = "joi_0123456789abcdef01234567")]
    id: String,
    server_id: String,
    /// `handle` and `session`: the user's own client showed it. `tracking`: claimed by a claim link, or by a personal URL that
    /// the public page generated.
    #[schema(inline)]
    kind: JoinKind,
    /// The anonymous end user.
    from_end_user_id: String,
    /// The signed-in end user.
    to_end_user_id: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    created_at: String,
    /// RFC 3339; null while it is not undone.
    #[schema(format = DateTime)]
    undone_at: Option<String>,
}

impl From<join::Join> for Join {
    fn from(it: join::Join) -> Self {
        Self {
            id: it.id.to_string(),
            server_id: it.server_id.to_string(),
            kind: match it.kind {
                join::JoinKind::Handle => JoinKind::Handle,
                join::JoinKind::Session => JoinKind::Session,
                join::JoinKind::Tracking => JoinKind::Tracking,
            },
            from_end_user_id: it.from_end_user_id.to_string(),
            to_end_user_id: it.to_end_user_id.to_string(),
            created_at: it.created_at.rfc3339(),
            undone_at: it.undone_at.map(Timestamp::rfc3339),
        }
    }
}

/// A join with its end users.
#[derive(Debug, Serialize, ToSchema)]
struct ListedJoin {
    #[serde(flatten)]
    join: Join,
    /// The tracking ID of the anonymous end user; null for `handle` and `session`. Generated IDs are masked.
    tracking_id: Option<String>,
    /// The name of the signed-in end user, as a provider says.
    name: Option<String>,
    /// The verified email address of the signed-in end user.
    email: Option<String>,
}

impl From<Listed> for ListedJoin {
    fn from(it: Listed) -> Self {
        Self { join: it.join.into(), tracking_id: it.tracking_id, name: it.name, email: it.email }
    }
}

/// A claim link to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewClaimLink {
    /// The label under which the progress was recorded.
    #[schema(min_length = 1, max_length = 128, example = "customer-4711")]
    tracking_id: String,
    /// How long the link is valid, in hours.
    #[schema(minimum = 1, maximum = 720, default = 168)]
    expires_in_hours: Option<u32>,
}

/// A claim link. It is shown once.
#[derive(Debug, Serialize, ToSchema)]
struct ClaimLink {
    /// The MCP address to give to the one person whose progress it is.
    url: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// The joins of the organisation, newest first, undone ones included. Needs the role `admin`.
#[utoipa::path(get, path = "/joins", tag = "end-users", operation_id = "list_joins", params(Paging),
    responses((status = 200, body = Page<ListedJoin>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<ListedJoin>>> {
    let limit = paging.limit()?;
    let before: Option<JoinId> = paging.after()?;
    let found = joins::list_page(&cx, web.ops(), &organization_id, (before.as_ref(), limit + 1)).await?;
    Ok(Json(Page::cut(found.into_iter().map(ListedJoin::from).collect(), limit, |it| it.join.id.clone())))
}

/// A join. Needs the role `admin`.
#[utoipa::path(get, path = "/joins/{id}", tag = "end-users", operation_id = "get_join",
    params(("id" = String, Path, description = "`joi_…`")), responses((status = 200, body = Join), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Join>> {
    let found = joins::show(&cx, web.ops(), &organization_id, &id(&text, "join")?).await?;
    Ok(Json(found.into()))
}

/// Undoes a join: the anonymous end user gets back what was taken over, and the signed-in end user keeps what they did since.
/// Claim links for the label that were created before stop working. Undoing again changes nothing. Needs the role `admin`.
#[utoipa::path(post, path = "/joins/{id}/undo", tag = "end-users", operation_id = "undo_join",
    params(("id" = String, Path, description = "`joi_…`")), responses((status = 200, body = Join), Problems))]
async fn undo(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Join>> {
    let undone = joins::undo(&cx, web.ops(), &organization_id, &id(&text, "join")?).await?;
    Ok(Json(undone.into()))
}

/// Creates a link with which one end user who signs in claims the progress recorded under a label. Whoever has the link first
/// gets the progress: send it only to the person whose label it is. On a server without sign-in it is a personal URL like that of the
/// label. Needs the role `admin`.
#[utoipa::path(post, path = "/servers/{server_id}/claim-links", tag = "end-users", operation_id = "create_claim_link",
    params(("server_id" = String, Path)), request_body = NewClaimLink,
    responses((status = 201, body = ClaimLink), Problems))]
async fn create_link(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    info: RequestInfo,
    Path(text): Path<String>,
    Json(new): Json<NewClaimLink>,
) -> ApiResult<Response> {
    let lifetime = new.expires_in_hours.map_or(DEFAULT_LIFETIME_MS, |hours| i64::from(hours) * HOUR_MS);
    let (ops, server) = ((web.ops(), web.hosting.secret()), id(&text, "server")?);
    let claim = (new.tracking_id.as_str(), lifetime);
    let (server, link) = claim_links::create(&cx, ops, &organization_id, &server, claim).await?;
    let address = web.public_url.path_urls(&info.authority, &server.slug);
    let body = ClaimLink { url: address.resource(Some(&link.segment())), expires_at: link.expires_at.rfc3339() };
    let mut response = (StatusCode::CREATED, Json(body)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
