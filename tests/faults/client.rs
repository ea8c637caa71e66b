//! A minimal MCP client that can play a walkthrough: one POST per call on a personal URL.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use waypost_outbound::unguarded_client;

/// The duration after which a call counts as hanging.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);

/// A client of one server.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    origin: String,
}

/// A successful call.
#[derive(Debug, Clone)]
pub struct CallResult {
    /// The structured content.
    pub content: Value,
    /// The request ID, which is also recorded with the call.
    pub request_id: String,
}

/// A failed call.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The connection ended before the response, so the outcome of the call is unknown.
    Gone(#[expect(dead_code, reason = "printed if a test fails")] String),
    /// The call returned an error.
    Refused {
        /// The HTTP status.
        #[expect(dead_code, reason = "printed if a test fails")]
        status: u16,
        /// The error code of the tool, or `unavailable` for HTTP status 503.
        code: String,
        /// The error message.
        message: String,
        /// The duration of the call.
        after: Duration,
    },
}

impl Failure {
    /// Whether the call failed because the database is unavailable.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "unavailable")
    }

    /// Whether the connection ended before the response.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone(_))
    }
}

impl Client {
    /// Creates a client of the server `demo` at `origin`.
    pub fn new(origin: &str) -> Self {
        let http = unguarded_client().no_proxy().timeout(CALL_TIMEOUT).build().unwrap();
        Self { http, origin: origin.to_owned() }
    }

    /// Returns the personal URL of a user.
    pub fn url(&self, user: &str) -> String {
        format!("{}/s/demo/t/{user}/mcp", self.origin)
    }

    /// Returns the body of a tool call.
    pub fn body(tool: &str, arguments: &Value) -> String {
        message("tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// Calls a tool as `user`.
    pub async fn call(&self, user: &str, tool: &str, arguments: Value) -> Result<CallResult, Failure> {
        let (result, request_id) = self.post(user, Self::body(tool, &arguments)).await?;
        Ok(CallResult { content: result["structuredContent"].clone(), request_id })
    }

    /// Returns the number of listed tools.
    pub async fn tools(&self) -> Result<usize, Failure> {
        let (result, _) = self.post("nobody", message("tools/list", &json!({}))).await?;
        Ok(result["tools"].as_array().unwrap().len())
    }

    /// Sends a message. Returns the result and the request ID.
    async fn post(&self, user: &str, message: String) -> Result<(Value, String), Failure> {
        let started = Instant::now();
        let request = self
            .http
            .post(self.url(user))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .body(message);
        let gone = |error: reqwest::Error| {
            assert!(!error.is_timeout(), "a call hangs: {error:?}");
            Failure::Gone(format!("{error:?}"))
        };
        let response = request.send().await.map_err(gone)?;
        let status = response.status().as_u16();
        let request_id = response.headers().get("x-request-id").map(|id| id.to_str().unwrap().to_owned());
        let body: Value = serde_json::from_slice(&response.bytes().await.map_err(gone)?).expect("the response is JSON");
        let result = &body["result"];
        if status == 200 && result.is_object() && result["isError"] != json!(true) {
            return Ok((result.clone(), request_id.unwrap_or_default()));
        }
        let error = &result["structuredContent"]["error"];
        let error = if error.is_object() { error } else { &body["error"] };
        let code = if status == 503 { "unavailable" } else { error["code"].as_str().unwrap_or_default() };
        let message = error["message"].as_str().unwrap_or_default().to_owned();
        Err(Failure::Refused { status, code: code.to_owned(), message, after: started.elapsed() })
    }

    /// Opens a stream of `subscriptions/listen` and waits for its first event.
    pub async fn listen(&self) -> Stream {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        });
        let params = json!({ "notifications": { "toolsListChanged": true }, "_meta": meta });
        // A stream has no timeout, unlike a call.
        let http = unguarded_client().no_proxy().build().unwrap();
        let request = http
            .post(format!("{}/s/demo/mcp", self.origin))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "subscriptions/listen")
            .body(message("subscriptions/listen", &params));
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        let first = tokio::time::timeout(CALL_TIMEOUT, response.chunk())
            .await
            .expect("the stream starts in time")
            .unwrap()
            .unwrap();
        Stream { text: String::from_utf8(first.to_vec()).unwrap(), response }
    }

    /// Returns the status of a GET request, for example to `/readyz`.
    pub async fn get(&self, path: &str) -> Option<u16> {
        let response = self.http.get(format!("{}{path}", self.origin)).send().await;
        Some(response.ok()?.status().as_u16())
    }
}

/// An open stream.
pub struct Stream {
    response: reqwest::Response,
    text: String,
}

impl Stream {
    /// Reads the stream until the server ends it. Fails if the connection breaks instead.
    pub async fn read_all(mut self) -> reqwest::Result<String> {
        while let Some(chunk) = self.response.chunk().await? {
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
        Ok(self.text)
    }
}

fn message(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}
