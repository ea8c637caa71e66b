//! Sessions of agents, and requests that servers send to agents during a call.

pub mod container;
mod elicitation;
mod fixture;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use self::fixture::{Agent, FORM, Server, asks, form_of, json_of, start};
use super::Stage;
use super::listen::Stream;
use super::remote::Stage as RemoteStage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_a_session_is_asked_by_servers_of_both_eras() {
    for is_modern in [false, true] {
        let server = asks(is_modern, &[("elicitation/create", FORM)]);
        let stage = start(&server).await;
        let agent = Agent::new(&stage, json!({ "elicitation": {}, "experimental": { "x": {} } })).await;
        let other = Agent::new(&stage, json!({ "elicitation": {} })).await;
        let mut stream = Stream::new(agent.call().await);
        let question = loop {
            let message = stream.next().await.unwrap();
            if message["method"] == "elicitation/create" {
                break message;
            }
            assert_eq!(message["method"], "notifications/message", "all levels");
        };
        assert_eq!(question["params"].to_string(), form_of("far"), "otherwise as the server sent it");
        let id = &question["id"];
        assert!(id.as_str().is_some_and(|id| id.len() > 16), "not to be guessed: {id}");
        let answer = json!({ "action": "accept", "content": { "n": 1.0 } });
        // A response in another session, without a session or with another ID is ignored.
        assert_eq!(other.respond(id, &json!({ "action": "decline" })).await, 202);
        let alone = Agent::without_session(&stage);
        assert_eq!(alone.respond(id, &json!({ "action": "decline" })).await, 202);
        assert_eq!(agent.respond(&json!(5), &json!({ "action": "decline" })).await, 202);
        assert_eq!(agent.respond(id, &answer).await, 202);
        let response = stream.last().await;
        let answered = &response["result"]["answered"];
        assert_eq!(response["id"], "x");
        match is_modern {
            true => assert_eq!(*answered, json!([{ "q0": answer }, "own"])),
            false => assert_eq!(*answered, json!({ "jsonrpc": "2.0", "id": 5, "result": answer })),
        }
        // Of the capabilities that the agent has declared, only those that the server may use are declared to it.
        let declared = match is_modern {
            true => server.received("tools/call")[0]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
                .clone(),
            false => server.received("initialize").last().unwrap()["params"]["capabilities"].clone(),
        };
        assert_eq!(declared, json!({ "elicitation": {} }));
        assert_eq!(agent.respond(id, &answer).await, 202, "nobody waits any more");
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_2026_07_28_is_asked_by_a_server_with_a_handshake() {
    let server = asks(false, &[("elicitation/create", FORM)]);
    let stage = start(&server).await;
    let agent = Agent::without_session(&stage);
    let ask = async |extra: Value| {
        let response = json_of(agent.modern_call(extra).await).await;
        let result = &response["result"];
        let shown: Value = serde_json::from_str(&form_of("far")).unwrap();
        let question = json!({ "input": { "method": "elicitation/create", "params": shown } });
        assert_eq!((&result["resultType"], &result["inputRequests"]), (&json!("input_required"), &question));
        assert!(result["inputRequests"].to_string().contains("\"x\":1.0"));
        result["requestState"].as_str().unwrap().to_owned()
    };
    let answer = json!({ "action": "accept", "content": { "n": 1.0 } });
    let state = ask(json!({})).await;
    let with = |state: &str| json!({ "inputResponses": { "input": answer }, "requestState": state });
    let mut response = json_of(agent.modern_call(with(&state)).await).await;
    assert_eq!(response["result"]["answered"], json!({ "jsonrpc": "2.0", "id": 5, "result": answer }));
    assert_eq!((&response["id"], &response["result"]["resultType"]), (&json!("y"), &json!("complete")));
    response = json_of(agent.modern_call(with(&state)).await).await;
    assert_eq!(response["error"]["code"], -32602, "it is continued once");
    // If the answer is missing, the agent is asked again.
    let state = ask(json!({})).await;
    response = json_of(agent.modern_call(json!({ "requestState": state })).await).await;
    assert_eq!(response["result"]["resultType"], "input_required");
    let again = response["result"]["requestState"].as_str().unwrap().to_owned();
    response = json_of(agent.modern_call(with(&again)).await).await;
    assert_eq!(response["result"]["answered"]["result"], answer);
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_receives_only_requests_that_it_has_declared() {
    const SAMPLING: &str = r#"{"messages":[],"maxTokens":1}"#;
    for is_modern in [false, true] {
        let server = asks(is_modern, &[("sampling/createMessage", SAMPLING)]);
        let stage = start(&server).await;
        let agent = Agent::new(&stage, json!({ "elicitation": {} })).await;
        let response = agent.call_once().await;
        match is_modern {
            true => assert_eq!(response["error"]["data"]["reason"], "input_required"),
            false => assert_eq!(response["result"]["answered"]["error"]["code"], -32601),
        }
        // An agent without a session cannot be asked at all. A server with a handshake receives an error.
        let alone = Agent::without_session(&stage);
        let response = alone.call_once().await;
        match is_modern {
            true => assert_eq!(response["error"]["data"]["reason"], "input_required"),
            false => assert_eq!(response["result"]["answered"]["error"]["code"], -32601),
        }
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_grant_ends_a_call_that_waits_for_its_agent() {
    for is_modern in [false, true] {
        let server = asks(is_modern, &[("elicitation/create", FORM)]);
        let stage = start(&server).await;
        let agent = Agent::new(&stage, json!({ "elicitation": {} })).await;
        let mut stream = Stream::new(agent.call().await);
        let id = loop {
            let message = stream.next().await.unwrap();
            if message["method"] == "elicitation/create" {
                break message["id"].clone();
            }
        };
        let grants = stage.api.get("/grants").await;
        let path = format!("/grants/{}", grants["items"][0]["id"].as_str().unwrap());
        stage.api.call(Method::DELETE, &path, None).await.assert_status(204);
        assert_eq!(agent.respond(&id, &json!({ "action": "accept" })).await, 202);
        let response = stream.last().await;
        assert_eq!(response["error"]["message"], "Unknown tool");
        let answers =
            server.state.lock().unwrap().received.iter().filter(|message| message["method"].is_null()).count();
        assert_eq!((answers, server.received("tools/call").len()), (0, 1), "the server gets no answer");
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_messages_have_at_least_the_level_that_the_agent_has_set() {
    let server = asks(false, &[("elicitation/create", FORM)]);
    let stage = start(&server).await;
    let agent = Agent::new(&stage, json!({ "elicitation": {} })).await;
    let set =
        |level: &str| json!({ "jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": { "level": level } });
    assert_eq!(agent.post(&set("loud")).await.status(), 200);
    assert_eq!(agent.post(&set("error")).await.status(), 200);
    let mut stream = Stream::new(agent.call().await);
    assert_eq!(stream.next().await.unwrap()["params"]["level"], "error", "`info` is not relayed");
    let id = stream.next().await.unwrap()["id"].clone();
    agent.respond(&id, &json!({})).await;
    stream.last().await;
    let levels: Vec<_> = server.received("logging/setLevel").iter().map(|set| set["params"]["level"].clone()).collect();
    assert_eq!(levels, ["error"]);
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_valid_until_it_is_ended() {
    let stage = RemoteStage::new().await;
    let mut agent = Agent::new(&stage, json!({})).await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    assert_eq!(agent.post(&ping).await.status(), 200);
    let stolen = Agent { stage: &stage, token: stage.other_agent("other").await, session: agent.session.clone() };
    assert_eq!(stolen.post(&ping).await.status(), 404, "the session of another agent");
    assert_eq!(agent.send(Method::DELETE, String::new()).await.status(), 204);
    assert_eq!(agent.post(&ping).await.status(), 404);
    assert_eq!(agent.send(Method::DELETE, String::new()).await.status(), 404);
    agent.session = Some("unknown".to_owned());
    assert_eq!(agent.post(&ping).await.status(), 404);
    agent.session = None;
    assert_eq!(agent.post(&ping).await.status(), 200, "sessions are optional");
    assert_eq!(agent.send(Method::DELETE, String::new()).await.status(), 400);
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_of_2026_07_28_is_returned_to_the_agent_with_a_sealed_state() {
    let stage = Stage::new().await;
    stage.set(|server| server.is_modern = true);
    let stage = stage.ready().await;
    let asked = br#"{"jsonrpc":"2.0","id":ID,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1.0}}},"requestState":"own"}}"#;
    stage.set(|server| server.answers = vec![asked.to_vec()]);
    let call = |extra: Value| {
        let mut params = json!({ "name": "search__find", "arguments": { "q": 1 } });
        params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        params
    };
    let (_, response) = stage.modern_request("tools/call", call(json!({}))).await;
    let result = &response["result"];
    assert_eq!(
        result["inputRequests"].to_string(),
        r#"{"a":{"method":"sampling/createMessage","params":{"messages":[],"maxTokens":1.0}}}"#
    );
    let state = result["requestState"].as_str().unwrap().to_owned();
    assert_ne!(state, "own");
    let received = stage.received();
    let meta = &received[0]["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({ "sampling": {} }));

    let again = json!({ "inputResponses": { "a": { "role": "assistant" } }, "requestState": state });
    stage.modern_request("tools/call", call(again.clone())).await;
    let received = stage.received();
    assert_eq!(received[0]["params"]["requestState"], "own");
    assert_eq!(received[0]["params"]["inputResponses"], again["inputResponses"]);
    // With another tool, other arguments or a changed state, nothing reaches the server.
    let mut other = call(again.clone());
    other["name"] = "search__delete".into();
    let mut changed = call(again.clone());
    changed["arguments"]["q"] = 2.into();
    for params in [other, changed, call(json!({ "requestState": "own" })), call(json!({ "requestState": 7 }))] {
        let (status, response) = stage.modern_request("tools/call", params).await;
        assert_eq!((status, &response["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(-32602)));
    }
    assert!(stage.received().is_empty());
    // Requests that the agent has not declared, and malformed ones, are not relayed.
    for asked in [
        &br#"{"jsonrpc":"2.0","id":ID,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"roots/list"}}}}"#[..],
        br#"{"jsonrpc":"2.0","id":ID,"result":{"resultType":"input_required","inputRequests":{"a":{"method":"sampling/createMessage","method":"roots/list"}}}}"#,
        br#"{"jsonrpc":"2.0","id":ID,"result":{"resultType":"input_required"}}"#,
    ] {
        stage.set(|server| server.answers = vec![asked.to_vec()]);
        let (_, response) = stage.modern_request("tools/call", call(json!({}))).await;
        assert_eq!(response["error"]["data"]["reason"], "input_required");
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_its_agent_does_not_use_a_slot_of_the_server() {
    for is_modern in [false, true] {
        let stage = start(&asks(is_modern, &[("elicitation/create", FORM)])).await;
        // Each agent makes as many calls as it may. Together, these are more than the server has slots.
        let mut streams = Vec::new();
        for n in 0..4 {
            let token = stage.other_agent(&format!("agent-{n}")).await;
            let agent = Agent::with_token(&stage, token, json!({ "elicitation": {} })).await;
            for _ in 0..10 {
                let mut stream = Stream::new(agent.call().await);
                while stream.next().await.unwrap()["method"] != "elicitation/create" {}
                streams.push(stream);
            }
        }
        assert_eq!(streams.len(), 40);
        drop(streams);
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_waits_for_its_agent_can_be_cancelled() {
    for is_modern in [false, true] {
        let server = asks(is_modern, &[("elicitation/create", FORM)]);
        let stage = start(&server).await;
        let agent = Agent::new(&stage, json!({ "elicitation": {} })).await;
        let mut stream = Stream::new(agent.call().await);
        let question = loop {
            let message = stream.next().await.unwrap();
            if message["method"] == "elicitation/create" {
                break message;
            }
        };
        assert_eq!(agent.cancel().await, 202);
        assert_eq!(stream.next().await, None, "there is no response");
        assert_eq!(agent.respond(&question["id"], &json!({ "action": "accept" })).await, 202, "nobody waits any more");
        // A server of 2026-07-28 has already returned a result, so it receives no cancellation.
        while !is_modern && server.received("notifications/cancelled").is_empty() {
            tokio::task::yield_now().await;
        }
        let answers =
            server.state.lock().unwrap().received.iter().filter(|message| message["method"].is_null()).count();
        assert_eq!((answers, server.received("tools/call").len()), (0, 1), "the server gets no answer");
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answered_call_continues_although_the_circuit_breaker_is_open() {
    let server = asks(false, &[("elicitation/create", FORM)]);
    let stage = start(&server).await;
    let agent = Agent::new(&stage, json!({ "elicitation": {} })).await;
    let mut stream = Stream::new(agent.call().await);
    let question = loop {
        let message = stream.next().await.unwrap();
        if message["method"] == "elicitation/create" {
            break message;
        }
    };
    server.state.lock().unwrap().is_failing = true;
    for _ in 0..5 {
        assert_eq!(agent.call_once().await["error"]["data"]["reason"], "server_error");
    }
    assert_eq!(agent.call_once().await["error"]["data"]["reason"], "circuit_open");
    assert_eq!(agent.respond(&question["id"], &json!({ "action": "decline" })).await, 202);
    let response = stream.last().await;
    assert_eq!(response["result"]["answered"]["result"], json!({ "action": "decline" }), "{response}");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_call_continues_although_the_circuit_breaker_is_open() {
    let server = asks(false, &[("elicitation/create", FORM)]);
    let stage = start(&server).await;
    let agent = Agent::without_session(&stage);
    let asked = json_of(agent.modern_call(json!({})).await).await;
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    server.state.lock().unwrap().is_failing = true;
    for _ in 0..5 {
        let response = json_of(agent.modern_call(json!({})).await).await;
        assert_eq!(response["error"]["data"]["reason"], "server_error", "{response}");
    }
    let response = json_of(agent.modern_call(json!({})).await).await;
    assert_eq!(response["error"]["data"]["reason"], "circuit_open", "{response}");
    let lists = server.received("tools/list").len();
    let answers = json!({ "input": { "action": "decline" } });
    let again = json!({ "inputResponses": answers, "requestState": asked["result"]["requestState"] });
    let response = json_of(agent.modern_call(again).await).await;
    assert_eq!(response["result"]["answered"]["result"], json!({ "action": "decline" }), "{response}");
    assert_eq!(server.received("tools/list").len(), lists, "the server is not checked again");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_call_is_not_continued_without_its_grant() {
    let server = asks(false, &[("elicitation/create", FORM)]);
    let stage = start(&server).await;
    let agent = Agent::without_session(&stage);
    let asked = json_of(agent.modern_call(json!({})).await).await;
    let grants = stage.api.get("/grants").await;
    let path = format!("/grants/{}", grants["items"][0]["id"].as_str().unwrap());
    stage.api.call(Method::DELETE, &path, None).await.assert_status(204);
    let answers = json!({ "input": { "action": "accept" } });
    let again = json!({ "inputResponses": answers, "requestState": asked["result"]["requestState"] });
    let response = json_of(agent.modern_call(again).await).await;
    assert_eq!(response["error"]["message"], "Unknown tool", "{response}");
    let received = server.state.lock().unwrap().received.clone();
    assert!(received.iter().all(|message| !message["method"].is_null()), "the server gets no answer");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_can_withdraw_its_question() {
    let server = Server { cancels: true, ..asks(false, &[("elicitation/create", FORM)]) };
    let stage = start(&server).await;
    let agent = Agent::new(&stage, json!({ "elicitation": {} })).await;
    let mut stream = Stream::new(agent.call().await);
    let (mut id, mut cancelled) = (Value::Null, Value::Null);
    let response = loop {
        let message = stream.next().await.unwrap();
        match message["method"].as_str() {
            Some("elicitation/create") => id = message["id"].clone(),
            Some("notifications/cancelled") => cancelled = message["params"]["requestId"].clone(),
            Some(_) => {}
            None => break message,
        }
    };
    assert!(id.is_string() && id == cancelled, "the ID that the agent knows: {id} {cancelled}");
    assert_eq!(response["result"]["answered"], Value::Null);
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_cannot_ask_without_limit() {
    let server = Server { is_never_satisfied: true, ..asks(true, &[("elicitation/create", FORM)]) };
    let stage = start(&server).await;
    let agent = Agent::new(&stage, json!({ "elicitation": {} })).await;
    let mut stream = Stream::new(agent.call().await);
    let mut count = 0;
    let response = loop {
        let message = stream.next().await.unwrap();
        if message["method"] != "elicitation/create" {
            break message;
        }
        count += 1;
        assert_eq!(agent.respond(&message["id"], &json!({ "action": "accept" })).await, 202);
    };
    assert_eq!((count, &response["error"]["data"]["reason"]), (32, &json!("input_required")));
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_a_session_share_a_container_if_each_session_has_one() {
    let stage = Stage::with_sharing("per_session").await.ready().await;
    let key = async |session: Option<&str>| {
        let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search__find"}}"#;
        let headers: Vec<_> = session.iter().map(|session| ("mcp-session-id", *session)).collect();
        let (status, text) = stage.send("/gateway/mcp", Some(&stage.token), &headers, call).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        let received = stage.server.lock().unwrap();
        received.headers.last().unwrap()["waypost-container-key"].to_str().unwrap().to_owned()
    };
    let (one, two) = (stage.begin_session().await, stage.begin_session().await);
    assert_eq!(key(Some(&one)).await, key(Some(&one)).await);
    assert_ne!(key(Some(&one)).await, key(Some(&two)).await);
    assert_ne!(key(None).await, key(None).await, "a request without a session is one of its own");
    stage.finish().await;
}
