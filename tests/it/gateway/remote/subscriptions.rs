//! Subscriptions of agents to individual resources of remote servers, with agents and servers of both protocol eras.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use waypost_gateway::GatewayOptions;

use super::super::listen::Stream;
use super::server::Server;
use super::{Stage, json_of};

const UPDATED: &str = "notifications/resources/updated";
const A: &str = "wp+far:file:///a";
const B: &str = "wp+far:file:///b";

fn resource(name: &str) -> Value {
    json!({ "uri": format!("file:///{name}"), "name": name })
}

/// Returns a stage and a server with the resources `a` and `b`, which are approved.
async fn stage(is_modern: bool) -> (Stage, Server, String) {
    let (stage, server) = (Stage::new().await, Server::start().await);
    server.set(|state| {
        (state.is_modern, state.has_stream) = (is_modern, true);
        state.resources = vec![resource("a"), resource("b")];
    });
    let id = stage.ready(&server.url).await;
    (stage, server, id)
}

/// An agent that uses a session.
struct Session<'a> {
    stage: &'a Stage,
    id: String,
    /// The result of `initialize`.
    server: Value,
}

impl<'a> Session<'a> {
    async fn begin(stage: &'a Stage) -> Self {
        let text = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} }).to_string();
        let response = stage.send(Method::POST, &[], text).await;
        let id = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
        Self { stage, id, server: json_of(response).await["result"].clone() }
    }

    async fn send(&self, method: Method, text: String) -> http::Response<axum::body::Body> {
        let headers = [("mcp-session-id", self.id.as_str()), ("accept", "text/event-stream")];
        self.stage.send(method, &headers, text).await
    }

    async fn request(&self, method: &str, uri: &str) -> Value {
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": { "uri": uri } }).to_string();
        json_of(self.send(Method::POST, text).await).await
    }

    async fn subscribe(&self, uri: &str) -> Value {
        self.request("resources/subscribe", uri).await
    }

    async fn listen(&self) -> Stream {
        Stream::new(self.send(Method::GET, String::new()).await)
    }
}

impl Stage {
    async fn send_listen(&self, uris: &Value) -> http::Response<axum::body::Body> {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {} });
        let params = json!({ "notifications": { "resourceSubscriptions": uris }, "_meta": meta });
        let text =
            json!({ "jsonrpc": "2.0", "id": "l", "method": "subscriptions/listen", "params": params }).to_string();
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "subscriptions/listen")];
        self.send(Method::POST, &headers, text).await
    }

    /// Opens a stream of 2026-07-28. Returns the stream and the acknowledged resources.
    async fn listen(&self, uris: &[&str]) -> (Stream, Value) {
        let mut stream = Stream::new(self.send_listen(&json!(uris)).await);
        let first = stream.next().await.unwrap();
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        (stream, first["params"]["notifications"]["resourceSubscriptions"].clone())
    }
}

fn legacy_update(uri: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": UPDATED, "params": { "uri": uri } })
}

fn modern_update(uri: &str) -> Value {
    let meta = json!({ "io.modelcontextprotocol/subscriptionId": "l" });
    json!({ "jsonrpc": "2.0", "method": UPDATED, "params": { "uri": uri, "_meta": meta } })
}

