//! The supervisor: brings the containers of a toolbox to the desired state, and keeps them in it.
//!
//! A manager task ([`Supervisor::run`]) follows the desired state and the exits of containers, and starts one task per
//! instance. The task of an instance is the only owner of its containers. It calls
//! [`reconcile`](crate::reconcile::reconcile), performs the acts and reports what has changed. Acts that take time run
//! concurrently inside the task, so a slow pull or a hanging server does not delay anything else.

mod budget;
mod files;
pub mod forwarded_headers;
mod health;
mod instance;
mod manager;
mod output;
mod routes;
pub mod servers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::Digest as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;
use waypost_toolbox_proto::http::LogStream;
use waypost_toolbox_proto::message::InstanceReport;
use waypost_toolbox_proto::{InstanceSpec, Sharing};

use self::budget::Budget;
use self::manager::Handle;
use self::routes::GuardedMessages;
use self::servers::{BoxFuture, CallFailure, CallOptions, CallSlot, Messages, Notifications, Servers};
use crate::clock::WallClock;
use crate::control::Control;
use crate::engine::{Engine, MachineInfo, NetworkNamespace, ObservedContainer, Usage};
use crate::reconcile::{CHECK_KEY, Key, KeyLimits, Resources};

/// The time within which a new server must complete the handshake and list its tools.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
/// The time within which a server must exit after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// The time within which running calls must end before their container is removed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval between probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// The timeout of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval between samples of the resource usage.
const USAGE_INTERVAL: Duration = Duration::from_secs(30);
/// The time for which a deployment waits for an engine that cannot be reached.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(60);
/// The time for which a start waits for the secrets.
const SECRETS_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause before a failed operation of the engine is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The maximum number of times that a call waits for a container, after which any version of the personal secrets is
/// accepted.
const MAX_REFRESHES: usize = 3;
/// The maximum length of a container's key in bytes.
const MAX_KEY: usize = 128;

/// Manages the egress, statistics and logs of containers. Tests replace it.
pub trait Sink: Send + Sync + 'static {
    /// Opens the egress of a container in its network namespace, after the container was started or the daemon found it
    /// running. Called only for containers that have destinations or are in learning mode. If this fails, returns an
    /// error message of one sentence.
    fn opened<'a>(
        &'a self,
        container: &'a ObservedContainer,
        spec: &'a InstanceSpec,
        namespace: NetworkNamespace,
    ) -> BoxFuture<'a, Result<(), String>>;

    /// Closes the egress of a container that is no longer running. Also called for containers whose egress was never
    /// opened.
    fn closed(&self, instance_id: &str, container_id: &str);

    /// Stores a sample of the resource usage of a container.
    fn usage(&self, instance_id: &str, container_id: &str, usage: Usage);

    /// Stores a line of the log. Its secrets are already masked.
    fn log(&self, instance_id: &str, container_id: Option<&str>, stream: LogStream, text: &str);

    /// Closes the files of an instance. Its folder is deleted next.
    fn removed(&self, instance_id: &str);
}

/// The settings of the supervisor.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The resources of the machine that containers may not use.
    pub reserve: Resources,
    /// The limits of instances with one container per key.
    pub key_limits: KeyLimits,
    /// The maximum number of running calls per instance.
    pub running_calls: usize,
    /// The maximum number of waiting calls per instance.
    pub waiting_calls: usize,
    /// The free disk space in bytes below which unused images are removed before an image is pulled.
    pub min_disk_free_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            reserve: Resources { memory_bytes: 256 * 1024 * 1024, millicpus: 0 },
            key_limits: KeyLimits { containers: 20, idle: Duration::from_secs(600) },
            running_calls: 64,
            waiting_calls: 256,
            min_disk_free_bytes: 2 * 1024 * 1024 * 1024,
        }
    }
}

/// The dependencies of the supervisor.
pub struct Parts<E, S> {
    /// The container engine.
    pub engine: Arc<E>,
    /// Connects to the servers.
    pub servers: Arc<S>,
    /// The control plane.
    pub control: Arc<dyn Control>,
    /// Egress, statistics and logs.
    pub sink: Arc<dyn Sink>,
    /// The data directory of the daemon.
    pub data_dir: PathBuf,
    /// The clock.
    pub clock: WallClock,
    /// Returns a random number from 0 to 1, which spreads probes and attempts to reach the engine.
    pub jitter: fn() -> f64,
    /// The settings.
    pub settings: Settings,
}

/// The supervisor. Cheap to clone; clones share the same state.
pub struct Supervisor<E, S>(Arc<Shared<E, S>>);

