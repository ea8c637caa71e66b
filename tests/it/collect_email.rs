//! Servers that ask for an email before a walkthrough starts. The email is stored as an unverified claim.

use http::StatusCode;
use serde_json::{Value, json};
use waypost_core::server::{AuthType, Toolset};
use waypost_ops::servers::ServerSettings;

use crate::app::{App, Server, open};
use crate::client::{Client, HttpResponse, MODERN};

waypost_testkit::both!(extended open =>
    clients_without_forms_get_email_required,
    clients_that_support_forms_get_a_form,
    only_an_accepted_valid_email_counts,
    existing_users_are_asked_once,
    an_email_does_not_identify_a_user,
    only_tools_that_start_a_walkthrough_take_an_email,
);

const SETUP: &str = "set-up";
const CLAIMED: &str = "SELECT coalesce(claimed_email, '-') FROM end_users ORDER BY id";

async fn set_up(app: &App, auth_type: AuthType) -> Server {
    let settings =
        ServerSettings { auth_type: Some(auth_type), toolset: Some(Toolset::All), ..ServerSettings::default() };
    let server = app.org("acme").await.server_with("acme", settings).await;
    server.walkthrough("Set up", &["One", "Two", "Three"]).await;
    server
}

fn select_params() -> Value {
    json!({ "name": "select_walkthrough", "arguments": { "walkthrough_id": SETUP } })
}

/// Calls a tool as a 2026-07-28 client with the given capabilities.
async fn call(client: &Client, mut params: Value, capabilities: Value) -> HttpResponse {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    let name = params["name"].as_str().unwrap().to_owned();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let response = client.app.post(&client.path, body.to_string()).modern("tools/call", Some(&name)).send().await;
    client.app.count_call();
    assert_eq!(response.status, StatusCode::OK, "{response}");
    response
}

fn error_code(response: &HttpResponse) -> &str {
    response.result()["structuredContent"]["error"]["code"].as_str().unwrap_or("ok")
}

async fn clients_without_forms_get_email_required(app: App) {
    let server = set_up(&app, AuthType::CollectEmail).await;
    let legacy = server.legacy("2025-06-18").connect().await;
    for mut client in [server.modern(), server.personal("ann"), legacy] {
        let rejected = client.call("select_walkthrough", json!({ "walkthrough_id": SETUP })).await;
        assert_eq!(rejected.error_code(), "email_required");
        assert!(rejected.text.contains("`email`"), "{rejected}");
        let wrong = client.call("select_walkthrough", json!({ "walkthrough_id": SETUP, "email": "nonsense" })).await;
        assert_eq!((wrong.error_code(), &wrong.structured["error"]["field"]), ("invalid_arguments", &json!("email")));
        let started = client.play("select_walkthrough", json!({ "walkthrough_id": SETUP, "email": "a@x.de" })).await;
        assert_eq!(started.progress(), "1/3 0%");
        assert_eq!(client.call("next_walkthrough_step", json!({})).await.progress(), "2/3 33%");
        client.call("select_walkthrough", json!({ "walkthrough_id": SETUP })).await.ok();
    }
    assert_eq!(app.query_lines(CLAIMED).await, "a@x.de\na@x.de\na@x.de");
    assert_eq!(app.count("SELECT count(*) FROM tool_calls WHERE arguments LIKE '%x.de%'").await, 0, "masked");
    app.stop().await;
    assert_eq!(app.count("SELECT count(*) FROM tool_calls WHERE arguments LIKE '%x.de%'").await, 0, "masked");
    assert_eq!(app.count("SELECT count(*) FROM tool_calls WHERE outcome = 'email_required'").await, 3);
    app.finish().await;
}

async fn clients_that_support_forms_get_a_form(app: App) {
    let server = set_up(&app, AuthType::CollectEmail).await;
    let client = server.modern();
    for modes in [json!({}), json!({ "form": {} }), json!({ "form": {}, "url": {} })] {
        let form = call(&client, select_params(), json!({ "elicitation": modes })).await;
        assert_eq!(form.result()["resultType"], "input_required", "{form}");
        let request = &form.result()["inputRequests"]["email"];
        assert_eq!(request["method"], "elicitation/create");
        let schema = &request["params"]["requestedSchema"];
        assert_eq!(
            (&schema["required"], &schema["properties"]["email"]["format"]),
            (&json!(["email"]), &json!("email"))
        );
    }
    for capabilities in [json!({}), json!({ "elicitation": { "url": {} } }), json!({ "sampling": {} })] {
        assert_eq!(error_code(&call(&client, select_params(), capabilities).await), "email_required");
    }
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 0, "asking for an email creates no end user");
    let mut accepted = select_params();
    accepted["inputResponses"] =
        json!({ "email": { "action": "accept", "content": { "email": " Anna@Example.com " } } });
    let started = call(&client, accepted, json!({ "elicitation": {} })).await;
    assert_eq!(started.result()["structuredContent"]["step"]["position"], 1, "{started}");
    assert_eq!(app.query_lines(CLAIMED).await, "Anna@Example.com");
    app.finish().await;
}

