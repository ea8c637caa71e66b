//! Rejected calls (401, 403, 413, 429) are counted by server and reason in the API, on the analytics page and in the
//! metrics.

use http::Method;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use waypost_core::organization::Role;
use waypost_mcp::limits::LimitOptions;

use crate::app::{App, Setup, open};
use crate::console::{ConsoleBrowser, call_with_key};
use crate::sign_in::{create_sign_in_server, start_walkthrough};

waypost_testkit::both!(extended open => rejected_calls_are_counted_by_server_and_reason);

/// Returns server name, reason and count of each row.
async fn list_rejected_calls(app: &App, org: &crate::app::Org, query: &str) -> Vec<(String, String, i64)> {
    let path = format!("/analytics/rejected-calls{query}");
    let response = call_with_key(org, Role::Member, Method::GET, &path, None).await;
    response.assert_status(200);
    let text = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let items = response.json()["items"].as_array().unwrap().clone();
    assert!(app.count("SELECT count(*) FROM tool_calls").await == 0, "no call reached a tool");
    items
        .iter()
        .map(|item| (text(item, "server_name"), text(item, "reason"), item["count"].as_i64().unwrap()))
        .collect()
}

async fn rejected_calls_are_counted_by_server_and_reason(app: App) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let server = create_sign_in_server(&app, "acme").await;
    let other = server.org.server("open").await;
    create_sign_in_server(&app, "foreign").await;
    // Calls within one minute are counted in one row.
    for _ in 0..2 {
        assert_eq!(start_walkthrough(&server, None).await.status, 401);
        assert_eq!(start_walkthrough(&server, Some("wpa_wrong")).await.status, 401);
        app.advance_clock(60_000).await;
    }
    let evil = other.modern().request("tools/list", json!({})).header("origin", "https://evil.example").send().await;
    assert_eq!(evil.status, 403);
    let large = app.post(&other.path(), vec![b' '; 1_048_577]).send().await;
    assert_eq!(large.status, 413);
    while app.count("SELECT CAST(COALESCE(sum(count), 0) AS BIGINT) FROM refused_calls").await < 6 {
        tokio::task::yield_now().await;
    }
    let row = |server: &str, reason: &str, count| (server.to_owned(), reason.to_owned(), count);
    let all = [row("acme", "unauthorized", 4), row("open", "origin_not_allowed", 1), row("open", "too_large", 1)];
    assert_eq!(list_rejected_calls(&app, &server.org, "").await, all);
    assert_eq!(list_rejected_calls(&app, &server.org, &format!("?server_id={}", other.id)).await, all[1..]);
    let first = app.cx().now().plus(-120_000);
    let minute = format!("?from={}&to={}", first.rfc3339(), first.plus(1).rfc3339());
    assert_eq!(
        list_rejected_calls(&app, &server.org, &minute).await,
        [row("acme", "unauthorized", 2)],
        "one of two minutes"
    );
    let later = format!("?from={}&to={}", first.plus(86_400_000).rfc3339(), first.plus(86_400_001).rfc3339());
    assert_eq!(list_rejected_calls(&app, &server.org, &later).await, []);
    let csv = call_with_key(&server.org, Role::Member, Method::GET, "/analytics/rejected-calls?format=csv", None).await;
    csv.assert_contains("server_id,server_name,reason,count\r\n").assert_contains(",acme,unauthorized,4\r\n");

    let member = ConsoleBrowser::member(&server.org, "member@x.example", Role::Member).await;
    let page = member.get_page("/o/acme/analytics").await;
    page.assert_contains("Rejected calls")
        .assert_contains("<td>acme</td><td data-label=\"Reason\"><code>unauthorized</code></td><td data-label=\"Calls\" class=\"number\">4</td>");
    page.assert_lacks("No activity in this period");
    let export = member.get_page("/o/acme/analytics/export/rejected-calls?format=csv").await;
    export.assert_contains(",open,too_large,1\r\n");

    let text = metrics.render();
    for line in ["{reason=\"unauthorized\"} 4", "{reason=\"origin_not_allowed\"} 1", "{reason=\"too_large\"} 1"] {
        assert!(text.contains(&format!("waypost_rejected_calls_total{line}")), "{text}");
    }
    app.finish().await;
}

#[tokio::test]
async fn rate_limited_calls_are_counted() {
    let limits = LimitOptions { per_caller: 1, burst: 1, ..LimitOptions::OFF };
    let app = App::with(Setup { limits, ..Setup::default() }).await;
    let server = app.server("acme").await;
    let mut limited = 0;
    for _ in 0..1_000 {
        limited += i64::from(server.modern().request("tools/list", json!({})).send().await.status == 429);
        if limited == 2 {
            break;
        }
    }
    while app.count("SELECT CAST(COALESCE(sum(count), 0) AS BIGINT) FROM refused_calls").await < limited {
        tokio::task::yield_now().await;
    }
    let expected = ("acme".to_owned(), "rate_limited".to_owned(), 2);
    assert_eq!(list_rejected_calls(&app, &server.org, "").await, [expected]);
    app.finish().await;
}
