//! `waypost toolbox run --diagnostics-socket`: metrics and health of the daemon on a Unix socket.

use std::path::Path;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use waypost_toolbox::diagnostics::{self, Diagnostics};

use crate::connections::{ConnectionLimits, Connections, Shutdown};
use crate::telemetry::{self, Metrics};
use crate::unix_socket::PrivateSocket;

/// The content type of the Prometheus text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4";

/// The diagnostics socket. Its file is removed when this value is dropped.
#[derive(Debug)]
pub struct DiagnosticsSocket {
    socket: PrivateSocket,
    metrics: Metrics,
}

impl DiagnosticsSocket {
    /// Listens on the socket and starts to record metrics. Must be called before the daemon is started.
    ///
    /// # Errors
    /// If the path is too long, another process listens on the socket, or the folder is not writable.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        let socket = PrivateSocket::bind(path, "choose a shorter path for --diagnostics-socket, or a relative one")?;
        let metrics = telemetry::start_metrics()?;
        diagnostics::describe();
        Ok(Self { socket, metrics })
    }

    /// Serves the state of the daemon until `stop`.
    pub async fn serve(self, diagnostics: Diagnostics, stop: Shutdown) {
        let Self { socket, metrics } = self;
        let connections = Connections::new(ConnectionLimits::daemon(), stop);
        socket.serve(connections, router(move || metrics.render(), diagnostics)).await;
    }
}

fn router(render: impl Fn() -> String + Clone + Send + Sync + 'static, diagnostics: Diagnostics) -> Router {
    let for_metrics = diagnostics.clone();
    let show_metrics = move || async move {
        if let Some(snapshot) = for_metrics.snapshot() {
            snapshot.record();
        }
        ([(CONTENT_TYPE, METRICS_TYPE), (CACHE_CONTROL, "no-store")], render())
    };
    let show_health = move || async move {
        let (status, text) = health(&diagnostics);
        (status, [(CACHE_CONTROL, "no-store")], text)
    };
    Router::new().route("/metrics", get(show_metrics)).route("/healthz", get(show_health))
}

/// Returns 200 if the link is open and the container engine can be reached, otherwise 503 with the problems.
fn health(diagnostics: &Diagnostics) -> (StatusCode, String) {
    let Some(snapshot) = diagnostics.snapshot() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting\n".to_owned());
    };
    let problems = snapshot.problems();
    if problems.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use waypost_toolbox::diagnostics::Snapshot;
    use waypost_toolbox::link::Status;

    use super::*;

    async fn get(socket: &Path, path: &str) -> String {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: daemon\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    fn snapshot(link: Status) -> Snapshot {
        Snapshot { link, is_engine_reachable: true, instances: Vec::new(), queued_events: 2 }
    }

    #[test]
    fn the_daemon_is_healthy_while_it_has_a_link_and_an_engine() {
        let diagnostics = Diagnostics::default();
        assert_eq!(health(&diagnostics), (StatusCode::SERVICE_UNAVAILABLE, "the daemon is starting\n".to_owned()));
        diagnostics.set_source(|| snapshot(Status::Online));
        assert_eq!(health(&diagnostics), (StatusCode::OK, "ok\n".to_owned()));
        let lost = Diagnostics::default();
        lost.set_source(|| Snapshot { is_engine_reachable: false, ..snapshot(Status::Connecting) });
        let (status, text) = health(&lost);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "there is no link to the control plane\nthe container engine cannot be reached\n");
    }

    #[tokio::test]
    async fn the_socket_is_private_and_serves_two_pages_until_it_is_removed() {
        let folder = waypost_testkit::folder();
        let path = folder.path().join("daemon.sock");
        // A killed daemon leaves its socket.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = PrivateSocket::bind(&path, "").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let taken = PrivateSocket::bind(&path, "").unwrap_err().to_string();
        assert!(taken.contains("another process listens on the socket"), "{taken}");
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let (diagnostics, stop) = (Diagnostics::default(), Shutdown::default());
        diagnostics.set_source(|| snapshot(Status::Online));
        let render = Arc::new(move || {
            metrics::with_local_recorder(&recorder, || {
                snapshot(Status::Online).record();
                handle.render()
            })
        });
        let router = router(move || render(), diagnostics);
        let serve = socket.serve(Connections::new(ConnectionLimits::daemon(), stop.clone()), router);
        let requests = async {
            let health = get(&path, "/healthz").await;
            assert!(health.starts_with("HTTP/1.1 200 OK") && health.ends_with("ok\n"), "{health}");
            let metrics = get(&path, "/metrics").await;
            assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
            assert!(metrics.contains("\nwaypost_daemon_events_queued 2\n"), "{metrics}");
            for other in ["/", "/api/v1/toolboxes", "/readyz"] {
                assert!(get(&path, other).await.starts_with("HTTP/1.1 404 "), "{other}");
            }
            stop.graceful.cancel();
        };
        tokio::join!(serve, requests);
        assert!(!path.exists());
    }
}
