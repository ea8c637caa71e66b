//! Rotation of secrets: the instances that use a secret get its new value one after another.
//!
//! For each secret, at most one of its running instances is deployed at a time. Such a deployment is like any other:
//! the old container serves calls until the new one is healthy, and continues with the old value if the deployment
//! fails. The old value is kept as long as a deployment uses it, and for at least ten minutes
//! (`store/replaced_secret.rs`), so that the old container can also be started again. The rotation then goes on with
//! the next instance, so that one broken instance does not keep the others on a value that may no longer be valid. A
//! failed attempt is not repeated until the secret is rotated again, or the instance is changed or restarted. Instances
//! on toolboxes that are not online wait until they are; stopped instances get the new value when they are started.
//! Remote servers have no containers: they are checked with the new value, and nothing is rolled back.

use waypost_core::access::authorize_operator;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ToolSecretId};
use waypost_core::instance::{DesiredRun, Instance};
use waypost_core::toolbox::ToolboxState;
use waypost_core::{Error, Result};
use waypost_store::{Tx, instance as store, instance_source, toolbox};

use super::{deploy, notify_desired};
use crate::{Ops, tool_secrets};

/// The maximum number of secrets that [`advance_rotations`] considers at a time.
const MAX_SECRETS: i64 = 1_000;

/// Begins the next deployment of each rotation that has none running. Returns the number of deployments. Called by a job.
///
/// # Errors
/// `forbidden` for everyone except the operator; any error of the store.
pub async fn advance_rotations(cx: &Ctx, ops: &Ops) -> Result<usize> {
    authorize_operator(&cx.caller)?;
    let secrets = store::list_rotating_secrets(&mut ops.store.read().await?, MAX_SECRETS).await?;
    let mut count = 0;
    for (organization, secret) in secrets {
        count += usize::from(advance(cx, ops, &organization, &secret).await?);
    }
    tool_secrets::delete_replaced(cx, ops).await?;
    Ok(count)
}

/// Begins the next deployment of the rotation of a secret, if none is running. Returns whether it did. Must not be called
/// in a transaction that has locked a toolbox.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn advance(cx: &Ctx, ops: &Ops, organization: &OrganizationId, secret: &ToolSecretId) -> Result<bool> {
    let mut tx = ops.store.begin().await?;
    // Rotations of an organisation are advanced one after the other.
    toolbox::lock_organization(&mut tx, organization).await?;
    let users = store::list_secret_users(&mut tx, organization, secret).await?;
    if users.iter().any(|user| user.is_deploying) {
        return Ok(false);
    }
    for user in users.iter().filter(|user| user.is_outdated) {
        if let Some(toolbox) = &user.toolbox_id {
            let toolbox = toolbox::lock(&mut tx, organization, toolbox).await?;
            if toolbox.is_none_or(|toolbox| toolbox.state(cx.now()) != ToolboxState::Online) {
                continue;
            }
        }
        let Some(mut instance) = store::find(&mut tx, organization, &user.instance_id).await? else { continue };
        let is_running = instance.desired == DesiredRun::Running && !instance.is_removing;
        if !is_running || !refresh_secrets(&mut tx, &mut instance).await? {
            continue;
        }
        deploy(cx, &mut tx, &mut instance).await?;
        store::mark_rotation_attempted(&mut tx, organization, &instance.id).await?;
        tx.commit().await?;
        notify_desired(ops, &instance);
        return Ok(true);
    }
    Ok(false)
}

/// Continues the rotations of the secrets of an instance whose deployment has ended.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn continue_after(cx: &Ctx, ops: &Ops, instance: &Instance) -> Result<()> {
    for secret in &instance.secrets {
        advance(cx, ops, &instance.organization_id, &secret.secret_id).await?;
    }
    Ok(())
}

/// Sets the versions of an instance's secrets to the current ones. Returns whether any has changed.
///
/// # Errors
/// Any error of the store.
pub(super) async fn refresh_secrets(tx: &mut Tx, instance: &mut Instance) -> Result<bool> {
    let ids: Vec<_> = instance.secrets.iter().map(|secret| &secret.secret_id).collect();
    let current = instance_source::list_secrets(tx, &instance.organization_id, &ids).await?;
    let mut is_changed = false;
    for used in &mut instance.secrets {
        let Some(secret) = current.iter().find(|secret| secret.id == used.secret_id.as_str()) else { continue };
        let version = u64::try_from(secret.version).map_err(Error::internal)?;
        is_changed |= used.version != version;
        used.version = version;
    }
    Ok(is_changed)
}
