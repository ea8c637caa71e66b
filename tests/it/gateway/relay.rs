//! Messages are relayed byte for byte, within and between both protocol eras.

use axum::body::Body;
use futures::FutureExt;
use futures::future::select_all;
use h2::Reason;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::{Stage, is_unknown};
use crate::app::{App, Setup};
use crate::daemon::cancelled;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_relayed_byte_for_byte() {
    let stage = Stage::new().await.ready().await;
    let call = r#"{"jsonrpc":"2.0","id": "xA" ,"method":"tools/call","params":{"name":"search__find","arguments":{"b":1.0,"a":1e2},"future":[1]}}"#;
    for answer in [
        r#"{ "jsonrpc":"2.0","result":{"content":[{"type":"text","text":"\u00e9é"}],"b":1.0,"a":1e2,"x":{"a":1,"a":2}} ,"id":ID }"#,
        r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32050,"message":"No.","data":{"n":1.0}},"extra":null}"#,
        r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[],"isError":true}}"#,
    ] {
        stage.set(|server| server.answers = vec![answer.as_bytes().to_vec()]);
        // The daemon restores the ID as the gateway sent it.
        assert_eq!(stage.legacy(call).await, answer.replace("ID", "\"xA\""));
        let received = stage.received().pop().unwrap();
        assert_eq!(received["params"], json!({ "name": "find", "arguments": { "b": 1.0, "a": 1e2 }, "future": [1] }));
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_have_the_members_of_the_agents_protocol_era() {
    let stage = Stage::new().await.ready().await;
    let (status, listed) = stage.modern_request("tools/list", json!({})).await;
    assert_eq!((status, &listed["result"]["resultType"]), (StatusCode::OK, &json!("complete")));
    assert_eq!(listed["result"]["cacheScope"], "private");
    assert_eq!(listed["result"]["tools"][1]["x-vendor"], json!({ "b": 1.0 }), "unknown members are kept");
    // A legacy server and an agent of 2026-07-28.
    let (_, called) = stage.modern_request("tools/call", json!({ "name": "search__find" })).await;
    assert_eq!(called["result"]["resultType"], "complete");
    let received = stage.received().pop().unwrap();
    let asked = json!({ "io.modelcontextprotocol/clientCapabilities": { "sampling": {} } });
    assert_eq!(received["params"], json!({ "name": "find", "_meta": asked }), "nothing else of the agent is forwarded");
    // A server of 2026-07-28 and a legacy agent.
    let answer = br#"{"jsonrpc":"2.0","id":ID,"result":{"resultType":"complete","content":[],"ttlMs":5}}"#;
    stage.set(|server| server.answers = vec![answer.to_vec()]);
    assert_eq!(stage.call("search__find", json!({})).await["result"], json!({ "content": [] }));
    // Both of 2026-07-28.
    let (_, called) = stage.modern_request("tools/call", json!({ "name": "search__find" })).await;
    assert_eq!(called["result"], json!({ "resultType": "complete", "content": [], "ttlMs": 5 }));
    // Messages that cannot be translated are rejected.
    let input = br#"{"jsonrpc":"2.0","id":ID,"result":{"resultType":"input_required","requestState":"s"}}"#;
    stage.set(|server| server.answers = vec![input.to_vec()]);
    let rejected = stage.call("search__find", json!({})).await;
    assert_eq!(rejected["error"]["data"]["reason"], "input_required");
    let (status, unknown) = stage.modern_request("tasks/list", json!({})).await;
    assert_eq!((status, &unknown["error"]["code"]), (StatusCode::NOT_FOUND, &json!(-32601)));
    let (status, discovered) = stage.modern_request("server/discover", json!({})).await;
    assert_eq!((status, &discovered["result"]["supportedVersions"]), (StatusCode::OK, &json!(["2026-07-28"])));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_is_relayed_as_events() {
    let stage = Stage::new().await.ready().await;
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#;
    let answer = r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}"#;
    stage.set(|server| server.answers = vec![progress.as_bytes().to_vec(), answer.as_bytes().to_vec()]);
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search__find","_meta":{"progressToken":"t"}}}"#;
    let events = stage.legacy(call).await;
    let expected =
        format!("event: message\ndata: {progress}\n\nevent: message\ndata: {}\n\n", answer.replace("ID", "7"));
    assert_eq!(events, expected);
    assert_eq!(stage.received()[0]["params"]["_meta"], json!({ "progressToken": "t" }));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_to_an_offline_toolbox_fails_with_a_reason() {
    let stage = Stage::new().await.ready().await;
    stage.api.app.running_ops().links().close_all();
    let answer = stage.call("search__find", json!({})).await;
    assert_eq!(answer["error"]["data"]["reason"], "toolbox_offline");
    assert!(is_unknown(&stage.call("search__other", json!({})).await), "no server is asked for an unknown name");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_methods_and_content_types_are_rejected() {
    let stage = Stage::new().await.ready().await;
    let send = async |method: Method, content_type: &str, body: Vec<u8>| {
        let request = Request::builder().method(method).uri("/gateway/mcp").header("host", "localhost:8080");
        let request = request.header("authorization", format!("Bearer {}", stage.token));
        let request = request.header("content-type", content_type).body(Body::from(body)).unwrap();
        stage.api.app.send(request).await.status().as_u16()
    };
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_vec();
    assert_eq!(send(Method::POST, "application/json; charset=utf-8", ping.clone()).await, 200);
    assert_eq!(send(Method::POST, "text/plain", ping.clone()).await, 415);
    assert_eq!(send(Method::POST, "application/jsonx", ping.clone()).await, 415);
    assert_eq!(send(Method::GET, "application/json", ping.clone()).await, 405);
    assert_eq!(send(Method::DELETE, "application/json", ping.clone()).await, 400, "without a session");
    assert_eq!(send(Method::PUT, "application/json", ping).await, 405);
    assert_eq!(send(Method::POST, "application/json", vec![b' '; waypost_gateway::MAX_BODY + 1]).await, 413);
    let notification = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_vec();
    assert_eq!(send(Method::POST, "application/json", notification).await, 202);
    let batch = br#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#.to_vec();
    assert_eq!(send(Method::POST, "application/json", batch).await, 400);
    let (status, version) = {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2099-01-01", "io.modelcontextprotocol/clientCapabilities": {} } } });
        let headers = [("mcp-protocol-version", "2099-01-01"), ("mcp-method", "tools/list")];
        let (status, text) = stage.send("/gateway/mcp", Some(&stage.token), &headers, body.to_string()).await;
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    assert_eq!((status, &version["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(-32022)));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_cancelled_if_its_agent_disconnects() {
    let stage = Stage::new().await.ready().await;
    stage.set(|server| server.is_holding = true);
    let stream = tokio::select! {
        answer = stage.call("search__find", json!({})) => panic!("the call is not answered: {answer}"),
        stream = stage.held() => stream,
    };
    // The future of the call was dropped, like that of a connection that is closed.
    assert_eq!(cancelled(stream).await, Reason::CANCEL);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_can_make_ten_concurrent_calls() {
    let stage = Stage::new().await.ready().await;
    stage.set(|server| server.is_holding = true);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search__find"}}"#;
    let calls = (0..11).map(|_| stage.send("/gateway/mcp", Some(&stage.token), &[], call).boxed());
    let ((status, text), _, held) = select_all(calls).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{text}");
    assert!(text.contains("-31429") && text.contains("Wait for one to end"), "{text}");
    assert_eq!(held.len(), 10);
    drop(held);
    stage.set(|server| server.is_holding = false);
    assert!(stage.call("search__find", json!({})).await.get("result").is_some(), "the slots are free again");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_the_agent_are_not_forwarded() {
    let stage = Stage::new().await.ready().await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search__find"}}"#;
    let headers = [("cookie", "a=b"), ("x-custom", "value"), ("traceparent", "00-0-0-00")];
    assert_eq!(stage.send("/gateway/mcp", Some(&stage.token), &headers, call).await.0, StatusCode::OK);
    let received = stage.server.lock().unwrap().headers.pop().unwrap();
    let mut names: Vec<_> = received.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "waypost-container-key", "waypost-timeout-ms"]);
    assert_eq!(received["waypost-container-key"], format!("agent:{}", stage.agent));
    stage.finish().await;
}

#[tokio::test]
async fn the_gateway_does_not_exist_while_it_is_switched_off() {
    let app = App::with(Setup { gateway: None, ..Setup::default() }).await;
    let request = Request::post("/gateway/mcp").header("host", "localhost:8080").body(Body::empty()).unwrap();
    assert_eq!(app.send(request).await.status(), StatusCode::NOT_FOUND);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_fails_five_times_in_a_row_is_not_called() {
    let stage = Stage::new().await.ready().await;
    stage.set(|server| server.is_broken = true);
    for _ in 0..5 {
        assert_eq!(stage.call("search__find", json!({})).await["error"]["data"]["reason"], "no_mcp");
    }
    stage.set(|server| (server.is_broken, server.messages) = (false, 0));
    assert_eq!(stage.call("search__find", json!({})).await["error"]["data"]["reason"], "circuit_open");
    assert_eq!(stage.server.lock().unwrap().messages, 0, "nothing reached the server");
    assert_eq!(stage.tools().await.len(), 2, "lists are not affected");
    stage.finish().await;
}

/// 2026-07-28, "Request metadata" and "Missing required client capability"; SEP-2164.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_2026_07_28_have_their_status_and_data() {
    let stage = Stage::new().await.ready().await;
    let version = "io.modelcontextprotocol/protocolVersion";
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    for (meta, expected) in [
        (json!({ version: "2026-07-28", capabilities: {} }), 200),
        (json!({ version: "2026-07-28" }), 400),
        (json!({ version: "2026-07-28", capabilities: [] }), 400),
        (json!({ capabilities: {} }), 400),
    ] {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": meta } });
        let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
        let (status, text) = stage.send("/gateway/mcp", Some(&stage.token), &headers, body.to_string()).await;
        let error = serde_json::from_str::<Value>(&text).unwrap()["error"]["code"].clone();
        let code = if expected == 200 { Value::Null } else { json!(-32602) };
        assert_eq!((status.as_u16(), error), (expected, code), "{meta}");
    }
    let missing =
        br#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32021,"message":"m","data":{"requiredCapabilities":{}}}}"#;
    stage.set(|server| server.answers = vec![missing.to_vec()]);
    let (status, answer) = stage.modern_request("tools/call", json!({ "name": "search__find" })).await;
    assert_eq!((status, &answer["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(-32021)));
    assert_eq!(stage.call("search__find", json!({})).await["error"]["code"], -32021, "with status 200");
    let uri = "wp+search:file:///none";
    let expected = json!({ "code": -32602, "message": "Unknown resource", "data": { "uri": uri } });
    let (status, answer) = stage.modern_request("resources/read", json!({ "uri": uri })).await;
    assert_eq!((status, &answer["error"]), (StatusCode::BAD_REQUEST, &expected));
    stage.finish().await;
}
