//! The REST API of the catalogue and of the secrets of tool servers.

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use http::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use waypost_core::organization::Role;

use super::{ConsoleBrowser, ConsoleResponse, call_with_key};
use crate::app::{App, Setup};

const VALUE: &str = "hunter2-planted-value";

fn entry(version: &str) -> Value {
    json!({
        "slug": "search",
        "name": "Search",
        "version": version,
        "source": { "image": format!("registry.example/search@sha256:{}", "ab".repeat(32)) },
        "transport": "streamable_http",
        "port": 8080,
        "secrets": [{ "name": "API_KEY" }],
    })
}

/// Replaces IDs and times with placeholders.
fn redact(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                let is_redacted =
                    member.is_string() && (name == "id" || name.ends_with("_id") || name.ends_with("_at"));
                *member = if is_redacted { json!("…") } else { redact(member.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = redact(item.take())),
        _ => {}
    }
    value
}

/// Sends a file in a format other than JSON.
async fn import(owner: &ConsoleBrowser, query: &str, content_type: &str, text: &str) -> ConsoleResponse {
    let request = Request::post(format!("/api/v1/catalog/import{query}"))
        .header(header::CONTENT_TYPE, content_type)
        .header("sec-fetch-site", "same-origin");
    owner.send(request.body(Body::from(text.to_owned())).unwrap()).await
}

