//! Starting, checking and removing containers, and their probes, samples and logs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::{InstanceSpec, Sharing, Transport};

use super::super::budget::Reservation;
use super::super::output::ContainerLog;
use super::super::routes::Usage;
use super::super::servers::Servers;
use super::super::{DRAIN_TIMEOUT, PROBE_INTERVAL, PROBE_TIMEOUT, RETRY_PAUSE, STOP_GRACE, USAGE_INTERVAL, files};
use super::Instance;
use super::connect::Connection;
use super::errors::no_capacity;
use super::start::Start;
use super::unit::Unit;
use super::work::{Done, Steps};
use crate::engine::{ContainerRequest, Engine, ObservedContainer};
use crate::reconcile::{Key, Phase, Removal};

impl<E: Engine, S: Servers> Instance<E, S> {
    /// Starts a container. Returns whether the rules must be applied again at once.
    pub(super) async fn start(&mut self, key: Key, deploy: bool) -> bool {
        let Some(desired) = self.desired.clone() else { return false };
        let specification = match (deploy, &self.memory.deploying, &self.memory.serving) {
            (true, Some(deployment), _) => Some((
                deployment.container_generation,
                deployment.digest.clone(),
                desired.spec.clone(),
                desired.generation,
            )),
            (false, _, Some(serving)) => {
                Some((serving.generation, serving.digest.clone(), serving.spec.clone(), serving.generation))
            }
            _ => None,
        };
        let Some((generation, digest, spec, secrets_generation)) = specification else { return false };
        let Some(reservation) = self.shared.budget.reserve(spec.resources) else {
            // Another instance has taken the resources in the meantime.
            let error = no_capacity(&spec);
            if deploy {
                self.memory.fail(error);
                self.save().await;
            } else {
                let now = self.shared.now();
                self.attempts.entry(key).or_default().failed(now, error.cause);
            }
            return true;
        };
        if key.is_none() && !deploy && self.memory.set_asleep(false) {
            self.save().await;
        }
        let request = ContainerRequest {
            instance_id: self.id.clone(),
            slug: desired.slug.clone(),
            generation,
            key,
            digest,
            // Set once the secrets have been received.
            personal_version: 0,
            spec,
        };
        self.starts += 1;
        let id = format!("start-{}", self.starts);
        let unit = self.new_unit(&id, &request, reservation);
        let start = Start {
            request,
            generation: secrets_generation,
            steps: if deploy { self.steps() } else { Steps { deployment_id: None, instance_id: self.id.clone() } },
            cancel: unit.cancel.clone(),
            log: Arc::clone(&unit.log),
            touched: Arc::clone(&self.touched),
        };
        self.units.push(unit);
        let shared = Arc::clone(&self.shared);
        self.work(async move { Done::Started { id, deploy, result: start.run(&shared).await } });
        false
    }

    fn new_unit(&self, id: &str, request: &ContainerRequest, reservation: Reservation) -> Unit {
        Unit {
            id: id.to_owned(),
            key: request.key.clone(),
            generation: request.generation,
            digest: request.digest.clone(),
            spec: Arc::new(request.spec.clone()),
            has_volumes: !request.spec.volumes.is_empty(),
            phase: Phase::Starting,
            is_removing: false,
            started: self.shared.now(),
            age: Duration::ZERO,
            usage: Usage::new(),
            health: None,
            session: None,
            is_connecting: false,
            is_egress_open: false,
            observed: None,
            attached: None,
            cancel: CancellationToken::new(),
            gone: CancellationToken::new(),
            end: watch::Sender::new(None),
            namespace: Arc::default(),
            log: ContainerLog::new(&self.id, id, Arc::clone(&self.shared.parts.sink)),
            next_probe: Instant::now() + PROBE_INTERVAL,
            is_probing: false,
            next_sample: Instant::now(),
            is_sampling: false,
            reservation: Some(reservation),
        }
    }