impl<E, S> Clone for Supervisor<E, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The state that all tasks share.
struct Shared<E, S> {
    parts: Parts<E, S>,
    budget: Arc<Budget>,
    handles: Mutex<HashMap<String, Handle>>,
    machine: Mutex<Option<MachineInfo>>,
    /// Whether the tasks of the instances that are known from the disk have been started.
    started: watch::Sender<bool>,
    start: Instant,
}

impl<E, S> Shared<E, S> {
    /// Returns the time since the start of the daemon.
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns a pause that grows with the number of attempts from half a second to five seconds, with jitter.
    fn pause(&self, attempt: u32) -> Duration {
        let base = Duration::from_millis(500) * 2_u32.pow(attempt.min(4));
        base.min(RETRY_PAUSE).mul_f64(0.75 + (self.parts.jitter)().clamp(0.0, 1.0) / 2.0)
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_machine(&self, machine: Option<MachineInfo>) {
        if let Some(machine) = &machine {
            self.budget.set_capacity(&machine.capacity, self.parts.settings.reserve);
        }
        *self.machine.lock().unwrap_or_else(PoisonError::into_inner) = machine;
    }
}

/// A call that waits for a container.
struct Need {
    key: Key,
    /// The minimum version of the personal secrets that the container must have.
    personal_version: u64,
    answer: oneshot::Sender<Result<(), CallFailure>>,
}

impl<E: Engine, S: Servers> Supervisor<E, S> {
    /// Creates a supervisor. Nothing happens until [`Self::run`] is called.
    #[must_use]
    pub fn new(parts: Parts<E, S>) -> Self {
        Self(Arc::new(Shared {
            parts,
            budget: Arc::default(),
            handles: Mutex::default(),
            machine: Mutex::default(),
            started: watch::Sender::new(false),
            start: Instant::now(),
        }))
    }

    /// Waits until [`Self::run`] has tried to reach the engine once, and has started the tasks of the instances that
    /// are known from the disk. Before that, calls would be rejected because their instances are unknown.
    pub async fn started(&self) {
        // The sender is in `self`, so this cannot fail.
        _ = self.0.started.subscribe().wait_for(|started| *started).await;
    }

    /// Returns the observed state of every instance, for heartbeats.
    #[must_use]
    pub fn reports(&self) -> Vec<InstanceReport> {
        let handles = self.0.handles();
        let mut reports: Vec<_> = handles.values().filter_map(Handle::report).collect();
        reports.sort_by(|one, other| one.id.cmp(&other.id));
        reports
    }

