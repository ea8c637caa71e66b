//! Handles the results of works.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use waypost_toolbox_proto::ErrorCode;
use waypost_toolbox_proto::message::ToolboxEvent;

use super::super::health::HealthTracker;
use super::super::servers::{ServerSession, Servers};
use super::super::{PROBE_INTERVAL, RETRY_PAUSE, files};
use super::errors::exited;
use super::unit::End;
use super::work::{Done, Failure};
use super::{Exclusive, Instance, MAX_EARLY_EXITS};
use crate::engine::{ContainerExit, Engine, EngineError, StartedContainer};
use crate::reconcile::{CHECK_KEY, Phase};

/// The time within which the engine must report how a container ended.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of attempts to remove the remains of a failed deployment if a server serves calls.
const MAX_CLEANINGS: u32 = 3;

impl<E: Engine, S: Servers> Instance<E, S> {
    /// Handles the result of a work.
    pub(super) async fn done(&mut self, done: Done) {
        match done {
            Done::Started { id, deploy, result } => self.started(&id, deploy, result).await,
            Done::Checked { id, deploy, result } => self.checked(&id, deploy, result).await,
            Done::Removed { id, result } => self.removed(&id, result),
            Done::Connected { id, session } => self.connected(&id, session),
            Done::Closed { id, session } => self.closed(&id, &session),
            Done::Probed { id, result } => self.probed(&id, result),
            Done::Sampled { id } => {
                if let Some(unit) = self.unit(&id) {
                    unit.is_sampling = false;
                }
            }
            Done::Ended { id, exit_code, out_of_memory } => self.ended(&id, exit_code, out_of_memory).await,
            Done::Cleaned(Ok(())) => {
                self.failed_cleanings = 0;
                self.exclusive = None;
                self.finish().await;
            }
            Done::Cleaned(Err(error)) => {
                tracing::warn!(%error, instance = self.id, "failed to remove what a deployment has left");
                self.failed_cleanings += 1;
                // A volume that cannot be removed, because something else uses it, must not block a server that serves
                // calls. It is removed with the instance.
                let is_lost = error.code == ErrorCode::EngineUnavailable;
                if self.memory.serving.is_none() || is_lost || self.failed_cleanings < MAX_CLEANINGS {
                    self.clean_after(RETRY_PAUSE);
                } else {
                    self.failed_cleanings = 0;
                    self.exclusive = None;
                    self.finish().await;
                }
            }
            Done::InstanceRemoved => self.instance_removed().await,
            Done::Observed { containers, exists } => {
                self.exclusive = None;
                self.observed(containers, exists);
            }
            Done::Nothing => {}
        }
        if self.is_unsaved {
            self.save().await;
        }
    }

    async fn started(&mut self, id: &str, deploy: bool, result: Result<StartedContainer, Failure>) {
        let StartedContainer { container, attached } = match result {
            Ok(started) => started,
            Err(failure) => {
                let unit = self.units.iter().position(|unit| unit.id == id).map(|index| self.units.swap_remove(index));
                let key = unit.and_then(|unit| unit.key.clone());
                return self.failed(key, deploy, failure).await;
            }
        };
        let early = self.early_exits.iter().find(|exit| exit.container == container.id).cloned();
        let now = self.shared.now();
        let Some(unit) = self.unit(id) else { return };
        unit.id.clone_from(&container.id);
        unit.log.set_container(&container.id);
        unit.phase = Phase::Started;
        // If the container should be removed, the rules will request this again.
        unit.is_removing = false;
        unit.cancel = tokio_util::sync::CancellationToken::new();
        unit.started = now;
        unit.attached = attached;
        let (container_id, pid) = (container.id.clone(), container.pid);
        let exit = if container.running { early } else { early.or_else(|| Some(exit_of(&container))) };
        unit.observed = Some(container);
        if let Some(unit) = self.units.iter().find(|unit| unit.id == container_id) {
            self.observe_output(unit, pid);
        }
        if let Some(exit) = exit {
            // The check reads the last output and reports the exit.
            self.container_exited(exit);
        }
    }

