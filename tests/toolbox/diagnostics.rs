//! The diagnostics socket of a running daemon.

use std::path::Path;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::image::Image;
use crate::site::Site;

async fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).await.expect("the daemon listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: daemon\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the daemon reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("the daemon answers");
    response
}

waypost_testkit::needs_docker! {
    #[tokio::test(flavor = "multi_thread")]
    async fn a_daemon_reports_its_state_on_a_socket_docker() {
        let mut site = Site::start().await;
        let version = site.import("echo", "1", &Image::stdio(), json!({})).await;
        let id = site.deploy("echo", &version).await;
        let folder = waypost_testkit::folder();
        let socket = folder.path().join("daemon.sock");
        let arguments = ["--diagnostics-socket", socket.to_str().expect("UTF-8")];
        // In the second iteration, the socket of the killed daemon is replaced.
        for _ in 0..2 {
            site.toolbox.kill().await;
            site.toolbox.run_with(&site.engine, &arguments).await;
            site.wait_for_state(&id, "running").await;
            site.assert_echo(&id, "counted").await;
        }
        let health = get(&socket, "/healthz").await;
        assert!(health.starts_with("HTTP/1.1 200 OK") && health.ends_with("ok\n"), "{health}");
        let metrics = get(&socket, "/metrics").await;
        for beginning in [
            "waypost_daemon_link_online 1",
            "waypost_daemon_links_opened_total 1",
            "waypost_daemon_engine_reachable 1",
            "waypost_daemon_instances{state=\"running\"} 1",
            "waypost_daemon_instances{state=\"failed\"} 0",
            "waypost_daemon_events_queued ",
            "waypost_daemon_calls_total{status=\"200\"} ",
            "waypost_daemon_engine_operations_total{operation=\"containers\",outcome=\"ok\"} ",
        ] {
            assert!(metrics.lines().any(|line| line.starts_with(beginning)), "{beginning} is not in:\n{metrics}");
        }
        site.finish().await;
    }
}
