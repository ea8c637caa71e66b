//! The daemon's end of the link: one outbound connection to the control plane. The daemon does not listen on any port
//! for it.
//!
//! [`Link::open`] reads the state on disk, after which the link can be used; [`Link::start`] connects, and reconnects
//! whenever the connection is lost. The wall clock is used only for the time of events, so a wrong clock does no harm,
//! except that TLS rejects certificates outside their validity period.

mod backoff;
pub mod connect;
mod control;
pub mod requests;
mod secrets;
mod session;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost_toolbox_proto::desired::DesiredState;
use waypost_toolbox_proto::message::{InstanceSecrets, ToolboxEvent};

use crate::clock::WallClock;
use crate::control::Control;
use crate::identity::{Attempt, Identity, IdentityError};
use crate::queue::{Queue, QueueWriter};
use crate::{files, tasks};
use backoff::Backoff;
use connect::Connect;
use control::End;
use requests::Requests;
use secrets::SecretRequests;

pub use control::HeartbeatSource;

/// The pause after the control plane has rejected the key.
const UNAUTHORIZED: Duration = Duration::from_secs(5 * 60);

/// The state of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// The daemon is connecting, or waits before it connects again.
    Connecting,
    /// The link is open.
    Online,
    /// The control plane rejected the key with this message. The daemon tries again every five minutes.
    Unauthorized(String),
}

/// The link. Cheap to clone; clones share the same link. It ends when [`Link::stop`] is called.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Option<QueueWriter>>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The dependencies of the link.
pub struct Runtime {
    /// Opens connections.
    pub connector: Arc<dyn Connect>,
    /// Answers requests.
    pub requests: Arc<dyn Requests>,
    /// Builds heartbeats.
    pub heartbeat: HeartbeatSource,
}

/// The state that the parts of the link share.
struct Shared {
    data_dir: PathBuf,
    identity: Mutex<Identity>,
    queue: Queue,
    secrets: SecretRequests,
    desired: watch::Sender<Option<DesiredState>>,
    status: watch::Sender<Status>,
}

impl Link {
    /// Opens the state on disk. Events can be reported, and secrets requested, before the link is started.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn open(identity: Identity, data_dir: &Path, clock: WallClock) -> io::Result<Self> {
        files::create_folder(data_dir)?;
        let (queue, writer) = Queue::open(&data_dir.join("events"), clock)?;
        let shared = Arc::new(Shared {
            data_dir: data_dir.to_owned(),
            identity: Mutex::new(identity),
            queue,
            secrets: SecretRequests::new(),
            desired: watch::channel(load_desired(data_dir)).0,
            status: watch::channel(Status::Connecting).0,
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Ok(Self { shared, writer: Arc::new(Mutex::new(Some(writer))), stop, tasks })
    }

    /// Starts to connect, and to write events to disk. Only the first call has an effect.
    pub fn start(&self, runtime: Runtime) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        let work = self.tasks.track_future(async move {
            let connect = stop.run_until_cancelled(run(&shared, &runtime));
            tokio::join!(connect, writer.run(stop.clone()));
        });
        tasks::spawn("link", work);
        self.tasks.close();
    }

    /// Closes the connection, writes the remaining events to disk, and waits until the link has ended.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Returns a receiver of the desired state. Its value is `None` until the first state has been received. This
    /// differs from a state without instances: nothing must be removed.
    #[must_use]
    pub fn desired(&self) -> watch::Receiver<Option<DesiredState>> {
        self.shared.desired.subscribe()
    }

    /// Returns a receiver of the state of the link.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Returns the number of events that have not been acknowledged.
    #[must_use]
    pub fn unacknowledged_events(&self) -> usize {
        self.shared.queue.len()
    }
}

impl Control for Link {
    fn report(&self, event: ToolboxEvent) {
        self.shared.queue.push(event);
    }

