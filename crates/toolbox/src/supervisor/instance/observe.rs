//! Comparing the known containers with those of the engine when the daemon starts, and after the engine was restarted.

use waypost_toolbox_proto::InstanceSpec;

use super::super::health::HealthTracker;
use super::super::servers::Servers;
use super::Instance;
use super::unit::End;
use crate::engine::{Engine, ObservedContainer};
use crate::reconcile::{Phase, digest};

impl<E: Engine, S: Servers> Instance<E, S> {
    /// Takes over the containers that the engine has of the instance. Must be called while no act is in progress.
    pub(super) fn observed(&mut self, containers: Vec<ObservedContainer>, exists: bool) {
        self.lost_since = None;
        if self.is_fresh.is_none() {
            self.is_fresh = Some(!exists && containers.is_empty());
        }
        // A container that no longer exists, or stopped together with the engine, has not crashed.
        for unit in &mut self.units {
            let found = containers.iter().find(|container| container.id == unit.id);
            if unit.phase != Phase::Exited && found.is_none_or(|container| !container.running) {
                if unit.end.borrow().is_none() {
                    unit.end.send_replace(Some(End::Lost));
                }
                if unit.phase != Phase::Checking {
                    unit.set_exited();
                }
            }
        }
        let (sink, id) = (&self.shared.parts.sink, &self.id);
        self.units.retain(|unit| {
            let is_found = containers.iter().any(|container| container.id == unit.id);
            if !is_found {
                sink.closed(id, &unit.id);
            }
            is_found
        });
        for container in containers {
            match self.unit(&container.id) {
                Some(unit) => unit.observed = Some(container),
                None => self.take_over(container),
            }
        }
    }

    /// Takes over a container that was started by an earlier process.
    fn take_over(&mut self, container: ObservedContainer) {
        let (at, now) = ((self.shared.parts.clock)(), self.shared.now());
        let id = container.id.clone();
        let (spec, is_serving) = self.spec_of(&container).unzip();
        let running = container.running;
        self.adopt(container, spec);
        let Some(unit) = self.unit(&id).filter(|_| running) else { return };
        if is_serving == Some(true) {
            // The server was checked when it was deployed. If it does not answer now, the probes will detect this.
            unit.phase = Phase::Ready;
            unit.health = Some(HealthTracker::healthy(at, now));
        }
        if let Some(unit) = self.units.iter().find(|unit| unit.id == id) {
            self.find_masks(unit);
        }
    }

    /// Returns the specification of a container, and whether it serves calls; `None` if the specification is unknown.
    fn spec_of(&self, container: &ObservedContainer) -> Option<(InstanceSpec, bool)> {
        let serving = self.memory.serving.as_ref();
        if let Some(serving) =
            serving.filter(|serving| serving.generation == container.generation && serving.digest == container.digest)
        {
            return Some((serving.spec.clone(), true));
        }
        let desired = self.desired.as_ref().filter(|desired| digest(&desired.spec) == container.digest)?;
        Some((desired.spec.clone(), false))
    }
}
