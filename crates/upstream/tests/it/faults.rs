//! Tests the raw connection against servers that are broken or hostile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use waypost_mcp_wire::memory::MessageMemory;
use waypost_mcp_wire::smuggling;
use waypost_outbound::Error as TransportError;
use waypost_upstream::{CallRequest, Connection, ConnectionOptions, Error, Limits, Protocol};

use crate::connection::{all, call, count, serve, serve_streams};
use crate::server::{EVENTS, JSON, ReceivedRequest, event, hang, negotiate, result};

/// Sends all ambiguous messages instead of a response: none is passed on, and the connection stays usable.
#[tokio::test]
async fn ambiguous_messages_are_never_passed_on() {
    for era in [Protocol::Modern, Protocol::Legacy] {
        let server = serve(era, |request| {
            let Some(number) =
                request.rpc_method().strip_prefix("json-").or(request.rpc_method().strip_prefix("events-"))
            else {
                return (JSON, result(request, "{}")).into_response();
            };
            let body = smuggling::responses(&request.body["id"].to_string()).remove(number.parse().unwrap()).body;
            if request.rpc_method().starts_with("json-") {
                return (JSON, body).into_response();
            }
            let lines = body.split(|byte| *byte == b'\n').map(|line| [b"data: ", line, b"\n"].concat());
            (EVENTS, [lines.collect::<Vec<_>>().concat(), b"\n".to_vec()].concat()).into_response()
        })
        .await;
        let connection = server.open(era).await;
        let messages = smuggling::responses("1");
        for (number, message) in messages.iter().enumerate() {
            for kind in ["json", "events"] {
                let method = format!("{kind}-{number}");
                let outcome = match connection.call(call(&method, "{}")).await {
                    Ok(mut exchange) => all(&mut exchange).await,
                    Err(error) => Err(error),
                };
                assert!(matches!(outcome, Err(Error::InvalidResponse(_))), "{kind}: {}: {outcome:?}", message.name);
            }
        }
        // An event without data is not a message.
        assert_eq!(count(&connection.counters().invalid_messages), 2 * messages.len() as u64 - 1);
        assert_eq!(all(&mut connection.call(call("x", "{}")).await.unwrap()).await.unwrap().len(), 1);
    }
}

/// Sends responses whose headers declare the type in different ways.
#[tokio::test]
async fn a_response_is_read_only_if_one_header_declares_its_type() {
    for (era, media_type) in
        [Protocol::Modern, Protocol::Legacy].into_iter().flat_map(|era| [(era, JSON[0].1), (era, EVENTS[0].1)])
    {
        let server = serve(era, move |request| {
            let text = result(request, "{}");
            let text = if media_type == EVENTS[0].1 { event(&text) } else { text };
            let mut response = text.into_response();
            response.headers_mut().remove("content-type");
            let number: usize = request.rpc_method().parse().unwrap();
            for value in &smuggling::content_types(media_type)[number].values {
                response.headers_mut().append("content-type", value.parse().unwrap());
            }
            response
        })
        .await;
        let connection = server.open(era).await;
        for (number, case) in smuggling::content_types(media_type).iter().enumerate() {
            let outcome = match connection.call(call(&number.to_string(), "{}")).await {
                Ok(mut exchange) => all(&mut exchange).await,
                Err(error) => Err(error),
            };
            let declared = Some(case.values.join(", ")).filter(|values| !values.is_empty());
            let is_expected = match &outcome {
                Ok(messages) => case.is_accepted && messages.len() == 1,
                Err(Error::ContentType { content_type }) => !case.is_accepted && *content_type == declared,
                Err(_) => false,
            };
            assert!(is_expected, "{era:?}, {media_type}: {}: {outcome:?}", case.name);
        }
    }
}

