//! `/instances/{id}/connect` and `/instances/{id}/connections`: OAuth connections to the remote server of an instance.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use waypost_core::agent::AgentKind;
use waypost_core::id::{AgentId, InstanceId};
use waypost_core::instance::ConnectionState;
use waypost_core::{Error, Timestamp};
use waypost_ops::instances::connect::{self as connect_ops, AgentConnection};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, parse_field, parse_id};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The name of the connection of the organisation in paths.
const SHARED: &str = "shared";

/// The operations on connections.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(connect)).routes(routes!(list)).routes(routes!(delete))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ConnectQuery {
    /// The service to connect (`agt_…`), if each agent has its own connection.
    agent_id: Option<String>,
}

/// A connection that was started.
#[derive(Debug, Serialize, ToSchema)]
struct StartedConnection {
    /// The URL at the authorization server. Open it in the browser in which the same user is signed in to the console.
    #[schema(format = "uri")]
    authorization_url: String,
    /// The issuer of the authorization server.
    #[schema(example = "https://id.example.com")]
    issuer: String,
    /// When the URL expires.
    #[schema(format = DateTime)]
    expires_at: String,
}

/// An OAuth connection to the remote server of an instance. Its tokens are never returned.
#[derive(Debug, Serialize, ToSchema)]
struct InstanceConnection {
    /// The agent whose requests it authorizes. Null for the connection of the organisation.
    #[schema(example = "agt_0123456789abcdef")]
    agent_id: Option<String>,
    /// The name of the agent.
    agent_name: Option<String>,
    /// The kind of the agent.
    agent_kind: Option<AgentKind>,
    /// The issuer of the authorization server.
    #[schema(example = "https://id.example.com")]
    issuer: String,
    /// `connected`; `expired`: the access token has expired, and is refreshed with the next request if it can be; or `failed`:
    /// the authorization server has rejected a refresh, and the agent must be connected again.
    state: ConnectionState,
    /// When it was connected.
    #[schema(format = DateTime)]
    connected_at: String,
    /// When the access token expires. Null if this is unknown.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// The scope that the server requires and the connection does not have. Connecting again asks for it. Null if none is known.
    #[schema(example = "files:write")]
    required_scope: Option<String>,
}

impl From<AgentConnection> for InstanceConnection {
    fn from(found: AgentConnection) -> Self {
        let (agent_name, agent_kind) = found.agent.unzip();
        Self {
            agent_id: found.agent_id.map(|id| id.to_string()),
            agent_name,
            agent_kind,
            issuer: found.issuer,
            state: found.state,
            connected_at: found.connected_at.rfc3339(),
            expires_at: found.expires_at.map(Timestamp::rfc3339),
            required_scope: found.required_scope,
        }
    }
}

/// Starts the connection of a remote server that requires OAuth.
///
/// Discovers the authorization server, and returns the URL at which the user authorizes the connection. It works once,
/// for ten minutes, and only for the user who has started it, so this operation is not available with an API key (409,
/// `user_required`). If each agent has its own connection, `agent_id` is a service; people connect themselves in the console.
/// If the server or its authorization server cannot be used, the status is 502, and `reason` says why.
/// Requires the role `admin`.
#[utoipa::path(post, path = "/instances/{id}/connect", tag = "instances", operation_id = "connect_instance",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`)."), ConnectQuery),
    responses((status = 200, body = StartedConnection), Problems))]
async fn connect(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Query(query): Query<ConnectQuery>,
) -> ApiResult<Json<StartedConnection>> {
    let (id, origin): (InstanceId, _) = (parse_id(&text, "instance")?, web.public_url.origin());
    let agent = query.agent_id.as_deref().map(|text| parse_field::<AgentId>("agent_id", text)).transpose()?;
    let started = connect_ops::begin(&cx, web.ops(), &organization_id, &id, (agent.as_ref(), &origin)).await?;
    Ok(Json(StartedConnection {
        authorization_url: started.url.into(),
        issuer: started.issuer,
        expires_at: started.expires_at.rfc3339(),
    }))
}

/// Lists the OAuth connections to the remote server of an instance, ordered by the ID of the agent.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/instances/{id}/connections", tag = "instances", operation_id = "list_instance_connections",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`)."), Paging),
    responses((status = 200, body = Page<InstanceConnection>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<InstanceConnection>>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    let (limit, after) = (paging.limit()?, paging.parse_cursor::<AgentId>()?);
    let found = connect_ops::list(&cx, web.ops(), &organization_id, &id, (after.as_ref(), limit + 1)).await?;
    let found = found.into_iter().map(InstanceConnection::from).collect();
    Ok(Json(Page::paginate(found, limit, |one: &InstanceConnection| one.agent_id.clone().unwrap_or_default())))
}

/// Ends an OAuth connection.
///
/// Its tokens are deleted, and revoked at the authorization server if it supports this, which can take ten seconds. Requires the
/// role `admin`.
#[utoipa::path(delete, path = "/instances/{id}/connections/{agent_id}", tag = "instances",
    operation_id = "delete_instance_connection",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`)."),
        ("agent_id" = String, Path, description = "The ID of the agent (`agt_…`), or `shared` for the connection of the organisation.")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((instance, agent)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let id: InstanceId = parse_id(&instance, "instance")?;
    let agent: Option<AgentId> = match agent.as_str() {
        SHARED => None,
        text => Some(text.parse().map_err(|_| Error::not_found("connection"))?),
    };
    connect_ops::disconnect(&cx, web.ops(), &organization_id, &id, agent.as_ref()).await?;
    Ok(StatusCode::NO_CONTENT)
}
