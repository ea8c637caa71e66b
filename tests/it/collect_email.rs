//! Servers that ask for an e-mail address before something begins, and take it for what it is: a claim.

use http::StatusCode;
use serde_json::{Value, json};
use waypost_core::server::{AuthType, Toolset};
use waypost_ops::servers::ServerSettings;

use crate::app::{App, Server, open};
use crate::client::{Answer, Client, MODERN};

waypost_testkit::both!(open =>
    clients_without_forms_are_told_what_to_do,
    a_form_asks_where_the_client_can_show_one,
    what_the_user_answers_counts,
    users_who_were_there_before_are_asked_once,
    an_address_identifies_nobody,
    only_tools_that_begin_something_have_the_argument,
);

const SETUP: &str = "set-up";
const CLAIMED: &str = "SELECT coalesce(claimed_email, '-') FROM end_users ORDER BY id";

async fn ready(app: &App, auth_type: AuthType) -> Server {
    let settings =
        ServerSettings { auth_type: Some(auth_type), toolset: Some(Toolset::All), ..ServerSettings::default() };
    let server = app.org("acme").await.server_with("acme", settings).await;
    server.walkthrough("Set up", &["One", "Two", "Three"]).await;
    server
}

fn select() -> Value {
    json!({ "name": "select_walkthrough", "arguments": { "walkthrough_id": SETUP } })
}

/// A call of 2026-07-28 by a client with these capabilities.
async fn call(client: &Client, mut params: Value, capabilities: Value) -> Answer {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    let name = params["name"].as_str().unwrap().to_owned();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let answer = client.app.post(&client.path, body.to_string()).modern("tools/call", Some(&name)).send().await;
    client.app.count_call();
    assert_eq!(answer.status, StatusCode::OK, "{answer}");
    answer
}

fn code(answer: &Answer) -> &str {
    answer.result()["structuredContent"]["error"]["code"].as_str().unwrap_or("ok")
}

async fn clients_without_forms_are_told_what_to_do(app: App) {
    let server = ready(&app, AuthType::CollectEmail).await;
    let legacy = server.legacy("2025-06-18").connect().await;
    for mut client in [server.modern(), server.personal("ann"), legacy] {
        let refused = client.call("select_walkthrough", json!({ "walkthrough_id": SETUP })).await;
        assert_eq!(refused.code(), "email_required");
        assert!(refused.text.contains("`email`"), "{refused}");
        let wrong = client.call("select_walkthrough", json!({ "walkthrough_id": SETUP, "email": "nonsense" })).await;
        assert_eq!((wrong.code(), &wrong.structured["error"]["field"]), ("invalid_arguments", &json!("email")));
        let begun = client.play("select_walkthrough", json!({ "walkthrough_id": SETUP, "email": "a@x.de" })).await;
        assert_eq!(begun.at(), "1/3 0 %");
        assert_eq!(client.call("next_walkthrough_step", json!({})).await.at(), "2/3 33 %");
        client.call("select_walkthrough", json!({ "walkthrough_id": SETUP })).await.ok();
    }
    assert_eq!(app.lines(CLAIMED).await, "a@x.de\na@x.de\na@x.de");
    assert_eq!(app.count("SELECT count(*) FROM tool_calls WHERE arguments LIKE '%x.de%'").await, 0, "masked");
    app.stop().await;
    assert_eq!(app.count("SELECT count(*) FROM tool_calls WHERE arguments LIKE '%x.de%'").await, 0, "masked");
    assert_eq!(app.count("SELECT count(*) FROM tool_calls WHERE outcome = 'email_required'").await, 3);
    app.finish().await;
}

async fn a_form_asks_where_the_client_can_show_one(app: App) {
    let server = ready(&app, AuthType::CollectEmail).await;
    let client = server.modern();
    for modes in [json!({}), json!({ "form": {} }), json!({ "form": {}, "url": {} })] {
        let asked = call(&client, select(), json!({ "elicitation": modes })).await;
        assert_eq!(asked.result()["resultType"], "input_required", "{asked}");
        let request = &asked.result()["inputRequests"]["email"];
        assert_eq!(request["method"], "elicitation/create");
        let schema = &request["params"]["requestedSchema"];
        assert_eq!(
            (&schema["required"], &schema["properties"]["email"]["format"]),
            (&json!(["email"]), &json!("email"))
        );
    }
    for capabilities in [json!({}), json!({ "elicitation": { "url": {} } }), json!({ "sampling": {} })] {
        assert_eq!(code(&call(&client, select(), capabilities).await), "email_required");
    }
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 0, "nobody is made by a question");
    let mut answered = select();
    answered["inputResponses"] =
        json!({ "email": { "action": "accept", "content": { "email": " Anna@Example.com " } } });
    let begun = call(&client, answered, json!({ "elicitation": {} })).await;
    assert_eq!(begun.result()["structuredContent"]["step"]["position"], 1, "{begun}");
    assert_eq!(app.lines(CLAIMED).await, "Anna@Example.com");
    app.finish().await;
}

