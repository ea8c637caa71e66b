//! Elicitations: users see which server asks, and only pages on allowed hosts are shown.

use serde_json::{Value, json};

use super::fixture::{Agent, FORM, Server, asks, form_of, json_of, start, start_with_hosts};
use crate::gateway::listen::Stream;
use crate::gateway::remote::Stage;
use crate::gateway::wait_for_calls;

const PAGE: &str =
    r#"{"mode":"url","message":"Sign in","url":"HTTPS://A.Example:443/in?x=1","elicitationId":"e","x":1.0}"#;
/// [`PAGE`] as the user sees it.
const SHOWN: &str =
    r#"{"mode":"url","message":"[far] Sign in","url":"https://a.example/in?x=1","elicitationId":"e","x":1.0}"#;
const ELSEWHERE: &str =
    r#"{"mode":"url","message":"Sign in","url":"https://a.example.b.example/in","elicitationId":"e"}"#;
const BLOCKED: &str = "elicitation_url_blocked";

/// The capabilities of an agent whose user fills in forms and opens pages.
fn capabilities() -> Value {
    json!({ "elicitation": { "form": {}, "url": {} } })
}

/// Calls the tool as such an agent, with a request of 2026-07-28.
async fn modern_call(stage: &Stage, input: Value) -> Value {
    let mut extra = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities() } });
    extra.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
    json_of(Agent::without_session(stage).modern_call(extra).await).await
}

