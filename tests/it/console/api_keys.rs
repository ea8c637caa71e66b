//! API keys.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use waypost_core::organization::Role;

use super::{ConsoleBrowser, ConsoleResponse, call_with_key};
use crate::app::{App, DAY, START, open};

async fn call_with(app: &App, secret: &str) -> ConsoleResponse {
    let request = Request::get("/api/v1/members").header(header::AUTHORIZATION, format!("Bearer {secret}"));
    ConsoleBrowser::new(app).send(request.body(Body::empty()).unwrap()).await
}

async fn keys_expire_and_record_their_last_use(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let owner = ConsoleBrowser::owner(&org).await;
    let expiry = |days: i64| START.plus(days * DAY).rfc3339();
    let new = |expires_at: Value| Some(json!({ "name": "CI", "scope": "member", "expires_at": expires_at }));
    for wrong in [expiry(0), expiry(-1), expiry(3_653), "tomorrow".to_owned(), String::new()] {
        let response = owner.api(Method::POST, "/api-keys", new(json!(wrong))).await;
        assert_eq!(response.assert_status(422).json()["field"], "expires_at", "{wrong}");
    }
    let created = owner.api(Method::POST, "/api-keys", new(json!(expiry(1)))).await;
    let (location, created) = (created.location().to_owned(), created.assert_status(201).json());
    let (path, secret) = (format!("/api-keys/{}", created["id"].as_str().unwrap()), created["key"].as_str().unwrap());
    assert_eq!(location, format!("/api/v1{path}"));
    assert_eq!((&created["last_used_at"], &created["expires_at"]), (&Value::Null, &json!(expiry(1))));
    owner.api(Method::GET, &path, None).await.assert_status(200).assert_lacks(secret);
    owner.api(Method::GET, "/api-keys", None).await.assert_status(200).assert_lacks(secret);
    call_with(&app, secret).await.assert_status(200);
    let last_used_at = || async { owner.api(Method::GET, &path, None).await.json()["last_used_at"].clone() };
    assert_eq!(last_used_at().await, json!(START.rfc3339()));
    app.advance_clock(59_000).await;
    call_with(&app, secret).await.assert_status(200);
    assert_eq!(last_used_at().await, json!(START.rfc3339()), "at most once a minute");
    app.advance_clock(1_000).await;
    call_with(&app, secret).await.assert_status(200);
    assert_eq!(last_used_at().await, json!(START.plus(60_000).rfc3339()));
    app.advance_clock(DAY - 60_001).await;
    call_with(&app, secret).await.assert_status(200);
    app.advance_clock(1).await;
    call_with(&app, secret).await.assert_status(401);
    owner.get_page("/o/acme/api-keys").await.assert_contains("expired").assert_lacks(secret);
    owner.api(Method::PATCH, &path, Some(json!({ "expires_at": null }))).await.assert_status(200);
    call_with(&app, secret).await.assert_status(200);
    owner
        .api(Method::PATCH, &path, Some(json!({ "name": "Renamed" })))
        .await
        .assert_status(200)
        .assert_contains("\"expires_at\":null");
    for body in [json!({ "key": "wpk_x" }), json!({ "scope": "king" }), json!({ "last_used_at": null })] {
        owner.api(Method::PATCH, &path, Some(body)).await.assert_status(422);
    }

    let (admin, member) = (
        ConsoleBrowser::member(&org, "admin@example.com", Role::Admin).await,
        ConsoleBrowser::member(&org, "member@example.com", Role::Member).await,
    );
    let outsider = ConsoleBrowser::owner(&other).await;
    let change = || Some(json!({ "name": "X" }));
    for (method, body) in [(Method::GET, None), (Method::PATCH, change()), (Method::DELETE, None)] {
        outsider.api(method.clone(), &path, body.clone()).await.assert_status(404);
        member.api(method.clone(), &path, body.clone()).await.assert_status(403);
        ConsoleBrowser::new(&app).api(method, &path, body).await.assert_status(401);
    }
    // Neither a user nor an API key can manage keys above their own role.
    let owner_key = json!({ "name": "O", "scope": "owner" });
    let created = owner.api(Method::POST, "/api-keys", Some(owner_key.clone())).await.assert_status(201).json();
    let above = format!("/api-keys/{}", created["id"].as_str().unwrap());
    for (method, path, body) in [
        (Method::POST, "/api-keys", Some(owner_key)),
        (Method::PATCH, path.as_str(), Some(json!({ "scope": "owner" }))),
        (Method::PATCH, above.as_str(), Some(json!({ "scope": "member" }))),
        (Method::DELETE, above.as_str(), None),
    ] {
        admin.api(method.clone(), path, body.clone()).await.assert_status(403);
        call_with_key(&org, Role::Admin, method.clone(), path, body.clone()).await.assert_status(403);
        call_with_key(&org, Role::Member, method, path, body).await.assert_status(403);
    }
    owner.api(Method::DELETE, &path, None).await.assert_status(204);
    call_with(&app, secret).await.assert_status(401);
    app.finish().await;
}

async fn the_page_shows_a_key_once(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let admin = ConsoleBrowser::member(&org, "admin@example.com", Role::Admin).await;
    admin.get_page("/o/acme/api-keys").await.assert_contains("No API keys yet").assert_lacks("value=\"owner\"");
    let wrong = [("name", "<b>CI"), ("scope", "member"), ("expires_on", "2020-01-01")];
    admin
        .post("/o/acme/api-keys", &wrong)
        .await
        .assert_status(422)
        .assert_contains("id=\"e-expires_on\"")
        .assert_lacks("<b>CI");
    let fields = [("name", "<b>CI"), ("scope", "member"), ("expires_on", "2027-01-31")];
    let created = admin.post("/o/acme/api-keys", &fields).await;
    let at = created.assert_status(200).body.find("wpk_").unwrap();
    let secret = created.body[at..at + 47].to_owned();
    created.assert_contains("be able to see it again").assert_lacks("<b>CI");
    call_with(&app, &secret).await.assert_status(200);
    admin.get_page("/o/acme/api-keys").await.assert_lacks(&secret[..10]);
    admin.post("/o/acme/api-keys", &fields).await.assert_status(409).assert_contains("id=\"e-name\"");
    admin.post("/o/acme/api-keys", &[("name", "x"), ("scope", "owner")]).await.assert_status(403);
    let listed = admin.api(Method::GET, "/api-keys", None).await.json();
    let id = listed["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed["items"][0]["expires_at"], "2027-01-31T23:59:59.999Z");
    let path = format!("/o/acme/api-keys/{id}");
    admin.get_page(&path).await.assert_contains("2027-01-31").assert_contains("View in audit log");
    let fields = [("name", "CI"), ("scope", "admin"), ("expires_on", "")];
    admin.post(&path, &fields).await.assert_redirect("/o/acme/api-keys");
    admin
        .api(Method::GET, &format!("/api-keys/{id}"), None)
        .await
        .assert_contains("\"expires_at\":null")
        .assert_contains("\"admin\"");
    let outsider = ConsoleBrowser::owner(&other).await;
    outsider.get(&format!("/o/other/api-keys/{id}")).await.assert_status(404);
    outsider.post(&format!("/o/other/api-keys/{id}/delete"), &[]).await.assert_status(404);
    admin.get("/o/acme/api-keys/x").await.assert_status(404);
    admin.post(&format!("{path}/delete"), &[]).await.assert_redirect("/o/acme/api-keys");
    call_with(&app, &secret).await.assert_status(401);
    app.finish().await;
}

waypost_testkit::both!(extended open => keys_expire_and_record_their_last_use, the_page_shows_a_key_once);