    async fn checked(&mut self, id: &str, deploy: bool, result: Result<Arc<dyn ServerSession>, Failure>) {
        let (at, now) = ((self.shared.parts.clock)(), self.shared.now());
        let jitter = (self.shared.parts.jitter)().clamp(0.0, 1.0);
        let Some(unit) = self.unit(id) else { return };
        unit.is_egress_open = true;
        // The container may have exited just after the check.
        let end = *unit.end.borrow();
        let result = match (result, end) {
            (Ok(_), Some(End::Exited { exit_code, out_of_memory })) => {
                let error = exited(exit_code, out_of_memory, &unit.log);
                Err(Failure::Exited { exit_code, out_of_memory, error })
            }
            (Ok(_), Some(End::Lost)) => Err(Failure::EngineLost),
            (result, _) => result,
        };
        match result {
            Ok(session) if !unit.is_removing && unit.phase == Phase::Checking => {
                unit.phase = Phase::Ready;
                unit.health = Some(HealthTracker::healthy(at, now));
                unit.next_probe = Instant::now() + PROBE_INTERVAL.mul_f64(0.5 + jitter / 2.0);
                self.connected(id, session);
            }
            Ok(_) | Err(Failure::Cancelled) => {}
            Err(failure) => {
                if let Failure::EngineLost = failure {
                    unit.phase = Phase::Started;
                    self.needs_observe = true;
                    return;
                }
                // The container may still be running. The rules remove it.
                unit.phase = Phase::Exited;
                unit.disconnect();
                let (key, digest) = (unit.key.clone(), unit.digest.clone());
                let failure = match failure {
                    // The rules start another container. The second time, this is an error.
                    Failure::Restart(_) if self.restarted_for.as_ref() != Some(&digest) => {
                        self.restarted_for = Some(digest);
                        return;
                    }
                    Failure::Restart(error) => Failure::Error(error),
                    other => other,
                };
                self.failed(key, deploy, failure).await;
            }
        }
    }

    /// Records that a start or a check failed.
    async fn failed(&mut self, key: crate::reconcile::Key, deploy: bool, failure: Failure) {
        let now = self.shared.now();
        let (error, crash) = match failure {
            Failure::Cancelled => return,
            Failure::EngineLost => {
                self.needs_observe = true;
                return;
            }
            Failure::Exited { exit_code, out_of_memory, error } => (error, Some((exit_code, out_of_memory))),
            Failure::Restart(error) | Failure::Error(error) => (error, None),
        };
        if deploy {
            self.memory.fail(error);
            return self.save().await;
        }
        tracing::info!(instance = self.id, code = %error.code, cause = error.cause, "a server did not start");
        let attempts = self.attempts.entry(key).or_default();
        match crash {
            Some((exit_code, out_of_memory)) => {
                attempts.crashed(now, error.cause);
                self.report_crash(exit_code, out_of_memory);
            }
            None => attempts.failed(now, error.cause),
        }
    }

    fn report_crash(&self, exit_code: i64, out_of_memory: bool) {
        metrics::counter!("waypost_daemon_crashes_total").increment(1);
        let instance_id = self.id.clone();
        self.shared.parts.control.report(ToolboxEvent::Crashed { instance_id, exit_code, out_of_memory });
    }

    fn removed(&mut self, id: &str, result: Result<(), EngineError>) {
        let Some(index) = self.units.iter().position(|unit| unit.id == id) else { return };
        match result {
            Ok(()) => {
                self.units.swap_remove(index);
                self.shared.parts.sink.closed(&self.id, id);
            }
            Err(error) => {
                self.units[index].is_removing = false;
                self.needs_observe |= error.code == ErrorCode::EngineUnavailable;
            }
        }
    }

    /// Takes over a session, and waits for its end.
    fn connected(&mut self, id: &str, session: Arc<dyn ServerSession>) {
        let Some(unit) = self.unit(id) else { return };
        unit.is_connecting = false;
        if !unit.is_ready() {
            return;
        }
        unit.session = Some(Arc::clone(&session));
        let (gone, id) = (unit.gone.clone(), id.to_owned());
        self.work(async move {
            let closed = gone.run_until_cancelled(session.closed()).await.is_some();
            if closed { Done::Closed { id, session } } else { Done::Nothing }
        });
    }

