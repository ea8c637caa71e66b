//! Headers of callers that HTTP servers receive with their calls.

use ::http::{HeaderMap, HeaderName, HeaderValue};
use waypost_toolbox_proto::http::FORWARDED_HEADERS_HEADER;

use super::http::{Container, accepted, json_response, legacy_response, ready, sse_container, streamable, target};
use super::*;
use crate::supervisor::servers::CallOptions;

/// Headers of a caller. Only the first two can be forwarded.
const SENT: &str = r#"{"X-Tenant":"acme","x-empty":"","host":"other","accept":"other","accept-language":"other",
    "content-type":"other","content-length":"other","transfer-encoding":"other","connection":"other","te":"other",
    "authorization":"other","cookie":"other","mcp-session-id":"other","mcp-protocol-version":"other","mcp-method":"other",
    "mcp-name":"other","mcp-param-text":"other","waypost-timeout-ms":"other","x-forwarded-for":"other"}"#;

/// Calls the tool with headers of the caller, as the control plane sends them.
async fn call_with(session: &Session, text: &str, headers: &str) {
    let value = HeaderValue::try_from(headers.replace('\n', "")).unwrap();
    let headers = HeaderMap::from_iter([(HeaderName::from_static(FORWARDED_HEADERS_HEADER), value)]);
    let messages = session.call(call(1, text), CallOptions::from_headers(&headers)).await.unwrap();
    assert_eq!(messages.count().await, 1, "{text}");
}

/// Makes calls with and without headers, and checks that each request has only the headers of its own call.
async fn check(container: &Container, session: &Session) {
    call_with(session, "first", SENT).await;
    call_with(session, "second", "{}").await;
    response(session, call(2, "third")).await;
    session.probe().await.unwrap();
    let received = container.received.lock().unwrap().clone();
    let with_header: Vec<_> = received.iter().filter(|request| request.header("x-tenant").is_some()).collect();
    let [request] = with_header[..] else { panic!("{received:?}") };
    assert_eq!((request.rpc(), request.text()), ("tools/call", Some("first")));
    assert_eq!((request.header("x-tenant"), request.header("x-empty")), (Some("acme"), Some("")));
    assert_eq!(request.header("host"), Some("127.0.0.1:8080"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    for name in ["authorization", "cookie", "connection", "te", "accept-language", "x-forwarded-for"] {
        assert_eq!(request.header(name), None, "{name}");
    }
    assert!(received.iter().all(|request| request.headers.values().all(|value| value != "other")), "{received:?}");
}

#[tokio::test]
async fn headers_are_sent_with_their_own_call_only_and_replace_no_others() {
    for is_modern in [false, true] {
        let container = Container::new(ready(move |request| match request.rpc() {
            _ if !is_modern => legacy_response(request, "one"),
            "tools/list" => {
                let properties = json!({ "text": { "type": "string", "x-mcp-header": "Text" } });
                let tool = json!({ "name": "echo", "inputSchema": { "type": "object", "properties": properties } });
                json_response(&result(&request.body, json!({ "tools": [tool] })))
            }
            _ => modern(&request.body).map_or_else(accepted, |answer| json_response(&answer)),
        }));
        let fixture = container.fixture();
        let session = fixture.connect(streamable()).await.unwrap();
        check(&container, &session).await;
        let request = container.wait_for("tools/call").await;
        let own = ["mcp-session-id", "mcp-method", "mcp-name", "mcp-param-text"].map(|name| request.header(name));
        let expected = match is_modern {
            true => [None, Some("tools/call"), Some("echo"), Some("first")],
            false => [Some("one"), None, None, None],
        };
        assert_eq!(own, expected);
    }
}

#[tokio::test]
async fn an_sse_server_receives_headers_with_the_message_of_the_call() {
    let container = sse_container();
    let fixture = container.fixture();
    let session = fixture.connect(target(TransportKind::Sse)).await.unwrap();
    check(&container, &session).await;
}

#[tokio::test]
async fn calls_on_one_session_do_not_mix_headers() {
    let container = Container::new(ready(|request| legacy_response(request, "one")));
    let fixture = container.fixture();
    let session = fixture.connect(streamable()).await.unwrap();
    let calls = (0..20).map(|number| {
        let (session, tenant) = (&session, format!("tenant-{number}"));
        async move { call_with(session, &tenant, &json!({ "x-tenant": tenant }).to_string()).await }
    });
    futures::future::join_all(calls).await;
    let received = container.received.lock().unwrap().clone();
    let calls: Vec<_> = received.iter().filter(|request| request.rpc() == "tools/call").collect();
    assert_eq!(calls.len(), 20);
    assert!(calls.iter().all(|request| request.header("x-tenant") == request.text()), "{calls:?}");
}

#[tokio::test]
async fn a_call_repeated_in_a_new_session_has_the_headers_but_its_handshake_does_not() {
    let current = Arc::new(Mutex::new("one"));
    let server_session = current.clone();
    let container = Container::new(ready(move |request| legacy_response(request, *server_session.lock().unwrap())));
    let fixture = container.fixture();
    let session = fixture.connect(streamable()).await.unwrap();
    *current.lock().unwrap() = "two";
    call_with(&session, "x", SENT).await;
    let received = container.received.lock().unwrap().clone();
    assert_eq!(received.iter().filter(|request| request.rpc() == "initialize").count(), 2);
    let with_header = received.iter().filter(|request| request.header("x-tenant").is_some());
    let sessions: Vec<_> = with_header.map(|request| (request.rpc(), request.header("mcp-session-id"))).collect();
    assert_eq!(sessions, [("tools/call", Some("one")), ("tools/call", Some("two"))]);
}

#[tokio::test]
async fn a_stdio_server_is_called_without_headers() {
    let fixture = Fixture::new();
    let session = fixture.serve(|request| legacy(request).into_iter().collect()).await;
    call_with(&session, "x", SENT).await;
}
