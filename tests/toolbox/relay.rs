//! Relays that simulate network faults between two components: daemon and control plane, daemon and engine, or engine
//! and registry.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use waypost_testkit::TempDir;

use crate::engine::Engine;
use crate::support::TIMEOUT;

/// The number of bytes that are transferred at a time.
const CHUNK: usize = 64 * 1024;

/// The messages that a relay holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Nothing,
    Everything,
    /// The responses to HTTP/1.1 requests whose first line contains this text. The requests are transferred.
    ResponsesTo(&'static str),
}

/// The faults that the relay simulates on its connections.
#[derive(Debug, Clone, Copy)]
struct Faults {
    hold: Hold,
    /// The delay in each direction.
    delay: Duration,
    /// Increased to close all connections.
    epoch: u64,
    /// Increased to transfer the next bytes of the client twice.
    duplicates: u64,
}

struct Shared {
    faults: watch::Sender<Faults>,
    /// The number of responses that are held back.
    held: watch::Sender<usize>,
    /// The messages that each client has sent.
    sent: Mutex<Vec<Vec<u8>>>,
}

/// A relay. It stops when it is dropped.
pub struct Relay {
    shared: Arc<Shared>,
    /// The destination of new connections: a `HOST:PORT` or the path of a socket.
    target: watch::Sender<String>,
    address: String,
    accepting: JoinHandle<()>,
    _folder: Option<TempDir>,
}

impl Relay {
    /// Relays a free port of loopback to `target`, a `HOST:PORT`.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("the listener is bound").to_string();
        let shared = Shared::new();
        let (target, current) = watch::channel(target.to_owned());
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let target = current.borrow().clone();
                    let connect = async move { TcpStream::connect(target).await };
                    tokio::spawn(serve(client, connect, Arc::clone(&shared)));
                }
            }
        });
        Self { shared, target, address, accepting, _folder: None }
    }

    /// Relays a new Unix socket to an engine.
    pub fn to_engine(engine: &Engine) -> Self {
        // Not in TMPDIR: the path of a socket has at most 108 characters.
        let folder = TempDir::new_in("/tmp").expect("a temporary folder can be created");
        let path = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&path).expect("the socket is new");
        let shared = Shared::new();
        let (target, current) = watch::channel(engine.host().trim_start_matches("unix://").to_owned());
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let target = current.borrow().clone();
                    let connect = async move { UnixStream::connect(target).await };
                    tokio::spawn(serve(client, connect, Arc::clone(&shared)));
                }
            }
        });
        let address = path.to_str().expect("UTF-8").to_owned();
        Self { shared, target, address, accepting, _folder: Some(folder) }
    }

    /// Returns `HOST:PORT`, or the path of the socket.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Holds back everything, including on new connections.
    pub fn hold_everything(&self) {
        self.change(|faults| faults.hold = Hold::Everything);
    }

    /// Holds back the responses to requests whose first line contains `text`.
    pub fn hold_responses_to(&self, text: &'static str) {
        self.change(|faults| faults.hold = Hold::ResponsesTo(text));
    }

    /// Transfers everything that was held back, and everything that follows.
    pub fn release(&self) {
        self.change(|faults| faults.hold = Hold::Nothing);
    }

    /// Delays everything by this time, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.change(|faults| faults.delay = delay);
    }

    /// Closes all connections. New ones are accepted.
    pub fn cut(&self) {
        self.change(|faults| faults.epoch += 1);
    }

    /// Relays to another `HOST:PORT`, and closes the connections to the previous one.
    pub fn move_to(&self, target: &str) {
        self.target.send_replace(target.to_owned());
        self.cut();
    }

    /// Transfers the next bytes of each client twice.
    pub fn duplicate_next(&self) {
        self.change(|faults| faults.duplicates += 1);
    }

    /// Waits until `count` responses are held back.
    pub async fn holds(&self, count: usize) {
        let mut held = self.shared.held.subscribe();
        let reached = timeout(TIMEOUT, held.wait_for(|held| *held >= count)).await;
        assert!(reached.is_ok(), "no response was held back");
    }

    /// Returns the bytes that the client of each connection has sent, oldest connection first.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        self.shared.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.faults.send_modify(change);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Shared {
    fn new() -> Arc<Self> {
        let faults = Faults { hold: Hold::Nothing, delay: Duration::ZERO, epoch: 0, duplicates: 0 };
        Arc::new(Self { faults: watch::channel(faults).0, held: watch::channel(0).0, sent: Mutex::default() })
    }

    fn record(&self, connection: usize, bytes: &[u8]) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent[connection].extend_from_slice(bytes);
    }
}

/// Serves a connection until it ends or is cut.
async fn serve<C, S>(client: C, connect: impl Future<Output = std::io::Result<S>>, shared: Arc<Shared>)
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let mut faults = shared.faults.subscribe();
    let epoch = faults.borrow().epoch;
    let connection = {
        let mut sent = shared.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push(Vec::new());
        sent.len() - 1
    };
    let transfer = async {
        wait_while(&shared, |hold| hold == Hold::Everything).await;
        let Ok(server) = connect.await else { return };
        let ((client_reader, client_writer), (server_reader, server_writer)) = (split(client), split(server));
        let is_awaited = watch::channel(false).0;
        tokio::join!(
            transfer_requests(client_reader, server_writer, &shared, connection, &is_awaited),
            transfer_responses(server_reader, client_writer, &shared, &is_awaited),
        );
    };
    tokio::select! {
        () = transfer => {}
        _ = faults.wait_for(|faults| faults.epoch != epoch) => {}
    }
}

async fn transfer_requests(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    shared: &Shared,
    connection: usize,
    is_awaited: &watch::Sender<bool>,
) {
    let mut duplicates = shared.faults.borrow().duplicates;
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = reader.read(&mut chunk).await {
        let bytes = &chunk[..length];
        wait_while(shared, |hold| hold == Hold::Everything).await;
        let faults = *shared.faults.borrow();
        tokio::time::sleep(faults.delay).await;
        if let Hold::ResponsesTo(text) = faults.hold {
            let first = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
            is_awaited.send_replace(String::from_utf8_lossy(first).contains(text));
        }
        shared.record(connection, bytes);
        let repetitions = if faults.duplicates == duplicates { 1 } else { 2 };
        duplicates = faults.duplicates;
        for _ in 0..repetitions {
            if writer.write_all(bytes).await.is_err() {
                return;
            }
        }
    }
    let _ = writer.shutdown().await;
}

async fn transfer_responses(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    shared: &Shared,
    is_awaited: &watch::Sender<bool>,
) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = reader.read(&mut chunk).await {
        if *is_awaited.borrow() {
            let _counted = Held::new(shared);
            wait_while(shared, |hold| hold != Hold::Nothing).await;
        }
        wait_while(shared, |hold| hold == Hold::Everything).await;
        let delay = shared.faults.borrow().delay;
        tokio::time::sleep(delay).await;
        if writer.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
    let _ = writer.shutdown().await;
}

/// Waits while `is_held` returns `true`. The sender is never dropped before `shared`.
async fn wait_while(shared: &Shared, is_held: impl Fn(Hold) -> bool) {
    let mut faults = shared.faults.subscribe();
    let _ = faults.wait_for(|faults| !is_held(faults.hold)).await;
}

/// Counts a response that is held back.
struct Held<'a>(&'a Shared);

impl<'a> Held<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.held.send_modify(|held| *held += 1);
        Self(shared)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|held| *held -= 1);
    }
}
