//! A remote server that sends requests to its callers, and an agent that uses sessions.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::{FutureExt, stream};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use waypost_gateway::GatewayOptions;

use super::super::listen::Stream;
use super::super::remote::Stage;
use super::super::tool;
use crate::console::instances::Api;

pub const FORM: &str =
    r#"{"mode":"form","message":"Name?","requestedSchema":{"type":"object","properties":{},"x":1.0}}"#;

/// Returns [`FORM`] as the user sees it, with the slug of the instance that asks.
pub fn form_of(slug: &str) -> String {
    FORM.replace("Name?", &format!("[{slug}] Name?"))
}

/// A remote server whose tool `find` sends requests to the caller.
#[derive(Clone, Default)]
pub struct Server {
    pub is_modern: bool,
    /// The methods and parameters (JSON text) of the tool's requests, which are entries of `inputRequests` or separate
    /// requests.
    pub questions: Vec<(&'static str, &'static str)>,
    /// Whether no answer is sufficient (2026-07-28).
    pub is_never_satisfied: bool,
    /// Whether the request is cancelled before it is answered (earlier revisions).
    pub cancels: bool,
    /// The error (JSON text) with which the server responds to calls instead of asking.
    pub error: Option<&'static str>,
    pub state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub struct State {
    pub received: Vec<Value>,
    /// Whether the server responds to calls with status 500.
    pub is_failing: bool,
    /// Receive the responses to requests, which become part of the results.
    waiting: Vec<oneshot::Sender<Value>>,
}

fn json_response(text: String) -> Response {
    ([("content-type", "application/json"), ("mcp-session-id", "s1")], text).into_response()
}

impl Server {
    pub async fn start(self) -> String {
        let router = Router::new().fallback(move |method: Method, body: Bytes| {
            let server = self.clone();
            async move { server.respond(&method, &body) }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    pub fn respond(&self, method: &Method, body: &[u8]) -> Response {
        if *method != Method::POST {
            return StatusCode::METHOD_NOT_ALLOWED.into_response();
        }
        let message: Value = serde_json::from_slice(body).unwrap();
        let mut state = self.state.lock().unwrap();
        state.received.push(message.clone());
        let Some(method) = message["method"].as_str() else {
            // A response of the agent.
            if let Some(waiting) = state.waiting.pop() {
                waiting.send(message).unwrap();
            }
            return StatusCode::ACCEPTED.into_response();
        };
        let id = message["id"].clone();
        let result = |result: Value| json_response(json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string());
        let capabilities = json!({ "tools": {}, "logging": {} });
        match method {
            _ if id.is_null() => StatusCode::ACCEPTED.into_response(),
            "server/discover" if self.is_modern => result(json!({ "supportedVersions": ["2026-07-28"],
                "capabilities": capabilities, "resultType": "complete", "ttlMs": 0, "cacheScope": "private" })),
            "initialize" if !self.is_modern => result(json!({ "protocolVersion": "2025-11-25",
                "capabilities": capabilities, "serverInfo": { "name": "s", "version": "1" } })),
            "tools/list" => result(json!({ "tools": [tool("find", "Finds.")], "resultType": "complete" })),
            "logging/setLevel" => result(json!({})),
            "tools/call" if state.is_failing => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            "tools/call" if self.error.is_some() => {
                let error = self.error.unwrap_or_default();
                json_response(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
            }
            "tools/call" if self.is_modern => json_response(self.require_input(&message)),
            "tools/call" => self.ask(&mut state, &id),
            _ => json_response(
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "Unknown." } }).to_string(),
            ),
        }
    }

    /// 2026-07-28: returns the requests for input, or a result with the received answers.
    fn require_input(&self, message: &Value) -> String {
        let id = &message["id"];
        let params = &message["params"];
        if params["inputResponses"].is_null() || self.is_never_satisfied {
            let requests: Vec<String> = self
                .questions
                .iter()
                .enumerate()
                .map(|(n, (method, params))| format!(r#""q{n}":{{"method":"{method}","params":{params}}}"#))
                .collect();
            let requests = requests.join(",");
            return format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{{requests}}},"requestState":"own"}}}}"#
            );
        }
        let answered = json!([params["inputResponses"], params["requestState"]]);
        let result = json!({ "resultType": "complete", "content": [], "answered": answered });
        json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string()
    }

    /// Earlier revisions: sends a request on the stream of the call, and continues with the response to it.
    fn ask(&self, state: &mut State, id: &Value) -> Response {
        let (sender, receiver) = oneshot::channel();
        state.waiting.push(sender);
        let event = |text: String| Ok::<_, std::io::Error>(format!("data: {text}\n\n"));
        let log = |level: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":1}}}}"#)
        };
        let mut first = vec![event(log("info")), event(log("error"))];
        let (method, params) = self.questions[0];
        first.push(event(format!(r#"{{"jsonrpc":"2.0","id":5,"method":"{method}","params":{params}}}"#)));
        let (id, cancels) = (id.clone(), self.cancels);
        if cancels {
            let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#;
            first.push(event(cancelled.to_owned()));
        }
        let last = async move {
            let answer = match cancels {
                true => Value::Null,
                false => receiver.await.map_err(std::io::Error::other)?,
            };
            let result = json!({ "content": [], "answered": answer });
            event(json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string())
        };
        let events = futures::StreamExt::chain(stream::iter(first), last.into_stream());
        ([("content-type", "text/event-stream")], Body::from_stream(events)).into_response()
    }

    pub fn received(&self, method: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.received.iter().filter(|message| message["method"] == method).cloned().collect()
    }
}

/// A product with a server and an agent.
pub trait Target {
    /// The name of the tool.
    const TOOL: &'static str;

    fn api(&self) -> &Api;

    /// Returns the token of the agent.
    fn token(&self) -> String;
}

impl Target for Stage {
    const TOOL: &'static str = "far__find";

    fn api(&self) -> &Api {
        &self.api
    }

    fn token(&self) -> String {
        self.token.clone()
    }
}

/// An agent that uses the revisions with a handshake.
pub struct Agent<'a, S = Stage> {
    pub stage: &'a S,
    pub token: String,
    pub session: Option<String>,
}

