//! A remote server of the tests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::super::tool;

/// The responses of the server, and the requests that it has received.
pub(super) struct ServerState {
    pub(super) is_modern: bool,
    /// The status of every response. Unless it is 200, the responses are empty.
    pub(super) status: u16,
    pub(super) tools: Vec<Value>,
    /// The text of the results of calls.
    pub(super) result: String,
    pub(super) sessions: usize,
    /// Whether every session is unknown.
    pub(super) forgets: bool,
    /// The misbehaviour of the server when a tool is called.
    pub(super) fault: Option<Fault>,
    pub(super) received: Vec<(HeaderMap, Value)>,
    pub(super) paths: Vec<String>,
    pub(super) resources: Vec<Value>,
    pub(super) templates: Vec<Value>,
    /// The texts of the results of these methods, instead of the lists above.
    pub(super) lists: HashMap<&'static str, String>,
    /// `ttlMs` of its `server/discover` result and lists, if it uses 2026-07-28.
    pub(super) ttl_ms: u64,
    /// Whether it announces changes.
    pub(super) has_stream: bool,
    /// The URI of a resource for which subscriptions are rejected.
    pub(super) refused: Option<String>,
    /// The URI of a resource for which every subscription request fails with status 500.
    pub(super) broken: Option<String>,
    /// The streams on which it announces changes.
    streams: Vec<UnboundedSender<String>>,
}

impl Default for ServerState {
    fn default() -> Self {
        Self {
            is_modern: false,
            status: 200,
            tools: vec![tool("find", "Finds.")],
            result: r#"{"content":[],"n":1.0}"#.to_owned(),
            sessions: 0,
            forgets: false,
            fault: None,
            received: Vec::new(),
            paths: Vec::new(),
            resources: Vec::new(),
            templates: Vec::new(),
            lists: HashMap::new(),
            ttl_ms: 0,
            has_stream: false,
            refused: None,
            broken: None,
            streams: Vec::new(),
        }
    }
}

/// The misbehaviour of a server.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// The connection breaks in the middle of this number of results.
    Breaks(usize),
    /// The response is surrounded by unrelated messages, and followed by a second response.
    Babbles,
    /// The response is preceded by the announcements that the tools and the resource `file:///a` have changed.
    Announces,
    /// The response is preceded by a log message, and both are events.
    Logs,
    /// There is no response.
    Hangs,
    /// The response is a stream of events, whose connection breaks when the test closes the streams.
    BreaksLater,
    /// There is no response to requests for the list of tools.
    HangsOnLists,
}

/// A server on loopback.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) url: String,
    pub(super) state: Arc<Mutex<ServerState>>,
}

impl ServerState {
    /// Returns the parameters of the requests with this method.
    pub(super) fn params(&self, method: &str) -> Vec<Value> {
        let received = self.received.iter().filter(|(_, body)| body["method"] == method);
        received.map(|(_, body)| body["params"].clone()).collect()
    }

    /// Returns the number of open streams.
    pub(super) fn streams(&self) -> usize {
        self.streams.iter().filter(|stream| !stream.is_closed()).count()
    }

    /// Ends all streams.
    pub(super) fn close_streams(&mut self) {
        self.streams.clear();
    }

    /// Opens a stream, which begins with `first`.
    fn open_stream(&mut self, first: Option<Value>) -> Response {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        if let Some(message) = first {
            sender.send(format!("data: {message}\n\n")).unwrap();
        }
        self.streams.push(sender);
        let events = futures::stream::unfold(receiver, |mut receiver| async {
            Some((Ok::<_, std::convert::Infallible>(receiver.recv().await?), receiver))
        });
        ([("content-type", "text/event-stream")], axum::body::Body::from_stream(events)).into_response()
    }

