//! Performs the acts of [`reconcile`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};
use waypost_toolbox_proto::message::ToolboxEvent;
use waypost_toolbox_proto::{DeploymentStep, InstanceState, Sharing};

use super::super::servers::{CallFailure, Servers};
use super::super::{ENGINE_TIMEOUT, RETRY_PAUSE, STOP_GRACE};
use super::errors::{engine_unavailable, no_capacity};
use super::unit::Unit;
use super::work::{Done, Steps};
use super::{Exclusive, Instance};
use crate::engine::Engine;
use crate::reconcile::{
    Act, Container, Deployment, Key, Observation, Phase, Plan, Refusal, Serving, Situation, Target, digest, reconcile,
    state,
};

impl<E: Engine, S: Servers> Instance<E, S> {
    /// Performs acts until there are none left without the passing of time or an event.
    pub(super) async fn converge(&mut self) {
        loop {
            self.wake = None;
            self.settle_attempts();
            self.maintain_units();
            self.sync_routes();
            if self.exclusive.is_some() || self.is_removed {
                return self.check_engine().await;
            }
            if self.needs_observe {
                self.observe_when_quiet();
                return self.check_engine().await;
            }
            let plan = self.plan();
            if let Some(wake) = plan.wake {
                self.wake_at(self.shared.start + wake);
            }
            self.refuse(&plan);
            let mut again = false;
            for act in plan.acts {
                again |= self.perform(act).await;
            }
            if !again {
                return;
            }
        }
    }

    fn plan(&mut self) -> Plan {
        self.with_situation(reconcile)
    }

