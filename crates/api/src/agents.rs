//! `/agents` and their tokens.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::Timestamp;
use waypost_core::agent::{self, AgentKind, AgentState};
use waypost_core::id::{AgentId, AgentTokenId};
use waypost_ops::agent_tokens::{self, CreateAgentToken};
use waypost_ops::agents::{self, AgentPatch, AgentView};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, created, no_store, parse_id, parse_time};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The name of a token without a name.
const DEFAULT_TOKEN_NAME: &str = "token";

/// The operations on agents and their tokens.
pub(super) fn routes() -> Routes {
    Routes::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update, delete))
        .routes(routes!(create_token))
        .routes(routes!(revoke_token))
}

/// An agent: an AI client of the organisation.
#[derive(Debug, Serialize, ToSchema)]
struct Agent {
    #[schema(example = "agt_0123456789abcdef")]
    id: String,
    /// The name, unique in the organisation.
    name: String,
    /// `service`: a program with its own tokens. `person`: a user of the console, who signs in with OAuth.
    kind: AgentKind,
    /// The user of an agent of the kind `person`. Null for other agents.
    user_id: Option<String>,
    /// A disabled agent is rejected by the gateway.
    state: AgentState,
    #[schema(format = DateTime)]
    created_at: String,
    /// The ID of the user or API key that created the agent, or `operator`.
    created_by: String,
    /// The time at which the agent was last seen, to the minute. Null if it never was.
    #[schema(format = DateTime)]
    last_seen_at: Option<String>,
    /// The tokens without their secrets, oldest first. Expired and revoked tokens are listed for at most 30 days.
    tokens: Vec<AgentToken>,
}

/// A token of an agent, without its secret.
#[derive(Debug, Serialize, ToSchema)]
struct AgentToken {
    #[schema(example = "agk_0123456789abcdef01234567")]
    id: String,
    name: String,
    #[schema(format = DateTime)]
    created_at: String,
    /// The time at which the token expires. Null if it does not expire.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// The time of the last use, to the minute. Null if the token has never been used.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
    /// The time at which the token was revoked. Null if it was not.
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
}

/// A token of an agent with its secret.
#[derive(Debug, Serialize, ToSchema)]
struct AgentTokenWithSecret {
    #[serde(flatten)]
    details: AgentToken,
    /// The secret, sent to the gateway as `Authorization: Bearer wpa_…`. It is returned only once.
    token: String,
}

impl From<agent::AgentToken> for AgentToken {
    fn from(token: agent::AgentToken) -> Self {
        Self {
            id: token.id.to_string(),
            name: token.name,
            created_at: token.created_at.rfc3339(),
            expires_at: token.expires_at.map(Timestamp::rfc3339),
            last_used_at: token.last_used_at.map(Timestamp::rfc3339),
            revoked_at: token.revoked_at.map(Timestamp::rfc3339),
        }
    }
}

impl From<AgentView> for Agent {
    fn from(AgentView { agent, tokens }: AgentView) -> Self {
        Self {
            id: agent.id.to_string(),
            name: agent.name,
            kind: agent.kind,
            user_id: agent.user_id.map(|id| id.to_string()),
            state: agent.state,
            created_at: agent.created_at.rfc3339(),
            created_by: agent.created_by,
            last_seen_at: agent.last_seen_at.map(Timestamp::rfc3339),
            tokens: tokens.into_iter().map(AgentToken::from).collect(),
        }
    }
}

/// An agent to create. It has the kind `service`: agents of people are created when they sign in to the gateway.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AgentCreate {
    /// The name, unique in the organisation.
    #[schema(min_length = 1, max_length = 100, example = "Crawler")]
    name: String,
}

/// Changes to an agent. Absent members are not changed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AgentUpdate {
    /// The new name, unique in the organisation.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// `disabled` rejects every token of the agent within one second. Its tokens and grants are kept.
    state: Option<AgentState>,
}

/// A token to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AgentTokenCreate {
    /// The name. Defaults to `token`.
    #[schema(min_length = 1, max_length = 100, example = "laptop")]
    name: Option<String>,
    /// The time at which the token expires, at most ten years from now. By default it does not expire.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Lists the agents of the organisation with their tokens, sorted by name.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/agents", tag = "agents", operation_id = "list_agents", params(Paging),
    responses((status = 200, body = Page<Agent>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Agent>>> {
    let (limit, cursor) = (paging.limit()?, paging.text_cursor()?);
    let found = agents::list(&cx, web.ops(), &organization_id, cursor, limit + 1).await?;
    let found = found.into_iter().map(Agent::from).collect();
    Ok(Json(Page::paginate(found, limit, |agent: &Agent| agent.name.clone())))
}

/// Creates an agent, without tokens and grants.
///
/// An organisation can have at most 1,000 agents. Requires the role `admin`.
#[utoipa::path(post, path = "/agents", tag = "agents", operation_id = "create_agent", request_body = AgentCreate,
    responses((status = 201, body = Agent, headers(("Location" = String, description = "The URL of the agent"))),
        Problems))]
