//! Streams that notify agents of changes to the lists that they see.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use waypost_core::agent::AgentState;
use waypost_core::grant::AccessLevel;
use waypost_ops::agents::{self, AgentPatch};

use super::{Stage, tool};

const TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct Stream {
    body: BodyDataStream,
    text: String,
}

impl Stream {
    pub(super) fn new(response: Response<Body>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// Returns the next message; `None` at the end. Comments are skipped.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data: String = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
                self.text = rest.to_owned();
                if !data.is_empty() {
                    return Some(serde_json::from_str(&data).unwrap());
                }
                continue;
            }
            let chunk = timeout(TIMEOUT, self.body.next()).await.expect("something arrives in time");
            self.text.push_str(std::str::from_utf8(&chunk?.unwrap()).unwrap());
        }
    }

    async fn method(&mut self) -> String {
        self.next().await.expect("a notification")["method"].as_str().unwrap().to_owned()
    }
}

impl Stage {
    pub(super) async fn open(&self, method: Method, accept: &str, body: String) -> Response<Body> {
        let mut request = Request::builder().method(method).uri("/gateway/mcp").header("host", "localhost:8080");
        request = request.header("authorization", format!("Bearer {}", self.token)).header("accept", accept);
        if !body.is_empty() {
            request = request.header("content-type", "application/json").header("mcp-protocol-version", "2026-07-28");
            request = request.header("mcp-method", "subscriptions/listen");
        }
        self.api.app.send(request.body(body.into()).unwrap()).await
    }

    pub(super) async fn listen(&self, notifications: Value) -> Response<Body> {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {} });
        let params = json!({ "notifications": notifications, "_meta": meta });
        let request = json!({ "jsonrpc": "2.0", "id": "l", "method": "subscriptions/listen", "params": params });
        self.open(Method::POST, "application/json, text/event-stream", request.to_string()).await
    }
}

const TOOLS: &str = "notifications/tools/list_changed";
const PROMPTS: &str = "notifications/prompts/list_changed";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_of_both_protocol_eras_are_notified_of_changes() {
    let stage = Stage::new().await;
    let mut legacy = Stream::new(stage.open(Method::GET, "text/event-stream", String::new()).await);
    let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["wp+search:a"] });
    let mut modern = Stream::new(stage.listen(filter).await);
    let meta = json!({ "io.modelcontextprotocol/subscriptionId": "l" });
    let acknowledged = json!({ "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
        "params": { "notifications": { "toolsListChanged": true }, "_meta": meta } });
    assert_eq!(modern.next().await.unwrap(), acknowledged);
    stage.grant(AccessLevel::FullAccess).await;
    stage.approve_all("read").await;
    assert_eq!(legacy.next().await.unwrap(), json!({ "jsonrpc": "2.0", "method": TOOLS }));
    let changed = modern.next().await.unwrap();
    assert_eq!(changed, json!({ "jsonrpc": "2.0", "method": TOOLS, "params": { "_meta": meta } }));
    // A prompt is announced only to clients that have asked for changes of prompts.
    stage.set(|server| server.prompts = vec![json!({ "name": "ask" })]);
    stage.approve("prompt", "read").await;
    let mut methods = vec![legacy.method().await];
    while methods.last().unwrap() != PROMPTS {
        methods.push(legacy.method().await);
    }
    // A changed tool disappears until it is approved.
    stage.set(|server| server.tools = vec![tool("find", "Finds.")]);
    stage.approve_all("read").await;
    assert_eq!((legacy.method().await.as_str(), modern.method().await.as_str()), (TOOLS, TOOLS));
    // A tool that is renamed, or has another description, is announced as well.
    for change in [json!({ "tool": "find", "name": "look_up" }), json!({ "tool": "find", "description": "Other." })] {
        assert_eq!(stage.set_override(change).await.0, 200);
        assert_eq!((legacy.method().await.as_str(), modern.method().await.as_str()), (TOOLS, TOOLS));
    }
    // The streams of a disabled agent end.
    let (cx, ops) = (stage.api.app.cx(), stage.api.app.running_ops());
    let disabled = AgentPatch { state: Some(AgentState::Disabled), name: None };
    agents::update(cx, &ops, &stage.api.org.id, &stage.agent, &disabled).await.unwrap();
    stage.api.app.advance_clock(2_000).await;
    assert_eq!(legacy.next().await, None);
    let last = modern.next().await.unwrap();
    assert_eq!((&last["id"], &last["result"]["resultType"]), (&json!("l"), &json!("complete")));
    assert_eq!(modern.next().await, None);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_limited_and_end_when_the_program_stops() {
    let stop = CancellationToken::new();
    let stage = Stage::with_stop(stop.clone()).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(Stream::new(stage.open(Method::GET, "text/event-stream", String::new()).await));
    }
    let refused = stage.open(Method::GET, "text/event-stream", String::new()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    drop(streams.pop());
    let mut modern = Stream::new(stage.listen(json!({})).await);
    assert_eq!(modern.method().await, "notifications/subscriptions/acknowledged");
    stop.cancel();
    assert_eq!(streams[0].next().await, None);
    assert_eq!(modern.next().await.unwrap()["result"]["resultType"], "complete");
    drop((streams, modern));
    for filter in [json!([]), json!({ "toolsListChanged": 1 })] {
        assert_eq!(stage.listen(filter).await.status(), StatusCode::BAD_REQUEST);
    }
    let other = stage.open(Method::GET, "application/json", String::new()).await;
    assert_eq!(other.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(other.headers()["allow"], "GET, POST, DELETE");
    stage.finish().await;
}
