//! `/instances`.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use waypost_core::id::{CatalogVersionId, InstanceId, ToolSecretId, ToolboxId};
use waypost_core::instance::{self, Backend, ConnectionMode, DesiredRun, InstanceEventKind, RegisteredClient};
use waypost_core::{Error, Timestamp};
use waypost_ops::instances::remote::NewRemoteServer;
use waypost_ops::instances::{self, CatalogServer, InstancePatch, InstanceView, NewInstance, NewServer};
use waypost_toolbox_proto::entry::Transport;
use waypost_toolbox_proto::instance::{self as observed, InstanceState};

use crate::Web;
use crate::deployments::Deployment;
use crate::extract::{Json, Path, Query, Scope, created, parse_field, parse_id};
use crate::initial_access::{self, InitialApproval, InitialGrant};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on instances.
pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(start))
        .routes(routes!(stop))
        .routes(routes!(restart))
        .routes(routes!(list_events))
        .routes(routes!(get_egress))
}

/// An instance: a tool server that runs on a toolbox or elsewhere.
#[derive(Debug, Serialize, ToSchema)]
struct Instance {
    #[schema(example = "ins_0123456789abcdef")]
    id: String,
    /// The slug, unique in the organisation.
    slug: String,
    name: String,
    /// The version that is deployed. Null for a remote server that is not in the catalogue.
    catalog_version_id: Option<String>,
    /// The toolbox on which the instance runs. Null for a remote server.
    toolbox_id: Option<String>,
    /// The server that runs elsewhere. Null for an instance on a toolbox.
    remote: Option<RemoteServer>,
    /// Whether the server should run.
    desired: DesiredRun,
    /// The observed state.
    state: InstanceState,
    /// The number of the specification, increased by every deployment.
    generation: u64,
    /// The generation of the container that serves calls. 0 before the first one.
    observed_generation: u64,
    /// The last probe. Null before the first one.
    health: Option<InstanceHealth>,
    /// The configuration.
    config: Map<String, Value>,
    /// The IDs of the secrets, by the names that the version declares, or by the headers of a remote server.
    secrets: BTreeMap<String, String>,
    /// The names of the secrets for which each agent supplies its own value, sorted.
    personal_secrets: Vec<String>,
    /// Whether arguments and results of calls through the gateway are recorded.
    record_contents: bool,
    /// The deployment of the current generation. Null for a remote server.
    deployment: Option<Deployment>,
}

/// A server that runs elsewhere.
#[derive(Debug, Serialize, ToSchema)]
struct RemoteServer {
    /// The scheme, host and port of the URL. The rest of it is never returned, because it can contain credentials.
    #[schema(example = "https://mcp.example.com")]
    origin: String,
    /// The transport: `streamable_http` or `sse`.
    transport: Transport,
    /// Whether the server requires OAuth, so that the instance or its agents must be connected.
    oauth: bool,
    /// The owner of the OAuth connection that authorizes requests: `shared` (the organisation has one connection for all
    /// agents) or `per_agent` (each agent has its own connection).
    connection: ConnectionMode,
    /// The ID of the client that was registered at the authorization server. Null if Waypost uses its metadata document, or
    /// registers itself.
    #[schema(example = "waypost-prod")]
    client_id: Option<String>,
    /// The ID of the secret with the secret of this client. Null for a public client.
    #[schema(example = "sec_0123456789abcdef")]
    client_secret_id: Option<String>,
}

/// The result of the last probe of an instance.
#[derive(Debug, Serialize, ToSchema)]
struct InstanceHealth {
    /// Whether the server counts as healthy.
    ok: bool,
    #[schema(format = DateTime)]
    checked_at: String,
    /// The duration of the probe in milliseconds. Null if it failed, and for the check of a deployment.
    latency_ms: Option<u64>,
    /// Why the probe failed.
    message: Option<String>,
}

