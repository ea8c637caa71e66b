//! Tests the raw connection: what is sent, what is passed on, sessions and cancellation.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use waypost_mcp_wire::strict::{MessageKind, OwnedMessage};
use waypost_upstream::{CallRequest, Connection, ConnectionOptions, Error, Exchange, Protocol};

use crate::server::{EVENTS, EventSender, JSON, ReceivedRequest, Server, event, hang, negotiate, result, stream};

const ERAS: [Protocol; 2] = [Protocol::Modern, Protocol::Legacy];

/// Starts a server of an era that responds to other messages with `respond`.
pub async fn serve(
    protocol: Protocol,
    respond: impl Fn(&ReceivedRequest) -> Response + Clone + Send + Sync + 'static,
) -> Server {
    Server::start(move |request| negotiate(request, protocol).unwrap_or_else(|| respond(request))).await
}

/// Starts a server whose responses are streams that the test writes.
pub async fn serve_streams(protocol: Protocol) -> (Server, Arc<Mutex<Vec<EventSender>>>) {
    let streams: Arc<Mutex<Vec<EventSender>>> = Arc::default();
    let own = streams.clone();
    let server = serve(protocol, move |_| {
        let (sender, response) = stream();
        own.lock().unwrap().push(sender);
        response
    })
    .await;
    (server, streams)
}

pub fn call<'a>(method: &'a str, params: &'a str) -> CallRequest<'a> {
    CallRequest { method, params: Some(params), ..CallRequest::default() }
}

pub fn text(message: Option<OwnedMessage>) -> String {
    String::from_utf8(message.expect("a message").text().to_vec()).unwrap()
}

/// Returns all messages of an exchange.
pub async fn all(exchange: &mut Exchange) -> Result<Vec<String>, Error> {
    let mut messages = Vec::new();
    while let Some(message) = exchange.next().await? {
        messages.push(text(Some(message)));
    }
    Ok(messages)
}

pub fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test]
async fn messages_are_passed_on_as_they_are_except_for_progress_tokens() {
    for era in ERAS {
        let server = serve(era, |request| {
            let id = &request.body["id"];
            let progress = |token: &str| {
                format!(r#"{{"jsonrpc":"2.0", "method":"notifications/progress","params":{{"progressToken":{token},"progress":1.0}}}}"#)
            };
            let messages = [
                progress(&id.to_string()),
                progress("\"agent\""),
                progress("77"),
                r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.0}, "x":[]}"#.to_owned(),
                r#"{"jsonrpc":"2.0","id":77,"result":{}}"#.to_owned(),
                format!(r#"{{"jsonrpc":"2.0","id":"{id}","result":{{}}}}"#),
                result(request, r#"{ "content":[],"big":123456789012345678901, "a":{"b":1,"b":2} }"#),
                result(request, r#"{"second":true}"#),
                progress(&id.to_string()),
            ];
            (EVENTS, messages.map(|message| event(&message)).concat()).into_response()
        })
        .await;
        let connection = server.open(era).await;
        let params = r#"{"name":"é","x":1.0,"_meta":{"progressToken":"agent","a":1}}"#;
        let mut exchange = connection.call(call("tools/call", params)).await.unwrap();
        let id = exchange.id().unwrap();
        let expected = [
            r#"{"jsonrpc":"2.0", "method":"notifications/progress","params":{"progressToken":"agent","progress":1.0}}"#
                .to_owned(),
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1.0}, "x":[]}"#
                .to_owned(),
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{ "content":[],"big":123456789012345678901, "a":{{"b":1,"b":2}} }}}}"#
            ),
        ];
        assert_eq!(all(&mut exchange).await.unwrap(), expected);
        assert!(exchange.next().await.unwrap().is_none(), "nothing follows the response");
        let counters = connection.counters();
        assert_eq!((count(&counters.unmatched_responses), count(&counters.dropped_notifications)), (3, 3));

        let sent = server.wait_for("tools/call").await;
        assert_eq!(sent.body["params"]["_meta"]["progressToken"], id);
        assert_eq!((&sent.body["params"]["name"], &sent.body["params"]["_meta"]["a"]), (&json!("é"), &json!(1)));
        let version = "io.modelcontextprotocol/protocolVersion";
        let capabilities = "io.modelcontextprotocol/clientCapabilities";
        if era == Protocol::Modern {
            assert_eq!(sent.header("mcp-name"), Some("=?base64?w6k=?="));
            assert_eq!(sent.body["params"]["_meta"][version], "2026-07-28");
            assert_eq!(sent.body["params"]["_meta"][capabilities], json!({ "roots": {} }));
        } else {
            assert!(sent.header("mcp-name").is_none() && sent.body["params"]["_meta"].get(version).is_none());
            assert_eq!(sent.header("mcp-session-id"), Some("s-1"));
        }
        let own = json!({ "_meta": { version: "2026-07-28", capabilities: {}, "b": 1 } }).to_string();
        all(&mut connection.call(call("own", &own)).await.unwrap()).await.unwrap();
        let meta = server.wait_for("own").await.body["params"]["_meta"].clone();
        let kept = meta.get(capabilities).cloned();
        assert_eq!(
            kept,
            (era == Protocol::Modern).then(|| json!({})),
            "declared by the caller, removed for old servers"
        );
        assert_eq!(meta["b"], 1);
    }
}

