//! Prompts, resources and completions.

use insta::assert_snapshot;
use serde_json::{Value, json};
use waypost_core::server::Toolset;
use waypost_ops::assignments::AssignmentPatch;
use waypost_ops::servers::ServerSettings;
use waypost_ops::walkthroughs::WalkthroughPatch;

use crate::app::{App, Server, document};
use crate::client::Client;

async fn set_up() -> (App, Server) {
    let app = App::new().await;
    let server = app.server("acme").await;
    let mut file = document("Install Acme", &["Download", "Unpack", "Run"]);
    file["walkthrough"]["description"] = json!("How to install it.");
    server.import(&file).await;
    (app, server)
}

#[tokio::test]
async fn each_walkthrough_is_a_prompt() {
    let (app, server) = set_up().await;
    let user = server.modern();
    assert_snapshot!(user.send("prompts/list", json!({})).await.result()["prompts"].to_string(), @r#"[{"name":"install-acme","title":"Install Acme","description":"How to install it."}]"#);
    let prompt = user.send("prompts/get", json!({ "name": "install-acme" })).await;
    assert_snapshot!(app.redact(prompt.result()["messages"][0]["content"]["text"].as_str().unwrap()), @r#"Guide me through the walkthrough "Install Acme" (3 steps), one step at a time. Call select_walkthrough(walkthrough_id: "wt:1"), show me the content of the step, and stop. Only when I say that the step is done, call next_walkthrough_step(walkthrough_id, current_step_id). Never call it twice in a row without a reply from the user. In a step, intro: say this first; context: for you only; operations: carry these out; content: show verbatim. Pass progress_handle on EVERY call, and keep it in your notes (for example AGENTS.md or a .waypost file) to resume after a restart; if your notes already have one, pass it from the first call on."#);
    server.update(ServerSettings { toolset: Some(Toolset::Stepwise), ..ServerSettings::default() }).await;
    let prompt = user.send("prompts/get", json!({ "name": "install-acme" })).await;
    let text = prompt.result()["messages"][0]["content"]["text"].as_str().unwrap().to_owned();
    assert!(text.contains("get_current_step") && !text.contains("select_walkthrough"), "{text}");
    for name in ["Install Acme", "INSTALL-ACME", "wt_1", ""] {
        assert_eq!(user.send("prompts/get", json!({ "name": name })).await.status_and_code(), (200, -32_602), "{name}");
    }
    app.finish().await;
}

#[tokio::test]
async fn the_outline_is_a_resource() {
    let (app, server) = set_up().await;
    let user = server.modern();
    let listed = user.send("resources/list", json!({})).await;
    assert_snapshot!(app.redact(&listed.result()["resources"].to_string()), @r#"[{"uri":"walkthrough://wt:1","name":"install-acme","title":"Install Acme","description":"How to install it.","mimeType":"text/markdown"}]"#);
    let uri = listed.result()["resources"][0]["uri"].clone();
    let read = user.send("resources/read", json!({ "uri": uri })).await;
    assert_eq!(read.result()["cacheScope"], "public", "the same for all users");
    assert_snapshot!(app.redact(read.result()["contents"][0]["text"].as_str().unwrap()), @r"
    # Install Acme

    How to install it.

    Install Acme: not started, 0 of 3 steps completed (0%).
    [>] 1. Download (ws:1)
    [ ] 2. Unpack (ws:2)
    [ ] 3. Run (ws:3)
    ");
    let templates = user.send("resources/templates/list", json!({})).await;
    assert_snapshot!(templates.result()["resourceTemplates"].to_string(), @r#"[{"uriTemplate":"walkthrough://{walkthrough_id}/steps/{step_id}","name":"step","title":"Step of a walkthrough","description":"A step that the user has completed, or the current one.","mimeType":"text/markdown"}]"#);
    app.finish().await;
}

async fn read_step(client: &Client, walkthrough: &Value, step: &str) -> (i64, String) {
    let uri = format!("walkthrough://{}/steps/{step}", walkthrough.as_str().unwrap());
    let response = client.send("resources/read", json!({ "uri": uri })).await;
    if response.error_code() == 0 {
        assert_eq!(response.result()["cacheScope"], "private");
        assert_eq!(response.result()["ttlMs"], 0);
    }
    let text = response.json()["result"]["contents"][0]["text"].as_str().unwrap_or_default().to_owned();
    (response.error_code(), text)
}

#[tokio::test]
async fn completed_and_current_steps_are_resources() {
    let (app, server) = set_up().await;
    let ann = server.personal("ann");
    let outline = ann.call("get_walkthrough_status", json!({ "walkthrough_id": "install-acme" })).await;
    let walkthrough = outline.ok()["walkthrough"]["id"].clone();
    let ids: Vec<String> =
        outline.ok()["steps"].as_array().unwrap().iter().map(|step| step["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(read_step(&ann, &walkthrough, &ids[0]).await.0, -32_602, "not started");
    ann.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    ann.call("next_walkthrough_step", json!({})).await.ok();
    let codes = [
        read_step(&ann, &walkthrough, &ids[0]).await,
        read_step(&ann, &walkthrough, &ids[1]).await,
        read_step(&ann, &walkthrough, &ids[2]).await,
    ];
    assert_eq!(codes[0], (0, "# Download\n\nDownload it.\n".to_owned()), "completed");
    assert_eq!(codes[1], (0, "# Unpack\n\nUnpack it.\n".to_owned()), "current");
    assert_eq!(codes[2].0, -32_602, "not reached yet");
    assert_eq!(read_step(&server.personal("bob"), &walkthrough, &ids[0]).await.0, -32_602, "not completed by Bob");
    assert_eq!(read_step(&server.modern(), &walkthrough, &ids[0]).await.0, -32_602, "an unknown user");
    for uri in
        ["walkthrough://install-acme", "walkthrough://", "walkthrough://wt_x/steps/", "WALKTHROUGH://x", "http://x", ""]
    {
        let response = ann.send("resources/read", json!({ "uri": uri })).await;
        assert_eq!(response.error_code(), -32_602, "{uri:?}");
    }
    let nul = server.legacy("2025-11-25").send("resources/read", json!({ "uri": "walkthrough://a\u{0}b" })).await;
    assert_eq!(nul.error_code(), -32_002);
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 1);
    let mut session = server.legacy("2025-11-25").connect().await;
    session.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    let uri = json!({ "uri": format!("walkthrough://{}/steps/{}", walkthrough.as_str().unwrap(), ids[0]) });
    assert_eq!(session.send("resources/read", uri.clone()).await.error_code(), 0, "identified by the session");
    session.session = None;
    assert_eq!(session.send("resources/read", uri).await.error_code(), -32_002, "the error code of the legacy era");
    app.stop().await;
    app.execute("DELETE FROM tool_calls WHERE tool = 'resources/read'").await;
    app.finish().await;
}

#[tokio::test]
async fn completions_are_supported() {
    let (app, server) = set_up().await;
    let user = server.modern();
    let complete = |reference: Value, value: &str| json!({ "ref": reference, "argument": { "name": "walkthrough_id", "value": value } });
    for name in ["install-acme", "no-such"] {
        let response =
            user.send("completion/complete", complete(json!({ "type": "ref/prompt", "name": name }), "")).await;
        assert_eq!(response.result()["completion"]["values"], json!([]), "{name}");
    }
    let template = json!({ "type": "ref/resource", "uri": "walkthrough://{walkthrough_id}/steps/{step_id}" });
    let response = user.send("completion/complete", complete(template.clone(), "wt_")).await;
    assert_eq!(response.result()["completion"]["values"].as_array().unwrap().len(), 1);
    let response = user.send("completion/complete", complete(template, "x")).await;
    assert_eq!(response.result()["completion"]["values"], json!([]));
    app.finish().await;
}

#[tokio::test]
async fn lists_are_in_display_order() {
    let app = App::new().await;
    let server = app.server("acme").await;
    let first = server.walkthrough("First", &["A"]).await;
    let second = server.walkthrough("Second", &["A"]).await;
    let user = server.modern();
    for (order, expected) in [(0, ["first", "second"]), (9, ["second", "first"])] {
        server.assign(&first, AssignmentPatch { display_order: Some(order), ..AssignmentPatch::default() }).await;
        server.assign(&second, AssignmentPatch { display_order: Some(5), ..AssignmentPatch::default() }).await;
        let listed = user.call("list_walkthroughs", json!({})).await.ok()["walkthroughs"].clone();
        let prompts = user.send("prompts/list", json!({})).await.result()["prompts"].clone();
        let resources = user.send("resources/list", json!({})).await.result()["resources"].clone();
        for (rows, member) in [(listed, "slug"), (prompts, "name"), (resources, "name")] {
            assert_eq!([&rows[0][member], &rows[1][member]], expected, "{member}");
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn a_slug_survives_a_new_title_and_can_be_changed() {
    let app = App::new().await;
    let server = app.server("acme").await;
    let walkthrough = server.walkthrough("Install Acme", &["A", "B"]).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    walkthrough.update(WalkthroughPatch { title: Some("Set Acme up".to_owned()), ..WalkthroughPatch::default() }).await;
    let listed = user.call("list_walkthroughs", json!({})).await.ok()["walkthroughs"][0].clone();
    assert_eq!(
        (&listed["title"], &listed["slug"]),
        (&json!("Install Acme"), &json!("install-acme")),
        "not published yet"
    );
    walkthrough.republish().await;
    let listed = user.call("list_walkthroughs", json!({})).await.ok()["walkthroughs"][0].clone();
    assert_eq!((&listed["title"], &listed["slug"]), (&json!("Set Acme up"), &json!("install-acme")));
    walkthrough.update(WalkthroughPatch { slug: Some("set-up".to_owned()), ..WalkthroughPatch::default() }).await;
    let old = user.call("next_walkthrough_step", json!({ "walkthrough_id": "install-acme" })).await;
    assert_eq!(old.error_code(), "walkthrough_not_found");
    assert_eq!(user.send("prompts/get", json!({ "name": "set-up" })).await.error_code(), 0);
    assert_eq!(user.call("next_walkthrough_step", json!({ "walkthrough_id": "set-up" })).await.progress(), "2/2 50%");
    app.finish().await;
}