impl From<observed::Health> for InstanceHealth {
    fn from(health: observed::Health) -> Self {
        Self {
            ok: health.ok,
            checked_at: Timestamp(health.checked_at).rfc3339(),
            latency_ms: health.latency_ms,
            message: health.message,
        }
    }
}

impl From<InstanceView> for Instance {
    fn from(view: InstanceView) -> Self {
        let InstanceView { instance, deployment } = view;
        let catalog_version_id = instance.catalog_version_id().map(ToString::to_string);
        let (toolbox_id, remote) = match instance.backend {
            Backend::Container(container) => (Some(container.toolbox_id.to_string()), None),
            Backend::Remote(remote) => {
                let client = remote.client.map(|client| (client.client_id, client.secret_id));
                let (client_id, secret_id) = client.unzip();
                let server = RemoteServer {
                    origin: remote.origin,
                    transport: remote.transport,
                    oauth: remote.is_oauth,
                    connection: remote.connection,
                    client_id,
                    client_secret_id: secret_id.flatten().map(|id| id.to_string()),
                };
                (None, Some(server))
            }
        };
        Self {
            id: instance.id.to_string(),
            slug: instance.slug,
            name: instance.name,
            catalog_version_id,
            toolbox_id,
            remote,
            desired: instance.desired,
            state: instance.state,
            generation: instance.generation,
            observed_generation: instance.observed_generation,
            health: instance.health.map(InstanceHealth::from),
            config: instance.config,
            secrets: instance.secrets.into_iter().map(|used| (used.name, used.secret_id.to_string())).collect(),
            personal_secrets: instance.personal_secrets.into_iter().map(|secret| secret.name).collect(),
            record_contents: instance.record_contents,
            deployment: deployment.map(Deployment::from),
        }
    }
}

/// An instance to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InstanceCreate {
    /// The slug, which is part of the public names of its tools. It must not look like another instance's slug.
    #[schema(min_length = 1, max_length = 24, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", example = "github")]
    slug: String,
    /// The name. Defaults to that of the catalogue entry, or to the slug of a remote server.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// The version to deploy (`ctv_…`). Either this or `remote` is required. If its source is a remote server, the instance
    /// has no toolbox.
    catalog_version_id: Option<String>,
    /// The server that is already running elsewhere, and is not in the catalogue. It has no toolbox and no configuration.
    remote: Option<RemoteServerInput>,
    /// The toolbox (`tbx_…`). Defaults to the online toolbox with the most free memory. Rejected for a remote server.
    toolbox_id: Option<String>,
    /// The configuration, which must satisfy the version's `config_schema`.
    #[serde(default)]
    config: Map<String, Value>,
    /// The IDs of secrets (`sec_…`), by the names that the version declares. For a remote server, each is the value of the
    /// header with this name, such as `Authorization`.
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    /// The names of declared secrets for which each agent supplies its own value. Allowed only for versions with
    /// `sharing: per_agent` and without volumes, and not for names in `secrets`.
    #[serde(default)]
    personal_secrets: BTreeSet<String>,
    /// Whether rejected destinations are recorded, so that an allowlist can be proposed.
    #[serde(default)]
    learn_egress: bool,
    /// Approves everything that the server lists at its first check: once, within an hour, unless the deployment fails or the
    /// instance is changed first. Definitions that are already approved keep their class. Rejected if each agent has its own
    /// connection to a remote server.
    approve: Option<InitialApproval>,
    /// The agents that are granted access immediately.
    #[serde(default)]
    #[schema(max_items = 50)]
    grants: Vec<InitialGrant>,
}

