//! Requests that servers with a handshake send to callers.

use ::http::Response;
use futures::FutureExt;
use tokio::time::{Instant, advance};
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::log_level::LogLevel;

use super::http::{Body, Container, full, json_response, streamable, streaming};
use super::*;
use crate::supervisor::servers::{CallOptions, CallSlot};

pub(super) const FORM: &str = r#"{"elicitation":{}}"#;

/// Returns the options of a caller with these capabilities.
pub(super) fn caller(key: &str, capabilities: &str) -> CallOptions {
    let capabilities = ClientCapabilities::parse(Some(capabilities));
    CallOptions { caller: Some(key.into()), capabilities, ..TIMEOUT.into() }
}

/// Returns a request from the server.
pub(super) fn question(id: impl Into<Value>, text: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": "elicitation/create", "params": { "message": text } })
}

fn answer(question: &Value, result: Value) -> Vec<u8> {
    super::result(question, result).to_string().into_bytes()
}

/// Returns the next message of a call.
pub(super) async fn next(messages: &mut Messages) -> Value {
    serde_json::from_slice(&messages.next().await.unwrap().unwrap()).unwrap()
}

async fn connect(fixture: &Fixture) -> (Arc<Session>, Server) {
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    (session.unwrap(), fake)
}

/// Begins a call, and returns its messages and the request that the server receives.
async fn begin(session: &Session, fake: &mut Server, options: CallOptions) -> (Messages, Value) {
    let (messages, request) = tokio::join!(session.call(call("same", "x"), options), fake.read());
    (messages.unwrap(), request)
}

