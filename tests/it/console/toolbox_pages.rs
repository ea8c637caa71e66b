//! The console's pages for toolboxes, instances and the catalogue.

use axum::body::Body;
use http::{Method, Request, header};
use serde_json::{Value, json};
use waypost_core::id::ToolboxId;
use waypost_core::organization::Role;
use waypost_link::Directory;
use waypost_ops::ToolboxSwitch;
use waypost_toolbox_proto::deployment::{DeploymentError, DeploymentStep, ErrorCode};
use waypost_toolbox_proto::instance::{Health, InstanceState};
use waypost_toolbox_proto::message::{DaemonMessage, DeploymentOutcome, InstanceReport, ToolboxEvent};

use super::instances::Api;
use super::{ConsoleBrowser, ConsoleResponse};
use crate::app::{App, Setup};
use crate::daemon::{self, Daemon};

/// An organisation with an owner, a member who is not an admin, a catalogue entry and a toolbox that is online.
pub struct Stage {
    pub api: Api,
    pub owner: ConsoleBrowser,
    pub member: ConsoleBrowser,
    toolbox: ToolboxId,
    entry: Value,
    /// The ID of the secret `TOKEN`.
    pub secret: String,
    /// The sequence number of the toolbox's last event.
    sequence: u64,
}

fn entry(version: &str) -> Value {
    json!({
        "slug": "search-tool", "name": "Search <tool>", "version": version, "transport": "stdio",
        "source": { "image": format!("registry.example/search@sha256:{}", "ab".repeat(32)) },
        "config_schema": {
            "type": "object",
            "properties": {
                "url": { "type": "string", "title": "Base URL" },
                "port": { "type": "integer", "maximum": 65535, "default": 443 },
                "mode": { "enum": ["fast", "slow"] },
                "tags": { "type": "array", "items": { "type": "string" } },
            },
            "required": ["url"],
            "additionalProperties": false,
        },
        "secrets": [{ "name": "API_KEY", "description": "Of the service.", "as": "env" }],
    })
}

impl Stage {
    pub async fn new() -> Self {
        let api = Api::new().await;
        let owner = ConsoleBrowser::owner(&api.org).await.for_org("acme");
        let member = ConsoleBrowser::member(&api.org, "member@example.com", Role::Member).await;
        let entry = api.post("/catalog/import", entry("1")).await.assert_status(200).json();
        let secret = api.post("/secrets", json!({ "name": "TOKEN", "value": "hunter2-planted" })).await.json();
        let created = api.post("/toolboxes", json!({ "name": "rack" })).await.json();
        let toolbox = api.join(created["join"]["token"].as_str().unwrap()).await;
        let secret = secret["id"].as_str().unwrap().to_owned();
        Self { api, owner, member, toolbox, entry, secret, sequence: 0 }
    }

    fn version(&self) -> &str {
        self.entry["versions"][0]["id"].as_str().unwrap()
    }

    async fn deploy(&self, fields: &[(&str, &str)]) -> ConsoleResponse {
        let base = [("catalog_version_id", self.version()), ("slug", "search"), ("name", "Search")];
        self.owner.post("/o/acme/instances", &[&base[..], fields].concat()).await
    }

    /// Deploys an instance, which uses the secret. Returns the path of its page.
    pub async fn instance(&self) -> String {
        let created = self.deploy(&[("config-0", "https://x.example"), ("secret-0", &self.secret)]).await;
        assert_eq!(created.status, 303, "{}", created.body);
        created.location().to_owned()
    }

    async fn report(&mut self, event: ToolboxEvent) {
        self.sequence += 1;
        let at = self.api.app.cx().clock.now().0;
        let message = DaemonMessage::Event { sequence: self.sequence, at, event };
        daemon::directory(&self.api.app).receive(&self.toolbox, message).await.unwrap();
    }

