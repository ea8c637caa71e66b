//! Claimed progress: admins are informed of claims and can undo them.

use http::Method;
use serde_json::{Value, json};
use waypost_core::organization::Role;
use waypost_core::webhook::WebhookEvent;

use super::super::sign_in::{self, OauthClient, Tokens, WEB_CALLBACK, require_sign_in};
use super::ConsoleBrowser;
use crate::app::{App, Server, open};

waypost_testkit::both!(extended open =>
    a_claim_is_reported_and_undone_on_the_page,
    a_claim_is_reported_and_undone_over_the_api,
);

/// Creates a server on which "ann" reached step 2 before sign-in was required.
async fn set_up(app: &App) -> Server {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    let before = server.personal("ann");
    before.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    before.call("next_walkthrough_step", json!({})).await.ok();
    require_sign_in(&server).await;
    server
}

/// Signs in as `subject` at `url`, consents and returns the position of the current step.
async fn sign_in_and_get_position(server: &Server, subject: &str, url: &str) -> Value {
    let client = OauthClient::register_at(server, WEB_CALLBACK).await;
    let (browser, _) = sign_in::EndUserBrowser::signed_in(server, subject).await;
    let code = client.get_code(&browser, &[("resource", url)]).await;
    let tokens = Tokens::from_response(&client.exchange(&code).await);
    let response = sign_in::start_walkthrough(server, Some(&tokens.access)).await.json();
    response["result"]["structuredContent"]["step"]["position"].clone()
}

/// Returns the claim link that the page shows.
fn claim_link_on(page: &str) -> String {
    let at = page.find("http://localhost:8080/s/acme/t/claim~").expect("the page contains a claim link");
    page[at..].split('<').next().unwrap().to_owned()
}

async fn a_claim_is_reported_and_undone_on_the_page(app: App) {
    let server = set_up(&app).await;
    let admin = ConsoleBrowser::member(&server.org, "admin@acme.example", Role::Admin).await;
    let member = ConsoleBrowser::member(&server.org, "member@acme.example", Role::Member).await;
    admin.get_page("/o/acme/joins").await.assert_contains("No claimed progress yet");
    let form = [("server", server.id.as_str()), ("tracking_id", "ann"), ("expires_in_hours", "24")];
    member.get("/o/acme/joins").await.assert_status(403);
    member.post("/o/acme/joins", &form).await.assert_status(403);
    let wrong = [("server", server.id.as_str()), ("tracking_id", "a b"), ("expires_in_hours", "24")];
    admin.post("/o/acme/joins", &wrong).await.assert_status(422).assert_contains("e-tracking_id");
    let created = admin.post("/o/acme/joins", &form).await;
    let link = claim_link_on(&created.assert_status(200).body);
    assert_eq!(sign_in_and_get_position(&server, "anna", &link).await, 2);
    let page = admin.get_page("/o/acme/joins").await;
    page.assert_contains("ann").assert_contains("anna@example.com").assert_lacks("claim~");
    admin.get_page("/o/acme").await.assert_contains("tracking IDs claimed in the last 7 days");
    member.get_page("/o/acme").await.assert_lacks("tracking IDs claimed");
    admin.get_page("/o/acme/audit?act=join.").await.assert_contains("join.create");
    let action = page.body.split("action=\"").find(|part| part.contains("/undo\"")).unwrap().split('"').next().unwrap();
    member.post(action, &[]).await.assert_status(403);
    admin.post(action, &[]).await.assert_redirect("/o/acme/joins");
    admin.post(action, &[]).await.assert_redirect("/o/acme/joins");
    assert_eq!(app.count("SELECT count(*) FROM audit_events WHERE act = 'join.undo'").await, 1, "once");
    admin.get_page("/o/acme/joins").await.assert_contains("Undone").assert_lacks("/undo\"");
    admin.get_page("/o/acme").await.assert_lacks("tracking IDs claimed");
    // The used link no longer claims anything, for any user.
    for subject in ["anna", "bea"] {
        app.advance_clock(1).await;
        assert_eq!(sign_in_and_get_position(&server, subject, &link).await, 1, "{subject}");
    }
    app.finish().await;
}

async fn a_claim_is_reported_and_undone_over_the_api(app: App) {
    let server = set_up(&app).await;
    let admin = ConsoleBrowser::member(&server.org, "admin@acme.example", Role::Admin).await;
    let hook = json!({ "url": "https://hook.example/x", "events": [WebhookEvent::ProgressClaimed.as_str()] });
    admin.api(Method::POST, "/webhooks", Some(hook)).await.assert_status(201);
    let path = format!("/servers/{}/claim-links", server.id);
    for hours in [0, 721] {
        let new = json!({ "tracking_id": "ann", "expires_in_hours": hours });
        admin.api(Method::POST, &path, Some(new)).await.assert_status(422);
    }
    let created = admin.api(Method::POST, &path, Some(json!({ "tracking_id": "ann" }))).await;
    let link = created.assert_status(201).json()["url"].as_str().unwrap().to_owned();
    assert_eq!(sign_in_and_get_position(&server, "anna", &link).await, 2);
    let payload: Value =
        serde_json::from_str(&app.query_lines("SELECT payload FROM webhook_deliveries").await).unwrap();
    assert_eq!(
        (&payload["type"], &payload["data"]["from_end_user"]["tracking_id"]),
        (&json!("progress.claimed"), &json!("ann"))
    );
    let list = admin.api(Method::GET, "/joins?limit=1", None).await.assert_status(200).json();
    let join = &list["items"][0];
    assert_eq!((&join["tracking_id"], &join["kind"]), (&json!("ann"), &json!("tracking")));
    const REPORTED: &str = "SELECT count(*) FROM webhook_deliveries JOIN joins ON payload LIKE '%' || joins.id || '%'
        AND payload LIKE '%' || joins.from_end_user_id || '%' AND payload LIKE '%' || joins.to_end_user_id || '%'";
    assert_eq!(app.count(REPORTED).await, 1);
    assert!(join["undone_at"].is_null() && list["next_cursor"].is_null(), "{list}");
    let path = format!("/joins/{}", join["id"].as_str().unwrap());
    let undone = admin.api(Method::POST, &format!("{path}/undo"), None).await.assert_status(200).json();
    assert!(undone["undone_at"].is_string());
    app.advance_clock(1_000).await;
    let again = admin.api(Method::POST, &format!("{path}/undo"), None).await.assert_status(200).json();
    assert_eq!(again, undone, "a repeated undo changes nothing");
    assert_eq!(admin.api(Method::GET, &path, None).await.assert_status(200).json(), undone);
    // A new link works for another user.
    let new = json!({ "tracking_id": "ann" });
    let created = admin.api(Method::POST, &format!("/servers/{}/claim-links", server.id), Some(new)).await;
    let fresh = created.assert_status(201).json()["url"].as_str().unwrap().to_owned();
    assert_eq!(sign_in_and_get_position(&server, "bea", &fresh).await, 2);
    app.finish().await;
}
