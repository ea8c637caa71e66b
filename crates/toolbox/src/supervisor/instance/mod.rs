//! The task of an instance, the only owner of its containers.
//!
//! The task runs a loop: reconcile ([`reconcile`](crate::reconcile::reconcile)), perform acts, report, wait. Acts that
//! take time are futures in `works`. The task itself handles their results, so there are no locks and no races between
//! acts.

mod acts;
mod connect;
mod containers;
mod errors;
mod observe;
mod report;
mod results;
mod start;
mod unit;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::Health;
use waypost_toolbox_proto::desired::DesiredInstance;
use waypost_toolbox_proto::message::InstanceReport;

use self::unit::Unit;
use self::work::Done;
use super::servers::{BoxFuture, CallFailure, Servers};
use super::{Calls, Need, Shared, files};
use crate::engine::{ContainerExit, Engine, ObservedContainer};
use crate::reconcile::{Attempts, Key, Memory, Removal};

/// The maximum number of stored exits of containers whose start may be in progress.
const MAX_EARLY_EXITS: usize = 16;
/// The maximum number of keys whose failed attempts are kept.
const MAX_ATTEMPTS: usize = 100;

/// The task's end of its connection to the manager.
pub(super) struct Channels {
    pub(super) desired: watch::Receiver<Option<Arc<DesiredInstance>>>,
    pub(super) exits: mpsc::Receiver<ContainerExit>,
    pub(super) resync: watch::Receiver<u64>,
    pub(super) needs: mpsc::Receiver<Need>,
    pub(super) calls: Arc<Calls>,
    pub(super) report: Arc<Mutex<Option<InstanceReport>>>,
}

/// An operation during which nothing else is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exclusive {
    /// The containers are listed.
    Observe,
    /// The remains of a failed deployment are removed.
    Clean,
    /// The instance is removed.
    Remove,
}

/// The task of an instance.
pub(super) struct Instance<E, S> {
    shared: Arc<Shared<E, S>>,
    id: String,
    folder: PathBuf,
    channels: Channels,
    desired: Option<Arc<DesiredInstance>>,
    memory: Memory,
    /// Whether `memory` is not yet on disk because writing failed.
    is_unsaved: bool,
    attempts: BTreeMap<Key, Attempts>,
    /// The newest version of the personal secrets that a call contained, by key.
    personal_versions: BTreeMap<Key, u64>,
    units: Vec<Unit>,
    waiters: BTreeMap<Key, Vec<oneshot::Sender<Result<(), CallFailure>>>>,
    works: FuturesUnordered<BoxFuture<'static, Done>>,
    exclusive: Option<Exclusive>,
    /// Whether the containers must be listed before anything else is done.
    needs_observe: bool,
    /// The time since which the engine cannot be reached.
    lost_since: Option<Instant>,
    /// The deployment that waits for the engine, and the time since which it waits.
    awaited: Option<(String, Instant)>,
    /// Whether the engine had no resources of this instance when it was first queried; `None` if it has not been
    /// queried.
    is_fresh: Option<bool>,
    /// Whether the running deployment may have created something.
    touched: Arc<AtomicBool>,
    /// The exits of unknown containers, whose starts may be in progress.
    early_exits: VecDeque<ContainerExit>,
    starts: u64,
    /// The number of failures to remove the remains of a deployment.
    failed_cleanings: u32,
    /// The digest of the specification whose container was started once more for another handshake.
    restarted_for: Option<String>,
    wake: Option<Instant>,
    reported: Option<InstanceReport>,
    last_health: Option<Health>,
    is_removed: bool,
}

impl<E: Engine, S: Servers> Instance<E, S> {
    /// Creates the task of an instance. `found` contains its containers, and whether any of its resources exist; `None`
    /// if the engine has not been queried.
    pub(super) async fn load(
        shared: Arc<Shared<E, S>>,
        id: String,
        channels: Channels,
        found: Option<(Vec<ObservedContainer>, bool)>,
    ) -> Self {
        let folder = files::folder(&shared.parts.data_dir, &id);
        let memory = files::load(&folder).await;
        let mut instance = Self {
            shared,
            id,
            folder,
            channels,
            desired: None,
            memory,
            is_unsaved: false,
            attempts: BTreeMap::new(),
            personal_versions: BTreeMap::new(),
            units: Vec::new(),
            waiters: BTreeMap::new(),
            works: FuturesUnordered::new(),
            exclusive: None,
            needs_observe: found.is_none(),
            lost_since: None,
            awaited: None,
            is_fresh: None,
            // A deployment that a previous process began may have created something.
            touched: Arc::new(AtomicBool::new(true)),
            early_exits: VecDeque::new(),
            starts: 0,
            failed_cleanings: 0,
            restarted_for: None,
            wake: None,
            reported: None,
            last_health: None,
            is_removed: false,
        };
        instance.desired = instance.channels.desired.borrow_and_update().clone();
        if let Some((containers, exists)) = found {
            instance.observed(containers, exists);
        }
        instance
    }

    /// Runs until the instance is removed or `stop` is cancelled.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            self.converge().await;
            self.report();
            if self.is_removed {
                return;
            }
            let wake = self.wake;
            let timer = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = self.channels.desired.changed() => match changed {
                    Ok(()) => self.desired = self.channels.desired.borrow_and_update().clone(),
                    Err(_) => return,
                },
                Some(exit) = self.channels.exits.recv() => self.container_exited(exit),
                Ok(()) = self.channels.resync.changed() => self.needs_observe = true,
                Some(done) = self.works.next() => self.done(done).await,
                Some(need) = self.channels.needs.recv() => self.needed(need).await,
                () = timer => {}
            }
        }
    }

    async fn needed(&mut self, need: Need) {
        self.refresh_personal(&need.key, need.personal_version).await;
        let waiters = self.waiters.entry(need.key).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(need.answer);
    }

    /// Begins to replace the container of a key if it was started with earlier personal secrets. If the version is new,
    /// earlier failed attempts to start it no longer count: the old values may have been their cause.
    async fn refresh_personal(&mut self, key: &Key, version: u64) {
        let known = self.personal_versions.get(key).copied().unwrap_or_default();
        if version > known {
            self.attempts.remove(key);
            self.personal_versions.insert(key.clone(), version);
            // Not this one, whose version would count as new with its next call.
            let other = self.personal_versions.keys().find(|other| *other != key).cloned();
            if let Some(other) = other.filter(|_| self.personal_versions.len() > MAX_ATTEMPTS) {
                self.personal_versions.remove(&other);
            }
        }
        let is_outdated = |unit: &&Unit| unit.key == *key && unit.is_ready() && unit.personal_version() < version;
        let outdated: Vec<String> = self.units.iter().filter(is_outdated).map(|unit| unit.id.clone()).collect();
        for id in outdated {
            self.remove(&id, Removal::Drain).await;
        }
    }

    fn work(&self, work: impl Future<Output = Done> + Send + 'static) {
        self.works.push(Box::pin(work));
    }

    fn unit(&mut self, id: &str) -> Option<&mut Unit> {
        self.units.iter_mut().find(|unit| unit.id == id)
    }

    /// Saves `memory`. If this fails, it is retried after the next act; at worst, the instance is deployed once more.
    async fn save(&mut self) {
        let result = files::save(&self.folder, &self.memory).await;
        self.is_unsaved = result.is_err();
        if let Err(error) = result {
            tracing::error!(%error, instance = self.id, "failed to write the state of an instance");
        }
    }
}
