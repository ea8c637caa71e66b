//! `/instances/{id}/personal-secrets`: the values of agents for personal secrets. Values are only written.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use waypost_core::id::{AgentId, InstanceId};
use waypost_core::seal::SecretText;
use waypost_ops::agent_secrets::{self, AgentSecretRef, AgentSecretView};

use crate::Web;
use crate::extract::{Json, Path, Scope, parse_id};
use crate::page::Page;
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on the values of agents.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(set, delete))
}

/// A value of an agent for a personal secret, without the value itself.
#[derive(Debug, Serialize, ToSchema)]
struct AgentSecret {
    #[schema(example = "agt_0123456789abcdef")]
    agent_id: String,
    /// The name of the agent.
    agent: String,
    /// The name of the secret.
    #[schema(example = "API_KEY")]
    name: String,
    #[schema(format = DateTime)]
    set_at: String,
}

impl From<AgentSecretView> for AgentSecret {
    fn from(view: AgentSecretView) -> Self {
        Self {
            agent_id: view.agent_id.to_string(),
            agent: view.agent_name,
            name: view.name,
            set_at: view.set_at.rfc3339(),
        }
    }
}

/// A value of an agent for a personal secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AgentSecretSet {
    /// The value, at most 64 KiB. It is stored encrypted and never returned.
    #[schema(write_only, min_length = 1, max_length = 65536)]
    value: String,
}

/// Lists which agents have supplied which personal secrets of an instance, ordered by the name of the agent.
///
/// The list has one page. Requires the role `admin`.
#[utoipa::path(get, path = "/instances/{id}/personal-secrets", tag = "secrets", operation_id = "list_agent_secrets",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`).")),
    responses((status = 200, body = Page<AgentSecret>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
) -> ApiResult<Json<Page<AgentSecret>>> {
    let id: InstanceId = parse_id(&text, "instance")?;
    let found = agent_secrets::list(&cx, web.ops(), &organization_id, &id).await?;
    Ok(Json(Page { items: found.into_iter().map(AgentSecret::from).collect(), next_cursor: None }))
}

/// Sets or replaces the value of a service agent for a personal secret.
///
/// The container of the agent is replaced before its next call; those of other agents are not affected. People set their own
/// values in the console (409, `person`). Requires the role `admin`.
#[utoipa::path(put, path = "/instances/{id}/agents/{agent_id}/personal-secrets/{name}", tag = "secrets",
    operation_id = "set_agent_secret",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`)."),
        ("agent_id" = String, Path, description = "The ID of the agent (`agt_…`)."),
        ("name" = String, Path, description = "The name of the secret.")),
    request_body = AgentSecretSet, responses((status = 204), Problems))]
async fn set(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((instance, agent, name)): Path<(String, String, String)>,
    Json(new): Json<AgentSecretSet>,
) -> ApiResult<StatusCode> {
    let (instance, agent): (InstanceId, AgentId) = (parse_id(&instance, "instance")?, parse_id(&agent, "agent")?);
    let at = AgentSecretRef { instance: &instance, agent: &agent, name: &name };
    agent_secrets::set(&cx, web.ops(), &organization_id, at, &SecretText::new(new.value)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes the value of an agent for a personal secret.
///
/// If the secret is required, calls by the agent fail from then on. Requires the role `admin`.
#[utoipa::path(delete, path = "/instances/{id}/agents/{agent_id}/personal-secrets/{name}", tag = "secrets",
    operation_id = "delete_agent_secret",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`)."),
        ("agent_id" = String, Path, description = "The ID of the agent (`agt_…`)."),
        ("name" = String, Path, description = "The name of the secret.")),
    responses((status = 204), Problems))]
async fn delete(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((instance, agent, name)): Path<(String, String, String)>,
) -> ApiResult<StatusCode> {
    let (instance, agent): (InstanceId, AgentId) = (parse_id(&instance, "instance")?, parse_id(&agent, "agent")?);
    let at = AgentSecretRef { instance: &instance, agent: &agent, name: &name };
    agent_secrets::delete(&cx, web.ops(), &organization_id, at).await?;
    Ok(StatusCode::NO_CONTENT)
}