    /// Returns the response to `subscriptions/listen`.
    fn acknowledge(&mut self, message: &Value) -> Response {
        let mut filter = message["params"]["notifications"].clone();
        let refused = self.refused.clone();
        if let Some(uris) = filter["resourceSubscriptions"].as_array_mut() {
            uris.retain(|uri| uri.as_str() != refused.as_deref());
        }
        let meta = json!({ "io.modelcontextprotocol/subscriptionId": message["id"] });
        let params = json!({ "notifications": filter, "_meta": meta });
        let method = "notifications/subscriptions/acknowledged";
        self.open_stream(Some(json!({ "jsonrpc": "2.0", "method": method, "params": params })))
    }
}

impl Server {
    pub(super) async fn start() -> Self {
        let state: Arc<Mutex<ServerState>> = Arc::default();
        let own = Arc::clone(&state);
        let router = Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let mut state = own.lock().unwrap();
            let response = respond(&mut state, &method, &uri, (headers, &body));
            let unanswered = match state.fault {
                Some(Fault::Hangs) => Some("tools/call"),
                Some(Fault::HangsOnLists) => Some("tools/list"),
                _ => None,
            };
            let last = state.received.last().and_then(|(_, message)| message["method"].as_str());
            let hangs = unanswered.is_some() && last == unanswered;
            async move { if hangs { std::future::pending().await } else { response } }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp?key=s3cr3t", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, state }
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut ServerState)) {
        change(&mut self.state.lock().unwrap());
    }

    /// Waits until `is_done` returns `true`.
    pub(super) async fn wait_until(&self, is_done: impl Fn(&ServerState) -> bool) {
        let wait = async {
            while !is_done(&self.state.lock().unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it happens in time");
    }

    /// Sends a notification on the stream that was opened last.
    pub(super) fn announce(&self, method: &str, params: &Value) {
        let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        let state = self.state.lock().unwrap();
        state.streams.last().unwrap().send(format!("data: {message}\n\n")).unwrap();
    }

    /// Announces that a resource has changed.
    pub(super) fn update(&self, uri: &str) {
        self.announce("notifications/resources/updated", &json!({ "uri": uri, "x": 1 }));
    }

    /// Returns the tool calls received since the last call of this function.
    pub(super) fn calls(&self) -> Vec<(HeaderMap, Value)> {
        let mut state = self.state.lock().unwrap();
        let received = std::mem::take(&mut state.received);
        received.into_iter().filter(|(_, body)| body["method"] == "tools/call").collect()
    }
}

fn respond(state: &mut ServerState, method: &Method, uri: &Uri, (headers, body): (HeaderMap, &[u8])) -> Response {
    state.paths.push(uri.to_string());
    if state.status != 200 {
        return StatusCode::from_u16(state.status).unwrap().into_response();
    }
    if *method == Method::GET && state.has_stream && !state.is_modern {
        return state.open_stream(None);
    }
    if *method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let message: Value = serde_json::from_slice(body).unwrap();
    state.received.push((headers.clone(), message.clone()));
    let (id, session) = (message["id"].clone(), format!("session-{}", state.sessions));
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    let is_known = headers.get("mcp-session-id").is_some_and(|given| given.as_bytes() == session.as_bytes());
    let is_known = is_known && !state.forgets;
    if id.is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let is_subscription = ["subscriptions/listen", "resources/subscribe"].contains(&method.as_str());
    if is_subscription && state.broken.as_ref().is_some_and(|uri| message.to_string().contains(uri)) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if method == "subscriptions/listen" && state.is_modern && state.has_stream {
        return state.acknowledge(&message);
    }
    let mut capabilities = json!({ "tools": {} });
    if !state.resources.is_empty() || state.lists.contains_key("resources/list") {
        capabilities["resources"] = json!({ "subscribe": state.has_stream });
    }
    if state.lists.contains_key("prompts/list") {
        capabilities["prompts"] = json!({});
    }
    let complete = |result: Value| {
        let mut result = result;
        if state.is_modern {
            result["resultType"] = json!("complete");
            result["ttlMs"] = json!(state.ttl_ms);
        }
        json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
    };
    let text = match (method.as_str(), state.is_modern) {
        ("server/discover", true) => complete(json!({ "supportedVersions": ["2026-07-28"],
            "capabilities": capabilities, "cacheScope": "private" })),
        ("initialize", false) => {
            let result = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities,
                "serverInfo": { "name": "s", "version": "1" }, "instructions": "Be careful." });
            let text = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
            return ([("content-type", "application/json"), ("mcp-session-id", &session)], text).into_response();
        }
        // 2025-11-25, "Session Management".
        (_, false) if method != "server/discover" && !is_known => return StatusCode::NOT_FOUND.into_response(),
        ("ping", _) => complete(json!({})),
        (listed, _) if state.lists.contains_key(listed) => {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{}}}"#, state.lists[listed])
        }
        ("tools/list", _) => complete(json!({ "tools": state.tools })),
        ("resources/list", _) => complete(json!({ "resources": state.resources })),
        ("resources/templates/list", _) => complete(json!({ "resourceTemplates": state.templates })),
        ("resources/subscribe" | "resources/unsubscribe", false)
            if state.refused.as_deref() != message["params"]["uri"].as_str() =>
        {
            complete(json!({}))
        }
        ("tools/call", _) => format!(r#"{{"jsonrpc":"2.0","result":{},"id":{id}}}"#, state.result),
        _ => json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "Unknown." } }).to_string(),
    };
    if method == "tools/call"
        && let Some(fault) = state.fault
    {
        return misbehave(state, fault, &id, text);
    }
    ([("content-type", "application/json")], text).into_response()
}

