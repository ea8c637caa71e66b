//! The call log: each call has exactly one record, however it ends.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use waypost_core::argument_rule::{ArgumentRule, Comparison};
use waypost_core::grant::AccessLevel;
use waypost_ops::grants::GrantPatch;

use super::{Stage, is_unknown};
use crate::app::{App, Setup};
use crate::daemon::cancelled;

const COUNT: &str = "SELECT count(*) FROM calls";

/// Waits until `count` calls are recorded.
pub async fn wait_for_calls(app: &App, count: i64) {
    let written = async {
        while app.count(COUNT).await < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("the recorder writes every call");
}

impl Stage {
    /// Returns the only call in the log, and deletes it.
    pub(super) async fn take_call(&self) -> Value {
        wait_for_calls(&self.api.app, 1).await;
        let mut listed = self.api.get("/calls").await;
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
        self.api.app.execute("DELETE FROM calls").await;
        listed["items"][0].take()
    }

    /// Stops the product, and checks that the log contains no call that the test has not taken.
    pub(super) async fn finish_without_calls(self) {
        let app = self.api.app.clone();
        self.task.abort();
        drop(self);
        app.stop().await;
        assert_eq!(app.count(COUNT).await, 0, "each call was recorded once");
        app.finish().await;
    }
}

/// Returns the members of a call that state its target and its outcome.
fn summary(call: &Value) -> [&str; 4] {
    ["method", "tool", "outcome", "instance_id"].map(|name| call[name].as_str().unwrap_or("-"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_response_of_the_server_determines_the_outcome() {
    let stage = Stage::new().await.ready().await;
    let instance = stage.instance.clone();
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#;
    let result = r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}"#;
    let repeated = r#"{"jsonrpc":"2.0","id":ID,"result":{"isError":true,"isError":false}}"#;
    for (answers, outcome) in [
        (vec![result], "ok"),
        (vec![progress, result], "ok"),
        (vec![r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[],"isError":false}}"#], "ok"),
        (vec![r#"{"jsonrpc":"2.0","id":ID,"result":{"structuredContent":{"isError":true},"isError":"true"}}"#], "ok"),
        (vec![r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[],"isError":true}}"#], "tool_error"),
        (vec![progress, r#"{"jsonrpc":"2.0","id":ID,"result":{"isError" : true }}"#], "tool_error"),
        (vec![r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32602,"message":"No."}}"#], "failed"),
        (vec![repeated], "failed"),
        (vec![progress, repeated], "failed"),
        (vec![r#"{"jsonrpc":"2.0","id":ID,"result":{"resultType":"input_required"}}"#], "failed"),
        (vec![], "failed"),
        (vec![progress], "failed"),
    ] {
        stage.set(|server| server.answers = answers.iter().map(|answer| answer.as_bytes().to_vec()).collect());
        stage.legacy(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search__find"}}"#).await;
        let call = stage.take_call().await;
        assert_eq!(summary(&call), ["tools/call", "find", outcome, &instance], "{answers:?}: {call}");
        assert!(call["upstream_ms"].as_i64().unwrap() <= call["duration_ms"].as_i64().unwrap(), "{call}");
    }
    for (status, outcome) in [(504, "timed_out"), (502, "failed"), (503, "failed"), (429, "failed")] {
        stage.set(|server| server.status = Some(status));
        stage.call("search__find", json!({})).await;
        assert_eq!(stage.take_call().await["outcome"], outcome, "{status}");
    }
    stage.api.app.running_ops().links().close_all();
    stage.call("search__find", json!({})).await;
    let call = stage.take_call().await;
    assert_eq!(summary(&call), ["tools/call", "find", "failed", &instance]);
    stage.finish_without_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_contains_sizes_and_the_shape_of_the_arguments_but_no_values() {
    let stage = Stage::new().await.ready().await;
    let answer = r#"{"jsonrpc":"2.0","id":ID,"result":{"content":["hunter2"]}}"#;
    stage.set(|server| server.answers = vec![answer.as_bytes().to_vec()]);
    let text = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search__find","arguments":
        {"query":"hunter2","limit":7,"nested":{"key":"hunter2"},"all":true}}}"#;
    let answered = stage.legacy(text).await;
    let before = stage.api.app.cx().now().rfc3339();
    let stored = "SELECT argument_shape || tool || method || outcome FROM calls";
    wait_for_calls(&stage.api.app, 1).await;
    assert!(!stage.api.app.query_lines(stored).await.contains("hunter2"));
    let call = stage.take_call().await;
    assert_eq!(
        call["argument_shape"],
        json!({ "query": "string", "limit": "number", "nested": "object", "all": "boolean" })
    );
    assert_eq!((&call["request_bytes"], &call["response_bytes"]), (&json!(text.len()), &json!(answered.len())));
    assert_eq!((&call["agent_id"], &call["at"]), (&json!(stage.agent), &json!(before)));
    stage.finish_without_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_calls_are_recorded_as_denied() {
    let stage = Stage::new().await;
    stage.approve_all("read").await;
    let instance = stage.instance.clone();
    assert!(is_unknown(&stage.call("search__find", json!({ "q": 1 })).await), "it is not granted");
    let call = stage.take_call().await;
    assert_eq!(summary(&call), ["tools/call", "search__find", "denied", "-"]);
    assert_eq!((&call["upstream_ms"], &call["response_bytes"]), (&Value::Null, &json!(0)));
    assert_eq!(call["argument_shape"], json!({ "q": "number" }));
    let grant = stage.grant(AccessLevel::FullAccess).await;
    let long = format!("x\u{0}\n{}", "é".repeat(1_000));
    assert!(is_unknown(&stage.call(&long, json!({})).await));
    assert_eq!(stage.take_call().await["tool"], format!("x{}", "é".repeat(255)));
    // The agent was granted the tool, but not with these arguments.
    let (tool, field) = ("find".to_owned(), "q".to_owned());
    let rule = ArgumentRule { tool: tool.clone(), field, comparison: Comparison::Equals, value: "docs".into() };
    let custom = GrantPatch {
        access: Some(AccessLevel::Custom),
        tools: Some(vec![tool]),
        rules: Some(vec![rule]),
        ..GrantPatch::default()
    };
    stage.change(&grant, custom).await;
    assert!(is_unknown(&stage.call("search__find", json!({ "q": "other" })).await));
    assert_eq!(summary(&stage.take_call().await), ["tools/call", "find", "denied", &instance]);
    // Invalid messages.
    let answer = stage.legacy_request("tools/call", json!({ "arguments": {} })).await;
    assert_eq!(answer["error"]["code"], -32602);
    assert_eq!(summary(&stage.take_call().await), ["tools/call", "", "denied", "-"]);
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "search__find", "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} } } });
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "other")];
    let (status, _) = stage.send("/gateway/mcp", Some(&stage.token), &headers, body.to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(summary(&stage.take_call().await), ["tools/call", "search__find", "denied", "-"]);
    // Other messages are not recorded.
    stage.tools().await;
    let notification = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"search__find"}}"#;
    for text in [notification, r#"{"jsonrpc":"2.0","id":1,"method":"tools/other"}"#, "{", "[]"] {
        stage.send("/gateway/mcp", Some(&stage.token), &[], text).await;
    }
    stage.finish_without_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_agent_disconnects_is_recorded_as_cancelled() {
    let stage = Stage::new().await.ready().await;
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#;
    stage.set(|server| server.is_holding = true);
    let stream = tokio::select! {
        answer = stage.call("search__find", json!({})) => panic!("the call is not answered: {answer}"),
        stream = stage.held() => stream,
    };
    cancelled(stream).await;
    let call = stage.take_call().await;
    assert_eq!(summary(&call), ["tools/call", "find", "cancelled", &stage.instance]);
    assert_eq!((&call["response_bytes"], call["upstream_ms"].is_i64()), (&json!(0), true));
    // The agent disconnects while it receives events.
    stage.set(|server| server.held_answers = vec![Bytes::from(format!("{progress}\n"))]);
    let body = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search__find"}}"#;
    let request =
        Request::post("/gateway/mcp").header("host", "localhost:8080").header("content-type", "application/json");
    let request = request.header("authorization", format!("Bearer {}", stage.token)).body(Body::from(body)).unwrap();
    let mut response = stage.api.app.send(request).await;
    let event = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(event, format!("event: message\ndata: {progress}\n\n"));
    assert_eq!(stage.api.app.count(COUNT).await, 0, "the call has not ended");
    drop(response);
    cancelled(stage.held().await).await;
    let call = stage.take_call().await;
    assert_eq!((&call["outcome"], &call["response_bytes"]), (&json!("cancelled"), &json!(progress.len())));
    stage.finish_without_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_resources_and_completions_are_recorded() {
    let stage = Stage::new().await;
    stage.set(|server| {
        server.prompts = vec![json!({ "name": "greet" })];
        server.resources = vec![json!({ "uri": "notes://all", "name": "All" })];
        server.templates = vec![json!({ "uriTemplate": "notes://{id}", "name": "Note" })];
    });
    let stage = stage.ready().await;
    let instance = stage.instance.clone();
    let reference = json!({ "type": "ref/prompt", "name": "search__greet" });
    for (method, params, tool) in [
        ("prompts/get", json!({ "name": "search__greet", "arguments": { "who": "Ann" } }), "greet"),
        ("resources/read", json!({ "uri": "wp+search:notes://all" }), "notes://all"),
        // The URI contains a value.
        ("resources/read", json!({ "uri": "wp+search:notes://hunter2" }), "notes://{id}"),
        ("completion/complete", json!({ "ref": reference, "argument": { "name": "who", "value": "A" } }), "greet"),
    ] {
        let answer = stage.legacy_request(method, params).await;
        assert!(answer.get("result").is_some(), "{method}: {answer}");
        assert_eq!(summary(&stage.take_call().await), [method, tool, "ok", &instance]);
    }
    stage.finish_without_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_listed_by_page_and_filter() {
    let stage = Stage::new().await.ready().await;
    for tool in ["search__find", "search__delete", "unknown", "search__find"] {
        stage.api.app.advance_clock(1_000).await;
        stage.call(tool, json!({})).await;
    }
    wait_for_calls(&stage.api.app, 4).await;
    let list = async |query: &str| {
        let page = stage.api.get(&format!("/calls?{query}")).await;
        let tools = page["items"].as_array().unwrap().iter().map(|call| call["tool"].as_str().unwrap().to_owned());
        (tools.collect::<Vec<_>>(), page["next_cursor"].as_str().map(str::to_owned))
    };
    assert_eq!(list("").await, (["find", "unknown", "delete", "find"].map(str::to_owned).to_vec(), None));
    let (first, cursor) = list("limit=3").await;
    assert_eq!(first, ["find", "unknown", "delete"]);
    assert_eq!(list(&format!("limit=3&cursor={}", cursor.unwrap())).await, (vec!["find".to_owned()], None));
    let now = stage.api.app.cx().now();
    let (agent, instance) = (&stage.agent, &stage.instance);
    for (query, expected) in [
        (format!("agent_id={agent}&instance_id={instance}"), vec!["find", "delete", "find"]),
        ("agent_id=agt_0123456789abcdef".to_owned(), vec![]),
        ("outcome=denied".to_owned(), vec!["unknown"]),
        ("tool=delete&outcome=ok".to_owned(), vec!["delete"]),
        (format!("since={}", now.plus(-1_000).rfc3339()), vec!["find", "unknown"]),
        (format!("until={}", now.plus(-2_000).rfc3339()), vec!["find"]),
    ] {
        assert_eq!(list(&query).await.0, expected, "{query}");
    }
    for invalid in ["limit=0", "limit=201", "cursor=x", "outcome=x", "since=x", "tool=%00", "other=1"] {
        stage.api.call(http::Method::GET, &format!("/calls?{invalid}"), None).await.assert_status(422);
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_quota_are_denied_until_it_is_refilled() {
    let setup = Setup::default();
    let gateway = setup.gateway.map(|options| waypost_gateway::GatewayOptions { calls_per_hour: 3, ..options });
    let stage = Stage::with(Setup { gateway, ..setup }).await.ready().await;
    let text = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"NAME"}}"#;
    let call = async |name: &str| {
        let body = text.replace("NAME", name);
        let request = Request::post("/gateway/mcp").header("host", "localhost:8080");
        let request = request.header("content-type", "application/json").header("authorization", stage.authorization());
        let response = stage.api.app.send(request.body(Body::from(body)).unwrap()).await;
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, retry_after, serde_json::from_slice::<Value>(&body).unwrap())
    };
    // Denied calls count as well, which limits the guessing of names.
    for name in ["search__find", "search__unknown", "search__find"] {
        assert_eq!(call(name).await.0, 200, "{name}");
    }
    for name in ["search__find", "search__unknown"] {
        let (status, retry_after, body) = call(name).await;
        assert_eq!((status, retry_after.as_deref()), (429, Some("1200")), "{body}");
        assert_eq!((&body["id"], &body["error"]["code"]), (&json!(7), &json!(-31429)));
        let data = json!({ "reason": "quota_exceeded", "retry_after_seconds": 1200 });
        assert_eq!(body["error"]["data"], data);
    }
    let (status, body) = stage.modern_request("tools/call", json!({ "name": "search__find" })).await;
    assert_eq!((status.as_u16(), &body["id"]), (429, &json!("a")), "{body}");
    // Lists are not limited.
    assert_eq!(stage.tools().await.len(), 2);
    wait_for_calls(&stage.api.app, 6).await;
    let denied = stage.api.get("/calls?outcome=denied").await;
    assert_eq!(denied["items"].as_array().unwrap().len(), 4, "{denied}");
    assert_eq!(stage.received().len(), 2, "the server was called twice");
    stage.api.app.advance_clock(1_199_000).await;
    assert_eq!(call("search__find").await.1.as_deref(), Some("1"));
    stage.api.app.advance_clock(1_000).await;
    assert_eq!(call("search__find").await.0, 200);
    assert_eq!(call("search__find").await.0, 429);
    stage.finish().await;
}
