//! Accepts the connections of a TCP port, with or without TLS.

use std::future::ready;
use std::net::SocketAddr;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};

use super::descriptors::Reserve;
use super::registry::Limit;
use super::{ACCEPT_PAUSE, Activity, Connections};

impl Connections {
    /// Serves until [`Shutdown::graceful`](super::Shutdown::graceful). Returns when all connections are closed.
    pub async fn serve(&self, listener: TcpListener, router: Router) {
        self.accept_each(|| listener.accept(), |(socket, peer)| self.accept(socket, peer, &router)).await;
        drop((listener, router));
        self.0.tasks.wait().await;
    }

    /// Calls `open` with each connection that `accept` returns, until the port stops.
    pub(super) async fn accept_each<T, F>(&self, accept: impl Fn() -> F, open: impl Fn(T))
    where
        F: Future<Output = std::io::Result<T>>,
    {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.0.stop.graceful.cancelled() => break,
                accepted = accept() => accepted,
            };
            match accepted {
                Ok(connection) => open(connection),
                Err(error) => self.handle_accept_error(&error).await,
            }
        }
    }

    fn accept(&self, socket: TcpStream, peer: SocketAddr, router: &Router) {
        if let Some(reserve) = &self.0.reserve {
            reserve.refill();
        }
        let activity = Activity::new(self.0.limits.http2_resets);
        match self.0.registry.admit(peer.ip(), &activity) {
            Ok(slot) => {
                // Without TCP_NODELAY, Nagle's algorithm delays small responses by 40 ms.
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%error, "failed to set TCP_NODELAY");
                }
                match &self.0.tls {
                    Some(acceptor) => {
                        let stream = self.handshake(acceptor.accept(socket), peer);
                        self.open(stream, peer, slot, activity, router.clone());
                    }
                    None => self.open(ready(Some(socket)), peer, slot, activity, router.clone()),
                }
            }
            Err(limit) => self.reject(&socket, limit),
        }
    }

    /// Sends an error response, if possible without waiting, and drops the connection.
    fn reject(&self, socket: &TcpStream, limit: Limit) {
        let port = self.0.registry.port();
        metrics::counter!("waypost_connections_rejected_total", "port" => port, "limit" => limit.as_str()).increment(1);
        let status = match limit {
            Limit::Total => "503 Service Unavailable",
            Limit::Address => "429 Too Many Requests",
        };
        let response = format!("HTTP/1.1 {status}\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let _ = socket.try_write(response.as_bytes());
    }

    /// Frees a file descriptor or waits for one to become available, because the listener would immediately report the
    /// same error again. Errors of a single connection are ignored.
    async fn handle_accept_error(&self, error: &std::io::Error) {
        use std::io::ErrorKind;
        if matches!(
            error.kind(),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
        ) {
            return;
        }
        let port = self.0.registry.port();
        metrics::counter!("waypost_connections_rejected_total", "port" => port, "limit" => "descriptors").increment(1);
        tracing::debug!(%error, port, "failed to accept a connection");
        for registry in self.0.others.iter().chain([&self.0.registry]) {
            if registry.evict() {
                break;
            }
        }
        if self.0.reserve.as_ref().is_some_and(Reserve::release) {
            return;
        }
        tokio::select! {
            () = self.0.stop.graceful.cancelled() => {}
            () = tokio::time::sleep(ACCEPT_PAUSE) => {}
        }
    }

    /// Returns the encrypted stream; `None` if the client does not complete the handshake in time or is rejected, or
    /// the port stops.
    fn handshake<F, S, E>(&self, accept: F, peer: SocketAddr) -> impl Future<Output = Option<S>> + use<F, S, E>
    where
        F: Future<Output = Result<S, E>>,
        E: std::fmt::Display,
    {
        let (limit, stop) = (self.0.limits.header_timeout, self.0.stop.immediate.clone());
        let port = self.0.limits.port;
        async move {
            let error = tokio::select! {
                accepted = tokio::time::timeout(limit, accept) => match accepted {
                    Ok(Ok(stream)) => return Some(stream),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "it was not complete in time".to_owned(),
                },
                () = stop.cancelled() => return None,
            };
            metrics::counter!("waypost_connections_closed_total", "port" => port, "reason" => "tls").increment(1);
            tracing::info!(port, %peer, error, "a TLS handshake failed");
            None
        }
    }
}
