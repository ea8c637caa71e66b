//! The contents of calls, which are recorded only if an admin has switched recording on, without secrets, and can be
//! read only by admins.

use http::Method;
use serde_json::{Value, json};
use waypost_core::argument_rule::{ArgumentRule, Comparison};
use waypost_core::caller::{Caller, Ctx};
use waypost_core::grant::AccessLevel;
use waypost_core::organization::Role;
use waypost_ops::calls;
use waypost_ops::grants::GrantPatch;
use waypost_ops::retention::{RetentionPeriods, delete_old};

use super::{Stage, wait_for_calls};
use crate::app::{App, Setup};
use crate::console::ConsoleBrowser;

const STORED: &str = "SELECT count(*) FROM call_contents";
/// The personal secret of the agent, and the secret of the organisation.
const PERSONAL: &str = "personal-hunter2";
const SHARED: &str = "shared\"hunter3";

/// Returns a stage whose server has a secret of the organisation and a personal one.
async fn stage_with_secrets() -> Stage {
    let secrets = json!([{ "name": "API_KEY" }, { "name": "TOKEN", "required": false }]);
    let entry = json!({ "sharing": "per_agent", "secrets": secrets });
    let stage = Stage::create_with(Setup::default(), entry, json!({ "personal_secrets": ["API_KEY"] })).await;
    let path = format!("/instances/{}/agents/{}/personal-secrets/API_KEY", stage.instance, stage.agent);
    stage.api.call(Method::PUT, &path, Some(json!({ "value": PERSONAL }))).await.assert_status(204);
    let secret = stage.api.post("/secrets", json!({ "name": "TOKEN", "value": SHARED })).await.json();
    update(&stage, json!({ "secrets": { "TOKEN": secret["id"] } })).await;
    stage.ready().await
}

async fn update(stage: &Stage, patch: Value) -> Value {
    let path = format!("/instances/{}", stage.instance);
    let updated = stage.api.call(Method::PATCH, &path, Some(patch)).await;
    assert!(updated.status.is_success(), "{}", updated.body);
    updated.json()
}

/// Switches the recording of contents on or off, and waits until the gateway has noticed.
async fn record_contents(stage: &Stage, is_on: bool) {
    let updated = update(stage, json!({ "record_contents": is_on })).await;
    assert_eq!(updated["record_contents"], is_on);
    stage.api.app.refresh().await;
}

/// Returns the only call of the log with its contents.
async fn only_call(stage: &Stage) -> Value {
    wait_for_calls(&stage.api.app, 1).await;
    let listed = stage.api.get("/calls").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert!(listed["items"][0].get("contents").is_none(), "lists have no contents");
    stage.api.get(&format!("/calls/{}", listed["items"][0]["id"].as_str().unwrap())).await
}