/// A server that runs elsewhere, to connect to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RemoteServerInput {
    /// The URL of its MCP endpoint. It is stored encrypted and never returned.
    #[schema(format = "uri", max_length = 2048, example = "https://mcp.example.com/mcp")]
    url: String,
    /// The transport: `streamable_http` (the default) or `sse`.
    #[serde(default = "streamable_http")]
    transport: Transport,
    /// Whether the server requires OAuth. If so, the instance is not tested until it or one of its agents is connected.
    #[serde(default)]
    oauth: bool,
    /// The owner of the OAuth connection: `shared` (the default) or `per_agent`, which requires `oauth`.
    #[serde(default = "shared")]
    connection: ConnectionMode,
    /// The ID of a client that was registered at the authorization server with the redirect URI `HOST/connections/callback`, for
    /// servers that accept neither metadata documents nor registrations. Requires `oauth`.
    #[schema(min_length = 1, max_length = 2048, example = "waypost-prod")]
    client_id: Option<String>,
    /// The ID of the secret (`sec_…`) whose value is the secret of this client. Requires `client_id`.
    #[schema(example = "sec_0123456789abcdef")]
    client_secret_id: Option<String>,
}

fn shared() -> ConnectionMode {
    ConnectionMode::Shared
}

fn streamable_http() -> Transport {
    Transport::StreamableHttp
}

impl TryFrom<RemoteServerInput> for NewRemoteServer {
    type Error = Error;

    fn try_from(input: RemoteServerInput) -> Result<Self, Error> {
        let RemoteServerInput { url, transport, oauth, connection, client_id, client_secret_id } = input;
        let secret_id = client_secret_id.as_deref().map(|text| parse_field::<ToolSecretId>("client_secret_id", text));
        let client = match (client_id, secret_id.transpose()?) {
            (Some(client_id), secret_id) => Some(RegisteredClient { client_id, secret_id }),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Error::invalid("client_id", "`client_secret_id` requires `client_id`."));
            }
        };
        Ok(Self { url, transport, is_oauth: oauth, connection, client })
    }
}

/// Changes to an instance. Absent members are not changed. Changing anything except the name and `record_contents` starts a
/// new deployment.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InstanceUpdate {
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Another version of the same catalogue entry. An instance cannot move between a toolbox and a remote server. A remote
    /// server moves to the URL and the headers of the version, and is tested again.
    catalog_version_id: Option<String>,
    /// The complete configuration. Replaces the current one.
    config: Option<Map<String, Value>>,
    /// The IDs of all secrets, by name. Replaces the current assignment.
    secrets: Option<BTreeMap<String, String>>,
    /// The names of all secrets for which each agent supplies its own value. Replaces the current ones. Values of agents for
    /// other names are deleted when the deployment is complete.
    personal_secrets: Option<BTreeSet<String>>,
    /// Whether rejected destinations are recorded.
    learn_egress: Option<bool>,
    /// Whether arguments and results of calls through the gateway are recorded, with secrets masked. Takes effect for new calls.
    record_contents: Option<bool>,
    /// The new URL and transport of a remote server, whether it requires OAuth, whose connection is used, and the client. Its
    /// OAuth connections are removed. Rejected if the server is in the catalogue.
    remote: Option<RemoteServerInput>,
}

/// An event of an instance on its toolbox.
#[derive(Debug, Serialize, ToSchema)]
struct InstanceEvent {
    #[schema(example = "iev_0123456789abcdef01234567")]
    id: String,
    kind: InstanceEventKind,
    /// The new state, or the cause of the crash.
    message: String,
    #[schema(format = DateTime)]
    created_at: String,
}

impl From<instance::InstanceEvent> for InstanceEvent {
    fn from(event: instance::InstanceEvent) -> Self {
        let created_at = event.created_at.rfc3339();
        Self { id: event.id.to_string(), kind: event.kind, message: event.message, created_at }
    }
}

/// The rejected connections of an instance.
#[derive(Debug, Serialize, ToSchema)]
struct InstanceEgress {
    /// Whether rejected destinations are recorded.
    learn: bool,
    /// The rejected destinations as `host:port`, in the order in which they were first seen. At most 100.
    rejected: Vec<String>,
}

