//! An in-memory container engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream_like::receiver_stream;
use waypost_toolbox_proto::ErrorCode;
use waypost_toolbox_proto::message::{Capacity, Engine as EngineInfo, RegistryCredentials};

use crate::engine::{
    Attached, ContainerExit, ContainerRequest, Engine, EngineError, Exits, MachineInfo, NetworkNamespace,
    ObservedContainer, Output, OutputChunk, StartedContainer, Usage,
};
use crate::reconcile::Resources;

/// Conversion of a channel to a stream.
mod tokio_stream_like {
    use futures::Stream;
    use tokio::sync::mpsc::UnboundedReceiver;

    pub(super) fn receiver_stream<T>(receiver: UnboundedReceiver<T>) -> impl Stream<Item = T> {
        futures::stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) })
    }
}

/// The behaviour of the server of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Behaviour {
    #[default]
    Healthy,
    /// Exits as soon as it is started.
    Exits,
    /// Exceeds its memory limit and exits while it is being checked.
    OutOfMemory,
    NotMcp,
    NeverAnswers,
    /// Exits if the first request is not `initialize`.
    NeedsInitialize,
    /// Answers the handshake, but cannot list its tools.
    NoTools,
}

/// An operation of the engine or a server that fails once.
pub(super) type Fault = (&'static str, ErrorCode);

pub(super) struct FakeContainer {
    pub(super) observed: ObservedContainer,
    pub(super) image: String,
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) end: watch::Sender<bool>,
    /// Incremented when the attached streams are cut.
    pub(super) cuts: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) containers: BTreeMap<String, FakeContainer>,
    pub(super) networks: BTreeSet<String>,
    /// The volumes, by instance and name, with the generations that created them.
    pub(super) volumes: BTreeMap<(String, String), u64>,
    pub(super) behaviours: BTreeMap<String, Behaviour>,
    pub(super) faults: VecDeque<Fault>,
    /// The percentage of operations that fail, and the state of the random number generator.
    pub(super) chaos: (u64, u64),
    pub(super) is_down: bool,
    pub(super) disk_free: u64,
    /// The free disk space that is needed to pull an image.
    pub(super) image_bytes: u64,
    /// The sizes of the images that nothing uses, oldest first.
    pub(super) unused_images: VecDeque<u64>,
    pub(super) capacity: Resources,
    pub(super) log: Vec<String>,
    pub(super) peak: Resources,
    pub(super) stop_delay: Duration,
    /// The number of times that each container was attached.
    pub(super) attached: BTreeMap<String, usize>,
    /// The number of times that the network namespace of each container was opened.
    pub(super) namespaces: BTreeMap<String, usize>,
    pub(super) pulled: Vec<Option<RegistryCredentials>>,
    exits: Vec<mpsc::UnboundedSender<ContainerExit>>,
    next_id: usize,
    /// The number of operations before the daemon is killed.
    pub(super) kill_after: Option<usize>,
    pub(super) points: usize,
}

pub(super) struct FakeEngine {
    state: Mutex<State>,
    pub(super) killed: Notify,
}