/// Returns the key in `inputRequests` of the request that [`Server`] sends.
fn key(is_modern: bool) -> &'static str {
    if is_modern { "q0" } else { "input" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_sees_which_server_asks_and_the_page_in_the_form_that_was_checked() {
    for (is_modern, (question, shown)) in
        [false, true].into_iter().flat_map(|era| [(era, (FORM, form_of("far"))), (era, (PAGE, SHOWN.to_owned()))])
    {
        let server = asks(is_modern, &[("elicitation/create", question)]);
        let stage = start_with_hosts(&server, "a.example").await;
        let answer = json!({ "action": "accept" });
        let agent = Agent::new(&stage, capabilities()).await;
        let mut stream = Stream::new(agent.call().await);
        let asked = stream.question().await;
        assert_eq!(asked["params"].to_string(), shown);
        assert_eq!(agent.respond(&asked["id"], &answer).await, 202);
        assert!(stream.last().await["result"]["answered"].to_string().contains("accept"));

        let response = modern_call(&stage, json!({})).await;
        let (result, key) = (&response["result"], key(is_modern));
        assert_eq!(result["resultType"], "input_required", "{response}");
        assert_eq!(result["inputRequests"][key]["params"].to_string(), shown);
        let again = json!({ "inputResponses": { key: answer }, "requestState": result["requestState"] });
        let response = modern_call(&stage, again).await;
        assert!(response["result"]["answered"].to_string().contains("accept"), "{response}");
        stage.api.app.clone().finish().await;
    }
}

/// Returns the responses to an agent with a session and to an agent of 2026-07-28.
async fn both(stage: &Stage) -> [Value; 2] {
    let agent = Agent::new(stage, capabilities()).await;
    [agent.call_once().await, modern_call(stage, json!({})).await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_on_a_host_that_is_not_listed_is_not_shown() {
    for is_modern in [false, true] {
        let server = asks(is_modern, &[("elicitation/create", ELSEWHERE)]);
        let stage = start_with_hosts(&server, "a.example,b.example").await;
        for response in both(&stage).await {
            // A server of an earlier revision receives the error, and completes the call. The call to a server of
            // 2026-07-28 fails.
            let error = match is_modern {
                true => &response["error"],
                false => &response["result"]["answered"]["error"],
            };
            assert_eq!(error["data"]["reason"], BLOCKED, "{response}");
            let text = error["message"].as_str().unwrap();
            assert!(text.contains("`a.example.b.example`") && text.contains("`gateway_elicitation_hosts`"), "{text}");
            assert_eq!(error["code"], if is_modern { -32603 } else { -32602 });
        }
        wait_for_calls(&stage.api.app, 2).await;
        let calls = stage.api.get("/calls").await;
        let outcome = if is_modern { "failed" } else { "ok" };
        assert!(calls["items"].as_array().unwrap().iter().all(|call| call["outcome"] == outcome), "{calls}");
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_hosts_no_page_is_shown_and_url_elicitation_is_not_declared_to_servers() {
    for is_modern in [false, true] {
        let server = asks(is_modern, &[("elicitation/create", PAGE)]);
        let stage = start(&server).await;
        for response in both(&stage).await {
            assert!(response.to_string().contains(BLOCKED), "{response}");
        }
        let declared = match is_modern {
            true => server.received("tools/call")[0]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
                .clone(),
            false => server.received("initialize").last().unwrap()["params"]["capabilities"].clone(),
        };
        assert_eq!(declared, json!({ "elicitation": {} }));
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_of_an_error_are_checked_as_well() {
    const ALLOWED: &str = r#"{"code":-32042,"message":"Sign in.","data":{"elicitations":[{"mode":"url","message":"Sign in","url":"HTTPS://A.Example:443/in?x=1","elicitationId":"e","x":1.0}]}}"#;
    const REJECTED: &str = r#"{"code":-32042,"message":"Sign in.","data":{"elicitations":[{"mode":"url","message":"Sign in","url":"https://a.example/"},{"mode":"url","message":"Sign in","url":"https://b.example/"}]}}"#;
    const REPEATED: &str = r#"{"code":-32042,"message":"Sign in.","data":{"elicitations":[],"elicitations":[{"mode":"url","message":"Sign in","url":"https://b.example/"}]}}"#;
    for (error, reason) in [(ALLOWED, None), (REJECTED, Some(BLOCKED)), (REPEATED, Some("input_required"))] {
        let stage = start_with_hosts(&Server { error: Some(error), ..Server::default() }, "a.example").await;
        let [in_session, modern] = both(&stage).await;
        let error = &in_session["error"];
        match reason {
            None => assert_eq!(
                (error["code"].to_string(), error["data"]["elicitations"].to_string()),
                ("-32042".to_owned(), format!("[{SHOWN}]"))
            ),
            Some(reason) => assert_eq!(error["data"], json!({ "reason": reason }), "{in_session}"),
        }
        // 2026-07-28 does not define this error.
        let error = &modern["error"];
        let data = json!({ "reason": reason.unwrap_or("input_required") });
        assert_eq!((&error["code"], &error["data"]), (&json!(-32603), &data), "{modern}");
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_resource_is_reported_with_the_code_of_the_agents_revision() {
    const WITH_URI: &str = r#"{"code":-32002,"message":"Not here.","data":{"uri":"file:///a","x":1}}"#;
    const WITHOUT_URI: &str = r#"{"code":-32002,"message":"Not here.","data":7}"#;
    let modern = json!({ "code": -32602, "message": "Not here." });
    let mut modern_with_uri = modern.clone();
    modern_with_uri["data"] = json!({ "uri": "file:///a" });
    for (error, expected) in [(WITH_URI, modern_with_uri), (WITHOUT_URI, modern)] {
        let stage = start_with_hosts(&Server { error: Some(error), ..Server::default() }, "a.example").await;
        let [in_session, modern] = both(&stage).await;
        assert_eq!(in_session["error"], serde_json::from_str::<Value>(error).unwrap());
        assert_eq!(modern["error"], expected);
        assert!(!modern["id"].is_null(), "{modern}");
        stage.api.app.clone().finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_clients_could_read_differently_is_not_shown() {
    for question in [
        r#"{"mode":"url","message":"M","url":"https://a.example/","URL":"https://b.example/"}"#,
        r#"{"mode":"form","Mode":"url","message":"M","url":"https://a.example/"}"#,
        r#"{"mode":"url","message":"M","url":"https://a.example/","ur\u006c":"https://b.example/"}"#,
        r#"{"mode":"url","message":"M","url":["https://b.example/"]}"#,
        r#"{"message":"M","Message":"M"}"#,
        r#"["url"]"#,
        r#"{}"#,
    ] {
        let stage = start_with_hosts(&asks(true, &[("elicitation/create", question)]), "a.example").await;
        for response in both(&stage).await {
            assert_eq!(response["error"]["data"]["reason"], "input_required", "{question}: {response}");
        }
        stage.api.app.clone().finish().await;
    }
}