/// Returns the resources to which the gateway is subscribed from the server's point of view.
fn subscribed(state: &super::server::ServerState) -> Vec<String> {
    let text = |uri: &Value| uri.as_str().unwrap().to_owned();
    if state.is_modern {
        let last = state.params("subscriptions/listen").pop().unwrap_or_default();
        return last["notifications"]["resourceSubscriptions"].as_array().into_iter().flatten().map(text).collect();
    }
    let mut uris = Vec::new();
    for (_, body) in &state.received {
        let uri = || text(&body["params"]["uri"]);
        match body["method"].as_str() {
            Some("resources/subscribe") => uris.push(uri()),
            Some("resources/unsubscribe") => uris.retain(|other| *other != uri()),
            _ => {}
        }
    }
    uris
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_of_both_protocol_eras_are_notified_of_updated_resources_of_servers_of_both_eras() {
    for is_modern in [false, true] {
        let (stage, server, _) = stage(is_modern).await;
        let session = Session::begin(&stage).await;
        assert_eq!(session.server["capabilities"]["resources"], json!({ "listChanged": true, "subscribe": true }));
        let mut legacy = session.listen().await;
        assert_eq!(session.subscribe(A).await["result"], json!({}));
        assert_eq!(session.subscribe(A).await["result"], json!({}), "once more");
        let (mut modern, accepted) = stage.listen(&[B, A, B, "wp+far:file:///unknown"]).await;
        assert_eq!(accepted, json!([B, A]));
        server.wait_until(|state| subscribed(state).len() == 2 && state.streams() == 1).await;
        // No agent is subscribed to the first two, and the server does not use the third URI.
        for uri in ["file:///c", "file:///a/b", A] {
            server.update(uri);
        }
        server.update("file:///a");
        assert_eq!(legacy.next().await.unwrap(), legacy_update(A));
        assert_eq!(modern.next().await.unwrap(), modern_update(A));
        // The session is not subscribed to b.
        server.update("file:///b");
        assert_eq!(modern.next().await.unwrap(), modern_update(B));
        server.update("file:///a");
        assert_eq!(legacy.next().await.unwrap(), legacy_update(A));
        assert_eq!(modern.next().await.unwrap(), modern_update(A));
        // The gateway stays subscribed as long as an agent is subscribed.
        drop(modern);
        server.wait_until(|state| subscribed(state) == ["file:///a"]).await;
        server.update("file:///a");
        assert_eq!(legacy.next().await.unwrap(), legacy_update(A));
        assert_eq!(session.request("resources/unsubscribe", A).await["result"], json!({}));
        assert_eq!(session.request("resources/unsubscribe", A).await["result"], json!({}), "once more");
        server.wait_until(|state| subscribed(state).is_empty()).await;
        // The subscriptions end with the session.
        session.subscribe(B).await;
        server.wait_until(|state| subscribed(state) == ["file:///b"]).await;
        assert_eq!(session.send(Method::DELETE, String::new()).await.status(), StatusCode::NO_CONTENT);
        server.wait_until(|state| subscribed(state).is_empty()).await;
        drop(legacy);
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_subscription_does_not_count_towards_the_quota() {
    let stage = Stage::with(|options| GatewayOptions { calls_per_hour: 1, ..options }).await;
    let server = Server::start().await;
    server.set(|state| {
        state.has_stream = true;
        state.resources = vec![resource("a"), resource("b")];
    });
    stage.ready(&server.url).await;
    let session = Session::begin(&stage).await;
    for _ in 0..3 {
        assert_eq!(session.subscribe(A).await["result"], json!({}));
    }
    assert_eq!(session.subscribe(B).await["error"]["data"]["reason"], "quota_exceeded");
    // Another session does not share the subscriptions.
    let other = Session::begin(&stage).await;
    assert_eq!(other.subscribe(A).await["error"]["data"]["reason"], "quota_exceeded");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_before_a_session_has_a_stream_is_delivered_once() {
    let (stage, server, _) = stage(false).await;
    let session = Session::begin(&stage).await;
    assert_eq!(session.subscribe(A).await["result"], json!({}));
    assert_eq!(session.subscribe(B).await["result"], json!({}));
    server.update("file:///a");
    server.update("file:///a");
    let mut stream = session.listen().await;
    assert_eq!(stream.next().await.unwrap(), legacy_update(A));
    server.update("file:///b");
    assert_eq!(stream.next().await.unwrap(), legacy_update(B), "and a not twice");
    // Another session of the same agent is not subscribed.
    let other = Session::begin(&stage).await;
    let mut silent = other.listen().await;
    other.subscribe(B).await;
    server.update("file:///a");
    server.update("file:///b");
    assert_eq!(silent.next().await.unwrap(), legacy_update(B));
    drop((stream, silent));
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_stream_of_the_server_is_reopened_with_all_subscriptions() {
    for is_modern in [false, true] {
        let (stage, server, _) = stage(is_modern).await;
        let (mut stream, _) = stage.listen(&[A]).await;
        server.set(|state| {
            state.received.clear();
            state.sessions += 1;
            state.close_streams();
        });
        // In the era with a handshake, the first attempt is rejected, because the session has ended.
        server.wait_until(|state| subscribed(state).contains(&"file:///a".to_owned()) && state.streams() == 1).await;
        server.update("file:///a");
        assert_eq!(stream.next().await.unwrap(), modern_update(A));
        drop(stream);
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_are_not_notified_of_resources_that_they_may_not_read() {
    for is_modern in [false, true] {
        let (stage, server, id) = stage(is_modern).await;
        let session = Session::begin(&stage).await;
        // Resources that are not approved or do not exist.
        server.set(|state| state.resources.push(resource("c")));
        stage.check_definitions().await;
        for uri in ["wp+far:file:///c", "wp+far:file:///d", "wp+other:file:///a", "file:///a"] {
            let answer = session.subscribe(uri).await;
            let error = json!({ "code": -32602, "message": "Unknown resource", "data": { "uri": uri } });
            assert_eq!(answer["error"], error);
            assert_eq!(stage.listen(&[uri]).await.1, Value::Null, "not acknowledged");
        }
        let (mut legacy, (mut modern, _)) = (session.listen().await, stage.listen(&[A, B]).await);
        session.subscribe(A).await;
        session.subscribe(B).await;
        // The grant is limited to b.
        let grants = stage.api.get("/grants").await;
        let path = format!("/grants/{}", grants["items"][0]["id"].as_str().unwrap());
        stage.api.call(Method::DELETE, &path, None).await.assert_status(204);
        let grant =
            json!({ "agent_id": stage.agent, "instance_id": id, "access": "custom", "resources": ["file:///b"] });
        stage.api.post("/grants", grant).await.assert_status(201);
        server.update("file:///a");
        server.update("file:///b");
        for (stream, expected) in [(&mut legacy, legacy_update(B)), (&mut modern, modern_update(B))] {
            let mut next = stream.next().await.unwrap();
            while next["method"] != UPDATED {
                next = stream.next().await.unwrap();
            }
            assert_eq!(next, expected, "a is no longer granted");
        }
        drop((legacy, modern));
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_the_server_does_not_support_is_rejected() {
    for is_modern in [false, true] {
        let (stage, server, _) = stage(is_modern).await;
        server.set(|state| state.refused = Some("file:///a".to_owned()));
        let session = Session::begin(&stage).await;
        let refused = session.subscribe(A).await["error"].clone();
        let reason = if is_modern { "not_supported" } else { "server_error" };
        assert_eq!(refused["data"]["reason"], reason, "{refused}");
        assert_eq!(stage.listen(&[A, B]).await.1, json!([B]));
        assert_eq!(session.subscribe(B).await["result"], json!({}));
        stage.api.app.clone().finish().await;
    }
    // A server without streams, and one without subscriptions.
    for is_modern in [false, true] {
        let (stage, server) = (Stage::new().await, Server::start().await);
        server.set(|state| (state.is_modern, state.resources) = (is_modern, vec![resource("a")]));
        stage.ready(&server.url).await;
        let session = Session::begin(&stage).await;
        assert_eq!(session.server["capabilities"]["resources"], json!({ "listChanged": true }));
        assert_eq!(session.subscribe(A).await["error"]["data"]["reason"], "not_supported");
        assert_eq!(stage.listen(&[A]).await.1, Value::Null);
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_subscription_does_not_end_other_subscriptions() {
    for is_modern in [false, true] {
        let (stage, server, _) = stage(is_modern).await;
        let session = Session::begin(&stage).await;
        let mut stream = session.listen().await;
        assert_eq!(session.subscribe(A).await["result"], json!({}));
        server.wait_until(|state| subscribed(state) == ["file:///a"] && state.streams() == 1).await;
        server.set(|state| state.broken = Some("file:///b".to_owned()));
        let listens = || server.state.lock().unwrap().params("subscriptions/listen").len();
        let before = listens();
        for _ in 0..2 {
            let refused = session.subscribe(B).await;
            assert!(refused["error"].is_object(), "{refused}");
        }
        // Only the rejected attempts open a stream: the stream is not replaced again when no agent waits for b any
        // more.
        assert_eq!(listens(), before + if is_modern { 2 } else { 0 });
        server.update("file:///a");
        assert_eq!(stream.next().await.unwrap(), legacy_update(A), "the stream is the same");
        drop(stream);
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_are_limited_and_require_a_session() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    server.set(|state| {
        state.has_stream = true;
        state.resources = vec![resource("a")];
        state.templates = vec![json!({ "uriTemplate": "file:///t/{name}", "name": "t" })];
    });
    stage.ready(&server.url).await;
    let uris: Vec<String> = (0..101).map(|n| format!("wp+far:file:///t/{n}")).collect();
    assert_eq!(stage.send_listen(&json!(uris)).await.status(), StatusCode::BAD_REQUEST);
    let long = format!("wp+far:file:///t/{}", "x".repeat(2_048));
    for malformed in [json!([long]), json!([1]), json!("a"), json!({})] {
        assert_eq!(stage.send_listen(&malformed).await.status(), StatusCode::BAD_REQUEST, "{malformed}");
    }
    let uris: Vec<&str> = uris.iter().take(100).map(String::as_str).collect();
    let (stream, accepted) = stage.listen(&uris).await;
    assert_eq!(accepted.as_array().unwrap().len(), 100);
    let session = Session::begin(&stage).await;
    assert_eq!(session.subscribe(A).await["error"]["data"]["reason"], "too_many_subscriptions");
    let refused = json_of(stage.send_listen(&json!([A])).await).await;
    assert_eq!(refused["error"]["data"]["reason"], "too_many_subscriptions");
    drop(stream);
    assert_eq!(session.subscribe(&long).await["error"]["code"], -32602);
    let text = json!({ "jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": { "uri": A } });
    let without = json_of(stage.send(Method::POST, &[], text.to_string()).await).await;
    assert_eq!(without["error"]["code"], -32602, "{without}");
    let wait = async { while session.subscribe(A).await["result"] != json!({}) {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("the stream of the agent has ended");
    stage.api.app.clone().finish().await;
}
