//! Events of toolboxes.

use waypost_core::caller::Ctx;
use waypost_core::id::ToolboxId;
use waypost_core::instance::{Instance, InstanceEventKind};
use waypost_core::toolbox::Toolbox;
use waypost_core::{Result, Timestamp};
use waypost_store::{Tx, instance, toolbox};
use waypost_toolbox_proto::entry::Destination;
use waypost_toolbox_proto::message::{ControlMessage, ToolboxEvent};

use super::ToolboxDirectory;
use super::heartbeat::apply_report;
use super::outcome;
use crate::deployments::notify;
use crate::instances::continue_rotations;

/// The maximum number of rejected destinations that are stored for an instance.
const MAX_REJECTED: usize = 100;
/// The highest number of an event that fits into the column of the store.
const MAX_SEQUENCE: u64 = i64::MAX.cast_unsigned();

/// An event with its number.
pub(super) struct Numbered {
    pub sequence: u64,
    /// The time by the daemon's clock.
    pub at: i64,
    pub event: ToolboxEvent,
}

impl ToolboxDirectory {
    /// Applies an event once, and acknowledges all events that are stored. An event whose number is not higher than
    /// that of the last one has been applied already.
    pub(super) async fn receive_event(&self, id: &ToolboxId, event: Numbered) -> Result<Option<ControlMessage>> {
        let cx = self.context(id);
        let (mut tx, own) = self.begin(id).await?;
        if event.sequence <= own.last_event || event.sequence > MAX_SEQUENCE {
            return Ok(Some(ControlMessage::Acknowledge { sequence: own.last_event }));
        }
        let ended = apply_event(&cx, &mut tx, &own, &event).await?;
        toolbox::set_last_event(&mut tx, &own.organization_id, id, event.sequence).await?;
        tx.commit().await?;
        if let Some(instance) = ended {
            // A rollback changes the desired state.
            self.ops.links().notify_desired(id);
            if let Err(error) = continue_rotations(&cx, &self.ops, &instance).await {
                // The job continues the rotation.
                tracing::warn!(%error, "failed to continue the rotation of a secret");
            }
        }
        Ok(Some(ControlMessage::Acknowledge { sequence: event.sequence }))
    }
}

/// Applies an event. Returns the instance if its deployment has ended.
async fn apply_event(cx: &Ctx, tx: &mut Tx, toolbox: &Toolbox, event: &Numbered) -> Result<Option<Instance>> {
    let Some(mut own) = ToolboxDirectory::find_instance(tx, toolbox, event.event.instance_id()).await? else {
        return Ok(None);
    };
    let at = Timestamp(event.at);
    match &event.event {
        ToolboxEvent::Instance(report) => apply_report(cx, tx, &mut own, report, at).await?,
        ToolboxEvent::DeploymentStep { deployment_id, step, .. } => {
            outcome::apply_step(tx, &own, deployment_id, *step).await?;
        }
        ToolboxEvent::DeploymentEnded { deployment_id, outcome, .. } => {
            outcome::apply_end(cx, tx, &mut own, deployment_id, outcome).await?;
            return Ok(Some(own));
        }
        ToolboxEvent::Crashed { exit_code, out_of_memory, .. } => {
            let cause = if *out_of_memory { ", because it exceeded its memory limit" } else { "" };
            let message = format!("The container exited with code {exit_code}{cause}.");
            notify::record(cx, tx, &own, InstanceEventKind::Crashed, (at, message)).await?;
        }
        ToolboxEvent::Removed { .. } => remove(tx, &own).await?,
        ToolboxEvent::EgressRejected { destinations, .. } => {
            if add_rejected(&mut own, destinations) {
                instance::update(tx, &own).await?;
            }
        }
    }
    Ok(None)
}

async fn remove(tx: &mut Tx, own: &Instance) -> Result<()> {
    if !own.is_removing {
        tracing::warn!(instance = %own.id, "ignored the removal of an instance that should exist");
        return Ok(());
    }
    instance::delete(tx, &own.organization_id, &own.id).await?;
    Ok(())
}

/// Appends destinations that are not known yet. Returns whether any was added.
fn add_rejected(instance: &mut Instance, destinations: &[String]) -> bool {
    let before = instance.rejected_egress.len();
    for text in destinations.iter().take(MAX_REJECTED) {
        let Ok(destination) = text.parse::<Destination>() else { continue };
        let destination = destination.to_string();
        if instance.rejected_egress.len() < MAX_REJECTED && !instance.rejected_egress.contains(&destination) {
            instance.rejected_egress.push(destination);
        }
    }
    instance.rejected_egress.len() > before
}
