//! Sessions over standard input and output.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, advance, timeout};

use super::*;

#[tokio::test]
async fn a_legacy_session_is_negotiated_once_and_continued_after_a_restart() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    assert_eq!(session.revision(), "2025-06-18");
    let text = "{ \"id\":\"x\", \"method\":\"tools/call\",\n\"params\":{\"a\":1.0},\"jsonrpc\":\"2.0\"}";
    let (messages, request) = tokio::join!(collect(&session, text, TIMEOUT), async {
        let line = fake.read_line().await.unwrap();
        let request: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line, text.replace("\"x\"", &request["id"].to_string()).replace('\n', " "));
        fake.write_raw(
            format!("{{\"jsonrpc\":\"2.0\",\"result\":{{\"b\":1e0}},\"id\":{}}}\n", request["id"]).as_bytes(),
        );
        request
    });
    assert_eq!(messages, (vec![json!({ "jsonrpc": "2.0", "result": { "b": 1.0 }, "id": "x" })], None));
    let used = request["id"].as_u64().unwrap();

    // The daemon is killed and attaches again.
    drop(session);
    assert_eq!(fake.read_line().await, None, "standard input is closed");
    let (attached, mut fake) = server();
    let (session, probe) = tokio::join!(fixture.connect(attached), async {
        fake.write_raw(format!("half a line}}\n{{\"jsonrpc\":\"2.0\",\"id\":{used},\"result\":{{}}}}\n").as_bytes());
        let probe = fake.read().await;
        fake.write(&result(&probe, json!({})));
        probe
    });
    let session = session.unwrap();
    assert_eq!(probe["method"], "ping", "`initialize` is not repeated");
    assert!(probe["id"].as_u64().unwrap() > used, "request IDs are not reused");
    assert_eq!(session.counters().unmatched_responses.load(Ordering::Relaxed), 1);

    // The handshake of a caller is answered with the stored result.
    let initialize = r#"{"jsonrpc":"2.0","id":7,"method":"initialize","params":{}}"#;
    let answer = response(&session, initialize).await;
    assert_eq!((&answer["id"], &answer["result"]["serverInfo"]["name"]), (&json!(7), &json!("old")));
    let none = (Vec::new(), None);
    for method in ["notifications/initialized", "notifications/cancelled"] {
        let text = json!({ "jsonrpc": "2.0", "method": method, "params": { "requestId": used } }).to_string();
        assert_eq!(collect(&session, text, TIMEOUT).await, none);
    }
    let text = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    assert_eq!(collect(&session, text, TIMEOUT).await, none);
    assert_eq!(fake.read().await["method"], "notifications/roots/list_changed", "and nothing before");
    let saved = std::fs::metadata(fixture.folder.path().join("session-c1.json")).unwrap();
    assert_eq!(saved.permissions().mode() & 0o777, 0o600);
    Bridge::forget(fixture.folder.path(), "c1").unwrap();
    Bridge::forget(fixture.folder.path(), "c1").unwrap();
}

#[tokio::test]
async fn a_daemon_that_is_killed_before_the_announcement_repeats_only_that() {
    let fixture = Fixture::new();
    fixture.serve(|request| legacy(request).into_iter().collect()).await;
    let mut saved = fixture.saved();
    assert_eq!(saved["negotiated"]["is_announced"], true);
    saved["negotiated"]["is_announced"] = json!(false);
    std::fs::write(fixture.folder.path().join("session-c1.json"), saved.to_string()).unwrap();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), async {
        assert_eq!(fake.read().await["method"], "notifications/initialized");
        let probe = fake.read().await;
        assert_eq!(probe["method"], "ping");
        fake.write(&result(&probe, json!({})));
    });
    session.unwrap();
    assert_eq!(fixture.saved()["negotiated"]["is_announced"], true);
}

