//! The audit log.

use http::Method;
use serde_json::{Value, json};
use waypost_core::organization::Role;
use waypost_ops::organizations::{self, OrganizationPatch};

use super::{ConsoleBrowser, ConsoleResponse, call_with_key, call_with_secret};
use crate::app::{App, DAY, START, open};

fn list_actions(response: &ConsoleResponse) -> Vec<String> {
    let listed = response.assert_status(200).json();
    listed["items"].as_array().unwrap().iter().map(|item| item["act"].as_str().unwrap().to_owned()).collect()
}

async fn events_are_filtered_and_paginated(app: App) {
    let (org, other) = (app.org("acme").await, app.org("other").await);
    let owner = ConsoleBrowser::member(&org, "owner@example.com", Role::Owner).await;
    let get = |query: &str| {
        let path = format!("/audit-events?{query}");
        let owner = &owner;
        async move { owner.api(Method::GET, &path, None).await }
    };
    app.advance_clock(DAY).await;
    owner
        .api(Method::POST, "/invitations", Some(json!({ "email": "x@example.com", "role": "member" })))
        .await
        .assert_status(201);
    let key = owner.api(Method::POST, "/api-keys", Some(json!({ "name": "CI", "scope": "admin" }))).await.json();
    let key_id = key["id"].as_str().unwrap();
    assert_eq!(
        list_actions(&get("").await),
        ["key.create", "invitation.create", "member.create", "organization.create"]
    );
    assert_eq!(list_actions(&get("act=member.").await), ["member.create"]);
    assert_eq!(list_actions(&get("act=m").await), ["member.create"]);
    assert_eq!(list_actions(&get("act=%25").await), [""; 0], "no wildcard");
    assert_eq!(list_actions(&get("actor=operator").await), ["member.create", "organization.create"]);
    assert_eq!(list_actions(&get("actor=OWNER%40example.com").await), ["key.create", "invitation.create"]);
    assert_eq!(list_actions(&get("actor=CI").await), [""; 0]);
    assert_eq!(list_actions(&get(&format!("target={key_id}")).await), ["key.create"]);
    let day = START.plus(DAY).rfc3339();
    assert_eq!(list_actions(&get(&format!("from={day}")).await), ["key.create", "invitation.create"]);
    assert_eq!(list_actions(&get(&format!("to={day}")).await), ["member.create", "organization.create"]);
    assert_eq!(list_actions(&get(&format!("from={day}&to={day}")).await), [""; 0]);
    let first = get("limit=3").await.json();
    let rest = get(&format!("limit=3&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!(list_actions(&rest), ["organization.create"]);
    assert_eq!(rest.json()["next_cursor"], Value::Null);
    let one = get(&format!("target={key_id}")).await.json();
    assert_eq!(one["items"][0]["actor_name"], "owner@example.com");
    for invalid in [
        "from=x",
        "to=",
        "actor=nobody%40example.com",
        "act=a%00b",
        "limit=0",
        "cursor=x",
        "format=pdf",
        "q=1",
        "format=csv&limit=5",
    ] {
        get(invalid).await.assert_status(422);
    }
    get(&format!("from={}&to={day}", START.plus(2 * DAY).rfc3339()))
        .await
        .assert_status(422)
        .assert_contains("later than");
    let member = ConsoleBrowser::member(&org, "member@example.com", Role::Member).await;
    for query in ["", "?format=csv"] {
        member.api(Method::GET, &format!("/audit-events{query}"), None).await.assert_status(403);
        call_with_key(&org, Role::Member, Method::GET, &format!("/audit-events{query}"), None).await.assert_status(403);
    }
    member.get("/o/acme/audit").await.assert_status(403);
    member.get("/o/acme/audit/export?format=csv").await.assert_status(403);
    let outsider = ConsoleBrowser::owner(&other).await;
    outsider.api(Method::GET, "/audit-events", None).await.assert_status(200).assert_lacks("x@example.com");
    outsider.get("/o/acme/audit/export").await.assert_status(404);
    app.finish().await;
}

async fn exports_are_escaped_and_logged(app: App) {
    let org = app.org("acme").await;
    let owner = ConsoleBrowser::owner(&org).await;
    let name = "=cmd|'/c calc'!A1<script>".to_owned();
    let changes = OrganizationPatch { name: Some(name.clone()), ..OrganizationPatch::default() };
    organizations::update(app.cx(), &app.ops(), &org.id, &changes).await.unwrap();
    let key = json!({ "name": "=HYPERLINK(1)", "scope": "admin" });
    let key = owner.api(Method::POST, "/api-keys", Some(key)).await.json();
    let key_id = key["id"].as_str().unwrap();
    let page = owner.get_page("/o/acme/audit").await;
    page.assert_contains("organization.update")
        .assert_contains("&#60;script&#62;")
        .assert_lacks("<script>A")
        .assert_lacks("A1<script>");
    owner.get_page("/o/acme/audit?act=organization.&from=2020-01-01").await.assert_contains("organization.update");
    owner.get_page("/o/acme/audit?act=nothing.").await.assert_contains("No matching entries");
    owner.get("/o/acme/audit?from=x%22%3E%3Cscript%3E").await.assert_status(422).assert_lacks("\"><script>");
    owner
        .get("/o/acme/audit?actor=gone%40example.com")
        .await
        .assert_status(422)
        .assert_contains("Use the ID of a deleted actor");

    app.advance_clock(1).await;
    let csv = owner.get("/o/acme/audit/export?format=csv").await;
    csv.assert_status(200);
    assert_eq!(csv.header("content-disposition"), "attachment; filename=\"audit-log.csv\"");
    let lines: Vec<_> = csv.body.lines().collect();
    assert_eq!((lines[0], lines.len()), ("id,created_at,actor,actor_name,act,target,detail", 5));
    for line in &lines {
        for cell in line.split(',') {
            assert!(!cell.trim_start_matches('"').starts_with(['=', '+', '-', '@']), "{cell}");
        }
    }
    app.advance_clock(1).await;
    let json = owner.api(Method::GET, "/audit-events?format=json", None).await;
    assert_eq!(list_actions(&json).len(), 5, "including the first export, excluding this one");
    app.advance_clock(1).await;
    let exports = owner.api(Method::GET, "/audit-events?act=audit.export", None).await;
    assert_eq!(list_actions(&exports).len(), 2);
    exports.assert_contains("\"format\":\"csv\"").assert_contains("\"format\":\"json\"");
    let empty = owner.api(Method::GET, "/audit-events?format=json&act=none", None).await;
    assert_eq!(empty.json(), json!({ "items": [], "next_cursor": null }));
    // Events can be filtered by the API key that caused them.
    let by_key = format!("/audit-events?actor={key_id}");
    assert_eq!(list_actions(&owner.api(Method::GET, &by_key, None).await), [""; 0]);
    let invitation = json!({ "email": "x@example.com", "role": "member" });
    let secret = key["key"].as_str().unwrap();
    call_with_secret(&org.app, secret, Method::POST, "/invitations", Some(invitation)).await.assert_status(201);
    let events = owner.api(Method::GET, &by_key, None).await;
    assert_eq!(list_actions(&events), ["invitation.create"]);
    assert_eq!(events.json()["items"][0]["actor"], key_id);
    app.finish().await;
}

waypost_testkit::both!(extended open => events_are_filtered_and_paginated, exports_are_escaped_and_logged);
