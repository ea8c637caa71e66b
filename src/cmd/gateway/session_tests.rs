//! Tests of the command with a gateway that ends streams and sessions.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::event_stream::{Opened, open};
use super::session::Session;
use super::stdio::run;
use super::upload::Endpoint;

const TIMEOUT: Duration = Duration::from_secs(20);
const TOOLS: &str = "notifications/tools/list_changed";
const RESOURCES: &str = "notifications/resources/list_changed";

/// A fake gateway: the messages that it has received, and its responses.
struct Gateway {
    /// The number of handshakes. Each begins the session `s` followed by this number.
    handshakes: usize,
    /// The protocol revision that it negotiates; `None` if its URL no longer exists.
    revision: Option<&'static str>,
    /// The sessions that have ended.
    ended: BTreeSet<String>,
    /// The received messages with their session IDs, except those of sessions that have ended. The ID is empty if the
    /// message had none.
    received: Vec<(String, Value)>,
    streams: Vec<Stream>,
    /// The status and content type of the response to GET.
    stream_response: (u16, &'static str),
}

/// A stream that ends when it is dropped.
struct Stream {
    session: String,
    headers: HeaderMap,
    sender: mpsc::UnboundedSender<Bytes>,
}

impl Gateway {
    /// Returns the methods of the messages of a session. Responses have none.
    fn methods(&self, session: &str) -> Vec<&str> {
        let own = self.received.iter().filter(|(other, _)| other == session);
        own.map(|(_, message)| message["method"].as_str().unwrap_or("response")).collect()
    }

    fn has_stream(&self, session: &str) -> bool {
        self.streams.iter().any(|stream| stream.session == session)
    }

    fn answer(&mut self, method: &Method, headers: &HeaderMap, body: &[u8]) -> Response {
        let session = headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned()).unwrap_or_default();
        if self.ended.contains(&session) {
            return not_found("The session has ended.");
        }
        if *method == Method::GET {
            return self.open_stream(session, headers);
        }
        let message: Value = serde_json::from_slice(body).unwrap();
        self.received.push((session, message.clone()));
        if message["method"] == "initialize" {
            return self.begin_session(&message["id"]);
        }
        if message["params"]["_meta"].is_object() {
            let error = json!({ "code": -32601, "message": "Unknown." });
            let text = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
            return (StatusCode::NOT_FOUND, Json(text)).into_response();
        }
        if message["id"].is_null() || message["method"].is_null() {
            return StatusCode::ACCEPTED.into_response();
        }
        Json(json!({ "jsonrpc": "2.0", "id": message["id"], "result": {} })).into_response()
    }

    fn begin_session(&mut self, id: &Value) -> Response {
        let Some(revision) = self.revision else { return not_found("Not found.") };
        self.handshakes += 1;
        let list = json!({ "listChanged": true });
        let capabilities = json!({ "tools": list, "prompts": {}, "resources": list });
        let result = json!({ "protocolVersion": revision, "capabilities": capabilities });
        let text = json!({ "jsonrpc": "2.0", "id": id, "result": result });
        ([("mcp-session-id", format!("s{}", self.handshakes))], Json(text)).into_response()
    }

    fn open_stream(&mut self, session: String, headers: &HeaderMap) -> Response {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(Bytes::from_static(b": open\n\n")).unwrap();
        self.streams.push(Stream { session, headers: headers.clone(), sender });
        let chunks = futures::stream::unfold(receiver, |mut receiver| async move {
            let chunk: Bytes = receiver.recv().await?;
            Some((Ok::<_, Infallible>(chunk), receiver))
        });
        let (status, content_type) = self.stream_response;
        let status = StatusCode::from_u16(status).unwrap();
        (status, [("content-type", content_type)], Body::from_stream(chunks)).into_response()
    }
}

