use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_tungstenite::accept_async_with_config;
use url::Url;
use waypost_core::error::{Code, Error};
use waypost_core::id::ToolboxId;
use waypost_core::random::SystemRandom;
use waypost_link::{Directory, Links, verify};
use waypost_toolbox::link::connect::{Connect, Stream};
use waypost_toolbox::link::requests::BoxFuture;
use waypost_toolbox::tasks;
use waypost_toolbox_proto::desired::DesiredState;
use waypost_toolbox_proto::handshake::{Challenge, Hello, Rejection};
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage, InstanceSecrets, ToolboxEvent};

pub const ORIGIN: &str = "http://localhost:1";

/// A control plane with its real end of the link, and an in-memory store. Connections to it are in memory, and can be
/// cut.
#[derive(Clone)]
pub struct ControlPlane {
    pub links: Links,
    pub store: Arc<Store>,
    network: Arc<Network>,
}

#[derive(Default)]
struct Network {
    is_down: AtomicBool,
    connections: AtomicUsize,
    /// The positions at which the next connections are cut, in reverse order. Further connections are not cut.
    cuts: Mutex<Vec<Cut>>,
}

/// Cuts a connection after a number of bytes.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    FromDaemon(usize),
    ToDaemon(usize),
}

#[derive(Default)]
pub struct Store {
    state: Mutex<Stored>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
pub struct Stored {
    pub public_key: String,
    pub desired: Option<DesiredState>,
    /// The events, as a control plane stores them: each number once.
    pub events: Vec<(u64, ToolboxEvent)>,
    /// The number of all events that arrived, including repeated ones.
    pub arrived: usize,
    pub heartbeats: Vec<u64>,
    pub accepted: usize,
    pub rejected: usize,
    /// Rejects the next link after storing its key, as if the connection were lost before the answer.
    pub lose_next_welcome: bool,
}

impl ControlPlane {
    pub fn new() -> Self {
        let store = Arc::new(Store::default());
        store.state().desired = Some(DesiredState { revision: 1, instances: vec![] });
        Self { links: Links::new(), store, network: Arc::default() }
    }

    pub fn toolbox() -> ToolboxId {
        ToolboxId::from_store("tbx_1".to_owned())
    }

    /// Sets whether connections are refused.
    pub fn set_down(&self, is_down: bool) {
        self.network.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Returns the number of connections that were attempted.
    pub fn connections(&self) -> usize {
        self.network.connections.load(Ordering::SeqCst)
    }

    /// Cuts the next connections, each at one of these positions.
    pub fn cut(&self, mut cuts: Vec<Cut>) {
        cuts.reverse();
        *self.network.cuts.lock().unwrap() = cuts;
    }

    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        self.network.connections.fetch_add(1, Ordering::SeqCst);
        if self.network.is_down.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let cut = self.network.cuts.lock().unwrap().pop();
        let (client, proxy_client) = tokio::io::duplex(16 * 1024);
        let (proxy_server, server) = tokio::io::duplex(16 * 1024);
        tasks::spawn("proxy", async move {
            let (mut from_daemon, mut to_daemon) = tokio::io::split(proxy_client);
            let (mut from_server, mut to_server) = tokio::io::split(proxy_server);
            let (up, down) = match cut {
                None => (usize::MAX, usize::MAX),
                Some(Cut::FromDaemon(bytes)) => (bytes, usize::MAX),
                Some(Cut::ToDaemon(bytes)) => (usize::MAX, bytes),
            };
            // Both directions end when one of them does.
            tokio::select! {
                () = copy(&mut from_daemon, &mut to_server, up) => {}
                () = copy(&mut from_server, &mut to_daemon, down) => {}
            }
        });
        let control = self.clone();
        tasks::spawn("control plane", async move {
            let Ok(socket) = accept_async_with_config(server, None).await else { return };
            let directory: Arc<dyn Directory> = control.store.clone();
            // The end of the link is not an error.
            let _ = control.links.accept(socket.into_inner(), &SystemRandom, directory).await;
        });
        Ok(Box::new(client))
    }
}

/// Copies at most `remaining` bytes.
async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), mut remaining: usize) {
    let mut buffer = [0; 1_024];
    while remaining > 0 {
        let limit = remaining.min(buffer.len());
        let Ok(length @ 1..) = from.read(&mut buffer[..limit]).await else { return };
        remaining -= length;
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

impl Connect for ControlPlane {
    fn connect<'a>(&'a self, url: &'a Url) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        assert_eq!(url.origin().ascii_serialization(), ORIGIN);
        Box::pin(self.open())
    }
}

impl Store {
    pub fn state(&self) -> MutexGuard<'_, Stored> {
        self.state.lock().unwrap()
    }

    fn notify(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// Waits until the condition is met.
    pub async fn wait_until(&self, condition: impl Fn(&Stored) -> bool) {
        let mut changed = self.changed.subscribe();
        while !condition(&self.state()) {
            changed.changed().await.unwrap();
        }
    }

    fn store(&self, message: DaemonMessage) -> Option<ControlMessage> {
        let mut state = self.state();
        match message {
            DaemonMessage::Heartbeat(heartbeat) => {
                state.heartbeats.push(heartbeat.desired_revision);
                None
            }
            DaemonMessage::Event { sequence, event, .. } => {
                state.arrived += 1;
                let last = state.events.last().map_or(0, |(last, _)| *last);
                if sequence > last {
                    state.events.push((sequence, event));
                }
                Some(ControlMessage::Acknowledge { sequence: sequence.max(last) })
            }
            DaemonMessage::SecretRequest { request, instance_id, generation, .. } => {
                let values = [("TOKEN".to_owned(), format!("{instance_id}/{generation}"))].into();
                let secrets =
                    (instance_id != "ins_unknown").then_some(InstanceSecrets { values, ..InstanceSecrets::default() });
                Some(ControlMessage::Secrets { request, secrets })
            }
        }
    }
}

impl Directory for Store {
    fn authenticate<'a>(
        &'a self,
        challenge: &'a Challenge,
        hello: &'a Hello,
    ) -> waypost_link::BoxFuture<'a, Result<ToolboxId, Rejection>> {
        Box::pin(async move {
            let mut state = self.state();
            let verified = verify(challenge, hello, &state.public_key, &[ORIGIN]);
            state.accepted += usize::from(verified.is_ok());
            state.rejected += usize::from(verified.is_err());
            if let (Ok(()), Some(next)) = (verified, &hello.next_public_key) {
                state.public_key.clone_from(next);
            }
            let is_lost = verified.is_ok() && std::mem::take(&mut state.lose_next_welcome);
            drop(state);
            self.notify();
            verified?;
            if is_lost { Err(Rejection::Unavailable) } else { Ok(ControlPlane::toolbox()) }
        })
    }

    fn desired_state<'a>(
        &'a self,
        _toolbox: &'a ToolboxId,
    ) -> waypost_link::BoxFuture<'a, waypost_core::Result<Option<DesiredState>>> {
        Box::pin(async move { Ok(self.state().desired.clone()) })
    }

    fn receive<'a>(
        &'a self,
        toolbox: &'a ToolboxId,
        message: DaemonMessage,
    ) -> waypost_link::BoxFuture<'a, waypost_core::Result<Option<ControlMessage>>> {
        Box::pin(async move {
            if *toolbox != ControlPlane::toolbox() {
                return Err(Error::new(Code::Internal, "The toolbox is another one."));
            }
            let answer = self.store(message);
            self.notify();
            Ok(answer)
        })
    }
}