fn misbehave(state: &mut ServerState, fault: Fault, id: &Value, text: String) -> Response {
    match fault {
        Fault::Hangs | Fault::HangsOnLists => StatusCode::NO_CONTENT.into_response(),
        Fault::BreaksLater => {
            let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<String>();
            state.streams.push(sender);
            let events = futures::stream::unfold(Some(receiver), |receiver| async {
                let mut receiver = receiver?;
                match receiver.recv().await {
                    Some(event) => Some((Ok(event), Some(receiver))),
                    None => Some((Err(std::io::Error::other("the server has crashed")), None)),
                }
            });
            ([("content-type", "text/event-stream")], axum::body::Body::from_stream(events)).into_response()
        }
        Fault::Breaks(times) => {
            state.fault = (times > 1).then(|| Fault::Breaks(times - 1));
            let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
            let parts = [Ok(half), Err(std::io::Error::other("the server has crashed"))];
            let body = axum::body::Body::from_stream(futures::stream::iter(parts));
            ([("content-type", "application/json")], body).into_response()
        }
        Fault::Announces => {
            let notification =
                |method: &str, params: Value| json!({ "jsonrpc": "2.0", "method": method, "params": params });
            let events = [
                notification("notifications/tools/list_changed", json!({})).to_string(),
                notification("notifications/resources/updated", json!({ "uri": "file:///a" })).to_string(),
                text,
            ];
            let events: String = events.iter().map(|text| format!("data: {text}\n\n")).collect();
            ([("content-type", "text/event-stream")], events).into_response()
        }
        Fault::Logs => {
            let params = json!({ "level": "error", "data": "a" });
            let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params });
            // Each line of an event has its own prefix.
            let event = |text: &str| format!("data: {}\n\n", text.replace('\n', "\ndata: "));
            let events = event(&format!("{log:#}")) + &event(&text);
            ([("content-type", "text/event-stream")], events).into_response()
        }
        Fault::Babbles => {
            let other = |id: Value| json!({ "jsonrpc": "2.0", "id": id, "result": { "n": 2 } }).to_string();
            let progress = json!({ "progressToken": "unknown", "progress": 1 });
            let events = [
                json!({ "jsonrpc": "2.0", "id": 1, "method": "roots/list" }).to_string(),
                json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": progress }).to_string(),
                other(json!("unknown")),
                text,
                other(id.clone()),
            ];
            let events: String = events.iter().map(|text| format!("data: {text}\n\n")).collect();
            ([("content-type", "text/event-stream")], events).into_response()
        }
    }
}