fn not_found(message: &str) -> Response {
    let text = json!({ "jsonrpc": "2.0", "error": { "code": -32600, "message": message } });
    (StatusCode::NOT_FOUND, Json(text)).into_response()
}

/// A client that the command connects to a gateway.
struct Stage {
    gateway: Arc<Mutex<Gateway>>,
    input: DuplexStream,
    output: Lines<BufReader<DuplexStream>>,
    _tasks: JoinSet<anyhow::Result<()>>,
}

/// Starts a gateway, which runs until `tasks` is dropped.
async fn serve(tasks: &mut JoinSet<anyhow::Result<()>>) -> (Arc<Mutex<Gateway>>, Endpoint) {
    let gateway = Arc::new(Mutex::new(Gateway {
        handshakes: 0,
        revision: Some("2025-11-25"),
        ended: BTreeSet::new(),
        received: Vec::new(),
        streams: Vec::new(),
        stream_response: (200, "text/event-stream"),
    }));
    let own = Arc::clone(&gateway);
    let router = axum::Router::new().fallback(move |method: Method, headers: HeaderMap, body: Bytes| {
        let response = own.lock().unwrap().answer(&method, &headers, &body);
        async move { response }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/gateway/mcp", listener.local_addr().unwrap()).parse().unwrap();
    tasks.spawn(async move { Ok(axum::serve(listener, router).await?) });
    (gateway, Endpoint::new(url, "wpa_x", None).unwrap())
}

impl Stage {
    /// Starts the command.
    async fn start() -> Self {
        let mut tasks = JoinSet::new();
        let (gateway, endpoint) = serve(&mut tasks).await;
        let (input, read) = tokio::io::duplex(1 << 20);
        let (output, written) = tokio::io::duplex(1 << 20);
        tasks.spawn(run(endpoint, read, written));
        Self { gateway, input, output: BufReader::new(output).lines(), _tasks: tasks }
    }

    /// Starts the command with a client that has completed the handshake, and waits until there is a stream.
    async fn initialized() -> Self {
        let mut stage = Self::start().await;
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": { "roots": {} } });
        let response = stage.request(1, "initialize", params).await;
        assert_eq!(response["result"]["protocolVersion"], "2025-11-25", "{response}");
        stage.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        stage.wait_until(|gateway| gateway.has_stream("s1")).await;
        stage
    }

    fn gateway(&self) -> MutexGuard<'_, Gateway> {
        self.gateway.lock().unwrap()
    }

    async fn write(&mut self, message: &Value) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    /// Returns the next line of the output, which is one message.
    async fn read(&mut self) -> Value {
        let line = tokio::time::timeout(TIMEOUT, self.output.next_line()).await.expect("a message arrives");
        serde_json::from_str(&line.unwrap().unwrap()).unwrap()
    }

    /// Sends a request, whose response is the next line of the output.
    async fn request(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        let response = self.read().await;
        assert_eq!(response["id"], id, "{response}");
        response
    }

    /// Reads the `list_changed` notifications that follow an interruption.
    async fn read_list_changes(&mut self) {
        for method in [TOOLS, RESOURCES] {
            assert_eq!(self.read().await, json!({ "jsonrpc": "2.0", "method": method }));
        }
    }

    async fn wait_until(&self, condition: impl Fn(&Gateway) -> bool) {
        let wait = async {
            while !condition(&self.gateway()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TIMEOUT, wait).await.expect("the gateway gets there");
    }
}

#[tokio::test]
async fn messages_on_the_stream_are_forwarded_and_the_stream_is_reopened() {
    let mut stage = Stage::initialized().await;
    let headers = stage.gateway().streams[0].headers.clone();
    for (name, value) in [
        ("accept", "text/event-stream"),
        ("authorization", "Bearer wpa_x"),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-session-id", "s1"),
    ] {
        assert_eq!(headers[name], value);
    }
    // A message that spans several lines, an invalid message, a response to no request, and a request.
    let events = "data: {\"jsonrpc\":\"2.0\",\ndata: \"method\":\"notifications/tools/list_changed\"}\n\n\
                  data: x\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n\
                  data: {\"jsonrpc\":\"2.0\",\"id\":\"r\",\"method\":\"ping\"}\n\n";
    stage.gateway().streams[0].sender.send(Bytes::from_static(events.as_bytes())).unwrap();
    assert_eq!(stage.read().await, json!({ "jsonrpc": "2.0", "method": TOOLS }));
    assert_eq!(stage.read().await, json!({ "jsonrpc": "2.0", "id": "r", "method": "ping" }));
    stage.write(&json!({ "jsonrpc": "2.0", "id": "r", "result": {} })).await;
    stage.wait_until(|gateway| gateway.methods("s1").contains(&"response")).await;
    stage.request(2, "resources/subscribe", json!({ "uri": "a" })).await;
    stage.request(3, "logging/setLevel", json!({ "level": "error" })).await;
    {
        // A gateway that has restarted has forgotten both.
        let mut gateway = stage.gateway();
        gateway.received.clear();
        gateway.streams.clear();
    }
    stage.read_list_changes().await;
    stage.wait_until(|gateway| gateway.methods("s1") == ["logging/setLevel", "resources/subscribe"]).await;
    let gateway = stage.gateway();
    assert_eq!((gateway.handshakes, gateway.streams.len()), (1, 1));
}

#[tokio::test]
async fn a_session_that_has_ended_is_replaced_once_for_all_requests() {
    let mut stage = Stage::initialized().await;
    stage.request(2, "logging/setLevel", json!({ "level": "error" })).await;
    for (id, method, uri) in
        [(3, "resources/subscribe", "a"), (4, "resources/subscribe", "b"), (5, "resources/unsubscribe", "a")]
    {
        stage.request(id, method, json!({ "uri": uri })).await;
    }
    stage.gateway().ended.insert("s1".to_owned());
    for id in 10..20 {
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "a" } });
        stage.write(&request).await;
    }
    let (mut ids, mut methods) = (Vec::new(), Vec::new());
    while ids.len() < 10 || methods.len() < 2 {
        let message = stage.read().await;
        match message["method"].as_str() {
            Some(method) => methods.push(method.to_owned()),
            None => {
                assert!(message["result"].is_object(), "{message}");
                ids.push(message["id"].as_u64().unwrap());
            }
        }
    }
    ids.sort_unstable();
    assert_eq!((ids, methods), ((10..20).collect(), vec![TOOLS.to_owned(), RESOURCES.to_owned()]));
    stage.wait_until(|gateway| gateway.methods("s2").contains(&"resources/subscribe")).await;
    // The response is the next line: the client receives no other message.
    stage.request(30, "ping", json!({})).await;
    {
        let gateway = stage.gateway();
        let handshakes: Vec<_> = gateway.received.iter().filter(|(session, _)| session.is_empty()).collect();
        assert_eq!((handshakes.len(), handshakes[0]), (2, handshakes[1]), "the request of the client is repeated");
        let methods = gateway.methods("s2");
        assert_eq!(methods[..2], ["notifications/initialized", "logging/setLevel"]);
        assert_eq!(methods.iter().filter(|method| **method == "tools/call").count(), 10);
        let own = gateway.received.iter().filter(|(session, _)| session == "s2");
        let subscribed = own.filter(|(_, message)| message["method"] == "resources/subscribe");
        let uris: Vec<_> = subscribed.map(|(_, message)| message["params"]["uri"].clone()).collect();
        assert_eq!(uris, ["b"]);
        assert!(gateway.has_stream("s2"));
    }
    stage.wait_until(|gateway| gateway.streams[0].sender.is_closed()).await;
}

