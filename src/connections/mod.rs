//! Accepts, limits, times and closes the connections of a port.
//!
//! The limits protect against clients that hold resources without completing a request: file descriptors ([`registry`],
//! [`descriptors`]), time ([`activity`]) and memory ([`budget`], [`body`]). No timeout applies while the server must act,
//! for example while a request is being processed or a stream is idle.

mod accept;
mod activity;
mod body;
mod budget;
pub mod descriptors;
mod registry;
mod settings;
mod stream;
mod unix;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use activity::{Activity, Exchange, Reason, Timeouts, Watchdog};
use body::{BodyError, RequestBody, ResponseBody};
use budget::Budget;
use descriptors::Reserve;
use registry::{ConnectionSlot, Registry, network};

use crate::upgrade::Upgrade;

pub use body::BodyRate;

/// Pause of the accept loop if no file descriptor is available.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for the graceful shutdown of a connection (HTTP/2 announces it first).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a client to complete a request head during shutdown.
const LAST_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// HTTP/2 receive windows in bytes: per request body, and per connection.
const STREAM_WINDOW: u32 = 128 * 1_024;
const CONNECTION_WINDOW: u32 = 256 * 1_024;
/// HTTP/2 send buffer per response in bytes.
const SEND_BUFFER: usize = 64 * 1_024;
/// Overhead per header field in bytes (RFC 9113, section 6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// The limits of a port.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Label of the port in metrics.
    pub port: &'static str,
    /// Maximum number of connections; 0 for no limit.
    pub total: usize,
    /// Maximum number of connections per client address, or IPv6 /64 network; 0 for no limit.
    pub per_address: usize,
    /// Peers that are exempt from `per_address`.
    pub trusted_proxies: Vec<IpNet>,
    /// Timeout for a complete request head.
    pub header_timeout: Duration,
    /// Idle timeout between requests.
    pub keep_alive: Duration,
    /// Timeout for the client to accept any bytes of a response.
    pub response_timeout: Duration,
    /// Minimum transfer rate of a request body.
    pub body_rate: BodyRate,
    /// Memory for all incomplete request bodies in bytes; 0 for no limit.
    pub body_memory: u64,
    /// Maximum size of a request head in bytes; at least 8,192.
    pub header_bytes: u32,
    /// Maximum number of concurrent requests per HTTP/2 connection.
    pub http2_streams: u32,
    /// Number of requests that an HTTP/2 connection may cancel per minute; 0 for no limit. The connection is closed
    /// if it cancels more, and these are more than half of its requests.
    pub http2_resets: u32,
}

/// The phases of shutting down a port.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Stop accepting connections and complete open requests.
    pub graceful: CancellationToken,
    /// Close all connections.
    pub immediate: CancellationToken,
}

/// The connections of one port.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    limits: ConnectionLimits,
    registry: Registry,
    budget: Budget,
    reserve: Option<Reserve>,
    /// Encrypts the connections.
    tls: Option<TlsAcceptor>,
    /// Ports whose waiting connections are closed if no file descriptor is available.
    others: Vec<Registry>,
    tasks: Tasks,
    stop: Shutdown,
}

impl Connections {
    /// Creates a port without connections.
    #[must_use]
    pub fn new(limits: ConnectionLimits, stop: Shutdown) -> Self {
        Self::build(limits, stop, None, None, Vec::new())
    }

    /// Like [`Connections::new`], with TLS. The handshake counts as part of the first request.
    #[must_use]
    pub fn with_tls(limits: ConnectionLimits, stop: Shutdown, acceptor: TlsAcceptor) -> Self {
        Self::build(limits, stop, None, Some(acceptor), Vec::new())
    }

    /// Like [`Connections::new`], but for a port that works even if no file descriptor is available: it reserves some, and
    /// waiting connections of `other` are closed for it.
    #[must_use]
    pub fn with_reserve(limits: ConnectionLimits, stop: Shutdown, reserve: usize, other: &Self) -> Self {
        Self::build(limits, stop, Some(Reserve::new(reserve)), None, vec![other.0.registry.clone()])
    }

    fn build(
        limits: ConnectionLimits,
        stop: Shutdown,
        reserve: Option<Reserve>,
        tls: Option<TlsAcceptor>,
        others: Vec<Registry>,
    ) -> Self {
        let ConnectionLimits { port, total, per_address, .. } = limits;
        let registry = Registry::new(port, total, per_address, limits.trusted_proxies.clone());
        let budget = Budget::new(limits.body_memory);
        Self(Arc::new(Shared { limits, registry, budget, reserve, tls, others, tasks: Tasks::default(), stop }))
    }

