//! Agents cancel calls of their sessions with a notification (2025-11-25, "Cancellation").

use axum::body::Body;
use bytes::Bytes;
use futures::future::{join, join_all};
use h2::Reason;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use super::Stage;
use super::listen::Stream;
use crate::daemon::cancelled;

impl Stage {
    /// Sends a message in a session.
    async fn post(&self, session: &str, text: String) -> Response<Body> {
        let request = Request::post("/gateway/mcp").header("host", "localhost:8080");
        let request = request.header("content-type", "application/json").header("authorization", self.authorization());
        let request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25");
        self.api.app.send(request.body(Body::from(text)).unwrap()).await
    }

    /// Starts a call whose request has this ID (JSON text).
    async fn begin(&self, session: &str, id: &str) -> Response<Body> {
        let params = r#"{"name":"search__find"}"#;
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#);
        self.post(session, text).await
    }

    /// Calls the tool, and returns the content type and the body of the response.
    async fn call_with(&self, session: &str, id: &str) -> (String, String) {
        let response = self.begin(session, id).await;
        assert_eq!(response.status(), StatusCode::OK);
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Cancels the request with this ID (JSON text).
    async fn cancel(&self, session: &str, id: &str) {
        let params = format!(r#"{{"requestId":{id},"reason":"The user has stopped it."}}"#);
        let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
        assert_eq!(self.post(session, text).await.status(), StatusCode::ACCEPTED);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_cancelled_by_a_notification_with_its_id() {
    let stage = Stage::new().await.ready().await;
    stage.set(|server| server.is_holding = true);
    let session = stage.begin_session().await;
    for id in ["7", "\"7\"", "-1"] {
        let cancel = async {
            let stream = stage.held().await;
            stage.cancel(&session, id).await;
            cancelled(stream).await
        };
        let (response, reason) = join(stage.call_with(&session, id), cancel).await;
        assert_eq!(reason, Reason::CANCEL, "as if the agent had disconnected");
        assert_eq!(response, ("text/event-stream".to_owned(), String::new()), "there is no response");
        let call = stage.take_call().await;
        assert_eq!((&call["outcome"], &call["tool"]), (&"cancelled".into(), &"find".into()), "{call}");
        stage.cancel(&session, id).await;
    }
    stage.set(|server| server.is_holding = false);
    let (_, text) = stage.call_with(&session, "7").await;
    assert!(text.contains("\"n\":1.0"), "the ID can be used again: {text}");
    assert_eq!(stage.take_call().await["outcome"], "ok");
    stage.finish_without_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_not_cancelled_by_another_session_or_id() {
    let stage = Stage::new().await.ready().await;
    stage.set(|server| server.is_holding = true);
    let (session, other) = (stage.begin_session().await, stage.begin_session().await);
    let answer = async {
        let mut stream = stage.held().await;
        stage.cancel(&other, "7").await;
        for id in ["\"7\"", "8", "null", "{}"] {
            stage.cancel(&session, id).await;
        }
        for text in [
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/other","params":{"requestId":7}}"#,
        ] {
            assert_eq!(stage.post(&session, text.to_owned()).await.status(), StatusCode::ACCEPTED);
        }
        // Without a session, and with 2026-07-28, in which a call is cancelled by closing the connection.
        let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
        let (status, _) = stage.send("/gateway/mcp", Some(&stage.token), &[], cancel).await;
        assert_eq!(status, StatusCode::ACCEPTED);
        let modern = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let headers = [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "notifications/cancelled"),
            ("mcp-session-id", session.as_str()),
        ];
        let (status, text) = stage.send("/gateway/mcp", Some(&stage.token), &headers, modern).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{text}");
        let result = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{\"content\":[]}}\n");
        stream.send_data(result, true).unwrap();
    };
    let ((content_type, text), ()) = join(stage.call_with(&session, "7"), answer).await;
    assert_eq!(content_type, "application/json", "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["id"], 7);
    assert_eq!(stage.take_call().await["outcome"], "ok");
    stage.finish_without_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_of_a_cancelled_call_ends_without_a_response() {
    let stage = Stage::new().await.ready().await;
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#;
    stage.set(|server| {
        server.is_holding = true;
        server.held_answers = vec![Bytes::from(format!("{progress}\n"))];
    });
    let session = stage.begin_session().await;
    let mut stream = Stream::new(stage.begin(&session, "7").await);
    assert_eq!(stream.next().await.unwrap()["method"], "notifications/progress");
    stage.cancel(&session, "7").await;
    assert_eq!(stream.next().await, None);
    assert_eq!(cancelled(stage.held().await).await, Reason::CANCEL);
    let call = stage.take_call().await;
    assert_eq!((&call["outcome"], &call["response_bytes"]), (&"cancelled".into(), &progress.len().into()), "{call}");
    stage.finish_without_calls().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_calls_free_their_slots() {
    let stage = Stage::new().await.ready().await;
    stage.set(|server| server.is_holding = true);
    let session = stage.begin_session().await;
    // Two requests per ID, which no client should send. Both are cancelled.
    let ids: Vec<String> = (0..10).map(|n| (n / 2).to_string()).collect();
    let cancel = async {
        let mut streams = Vec::new();
        for _ in &ids {
            streams.push(stage.held().await);
        }
        for id in &ids {
            stage.cancel(&session, id).await;
        }
        for stream in streams {
            cancelled(stream).await;
        }
        stage.set(|server| server.is_holding = false);
        let (_, text) = stage.call_with(&session, "0").await;
        assert!(text.contains("\"n\":1.0"), "{text}");
    };
    let calls = join_all(ids.iter().map(|id| stage.call_with(&session, id)));
    let (responses, ()) = join(calls, cancel).await;
    assert!(responses.iter().all(|(_, text)| text.is_empty()), "{responses:?}");
    stage.finish().await;
}