async fn only_an_accepted_valid_email_counts(app: App) {
    let server = set_up(&app, AuthType::CollectEmail).await;
    let client = server.modern();
    let responses = [
        json!({ "action": "decline" }),
        json!({ "action": "cancel" }),
        json!({ "action": "decline", "content": { "email": "a@x.de" } }),
        json!({ "action": "accept" }),
        json!({ "action": "accept", "content": { "email": "nonsense" } }),
        json!({ "action": "accept", "content": { "email": 7 } }),
        json!("accept"),
    ];
    for response in responses {
        let mut params = select_params();
        params["inputResponses"] = json!({ "email": response });
        assert_eq!(
            error_code(&call(&client, params, json!({ "elicitation": {} })).await),
            "email_required",
            "{response}"
        );
    }
    let mut params = select_params();
    params["inputResponses"] = json!({ "other": { "action": "accept" } });
    let again = call(&client, params, json!({ "elicitation": {} })).await;
    assert_eq!(again.result()["resultType"], "input_required", "a missing answer is requested again");
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 0);
    app.finish().await;
}

async fn existing_users_are_asked_once(app: App) {
    let server = set_up(&app, AuthType::None).await;
    let mut client = server.modern();
    client.play("select_walkthrough", json!({ "walkthrough_id": SETUP })).await.ok();
    server.update(ServerSettings { auth_type: Some(AuthType::CollectEmail), ..ServerSettings::default() }).await;
    client.call("next_walkthrough_step", json!({})).await.ok();
    let select = json!({ "walkthrough_id": SETUP });
    assert_eq!(client.call("select_walkthrough", select.clone()).await.error_code(), "email_required");
    let with_email = json!({ "walkthrough_id": SETUP, "email": "a@x.de" });
    assert_eq!(client.call("select_walkthrough", with_email).await.progress(), "2/3 33%");
    client.call("select_walkthrough", select).await.ok();
    let corrected = json!({ "walkthrough_id": SETUP, "email": "b@x.de" });
    client.call("select_walkthrough", corrected).await.ok();
    assert_eq!(app.query_lines(CLAIMED).await, "b@x.de");
    app.finish().await;
}

async fn an_email_does_not_identify_a_user(app: App) {
    let server = set_up(&app, AuthType::CollectEmail).await;
    let begin = json!({ "walkthrough_id": SETUP, "email": "a@x.de" });
    let first = server.modern().call("select_walkthrough", begin.clone()).await.handle();
    let mut one = server.modern().with_handle(&first);
    one.play("next_walkthrough_step", json!({})).await.ok();
    let other = server.modern().call("select_walkthrough", begin).await;
    assert_eq!(other.progress(), "1/3 0%", "a typed email address does not identify a user");
    assert_ne!(other.handle(), first);
    app.finish().await;
}

async fn only_tools_that_start_a_walkthrough_take_an_email(app: App) {
    let server = set_up(&app, AuthType::CollectEmail).await;
    let tools_with_email = |response: &HttpResponse| -> Vec<String> {
        let tools = response.result()["tools"].as_array().unwrap().clone();
        let with = tools.iter().filter(|tool| tool["inputSchema"]["properties"].get("email").is_some());
        with.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    let listed = server.modern().send("tools/list", json!({})).await;
    assert_eq!(tools_with_email(&listed), ["select_walkthrough", "complete_step"]);
    server.update(ServerSettings { auth_type: Some(AuthType::None), ..ServerSettings::default() }).await;
    let listed = server.modern().send("tools/list", json!({})).await;
    assert!(tools_with_email(&listed).is_empty());
    let unknown = json!({ "walkthrough_id": SETUP, "email": "a@x.de" });
    assert_eq!(server.modern().call("select_walkthrough", unknown).await.error_code(), "invalid_arguments");
    app.finish().await;
}
