//! The HTTP proxy of a container. It supports CONNECT only: plain HTTP needs no proxy, because names resolve to relays.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use waypost_toolbox_proto::Destination;

use super::{Shared, relay};

/// The timeout for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of the head of a request in bytes. hyper's minimum is 8 KiB.
const MAX_HEAD: usize = 8 * 1024;

/// Serves the proxy until `stop` is cancelled.
pub(super) fn start(listener: TcpListener, shared: &Arc<Shared>, stop: &CancellationToken) {
    let (shared, stop) = (Arc::clone(shared), stop.clone());
    crate::tasks::spawn("egress-proxy", async move {
        while let Some(connection) = relay::accept(&listener, &stop).await {
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            crate::tasks::spawn("egress-proxy-connection", async move {
                let Ok(_permit) = shared.connections.try_acquire() else { return };
                stop.run_until_cancelled(serve(connection, &shared, &stop)).await;
            });
        }
    });
}

async fn serve(connection: TcpStream, shared: &Arc<Shared>, stop: &CancellationToken) {
    let service = service_fn(|request| {
        let (shared, stop) = (Arc::clone(shared), stop.clone());
        async move { Ok::<_, Infallible>(respond(request, &shared, stop).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the proxy failed");
    }
}

async fn respond(request: Request<Incoming>, shared: &Arc<Shared>, stop: CancellationToken) -> Response<Full<Bytes>> {
    if request.method() != Method::CONNECT {
        return error(StatusCode::METHOD_NOT_ALLOWED, "This proxy supports only CONNECT.");
    }
    let destination = request.uri().authority().and_then(|authority| authority.as_str().parse::<Destination>().ok());
    let Some(destination) = destination else {
        return error(StatusCode::BAD_REQUEST, "The target of CONNECT must be host:port.");
    };
    if !shared.allows(&destination) {
        shared.record_rejection(&destination);
        return error(StatusCode::FORBIDDEN, "This destination is not allowed. Add it to `egress` of the entry.");
    }
    let mut outside = match shared.connect(&destination).await {
        Ok(stream) => stream,
        Err(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            let message = "The name resolves to an address that is not allowed.";
            return error(StatusCode::FORBIDDEN, message);
        }
        Err(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            return error(StatusCode::GATEWAY_TIMEOUT, "Connecting took too long.");
        }
        Err(_) => return error(StatusCode::BAD_GATEWAY, "The destination refused the connection."),
    };
    let shared = Arc::clone(shared);
    crate::tasks::spawn("egress-tunnel", async move {
        // The permit of the connection itself is released when the upgrade takes over the connection.
        let Ok(_permit) = shared.connections.try_acquire() else { return };
        let tunnel = async {
            let inside = hyper::upgrade::on(request).await.map_err(std::io::Error::other)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(inside), &mut outside).await
        };
        if let Some(Err(cause)) = stop.run_until_cancelled(tunnel).await {
            tracing::debug!(%destination, %cause, "a tunnel failed");
        }
    });
    Response::new(Full::default())
}

fn error(status: StatusCode, message: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(message));
    *response.status_mut() = status;
    response
}
