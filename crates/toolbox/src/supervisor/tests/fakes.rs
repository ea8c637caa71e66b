//! In-memory servers, an in-memory control plane and sink, and a daemon that uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::desired::{DesiredInstance, DesiredState, InstanceSpec};
use waypost_toolbox_proto::http::LogStream;
use waypost_toolbox_proto::message::{DeploymentOutcome, InstanceReport, InstanceSecrets, ToolboxEvent};
use waypost_toolbox_proto::{InstanceState, ResourceClass, Sharing, Transport, Volume};

use super::super::servers::{
    BoxFuture, CallFailure, CallOptions, ConnectContext, ConnectError, Messages, Notifications, ServerSession, Servers,
    Target,
};
use super::super::{Parts, Settings, Sink, Supervisor};
use super::engine::{Behaviour, FakeEngine};
use crate::control::Control;
use crate::engine::{NetworkNamespace, ObservedContainer, OutputChunk, Usage};
use crate::tasks;

/// The results of probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    Ok,
    Fails,
    Hangs,
}

pub(super) struct FakeServers {
    pub(super) engine: Arc<FakeEngine>,
    pub(super) probe: watch::Sender<Probe>,
    pub(super) probes: AtomicUsize,
    /// The number of connections that were opened.
    pub(super) connections: AtomicUsize,
    /// The number of connections to containers that different callers share.
    pub(super) shared_connections: AtomicUsize,
    /// The number of handshakes with servers that need `initialize` first.
    pub(super) handshakes: AtomicUsize,
    pub(super) always_restart: std::sync::atomic::AtomicBool,
    /// Each call waits for a permit.
    pub(super) gate: Arc<Semaphore>,
    pub(super) running_calls: Arc<AtomicUsize>,
}

impl Servers for Arc<FakeServers> {
    async fn connect(&self, target: Target, context: ConnectContext) -> Result<Arc<dyn ServerSession>, ConnectError> {
        if let Target::Stdio(mut attached) = target {
            while let Some(Some(Ok(OutputChunk::Stderr(bytes)))) = attached.output.next().now_or_never() {
                context.log.line(LogStream::Stderr, String::from_utf8_lossy(&bytes).trim_end());
            }
        }
        let closed = |_| ConnectError::Closed("The connection was closed.".to_owned());
        self.engine.operation("connect").await.map_err(closed)?;
        let (behaviour, end, cuts) = {
            let state = self.engine.state();
            let container = state.containers.get(&context.container_id).filter(|c| c.observed.running);
            let container = container.ok_or_else(|| ConnectError::Closed("It does not run.".to_owned()))?;
            let behaviour = state.behaviours.get(&container.image).copied().unwrap_or_default();
            (behaviour, container.end.subscribe(), container.cuts.subscribe())
        };
        match behaviour {
            Behaviour::NotMcp => return Err(ConnectError::NotMcp("It answered with HTML.".to_owned())),
            Behaviour::NeedsInitialize => {
                let first = self.handshakes.fetch_add(1, Ordering::Relaxed) == 0;
                if first || self.always_restart.load(Ordering::Relaxed) {
                    self.engine.crash(&context.container_id, 1, false);
                    return Err(ConnectError::Restart("It exited after `server/discover`.".to_owned()));
                }
            }
            Behaviour::NeverAnswers => std::future::pending().await,
            Behaviour::OutOfMemory => {
                self.engine.crash(&context.container_id, 137, true);
                return Err(ConnectError::Closed("End of file.".to_owned()));
            }
            _ => {}
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.shared_connections.fetch_add(usize::from(context.is_shared), Ordering::Relaxed);
        let servers = Arc::clone(self);
        Ok(Arc::new(FakeSession { servers, container: context.container_id, behaviour, end, cuts }))
    }

    fn respond<'a>(&'a self, _instance_id: &'a str, _response: &'a [u8]) -> BoxFuture<'a, Result<(), CallFailure>> {
        Box::pin(std::future::ready(Err(CallFailure::new(404, "The servers ask for nothing."))))
    }
}

struct FakeSession {
    servers: Arc<FakeServers>,
    container: String,
    behaviour: Behaviour,
    end: watch::Receiver<bool>,
    cuts: watch::Receiver<u64>,
}

