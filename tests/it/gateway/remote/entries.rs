//! Catalogue entries whose source is a remote server, and their instances.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Value, json};
use waypost_core::Code;
use waypost_ops::instances::{self, CatalogServer, InitialAccess, NewInstance, NewServer};

use super::Stage;
use super::server::Server;
use crate::console::ConsoleResponse;

/// Returns an entry with a remote server.
fn entry(version: &str, url: &str) -> Value {
    json!({
        "slug": "far-entry", "name": "Far", "version": version,
        "source": { "remote": { "url": url, "transport": "streamable_http" } },
    })
}

/// Returns an entry whose server needs a configuration and a secret.
fn demanding(version: &str, url: &str) -> Value {
    let mut entry = entry(version, url);
    entry["source"]["remote"]["headers"] = json!({ "X-Region": "region=${config.region}", "X-Client": "waypost" });
    entry["config_schema"] = json!({
        "properties": { "region": { "type": "string" } }, "required": ["region"], "additionalProperties": false,
    });
    entry["secrets"] = json!([{ "name": "Authorization" }, { "name": "X-Extra", "required": false }]);
    entry
}

fn image(version: &str) -> Value {
    json!({
        "slug": "far-entry", "name": "Far", "version": version, "transport": "stdio",
        "source": { "image": format!("registry.example/far@sha256:{}", "ab".repeat(32)) },
    })
}

impl Stage {
    /// Imports an entry. Returns the ID of its version.
    async fn import(&self, entry: Value) -> String {
        let imported = self.api.post("/catalog/import", entry).await.assert_status(200).json();
        imported["version_id"].as_str().unwrap().to_owned()
    }

    /// Returns the ID of a new secret.
    async fn secret(&self, value: &str) -> String {
        let secret = json!({ "name": format!("S-{}", value.len()), "value": value });
        self.api.post("/secrets", secret).await.assert_status(201).json()["id"].as_str().unwrap().to_owned()
    }

    async fn patch(&self, id: &str, body: Value) -> ConsoleResponse {
        self.api.call(Method::PATCH, &format!("/instances/{id}"), Some(body)).await
    }

    /// Creates an instance without a configuration and secrets. Returns its ID.
    async fn deploy(&self, slug: &str, version: &str) -> String {
        let new = json!({ "slug": slug, "catalog_version_id": version });
        self.api.post("/instances", new).await.assert_status(202).json()["id"].as_str().unwrap().to_owned()
    }
}

