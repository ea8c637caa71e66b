//! The gateway, over the link to a toolbox whose daemon responds in place of a server.

mod access;
mod announcements;
mod call_contents;
mod calls;
mod cancellation;
mod changed_definitions;
mod circuit;
mod forwarded_headers;
mod initial_access;
mod listen;
mod oauth;
mod overrides;
mod people;
mod personal;
mod questions;
mod relay;
mod remote;
mod smuggling;
mod switch;
mod trace;

pub use self::calls::wait_for_calls;
pub use self::personal::personal_stage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use bytes::Bytes;
use h2::SendStream;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use waypost_core::grant::{AccessLevel, Grant, GrantedNames};
use waypost_core::id::AgentId;
use waypost_ops::agent_tokens::CreateAgentToken;
use waypost_ops::grants::{GrantPatch, NewGrant};
use waypost_ops::{agent_tokens, agents, grants};
use waypost_toolbox_proto::http::CONTAINER_KEY_HEADER;

use self::questions::container::Container;
use crate::app::Setup;
use crate::console::instances::Api;
use crate::daemon::{Call, Daemon};

/// The definitions and responses of the server of the instance.
#[derive(Default)]
pub struct ServerState {
    is_modern: bool,
    pub tools: Vec<Value>,
    /// The tools that the containers with these keys list instead of `tools`.
    container_tools: HashMap<String, Vec<Value>>,
    prompts: Vec<Value>,
    resources: Vec<Value>,
    templates: Vec<Value>,
    /// The messages that it has received, except `initialize`, `server/discover` and lists.
    received: Vec<Value>,
    /// Its responses to calls, one line per message. The placeholder `ID` is the ID of the call.
    answers: Vec<Vec<u8>>,
    /// Whether no response is an MCP message.
    is_broken: bool,
    /// The number of messages of all kinds.
    messages: usize,
    /// Whether calls are not answered but kept in `held`.
    is_holding: bool,
    /// The messages that are sent to calls that get no response.
    held_answers: Vec<Bytes>,
    held: Vec<SendStream<Bytes>>,
    /// The status of the daemon's responses to calls, if not 200.
    status: Option<u16>,
    /// The headers of the calls.
    headers: Vec<HeaderMap>,
    /// The keys of the containers for which messages were received.
    keys: Vec<String>,
    /// The status with which streams of notifications are opened. The default is the status of a daemon that does not
    /// know them.
    stream_status: Option<u16>,
    /// The open streams, and the resources that each of them has asked for.
    streams: Vec<(SendStream<Bytes>, Value)>,
    /// The number of attempts to open a stream.
    stream_attempts: usize,
    /// The resource whose subscription the server rejects.
    rejected: Option<String>,
    /// Answers all messages, if set.
    container: Option<Arc<Container>>,
}

