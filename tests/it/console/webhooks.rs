//! Outgoing webhooks: payloads, signatures and retries.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::any;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use waypost::webhooks::WebhookSender;
use waypost_core::organization::Role;
use waypost_core::seal::SecretText;
use waypost_core::server::Support;
use waypost_core::webhook::sign;
use waypost_ops::servers::ServerSettings;

use super::ConsoleBrowser;
use crate::app::{App, DAY, Setup};

const MINUTE: i64 = 60_000;

/// A webhook receiver on loopback that records requests and returns a configured response.
struct Receiver {
    url: String,
    requests: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    status: Arc<Mutex<StatusCode>>,
    body: Arc<Mutex<String>>,
}

impl Receiver {
    async fn new() -> Self {
        let (requests, status) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(StatusCode::OK)));
        let body = Arc::new(Mutex::new("thanks".to_owned()));
        let (sink, status_source, text) = (Arc::clone(&requests), Arc::clone(&status), Arc::clone(&body));
        let handler = move |headers: HeaderMap, body: Bytes| async move {
            sink.lock().unwrap().push((headers, body));
            (*status_source.lock().unwrap(), text.lock().unwrap().clone())
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, Router::new().fallback(any(handler))).into_future());
        Self { url, requests, status, body }
    }

    fn set_status(&self, status: u16) {
        *self.status.lock().unwrap() = StatusCode::from_u16(status).unwrap();
    }

    fn take_requests(&self) -> Vec<(HeaderMap, Bytes)> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

async fn start_app() -> App {
    App::with(Setup { allow: vec!["127.0.0.0/8=webhooks".parse().unwrap()], ..Setup::default() }).await
}

fn worker(app: &App) -> WebhookSender {
    WebhookSender { cx: app.cx().clone(), ops: app.ops() }
}

async fn send_pending(app: &App) -> usize {
    worker(app).run_once().await.unwrap()
}

async fn create_webhook(owner: &ConsoleBrowser, url: &str, events: Value) -> (String, SecretText) {
    let created = owner.api(Method::POST, "/webhooks", Some(json!({ "url": url, "events": events }))).await;
    let created = created.assert_status(201).json();
    (created["id"].as_str().unwrap().to_owned(), SecretText::new(created["secret"].as_str().unwrap()))
}

#[tokio::test]
async fn a_delivery_is_signed_and_logged() {
    let app = start_app().await;
    let server = app
        .org("acme")
        .await
        .server_with("acme", ServerSettings { support: Some(Support::Tickets), ..ServerSettings::default() })
        .await;
    let owner = ConsoleBrowser::owner(&server.org).await;
    let receiver = Receiver::new().await;
    let events = json!([
        "ticket.created",
        "ticket.updated",
        "ticket.commented",
        "walkthrough.completed",
        "walkthrough.published"
    ]);
    let (id, secret) = create_webhook(&owner, &receiver.url, events).await;
    server.walkthrough("Install Acme", &["Download"]).await;
    let mut user = server.personal("ann");
    user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    user.play("next_walkthrough_step", json!({})).await.ok();
    let arguments = json!({ "title": "<!channel> =1", "problem": "P", "email": "a@b.de" });
    let ticket = user.call("get_support", arguments).await.ok()["ticket_id"].as_str().unwrap().to_owned();
    owner
        .api(Method::PATCH, &format!("/tickets/{ticket}"), Some(json!({ "priority": "high" })))
        .await
        .assert_status(200);
    owner
        .api(Method::POST, &format!("/tickets/{ticket}/comments"), Some(json!({ "body": "Hi" })))
        .await
        .assert_status(201);
    owner.api(Method::POST, &format!("/webhooks/{id}/test"), None).await.assert_status(201);
    // The reply to a pending ticket also moves it to "in progress".
    assert_eq!(send_pending(&app).await, 7);
    let requests = receiver.take_requests();
    let mut seen = Vec::new();
    for (headers, body) in &requests {
        let header = |name: &str| headers[name].to_str().unwrap();
        let seconds = app.cx().now().0 / 1_000;
        assert_eq!(header("webhook-timestamp"), seconds.to_string());
        assert_eq!(Some(header("webhook-signature").to_owned()), sign(&secret, header("webhook-id"), seconds, body));
        assert_eq!(header("content-type"), "application/json");
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["type", "timestamp", "text", "data"]);
        if body["type"] == "walkthrough.completed" {
            assert_eq!(body["data"]["end_user"]["tracking_id"], "ann");
            assert_eq!(body["data"]["walkthrough"]["slug"], "install-acme");
        }
        if body["type"] == "ticket.created" {
            assert_eq!(body["text"], "New ticket #1 of acme: &lt;!channel&gt; =1");
            assert_eq!(body["data"]["ticket"]["title"], "<!channel> =1");
        }
        seen.push(body["type"].as_str().unwrap().to_owned());
    }
    seen.sort();
    let expected = [
        "ticket.commented",
        "ticket.created",
        "ticket.updated",
        "ticket.updated",
        "walkthrough.completed",
        "walkthrough.published",
        "webhook.test",
    ];
    assert_eq!(seen, expected);
    let log =
        owner.api(Method::GET, &format!("/webhooks/{id}/deliveries?limit=4"), None).await.assert_status(200).json();
    assert_eq!(
        (&log["items"][0]["status"], &log["items"][0]["response_body"]),
        (&json!("delivered"), &json!("thanks"))
    );
    assert!(log["next_cursor"].is_string());
    owner.get_page(&format!("/o/acme/webhooks/{id}")).await.assert_contains("thanks").assert_contains("delivered");
    // A replay has the same ID.
    let first = log["items"][0]["id"].as_str().unwrap();
    owner.api(Method::POST, &format!("/webhook-deliveries/{first}/replay"), None).await.assert_status(200);
    assert_eq!(send_pending(&app).await, 1);
    assert_eq!(receiver.take_requests()[0].0["webhook-id"], *first);
    // For one day deliveries are signed with both secrets.
    let rotated =
        owner.api(Method::POST, &format!("/webhooks/{id}/rotate-secret"), None).await.assert_status(200).json();
    let new = SecretText::new(rotated["secret"].as_str().unwrap());
    for (later, both) in [(0, true), (DAY, false)] {
        app.advance_clock(later).await;
        owner.api(Method::POST, &format!("/webhooks/{id}/test"), None).await.assert_status(201);
        send_pending(&app).await;
        let (headers, body) = receiver.take_requests().pop().unwrap();
        let (id, seconds) = (headers["webhook-id"].to_str().unwrap(), app.cx().now().0 / 1_000);
        let mut expected = vec![sign(&new, id, seconds, &body).unwrap()];
        expected.extend(both.then(|| sign(&secret, id, seconds, &body).unwrap()));
        assert_eq!(headers["webhook-signature"], *expected.join(" "));
    }
    app.finish().await;
}

