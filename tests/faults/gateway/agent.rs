//! An agent of the gateway that uses a session.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use waypost_outbound::unguarded_client;

/// The duration after which a request counts as hanging: the gateway ends a call after 30 seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);

/// An agent with its token. Every request uses its own connection.
#[derive(Clone)]
pub struct Agent {
    http: reqwest::Client,
    token: String,
    session: Option<String>,
}

/// The response to a request.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The message.
    pub body: Value,
    /// The duration of the request.
    pub after: Duration,
    session: Option<String>,
}

impl Answer {
    /// Whether the request was answered with a result.
    pub fn is_result(&self) -> bool {
        self.status == 200 && self.body["result"].is_object()
    }

    /// Returns the `reason` of an error; empty if there is none.
    pub fn reason(&self) -> &str {
        self.body["error"]["data"]["reason"].as_str().unwrap_or_default()
    }

    /// Returns the names of the listed tools.
    pub fn tools(&self) -> Vec<&str> {
        let tools = self.body["result"]["tools"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
    }
}

/// The connection ended before the response.
#[derive(Debug)]
pub struct Gone(#[expect(dead_code, reason = "printed if a test fails")] String);

impl Agent {
    /// Creates an agent without a session.
    pub fn new(token: &str) -> Self {
        let http = unguarded_client().no_proxy().timeout(REQUEST_TIMEOUT).pool_max_idle_per_host(0).build().unwrap();
        Self { http, token: token.to_owned(), session: None }
    }

    /// Sends a request to the gateway at `origin`.
    pub async fn request(&self, origin: &str, method: &str, params: Value) -> Result<Answer, Gone> {
        let started = Instant::now();
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut request = self
            .http
            .post(format!("{origin}/gateway/mcp"))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .bearer_auth(&self.token)
            .body(message.to_string());
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        let gone = |error: reqwest::Error| {
            assert!(!error.is_timeout(), "a request hangs: {error:?}");
            Gone(format!("{error:?}"))
        };
        let response = request.send().await.map_err(gone)?;
        let (status, headers) = (response.status().as_u16(), response.headers());
        let is_stream = headers["content-type"].as_bytes().starts_with(b"text/event-stream");
        let session = headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        let text = response.text().await.map_err(gone)?;
        let text = if is_stream { last_event(&text) } else { &text };
        // A stream that ends without a message has lost its connection.
        let body = serde_json::from_str(text).map_err(|error| Gone(format!("{error}: {text}")))?;
        Ok(Answer { status, body, after: started.elapsed(), session })
    }

    /// Begins a session.
    pub async fn initialize(&mut self, origin: &str) -> Result<(), Gone> {
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "t", "version": "1" } });
        self.session = None;
        let answer = self.request(origin, "initialize", params).await?;
        assert!(answer.is_result(), "{answer:?}");
        self.session = answer.session;
        assert!(self.session.is_some(), "the gateway begins a session");
        Ok(())
    }

    /// Calls the tool `echo` of an instance.
    pub async fn call(&self, origin: &str, instance: &str, arguments: Value) -> Result<Answer, Gone> {
        self.request(origin, "tools/call", json!({ "name": format!("{instance}__echo"), "arguments": arguments })).await
    }

    /// Lists the tools.
    pub async fn list(&self, origin: &str) -> Result<Answer, Gone> {
        self.request(origin, "tools/list", json!({})).await
    }
}

/// Returns the data of the last event of a stream.
fn last_event(text: &str) -> &str {
    text.lines().filter_map(|line| line.strip_prefix("data:")).next_back().unwrap_or_default()
}