    /// Creates the unit of a container that already exists.
    pub(super) fn adopt(&mut self, container: ObservedContainer, spec: Option<InstanceSpec>) {
        let is_known = spec.is_some();
        let spec = spec.unwrap_or_else(|| unknown_spec(&container));
        let request = ContainerRequest {
            instance_id: self.id.clone(),
            slug: String::new(),
            generation: container.generation,
            key: container.key.clone(),
            digest: container.digest.clone(),
            personal_version: container.personal_version,
            spec,
        };
        let reservation = self.shared.budget.adopt(container.resources);
        let mut unit = self.new_unit(&container.id, &request, reservation);
        let age = container.started_at.map_or(0, |at| (self.shared.parts.clock)().saturating_sub(at));
        unit.age = Duration::from_millis(u64::try_from(age).unwrap_or_default());
        unit.phase = Phase::Started;
        unit.has_volumes |= !is_known;
        unit.next_probe = Instant::now() + PROBE_INTERVAL.mul_f64((self.shared.parts.jitter)().clamp(0.0, 1.0));
        if container.running {
            self.observe_output(&unit, container.pid);
        } else {
            unit.set_exited();
        }
        unit.observed = Some(container);
        self.units.push(unit);
    }

    /// Follows the output of the container of an HTTP server, which is not attached.
    pub(super) fn observe_output(&self, unit: &Unit, pid: Option<u32>) {
        if unit.spec.transport != Transport::Stdio && pid.is_some() {
            let (shared, log, id) = (Arc::clone(&self.shared), Arc::clone(&unit.log), unit.id.clone());
            let gone = unit.gone.clone();
            let copy = async move {
                loop {
                    if let Ok(output) = shared.parts.engine.logs(&id).await {
                        log.copy(output).await;
                    }
                    sleep(RETRY_PAUSE).await;
                }
            };
            self.work(async move {
                _ = gone.run_until_cancelled(copy).await;
                Done::Nothing
            });
        }
    }

    /// Requests the secrets to mask in the log of a container that was found running.
    pub(super) fn find_masks(&self, unit: &Unit) {
        if unit.spec.secrets.is_empty() {
            return unit.log.set_masks([].iter());
        }
        let (shared, log, gone) = (Arc::clone(&self.shared), Arc::clone(&unit.log), unit.gone.clone());
        let (id, generation, key, version) =
            (self.id.clone(), unit.generation, unit.key.clone(), unit.personal_version());
        self.work(async move {
            let find = async {
                loop {
                    // If the personal secrets have changed since the container was started, the values to mask are
                    // unknown, and the log continues to be withheld. The next call replaces the container.
                    let secrets = shared.parts.control.secrets(&id, generation, key.as_deref()).await;
                    if let Some(secrets) = secrets.filter(|secrets| secrets.personal_version == version) {
                        return log.set_masks(secrets.values.values());
                    }
                    sleep(RETRY_PAUSE * 12).await;
                }
            };
            _ = gone.run_until_cancelled(find).await;
            Done::Nothing
        });
    }

    pub(super) fn connection(&mut self, id: &str) -> Option<Connection> {
        let folder = self.folder.clone();
        let unit = self.unit(id)?;
        Some(Connection {
            container: unit.observed.clone()?,
            spec: Arc::clone(&unit.spec),
            log: Arc::clone(&unit.log),
            folder,
            is_shared: unit.key.is_none(),
            cancel: unit.cancel.clone(),
            end: unit.end.subscribe(),
            namespace: Arc::clone(&unit.namespace),
            last_error: std::sync::Mutex::default(),
        })
    }

    /// Begins the check of a container.
    pub(super) fn check(&mut self, id: &str, deploy: bool) {
        let Some(connection) = self.connection(id) else { return };
        let Some(unit) = self.unit(id) else { return };
        unit.phase = Phase::Checking;
        let attached = unit.attached.take();
        if deploy {
            self.steps().report(&self.shared, waypost_toolbox_proto::DeploymentStep::Checking);
        }
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        self.work(async move { Done::Checked { id, deploy, result: connection.check(&shared, attached).await } });
    }

    /// Begins the removal of a container.
    pub(super) async fn remove(&mut self, id: &str, how: Removal) {
        let calls = Arc::clone(&self.channels.calls);
        let Some(unit) = self.unit(id) else { return };
        if how == Removal::Idle && !calls.routes.close_if_idle(id, &unit.usage) {
            // A call has begun since the rules were applied.
            return;
        }
        unit.is_removing = true;
        let is_shared = unit.key.is_none();
        if unit.phase == Phase::Starting {
            return unit.cancel.cancel();
        }
        let usage = Arc::clone(&unit.usage);
        let stop = unit.is_running() && (how != Removal::Discard || unit.has_volumes);
        unit.disconnect();
        self.sync_routes();
        if how == Removal::Idle && is_shared && self.memory.set_asleep(true) {
            self.save().await;
        }
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        let folder = self.folder.clone();
        self.work(async move {
            if how == Removal::Drain {
                _ = timeout(DRAIN_TIMEOUT, usage.idle()).await;
            }
            let engine = &shared.parts.engine;
            let result = async {
                if stop {
                    engine.stop(&id, STOP_GRACE).await?;
                }
                engine.remove(&id).await
            }
            .await;
            match &result {
                Ok(()) => files::remove_session(&folder, &id).await,
                Err(error) => {
                    tracing::warn!(%error, container = id, "failed to remove a container");
                    sleep(RETRY_PAUSE).await;
                }
            }
            Done::Removed { id, result }
        });
    }

