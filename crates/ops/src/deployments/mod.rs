//! Lists, begins and ends the deployments of instances.

pub(crate) mod notify;

use waypost_core::access::{Operation, authorize_operator};
use waypost_core::caller::Ctx;
use waypost_core::deployment::{Deployment, DeploymentState};
use waypost_core::id::{DeploymentId, InstanceId, OrganizationId};
use waypost_core::instance::Instance;
use waypost_core::{Error, Result};
use waypost_store::{Tx, deployment as store, instance, toolbox};
use waypost_toolbox_proto::deployment::{DeploymentError, DeploymentStep, ErrorCode};
use waypost_toolbox_proto::instance::InstanceState;

use crate::Ops;

/// The number of deployments that are kept for each instance, in addition to the one of the generation that serves
/// calls.
const KEPT_DEPLOYMENTS: i64 = 100;
/// The time after which a deployment on a toolbox that is offline fails, in milliseconds.
pub const MAX_OFFLINE_MS: i64 = 10 * 60 * 1_000;
/// The maximum number of deployments that [`end_offline`] ends at a time.
const MAX_ENDED: i64 = 100;

/// Returns at most `limit` deployments of an instance, newest first. With `before`, returns only those of earlier
/// generations.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access it.
pub async fn list(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    instance: &InstanceId,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<Deployment>> {
    ops.authorize_toolboxes(cx, Operation::InstanceRead, organization)?;
    let mut conn = ops.store.read().await?;
    if instance::find(&mut conn, organization, instance).await?.is_none() {
        return Err(Error::not_found("instance"));
    }
    Ok(store::list(&mut conn, organization, instance, before, i64::from(limit)).await?)
}

/// Returns a deployment of an instance.
///
/// # Errors
/// `not_found` if there is no such deployment or the caller cannot access it.
pub async fn get(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    instance: &InstanceId,
    id: &DeploymentId,
) -> Result<Deployment> {
    ops.authorize_toolboxes(cx, Operation::InstanceRead, organization)?;
    let found = store::find(&mut ops.store.read().await?, organization, instance, id).await?;
    found.ok_or_else(|| Error::not_found("deployment"))
}

/// Begins the deployment of the current generation of an instance. A deployment of the previous generation that is still
/// running ends. The toolbox must be locked.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn begin(cx: &Ctx, tx: &mut Tx, instance: &Instance) -> Result<Deployment> {
    let reason = "A newer deployment of this instance replaced this one.";
    interrupt(cx, tx, instance, instance.generation.saturating_sub(1), reason).await?;
    let now = cx.now();
    let deployment = Deployment {
        id: DeploymentId::new(now, &*cx.random),
        organization_id: instance.organization_id.clone(),
        instance_id: instance.id.clone(),
        generation: instance.generation,
        catalog_version_id: instance.container()?.catalog_version_id.clone(),
        config: instance.config.clone(),
        secrets: instance.secrets.clone(),
        personal_secrets: instance.personal_secrets.clone(),
        learn_egress: instance.learn_egress,
        state: DeploymentState::Running,
        step: DeploymentStep::Validating,
        error: None,
        started_at: now,
        ended_at: None,
    };
    store::insert(tx, &deployment).await?;
    store::prune(tx, &instance.organization_id, &instance.id, instance.observed_generation, KEPT_DEPLOYMENTS).await?;
    Ok(deployment)
}

/// Ends the deployment of a generation with the code `interrupted`, if it is still running.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn interrupt(cx: &Ctx, tx: &mut Tx, instance: &Instance, generation: u64, cause: &str) -> Result<()> {
    let found = store::find_by_generation(tx, &instance.organization_id, &instance.id, generation).await?;
    let Some(mut deployment) = found.filter(|found| found.state == DeploymentState::Running) else { return Ok(()) };
    end_without_daemon(cx, &mut deployment, instance, ErrorCode::Interrupted, cause, "No action is required.");
    Ok(store::update(tx, &deployment).await?)
}

/// Ends a deployment without a report of the daemon. The daemon may still report another outcome (see [`is_final`]).
fn end_without_daemon(
    cx: &Ctx,
    deployment: &mut Deployment,
    instance: &Instance,
    code: ErrorCode,
    cause: &str,
    next_action: &str,
) {
    let is_served = instance.observed_generation > 0;
    deployment.state = if is_served { DeploymentState::RolledBack } else { DeploymentState::Failed };
    let (cause, next_action) = (cause.to_owned(), next_action.to_owned());
    deployment.error = Some(DeploymentError { step: deployment.step, code, cause, next_action });
    deployment.ended_at = Some(cx.now());
    count_end(deployment);
}