#[tokio::test]
async fn a_session_that_has_ended_is_replaced_while_the_client_is_idle() {
    let mut stage = Stage::initialized().await;
    {
        let mut gateway = stage.gateway();
        gateway.ended.insert("s1".to_owned());
        gateway.streams.clear();
    }
    stage.read_list_changes().await;
    assert!(stage.gateway().has_stream("s2"), "a change after the announcement is announced as well");
    assert_eq!(stage.gateway().handshakes, 2);
    // The response to a request of the previous session is not sent in another session.
    stage.gateway().ended.insert("s2".to_owned());
    stage.write(&json!({ "jsonrpc": "2.0", "id": "r", "result": {} })).await;
    stage.read_list_changes().await;
    stage.request(2, "ping", json!({})).await;
    assert!(!stage.gateway().methods("s3").contains(&"response"));
}

#[tokio::test]
async fn list_changes_are_announced_once_the_new_session_has_a_stream_or_cannot_have_one() {
    let mut stage = Stage::initialized().await;
    {
        let mut gateway = stage.gateway();
        gateway.stream_response = (503, "application/json");
        gateway.ended.insert("s1".to_owned());
    }
    // The response is the next line.
    stage.request(2, "ping", json!({})).await;
    stage.wait_until(|gateway| gateway.has_stream("s2")).await;
    stage.gateway().stream_response = (200, "text/event-stream");
    stage.read_list_changes().await;
    {
        let mut gateway = stage.gateway();
        gateway.stream_response = (405, "application/json");
        gateway.ended.insert("s2".to_owned());
        gateway.streams.clear();
    }
    stage.read_list_changes().await;
    assert_eq!(stage.gateway().handshakes, 3);
}

