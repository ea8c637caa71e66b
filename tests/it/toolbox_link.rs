//! Toolboxes join and open their links through the public port.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower::ServiceExt;
use waypost::config::Settings;
use waypost::connections::{ConnectionLimits, Connections, Shutdown};
use waypost::replicas::relay;
use waypost_core::id::{OrganizationId, ToolboxId};
use waypost_core::seal::SecretText;
use waypost_core::toolbox::JOIN_TOKEN_MS;
use waypost_core::{SystemClock, SystemRandom};
use waypost_link::Directory;
use waypost_ops::agent_secrets::{self, AgentSecretRef};
use waypost_ops::instances::{self, CatalogServer, NewInstance, NewServer};
use waypost_ops::link_leases::LinkLeases;
use waypost_ops::toolbox_directory::KnownRevisions;
use waypost_ops::{ToolboxSwitch, agents, catalog, toolboxes};
use waypost_testkit::TempDir;
use waypost_toolbox::control::Control;
use waypost_toolbox::join::{Join, join};
use waypost_toolbox::link::{Link, Status};
use waypost_toolbox_proto::http::agent_key;
use waypost_toolbox_proto::message::{Engine, Heartbeat};

use crate::app::{App, Setup};
use crate::link_client::{self, TIMEOUT};

/// Creates a toolbox in a new organisation. Returns the IDs of both, and the token.
async fn create(app: &App) -> (OrganizationId, ToolboxId, String) {
    let org = app.org("acme").await;
    let (view, token) = toolboxes::create(app.cx(), &app.ops(), &org.id, "office").await.unwrap();
    (org.id, view.toolbox.id, token.token.expose().to_owned())
}

/// Sends the request of a machine that joins, with `token` and a public key in which each of the 32 bytes is `key`.
async fn post_join(app: &App, token: &str, key: u8) -> (StatusCode, Value) {
    let key = data_encoding::BASE64URL_NOPAD.encode(&[key; 32]);
    let versions = json!({ "oldest": 1, "newest": 1 });
    let body = json!({ "token": token, "public_key": key, "protocol": versions, "version": "1.0" }).to_string();
    post(app, "localhost:8080", body).await
}

async fn post(app: &App, host: &str, body: String) -> (StatusCode, Value) {
    let request = Request::post("/toolbox/join").header(header::HOST, host).body(Body::from(body)).unwrap();
    let response = app.send(request).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_token_joins_one_machine() {
    let app = App::new().await;
    let (_, id, token) = create(&app).await;
    let (status, joined) = post_join(&app, &token, 1).await;
    assert_eq!((status, &joined), (StatusCode::OK, &json!({ "toolbox_id": id, "name": "office" })));
    assert_eq!(post_join(&app, &token, 1).await, (StatusCode::OK, joined), "the response may have been lost");
    let (status, _) = post_join(&app, &token, 2).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, problem) = post_join(&app, "wpt_unknown", 1).await;
    assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    app.finish().await;
}

