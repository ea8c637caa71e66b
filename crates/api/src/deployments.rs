//! `/instances/{id}/deployments`.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use waypost_core::Timestamp;
use waypost_core::deployment::{self, DeploymentState};
use waypost_core::id::{DeploymentId, InstanceId};
use waypost_ops::deployments;
use waypost_toolbox_proto::deployment::{DeploymentError, DeploymentStep};

use crate::Web;
use crate::extract::{Json, Path, Query, Scope, parse_id};
use crate::page::{Page, Paging};
use crate::problem::{ApiResult, Problems};
use crate::routes::{Routes, routes};

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

/// Returns a deployment of an instance.
#[utoipa::path(get, path = "/instances/{id}/deployments/{deployment_id}", tag = "instances",
    operation_id = "get_deployment",
    params(("id" = String, Path, description = "The ID of the instance (`ins_…`)."),
        ("deployment_id" = String, Path, description = "The ID of the deployment (`dep_…`).")),
    responses((status = 200, body = Deployment), Problems))]
async fn get(
    State(web): State<Web>,
    Scope { cx, organization_id }: Scope,
    Path((instance, deployment)): Path<(String, String)>,
) -> ApiResult<Json<Deployment>> {
    let instance: InstanceId = parse_id(&instance, "instance")?;
    let id: DeploymentId = parse_id(&deployment, "deployment")?;
    Ok(Json(deployments::get(&cx, web.ops(), &organization_id, &instance, &id).await?.into()))
}
