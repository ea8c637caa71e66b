//! Identification of end users on a server without sign-in (contract, section 4).

use insta::assert_snapshot;
use serde_json::json;

use crate::app::{App, DAY, Server, open};
use crate::client::Client;

waypost_testkit::both!(extended open =>
    reading_creates_no_end_user,
    writing_returns_a_progress_handle,
    a_handle_expires_90_days_after_its_last_use,
    a_session_and_its_handle_identify_one_user,
    credentials_have_a_fixed_precedence,
    credentials_of_one_server_are_unknown_on_another,
    client_names_are_sanitised_and_truncated,
);

async fn set_up(app: &App) -> Server {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    server
}

const INSTALL: &str = "install-acme";

async fn count_end_users(app: &App) -> i64 {
    app.count("SELECT count(*) FROM end_users").await
}

async fn reading_creates_no_end_user(app: App) {
    let server = set_up(&app).await;
    let session = server.legacy("2025-06-18").connect().await;
    for client in [server.modern(), server.personal("ann"), server.legacy("2025-03-26"), session] {
        client.call("list_walkthroughs", json!({})).await.ok();
        client.call("get_walkthrough_status", json!({ "walkthrough_id": INSTALL })).await.ok();
        let next = client.call("next_walkthrough_step", json!({ "walkthrough_id": INSTALL })).await;
        assert_eq!(next.error_code(), "no_active_walkthrough");
        assert_eq!(client.call("next_walkthrough_step", json!({})).await.error_code(), "no_active_walkthrough");
        let reset = client.call("reset_walkthrough_progress", json!({ "walkthrough_id": INSTALL, "confirm": true }));
        assert_eq!(reset.await.error_code(), "no_progress");
        client.send("resources/list", json!({})).await;
        client.send("prompts/get", json!({ "name": INSTALL })).await;
    }
    assert_eq!(count_end_users(&app).await, 0);
    assert_eq!(app.count("SELECT count(*) FROM client_sessions").await, 0);
    app.finish().await;
}

async fn writing_returns_a_progress_handle(app: App) {
    let server = set_up(&app).await;
    let client = server.modern();
    let first = client.call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.handle();
    assert!(first.starts_with("wph_") && first.len() >= 4 + 26, "128 bits: {first}");
    let second = client.call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.handle();
    assert_ne!(first, second, "each call without a handle creates a new user");
    assert_eq!(count_end_users(&app).await, 2);
    let known = client.clone().with_handle(&first);
    assert_eq!(
        known.call("next_walkthrough_step", json!({})).await.handle(),
        first,
        "each result of a change contains the handle"
    );
    let id =
        known.call("get_walkthrough_status", json!({ "walkthrough_id": INSTALL })).await.ok()["steps"][0]["id"].clone();
    let repeated = known.call("next_walkthrough_step", json!({ "current_step_id": id })).await;
    assert_eq!(repeated.handle(), first, "a repeated call returns the handle");
    for tool in ["list_walkthroughs", "get_walkthrough_status"] {
        let read = known
            .call(tool, if tool == "list_walkthroughs" { json!({}) } else { json!({ "walkthrough_id": INSTALL }) });
        let read = read.await;
        assert_eq!(read.handle(), first, "a read call returns the handle: {tool}");
        assert!(read.message().contains(&format!("progress_handle: \"{first}\"")), "{tool}: {read}");
    }
    let personal = server.personal("ann").call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await;
    assert_eq!(personal.ok()["progress_handle"], json!(null), "a personal URL needs no handle");
    let stored = app.count("SELECT count(*) FROM client_sessions WHERE handle_hash LIKE 'wph%'").await;
    assert_eq!(stored, 0, "only the hash is stored");
    app.finish().await;
}

