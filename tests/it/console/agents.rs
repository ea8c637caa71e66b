//! The REST API of agents, grants and tool sets.

use http::{Method, Request, header};
use serde_json::{Value, json};
use waypost_core::organization::Role;

use super::{ConsoleBrowser, call_with_key};
use crate::app::{App, Org};

struct Stage {
    owner: ConsoleBrowser,
    /// The IDs of an agent and an instance.
    agent: String,
    instance: String,
}

async fn stage(acme: &Org) -> Stage {
    let owner = ConsoleBrowser::owner(acme).await.for_org("acme");
    let post = async |path: &str, body: Value| {
        let response = owner.api(Method::POST, path, Some(body)).await;
        assert!(response.status.is_success(), "{path}: {}", response.body);
        response.json()
    };
    let entry = json!({ "slug": "search", "name": "Search", "version": "1", "transport": "stdio",
        "source": { "image": format!("registry.example/search@sha256:{}", "ab".repeat(32)) } });
    let entry = post("/catalog/import", entry).await;
    let toolbox = post("/toolboxes", json!({ "name": "rack" })).await;
    let version = &entry["versions"][0]["id"];
    let instance = json!({ "slug": "web", "catalog_version_id": version, "toolbox_id": toolbox["id"] });
    let instance = post("/instances", instance).await;
    let agent = post("/agents", json!({ "name": "Crawler" })).await;
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    Stage { agent: id(&agent), instance: id(&instance), owner }
}

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn agents_have_tokens_whose_secrets_are_returned_once() {
    let app = App::new().await;
    let (acme, other) = (app.org("acme").await, app.org("other").await);
    let Stage { owner, agent, .. } = stage(&acme).await;
    let path = format!("/agents/{agent}");
    let found = owner.api(Method::GET, &path, None).await.assert_status(200).json();
    let expected = ["id", "name", "kind", "user_id", "state", "created_at", "created_by", "last_seen_at", "tokens"];
    assert_eq!(
        (names(&found), &found["kind"], &found["user_id"]),
        (expected.to_vec(), &json!("service"), &Value::Null)
    );
    let tokens = format!("{path}/tokens");
    // A repeated request gets the same token.
    let request = || {
        Request::post(format!("/api/v1{tokens}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header("sec-fetch-site", "same-origin")
            .header("waypost-organization", "acme")
            .header("idempotency-key", "once")
            .body(axum::body::Body::from("{}"))
            .unwrap()
    };
    let created = owner.send(request()).await;
    created.assert_status(201);
    assert_eq!(created.header("cache-control"), "no-store");
    let created = created.json();
    assert_eq!(owner.send(request()).await.json(), created);
    let secret = created["token"].as_str().unwrap();
    assert!(secret.starts_with("wpa_") && created["id"].as_str().unwrap().starts_with("agk_"), "{created}");
    let listed = owner.api(Method::GET, "/agents", None).await.assert_lacks(secret).json();
    let token = &listed["items"][0]["tokens"][0];
    assert_eq!(names(token), ["id", "name", "created_at", "expires_at", "last_used_at", "revoked_at"]);
    assert_eq!((&token["id"], &token["revoked_at"]), (&created["id"], &Value::Null));
    // An agent's token is not an API key.
    let response = super::call_with_secret(&app, secret, Method::GET, "/agents", None).await;
    response.assert_status(401);
    let token = format!("{tokens}/{}", created["id"].as_str().unwrap());
    owner.api(Method::DELETE, &token, None).await.assert_status(204);
    owner.api(Method::DELETE, &token, None).await.assert_status(204);
    let found = owner.api(Method::GET, &path, None).await.json();
    assert!(found["tokens"][0]["revoked_at"].is_string(), "{found}");
    for (path, body, status, field) in [
        ("/agents", json!({ "name": "Crawler" }), 409, Value::Null),
        ("/agents", json!({ "name": "x".repeat(101) }), 422, json!("name")),
        ("/agents", json!({ "name": "a", "kind": "person" }), 422, Value::Null),
        (&tokens, json!({ "expires_at": "2020-01-01T00:00:00Z" }), 422, json!("expires_at")),
        (&tokens, json!({ "name": "" }), 422, json!("name")),
        ("/agents/agt_0123456789abcdef/tokens", json!({}), 404, Value::Null),
    ] {
        let response = owner.api(Method::POST, path, Some(body)).await;
        assert_eq!(response.assert_status(status).json()["field"], field, "{}", response.body);
    }
    let off = owner.api(Method::PATCH, &path, Some(json!({ "state": "disabled" }))).await.json();
    assert_eq!((&off["state"], &off["name"]), (&json!("disabled"), &json!("Crawler")));
    owner.api(Method::POST, "/agents", Some(json!({ "name": "B" }))).await.assert_status(201);
    let page = owner.api(Method::GET, "/agents?limit=1", None).await.json();
    assert_eq!((&page["items"][0]["name"], &page["next_cursor"]), (&json!("B"), &json!("B")));
    let rest = owner.api(Method::GET, "/agents?limit=1&cursor=B", None).await.json();
    assert_eq!((&rest["items"][0]["name"], &rest["next_cursor"]), (&json!("Crawler"), &Value::Null));
    owner.api(Method::GET, "/agents?cursor=%00", None).await.assert_status(422);
    for (org, role, status) in [(&acme, Role::Member, 403), (&other, Role::Owner, 404)] {
        call_with_key(org, role, Method::GET, &path, None).await.assert_status(status);
        call_with_key(org, role, Method::POST, &tokens, Some(json!({}))).await.assert_status(status);
        call_with_key(org, role, Method::DELETE, &path, None).await.assert_status(status);
    }
    call_with_key(&acme, Role::Admin, Method::DELETE, &path, None).await.assert_status(204);
    let audit = owner.api(Method::GET, "/audit-events?act=agent", None).await.assert_lacks("wpa_").json();
    let acts: Vec<_> = audit["items"].as_array().unwrap().iter().map(|event| event["act"].as_str().unwrap()).collect();
    assert!(acts.contains(&"agent_token.revoke") && acts.contains(&"agent.delete"), "{acts:?}");
    app.finish().await;
}

#[tokio::test]
async fn grants_are_filtered_and_changed() {
    let app = App::new().await;
    let (acme, other) = (app.org("acme").await, app.org("other").await);
    let Stage { owner, agent, instance } = stage(&acme).await;
    let rule = json!({ "tool": "search", "field": "limit", "comparison": "at_most", "value": 10 });
    let new = |access: &str, rest: Value| {
        let mut new = json!({ "agent_id": agent, "instance_id": instance, "access": access });
        new.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        Some(new)
    };
    let custom = json!({ "tools": ["search"], "resources": ["notes://{id}"], "rules": [rule] });
    let created = owner.api(Method::POST, "/grants", new("custom", custom)).await;
    created.assert_status(201);
    let grant = created.json();
    let path = format!("/grants/{}", grant["id"].as_str().unwrap());
    assert_eq!(created.header("location"), format!("/api/v1{path}"));
    let expected = json!({ "id": grant["id"], "agent_id": agent, "instance_id": instance, "access": "custom",
        "tools": ["search"], "prompts": [], "resources": ["notes://{id}"], "rules": [rule], "expires_at": null,
        "created_at": grant["created_at"], "created_by": grant["created_by"] });
    assert_eq!(grant, expected);
    assert_eq!(owner.api(Method::GET, &path, None).await.json(), grant);
    for query in [format!("?agent_id={agent}"), format!("?instance_id={instance}&agent_id={agent}"), String::new()] {
        let listed = owner.api(Method::GET, &format!("/grants{query}"), None).await.assert_status(200).json();
        assert_eq!(listed["items"], json!([grant]), "{query}");
    }
    let none = owner.api(Method::GET, "/grants?agent_id=agt_0123456789abcdef", None).await.json();
    assert_eq!(none, json!({ "items": [], "next_cursor": null }));
    owner.api(Method::GET, "/grants?agent_id=nonsense", None).await.assert_status(422);
    let change = json!({ "access": "full_access", "expires_at": "2030-01-01T00:00:00Z" });
    let changed = owner.api(Method::PATCH, &path, Some(change)).await.assert_status(200).json();
    assert_eq!((&changed["tools"], &changed["expires_at"]), (&json!([]), &json!("2030-01-01T00:00:00.000Z")));
    let changed = owner.api(Method::PATCH, &path, Some(json!({ "expires_at": null, "rules": [] }))).await.json();
    assert_eq!(
        (&changed["access"], &changed["expires_at"], &changed["rules"]),
        (&json!("full_access"), &Value::Null, &json!([]))
    );
    let text = json!({ "tool": "search", "field": "limit", "comparison": "at_most", "value": "10" });
    for (body, field) in [
        (new("custom", json!({})), json!("tools")),
        (new("read_only", json!({ "tools": ["search"] })), json!("access")),
        (new("full_access", json!({ "rules": [text] })), json!("rules")),
        (new("full_access", json!({ "agent_id": "agt_0123456789abcdef" })), json!("agent_id")),
        (new("full_access", json!({ "instance_id": "nonsense" })), json!("instance_id")),
        (new("everything", json!({})), Value::Null),
        (new("full_access", json!({ "rules": [{ "tool": "a" }] })), Value::Null),
    ] {
        let response = owner.api(Method::POST, "/grants", body).await;
        assert_eq!(response.assert_status(422).json()["field"], field, "{}", response.body);
    }
    for (org, role, status) in [(&acme, Role::Member, 403), (&other, Role::Owner, 404)] {
        call_with_key(org, role, Method::PATCH, &path, Some(json!({}))).await.assert_status(status);
        call_with_key(org, role, Method::DELETE, &path, None).await.assert_status(status);
    }
    owner.api(Method::DELETE, &path, None).await.assert_status(204);
    owner.api(Method::DELETE, &path, None).await.assert_status(404);
    app.finish().await;
}

#[tokio::test]
async fn tool_sets_have_members() {
    let app = App::new().await;
    let (acme, other) = (app.org("acme").await, app.org("other").await);
    let Stage { owner, instance, .. } = stage(&acme).await;
    let members = json!([{ "instance_id": instance, "tools": ["search"] }]);
    let new = json!({ "slug": "research", "prefix": false, "members": members });
    let created = owner.api(Method::POST, "/tool-sets", Some(new)).await.assert_status(201).json();
    let expected =
        json!({ "id": created["id"], "slug": "research", "name": "research", "prefix": false, "members": members });
    assert_eq!(created, expected);
    let path = format!("/tool-sets/{}", created["id"].as_str().unwrap());
    assert_eq!(owner.api(Method::GET, &path, None).await.json(), created);
    let change = json!({ "name": "Research", "prefix": true, "members": [{ "instance_id": instance }] });
    let changed = owner.api(Method::PATCH, &path, Some(change)).await.assert_status(200).json();
    assert_eq!((&changed["members"][0]["tools"], &changed["slug"]), (&Value::Null, &json!("research")));
    let listed = owner.api(Method::GET, "/tool-sets", None).await.json();
    assert_eq!(listed, json!({ "items": [changed], "next_cursor": null }));
    for (body, status, field) in [
        (json!({ "slug": "research", "members": members }), 409, json!("slug")),
        (json!({ "slug": "Research", "members": members }), 422, json!("slug")),
        (json!({ "slug": "a", "members": [] }), 422, json!("members")),
        (json!({ "slug": "a", "members": [{ "instance_id": "ins_0123456789abcdef" }] }), 422, json!("members")),
        (json!({ "slug": "a", "members": [{ "instance_id": "nonsense" }] }), 422, json!("members")),
        (json!({ "slug": "a" }), 422, Value::Null),
    ] {
        let response = owner.api(Method::POST, "/tool-sets", Some(body)).await;
        assert_eq!(response.assert_status(status).json()["field"], field, "{}", response.body);
    }
    call_with_key(&acme, Role::Member, Method::GET, &path, None).await.assert_status(200);
    call_with_key(&acme, Role::Member, Method::DELETE, &path, None).await.assert_status(403);
    call_with_key(&other, Role::Owner, Method::GET, &path, None).await.assert_status(404);
    owner.api(Method::DELETE, &path, None).await.assert_status(204);
    owner.api(Method::GET, &path, None).await.assert_status(404);
    app.finish().await;
}
