//! Connections that change their protocol.

use axum::extract::Extension;

use super::super::registry::Limit;
use super::*;

const UPGRADE: &str = "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";

/// Returns a route that echoes bytes after the upgrade, unless the query is `refuse`.
pub(super) fn routes() -> Router {
    Router::new().route("/upgrade", get(upgrade))
}

async fn upgrade(Extension(upgrade): Extension<Upgrade>, request: axum::extract::Request) -> Response {
    upgrade.set(|stream| async move {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let is_refused = request.uri().query() == Some("refuse");
    let status = if is_refused { StatusCode::FORBIDDEN } else { StatusCode::SWITCHING_PROTOCOLS };
    (status, [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")]).into_response()
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_is_used_by_its_handler() {
    let port = Port::new(limits());
    let mut client = port.open(HERE);
    // The first bytes of the new protocol arrive together with the request.
    client.send(format!("{UPGRADE}first")).await;
    let head = client.read_until("first").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // HTTP timeouts no longer apply.
    tokio::time::sleep(3_600 * SECOND).await;
    client.send("second").await;
    client.read_until("second").await;
    assert_eq!(port.connections.active_count(), 1);
    drop(client);
    port.connections.0.tasks.wait().await;
    assert_eq!(port.connections.active_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_counts_towards_the_limits_and_is_never_evicted() {
    let mut limits = limits();
    limits.total = 1;
    let port = Port::new(limits);
    let mut client = port.open(HERE);
    client.send(UPGRADE).await;
    client.read_until("\r\n\r\n").await;
    tokio::time::sleep(SECOND).await;
    let admitted = port.connections.0.registry.admit(IpAddr::from(HERE), &Activity::new(0));
    assert_eq!(admitted.err(), Some(Limit::Total));
    client.send("echo").await;
    client.read_until("echo").await;
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_ends_at_once_when_the_server_stops() {
    let port = Port::new(limits());
    let mut client = port.open(HERE);
    client.send(UPGRADE).await;
    client.read_until("\r\n\r\n").await;
    tokio::time::sleep(SECOND).await;
    let since = Instant::now();
    port.stop.graceful.cancel();
    port.connections.0.tasks.wait().await;
    assert_eq!(since.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_upgrade_leaves_the_connection_to_http() {
    let mut client = Client::new();
    client.send(UPGRADE.replace("/upgrade", "/upgrade?refuse")).await;
    let head = client.read_until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("hello").await;
}
