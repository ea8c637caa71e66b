//! `/toolboxes`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::Timestamp;
use waypost_core::id::ToolboxId;
use waypost_core::toolbox::ToolboxState;
use waypost_ops::toolboxes::{self, JoinToken, ToolboxView, join_command};
use waypost_toolbox_proto::message::{Capacity, Engine};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, created, no_store, parse_id};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on toolboxes.
pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(revoke))
        .routes(routes!(rotate_key))
        .routes(routes!(renew_token))
}

/// A toolbox: a machine that runs tool servers.
#[derive(Debug, Serialize, ToSchema)]
struct Toolbox {
    #[schema(example = "tbx_0123456789abcdef")]
    id: String,
    /// The name, unique in the organisation.
    name: String,
    /// `pending`: no machine has connected. `unresponsive`: three heartbeats are missing. A revoked toolbox cannot
    /// connect.
    state: ToolboxState,
    /// The version of the daemon. Null until a machine has joined.
    version: Option<String>,
    /// The container engine. Null if it cannot be reached.
    engine: Option<Engine>,
    /// The resources of the machine. Null until its first heartbeat.
    capacity: Option<Capacity>,
    /// The resources that its instances use.
    allocated: Allocated,
    /// The number of instances.
    instance_count: u64,
    /// The time of the last heartbeat.
    #[schema(format = DateTime)]
    last_seen_at: Option<String>,
}

/// The resources that the instances of a toolbox use: the sum of their resource classes.
#[derive(Debug, Serialize, ToSchema)]
struct Allocated {
    /// The number of CPUs.
    cpus: f64,
    /// The memory in bytes.
    memory_bytes: u64,
}

impl ToolboxWithJoin {
    fn new(web: &Web, view: ToolboxView, token: &JoinToken) -> Self {
        let JoinToken { token, expires_at } = token;
        let join = ToolboxJoin {
            command: join_command(&web.public_url, token),
            token: token.expose().to_owned(),
            expires_at: expires_at.rfc3339(),
        };
        Self { toolbox: view.into(), join }
    }
}

impl From<ToolboxView> for Toolbox {
    fn from(view: ToolboxView) -> Self {
        let ToolboxView { toolbox, state, allocated } = view;
        Self {
            id: toolbox.id.to_string(),
            name: toolbox.name,
            state,
            version: toolbox.version,
            engine: toolbox.engine,
            capacity: toolbox.capacity,
            allocated: Allocated { cpus: allocated.millicpus as f64 / 1_000.0, memory_bytes: allocated.memory_bytes },
            instance_count: allocated.instances,
            last_seen_at: toolbox.last_seen_at.map(Timestamp::rfc3339),
        }
    }
}

/// A toolbox with its new join token.
#[derive(Debug, Serialize, ToSchema)]
struct ToolboxWithJoin {
    #[serde(flatten)]
    toolbox: Toolbox,
    join: ToolboxJoin,
}

/// How a machine joins a toolbox.
#[derive(Debug, Serialize, ToSchema)]
struct ToolboxJoin {
    /// The token. It works once and is returned only once.
    #[schema(example = "wpt_8vXq0o3mQm0Jr5m4wV8C8c2H3l5o7a9b1d4f6h8j0kA")]
    token: String,
    #[schema(format = DateTime)]
    expires_at: String,
    /// The command to run on the machine.
    command: String,
}

/// A toolbox to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ToolboxCreate {
    /// The name, unique in the organisation.
    #[schema(min_length = 1, max_length = 200, example = "rack-1")]
    name: String,
}

/// Changes to a toolbox. Absent members are not changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ToolboxUpdate {
    /// The name, unique in the organisation.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
}