/// A product with one instance, whose server a test controls, and an agent.
pub struct Stage {
    pub api: Api,
    server: Arc<Mutex<ServerState>>,
    task: JoinHandle<()>,
    pub instance: String,
    pub agent: AgentId,
    token: String,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn merged(mut object: Value, more: Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

pub fn tool(name: &str, description: &str) -> Value {
    json!({ "name": name, "description": description, "inputSchema": { "type": "object" }, "x-vendor": { "b": 1.0 } })
}

impl Stage {
    pub async fn new() -> Self {
        Self::with_stop(CancellationToken::new()).await
    }

    /// Returns a stage whose streams end when `stop` is cancelled.
    async fn with_stop(stop: CancellationToken) -> Self {
        Self::with(Setup { stop, ..Setup::default() }).await
    }

    async fn with(setup: Setup) -> Self {
        Self::create(setup, "shared").await
    }

    /// Returns a stage whose server has this sharing mode.
    async fn with_sharing(sharing: &str) -> Self {
        Self::create(Setup::default(), sharing).await
    }

    async fn create(setup: Setup, sharing: &str) -> Self {
        Self::create_with(setup, json!({ "sharing": sharing }), json!({})).await
    }

    /// Returns a stage with additional members of the catalogue entry and of the instance.
    pub async fn create_with(setup: Setup, entry: Value, instance: Value) -> Self {
        let api = Api::with(setup).await;
        let entry = merged(
            json!({ "slug": "search-tool", "name": "Search", "version": "1", "transport": "stdio",
                "source": { "image": format!("registry.example/search@sha256:{}", "ab".repeat(32)) } }),
            entry,
        );
        let entry = api.post("/catalog/import", entry).await.json();
        let created = api.post("/toolboxes", json!({ "name": "rack" })).await.json();
        let toolbox = api.join(created["join"]["token"].as_str().unwrap()).await;
        let daemon = Daemon::connect(&api.app, &toolbox).await;
        let new = merged(json!({ "slug": "search", "catalog_version_id": entry["versions"][0]["id"] }), instance);
        let instance = api.post("/instances", new).await.assert_status(202).json();
        let instance = instance["id"].as_str().unwrap().to_owned();
        let server = Arc::new(Mutex::new(ServerState {
            tools: vec![tool("find", "Finds."), tool("delete", "Deletes.")],
            answers: vec![br#"{"jsonrpc":"2.0","id":ID,"result":{"content":[],"n":1.0}}"#.to_vec()],
            ..ServerState::default()
        }));
        let task = serve(daemon, Arc::clone(&server));
        let (cx, ops) = (api.app.cx(), api.app.running_ops());
        let agent = agents::create(cx, &ops, &api.org.id, "ci").await.unwrap().agent;
        let new = CreateAgentToken { name: "main", expires_at: None };
        let (_, token) = agent_tokens::create(cx, &ops, &api.org.id, &agent.id, new).await.unwrap();
        let token = token.expose().to_owned();
        Self { api, server, task, instance, agent: agent.id, token }
    }

    /// Grants everything, approves it, and returns the stage.
    pub async fn ready(self) -> Self {
        self.grant(AccessLevel::FullAccess).await;
        self.approve_all("read").await;
        self
    }

    /// Returns the value of the agent's `Authorization` header.
    fn authorization(&self) -> String {
        format!("Bearer {}", self.token)
    }

    pub async fn finish(self) {
        self.task.abort();
        let app = self.api.app.clone();
        drop(self);
        app.finish().await;
    }

    pub fn set(&self, change: impl FnOnce(&mut ServerState)) {
        change(&mut self.server.lock().unwrap());
    }

    fn received(&self) -> Vec<Value> {
        std::mem::take(&mut self.server.lock().unwrap().received)
    }

    /// Grants access to the instance.
    pub async fn grant(&self, access: AccessLevel) -> Grant {
        let new = NewGrant {
            agent_id: self.agent.clone(),
            instance_id: self.instance.parse().unwrap(),
            access,
            names: GrantedNames::default(),
            rules: Vec::new(),
            expires_at: None,
        };
        grants::create(self.api.app.cx(), &self.api.app.running_ops(), &self.api.org.id, &new).await.unwrap()
    }

    async fn change(&self, grant: &Grant, change: GrantPatch) {
        let (cx, ops) = (self.api.app.cx(), self.api.app.running_ops());
        grants::update(cx, &ops, &self.api.org.id, &grant.id, &change).await.unwrap();
    }

    /// Approves everything that the server lists at present.
    pub async fn approve_all(&self, class: &str) {
        self.approve("", class).await;
    }

    /// Approves the definitions of one kind that the server lists at present; all definitions if `kind` is empty.
    pub async fn approve(&self, kind: &str, class: &str) {
        self.api.post(&format!("/instances/{}/check-definitions", self.instance), json!({})).await.assert_status(200);
        let pending = self.api.get("/tool-approvals?state=pending").await;
        for approval in pending["items"].as_array().unwrap() {
            if kind.is_empty() || approval["kind"] == kind {
                let path = format!("/tool-approvals/{}/approve", approval["id"].as_str().unwrap());
                self.api.post(&path, json!({ "digest": approval["digest"], "class": class })).await.assert_status(200);
            }
        }
    }

    /// Sends a message to an address.
    pub async fn send(
        &self,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> (StatusCode, String) {
        let mut request = Request::builder().method(Method::POST).uri(path).header("host", "localhost:8080");
        request = request.header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.api.app.send(request.body(body.into()).unwrap()).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Sends a message of 2025-11-25 and returns the text of the response.
    async fn legacy(&self, text: &str) -> String {
        let headers = [("mcp-protocol-version", "2025-11-25")];
        let (status, text) = self.send("/gateway/mcp", Some(&self.token), &headers, text.to_owned()).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        text
    }

    /// Begins a session, and returns its ID.
    async fn begin_session(&self) -> String {
        let text = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} }).to_string();
        let request = Request::builder().method(Method::POST).uri("/gateway/mcp").header("host", "localhost:8080");
        let request = request.header("content-type", "application/json").header("authorization", self.authorization());
        let response = self.api.app.send(request.body(text.into()).unwrap()).await;
        response.headers()["mcp-session-id"].to_str().unwrap().to_owned()
    }

    async fn legacy_request(&self, method: &str, params: Value) -> Value {
        let text = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string();
        serde_json::from_str(&self.legacy(&text).await).unwrap()
    }

    /// Sends a request of 2026-07-28.
    async fn modern_request(&self, method: &str, mut params: Value) -> (StatusCode, Value) {
        let name = params["name"].as_str().or(params["uri"].as_str()).map(str::to_owned);
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": { "sampling": {} },
        });
        let text = json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": params }).to_string();
        let mut headers = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)];
        headers.extend(name.as_deref().map(|name| ("mcp-name", name)));
        let (status, text) = self.send("/gateway/mcp", Some(&self.token), &headers, text).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// Waits until a call is held, and returns the daemon's side of it.
    async fn held(&self) -> SendStream<Bytes> {
        loop {
            if let Some(stream) = self.server.lock().unwrap().held.pop() {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    }

    pub async fn tools(&self) -> Vec<String> {
        let result = self.legacy_request("tools/list", json!({})).await;
        let tools = result["result"]["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.legacy_request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }
}

/// Responds to the requests of the control plane as the bridge of a daemon does.
fn serve(mut daemon: Daemon, server: Arc<Mutex<ServerState>>) -> JoinHandle<()> {
    crate::daemon::spawn(async move {
        loop {
            let mut call = daemon.call().await;
            let container = server.lock().unwrap().container.clone();
            if let Some(container) = container {
                crate::daemon::spawn(async move { container.answer(call).await });
                continue;
            }
            let Some(message) = call.message().await else { continue };
            match call.path().ends_with("/notifications") {
                true => open_stream(call, message, &server).await,
                false => answer(call, &message, &server).await,
            }
        }
    })
}

/// Opens a stream of notifications.
async fn open_stream(call: Call, message: Value, server: &Mutex<ServerState>) {
    let (status, rejected) = {
        let mut server = server.lock().unwrap();
        server.stream_attempts += 1;
        (server.stream_status.unwrap_or(404), server.rejected.clone())
    };
    if status != 200 {
        return call.respond(status, &[json!({ "message": "There is no stream." })]).await;
    }
    let uris = message["resources"].as_array().unwrap();
    let accepted: Vec<&Value> = uris.iter().filter(|uri| uri.as_str() != rejected.as_deref()).collect();
    let rejected: HashMap<String, &str> = rejected.into_iter().map(|uri| (uri, "No.")).collect();
    let mut stream = call.open(200);
    let opened = json!({ "can_subscribe": true, "accepted": accepted, "rejected": rejected });
    crate::daemon::send_line(&mut stream, &opened).await;
    server.lock().unwrap().streams.push((stream, message["resources"].clone()));
}

async fn answer(call: Call, message: &Value, server: &Mutex<ServerState>) {
    let response = |member: &str, value: Value| {
        let mut response = json!({ "jsonrpc": "2.0", "id": message["id"] });
        response[member] = value;
        vec![response.to_string().into_bytes()]
    };
    let list = |member: &str, items: &[Value]| response("result", json!({ member: items }));
    let mut status = 200;
    let lines: Vec<Vec<u8>> = {
        let mut server = server.lock().unwrap();
        server.messages += 1;
        let key = call.headers()[CONTAINER_KEY_HEADER].to_str().unwrap().to_owned();
        server.keys.push(key.clone());
        let capabilities = json!({ "tools": {}, "prompts": {}, "resources": {} });
        match message["method"].as_str().unwrap() {
            _ if server.is_broken => vec![b"Good morning.".to_vec()],
            "initialize" if server.is_modern => response("error", json!({ "code": -32601, "message": "Unknown." })),
            "initialize" | "server/discover" => {
                response("result", json!({ "capabilities": capabilities, "instructions": "Be careful." }))
            }
            "tools/list" => list("tools", server.container_tools.get(&key).unwrap_or(&server.tools)),
            "prompts/list" => list("prompts", &server.prompts),
            "resources/list" => list("resources", &server.resources),
            "resources/templates/list" => list("resourceTemplates", &server.templates),
            _ => {
                server.received.push(message.clone());
                server.headers.push(call.headers().clone());
                if server.is_holding {
                    let mut stream = call.open(200);
                    for line in &server.held_answers {
                        stream.send_data(line.clone(), false).unwrap();
                    }
                    server.held.push(stream);
                    return;
                }
                status = server.status.unwrap_or(status);
                let id = message["id"].to_string();
                server.answers.iter().map(|line| with_id(line, &id)).collect()
            }
        }
    };
    let mut stream = call.open(status);
    for mut line in lines {
        line.push(b'\n');
        // Fails if the gateway has cancelled the call.
        let _ = waypost_link_io::send(&mut stream, line.into()).await;
    }
    let _ = stream.send_data(Bytes::new(), true);
}

/// Replaces the first placeholder `ID`. `line` need not be UTF-8.
fn with_id(line: &[u8], id: &str) -> Vec<u8> {
    match line.windows(2).position(|pair| pair == b"ID") {
        Some(at) => [&line[..at], id.as_bytes(), &line[at + 2..]].concat(),
        None => line.to_vec(),
    }
}

const UNKNOWN: &str = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"Unknown tool"}}"#;

fn is_unknown(answer: &Value) -> bool {
    *answer == serde_json::from_str::<Value>(UNKNOWN).unwrap()
}
