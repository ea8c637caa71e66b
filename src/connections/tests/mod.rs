#![expect(clippy::disallowed_methods, reason = "the tests start servers and clients")]

mod bodies;
mod counters;
mod heads;
mod http2;
mod stopping;
mod upgrades;

use std::sync::atomic::{AtomicU8, Ordering};

use axum::body::Bytes;
use axum::routing::{get, post};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::*;

/// Capacity of the pipe to the server in bytes.
const PIPE: usize = 16 * 1_024;
/// Size of `/large` in bytes.
const LARGE: usize = 64 * PIPE;

fn limits() -> ConnectionLimits {
    ConnectionLimits::main(&crate::config::Settings::default(), 1_024)
}

fn router() -> Router {
    let silent = || async { Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>()) };
    let large = || async {
        let chunks =
            futures::stream::iter((0..LARGE / 1_024).map(|_| Ok::<_, Infallible>(Bytes::from(vec![b'.'; 1_024]))));
        Body::from_stream(chunks.boxed())
    };
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/ignore", post(|| async { "ignored" }))
        .route("/never", get(std::future::pending::<&'static str>))
        .route("/silent", get(silent))
        .route("/large", get(large))
        .route("/whole", get(|| async { vec![b'.'; LARGE] }))
        .merge(upgrades::routes())
}

/// A port with in-memory connections.
struct Port {
    connections: Connections,
    stop: Shutdown,
}

impl Port {
    fn new(limits: ConnectionLimits) -> Self {
        let stop = Shutdown::default();
        Self { connections: Connections::new(limits, stop.clone()), stop }
    }

    fn open(&self, peer: [u8; 4]) -> Client {
        let (client, server) = tokio::io::duplex(PIPE);
        let peer = SocketAddr::from((peer, 1));
        let activity = Activity::new(self.connections.0.limits.http2_resets);
        let slot = self.connections.0.registry.admit(peer.ip(), &activity).unwrap();
        self.connections.open(std::future::ready(Some(server)), peer, slot, activity, router());
        Client(client)
    }
}

/// A client that sends raw HTTP/1.1.
struct Client(DuplexStream);

impl Client {
    /// Connects to a new port with the default limits.
    fn new() -> Self {
        Port::new(limits()).open(HERE)
    }

    async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.0.write_all(text.as_ref()).await.unwrap();
    }

    /// Reads until `end` is received.
    async fn read_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let byte = self.0.read_u8().await;
            text.push(
                byte.unwrap_or_else(|_| panic!("the connection was closed after {}", String::from_utf8_lossy(&text))),
            );
        }
        String::from_utf8(text).unwrap()
    }

    /// Waits until the server closes the connection. Returns the received text and the elapsed seconds.
    async fn closed(&mut self) -> (String, u64) {
        let since = Instant::now();
        let mut text = Vec::new();
        let _ = self.0.read_to_end(&mut text).await;
        (String::from_utf8(text).unwrap(), since.elapsed().as_secs())
    }

    /// Whether the connection is still open after `time`.
    async fn is_open_after(&mut self, time: Duration) -> bool {
        let mut byte = [0];
        tokio::time::timeout(time, self.0.read(&mut byte)).await.is_err()
    }
}

const HERE: [u8; 4] = [192, 0, 2, 1];
const THERE: [u8; 4] = [192, 0, 2, 2];
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