async fn clear(app: &App) {
    app.execute("DELETE FROM calls").await;
    assert_eq!(app.count(STORED).await, 0, "contents are deleted with their call");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_are_recorded_only_if_they_are_switched_on() {
    let stage = stage_with_secrets().await;
    let generation = stage.api.get(&format!("/instances/{}", stage.instance)).await["generation"].clone();
    stage.call("search__find", json!({ "query": "docs" })).await;
    assert_eq!(only_call(&stage).await["contents"], Value::Null);
    assert_eq!(stage.api.app.count(STORED).await, 0);
    clear(&stage.api.app).await;
    record_contents(&stage, true).await;
    stage.call("search__find", json!({ "query": "docs" })).await;
    let call = only_call(&stage).await;
    let expected = json!({
        "arguments": { "text": r#"{"query":"docs"}"#, "truncated": false },
        "result": { "text": r#"{"content":[],"n":1.0}"#, "truncated": false },
        "error": null,
    });
    assert_eq!((&call["contents"], &call["outcome"]), (&expected, &json!("ok")));
    // Stored text is sealed.
    assert!(!stage.api.app.query_lines("SELECT contents FROM call_contents").await.contains("\"docs\""));
    clear(&stage.api.app).await;
    // An unknown tool belongs to no instance.
    stage.call("search__unknown", json!({ "query": "docs" })).await;
    assert_eq!(only_call(&stage).await["contents"], Value::Null);
    clear(&stage.api.app).await;
    record_contents(&stage, false).await;
    stage.call("search__find", json!({ "query": "docs" })).await;
    assert_eq!(only_call(&stage).await["contents"], Value::Null);
    // No deployment was started, and the audit log contains the changes of the setting and the access to the contents.
    assert_eq!(stage.api.get(&format!("/instances/{}", stage.instance)).await["generation"], generation);
    let audit = stage.api.get("/audit-events?limit=50").await["items"].take();
    let count = |action: &str| audit.as_array().unwrap().iter().filter(|event| event["act"] == action).count();
    assert_eq!((count("instance.record_contents"), count("call.read_contents")), (2, 1), "{audit}");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_masked_and_long_texts_are_truncated() {
    let stage = stage_with_secrets().await;
    record_contents(&stage, true).await;
    let text = format!("{PERSONAL} {}", json!({ "key": SHARED, "password": "hunter4" }));
    let result = json!({ "content": [
        { "type": "text", "text": text },
        { "type": "image", "data": "iVBORw0KGgo".repeat(100), "mimeType": "image/png" },
        { "type": "text", "text": json!({ "password": "hunter4", "key": SHARED }).to_string() },
        { "type": "text", "text": "x".repeat(100_000) },
    ], "structuredContent": { "access_token": { "a": "hunter5" } } });
    let answer = format!(r#"{{"jsonrpc":"2.0","id":ID,"result":{result}}}"#);
    stage.set(|server| server.answers = vec![answer.into_bytes()]);
    let arguments = json!({ "query": format!("a {SHARED} b"), "api_key": "hunter6", PERSONAL: [PERSONAL, 7] });
    stage.call("search__find", arguments).await;
    let contents = only_call(&stage).await["contents"].take();
    let arguments: Value = serde_json::from_str(contents["arguments"]["text"].as_str().unwrap()).unwrap();
    let expected = json!({ "query": "a [secret] b", "api_key": "[secret]", "[secret]": ["[secret]", 7] });
    assert_eq!(arguments, expected);
    let result = &contents["result"];
    let text = result["text"].as_str().unwrap();
    assert!(text.len() <= 8_192 && result["truncated"] == true, "{}", text.len());
    assert!(text.contains("[Base64, 1100 characters]"), "{text}");
    for secret in ["hunter2", "hunter3", "hunter5", "hunter6", "iVBO"] {
        assert!(!contents.to_string().contains(secret), "{secret}: {contents}");
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_of_failed_calls_are_recorded() {
    let stage = stage_with_secrets().await;
    record_contents(&stage, true).await;
    let error = format!(r#"{{"code":-32000,"message":"Wrong key {PERSONAL}"}}"#);
    let answer = format!(r#"{{"jsonrpc":"2.0","id":ID,"error":{error}}}"#);
    stage.set(|server| server.answers = vec![answer.into_bytes()]);
    stage.call("search__find", json!({})).await;
    let contents = only_call(&stage).await["contents"].take();
    let expected = r#"{"code":-32000,"message":"Wrong key [secret]"}"#;
    assert_eq!((&contents["error"]["text"], &contents["result"]), (&json!(expected), &Value::Null));
    clear(&stage.api.app).await;
    stage.set(|server| server.status = Some(504));
    stage.call("search__find", json!({ "a": 1 })).await;
    let contents = only_call(&stage).await["contents"].take();
    assert!(contents["error"]["text"].as_str().unwrap().contains("timeout"), "{contents}");
    assert_eq!(contents["arguments"]["text"], r#"{"a":1}"#);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_arguments_of_a_call_that_a_rule_denies_are_recorded() {
    let stage = stage_with_secrets().await;
    record_contents(&stage, true).await;
    let grants = stage.api.get("/grants").await;
    let id = grants["items"][0]["id"].as_str().unwrap().parse().unwrap();
    let rule = ArgumentRule {
        tool: "find".to_owned(),
        field: "q".to_owned(),
        comparison: Comparison::Equals,
        value: "docs".into(),
    };
    let custom = GrantPatch {
        access: Some(AccessLevel::Custom),
        tools: Some(vec!["find".to_owned()]),
        rules: Some(vec![rule]),
        ..GrantPatch::default()
    };
    let (cx, ops) = (stage.api.app.cx(), stage.api.app.running_ops());
    waypost_ops::grants::update(cx, &ops, &stage.api.org.id, &id, &custom).await.unwrap();
    stage.api.app.refresh().await;
    stage.call("search__find", json!({ "q": "other" })).await;
    let call = only_call(&stage).await;
    assert_eq!((&call["outcome"], &call["contents"]["result"]), (&json!("denied"), &Value::Null), "{call}");
    assert_eq!(call["contents"]["arguments"]["text"], r#"{"q":"other"}"#);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_admins_of_the_organisation_can_read_contents() {
    let stage = stage_with_secrets().await;
    record_contents(&stage, true).await;
    stage.call("search__find", json!({ "query": "<docs>" })).await;
    let id = only_call(&stage).await["id"].as_str().unwrap().to_owned();
    let page = format!("/o/acme/calls/{id}");
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    owner.get_page("/o/acme/calls").await.assert_contains(&format!("href=\"{page}\""));
    owner
        .get_page(&page)
        .await
        .assert_contains("&#60;docs&#62;")
        .assert_contains(">Result</h2>")
        .assert_lacks("Error</h2>");
    owner.get("/o/acme/calls/cal_0123456789abcdef01234567").await.assert_status(404);
    let member = ConsoleBrowser::member(&stage.api.org, "member@example.com", Role::Member).await;
    member.get(&page).await.assert_status(403).assert_lacks("docs");
    let other = stage.api.app.org("other").await;
    let outsider = ConsoleBrowser::owner(&other).await;
    outsider.get(&page).await.assert_status(404).assert_lacks("docs");
    outsider.get(&page.replace("acme", "other")).await.assert_status(404).assert_lacks("docs");
    // The operations themselves also check the role.
    let (cx, ops, call) = (stage.api.app.cx(), stage.api.app.running_ops(), id.parse().unwrap());
    assert!(calls::get(cx, &ops, &other.id, &call).await.is_err());
    let anonymous = Ctx { caller: Caller::Visitor, ..cx.clone() };
    assert!(calls::get(&anonymous, &ops, &stage.api.org.id, &call).await.is_err());
    stage.api.call(Method::GET, "/calls/x", None).await.assert_status(404);
    drop((owner, member, outsider));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contents_are_deleted_with_their_call_and_with_the_agent() {
    let stage = stage_with_secrets().await;
    record_contents(&stage, true).await;
    stage.call("search__find", json!({})).await;
    only_call(&stage).await;
    assert_eq!(stage.api.app.count(STORED).await, 1);
    stage.api.app.advance_clock(1_000).await;
    let periods = RetentionPeriods { gateway_calls: Some(1), ..RetentionPeriods::default() };
    let deleted = delete_old(stage.api.app.db(), &*stage.api.app.cx().clock, &periods).await.unwrap();
    assert_eq!(deleted.gateway_calls, 1);
    assert_eq!(stage.api.app.count(STORED).await, 0);
    stage.call("search__find", json!({})).await;
    only_call(&stage).await;
    let path = format!("/agents/{}", stage.agent);
    stage.api.call(Method::DELETE, &path, None).await.assert_status(204);
    assert_eq!(stage.api.app.count(STORED).await, 0);
    assert_eq!(only_call(&stage).await["contents"], Value::Null, "the log keeps the call");
    stage.finish().await;
}
