//! Remote servers: an HTTP server of the tests that is connected with the REST API and used through the gateway.

mod announcements;
mod entries;
mod faults;
mod forwarded_headers;
mod lists;
mod results;
mod server;
mod subscriptions;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::IntoResponse;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use waypost_gateway::GatewayOptions;
use waypost_ops::instances::containers::ContainerKey;
use waypost_ops::instances::exchange::{Exchange, ExchangeTarget};
use waypost_ops::instances::{self, advance_rotations};
use waypost_ops::remote_checks;
use waypost_outbound::Allowance;

use self::server::Server;
use super::tool;
use crate::app::Setup;
use crate::console::instances::Api;

async fn json_of(response: Response<Body>) -> Value {
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// A product that may reach loopback, and an agent without grants.
pub(super) struct Stage {
    pub(super) api: Api,
    pub(super) token: String,
    agent: String,
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::with(|options| options).await
    }

    /// Returns a stage whose gateway has changed options.
    pub(super) async fn with(change: impl FnOnce(GatewayOptions) -> GatewayOptions) -> Self {
        let allow: Vec<Allowance> = vec!["127.0.0.0/8=tools".parse().unwrap()];
        let setup = Setup::default();
        let gateway = setup.gateway.map(change);
        let api = Api::with(Setup { allow, gateway, ..setup }).await;
        let agent = api.post("/agents", json!({ "name": "ci" })).await.assert_status(201).json();
        let agent = agent["id"].as_str().unwrap().to_owned();
        let token = api.post(&format!("/agents/{agent}/tokens"), json!({ "name": "main" })).await.json();
        Self { token: token["token"].as_str().unwrap().to_owned(), agent, api }
    }

    /// Checks the remote servers that are due.
    async fn check(&self) {
        remote_checks::check_due(self.api.app.cx(), &self.api.app.running_ops()).await.unwrap();
    }

    async fn instance(&self, id: &str) -> Value {
        self.api.get(&format!("/instances/{id}")).await
    }

    async fn connect(&self, url: &str) -> String {
        let new = json!({ "slug": "far", "remote": { "url": url } });
        let created = self.api.post("/instances", new).await.assert_status(202).json();
        created["id"].as_str().unwrap().to_owned()
    }

    /// Connects to a server, grants everything and approves the definitions that it lists.
    pub(super) async fn ready(&self, url: &str) -> String {
        let id = self.connect(url).await;
        self.check().await;
        let grant = json!({ "agent_id": self.agent, "instance_id": id, "access": "full_access" });
        self.api.post("/grants", grant).await.assert_status(201);
        self.approve().await;
        id
    }

    async fn approve(&self) {
        self.approve_as("read").await;
    }

    /// Approves all pending definitions with this class.
    pub(super) async fn approve_as(&self, class: &str) {
        let pending = self.api.get("/tool-approvals?state=pending").await;
        for approval in pending["items"].as_array().unwrap() {
            let path = format!("/tool-approvals/{}/approve", approval["id"].as_str().unwrap());
            self.api.post(&path, json!({ "digest": approval["digest"], "class": class })).await.assert_status(200);
        }
    }

    /// Creates another agent with access to the first instance, and returns its token.
    pub(super) async fn other_agent(&self, name: &str) -> String {
        let agent = self.api.post("/agents", json!({ "name": name })).await.assert_status(201).json();
        if let Some(instance) = self.api.get("/instances").await["items"].as_array().unwrap().first() {
            let grant = json!({ "agent_id": agent["id"], "instance_id": instance["id"], "access": "full_access" });
            self.api.post("/grants", grant).await.assert_status(201);
        }
        let path = format!("/agents/{}/tokens", agent["id"].as_str().unwrap());
        self.api.post(&path, json!({ "name": "main" })).await.json()["token"].as_str().unwrap().to_owned()
    }

    /// Sends a request with these headers.
    async fn send(&self, method: Method, headers: &[(&str, &str)], text: String) -> Response<Body> {
        let mut request = http::Request::builder().method(method).uri("/gateway/mcp").header("host", "localhost:8080");
        request = request.header("content-type", "application/json");
        request = request.header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.api.app.send(request.body(text.into()).unwrap()).await
    }

    async fn request(&self, text: String) -> Value {
        json_of(self.send(Method::POST, &[("x-own", "1")], text).await).await
    }

    /// Checks the definitions of all servers.
    pub(super) async fn check_definitions(&self) {
        for instance in self.api.get("/instances").await["items"].as_array().unwrap() {
            let path = format!("/instances/{}/check-definitions", instance["id"].as_str().unwrap());
            self.api.post(&path, json!({})).await.assert_status(200);
        }
    }

    pub(super) async fn call(&self) -> Value {
        let params = json!({ "name": "far__find", "arguments": { "q": 1 } });
        self.request(json!({ "jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": params }).to_string()).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_server_is_tested_and_used_in_both_protocol_eras() {
    for is_modern in [false, true] {
        let (stage, server) = (Stage::new().await, Server::start().await);
        server.set(|state| state.is_modern = is_modern);
        let id = stage.connect(&server.url).await;
        assert_eq!(stage.instance(&id).await["state"], "deploying", "it counts as running after the test");
        stage.check().await;
        let instance = stage.instance(&id).await;
        assert_eq!((&instance["state"], &instance["health"]["ok"]), (&json!("running"), &json!(true)));
        let origin = server.url.trim_end_matches("/mcp?key=s3cr3t");
        assert_eq!(
            instance["remote"],
            json!({ "origin": origin, "transport": "streamable_http", "oauth": false, "connection": "shared",
            "client_id": null, "client_secret_id": null })
        );
        assert_eq!((&instance["toolbox_id"], &instance["catalog_version_id"]), (&Value::Null, &Value::Null));
        assert!(server.state.lock().unwrap().paths.iter().all(|path| path == "/mcp?key=s3cr3t"));
        let grant = json!({ "agent_id": stage.agent, "instance_id": id, "access": "full_access" });
        stage.api.post("/grants", grant).await.assert_status(201);
        assert_eq!(stage.call().await["error"]["message"], "Unknown tool", "nothing is approved yet");
        stage.approve().await;
        assert_eq!(stage.call().await, json!({ "jsonrpc": "2.0", "id": "x", "result": { "content": [], "n": 1.0 } }));
        let (headers, body) = server.calls().pop().unwrap();
        assert_eq!((&body["params"]["name"], &body["params"]["arguments"]), (&json!("find"), &json!({ "q": 1 })));
        assert_eq!(headers.get("mcp-name").map(|name| name.to_str().unwrap()), is_modern.then_some("find"));
        assert!(headers.get("authorization").is_none() && headers.get("x-own").is_none());
        // The tool changes between two calls.
        server.set(|state| state.tools[0]["inputSchema"]["properties"] = json!({ "q": { "type": "number" } }));
        stage.api.post(&format!("/instances/{id}/check-definitions"), json!({})).await.assert_status(200);
        assert_eq!(stage.call().await["error"]["message"], "Unknown tool");
        stage.approve().await;
        assert_eq!(stage.call().await["result"]["n"], 1.0);
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_server_is_approved_and_granted_in_one_step() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    let grants = json!([{ "agent_id": stage.agent, "access": "read_only" }]);
    let new =
        json!({ "slug": "far", "remote": { "url": server.url }, "approve": { "class": "read" }, "grants": grants });
    stage.api.post("/instances", new).await.assert_status(202);
    assert_eq!(stage.call().await["error"]["message"], "Unknown tool", "not before its first check");
    stage.check().await;
    assert_eq!(stage.call().await["result"]["n"], 1.0);
    server.set(|state| state.tools[0]["inputSchema"]["properties"] = json!({ "q": { "type": "number" } }));
    stage.check_definitions().await;
    assert_eq!(stage.call().await["error"]["message"], "Unknown tool", "it was changed after its first check");
    // The definitions of a server that fails at first are not approved when it recovers.
    let (late, url) = (Server::start().await, "http://127.0.0.1:9/mcp");
    let new = json!({ "slug": "late", "remote": { "url": url }, "approve": {} });
    let id = stage.api.post("/instances", new).await.assert_status(202).json()["id"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        stage.check().await;
        stage.api.app.advance_clock(2_000).await;
    }
    assert_eq!(stage.instance(&id).await["state"], "failed");
    let moved = json!({ "remote": { "url": late.url } });
    stage.api.call(Method::PATCH, &format!("/instances/{id}"), Some(moved)).await.assert_status(200);
    stage.check().await;
    assert_eq!(stage.instance(&id).await["state"], "running");
    let pending = stage.api.get(&format!("/tool-approvals?state=approved&instance_id={id}")).await;
    assert_eq!(pending["items"], json!([]));
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_sent_as_headers_and_rotated_secrets_are_used() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    let secret = json!({ "name": "far-token", "value": "Bearer one" });
    let secret = stage.api.post("/secrets", secret).await.assert_status(201).json()["id"].clone();
    let new = json!({ "slug": "far", "remote": { "url": server.url }, "secrets": { "Authorization": secret } });
    let id = stage.api.post("/instances", new).await.assert_status(202).json()["id"].as_str().unwrap().to_owned();
    stage.check().await;
    let header = || {
        let state = server.state.lock().unwrap();
        state.received.last().unwrap().0["authorization"].to_str().unwrap().to_owned()
    };
    assert_eq!(header(), "Bearer one");
    let path = format!("/secrets/{}", secret.as_str().unwrap());
    stage.api.call(Method::DELETE, &path, None).await.assert_status(409);
    stage.api.post(&format!("{path}/rotate"), json!({ "value": "Bearer two" })).await.assert_status(200);
    advance_rotations(stage.api.app.cx(), &stage.api.app.running_ops()).await.unwrap();
    stage.check().await;
    assert_eq!(header(), "Bearer two");
    for name in ["Mcp-Session-Id", "Host", "content-type", "a b"] {
        let new = json!({ "slug": "other", "remote": { "url": server.url }, "secrets": { name: secret } });
        stage.api.post("/instances", new).await.assert_status(422);
    }
    assert_eq!(stage.instance(&id).await["state"], "running");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_used_fails_after_three_attempts_and_recovers() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    server.set(|state| state.status = 401);
    let id = stage.connect(&server.url).await;
    // The next attempts are one, two and thirty seconds later.
    for (state, delay) in [("deploying", 1_000), ("deploying", 2_000), ("failed", 30_000)] {
        stage.check().await;
        let instance = stage.instance(&id).await;
        assert_eq!(instance["state"], state);
        let message = instance["health"]["message"].as_str().unwrap();
        assert_eq!(message, "The server rejected the credentials. Check the secrets of the instance.");
        let attempts = server.state.lock().unwrap().paths.len();
        stage.api.app.advance_clock(delay - 1).await;
        stage.check().await;
        assert_eq!(server.state.lock().unwrap().paths.len(), attempts, "it is not due yet");
        stage.api.app.advance_clock(1).await;
    }
    server.set(|state| state.status = 200);
    // The failed attempt also applies to later attempts within the same second.
    tokio::time::timeout(Duration::from_secs(20), async {
        while stage.instance(&id).await["state"] != "running" {
            stage.check().await;
            stage.api.app.advance_clock(30_000).await;
        }
    })
    .await
    .expect("the server recovers");
    let events = stage.api.get(&format!("/instances/{id}/events")).await;
    let messages: Vec<_> = events["items"].as_array().unwrap().iter().map(|event| event["message"].clone()).collect();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0], "running");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_is_replaced_without_the_agent_noticing() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    let id = stage.ready(&server.url).await;
    assert_eq!(stage.call().await["result"]["n"], 1.0);
    server.set(|state| state.sessions += 1);
    assert_eq!(stage.call().await["result"]["n"], 1.0);
    // A redirect is not followed, and the URL is not revealed.
    server.set(|state| state.status = 307);
    let failed = stage.call().await;
    assert_eq!(failed["error"]["data"]["reason"], "redirect", "{failed}");
    assert!(!failed.to_string().contains("s3cr3t"));
    server.set(|state| state.status = 200);
    stage.api.post(&format!("/instances/{id}/stop"), json!({})).await.assert_status(200);
    let stopped = stage.call().await;
    assert_eq!(stopped["error"]["data"]["reason"], "not_running", "{stopped}");
    stage.api.call(Method::DELETE, &format!("/instances/{id}"), None).await.assert_status(202);
    stage.api.call(Method::GET, &format!("/instances/{id}"), None).await.assert_status(404);
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_urls_and_operations_are_rejected() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    let create = async |body: Value| stage.api.post("/instances", body).await;
    for url in [
        "",
        "far",
        "ftp://far.example/mcp",
        "http://10.0.0.1/mcp",
        "https://u:p@far.example/mcp",
        "https://far.example/#a",
    ] {
        create(json!({ "slug": "far", "remote": { "url": url } })).await.assert_status(422);
    }
    create(json!({ "slug": "far", "remote": { "url": "https://far.example", "transport": "stdio" } }))
        .await
        .assert_status(422);
    create(json!({ "slug": "far", "remote": { "url": server.url }, "toolbox_id": "tbx_0123456789abcdef" }))
        .await
        .assert_status(422);
    create(json!({ "slug": "far" })).await.assert_status(422);
    let id = stage.connect(&server.url).await;
    for (path, status) in [("logs", 409), ("stats", 409), ("deployments", 200)] {
        stage.api.call(Method::GET, &format!("/instances/{id}/{path}"), None).await.assert_status(status);
    }
    let patch = async |body: Value| stage.api.call(Method::PATCH, &format!("/instances/{id}"), Some(body)).await;
    patch(json!({ "config": { "a": 1 } })).await.assert_status(422);
    patch(json!({ "name": "Far away" })).await.assert_status(200);
    assert_eq!(stage.instance(&id).await["generation"], 1);
    patch(json!({ "remote": { "url": server.url, "transport": "sse" } })).await.assert_status(200);
    let changed = stage.instance(&id).await;
    assert_eq!((&changed["generation"], &changed["remote"]["transport"]), (&json!(2), &json!("sse")));
    let stored = stage.api.app.query_lines("SELECT remote_url FROM instances").await;
    assert!(!stored.contains("s3cr3t"));
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_has_read_an_earlier_version_connects_to_the_current_url() {
    let (stage, earlier, current) = (Stage::new().await, Server::start().await, Server::start().await);
    let id = stage.connect(&earlier.url).await;
    stage.check().await;
    let (cx, ops, org) = (stage.api.app.cx(), stage.api.app.running_ops(), &stage.api.org.id);
    let old = instances::get(cx, &ops, org, &id.parse().unwrap()).await.unwrap().instance;
    let patch = json!({ "remote": { "url": current.url } });
    stage.api.call(Method::PATCH, &format!("/instances/{id}"), Some(patch)).await.assert_status(200);
    stage.check().await;
    assert_eq!(stage.instance(&id).await["state"], "running");
    // The connection is lost, and the next caller does not know of the change yet.
    current.set(|state| state.forgets = true);
    let container = ContainerKey::new(String::new());
    let send = async || {
        let target = ExchangeTarget::new(&old, &container);
        let message = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
        let limits = (Duration::from_secs(20), 1024 * 1024);
        Exchange::open(&ops, target, message.into(), limits).await?.next().await
    };
    assert_eq!(send().await.unwrap_err().details["reason"], "no_mcp");
    let count = |server: &Server| server.state.lock().unwrap().paths.len();
    let before = (count(&earlier), count(&current));
    current.set(|state| state.forgets = false);
    assert!(send().await.unwrap().is_some());
    assert_eq!(count(&earlier), before.0);
    assert!(count(&current) > before.1);
    stage.api.app.clone().finish().await;
}

/// Starts a server with HTTP+SSE (2024-11-05): GET opens the stream, whose first event contains the URL for messages.
async fn start_sse() -> String {
    type Stream = Arc<Mutex<Option<tokio::sync::mpsc::UnboundedSender<String>>>>;
    let stream: Stream = Arc::default();
    let open = Arc::clone(&stream);
    let get = move || {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        sender.send("event: endpoint\ndata: /messages?session=1\n\n".to_owned()).unwrap();
        *open.lock().unwrap() = Some(sender);
        let events = futures::stream::unfold(receiver, |mut receiver| async {
            Some((Ok::<_, std::convert::Infallible>(receiver.recv().await?), receiver))
        });
        async move { ([("content-type", "text/event-stream")], axum::body::Body::from_stream(events)).into_response() }
    };
    let post = move |body: Bytes| {
        let message: Value = serde_json::from_slice(&body).unwrap();
        let result = match message["method"].as_str().unwrap_or_default() {
            "initialize" => json!({ "protocolVersion": "2024-11-05", "capabilities": { "tools": {} },
                "serverInfo": { "name": "s", "version": "1" } }),
            "tools/list" => json!({ "tools": [tool("find", "Finds.")] }),
            _ => json!({ "content": [] }),
        };
        if message["id"].is_number() {
            let response = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
            stream.lock().unwrap().as_ref().unwrap().send(format!("event: message\ndata: {response}\n\n")).unwrap();
        }
        async { StatusCode::ACCEPTED }
    };
    let router = Router::new().route("/sse", axum::routing::get(get)).route("/messages", axum::routing::post(post));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/sse", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_the_old_transport_can_be_used() {
    let (stage, url) = (Stage::new().await, start_sse().await);
    let new = json!({ "slug": "far", "remote": { "url": url, "transport": "sse" } });
    let id = stage.api.post("/instances", new).await.assert_status(202).json()["id"].as_str().unwrap().to_owned();
    stage.check().await;
    assert_eq!(stage.instance(&id).await["state"], "running");
    let grant = json!({ "agent_id": stage.agent, "instance_id": id, "access": "full_access" });
    stage.api.post("/grants", grant).await.assert_status(201);
    stage.approve().await;
    assert_eq!(stage.call().await, json!({ "jsonrpc": "2.0", "id": "x", "result": { "content": [] } }));
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_running_is_not_called() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    let id = stage.connect(&server.url).await;
    let call = async |path: &str, body: Value| stage.api.post(&format!("/instances/{id}/{path}"), body).await;
    // At first the server has not been tested, then it is stopped.
    for is_new in [true, false] {
        let rejected = call("call", json!({ "tool": "find", "arguments": {} })).await;
        assert_eq!(rejected.assert_status(409).json()["reason"], "not_running");
        call("check-definitions", json!({})).await.assert_status(409);
        assert_eq!(server.state.lock().unwrap().paths.len(), 0);
        if is_new {
            stage.check().await;
            call("call", json!({ "tool": "find", "arguments": {} })).await.assert_status(200);
            call("stop", json!({})).await.assert_status(200);
            server.set(|state| state.paths.clear());
        }
    }
    stage.api.app.clone().finish().await;
}
