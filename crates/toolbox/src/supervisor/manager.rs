//! The manager task: one task per instance, and the connection to the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::OptionFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::desired::{DesiredInstance, DesiredState};
use waypost_toolbox_proto::message::InstanceReport;

use super::instance::{Channels, Instance};
use super::servers::{BoxFuture, Servers};
use super::{Calls, Need, Shared, Supervisor, files};
use crate::engine::{ContainerExit, Engine, EngineError, Exits, ObservedContainer};
use crate::tasks;

/// The time within which the tasks of all instances must end.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);

/// The manager's end of the task of an instance.
pub(super) struct Handle {
    pub(super) calls: Arc<Calls>,
    pub(super) needs: mpsc::Sender<Need>,
    desired: watch::Sender<Option<Arc<DesiredInstance>>>,
    exits: mpsc::Sender<ContainerExit>,
    /// Incremented when the task must compare its containers with the engine's.
    resync: watch::Sender<u64>,
    report: Arc<Mutex<Option<InstanceReport>>>,
}

impl Handle {
    /// Returns the observed state; `None` until it is known.
    pub(super) fn report(&self) -> Option<InstanceReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The containers and instances that were found when the daemon connected to the engine. The task of an instance takes
/// over those of its instance.
struct Found {
    containers: BTreeMap<String, Vec<ObservedContainer>>,
    instances: BTreeSet<String>,
    /// The instances that have had an exited container since.
    outdated: BTreeSet<String>,
}

impl Found {
    /// Removes and returns the containers of an instance, and whether it has any resources; `None` if they must be
    /// listed again.
    fn take(&mut self, id: &str) -> Option<(Vec<ObservedContainer>, bool)> {
        let containers = self.containers.remove(id).unwrap_or_default();
        let exists = self.instances.remove(id);
        (!self.outdated.remove(id)).then_some((containers, exists))
    }
}

/// A new connection to the engine.
struct Connected {
    exits: Exits,
    found: Found,
}

struct Manager<E, S> {
    shared: Arc<Shared<E, S>>,
    desired: Option<DesiredState>,
    /// `None` until the engine has been reached for the first time.
    found: Option<Found>,
    /// The tasks of the instances. Each returns the ID of its instance, and whether it panicked.
    tasks: FuturesUnordered<BoxFuture<'static, (String, bool)>>,
    stop: CancellationToken,
}

impl<E: Engine, S: Servers> Supervisor<E, S> {
    /// Runs until `shutdown` is cancelled. Containers keep running afterwards.
    ///
    /// Nothing is changed until a desired state is known. A state with a lower revision than the previous one is ignored.
    pub async fn run(&self, mut desired: watch::Receiver<Option<DesiredState>>, shutdown: CancellationToken) {
        let mut manager = Manager {
            shared: Arc::clone(&self.0),
            desired: None,
            found: None,
            tasks: FuturesUnordered::new(),
            stop: shutdown.child_token(),
        };
        let mut exits: Option<Exits> = None;
        let mut connecting = Some(connect(Arc::clone(&self.0), 0).boxed());
        let mut is_tried = false;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                exit = next(&mut exits), if exits.is_some() => match exit {
                    Some(exit) => manager.exited(exit),
                    None => {
                        tracing::warn!("lost the connection to the container engine");
                        self.0.set_machine(None);
                        exits = None;
                        connecting = Some(connect(Arc::clone(&self.0), 0).boxed());
                    }
                },
                Some(result) = OptionFuture::from(connecting.as_mut()) => {
                    connecting = None;
                    match result {
                        Ok(connected) => {
                            exits = Some(connected.exits);
                            manager.connected(connected.found);
                        }
                        Err(attempt) => connecting = Some(connect(Arc::clone(&self.0), attempt).boxed()),
                    }
                    is_tried = true;
                    manager.update(desired.borrow_and_update().as_ref());
                    self.0.started.send_replace(true);
                }
                changed = desired.changed(), if is_tried => match changed {
                    Ok(()) => manager.update(desired.borrow_and_update().as_ref()),
                    Err(_) => break,
                },
                Some((id, panicked)) = manager.tasks.next() => manager.ended(&id, panicked),
            }
        }
        manager.stop.cancel();
        let all = async { while manager.tasks.next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::warn!("tasks of instances did not stop in time");
        }
        self.0.handles().clear();
    }
}

async fn next(exits: &mut Option<Exits>) -> Option<ContainerExit> {
    match exits {
        Some(exits) => exits.next().await,
        None => None,
    }
}

