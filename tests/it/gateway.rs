//! The gateway: what agents see and can call, over the link to a toolbox whose daemon answers for a server.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use waypost_core::argument_rule::{ArgumentRule, Comparison};
use waypost_core::grant::{Access, Grant, GrantedNames};
use waypost_core::id::AgentId;
use waypost_ops::agent_tokens::CreateAgentToken;
use waypost_ops::grants::{GrantPatch, NewGrant};
use waypost_ops::{agent_tokens, agents, grants};

use crate::console::instances::Api;
use crate::daemon::{Call, Daemon};

/// What the server of the instance lists and answers.
#[derive(Default)]
struct ServerState {
    is_modern: bool,
    tools: Vec<Value>,
    prompts: Vec<Value>,
    resources: Vec<Value>,
    templates: Vec<Value>,
    /// The messages that it has received, except `initialize`, `server/discover` and lists.
    received: Vec<Value>,
    /// What it answers to calls, one line per message. The placeholder `ID` is the ID of the call.
    answers: Vec<String>,
    lists: usize,
}

/// A product with one instance, whose server a test controls, and an agent.
struct Stage {
    api: Api,
    server: Arc<Mutex<ServerState>>,
    task: JoinHandle<()>,
    instance: String,
    agent: AgentId,
    token: String,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tool(name: &str, description: &str) -> Value {
    json!({ "name": name, "description": description, "inputSchema": { "type": "object" }, "x-vendor": { "b": 1.0 } })
}

impl Stage {
    async fn new() -> Self {
        let api = Api::new().await;
        let entry = json!({ "slug": "search-tool", "name": "Search", "version": "1", "transport": "stdio",
            "source": { "image": format!("registry.example/search@sha256:{}", "ab".repeat(32)) } });
        let entry = api.post("/catalog/import", entry).await.json();
        let created = api.post("/toolboxes", json!({ "name": "rack" })).await.json();
        let toolbox = api.join(created["join"]["token"].as_str().unwrap()).await;
        let daemon = Daemon::connect(&api.app, &toolbox).await;
        let new = json!({ "slug": "search", "catalog_version_id": entry["versions"][0]["id"] });
        let instance = api.post("/instances", new).await.assert_status(202).json();
        let instance = instance["id"].as_str().unwrap().to_owned();
        let server = Arc::new(Mutex::new(ServerState {
            tools: vec![tool("find", "Finds."), tool("delete", "Deletes.")],
            answers: vec![r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[],"n":1.0}}"#.to_owned()],
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

    fn set(&self, change: impl FnOnce(&mut ServerState)) {
        change(&mut self.server.lock().unwrap());
    }

    fn received(&self) -> Vec<Value> {
        std::mem::take(&mut self.server.lock().unwrap().received)
    }

    /// Grants access to the instance.
    async fn grant(&self, access: Access) -> Grant {
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
    async fn approve_all(&self, class: &str) {
        self.api.post(&format!("/instances/{}/check-definitions", self.instance), json!({})).await.assert_status(200);
        let pending = self.api.get("/tool-approvals?state=pending").await;
        for approval in pending["items"].as_array().unwrap() {
            let path = format!("/tool-approvals/{}/approve", approval["id"].as_str().unwrap());
            self.api.post(&path, json!({ "digest": approval["digest"], "class": class })).await.assert_status(200);
        }
    }

    async fn send(
        &self,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (StatusCode, String) {
        let mut request = Request::builder().method(Method::POST).uri(path).header("host", "localhost:8080");
        request = request.header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.api.app.send(request.body(Body::from(body.to_owned())).unwrap()).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Sends a message of 2025-11-25 and returns the text of the answer.
    async fn legacy(&self, text: &str) -> String {
        let headers = [("mcp-protocol-version", "2025-11-25")];
        let (status, text) = self.send("/gateway/mcp", Some(&self.token), &headers, text).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        text
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
        let (status, text) = self.send("/gateway/mcp", Some(&self.token), &headers, &text).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    async fn tools(&self) -> Vec<String> {
        let result = self.legacy_request("tools/list", json!({})).await;
        let tools = result["result"]["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.legacy_request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }
}

/// Answers the requests of the control plane as the bridge of a daemon does.
fn serve(mut daemon: Daemon, server: Arc<Mutex<ServerState>>) -> JoinHandle<()> {
    crate::daemon::spawn(async move {
        loop {
            let mut call = daemon.call().await;
            let message = call.message().await;
            answer(call, &message, &server).await;
        }
    })
}

async fn answer(call: Call, message: &Value, server: &Mutex<ServerState>) {
    let result = |result: Value| json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    let lines: Vec<String> = {
        let mut server = server.lock().unwrap();
        let capabilities = json!({ "tools": {}, "prompts": {}, "resources": {} });
        match message["method"].as_str().unwrap() {
            "initialize" if server.is_modern => {
                vec![
                    json!({ "jsonrpc": "2.0", "id": message["id"], "error": { "code": -32601, "message": "no" } })
                        .to_string(),
                ]
            }
            "initialize" | "server/discover" => {
                vec![result(json!({ "capabilities": capabilities, "instructions": "Be careful." })).to_string()]
            }
            "tools/list" => {
                server.lists += 1;
                vec![result(json!({ "tools": server.tools })).to_string()]
            }
            "prompts/list" => vec![result(json!({ "prompts": server.prompts })).to_string()],
            "resources/list" => vec![result(json!({ "resources": server.resources })).to_string()],
            "resources/templates/list" => vec![result(json!({ "resourceTemplates": server.templates })).to_string()],
            _ => {
                server.received.push(message.clone());
                let id = message["id"].to_string();
                server.answers.iter().map(|line| line.replace("ID", &id)).collect()
            }
        }
    };
    let mut stream = call.open(200);
    for line in lines {
        let _ = waypost_link_io::send(&mut stream, format!("{line}\n").into()).await;
    }
    let _ = stream.send_data(bytes::Bytes::new(), true);
}

const UNKNOWN: &str = r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"Unknown tool"}}"#;

fn is_unknown(answer: &Value) -> bool {
    *answer == serde_json::from_str::<Value>(UNKNOWN).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_granted_and_approved_is_listed_and_called() {
    let stage = Stage::new().await;
    assert_eq!(stage.tools().await, [""; 0], "nothing is granted");
    stage.grant(Access::FullAccess).await;
    assert_eq!(stage.tools().await, [""; 0], "nothing is approved");
    assert!(is_unknown(&stage.call("search__find", json!({})).await));
    assert_eq!(stage.received(), [] as [Value; 0]);
    stage.approve_all("read").await;
    assert_eq!(stage.tools().await, ["search__delete", "search__find"]);
    let answer = stage.call("search__find", json!({ "q": 1 })).await;
    assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": 7, "result": { "content": [], "n": 1.0 } }));
    let received = stage.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0]["params"]["name"], "find", "the server's own name");
    for unknown in ["find", "search__other", "search__", "other__find", ""] {
        assert!(is_unknown(&stage.call(unknown, json!({})).await), "{unknown}");
    }
    assert_eq!(stage.received(), [] as [Value; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_changes_between_two_calls_is_rejected_until_it_is_approved() {
    for is_modern in [false, true] {
        let stage = Stage::new().await;
        stage.set(|server| server.is_modern = is_modern);
        stage.grant(Access::FullAccess).await;
        stage.approve_all("write").await;
        assert!(stage.call("search__find", json!({})).await.get("result").is_some());
        // One nested member of one schema changes.
        stage.set(|server| server.tools[0]["inputSchema"]["properties"] = json!({ "q": { "type": "string" } }));
        stage.received();
        assert!(is_unknown(&stage.call("search__find", json!({})).await));
        assert_eq!(stage.received(), [] as [Value; 0], "the changed tool was not called");
        assert_eq!(stage.tools().await, ["search__delete"]);
        let pending = stage.api.get("/tool-approvals?state=pending").await;
        let approval = &pending["items"][0];
        assert_eq!((&approval["name"], &approval["kind"]), (&json!("find"), &json!("tool")));
        let diff = approval["diff"].as_array().unwrap();
        let added = diff.iter().filter(|line| line["tag"] == "added").map(|line| line["text"].as_str().unwrap().trim());
        assert!(added.clone().any(|line| line == r#""type": "string""#), "{diff:?}");
        stage.approve_all("write").await;
        assert!(stage.call("search__find", json!({})).await.get("result").is_some(), "restored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_limit_the_class_the_names_and_the_time() {
    let stage = Stage::new().await;
    stage.approve_all("write").await;
    let grant = stage.grant(Access::ReadOnly).await;
    assert_eq!(stage.tools().await, [""; 0], "no tool is classified as read");
    let rule = ArgumentRule {
        tool: "find".to_owned(),
        field: "q".to_owned(),
        comparison: Comparison::Equals,
        value: "docs".into(),
    };
    let custom = GrantPatch {
        access: Some(Access::Custom),
        tools: Some(vec!["find".to_owned()]),
        rules: Some(vec![rule]),
        ..GrantPatch::default()
    };
    stage.change(&grant, custom).await;
    assert_eq!(stage.tools().await, ["search__find"]);
    assert!(is_unknown(&stage.call("search__delete", json!({})).await));
    assert!(is_unknown(&stage.call("search__find", json!({ "q": "mail" })).await), "the rule does not match");
    assert!(stage.call("search__find", json!({ "q": "docs" })).await.get("result").is_some());
    let expires_at = stage.api.app.cx().now().plus(60_000);
    let change = GrantPatch { rules: Some(Vec::new()), expires_at: Some(Some(expires_at)), ..GrantPatch::default() };
    stage.change(&grant, change).await;
    assert!(stage.call("search__find", json!({ "q": "mail" })).await.get("result").is_some());
    stage.api.app.advance_clock(60_000).await;
    assert_eq!(stage.tools().await, [""; 0], "the grant has expired");
    assert!(is_unknown(&stage.call("search__find", json!({})).await));
}
