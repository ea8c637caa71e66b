//! A hand-written toolbox daemon on an in-memory connection.

use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use waypost_core::SystemRandom;
use waypost_core::id::ToolboxId;
use waypost_link_io::lines::{LineReader, LineWriter};
use waypost_link_io::{Body, Socket, config, http2, send};
use waypost_ops::public_url::PublicUrl;
use waypost_ops::toolbox_directory::ToolboxDirectory;
use waypost_toolbox_proto::handshake::{Challenge, Hello, Versions, Welcome, signed_text};
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage};

use crate::app::App;

/// The public URL of the product under test.
const ORIGIN: &str = "http://localhost:8080";
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Returns the key pair of the daemon.
fn key() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap()
}

/// Returns the public key of the daemon.
pub fn public_key() -> String {
    BASE64URL_NOPAD.encode(key().public_key().as_ref())
}

/// Returns the directory of the running product.
pub fn directory(app: &App) -> ToolboxDirectory {
    let url = PublicUrl::new(ORIGIN.parse().unwrap());
    ToolboxDirectory::new(app.running_ops(), url, app.cx().clock.clone(), Arc::new(SystemRandom))
}

/// A daemon with an open link.
pub struct Daemon {
    reader: LineReader,
    writer: LineWriter,
    calls: mpsc::Receiver<Call>,
    task: JoinHandle<()>,
}

/// A request of the control plane.
pub struct Call {
    head: Parts,
    body: Option<RecvStream>,
    respond: SendResponse<Bytes>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(work)
}

impl Daemon {
    /// Opens a link to the running product.
    pub async fn connect(app: &App, toolbox: &ToolboxId) -> Self {
        let (client, server) = tokio::io::duplex(64 * 1024);
        let (links, directory) = (app.running_ops().links().clone(), Arc::new(directory(app)));
        spawn(async move {
            links.accept(server, &SystemRandom, directory).await.unwrap();
        });
        let socket = WebSocketStream::from_raw_socket(client, Role::Client, Some(config())).await;
        let mut socket = Socket::new(socket);
        let challenge: Challenge = socket.receive().await.unwrap();
        let text = signed_text(&challenge.nonce, toolbox.as_str(), ORIGIN, None);
        let hello = Hello {
            toolbox_id: toolbox.to_string(),
            origin: ORIGIN.to_owned(),
            signature: BASE64URL_NOPAD.encode(key().sign(text.as_bytes()).as_ref()),
            protocol: Versions::OWN,
            version: "0.1.0".to_owned(),
            next_public_key: None,
        };
        socket.send(&hello).await.unwrap();
        assert!(matches!(socket.receive().await.unwrap(), Welcome::Accepted { .. }));
        let mut connection = http2::server(socket).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.uri().path(), "/v1/control");
        let writer = LineWriter::new(respond.send_response(Response::new(()), false).unwrap());
        let reader = LineReader::new(Body::new(request.into_body()));
        let (sender, calls) = mpsc::channel(100);
        let task = spawn(async move {
            while let Some(Ok((request, respond))) = connection.accept().await {
                // A test that has ended receives no further requests.
                let (head, body) = request.into_parts();
                let _ = sender.send(Call { head, body: Some(body), respond }).await;
            }
        });
        Self { reader, writer, calls, task }
    }

    /// Waits for the next message of the control plane.
    pub async fn receive(&mut self) -> ControlMessage {
        self.reader.next().await.unwrap().unwrap()
    }

    pub async fn send(&mut self, message: &DaemonMessage) {
        self.writer.send(message).await.unwrap();
    }

    /// Waits for the next request.
    pub async fn call(&mut self) -> Call {
        self.calls.recv().await.unwrap()
    }

    /// Waits until the control plane closes the link.
    pub async fn closed(mut self) {
        while self.calls.recv().await.is_some() {}
    }
}

impl Call {
    /// Returns the path and query.
    pub fn path(&self) -> &str {
        self.head.uri.path_and_query().unwrap().as_str()
    }

    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Reads the JSON in the body of the request. Returns `None` if the control plane has cancelled it.
    pub async fn message(&mut self) -> Option<Value> {
        let body = Body::new(self.body.take().unwrap());
        let text = body.read_to_end(MAX_BYTES).await.ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Responds with JSON documents, one per line.
    pub async fn respond(self, status: u16, lines: &[Value]) {
        let mut stream = self.open(status);
        for line in lines {
            send_line(&mut stream, line).await;
        }
        // Fails if the control plane has cancelled the request.
        let _ = stream.send_data(Bytes::new(), true);
    }

    /// Starts a response.
    pub fn open(mut self, status: u16) -> SendStream<Bytes> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        self.respond.send_response(response, false).unwrap()
    }
}

/// Sends a JSON document in one line.
pub async fn send_line(stream: &mut SendStream<Bytes>, line: &Value) {
    send(stream, Bytes::from(format!("{line}\n"))).await.unwrap();
}

/// Waits until the control plane cancels a request.
pub async fn cancelled(mut stream: SendStream<Bytes>) -> Reason {
    std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap()
}
