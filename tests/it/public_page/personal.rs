//! The personal URLs that the page generates: a visitor keeps theirs, it is nobody else's, and it is stored nowhere.

use http::Method;
use insta::assert_snapshot;
use serde_json::json;
use waypost_core::personal;
use waypost_core::server::Toolset;
use waypost_ops::end_users::{self, EndUserSearch};
use waypost_ops::servers::ServerSettings;

use super::{WALKTHROUGH, https_setup, page_cookie, page_request, set_up, shown_id};
use crate::app::{App, Setup, open};

waypost_testkit::both!(open => a_page_view_stores_nothing_and_progress_creates_the_user);

#[tokio::test]
async fn a_visitor_keeps_a_private_personal_url() {
    let (app, _server) = set_up(https_setup()).await;
    app.org("other").await.server("other").await;
    for (host, path) in [("way.example", "/s/acme"), ("acme.way.example", "/")] {
        let first = page_request(&app, host, path).send().await;
        let (id, cookie) = (shown_id(&first), page_cookie(&first));
        assert!(id.starts_with("pu_") && id.len() == 29, "26 characters for 128 bits: {id}");
        for again in [path.to_owned(), format!("{}/mcp", path.trim_end_matches('/'))] {
            let again = page_request(&app, host, &again).header("cookie", &cookie).send().await;
            assert_eq!(shown_id(&again), id, "the cookie's");
        }
        let other_visitor = page_request(&app, host, path).send().await;
        assert_ne!(shown_id(&other_visitor), id, "another visitor");
        let adopted = format!("{}/t/{id}/mcp", path.trim_end_matches('/'));
        let adopted = page_request(&app, host, &adopted).send().await;
        assert_ne!(shown_id(&adopted), id, "an ID in the URL is not adopted");
        assert!(!adopted.body.contains(&id));
        let label = page_request(&app, host, &format!("{}/t/customer-7/mcp", path.trim_end_matches('/'))).send().await;
        assert!(!label.body.contains("customer-7"));
    }
    let first = page_request(&app, "way.example", "/s/acme").send().await;
    let elsewhere = page_request(&app, "way.example", "/s/other").header("cookie", &page_cookie(&first)).send().await;
    assert_ne!(shown_id(&elsewhere), shown_id(&first), "a cookie counts for one server");
    app.finish().await;
}

