//! Calls, including failed ones, are recorded with their end user and session. The sessions of all end users are
//! listed.

use http::Method;
use serde_json::{Value, json};
use waypost_core::organization::Role;

use crate::app::{App, Org, Server, open};
use crate::console::call_with_key;
use crate::sign_in::{EndUserBrowser, OauthClient, call_tool, create_sign_in_server};

waypost_testkit::both!(extended open =>
    a_legacy_client_has_one_session_from_its_first_call,
    users_with_a_personal_url_have_sessions,
    users_with_a_token_have_sessions,
    failed_calls_are_attributed_to_their_user,
);

const SLUG: &str = "install-acme";

async fn set_up(app: &App) -> Server {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run", "Check"]).await;
    server
}

/// Waits until `calls` calls are recorded, then returns the API's list `name`, oldest first.
async fn wait_and_list(org: &Org, name: &str, calls: i64) -> Vec<Value> {
    while org.app.count("SELECT count(*) FROM tool_calls").await < calls {
        tokio::task::yield_now().await;
    }
    let response = call_with_key(org, Role::Member, Method::GET, &format!("/{name}"), None).await;
    response.assert_status(200);
    let mut items = response.json()["items"].as_array().unwrap().clone();
    items.reverse();
    items
}

fn string_members<'a>(items: &'a [Value], name: &str) -> Vec<&'a str> {
    items.iter().map(|item| item[name].as_str().unwrap_or("-")).collect()
}

async fn a_legacy_client_has_one_session_from_its_first_call(app: App) {
    let server = set_up(&app).await;
    let client = server.legacy("2025-06-18").connect().await;
    client.call("list_walkthroughs", json!({})).await.ok();
    for tool in ["select_walkthrough", "next_walkthrough_step", "get_walkthrough_status"] {
        app.advance_clock(1_000).await;
        client.call(tool, json!({ "walkthrough_id": SLUG })).await.ok();
    }
    app.advance_clock(1_000).await;
    client.call("next_walkthrough_step", json!({ "current_step_id": "ws_0" })).await.error_code();
    app.advance_clock(1_000).await;
    let other = server.legacy("2025-06-18").connect().await;
    other.call("list_walkthroughs", json!({})).await.ok();
    app.advance_clock(1_000).await;
    server.modern().call("list_walkthroughs", json!({})).await.ok();

    let (calls, sessions) =
        (wait_and_list(&server.org, "tool-calls", 7).await, wait_and_list(&server.org, "sessions", 7).await);
    assert_eq!(sessions.len(), 1, "only users have listed sessions: {sessions:?}");
    let (id, user) = (sessions[0]["id"].as_str().unwrap(), sessions[0]["end_user_id"].as_str().unwrap());
    let of_call = string_members(&calls, "session_id");
    assert_eq!(of_call[..5], [id; 5], "the first call, the progress, the read call and the error");
    assert_eq!(string_members(&calls, "end_user_id"), ["-", user, user, user, user, "-", "-"]);
    assert!(of_call[5].starts_with("ses_") && of_call[5] != id, "another protocol session");
    assert_eq!(of_call[6], "-", "a modern client has no session before its user is identified");
    app.finish().await;
}

async fn users_with_a_personal_url_have_sessions(app: App) {
    let server = set_up(&app).await;
    let select = json!({ "walkthrough_id": SLUG });
    // One 2026-07-28 client in two processes, then two 2025-06-18 clients.
    for _ in 0..2 {
        server.personal("ann").call("select_walkthrough", select.clone()).await.ok();
        app.advance_clock(61_000).await;
    }
    let personal = |revision| {
        let mut client = server.legacy(revision);
        client.path = format!("/s/{}/t/ann/mcp", server.slug);
        client
    };
    for _ in 0..2 {
        let client = personal("2025-06-18").connect().await;
        client.call("get_walkthrough_status", select.clone()).await.ok();
        app.advance_clock(1_000).await;
        client.call("next_walkthrough_step", select.clone()).await.ok();
        app.advance_clock(1_000).await;
    }
    let (calls, sessions) =
        (wait_and_list(&server.org, "tool-calls", 6).await, wait_and_list(&server.org, "sessions", 6).await);
    let ids = string_members(&sessions, "id");
    assert_eq!(ids.len(), 3, "{sessions:?}");
    assert_eq!(string_members(&calls, "session_id"), [ids[0], ids[0], ids[1], ids[1], ids[2], ids[2]]);
    assert_eq!(string_members(&sessions, "client_name"), ["tester"; 3]);
    assert_ne!(sessions[0]["created_at"], sessions[0]["last_used_at"], "the second use is recorded");
    assert_eq!(app.count("SELECT count(DISTINCT end_user_id) FROM client_sessions").await, 1);
    assert_eq!(app.count("SELECT count(*) FROM client_sessions WHERE handle_hash IS NOT NULL").await, 0);
    app.finish().await;
}

