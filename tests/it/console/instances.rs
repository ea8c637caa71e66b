//! Toolboxes, instances and deployments over the REST API.

use http::Method;
use insta::assert_snapshot;
use serde_json::{Value, json};
use waypost_core::organization::Role;
use waypost_link::Directory;
use waypost_ops::toolbox_directory::ToolboxDirectory;
use waypost_ops::toolboxes;
use waypost_toolbox_proto::deployment::{DeploymentError, DeploymentStep, ErrorCode};
use waypost_toolbox_proto::handshake::{JoinRequest, Versions};
use waypost_toolbox_proto::instance::{Health, InstanceState};
use waypost_toolbox_proto::message::{
    Capacity, DaemonMessage, DeploymentOutcome, Engine, Heartbeat, InstanceReport, ToolboxEvent,
};

use super::{ConsoleResponse, call_with_secret, create_key};
use crate::app::{App, Org, Setup};
use crate::daemon;

pub struct Api {
    pub app: App,
    pub org: Org,
    pub key: String,
}

impl Api {
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        let app = App::with(setup).await;
        let org = app.org("acme").await;
        let key = create_key(&app, &org.id, Role::Admin).await;
        Self { app, org, key }
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> ConsoleResponse {
        call_with_secret(&self.app, &self.key, method, path, body).await
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, None).await.assert_status(200).json()
    }

    pub async fn post(&self, path: &str, body: Value) -> ConsoleResponse {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Returns JSON with redacted IDs.
    fn pretty(&self, value: &Value) -> String {
        self.app.redact(&serde_json::to_string_pretty(value).unwrap())
    }

    async fn fill_catalog(&self) {
        const ENTRY: &str = "INSERT INTO catalog_entries
            SELECT 'cat_0123456789abcdef', id, 'search', 'Search', '', '[]', NULL, NULL, 'published', 1, 1 FROM organizations";
        const VERSION: &str = "INSERT INTO catalog_versions SELECT 'ctv_0123456789abcdef', organization_id, id, '1',
            '{\"source\":{\"image\":\"registry.example/own@sha256:0\"},\"transport\":\"stdio\",\"resources\":\"light\"}', 1, NULL
            FROM catalog_entries";
        self.app.execute(ENTRY).await;
        self.app.execute(VERSION).await;
    }

    fn directory(&self) -> ToolboxDirectory {
        daemon::directory(&self.app)
    }

    /// Simulates a machine that joins and sends a heartbeat.
    pub async fn join(&self, token: &str) -> waypost_core::id::ToolboxId {
        let request = JoinRequest {
            token: token.to_owned(),
            public_key: daemon::public_key(),
            protocol: Versions::OWN,
            version: "0.1.0".to_owned(),
        };
        let joined = toolboxes::join(self.app.cx(), &self.app.ops(), &request).await.unwrap();
        let engine = Engine {
            version: "20.10.24".into(),
            runtime: "runc 1.1.5".into(),
            os: "linux".into(),
            architecture: "amd64".into(),
        };
        let heartbeat = Heartbeat {
            version: "0.1.0".into(),
            engine: Some(engine),
            capacity: Capacity { cpus: 2.0, memory_bytes: 1 << 32, disk_free_bytes: 1 << 33 },
            desired_revision: 0,
            instances: Vec::new(),
        };
        let id = joined.toolbox_id.parse().unwrap();
        self.directory().receive(&id, DaemonMessage::Heartbeat(heartbeat)).await.unwrap();
        id
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toolbox_is_created_joined_and_revoked() {
    let api = Api::new().await;
    let response = api.post("/toolboxes", json!({ "name": "rack" })).await;
    response.assert_status(201);
    assert_eq!(response.header("cache-control"), "no-store");
    let created = response.json();
    let (id, token) = (created["id"].as_str().unwrap(), created["join"]["token"].as_str().unwrap());
    assert_eq!(response.location(), format!("/api/v1/toolboxes/{id}"));
    assert_snapshot!(api.pretty(&created).replace(token, "TOKEN"), @r#"
    {
      "id": "tbx:1",
      "name": "rack",
      "state": "pending",
      "version": null,
      "engine": null,
      "capacity": null,
      "allocated": {
        "cpus": 0.0,
        "memory_bytes": 0
      },
      "instance_count": 0,
      "last_seen_at": null,
      "join": {
        "token": "TOKEN",
        "expires_at": "2026-11-18T11:21:40.000Z",
        "command": "echo TOKEN | waypost toolbox join --url http://localhost:8080 --token-file -"
      }
    }
    "#);
    api.join(token).await;
    let joined = api.get(&format!("/toolboxes/{id}")).await;
    assert_snapshot!(api.pretty(&joined), @r#"
    {
      "id": "tbx:1",
      "name": "rack",
      "state": "online",
      "version": "0.1.0",
      "engine": {
        "version": "20.10.24",
        "runtime": "runc 1.1.5",
        "os": "linux",
        "architecture": "amd64"
      },
      "capacity": {
        "cpus": 2.0,
        "memory_bytes": 4294967296,
        "disk_free_bytes": 8589934592
      },
      "allocated": {
        "cpus": 0.0,
        "memory_bytes": 0
      },
      "instance_count": 0,
      "last_seen_at": "2026-11-18T11:06:40.000Z"
    }
    "#);
    assert_eq!(api.get("/toolboxes").await, json!({ "items": [joined], "next_cursor": null }));
    api.post(&format!("/toolboxes/{id}/renew-token"), json!({})).await.assert_status(409);
    api.post("/toolboxes", json!({ "name": "rack" })).await.assert_status(409);
    api.post("/toolboxes", json!({ "name": "b", "url": "x" })).await.assert_status(422);
    api.post("/toolboxes", json!({ "name": "other" })).await.assert_status(201);
    let page = api.get("/toolboxes?limit=1").await;
    assert_eq!((&page["items"][0]["name"], &page["next_cursor"]), (&json!("other"), &json!("other")));
    assert_eq!(api.get("/toolboxes?limit=1&cursor=other").await["items"][0]["name"], "rack");
    let path = format!("/toolboxes/{id}");
    let renamed = api.call(Method::PATCH, &path, Some(json!({ "name": "shelf" }))).await.assert_status(200).json();
    assert_eq!(renamed["name"], "shelf");
    api.post(&format!("{path}/rotate-key"), json!({})).await.assert_status(200);
    let revoked = api.post(&format!("{path}/revoke"), json!({})).await.assert_status(200).json();
    assert_eq!(revoked["state"], "revoked");
    api.call(Method::DELETE, &path, None).await.assert_status(204);
    api.call(Method::GET, &path, None).await.assert_status(404);
    api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_a_pending_toolbox_is_renewed() {
    let api = Api::new().await;
    let created = api.post("/toolboxes", json!({ "name": "rack" })).await.json();
    let path = format!("/toolboxes/{}/renew-token", created["id"].as_str().unwrap());
    let response = api.post(&path, json!({})).await;
    response.assert_status(200);
    assert_eq!(response.header("cache-control"), "no-store");
    let renewed = response.json();
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&renewed), members(&created));
    assert_eq!(members(&renewed["join"]), ["token", "expires_at", "command"]);
    assert_ne!(renewed["join"]["token"], created["join"]["token"]);
    api.join(renewed["join"]["token"].as_str().unwrap()).await;
    api.post(&path, json!({})).await.assert_status(409);
    api.post("/toolboxes/tbx_0123456789abcdef/renew-token", json!({})).await.assert_status(404);
    api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_deployed_changed_and_removed() {
    let api = Api::new().await;
    api.fill_catalog().await;
    let new = json!({ "slug": "search", "catalog_version_id": "ctv_0123456789abcdef", "config": { "lang": "en" } });
    let problem = api.post("/instances", new.clone()).await.assert_status(409).json();
    assert_eq!((&problem["code"], &problem["reason"]), (&json!("conflict"), &json!("no_capacity")));
    let created = api.post("/toolboxes", json!({ "name": "rack" })).await.json();
    let toolbox = api.join(created["join"]["token"].as_str().unwrap()).await;
    let response = api.post("/instances", new.clone()).await;
    response.assert_status(202);
    let created = response.json();
    let path = format!("/instances/{}", created["id"].as_str().unwrap());
    assert_eq!(response.location(), format!("/api/v1{path}"));
    assert_snapshot!(api.pretty(&created), @r#"
    {
      "id": "ins:1",
      "slug": "search",
      "name": "Search",
      "catalog_version_id": "ctv:1",
      "toolbox_id": "tbx:1",
      "remote": null,
      "desired": "running",
      "state": "deploying",
      "generation": 1,
      "observed_generation": 0,
      "health": null,
      "config": {
        "lang": "en"
      },
      "secrets": {},
      "personal_secrets": [],
      "record_contents": false,
      "deployment": {
        "id": "dep:1",
        "state": "running",
        "step": "validating",
        "error": null,
        "started_at": "2026-11-18T11:06:40.000Z",
        "ended_at": null
      }
    }
    "#);
    let problem = api.post("/instances", new).await.assert_status(409).json();
    assert_eq!(problem["field"], "slug");
    report(&api, &toolbox, &created).await;
    let failed = api.get(&path).await;
    assert_snapshot!(api.pretty(&failed), @r#"
    {
      "id": "ins:1",
      "slug": "search",
      "name": "Search",
      "catalog_version_id": "ctv:1",
      "toolbox_id": "tbx:1",
      "remote": null,
      "desired": "running",
      "state": "failed",
      "generation": 1,
      "observed_generation": 0,
      "health": {
        "ok": false,
        "checked_at": "2026-11-18T11:06:40.000Z",
        "latency_ms": null,
        "message": "No answer."
      },
      "config": {
        "lang": "en"
      },
      "secrets": {},
      "personal_secrets": [],
      "record_contents": false,
      "deployment": {
        "id": "dep:1",
        "state": "failed",
        "step": "checking",
        "error": {
          "step": "checking",
          "code": "health_timeout",
          "cause": "The server did not answer within 60 seconds.",
          "next_action": "Read the log of the instance."
        },
        "started_at": "2026-11-18T11:06:40.000Z",
        "ended_at": "2026-11-18T11:06:40.000Z"
      }
    }
    "#);
    let deployments = api.get(&format!("{path}/deployments")).await;
    assert_eq!(deployments, json!({ "items": [failed["deployment"]], "next_cursor": null }));
    let deployment = failed["deployment"]["id"].as_str().unwrap();
    assert_eq!(api.get(&format!("{path}/deployments/{deployment}")).await, failed["deployment"]);
    let events = api.get(&format!("{path}/events")).await;
    assert_eq!(events["items"][0]["kind"], "state");
    assert_eq!(api.get(&format!("{path}/egress")).await, json!({ "learn": false, "rejected": ["api.example:443"] }));
    let change = Some(json!({ "config": { "lang": "de" }, "learn_egress": true }));
    let changed = api.call(Method::PATCH, &path, change).await.assert_status(200).json();
    assert_eq!((&changed["generation"], &changed["state"]), (&json!(2), &json!("deploying")));
    for (action, desired) in [("stop", "stopped"), ("start", "running"), ("restart", "running")] {
        let found = api.post(&format!("{path}/{action}"), json!({})).await.assert_status(200).json();
        assert_eq!(found["desired"], desired, "{action}");
    }
    api.call(Method::DELETE, &path, None).await.assert_status(202);
    assert_eq!(api.get(&path).await["state"], "removing");
    api.post(&format!("{path}/start"), json!({})).await.assert_status(409);
    api.app.finish().await;
    drop(api.org);
}

/// Reports that the first deployment of an instance failed because its server did not become healthy.
async fn report(api: &Api, toolbox: &waypost_core::id::ToolboxId, instance: &Value) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (id, deployment_id) = (text(&instance["id"]), text(&instance["deployment"]["id"]));
    let at = api.app.cx().clock.now().0;
    let health = Health { ok: false, checked_at: at, latency_ms: None, message: Some("No answer.".into()) };
    let error = DeploymentError {
        step: DeploymentStep::Checking,
        code: ErrorCode::HealthTimeout,
        cause: "The server did not answer within 60 seconds.".into(),
        next_action: "Read the log of the instance.".into(),
    };
    let report = InstanceReport { id: id.clone(), generation: 1, state: InstanceState::Failed, health: Some(health) };
    let outcome = DeploymentOutcome::Failed { error };
    let events = [
        ToolboxEvent::EgressRejected { instance_id: id.clone(), destinations: vec!["api.example:443".into()] },
        ToolboxEvent::DeploymentEnded { deployment_id, instance_id: id, outcome },
        ToolboxEvent::Instance(report),
    ];
    for (sequence, event) in (1..).zip(events) {
        let message = DaemonMessage::Event { sequence, at, event };
        api.directory().receive(toolbox, message).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_requests_name_the_field_and_retries_create_nothing() {
    let api = Api::new().await;
    api.fill_catalog().await;
    let valid = json!({ "slug": "search", "catalog_version_id": "ctv_0123456789abcdef" });
    for (member, value) in [
        ("slug", json!("Search")),
        ("catalog_version_id", json!("ctv_x")),
        ("catalog_version_id", json!("ctv_fedcba9876543210")),
        ("toolbox_id", json!("rack")),
        ("secrets", json!({ "TOKEN": "x" })),
        ("secrets", json!({ "TOKEN": "sec_0123456789abcdef" })),
        ("name", json!("")),
        ("config", json!({ "path": "/tmp" })),
    ] {
        let mut new = valid.clone();
        new[member] = value.clone();
        let problem = api.post("/instances", new).await.assert_status(422).json();
        assert_eq!(problem["field"], member, "{value}: {problem}");
    }
    api.post("/instances", json!({ "slug": "a" })).await.assert_status(422);
    api.call(Method::GET, "/instances?limit=0", None).await.assert_status(422);
    api.call(Method::GET, "/instances/ins_0123456789abcdef/deployments?cursor=x", None).await.assert_status(422);
    for path in ["/instances/x", "/instances/ins_0123456789abcdef", "/toolboxes/rack", "/instances/x/events"] {
        api.call(Method::GET, path, None).await.assert_status(404);
    }
    // A retry with the same key returns the same toolbox with the same token.
    let send = async || {
        let request = http::Request::post("/api/v1/toolboxes")
            .header("host", "localhost:8080")
            .header("authorization", format!("Bearer {}", api.key))
            .header("content-type", "application/json")
            .header("idempotency-key", "once")
            .body(axum::body::Body::from(json!({ "name": "rack" }).to_string()))
            .unwrap();
        super::read_response(api.app.send(request).await).await
    };
    let (first, second) = (send().await, send().await);
    first.assert_status(201);
    assert_eq!((second.status, &second.body), (first.status, &first.body));
    assert_eq!(api.app.count("SELECT count(*) FROM toolboxes").await, 1);
    api.app.finish().await;
}