/// Connects to the engine. Returns the number of the next attempt as the error if this fails.
async fn connect<E: Engine, S: Servers>(shared: Arc<Shared<E, S>>, attempt: u32) -> Result<Connected, u32> {
    if attempt > 0 {
        tokio::time::sleep(shared.pause(attempt - 1)).await;
    }
    let engine = &shared.parts.engine;
    let connected: Result<Connected, EngineError> = async {
        // The subscription starts before the containers are listed, so no exit is missed.
        let exits = engine.exits().await?;
        let machine = engine.info().await?;
        let mut found = Found { containers: BTreeMap::new(), instances: BTreeSet::new(), outdated: BTreeSet::new() };
        for container in engine.containers().await?.into_iter().filter(|container| files::is_id(&container.instance_id))
        {
            found.containers.entry(container.instance_id.clone()).or_default().push(container);
        }
        found.instances.extend(engine.instances().await?.into_iter().filter(|id| files::is_id(id)));
        found.instances.extend(found.containers.keys().cloned());
        found.instances.extend(files::instances(&shared.parts.data_dir).await);
        shared.set_machine(Some(machine));
        Ok(Connected { exits, found })
    }
    .await;
    connected.map_err(|error| {
        if attempt == 0 {
            tracing::warn!(%error, "failed to connect to the container engine");
        }
        attempt.saturating_add(1)
    })
}

impl<E: Engine, S: Servers> Manager<E, S> {
    fn connected(&mut self, found: Found) {
        // Existing tasks compare their own containers. Tasks that are started later take over the containers that were
        // found.
        for handle in self.shared.handles().values() {
            handle.resync.send_modify(|count| *count += 1);
        }
        self.found = Some(found);
    }

    fn exited(&mut self, exit: ContainerExit) {
        let handles = self.shared.handles();
        let Some(handle) = handles.get(&exit.instance_id) else {
            if let Some(found) = &mut self.found {
                found.outdated.insert(exit.instance_id);
            }
            return;
        };
        if handle.exits.try_send(exit).is_err() {
            handle.resync.send_modify(|count| *count += 1);
        }
    }

    /// Applies a new desired state: updates the existing tasks, and starts tasks for new instances, and for instances
    /// that were found but are not desired.
    fn update(&mut self, desired: Option<&DesiredState>) {
        if let Some(desired) = desired {
            let revision = self.desired.as_ref().map_or(0, |current| current.revision);
            if desired.revision < revision {
                tracing::warn!(revision = desired.revision, "ignored an outdated desired state");
            } else {
                self.desired = Some(desired.clone());
            }
        }
        let Some(desired) = &self.desired else { return };
        let wanted: BTreeMap<String, Arc<DesiredInstance>> = {
            let valid = desired.instances.iter().filter(|instance| files::is_id(&instance.id));
            valid.map(|instance| (instance.id.clone(), Arc::new(instance.clone()))).collect()
        };
        let mut unknown: BTreeMap<String, Option<Arc<DesiredInstance>>> =
            wanted.iter().map(|(id, instance)| (id.clone(), Some(Arc::clone(instance)))).collect();
        for id in self.found.iter().flat_map(|found| &found.instances).filter(|id| !wanted.contains_key(*id)) {
            unknown.insert(id.clone(), None);
        }
        for (id, handle) in self.shared.handles().iter() {
            let instance = wanted.get(id).cloned();
            handle.desired.send_if_modified(|current| {
                let is_changed = *current != instance;
                *current = instance;
                is_changed
            });
            unknown.remove(id);
        }
        for (id, instance) in unknown {
            let found = self.found.as_mut().and_then(|found| found.take(&id));
            self.start(id, instance, found);
        }
    }

    /// Starts the task of an instance. If `found` is `None`, the task queries the engine first.
    fn start(
        &mut self,
        id: String,
        instance: Option<Arc<DesiredInstance>>,
        found: Option<(Vec<ObservedContainer>, bool)>,
    ) {
        let (desired, desired_receiver) = watch::channel(instance);
        let (exits, exits_receiver) = mpsc::channel(64);
        let (resync, resync_receiver) = watch::channel(0);
        let (needs, needs_receiver) = mpsc::channel(16);
        let calls = Calls::new(&self.shared.parts.settings);
        let report = Arc::default();
        let channels = Channels {
            desired: desired_receiver,
            exits: exits_receiver,
            resync: resync_receiver,
            needs: needs_receiver,
            calls: Arc::clone(&calls),
            report: Arc::clone(&report),
        };
        let handle = Handle { calls, needs, desired, exits, resync, report };
        self.shared.handles().insert(id.clone(), handle);
        let (shared, stop) = (Arc::clone(&self.shared), self.stop.clone());
        let name = id.clone();
        let task = tasks::spawn("instance", async move {
            Instance::load(shared, name, channels, found).await.run(stop).await;
        });
        let stop = self.stop.clone();
        self.tasks.push(
            async move {
                let panicked = !matches!(task.await, Ok(Some(())));
                if panicked {
                    _ = tokio::time::timeout(super::RETRY_PAUSE, stop.cancelled()).await;
                }
                (id, panicked)
            }
            .boxed(),
        );
    }

    /// Handles the end of the task of an instance, whose instance was removed or which panicked.
    fn ended(&mut self, id: &str, panicked: bool) {
        self.shared.handles().remove(id);
        if let Some(found) = &mut self.found {
            _ = found.take(id);
        }
        if panicked {
            // The state that the task left behind is unknown, so its successor queries the engine.
            let instances = self.desired.iter().flat_map(|desired| &desired.instances);
            let desired = instances.into_iter().find(|instance| instance.id == id);
            self.start(id.to_owned(), desired.cloned().map(Arc::new), None);
        }
        self.update(None);
    }
}
