//! A remote server of the tests.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::super::tool;

/// What the server answers, and what it has received.
pub(super) struct ServerState {
    pub(super) is_modern: bool,
    /// The status of every response; the server answers only with 200.
    pub(super) status: u16,
    pub(super) tools: Vec<Value>,
    /// The text of the result of calls.
    pub(super) result: String,
    pub(super) sessions: usize,
    /// Whether every session is unknown.
    pub(super) forgets: bool,
    /// How the server misbehaves when a tool is called.
    pub(super) fault: Option<Fault>,
    pub(super) received: Vec<(HeaderMap, Value)>,
    pub(super) paths: Vec<String>,
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
        }
    }
}

/// How a server misbehaves.
#[derive(Clone, Copy)]
pub(super) enum Fault {
    /// The connection breaks in the middle of this number of results.
    Breaks(usize),
    /// The response is surrounded by messages that nobody asked for, and followed by another one.
    Babbles,
}

/// A server on loopback.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) url: String,
    pub(super) state: Arc<Mutex<ServerState>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let state: Arc<Mutex<ServerState>> = Arc::default();
        let own = Arc::clone(&state);
        let router = Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let response = respond(&mut own.lock().unwrap(), &method, &uri, (headers, &body));
            async move { response }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp?key=s3cr3t", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, state }
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut ServerState)) {
        change(&mut self.state.lock().unwrap());
    }

    /// Returns the calls since the last time.
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
    let complete = |result: Value| {
        let mut result = result;
        if state.is_modern {
            result["resultType"] = json!("complete");
        }
        json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
    };
    let text = match (method.as_str(), state.is_modern) {
        ("server/discover", true) => complete(json!({ "supportedVersions": ["2026-07-28"],
            "capabilities": { "tools": {} }, "ttlMs": 0, "cacheScope": "private" })),
        ("initialize", false) => {
            let result = json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "s", "version": "1" }, "instructions": "Be careful." });
            let text = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
            return ([("content-type", "application/json"), ("mcp-session-id", &session)], text).into_response();
        }
        // 2025-11-25, "Session Management".
        (_, false) if method != "server/discover" && !is_known => return StatusCode::NOT_FOUND.into_response(),
        ("ping", _) => complete(json!({})),
        ("tools/list", _) => complete(json!({ "tools": state.tools })),
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
        Fault::Breaks(times) => {
            state.fault = (times > 1).then(|| Fault::Breaks(times - 1));
            let half = Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
            let parts = [Ok(half), Err(std::io::Error::other("the server has crashed"))];
            let body = axum::body::Body::from_stream(futures::stream::iter(parts));
            ([("content-type", "application/json")], body).into_response()
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
