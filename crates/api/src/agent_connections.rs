//! `/agent-connections`: which agent has called which instance.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use waypost_ops::calls::{self, CallSummary};

use crate::Web;
use crate::extract::{Json, Query, Scope};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The operations on the connections of agents.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list))
}

/// The calls of an agent to an instance in the last hour.
#[derive(Debug, Serialize, ToSchema)]
struct AgentConnection {
    #[schema(example = "agt_0123456789abcdef")]
    agent_id: String,
    #[schema(example = "ins_0123456789abcdef")]
    instance_id: String,
    /// The toolbox on which the instance runs at present. Null if it is a remote server, or has been deleted.
    #[schema(example = "tbx_0123456789abcdef")]
    toolbox_id: Option<String>,
    /// The number of calls.
    calls: i64,
    /// The number of those whose outcome is not `ok`.
    failures: i64,
    /// The time at which the last one ended.
    #[schema(format = DateTime)]
    last_at: String,
}

impl From<CallSummary> for AgentConnection {
    fn from(summary: CallSummary) -> Self {
        Self {
            agent_id: summary.agent_id.to_string(),
            instance_id: summary.instance_id.to_string(),
            toolbox_id: summary.toolbox_id.map(|id| id.to_string()),
            calls: summary.calls,
            failures: summary.failures,
            last_at: summary.last_at.rfc3339(),
        }
    }
}

/// Lists which agent has called which instance in the last hour, and over which toolbox, those with the last call first.
///
/// Of more than 10,000 calls, only the last ones are counted. A connection that is used while the pages are read moves to the
/// first page. Requires the role `admin`.
#[utoipa::path(get, path = "/agent-connections", tag = "calls", operation_id = "list_agent_connections", params(Paging),
    responses((status = 200, body = Page<AgentConnection>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<AgentConnection>>> {
    let page = (paging.cursor.as_deref(), paging.limit()?);
    let page = calls::list_connections(&cx, web.ops(), &organization_id, page).await?;
    Ok(Json(Page { items: page.items.into_iter().map(AgentConnection::from).collect(), next_cursor: page.next_cursor }))
}
