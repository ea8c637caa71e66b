use std::sync::{Arc, Mutex};

use http::Response;
use http::request::Parts;
use tempfile::TempDir;
use tokio::sync::mpsc;
use url::Url;
use waypost_link_io::Body;
use waypost_toolbox::identity::{Identity, SigningKey};
use waypost_toolbox::link::connect::Connect;
use waypost_toolbox::link::requests::{BoxFuture, Requests, ResponseBody};
use waypost_toolbox::link::{Link, Runtime, Status};
use waypost_toolbox_proto::InstanceState;
use waypost_toolbox_proto::message::{Capacity, Heartbeat, InstanceReport, ToolboxEvent};

use crate::control_plane::{ControlPlane, ORIGIN};

/// A machine that has joined.
pub struct Machine {
    pub link: Link,
    pub folder: TempDir,
    pub calls: Arc<Mutex<mpsc::Receiver<Call>>>,
    requests: Arc<Handler>,
}

/// A request from the control plane, and the sender for its response.
pub struct Call {
    pub parts: Parts,
    pub body: Body,
    pub respond: tokio::sync::oneshot::Sender<Response<ResponseBody>>,
}

struct Handler(mpsc::Sender<Call>);

impl Requests for Handler {
    fn handle(&self, parts: Parts, body: Body) -> BoxFuture<'_, Response<ResponseBody>> {
        Box::pin(async move {
            let (respond, response) = tokio::sync::oneshot::channel();
            self.0.send(Call { parts, body, respond }).await.unwrap();
            response.await.unwrap()
        })
    }
}

impl Machine {
    /// Creates a machine that has joined, without starting the link.
    pub fn new(control: &ControlPlane) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::generate().unwrap();
        control.store.state().public_key = key.public_key().to_owned();
        let identity = Identity::new("tbx_1".into(), "rack".into(), Url::parse(ORIGIN).unwrap(), key);
        identity.save(folder.path()).unwrap();
        Self::in_folder(folder)
    }

    fn in_folder(folder: TempDir) -> Self {
        let identity = Identity::load(folder.path()).unwrap();
        let link = Link::open(identity, folder.path(), || 7).unwrap();
        let (sender, calls) = mpsc::channel(10);
        Self { link, folder, calls: Arc::new(Mutex::new(calls)), requests: Arc::new(Handler(sender)) }
    }

    pub fn start(&self, control: &ControlPlane) {
        self.link.start(self.runtime(Arc::new(control.clone())));
    }

    pub fn runtime(&self, connector: Arc<dyn Connect>) -> Runtime {
        let heartbeat = Arc::new(|| Box::pin(async { heartbeat() }) as BoxFuture<'static, Heartbeat>);
        Runtime { connector, requests: self.requests.clone(), heartbeat }
    }

    /// Creates a machine that has joined, starts the link, and waits until it is open.
    pub async fn online(control: &ControlPlane) -> Self {
        let machine = Self::new(control);
        machine.start(control);
        machine.wait_for(&Status::Online).await;
        machine
    }

    pub async fn wait_for(&self, status: &Status) {
        self.link.status().wait_for(|current| current == status).await.unwrap();
    }

    /// Stops the daemon, and creates another one with the same folder, without starting its link.
    pub async fn restart(self) -> Self {
        self.link.stop().await;
        Self::in_folder(self.folder)
    }

    /// Waits for the next request.
    pub async fn call(&self) -> Call {
        std::future::poll_fn(|cx| self.calls.lock().unwrap().poll_recv(cx)).await.unwrap()
    }
}

fn heartbeat() -> Heartbeat {
    let capacity = Capacity { cpus: 2.0, memory_bytes: 1, disk_free_bytes: 1 };
    Heartbeat { version: "1".into(), engine: None, capacity, desired_revision: 0, instances: vec![] }
}

/// Returns an event that is identified by `number`.
pub fn event(number: u64) -> ToolboxEvent {
    let (id, state) = (format!("ins_{number}"), InstanceState::Running);
    ToolboxEvent::Instance(InstanceReport { id, generation: number, state, health: None })
}