#[tokio::test]
async fn a_token_expires_and_bad_requests_are_rejected() {
    let app = App::new().await;
    let (_, _, token) = create(&app).await;
    assert_eq!(post(&app, "localhost:8080", "{}".into()).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let large = format!("{{\"token\":\"{}\"}}", "x".repeat(5_000));
    assert_eq!(post(&app, "localhost:8080", large).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(post(&app, "acme.localhost:8080", "{}".into()).await.0, StatusCode::NOT_FOUND);
    app.advance_clock(JOIN_TOKEN_MS + 1).await;
    assert_eq!(post_join(&app, &token, 1).await.0, StatusCode::FORBIDDEN);
    app.finish().await;
}

#[tokio::test]
async fn the_routes_do_not_exist_while_toolboxes_are_off() {
    let app = App::with(Setup { toolboxes: ToolboxSwitch::Off, ..Setup::default() }).await;
    assert_eq!(post_join(&app, "wpt_unknown", 1).await.0, StatusCode::NOT_FOUND);
    let link = Request::get("/toolbox/link").header(header::HOST, "localhost:8080").body(Body::empty()).unwrap();
    assert_eq!(app.send(link).await.status(), StatusCode::NOT_FOUND);
    app.finish().await;
}

#[tokio::test]
async fn joins_and_links_have_rate_limits() {
    let app = App::new().await;
    let mut statuses = Vec::new();
    for _ in 0..61 {
        statuses.push(post_join(&app, "wpt_unknown", 1).await.0);
    }
    assert_eq!((statuses[59], statuses[60]), (StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS));
    let link = || Request::get("/toolbox/link").header(header::HOST, "localhost:8080").body(Body::empty()).unwrap();
    // Without an upgrade, the response says what the address is for.
    assert_eq!(app.send(link()).await.status(), StatusCode::UPGRADE_REQUIRED);
    let mut last = StatusCode::OK;
    for _ in 0..600 {
        last = app.send(link()).await.status();
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    app.finish().await;
}

/// An installation that listens on a port, with a machine that has joined and is online.
struct Connected {
    app: App,
    organization: OrganizationId,
    id: ToolboxId,
    link: Link,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

impl Connected {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let app = App::with(Setup { public_url: String::leak(origin.clone()), ..Setup::default() }).await;
        let shutdown = Shutdown::default();
        let connections = Connections::new(ConnectionLimits::main(&Settings::default(), 1_024), shutdown.clone());
        let serving = tokio::spawn({
            let router = app.router();
            async move { connections.serve(listener, router).await }
        });
        let (organization, id, token) = create(&app).await;
        let folder = waypost_testkit::folder();
        let request = Join { url: origin, token, data_dir: folder.path().to_owned(), ca_pem: None };
        let engine = Engine {
            version: "20.10".to_owned(),
            runtime: "1.1".to_owned(),
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
        };
        let heartbeat = Heartbeat { engine: Some(engine), ..link_client::heartbeat() };
        let link = link_client::open(join(request).await.unwrap(), folder.path(), heartbeat).await;
        Self { app, organization, id, link, shutdown, serving, _folder: folder }
    }

    async fn finish(self) {
        self.link.stop().await;
        self.shutdown.graceful.cancel();
        self.serving.await.unwrap();
        self.app.finish().await;
    }
}

/// A toolbox loses its link when another process revokes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_toolbox_loses_its_link() {
    let connected = Connected::new().await;
    let Connected { app, organization, id, link, .. } = &connected;
    let (directory, links, mut known) = (app.toolboxes(), app.links(), KnownRevisions::default());
    directory.refresh_links(&mut known).await.unwrap();
    assert_eq!(links.toolboxes(), std::slice::from_ref(id));
    // These operations have their own links, like those of another process.
    toolboxes::revoke(app.cx(), &app.ops(), organization, id).await.unwrap();
    directory.refresh_links(&mut known).await.unwrap();
    assert_eq!(links.toolboxes(), []);
    link.status().wait_for(|status| matches!(status, Status::Unauthorized(_))).await.unwrap();
    drop((directory, links));
    connected.finish().await;
}

/// The newest link is used, even if it leads to another replica: this replica closes its own link.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_another_replica_has_claimed_is_closed() {
    let connected = Connected::new().await;
    let Connected { app, id, link, .. } = &connected;
    let leases = |url: &str| LinkLeases::new(app.db().clone(), Arc::new(SystemClock), &SystemRandom, url.to_owned());
    let here = app.toolboxes().with_leases(Some(leases("https://here")));
    let other = app.toolboxes().with_leases(Some(leases("https://other")));
    let (links, mut known) = (app.links(), KnownRevisions::default());
    other.claim(id).await.unwrap();
    here.claim(id).await.unwrap();
    here.refresh_links(&mut known).await.unwrap();
    assert_eq!(links.toolboxes(), std::slice::from_ref(id), "the last claim is that of this process");
    let mut status = link.status();
    status.mark_unchanged();
    other.claim(id).await.unwrap();
    here.refresh_links(&mut known).await.unwrap();
    let lost = timeout(TIMEOUT, status.wait_for(|status| *status == Status::Connecting)).await;
    lost.expect("the link is closed").unwrap();
    drop((here, other, links));
    connected.finish().await;
}

/// Another replica receives the daemon's response, even if it is an error, and can distinguish it from an error of the
/// link.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_other_replicas_are_relayed() {
    let connected = Connected::new().await;
    let send = async |toolbox: &str| {
        let uri = format!("/toolboxes/{toolbox}/v1/instances/ins_1/logs?tail=1&follow=false");
        let request = Request::get(uri).body(Body::empty()).unwrap();
        let response = relay::routes(connected.app.links()).oneshot(request).await.unwrap();
        let error = response.headers().get(relay::LINK_ERROR_HEADER).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        (status, error, response.into_body().collect().await.unwrap().to_bytes())
    };
    let (status, error, body) = send(connected.id.as_str()).await;
    assert_eq!((status, error), (StatusCode::NOT_FOUND, None));
    assert!(String::from_utf8_lossy(&body).contains("There are no instances."), "{body:?}");
    for unknown in ["tbx_0000000000000000", "x"] {
        let (status, error, _) = send(unknown).await;
        assert_eq!((status, error.as_deref()), (StatusCode::SERVICE_UNAVAILABLE, Some("toolbox_offline")), "{unknown}");
    }
    connected.finish().await;
}