    /// Returns the engine and the resources of the machine, for heartbeats; `None` while the engine cannot be reached.
    #[must_use]
    pub fn machine(&self) -> Option<MachineInfo> {
        self.0.machine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the resources that containers use.
    #[must_use]
    pub fn allocated(&self) -> Resources {
        self.0.budget.used()
    }

    /// Sends a message to the server of an instance, and returns the messages that answer it. Starts a container first
    /// if the instance is stopped until its next call. The caller in `options` selects the container of an instance
    /// with one container per agent or session; a container that was started with personal secrets before
    /// `personal_version` is replaced first. Dropping the stream cancels the call.
    ///
    /// # Errors
    /// Fails with one of the statuses that [`waypost_toolbox_proto::http`] documents.
    pub async fn call(
        &self,
        instance_id: &str,
        message: Bytes,
        mut options: CallOptions,
    ) -> Result<Messages, CallFailure> {
        let entry = self.0.handles().get(instance_id).map(|handle| (Arc::clone(&handle.calls), handle.needs.clone()));
        let Some((calls, needs)) = entry else {
            return Err(CallFailure::new(404, "The toolbox does not have this instance."));
        };
        let deadline = Instant::now() + options.timeout;
        let key = calls.key(options.caller.as_deref())?;
        let mut personal_version = options.personal_version;
        let call = async {
            let slot = CallSlot::new(calls.enter().await?);
            let mut waits = 0;
            let (session, guard) = loop {
                if let Some(route) = calls.routes.begin(&key, personal_version) {
                    break route;
                }
                wait_for_container(&needs, key.clone(), personal_version).await?;
                waits += 1;
                if waits == MAX_REFRESHES {
                    // The control plane returns an earlier version, for example because it was restored from a backup
                    // in the meantime.
                    personal_version = 0;
                }
            };
            options.timeout = deadline.duration_since(Instant::now());
            options.slot = slot.clone();
            let messages = session.call(message, options).await?;
            Ok(Box::pin(GuardedMessages { messages, _guard: guard, _slot: slot }) as Messages)
        };
        let result = tokio::time::timeout_at(deadline, call).await;
        result.unwrap_or_else(|_| Err(CallFailure::new(504, "The server did not answer in time.")))
    }

    /// Opens a stream of the announcements that the server of an instance makes outside of calls, without starting or
    /// using its container.
    ///
    /// # Errors
    /// Fails with 404 if the instance is unknown, its server makes no announcements, or its callers have separate
    /// containers, because the announcements of one container must not reach other callers. Fails with 409 if no
    /// container is running, and otherwise with the failure of the server.
    pub async fn notifications(
        &self,
        instance_id: &str,
        resources: BTreeSet<String>,
    ) -> Result<Notifications, CallFailure> {
        let calls = self.0.handles().get(instance_id).map(|handle| Arc::clone(&handle.calls));
        let Some(calls) = calls else {
            return Err(CallFailure::new(404, "The toolbox does not have this instance."));
        };
        if calls.sharing() != Sharing::Shared {
            return Err(CallFailure::new(404, "The instance has one container per agent or session."));
        }
        let Some(session) = calls.routes.find(&None) else {
            let message = "The server is stopped until its next call. Call it, for example to read the resource, and \
                           subscribe again.";
            return Err(CallFailure::new(409, message));
        };
        let notifications = session.notifications(resources).await?;
        notifications.ok_or_else(|| CallFailure::new(404, "The server announces no changes."))
    }

    /// Sends the response of a caller to the server of an instance that waits for it.
    ///
    /// # Errors
    /// Fails with one of the statuses that [`waypost_toolbox_proto::http`] documents.
    pub async fn respond(&self, instance_id: &str, response: Bytes) -> Result<(), CallFailure> {
        self.0.parts.servers.respond(instance_id, &response).await
    }
}

async fn wait_for_container(needs: &mpsc::Sender<Need>, key: Key, personal_version: u64) -> Result<(), CallFailure> {
    let unavailable = || CallFailure::new(503, "The instance is not available at the moment. Try again.");
    let (answer, answered) = oneshot::channel();
    needs.send(Need { key, personal_version, answer }).await.map_err(|_| unavailable())?;
    answered.await.map_err(|_| unavailable())?
}

fn hash(key: &str) -> String {
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(key)[..16])
}

/// The calls of an instance.
struct Calls {
    routes: routes::Routes,
    running: Arc<tokio::sync::Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    sharing: Mutex<Sharing>,
}

impl Calls {
    fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            routes: routes::Routes::default(),
            running: Arc::new(tokio::sync::Semaphore::new(settings.running_calls)),
            waiting: AtomicUsize::new(0),
            max_waiting: settings.waiting_calls,
            sharing: Mutex::new(Sharing::Shared),
        })
    }

    /// Returns the key of the container that a call uses. Fails with 409 if the instance needs a key and the call has
    /// no valid one.
    fn key(&self, key: Option<&str>) -> Result<Key, CallFailure> {
        let sharing = self.sharing();
        if sharing == Sharing::Shared {
            return Ok(None);
        }
        let is_valid = |key: &&str| (1..=MAX_KEY).contains(&key.len()) && key.is_ascii() && *key != CHECK_KEY;
        match key.filter(is_valid) {
            // The key is stored in a label, and a session ID is secret.
            Some(key) if sharing == Sharing::PerSession => Ok(Some(hash(key))),
            Some(key) => Ok(Some(key.to_owned())),
            None => Err(CallFailure::new(
                409,
                "The instance has one container per agent or session, and the call names none.",
            )),
        }
    }

    fn sharing(&self) -> Sharing {
        *self.sharing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_sharing(&self, sharing: Sharing) {
        *self.sharing.lock().unwrap_or_else(PoisonError::into_inner) = sharing;
    }

    /// Waits until another call may run. Fails with 429 if too many calls are waiting.
    async fn enter(self: &Arc<Self>) -> Result<OwnedSemaphorePermit, CallFailure> {
        let running = Arc::clone(&self.running);
        if let Ok(permit) = Arc::clone(&running).try_acquire_owned() {
            return Ok(permit);
        }
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting(&self.waiting);
        if before >= self.max_waiting {
            return Err(CallFailure::new(429, "Too many calls to this instance are waiting. Try again later."));
        }
        running.acquire_owned().await.map_err(|_| CallFailure::new(503, "The toolbox is stopping."))
    }
}
