//! `/instances/{id}/deployments`.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa::{IntoParams, ToSchema};
use waypost_core::caller::Ctx;
use waypost_core::deployment::{self, DeploymentState};
use waypost_core::id::{DeploymentId, InstanceId, OrganizationId};
use waypost_core::{Result, Timestamp};
use waypost_ops::deployments;
use waypost_toolbox_proto::deployment::{DeploymentError, DeploymentStep};

use crate::Web;
use crate::authenticate::Credentials;
use crate::extract::{Json, Path, Query, Scope, parse_id};
use crate::follow::{self, Source};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

/// The interval at which a deployment that is followed is read: another process may change it.
const POLL: Duration = Duration::from_millis(500);

/// The operations on deployments.
pub(super) fn routes() -> Routes {
    Routes::new().routes(routes!(list)).routes(routes!(get))
}

/// A deployment of an instance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deployment {
    #[schema(example = "dep_0123456789abcdef01234567")]
    pub id: String,
    /// `failed`: nothing serves calls. `rolled_back`: the previous container serves calls.
    pub state: DeploymentState,
    /// The current step, or the last one that was reached.
    pub step: DeploymentStep,
    /// Why the deployment failed. Null if it did not.
    pub error: Option<DeploymentError>,
    #[schema(format = DateTime)]
    pub started_at: String,
    /// The time after cleaning up. Null while the deployment is running.
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
}

impl From<deployment::Deployment> for Deployment {
    fn from(deployment: deployment::Deployment) -> Self {
        Self {
            id: deployment.id.to_string(),
            state: deployment.state,
            step: deployment.step,
            error: deployment.error,
            started_at: deployment.started_at.rfc3339(),
            ended_at: deployment.ended_at.map(Timestamp::rfc3339),
        }
    }
}

/// Lists the deployments of an instance, newest first.
///
/// The last 100 are kept.
#[utoipa::path(get, path = "/instances/{id}/deployments", tag = "instances", operation_id = "list_deployments",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`)."), Paging),
    responses((status = 200, body = Page<Deployment>), Problems))]
async fn list(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path(text): Path<String>,
    Query(paging): Query<Paging>,
) -> ApiResult<Json<Page<Deployment>>> {
    let instance: InstanceId = parse_id(&text, "instance")?;
    let (limit, before) = (paging.limit()?, paging.parse_cursor::<u64>()?);
    let found = deployments::list(&cx, web.ops(), &organization_id, &instance, before, limit + 1).await?;
    let page = Page::paginate(found, limit, |deployment| deployment.generation.to_string());
    let items = page.items.into_iter().map(Deployment::from).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeploymentQuery {
    /// Whether to send the deployment after every change until it has ended, as `text/event-stream`.
    #[serde(default)]
    #[param(default = false)]
    follow: bool,
}

/// Returns a deployment of an instance.
///
/// With `follow`, the response is a `text/event-stream`. Each event is the deployment; the last one has an `ended_at`. An
/// error that ends the response is an event `error` with `code` and `detail`.
#[utoipa::path(get, path = "/instances/{id}/deployments/{deployment_id}", tag = "instances",
    operation_id = "get_deployment",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`)."),
        ("deployment_id" = String, Path, description = "The ID of the deployment (`dep_…`)."), DeploymentQuery),
    responses((status = 200, content((Deployment = "application/json"), (String = "text/event-stream"))), Problems))]
async fn get(
    State(web): State<Web>,
    scope: Scope,
    credentials: Credentials,
    Path((instance, deployment)): Path<(String, String)>,
    Query(query): Query<DeploymentQuery>,
) -> ApiResult<Response> {
    let instance_id: InstanceId = parse_id(&instance, "instance")?;
    let id: DeploymentId = parse_id(&deployment, "deployment")?;
    let Scope { cx, organization_id } = &scope;
    let current = deployments::get(cx, web.ops(), organization_id, &instance_id, &id).await?;
    if !query.follow {
        return Ok(Json(Deployment::from(current)).into_response());
    }
    let mut polls = interval(POLL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (cx, organization_id) = (cx.clone(), organization_id.clone());
    let source = DeploymentSource { web: web.clone(), cx, organization_id, instance_id, id, sent: None, polls };
    Ok(follow::respond(&web, &scope, credentials, async { Ok(source) }).await?)
}

struct DeploymentSource {
    web: Web,
    cx: Ctx,
    organization_id: OrganizationId,
    instance_id: InstanceId,
    id: DeploymentId,
    /// The last event.
    sent: Option<deployment::Deployment>,
    polls: Interval,
}

impl Source for DeploymentSource {
    type Item = Deployment;

    async fn next(&mut self) -> Result<Option<Deployment>> {
        loop {
            if self.sent.as_ref().is_some_and(|sent| sent.state != DeploymentState::Running) {
                return Ok(None);
            }
            self.polls.tick().await;
            let (ops, organization) = (self.web.ops(), &self.organization_id);
            let current = deployments::get(&self.cx, ops, organization, &self.instance_id, &self.id).await?;
            if self.sent.as_ref() != Some(&current) {
                self.sent = Some(current.clone());
                return Ok(Some(current.into()));
            }
        }
    }

    async fn check(&mut self, cx: Ctx) -> Result<()> {
        // The next poll, which is at most half a second away, authorizes the current caller.
        self.cx = cx;
        Ok(())
    }
}
