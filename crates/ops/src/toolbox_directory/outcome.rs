//! The progress and the outcome of deployments, as reported by daemons.

use waypost_core::Result;
use waypost_core::caller::Ctx;
use waypost_core::deployment::{Deployment, DeploymentState};
use waypost_core::id::DeploymentId;
use waypost_core::instance::{Backend, Container, DesiredRun, Instance, SecretUse};
use waypost_store::{Tx, deployment as store, instance, instance_source, toolbox};
use waypost_toolbox_proto::deployment::{DeploymentError, DeploymentStep};
use waypost_toolbox_proto::instance::InstanceState;
use waypost_toolbox_proto::message::DeploymentOutcome;

use crate::deployments::{count_end, is_final, notify};
use crate::instances::containers;

async fn find(tx: &mut Tx, own: &Instance, id: &str) -> Result<Option<Deployment>> {
    match id.parse::<DeploymentId>() {
        Ok(id) => Ok(store::find(tx, &own.organization_id, &own.id, &id).await?),
        Err(_) => Ok(None),
    }
}

/// Stores the step that a running deployment has reached.
///
/// # Errors
/// Any error of the store.
pub(super) async fn apply_step(tx: &mut Tx, own: &Instance, id: &str, step: DeploymentStep) -> Result<()> {
    let found = find(tx, own, id).await?;
    let Some(mut deployment) = found.filter(|found| found.state == DeploymentState::Running) else { return Ok(()) };
    deployment.step = step;
    Ok(store::update(tx, &deployment).await?)
}

/// Stores the end of a deployment. A reported success is always accepted: the daemon has seen that the server is
/// healthy, or has accepted the specification of a stopped instance, which it does not start.
///
/// # Errors
/// Any error of the store.
pub(super) async fn apply_end(
    cx: &Ctx,
    tx: &mut Tx,
    own: &mut Instance,
    id: &str,
    outcome: &DeploymentOutcome,
) -> Result<()> {
    let Some(mut deployment) = find(tx, own, id).await? else { return Ok(()) };
    let is_current = deployment.generation == own.generation && !own.is_removing;
    match outcome {
        DeploymentOutcome::Complete if deployment.state == DeploymentState::Complete => Ok(()),
        DeploymentOutcome::Complete => {
            end(cx, tx, &mut deployment, DeploymentState::Complete, None).await?;
            complete(cx, tx, own, &deployment, is_current).await
        }
        DeploymentOutcome::Failed { .. } | DeploymentOutcome::RolledBack { .. } if is_final(&deployment) => Ok(()),
        DeploymentOutcome::Failed { error } => {
            end(cx, tx, &mut deployment, DeploymentState::Failed, Some(error)).await?;
            if is_current { fail(cx, tx, own, error).await } else { Ok(()) }
        }
        DeploymentOutcome::RolledBack { error } => {
            end(cx, tx, &mut deployment, DeploymentState::RolledBack, Some(error)).await?;
            if is_current { restore(tx, own).await } else { Ok(()) }
        }
    }
}

async fn end(
    cx: &Ctx,
    tx: &mut Tx,
    deployment: &mut Deployment,
    state: DeploymentState,
    error: Option<&DeploymentError>,
) -> Result<()> {
    deployment.state = state;
    // A failed deployment shows the step that failed.
    deployment.step = error.map_or(DeploymentStep::Complete, |error| error.step);
    deployment.error = error.map(|error| DeploymentError {
        cause: notify::clean(&error.cause),
        next_action: notify::clean(&error.next_action),
        ..error.clone()
    });
    deployment.ended_at = Some(cx.now());
    count_end(deployment);
    Ok(store::update(tx, deployment).await?)
}

async fn complete(cx: &Ctx, tx: &mut Tx, own: &mut Instance, deployment: &Deployment, is_current: bool) -> Result<()> {
    own.observed_generation = own.observed_generation.max(deployment.generation);
    let is_waiting = matches!(own.state, InstanceState::Deploying | InstanceState::Failed);
    let is_changed = is_current && is_waiting;
    let previous = own.state;
    if is_changed {
        own.state = match own.desired {
            DesiredRun::Running => InstanceState::Running,
            DesiredRun::Stopped => InstanceState::Stopped,
        };
    }
    instance::update(tx, own).await?;
    if is_current {
        // The values of the previous generation were kept for a rollback.
        containers::delete_undeclared(tx, own).await?;
    }
    if is_changed {
        notify::state_changed(cx, tx, own, previous, None).await?;
    }
    notify::deployment_complete(cx, tx, own, deployment).await
}

async fn fail(cx: &Ctx, tx: &mut Tx, own: &mut Instance, error: &DeploymentError) -> Result<()> {
    if own.state == InstanceState::Failed {
        return Ok(());
    }
    let previous = std::mem::replace(&mut own.state, InstanceState::Failed);
    instance::update(tx, own).await?;
    notify::state_changed(cx, tx, own, previous, Some(&error.cause)).await
}

/// Restores the version, configuration and secrets of the generation that serves calls. The generation itself stays: the
/// daemon has settled it, and does not deploy it again.
async fn restore(tx: &mut Tx, own: &mut Instance) -> Result<()> {
    let served = store::find_by_generation(tx, &own.organization_id, &own.id, own.observed_generation).await?;
    let Some(served) = served else {
        tracing::warn!(instance = %own.id, "an instance was rolled back to an unknown generation");
        return Ok(());
    };
    let toolbox_id = own.container()?.toolbox_id.clone();
    own.backend =
        Backend::Container(Container { catalog_version_id: served.catalog_version_id, toolbox_id: toolbox_id.clone() });
    own.config = served.config;
    // A secret that the user has replaced may have been deleted in the meantime.
    let ids: Vec<_> = served.secrets.iter().map(|used| &used.secret_id).collect();
    let existing = instance_source::list_secrets(tx, &own.organization_id, &ids).await?;
    let exists = |used: &SecretUse| existing.iter().any(|secret| secret.id == used.secret_id.as_str());
    own.secrets = served.secrets.iter().filter(|used| exists(used)).cloned().collect();
    own.personal_secrets = served.personal_secrets;
    own.learn_egress = served.learn_egress;
    instance::update(tx, own).await?;
    containers::delete_undeclared(tx, own).await?;
    instance::replace_secrets(tx, own).await?;
    Ok(toolbox::increment_revision(tx, &own.organization_id, &toolbox_id).await?)
}