#[tokio::test]
async fn an_unknown_handle_is_rejected_with_instructions() {
    let app = App::new().await;
    let server = set_up(&app).await;
    let client = server.modern().with_handle("wph_0000000000000000000000000");
    assert_snapshot!(client.call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await, @r#"
    > select_walkthrough {"walkthrough_id":"install-acme","progress_handle":"wph:1"}
    {
      "error": {
        "code": "handle_unknown",
        "message": "This progress_handle is unknown on this server or has expired, which happens 90 days after its last use. Check it for typos; to start again, call select_walkthrough without progress_handle, which returns a new one."
      }
    }
    ---
    This progress_handle is unknown on this server or has expired, which happens 90 days after its last use. Check it for typos; to start again, call select_walkthrough without progress_handle, which returns a new one.
    "#);
    for tool in ["list_walkthroughs", "get_walkthrough_status", "next_walkthrough_step", "reset_walkthrough_progress"] {
        let arguments = match tool {
            "list_walkthroughs" => json!({}),
            "reset_walkthrough_progress" => json!({ "walkthrough_id": INSTALL, "confirm": true }),
            _ => json!({ "walkthrough_id": INSTALL }),
        };
        assert_eq!(client.call(tool, arguments).await.error_code(), "handle_unknown", "{tool}");
    }
    for handle in ["x", "wph_", "' OR 1=1 --", "wph_é"] {
        let result = server.modern().with_handle(handle).call("list_walkthroughs", json!({})).await;
        assert_eq!(result.error_code(), "handle_unknown", "{handle:?}");
    }
    let long = server.modern().with_handle(&"w".repeat(5_000)).call("list_walkthroughs", json!({})).await;
    assert_eq!(long.error_code(), "invalid_arguments");
    assert_eq!(count_end_users(&app).await, 0);
    app.finish().await;
}

async fn a_handle_expires_90_days_after_its_last_use(app: App) {
    let server = set_up(&app).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.ok();
    for _ in 0..3 {
        app.advance_clock(89 * DAY).await;
        // Reading also counts as use.
        assert_eq!(user.call("list_walkthroughs", json!({})).await.ok()["walkthroughs"][0]["status"], "in_progress");
    }
    app.advance_clock(90 * DAY - 1).await;
    assert_eq!(user.call("next_walkthrough_step", json!({})).await.progress(), "2/3 33%");
    app.advance_clock(90 * DAY).await;
    assert_eq!(user.call("next_walkthrough_step", json!({})).await.error_code(), "handle_unknown");
    assert_eq!(user.call("list_walkthroughs", json!({})).await.error_code(), "handle_unknown");
    app.stop().await;
    let deleted = waypost_ops::identity::delete_expired(app.db(), &*app.cx().clock).await.unwrap();
    assert_eq!((deleted, count_end_users(&app).await), (1, 1), "the handle is deleted, the user's progress remains");
    app.finish().await;
}

async fn a_session_and_its_handle_identify_one_user(app: App) {
    let server = set_up(&app).await;
    let client = server.legacy("2025-06-18").connect().await;
    let handle = client.call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.handle();
    assert_eq!(client.call("next_walkthrough_step", json!({})).await.handle(), handle);
    let other = server.legacy("2025-06-18").connect().await;
    assert_eq!(other.call("next_walkthrough_step", json!({})).await.error_code(), "no_active_walkthrough");
    for mut again in [server.modern(), server.legacy("2025-03-26"), other] {
        again.handle = Some(handle.clone());
        let listed = again.call("list_walkthroughs", json!({})).await;
        assert_eq!(listed.ok()["walkthroughs"][0]["progress_percent"], 33, "{:?}", again.era);
    }
    assert_eq!(count_end_users(&app).await, 1);
    app.finish().await;
}

async fn credentials_have_a_fixed_precedence(app: App) {
    let server = set_up(&app).await;
    let session = server.legacy("2025-06-18").connect().await;
    let by_session = session.call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.handle();
    let by_handle = server.modern().call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.handle();
    let both = session.clone().with_handle(&by_handle);
    assert_eq!(
        both.call("next_walkthrough_step", json!({})).await.handle(),
        by_handle,
        "a handle takes precedence over a session"
    );
    let mut personal = session.clone().at_host("localhost", "/s/acme/t/ann/mcp");
    personal.handle = Some(by_handle.clone());
    let next = personal.call("next_walkthrough_step", json!({})).await;
    assert_eq!(
        next.error_code(),
        "no_active_walkthrough",
        "a tracking ID takes precedence: Ann has not started anything"
    );
    personal.handle = Some("wph_unknown".to_owned());
    let select = personal.call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await;
    assert_eq!(select.progress(), "1/3 0%", "the handle is ignored");
    let listed = session.with_handle(&by_session).call("list_walkthroughs", json!({})).await;
    assert_eq!(listed.ok()["walkthroughs"][0]["progress_percent"], 0);
    assert_eq!(count_end_users(&app).await, 3);
    app.finish().await;
}

async fn credentials_of_one_server_are_unknown_on_another(app: App) {
    let server = set_up(&app).await;
    let sibling = server.org.server("acme-sibling").await;
    sibling.walkthrough("Sibling", &["One", "Two"]).await;
    let other_org = app.server("other").await;
    other_org.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    let handle = server.modern().call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.handle();
    let session = server.legacy("2025-11-25").connect().await;
    for other_server in [&sibling, &other_org] {
        let result = other_server.modern().with_handle(&handle).call("list_walkthroughs", json!({})).await;
        assert_eq!(result.error_code(), "handle_unknown", "{}", other_server.slug);
        let path = other_server.path();
        let response = session.clone().at_host("localhost", &path).send("tools/list", json!({})).await;
        assert_eq!(response.status, 404, "{}", other_server.slug);
    }
    server.personal("ann").call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.ok();
    let same = sibling.personal("ann").call("select_walkthrough", json!({ "walkthrough_id": "sibling" })).await;
    assert_eq!(same.progress(), "1/2 0%");
    let other = other_org.personal("ann").call("next_walkthrough_step", json!({})).await;
    assert_eq!(other.error_code(), "no_active_walkthrough");
    other_org.personal("ann").call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.ok();
    let anns = app.count("SELECT count(*) FROM end_users WHERE tracking_id = 'ann'").await;
    assert_eq!(anns, 2, "one end user per organisation, on all its servers");
    other_org.personal("Ann").call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.ok();
    assert_eq!(count_end_users(&app).await, 4, "tracking IDs are case-sensitive");
    app.finish().await;
}

#[tokio::test]
async fn a_session_is_signed_and_expires_after_30_days() {
    let app = App::new().await;
    let server = set_up(&app).await;
    let client = server.legacy("2025-06-18").connect().await;
    let session = client.session.clone().unwrap();
    assert!(session.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "the session ID is visible ASCII");
    let mut changed = session.clone();
    changed.replace_range(0..1, if session.starts_with('A') { "B" } else { "A" });
    for forged in [changed.as_str(), "x", "", "a.b", &session[..session.len() - 1], &session.to_uppercase()] {
        let mut client = client.clone();
        client.session = Some(forged.to_owned());
        let response = client.send("tools/list", json!({})).await;
        assert_eq!(response.status_and_code(), (404, -32_600), "{forged}");
        assert_eq!(response.json()["id"], 1);
    }
    app.advance_clock(30 * DAY - 1).await;
    assert_eq!(client.send("tools/list", json!({})).await.status, 200);
    app.advance_clock(1).await;
    assert_snapshot!(client.send("tools/list", json!({})).await, @r#"
    404 {
      "jsonrpc": "2.0",
      "id": 1,
      "error": {
        "code": -32600,
        "message": "Session not found. Send initialize again."
      }
    }
    "#);
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string();
    let note = app.post(&server.path(), note).header("mcp-session-id", &session).send().await;
    assert_eq!(note.status, 404, "a notification for an expired session");
    app.finish().await;
}

#[tokio::test]
async fn a_session_determines_the_revision() {
    let app = App::new().await;
    let server = set_up(&app).await;
    let client = server.legacy("2025-11-25").connect().await;
    let batch = json!([{ "jsonrpc": "2.0", "id": 1, "method": "ping" }]).to_string();
    let post = app.post(&server.path(), batch).header("mcp-session-id", &client.session.clone().unwrap());
    assert_eq!(
        post.send().await.status_and_code(),
        (400, -32_600),
        "2025-11-25 has no batches, with or without the header"
    );
    client.call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.ok();
    let row = "SELECT client_name || ' ' || client_version || ' ' || protocol_version FROM client_sessions";
    assert_eq!(app.query_lines(row).await, "tester 1.2 2025-11-25");
    app.finish().await;
}

#[tokio::test]
async fn a_session_is_ignored_in_2026_07_28() {
    let app = App::new().await;
    let server = set_up(&app).await;
    let legacy = server.legacy("2025-06-18").connect().await;
    legacy.call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.ok();
    let mut modern = server.modern();
    modern.session = legacy.session.clone();
    assert_eq!(modern.call("next_walkthrough_step", json!({})).await.error_code(), "no_active_walkthrough");
    modern.session = Some("nonsense".to_owned());
    modern.call("list_walkthroughs", json!({})).await.ok();
    app.finish().await;
}

async fn client_names_are_sanitised_and_truncated(app: App) {
    let server = set_up(&app).await;
    let info = json!({ "name": format!("a\u{0}b\n{}", "é".repeat(500)), "version": "1\u{0}" });
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info });
    let legacy = server.legacy("2025-06-18");
    let session = legacy.send("initialize", params).await.header("mcp-session-id").unwrap().to_owned();
    let legacy = Client { session: Some(session), ..legacy };
    legacy.call("select_walkthrough", json!({ "walkthrough_id": INSTALL })).await.ok();
    legacy.call("list_walkthroughs", json!({})).await.ok();
    let mut meta = crate::client::request_meta();
    meta["io.modelcontextprotocol/clientInfo"] = info;
    let params = json!({ "name": "select_walkthrough", "arguments": { "walkthrough_id": INSTALL }, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let post = app.post(&server.path(), body).modern("tools/call", Some("select_walkthrough"));
    assert!(post.send().await.result()["structuredContent"]["step"].is_object());
    app.count_call();
    app.stop().await;
    let clean = "SELECT count(*) FROM client_sessions WHERE client_name LIKE 'a b é%' AND length(client_name) <= 64";
    assert_eq!(app.count(clean).await, 2);
    assert_eq!(app.count("SELECT count(*) FROM tool_calls WHERE client_name LIKE 'a b é%'").await, 3);
    app.finish().await;
}
