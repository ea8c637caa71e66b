//! The page of the call log, and the parts of other pages that are based on it.

use axum::body::Body;
use http::{Request, header};
use serde_json::json;
use waypost_core::Timestamp;
use waypost_core::organization::Role;

use super::ConsoleBrowser;
use crate::gateway::{Stage, wait_for_calls};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_filtered_and_followed() {
    let stage = Stage::new().await.ready().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    let (agent, instance) = (stage.agent.to_string(), stage.instance.clone());
    owner
        .get_page("/o/acme/calls")
        .await
        .assert_contains("No calls.")
        .assert_contains("data-live=\"/o/acme/calls/rows\"");
    stage.call("search__find", json!({ "query": "secret-value" })).await;
    stage.call("search__<unknown>", json!({})).await;
    wait_for_calls(&stage.api.app, 2).await;
    let rows = owner.get("/o/acme/calls/rows").await;
    rows.assert_contains(">find</bdi>").assert_contains("query: string").assert_contains("badge good\">OK");
    rows.assert_contains("search__&#60;unknown&#62;")
        .assert_contains("unknown instance")
        .assert_contains("badge warn\">Denied");
    rows.assert_lacks("secret-value").assert_lacks("<html");
    let request = Request::get("/o/acme/calls/rows").header(header::IF_NONE_MATCH, rows.header("etag"));
    let unchanged = owner.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.as_str()), (304, ""));
    for (query, finds, denies) in [
        (format!("agent={agent}"), true, true),
        ("agent=agt_0123456789abcdef".to_owned(), false, false),
        (format!("instance={instance}"), true, false),
        ("tool=find".to_owned(), true, false),
        ("tool=fin".to_owned(), false, false),
        ("outcome=denied".to_owned(), false, true),
        ("from=2999-01-01".to_owned(), false, false),
        ("to=2001-01-01".to_owned(), false, false),
        ("live=off".to_owned(), true, true),
    ] {
        for path in ["calls", "calls/rows"] {
            let shown = owner.get(&format!("/o/acme/{path}?{query}")).await;
            let found = [">find</bdi>", "badge warn\">Denied"].map(|text| shown.body.contains(text));
            assert_eq!((shown.status.as_u16(), found), (200, [finds, denies]), "{path} {query}");
        }
    }
    owner.get("/o/acme/calls?live=off").await.assert_lacks("data-live").assert_contains(">Follow</a>");
    for (query, field) in [("agent=x", "agent"), ("outcome=x", "outcome"), ("from=x", "from"), ("to=x", "to")] {
        let rejected = owner.get(&format!("/o/acme/calls?{query}")).await;
        rejected.assert_status(422).assert_contains(&format!("id=\"e-{field}\"")).assert_lacks("data-live");
    }
    owner.get_page("/o/acme/calls?before=x").await.assert_contains(">find</bdi>");
    owner.get("/o/acme/calls?tool=a%00").await.assert_status(422).assert_contains("id=\"e-tool\"");
    for path in [format!("agents/{agent}"), format!("instances/{instance}")] {
        owner.get_page(&format!("/o/acme/{path}")).await.assert_contains("Recent calls").assert_contains(">find</bdi>");
    }
    // The denied call belongs to no instance.
    let connections = owner.get_page("/o/acme/connections").await;
    connections.assert_contains("data-live=\"/o/acme/connections/rows\"");
    for connections in [connections, owner.get_page("/o/acme/connections/rows").await] {
        connections.assert_contains("<bdi>ci</bdi>").assert_contains(">search</a>").assert_contains("<bdi>rack</bdi>");
        let href = format!("calls?agent={agent}&#38;instance={instance}\">1</a>");
        connections.assert_contains(&href).assert_contains("class=\"number\">0</td>").assert_lacks("deleted (");
    }
    let member = ConsoleBrowser::member(&stage.api.org, "member@example.com", Role::Member).await;
    for path in ["calls", "calls/rows", "connections", "connections/rows"] {
        member.get(&format!("/o/acme/{path}")).await.assert_status(403).assert_lacks(">find</bdi>");
    }
    member.get_page(&format!("/o/acme/instances/{instance}")).await.assert_lacks("Recent calls");
    // After an hour, the agent is no longer shown as connected.
    stage.api.app.advance_clock(3_600_001).await;
    owner
        .get_page("/o/acme/connections")
        .await
        .assert_contains("No calls in the last hour")
        .assert_lacks("<bdi>ci</bdi>");
    drop((owner, member));
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_calls_are_on_further_pages() {
    let stage = Stage::new().await.ready().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    for number in 0..51 {
        stage.call(&format!("search__unknown-{number:02}"), json!({})).await;
    }
    wait_for_calls(&stage.api.app, 51).await;
    let first = owner.get_page("/o/acme/calls?outcome=denied").await;
    let older = first.body.split("href=\"").find(|part| part.contains("Older calls")).unwrap();
    let older = older.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&");
    let last = owner.get_page(&older).await;
    assert_eq!([&first, &last].map(|page| page.body.matches("badge warn\">Denied").count()), [50, 1], "{older}");
    last.assert_lacks("data-live").assert_lacks("Older calls").assert_contains("href=\"/o/acme/calls?outcome=denied\"");
    drop(owner);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_says_when_the_agent_has_connected() {
    let stage = Stage::new().await;
    let owner = ConsoleBrowser::owner(&stage.api.org).await;
    let page = format!("/o/acme/agents/{}", stage.agent);
    let status_path = |body: &str| {
        let path = body.split("data-live=\"").nth(1).unwrap().split('"').next().unwrap();
        path.replace("&#38;", "&").replace("&amp;", "&")
    };
    let connect = owner.get_page(&format!("{page}/connect")).await;
    connect.assert_contains("badge\">waiting");
    let status = status_path(&connect.body);
    owner.get(&status).await.assert_contains("badge\">waiting");
    stage.tools().await;
    let seen = || async { stage.api.get(&format!("/agents/{}", stage.agent)).await["last_seen_at"].clone() };
    let recorded = async {
        while seen().await.is_null() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), recorded).await.unwrap();
    owner.get(&status).await.assert_contains("badge good\">connected");
    // A new token has not been used, although the agent has just been seen.
    let created = owner.post(&format!("{page}/tokens"), &[("token_name", "laptop"), ("expires_on", "")]).await;
    created.assert_contains("badge\">waiting");
    let of_token = status_path(&created.body);
    let token = created.body.split("<code>wpa_").nth(1).unwrap().split('<').next().unwrap();
    owner.get(&of_token).await.assert_contains("badge\">waiting");
    let ping = r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#;
    let (code, text) = stage.send("/gateway/mcp", Some(&format!("wpa_{token}")), &[], ping).await;
    assert_eq!(code, 200, "{text}");
    let connected = async {
        while !owner.get(&of_token).await.body.contains("badge good\">connected") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), connected).await.unwrap();
    // Later, only a new request counts.
    stage.api.app.advance_clock(120_000).await;
    owner.get_page(&format!("{page}/connect")).await.assert_contains("badge\">waiting");
    assert!(Timestamp::from_rfc3339(seen().await.as_str().unwrap()).is_some());
    owner.post(&format!("{page}/disable"), &[]).await.assert_redirect(&page);
    owner.get(&status).await.assert_contains("badge bad\">disabled");
    owner.get(&format!("{page}/connect/status?since=9&token=x")).await.assert_status(200);
    drop(owner);
    stage.finish().await;
}