    /// Calls `function` with the current situation.
    pub(super) fn with_situation<T>(&mut self, function: impl FnOnce(&Situation<'_>) -> T) -> T {
        let containers: Vec<Container> = self.units.iter().map(|unit| unit.container(self.shared.start)).collect();
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        let demand: BTreeSet<Key> = self.waiters.keys().cloned().collect();
        function(&Situation {
            desired: self.desired.as_deref(),
            containers: &containers,
            memory: &self.memory,
            attempts: &self.attempts,
            demand: &demand,
            free: self.shared.budget.free(),
            limits: self.shared.parts.settings.key_limits,
            now: self.shared.now(),
        })
    }

    pub(super) fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn refuse(&mut self, plan: &Plan) {
        for (key, refusal) in &plan.refused {
            for waiter in self.waiters.remove(key).unwrap_or_default() {
                _ = waiter.send(Err(failure(refusal)));
            }
        }
    }

    /// Performs an act. Returns whether the rules must be applied again at once.
    async fn perform(&mut self, act: Act) -> bool {
        match act {
            Act::Begin(deployment) => self.begin(deployment).await,
            Act::Interrupt => {
                self.memory.interrupt();
                self.save().await;
            }
            Act::NoCapacity => {
                if let Some(desired) = self.desired.clone() {
                    self.memory.fail(no_capacity(&desired.spec));
                    self.save().await;
                }
            }
            Act::Complete(deployment) => self.complete(deployment).await,
            Act::Restarted => {
                if let Some(desired) = self.desired.clone() {
                    self.memory.restarted(desired.restarts);
                    self.attempts.clear();
                    self.save().await;
                }
            }
            Act::Start { key, deploy } => return self.start(key, deploy).await,
            Act::Check { container, deploy } => {
                self.check(&container, deploy);
                return false;
            }
            Act::Remove { container, how } => {
                self.remove(&container, how).await;
                return false;
            }
            Act::Finish => return self.clean().await,
            Act::RemoveInstance => {
                self.remove_instance();
                return false;
            }
        }
        true
    }

    /// Returns the reporter of the steps of a deployment.
    pub(super) fn steps(&self) -> Steps {
        let deployment = self.memory.deploying.as_ref().filter(|deployment| !deployment.quiet);
        Steps { deployment_id: deployment.map(|deployment| deployment.id.clone()), instance_id: self.id.clone() }
    }

    async fn begin(&mut self, deployment: Deployment) {
        self.memory.begin(deployment, self.is_fresh == Some(true) && self.units.is_empty());
        // The deployment is stored before anything is created for it.
        self.save().await;
        self.touched = Arc::new(AtomicBool::new(false));
        self.steps().report(&self.shared, DeploymentStep::Validating);
    }

    async fn complete(&mut self, deployment: Deployment) {
        let Some(desired) = self.desired.clone() else { return };
        let quiet = deployment.quiet;
        let id = deployment.id.clone();
        self.memory.complete(deployment, &desired);
        self.attempts.clear();
        // The old container is removed only after this has been saved.
        self.save().await;
        if !quiet {
            let steps = Steps { deployment_id: Some(id), instance_id: self.id.clone() };
            steps.report(&self.shared, DeploymentStep::Complete);
        }
    }

    /// Ends a deployment: removes what it has left behind, and then reports the outcome. Returns whether the rules must
    /// be applied again at once.
    async fn clean(&mut self) -> bool {
        let failed = self.memory.verdict.as_ref().is_some_and(|verdict| verdict.error.is_some());
        if !failed || !self.is_touched() {
            self.finish().await;
            return true;
        }
        self.exclusive = Some(Exclusive::Clean);
        self.clean_after(Duration::ZERO);
        false
    }

    /// Removes what a failed deployment has left behind, after a pause. If no server serves calls, this includes all
    /// resources of the instance; otherwise, it includes only the volumes that the deployment created and the serving
    /// server does not use.
    pub(super) fn clean_after(&mut self, pause: Duration) {
        let (shared, id, fresh) = (Arc::clone(&self.shared), self.id.clone(), self.memory.fresh);
        let generation = self.memory.verdict.as_ref().map_or(0, |verdict| verdict.deployment.container_generation);
        let kept = self.memory.serving.as_ref().map(|serving| {
            let volumes = serving.spec.volumes.iter();
            volumes.map(|volume| volume.name.clone()).collect::<Vec<_>>()
        });
        self.work(async move {
            sleep(pause).await;
            let engine = &shared.parts.engine;
            Done::Cleaned(match kept {
                Some(kept) => engine.remove_volumes(&id, generation, &kept).await,
                None => engine.remove_instance(&id, fresh).await,
            })
        });
    }

    fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    /// Reports the outcome of the deployment. This is saved only afterwards, so that the outcome is reported at least
    /// once.
    pub(super) async fn finish(&mut self) {
        if let Some((deployment_id, outcome)) = self.memory.finish() {
            let instance_id = self.id.clone();
            let event = ToolboxEvent::DeploymentEnded { deployment_id, instance_id, outcome };
            // The state is reported first, so that it is up to date for clients that wait for the end of the
            // deployment.
            self.report();
            self.shared.parts.control.report(event);
        }
        self.save().await;
    }

    /// Removes all resources of the instance once no start is in progress.
    fn remove_instance(&mut self) {
        for waiter in std::mem::take(&mut self.waiters).into_values().flatten() {
            _ = waiter.send(Err(CallFailure::new(404, "The instance is being removed.")));
        }
        let is_starting = self.units.iter().any(|unit| unit.phase == Phase::Starting);
        for unit in &mut self.units {
            match unit.phase {
                Phase::Starting => unit.cancel.cancel(),
                _ => {
                    unit.disconnect();
                    unit.is_removing = true;
                }
            }
        }
        self.sync_routes();
        if is_starting {
            return;
        }
        self.exclusive = Some(Exclusive::Remove);
        let running: Vec<String> = {
            let running = self.units.iter().filter(|unit| unit.phase != Phase::Exited);
            running.map(|unit| unit.id.clone()).collect()
        };
        let (shared, id) = (Arc::clone(&self.shared), self.id.clone());
        self.work(async move {
            let engine = &shared.parts.engine;
            loop {
                // Errors are ignored: containers that no longer exist, or cannot be stopped, are handled below.
                join_all(running.iter().map(|container| engine.stop(container, STOP_GRACE))).await;
                match engine.remove_instance(&id, true).await {
                    Ok(()) => return Done::InstanceRemoved,
                    Err(error) => tracing::warn!(%error, instance = id, "failed to remove an instance"),
                }
                sleep(RETRY_PAUSE).await;
            }
        });
    }

    /// Replaces the routes with routes to the newest ready container of each key, and answers the calls that wait for
    /// them.
    pub(super) fn sync_routes(&mut self) {
        let serving = self.memory.serving.as_ref();
        self.channels.calls.set_sharing(serving.map_or(Sharing::Shared, |serving| serving.spec.sharing));
        let mut routes = BTreeMap::new();
        let mut units: Vec<_> = self.units.iter().filter(|unit| unit.is_ready()).collect();
        units.sort_by_key(|unit| unit.started);
        for unit in units {
            let is_serving = serving.is_some_and(|serving| serving.owns(&unit.container(self.shared.start)));
            if let Some(route) = unit.route().filter(|_| is_serving) {
                routes.insert(unit.key.clone(), route);
            }
        }
        for key in routes.keys() {
            for waiter in self.waiters.remove(key).unwrap_or_default() {
                _ = waiter.send(Ok(()));
            }
        }
        self.channels.calls.routes.replace(routes);
    }

    /// Fails the deployment if the engine has been unreachable for too long. What it may have created is removed when
    /// the engine can be reached again.
    async fn check_engine(&mut self) {
        let Some(since) = self.lost_since else { return };
        let Some(desired) = self.desired.clone() else { return };
        let target = self.memory.target(&desired, &digest(&desired.spec));
        let Target::Deploy(deployment) = target else { return };
        if self.awaited.as_ref().is_none_or(|(id, _)| *id != deployment.id) {
            self.awaited = Some((deployment.id.clone(), Instant::now()));
        }
        let awaited = self.awaited.as_ref().map_or(since, |(_, since)| *since);
        let deadline = since.max(awaited) + ENGINE_TIMEOUT;
        if Instant::now() < deadline {
            return self.wake_at(deadline);
        }
        let is_finished = self.memory.verdict.as_ref().is_none_or(|verdict| verdict.finished);
        if self.memory.deploying.is_none() && desired.run && is_finished {
            self.begin(deployment).await;
        }
        self.memory.fail(engine_unavailable(DeploymentStep::Validating));
        self.save().await;
        if !self.is_touched() && self.units.is_empty() && self.memory.serving.is_none() {
            self.finish().await;
        }
    }

    /// Forgets the crashes of servers that are healthy again.
    fn settle_attempts(&mut self) {
        let now = self.shared.now();
        let is_on_demand = self.memory.asleep || self.memory.serving.as_ref().is_some_and(Serving::is_on_demand);
        let (units, waiters) = (&self.units, &self.waiters);
        for (key, attempts) in &mut self.attempts {
            let own = || units.iter().filter(|unit| unit.key == *key);
            let health =
                |unit: &Unit| unit.health.as_ref().filter(|_| unit.is_ready()).map(|health| health.report().ok);
            let is_idle = is_on_demand && own().next().is_none() && !waiters.contains_key(key);
            let observation = match own().filter_map(health).max() {
                Some(true) => Observation::Healthy,
                Some(false) => Observation::Unhealthy,
                None if is_idle => Observation::Healthy,
                None => Observation::Pending,
            };
            attempts.observe(observation, now);
        }
        self.attempts.retain(|_, attempts| !attempts.is_empty());
        while self.attempts.len() > super::MAX_ATTEMPTS {
            self.attempts.pop_last();
        }
        let changes = self.attempts.values().map(|attempts| attempts.ends().unwrap_or(attempts.next_start()));
        if let Some(next) = changes.filter(|next| *next > now).min() {
            self.wake_at(self.shared.start + next);
        }
    }

    /// Returns the state to report.
    pub(super) fn state(&mut self) -> InstanceState {
        self.with_situation(state)
    }
}

fn failure(refusal: &Refusal) -> CallFailure {
    let (status, message) = match refusal {
        Refusal::Stopped => (409, "The instance is stopped. Start it first.".to_owned()),
        Refusal::Deploying => (503, "The instance is being deployed. Try again.".to_owned()),
        // Retrying the call does not help.
        Refusal::Failed => {
            (409, "The deployment of the instance failed. Correct its configuration, and deploy it again.".to_owned())
        }
        Refusal::Crashed { retry_in, message } => {
            let seconds = retry_in.as_secs() + 1;
            (503, format!("{message} It starts again in {seconds} seconds."))
        }
        Refusal::NoCapacity => (503, "The toolbox has no memory or CPU left to start the server.".to_owned()),
        Refusal::TooManyContainers => (503, "The instance has the maximum number of containers.".to_owned()),
    };
    CallFailure::new(status, message)
}
