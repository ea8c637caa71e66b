use std::future::poll_fn;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::CancellationToken;
use waypost_link_io::lines::{LineReader, LineWriter};
use waypost_link_io::{Body, Socket, config, http2};
use waypost_toolbox_proto::handshake::{Challenge, Hello, Versions, Welcome, signed_text};
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage};

use crate::ORIGIN;

/// A minimal daemon, which tests control step by step.
pub struct Daemon {
    pub reader: LineReader,
    pub writer: LineWriter,
    requests: mpsc::Receiver<Call>,
    frozen: CancellationToken,
    task: JoinHandle<()>,
}

/// A request from the control plane.
pub struct Call {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "a test")]
    tokio::spawn(work)
}

pub fn key(seed: u8) -> (Ed25519KeyPair, String) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = BASE64URL_NOPAD.encode(pair.public_key().as_ref());
    (pair, public)
}

pub async fn socket(stream: DuplexStream) -> Socket<DuplexStream> {
    Socket::new(WebSocketStream::from_raw_socket(stream, Role::Client, Some(config())).await)
}

/// Returns the answer to a challenge, signed with key `seed`.
pub fn hello(challenge: &Challenge, toolbox_id: &str, seed: u8, next_public_key: Option<String>) -> Hello {
    let text = signed_text(&challenge.nonce, toolbox_id, ORIGIN, next_public_key.as_deref());
    Hello {
        toolbox_id: toolbox_id.to_owned(),
        origin: ORIGIN.to_owned(),
        signature: BASE64URL_NOPAD.encode(key(seed).0.sign(text.as_bytes()).as_ref()),
        protocol: Versions::OWN,
        version: "9.9.9".to_owned(),
        next_public_key,
    }
}

impl Daemon {
    pub async fn open(stream: DuplexStream, toolbox: &str) -> Self {
        let mut socket = socket(stream).await;
        let challenge: Challenge = socket.receive().await.unwrap();
        socket.send(&hello(&challenge, toolbox, 1, None)).await.unwrap();
        assert_eq!(socket.receive::<Welcome>().await.unwrap(), Welcome::Accepted { version: 1 });
        Self::serve(http2::server(socket).await.unwrap()).await
    }

    pub async fn serve(mut connection: Connection<Socket<DuplexStream>, Bytes>) -> Self {
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/control"));
        let writer = LineWriter::new(respond.send_response(Response::new(()), false).unwrap());
        let reader = LineReader::new(Body::new(request.into_body()));
        let (sender, requests) = mpsc::channel(100);
        let frozen = CancellationToken::new();
        let is_frozen = frozen.clone();
        let task = spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = connection.accept() => accepted,
                    () = is_frozen.cancelled() => std::future::pending().await,
                };
                let Some(Ok((request, respond))) = accepted else { return };
                // A test that has dropped the daemon does not receive the remaining requests.
                let _ = sender.send(Call { request, respond }).await;
            }
        });
        Self { reader, writer, requests, frozen, task }
    }

    pub async fn receive(&mut self) -> ControlMessage {
        self.reader.next().await.unwrap().unwrap()
    }

    pub async fn send(&mut self, message: &DaemonMessage) {
        self.writer.send(message).await.unwrap();
    }

    /// Waits for the next request.
    pub async fn call(&mut self) -> Call {
        self.requests.recv().await.unwrap()
    }

    /// Stops polling the connection without closing it.
    pub fn freeze(&self) {
        self.frozen.cancel();
    }

    /// Waits until the connection has ended.
    pub async fn ended(mut self) {
        while self.requests.recv().await.is_some() {}
    }
}

impl Call {
    /// Waits until the control plane cancels the request.
    pub async fn cancelled(mut self) -> Reason {
        poll_fn(|cx| self.respond.poll_reset(cx)).await.unwrap()
    }
}