#[tokio::test]
async fn ambiguous_messages_are_not_sent_either() {
    let server = serve(Protocol::Modern, |request| (JSON, result(request, "{}")).into_response()).await;
    let connection = server.open(Protocol::Modern).await;
    for params in
        [r#"{"name":"a","Name":"b"}"#, r#"{"name":"a","name":"b"}"#, "[]", "{", r#"{}},"id":9,"x":{"#, r#"{},"id":9"#]
    {
        assert!(matches!(connection.call(call("x", params)).await, Err(Error::InvalidRequest(_))), "{params}");
        assert!(matches!(connection.notify("x", Some(params)).await, Err(Error::InvalidRequest(_))), "{params}");
    }
    assert!(matches!(connection.call(call("x", r#"{},"y":1"#)).await, Err(Error::InvalidRequest(_))));
    assert_eq!(server.methods(), ["POST server/discover"]);
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_a_result_causes_an_error() {
    for era in [Protocol::Modern, Protocol::Legacy] {
        let (server, streams) = serve_streams(era).await;
        let connection = server.open(era).await;
        for is_broken in [true, false] {
            let mut exchange = connection.call(call("x", "{}")).await.unwrap();
            let sender = streams.lock().unwrap().pop().unwrap();
            let half = format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{\"a\":", exchange.id().unwrap());
            sender.send(Some(half)).unwrap();
            if is_broken {
                sender.send(None).unwrap();
            }
            drop(sender);
            let error = exchange.next().await.unwrap_err();
            let is_expected = match &error {
                Error::Transport(TransportError::Unreachable { .. }) => is_broken,
                Error::InvalidResponse(_) => !is_broken,
                _ => false,
            };
            assert!(is_expected, "{era:?} {is_broken}: {error:?}");
            assert!(exchange.next().await.unwrap().is_none());
        }
    }
}

#[tokio::test]
async fn a_server_that_hangs_causes_a_timeout_and_is_told() {
    let server = serve(Protocol::Legacy, |request| match request.rpc_method() {
        "headers" => hang(),
        _ => (EVENTS, axum::body::Body::from_stream(crate::server::Pending)).into_response(),
    })
    .await;
    let connection = server.open(Protocol::Legacy).await;
    for method in ["headers", "body"] {
        let request = CallRequest { timeout: Some(Duration::from_millis(50)), ..call(method, "{}") };
        let outcome = match connection.call(request).await {
            Ok(mut exchange) => all(&mut exchange).await,
            Err(error) => Err(error),
        };
        assert!(matches!(outcome, Err(Error::Transport(TransportError::Timeout { .. }))), "{method}: {outcome:?}");
        let sent = server.wait_for(method).await;
        server.wait_for_cancellation(&sent.body["id"]).await;
    }
}

#[tokio::test]
async fn size_and_number_of_messages_are_limited() {
    let server = serve(Protocol::Modern, |request| {
        let notification = event(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#);
        let large = "x".repeat(1_000);
        match request.rpc_method() {
            "json" => (JSON, result(request, &json!({ "a": large }).to_string())).into_response(),
            "event" => (EVENTS, event(&result(request, &json!({ "a": large }).to_string()))).into_response(),
            "line" => (EVENTS, format!("data: {large}")).into_response(),
            "lines" => (EVENTS, "data: x\n".repeat(500)).into_response(),
            "many" => (EVENTS, notification.repeat(11) + &event(&result(request, "{}"))).into_response(),
            "total" => (EVENTS, format!(": {large}\n").repeat(10) + &event(&result(request, "{}"))).into_response(),
            _ => (EVENTS, notification.repeat(9) + &event(&result(request, "{}"))).into_response(),
        }
    })
    .await;
    let limits = Limits { max_message_bytes: 900, max_response_bytes: 9_000, max_messages: 10, ..Limits::default() };
    let options = ConnectionOptions { limits, ..server.raw_options(Protocol::Modern) };
    let connection = Connection::open(options).await.unwrap();
    let outcome = async |method: &str| match connection.call(call(method, "{}")).await {
        Ok(mut exchange) => all(&mut exchange).await,
        Err(error) => Err(error),
    };
    for method in ["json", "event", "line", "lines"] {
        let outcome = outcome(method).await;
        assert!(matches!(outcome, Err(Error::MessageTooLarge { limit: 900 })), "{method}: {outcome:?}");
    }
    assert!(matches!(outcome("many").await, Err(Error::TooManyMessages { limit: 10 })));
    let total = outcome("total").await;
    assert!(matches!(total, Err(Error::Transport(TransportError::TooLarge { limit: 9_000, .. }))), "{total:?}");
    assert_eq!(outcome("fine").await.unwrap().len(), 10);
}

#[tokio::test]
async fn large_messages_need_memory_until_they_are_dropped() {
    let large = |request: &ReceivedRequest| result(request, &json!({ "a": "x".repeat(300 * 1024) }).to_string());
    let server = serve(Protocol::Modern, move |request| match request.rpc_method() {
        "json" => (JSON, large(request)).into_response(),
        "events" => (EVENTS, event(&large(request))).into_response(),
        _ => (JSON, result(request, "{}")).into_response(),
    })
    .await;
    let memory = MessageMemory::new(1_000 * 1024).share("org_1");
    let options = ConnectionOptions { memory, ..server.raw_options(Protocol::Modern) };
    let connection = Connection::open(options).await.unwrap();
    let outcome = async |method: &str| connection.call(call(method, "{}")).await?.next().await;
    for method in ["json", "events"] {
        let held = outcome(method).await.unwrap();
        for other in ["json", "events"] {
            let rejected = outcome(other).await.map(drop);
            assert!(matches!(rejected, Err(Error::OutOfMemory(_))), "{method} {other}: {rejected:?}");
        }
        assert!(outcome("small").await.is_ok(), "small messages are not counted");
        drop(held);
    }
}

#[tokio::test]
async fn a_large_result_is_passed_on_unchanged() {
    let large = json!({ "content": [{ "type": "text", "text": "é\n".repeat(400_000) }] }).to_string();
    let text = large.clone();
    let server = serve(Protocol::Legacy, move |request| match request.rpc_method() {
        "json" => (JSON, result(request, &text)).into_response(),
        _ => (EVENTS, event(&result(request, &text))).into_response(),
    })
    .await;
    let connection = server.open(Protocol::Legacy).await;
    for method in ["json", "events"] {
        let mut exchange = connection.call(call(method, "{}")).await.unwrap();
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{large}}}"#, exchange.id().unwrap());
        assert!(all(&mut exchange).await.unwrap() == [expected], "{method}");
    }
}

#[tokio::test]
async fn errors_are_responses_unless_they_concern_the_caller() {
    let server = serve(Protocol::Modern, |request| {
        let error = json!({ "jsonrpc": "2.0", "id": request.body["id"], "error": { "code": -32_601, "message": "no", "data": [1] } });
        let body = (JSON, error.to_string());
        match request.rpc_method() {
            "404" => (StatusCode::NOT_FOUND, body).into_response(),
            "401" => (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer realm=\"x\"")], body).into_response(),
            "500" => (StatusCode::INTERNAL_SERVER_ERROR, body).into_response(),
            "ambiguous" => (StatusCode::NOT_FOUND, JSON, error.to_string().replace("\"data\"", "\"Code\"")).into_response(),
            "307" => (StatusCode::TEMPORARY_REDIRECT, [("location", "/other")]).into_response(),
            _ => (StatusCode::OK, "text").into_response(),
        }
    })
    .await;
    let connection = server.open(Protocol::Modern).await;
    let mut exchange = connection.call(call("404", "{}")).await.unwrap();
    let response: Value = serde_json::from_str(&all(&mut exchange).await.unwrap()[0]).unwrap();
    assert_eq!(response["error"]["data"], json!([1]));
    for status in ["401", "500", "307"] {
        let error = connection.call(call(status, "{}")).await.map(|_| ()).unwrap_err();
        let Error::Status { status: found, challenge, .. } = &error else { panic!("{error:?}") };
        assert_eq!((found.as_str(), challenge.is_some()), (status, status == "401"));
    }
    let error = connection.call(call("ambiguous", "{}")).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Status { status: StatusCode::NOT_FOUND, .. }), "{error:?}");
    let error = connection.call(call("text", "{}")).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::ContentType { content_type: Some(_) }), "{error:?}");
    assert!(server.received().iter().all(|request| request.path == "/mcp"), "no redirect is followed");
}

