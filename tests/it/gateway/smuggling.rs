//! Malformed and ambiguous messages are not relayed in either direction, and each one gets a response.

use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use waypost_mcp_wire::smuggling;

use super::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_ambiguous_message_of_an_agent_reaches_a_server() {
    let stage = Stage::new().await.ready().await;
    let messages = smuggling::requests("7", "search__find");
    assert!(messages.len() >= 40);
    for message in messages {
        let (status, text) = stage.send("/gateway/mcp", Some(&stage.token), &[], message.body).await;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        assert_eq!(answer["error"]["code"], message.code, "{}: {status} {text}", message.name);
        assert_eq!(stage.received(), [] as [Value; 0], "{}", message.name);
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_an_agent_is_read_only_if_one_header_declares_json() {
    let stage = Stage::new().await.ready().await;
    let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search__find"}}"#;
    for (media_type, is_json) in [("application/json", true), ("text/event-stream", false)] {
        for case in smuggling::content_types(media_type) {
            let mut request = Request::post("/gateway/mcp").header("host", "localhost:8080");
            request = request.header("authorization", stage.authorization());
            for value in &case.values {
                request = request.header("content-type", value.as_str());
            }
            let response = stage.api.app.send(request.body(call.into()).unwrap()).await;
            let status = response.status().as_u16();
            response.into_body().collect().await.unwrap();
            let is_accepted = is_json && case.is_accepted;
            let received = stage.received().len();
            let expected = if is_accepted { (200, 1) } else { (415, 0) };
            assert_eq!((status, received), expected, "{media_type}: {}: {:?}", case.name, case.values);
        }
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_ambiguous_message_of_a_server_reaches_an_agent() {
    let stage = Stage::new().await.ready().await;
    let messages = smuggling::responses("7");
    assert!(messages.len() >= 40);
    for message in messages {
        if message.body.contains(&b'\n') {
            // The daemon sends one message per line.
            continue;
        }
        stage.set(|server| server.answers = vec![message.body.clone()]);
        let answer = stage.call("search__find", json!({})).await;
        let reason = answer["error"]["data"]["reason"].as_str();
        assert!(matches!(reason, Some("ambiguous" | "no_mcp")), "{}: {answer}", message.name);
        // The next call succeeds, so the server stays available although some of these messages count as its failures.
        stage.set(|server| server.answers = vec![br#"{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}"#.to_vec()]);
        let answer = stage.call("search__find", json!({})).await;
        assert!(answer["result"].is_object(), "after {}: {answer}", message.name);
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_differ_from_the_body_are_rejected() {
    let stage = Stage::new().await;
    let definition: Value = serde_json::from_str(&smuggling::headers_tool("find")).unwrap();
    stage.set(|server| server.tools = vec![definition]);
    let stage = stage.ready().await;
    for case in smuggling::headers("7", "search__find") {
        let headers: Vec<_> = case.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (_, text) = stage.send("/gateway/mcp", Some(&stage.token), &headers, case.body).await;
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["error"]["code"].as_i64(), case.code, "{}: {text}", case.name);
        assert_eq!(stage.received().len(), usize::from(case.code.is_none()), "{}", case.name);
    }
    stage.finish().await;
}