#[tokio::test]
async fn a_modern_server_receives_metadata_with_every_request() {
    let fixture = Fixture::new();
    let session = fixture.serve(|request| modern(request).into_iter().collect()).await;
    assert_eq!(session.revision(), MODERN);
    let echo = response(&session, call(1, "hi")).await;
    let params = &echo["result"]["echo"];
    assert_eq!(params["arguments"], json!({ "text": "hi" }));
    assert_eq!(params["_meta"]["io.modelcontextprotocol/protocolVersion"], MODERN);
    assert_eq!(params["_meta"]["io.modelcontextprotocol/clientCapabilities"], json!({}));
    session.probe().await.unwrap();
    let initialize = r#"{"jsonrpc":"2.0","id":7,"method":"initialize"}"#;
    assert_eq!(response(&session, initialize).await["error"]["code"], -32_601, "the server decides");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ignores_unknown_methods_is_initialized_after_a_while() {
    let fixture = Fixture::new();
    let (attached, fake) = server();
    fake.serve(|request| legacy(request).filter(|_| request["method"] != "server/discover").into_iter().collect());
    let started = Instant::now();
    let session = fixture.connect(attached).await.unwrap();
    assert_eq!((session.revision(), started.elapsed().as_secs()), ("2025-06-18".to_owned(), 3));
    session.probe().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_modern_server_that_starts_slowly_is_not_taken_for_a_legacy_one() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), async {
        let discover = fake.read().await;
        let initialize = fake.read().await;
        assert_eq!(initialize["method"], "initialize");
        fake.write(&modern(&discover).unwrap());
        fake.write(&modern(&initialize).unwrap());
    });
    assert_eq!(session.unwrap().revision(), MODERN);
}

#[tokio::test]
async fn a_server_that_exits_at_discovery_is_initialized_first_next_time() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), async {
        fake.read().await;
        fake.write_error(b"expected initialize, not hunter2\n");
        drop(fake);
    });
    assert!(matches!(session, Err(ConnectError::Restart(_))), "{:?}", session.err());
    assert_eq!(fixture.log.lines()[0].0, LogStream::Stderr);
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), async {
        let initialize = fake.read().await;
        assert_eq!(initialize["method"], "initialize");
        fake.write(&legacy(&initialize).unwrap());
        fake.read().await;
    });
    session.unwrap();
    // The next version of the server is modern.
    Bridge::forget(fixture.folder.path(), "c1").unwrap();
    let session = fixture.serve(|request| modern(request).into_iter().collect()).await;
    assert_eq!(session.revision(), MODERN);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_does_not_speak_mcp_is_recognised() {
    let fixture = Fixture::new();
    let connect = async |respond: fn(&Value) -> Vec<Value>| {
        let (attached, fake) = server();
        fake.write_raw(b"Welcome to the program!\n> ");
        fake.serve(respond);
        timeout(Duration::from_secs(60), fixture.connect(attached)).await
    };
    let failure = connect(|_| Vec::new()).await.unwrap().err().unwrap();
    assert!(matches!(&failure, ConnectError::NotMcp(cause) if cause.contains("does not answer")), "{failure}");
    let failure = connect(|request| vec![request.clone()]).await.unwrap().err().unwrap();
    assert!(matches!(failure, ConnectError::NotMcp(_)), "a program that echoes its input: {failure}");
    let failure = connect(|request| vec![error(request, -32_603)]).await.unwrap().err().unwrap();
    assert!(failure.to_string().contains("no [secret]"), "{failure}");
    let old = |request: &Value| vec![result(request, json!({ "protocolVersion": "2023-01-01" }))];
    assert!(connect(old).await.unwrap().err().unwrap().to_string().contains("2023-01-01"));

    let (attached, fake) = server();
    let waiting = timeout(Duration::from_secs(60), fixture.connect(attached)).await;
    assert!(waiting.is_err(), "a silent server may still be starting: the caller limits the time");
    drop(fake);
}

