//! Two organisations with identical content cannot reach each other's data.

use serde_json::json;
use waypost_core::server::Toolset;
use waypost_ops::servers::ServerSettings;

use crate::app::{App, Server, open};

waypost_testkit::both!(open => an_organisation_cannot_reach_the_data_of_another);

async fn set_up(app: &App, slug: &str) -> (Server, String, String) {
    let settings = ServerSettings { toolset: Some(Toolset::All), ..ServerSettings::default() };
    let server = app.org(slug).await.server_with(slug, settings).await;
    let walkthrough = server.walkthrough("Install Acme", &["Download", "Run"]).await;
    (server, walkthrough.id.to_string(), walkthrough.step("Download").await)
}

async fn an_organisation_cannot_reach_the_data_of_another(app: App) {
    let (ours, walkthrough, step) = set_up(&app, "ours").await;
    let (theirs, their_guide, their_step) = set_up(&app, "theirs").await;
    assert_ne!((&walkthrough, &step), (&their_guide, &their_step));
    // End users of the other organisation, identified by handle, session and tracking ID.
    let handle = theirs.modern().call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.handle();
    let session = theirs.legacy("2025-06-18").connect().await;
    session.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    theirs.personal("ann").call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    theirs.personal("ann").call("next_walkthrough_step", json!({})).await.ok();

    let ann = ours.personal("ann");
    for tool in [
        "select_walkthrough",
        "next_walkthrough_step",
        "get_walkthrough_status",
        "get_walkthrough_details",
        "get_current_step",
        "get_walkthrough_steps",
    ] {
        let result = ann.call(tool, json!({ "walkthrough_id": their_guide })).await;
        assert_eq!(result.error_code(), "walkthrough_not_found", "{tool} by ID");
    }
    let reset = ann.call("reset_walkthrough_progress", json!({ "walkthrough_id": their_guide, "confirm": true })).await;
    assert_eq!(reset.error_code(), "walkthrough_not_found");
    let cursor = ann.call("list_walkthroughs", json!({ "cursor": their_guide })).await;
    assert_eq!(cursor.error_code(), "invalid_arguments");
    let completed = ann.call("complete_step", json!({ "walkthrough_id": walkthrough, "step_id": their_step })).await;
    assert_eq!(completed.error_code(), "step_not_found");
    let listed = ann.call("list_walkthroughs", json!({})).await;
    let listed = listed.ok()["walkthroughs"].as_array().unwrap().clone();
    assert_eq!((listed.len(), &listed[0]["id"], &listed[0]["progress_percent"]), (1, &json!(walkthrough), &json!(0)));
    let by_slug = ann.call("get_walkthrough_status", json!({ "walkthrough_id": "install-acme" })).await;
    assert_eq!(by_slug.ok()["walkthrough"]["id"], walkthrough, "a slug refers to the organisation's own walkthrough");
    for uri in [format!("walkthrough://{their_guide}"), format!("walkthrough://{their_guide}/steps/{their_step}")] {
        let response = ann.send("resources/read", json!({ "uri": uri })).await;
        assert_eq!(response.error_code(), -32_602, "{uri}");
        let response = ours.modern().with_handle(&handle).send("resources/read", json!({ "uri": uri })).await;
        assert_eq!(response.error_code(), -32_602, "{uri}");
    }
    let mixed = format!("walkthrough://{walkthrough}/steps/{their_step}");
    assert_eq!(ann.send("resources/read", json!({ "uri": mixed })).await.error_code(), -32_602);
    for tool in ["list_walkthroughs", "get_walkthrough_status", "select_walkthrough", "next_walkthrough_step"] {
        let arguments = if tool == "list_walkthroughs" { json!({}) } else { json!({ "walkthrough_id": walkthrough }) };
        let result = ours.modern().with_handle(&handle).call(tool, arguments).await;
        assert_eq!(result.error_code(), "handle_unknown", "{tool}");
    }
    let stolen = session.clone().at_host("localhost", &ours.path());
    assert_eq!(stolen.send("tools/list", json!({})).await.status, 404);
    let stolen = session.at_host("ours.localhost", "/mcp");
    assert_eq!(stolen.send("tools/list", json!({})).await.status, 404);
    assert_eq!(
        ann.call("next_walkthrough_step", json!({})).await.error_code(),
        "no_active_walkthrough",
        "a different user"
    );
    const OURS: &str = "SELECT count(*) FROM progress JOIN organizations ON organizations.id = progress.organization_id
        WHERE organizations.slug = 'ours'";
    assert_eq!(app.count(OURS).await, 0, "nothing was written");
    app.stop().await;
    app.execute("DELETE FROM tool_calls WHERE tool = 'resources/read'").await;
    app.finish().await;
}