/// Counts a deployment that has ended, by outcome and code. A deployment that the control plane ended is counted again if
/// the daemon reports another outcome.
pub(crate) fn count_end(deployment: &Deployment) {
    let outcome = deployment.state.as_str();
    let code = deployment.error.as_ref().map_or("none", |error| error.code.as_str());
    metrics::counter!("waypost_deployments_total", "outcome" => outcome, "code" => code).increment(1);
    let millis = deployment.ended_at.map_or(0, |ended| ended.0.saturating_sub(deployment.started_at.0).max(0));
    metrics::histogram!("waypost_deployment_seconds", "outcome" => outcome).record(millis as f64 / 1_000.0);
}

/// Whether a deployment has ended and the daemon cannot change this by reporting a failure. A deployment that the control
/// plane ended without the daemon, because it was offline or the deployment was replaced, can still end differently.
#[must_use]
pub(crate) fn is_final(deployment: &Deployment) -> bool {
    let code = deployment.error.as_ref().map(|error| error.code);
    deployment.state != DeploymentState::Running
        && !matches!(code, Some(ErrorCode::ToolboxOffline | ErrorCode::Interrupted))
}

/// Ends running deployments on toolboxes that have been offline for ten minutes, with the code `toolbox_offline`. The
/// instances keep their configuration: the daemon deploys it when it is online again, and its report then replaces this
/// outcome. Returns the number of deployments that were ended. Called by a job.
///
/// # Errors
/// `forbidden` for everyone except the operator; any error of the store.
pub async fn end_offline(cx: &Ctx, ops: &Ops) -> Result<usize> {
    authorize_operator(&cx.caller)?;
    let before = cx.now().plus(-MAX_OFFLINE_MS);
    let offline = store::list_offline(&mut ops.store.read().await?, before, MAX_ENDED).await?;
    let mut count = 0;
    for found in offline {
        let mut tx = ops.store.begin().await?;
        if end_one_offline(cx, &mut tx, &found).await? {
            tx.commit().await?;
            count += 1;
        }
    }
    Ok(count)
}

async fn end_one_offline(cx: &Ctx, tx: &mut Tx, found: &store::OfflineDeployment) -> Result<bool> {
    let organization = &found.organization_id;
    let before = cx.now().plus(-MAX_OFFLINE_MS);
    let Some(toolbox) = toolbox::lock(tx, organization, &found.toolbox_id).await? else { return Ok(false) };
    if toolbox.last_seen_at.unwrap_or(toolbox.created_at) >= before {
        return Ok(false);
    }
    let Some(mut instance) = instance::find(tx, organization, &found.instance_id).await? else { return Ok(false) };
    let deployment = store::find(tx, organization, &instance.id, &found.id).await?;
    let Some(mut deployment) = deployment.filter(|found| found.state == DeploymentState::Running) else {
        return Ok(false);
    };
    let cause = format!("The toolbox `{}` has been offline for more than ten minutes.", toolbox.name);
    let next_action = "Start the daemon on its machine. The deployment then continues.";
    end_without_daemon(cx, &mut deployment, &instance, ErrorCode::ToolboxOffline, &cause, next_action);
    store::update(tx, &deployment).await?;
    if deployment.generation == instance.generation {
        fail_if_deploying(cx, tx, &mut instance, &cause).await?;
    }
    Ok(true)
}

/// Ends the running deployment of an instance whose toolbox was revoked, with the code `toolbox_offline`.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn end_revoked(cx: &Ctx, tx: &mut Tx, instance: &mut Instance) -> Result<()> {
    let cause = "The toolbox was revoked.";
    let found = store::find_by_generation(tx, &instance.organization_id, &instance.id, instance.generation).await?;
    if let Some(mut deployment) = found.filter(|found| found.state == DeploymentState::Running) {
        let next_action = "Delete the instance, and create it on another toolbox.";
        end_without_daemon(cx, &mut deployment, instance, ErrorCode::ToolboxOffline, cause, next_action);
        store::update(tx, &deployment).await?;
    }
    fail_if_deploying(cx, tx, instance, cause).await
}

async fn fail_if_deploying(cx: &Ctx, tx: &mut Tx, instance: &mut Instance, cause: &str) -> Result<()> {
    if instance.state != InstanceState::Deploying || instance.is_removing {
        return Ok(());
    }
    instance.state = InstanceState::Failed;
    instance::update(tx, instance).await?;
    notify::state_changed(cx, tx, instance, InstanceState::Deploying, Some(cause)).await
}
