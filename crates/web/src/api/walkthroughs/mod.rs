//! `/walkthroughs`: heads here, steps in [`steps`], versions in [`versions`], several at once in [`bulk`],
//! files in [`transfer`].

pub(crate) mod bulk;
mod dto;
pub(crate) mod publish_impact;
mod revisions;
mod steps;
mod transfer;
mod trash;
pub(crate) mod versions;

use std::str::FromStr;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId, WalkthroughId};
use waypost_core::walkthrough::WalkthroughSort;
use waypost_core::{Code, Error, Result, template, walkthrough};
use waypost_ops::walkthroughs::{self, EditTarget, WalkthroughListQuery, publish};

use self::dto::{
    Walkthrough, WalkthroughCreate, WalkthroughDetails, WalkthroughSummary, WalkthroughType, WalkthroughUpdate,
};
use super::extract::{IfMatch, Json, Path, Query, Scope, with_etag};
use super::page::Page;
use crate::Web;
use crate::problem::{ApiError, ApiResult, Problems};

/// The operations on walkthroughs.
pub(super) fn routes() -> OpenApiRouter<Web> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, update, delete))
        .routes(routes!(duplicate))
        .routes(routes!(archive))
        .routes(routes!(unarchive))
        .routes(routes!(unpublish))
        .merge(steps::routes())
        .merge(revisions::routes())
        .merge(trash::routes())
        .merge(versions::routes())
        .merge(bulk::routes())
        .merge(transfer::routes())
}

/// An id as it stands in a path; one that cannot be is that of nothing.
fn id<T: FromStr>(text: &str, noun: &str) -> Result<T> {
    text.parse().map_err(|_| Error::not_found(noun))
}

fn walkthrough_id(text: &str) -> Result<WalkthroughId> {
    id(text, "walkthrough")
}

/// What a request changes, and the revision that it was made from.
fn target<'a>(scope: &'a Scope, walkthrough_id: &'a WalkthroughId, seen: IfMatch) -> EditTarget<'a> {
    EditTarget { organization_id: &scope.organization_id, walkthrough_id, revision: seen.0 }
}

/// An answer to a creation: 201, where it is, and its revision.
fn created(location: &str, revision: u32, body: impl IntoResponse) -> Response {
    let mut response = with_etag(revision, (StatusCode::CREATED, body));
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

async fn head(cx: &Ctx, web: &Web, org: &OrganizationId, head: walkthrough::Walkthrough) -> Result<WalkthroughDetails> {
    Ok(WalkthroughDetails::from(&walkthroughs::describe(cx, web.ops(), org, head).await?))
}

async fn full(cx: &Ctx, web: &Web, org: &OrganizationId, id: &WalkthroughId) -> Result<Walkthrough> {
    let draft = walkthroughs::get_draft(cx, web.ops(), org, id).await?;
    let listed = walkthroughs::describe(cx, web.ops(), org, draft.walkthrough.clone()).await?;
    Ok(Walkthrough::new(&listed, &draft))
}

/// With what is there now, when the edit was made from an older revision: both can be shown then.
async fn conflict(scope: &Scope, web: &Web, id: &WalkthroughId, error: Error) -> ApiError {
    if error.code != Code::PreconditionFailed {
        return error.into();
    }
    let (cx, org) = (&scope.cx, &scope.organization_id);
    match full(cx, web, org, id).await {
        Ok(now) => {
            let revision = now.head.summary.revision;
            let current = serde_json::to_value(now.head).unwrap_or(Value::Null);
            error.with("revision", revision).with("current", current).into()
        }
        Err(_) => error.into(),
    }
}

/// Which walkthroughs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WalkthroughQuery {
    /// Title, slug, description or tags hold this.
    #[param(max_length = 200)]
    q: Option<String>,
    /// In this state.
    state: Option<dto::WalkthroughState>,
    /// Of this type.
    #[serde(rename = "type")]
    kind: Option<WalkthroughType>,
    /// Placed on this server.
    server_id: Option<String>,
    /// By what the list is sorted; `title` when absent.
    #[param(inline)]
    sort: Option<SortField>,
    /// `asc` when absent.
    #[param(inline)]
    order: Option<SortOrder>,
    /// Items at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// By what a list is sorted.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SortField {
    Title,
    UpdatedAt,
    CreatedAt,
}

/// Which end comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum SortOrder {
    Asc,
    Desc,
}

impl WalkthroughQuery {
    fn into_list(self) -> Result<WalkthroughListQuery> {
        let server_id = self.server_id.map(|text| id::<ServerId>(&text, "server")).transpose()?;
        Ok(WalkthroughListQuery {
            query: self.q,
            state: self.state.map(Into::into),
            kind: self.kind.map(Into::into),
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

/// The walkthroughs of the organisation, searched, filtered and sorted.
#[utoipa::path(get, path = "/walkthroughs", tag = "walkthroughs", operation_id = "list_walkthroughs", params(WalkthroughQuery),
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

/// Makes a draft, empty or with the steps of its type's template.
#[utoipa::path(post, path = "/walkthroughs", tag = "walkthroughs", operation_id = "create_walkthrough",
    request_body = WalkthroughCreate, responses((status = 201, body = Walkthrough), Problems))]
async fn create(State(web): State<Web>, scope: Scope, Json(new): Json<WalkthroughCreate>) -> ApiResult<Response> {
    let (cx, org) = (&scope.cx, &scope.organization_id);
    let steps = if new.template { template::steps(new.kind.into()) } else { Vec::new() };
    let made = walkthroughs::create_with_steps(cx, web.ops(), org, new.into(), steps).await?;
    let body = full(cx, &web, org, &made.id).await?;
    Ok(created(&format!("/api/v1/walkthroughs/{}", made.id), made.revision, Json(body)))
}

/// A walkthrough with the steps of its draft. Its revision is the `ETag`; whoever has that draft already is answered 304.
#[utoipa::path(get, path = "/walkthroughs/{id}", tag = "walkthroughs", operation_id = "get_walkthrough",
    params(("id" = String, Path), ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, body = Walkthrough), (status = 304, description = "The draft has not changed."), Problems))]
