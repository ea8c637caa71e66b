//! The connections of a Unix socket, with the same limits and timeouts as those of a port.

use std::future::ready;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::Router;
use tokio::net::{UnixListener, UnixStream};

use super::{Activity, Connections};

/// The peer address of requests through a Unix socket, for limits and logs.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Connections {
    /// Serves a Unix socket until [`super::Shutdown::graceful`]. Connections for which `is_allowed` returns `false` are
    /// closed. Returns when all connections are closed.
    pub async fn serve_unix(&self, listener: UnixListener, router: Router, is_allowed: impl Fn(&UnixStream) -> bool) {
        let open = |(socket, _)| match is_allowed(&socket) {
            true => self.accept_unix(socket, &router),
            false => tracing::warn!(port = self.0.registry.port(), "rejected a connection of another user"),
        };
        self.accept_each(|| listener.accept(), open).await;
        drop((listener, router));
        self.0.tasks.wait().await;
    }

    /// Opens a connection, or closes it if a limit is reached.
    fn accept_unix(&self, socket: UnixStream, router: &Router) {
        let activity = Activity::new(self.0.limits.http2_resets);
        match self.0.registry.admit(PEER.ip(), &activity) {
            Ok(slot) => self.open(ready(Some(socket)), PEER, slot, activity, router.clone()),
            Err(limit) => {
                let port = self.0.registry.port();
                metrics::counter!("waypost_connections_rejected_total", "port" => port, "limit" => limit.as_str())
                    .increment(1);
            }
        }
    }
}
