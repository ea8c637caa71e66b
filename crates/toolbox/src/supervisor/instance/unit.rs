//! A container of an instance.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OnceCell, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::InstanceSpec;

use super::super::budget::Reservation;
use super::super::health::HealthTracker;
use super::super::output::ContainerLog;
use super::super::routes::{Route, Usage};
use super::super::servers::ServerSession;
use crate::engine::{Attached, NetworkNamespace, ObservedContainer};
use crate::reconcile::{Container, Key, Phase};

/// The way in which a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its process exited.
    Exited { exit_code: i64, out_of_memory: bool },
    /// It ended together with the engine.
    Lost,
}

/// A container and everything that belongs to it. The rules use its [`Container`].
pub(super) struct Unit {
    /// The ID that the engine assigned, or the ID of the start while it is in progress.
    pub(super) id: String,
    pub(super) key: Key,
    pub(super) generation: u64,
    pub(super) digest: String,
    pub(super) spec: Arc<InstanceSpec>,
    /// Whether it must be stopped with the grace period, because it may be writing to volumes.
    pub(super) has_volumes: bool,
    pub(super) phase: Phase,
    pub(super) is_removing: bool,
    /// The time since the daemon's start at which it was started or found, and its age at that time.
    pub(super) started: Duration,
    pub(super) age: Duration,
    pub(super) usage: Arc<Usage>,
    pub(super) health: Option<HealthTracker>,
    pub(super) session: Option<Arc<dyn ServerSession>>,
    pub(super) is_connecting: bool,
    /// Whether this process of the daemon has opened its egress.
    pub(super) is_egress_open: bool,
    /// The container as the engine reported it; `None` while it is being started.
    pub(super) observed: Option<ObservedContainer>,
    /// Standard input and output of a container that has just been started.
    pub(super) attached: Option<Attached>,
    /// Cancels the start or the check.
    pub(super) cancel: CancellationToken,
    /// Cancelled when the container is no longer used.
    pub(super) gone: CancellationToken,
    pub(super) end: watch::Sender<Option<End>>,
    /// The network namespace. Opened when it is first needed.
    pub(super) namespace: Arc<OnceCell<NetworkNamespace>>,
    pub(super) log: Arc<ContainerLog>,
    pub(super) next_probe: Instant,
    pub(super) is_probing: bool,
    pub(super) next_sample: Instant,
    pub(super) is_sampling: bool,
    /// Dropped when the container is no longer running.
    pub(super) reservation: Option<Reservation>,
}

impl Unit {
    /// Returns the container in the form that the rules use. `start` is the daemon's start time.
    pub(super) fn container(&self, start: Instant) -> Container {
        Container {
            id: self.id.clone(),
            key: self.key.clone(),
            generation: self.generation,
            digest: self.digest.clone(),
            phase: self.phase,
            is_removing: self.is_removing,
            started: self.started,
            age: self.age,
            last_used: self.usage.last_used().saturating_duration_since(start),
            calls: self.usage.calls(),
            healthy_since: self.health.as_ref().and_then(HealthTracker::since),
        }
    }

    /// Whether the process may be running, even after a failed check.
    pub(super) fn is_running(&self) -> bool {
        self.end.borrow().is_none() && self.observed.as_ref().is_some_and(|observed| observed.running)
    }

    /// Whether the container is running, and its server has been checked.
    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready && !self.is_removing
    }

    /// Returns the route to the server, if there is a session.
    pub(super) fn route(&self) -> Option<Route> {
        let session = Arc::clone(self.session.as_ref().filter(|_| self.is_ready())?);
        let usage = Arc::clone(&self.usage);
        Some(Route { container: self.id.clone(), session, usage, personal_version: self.personal_version() })
    }

    /// Returns the version of the container's personal secrets; 0 while it is being started.
    pub(super) fn personal_version(&self) -> u64 {
        self.observed.as_ref().map_or(0, |observed| observed.personal_version)
    }

    /// Ends everything that uses the container.
    pub(super) fn disconnect(&mut self) {
        self.cancel.cancel();
        self.gone.cancel();
        self.session = None;
        self.attached = None;
        self.namespace = Arc::default();
    }

    /// Records that the container is no longer running.
    pub(super) fn set_exited(&mut self) {
        self.phase = Phase::Exited;
        self.disconnect();
        self.health = None;
        self.reservation = None;
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.gone.cancel();
    }
}