async fn users_with_a_token_have_sessions(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, user) = EndUserBrowser::signed_in(&server, "anna").await;
    let token = client.get_tokens(&browser).await.access;
    for (tool, status) in [("select_walkthrough", 200), ("next_walkthrough_step", 200)] {
        let response = call_tool(&server, Some(&token), tool, json!({ "walkthrough_id": SLUG })).await;
        assert_eq!(response.status.as_u16(), status);
        app.advance_clock(1_000).await;
    }
    call_tool(&server, Some(&token), "select_walkthrough", json!({ "walkthrough_id": "no-such" })).await;
    let (calls, sessions) =
        (wait_and_list(&server.org, "tool-calls", 3).await, wait_and_list(&server.org, "sessions", 3).await);
    assert_eq!(string_members(&sessions, "end_user_id"), [user.as_str()]);
    assert_eq!(string_members(&calls, "session_id"), [sessions[0]["id"].as_str().unwrap(); 3]);
    assert_eq!(string_members(&calls, "end_user_id"), [user.as_str(); 3]);
    app.finish().await;
}

async fn failed_calls_are_attributed_to_their_user(app: App) {
    let server = set_up(&app).await;
    let mut by_handle = server.modern();
    by_handle.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    let by_session = server.legacy("2025-06-18").connect().await;
    by_session.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    let by_url = server.personal("ann");
    by_url.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    let failures = [
        ("select_walkthrough", json!({ "walkthrough_id": "no-such" }), "walkthrough_not_found"),
        ("select_walkthrough", json!({ "walkthrough_id": 7 }), "invalid_arguments"),
        ("next_walkthrough_step", json!({ "current_step_id": "ws_0" }), "step_mismatch"),
        ("get_current_step", json!({ "walkthrough_id": SLUG }), "walkthrough_not_found"),
        ("reset_walkthrough_progress", json!({ "walkthrough_id": SLUG, "confirm": false }), "confirmation_required"),
    ];
    for client in [&by_handle, &by_session, &by_url] {
        for (tool, arguments, code) in &failures {
            assert_eq!(client.call(tool, arguments.clone()).await.error_code(), *code);
        }
    }
    // Unknown callers remain unknown, and a failure creates no end user.
    for (client, arguments) in [
        (server.modern(), json!({ "walkthrough_id": "no-such", "progress_handle": "wph_nobody" })),
        (server.modern(), json!({ "walkthrough_id": "no-such", "progress_handle": "x".repeat(500) })),
        (server.personal("nobody"), json!({ "walkthrough_id": "no-such" })),
    ] {
        client.call("select_walkthrough", arguments).await.error_code();
    }
    app.stop().await;
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 3);
    assert_eq!(app.count("SELECT count(*) FROM client_sessions").await, 3);
    const FAILED: &str = "SELECT count(*) FROM tool_calls JOIN client_sessions ON client_sessions.id = session_id
        AND client_sessions.end_user_id = tool_calls.end_user_id WHERE outcome <> 'ok'";
    assert_eq!(app.count(FAILED).await, 15, "each row has its user and that user's session");
    assert_eq!(app.count("SELECT count(*) FROM tool_calls WHERE end_user_id IS NULL").await, 3);
    app.finish().await;
}
