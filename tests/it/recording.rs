//! The record of each call.

use http::Method;
use insta::{allow_duplicates, assert_snapshot};
use serde_json::json;
use waypost_core::organization::Role;
use waypost_core::server::Toolset;
use waypost_ops::servers::ServerSettings;

use crate::app::{App, open};
use crate::console::{ConsoleBrowser, call_with_key};

waypost_testkit::both!(extended open =>
    each_call_is_recorded,
    an_advance_is_recorded_in_the_same_transaction,
    anonymous_calls_beyond_the_first_are_only_counted,
);

const SLUG: &str = "install-acme";

async fn each_call_is_recorded(app: App) {
    let settings = ServerSettings { toolset: Some(Toolset::All), ..ServerSettings::default() };
    let server = app.org("acme").await.server_with("acme", settings).await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    let mut user = server.modern();
    user.play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    let mut calls = vec![
        ("list_walkthroughs", json!({ "query": "q".repeat(300) }), true),
        ("get_walkthrough_status", json!({ "walkthrough_id": SLUG }), true),
        ("next_walkthrough_step", json!({ "walkthrough_id": SLUG }), true),
        ("next_walkthrough_step", json!({ "current_step_id": "ws_0" }), false),
        ("select_walkthrough", json!({ "walkthrough_id": "no-such" }), false),
        ("select_walkthrough", json!({ "walkthrough_id": SLUG, "secret": "hunter2" }), false),
        ("select_walkthrough", json!({ "walkthrough_id": { "a": "hunter2" } }), false),
        ("reset_walkthrough_progress", json!({ "walkthrough_id": SLUG, "confirm": true }), true),
    ];
    for (tool, arguments, good) in calls.drain(..) {
        app.advance_clock(1_000).await;
        assert_eq!(user.call(tool, arguments).await.structured["error"].is_null(), good, "{tool}");
    }
    app.advance_clock(1_000).await;
    server
        .legacy("2025-06-18")
        .call("list_walkthroughs", json!({ "progress_handle": "wph_hunter2" }))
        .await
        .error_code();
    app.stop().await;
    const ROWS: &str = "SELECT tool || ' ' || arguments || ' ' || outcome || ' ' || (end_user_id IS NOT NULL) || ' ' ||
        coalesce(client_name, '-') || ' ' || protocol_version FROM tool_calls ORDER BY created_at, id";
    let rows = app.query_lines(ROWS).await.replace(" true ", " 1 ").replace(" false ", " 0 ");
    assert!(!rows.contains("wph") && !rows.contains("hunter2"), "{rows}");
    allow_duplicates! { assert_snapshot!(rows, @r#"
    select_walkthrough {"walkthrough_id":"install-acme"} ok 1 tester 2026-07-28
    list_walkthroughs {"query":"qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq","progress_handle":"…"} ok 1 tester 2026-07-28
    get_walkthrough_status {"walkthrough_id":"install-acme","progress_handle":"…"} ok 1 tester 2026-07-28
    next_walkthrough_step {"walkthrough_id":"install-acme","progress_handle":"…"} ok 1 tester 2026-07-28
    next_walkthrough_step {"current_step_id":"ws_0","progress_handle":"…"} step_mismatch 1 tester 2026-07-28
    select_walkthrough {"walkthrough_id":"no-such","progress_handle":"…"} walkthrough_not_found 1 tester 2026-07-28
    select_walkthrough {"walkthrough_id":"install-acme","progress_handle":"…"} invalid_arguments 1 tester 2026-07-28
    select_walkthrough {"walkthrough_id":"(not a plain value)","progress_handle":"…"} invalid_arguments 1 tester 2026-07-28
    reset_walkthrough_progress {"walkthrough_id":"install-acme","confirm":true,"progress_handle":"…"} ok 1 tester 2026-07-28
    list_walkthroughs {"progress_handle":"…"} handle_unknown 0 - 2025-06-18
    "#) }
    assert_eq!(app.count("SELECT count(*) FROM tool_calls WHERE duration_us <= 0").await, 0);
    assert_eq!(
        app.count("SELECT count(DISTINCT request_id) FROM tool_calls").await,
        10,
        "each row has the ID of its request"
    );
    const EVENTS: &str = "SELECT kind FROM walkthrough_events ORDER BY created_at, id";
    assert_eq!(app.query_lines(EVENTS).await, "started\nstep_completed\nreset");
    app.finish().await;
}

async fn an_advance_is_recorded_in_the_same_transaction(app: App) {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    let mut user = server.modern();
    for (tool, rows) in [("select_walkthrough", 1), ("next_walkthrough_step", 2), ("next_walkthrough_step", 3)] {
        user.play(tool, json!({ "walkthrough_id": SLUG })).await.ok();
        let recorded = app.count("SELECT count(*) FROM tool_calls WHERE outcome = 'ok'").await;
        assert_eq!(recorded, rows, "the row is written before the response");
    }
    assert_eq!(app.count("SELECT count(*) FROM step_completions").await, 2);
    assert_eq!(app.count("SELECT count(*) FROM walkthrough_events").await, 4);
    app.finish().await;
}

async fn anonymous_calls_beyond_the_first_are_only_counted(app: App) {
    const COUNTED: &str = "SELECT CAST(COALESCE(sum(count), 0) AS BIGINT) FROM counted_calls";
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    for n in 0..50 {
        server.personal(&format!("made-up-{n}")).call("list_walkthroughs", json!({})).await.ok();
        let unknown = json!({ "progress_handle": format!("wph_{n}") });
        assert_eq!(server.modern().call("list_walkthroughs", unknown).await.error_code(), "handle_unknown");
    }
    server.modern().play("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    while app.count("SELECT count(*) FROM tool_calls").await + app.count(COUNTED).await < 101 {
        tokio::task::yield_now().await;
    }
    assert_eq!((app.count("SELECT count(*) FROM tool_calls").await, app.count(COUNTED).await), (61, 40));
    // A time range excludes its end.
    app.advance_clock(1).await;
    let get = async |path: &str| call_with_key(&server.org, Role::Member, Method::GET, path, None).await.json();
    let tools = get("/analytics/tools").await;
    let numbers = |n: usize| [&tools["items"][n]["tool"], &tools["items"][n]["calls"], &tools["items"][n]["errors"]];
    assert_eq!(numbers(0), [&json!("list_walkthroughs"), &json!(100), &json!(50)]);
    assert_eq!(numbers(1), [&json!("select_walkthrough"), &json!(1), &json!(0)]);
    let errors = get("/analytics/errors").await;
    assert_eq!(errors["items"][0]["count"], 50, "{errors}");
    let listed = get("/tool-calls?limit=100").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 61);
    let member = ConsoleBrowser::member(&server.org, "member@x.example", Role::Member).await;
    member.get_page("/o/acme/servers").await.assert_contains("<dd>101</dd>");
    app.finish().await;
}

#[tokio::test]
async fn calls_that_reach_no_tool_are_not_recorded() {
    let app = App::new().await;
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    server.modern().send("tools/call", json!({ "name": "no_such_tool" })).await;
    server.modern().send("tools/list", json!({})).await;
    server.modern().request("tools/call", json!({ "name": "list_walkthroughs" })).without("mcp-name").send().await;
    app.post(&server.path(), "{").send().await;
    app.stop().await;
    assert_eq!(app.count("SELECT count(*) FROM tool_calls").await, 0);
    app.finish().await;
}