#[tokio::test]
async fn calls_with_the_same_id_and_progress_token_do_not_mix() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    let message = |text: &str| {
        let params = json!({ "name": text, "_meta": { "progressToken": "t" } });
        Bytes::from(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string())
    };
    let progress = |request: &Value, progress: &str| {
        let params = json!({ "progressToken": request["params"]["_meta"]["progressToken"], "progress": progress });
        json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params })
    };
    let (first, second, ()) = tokio::join!(
        collect(&session, message("first"), TIMEOUT),
        collect(&session, message("second"), TIMEOUT),
        async {
            let (first, second) = (fake.read().await, fake.read().await);
            fake.write(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": "log" } }));
            fake.write(&progress(&second, "second"));
            fake.write(&progress(&first, "first"));
            fake.write(&progress(&json!({ "params": { "_meta": { "progressToken": 999 } } }), "nobody"));
            fake.write(&result(&second, json!("second")));
            fake.write(&progress(&second, "late"));
            fake.write(&result(&first, json!("first")));
        }
    );
    for (name, (messages, failure)) in [("first", first), ("second", second)] {
        assert_eq!(failure, None);
        let expected = progress(&json!({ "params": { "_meta": { "progressToken": "t" } } }), name);
        assert_eq!(messages, [expected, json!({ "jsonrpc": "2.0", "id": 1, "result": name })]);
    }
    assert_eq!(session.counters().dropped_notifications.load(Ordering::Relaxed), 2);
    assert_eq!(fixture.log.lines(), [(LogStream::Stdout, r#"{"data":"log"}"#.to_owned())], "it belongs to no call");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_or_times_out_is_cancelled() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    let messages = session.call(call("a", ""), TIMEOUT).await.unwrap();
    let dropped = fake.read().await;
    drop(messages);
    let cancelled = fake.read().await;
    assert_eq!(cancelled["method"], "notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], dropped["id"]);

    assert_eq!(status(&session, call("b", ""), TIMEOUT).await, 504);
    let timed_out = fake.read().await;
    assert_eq!(fake.read().await["params"]["requestId"], timed_out["id"]);

    // Late, repeated and unknown responses.
    fake.write(&result(&dropped, json!({})));
    fake.write(&result(&timed_out, json!({})));
    for id in [json!(0), json!("1"), json!(null), json!(-1), json!(1.5)] {
        fake.write(&json!({ "jsonrpc": "2.0", "id": id, "result": {} }));
    }
    let (answer, ()) = tokio::join!(response(&session, call("c", "")), async {
        let request = fake.read().await;
        fake.write(&result(&request, json!(1)));
        fake.write(&result(&request, json!(2)));
    });
    assert_eq!(answer["result"], 1);
    // A call that is dropped before it is written is not sent at all.
    assert!(futures::FutureExt::now_or_never(session.probe()).is_none());
    let (pong, ()) = tokio::join!(session.probe(), async {
        let request = fake.read().await;
        fake.write(&result(&request, json!({})));
    });
    pong.unwrap();
    let counters = session.counters();
    assert_eq!(counters.unmatched_responses.load(Ordering::Relaxed) + counters.noise_lines.load(Ordering::Relaxed), 8);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_makes_only_its_callers_wait() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server_with(16 * 1024);
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    let large = "x".repeat(10_000);
    let mut calls = Vec::new();
    for number in 0..MAX_CALLS {
        let session = session.clone();
        let message = call(number, &large);
        calls.push(start(Box::pin(async move { status(&session, message, TIMEOUT).await })).await);
    }
    tokio::task::yield_now().await;
    assert_eq!(status(&session, call("too many", ""), TIMEOUT).await, 429);
    advance(TIMEOUT).await;
    for call in calls {
        assert_eq!(call.await, 504);
    }
    // Calls that had not been written are not written later, and the others are cancelled.
    let mut methods = Vec::new();
    let session_ref = &session;
    let (answer, ()) = tokio::join!(response(session_ref, call("later", "")), async {
        loop {
            let message = fake.read().await;
            methods.push(message["method"].as_str().unwrap().to_owned());
            if message["params"]["arguments"]["text"] == "" {
                fake.write(&result(&message, json!({})));
                break;
            }
        }
    });
    assert_eq!(answer["id"], "later");
    let requests = methods.iter().filter(|method| *method == "tools/call").count();
    assert!(requests <= 4, "{methods:?}");
    assert!(methods.len() <= 7, "{methods:?}");
}

#[tokio::test]
async fn a_dropped_session_ends_even_if_the_server_does_not_read() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server_with(1024);
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    let messages = session.call(call(1, &"x".repeat(5_000)), TIMEOUT).await.unwrap();
    tokio::task::yield_now().await;
    drop(session);
    let outcome: Vec<_> = messages.collect().await;
    assert_eq!(outcome.len(), 1);
    assert!(outcome[0].is_err());
    fake.output.closed().await;
    assert!(fake.read_line().await.is_some(), "a part of the message");
    assert_eq!(fake.read_line().await, None);
}

#[tokio::test]
async fn the_end_of_the_output_fails_waiting_calls_and_closes_the_session() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    let (first, second, ()) =
        tokio::join!(collect(&session, call(1, ""), TIMEOUT), collect(&session, call(2, ""), TIMEOUT), async {
            let request = fake.read().await;
            fake.write_raw(result(&request, json!("last words")).to_string().as_bytes());
            fake.write_error(b"panic without a line feed");
            fake.output = mpsc::unbounded_channel().0;
        });
    assert_eq!(first.0[0]["result"], "last words", "a line without a line feed");
    assert_eq!(second.1.unwrap().status, 502);
    session.closed().await;
    assert_eq!(status(&session, call(3, ""), TIMEOUT).await, 502);
    assert_eq!(session.probe().await.unwrap_err(), "The connection to the server was closed: the server exited.");
    assert_eq!(fixture.log.lines(), [(LogStream::Stderr, "panic without a line feed".to_owned())]);

    // A server that closes its standard input.
    let (attached, mut fake) = server();
    let (session, probe) = tokio::join!(fixture.connect(attached), async { fake.read().await });
    drop(fake.input);
    let session = session.unwrap_or_else(|error| panic!("{error}, {probe}"));
    assert_eq!(status(&session, call(1, ""), TIMEOUT).await, 502);
    session.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_too_long_fails_waiting_calls_only() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    let (failure, ()) = tokio::join!(status(&session, call(1, ""), TIMEOUT), async {
        fake.read().await;
        let chunk = vec![b'x'; 1024 * 1024];
        (0..17).for_each(|_| fake.write_raw(&chunk));
    });
    assert_eq!(failure, 502);
    let (answer, ()) = tokio::join!(response(&session, call(2, "")), async {
        let request = fake.read().await;
        fake.write_raw(b"the rest of the line\n");
        // A line of nearly the maximum length.
        let padding = "y".repeat(waypost_toolbox_proto::http::MAX_MESSAGE_BYTES - 100);
        fake.write(&result(&request, json!(padding)));
    });
    assert!(answer["result"].as_str().unwrap().len() > 16_000_000);
    assert_eq!(session.counters().oversized_messages.load(Ordering::Relaxed), 1);
    let too_large = "z".repeat(waypost_toolbox_proto::http::MAX_MESSAGE_BYTES);
    assert_eq!(status(&session, call(3, &too_large), TIMEOUT).await, 413);
}

#[tokio::test]
async fn the_memory_for_responses_that_are_not_read_is_limited() {
    let fixture = Fixture::new();
    let text = "x".repeat(15 * 1024 * 1024);
    let session = fixture
        .serve(move |request| match request["method"].as_str() {
            Some("tools/call") => vec![result(request, json!(text))],
            _ => legacy(request).into_iter().collect(),
        })
        .await;
    let mut calls = Vec::new();
    for number in 0..5 {
        calls.push(session.call(call(number, ""), TIMEOUT).await.unwrap());
    }
    session.probe().await.unwrap();
    let mut outcomes = Vec::new();
    for messages in &mut calls {
        outcomes.push(messages.next().await.unwrap().map_or_else(|failure| failure.status, |_| 200));
    }
    assert_eq!(outcomes.iter().filter(|status| **status == 429).count(), 1, "{outcomes:?}");
    drop(calls);
    assert_eq!(response(&session, call(6, "")).await["id"], 6);
}

#[tokio::test]
async fn requests_from_the_server_are_answered() {
    let fixture = Fixture::new();
    let (attached, mut fake) = server();
    let (session, ()) = tokio::join!(fixture.connect(attached), fake.initialize());
    let session = session.unwrap();
    let (answer, ()) = tokio::join!(response(&session, call(1, "")), async {
        let request = fake.read().await;
        let ping = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
        let sampling = json!({ "jsonrpc": "2.0", "id": request["id"], "method": "sampling/createMessage" });
        fake.write(&json!([ping, sampling]));
        assert_eq!(fake.read().await, json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
        let rejected = fake.read().await;
        assert_eq!((&rejected["id"], &rejected["error"]["code"]), (&request["id"], &json!(-32_601)));
        fake.write(&result(&request, json!({})));
    });
    assert_eq!(answer["id"], 1);
}

#[tokio::test]
async fn invalid_messages_are_answered_without_the_server() {
    let fixture = Fixture::new();
    let session = fixture.serve(|request| legacy(request).into_iter().collect()).await;
    for (message, code) in [
        ("{", -32_700),
        ("[]", -32_600),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, -32_600),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, -32_600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{},"_meta":{}}}"#, -32_602),
    ] {
        assert_eq!(response(&session, message).await["error"]["code"], code, "{message}");
    }
}