fn parse_secrets(secrets: BTreeMap<String, String>) -> Result<BTreeMap<String, ToolSecretId>, Error> {
    let parsed = secrets.into_iter().map(|(name, id)| {
        let id = id.parse().map_err(|_| Error::invalid("secrets", format!("`secrets.{name}` is not a valid ID.")))?;
        Ok((name, id))
    });
    parsed.collect()
}

impl TryFrom<InstanceCreate> for NewInstance {
    type Error = Error;

    fn try_from(new: InstanceCreate) -> Result<Self, Error> {
        let toolbox_id =
            new.toolbox_id.as_deref().map(|text| parse_field::<ToolboxId>("toolbox_id", text)).transpose()?;
        let server = match (new.catalog_version_id, new.remote) {
            (Some(version), None) => NewServer::Catalog(CatalogServer {
                catalog_version_id: parse_field("catalog_version_id", &version)?,
                toolbox_id,
                config: new.config,
                personal_secrets: new.personal_secrets,
                learn_egress: new.learn_egress,
            }),
            (None, Some(remote)) => {
                let unused = [
                    ("toolbox_id", toolbox_id.is_some()),
                    ("config", !new.config.is_empty()),
                    ("learn_egress", new.learn_egress),
                    ("personal_secrets", !new.personal_secrets.is_empty()),
                ];
                if let Some((field, _)) = unused.into_iter().find(|(_, is_set)| *is_set) {
                    return Err(Error::invalid(field, format!("A remote server has no `{field}`.")));
                }
                NewServer::Remote(remote.try_into()?)
            }
            _ => {
                let message = "Exactly one of `catalog_version_id` and `remote` is required.";
                return Err(Error::invalid("catalog_version_id", message));
            }
        };
        let access = initial_access::parse(new.approve, new.grants)?;
        Ok(Self { secrets: parse_secrets(new.secrets)?, slug: new.slug, name: new.name, server, access })
    }
}

impl TryFrom<InstanceUpdate> for InstancePatch {
    type Error = Error;

    fn try_from(change: InstanceUpdate) -> Result<Self, Error> {
        let version = change.catalog_version_id.as_deref();
        let version = version.map(|text| parse_field::<CatalogVersionId>("catalog_version_id", text));
        Ok(Self {
            catalog_version_id: version.transpose()?,
            secrets: change.secrets.map(parse_secrets).transpose()?,
            personal_secrets: change.personal_secrets,
            name: change.name,
            config: change.config,
            learn_egress: change.learn_egress,
            record_contents: change.record_contents,
            remote: change.remote.map(NewRemoteServer::try_from).transpose()?,
        })
    }
}