impl ServerSession for FakeSession {
    fn probe(&self) -> BoxFuture<'_, Result<Duration, String>> {
        self.servers.probes.fetch_add(1, Ordering::Relaxed);
        let probe = *self.servers.probe.borrow();
        Box::pin(async move {
            match probe {
                Probe::Ok => Ok(Duration::from_millis(3)),
                Probe::Fails => Err("It failed.".to_owned()),
                Probe::Hangs => std::future::pending().await,
            }
        })
    }

    fn list_tools(&self) -> BoxFuture<'_, Result<usize, String>> {
        Box::pin(async move {
            self.servers.engine.point().await;
            if self.behaviour == Behaviour::NoTools { Err("Method not found.".to_owned()) } else { Ok(1) }
        })
    }

    /// If the message is `ask`, the server waits for the caller, and the call releases its place.
    fn call(&self, message: Bytes, options: CallOptions) -> BoxFuture<'_, Result<Messages, CallFailure>> {
        struct Running(Arc<AtomicUsize>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if message == "ask" {
            options.slot.release();
        }
        let gate = Arc::clone(&self.servers.gate);
        let answer = Bytes::from(format!("{} {}", self.container, String::from_utf8_lossy(&message)));
        self.servers.running_calls.fetch_add(1, Ordering::Relaxed);
        let running = Running(Arc::clone(&self.servers.running_calls));
        Box::pin(async move {
            let answers = futures::stream::once(async move {
                let _running = running;
                drop(gate.acquire().await);
                Ok(answer)
            });
            Ok(Box::pin(answers) as Messages)
        })
    }

    fn notifications(
        self: Arc<Self>,
        _: BTreeSet<String>,
    ) -> BoxFuture<'static, Result<Option<Notifications>, CallFailure>> {
        let messages = Box::pin(futures::stream::pending());
        Box::pin(async { Ok(Some(Notifications { opened: Default::default(), messages })) })
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        let (mut end, mut cuts) = (self.end.clone(), self.cuts.clone());
        Box::pin(async move {
            tokio::select! {
                _ = end.wait_for(|end| *end) => {}
                _ = cuts.changed() => {}
            }
        })
    }
}

#[derive(Default)]
pub(super) struct FakeControl {
    pub(super) events: Mutex<Vec<ToolboxEvent>>,
    pub(super) secrets: Mutex<Option<InstanceSecrets>>,
    /// The secrets for containers with these keys, instead of `secrets`.
    pub(super) secrets_of_keys: Mutex<BTreeMap<String, InstanceSecrets>>,
    pub(super) is_offline: Mutex<bool>,
}

impl Control for FakeControl {
    fn report(&self, event: ToolboxEvent) {
        self.events.lock().unwrap().push(event);
    }

    fn secrets(
        &self,
        _instance_id: &str,
        _generation: u64,
        key: Option<&str>,
    ) -> BoxFuture<'_, Option<InstanceSecrets>> {
        let of_key = key.and_then(|key| self.secrets_of_keys.lock().unwrap().get(key).cloned());
        Box::pin(async {
            if of_key.is_some() {
                return of_key;
            }
            if *self.is_offline.lock().unwrap() {
                std::future::pending::<()>().await;
            }
            self.secrets.lock().unwrap().clone()
        })
    }
}

#[derive(Default)]
pub(in crate::supervisor) struct FakeSink {
    pub(super) open: Mutex<BTreeMap<String, usize>>,
    pub(in crate::supervisor) lines: Mutex<Vec<String>>,
    pub(super) samples: Mutex<BTreeMap<String, usize>>,
    /// Whether the next sample panics.
    pub(super) panics: std::sync::atomic::AtomicBool,
}

impl Sink for FakeSink {
    fn opened<'a>(
        &'a self,
        container: &'a ObservedContainer,
        _spec: &'a InstanceSpec,
        _namespace: NetworkNamespace,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            *self.open.lock().unwrap().entry(container.id.clone()).or_default() += 1;
            Ok(())
        })
    }

    fn closed(&self, _instance_id: &str, container_id: &str) {
        self.open.lock().unwrap().remove(container_id);
    }

    fn usage(&self, _instance_id: &str, container_id: &str, _usage: Usage) {
        assert!(!self.panics.swap(false, Ordering::Relaxed), "a bug");
        *self.samples.lock().unwrap().entry(container_id.to_owned()).or_default() += 1;
    }

    fn log(&self, _instance_id: &str, _container_id: Option<&str>, _stream: LogStream, text: &str) {
        self.lines.lock().unwrap().push(text.to_owned());
    }

    fn removed(&self, _instance_id: &str) {}
}