/// Lists the toolboxes of the organisation, ordered by name.
#[utoipa::path(get, path = "/toolboxes", tag = "toolboxes", operation_id = "list_toolboxes", params(Paging),
    responses((status = 200, body = Page<Toolbox>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Toolbox>>> {
    let limit = paging.limit()?;
    let found = toolboxes::list(&cx, web.ops(), &organization_id, paging.cursor.as_deref(), limit + 1).await?;
    let found = found.into_iter().map(Toolbox::from).collect();
    Ok(Json(Page::paginate(found, limit, |toolbox: &Toolbox| toolbox.name.clone())))
}

/// Creates a toolbox.
///
/// The response is the only one that contains the token with which a machine joins. The token works once and expires
/// after 15 minutes. Requires the role `admin`.
#[utoipa::path(post, path = "/toolboxes", tag = "toolboxes", operation_id = "create_toolbox",
    request_body = ToolboxCreate, responses((status = 201, body = ToolboxWithJoin), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(new): Json<ToolboxCreate>,
) -> ApiResult<Response> {
    let (toolbox, token) = toolboxes::create(&cx, web.ops(), &organization_id, &new.name).await?;
    let body = ToolboxWithJoin::new(&web, toolbox, &token);
    Ok(no_store(created(&format!("toolboxes/{}", body.toolbox.id), &body)))
}

/// Returns a toolbox.
#[utoipa::path(get, path = "/toolboxes/{id}", tag = "toolboxes", operation_id = "get_toolbox",
    params(("id" = String, Path, description = "The ID of the toolbox (`tbx_…`).")),
    responses((status = 200, body = Toolbox), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Toolbox>> {
    Ok(Json(toolboxes::get(&cx, web.ops(), &organization_id, &parse_id(&text, "toolbox")?).await?.into()))
}

/// Updates a toolbox.
///
/// Requires the role `admin`.
#[utoipa::path(patch, path = "/toolboxes/{id}", tag = "toolboxes", operation_id = "update_toolbox",
    params(("id" = String, Path, description = "The ID of the toolbox (`tbx_…`).")), request_body = ToolboxUpdate,
    responses((status = 200, body = Toolbox), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(change): Json<ToolboxUpdate>,
) -> ApiResult<Json<Toolbox>> {
    let id: ToolboxId = parse_id(&text, "toolbox")?;
    let patch = toolboxes::ToolboxPatch { name: change.name };
    Ok(Json(toolboxes::update(&cx, web.ops(), &organization_id, &id, &patch).await?.into()))
}

/// Deletes a toolbox.
///
/// A toolbox with instances can only be deleted after it was revoked; its instances are deleted with it. Requires the
/// role `admin`.
#[utoipa::path(delete, path = "/toolboxes/{id}", tag = "toolboxes", operation_id = "delete_toolbox",
    params(("id" = String, Path, description = "The ID of the toolbox (`tbx_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    toolboxes::delete(&cx, web.ops(), &organization_id, &parse_id(&text, "toolbox")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes a toolbox.
///
/// It is disconnected, and its machine can no longer connect. This cannot be undone. Requires the role `admin`.
#[utoipa::path(post, path = "/toolboxes/{id}/revoke", tag = "toolboxes", operation_id = "revoke_toolbox",
    params(("id" = String, Path, description = "The ID of the toolbox (`tbx_…`).")),
    responses((status = 200, body = Toolbox), Problems))]
async fn revoke(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Toolbox>> {
    Ok(Json(toolboxes::revoke(&cx, web.ops(), &organization_id, &parse_id(&text, "toolbox")?).await?.into()))
}

/// Requests a new key from the daemon of a toolbox.
///
/// The daemon creates the key at once if it is connected to the process that receives this request, otherwise after its
/// next heartbeat, which it sends every minute while it is online. Requires the role `admin`.
#[utoipa::path(post, path = "/toolboxes/{id}/rotate-key", tag = "toolboxes", operation_id = "rotate_toolbox_key",
    params(("id" = String, Path, description = "The ID of the toolbox (`tbx_…`).")),
    responses((status = 200, body = Toolbox), Problems))]
async fn rotate_key(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Toolbox>> {
    let id: ToolboxId = parse_id(&text, "toolbox")?;
    Ok(Json(toolboxes::rotate_key(&cx, web.ops(), &organization_id, &id).await?.into()))
}

/// Creates a new join token for a pending toolbox.
///
/// For a toolbox whose token has expired or was lost. The earlier token becomes invalid, and a machine that has joined with
/// it but has never connected can no longer connect. The response is the only one that contains the new token. Returns 409
/// unless the toolbox is pending. Requires the role `admin`.
#[utoipa::path(post, path = "/toolboxes/{id}/renew-token", tag = "toolboxes", operation_id = "renew_toolbox_token",
    params(("id" = String, Path, description = "The ID of the toolbox (`tbx_…`).")),
    responses((status = 200, body = ToolboxWithJoin), Problems))]
async fn renew_token(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Response> {
    let id: ToolboxId = parse_id(&text, "toolbox")?;
    let (toolbox, token) = toolboxes::renew_token(&cx, web.ops(), &organization_id, &id).await?;
    Ok(no_store(Json(ToolboxWithJoin::new(&web, toolbox, &token)).into_response()))
}
