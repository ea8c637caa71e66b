//! A remote server of the tests, which speaks 2026-07-28.

use std::net::SocketAddr;
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
    calls: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl RemoteServer {
    /// Starts the server.
    pub async fn start() -> Self {
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let own = Arc::clone(&calls);
        let router = Router::new().fallback(move |body: String| {
            let response = respond(&own, &body);
            async move { response }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, calls, task }
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Returns the arguments of all calls as JSON text, in the order in which they arrived.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }
}

impl Drop for RemoteServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn respond(calls: &Mutex<Vec<String>>, body: &str) -> Response {
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
            let tool = json!({ "name": "echo", "description": "Echoes.", "inputSchema": { "type": "object" } });
            json!({ "tools": [tool], "ttlMs": 0, "cacheScope": "private" })
        }
        "tools/call" => {
            let arguments = &params["arguments"];
            calls.lock().unwrap().push(arguments.to_string());
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
