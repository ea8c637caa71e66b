//! Access to instances over the link to their toolbox: tools, calls, logs, statistics, and changes that reach the
//! daemon immediately.

use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use h2::Reason;
use http::{Method, Request};
use serde_json::{Value, json};
use waypost_core::id::ToolboxId;
use waypost_core::organization::Role;
use waypost_toolbox_proto::deployment::DeploymentStep;
use waypost_toolbox_proto::desired::DesiredState;
use waypost_toolbox_proto::instance::InstanceState;
use waypost_toolbox_proto::message::{ControlMessage, DaemonMessage, DeploymentOutcome, InstanceReport, ToolboxEvent};

use super::instances::Api;
use super::{call_with_secret, create_key};
use crate::daemon::{Call, Daemon, cancelled, send_line};

/// A product with a connected toolbox and one instance.
struct Stage {
    api: Api,
    daemon: Daemon,
    toolbox: ToolboxId,
    /// The instance, as returned when it was created.
    instance: Value,
    /// The path of the instance.
    path: String,
}

impl Stage {
    async fn new(sharing: &str) -> Self {
        let api = Api::new().await;
        let entry = json!({ "slug": "search-tool", "name": "Search", "version": "1", "transport": "stdio",
            "sharing": sharing, "source": { "image": format!("registry.example/search@sha256:{}", "ab".repeat(32)) } });
        let entry = api.post("/catalog/import", entry).await.json();
        let created = api.post("/toolboxes", json!({ "name": "rack" })).await.json();
        let toolbox = api.join(created["join"]["token"].as_str().unwrap()).await;
        let mut daemon = Daemon::connect(&api.app, &toolbox).await;
        assert!(desired(&mut daemon).await.instances.is_empty());
        let new = json!({ "slug": "search", "catalog_version_id": entry["versions"][0]["id"] });
        let instance = api.post("/instances", new).await.assert_status(202).json();
        let found = desired(&mut daemon).await;
        assert_eq!(instance["id"], found.instances[0].id, "a change is sent at once");
        let path = format!("/instances/{}", instance["id"].as_str().unwrap());
        Self { api, daemon, toolbox, instance, path }
    }

    /// Requests a resource of the instance, and responds with `status` and `lines`.
    async fn exchange(
        &mut self,
        method: Method,
        resource: &str,
        body: Value,
        responses: &[(u16, &[Value])],
    ) -> Exchange {
        let path = format!("{}/{resource}", self.path);
        let body = (method == Method::POST).then_some(body);
        let daemon = &mut self.daemon;
        let respond = async {
            let mut received = Vec::new();
            for (status, lines) in responses {
                let mut call = daemon.call().await;
                received.push(Received::read(&mut call).await);
                call.respond(*status, lines).await;
            }
            received
        };
        let (response, received) = tokio::join!(self.api.call(method, &path, body), respond);
        Exchange { status: response.status.as_u16(), body: response.json(), received }
    }

    async fn call_tool(&mut self, responses: &[(u16, &[Value])]) -> Exchange {
        let body = json!({ "tool": "search", "arguments": { "q": "x" } });
        self.exchange(Method::POST, "call", body, responses).await
    }

    /// Opens a response that follows a resource.
    async fn follow(&self, key: &str, path: &str) -> Events {
        let request = Request::get(format!("/api/v1{path}"))
            .header("host", "localhost:8080")
            .header("authorization", format!("Bearer {key}"));
        let response = self.api.app.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        Events { stream: response.into_body().into_data_stream(), buffer: String::new() }
    }

    async fn event(&mut self, sequence: u64, event: ToolboxEvent) {
        let at = self.api.app.cx().clock.now().0;
        self.daemon.send(&DaemonMessage::Event { sequence, at, event }).await;
    }

    async fn finish(self) {
        let Self { api, daemon, .. } = self;
        drop(daemon);
        api.app.finish().await;
    }
}

/// A client's request, and the control plane's requests that it caused.
struct Exchange {
    status: u16,
    body: Value,
    received: Vec<Received>,
}

struct Received {
    path: String,
    key: String,
    timeout: String,
    message: Value,
}