fn assert_invalid(response: &ConsoleResponse, field: &str) -> String {
    let body = response.assert_status(422).json();
    assert_eq!(body["field"], field, "{body}");
    body["detail"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_remote_entry_is_deployed_without_a_toolbox_and_used() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    let version = stage.import(demanding("1", &server.url)).await;
    let secret = stage.secret("Bearer planted-value").await;
    let new = |changes: Value| {
        let mut new = json!({
            "slug": "far", "catalog_version_id": version, "config": { "region": "eu" }, "secrets": { "Authorization": secret },
        });
        new.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        new
    };
    for (changes, field, words) in [
        (json!({ "toolbox_id": "tbx_0123456789abcdef" }), "toolbox_id", "This version is a remote server"),
        (json!({ "learn_egress": true }), "learn_egress", "This version is a remote server"),
        (json!({ "personal_secrets": ["X-Extra"] }), "personal_secrets", "This version is a remote server"),
        (json!({ "secrets": {} }), "secrets", "requires the secret `Authorization`"),
        (json!({ "secrets": { "Authorization": secret, "X-Other": secret } }), "secrets", "no secret named `X-Other`"),
        (json!({ "config": {} }), "config", "region"),
        (json!({ "config": { "region": "eu\nX-Evil: 1" } }), "config", "`X-Region` cannot contain control characters"),
    ] {
        let detail = assert_invalid(&stage.api.post("/instances", new(changes)).await, field);
        assert!(detail.contains(words), "{detail}");
    }
    let missing = stage.api.post("/instances", new(json!({ "secrets": {} }))).await.json();
    assert_eq!(missing["reason"], "secret_missing");
    let created = stage.api.post("/instances", new(json!({}))).await.assert_status(202).json();
    let origin = server.url.trim_end_matches("/mcp?key=s3cr3t");
    let remote = json!({ "origin": origin, "transport": "streamable_http", "oauth": false, "connection": "shared",
            "client_id": null, "client_secret_id": null });
    assert_eq!((&created["catalog_version_id"], &created["remote"]), (&json!(version), &remote));
    assert_eq!((&created["state"], &created["name"]), (&json!("deploying"), &json!("Far")));
    assert_eq!((&created["toolbox_id"], &created["deployment"]), (&Value::Null, &Value::Null));
    stage.check().await;
    let id = created["id"].as_str().unwrap();
    assert_eq!(stage.instance(id).await["state"], "running");
    let grant = json!({ "agent_id": stage.agent, "instance_id": id, "access": "full_access" });
    stage.api.post("/grants", grant).await.assert_status(201);
    stage.approve().await;
    assert_eq!(stage.call().await["result"]["n"], 1.0);
    assert!(server.state.lock().unwrap().paths.iter().all(|path| path == "/mcp?key=s3cr3t"));
    let (headers, _) = server.calls().pop().unwrap();
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!((header("x-region"), header("x-client")), (Some("region=eu"), Some("waypost")));
    assert_eq!((header("authorization"), header("x-extra")), (Some("Bearer planted-value"), None));
    // The new configuration is used from the next connection on.
    stage.patch(id, json!({ "config": { "region": "us" } })).await.assert_status(200);
    assert_eq!(stage.instance(id).await["state"], "deploying");
    stage.check().await;
    assert_eq!(stage.call().await["result"]["n"], 1.0);
    assert_eq!(server.calls().pop().unwrap().0["x-region"], "region=us");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_url_of_an_entry_is_never_shown_and_is_stored_encrypted() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    let imported = stage.api.post("/catalog/import", entry("1", &server.url)).await;
    let origin = server.url.trim_end_matches("/mcp?key=s3cr3t");
    let remote = json!({ "origin": origin, "transport": "streamable_http", "headers": {} });
    assert_eq!(imported.assert_status(200).json()["versions"][0]["source"], json!({ "remote": remote }));
    let audited = stage.api.app.query_lines("SELECT detail FROM audit_events WHERE act = 'catalog.import'").await;
    assert!(audited.contains(&format!("\"remote\":\"{origin}\"")), "{audited}");
    let stored = stage.api.app.query_lines("SELECT definition || ' ' || remote_url FROM catalog_versions").await;
    for text in [imported.body.clone(), stage.api.get("/catalog").await.to_string(), audited, stored] {
        assert!(!text.contains("s3cr3t") && !text.contains("/mcp"), "{text}");
    }
    // Importing the same file changes nothing. Another URL with the same origin is different content.
    let again = stage.api.post("/catalog/import", entry("1", &server.url)).await.assert_status(200).json();
    assert_eq!(again["change"], "unchanged");
    let other = stage.api.post("/catalog/import", entry("1", &format!("{origin}/other?key=s3cr3t"))).await;
    let body = other.assert_status(409).json();
    assert_eq!(body["field"], "source");
    assert!(!other.body.contains("s3cr3t"), "{body}");
    let version = again["version_id"].as_str().unwrap();
    stage.deploy("far", version).await;
    let stored = stage.api.app.query_lines("SELECT remote_url FROM instances").await;
    let in_catalog = stage.api.app.query_lines("SELECT remote_url FROM catalog_versions").await;
    assert!(stored != in_catalog && !stored.contains("s3cr3t"), "each is sealed to its row");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urls_of_entries_are_subject_to_the_rules_for_remote_servers() {
    let stage = Stage::new().await;
    let urls = [
        ("http://far.example.com:80/s3cr3t", None),
        ("http://93.184.215.14/s3cr3t", Some("http")),
        ("https://10.0.0.1/s3cr3t", Some("10.0.0.1")),
        ("https://169.254.169.254/s3cr3t", Some("169.254.169.254")),
        ("https://s3cr3t:s3cr3t@far.example/", Some("user name")),
        ("ftp://far.example/s3cr3t", Some("http")),
        ("https://far.example/#s3cr3t", Some("fragment")),
    ];
    for (version, (url, words)) in urls.into_iter().enumerate() {
        let response = stage.api.post("/catalog/import", entry(&version.to_string(), url)).await;
        match words {
            // The tests allow a private network, so host names are accepted because they may resolve to an address in
            // it.
            None => drop(response.assert_status(200)),
            Some(words) => {
                let detail = assert_invalid(&response, "source.remote.url");
                assert!(detail.contains(words) && !detail.contains("s3cr3t"), "{url}: {detail}");
            }
        }
    }
    let package = json!({ "registry": "npm", "name": "x", "version": "1" });
    let entry = json!({ "slug": "p", "name": "P", "version": "1", "source": { "package": package } });
    let detail = assert_invalid(&stage.api.post("/catalog/import", entry).await, "source");
    assert!(detail.contains("the kind `package`, which is not supported yet"), "{detail}");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_moves_an_instance_to_its_url_and_headers() {
    let (stage, first, second) = (Stage::new().await, Server::start().await, Server::start().await);
    let old = stage.import(entry("1", &first.url)).await;
    let new = stage.import(demanding("2", &second.url)).await;
    let container = stage.import(image("3")).await;
    let id = stage.deploy("far", &old).await;
    stage.check().await;
    assert_eq!(stage.instance(&id).await["state"], "running");
    let detail =
        assert_invalid(&stage.patch(&id, json!({ "catalog_version_id": container })).await, "catalog_version_id");
    assert!(detail.contains("runs on a toolbox, but the instance is a remote server"), "{detail}");
    for (body, field) in [
        (json!({ "remote": { "url": second.url } }), "remote"),
        (json!({ "learn_egress": true }), "learn_egress"),
        (json!({ "personal_secrets": ["Authorization"] }), "personal_secrets"),
        (json!({ "catalog_version_id": "ctv_0123456789abcdef" }), "catalog_version_id"),
        (json!({ "catalog_version_id": new, "config": { "region": "eu" } }), "secrets"),
        (json!({ "catalog_version_id": new, "secrets": {} }), "config"),
    ] {
        assert_invalid(&stage.patch(&id, body).await, field);
    }
    stage.patch(&id, json!({ "name": "Renamed" })).await.assert_status(200);
    let unchanged = stage.instance(&id).await;
    assert_eq!((&unchanged["generation"], &unchanged["catalog_version_id"]), (&json!(1), &json!(old)));
    assert_eq!(second.state.lock().unwrap().paths.len(), 0);
    let secret = stage.secret("Bearer planted").await;
    let change = json!({
        "catalog_version_id": new, "config": { "region": "eu" }, "secrets": { "Authorization": secret },
    });
    let moved = stage.patch(&id, change).await.assert_status(200).json();
    assert_eq!((&moved["state"], &moved["generation"]), (&json!("deploying"), &json!(2)));
    assert_eq!(moved["remote"]["origin"], second.url.trim_end_matches("/mcp?key=s3cr3t"));
    let used = first.state.lock().unwrap().paths.len();
    stage.check().await;
    assert_eq!(stage.instance(&id).await["state"], "running");
    assert_eq!(first.state.lock().unwrap().paths.len(), used, "the old server is not used again");
    {
        let state = second.state.lock().unwrap();
        let (headers, _) = state.received.last().unwrap();
        assert_eq!(
            (&headers["x-region"], &headers["authorization"]),
            (&"region=eu".parse().unwrap(), &"Bearer planted".parse().unwrap())
        );
    }
    // An instance on a toolbox cannot become remote, and an instance that is not from the catalogue has no version.
    let created = stage.api.post("/toolboxes", json!({ "name": "rack" })).await.json();
    stage.api.join(created["join"]["token"].as_str().unwrap()).await;
    let on_toolbox = stage.deploy("near", &container).await;
    let detail =
        assert_invalid(&stage.patch(&on_toolbox, json!({ "catalog_version_id": new })).await, "catalog_version_id");
    assert!(detail.contains("is a remote server, but the instance runs on a toolbox"), "{detail}");
    let own = json!({ "slug": "own", "remote": { "url": first.url } });
    let own = stage.api.post("/instances", own).await.assert_status(202).json();
    let change = json!({ "catalog_version_id": old });
    assert_invalid(&stage.patch(own["id"].as_str().unwrap(), change).await, "catalog_version_id");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approvals_apply_to_all_instances_of_a_version() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    let version = stage.import(entry("1", &server.url)).await;
    stage.deploy("far", &version).await;
    stage.check().await;
    stage.approve().await;
    // One instance is created after the approval, and one before it.
    let other = stage.import(entry("2", &server.url)).await;
    stage.deploy("near", &version).await;
    stage.deploy("other", &other).await;
    stage.check().await;
    let pending = stage.api.get("/tool-approvals?state=pending").await;
    let approvals = pending["items"].as_array().unwrap();
    let own = stage.api.get("/instances").await["items"][2].clone();
    assert_eq!(own["slug"], "other");
    assert!(
        !approvals.is_empty() && approvals.iter().all(|approval| approval["instance_id"] == own["id"]),
        "{pending}"
    );
    stage.deploy("same", &other).await;
    stage.check().await;
    stage.approve_instance(own["id"].as_str().unwrap()).await;
    assert_eq!(stage.api.get("/tool-approvals?state=pending").await["items"], json!([]));
    stage.api.app.clone().finish().await;
}

impl Stage {
    /// Approves the pending definitions of an instance.
    async fn approve_instance(&self, instance: &str) {
        let pending = self.api.get(&format!("/tool-approvals?state=pending&instance_id={instance}")).await;
        for approval in pending["items"].as_array().unwrap() {
            assert_eq!(approval["instance_id"], instance);
            let path = format!("/tool-approvals/{}/approve", approval["id"].as_str().unwrap());
            self.api.post(&path, json!({ "digest": approval["digest"], "class": "read" })).await.assert_status(200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_of_a_remote_entry_are_counted_and_prevent_its_deletion() {
    let (stage, server) = (Stage::new().await, Server::start().await);
    let version = stage.import(entry("1", &server.url)).await;
    let id = stage.deploy("far", &version).await;
    let entry = stage.api.get("/catalog").await["items"][0].clone();
    assert_eq!(entry["deployments"], 1);
    let path = format!("/catalog/{}", entry["id"].as_str().unwrap());
    let conflict = stage.api.call(Method::DELETE, &path, None).await.assert_status(409).json();
    assert_eq!(conflict["instances"], json!(["far"]));
    let (cx, org) = (stage.api.app.cx(), &stage.api.org.id);
    let ops = stage.api.app.running_ops().with_instance_limit(1);
    let server = CatalogServer {
        catalog_version_id: version.parse().unwrap(),
        toolbox_id: None,
        config: serde_json::Map::new(),
        personal_secrets: BTreeSet::new(),
        learn_egress: false,
    };
    let server = NewServer::Catalog(server);
    let new = NewInstance {
        slug: "near".to_owned(),
        name: None,
        server,
        secrets: BTreeMap::new(),
        access: InitialAccess::default(),
    };
    let limited = instances::create(cx, &ops, org, &new).await.unwrap_err();
    assert_eq!((limited.code, &limited.details["reason"]), (Code::Conflict, &json!("instance_limit")));
    stage.api.call(Method::DELETE, &format!("/instances/{id}"), None).await.assert_status(202);
    stage.api.call(Method::DELETE, &path, None).await.assert_status(204);
    stage.api.app.clone().finish().await;
}