#[tokio::test]
async fn a_slow_answer_to_the_first_request_is_not_waited_for() {
    let server = crate::server::Server::start(|request| match request.rpc_method() {
        "server/discover" => hang(),
        _ => negotiate(request, Protocol::Legacy).unwrap(),
    })
    .await;
    let limits = Limits { discover_timeout: Duration::from_millis(50), ..Limits::default() };
    let options = ConnectionOptions { limits, ..server.raw_options(Protocol::Any) };
    assert_eq!(Connection::open(options).await.unwrap().server().revision, "2025-11-25");
}

#[tokio::test]
async fn a_server_that_answers_twice_later_does_not_affect_other_requests() {
    let earlier: Arc<Mutex<Value>> = Arc::default();
    let server = serve(Protocol::Legacy, move |request| {
        let previous = std::mem::replace(&mut *earlier.lock().unwrap(), request.body["id"].clone());
        let again = event(&json!({ "jsonrpc": "2.0", "id": previous, "result": { "again": true } }).to_string());
        let again = if previous.is_null() { String::new() } else { again };
        (EVENTS, again + &event(&result(request, r#"{"again":false}"#))).into_response()
    })
    .await;
    let connection = server.open(Protocol::Legacy).await;
    for calls in 0..3 {
        let messages = all(&mut connection.call(call("x", "{}")).await.unwrap()).await.unwrap();
        assert!(messages.len() == 1 && messages[0].contains("\"again\":false"), "{messages:?}");
        assert_eq!(count(&connection.counters().unmatched_responses), calls);
    }
}