/// Lists the instances of the organisation, ordered by slug.
#[utoipa::path(get, path = "/instances", tag = "instances", operation_id = "list_instances", params(Paging),
    responses((status = 200, body = Page<Instance>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Instance>>> {
    let limit = paging.limit()?;
    let found = instances::list(&cx, web.ops(), &organization_id, paging.cursor.as_deref(), limit + 1).await?;
    let found = found.into_iter().map(Instance::from).collect();
    Ok(Json(Page::paginate(found, limit, |instance: &Instance| instance.slug.clone())))
}

/// Creates an instance and deploys it, or connects to a remote server.
///
/// The response is returned immediately; the deployment continues in the background. Get the instance to follow it. If no
/// toolbox has room, the error has the `reason` `no_capacity` and a reason for each toolbox. A remote server is `deploying` until
/// it has answered, and has `failed` after three attempts. With `approve` and `grants`, agents can use the server as soon as
/// it is healthy. Requires the role `admin`.
#[utoipa::path(post, path = "/instances", tag = "instances", operation_id = "create_instance",
    request_body = InstanceCreate, responses((status = 202, body = Instance), Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(new): Json<InstanceCreate>,
) -> ApiResult<Response> {
    let view = instances::create(&cx, web.ops(), &organization_id, &new.try_into()?).await?;
    let body = Instance::from(view);
    let mut response = created(&format!("instances/{}", body.id), &body);
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Returns an instance.
#[utoipa::path(get, path = "/instances/{id}", tag = "instances", operation_id = "get_instance",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = Instance), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Instance>> {
    Ok(Json(instances::get(&cx, web.ops(), &organization_id, &parse_id(&text, "instance")?).await?.into()))
}

/// Updates an instance.
///
/// Changing anything except the name and `record_contents` starts a new deployment: the previous container serves calls until
/// the new one is healthy. If the new one does not become healthy, the change is rolled back. Requires the role `admin`.
#[utoipa::path(patch, path = "/instances/{id}", tag = "instances", operation_id = "update_instance",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")), request_body = InstanceUpdate,
    responses((status = 200, body = Instance), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(change): Json<InstanceUpdate>,
) -> ApiResult<Json<Instance>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    Ok(Json(instances::update(&cx, web.ops(), &organization_id, &id, &change.try_into()?).await?.into()))
}

/// Removes an instance.
///
/// It has the state `removing` until its toolbox has removed its containers, networks, volumes and files. Requires the
/// role `admin`.
#[utoipa::path(delete, path = "/instances/{id}", tag = "instances", operation_id = "delete_instance",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 202), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    instances::delete(&cx, web.ops(), &organization_id, &parse_id(&text, "instance")?).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Starts an instance.
///
/// Requires the role `admin`.
#[utoipa::path(post, path = "/instances/{id}/start", tag = "instances", operation_id = "start_instance",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = Instance), Problems))]
async fn start(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Instance>> {
    Ok(Json(instances::start(&cx, web.ops(), &organization_id, &parse_id(&text, "instance")?).await?.into()))
}

/// Stops an instance.
///
/// The server has 30 seconds to exit. Requires the role `admin`.
#[utoipa::path(post, path = "/instances/{id}/stop", tag = "instances", operation_id = "stop_instance",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = Instance), Problems))]
async fn stop(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Instance>> {
    Ok(Json(instances::stop(&cx, web.ops(), &organization_id, &parse_id(&text, "instance")?).await?.into()))
}

/// Restarts an instance.
///
/// If its deployment failed, or a secret was rotated, this starts a new deployment. Requires the role `admin`.
#[utoipa::path(post, path = "/instances/{id}/restart", tag = "instances", operation_id = "restart_instance",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = Instance), Problems))]
async fn restart(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Instance>> {
    Ok(Json(instances::restart(&cx, web.ops(), &organization_id, &parse_id(&text, "instance")?).await?.into()))
}

/// Lists the events of an instance, newest first.
///
/// The last 500 are kept.
#[utoipa::path(get, path = "/instances/{id}/events", tag = "instances", operation_id = "list_instance_events",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`)."), Paging),
    responses((status = 200, body = Page<InstanceEvent>), Problems))]
async fn list_events(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<InstanceEvent>>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    let (limit, before) = (paging.limit()?, paging.parse_cursor()?);
    let found = instances::list_events(&cx, web.ops(), &organization_id, &id, before.as_ref(), limit + 1).await?;
    let found = found.into_iter().map(InstanceEvent::from).collect();
    Ok(Json(Page::paginate(found, limit, |event: &InstanceEvent| event.id.clone())))
}

/// Returns the rejected connections of an instance.
///
/// Add the destinations that it needs to a new version of the catalogue entry, and deploy that version.
#[utoipa::path(get, path = "/instances/{id}/egress", tag = "instances", operation_id = "get_instance_egress",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = InstanceEgress), Problems))]
async fn get_egress(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<InstanceEgress>> {
    let found = instances::get(&cx, web.ops(), &organization_id, &parse_id(&text, "instance")?).await?.instance;
    Ok(Json(InstanceEgress { learn: found.learn_egress, rejected: found.rejected_egress }))
}