#[tokio::test]
async fn all_pages_of_tools_are_listed() {
    let fixture = Fixture::new();
    let session = fixture
        .serve(|request| match request["method"].as_str() {
            Some("tools/list") => {
                let page = request["params"]["cursor"].as_str().map_or(0, |cursor| cursor.parse::<u32>().unwrap());
                let next = (page < 2).then(|| (page + 1).to_string());
                let tools = json!([{ "name": format!("a{page}"), "x": 1.0 }, { "name": format!("b{page}") }]);
                vec![result(request, json!({ "tools": tools, "nextCursor": next }))]
            }
            _ => legacy(request).into_iter().collect(),
        })
        .await;
    assert_eq!(session.list_tools().await, Ok(6));
    assert_eq!(session.tools().await.unwrap()[0].get(), r#"{"name":"a0","x":1.0}"#);

    let fixture = Fixture::new();
    let endless = |request: &Value| match request["method"].as_str() {
        Some("tools/list") => vec![result(request, json!({ "tools": [], "nextCursor": request["id"].to_string() }))],
        _ => legacy(request).into_iter().collect(),
    };
    assert!(fixture.serve(endless).await.list_tools().await.unwrap_err().contains("pages"));
    let fixture = Fixture::new();
    let session = fixture.serve(|request| legacy(request).into_iter().collect()).await;
    let error = session.list_tools().await.unwrap_err();
    assert!(error.contains("no [secret]") && error.contains("-32601"), "{error}");
}

#[tokio::test]
async fn a_subscription_receives_its_own_notifications() {
    let fixture = Fixture::new();
    let session = fixture
        .serve(|request| match request["method"].as_str() {
            Some("subscriptions/listen") => {
                let meta = json!({ "io.modelcontextprotocol/subscriptionId": request["id"] });
                let changed = "notifications/tools/list_changed";
                vec![
                    json!({ "jsonrpc": "2.0", "method": changed, "params": { "_meta": meta } }),
                    json!({ "jsonrpc": "2.0", "method": changed, "params": {} }),
                    result(request, json!({ "resultType": "complete", "_meta": meta })),
                ]
            }
            _ => modern(request).into_iter().collect(),
        })
        .await;
    let listen = r#"{"jsonrpc":"2.0","id":"mine","method":"subscriptions/listen","params":{}}"#;
    let (messages, _) = collect(&session, listen, TIMEOUT).await;
    let id = |message: &Value, member: &str| message[member]["_meta"]["io.modelcontextprotocol/subscriptionId"].clone();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert_eq!((id(&messages[0], "params"), id(&messages[1], "result")), (json!("mine"), json!("mine")));
}

#[tokio::test]
async fn all_calls_are_notified_only_that_a_list_has_changed() {
    let fixture = Fixture::new();
    let session = fixture
        .serve(|request| match request["method"].as_str() {
            Some("tools/call") => {
                let changed = |list: &str| {
                    let method = format!("notifications/{list}/list_changed");
                    json!({ "jsonrpc": "2.0", "method": method, "params": { "secret": "of somebody else" } })
                };
                let other =
                    json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": "a" } });
                vec![changed("tools"), changed("resources"), other, result(request, json!({}))]
            }
            _ => legacy(request).into_iter().collect(),
        })
        .await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;
    let (messages, _) = collect(&session, call, TIMEOUT).await;
    let told = |list: &str| json!({ "jsonrpc": "2.0", "method": format!("notifications/{list}/list_changed") });
    assert_eq!(messages[..2], [told("tools"), told("resources")], "{messages:?}");
    assert_eq!((messages.len(), &messages[2]["id"]), (3, &json!(1)));
}
