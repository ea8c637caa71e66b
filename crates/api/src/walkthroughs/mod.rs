//! `/walkthroughs`. Steps are in [`steps`], versions in [`versions`], bulk operations in [`bulk`], import and export in
//! [`transfer`].

pub(crate) mod bulk;
mod dto;
pub(crate) mod publish_impact;
mod revisions;
mod steps;
mod transfer;
mod trash;
pub(crate) mod versions;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use waypost_content::template;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};
use waypost_core::walkthrough::{WalkthroughSort, WalkthroughState, WalkthroughType};
use waypost_core::{Code, Error, Result, walkthrough};
use waypost_http_kit::compression::without_coding;
use waypost_ops::walkthroughs::{self, EditTarget, WalkthroughListQuery, publish};

use self::dto::{Walkthrough, WalkthroughCreate, WalkthroughDetails, WalkthroughSummary, WalkthroughUpdate};
use super::extract::{IfMatch, Json, Path, Query, Scope, parse_id, with_etag};
use super::page::Page;
use crate::Web;
use crate::problem::{ApiError, ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on walkthroughs.
pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(duplicate))
        .routes(routes!(archive))
        .routes(routes!(unarchive))
        .routes(routes!(unpublish))
        .merge(steps::routes())
        .merge(revisions::routes())
        .merge(trash::routes())
        .merge(versions::routes())
        .merge(publish_impact::routes())
        .merge(bulk::routes())
        .merge(transfer::routes())
}

/// Parses the ID of a walkthrough. A malformed ID results in `not_found`.
fn walkthrough_id(text: &str) -> Result<WalkthroughId> {
    parse_id(text, "walkthrough")
}

/// The target of a change, with the revision that the change is based on.
fn target<'a>(scope: &'a Scope, walkthrough_id: &'a WalkthroughId, if_match: IfMatch) -> EditTarget<'a> {
    EditTarget { organization_id: &scope.organization_id, walkthrough_id, revision: if_match.0 }
}

/// Returns a 201 response with the location and the revision of the created resource.
fn created(location: &str, revision: u32, body: impl IntoResponse) -> Response {
    let mut response = with_etag(revision, (StatusCode::CREATED, body));
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

async fn details(
    cx: &Ctx,
    web: &Web,
    org: &OrganizationId,
    walkthrough: walkthrough::Walkthrough,
) -> Result<WalkthroughDetails> {
    Ok(WalkthroughDetails::from(&walkthroughs::describe(cx, web.ops(), org, walkthrough).await?))
}

async fn full_walkthrough(cx: &Ctx, web: &Web, org: &OrganizationId, id: &WalkthroughId) -> Result<Walkthrough> {
    let draft = walkthroughs::get_draft(cx, web.ops(), org, id).await?;
    let listed = walkthroughs::describe(cx, web.ops(), org, draft.walkthrough.clone()).await?;
    Ok(Walkthrough::new(&listed, &draft))
}

/// Adds the current walkthrough to a `precondition_failed` error, so that a client can show both versions.
async fn conflict(scope: &Scope, web: &Web, id: &WalkthroughId, error: Error) -> ApiError {
    if error.code != Code::PreconditionFailed {
        return error.into();
    }
    match current_details(scope, web, id).await {
        Ok(current) => {
            let revision = current.summary.revision;
            let current = serde_json::to_value(current).unwrap_or(Value::Null);
            error.with("revision", revision).with("current", current).into()
        }
        Err(_) => error.into(),
    }
}

async fn current_details(scope: &Scope, web: &Web, id: &WalkthroughId) -> Result<WalkthroughDetails> {
    let (cx, org) = (&scope.cx, &scope.organization_id);
    details(cx, web, org, walkthroughs::get(cx, web.ops(), org, id).await?).await
}

/// The query parameters of the walkthrough list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WalkthroughQuery {
    /// Only walkthroughs whose title, slug, description or tags contain this text.
    #[param(max_length = 200)]
    q: Option<String>,
    /// Only walkthroughs in this state.
    state: Option<WalkthroughState>,
    /// Only walkthroughs of this type.
    #[serde(rename = "type")]
    kind: Option<WalkthroughType>,
    /// Only walkthroughs assigned to this server (`srv_…`).
    server_id: Option<String>,
    /// The sort field. Defaults to `title`.
    #[param(inline)]
    sort: Option<SortField>,
    /// The sort order. Defaults to `asc`.
    #[param(inline)]
    order: Option<SortOrder>,
    /// The maximum number of items to return.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    cursor: Option<String>,
}

