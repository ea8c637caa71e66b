//! "Try it": calls from the console are marked as tests and not counted. Only the console can mark calls.

use http::Method;
use serde_json::{Value, json};
use waypost_core::organization::Role;
use waypost_core::webhook::WebhookEvent;
use waypost_ops::webhooks::{self, NewWebhook};

use super::{ConsoleBrowser, ConsoleResponse, call_with_key};
use crate::app::{App, Org, Server, open};
use crate::client::Client;

waypost_testkit::both!(extended open => test_calls_are_not_counted, only_the_console_can_mark_test_calls);

const SLUG: &str = "install-acme";

async fn list_items(org: &Org, path: &str) -> Vec<Value> {
    let response = call_with_key(org, Role::Member, Method::GET, path, None).await;
    response.assert_status(200);
    response.json()["items"].as_array().unwrap().clone()
}

/// Returns the path of the MCP client in the page.
fn mcp_path(page: &ConsoleResponse) -> String {
    let (_, rest) = page.body.split_once("data-path=\"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

async fn set_up(app: &App) -> (Server, ConsoleBrowser, String) {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    let browser = ConsoleBrowser::member(&server.org, "member@x.example", Role::Member).await;
    let page = browser.get_page(&format!("/o/acme/servers/{}/try", server.id)).await;
    page.assert_contains("marked as tests").assert_contains("Start over");
    let path = mcp_path(&page);
    (server, browser, path)
}

async fn test_calls_are_not_counted(app: App) {
    let (server, browser, path) = set_up(&app).await;
    let walkthrough = server.org.walkthrough("Install Acme", &["Download", "Run"]).await;
    let events = vec![WebhookEvent::WalkthroughCompleted];
    let webhook = NewWebhook { url: "https://hook.example/".to_owned(), description: String::new(), events };
    webhooks::create(app.cx(), &app.ops(), &server.org.id, &webhook).await.unwrap();
    app.refresh().await;
    let org = &server.org;

    let tester = Client::modern(&app, path.clone());
    tester.call("list_walkthroughs", json!({})).await.ok();
    tester.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    tester.call("next_walkthrough_step", json!({ "current_step_id": "ws_0" })).await.error_code();
    for _ in 0..2 {
        tester.call("next_walkthrough_step", json!({ "walkthrough_id": SLUG })).await.ok();
    }
    while app.count("SELECT count(*) FROM tool_calls WHERE is_test").await < 5 {
        tokio::task::yield_now().await;
    }
    app.advance_clock(1_000).await;
    assert_eq!(app.count("SELECT count(*) FROM tool_calls WHERE NOT is_test").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM webhook_deliveries").await, 0);
    for path in ["/events", "/tool-calls", "/sessions", "/end-users", "/analytics/tools", "/analytics/errors"] {
        assert_eq!(list_items(org, path).await, [] as [Value; 0], "{path}");
    }
    let walkthrough = format!("?walkthrough_id={}", walkthrough.id);
    let zero = json!([0, 0, 0]);
    let overview =
        call_with_key(org, Role::Member, Method::GET, "/analytics/overview", None).await.json()["current"].clone();
    assert_eq!(json!([overview["started"], overview["active"], overview["completed"]]), zero);
    let funnel =
        call_with_key(org, Role::Member, Method::GET, &format!("/analytics/funnel{walkthrough}"), None).await.json();
    assert_eq!(json!([funnel["started"], funnel["completed"], funnel["steps"][0]["reached"]]), zero);
    browser.get_page("/o/acme/analytics").await.assert_contains("No activity in this period");
    browser.get_page("/o/acme/end-users").await.assert_contains("No end users yet");

    // Calls of an end user are counted.
    server.personal("ann").call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await.ok();
    app.advance_clock(1_000).await;
    let overview =
        call_with_key(org, Role::Member, Method::GET, "/analytics/overview", None).await.json()["current"].clone();
    assert_eq!(json!([overview["started"], overview["active"], overview["completed"]]), json!([1, 1, 0]));

    // Test calls and test users are listed on request and are marked.
    let all = list_items(org, "/end-users?include_test=true").await;
    let test = all.iter().find(|end_user| end_user["is_test"] == true).unwrap();
    assert_eq!(all.len(), 2);
    let id = test["id"].as_str().unwrap();
    let calls = list_items(org, &format!("/tool-calls?end_user_id={id}")).await;
    assert_eq!((calls.len(), calls.iter().all(|call| call["is_test"] == true)), (4, true));
    browser.get_page(&format!("/o/acme/end-users/{id}")).await.assert_contains("<span class=\"badge\">Test</span>");
    browser.get_page("/o/acme/end-users?test=1").await.assert_contains("<span class=\"badge\">Test</span>");

    let reset = format!("/o/acme/servers/{}/try/reset", server.id);
    browser.post(&reset, &[]).await.assert_redirect(&format!("/o/acme/servers/{}/try", server.id));
    app.skip_call_check();
    app.advance_clock(2_000).await;
    assert_eq!(app.count("SELECT count(*) FROM end_users WHERE is_test").await, 0);
    let again = tester.call("select_walkthrough", json!({ "walkthrough_id": SLUG })).await;
    assert_eq!(again.progress(), "1/2 0%");
    app.finish().await;
}

async fn only_the_console_can_mark_test_calls(app: App) {
    let (server, browser, path) = set_up(&app).await;
    let other = server.org.server("other").await;
    let select = json!({ "walkthrough_id": SLUG });
    let id = path.split('/').nth(4).unwrap().to_owned();
    let (user, rest) = id.strip_prefix("test~").unwrap().split_once('~').unwrap();
    let (expires, signature) = rest.split_once('~').unwrap();
    let forged = [
        format!("test~{user}"),
        "test~".to_owned(),
        "test~~~".to_owned(),
        format!("test~usr_somebodyelse~{expires}~{signature}"),
        format!("test~{user}~9{expires}~{signature}"),
        format!("test~{user}~{expires}~{}A", &signature[..signature.len() - 1]),
        format!("{id}~x"),
    ];
    for id in &forged {
        let response = server.personal(id).request("tools/list", json!({})).send().await;
        assert_eq!(response.status, 404, "{id}");
    }
    assert_eq!(
        other.personal(&id).request("tools/list", json!({})).send().await.status,
        404,
        "the ID belongs to another server"
    );
    // The client name does not mark a call as a test, because any client can send it.
    server.personal("ann").call("select_walkthrough", select.clone()).await.ok();
    assert_eq!(app.count("SELECT count(*) FROM end_users WHERE is_test").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 1);
    Client::modern(&app, path.clone()).call("select_walkthrough", select).await.ok();
    assert_eq!(app.count("SELECT count(*) FROM end_users WHERE is_test").await, 1);
    app.advance_clock(12 * 3_600_000).await;
    let late = Client::modern(&app, path).request("tools/list", json!({})).send().await;
    assert_eq!(late.status, 404, "the link expires after 12 hours");
    assert!(late.body.contains("Reload the "), "{}", late.body);
    drop(browser);
    app.finish().await;
}