impl FakeEngine {
    pub(super) fn new() -> Arc<Self> {
        let state = State {
            disk_free: 100 << 30,
            capacity: Resources { memory_bytes: 64 << 30, millicpus: 64_000 },
            stop_delay: Duration::from_millis(200),
            ..State::default()
        };
        Arc::new(Self { state: Mutex::new(state), killed: Notify::new() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a point at which the daemon can be killed, before or after the effect of an operation.
    pub(super) async fn point(&self) {
        let is_killed = {
            let mut state = self.state();
            state.points += 1;
            state.kill_after.is_some_and(|after| state.points >= after)
        };
        if is_killed {
            self.killed.notify_one();
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    /// Begins an operation, which takes time and can fail.
    pub(super) async fn operation(&self, name: &'static str) -> Result<(), EngineError> {
        self.point().await;
        let mut state = self.state();
        if state.is_down {
            return Err(failure(ErrorCode::EngineUnavailable));
        }
        if let Some(index) = state.faults.iter().position(|(operation, _)| *operation == name) {
            return Err(failure(state.faults.remove(index).unwrap().1));
        }
        let (percent, seed) = &mut state.chaos;
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (*seed >> 33) % 100 < *percent && !matches!(name, "containers" | "instances") {
            return Err(failure(ErrorCode::StartFailed));
        }
        Ok(())
    }

    pub(super) fn crash(&self, container: &str, exit_code: i64, out_of_memory: bool) {
        let mut state = self.state();
        let Some(found) = state.containers.get_mut(container).filter(|found| found.observed.running) else { return };
        found.observed.running = false;
        found.observed.pid = None;
        found.observed.exit_code = Some(exit_code);
        found.observed.out_of_memory = out_of_memory;
        found.end.send_replace(true);
        let instance_id = found.observed.instance_id.clone();
        let exit = ContainerExit { container: container.to_owned(), instance_id, exit_code };
        state.exits.retain(|sender| sender.send(exit.clone()).is_ok());
    }

    /// Stops the engine, together with its containers if `kills` is set.
    pub(super) fn go_down(&self, kills: bool) {
        let mut state = self.state();
        state.is_down = true;
        state.exits.clear();
        for container in state.containers.values_mut() {
            container.cuts.send_modify(|cuts| *cuts += 1);
            if kills && container.observed.running {
                container.observed.running = false;
                container.observed.exit_code = Some(137);
                container.end.send_replace(true);
            }
        }
    }

    pub(super) fn come_up(&self) {
        self.state().is_down = false;
    }

    /// Cuts the attached streams of a container that keeps running.
    pub(super) fn cut(&self, container: &str) {
        self.state().containers[container].cuts.send_modify(|cuts| *cuts += 1);
    }

    pub(super) fn running(&self) -> Vec<String> {
        let state = self.state();
        let running = state.containers.values().filter(|container| container.observed.running);
        running.map(|container| container.observed.id.clone()).collect()
    }

    /// Whether no instance has any resources.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        state.containers.is_empty() && state.networks.is_empty() && state.volumes.is_empty()
    }

    fn attached(&self, container: &str) -> Attached {
        let mut state = self.state();
        *state.attached.entry(container.to_owned()).or_default() += 1;
        let found = &state.containers[container];
        let mut end = found.end.subscribe();
        let stderr = Bytes::from(format!("starting with {:?}\n", found.secrets.values().collect::<Vec<_>>()));
        let first = futures::stream::once(async { Ok(OutputChunk::Stderr(stderr)) });
        let rest = futures::stream::once(async move {
            _ = end.wait_for(|end| *end).await;
        });
        let output = first.chain(rest.filter_map(|()| async { None }));
        Attached { stdin: Box::pin(tokio::io::sink()), output: Box::pin(output) }
    }
}

pub(super) fn failure(code: ErrorCode) -> EngineError {
    EngineError { code, cause: format!("The engine says {code}."), next_action: "Fix it.".to_owned() }
}

impl Engine for FakeEngine {
    async fn info(&self) -> Result<MachineInfo, EngineError> {
        self.operation("info").await?;
        let state = self.state();
        let engine = EngineInfo {
            version: "1".into(),
            runtime: "runc".into(),
            os: "linux".into(),
            architecture: "amd64".into(),
        };
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let cpus = state.capacity.millicpus as f64 / 1_000.0;
        let capacity = Capacity { cpus, memory_bytes: state.capacity.memory_bytes, disk_free_bytes: state.disk_free };
        Ok(MachineInfo { engine, capacity })
    }

    async fn containers(&self) -> Result<Vec<ObservedContainer>, EngineError> {
        self.operation("containers").await?;
        Ok(self.state().containers.values().map(|container| container.observed.clone()).collect())
    }

    async fn instances(&self) -> Result<Vec<String>, EngineError> {
        self.operation("instances").await?;
        let state = self.state();
        let mut instances: BTreeSet<String> = state.networks.clone();
        instances.extend(state.volumes.keys().map(|(instance, _)| instance.clone()));
        instances.extend(state.containers.values().map(|container| container.observed.instance_id.clone()));
        Ok(instances.into_iter().collect())
    }

    async fn pull(&self, image: &str, credentials: Option<&RegistryCredentials>) -> Result<(), EngineError> {
        self.operation("pull").await?;
        let mut state = self.state();
        if state.disk_free < state.image_bytes {
            return Err(failure(ErrorCode::DiskFull));
        }
        state.pulled.push(credentials.cloned());
        state.log.push(format!("pull {image}"));
        Ok(())
    }

    async fn prepare(&self, request: &ContainerRequest) -> Result<(), EngineError> {
        self.operation("prepare").await?;
        {
            let mut state = self.state();
            state.networks.insert(request.instance_id.clone());
            for volume in &request.spec.volumes {
                let key = (request.instance_id.clone(), volume.name.clone());
                state.volumes.entry(key).or_insert(request.generation);
            }
        }
        self.point().await;
        Ok(())
    }

    async fn start(
        &self,
        request: &ContainerRequest,
        secrets: &BTreeMap<String, String>,
    ) -> Result<StartedContainer, EngineError> {
        self.operation("start").await?;
        let (observed, behaviour) = {
            let mut state = self.state();
            state.next_id += 1;
            let observed = ObservedContainer {
                id: format!("con{}", state.next_id),
                instance_id: request.instance_id.clone(),
                generation: request.generation,
                key: request.key.clone(),
                digest: request.digest.clone(),
                personal_version: request.personal_version,
                resources: request.spec.resources,
                running: true,
                started_at: Some(super::clock()),
                exit_code: None,
                out_of_memory: false,
                pid: Some(1_000),
            };
            state.log.push(format!("start {} {}", observed.id, request.spec.image));
            let container = FakeContainer {
                observed: observed.clone(),
                image: request.spec.image.clone(),
                secrets: secrets.clone(),
                end: watch::Sender::new(false),
                cuts: watch::Sender::new(0),
            };
            state.containers.insert(observed.id.clone(), container);
            let used = |resource: fn(Resources) -> u64| {
                let running = state.containers.values().filter(|container| container.observed.running);
                running.map(|container| resource(Resources::of(container.observed.resources))).sum::<u64>()
            };
            let used = Resources { memory_bytes: used(|r| r.memory_bytes), millicpus: used(|r| r.millicpus) };
            state.peak = Resources {
                memory_bytes: state.peak.memory_bytes.max(used.memory_bytes),
                millicpus: state.peak.millicpus.max(used.millicpus),
            };
            (observed, state.behaviours.get(&request.spec.image).copied().unwrap_or_default())
        };
        let attached = self.attached(&observed.id);
        if behaviour == Behaviour::Exits {
            self.crash(&observed.id, 3, false);
        }
        self.point().await;
        Ok(StartedContainer { container: observed, attached: Some(attached) })
    }

    async fn attach(&self, container: &str) -> Result<Attached, EngineError> {
        self.operation("attach").await?;
        if !self.state().containers.get(container).is_some_and(|container| container.observed.running) {
            return Err(failure(ErrorCode::StartFailed));
        }
        Ok(self.attached(container))
    }

    async fn stop(&self, container: &str, grace: Duration) -> Result<(), EngineError> {
        self.operation("stop").await?;
        let delay = self.state().stop_delay;
        tokio::time::sleep(delay.min(grace)).await;
        self.state().log.push(format!("stop {container}"));
        self.crash(container, if delay > grace { 137 } else { 0 }, false);
        self.point().await;
        Ok(())
    }

    async fn remove(&self, container: &str) -> Result<(), EngineError> {
        self.operation("remove").await?;
        self.crash(container, 137, false);
        {
            let mut state = self.state();
            state.containers.remove(container);
            state.log.push(format!("remove {container}"));
        }
        self.point().await;
        Ok(())
    }

    async fn remove_instance(&self, instance_id: &str, volumes: bool) -> Result<(), EngineError> {
        self.operation("remove_instance").await?;
        {
            let mut state = self.state();
            state.containers.retain(|_, container| container.observed.instance_id != instance_id);
            state.networks.remove(instance_id);
            if volumes {
                state.volumes.retain(|(instance, _), _| instance != instance_id);
            }
            state.log.push(format!("remove_instance {instance_id} volumes={volumes}"));
        }
        self.point().await;
        Ok(())
    }

    async fn remove_volumes(&self, instance_id: &str, generation: u64, keep: &[String]) -> Result<(), EngineError> {
        self.operation("remove_volumes").await?;
        self.state().volumes.retain(|(instance, name), created| {
            instance != instance_id || *created != generation || keep.contains(name)
        });
        self.point().await;
        Ok(())
    }

    async fn network_namespace(&self, container: &str) -> Result<NetworkNamespace, EngineError> {
        self.operation("network_namespace").await?;
        if !self.state().containers.get(container).is_some_and(|container| container.observed.running) {
            return Err(failure(ErrorCode::Exited));
        }
        *self.state().namespaces.entry(container.to_owned()).or_default() += 1;
        Ok(NetworkNamespace::of_process(std::process::id()).unwrap())
    }

    async fn usage(&self, container: &str) -> Result<Usage, EngineError> {
        let is_known = self.state().containers.contains_key(container);
        if is_known { Ok(Usage { pids: 1, ..Usage::default() }) } else { Err(failure(ErrorCode::StartFailed)) }
    }

    async fn logs(&self, _container: &str) -> Result<Output, EngineError> {
        Ok(Box::pin(futures::stream::pending()))
    }

    async fn exits(&self) -> Result<Exits, EngineError> {
        self.operation("exits").await?;
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().exits.push(sender);
        Ok(Box::pin(receiver_stream(receiver)))
    }

    async fn remove_unused_images(&self, bytes: u64) -> Result<(), EngineError> {
        let mut state = self.state();
        while state.disk_free < bytes
            && let Some(size) = state.unused_images.pop_front()
        {
            state.disk_free += size;
        }
        state.log.push("remove_unused_images".to_owned());
        Ok(())
    }
}