/// The daemon requests the secrets of a container by the container's key, and receives those of the agent with this
/// key.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_receives_the_personal_secrets_of_the_agent_that_uses_a_container() {
    let connected = Connected::new().await;
    let Connected { app, organization, id, link, .. } = &connected;
    let (cx, ops) = (app.cx(), app.running_ops());
    let entry = json!({
        "slug": "search", "name": "Search", "version": "1", "transport": "stdio", "sharing": "per_agent",
        "source": { "image": format!("registry.example/search@sha256:{}", "ab".repeat(32)) },
        "secrets": [{ "name": "API_KEY" }],
    });
    let entry = catalog::import_text(cx, &ops, organization, "entry.json", &entry.to_string()).await.unwrap();
    let new = NewInstance {
        slug: "search".to_owned(),
        name: None,
        server: NewServer::Catalog(CatalogServer {
            catalog_version_id: entry.version_id,
            toolbox_id: Some(id.clone()),
            config: serde_json::Map::new(),
            personal_secrets: ["API_KEY".to_owned()].into(),
            learn_egress: false,
        }),
        secrets: Default::default(),
        access: Default::default(),
    };
    // Placement needs a heartbeat with an engine.
    let until_placed = async {
        loop {
            match instances::create(cx, &ops, organization, &new).await {
                Ok(view) => return view.instance.id,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let instance = timeout(TIMEOUT, until_placed).await.expect("the heartbeat arrives");
    let mut keys = Vec::new();
    for name in ["one", "two"] {
        let agent = agents::create(cx, &ops, organization, name).await.unwrap().agent.id;
        let at = AgentSecretRef { instance: &instance, agent: &agent, name: "API_KEY" };
        agent_secrets::set(cx, &ops, organization, at, &SecretText::new(name.to_owned())).await.unwrap();
        keys.push((name, agent_key(agent.as_str())));
    }
    let request = async |key: Option<&str>| {
        let secrets = timeout(TIMEOUT, link.secrets(instance.as_str(), 1, key)).await.expect("an answer").unwrap();
        (secrets.values.get("API_KEY").cloned(), secrets.personal_version)
    };
    for (version, (name, key)) in (1..).zip(&keys) {
        assert_eq!(request(Some(key)).await, (Some((*name).to_owned()), version));
    }
    // An earlier version of the daemon sends no key.
    for key in [None, Some("deployment"), Some("agent:agt_0000000000000000")] {
        assert_eq!(request(key).await, (None, 0));
    }
    connected.finish().await;
}