async fn what_the_user_answers_counts(app: App) {
    let server = ready(&app, AuthType::CollectEmail).await;
    let client = server.modern();
    let answers = [
        json!({ "action": "decline" }),
        json!({ "action": "cancel" }),
        json!({ "action": "decline", "content": { "email": "a@x.de" } }),
        json!({ "action": "accept" }),
        json!({ "action": "accept", "content": { "email": "nonsense" } }),
        json!({ "action": "accept", "content": { "email": 7 } }),
        json!("accept"),
    ];
    for answer in answers {
        let mut params = select();
        params["inputResponses"] = json!({ "email": answer });
        assert_eq!(code(&call(&client, params, json!({ "elicitation": {} })).await), "email_required", "{answer}");
    }
    let mut params = select();
    params["inputResponses"] = json!({ "other": { "action": "accept" } });
    let again = call(&client, params, json!({ "elicitation": {} })).await;
    assert_eq!(again.result()["resultType"], "input_required", "an answer that is missing is asked for again");
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 0);
    app.finish().await;
}

async fn users_who_were_there_before_are_asked_once(app: App) {
    let server = ready(&app, AuthType::None).await;
    let mut client = server.modern();
    client.play("select_walkthrough", json!({ "walkthrough_id": SETUP })).await.ok();
    server.set(ServerSettings { auth_type: Some(AuthType::CollectEmail), ..ServerSettings::default() }).await;
    client.call("next_walkthrough_step", json!({})).await.ok();
    let select = json!({ "walkthrough_id": SETUP });
    assert_eq!(client.call("select_walkthrough", select.clone()).await.code(), "email_required");
    let given = json!({ "walkthrough_id": SETUP, "email": "a@x.de" });
    assert_eq!(client.call("select_walkthrough", given).await.at(), "2/3 33 %");
    client.call("select_walkthrough", select).await.ok();
    let corrected = json!({ "walkthrough_id": SETUP, "email": "b@x.de" });
    client.call("select_walkthrough", corrected).await.ok();
    assert_eq!(app.lines(CLAIMED).await, "b@x.de");
    app.finish().await;
}

async fn an_address_identifies_nobody(app: App) {
    let server = ready(&app, AuthType::CollectEmail).await;
    let begin = json!({ "walkthrough_id": SETUP, "email": "a@x.de" });
    let first = server.modern().call("select_walkthrough", begin.clone()).await.handle();
    let mut one = server.modern().with_handle(&first);
    one.play("next_walkthrough_step", json!({})).await.ok();
    let other = server.modern().call("select_walkthrough", begin).await;
    assert_eq!(other.at(), "1/3 0 %", "who types the same address is somebody else");
    assert_ne!(other.handle(), first);
    app.finish().await;
}

async fn only_tools_that_begin_something_have_the_argument(app: App) {
    let server = ready(&app, AuthType::CollectEmail).await;
    let having = |answer: &Answer| -> Vec<String> {
        let tools = answer.result()["tools"].as_array().unwrap().clone();
        let with = tools.iter().filter(|tool| tool["inputSchema"]["properties"].get("email").is_some());
        with.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    let listed = server.modern().send("tools/list", json!({})).await;
    assert_eq!(having(&listed), ["select_walkthrough", "complete_step"]);
    server.set(ServerSettings { auth_type: Some(AuthType::None), ..ServerSettings::default() }).await;
    let listed = server.modern().send("tools/list", json!({})).await;
    assert!(having(&listed).is_empty());
    let unknown = json!({ "walkthrough_id": SETUP, "email": "a@x.de" });
    assert_eq!(server.modern().call("select_walkthrough", unknown).await.code(), "invalid_arguments");
    app.finish().await;
}
