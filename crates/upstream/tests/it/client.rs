//! Tests the typed client against servers of both eras, and against faulty servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use waypost_outbound::{Error as TransportError, Outbound, Policy, Purpose, StreamLimits};
use waypost_upstream::{Client, ConnectOptions, Error};

use crate::server::{EVENTS, JSON, LIMITS, Pending, ReceivedRequest, Server, discovered, result, rpc_error};

/// A modern server that responds to everything else with `respond`.
async fn modern(respond: impl Fn(&ReceivedRequest) -> Response + Clone + Send + Sync + 'static) -> (Server, Client) {
    let server = Server::start(move |request| match request.rpc_method() {
        "server/discover" => discovered(request, &["2026-07-28"]),
        _ => respond(request),
    })
    .await;
    let client = server.connect().await.unwrap();
    (server, client)
}

fn params(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[tokio::test]
async fn a_modern_request_declares_itself_and_its_result_is_not_rewritten() {
    const RESULT: &str =
        r#"{ "unknown" : 1.0, "big":123456789012345678901234567890,"nested":{"dup":1,"dup":2}, "e":"\u00e9" }"#;
    let (server, client) = modern(|request| (JSON, result(request, RESULT)).into_response()).await;
    let call = client.request("tools/call", params(json!({ "name": "übung", "arguments": {} }))).await.unwrap();
    assert_eq!(call.get(), RESULT);
    client.close().await.unwrap();

    let [_, call] = &server.received()[..] else { panic!("no handshake, and no session to end") };
    assert_eq!(call.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(call.header("mcp-method"), Some("tools/call"));
    assert_eq!(call.header("mcp-name"), Some("=?base64?w7xidW5n?="));
    let meta = &call.body["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(meta["io.modelcontextprotocol/clientInfo"], json!({ "name": "test", "version": "1" }));
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
}

#[tokio::test]
async fn a_server_without_the_modern_revision_gets_a_handshake() {
    let refusals: [fn(&ReceivedRequest) -> Response; 6] = [
        |_| rpc_error(StatusCode::NOT_FOUND, -32_601),
        |_| rpc_error(StatusCode::BAD_REQUEST, -32_022),
        |_| StatusCode::NOT_FOUND.into_response(),
        |_| StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        |_| "text".into_response(),
        |request| discovered(request, &["2025-06-18"]),
    ];
    for refuse in refusals {
        let server = Server::start(move |request| match request.rpc_method() {
            "server/discover" => refuse(request),
            "initialize" => {
                let session = [("content-type", "application/json"), ("mcp-session-id", "s-1")];
                (session, result(request, r#"{"protocolVersion":"2025-06-18"}"#)).into_response()
            }
            "tools/list" => (JSON, result(request, "{}")).into_response(),
            _ => StatusCode::ACCEPTED.into_response(),
        })
        .await;
        let client = server.connect().await.unwrap();
        client.request("tools/list", Map::new()).await.unwrap();
        client.close().await.unwrap();

        let received = server.received();
        let methods: Vec<_> = received.iter().map(|request| (request.method.as_str(), request.rpc_method())).collect();
        let expected = ["server/discover", "initialize", "notifications/initialized", "tools/list"];
        assert_eq!(methods[..4], expected.map(|method| ("POST", method)));
        assert_eq!(methods[4..], [("DELETE", "")], "the session is ended");
        assert_eq!((received[1].header("mcp-protocol-version"), received[1].header("mcp-session-id")), (None, None));
        assert_eq!(received[1].body["params"]["protocolVersion"], "2025-11-25");
        for request in &received[2..] {
            assert_eq!(request.header("mcp-protocol-version"), Some("2025-06-18"));
            assert_eq!(request.header("mcp-session-id"), Some("s-1"));
            assert!(request.body["params"].get("_meta").is_none() && request.header("mcp-method").is_none());
        }
        assert_eq!(received[2].body.get("id"), None, "a notification");
    }
}

#[tokio::test]
async fn a_server_that_rejects_a_revision_that_it_supports_is_asked_once_more() {
    for supported in [&["2026-07-28"][..], &["2025-11-25"], &[]] {
        let asked = Arc::new(AtomicUsize::new(0));
        let server = Server::start(move |request| match request.rpc_method() {
            "server/discover" if asked.fetch_add(1, Ordering::Relaxed) == 0 => {
                let error = json!({ "code": -32_022, "message": "no", "data": { "supported": supported } });
                let body = json!({ "jsonrpc": "2.0", "id": request.body["id"], "error": error });
                (StatusCode::BAD_REQUEST, JSON, body.to_string()).into_response()
            }
            "server/discover" => discovered(request, &["2026-07-28"]),
            "initialize" => (JSON, result(request, r#"{"protocolVersion":"2025-11-25"}"#)).into_response(),
            _ => StatusCode::ACCEPTED.into_response(),
        })
        .await;
        server.connect().await.unwrap();
        let received = server.received();
        let expected = if supported.contains(&"2026-07-28") { "server/discover" } else { "initialize" };
        assert_eq!(received[1].rpc_method(), expected, "{supported:?}");
        assert_ne!(received[0].body["id"], received[1].body["id"], "no ID is used twice");
    }
}

#[tokio::test]
async fn a_refusal_that_says_what_to_do_is_not_followed_by_a_handshake() {
    for status in [401, 403, 429, 303] {
        let status = StatusCode::from_u16(status).unwrap();
        let server = Server::start(move |_| (status, [("retry-after", "7")]).into_response()).await;
        let error = server.connect().await.unwrap_err();
        assert!(
            matches!(error, Error::Status { status: found, retry_after: Some(7), .. } if found == status),
            "{error:?}"
        );
        assert_eq!(server.received().len(), 1, "{status}");
    }
    let server = Server::start(|_| rpc_error(StatusCode::BAD_REQUEST, -32_020)).await;
    assert!(matches!(server.connect().await, Err(Error::Rpc(error)) if error.code == -32_020));
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn an_unknown_revision_is_rejected() {
    let server = Server::start(|request| match request.rpc_method() {
        "initialize" => (JSON, result(request, r#"{"protocolVersion":"2031-01-01"}"#)).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    })
    .await;
    assert!(matches!(server.connect().await, Err(Error::UnsupportedRevision)));
}

#[tokio::test]
async fn events_before_the_response_are_handled() {
    let server = Server::start(|request| match request.rpc_method() {
        "initialize" => (JSON, result(request, r#"{"protocolVersion":"2025-11-25"}"#)).into_response(),
        "tools/call" => {
            let events = [
                String::new(),
                r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#.to_owned(),
                r#"{"jsonrpc":"2.0","method":"ping","id":"p"}"#.to_owned(),
                r#"{"jsonrpc":"2.0","method":"roots/list","id":8}"#.to_owned(),
                result(request, r#"{"ok":true}"#),
            ];
            let stream: String = events.iter().map(|data| format!("id: 1\r\ndata: {data}\r\n\r\n")).collect();
            (EVENTS, stream).into_response()
        }
        "tools/list" => (EVENTS, ": nothing follows\n\n").into_response(),
        "server/discover" => StatusCode::NOT_FOUND.into_response(),
        _ => StatusCode::ACCEPTED.into_response(),
    })
    .await;
    let client = server.connect().await.unwrap();
    let call = client.request("tools/call", params(json!({ "name": "x" }))).await.unwrap();
    assert_eq!(call.get(), r#"{"ok":true}"#);
    let answers: Vec<Value> = server.received().into_iter().skip(4).map(|request| request.body).collect();
    assert_eq!(answers[0], json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!(8), &json!(-32_601)));
    assert!(matches!(client.request("tools/list", Map::new()).await, Err(Error::InvalidResponse(_))));
}

#[tokio::test]
async fn size_and_time_of_responses_are_limited() {
    let (server, client) = modern(|request| {
        let large = "x".repeat(5000);
        match request.rpc_method() {
            "json" => (JSON, result(request, &format!("\"{large}\""))).into_response(),
            "events" => (EVENTS, format!(": {large}\n\ndata: {}\n\n", result(request, "1"))).into_response(),
            _ => (JSON, Body::from_stream(Pending)).into_response(),
        }
    })
    .await;
    for method in ["json", "events"] {
        let error = client.request(method, Map::new()).await.unwrap_err();
        assert!(matches!(error, Error::Transport(TransportError::TooLarge { limit: 4096, .. })), "{method}: {error:?}");
    }
    let options = server.options();
    let limits = StreamLimits { idle: Duration::from_millis(100), ..LIMITS };
    let client = Client::connect(ConnectOptions { limits, ..options }).await.unwrap();
    let error = client.request("silent", Map::new()).await.unwrap_err();
    assert!(matches!(error, Error::Transport(TransportError::Timeout { .. })), "{error:?}");
}

#[tokio::test]
async fn responses_that_are_not_for_the_request_are_rejected() {
    let bodies = [
        ("other id", json!({ "jsonrpc": "2.0", "id": 77, "result": {} }).to_string()),
        ("no id", json!({ "jsonrpc": "2.0", "result": {} }).to_string()),
        ("text", "text".to_owned()),
        ("array", "[]".to_owned()),
    ];
    let replies = bodies.clone();
    let (_server, client) = modern(move |request| {
        let body = replies.iter().find(|(name, _)| *name == request.rpc_method()).map(|(_, body)| body.clone());
        (JSON, body.unwrap()).into_response()
    })
    .await;
    for (name, body) in bodies {
        let error = client.request(name, Map::new()).await.unwrap_err();
        assert!(matches!(error, Error::InvalidResponse(_)), "{body}: {error:?}");
    }
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_with_the_same_message() {
    let (server, client) = modern(|request| match (request.rpc_method(), request.path.as_str()) {
        ("other-host", _) => (StatusCode::TEMPORARY_REDIRECT, [("location", "http://localhost:1/")]).into_response(),
        ("endless", _) => (StatusCode::TEMPORARY_REDIRECT, [("location", "/mcp")]).into_response(),
        (_, "/mcp") => (StatusCode::PERMANENT_REDIRECT, [("location", "/moved")]).into_response(),
        _ => (JSON, result(request, "{}")).into_response(),
    })
    .await;
    client.request("x", Map::new()).await.unwrap();
    let received = server.received();
    assert_eq!((&received[2].path[..], &received[2].body), ("/moved", &received[1].body));
    for method in ["other-host", "endless"] {
        let error = client.request(method, Map::new()).await.unwrap_err();
        assert!(matches!(error, Error::Status { status: StatusCode::TEMPORARY_REDIRECT, .. }), "{method}: {error:?}");
    }
}

#[tokio::test]
async fn a_guarded_route_reaches_no_private_address() {
    let server = Server::start(|request| discovered(request, &["2026-07-28"])).await;
    for (networks, is_allowed) in [(vec![], false), (vec!["127.0.0.0/8=tools".parse().unwrap()], true)] {
        let outbound = Outbound::new(Policy { allow: networks, extra_roots_pem: None }).unwrap();
        let route = outbound.route(Purpose::Tools, &[]).unwrap();
        let result = Client::connect(ConnectOptions { route, ..server.options() }).await;
        match result {
            Ok(_) => assert!(is_allowed),
            Err(Error::Transport(TransportError::AddressNotAllowed { .. })) => assert!(!is_allowed),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(server.received().len(), 1);
}