#[tokio::test]
async fn what_the_server_declared_is_kept_as_text() {
    let server = serve(Protocol::Legacy, |_| StatusCode::OK.into_response()).await;
    let declared = server.open(Protocol::Any).await.server();
    assert_eq!(declared.revision, "2025-11-25");
    assert_eq!(declared.capabilities.as_deref(), Some(r#"{ "tools":{} }"#));
    assert_eq!(declared.instructions.as_deref(), Some(r#""Use \u0069t.""#));
    assert_eq!(server.received()[1].body["params"]["capabilities"], json!({ "roots": {} }));
    for (protocol, other) in [(Protocol::Modern, Protocol::Legacy), (Protocol::Legacy, Protocol::Modern)] {
        let server = Server::start(move |request| match (request.rpc_method(), other) {
            ("initialize", Protocol::Modern) => StatusCode::NOT_FOUND.into_response(),
            _ => negotiate(request, other).unwrap(),
        })
        .await;
        assert!(Connection::open(server.raw_options(protocol)).await.is_err(), "only {protocol:?}");
        assert_eq!(server.received().len(), 1);
    }
}

#[tokio::test]
async fn credentials_are_sent_with_every_request_and_replace_no_other_header() {
    let server = serve(Protocol::Legacy, |request| (JSON, result(request, "{}")).into_response()).await;
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer secret".parse().unwrap());
    headers.insert("mcp-session-id", "other".parse().unwrap());
    let options = ConnectionOptions { headers, ..server.raw_options(Protocol::Any) };
    assert!(!format!("{options:?}").contains("secret") && !format!("{options:?}").contains("127.0.0.1"));
    let connection = Connection::open(options).await.unwrap();
    let mut own = HeaderMap::new();
    own.insert("mcp-param-x", "1".parse().unwrap());
    let request = CallRequest { headers: own, ..call("tools/call", r#"{"name":"a"}"#) };
    all(&mut connection.call(request).await.unwrap()).await.unwrap();
    connection.close().await.unwrap();
    let received = server.received();
    assert!(received.iter().all(|request| request.header("authorization") == Some("Bearer secret")));
    assert!(received[2..].iter().all(|request| request.header("mcp-session-id") == Some("s-1")));
    assert_eq!(received[3].header("mcp-param-x"), Some("1"));
    assert_eq!(received.last().unwrap().method, Method::DELETE);
}

#[tokio::test]
async fn forwarded_headers_replace_no_header_of_the_connection_the_protocol_or_the_request() {
    for era in ERAS {
        let server = serve(era, |request| (JSON, result(request, "{}")).into_response()).await;
        let header = |name: &'static str, value: &str| (HeaderName::from_static(name), value.parse().unwrap());
        let headers = HeaderMap::from_iter([header("x-secret", "own")]);
        let connection = Connection::open(ConnectionOptions { headers, ..server.raw_options(era) }).await.unwrap();
        let forwarded = HeaderMap::from_iter([
            header("x-tenant", "acme"),
            header("x-secret", "other"),
            header("mcp-param-x", "other"),
            header("mcp-protocol-version", "other"),
            header("mcp-session-id", "other"),
            header("accept", "other"),
            header("content-type", "other"),
        ]);
        let headers = HeaderMap::from_iter([header("mcp-param-x", "1")]);
        let request = CallRequest { headers, forwarded, ..call("tools/call", r#"{"name":"a"}"#) };
        all(&mut connection.call(request).await.unwrap()).await.unwrap();
        let received = server.received();
        let (last, earlier) = received.split_last().unwrap();
        assert_eq!((last.header("x-tenant"), last.header("x-secret")), (Some("acme"), Some("own")));
        assert_eq!(last.header("mcp-param-x"), Some("1"));
        assert!(last.headers.values().all(|value| value != "other"), "{:?}", last.headers);
        assert!(earlier.iter().all(|request| request.header("x-tenant").is_none()));
        // The next request has none of them.
        all(&mut connection.call(call("x", "{}")).await.unwrap()).await.unwrap();
        assert_eq!(server.received().pop().unwrap().header("x-tenant"), None);
    }
}

#[tokio::test]
async fn a_request_of_the_server_is_passed_on_if_the_caller_answers_it() {
    for (accepts_requests, era) in [(true, Protocol::Legacy), (false, Protocol::Legacy), (true, Protocol::Modern)] {
        let server = serve(era, |request| {
            let requests =
                [r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#, r#"{"jsonrpc":"2.0","id":9,"method":"roots/list"}"#];
            let events = [requests[0], requests[1], &result(request, "{}")].map(event).concat();
            (EVENTS, events).into_response()
        })
        .await;
        let options = ConnectionOptions { accepts_requests, ..server.raw_options(era) };
        let connection = Connection::open(options).await.unwrap();
        let mut exchange = connection.call(call("x", "{}")).await.unwrap();
        let first = exchange.next().await.unwrap().unwrap();
        let is_passed_on = accepts_requests && era == Protocol::Legacy;
        assert_eq!(first.message().kind, if is_passed_on { MessageKind::Request } else { MessageKind::Result });
        let answer = br#"{"jsonrpc":"2.0","id":9,"result":{"roots":[]}}"#;
        if is_passed_on {
            connection.respond(answer).await.unwrap();
            assert_eq!(exchange.next().await.unwrap().unwrap().message().kind, MessageKind::Result);
        }
        assert_eq!(
            count(&connection.counters().rejected_requests),
            u64::from(!is_passed_on) * if era == Protocol::Modern { 2 } else { 1 }
        );
        let answers: Vec<Value> = server
            .received()
            .into_iter()
            .map(|request| request.body)
            .filter(|body| body.get("method").is_none())
            .collect();
        match (era, accepts_requests) {
            (Protocol::Modern, _) => {
                assert!(answers.is_empty(), "modern servers send no requests");
                assert!(matches!(connection.respond(answer).await, Err(Error::InvalidRequest(_))));
            }
            (_, true) => assert_eq!(answers[1]["result"], json!({ "roots": [] })),
            (_, false) => assert_eq!(answers[1]["error"]["code"], -32_601),
        }
        for invalid in [&br#"{"jsonrpc":"2.0","id":9,"method":"x"}"#[..], br#"{"id":9}"#] {
            assert!(matches!(connection.respond(invalid).await, Err(Error::InvalidRequest(_))));
        }
    }
}

#[tokio::test]
async fn dropping_an_exchange_cancels_the_request() {
    let (server, _streams) = serve_streams(Protocol::Legacy).await;
    let connection = server.open(Protocol::Legacy).await;
    let exchange = connection.call(call("x", "{}")).await.unwrap();
    let id = exchange.id().unwrap();
    drop(exchange);
    let cancelled = server.wait_for("notifications/cancelled").await;
    assert_eq!((&cancelled.body["params"]["requestId"], cancelled.header("mcp-session-id")), (&json!(id), Some("s-1")));

    let (server, streams) = serve_streams(Protocol::Modern).await;
    let connection = server.open(Protocol::Modern).await;
    let mut exchange = connection.call(call("x", "{}")).await.unwrap();
    let sender = streams.lock().unwrap()[0].clone();
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
    sender.send(Some(event(progress))).unwrap();
    assert_eq!(text(exchange.next().await.unwrap()), progress);
    drop(exchange);
    sender.closed().await;
    assert_eq!(server.methods(), ["POST server/discover", "POST x"], "closing the stream is enough");
}

#[tokio::test]
async fn dropping_a_call_that_waits_for_headers_cancels_it_and_a_completed_one_is_not_cancelled() {
    let server = serve(Protocol::Legacy, |request| match request.rpc_method() {
        "hang" => hang(),
        _ => (JSON, result(request, "{}")).into_response(),
    })
    .await;
    let connection = server.open(Protocol::Legacy).await;
    drop(connection.call(call("x", "{}")).await.unwrap());
    let waiting = connection.clone();
    let task = tokio::spawn(async move { waiting.call(call("hang", "{}")).await.map(|_| ()) });
    let sent = server.wait_for("hang").await;
    task.abort();
    let cancelled = server.wait_for("notifications/cancelled").await;
    assert_eq!(
        cancelled.body["params"]["requestId"], sent.body["id"],
        "the first cancellation is that of the second call"
    );
}

#[tokio::test]
async fn a_lost_session_is_started_again_without_the_caller_noticing() {
    let example =
        r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"},"id":null}"#;
    check_lost_session(StatusCode::NOT_FOUND, "").await;
    check_lost_session(StatusCode::BAD_REQUEST, example).await;
}

/// Checks what follows if a server rejects messages of an unknown session with this response.
async fn check_lost_session(status: StatusCode, body: &'static str) {
    let lost = move || (status, JSON, body).into_response();
    let sessions = Arc::new(AtomicUsize::new(0));
    let current = sessions.clone();
    let server = Server::start(move |request| {
        let session = |number: usize| format!("s-{number}");
        match request.rpc_method() {
            "initialize" => {
                let id = session(current.fetch_add(1, Ordering::Relaxed) + 1);
                let headers = [("content-type", "application/json"), ("mcp-session-id", &id)];
                (headers, result(request, r#"{"protocolVersion":"2025-06-18"}"#)).into_response()
            }
            "server/discover" => StatusCode::NOT_FOUND.into_response(),
            // The first session ends after the handshake, and `never` is not accepted in any.
            "notifications/initialized" => StatusCode::ACCEPTED.into_response(),
            "never" => lost(),
            _ if request.header("mcp-session-id") == Some("s-1") => lost(),
            "notifications/x" => StatusCode::ACCEPTED.into_response(),
            _ if request.method == Method::GET => (EVENTS, ": nothing\n\n").into_response(),
            _ => (JSON, result(request, "{}")).into_response(),
        }
    })
    .await;
    let connection = server.open(Protocol::Any).await;
    let calls = (0..5).map(|_| async {
        all(&mut connection.call(call("x", "{}")).await.unwrap()).await.unwrap();
    });
    futures::future::join_all(calls).await;
    assert_eq!(sessions.load(Ordering::Relaxed), 2, "one new session for all calls");
    connection.notify("notifications/x", Some(r#"{"a":1}"#)).await.unwrap();
    assert!(matches!(connection.call(call("never", "{}")).await, Err(Error::SessionLost)));
    assert_eq!(sessions.load(Ordering::Relaxed), 3, "tried once");
    let mut ids: Vec<u64> = server.received().iter().filter_map(|request| request.body["id"].as_u64()).collect();
    let requests = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), requests, "no ID is used twice");
    sessions.store(0, Ordering::Relaxed);
    let other = server.open(Protocol::Any).await;
    assert_eq!((connection.renewals(), other.renewals()), (2, 0));
    assert!(other.listen("{}").await.unwrap().is_some());
    assert_eq!(sessions.load(Ordering::Relaxed), 2, "a lost session is noticed by a listener as well");
    assert_eq!(other.renewals(), 1);
}

#[tokio::test]
async fn messages_without_a_request_are_received_by_a_listener() {
    let filter = r#"{"toolsListChanged":true}"#;
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    for era in ERAS {
        let (server, streams) = serve_streams(era).await;
        let connection = server.open(era).await;
        let mut listener = connection.listen(filter).await.unwrap().unwrap();
        let sender = streams.lock().unwrap().remove(0);
        sender.send(Some(event(changed))).unwrap();
        assert_eq!(text(listener.next().await.unwrap()), changed);
        let request = server.received().pop().unwrap();
        if era == Protocol::Modern {
            assert_eq!(request.body["params"]["notifications"], json!({ "toolsListChanged": true }));
            let response = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, request.body["id"]);
            sender.send(Some(event(&response))).unwrap();
            assert_eq!(text(listener.next().await.unwrap()), response);
        } else {
            assert_eq!((&request.method, request.header("mcp-session-id")), (&Method::GET, Some("s-1")));
            sender.send(Some(event(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#))).unwrap();
        }
        drop(sender);
        assert!(listener.next().await.unwrap().is_none(), "the end of the stream");
    }
    let server = serve(Protocol::Legacy, |_| StatusCode::METHOD_NOT_ALLOWED.into_response()).await;
    assert!(server.open(Protocol::Legacy).await.listen(filter).await.unwrap().is_none());
}

#[tokio::test]
async fn a_stream_that_the_server_ends_is_resumed() {
    let server = serve(Protocol::Legacy, |request| {
        let events = match (&request.method, request.header("last-event-id")) {
            (&Method::GET, Some("e-1")) => "id: e-2\ndata:\n\n".to_owned(),
            (&Method::GET, Some("e-2")) => event(r#"{"jsonrpc":"2.0","id":3,"result":{"resumed":true}}"#),
            (&Method::GET, _) => return StatusCode::BAD_REQUEST.into_response(),
            _ => "id: e-1\nretry: 1\ndata:\n\ndata: {\"incomplete".to_owned(),
        };
        (EVENTS, events).into_response()
    })
    .await;
    let connection = server.open(Protocol::Legacy).await;
    connection.notify("notifications/x", None).await.unwrap();
    let first = connection.call(call("skip", "{}")).await.unwrap();
    let mut exchange = connection.call(call("x", "{}")).await.unwrap();
    assert_eq!(exchange.id(), Some(3));
    assert_eq!(all(&mut exchange).await.unwrap(), [r#"{"jsonrpc":"2.0","id":3,"result":{"resumed":true}}"#]);
    drop(first);
}

#[tokio::test]
async fn a_batch_of_2025_03_26_is_split_and_others_are_rejected() {
    for (revision, is_accepted) in [("2025-03-26", true), ("2025-06-18", false)] {
        let server = Server::start(move |request| match request.rpc_method() {
            "initialize" => {
                (JSON, result(request, &json!({ "protocolVersion": revision }).to_string())).into_response()
            }
            "x" => {
                let notification = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
                (JSON, format!("[{notification},{}]", result(request, "{}"))).into_response()
            }
            _ => StatusCode::ACCEPTED.into_response(),
        })
        .await;
        let connection = server.open(Protocol::Legacy).await;
        match connection.call(call("x", "{}")).await {
            Ok(mut exchange) => {
                assert!(is_accepted);
                assert_eq!(all(&mut exchange).await.unwrap().len(), 2);
            }
            Err(error) => assert!(!is_accepted && matches!(error, Error::InvalidResponse(_)), "{error:?}"),
        }
    }
}