/// The sort field of the walkthrough list.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SortField {
    Title,
    UpdatedAt,
    CreatedAt,
}

/// The sort order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum SortOrder {
    Asc,
    Desc,
}

impl WalkthroughQuery {
    fn into_list(self) -> Result<WalkthroughListQuery> {
        let server_id = self.server_id.map(|text| parse_id::<ServerId>(&text, "server")).transpose()?;
        Ok(WalkthroughListQuery {
            query: self.q,
            state: self.state,
            kind: self.kind,
            server_id,
            sort: self.sort.map(|sort| match sort {
                SortField::Title => WalkthroughSort::Title,
                SortField::UpdatedAt => WalkthroughSort::UpdatedAt,
                SortField::CreatedAt => WalkthroughSort::CreatedAt,
            }),
            descending: self.order == Some(SortOrder::Desc),
            limit: self.limit,
            cursor: self.cursor,
        })
    }
}

/// Lists the walkthroughs of the organisation.
#[utoipa::path(get, path = "/walkthroughs", tag = "walkthroughs", operation_id = "list_walkthroughs",
    params(WalkthroughQuery),
    responses((status = 200, body = Page<WalkthroughSummary>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(filter): Query<WalkthroughQuery>,
) -> ApiResult<Json<Page<WalkthroughSummary>>> {
    let page = walkthroughs::list(&cx, web.ops(), &organization_id, filter.into_list()?).await?;
    let items = page.items.iter().map(WalkthroughSummary::from).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// Creates a walkthrough.
///
/// The draft is empty, or has the steps of the template for its type.
#[utoipa::path(post, path = "/walkthroughs", tag = "walkthroughs", operation_id = "create_walkthrough",
    request_body = WalkthroughCreate, responses((status = 201, body = Walkthrough), Problems))]
async fn create(State(web): State<Web>, scope: Scope, Json(new): Json<WalkthroughCreate>) -> ApiResult<Response> {
    let (cx, org) = (&scope.cx, &scope.organization_id);
    let steps = if new.template { template::steps(new.kind) } else { Vec::new() };
    let draft = walkthroughs::create_with_steps(cx, web.ops(), org, new.into(), steps).await?;
    let body = full_walkthrough(cx, &web, org, &draft.id).await?;
    Ok(created(&format!("/api/v1/walkthroughs/{}", draft.id), draft.revision, Json(body)))
}

/// Returns a walkthrough with the steps of its draft.
///
/// The `ETag` is the revision of the draft. Returns 304 if it matches `If-None-Match`.
#[utoipa::path(get, path = "/walkthroughs/{id}", tag = "walkthroughs", operation_id = "get_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of a response that the client has cached.")),
    responses((status = 200, body = Walkthrough), (status = 304, description = "The draft has not changed."), Problems))]
async fn get(State(web): State<Web>, scope: Scope, Path(id): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    // Editors poll every few seconds. If the draft has not changed, its steps are not loaded.
    if headers.contains_key(header::IF_NONE_MATCH) {
        let walkthrough = walkthroughs::get(&scope.cx, web.ops(), &scope.organization_id, &id).await?;
        if has_revision(&headers, walkthrough.revision) {
            return Ok(with_etag(walkthrough.revision, StatusCode::NOT_MODIFIED));
        }
    }
    let body = full_walkthrough(&scope.cx, &web, &scope.organization_id, &id).await?;
    Ok(with_etag(body.details.summary.revision, Json(body)))
}

/// Whether the client already has this revision (`If-None-Match`, RFC 9110, section 13.1.2).
fn has_revision(headers: &HeaderMap, revision: u32) -> bool {
    let own = revision.to_string();
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| {
        let opaque = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        tag == "*" || opaque.is_some_and(|opaque| without_coding(opaque) == own)
    })
}

