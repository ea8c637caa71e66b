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
    /// Listens on the socket and starts to count. Must be called before the daemon is started.
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
        socket.serve(connections, router(metrics, diagnostics)).await;
    }
}

fn router(metrics: Metrics, diagnostics: Diagnostics) -> Router {
    let for_metrics = diagnostics.clone();
    let show_metrics = move || async move {
        if let Some(snapshot) = for_metrics.snapshot() {
            snapshot.record();
        }
        ([(CONTENT_TYPE, METRICS_TYPE), (CACHE_CONTROL, "no-store")], metrics.render())
    };
    let show_health = move || async move {
        let (status, text) = health(&diagnostics);
        (status, [(CACHE_CONTROL, "no-store")], text)
    };
    Router::new().route("/metrics", get(show_metrics)).route("/healthz", get(show_health))
}

/// Returns 200 if the link is open and the container engine can be reached, otherwise 503 with what is missing.
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