    fn secrets(
        &self,
        instance_id: &str,
        generation: u64,
        key: Option<&str>,
    ) -> Pin<Box<dyn Future<Output = Option<InstanceSecrets>> + Send + '_>> {
        let (instance_id, key) = (instance_id.to_owned(), key.map(str::to_owned));
        Box::pin(async move { self.shared.secrets.request(&instance_id, generation, key.as_deref()).await })
    }
}

/// Connects in an endless loop.
async fn run(shared: &Arc<Shared>, runtime: &Runtime) {
    let mut backoff = Backoff::default();
    let mut attempt = Attempt::CurrentKey;
    loop {
        let start = Instant::now();
        let end = session::run(shared, runtime, attempt).await;
        let is_rotating = shared.identity().is_rotating();
        let pause = match end {
            End::KeyCreated => {
                tracing::info!("a new key was created, presenting it");
                attempt = Attempt::CurrentKey;
                Duration::ZERO
            }
            // The control plane may have stored the next key, and its answer may have been lost.
            End::Unauthorized(_) if is_rotating && attempt == Attempt::CurrentKey => {
                attempt = Attempt::NextKey;
                Duration::ZERO
            }
            End::Unauthorized(message) => {
                attempt = Attempt::CurrentKey;
                tracing::error!(
                    reason = message,
                    "the control plane rejects this toolbox; if it was revoked, remove the data directory and join again; retrying every 5 minutes"
                );
                shared.status.send_replace(Status::Unauthorized(message));
                tokio::time::sleep(UNAUTHORIZED).await;
                continue;
            }
            End::Lost(reason) => {
                let pause = backoff.next(start.elapsed());
                tracing::warn!(reason, retry_ms = pause.as_millis(), "no link to the control plane");
                pause
            }
        };
        shared.status.send_replace(Status::Connecting);
        tokio::time::sleep(pause).await;
    }
}

impl Shared {
    fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn desired_revision(&self) -> u64 {
        self.desired.borrow().as_ref().map_or(0, |state| state.revision)
    }

    /// Stores a desired state, unless it is older than the current one.
    async fn apply_desired(self: &Arc<Self>, state: DesiredState) {
        if state.revision < self.desired_revision() {
            tracing::warn!(revision = state.revision, "ignored a desired state that is older than the current one");
            return;
        }
        let shared = Arc::clone(self);
        let content = serde_json::to_vec(&state);
        let stored = blocking(move || files::replace(&shared.data_dir.join("desired.json"), &content?)).await;
        if let Err(error) = stored {
            tracing::error!(%error, "failed to store the desired state");
        }
        self.desired.send_if_modified(|current| {
            let is_changed = current.as_ref() != Some(&state);
            *current = Some(state);
            is_changed
        });
    }

    /// Creates the next key. Returns `false` if this fails; the current key remains valid.
    async fn create_next_key(self: &Arc<Self>) -> bool {
        let shared = Arc::clone(self);
        let created = blocking(move || {
            let mut identity = shared.identity();
            identity.begin_rotation(&shared.data_dir).map_err(io::Error::other)
        });
        let result = created.await;
        result.inspect_err(|error| tracing::error!(%error, "failed to create a new key")).is_ok()
    }

    /// Replaces the current key if there is a next one, which the control plane has just accepted.
    async fn finish_rotation(self: &Arc<Self>) -> io::Result<()> {
        if !self.identity().is_rotating() {
            return Ok(());
        }
        let shared = Arc::clone(self);
        let finish = move || shared.identity().finish_rotation(&shared.data_dir);
        blocking(move || finish().map_err(|error: IdentityError| io::Error::other(error))).await
    }
}

fn load_desired(data_dir: &Path) -> Option<DesiredState> {
    let content = std::fs::read(data_dir.join("desired.json")).ok()?;
    serde_json::from_slice(&content)
        .inspect_err(|_| tracing::warn!("the stored desired state is damaged, waiting for the control plane"))
        .ok()
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