/// Updates the fields of a walkthrough's draft.
///
/// A 412 response contains the current draft in `revision` and `current`.
#[utoipa::path(patch, path = "/walkthroughs/{id}", tag = "walkthroughs", operation_id = "update_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    request_body = WalkthroughUpdate, responses((status = 200, body = WalkthroughDetails), Problems))]
async fn update(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    if_match: IfMatch,
    Json(change): Json<WalkthroughUpdate>,
) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    match walkthroughs::update(&scope.cx, web.ops(), target(&scope, &id, if_match), change.into()).await {
        Ok(changed) => {
            let body = details(&scope.cx, &web, &scope.organization_id, changed).await?;
            Ok(with_etag(body.summary.revision, Json(body)))
        }
        Err(error) => Err(conflict(&scope, &web, &id, error).await),
    }
}

/// Moves a walkthrough to the trash.
///
/// The walkthrough is no longer served or listed. It can be restored for 30 days.
#[utoipa::path(delete, path = "/walkthroughs/{id}", tag = "walkthroughs", operation_id = "delete_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> ApiResult<StatusCode> {
    let id = walkthrough_id(&id)?;
    match walkthroughs::delete(&scope.cx, web.ops(), target(&scope, &id, if_match)).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(conflict(&scope, &web, &id, error).await),
    }
}

/// The options for duplicating a walkthrough.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DuplicateOptions {
    /// The title of the copy. Derived from the original title by default.
    #[schema(min_length = 1, max_length = 200)]
    title: Option<String>,
}

/// Creates a copy of a walkthrough's draft as a new walkthrough.
#[utoipa::path(post, path = "/walkthroughs/{id}/duplicate", tag = "walkthroughs",
    operation_id = "duplicate_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`).")),
    request_body = DuplicateOptions,
    responses((status = 201, body = Walkthrough), Problems))]
async fn duplicate(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    Json(options): Json<DuplicateOptions>,
) -> ApiResult<Response> {
    let (cx, org) = (&scope.cx, &scope.organization_id);
    let copy = walkthroughs::duplicate(cx, web.ops(), org, &walkthrough_id(&id)?, options.title).await?;
    let body = full_walkthrough(cx, &web, org, &copy.id).await?;
    Ok(created(&format!("/api/v1/walkthroughs/{}", copy.id), copy.revision, Json(body)))
}

/// Archives a walkthrough.
///
/// The walkthrough is no longer served. Its versions, assignments and progress are kept.
#[utoipa::path(post, path = "/walkthroughs/{id}/archive", tag = "walkthroughs", operation_id = "archive_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    responses((status = 200, body = WalkthroughDetails), Problems))]
async fn archive(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let changed = publish::archive(&scope.cx, web.ops(), target(&scope, &id, if_match)).await;
    state_response(&scope, &web, &id, changed).await
}

/// Unarchives a walkthrough. It becomes a draft.
#[utoipa::path(post, path = "/walkthroughs/{id}/unarchive", tag = "walkthroughs",
    operation_id = "unarchive_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    responses((status = 200, body = WalkthroughDetails), Problems))]
async fn unarchive(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let changed = publish::unarchive(&scope.cx, web.ops(), target(&scope, &id, if_match)).await;
    state_response(&scope, &web, &id, changed).await
}

/// Unpublishes a walkthrough.
///
/// The walkthrough is no longer served. Its versions and progress are kept, and publishing serves it again.
#[utoipa::path(post, path = "/walkthroughs/{id}/unpublish", tag = "walkthroughs",
    operation_id = "unpublish_walkthrough",
    params(("id" = String, Path, description = "The ID of the walkthrough (`wt_…`)."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the walkthrough.")),
    responses((status = 200, body = WalkthroughDetails), Problems))]
async fn unpublish(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let changed = publish::unpublish(&scope.cx, web.ops(), target(&scope, &id, if_match)).await;
    state_response(&scope, &web, &id, changed).await
}

async fn state_response(
    scope: &Scope,
    web: &Web,
    id: &WalkthroughId,
    changed: Result<walkthrough::Walkthrough>,
) -> ApiResult<Response> {
    match changed {
        Ok(changed) => {
            let body = details(&scope.cx, web, &scope.organization_id, changed).await?;
            Ok(with_etag(body.summary.revision, Json(body)))
        }
        Err(error) => Err(conflict(scope, web, id, error).await),
    }
}
