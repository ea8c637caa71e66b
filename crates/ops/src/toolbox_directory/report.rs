//! Reports about the observed state of an instance. All functions are pure.

use waypost_core::instance::Instance;
use waypost_toolbox_proto::instance::{Health, InstanceState};
use waypost_toolbox_proto::message::InstanceReport;

use crate::deployments::notify;

/// The effect of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The report is outdated, or contains nothing new.
    None,
    /// Something other than the state has changed.
    Updated,
    /// The state has changed.
    StateChanged,
}

/// Applies a report to an instance. Ignores reports about generations that do not exist, about containers that have
/// been replaced, and about deployments that have been replaced.
pub(super) fn apply(instance: &mut Instance, report: &InstanceReport) -> Effect {
    let is_outdated = match report.state {
        // The control plane itself knows which instances are being removed.
        InstanceState::Removing => true,
        InstanceState::Failed | InstanceState::Deploying => report.generation != instance.generation,
        _ => report.generation > instance.generation || report.generation < instance.observed_generation,
    };
    if instance.is_removing || is_outdated {
        return Effect::None;
    }
    let before = instance.clone();
    instance.state = report.state;
    if matches!(report.state, InstanceState::Running | InstanceState::Unhealthy | InstanceState::Idle) {
        instance.observed_generation = report.generation;
    }
    instance.health = report.health.as_ref().map(|health| Health {
        message: health.message.as_deref().map(notify::clean),
        // Fits into the column of the store.
        latency_ms: health.latency_ms.map(|latency| latency.min(u64::from(u32::MAX))),
        ..health.clone()
    });
    match (instance.state != before.state, *instance != before) {
        (true, _) => Effect::StateChanged,
        (false, true) => Effect::Updated,
        (false, false) => Effect::None,
    }
}