    /// Returns the number of connections that are not waiting for their client.
    #[must_use]
    pub fn active_count(&self) -> usize {
        self.0.registry.active_count()
    }

    /// Serves a connection in a task of its own. `stream` resolves to `None` if the connection cannot be used.
    fn open<S>(
        &self,
        stream: impl Future<Output = Option<S>> + Send + 'static,
        peer: SocketAddr,
        slot: ConnectionSlot,
        activity: Activity,
        router: Router,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let upgraded = OnceLock::new();
        let connection = Connection { shared: Arc::clone(&self.0), peer, activity, router, upgraded };
        self.0.tasks.spawn(async move {
            let port = connection.shared.limits.port;
            if let Some(stream) = stream.await
                && let Some(reason) = connection.run(stream).await
            {
                metrics::counter!("waypost_connections_closed_total", "port" => port, "reason" => reason).increment(1);
            }
            drop(slot);
        });
    }
}

/// The tasks of a port. (`TaskTracker` of `tokio-util` would require an otherwise unused feature.)
#[derive(Clone, Default)]
struct Tasks(watch::Sender<()>);

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let running = self.0.subscribe();
        #[expect(
            clippy::disallowed_methods,
            reason = "one task per connection; hyper reports its errors, and a panic only ends the connection"
        )]
        tokio::spawn(async move {
            task.await;
            drop(running);
        });
    }

    /// Waits until all tasks have ended.
    async fn wait(&self) {
        self.0.closed().await;
    }
}

/// A connection.
struct Connection {
    shared: Arc<Shared>,
    peer: SocketAddr,
    activity: Activity,
    router: Router,
    /// The connection after its last response and its new handler, if its protocol is changed.
    upgraded: OnceLock<Upgraded>,
}

struct Upgraded {
    stream: hyper::upgrade::OnUpgrade,
    upgrade: Upgrade,
    /// Marks the connection as in use, so that it is never closed in favour of another one.
    exchange: Exchange,
}

/// Spawns the requests of an HTTP/2 connection, which end with the connection.
#[derive(Clone)]
struct Executor {
    tasks: Tasks,
    end: CancellationToken,
}

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let end = self.end.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                _ = future => {}
                () = end.cancelled() => {}
            }
        });
    }
}

impl Connection {
    /// Serves the connection until it is closed. Returns the reason if it was closed because of its client.
    async fn run<S>(self, socket: S) -> Option<&'static str>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Shutdown { graceful, immediate } = self.shared.stop.clone();
        let end = immediate.child_token();
        let _end = end.clone().drop_guard();
        let builder = builder(&self.shared.limits, Executor { tasks: self.shared.tasks.clone(), end });
        let activity = self.activity.clone();
        let timeouts = Timeouts {
            header: self.shared.limits.header_timeout,
            keep_alive: self.shared.limits.keep_alive,
            response: self.shared.limits.response_timeout,
        };
        let socket = TokioIo::new(stream::Stream::new(socket, activity.clone()));
        let this = Arc::new(self);
        let served = Arc::clone(&this);
        let service = service_fn(move |request| {
            let this = Arc::clone(&served);
            async move { Ok::<_, Infallible>(this.respond(request).await) }
        });
        let mut connection = pin!(builder.serve_connection_with_upgrades(socket, service));
        let mut watchdog = pin!(Watchdog::new(activity.clone(), timeouts));
        let mut last_head = pin!(tokio::time::sleep(Duration::ZERO));
        let mut is_stopping = false;
        let result = loop {
            let reason = tokio::select! {
                biased;
                result = connection.as_mut() => break result,
                () = immediate.cancelled() => return None,
                reason = activity.closed() => reason,
                reason = watchdog.as_mut() => reason,
                () = graceful.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    last_head.as_mut().reset(tokio::time::Instant::now() + LAST_HEAD_TIMEOUT);
                    connection.as_mut().graceful_shutdown();
                    continue;
                }
                () = last_head.as_mut(), if is_stopping && !last_head.is_elapsed() => {
                    if activity.is_between_requests() {
                        return None;
                    }
                    continue;
                }
            };
            if reason == Reason::Idle {
                connection.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection).await;
            }
            return Some(reason.as_str());
        };
        match (result, Arc::into_inner(this).and_then(|this| this.upgraded.into_inner())) {
            (Ok(()), Some(upgraded)) if !graceful.is_cancelled() => {
                upgraded.run(&graceful).await;
                None
            }
            (result, _) => result.err().and_then(|error| client_error_reason(&*error)),
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response {
        let (version, is_head) = (request.version(), request.method() == Method::HEAD);
        let mut exchange = self.activity.begin(version == Version::HTTP_2);
        let limits = &self.shared.limits;
        if version == Version::HTTP_2 && header_list_size(request.headers()) > limits.header_bytes as usize {
            exchange.complete();
            metrics::counter!("waypost_requests_rejected_total", "port" => limits.port, "reason" => "header_size")
                .increment(1);
            return StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response();
        }
        let body_error = Arc::new(OnceLock::new());
        let address = network(self.client_address(&request));
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                return Body::empty();
            }
            let reservation = self.shared.budget.reserve(address);
            Body::new(RequestBody::new(
                body,
                limits.body_rate,
                reservation,
                self.activity.clone(),
                Arc::clone(&body_error),
            ))
        });
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let upgraded = (version == Version::HTTP_11 && Upgrade::is_requested(request.headers())).then(|| {
            let upgrade = Upgrade::default();
            request.extensions_mut().insert(upgrade.clone());
            (hyper::upgrade::on(&mut request), upgrade)
        });
        let Ok(response) = self.router.clone().oneshot(request).await;
        let mut response = match body_error.get() {
            Some(body_error) => body_error_response(*body_error, version),
            None => response,
        };
        if is_head {
            // The body of a response to HEAD is not sent.
            exchange.complete();
            *response.body_mut() = Body::empty();
        }
        if let Some((stream, upgrade)) = upgraded
            && response.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            let exchange = self.activity.begin(false);
            // This is the last request of the connection.
            let _ = self.upgraded.set(Upgraded { stream, upgrade, exchange });
        }
        response.map(|body| Body::new(ResponseBody::new(body, exchange)))
    }

    /// Returns the address of the client, to which the memory for the request body is attributed.
    fn client_address<B>(&self, request: &Request<B>) -> IpAddr {
        crate::router::client_of(&self.shared.limits.trusted_proxies, self.peer.ip(), request.headers())
    }
}

