//! Tests the HTTP+SSE transport of 2024-11-05.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use waypost_mcp_wire::memory::MessageMemory;
use waypost_upstream::{CallRequest, Connection, ConnectionOptions, Error, Protocol};

use crate::connection::{all, call, count, text};
use crate::server::{EventSender, ReceivedRequest, Server, event, result, stream};

/// A server whose stream is written by the test and by `react`.
struct SseServer {
    server: Server,
    /// The streams, the current one last.
    streams: Arc<Mutex<Vec<EventSender>>>,
}

impl SseServer {
    /// Starts a server. `react` returns the data of events that answer a message, or the status that rejects it.
    async fn start(
        endpoint: &'static str,
        react: impl Fn(&ReceivedRequest) -> Result<Vec<String>, StatusCode> + Clone + Send + Sync + 'static,
    ) -> Self {
        let streams: Arc<Mutex<Vec<EventSender>>> = Arc::default();
        let own = streams.clone();
        let server = Server::start(move |request| {
            if request.method == Method::GET {
                let (sender, response) = stream();
                sender.send(Some(format!("event: endpoint\ndata: {endpoint}\n\n"))).unwrap();
                own.lock().unwrap().push(sender);
                return response;
            }
            if request.path != "/messages" {
                return StatusCode::METHOD_NOT_ALLOWED.into_response();
            }
            let events = match request.rpc_method() {
                "initialize" => Ok(vec![result(request, r#"{"protocolVersion":"2024-11-05"}"#)]),
                _ => react(request),
            };
            match events {
                Ok(events) => {
                    let sender = own.lock().unwrap().last().unwrap().clone();
                    events.iter().for_each(|data| drop(sender.send(Some(event(data)))));
                    (StatusCode::ACCEPTED, "Accepted").into_response()
                }
                Err(status) => status.into_response(),
            }
        })
        .await;
        Self { server, streams }
    }

    async fn open(&self) -> Connection {
        self.server.open(Protocol::Sse).await
    }

    fn sender(&self) -> EventSender {
        self.streams.lock().unwrap().last().unwrap().clone()
    }
}

#[tokio::test]
async fn requests_share_the_stream_and_receive_only_their_own_messages() {
    let waiting: Arc<Mutex<Vec<ReceivedRequest>>> = Arc::default();
    let server = SseServer::start("/messages?session=1", move |request| {
        let mut waiting = waiting.lock().unwrap();
        match request.rpc_method() {
            // The first call is answered after the second.
            "first" => waiting.push(request.clone()),
            "second" => {
                let first = waiting.pop().unwrap();
                let progress = |request: &ReceivedRequest| json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": request.body["id"], "progress": 1 } }).to_string();
                return Ok(vec![
                    progress(&first),
                    progress(request),
                    result(request, r#"{"number":2}"#),
                    result(request, r#"{"number":3}"#),
                    r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#.to_owned(),
                    r#"{"jsonrpc":"2.0","id":"r","method":"roots/list"}"#.to_owned(),
                    r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#.to_owned(),
                    result(&first, r#"{"number":1}"#),
                ]);
            }
            _ => {}
        }
        Ok(Vec::new())
    })
    .await;
    let connection = server.open().await;
    let mut listener = connection.listen("{}").await.unwrap().unwrap();
    let mut first = connection.call(call("first", r#"{"_meta":{"progressToken":"t"}}"#)).await.unwrap();
    let mut second = connection.call(call("second", "{}")).await.unwrap();
    let messages = all(&mut first).await.unwrap();
    assert!(messages[0].contains(r#""progressToken":"t""#) && messages[1].contains(r#"{"number":1}"#), "{messages:?}");
    assert_eq!(messages.len(), 2);
    let messages = all(&mut second).await.unwrap();
    assert!(messages.len() == 1 && messages[0].contains(r#"{"number":2}"#), "no token, no progress: {messages:?}");
    assert!(text(listener.next().await.unwrap()).contains("list_changed"));
    let counters = connection.counters();
    assert_eq!((count(&counters.unmatched_responses), count(&counters.dropped_notifications)), (1, 1));
    assert_eq!(count(&counters.rejected_requests), 1);
    let answers = server.server.answers(2).await;
    let find = |id: &str| answers.iter().find(|answer| answer["id"] == id).unwrap();
    assert_eq!((&find("p")["result"], &find("r")["error"]["code"]), (&json!({}), &json!(-32_601)));
    assert!(server.server.received().iter().skip(1).all(|request| request.path == "/messages"));
}

#[tokio::test]
async fn forwarded_headers_are_sent_with_their_own_message_only() {
    let server = SseServer::start("/messages", |request| Ok(vec![result(request, "{}")])).await;
    let connection = server.open().await;
    let mut forwarded = HeaderMap::new();
    forwarded.insert("x-tenant", "acme".parse().unwrap());
    let request = CallRequest { forwarded, ..call("x", "{}") };
    all(&mut connection.call(request).await.unwrap()).await.unwrap();
    all(&mut connection.call(call("y", "{}")).await.unwrap()).await.unwrap();
    let received = server.server.received();
    let with_header = received.iter().filter(|request| request.header("x-tenant") == Some("acme"));
    assert_eq!(with_header.map(ReceivedRequest::rpc_method).collect::<Vec<_>>(), ["x"]);
}

#[tokio::test]
async fn a_server_request_reaches_the_listener_if_requests_are_accepted() {
    let server = SseServer::start("messages", |_| Ok(Vec::new())).await;
    let options = ConnectionOptions { accepts_requests: true, ..server.server.raw_options(Protocol::Sse) };
    let connection = Connection::open(options).await.unwrap();
    let mut listener = connection.listen("{}").await.unwrap().unwrap();
    let request = r#"{"jsonrpc":"2.0","id":"r","method":"roots/list"}"#;
    server.sender().send(Some(event(request))).unwrap();
    assert_eq!(text(listener.next().await.unwrap()), request);
    connection.respond(br#"{"jsonrpc":"2.0","id":"r","result":{"roots":[]}}"#).await.unwrap();
    assert_eq!(server.server.answers(1).await[0]["result"], json!({ "roots": [] }));
    connection.close().await.unwrap();
    assert!(listener.next().await.unwrap().is_none());
    server.sender().closed().await;
}

#[tokio::test]
async fn an_ambiguous_response_fails_its_own_request_only() {
    let server = SseServer::start("/messages", |request| {
        let id = &request.body["id"];
        Ok(match request.rpc_method() {
            "ambiguous" => vec![format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"a":1,"a":2}}}}"#)],
            "x" => vec!["garbage".to_owned(), "[]".to_owned(), result(request, "{}")],
            _ => Vec::new(),
        })
    })
    .await;
    let connection = server.open().await;
    let mut silent = connection.call(call("silent", "{}")).await.unwrap();
    let mut ambiguous = connection.call(call("ambiguous", "{}")).await.unwrap();
    assert!(matches!(ambiguous.next().await, Err(Error::InvalidResponse(_))));
    assert!(ambiguous.next().await.unwrap().is_none());
    assert_eq!(all(&mut connection.call(call("x", "{}")).await.unwrap()).await.unwrap().len(), 1);
    assert_eq!(count(&connection.counters().invalid_messages), 3);
    let response = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, silent.id().unwrap());
    server.sender().send(Some(event(&response))).unwrap();
    assert_eq!(all(&mut silent).await.unwrap(), [response]);
}

#[tokio::test]
async fn an_ended_stream_fails_its_requests_and_the_next_request_reconnects() {
    let server = SseServer::start("/messages", |request| match request.rpc_method() {
        "x" => Ok(vec![result(request, "{}")]),
        _ => Ok(Vec::new()),
    })
    .await;
    let connection = server.open().await;
    let mut silent = connection.call(call("silent", "{}")).await.unwrap();
    server.sender().send(None).unwrap();
    assert!(matches!(silent.next().await, Err(Error::InvalidResponse(_))));
    assert_eq!(all(&mut connection.call(call("x", "{}")).await.unwrap()).await.unwrap().len(), 1);
    assert_eq!(server.streams.lock().unwrap().len(), 2);
    connection.notify("notifications/x", None).await.unwrap();
}

#[tokio::test]
async fn a_session_that_the_server_does_not_know_is_replaced_once() {
    let server = SseServer::start("/messages", |request| match request.rpc_method() {
        "never" => Err(StatusCode::NOT_FOUND),
        "denied" => Err(StatusCode::FORBIDDEN),
        _ => Ok(vec![result(request, "{}")]),
    })
    .await;
    let connection = server.open().await;
    assert!(matches!(connection.call(call("never", "{}")).await, Err(Error::SessionLost)));
    assert_eq!(server.streams.lock().unwrap().len(), 2);
    let denied = connection.call(call("denied", "{}")).await.map(|_| ()).unwrap_err();
    assert!(matches!(denied, Error::Status { status: StatusCode::FORBIDDEN, .. }), "{denied:?}");
}

#[tokio::test]
async fn dropping_and_timeouts_cancel_the_request() {
    let server = SseServer::start("/messages", |_| Ok(Vec::new())).await;
    let connection = server.open().await;
    let request = CallRequest { timeout: Some(Duration::from_millis(50)), ..call("x", "{}") };
    let mut exchange = connection.call(request).await.unwrap();
    let id = exchange.id().unwrap();
    assert!(matches!(exchange.next().await, Err(Error::Timeout)));
    drop(exchange);
    assert_eq!(server.server.wait_for("notifications/cancelled").await.body["params"]["requestId"], id);
}

#[tokio::test]
async fn an_endpoint_of_another_origin_is_rejected() {
    for endpoint in ["http://evil.example/messages", "//127.0.0.1:1/messages", "file:///messages"] {
        let server = SseServer::start(endpoint, |_| Ok(Vec::new())).await;
        let error = Connection::open(server.server.raw_options(Protocol::Sse)).await.unwrap_err();
        assert!(matches!(error, Error::InvalidResponse(_)), "{endpoint}: {error:?}");
        assert_eq!(server.server.received().len(), 1, "nothing is sent");
    }
}

#[tokio::test]
async fn a_server_that_speaks_only_http_sse_is_recognised() {
    let server = SseServer::start("/messages", |request| Ok(vec![result(request, "{}")])).await;
    let connection = server.server.open(Protocol::Any).await;
    assert_eq!(connection.server().revision, "2024-11-05");
    assert_eq!(all(&mut connection.call(call("x", "{}")).await.unwrap()).await.unwrap().len(), 1);
    let error = Connection::open(server.server.raw_options(Protocol::StreamableHttp)).await.unwrap_err();
    assert!(matches!(error, Error::Status { status: StatusCode::METHOD_NOT_ALLOWED, .. }), "{error:?}");
    let methods = server.server.methods();
    assert_eq!(methods[..4], ["POST server/discover", "POST initialize", "GET ", "POST initialize"], "{methods:?}");
}

#[tokio::test]
async fn calls_fail_if_there_is_not_enough_memory_for_a_message() {
    let server = SseServer::start("/messages", |request| match request.rpc_method() {
        "large" => Ok(vec![result(request, &json!({ "a": "x".repeat(300 * 1024) }).to_string())]),
        _ => Ok(vec![result(request, "{}")]),
    })
    .await;
    let memory = MessageMemory::new(1_000 * 1024).share("org_1");
    let options = ConnectionOptions { memory, ..server.server.raw_options(Protocol::Sse) };
    let connection = Connection::open(options).await.unwrap();
    let outcome = async |method: &str| connection.call(call(method, "{}")).await?.next().await;
    let held = outcome("large").await.unwrap();
    let rejected = outcome("large").await.map(drop);
    assert!(matches!(rejected, Err(Error::OutOfMemory(_))), "{rejected:?}");
    assert!(outcome("small").await.is_ok(), "on a new stream");
    drop(held);
    assert!(outcome("large").await.is_ok());
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream() {
    let server = SseServer::start("/messages", |request| match request.rpc_method() {
        "large" => Ok(vec![result(request, &json!({ "a": "x".repeat(2_000) }).to_string())]),
        _ => Ok(vec![result(request, "{}")]),
    })
    .await;
    let mut options = server.server.raw_options(Protocol::Sse);
    options.limits.max_message_bytes = 1_000;
    let connection = Connection::open(options).await.unwrap();
    let mut exchange = connection.call(call("large", "{}")).await.unwrap();
    let outcome = exchange.next().await;
    assert!(matches!(outcome, Err(Error::InvalidResponse(_))), "{outcome:?}");
    let small: Value =
        serde_json::from_str(&all(&mut connection.call(call("x", "{}")).await.unwrap()).await.unwrap()[0]).unwrap();
    assert_eq!(small["result"], json!({}));
}