#[tokio::test]
async fn the_cookie_is_limited_to_the_server() {
    let mut seen = String::new();
    for setup in [Setup::default(), https_setup()] {
        let host = if setup.public_url.starts_with("https") { "way.example" } else { "localhost" };
        let (app, _server) = set_up(setup).await;
        for (host, path) in
            [(host.to_owned(), "/s/acme"), (format!("acme.{host}"), "/"), (host.to_owned(), "/s/acme/mcp")]
        {
            let page = page_request(&app, &host, path).send().await;
            assert_eq!(page.headers.get_all("set-cookie").iter().count(), 1);
            let (name, rest) = page.header("set-cookie").unwrap().split_once('=').unwrap();
            let (_, attributes) = rest.split_once(';').unwrap();
            seen.push_str(&format!("{host:16} {path:12} {name} {attributes}\n"));
        }
        app.finish().await;
    }
    assert_snapshot!(seen, @r"
    localhost        /s/acme      wp_personal  HttpOnly; SameSite=Lax; Path=/s/acme; Max-Age=31536000
    acme.localhost   /            wp_personal  HttpOnly; SameSite=Lax; Path=/; Max-Age=31536000
    localhost        /s/acme/mcp  wp_personal  HttpOnly; SameSite=Lax; Path=/s/acme; Max-Age=31536000
    way.example      /s/acme      __Secure-wp_personal  HttpOnly; SameSite=Lax; Secure; Path=/s/acme; Max-Age=31536000
    acme.way.example /            __Host-wp_personal  HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=31536000
    way.example      /s/acme/mcp  __Secure-wp_personal  HttpOnly; SameSite=Lax; Secure; Path=/s/acme; Max-Age=31536000
    ");
}

#[tokio::test]
async fn forged_cookies_are_ignored() {
    let (app, server) = set_up(Setup::default()).await;
    let page = page_request(&app, "localhost", "/s/acme").send().await;
    let (own, value) = (shown_id(&page), page_cookie(&page));
    let (name, value) = value.split_once('=').unwrap();
    let signature = value.split_once('.').unwrap().1;
    server.personal("customer-7").call("select_walkthrough", json!({ "walkthrough_id": WALKTHROUGH })).await.ok();
    for forged in [
        "customer-7".to_owned(),
        format!("customer-7.{signature}"),
        own.clone(),
        format!("{own}."),
        format!("{own}.{}", "A".repeat(43)),
        format!("pu_{}.{signature}", "0".repeat(26)),
        "<script>alert(1)</script>".to_owned(),
        "x".repeat(5_000),
        String::new(),
        // Two of one name: at least one of them was not set by this page.
        format!("{value}; {name}={value}"),
    ] {
        let page =
            page_request(&app, "localhost", "/s/acme").header("cookie", &format!("{name}={forged}")).send().await;
        let new = shown_id(&page);
        assert!(new.starts_with("pu_") && new != own && !new.contains(&"0".repeat(26)), "{forged}: {new}");
        for text in ["customer-7", "alert(1)", "xxxx"] {
            assert!(!page.body.contains(text), "{forged}");
        }
    }
    app.finish().await;
}

async fn a_page_view_stores_nothing_and_progress_creates_the_user(app: App) {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Configure", "Run", "Check"]).await;
    let page = page_request(&app, "localhost", "/s/acme").send().await;
    page_request(&app, "localhost", "/s/acme/mcp").send().await;
    for table in ["end_users", "client_sessions", "tool_calls", "audit_events"] {
        let count = match table {
            "end_users" => app.count("SELECT count(*) FROM end_users").await,
            "client_sessions" => app.count("SELECT count(*) FROM client_sessions").await,
            "tool_calls" => app.count("SELECT count(*) FROM tool_calls").await,
            _ => app.count("SELECT count(*) FROM audit_events WHERE target LIKE 'eu_%'").await,
        };
        assert_eq!(count, 0, "{table}");
    }
    let id = shown_id(&page);
    let first = server.personal(&id);
    first.call("select_walkthrough", json!({ "walkthrough_id": WALKTHROUGH })).await.ok();
    for _ in 0..3 {
        first.call("next_walkthrough_step", json!({})).await.ok();
    }
    let second = server.personal(&id).at_host("acme.localhost", &format!("/t/{id}/mcp"));
    let again = second.call("select_walkthrough", json!({ "walkthrough_id": WALKTHROUGH })).await;
    assert_eq!(again.progress(), "4/4 75 %", "a new client continues at step four");
    assert_eq!(app.count("SELECT count(*) FROM end_users").await, 1);
    // The stored form opens nothing: it is no tracking ID, and as text it is nobody's.
    let hash = personal::stored(&id).into_owned();
    let guess = app.post(&format!("/s/acme/t/{hash}/mcp"), "{}").send().await;
    assert_eq!(guess.status, 404);
    let bare = server.personal(hash.strip_prefix(personal::STORED_PREFIX).unwrap());
    let other = bare.call("get_walkthrough_status", json!({ "walkthrough_id": WALKTHROUGH })).await;
    assert_eq!(other.ok()["progress"]["status"], "not_started");
    app.finish().await;
}

#[tokio::test]
async fn a_personal_id_is_masked_everywhere() {
    let folder = waypost_testkit::folder();
    let app = App::open_at(&waypost_testkit::sqlite_url(&folder)).await;
    let org = app.org("acme").await;
    let server =
        org.server_with("acme", ServerSettings { toolset: Some(Toolset::All), ..ServerSettings::default() }).await;
    server.walkthrough("Install Acme", &["Download", "Run"]).await;
    let page = page_request(&app, "localhost", "/s/acme").send().await;
    let (id, cookie) = (shown_id(&page), page_cookie(&page));
    let hash = personal::stored(&id).into_owned();
    let owner = crate::console::ConsoleBrowser::owner(&org).await;
    let receiver = json!({ "url": "https://example.com/hook", "events": ["walkthrough.completed"] });
    owner.api(Method::POST, "/webhooks", Some(receiver)).await.assert_status(201);
    app.refresh().await;
    let user = server.personal(&id);
    user.call("select_walkthrough", json!({ "walkthrough_id": WALKTHROUGH })).await.ok();
    user.call("next_walkthrough_step", json!({})).await.ok();
    user.call("next_walkthrough_step", json!({})).await.ok();
    let payload = app.query_lines("SELECT payload FROM webhook_deliveries").await;
    assert!(payload.contains(&hash) && !payload.contains(&id), "{payload}");
    let end_user =
        owner.api(Method::GET, "/end-users", None).await.json()["items"][0]["id"].as_str().unwrap().to_owned();
    let mut seen = Vec::new();
    for path in [
        "/end-users".to_owned(),
        format!("/end-users/{end_user}"),
        format!("/end-users/{end_user}/export"),
        format!("/end-users/{end_user}/timeline"),
        "/sessions".to_owned(),
        "/tool-calls".to_owned(),
        "/events".to_owned(),
        "/audit-events".to_owned(),
        // The user may send the ID to the organisation: it finds them by it.
        format!("/end-users?q={id}"),
    ] {
        let response = owner.api(Method::GET, &path, None).await;
        assert!(!response.body.contains(&id), "{path}: {}", response.body);
        seen.push((path, response.status.as_u16(), response.body.contains(&hash)));
    }
    assert!(seen[0].2 && seen[1].2 && seen[2].2 && seen[8].2, "the hash is shown in its place: {seen:?}");
    for path in ["/o/acme/end-users".to_owned(), format!("/o/acme/end-users/{end_user}")] {
        owner.get_page(&path).await.assert_lacks(&id).assert_contains("Personal URL ");
    }
    let search = EndUserSearch { text: Some(id.clone()), limit: 10, ..EndUserSearch::default() };
    let found = end_users::list(app.cx(), &app.ops(), &org.id, &search).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(end_users::resolve(app.cx(), &app.ops(), &org.id, &id).await.is_ok(), "the command line finds them, too");
    app.stop().await;
    app.finish().await;
    let secrets = [id.trim_start_matches(personal::PREFIX).to_owned(), cookie.split_once('.').unwrap().1.to_owned()];
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for secret in &secrets {
            let is_stored = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_stored, "{secret} is stored in {}", path.display());
        }
    }
}