impl Received {
    async fn read(call: &mut Call) -> Self {
        let header = |name| call.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (key, timeout) = (header("waypost-container-key"), header("waypost-timeout-ms"));
        let path = call.path().to_owned();
        let message = if path.ends_with("/mcp") { call.message().await.unwrap() } else { Value::Null };
        Self { path, key, timeout, message }
    }
}

/// Server-sent events.
struct Events {
    stream: BodyDataStream,
    buffer: String,
}

impl Events {
    /// Returns the name and data of the next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.buffer = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let Some(data) = field("data:") else { continue };
                let name = field("event:").unwrap_or("message").to_owned();
                return Some((name, serde_json::from_str(data).unwrap()));
            }
            let chunk = self.stream.next().await?.unwrap();
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

/// Returns the next desired state, ignoring acknowledgements.
async fn desired(daemon: &mut Daemon) -> DesiredState {
    loop {
        if let ControlMessage::Desired { state } = daemon.receive().await {
            return state;
        }
    }
}

fn result(value: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "result": value })
}

fn log_line(text: &str) -> Value {
    json!({ "at": 1, "stream": "stderr", "text": text })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_are_listed_as_the_server_describes_them() {
    let mut stage = Stage::new("shared").await;
    let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" }, "x-unknown": [1, null] });
    let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {} });
    let first = [progress, result(json!({ "tools": [tool("a")], "nextCursor": "2" }))];
    let second = [result(json!({ "tools": [tool("b")] }))];
    let found = stage.exchange(Method::GET, "tools", Value::Null, &[(200, &first), (200, &second)]).await;
    assert_eq!((found.status, found.body), (200, json!({ "items": [tool("a"), tool("b")], "next_cursor": null })));
    let messages: Vec<_> =
        found.received.iter().map(|received| (&received.message["method"], &received.message["params"])).collect();
    assert_eq!(messages, [(&json!("tools/list"), &json!({})), (&json!("tools/list"), &json!({ "cursor": "2" }))]);
    assert_eq!(found.received[0].path, format!("/v1{}/mcp", stage.path));
    assert_eq!(found.received[0].timeout, "30000");

    for (answer, reason) in [
        (json!({ "tools": ["a"] }), "no_mcp"),
        (json!({}), "no_mcp"),
        (json!({ "tools": [{ "name": "x".repeat(8 * 1024 * 1024) }] }), "too_large"),
    ] {
        let found = stage.exchange(Method::GET, "tools", Value::Null, &[(200, &[result(answer)])]).await;
        assert_eq!((found.status, &found.body["reason"]), (502, &json!(reason)));
    }
    let endless = [result(json!({ "tools": [], "nextCursor": "again" }))];
    let pages: Vec<(u16, &[Value])> = (0..50).map(|_| (200, &endless[..])).collect();
    let found = stage.exchange(Method::GET, "tools", Value::Null, &pages).await;
    assert_eq!((found.status, &found.body["reason"]), (502, &json!("too_large")), "a list ends after 50 pages");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_returns_the_result_or_the_error_of_the_server() {
    let mut stage = Stage::new("shared").await;
    let answer = json!({ "content": [{ "type": "text", "text": "found" }], "isError": false });
    let found = stage.call_tool(&[(200, &[result(answer.clone())])]).await;
    assert_eq!((found.status, found.body), (200, answer));
    let message = &found.received[0].message;
    assert_eq!(message["method"], "tools/call");
    assert_eq!(message["params"], json!({ "name": "search", "arguments": { "q": "x" } }));
    const AUDIT: &str = "SELECT detail FROM audit_events WHERE act = 'instance.call'";
    assert_eq!(
        stage.api.app.query_lines(AUDIT).await,
        r#"{"slug":"search","tool":"search"}"#,
        "no arguments are recorded"
    );

    for (code, status, name) in [(-32_602, 422, "invalid_arguments"), (-32_000, 502, "tool_server_error")] {
        let text = format!("No\u{202e}such tool.{}", "x".repeat(5_000));
        let error = json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": code, "message": text } });
        let found = stage.call_tool(&[(200, &[error])]).await;
        assert_eq!((found.status, &found.body["code"]), (status, &json!(name)));
        assert_eq!((&found.body["reason"], &found.body["server_code"]), (&json!("server_error"), &json!(code)));
        let detail = found.body["detail"].as_str().unwrap();
        assert!(detail.contains("such tool") && detail.len() < 1_100 && !detail.contains('\u{202e}'), "{detail}");
    }
    for (daemon, status, reason) in [
        (404, 409, "not_deployed"),
        (409, 409, "not_running"),
        (429, 429, "too_many_calls"),
        (502, 502, "no_mcp"),
        (503, 503, "not_available"),
        (504, 502, "timeout"),
    ] {
        let found = stage.call_tool(&[(daemon, &[json!({ "message": "From the daemon." })])]).await;
        assert_eq!((found.status, &found.body["reason"]), (status, &json!(reason)), "{daemon}: {}", found.body);
    }
    for lines in [&[][..], &[json!("text")], &[json!({ "jsonrpc": "2.0", "method": "notifications/message" })]] {
        let found = stage.call_tool(&[(200, lines)]).await;
        assert_eq!((found.status, &found.body["reason"]), (502, &json!("no_mcp")), "{lines:?}");
    }
    let path = format!("{}/call", stage.path);
    for body in [json!({ "tool": "" }), json!({ "tool": "a", "arguments": [1] }), json!({ "tool": "x".repeat(257) })] {
        stage.api.post(&path, body).await.assert_status(422);
    }
    let member = create_key(&stage.api.app, &stage.api.org.id, Role::Member).await;
    let call = Some(json!({ "tool": "a" }));
    call_with_secret(&stage.api.app, &member, Method::POST, &path, call).await.assert_status(403);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_link_is_reported_with_a_reason() {
    let stage = Stage::new("shared").await;
    let Stage { api, mut daemon, path, toolbox, .. } = stage;
    let call_path = format!("{path}/call");
    let call = api.post(&call_path, json!({ "tool": "search" }));
    let cut = async {
        let _call = daemon.call().await;
        drop(daemon);
    };
    let (response, ()) = tokio::join!(call, cut);
    let problem = response.assert_status(503).json();
    assert_eq!((&problem["code"], &problem["reason"]), (&json!("unavailable"), &json!("link_interrupted")));
    // Waits until the control plane notices that the connection has ended.
    while api.app.running_ops().links().is_connected(&toolbox) {
        tokio::task::yield_now().await;
    }
    for resource in ["tools", "logs", "logs?follow=true", "stats"] {
        let response = api.call(Method::GET, &format!("{path}/{resource}"), None).await;
        assert_eq!(response.assert_status(503).json()["reason"], "toolbox_offline", "{resource}");
        assert!(!response.header("retry-after").is_empty());
    }
    api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_and_sessions_have_their_own_containers() {
    for (sharing, is_same) in [("per_agent", true), ("per_session", false)] {
        let mut stage = Stage::new(sharing).await;
        let mut keys = Vec::new();
        for _ in 0..2 {
            keys.push(stage.call_tool(&[(200, &[result(json!({}))])]).await.received.remove(0).key);
        }
        let other = create_key(&stage.api.app, &stage.api.org.id, Role::Admin).await;
        let own = std::mem::replace(&mut stage.api.key, other);
        keys.push(stage.call_tool(&[(200, &[result(json!({}))])]).await.received.remove(0).key);
        assert_eq!(keys[0] == keys[1], is_same, "{sharing}: {keys:?}");
        assert!(keys[2] != keys[0] && keys[2] != keys[1], "{sharing}: {keys:?}");
        assert!(keys.iter().all(|key| key.len() <= 128 && key.starts_with("api:key_") && !key.contains(&own)));
        stage.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_and_statistics_are_read_from_the_toolbox() {
    let mut stage = Stage::new("shared").await;
    let lines = [log_line("one"), log_line("two")];
    let found = stage.exchange(Method::GET, "logs?tail=2", Value::Null, &[(200, &lines)]).await;
    assert_eq!((found.status, found.body), (200, json!({ "items": lines, "next_cursor": null })));
    assert_eq!(found.received[0].path, format!("/v1{}/logs?tail=2&follow=false", stage.path));
    let found = stage.exchange(Method::GET, "logs?tail=1", Value::Null, &[(200, &lines)]).await;
    assert_eq!(found.body["items"], json!([lines[1]]), "the end is kept if the daemon sends more than requested");
    let sample = json!({ "at": 1, "cpu_percent": 12.5, "memory_bytes": 3, "network_received_bytes": 4,
        "network_sent_bytes": 5, "pids": 6 });
    let found = stage.exchange(Method::GET, "stats", Value::Null, &[(200, &[sample.clone(), sample.clone()])]).await;
    assert_eq!((found.status, found.body), (200, json!({ "items": [sample, sample], "next_cursor": null })));
    let found = stage.exchange(Method::GET, "stats", Value::Null, &[(404, &[json!({ "message": "No." })])]).await;
    assert_eq!((found.status, &found.body["reason"]), (409, &json!("not_deployed")));
    for query in ["tail=2001", "tail=-1", "tail=x", "follow=2", "other=1"] {
        stage.api.call(Method::GET, &format!("{}/logs?{query}", stage.path), None).await.assert_status(422);
    }
    let member = create_key(&stage.api.app, &stage.api.org.id, Role::Member).await;
    let path = format!("{}/logs?follow=true", stage.path);
    call_with_secret(&stage.api.app, &member, Method::GET, &path, None).await.assert_status(403);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_until_the_client_disconnects_or_loses_access() {
    let mut stage = Stage::new("shared").await;
    let path = format!("{}/logs?follow=true", stage.path);
    let open = async |stage: &mut Stage, key: &str| {
        let daemon = &mut stage.daemon;
        let respond = async { daemon.call().await.open(200) };
        let app = stage.api.app.clone();
        let request = Request::get(format!("/api/v1{path}"))
            .header("host", "localhost:8080")
            .header("authorization", format!("Bearer {key}"));
        let (response, stream) = tokio::join!(app.send(request.body(Body::empty()).unwrap()), respond);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        (Events { stream: response.into_body().into_data_stream(), buffer: String::new() }, stream)
    };
    let own = stage.api.key.clone();
    let (mut events, mut stream) = open(&mut stage, &own).await;
    for text in ["one", "two\n\nlines"] {
        send_line(&mut stream, &log_line(text)).await;
        assert_eq!(events.next().await, Some(("message".to_owned(), log_line(text))));
    }
    drop(events);
    assert_eq!(cancelled(stream).await, Reason::CANCEL, "the client has disconnected");

    let other = create_key(&stage.api.app, &stage.api.org.id, Role::Admin).await;
    let (mut events, _stream) = open(&mut stage, &other).await;
    stage.api.app.execute("DELETE FROM api_keys WHERE name <> 'key 0'").await;
    let (name, problem) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &problem["code"]), ("error", &json!("sign_in_required")));
    assert_eq!(events.next().await, None);

    let (mut events, stream) = open(&mut stage, &own).await;
    stage.api.call(Method::DELETE, &stage.path, None).await.assert_status(202);
    let (name, problem) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &problem["code"]), ("error", &json!("not_found")), "the instance is being removed");
    assert_eq!(events.next().await, None);
    drop(events);
    assert_eq!(cancelled(stream).await, Reason::CANCEL);
    stage.finish().await;
}

/// The operator's socket has no credentials to check again, but the instance is still checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_follows_a_log_and_calls_a_tool() {
    let mut stage = Stage::new("shared").await;
    let organization = stage.api.org.id.to_string();
    let request = |method: Method, resource: &str, body: Body| {
        Request::builder()
            .method(method)
            .uri(format!("/api/v1{}/{resource}", stage.path))
            .header("waypost-organization", &organization)
            .header("content-type", "application/json")
            .body(body)
            .unwrap()
    };
    let follow = request(Method::GET, "logs?follow=true", Body::empty());
    let call = request(Method::POST, "call", Body::from("{\"tool\": \"search\"}"));
    let (app, daemon) = (stage.api.app.clone(), &mut stage.daemon);
    let (response, mut stream) = tokio::join!(app.send_as_operator(follow), async { daemon.call().await.open(200) });
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = Events { stream: response.into_body().into_data_stream(), buffer: String::new() };
    send_line(&mut stream, &log_line("one")).await;
    assert_eq!(events.next().await, Some(("message".to_owned(), log_line("one"))));
    let respond = async {
        let mut call = daemon.call().await;
        let received = Received::read(&mut call).await;
        call.respond(200, &[result(json!({ "content": [] }))]).await;
        received
    };
    let (response, received) = tokio::join!(app.send_as_operator(call), respond);
    assert_eq!((response.status().as_u16(), received.message["params"]["name"].as_str()), (200, Some("search")));
    let entry = stage.api.call(Method::GET, "/audit-events?act=instance.call", None).await.json()["items"][0].take();
    assert_eq!(entry["actor"], "operator", "{entry}");
    stage.api.call(Method::DELETE, &stage.path, None).await.assert_status(202);
    let (name, problem) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &problem["code"]), ("error", &json!("not_found")));
    drop((events, stream, app));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_open_responses_is_limited() {
    let stage = Stage::new("shared").await;
    let deployment = stage.instance["deployment"]["id"].as_str().unwrap();
    let path = format!("{}/deployments/{deployment}?follow=true", stage.path);
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(stage.follow(&stage.api.key, &path).await);
    }
    let response = stage.api.call(Method::GET, &path, None).await;
    assert_eq!(response.assert_status(429).json()["code"], "rate_limited");
    drop(open.pop());
    open.push(stage.follow(&stage.api.key, &path).await);
    // The process stops.
    stage.api.app.running_ops().links().close_all();
    for mut events in open {
        while let Some((name, _)) = events.next().await {
            assert_eq!(name, "message");
        }
    }
    stage.daemon.closed().await;
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_is_followed_until_it_has_ended() {
    let mut stage = Stage::new("shared").await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (id, deployment_id) = (text(&stage.instance["id"]), text(&stage.instance["deployment"]["id"]));
    let path = format!("{}/deployments/{deployment_id}", stage.path);
    let mut events = stage.follow(&stage.api.key, &format!("{path}?follow=true")).await;
    let (name, first) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &first), ("message", &stage.instance["deployment"]));
    let progress = ToolboxEvent::DeploymentStep {
        deployment_id: deployment_id.clone(),
        instance_id: id.clone(),
        step: DeploymentStep::Pulling,
    };
    stage.event(1, progress).await;
    assert_eq!(events.next().await.unwrap().1["step"], "pulling");
    let outcome = DeploymentOutcome::Complete;
    stage.event(2, ToolboxEvent::DeploymentEnded { deployment_id, instance_id: id.clone(), outcome }).await;
    let (_, last) = events.next().await.unwrap();
    assert_eq!(last["state"], "complete");
    assert_eq!(events.next().await, None);
    assert_eq!(stage.api.get(&path).await, last);
    let mut ended = stage.follow(&stage.api.key, &format!("{path}?follow=true")).await;
    assert_eq!(ended.next().await.unwrap().1, last);
    assert_eq!(ended.next().await, None);
    let report = InstanceReport { id, generation: 1, state: InstanceState::Running, health: None };
    stage.event(3, ToolboxEvent::Instance(report)).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_sent_to_the_daemon_immediately() {
    let mut stage = Stage::new("shared").await;
    let path = stage.path.clone();
    stage.api.post(&format!("{path}/stop"), json!({})).await.assert_status(200);
    assert!(!desired(&mut stage.daemon).await.instances[0].run);
    stage.api.post(&format!("{path}/start"), json!({})).await.assert_status(200);
    assert!(desired(&mut stage.daemon).await.instances[0].run);
    stage.api.post(&format!("{path}/restart"), json!({})).await.assert_status(200);
    assert_eq!(desired(&mut stage.daemon).await.instances[0].restarts, 1);
    let change = Some(json!({ "config": { "lang": "de" } }));
    stage.api.call(Method::PATCH, &path, change).await.assert_status(200);
    assert_eq!(desired(&mut stage.daemon).await.instances[0].generation, 2);
    stage.api.call(Method::DELETE, &path, None).await.assert_status(202);
    assert!(desired(&mut stage.daemon).await.instances.is_empty());
    let toolbox = format!("/toolboxes/{}", stage.toolbox);
    stage.api.post(&format!("{toolbox}/rotate-key"), json!({})).await.assert_status(200);
    assert!(matches!(stage.daemon.receive().await, ControlMessage::RotateKey));
    stage.api.post(&format!("{toolbox}/revoke"), json!({})).await.assert_status(200);
    assert!(!stage.api.app.running_ops().links().is_connected(&stage.toolbox));
    stage.daemon.closed().await;
    stage.api.app.finish().await;
}