async fn show(State(web): State<Web>, scope: Scope, Path(id): Path<String>, headers: HeaderMap) -> ApiResult<Response> {
    let body = full(&scope.cx, &web, &scope.organization_id, &walkthrough_id(&id)?).await?;
    let revision = body.head.summary.revision;
    if has(&headers, revision) {
        return Ok(with_etag(revision, StatusCode::NOT_MODIFIED));
    }
    Ok(with_etag(revision, Json(body)))
}

/// Whether the caller has this revision (`If-None-Match`, RFC 9110, section 13.1.2).
fn has(headers: &HeaderMap, revision: u32) -> bool {
    let own = format!("\"{revision}\"");
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == own)
}

/// Changes the head of the draft. A 412 holds what is there now: `revision` and `current`.
#[utoipa::path(patch, path = "/walkthroughs/{id}", tag = "walkthroughs", operation_id = "update_walkthrough",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = WalkthroughUpdate, responses((status = 200, body = WalkthroughDetails), Problems))]
async fn update(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    seen: IfMatch,
    Json(change): Json<WalkthroughUpdate>,
) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    match walkthroughs::update(&scope.cx, web.ops(), target(&scope, &id, seen), change.into()).await {
        Ok(changed) => {
            let body = head(&scope.cx, &web, &scope.organization_id, changed).await?;
            Ok(with_etag(body.summary.revision, Json(body)))
        }
        Err(error) => Err(conflict(&scope, &web, &id, error).await),
    }
}

/// Moves a walkthrough to the trash. It is no longer offered, listed or found, and can be restored for 30 days.
#[utoipa::path(delete, path = "/walkthroughs/{id}", tag = "walkthroughs", operation_id = "delete_walkthrough",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header)), responses((status = 204), Problems))]
async fn delete(State(web): State<Web>, scope: Scope, Path(id): Path<String>, seen: IfMatch) -> ApiResult<StatusCode> {
    let id = walkthrough_id(&id)?;
    match walkthroughs::delete(&scope.cx, web.ops(), target(&scope, &id, seen)).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(conflict(&scope, &web, &id, error).await),
    }
}

/// How to duplicate a walkthrough.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DuplicateOptions {
    /// Made from the title of the original when absent.
    #[schema(min_length = 1, max_length = 200)]
    title: Option<String>,
}

/// Makes another walkthrough with the same draft.
#[utoipa::path(post, path = "/walkthroughs/{id}/duplicate", tag = "walkthroughs", operation_id = "duplicate_walkthrough",
    params(("id" = String, Path)), request_body = DuplicateOptions, responses((status = 201, body = Walkthrough), Problems))]
async fn duplicate(
    State(web): State<Web>,
    scope: Scope,
    Path(id): Path<String>,
    Json(how): Json<DuplicateOptions>,
) -> ApiResult<Response> {
    let (cx, org) = (&scope.cx, &scope.organization_id);
    let made = walkthroughs::duplicate(cx, web.ops(), org, &walkthrough_id(&id)?, how.title).await?;
    let body = full(cx, &web, org, &made.id).await?;
    Ok(created(&format!("/api/v1/walkthroughs/{}", made.id), made.revision, Json(body)))
}

/// Takes a walkthrough out of use: it is not served, and everything is kept.
#[utoipa::path(post, path = "/walkthroughs/{id}/archive", tag = "walkthroughs", operation_id = "archive_walkthrough",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = WalkthroughDetails), Problems))]
async fn archive(State(web): State<Web>, scope: Scope, Path(id): Path<String>, seen: IfMatch) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let changed = publish::archive(&scope.cx, web.ops(), target(&scope, &id, seen)).await;
    in_state(&scope, &web, &id, changed).await
}

/// Takes a walkthrough out of the archive, as a draft.
#[utoipa::path(post, path = "/walkthroughs/{id}/unarchive", tag = "walkthroughs", operation_id = "unarchive_walkthrough",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = WalkthroughDetails), Problems))]
async fn unarchive(State(web): State<Web>, scope: Scope, Path(id): Path<String>, seen: IfMatch) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let changed = publish::unarchive(&scope.cx, web.ops(), target(&scope, &id, seen)).await;
    in_state(&scope, &web, &id, changed).await
}

/// Stops serving a walkthrough. Versions and progress are kept; publishing serves it again.
#[utoipa::path(post, path = "/walkthroughs/{id}/unpublish", tag = "walkthroughs", operation_id = "unpublish_walkthrough",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = WalkthroughDetails), Problems))]
async fn unpublish(State(web): State<Web>, scope: Scope, Path(id): Path<String>, seen: IfMatch) -> ApiResult<Response> {
    let id = walkthrough_id(&id)?;
    let changed = publish::unpublish(&scope.cx, web.ops(), target(&scope, &id, seen)).await;
    in_state(&scope, &web, &id, changed).await
}

async fn in_state(
    scope: &Scope,
    web: &Web,
    id: &WalkthroughId,
    changed: Result<walkthrough::Walkthrough>,
) -> ApiResult<Response> {
    match changed {
        Ok(changed) => {
            let body = head(&scope.cx, web, &scope.organization_id, changed).await?;
            Ok(with_etag(body.summary.revision, Json(body)))
        }
        Err(error) => Err(conflict(scope, web, id, error).await),
    }
}
