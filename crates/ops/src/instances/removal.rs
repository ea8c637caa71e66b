//! Removal of instances.

use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::instance::Backend;
use waypost_core::toolbox::ToolboxState;
use waypost_core::{Error, Result};
use waypost_store::{instance as store, remote_connection, toolbox};
use waypost_toolbox_proto::instance::InstanceState;

use super::{not_found, record_operation};
use crate::Ops;
use crate::deployments;
use crate::remote_tokens::revoke;

/// Removes an instance. Its row is deleted when the toolbox has removed all its containers, networks, volumes and
/// files, or at once if there is no machine or the toolbox is revoked. The row of a remote server is deleted at once,
/// and the tokens of its connections are revoked. Succeeds if the instance is already being removed.
///
/// # Errors
/// `not_found` if the instance does not exist or the caller cannot access it; `forbidden` for members below admin.
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, id: &InstanceId) -> Result<()> {
    ops.authorize_toolboxes(cx, Operation::InstanceWrite, organization)?;
    let mut tx = ops.store.begin().await?;
    let found = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let Backend::Container(container) = &found.backend else {
        toolbox::lock_organization(&mut tx, organization).await?;
        let connections = remote_connection::delete_all(&mut tx, organization, id).await?;
        if !store::delete(&mut tx, organization, id).await? {
            return Err(not_found());
        }
        record_operation(cx, &mut tx, &found, "instance.delete").await?;
        tx.commit().await?;
        revoke(ops, connections).await;
        return Ok(());
    };
    let toolbox_id = container.toolbox_id.clone();
    let toolbox = toolbox::lock(&mut tx, organization, &toolbox_id).await?;
    let toolbox = toolbox.ok_or_else(|| Error::internal("the toolbox of an instance does not exist"))?;
    let mut instance = store::find(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let has_machine = !matches!(toolbox.state(cx.now()), ToolboxState::Pending | ToolboxState::Revoked);
    if instance.is_removing && has_machine {
        return Ok(());
    }
    if has_machine {
        deployments::interrupt(cx, &mut tx, &instance, instance.generation, "The instance is being removed.").await?;
        (instance.is_removing, instance.state, instance.updated_at) = (true, InstanceState::Removing, cx.now());
        store::update(&mut tx, &instance).await?;
        toolbox::increment_revision(&mut tx, organization, &toolbox_id).await?;
    } else {
        store::delete(&mut tx, organization, id).await?;
        toolbox::increment_revision(&mut tx, organization, &toolbox_id).await?;
    }
    record_operation(cx, &mut tx, &instance, "instance.delete").await?;
    tx.commit().await?;
    ops.links().notify_desired(&toolbox_id);
    Ok(())
}