#[tokio::test]
async fn failed_deliveries_are_retried_and_then_abandoned() {
    let app = start_app().await;
    let org = app.org("acme").await;
    let owner = ConsoleBrowser::owner(&org).await;
    let receiver = Receiver::new().await;
    let (id, _) = create_webhook(&owner, &receiver.url, json!(["ticket.created"])).await;
    receiver.set_status(500);
    owner.api(Method::POST, &format!("/webhooks/{id}/test"), None).await.assert_status(201);
    for minutes in [0, 1, 5, 30, 120, 480, 1_440] {
        app.advance_clock(minutes * MINUTE - 1).await;
        assert_eq!(send_pending(&app).await, 0, "one millisecond before {minutes} minutes");
        app.advance_clock(1).await;
        assert_eq!(send_pending(&app).await, 1, "after {minutes} minutes");
    }
    app.advance_clock(30 * MINUTE).await;
    assert_eq!((send_pending(&app).await, receiver.take_requests().len()), (0, 7));
    let log = owner.api(Method::GET, &format!("/webhooks/{id}/deliveries"), None).await.json();
    let message = &log["items"][0];
    assert_eq!(
        (&message["status"], &message["attempts"], &message["response_status"]),
        (&json!("failed"), &json!(7), &json!(500))
    );
    owner
        .get_page(&format!("/o/acme/webhooks/{id}"))
        .await
        .assert_contains("returned status 500")
        .assert_contains("has failed");
    // A webhook that fails for five days is disabled.
    app.advance_clock(4 * DAY).await;
    owner.api(Method::POST, &format!("/webhooks/{id}/test"), None).await.assert_status(201);
    send_pending(&app).await;
    let webhook = owner.api(Method::GET, &format!("/webhooks/{id}"), None).await.json();
    assert_eq!((&webhook["enabled"], webhook["disabled_at"].is_string()), (&json!(false), true));
    owner.api(Method::POST, &format!("/webhooks/{id}/test"), None).await.assert_status(409);
    let enabled = owner
        .api(Method::PATCH, &format!("/webhooks/{id}"), Some(json!({ "enabled": true })))
        .await
        .assert_status(200)
        .json();
    assert_eq!((&enabled["failing_since"], &enabled["disabled_at"]), (&Value::Null, &Value::Null));
    receiver.set_status(302);
    owner.api(Method::POST, &format!("/webhooks/{id}/test"), None).await.assert_status(201);
    send_pending(&app).await;
    owner.get_page(&format!("/o/acme/webhooks/{id}")).await.assert_contains("returned a redirect (status 302)");
    receiver.set_status(410);
    app.advance_clock(MINUTE).await;
    send_pending(&app).await;
    assert_eq!(
        owner.api(Method::GET, &format!("/webhooks/{id}"), None).await.json()["enabled"],
        false,
        "status 410 disables the webhook"
    );
    app.finish().await;
}