/// A daemon whose environment is in memory, except for its files.
pub(super) struct Daemon {
    pub(super) engine: Arc<FakeEngine>,
    pub(super) servers: Arc<FakeServers>,
    pub(super) control: Arc<FakeControl>,
    pub(super) sink: Arc<FakeSink>,
    pub(super) dir: tempfile::TempDir,
    pub(super) desired: watch::Sender<Option<DesiredState>>,
    pub(super) settings: Settings,
    pub(super) supervisor: Supervisor<FakeEngine, Arc<FakeServers>>,
    stop: CancellationToken,
    task: Option<JoinHandle<Option<()>>>,
}

static CLOCK: AtomicU64 = AtomicU64::new(1_700_000_000_000);

/// Returns the time of the wall clock, which does not advance in tests.
pub(super) fn clock() -> i64 {
    i64::try_from(CLOCK.load(Ordering::Relaxed)).unwrap()
}

pub(super) fn spec(image: &str) -> InstanceSpec {
    InstanceSpec {
        image: image.to_owned(),
        transport: Transport::Stdio,
        command: None,
        args: None,
        port: None,
        path: None,
        environment: BTreeMap::new(),
        secrets: Vec::new(),
        registry_credentials: false,
        resources: ResourceClass::Light,
        egress: vec!["api.example:443".parse().unwrap()],
        learn_egress: false,
        volumes: Vec::new(),
        sharing: Sharing::Shared,
        lazy: false,
        idle_seconds: None,
        max_lifetime_seconds: None,
        extra: serde_json::Map::new(),
    }
}

pub(super) fn with_volume(image: &str) -> InstanceSpec {
    InstanceSpec { volumes: vec![Volume { name: "data".into(), path: "/data".into() }], ..spec(image) }
}

impl Daemon {
    pub(super) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(super) fn with(settings: Settings) -> Self {
        let engine = FakeEngine::new();
        let servers = Arc::new(FakeServers {
            engine: Arc::clone(&engine),
            probe: watch::Sender::new(Probe::Ok),
            probes: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            shared_connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            always_restart: false.into(),
            gate: Arc::new(Semaphore::new(1_000)),
            running_calls: Arc::default(),
        });
        let (control, sink) = (Arc::<FakeControl>::default(), Arc::<FakeSink>::default());
        let dir = tempfile::tempdir().unwrap();
        let parts = parts(&engine, &servers, &control, &sink, (dir.path(), &settings));
        let mut daemon = Self {
            engine,
            servers,
            control,
            sink,
            dir,
            desired: watch::Sender::new(None),
            settings,
            supervisor: Supervisor::new(parts),
            stop: CancellationToken::new(),
            task: None,
        };
        daemon.run();
        daemon
    }

    fn run(&mut self) {
        let (supervisor, desired, stop) = (self.supervisor.clone(), self.desired.subscribe(), self.stop.clone());
        self.task = Some(tasks::spawn("supervisor", async move { supervisor.run(desired, stop).await }));
    }

