//! Toolboxes join and open their links through the public port.

use std::sync::Arc;

use axum::body::Body;
use http::request::Parts;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use waypost::config::Settings;
use waypost::connections::{ConnectionLimits, Connections, Shutdown};
use waypost_core::id::{OrganizationId, ToolboxId};
use waypost_core::toolbox::JOIN_TOKEN_MS;
use waypost_ops::toolbox_directory::KnownRevisions;
use waypost_ops::{ToolboxSwitch, toolboxes};
use waypost_testkit::TempDir;
use waypost_toolbox::clock;
use waypost_toolbox::identity::Identity;
use waypost_toolbox::join::{Join, join};
use waypost_toolbox::link::connect::NetworkConnector;
use waypost_toolbox::link::requests::{BoxFuture, Requests, ResponseBody, error_response};
use waypost_toolbox::link::{Link, Runtime, Status};
use waypost_toolbox_proto::message::{Capacity, Heartbeat};

use crate::app::{App, Setup};

/// Creates a toolbox in a new organisation, and returns both and the token.
async fn create(app: &App) -> (OrganizationId, ToolboxId, String) {
    let org = app.org("acme").await;
    let (view, token) = toolboxes::create(app.cx(), &app.ops(), &org.id, "office").await.unwrap();
    (org.id, view.toolbox.id, token.token.expose().to_owned())
}

/// Sends the request of a machine that joins, with `token` and the public key of 32 bytes `key`.
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

/// Answers every request with 404.
struct NoInstances;

impl Requests for NoInstances {
    fn handle(&self, _: Parts, _: waypost_link::Body) -> BoxFuture<'_, Response<ResponseBody>> {
        Box::pin(async { error_response(StatusCode::NOT_FOUND, "There are no instances.") })
    }
}

fn start_link(identity: Identity, folder: &TempDir) -> Link {
    let link = Link::open(identity, folder.path(), clock::system).unwrap();
    link.start(Runtime {
        connector: Arc::new(NetworkConnector::new(None)),
        requests: Arc::new(NoInstances),
        heartbeat: Arc::new(|| {
            let capacity = Capacity { cpus: 2.0, memory_bytes: 1 << 30, disk_free_bytes: 1 << 30 };
            let (version, instances) = ("1.0".to_owned(), Vec::new());
            Box::pin(async move { Heartbeat { version, engine: None, capacity, desired_revision: 0, instances } })
        }),
    });
    link
}

/// A machine joins, opens its link, and loses it when it is revoked by another process.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_toolbox_loses_its_link() {
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
    let link = start_link(join(request).await.unwrap(), &folder);
    let mut status = link.status();
    status.wait_for(|status| *status == Status::Online).await.unwrap();
    let directory = app.toolboxes();
    let links = app.links();
    let mut known = KnownRevisions::default();
    directory.refresh_links(&mut known).await.unwrap();
    assert_eq!(links.toolboxes(), std::slice::from_ref(&id));
    // These operations have links of their own, like another process.
    toolboxes::revoke(app.cx(), &app.ops(), &organization, &id).await.unwrap();
    directory.refresh_links(&mut known).await.unwrap();
    assert_eq!(links.toolboxes(), []);
    status.wait_for(|status| matches!(status, Status::Unauthorized(_))).await.unwrap();
    link.stop().await;
    drop((directory, links));
    shutdown.graceful.cancel();
    serving.await.unwrap();
    app.finish().await;
}
