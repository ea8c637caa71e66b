//! Heartbeats: the state of a machine and of its instances.

use waypost_core::caller::Ctx;
use waypost_core::id::ToolboxId;
use waypost_core::instance::Instance;
use waypost_core::toolbox::Toolbox;
use waypost_core::{Result, Timestamp};
use waypost_store::{Tx, instance, toolbox};
use waypost_toolbox_proto::message::{Capacity, ControlMessage, Engine, Heartbeat, InstanceReport};

use super::ToolboxDirectory;
use super::report::{Effect, apply};
use crate::deployments::notify;

/// A reported revision of the desired state is trusted only if it is lower than this.
const MAX_REVISION: u64 = 1 << 53;

impl ToolboxDirectory {
    /// Stores a heartbeat. Returns a request for a new key if an admin has requested one.
    pub(super) async fn receive_heartbeat(
        &self,
        id: &ToolboxId,
        heartbeat: Heartbeat,
    ) -> Result<Option<ControlMessage>> {
        let cx = self.context(id);
        let (mut tx, mut toolbox) = self.begin(id).await?;
        // Without the engine, the daemon does not know which containers exist.
        let is_current = heartbeat.engine.is_some() && heartbeat.desired_revision == toolbox.desired_revision;
        update(&mut toolbox, &heartbeat, cx.now());
        toolbox::update_heartbeat(&mut tx, &toolbox).await?;
        let mut instances = instance::list_by_toolbox(&mut tx, &toolbox.organization_id, id).await?;
        for report in &heartbeat.instances {
            let own = instances.iter_mut().find(|instance| instance.id.as_str() == report.id);
            // An instance that is unknown here is missing from the desired state, so the daemon removes it.
            let Some(own) = own else { continue };
            apply_report(&cx, &mut tx, own, report, cx.now()).await?;
        }
        if is_current {
            finish_removals(&mut tx, &instances, &heartbeat).await?;
        }
        tx.commit().await?;
        Ok(toolbox.key_rotation_requested_at.map(|_| ControlMessage::RotateKey))
    }
}

/// Deletes the instances that are being removed and that the daemon, which knows the current desired state, does not
/// have. The daemon reports the removal only of instances that it had, so not of those that were created and deleted
/// while it was offline.
///
/// # Errors
/// Any error of the store.
async fn finish_removals(tx: &mut Tx, instances: &[Instance], heartbeat: &Heartbeat) -> Result<()> {
    for own in instances.iter().filter(|instance| instance.is_removing) {
        if heartbeat.instances.iter().all(|report| report.id != own.id.as_str()) {
            instance::delete(tx, &own.organization_id, &own.id).await?;
        }
    }
    Ok(())
}

fn update(toolbox: &mut Toolbox, heartbeat: &Heartbeat, now: Timestamp) {
    let engine = heartbeat.engine.as_ref();
    toolbox.version = Some(notify::clean(&heartbeat.version));
    toolbox.engine = engine.map(|engine| Engine {
        version: notify::clean(&engine.version),
        runtime: notify::clean(&engine.runtime),
        os: notify::clean(&engine.os),
        architecture: notify::clean(&engine.architecture),
    });
    let Capacity { cpus, memory_bytes, disk_free_bytes } = heartbeat.capacity;
    let cpus = if cpus.is_finite() { cpus.max(0.0) } else { 0.0 };
    toolbox.capacity = Some(Capacity { cpus, memory_bytes, disk_free_bytes });
    toolbox.last_seen_at = Some(now);
    // After a backup was restored, the daemon has seen a higher number, and would ignore lower ones.
    let seen = heartbeat.desired_revision;
    if seen > toolbox.desired_revision && seen < MAX_REVISION {
        toolbox.desired_revision = seen + 1;
    }
}

/// Applies a report to an instance of the toolbox and stores it.
///
/// # Errors
/// Any error of the store.
pub(super) async fn apply_report(
    cx: &Ctx,
    tx: &mut Tx,
    own: &mut Instance,
    report: &InstanceReport,
    at: Timestamp,
) -> Result<()> {
    let previous = own.state;
    let effect = apply(own, report);
    if effect == Effect::None {
        return Ok(());
    }
    instance::update(tx, own).await?;
    if effect == Effect::StateChanged {
        let cause = own.health.as_ref().filter(|health| !health.ok).and_then(|health| health.message.clone());
        notify::state_changed_at(cx, tx, own, (previous, at), cause.as_deref()).await?;
    }
    Ok(())
}