async fn create(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Json(new): Json<AgentCreate>,
) -> ApiResult<Response> {
    let body = Agent::from(agents::create(&cx, web.ops(), &organization_id, &new.name).await?);
    Ok(created(&format!("agents/{}", body.id), &body))
}

/// Returns an agent with its tokens.
///
/// Requires the role `admin`.
#[utoipa::path(get, path = "/agents/{id}", tag = "agents", operation_id = "get_agent",
    params(("id" = String, Path, description = "The ID of the agent (`agt_…`).")),
    responses((status = 200, body = Agent), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Agent>> {
    Ok(Json(agents::get(&cx, web.ops(), &organization_id, &parse_id(&text, "agent")?).await?.into()))
}

/// Updates the name or the state of an agent.
///
/// The gateway applies the change within one second. Requires the role `admin`.
#[utoipa::path(patch, path = "/agents/{id}", tag = "agents", operation_id = "update_agent",
    params(("id" = String, Path, description = "The ID of the agent (`agt_…`).")), request_body = AgentUpdate,
    responses((status = 200, body = Agent), Problems))]
async fn update(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(change): Json<AgentUpdate>,
) -> ApiResult<Json<Agent>> {
    let (id, change): (AgentId, _) = (parse_id(&text, "agent")?, AgentPatch { name: change.name, state: change.state });
    Ok(Json(agents::update(&cx, web.ops(), &organization_id, &id, &change).await?.into()))
}

/// Deletes an agent with its tokens and grants.
///
/// Requires the role `admin`.
#[utoipa::path(delete, path = "/agents/{id}", tag = "agents", operation_id = "delete_agent",
    params(("id" = String, Path, description = "The ID of the agent (`agt_…`).")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<StatusCode> {
    agents::delete(&cx, web.ops(), &organization_id, &parse_id(&text, "agent")?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Creates a token of an agent.
///
/// The response is the only one that contains the secret. An agent can have at most 20 active tokens; an agent of the kind
/// `person` has none. Requires the role `admin`.
#[utoipa::path(post, path = "/agents/{id}/tokens", tag = "agents", operation_id = "create_agent_token",
    params(("id" = String, Path, description = "The ID of the agent (`agt_…`).")), request_body = AgentTokenCreate,
    responses((status = 201, body = AgentTokenWithSecret), Problems))]
async fn create_token(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Json(new): Json<AgentTokenCreate>,
) -> ApiResult<Response> {
    let agent: AgentId = parse_id(&text, "agent")?;
    let expires_at = new.expires_at.as_deref().map(|text| parse_time("expires_at", text)).transpose()?;
    let new = CreateAgentToken { name: new.name.as_deref().unwrap_or(DEFAULT_TOKEN_NAME), expires_at };
    let (token, secret) = agent_tokens::create(&cx, web.ops(), &organization_id, &agent, new).await?;
    let body = AgentTokenWithSecret { details: token.into(), token: secret.expose().to_owned() };
    // A token has no URL for reading; it is part of its agent.
    Ok(no_store(created(&format!("agents/{agent}"), &body)))
}

/// Revokes a token of an agent.
///
/// The gateway rejects the token within one second. Requires the role `admin`.
#[utoipa::path(delete, path = "/agents/{id}/tokens/{token_id}", tag = "agents", operation_id = "revoke_agent_token",
    params(("id" = String, Path, description = "The ID of the agent (`agt_…`)."),
        ("token_id" = String, Path, description = "The ID of the token (`agk_…`).")),
    responses((status = 204), Problems))]
async fn revoke_token(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((agent, token)): Path<(String, String)>,
) -> ApiResult<StatusCode> {
    let (agent, token): (AgentId, AgentTokenId) = (parse_id(&agent, "agent")?, parse_id(&token, "token")?);
    agent_tokens::revoke(&cx, web.ops(), &organization_id, &agent, &token).await?;
    Ok(StatusCode::NO_CONTENT)
}