    /// Ends the current deployment of an instance.
    async fn end(&mut self, page: &str, outcome: DeploymentOutcome, state: InstanceState) {
        let instance = self.api.get(&format!("/instances/{}", page.rsplit('/').next().unwrap())).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (id, deployment_id) = (text(&instance["id"]), text(&instance["deployment"]["id"]));
        let generation = instance["generation"].as_u64().unwrap();
        let health = (state == InstanceState::Running).then_some(Health {
            ok: true,
            checked_at: 1_700_000_000_000,
            latency_ms: Some(7),
            message: None,
        });
        let ended = ToolboxEvent::DeploymentEnded { deployment_id, instance_id: id.clone(), outcome };
        self.report(ended).await;
        self.report(ToolboxEvent::Instance(InstanceReport { id, generation, state, health })).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_toolbox_is_added_and_shown_when_it_connects() {
    let api = Api::new().await;
    let owner = ConsoleBrowser::owner(&api.org).await;
    let member = ConsoleBrowser::member(&api.org, "member@example.com", Role::Member).await;
    owner.get_page("/o/acme/instances").await.assert_contains("Add a machine as a toolbox first.");
    owner
        .get_page("/o/acme/toolboxes")
        .await
        .assert_contains("No toolboxes yet")
        .assert_contains(">Add toolbox</button>");
    member.get_page("/o/acme/toolboxes").await.assert_contains("Ask an admin").assert_lacks(">Add toolbox</button>");
    owner.post("/o/acme/toolboxes", &[("name", " ")]).await.assert_status(422).assert_contains("id=\"e-name\"");
    let created = owner.post("/o/acme/toolboxes", &[("name", "rack <1>")]).await;
    created.assert_status(200).assert_contains("rack &#60;1&#62;").assert_contains("Waiting for the machine");
    assert_eq!((created.header("cache-control"), created.header("content-encoding")), ("no-store", ""));
    let token = created.body.split("echo ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert!(token.starts_with("wpt_"), "{token}");
    created.assert_contains("--url http://localhost:8080 --token-file -");
    owner.post("/o/acme/toolboxes", &[("name", "rack <1>")]).await.assert_status(409);
    let id = api.get("/toolboxes").await["items"][0]["id"].as_str().unwrap().to_owned();
    let page = format!("/o/acme/toolboxes/{id}");
    owner.get_page(&page).await.assert_lacks(&token).assert_contains("Waiting for the machine");
    api.join(&token).await;
    let status = owner.get_page(&format!("{page}/status")).await;
    status.assert_contains("data-announce=\"The toolbox is online.\"").assert_contains("Docker 20.10.24, runc 1.1.5");
    status.assert_contains("runc 1.1.5 is older than 1.1.12");
    status.assert_contains("0 B of 4 GiB").assert_contains("0 of 8 CPUs").assert_lacks("<html");
    let rows = owner.get_page("/o/acme/toolboxes/rows").await;
    rows.assert_contains("<span class=\"badge good\">online</span>").assert_contains("0.1.0");
    member.get_page(&page).await.assert_lacks("<form method=\"post\" action=\"/o/");
    api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_is_reported() {
    let api = Api::new().await;
    let owner = ConsoleBrowser::owner(&api.org).await;
    let created = api.post("/toolboxes", json!({ "name": "rack" })).await.json();
    let page = format!("/o/acme/toolboxes/{}", created["id"].as_str().unwrap());
    owner.get_page(&page).await.assert_lacks("has expired");
    api.app.advance_clock(15 * 60 * 1_000).await;
    owner.get_page(&page).await.assert_contains("The token has expired");
    let member = ConsoleBrowser::member(&api.org, "member@example.com", Role::Member).await;
    member.get_page(&page).await.assert_lacks("Create a new join command");
    member.post(&format!("{page}/renew-token"), &[]).await.assert_status(403);
    let renewed = owner.post(&format!("{page}/renew-token"), &[]).await;
    renewed.assert_status(200).assert_contains("Connect the machine").assert_lacks("The token has expired");
    assert_eq!((renewed.header("cache-control"), renewed.header("content-encoding")), ("no-store", ""));
    let token = renewed.body.split("echo ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    owner.get_page(&page).await.assert_lacks(&token).assert_contains("Create a new join command");
    api.join(&token).await;
    owner.get_page(&page).await.assert_lacks("Create a new join command");
    owner.post(&format!("{page}/renew-token"), &[]).await.assert_status(409).assert_contains("Only a pending toolbox");
    api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchanged_fragments_are_not_sent_again() {
    let stage = Stage::new().await;
    let path = "/o/acme/toolboxes/rows";
    let first = stage.owner.get_page(path).await;
    let poll = async |tag: &str| {
        let request = Request::get(path).header(header::IF_NONE_MATCH, tag).header("hx-request", "true");
        stage.owner.send(request.body(Body::empty()).unwrap()).await
    };
    let unchanged = poll(first.header("etag")).await;
    assert_eq!((unchanged.status.as_u16(), unchanged.body.as_str()), (304, ""));
    stage.instance().await;
    let changed = poll(first.header("etag")).await;
    changed.assert_status(200).assert_contains("1 GiB of 4 GiB");
    // The status tells the script that the session has expired.
    let visitor = ConsoleBrowser::new(&stage.api.app);
    let request = Request::get(path).header("hx-request", "true");
    visitor.send(request.body(Body::empty()).unwrap()).await.assert_status(401);
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn toolboxes_are_renamed_revoked_and_deleted() {
    let stage = Stage::new().await;
    let Stage { owner, member, .. } = &stage;
    let page = format!("/o/acme/toolboxes/{}", stage.toolbox);
    owner.post("/o/acme/toolboxes", &[("name", "other")]).await.assert_status(200);
    let taken = owner.post(&page, &[("name", "other")]).await;
    taken.assert_status(409).assert_contains("value=\"other\"").assert_contains("already exists");
    owner.post(&page, &[("name", "shelf")]).await.assert_redirect(&page);
    owner.get_page(&page).await.assert_contains("<bdi>shelf</bdi>");
    owner.post(&format!("{page}/rotate-key"), &[]).await.assert_redirect(&page);
    owner.get_page(&page).await.assert_contains("<dt>Key rotation</dt>");
    let instance = stage.instance().await;
    let refused = owner.post(&format!("{page}/delete"), &[]).await;
    refused.assert_status(409).assert_contains("still has instances: “search”");
    owner.get_page(&page).await.assert_contains(&instance);
    owner.post(&format!("{page}/revoke"), &[]).await.assert_redirect(&page);
    owner.get_page(&page).await.assert_contains(">revoked</span>").assert_lacks("Rotate key");
    owner.post(&format!("{page}/rotate-key"), &[]).await.assert_status(409).assert_contains("is revoked");
    for action in ["", "/rotate-key", "/revoke", "/delete"] {
        member.post(&format!("{page}{action}"), &[("name", "x")]).await.assert_status(403);
    }
    owner.post(&format!("{page}/delete"), &[]).await.assert_redirect("/o/acme/toolboxes");
    owner.get(&page).await.assert_status(404);
    owner.get(&instance).await.assert_status(404);
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_deployed_with_a_form_for_its_schema() {
    let mut stage = Stage::new().await;
    stage.owner.get_page("/o/acme/instances/new").await.assert_contains("Search &#60;tool&#62; (search-tool)");
    let entry = stage.entry["id"].as_str().unwrap();
    let form = stage.owner.get_page(&format!("/o/acme/instances/new?entry={entry}")).await;
    form.assert_contains("<label for=\"f-config-0\">Base URL (required)</label>").assert_contains("value=\"443\"");
    form.assert_contains("Of the service. Provided as an environment variable.").assert_contains(">TOKEN</option>");
    form.assert_contains(">rack</option>").assert_contains("value=\"search-tool\"").assert_contains(">Deploy</button>");
    for (fields, status, marker) in [
        (&[("config-0", "x"), ("config-1", "many")][..], 422, "id=\"e-config-1\">Enter a number"),
        (&[("config-0", "x"), ("config-1", "70000")], 422, "id=\"e-config-1\">This is not a valid value"),
        (&[("config-0", "x"), ("config-2", "\"other\"")], 422, "id=\"e-config-2\">Select one"),
        (&[("config-0", "x"), ("config-3", "[1")], 422, "id=\"e-config-3\">This is not valid JSON"),
        (&[("config-1", "1")], 422, "id=\"e-config-0\">Enter a value"),
        (&[("config-0", "kept")], 422, "This version requires the secret “API_KEY”"),
        (&[("config-0", "x"), ("secret-0", "sec_x")], 422, "id=\"e-secret-0\">Select one"),
        (&[("config-0", "x"), ("toolbox_id", "x")], 422, "id=\"e-toolbox_id\">Select one"),
    ] {
        let rejected = stage.deploy(fields).await;
        rejected.assert_status(status).assert_contains(marker).assert_contains("value=\"search\"");
    }
    stage.deploy(&[("config-0", "kept")]).await.assert_contains("value=\"kept\"");
    let config =
        [("config-0", "https://x.example"), ("config-1", "8080"), ("config-2", "\"fast\""), ("config-3", "[\"a\"]")];
    let created = stage.deploy(&[&config[..], &[("secret-0", &stage.secret), ("learn_egress", "true")]].concat()).await;
    let page = created.location().to_owned();
    let instance = stage.api.get(&page.replace("/o/acme", "")).await;
    let expected = json!({ "url": "https://x.example", "port": 8080, "mode": "fast", "tags": ["a"] });
    assert_eq!((&instance["config"], &instance["secrets"]), (&expected, &json!({ "API_KEY": stage.secret })));
    stage.deploy(&config).await.assert_status(409).assert_contains("id=\"e-slug\"");
    let shown = stage.owner.get_page(&page).await;
    shown.assert_contains("data-announce=\"The instance is deploying.\"").assert_contains("<li class=\"next\">");
    shown.assert_contains(">Stop</button>").assert_contains("Rejected connections");
    stage.owner.get_page("/o/acme/instances/rows").await.assert_contains("<small class=\"soft\">validating</small>");
    stage.end(&page, DeploymentOutcome::Complete, InstanceState::Running).await;
    let status = stage.owner.get_page(&format!("{page}/status")).await;
    status.assert_contains("The instance is running.").assert_contains("7 ms").assert_lacks("<li class=\"next\">");
    stage.owner.get_page(&format!("{page}/badge")).await.assert_contains("<span class=\"badge good\">running</span>");
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_form_approves_tools_grants_access_and_lists_known_tools() {
    let stage = Stage::new().await;
    let entry = stage.entry["id"].as_str().unwrap();
    let form = stage.owner.get_page(&format!("/o/acme/instances/new?entry={entry}")).await;
    form.assert_contains("Approve everything the server lists when it first becomes healthy");
    form.assert_contains("is not known before its first check").assert_contains("no agents yet");
    let agent = stage.api.post("/agents", json!({ "name": "ci <1>" })).await.assert_status(201).json();
    let agent = agent["id"].as_str().unwrap();
    let valid = [("config-0", "x"), ("secret-0", stage.secret.as_str())];
    let access = [("approve", "true"), ("class", "destructive"), ("grant_agent", agent), ("grant_access", "read_only")];
    let none = [("grant_agent", ""), ("grant_access", "full_access")];
    for (fields, marker) in [
        (&[("approve", "true"), ("class", "all")][..], "id=\"e-class\">Select one"),
        (&[("grant_agent", "x"), ("grant_access", "read_only")], "id=\"e-grants\">Select an agent"),
        (&[("grant_agent", agent), ("grant_access", "x")], "id=\"e-grants\">Select an agent"),
        (
            &[("grant_agent", "agt_0123456789abcdef"), ("grant_access", "read_only")],
            "id=\"e-grants\">There is no agent",
        ),
    ] {
        let rejected = stage.deploy(&[&valid[..], fields].concat()).await;
        rejected.assert_status(422).assert_contains(marker).assert_contains("value=\"search\"");
    }
    let kept = stage.deploy(&[&access[..], &none].concat()).await.assert_status(422).body.clone();
    assert!(kept.contains(&format!("<option value=\"{agent}\" selected>ci &#60;1&#62;</option>")), "{kept}");
    assert!(kept.contains("value=\"destructive\" selected") && kept.contains("value=\"true\" checked"), "{kept}");
    let created = stage.deploy(&[&valid[..], &access, &none].concat()).await;
    created.assert_status(303);
    let grants = stage.api.get("/grants").await;
    assert_eq!(grants["items"].as_array().unwrap().len(), 1);
    let grant = &grants["items"][0];
    assert_eq!((&grant["agent_id"], &grant["access"]), (&json!(agent), &json!("read_only")));
    let stored = stage.api.app.query_lines("SELECT class FROM initial_approvals").await;
    assert_eq!(stored, "destructive");

    // The known tools of a version are listed with their approval state.
    let rows = "INSERT INTO tool_definitions (id, organization_id, instance_id, catalog_version_id, kind, name, digest,
            definition, is_current, state, class, first_seen_at)
        SELECT 'apr_' || v.state, i.organization_id, i.id, i.catalog_version_id, 'tool', v.name, v.state, '{}', TRUE,
            v.state, v.class, 1
        FROM instances i, (SELECT 'approved' AS state, 'find' AS name, 'read' AS class
            UNION ALL SELECT 'rejected', 'old', NULL UNION ALL SELECT 'pending', '<new>', NULL) v";
    stage.api.app.execute(rows).await;
    let form = stage.owner.get_page(&format!("/o/acme/instances/new?entry={entry}")).await;
    form.assert_lacks("is not known before")
        .assert_contains("<bdi>&#60;new&#62;</bdi></td><td>Approved with this step");
    form.assert_contains("<bdi>find</bdi></td><td>Approved already, as read");
    form.assert_contains("<bdi>old</bdi></td><td>Rejected, stays so");
    stage.owner.get_page("/o/acme/instances/connect").await.assert_contains("is not known before its first check");
    stage.api.app.clone().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_deployment_shows_its_cause_and_the_next_action() {
    let mut stage = Stage::new().await;
    let page = stage.instance().await;
    let error = DeploymentError {
        step: DeploymentStep::Pulling,
        code: ErrorCode::ImageNotFound,
        cause: "The registry has no such <image>.".into(),
        next_action: "Import the entry again.".into(),
    };
    stage.end(&page, DeploymentOutcome::Failed { error }, InstanceState::Failed).await;
    let shown = stage.owner.get_page(&page).await;
    shown.assert_contains("The registry has no such &#60;image&#62;.").assert_contains("Import the entry again.");
    shown.assert_contains("<code>image_not_found</code>").assert_contains("<li class=\"failed\">");
    shown.assert_contains(">Read the logs</a>");
    stage.member.get_page(&page).await.assert_lacks(">Read the logs</a>");
    stage.owner.get_page("/o/acme/instances").await.assert_contains("The registry has no such &#60;image&#62;.");
    let listed = stage.owner.get_page(&format!("{page}/deployments")).await;
    listed.assert_contains("Step: pulling. Import the entry again.");
    stage.owner.get_page(&format!("{page}/events")).await.assert_contains("failed");
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_change_starts_a_deployment() {
    let mut stage = Stage::new().await;
    let page = stage.instance().await;
    stage.end(&page, DeploymentOutcome::Complete, InstanceState::Running).await;
    let path = format!("{page}/configuration");
    let form = stage.owner.get_page(&path).await;
    form.assert_contains("value=\"https://x.example\"").assert_contains("value=\"Search\"");
    form.assert_contains(&format!("<option value=\"{}\" selected>TOKEN</option>", stage.secret));
    let version = stage.version().to_owned();
    let secret = stage.secret.clone();
    let save = async |name: &str, url: &str, version: &str| {
        let fields = [
            ("catalog_version_id", version),
            ("name", name),
            ("config-0", url),
            ("config-1", ""),
            ("secret-0", &secret),
        ];
        stage.owner.post(&path, &fields).await
    };
    save("Renamed", "https://x.example", &version).await.assert_redirect(&path);
    save(" ", "https://x.example", &version).await.assert_status(422).assert_contains("id=\"e-name\"");
    save("Renamed", "https://y.example", &version).await.assert_redirect(&page);
    save("Renamed", "https://y.example", "ctv_0000000000000000").await.assert_status(404);
    let other = stage.api.post("/catalog/import", entry("2")).await.assert_status(200).json();
    let newest = other["versions"].as_array().unwrap().iter().find(|one| one["version"] == "2").unwrap();
    let newest = newest["id"].as_str().unwrap().to_owned();
    let upgrade = stage.owner.get_page(&format!("{path}?version={newest}")).await;
    upgrade.assert_contains(">Save and deploy</button>").assert_contains("These are the fields of version 2");
    save("Renamed", "https://y.example", &newest).await.assert_redirect(&page);
    let instance = stage.api.get(&page.replace("/o/acme", "")).await;
    assert_eq!((&instance["name"], &instance["generation"]), (&json!("Renamed"), &json!(3)));
    assert_eq!(instance["catalog_version_id"], json!(newest));
    let rows = stage.owner.get_page(&format!("{page}/deployments")).await;
    rows.assert_contains("<td data-label=\"Number\" class=\"number\">3</td>");
    // Members see the configuration and which secrets are assigned.
    let shown = stage.member.get_page(&path).await;
    shown.assert_contains("https://y.example").assert_contains("assigned</span>").assert_lacks("TOKEN");
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_of_an_instance_renders_for_its_roles_only() {
    let mut stage = Stage::new().await;
    let page = stage.instance().await;
    stage.end(&page, DeploymentOutcome::Complete, InstanceState::Running).await;
    let elsewhere = ConsoleBrowser::owner(&stage.api.app.org("elsewhere").await).await;
    for tab in ["", "/configuration", "/tools", "/logs", "/history", "/events", "/deployments", "/status", "/badge"] {
        let path = format!("{page}{tab}");
        let shown = stage.owner.get_page(&path).await;
        shown.assert_lacks("hunter2-planted");
        let is_for_admins = tab == "/logs";
        let seen = stage.member.get(&path).await;
        seen.assert_status(if is_for_admins { 403 } else { 200 }).assert_lacks(&format!("action=\"{page}/"));
        if !is_for_admins {
            seen.assert_lacks(&format!("{page}/logs"));
        }
        elsewhere.get(&path).await.assert_status(404);
        elsewhere.get(&path.replace("/acme/", "/elsewhere/")).await.assert_status(404);
    }
    stage.owner.get_page(&format!("{page}/tools")).await.assert_contains(">Call</button>");
    stage.member.get_page(&format!("{page}/tools")).await.assert_lacks(">Call</button>");
    stage.owner.get_page(&format!("{page}/logs")).await.assert_contains(">Follow</button>");
    stage.member.get_page("/o/acme/instances").await.assert_contains(">running</span>").assert_lacks(">Deploy</a>");
    for path in ["/o/acme/catalog", "/o/acme/toolboxes", "/o/acme/instances"] {
        elsewhere.get(path).await.assert_status(404);
    }
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_stopped_started_and_removed() {
    let mut stage = Stage::new().await;
    let page = stage.instance().await;
    stage.end(&page, DeploymentOutcome::Complete, InstanceState::Running).await;
    for action in ["start", "stop", "restart", "delete", "configuration"] {
        stage.member.post(&format!("{page}/{action}"), &[]).await.assert_status(403);
    }
    let request = Request::post(format!("{page}/stop")).header("sec-fetch-site", "cross-site");
    stage.owner.send(request.body(Body::empty()).unwrap()).await.assert_status(403);
    stage.owner.post(&format!("{page}/restart"), &[]).await.assert_redirect(&page);
    stage.owner.post(&format!("{page}/stop"), &[]).await.assert_redirect(&page);
    stage.owner.get_page(&page).await.assert_contains(">Start</button>").assert_lacks(">Stop</button>");
    stage.owner.post(&format!("{page}/start"), &[]).await.assert_redirect(&page);
    stage.owner.get_page(&page).await.assert_contains(">Stop</button>");
    stage.owner.post(&format!("{page}/delete"), &[]).await.assert_redirect("/o/acme/instances");
    let removing = stage.owner.get_page(&page).await;
    removing.assert_contains("The instance is removing.").assert_lacks(">Stop</button>");
    stage.owner.get_page(&format!("{page}/configuration")).await.assert_lacks(">Save</button>");
    stage.owner.post(&format!("{page}/stop"), &[]).await.assert_status(409).assert_contains("is being removed");
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_is_read_from_the_toolbox() {
    let stage = Stage::new().await;
    let page = stage.instance().await;
    let path = format!("{page}/history");
    stage.owner.get_page(&path).await.assert_contains("The history is stored on the toolbox.");
    let mut daemon = Daemon::connect(&stage.api.app, &stage.toolbox).await;
    let now = stage.api.app.cx().clock.now().0;
    let sample = |at: i64, cpu: f64| {
        json!({ "at": now + at, "cpu_percent": cpu, "memory_bytes": 1 << 28,
        "network_received_bytes": 1_024 * (at + 8_000_000), "network_sent_bytes": 0, "pids": 3 })
    };
    let load = async |daemon: &mut Daemon, query: &str, samples: &[Value]| {
        let respond = async {
            let call = daemon.call().await;
            assert!(call.path().ends_with("/stats"), "{}", call.path());
            call.respond(200, samples).await;
        };
        let path = format!("{path}{query}");
        let (page, ()) = tokio::join!(stage.owner.get_page(&path), respond);
        page
    };
    let samples = [sample(-7_200_000, 90.0), sample(-60_000, 12.5), sample(-30_000, 25.0)];
    let day = load(&mut daemon, "", &samples).await;
    day.assert_contains("CPU: 25%").assert_contains("<span class=\"chart-top\">100%</span>");
    day.assert_contains("Memory: 256 MiB").assert_contains("Received: 1000 KiB/s").assert_contains("Processes: 3");
    let hour = load(&mut daemon, "?hours=1", &samples).await;
    hour.assert_contains("<span class=\"chart-top\">50%</span>").assert_contains("d=\"M0.0 180.0L1000.0 120.0\"");
    load(&mut daemon, "?hours=nonsense", &[]).await.assert_contains("No data in this period");
    drop(daemon);
    stage.api.app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_catalogue_lists_entries_and_leads_to_their_deployment() {
    let stage = Stage::new().await;
    let entry = stage.entry["id"].as_str().unwrap();
    let shown = stage.owner.get_page("/o/acme/catalog").await;
    shown.assert_contains("<bdi>Search &#60;tool&#62;</bdi>").assert_contains("registry.example/search@sha256:");
    shown.assert_contains(&format!("/o/acme/instances/new?entry={entry}")).assert_contains(">Import</button>");
    let seen = stage.member.get_page("/o/acme/catalog").await;
    seen.assert_contains("Search &#60;tool&#62;").assert_lacks("instances/new").assert_lacks(">Import</button>");
    stage.member.get("/o/acme/instances/new").await.assert_status(403);
    for query in ["entry=cat_0000000000000000", "entry=x", "version=x"] {
        stage.owner.get(&format!("/o/acme/instances/new?{query}")).await.assert_status(404);
    }
    let deleted = stage.owner.api(Method::DELETE, &format!("/catalog/{entry}"), None).await;
    deleted.assert_status(204);
    stage.owner.get_page("/o/acme/catalog").await.assert_contains("No entries yet");
    stage.owner.get_page("/o/acme/instances/new").await.assert_contains("The catalogue is empty");
    stage.api.app.finish().await;
}

/// While toolboxes are off, their pages cannot be opened, and the overview has no links to them.
#[tokio::test]
async fn the_pages_are_hidden_while_toolboxes_are_off() {
    for (toolboxes, status) in [(ToolboxSwitch::On, 200), (ToolboxSwitch::Off, 403), (ToolboxSwitch::Incomplete, 403)] {
        let app = App::with(Setup { toolboxes, ..Setup::default() }).await;
        let owner = ConsoleBrowser::owner(&app.org("acme").await).await.for_org("acme");
        let overview = owner.get("/o/acme").await;
        for page in ["toolboxes", "instances"] {
            let link = format!("href=\"/o/acme/{page}\"");
            if toolboxes == ToolboxSwitch::On {
                overview.assert_contains(&link)
            } else {
                overview.assert_lacks(&link)
            };
            assert_eq!(owner.get(&format!("/o/acme/{page}")).await.status, status, "{page}");
        }
        overview.assert_contains("href=\"/o/acme/catalog\"");
        app.finish().await;
    }
}