#[tokio::test]
async fn two_workers_send_a_delivery_once() {
    let app = start_app().await;
    let owner = ConsoleBrowser::owner(&app.org("acme").await).await;
    let receiver = Receiver::new().await;
    let (id, _) = create_webhook(&owner, &receiver.url, json!(["ticket.created"])).await;
    for _ in 0..10 {
        owner.api(Method::POST, &format!("/webhooks/{id}/test"), None).await.assert_status(201);
    }
    let (one, two) = (worker(&app), worker(&app));
    let (a, b) = tokio::join!(one.run_once(), two.run_once());
    assert_eq!(a.unwrap() + b.unwrap(), 10);
    assert_eq!(receiver.take_requests().len(), 10);
    app.finish().await;
}

#[tokio::test]
async fn webhooks_cannot_reach_private_networks() {
    let app = App::new().await;
    let org = app.org("acme").await;
    let owner = ConsoleBrowser::owner(&org).await;
    for url in [
        "http://127.0.0.1/x",
        "https://127.0.0.1/x",
        "https://[::1]/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "http://example.com/",
        "ftp://example.com",
        "https://u:p@example.com/",
        "https://example.com/#x",
        "x",
        "",
        "\u{0}",
    ] {
        let rejected =
            owner.api(Method::POST, "/webhooks", Some(json!({ "url": url, "events": ["ticket.created"] }))).await;
        assert_eq!(rejected.assert_status(422).json()["field"], "url", "{url}");
        let form = owner.post("/o/acme/webhooks", &[("url", url), ("events", "ticket.created")]).await;
        form.assert_status(422).assert_contains("aria-invalid");
    }
    for events in [json!([]), json!(["webhook.test"]), json!(["odd"])] {
        owner
            .api(Method::POST, "/webhooks", Some(json!({ "url": "https://example.com/", "events": events })))
            .await
            .assert_status(422);
    }
    // A name that resolves to loopback is rejected when the delivery is sent.
    let (id, _) = create_webhook(&owner, "https://localhost/hook", json!(["ticket.created"])).await;
    owner.api(Method::POST, &format!("/webhooks/{id}/test"), None).await.assert_status(201);
    send_pending(&app).await;
    owner.get_page(&format!("/o/acme/webhooks/{id}")).await.assert_contains("has no IP address on the public internet");
    // Members cannot see webhooks; other organisations get 404.
    let member = ConsoleBrowser::member(&org, "m@acme.example", Role::Member).await;
    for path in ["/webhooks".to_owned(), format!("/webhooks/{id}"), format!("/webhooks/{id}/deliveries")] {
        member.api(Method::GET, &path, None).await.assert_status(403);
    }
    member.get("/o/acme/webhooks").await.assert_status(403);
    let other = ConsoleBrowser::owner(&app.org("other").await).await;
    for (method, path) in [
        (Method::GET, format!("/webhooks/{id}")),
        (Method::DELETE, format!("/webhooks/{id}")),
        (Method::POST, format!("/webhooks/{id}/test")),
        (Method::POST, format!("/webhooks/{id}/rotate-secret")),
        (Method::GET, format!("/webhooks/{id}/deliveries")),
    ] {
        other.api(method, &path, None).await.assert_status(404);
    }
    for index in 1..20 {
        create_webhook(&owner, &format!("https://example.com/{index}"), json!(["ticket.created"])).await;
    }
    let more = json!({ "url": "https://example.com/more", "events": ["ticket.created"] });
    owner.api(Method::POST, "/webhooks", Some(more)).await.assert_status(409);
    owner.api(Method::DELETE, &format!("/webhooks/{id}"), None).await.assert_status(204);
    app.finish().await;
}