#[tokio::test]
async fn a_caller_is_asked_and_its_response_is_accepted_once() {
    let fixture = Fixture::new();
    let (session, mut fake) = connect(&fixture).await;
    let running = Arc::new(tokio::sync::Semaphore::new(1));
    let slot = CallSlot::new(running.clone().try_acquire_owned().unwrap());
    let (mut messages, request) = begin(&session, &mut fake, CallOptions { slot, ..caller("a", FORM) }).await;
    assert_eq!(running.available_permits(), 0);
    fake.write_raw(
        b"{\"params\":{\"n\":1.0},\"method\":\"elicitation/create\",\"jsonrpc\":\"2.0\",\"id\":\"s\\u0031\"}\n",
    );
    let asked = messages.next().await.unwrap().unwrap();
    assert_eq!(running.available_permits(), 1, "a call takes no place while its caller is asked");
    let asked_text = String::from_utf8(asked.to_vec()).unwrap();
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    let id = asked["id"].as_str().unwrap();
    assert!(id.len() > 30, "not to be guessed: {id}");
    assert!(asked_text.starts_with(r#"{"params":{"n":1.0},"method":"elicitation/create""#), "as the server sent it");

    let status =
        async |instance: &str, response: &[u8]| fixture.bridge.respond(instance, response).await.map_err(|f| f.status);
    let response = format!("{{\"result\":{{\"x\":1.0}},\"id\":\"{id}\",\n\"jsonrpc\":\"2.0\"}}");
    assert_eq!(status("ins_2", response.as_bytes()).await, Err(404), "another instance");
    assert_eq!(status("ins_1", &answer(&json!({ "id": "s1" }), json!({}))).await, Err(404), "the ID of the server");
    assert_eq!(status("ins_1", &answer(&json!({ "id": 5 }), json!({}))).await, Err(404));
    for malformed in ["{", "[]", r#"{"jsonrpc":"2.0","id":"x","method":"ping"}"#] {
        assert_eq!(status("ins_1", malformed.as_bytes()).await, Err(400), "{malformed}");
    }
    assert_eq!(status("ins_1", response.as_bytes()).await, Ok(()));
    let received = fake.read_line().await.unwrap();
    assert_eq!(received, r#"{"result":{"x":1.0},"id":"s\u0031", "jsonrpc":"2.0"}"#);
    assert_eq!(status("ins_1", response.as_bytes()).await, Err(404), "it is accepted once");

    // The server may use the same ID again. An error is a response as well.
    fake.write(&question("s1", "again"));
    let asked = next(&mut messages).await;
    assert_ne!(asked["id"], id);
    assert_eq!(status("ins_1", error(&asked, -1).to_string().as_bytes()).await, Ok(()));
    assert_eq!(fake.read().await["error"]["code"], -1);
    fake.write(&result(&request, json!("done")));
    assert_eq!(next(&mut messages).await, json!({ "jsonrpc": "2.0", "id": "same", "result": "done" }));
    assert!(messages.next().await.is_none());
    assert_eq!(fixture.bridge.requests.len(), 0);
}

#[tokio::test]
async fn a_server_is_told_all_capabilities_that_callers_may_have() {
    let all = json!({ "elicitation": { "form": {}, "url": {} }, "sampling": { "tools": {} }, "roots": {} });
    for is_shared in [true, false] {
        let fixture = Fixture { is_shared, ..Fixture::new() };
        let (attached, mut fake) = server();
        let (session, mut declared) = tokio::join!(fixture.connect(attached), async {
            let discover = fake.read().await;
            fake.write(&error(&discover, -32_601));
            let initialize = fake.read().await;
            fake.write(&legacy(&initialize).unwrap());
            fake.read().await;
            initialize["params"]["capabilities"].clone()
        });
        let session = session.unwrap();
        let (mut messages, _) = begin(&session, &mut fake, caller("a", r#"{"roots":{},"elicitation":{}}"#)).await;
        fake.write(&json!({ "jsonrpc": "2.0", "id": 1, "method": "roots/list" }));
        match is_shared {
            // Servers keep the roots for the session, which all callers share.
            true => {
                assert_eq!(fake.read().await["error"]["code"], -32_601);
                declared["roots"] = json!({});
            }
            false => assert_eq!(next(&mut messages).await["method"], "roots/list"),
        }
        assert_eq!(declared, all);
    }
}

#[tokio::test]
async fn a_caller_is_asked_only_for_what_it_has_declared() {
    let fixture = Fixture::new();
    let (session, mut fake) = connect(&fixture).await;
    // Outside of calls, and during a call that cannot cause requests to its caller.
    fake.write(&question(1, "x"));
    assert_eq!(fake.read().await["error"]["code"], -32_601);
    let list = Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let (_list, _) = tokio::join!(session.call(list, caller("a", FORM)), fake.read());
    fake.write(&question(2, "x"));
    assert_eq!(fake.read().await["error"]["code"], -32_601);
    for (declared, method, params) in [
        ("{}", "elicitation/create", json!({})),
        (FORM, "sampling/createMessage", json!({})),
        (FORM, "elicitation/create", json!({ "mode": "url" })),
        (r#"{"sampling":{}}"#, "sampling/createMessage", json!({ "tools": [] })),
        (FORM, "tools/call", json!({})),
    ] {
        let (messages, request) = begin(&session, &mut fake, caller("a", declared)).await;
        fake.write(&json!({ "jsonrpc": "2.0", "id": "q", "method": method, "params": params }));
        let rejected = fake.read().await;
        assert_eq!(
            (&rejected["id"], &rejected["error"]["code"]),
            (&json!("q"), &json!(-32_601)),
            "{declared} {method}"
        );
        fake.write(&result(&request, json!({})));
        assert_eq!(messages.count().await, 1);
    }
    // A message that can be read in different ways is not passed on.
    let (mut messages, _) = begin(&session, &mut fake, caller("a", FORM)).await;
    fake.write_raw(br#"{"jsonrpc":"2.0","id":3,"method":"elicitation/create","params":{"mode":"form","mode":"url"}}"#);
    fake.write_raw(b"\n");
    assert_ne!(fake.read().await["error"], Value::Null);
    assert!(messages.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_request_whose_caller_is_unknown_is_rejected() {
    let fixture = Fixture::new();
    let (session, mut fake) = connect(&fixture).await;
    let (mut first, first_request) = begin(&session, &mut fake, caller("a", FORM)).await;
    let (mut second, second_request) = begin(&session, &mut fake, caller("b", FORM)).await;
    let is_rejected = async |fake: &mut Server, why: &str| {
        // A progress token of the server does not identify a call, even if it is equal to the call's ID.
        let mut asked = question("q", "x");
        asked["params"]["_meta"] =
            json!({ "progressToken": first_request["id"], "relatedRequestId": first_request["id"] });
        fake.write(&asked);
        assert_eq!(fake.read().await["error"]["code"], -32_600, "{why}");
    };
    is_rejected(&mut fake, "two calls are running").await;
    fake.write(&result(&second_request, json!({})));
    next(&mut second).await;
    fake.write(&question("q", "first"));
    assert_eq!(next(&mut first).await["params"]["message"], "first");

    // The first caller gives up. The server may still be processing its call.
    drop(first);
    let (one, two) = (fake.read().await, fake.read().await);
    assert_eq!((&one["id"], &one["error"]["code"]), (&json!("q"), &json!(-32_603)), "its request is answered");
    assert_eq!(
        (&two["method"], &two["params"]["requestId"]),
        (&json!("notifications/cancelled"), &first_request["id"])
    );
    let (second, _) = begin(&session, &mut fake, caller("b", FORM)).await;
    is_rejected(&mut fake, "the call that was given up").await;
    drop(second);
    fake.read().await;
    let (third, _) = begin(&session, &mut fake, caller("a", FORM)).await;
    is_rejected(&mut fake, "the call of the second caller").await;
    drop(third);
    fake.read().await;
    assert_eq!(fixture.bridge.requests.len(), 0);

    // The caller is known again once the server has responded to the calls of others.
    let (mut fourth, _) = begin(&session, &mut fake, caller("a", FORM)).await;
    fake.write(&result(&json!({ "id": second_request["id"].as_u64().unwrap() + 1 }), json!({})));
    fake.write(&question("q", "fourth"));
    assert_eq!(
        next(&mut fourth).await["params"]["message"],
        "fourth",
        "the calls that are left are of the same caller"
    );
}

#[tokio::test]
async fn calls_of_an_earlier_daemon_count_on_a_shared_server_only() {
    for is_shared in [true, false] {
        let fixture = Fixture { is_shared, ..Fixture::new() };
        drop(connect(&fixture).await);
        let (attached, mut fake) = server();
        let (session, ()) = tokio::join!(fixture.connect(attached), async {
            let probe = fake.read().await;
            fake.write(&result(&probe, json!({})));
        });
        let session = session.unwrap();
        let (mut messages, _) = begin(&session, &mut fake, caller("a", FORM)).await;
        fake.write(&question("q", "x"));
        match is_shared {
            true => assert_eq!(fake.read().await["error"]["code"], -32_600),
            false => assert_eq!(next(&mut messages).await["params"]["message"], "x"),
        }
    }
}

#[tokio::test]
async fn a_call_that_ends_rejects_its_requests() {
    let fixture = Fixture::new();
    let (session, mut fake) = connect(&fixture).await;
    // The server responds before its own request is answered.
    let (mut messages, request) = begin(&session, &mut fake, caller("a", FORM)).await;
    fake.write(&question("q", "x"));
    let asked = next(&mut messages).await;
    fake.write(&result(&request, json!({})));
    assert_eq!(fake.read().await["error"]["code"], -32_603);
    assert_eq!(next(&mut messages).await["result"], json!({}));
    assert_eq!(fixture.bridge.respond("ins_1", &answer(&asked, json!({}))).await.unwrap_err().status, 404);
    // The server withdraws its request.
    let (mut messages, request) = begin(&session, &mut fake, caller("a", FORM)).await;
    fake.write(&question("q", "x"));
    let asked = next(&mut messages).await;
    let cancel =
        |id: &str| json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } });
    fake.write(&cancel("other"));
    fake.write(&cancel("q"));
    let cancelled = next(&mut messages).await;
    assert_eq!(
        (&cancelled["method"], &cancelled["params"]["requestId"]),
        (&json!("notifications/cancelled"), &asked["id"])
    );
    assert_eq!(fixture.bridge.respond("ins_1", &answer(&asked, json!({}))).await.unwrap_err().status, 404);
    // The server exits.
    fake.write(&question("q", "x"));
    next(&mut messages).await;
    drop((fake, request));
    assert_eq!(messages.next().await.unwrap().unwrap_err().status, 502);
    assert_eq!(fixture.bridge.requests.len(), 0);
}

#[tokio::test]
async fn a_server_can_ask_16_times_at_a_time_and_32_times_in_a_call() {
    let fixture = Fixture::new();
    let (session, mut fake) = connect(&fixture).await;
    let (mut messages, _) = begin(&session, &mut fake, caller("a", FORM)).await;
    let mut asked = Vec::new();
    for number in 0..16 {
        fake.write(&question(number, "x"));
        asked.push(next(&mut messages).await);
    }
    fake.write(&question("one too many", "x"));
    assert_eq!(fake.read().await["error"]["code"], -32_603);
    for asked in asked {
        fixture.bridge.respond("ins_1", &answer(&asked, json!({}))).await.unwrap();
        fake.read().await;
    }
    for number in 16..32 {
        fake.write(&question(number, "x"));
        let asked = next(&mut messages).await;
        fixture.bridge.respond("ins_1", &answer(&asked, json!({}))).await.unwrap();
        fake.read().await;
    }
    fake.write(&question("one too many", "x"));
    assert_eq!(fake.read().await["error"]["code"], -32_603);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_caller_does_not_count_towards_the_time_of_the_server() {
    let fixture = Fixture::new();
    let (session, mut fake) = connect(&fixture).await;
    let (mut messages, _) = begin(&session, &mut fake, caller("a", FORM)).await;
    advance(TIMEOUT - Duration::from_secs(1)).await;
    fake.write(&question("q", "x"));
    let asked = next(&mut messages).await;
    advance(Duration::from_secs(300)).await;
    assert!(messages.next().now_or_never().is_none());
    fixture.bridge.respond("ins_1", &answer(&asked, json!({}))).await.unwrap();
    fake.read().await;
    let answered = Instant::now();
    assert_eq!(messages.next().await.unwrap().unwrap_err().status, 504);
    assert_eq!(answered.elapsed().as_secs(), 30, "the server has time to continue");
    assert_eq!(fake.read().await["method"], "notifications/cancelled");
    // A caller that does not answer.
    let (mut messages, _) = begin(&session, &mut fake, caller("a", FORM)).await;
    fake.write(&question("q", "x"));
    next(&mut messages).await;
    let asked = Instant::now();
    assert_eq!(messages.next().await.unwrap().unwrap_err().status, 504);
    assert_eq!(asked.elapsed().as_secs(), 330);
    assert_eq!(fake.read().await["error"]["code"], -32_603);
    assert_eq!(fixture.bridge.requests.len(), 0);
}

/// Returns an HTTP server that sends a request in the stream of each call, and responds with the caller's answer.
fn asking_container() -> Arc<Container> {
    type Waiting = Mutex<Vec<(Value, tokio::sync::oneshot::Sender<Value>)>>;
    let waiting: Arc<Waiting> = Arc::default();
    Container::new(move |request| {
        let waiting = waiting.clone();
        let body = &request.body;
        let response: Response<Body> = match request.rpc() {
            "initialize" => json_response(&result(
                body,
                json!({ "protocolVersion": "2025-11-25", "capabilities": { "logging": {} } }),
            )),
            "tools/call" => {
                let (sender, receiver) = tokio::sync::oneshot::channel();
                let (id, text) = (body["id"].clone(), body["params"]["arguments"]["text"].as_str().unwrap());
                let first = format!("data: {}\n\n", question(text, text));
                waiting.lock().unwrap().push((json!(text), sender));
                let last = async move {
                    let answered = receiver.await.unwrap_or_default();
                    format!("data: {}\n\n", json!({ "jsonrpc": "2.0", "id": id, "result": answered }))
                };
                streaming(futures::stream::iter([first]).chain(last.into_stream()).boxed())
            }
            "" => {
                let mut waiting = waiting.lock().unwrap();
                if let Some(at) = waiting.iter().position(|(id, _)| *id == body["id"]) {
                    let _ = waiting.remove(at).1.send(body.clone());
                }
                full(202, "text/plain", "")
            }
            _ => legacy(body).map_or_else(|| full(202, "text/plain", ""), |answer| json_response(&answer)),
        };
        async { response }.boxed()
    })
}

#[tokio::test]
async fn requests_in_the_stream_of_a_call_belong_to_it() {
    let container = asking_container();
    let fixture = container.fixture();
    let session = fixture.connect(streamable()).await.unwrap();
    let initialize = container.wait_for("initialize").await;
    assert!(initialize.body["params"]["capabilities"]["roots"].is_object());
    let mut first = session.call(call(1, "one"), caller("a", FORM)).await.unwrap();
    let mut second = session.call(call(1, "two"), caller("b", FORM)).await.unwrap();
    let mut third = session.call(call(1, "three"), TIMEOUT).await.unwrap();
    let (one, two) = (next(&mut first).await, next(&mut second).await);
    assert_eq!((&one["params"]["message"], &two["params"]["message"]), (&json!("one"), &json!("two")));
    assert_eq!(next(&mut third).await["result"]["error"]["code"], -32_601, "it answers no requests");
    fixture.bridge.respond("ins_1", &answer(&two, json!("to two"))).await.unwrap();
    assert_eq!(next(&mut second).await["result"], json!({ "jsonrpc": "2.0", "id": "two", "result": "to two" }));
    // The first caller gives up.
    drop(first);
    let is_rejected = |received: &super::http::Received| received.body["error"]["code"] == -32_603;
    while !container.received.lock().unwrap().iter().any(is_rejected) {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.bridge.requests.len(), 0);
}

#[tokio::test]
async fn an_http_server_is_asked_for_the_lowest_level_of_log_messages() {
    let container = asking_container();
    let session = container.fixture().connect(streamable()).await.unwrap();
    for level in [LogLevel::Error, LogLevel::Warning, LogLevel::Error] {
        let options = CallOptions { log_level: Some(level), ..TIMEOUT.into() };
        drop(session.call(call(1, "x"), options).await.unwrap());
    }
    let received = container.received.lock().unwrap().clone();
    let set = received.iter().filter(|request| request.rpc() == "logging/setLevel");
    let levels: Vec<_> = set.map(|request| request.body["params"]["level"].clone()).collect();
    assert_eq!(levels, ["error", "warning"]);
}
