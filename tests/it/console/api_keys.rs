//! API keys.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use waypost_core::organization::Role;

use super::{Answer, Browser, with_key};
use crate::app::{App, DAY, START, open};

async fn call(app: &App, secret: &str) -> Answer {
    let request = Request::get("/api/v1/members").header(header::AUTHORIZATION, format!("Bearer {secret}"));
    Browser::new(app).send(request.body(Body::empty()).unwrap()).await
}

async fn keys_end_and_tell_of_their_use(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let owner = Browser::owner(&org).await;
    let end = |days: i64| START.plus(days * DAY).rfc3339();
    let new = |expires_at: Value| Some(json!({ "name": "CI", "scope": "member", "expires_at": expires_at }));
    for wrong in [end(0), end(-1), end(3_653), "tomorrow".to_owned(), String::new()] {
        let answer = owner.api(Method::POST, "/api-keys", new(json!(wrong))).await;
        assert_eq!(answer.is(422).json()["field"], "expires_at", "{wrong}");
    }
    let made = owner.api(Method::POST, "/api-keys", new(json!(end(1)))).await;
    let (location, made) = (made.location().to_owned(), made.is(201).json());
    let (path, secret) = (format!("/api-keys/{}", made["id"].as_str().unwrap()), made["key"].as_str().unwrap());
    assert_eq!(location, format!("/api/v1{path}"));
    assert_eq!((&made["last_used_at"], &made["expires_at"]), (&Value::Null, &json!(end(1))));
    owner.api(Method::GET, &path, None).await.is(200).does_not_say(secret);
    owner.api(Method::GET, "/api-keys", None).await.is(200).does_not_say(secret);
    call(&app, secret).await.is(200);
    let used = || async { owner.api(Method::GET, &path, None).await.json()["last_used_at"].clone() };
    assert_eq!(used().await, json!(START.rfc3339()));
    app.later(59_000).await;
    call(&app, secret).await.is(200);
    assert_eq!(used().await, json!(START.rfc3339()), "once a minute at most");
    app.later(1_000).await;
    call(&app, secret).await.is(200);
    assert_eq!(used().await, json!(START.plus(60_000).rfc3339()));
    app.later(DAY - 60_001).await;
    call(&app, secret).await.is(200);
    app.later(1).await;
    call(&app, secret).await.is(401);
    owner.page("/o/acme/api-keys").await.says("ended").does_not_say(secret);
    owner.api(Method::PATCH, &path, Some(json!({ "expires_at": null }))).await.is(200);
    call(&app, secret).await.is(200);
    owner.api(Method::PATCH, &path, Some(json!({ "name": "Renamed" }))).await.is(200).says("\"expires_at\":null");
    for body in [json!({ "key": "wpk_x" }), json!({ "scope": "king" }), json!({ "last_used_at": null })] {
        owner.api(Method::PATCH, &path, Some(body)).await.is(422);
    }

    let (admin, member) = (
        Browser::member(&org, "admin@example.com", Role::Admin).await,
        Browser::member(&org, "member@example.com", Role::Member).await,
    );
    let stranger = Browser::owner(&other).await;
    let change = || Some(json!({ "name": "X" }));
    for (method, body) in [(Method::GET, None), (Method::PATCH, change()), (Method::DELETE, None)] {
        stranger.api(method.clone(), &path, body.clone()).await.is(404);
        member.api(method.clone(), &path, body.clone()).await.is(403);
        Browser::new(&app).api(method, &path, body).await.is(401);
    }
    // Nobody reaches above their own role, neither a person nor a key.
    let owner_key = json!({ "name": "O", "scope": "owner" });
    let made = owner.api(Method::POST, "/api-keys", Some(owner_key.clone())).await.is(201).json();
    let above = format!("/api-keys/{}", made["id"].as_str().unwrap());
    for (method, path, body) in [
        (Method::POST, "/api-keys", Some(owner_key)),
        (Method::PATCH, path.as_str(), Some(json!({ "scope": "owner" }))),
        (Method::PATCH, above.as_str(), Some(json!({ "scope": "member" }))),
        (Method::DELETE, above.as_str(), None),
    ] {
        admin.api(method.clone(), path, body.clone()).await.is(403);
        with_key(&org, Role::Admin, method.clone(), path, body.clone()).await.is(403);
        with_key(&org, Role::Member, method, path, body).await.is(403);
    }
    owner.api(Method::DELETE, &path, None).await.is(204);
    call(&app, secret).await.is(401);
    app.finish().await;
}

async fn the_page_shows_a_secret_once(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let admin = Browser::member(&org, "admin@example.com", Role::Admin).await;
    admin.page("/o/acme/api-keys").await.says("No API keys yet").does_not_say("value=\"owner\"");
    let wrong = [("name", "<b>CI"), ("scope", "member"), ("expires_on", "2020-01-01")];
    admin.post("/o/acme/api-keys", &wrong).await.is(422).says("id=\"e-expires_on\"").does_not_say("<b>CI");
    let fields = [("name", "<b>CI"), ("scope", "member"), ("expires_on", "2027-01-31")];
    let made = admin.post("/o/acme/api-keys", &fields).await;
    let at = made.is(200).body.find("wpk_").unwrap();
    let secret = made.body[at..at + 47].to_owned();
    made.says("shown this once").does_not_say("<b>CI");
    call(&app, &secret).await.is(200);
    admin.page("/o/acme/api-keys").await.does_not_say(&secret[..10]);
    admin.post("/o/acme/api-keys", &fields).await.is(409).says("id=\"e-name\"");
    admin.post("/o/acme/api-keys", &[("name", "x"), ("scope", "owner")]).await.is(403);
    let listed = admin.api(Method::GET, "/api-keys", None).await.json();
    let id = listed["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(listed["items"][0]["expires_at"], "2027-01-31T23:59:59.999Z");
    let path = format!("/o/acme/api-keys/{id}");
    admin.page(&path).await.says("2027-01-31").says("in the audit log");
    let fields = [("name", "CI"), ("scope", "admin"), ("expires_on", "")];
    admin.post(&path, &fields).await.leads_to("/o/acme/api-keys");
    admin.api(Method::GET, &format!("/api-keys/{id}"), None).await.says("\"expires_at\":null").says("\"admin\"");
    let stranger = Browser::owner(&other).await;
    stranger.get(&format!("/o/other/api-keys/{id}")).await.is(404);
    stranger.post(&format!("/o/other/api-keys/{id}/delete"), &[]).await.is(404);
    admin.get("/o/acme/api-keys/x").await.is(404);
    admin.post(&format!("{path}/delete"), &[]).await.leads_to("/o/acme/api-keys");
    call(&app, &secret).await.is(401);
    app.finish().await;
}

waypost_testkit::both!(open => keys_end_and_tell_of_their_use, the_page_shows_a_secret_once);
