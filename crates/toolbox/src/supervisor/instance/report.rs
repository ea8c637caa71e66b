//! Reports the observed state in events and heartbeats.

use std::sync::PoisonError;

use waypost_toolbox_proto::Health;
use waypost_toolbox_proto::message::{InstanceReport, ToolboxEvent};

use super::super::servers::Servers;
use super::Instance;
use crate::engine::Engine;

impl<E: Engine, S: Servers> Instance<E, S> {
    /// Updates the observed state for heartbeats, and reports it as an event if it has changed.
    pub(super) fn report(&mut self) {
        if self.is_fresh.is_none() && self.memory.serving.is_some() {
            // The engine has not been reached yet, so the state is unknown.
            return;
        }
        let report = InstanceReport {
            id: self.id.clone(),
            generation: self.generation(),
            state: self.state(),
            health: self.health(),
        };
        *self.channels.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report.clone());
        let is_changed = self.reported.as_ref().is_none_or(|reported| {
            let ok = |report: &InstanceReport| report.health.as_ref().map(|health| health.ok);
            (reported.generation, reported.state, ok(reported)) != (report.generation, report.state, ok(&report))
        });
        // The end of the removal is reported by a separate event.
        if is_changed && !self.is_removed {
            self.reported = Some(report.clone());
            self.shared.parts.control.report(ToolboxEvent::Instance(report));
        }
    }

    fn generation(&self) -> u64 {
        if let Some(serving) = &self.memory.serving {
            return serving.generation;
        }
        let verdict = self.memory.verdict.as_ref().map(|verdict| verdict.deployment.generation);
        self.desired.as_ref().map(|desired| desired.generation).or(verdict).unwrap_or_default()
    }

    /// Returns the health of the server. If there are several containers, returns the worst health among them.
    fn health(&mut self) -> Option<Health> {
        let serving = self.memory.serving.as_ref()?;
        let ready = self.units.iter().filter(|unit| unit.is_ready());
        let ready = ready.filter(|unit| serving.owns(&unit.container(self.shared.start)));
        let worst = ready.filter_map(|unit| unit.health.as_ref()).min_by_key(|health| health.report().ok);
        if let Some(health) = worst {
            self.last_health = Some(health.report().clone());
        } else if let Some(attempts) = self.attempts.values().find(|attempts| !attempts.is_empty()) {
            let at = self.last_health.as_ref().map_or_else(self.shared.parts.clock, |health| health.checked_at);
            let message = Some(attempts.message().to_owned());
            self.last_health = Some(Health { ok: false, checked_at: at, latency_ms: None, message });
        }
        self.last_health.clone().or_else(|| self.unchecked())
    }

    /// Returns the health of a server that has never been checked, because its containers need the personal secrets of
    /// an agent.
    fn unchecked(&self) -> Option<Health> {
        let serving = self.memory.serving.as_ref()?;
        let names: Vec<&str> = serving.spec.required_personal_secrets().collect();
        let message = format!(
            "Not checked yet. The server starts with the first call of an agent that has supplied its own values of: {}.",
            names.join(", ")
        );
        let checked_at = (self.shared.parts.clock)();
        (!names.is_empty()).then_some(Health { ok: false, checked_at, latency_ms: None, message: Some(message) })
    }
}