    /// Handles a session that the server has closed. If the container is still running, the task connects again.
    fn closed(&mut self, id: &str, session: &Arc<dyn ServerSession>) {
        let Some(unit) = self.unit(id) else { return };
        if unit.session.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            unit.session = None;
        }
    }

    fn probed(&mut self, id: &str, result: Result<Duration, String>) {
        let (at, now) = ((self.shared.parts.clock)(), self.shared.now());
        let Some(unit) = self.unit(id) else { return };
        unit.is_probing = false;
        let result = result.map_err(|message| unit.log.mask(&message));
        if let Some(health) = &mut unit.health {
            health.record(result, at, now);
        }
    }

    /// Handles the exit of a container that the engine has reported.
    pub(super) fn container_exited(&mut self, exit: ContainerExit) {
        let Some(unit) = self.unit(&exit.container) else {
            if self.early_exits.len() == MAX_EARLY_EXITS {
                self.early_exits.pop_front();
            }
            self.early_exits.push_back(exit);
            return;
        };
        if unit.is_removing || unit.end.borrow().is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Only the list of containers tells whether the memory limit was exceeded.
        self.work(async move {
            let containers = timeout(INSPECT_TIMEOUT, shared.parts.engine.containers()).await;
            let containers = containers.ok().and_then(Result::ok).unwrap_or_default();
            let out_of_memory =
                containers.iter().any(|container| container.id == exit.container && container.out_of_memory);
            Done::Ended { id: exit.container, exit_code: exit.exit_code, out_of_memory }
        });
    }

    async fn ended(&mut self, id: &str, exit_code: i64, out_of_memory: bool) {
        let now = self.shared.now();
        let deploying = self.memory.deploying.clone();
        let spec = self.desired.as_ref().map(|desired| desired.spec.clone());
        let start = self.shared.start;
        let Some(unit) = self.unit(id) else { return };
        if unit.is_removing || unit.end.borrow().is_some() {
            return;
        }
        unit.end.send_replace(Some(End::Exited { exit_code, out_of_memory }));
        let (phase, key) = (unit.phase, unit.key.clone());
        let (Phase::Started | Phase::Ready) = phase else {
            // The check reports the exit. A container that has exited is removed.
            return;
        };
        let container = unit.container(start);
        let error = exited(exit_code, out_of_memory, &unit.log);
        unit.set_exited();
        self.shared.parts.sink.closed(&self.id, id);
        let is_candidate = deploying.zip(spec).is_some_and(|(deployment, spec)| deployment.owns(&container, &spec));
        if is_candidate && phase == Phase::Started {
            return self.failed(key, true, Failure::Error(error)).await;
        }
        let is_serving = self.memory.serving.as_ref().is_some_and(|serving| serving.owns(&container));
        if !is_serving || key.as_deref() == Some(CHECK_KEY) {
            // The container is going to be removed anyway.
            return;
        }
        let cause = if out_of_memory { "The server exceeded its memory limit." } else { "The server exited." };
        self.attempts.entry(key).or_default().crashed(now, format!("{cause} Exit code: {exit_code}."));
        self.report_crash(exit_code, out_of_memory);
    }

    async fn instance_removed(&mut self) {
        for unit in std::mem::take(&mut self.units) {
            self.shared.parts.sink.closed(&self.id, &unit.id);
        }
        // The removal is reported before the folder is deleted. If the daemon is killed in between, the instance is
        // removed once more.
        self.shared.parts.control.report(ToolboxEvent::Removed { instance_id: self.id.clone() });
        self.shared.parts.sink.removed(&self.id);
        if let Err(error) = files::remove(&self.folder).await {
            // The next start of the daemon finds the folder, and removes the instance again.
            tracing::warn!(%error, instance = self.id, "failed to delete the folder of an instance");
        }
        self.exclusive = None;
        self.is_removed = true;
    }

    /// Begins to list the containers, once no act is in progress.
    pub(super) fn observe_when_quiet(&mut self) {
        let is_busy = |unit: &super::unit::Unit| unit.phase == Phase::Starting || unit.is_removing;
        if self.units.iter().any(is_busy) {
            return;
        }
        self.needs_observe = false;
        self.exclusive = Some(Exclusive::Observe);
        self.lost_since.get_or_insert_with(Instant::now);
        let (shared, id) = (Arc::clone(&self.shared), self.id.clone());
        self.work(async move {
            let mut attempt = 0;
            loop {
                let engine = &shared.parts.engine;
                match (engine.containers().await, engine.instances().await) {
                    (Ok(mut containers), Ok(instances)) => {
                        containers.retain(|container| container.instance_id == id);
                        return Done::Observed { containers, exists: instances.contains(&id) };
                    }
                    _ => sleep(shared.pause(attempt)).await,
                }
                attempt = attempt.saturating_add(1);
            }
        });
    }
}

/// Returns the exit of a container that had already exited when its start returned.
fn exit_of(container: &crate::engine::ObservedContainer) -> ContainerExit {
    ContainerExit {
        container: container.id.clone(),
        instance_id: container.instance_id.clone(),
        exit_code: container.exit_code.unwrap_or_default(),
    }
}