    /// Stops the daemon, whatever it is doing.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            tokio::time::timeout(Duration::from_secs(10), task).await.expect("stops within ten seconds").unwrap();
        }
    }

    /// Starts a new daemon on the same engine and the same files.
    pub(super) fn start(&mut self) {
        self.engine.state().kill_after = None;
        let paths = (self.dir.path(), &self.settings);
        self.supervisor = Supervisor::new(parts(&self.engine, &self.servers, &self.control, &self.sink, paths));
        self.stop = CancellationToken::new();
        self.run();
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Vec<DesiredInstance>)) {
        self.desired.send_modify(|state| {
            let state = state.get_or_insert_default();
            state.revision += 1;
            change(&mut state.instances);
        });
    }

    /// Adds an instance.
    pub(super) fn add(&self, id: &str, spec: InstanceSpec) {
        self.change(|instances| {
            instances.push(DesiredInstance {
                id: id.to_owned(),
                slug: id.replace('_', "-"),
                generation: 1,
                deployment_id: format!("dep_{id}_1"),
                run: true,
                restarts: 0,
                spec,
            });
        });
    }

    /// Changes an instance.
    pub(super) fn edit(&self, id: &str, edit: impl FnOnce(&mut DesiredInstance)) {
        self.change(|instances| edit(instances.iter_mut().find(|instance| instance.id == id).unwrap()));
    }

    /// Deploys a new generation of an instance.
    pub(super) fn upgrade(&self, id: &str, spec: InstanceSpec) {
        self.edit(id, |instance| {
            instance.generation += 1;
            instance.deployment_id = format!("dep_{id}_{}", instance.generation);
            instance.spec = spec;
        });
    }

    pub(super) fn remove(&self, id: &str) {
        self.change(|instances| instances.retain(|instance| instance.id != id));
    }

    pub(super) fn behave(&self, image: &str, behaviour: Behaviour) {
        self.engine.state().behaviours.insert(image.to_owned(), behaviour);
    }

    pub(super) fn report(&self, id: &str) -> Option<InstanceReport> {
        self.supervisor.reports().into_iter().find(|report| report.id == id)
    }

    pub(super) fn state(&self, id: &str) -> Option<InstanceState> {
        self.report(id).map(|report| report.state)
    }

    /// Waits until a condition holds, for at most two hours of virtual time.
    pub(super) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        for _ in 0..72_000 {
            if condition(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let state = self.engine.state();
        panic!("never: {what}\nreports: {:#?}\nlog: {:#?}", self.supervisor.reports(), state.log);
    }

    pub(super) async fn until_state(&self, id: &str, state: InstanceState) {
        self.until(&format!("{id} {state}"), |daemon| daemon.state(id) == Some(state)).await;
    }

    /// Waits for the end of a deployment.
    pub(super) async fn outcome(&self, deployment: &str) -> DeploymentOutcome {
        let found = Mutex::new(None);
        self.until(deployment, |daemon| {
            *found.lock().unwrap() = daemon.outcomes(deployment).pop();
            found.lock().unwrap().is_some()
        })
        .await;
        found.into_inner().unwrap().unwrap()
    }

    pub(super) fn outcomes(&self, deployment: &str) -> Vec<DeploymentOutcome> {
        let events = self.control.events.lock().unwrap();
        let outcomes = events.iter().filter_map(|event| match event {
            ToolboxEvent::DeploymentEnded { deployment_id, outcome, .. } if deployment_id == deployment => {
                Some(outcome.clone())
            }
            _ => None,
        });
        outcomes.collect()
    }

    /// Returns the states that were reported as events.
    pub(super) fn states(&self, id: &str) -> Vec<InstanceState> {
        let events = self.control.events.lock().unwrap();
        let states = events.iter().filter_map(|event| match event {
            ToolboxEvent::Instance(report) if report.id == id => Some(report.state),
            _ => None,
        });
        states.collect()
    }

    pub(super) fn crashes(&self) -> usize {
        let events = self.control.events.lock().unwrap();
        events.iter().filter(|event| matches!(event, ToolboxEvent::Crashed { .. })).count()
    }

    /// Calls an instance, and returns the container that answered.
    pub(super) async fn call(&self, id: &str, key: Option<&str>) -> Result<String, CallFailure> {
        call(self.supervisor.clone(), id.to_owned(), key.map(str::to_owned)).await
    }

    /// Like [`Self::call`], with the version of the agent's personal secrets.
    pub(super) async fn call_with(&self, id: &str, key: &str, personal_version: u64) -> Result<String, CallFailure> {
        call_with(self.supervisor.clone(), id.to_owned(), (Some(key.to_owned()), personal_version)).await
    }
}

/// Calls an instance, and returns the container that answered.
pub(super) async fn call(
    supervisor: Supervisor<FakeEngine, Arc<FakeServers>>,
    id: String,
    key: Option<String>,
) -> Result<String, CallFailure> {
    call_with(supervisor, id, (key, 0)).await
}

pub(super) async fn call_with(
    supervisor: Supervisor<FakeEngine, Arc<FakeServers>>,
    id: String,
    (key, personal_version): (Option<String>, u64),
) -> Result<String, CallFailure> {
    let message = Bytes::from_static(b"hello");
    let options = CallOptions { caller: key.map(Arc::from), personal_version, ..Duration::from_secs(30).into() };
    let messages = supervisor.call(&id, message, options).await?;
    let mut messages = pin!(messages);
    let answer = messages.next().await.expect("an answer")?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    Ok(text.strip_suffix(" hello").unwrap().to_owned())
}

fn parts(
    engine: &Arc<FakeEngine>,
    servers: &Arc<FakeServers>,
    control: &Arc<FakeControl>,
    sink: &Arc<FakeSink>,
    (dir, settings): (&std::path::Path, &Settings),
) -> Parts<FakeEngine, Arc<FakeServers>> {
    Parts {
        engine: Arc::clone(engine),
        servers: Arc::new(Arc::clone(servers)),
        control: Arc::clone(control) as _,
        sink: Arc::clone(sink) as _,
        data_dir: dir.to_owned(),
        clock,
        jitter: || 0.5,
        settings: settings.clone(),
    }
}