#[tokio::test]
async fn a_session_that_cannot_be_replaced_is_an_error() {
    for (revision, reason) in [(None, "Not found."), (Some("2025-06-18"), "another revision")] {
        let mut stage = Stage::initialized().await;
        {
            let mut gateway = stage.gateway();
            gateway.ended.insert("s1".to_owned());
            gateway.revision = revision;
        }
        let response = stage.request(2, "tools/list", json!({})).await;
        assert!(response["error"]["message"].as_str().unwrap().contains(reason), "{response}");
    }
}

#[tokio::test]
async fn a_request_without_a_session_does_not_replace_the_session() {
    let mut stage = Stage::initialized().await;
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
    let response = stage.request(2, "ping", json!({ "_meta": meta })).await;
    assert_eq!((&response["error"]["code"], stage.gateway().handshakes), (&json!(-32601), 1));
}

#[tokio::test]
async fn the_response_determines_whether_a_stream_is_reopened() {
    let mut tasks = JoinSet::new();
    let (gateway, endpoint) = serve(&mut tasks).await;
    let session = |id: Option<&'static str>| Session { id: id.map(HeaderValue::from_static), ..Session::default() };
    let name = |opened: Opened| match opened {
        Opened::Stream(_) => "stream",
        Opened::SessionLost => "lost",
        Opened::Rejected => "rejected",
        Opened::Unavailable => "unavailable",
    };
    for (status, content_type, expected) in [
        (200, "text/event-stream", "stream"),
        (200, "Text/Event-Stream; charset=utf-8", "stream"),
        (200, "text/event-streams", "rejected"),
        (200, "application/json", "rejected"),
        (401, "application/json", "rejected"),
        (405, "application/json", "rejected"),
        (404, "application/json", "lost"),
        (403, "application/json", "unavailable"),
        (429, "application/json", "unavailable"),
        (503, "application/json", "unavailable"),
    ] {
        gateway.lock().unwrap().stream_response = (status, content_type);
        assert_eq!(name(open(&endpoint, &session(Some("s1"))).await), expected, "{status}");
    }
    gateway.lock().unwrap().stream_response = (404, "application/json");
    assert_eq!(name(open(&endpoint, &session(None)).await), "rejected");
    tasks.shutdown().await;
    assert_eq!(name(open(&endpoint, &session(Some("s1"))).await), "unavailable");
}