#[tokio::test]
async fn secrets_are_written_but_never_returned() {
    let app = App::new().await;
    let (acme, other) = (app.org("acme").await, app.org("other").await);
    let owner = ConsoleBrowser::owner(&acme).await;
    let created = owner.api(Method::POST, "/secrets", Some(json!({ "name": "TOKEN", "value": VALUE }))).await;
    created.assert_status(201).assert_lacks(VALUE);
    let secret = created.json();
    let path = format!("/secrets/{}", secret["id"].as_str().unwrap());
    assert_eq!(created.header("location"), format!("/api/v1{path}"));
    insta::assert_snapshot!(redact(secret.clone()), @r#"{"id":"…","name":"TOKEN","version":1,"used_by":[],"created_at":"…","rotated_at":null}"#);
    app.advance_clock(1_000).await;
    let rotated = owner.api(Method::POST, &format!("{path}/rotate"), Some(json!({ "value": "new" }))).await;
    insta::assert_snapshot!(redact(rotated.assert_status(200).json()), @r#"{"id":"…","name":"TOKEN","version":2,"used_by":[],"created_at":"…","rotated_at":"…"}"#);
    assert_eq!(owner.api(Method::GET, &path, None).await.json(), rotated.json());
    owner.api(Method::POST, "/secrets", Some(json!({ "name": "A", "value": VALUE }))).await.assert_status(201);
    let page = owner.api(Method::GET, "/secrets?limit=1", None).await.assert_status(200).json();
    assert_eq!((&page["items"][0]["name"], &page["next_cursor"]), (&json!("A"), &json!("A")));
    let rest = owner.api(Method::GET, "/secrets?limit=1&cursor=A", None).await.json();
    assert_eq!(rest, json!({ "items": [rotated.json()], "next_cursor": null }));
    for (body, status, field) in [
        (json!({ "name": "TOKEN", "value": VALUE }), 409, Value::Null),
        (json!({ "name": "a b", "value": VALUE }), 422, json!("name")),
        (json!({ "name": "B", "value": "" }), 422, json!("value")),
        (json!({ "name": "B", "value": VALUE.repeat(4_000) }), 422, json!("value")),
        (json!({ "name": "B", "value": VALUE, "org": "x" }), 422, Value::Null),
        (json!({ "name": "B", "value": 1 }), 422, Value::Null),
    ] {
        let response = owner.api(Method::POST, "/secrets", Some(body)).await;
        response.assert_status(status).assert_lacks(VALUE);
        assert_eq!(response.json()["field"], field);
    }
    owner.api(Method::GET, "/secrets?cursor=%27", None).await.assert_status(422);
    // Keys with the scope `member` and keys of other organisations have no access.
    let new = || Some(json!({ "name": "B", "value": VALUE }));
    call_with_key(&acme, Role::Member, Method::GET, "/secrets", None).await.assert_status(403);
    call_with_key(&acme, Role::Member, Method::POST, "/secrets", new()).await.assert_status(403);
    call_with_key(&other, Role::Owner, Method::GET, &path, None).await.assert_status(404);
    call_with_key(&other, Role::Owner, Method::DELETE, &path, None).await.assert_status(404);
    owner.api(Method::DELETE, &path, None).await.assert_status(204);
    owner.api(Method::GET, &path, None).await.assert_status(404);
    let audit = owner.api(Method::GET, "/audit-events?act=tool_secret.", None).await.assert_status(200).json();
    assert_eq!(audit["items"].as_array().unwrap().len(), 4);
    assert!(!audit.to_string().contains(VALUE));
    app.finish().await;
}

#[tokio::test]
async fn entries_are_imported_and_listed() {
    let app = App::new().await;
    let (acme, other) = (app.org("acme").await, app.org("other").await);
    let owner = ConsoleBrowser::owner(&acme).await;
    let imported = owner.api(Method::POST, "/catalog/import", Some(entry("1.0"))).await.assert_status(200).json();
    insta::assert_snapshot!(format!("{:#}", redact(imported.clone())), @r#"
    {
      "id": "…",
      "slug": "search",
      "name": "Search",
      "description": "",
      "categories": [],
      "license": null,
      "documentation_url": null,
      "state": "published",
      "versions": [
        {
          "id": "…",
          "version": "1.0",
          "source": {
            "image": "registry.example/search@sha256:abababababababababababababababababababababababababababababababab"
          },
          "transport": "streamable_http",
          "port": 8080,
          "path": "/mcp",
          "config_schema": {},
          "secrets": [
            {
              "name": "API_KEY",
              "description": "",
              "required": true,
              "as": "file"
            }
          ],
          "resources": "medium",
          "egress": [],
          "volumes": [],
          "sharing": "shared",
          "lazy": false,
          "created_at": "…"
        }
      ],
      "rating": null,
      "deployments": 0,
      "created_at": "…",
      "updated_at": "…",
      "version_id": "…",
      "change": "created"
    }
    "#);
    let path = format!("/catalog/{}", imported["id"].as_str().unwrap());
    let again = owner.api(Method::POST, "/catalog/import", Some(entry("1.0"))).await.assert_status(200).json();
    assert_eq!((&again["change"], &again["version_id"]), (&json!("unchanged"), &imported["version_id"]));
    let mut changed = entry("1.0");
    changed["port"] = json!(9_090);
    let conflict = owner.api(Method::POST, "/catalog/import", Some(changed)).await;
    assert_eq!(conflict.assert_status(409).json()["field"], "port");
    app.advance_clock(1_000).await;
    let second = owner.api(Method::POST, "/catalog/import", Some(entry("2.0"))).await.json();
    assert_eq!((&second["change"], &second["versions"][0]["version"]), (&json!("version_added"), &json!("2.0")));
    let shown = owner.api(Method::GET, &path, None).await.assert_status(200).json();
    assert_eq!(shown["versions"], second["versions"]);
    let page =
        call_with_key(&acme, Role::Member, Method::GET, "/catalog?limit=1", None).await.assert_status(200).json();
    assert_eq!(page, json!({ "items": [shown], "next_cursor": null }));
    owner.api(Method::GET, "/catalog?cursor=A%20B", None).await.assert_status(422);
    owner.api(Method::GET, "/catalog/cat_nothing", None).await.assert_status(404);
    call_with_key(&acme, Role::Member, Method::POST, "/catalog/import", Some(entry("3.0"))).await.assert_status(403);
    call_with_key(&acme, Role::Member, Method::DELETE, &path, None).await.assert_status(403);
    call_with_key(&other, Role::Owner, Method::GET, &path, None).await.assert_status(404);
    call_with_key(&other, Role::Owner, Method::DELETE, &path, None).await.assert_status(404);
    owner.api(Method::DELETE, &path, None).await.assert_status(204);
    owner.api(Method::DELETE, &path, None).await.assert_status(404);
    app.finish().await;
}

#[tokio::test]
async fn files_are_read_in_yaml_and_named_in_errors() {
    let app = App::new().await;
    let owner = ConsoleBrowser::owner(&app.org("acme").await).await;
    let yaml = format!(
        "slug: a\nname: A\nversion: '1'\ntransport: stdio\nsource: {{image: 'r.example/a@sha256:{}'}}\n",
        "0".repeat(64)
    );
    for kind in ["application/yaml", "text/yaml; charset=utf-8", "application/octet-stream"] {
        let response = import(&owner, "", kind, &yaml).await;
        assert_eq!(response.assert_status(200).json()["slug"], "a", "{kind}");
    }
    let broken =
        import(&owner, "?filename=broken.yaml", "application/octet-stream", "slug: [").await.assert_status(422).json();
    assert_eq!((&broken["file"], &broken["field"]), (&json!("broken.yaml"), &json!("file")));
    let key = import(&owner, "", "application/yaml", &format!("{yaml}cap_add: [SYS_ADMIN]\n")).await;
    insta::assert_snapshot!(key.assert_status(422).json(), @r#"{"type":"about:blank","title":"Unprocessable Entity","status":422,"detail":"entry.yaml: `cap_add` cannot be set: all containers are isolated in the same way. Remove it.","code":"invalid_arguments","field":"cap_add","file":"entry.yaml"}"#);
    import(&owner, "", "multipart/form-data; boundary=x", "--x--").await.assert_status(415);
    import(&owner, "?filename=%0A", "application/yaml", &yaml).await.assert_status(422);
    import(&owner, "?dry_run=true", "application/yaml", &yaml).await.assert_status(422);
    app.finish().await;
}

#[tokio::test]
async fn the_digest_is_requested_from_the_registry() {
    let setup = Setup { allow: vec!["127.0.0.0/8=tools".parse().unwrap()], ..Setup::default() };
    let app = App::with(setup).await;
    let owner = ConsoleBrowser::owner(&app.org("acme").await).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let registry = |uri: http::Uri| async move {
        match uri.path() {
            "/v2/search/manifests/1" => Ok([("docker-content-digest", format!("sha256:{}", "cd".repeat(32)))]),
            "/v2/closed/manifests/1" => Err(StatusCode::FORBIDDEN),
            _ => Err(StatusCode::NOT_FOUND),
        }
    };
    tokio::spawn(axum::serve(listener, Router::new().fallback(any(registry))).into_future());
    let mut tagged = entry("1.0");
    for (name, status, code) in
        [("search", 200, Value::Null), ("closed", 422, json!("image_denied")), ("other", 422, json!("image_not_found"))]
    {
        tagged["source"]["image"] = json!(format!("{host}/{name}:1"));
        tagged["slug"] = json!(name);
        let response = owner.api(Method::POST, "/catalog/import", Some(tagged.clone())).await;
        let body = response.assert_status(status).json();
        assert_eq!(body["code"], code);
        if status == 200 {
            let version = &body["versions"][0];
            assert_eq!(version["source"]["image"], format!("{host}/search@sha256:{}", "cd".repeat(32)));
            assert_eq!(version["image_tag"], "1");
        } else {
            assert_eq!((&body["field"], &body["file"]), (&json!("source.image"), &json!("entry.json")));
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn secrets_and_entries_that_instances_use_cannot_be_deleted() {
    let app = App::new().await;
    let owner = ConsoleBrowser::owner(&app.org("acme").await).await;
    let created = owner.api(Method::POST, "/secrets", Some(json!({ "name": "TOKEN", "value": VALUE }))).await.json();
    let imported = owner.api(Method::POST, "/catalog/import", Some(entry("1.0"))).await.json();
    const TOOLBOX: &str =
        "INSERT INTO toolboxes (id, organization_id, name, desired_revision, last_event, created_at, updated_at)
        SELECT 'tbx_1', organization_id, 'rack', 0, 0, 1, 1 FROM tool_secrets";
    const INSTANCE: &str = "INSERT INTO instances (id, organization_id, slug, slug_skeleton, name, catalog_version_id, toolbox_id,
            desired, state, generation, observed_generation, restarts, is_removing, config, learn_egress, rejected_egress,
            created_at, updated_at)
        SELECT 'ins_1', organization_id, 'web', 'web', 'Web', id, 'tbx_1', 'running', 'running', 1, 1, 0, FALSE, '{}', FALSE, '[]',
            1, 1 FROM catalog_versions";
    const MOUNT: &str =
        "INSERT INTO instance_secrets (instance_id, name, organization_id, secret_id, version, attempted_version)
        SELECT 'ins_1', 'API_KEY', organization_id, id, 1, 0 FROM tool_secrets";
    for sql in [TOOLBOX, INSTANCE, MOUNT] {
        app.execute(sql).await;
    }
    let secret = format!("/secrets/{}", created["id"].as_str().unwrap());
    let used = owner.api(Method::GET, &secret, None).await.json();
    assert_eq!(used["used_by"], json!([{ "id": "ins_1", "slug": "web" }]));
    let conflict = owner.api(Method::DELETE, &secret, None).await;
    insta::assert_snapshot!(conflict.assert_status(409).json(), @r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"These instances use this secret: `web`. Change or delete them first.","code":"conflict","instances":["web"],"catalog":[]}"#);
    let entry = format!("/catalog/{}", imported["id"].as_str().unwrap());
    assert_eq!(owner.api(Method::GET, &entry, None).await.json()["deployments"], 1);
    let conflict = owner.api(Method::DELETE, &entry, None).await;
    insta::assert_snapshot!(conflict.assert_status(409).json(), @r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"These instances use this entry: `web`. Delete them first.","code":"conflict","instances":["web"]}"#);
    app.finish().await;
}
