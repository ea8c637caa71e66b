//! Tests of sessions with scripted in-memory servers.

mod callers;
mod callers_property;
mod floods;
mod forwarded_headers;
mod http;
mod notifications;
mod property;
mod stdio;

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, Lines};
use tokio::sync::mpsc;
use waypost_mcp_wire::revision::MODERN;
use waypost_toolbox_proto::http::LogStream;

use super::*;
use crate::engine::{Attached, EngineError, OutputChunk};
use crate::supervisor::servers::{LogSink, Messages};

const TIMEOUT: Duration = Duration::from_secs(30);

/// An in-memory log.
#[derive(Default)]
struct MemoryLog(Mutex<Vec<(LogStream, String)>>);

impl LogSink for MemoryLog {
    fn line(&self, stream: LogStream, text: &str) {
        self.0.lock().unwrap().push((stream, text.to_owned()));
    }
}

impl MemoryLog {
    fn lines(&self) -> Vec<(LogStream, String)> {
        self.0.lock().unwrap().clone()
    }
}

/// The daemon, and the folder that is kept across its restarts.
struct Fixture {
    folder: TempDir,
    log: Arc<MemoryLog>,
    bridge: Bridge,
    is_shared: bool,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Bridge::new(|| 1_000))
    }

    fn with(bridge: Bridge) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), log: Arc::default(), bridge, is_shared: true }
    }

    fn context(&self) -> ConnectContext {
        ConnectContext {
            instance_id: "ins_1".to_owned(),
            container_id: "c1".to_owned(),
            folder: self.folder.path().to_owned(),
            is_shared: self.is_shared,
            masks: vec!["hunter2".to_owned()],
            log: self.log.clone(),
        }
    }

    async fn connect(&self, target: impl Into<Target>) -> Result<Arc<Session>, ConnectError> {
        self.bridge.connect(target.into(), self.context()).await
    }

    /// Connects to a server that answers with `respond`.
    async fn serve(&self, respond: impl FnMut(&Value) -> Vec<Value> + Send + 'static) -> Arc<Session> {
        let (attached, server) = server();
        server.serve(respond);
        self.connect(attached).await.unwrap()
    }

    fn saved(&self) -> Value {
        let text = std::fs::read(self.folder.path().join("session-c1.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

impl From<Attached> for Target {
    fn from(attached: Attached) -> Self {
        Self::Stdio(attached)
    }
}

/// The container's end of standard input and output.
struct Server {
    input: Lines<BufReader<DuplexStream>>,
    output: mpsc::UnboundedSender<Result<OutputChunk, EngineError>>,
}

fn server() -> (Attached, Server) {
    server_with(64 * 1024)
}

fn server_with(pipe: usize) -> (Attached, Server) {
    let (stdin, input) = tokio::io::duplex(pipe);
    let (output, receiver) = mpsc::unbounded_channel();
    let chunks = futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
    let attached = Attached { stdin: Box::pin(stdin), output: Box::pin(chunks) };
    (attached, Server { input: BufReader::new(input).lines(), output })
}

impl Server {
    /// Returns the next message that the daemon writes.
    async fn read(&mut self) -> Value {
        serde_json::from_str(&self.read_line().await.expect("the connection is open")).unwrap()
    }

    async fn read_line(&mut self) -> Option<String> {
        self.input.next_line().await.unwrap()
    }

    fn write(&self, message: &Value) {
        self.write_raw(format!("{message}\n").as_bytes());
    }

    fn write_raw(&self, bytes: &[u8]) {
        let _ = self.output.send(Ok(OutputChunk::Stdout(Bytes::copy_from_slice(bytes))));
    }

    fn write_error(&self, bytes: &[u8]) {
        let _ = self.output.send(Ok(OutputChunk::Stderr(Bytes::copy_from_slice(bytes))));
    }

    /// Answers every message in the background.
    fn serve(mut self, mut respond: impl FnMut(&Value) -> Vec<Value> + Send + 'static) {
        crate::tasks::spawn("server", async move {
            while let Some(line) = self.read_line().await {
                let message: Value = serde_json::from_str(&line).unwrap();
                respond(&message).iter().for_each(|answer| self.write(answer));
            }
        });
    }

    /// Completes the legacy handshake.
    async fn initialize(&mut self) {
        let discover = self.read().await;
        assert_eq!(discover["method"], "server/discover");
        self.write(&error(&discover, -32_601));
        let initialize = self.read().await;
        self.write(&legacy(&initialize).unwrap());
        assert_eq!(self.read().await["method"], "notifications/initialized");
    }
}

fn result(request: &Value, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": request["id"], "result": result })
}

fn error(request: &Value, code: i64) -> Value {
    json!({ "jsonrpc": "2.0", "id": request["id"], "error": { "code": code, "message": "no hunter2" } })
}

/// Returns the response of a legacy server without tools; `None` for notifications.
fn legacy(request: &Value) -> Option<Value> {
    request.get("id")?;
    Some(match request["method"].as_str()? {
        "initialize" => result(request, json!({ "protocolVersion": "2025-06-18", "serverInfo": { "name": "old" } })),
        "ping" => result(request, json!({})),
        "tools/call" => result(request, json!({ "echo": request["params"] })),
        _ => error(request, -32_601),
    })
}

/// Returns the response of a modern server without tools; `None` for notifications.
fn modern(request: &Value) -> Option<Value> {
    request.get("id")?;
    Some(match request["method"].as_str()? {
        "server/discover" => result(request, json!({ "supportedVersions": [MODERN], "resultType": "complete" })),
        "tools/call" => result(request, json!({ "echo": request["params"] })),
        _ => error(request, -32_601),
    })
}

fn call(id: impl Into<Value>, text: &str) -> Bytes {
    let params = json!({ "name": "echo", "arguments": { "text": text } });
    Bytes::from(json!({ "jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": params }).to_string())
}

/// Returns all messages of a call, and its failure if it fails.
async fn collect(session: &Session, message: impl Into<Bytes>, timeout: Duration) -> (Vec<Value>, Option<CallFailure>) {
    let mut messages: Messages = match session.call(message.into(), timeout).await {
        Ok(messages) => messages,
        Err(failure) => return (Vec::new(), Some(failure)),
    };
    let mut all = Vec::new();
    while let Some(message) = messages.next().await {
        match message {
            Ok(message) => {
                assert!(!message.contains(&b'\n'), "one line each");
                all.push(serde_json::from_slice(&message).unwrap());
            }
            Err(failure) => return (all, Some(failure)),
        }
    }
    (all, None)
}

/// Returns the only message of a call.
async fn response(session: &Session, message: impl Into<Bytes>) -> Value {
    let (mut messages, failure) = collect(session, message, TIMEOUT).await;
    assert_eq!((messages.len(), failure), (1, None), "{messages:?}");
    messages.remove(0)
}

/// Returns the status of a call that fails.
async fn status(session: &Session, message: impl Into<Bytes>, timeout: Duration) -> u16 {
    let (messages, failure) = collect(session, message, timeout).await;
    assert_eq!(messages, Vec::<Value>::new());
    failure.expect("the call fails").status
}

/// Polls a future once, so that it starts.
async fn start<F: Future + Unpin>(mut future: F) -> F {
    let mut future_once = Pin::new(&mut future);
    let is_ready = futures::poll!(&mut future_once).is_ready();
    assert!(!is_ready, "the future waits");
    future
}

/// The supervisor boxes these futures, so they must be `Send`.
#[test]
fn futures_can_be_sent_to_other_threads() {
    fn check<T: Send>(_: impl Fn() -> T) {}
    fn check_session(session: &Session, message: &Bytes) {
        check(|| session.call(message.clone(), TIMEOUT));
        check(|| session.probe());
        check(|| session.list_tools());
        check(|| session.closed());
    }
    fn check_stream(session: &Arc<Session>) {
        check(|| session.clone().notifications(Default::default()));
    }
    fn check_bridge(bridge: &Bridge, target: fn() -> Target, context: &ConnectContext) {
        check(|| bridge.connect(target(), context.clone()));
    }
    let _ = (check_session, check_stream, check_bridge);
}