impl Upgraded {
    /// Runs until the handler ends or the port stops. Other protocols have no graceful shutdown, so the handler is
    /// dropped.
    async fn run(mut self, stop: &CancellationToken) {
        let Some(handler) = self.upgrade.take() else { return };
        let used = async {
            if let Ok(stream) = self.stream.await {
                handler(TokioIo::new(stream)).await;
            }
        };
        tokio::select! {
            () = used => self.exchange.complete(),
            () = stop.cancelled() => {}
        }
    }
}

fn builder(limits: &ConnectionLimits, executor: Executor) -> auto::Builder<Executor> {
    let mut builder = auto::Builder::new(executor);
    // The watchdog enforces timeouts. hyper's own header timeout would also apply between requests.
    builder.http1().header_read_timeout(None).max_buf_size(limits.header_bytes as usize);
    let resets = usize::try_from(limits.http2_resets).unwrap_or(usize::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        // `respond` rejects and counts a header list above the limit. The library rejects one above twice the limit.
        .max_header_list_size(limits.header_bytes.saturating_mul(2))
        .max_pending_accept_reset_streams(if resets == 0 { None } else { Some(resets.min(20)) })
        .max_local_error_reset_streams(if resets == 0 { None } else { Some(resets) })
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    builder
}

/// Returns the size of a header list in bytes, as defined in RFC 9113, section 6.5.2.
fn header_list_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum()
}

/// Returns the response to a request whose body was not read completely.
fn body_error_response(body_error: BodyError, version: Version) -> Response {
    let (status, code, message) = match body_error {
        BodyError::Timeout => {
            (StatusCode::REQUEST_TIMEOUT, "request_timeout", "The request body arrived too slowly. Send it again.")
        }
        BodyError::Memory => (
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Too many request bodies are being received. Try again in a moment.",
        ),
    };
    let body = json!({ "code": code, "message": message }).to_string();
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    if body_error == BodyError::Memory {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns the reason for a connection error caused by the client; `None` if the client only disconnected.
fn client_error_reason(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Option<&'static str> {
    let error = error.downcast_ref::<hyper::Error>()?;
    if error.is_parse_too_large() {
        return Some("header_size");
    }
    // The library closes an HTTP/2 connection that resets too many requests or violates the protocol.
    let is_http2 = std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<h2::Error>())
        .is_some_and(|error| error.is_library() && !error.is_io());
    (error.is_parse() || is_http2).then_some("protocol_error")
}

#[cfg(test)]
mod tests;
