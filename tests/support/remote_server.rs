//! A remote server for tests, which uses MCP 2026-07-28.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// A server on loopback with the tool `echo`, which stops when it is dropped.
pub struct RemoteServer {
    /// The address at which it listens. The path is ignored.
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// The arguments of all calls.
    calls: Mutex<Vec<String>>,
    /// The number of changes to the schema of the tool.
    changes: AtomicUsize,
}

impl RemoteServer {
    /// Starts the server.
    pub async fn start() -> Self {
        let state = Arc::<State>::default();
        let own = Arc::clone(&state);
        let router = Router::new().fallback(move |body: String| {
            let response = respond(&own, &body);
            async move { response }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state, task }
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Returns the arguments of all calls as JSON text, in the order in which they arrived.
    pub fn calls(&self) -> Vec<String> {
        self.state.calls.lock().unwrap().clone()
    }

    /// Changes a nested member of the schema of the tool. The server does not announce the change.
    #[allow(dead_code, reason = "only some of the tests change it")]
    pub fn change_schema(&self) {
        self.state.changes.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for RemoteServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn respond(state: &State, body: &str) -> Response {
    // Only POST has a body.
    let Ok(message) = serde_json::from_str::<Value>(body) else {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    };
    let (id, params) = (&message["id"], &message["params"]);
    if id.is_null() {
        return StatusCode::ACCEPTED.into_response();
    }
    let mut result = match message["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
            "ttlMs": 0, "cacheScope": "private" }),
        "tools/list" => {
            let text = json!({ "type": "string", "maxLength": 1_000 + state.changes.load(Ordering::SeqCst) });
            let schema = json!({ "type": "object", "properties": { "text": text } });
            let tool = json!({ "name": "echo", "description": "Echoes.", "inputSchema": schema });
            json!({ "tools": [tool], "ttlMs": 0, "cacheScope": "private" })
        }
        "tools/call" => {
            let arguments = &params["arguments"];
            state.calls.lock().unwrap().push(arguments.to_string());
            json!({ "content": [], "structuredContent": arguments })
        }
        _ => {
            let error = json!({ "code": -32601, "message": "Unknown." });
            return Json(json!({ "jsonrpc": "2.0", "id": id, "error": error })).into_response();
        }
    };
    result["resultType"] = json!("complete");
    Json(json!({ "jsonrpc": "2.0", "id": id, "result": result })).into_response()
}