#[tokio::test]
async fn entries_for_other_purposes_or_organisations_do_not_apply() {
    let entries = ["sign-in", "client-documents", "tools", "webhooks@other"]
        .map(|target| ["127.0.0.0/8", "::1"].map(|network| format!("{network}={target}").parse().unwrap()));
    let app = App::with(Setup { allow: entries.concat(), ..Setup::default() }).await;
    let (acme, other) = (app.org("acme").await, app.org("other").await);
    let (owner, allowed) = (ConsoleBrowser::owner(&acme).await, ConsoleBrowser::owner(&other).await);
    let receiver = Receiver::new().await;
    let events = json!(["ticket.created"]);
    let test = async |browser: &ConsoleBrowser, id: &str| {
        browser.api(Method::POST, &format!("/webhooks/{id}/test"), None).await.assert_status(201);
        send_pending(&app).await;
        let log = browser.api(Method::GET, &format!("/webhooks/{id}/deliveries"), None).await.assert_status(200).json();
        (log["items"][0]["status"].clone(), log["items"][0]["error"].as_str().unwrap_or_default().to_owned())
    };
    for url in [receiver.url.clone(), receiver.url.replace("127.0.0.1", "localhost"), "http://[::1]:1/".to_owned()] {
        let new = json!({ "url": url, "events": events });
        assert_eq!(
            owner.api(Method::POST, "/webhooks", Some(new)).await.assert_status(422).json()["field"],
            "url",
            "{url}"
        );
    }
    let (id, _) = create_webhook(&owner, "https://example.com/", events.clone()).await;
    let change = json!({ "url": receiver.url });
    owner.api(Method::PATCH, &format!("/webhooks/{id}"), Some(change)).await.assert_status(422);
    // Names are resolved when a delivery is sent. The error for an internal name equals that for an unknown name.
    let named = receiver.url.replace("http://127.0.0.1", "https://localhost");
    let (id, _) = create_webhook(&owner, &named, events.clone()).await;
    let (_, internal) = test(&owner, &id).await;
    assert_eq!(internal, "`localhost` has no IP address on the public internet, so Waypost does not connect to it.");
    let (id, _) = create_webhook(&owner, "https://nobody.invalid/", events.clone()).await;
    assert_eq!(test(&owner, &id).await.1, internal.replace("localhost", "nobody.invalid"));
    assert_eq!(receiver.take_requests().len(), 0);
    // The organisation named in the entry is allowed as long as its slug matches.
    let (id, _) = create_webhook(&allowed, &receiver.url, events).await;
    assert_eq!(test(&allowed, &id).await.0, "delivered");
    assert_eq!(receiver.take_requests().len(), 1);
    let renamed = json!({ "slug": "renamed" });
    allowed.api(Method::PATCH, &format!("/organizations/{}", other.id), Some(renamed)).await.assert_status(200);
    let (status, error) = test(&allowed, &id).await;
    assert_eq!(status, "pending");
    assert!(error.contains("no IP address on the public internet"), "{error}");
    assert_eq!(receiver.take_requests().len(), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_delivery_records_the_status_and_200_printable_characters() {
    let app = start_app().await;
    let owner = ConsoleBrowser::owner(&app.org("acme").await).await;
    let receiver = Receiver::new().await;
    let (id, _) = create_webhook(&owner, &receiver.url, json!(["ticket.created"])).await;
    for status in [200, 500] {
        receiver.set_status(status);
        *receiver.body.lock().unwrap() = format!("\u{1b}[2Jroot:\u{0}x\r\n\t\u{7f}{}", "ä".repeat(1_000));
        owner.api(Method::POST, &format!("/webhooks/{id}/test"), None).await.assert_status(201);
        send_pending(&app).await;
        let log = owner.api(Method::GET, &format!("/webhooks/{id}/deliveries"), None).await.assert_status(200).json();
        assert_eq!(log["items"][0]["response_status"], status);
        assert_eq!(log["items"][0]["response_body"], format!("[2Jroot:x {}", "ä".repeat(190)));
    }
    app.finish().await;
}

/// A webhook deleted during a walkthrough does not affect the steps.
#[tokio::test]
async fn a_deleted_webhook_does_not_fail_a_step() {
    let app = start_app().await;
    let server = app.server("acme").await;
    let owner = ConsoleBrowser::owner(&server.org).await;
    server.walkthrough("Install Acme", &["Download"]).await;
    let receiver = Receiver::new().await;
    let (id, _) = create_webhook(&owner, &receiver.url, json!(["walkthrough.completed"])).await;
    app.refresh().await;
    let mut user = server.personal("ann");
    user.play("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    // This process has not reloaded the offers yet.
    owner.api(Method::DELETE, &format!("/webhooks/{id}"), None).await.assert_status(204);
    let done = user.play("next_walkthrough_step", json!({})).await;
    assert_eq!(done.ok()["progress"]["status"], "completed");
    assert_eq!(send_pending(&app).await, 0);
    app.finish().await;
}
