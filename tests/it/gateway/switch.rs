//! The off switch of the gateway of an organisation.

use axum::body::Body;
use bytes::Bytes;
use futures::future::join;
use futures::stream;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use waypost_ops::agent_tokens::{self, CreateAgentToken};
use waypost_ops::agents;

use super::Stage;
use super::listen::Stream;

const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

impl Stage {
    async fn switch_gateway(&self, is_on: bool) {
        let path = format!("/organizations/{}", self.api.org.id);
        let changed = self.api.call(Method::PATCH, &path, Some(json!({ "gateway_enabled": is_on }))).await;
        assert_eq!(changed.assert_status(200).json()["gateway_enabled"], is_on);
    }

    /// Returns the status of a request for the list of tools at an address.
    async fn status(&self, path: &str, token: Option<&str>) -> StatusCode {
        self.send(path, token, &[], LIST).await.0
    }

    /// Checks that requests of every kind to every address are rejected with an error that states the reason.
    async fn assert_off(&self, session: &str) {
        let no_headers: &[(&str, &str)] = &[];
        let in_session: &[(&str, &str)] = &[("mcp-session-id", session)];
        for (path, headers, body) in [
            ("/gateway/mcp", no_headers, LIST),
            ("/gateway/mcp", in_session, LIST),
            ("/gateway/acme/mcp", no_headers, LIST),
            ("/gateway/acme/none/mcp", no_headers, LIST),
            ("/gateway/mcp", no_headers, "{"),
        ] {
            let (status, text) = self.send(path, Some(&self.token), headers, body).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} {body}: {text}");
            let answer: Value = serde_json::from_str(&text).unwrap();
            let message = "The gateway is switched off for this organisation. An admin can switch it on again.";
            let error = json!({ "code": -31403, "message": message, "data": { "reason": "gateway_off" } });
            assert_eq!(answer, json!({ "jsonrpc": "2.0", "error": error }));
        }
        let (status, answer) = self.modern_request("tools/call", json!({ "name": "search__find" })).await;
        assert_eq!((status, &answer["error"]["data"]["reason"]), (StatusCode::FORBIDDEN, &json!("gateway_off")));
        assert_eq!(self.open(Method::GET, "text/event-stream", String::new()).await.status(), StatusCode::FORBIDDEN);
        assert_eq!(self.open(Method::DELETE, "text/event-stream", String::new()).await.status(), StatusCode::FORBIDDEN);
        assert_eq!(self.listen(json!({})).await.status(), StatusCode::FORBIDDEN);
        for token in [None, Some("wpa_wrong")] {
            assert_eq!(self.status("/gateway/acme/mcp", token).await, StatusCode::UNAUTHORIZED, "as before");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_of_an_organisation_is_switched_off_and_on() {
    let stage = Stage::new().await.ready().await;
    let (cx, ops) = (stage.api.app.cx(), stage.api.app.running_ops());
    let other = stage.api.app.org("other").await.id.clone();
    let foreign = agents::create(cx, &ops, &other, "ci").await.unwrap().agent.id;
    let new = CreateAgentToken { name: "main", expires_at: None };
    let (_, foreign) = agent_tokens::create(cx, &ops, &other, &foreign, new).await.unwrap();
    let session = stage.begin_session().await;
    let mut legacy = Stream::new(stage.open(Method::GET, "text/event-stream", String::new()).await);
    let mut modern = Stream::new(stage.listen(json!({})).await);
    assert_eq!(modern.next().await.unwrap()["method"], "notifications/subscriptions/acknowledged");
    stage.set(|server| server.is_holding = true);
    let switch = async {
        let mut held = stage.held().await;
        stage.switch_gateway(false).await;
        stage.assert_off(&session).await;
        // All streams end.
        assert_eq!(legacy.next().await, None);
        assert_eq!(modern.next().await.unwrap()["result"]["resultType"], "complete");
        assert_eq!(modern.next().await, None);
        assert_eq!(stage.status("/gateway/mcp", Some(foreign.expose())).await, StatusCode::OK, "another organisation");
        let result = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"content\":[]}}\n");
        held.send_data(result, true).unwrap();
    };
    let (answer, ()) = join(stage.call("search__find", json!({})), switch).await;
    assert!(answer.get("result").is_some(), "a running call may finish: {answer}");
    assert_eq!(stage.received().len(), 1, "no other call has reached the server");

    stage.set(|server| server.is_holding = false);
    stage.switch_gateway(true).await;
    assert_eq!(stage.tools().await, ["search__delete", "search__find"]);
    assert!(stage.call("search__find", json!({})).await.get("result").is_some());
    let (status, text) =
        stage.send("/gateway/mcp", Some(&stage.token), &[("mcp-session-id", session.as_str())], LIST).await;
    assert_eq!(status, StatusCode::OK, "sessions are kept: {text}");
    drop(Stream::new(stage.open(Method::GET, "text/event-stream", String::new()).await));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_being_checked_when_the_gateway_is_switched_off_is_denied() {
    let stage = Stage::new().await.ready().await;
    let (begun, is_read) = oneshot::channel();
    let (sender, text) = oneshot::channel::<Bytes>();
    // The body is read after the first check.
    let body = Body::from_stream(stream::once(async move {
        begun.send(()).unwrap();
        text.await
    }));
    let switch = async {
        is_read.await.unwrap();
        stage.switch_gateway(false).await;
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search__find"}}"#;
        sender.send(call.into()).unwrap();
    };
    let ((status, text), ()) = join(stage.send("/gateway/mcp", Some(&stage.token), &[], body), switch).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    let (code, reason) = (&answer["error"]["code"], &answer["error"]["data"]["reason"]);
    assert_eq!((status, code, reason), (StatusCode::FORBIDDEN, &json!(-31403), &json!("gateway_off")), "{answer}");
    assert_eq!(stage.take_call().await["outcome"], "denied");
    assert!(stage.received().is_empty(), "the server is not called");
    stage.finish_without_calls().await;
}