impl<'a, S: Target> Agent<'a, S> {
    /// Begins a session with these capabilities.
    pub async fn new(stage: &'a S, capabilities: Value) -> Self {
        Self::with_token(stage, stage.token(), capabilities).await
    }

    /// Begins a session of the agent with this token.
    pub async fn with_token(stage: &'a S, token: String, capabilities: Value) -> Self {
        let mut agent = Self { stage, token, session: None };
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities,
            "clientInfo": { "name": "c", "version": "1" } });
        let response =
            agent.post(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })).await;
        agent.session = Some(response.headers()["mcp-session-id"].to_str().unwrap().to_owned());
        agent
    }

    pub fn without_session(stage: &'a S) -> Self {
        Self { stage, token: stage.token(), session: None }
    }

    pub async fn send(&self, method: Method, body: String) -> http::Response<Body> {
        let mut request = Request::builder().method(method).uri("/gateway/mcp").header("host", "localhost:8080");
        request = request.header("content-type", "application/json");
        request = request.header("authorization", format!("Bearer {}", self.token));
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25");
        }
        self.stage.api().app.send(request.body(body.into()).unwrap()).await
    }

    pub async fn post(&self, message: &Value) -> http::Response<Body> {
        self.send(Method::POST, message.to_string()).await
    }

    pub async fn call(&self) -> http::Response<Body> {
        let params = json!({ "name": S::TOOL, "arguments": { "q": 1 } });
        self.post(&json!({ "jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": params })).await
    }

    /// Calls the tool, and returns the response.
    pub async fn call_once(&self) -> Value {
        json_of(self.call().await).await
    }

    /// Calls the tool with a request of 2026-07-28.
    pub async fn modern_call(&self, extra: Value) -> http::Response<Body> {
        let mut params = json!({ "name": S::TOOL, "arguments": { "q": 1 }, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
        } });
        params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let body = json!({ "jsonrpc": "2.0", "id": "y", "method": "tools/call", "params": params }).to_string();
        let request = Request::builder().method(Method::POST).uri("/gateway/mcp").header("host", "localhost:8080");
        let request = request.header("content-type", "application/json").header("mcp-protocol-version", "2026-07-28");
        let request = request.header("mcp-method", "tools/call").header("mcp-name", S::TOOL);
        let request = request.header("authorization", format!("Bearer {}", self.token));
        self.stage.api().app.send(request.body(body.into()).unwrap()).await
    }

    /// Cancels the call that [`Self::call`] has started.
    pub async fn cancel(&self) -> StatusCode {
        let params = json!({ "requestId": "x" });
        self.post(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params })).await.status()
    }

    pub async fn respond(&self, id: &Value, result: &Value) -> StatusCode {
        self.post(&json!({ "jsonrpc": "2.0", "id": id, "result": result })).await.status()
    }
}

impl Stream {
    /// Returns the next elicitation.
    pub async fn question(&mut self) -> Value {
        loop {
            let message = self.next().await.unwrap();
            if message["method"] == "elicitation/create" {
                return message;
            }
        }
    }

    /// Returns the last message.
    pub async fn last(mut self) -> Value {
        let mut last = Value::Null;
        while let Some(message) = self.next().await {
            last = message;
        }
        last
    }
}

/// Returns the last message of a response.
pub async fn json_of(response: http::Response<Body>) -> Value {
    if response.headers()["content-type"] == "text/event-stream" {
        return Stream::new(response).last().await;
    }
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

pub async fn start(server: &Server) -> Stage {
    let stage = Stage::new().await;
    stage.ready(&server.clone().start().await).await;
    stage
}

/// Returns a stage whose settings allow pages on these hosts.
pub async fn start_with_hosts(server: &Server, hosts: &str) -> Stage {
    let elicitation_hosts = hosts.parse().unwrap();
    let stage = Stage::with(|options| GatewayOptions { elicitation_hosts, ..options }).await;
    stage.ready(&server.clone().start().await).await;
    stage
}

pub fn asks(is_modern: bool, questions: &[(&'static str, &'static str)]) -> Server {
    Server { is_modern, questions: questions.to_vec(), ..Server::default() }
}