    /// Starts the connections, probes and samples of ready containers that are due.
    pub(super) fn maintain_units(&mut self) {
        let now = Instant::now();
        let mut due = Vec::new();
        for unit in self.units.iter_mut().filter(|unit| unit.is_ready()) {
            if unit.session.is_none() && !unit.is_connecting {
                unit.is_connecting = true;
                due.push((unit.id.clone(), Due::Connect));
            }
            if now >= unit.next_probe {
                // The next time is derived from the planned one, so that probes do not drift. Missed probes are
                // skipped.
                unit.next_probe = (unit.next_probe + PROBE_INTERVAL).max(now + PROBE_TIMEOUT);
                if !std::mem::replace(&mut unit.is_probing, true) {
                    due.push((unit.id.clone(), Due::Probe));
                }
            }
            if now >= unit.next_sample {
                unit.next_sample = now + USAGE_INTERVAL;
                if !std::mem::replace(&mut unit.is_sampling, true) {
                    due.push((unit.id.clone(), Due::Sample));
                }
            }
        }
        for (id, due) in due {
            match due {
                Due::Connect => self.connect(&id),
                Due::Probe => self.probe(id),
                Due::Sample => self.sample(id),
            }
        }
        let times = self.units.iter().filter(|unit| unit.is_ready());
        if let Some(at) = times.map(|unit| unit.next_probe.min(unit.next_sample)).min() {
            self.wake_at(at);
        }
    }

    fn connect(&mut self, id: &str) {
        let Some(connection) = self.connection(id) else { return };
        // The egress of a container that was found running is not open yet.
        let is_first = self.unit(id).is_some_and(|unit| !std::mem::replace(&mut unit.is_egress_open, true));
        let (shared, id) = (Arc::clone(&self.shared), id.to_owned());
        self.work(async move {
            match connection.reconnect(&shared, is_first).await {
                Some(session) => Done::Connected { id, session },
                None => Done::Nothing,
            }
        });
    }

    fn probe(&mut self, id: String) {
        let Some(unit) = self.unit(&id) else { return };
        let (session, gone) = (unit.session.clone(), unit.gone.clone());
        self.work(async move {
            let probe = async {
                let Some(session) = session else { return Err("There is no connection to the server.".to_owned()) };
                let timed_out = |_| Err("The server did not answer within 10 seconds.".to_owned());
                timeout(PROBE_TIMEOUT, session.probe()).await.unwrap_or_else(timed_out)
            };
            match gone.run_until_cancelled(probe).await {
                Some(result) => Done::Probed { id, result },
                None => Done::Nothing,
            }
        });
    }

    fn sample(&self, id: String) {
        let shared = Arc::clone(&self.shared);
        let instance_id = self.id.clone();
        self.work(async move {
            if let Ok(Ok(usage)) = timeout(PROBE_TIMEOUT, shared.parts.engine.usage(&id)).await {
                shared.parts.sink.usage(&instance_id, &id, usage);
            }
            Done::Sampled { id }
        });
    }
}

/// Returns a placeholder for the specification of an unknown container, which will only be removed.
fn unknown_spec(container: &ObservedContainer) -> InstanceSpec {
    InstanceSpec {
        image: String::new(),
        transport: Transport::Stdio,
        command: None,
        args: None,
        port: None,
        path: None,
        environment: BTreeMap::new(),
        secrets: Vec::new(),
        registry_credentials: false,
        resources: container.resources,
        egress: Vec::new(),
        learn_egress: false,
        volumes: Vec::new(),
        sharing: Sharing::Shared,
        lazy: false,
        idle_seconds: None,
        max_lifetime_seconds: None,
        extra: serde_json::Map::new(),
    }
}

enum Due {
    Connect,
    Probe,
    Sample,
}
