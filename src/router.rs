//! From a request to what answers it: host and path → server → endpoint.

mod client;
mod health;
mod page;
mod server;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use ipnet::IpNet;
use serde_json::json;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tracing::Instrument;
use waypost_auth::Auth;
use waypost_core::id::base32;
use waypost_core::{Code, Error, Random};
use waypost_mcp::endpoint::{Endpoint, HandlerFactory};
use waypost_ops::hosting::Hosting;
use waypost_ops::limits::MAX_BODY;
use waypost_ops::public_url::HostKind as Host;
use waypost_web::Web;
use waypost_web::limits::LimitKind;
use waypost_web::request_info::RequestInfo;

use self::client::ClientAddress;

pub use self::health::health_routes;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the router routes with.
pub struct RouterState<R> {
    /// Proxies whose forwarded headers count.
    pub trusted_proxies: Vec<IpNet>,
    /// Hosted servers at work in this process.
    pub hosting: Hosting,
    /// The endpoint for every hosted server.
    pub endpoint: Endpoint<R>,
    /// The authorization server for every hosted server.
    pub auth: Auth,
    /// The console, the REST API, and the public pages of the hosted servers.
    pub web: Web,
    /// For the ids of requests.
    pub random: Arc<dyn Random>,
}

/// The id of a request, for the log and for the record of a call.
#[derive(Debug, Clone)]
struct RequestId(String);

/// The host that a request asks for.
#[derive(Debug, Clone)]
struct RequestedHost {
    /// As the client wrote it, port included.
    authority: String,
    /// What it means.
    host: Host,
}

/// The router of the main address.
pub fn build<R: HandlerFactory>(routes: RouterState<R>) -> Router {
    let routes = Arc::new(routes);
    // Which origins may call is decided in `server::find_server`; whatever comes through is echoed. A preflight is answered
    // before anybody asks for a token.
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::WWW_AUTHENTICATE, HeaderName::from_static("mcp-session-id")])
        .max_age(Duration::from_secs(3_600));
    let mut mcp = Router::new();
    for place in ["", "/t/{tracking_id}", "/s/{slug}", "/s/{slug}/t/{tracking_id}"] {
        for path in ["/mcp", "/mcp/"] {
            mcp = mcp.route(&format!("{place}{path}"), any(server::endpoint::<R>));
        }
        // The addresses of the HTTP+SSE transport, as the SDKs that had it name them.
        for path in ["/sse", "/sse/", "/message", "/messages", "/messages/", "/mcp/sse"] {
            mcp = mcp.route(&format!("{place}{path}"), any(server::removed_transport::<R>));
        }
    }
    let mcp = mcp
        .layer(middleware::from_fn_with_state(Arc::clone(&routes), server::arrive::<R>))
        .layer(cors)
        .layer(middleware::from_fn_with_state(Arc::clone(&routes), server::find_server::<R>))
        .with_state(Arc::clone(&routes));
    let others = Router::new()
        .merge(oauth(&routes))
        .merge(public_pages(&routes))
        .merge(
            waypost_web::router(routes.web.clone())
                .layer(middleware::from_fn_with_state(Arc::clone(&routes), visit::<R>)),
        )
        .fallback(nowhere)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&routes), limit::<R>));
    others
        .merge(mcp)
        .layer(middleware::from_fn_with_state(Arc::clone(&routes), check_host::<R>))
        .merge(health_routes(routes.hosting.clone()))
        .layer(middleware::from_fn_with_state(Arc::clone(&routes), identify::<R>))
        .layer(middleware::from_fn_with_state(routes, observe::<R>))
}

/// The authorization servers: metadata and endpoints for clients of any origin, which carry no cookies, and the pages.
fn oauth<R: HandlerFactory>(routes: &Arc<RouterState<R>>) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::any())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::WWW_AUTHENTICATE, header::RETRY_AFTER])
        .max_age(Duration::from_secs(3_600));
    let endpoints = Router::new()
        .nest("/oauth", waypost_auth::endpoints())
        .nest("/s/{slug}/oauth", waypost_auth::endpoints())
        .merge(waypost_auth::well_known())
        .layer(cors);
    Router::new()
        .nest("/oauth", waypost_auth::pages())
        .nest("/s/{slug}/oauth", waypost_auth::pages())
        .merge(endpoints)
        .layer(middleware::from_fn_with_state(Arc::clone(routes), server::find_site::<R>))
        .with_state(routes.auth.clone())
}

/// The public pages of the servers, at the path form of their addresses. [`visit`] serves them on their own hosts.
fn public_pages<R: HandlerFactory>(routes: &Arc<RouterState<R>>) -> Router {
    let page = || -> MethodRouter<Arc<RouterState<R>>> { get(page::show::<R>).fallback(nowhere) };
    Router::new()
        .route("/s/{slug}", page())
        .route("/s/{slug}/", page())
        .route("/s/{slug}/logo.png", get(page::logo::<R>).fallback(nowhere))
        .route("/logo.png", get(page::logo::<R>).fallback(nowhere))
        .with_state(Arc::clone(routes))
}

/// The console and the API are served on HOST only. A server's own host has its public page and the logo on it.
async fn visit<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = request.extensions().get::<RequestedHost>().cloned();
    let Some(RequestedHost { authority, host: Host::Main }) = asked else {
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        return match request.uri().path() {
            "/" if read => page::of(&routes, None, request).await,
            _ => nothing(),
        };
    };
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else { return no_client() };
    request.extensions_mut().insert(RequestInfo { authority, client, request_id });
    next.run(request).await
}

/// A page for people who look at HOST, and a line of JSON for everybody else.
async fn nowhere(request: Request) -> Response {
    let asked = request.extensions().get::<RequestedHost>();
    if asked.is_some_and(|asked| asked.host == Host::Main) && page::accepts_html(request.headers()) {
        return waypost_web::pages::view::PageError::from(Error::not_found("page")).into_response();
    }
    nothing()
}

fn nothing() -> Response {
    plain(StatusCode::NOT_FOUND, "not_found", "There is nothing at this address.")
}

fn plain(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "code": code, "message": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Gives the request an id, and counts it with its status and time.
async fn observe<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let mut bytes = [0_u8; 10];
    routes.random.fill(&mut bytes);
    let id = format!("req_{}", base32(&bytes));
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    // The route and not the path: a path may hold a tracking id.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let span = tracing::info_span!("request", request_id = id);
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    span.in_scope(|| tracing::debug!(%method, route, status, elapsed_us = elapsed.as_micros(), "answered"));
    metrics::counter!("waypost_http_requests_total", "status" => status.to_string()).increment(1);
    metrics::histogram!("waypost_http_request_seconds").record(elapsed.as_secs_f64());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Notes the client's address, by which requests are limited. A request without one is not let in.
async fn identify<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(sender) = ClientAddress::of(&routes.trusted_proxies, &request) else { return no_client() };
    if client::has_several_hosts(request.headers()) {
        metrics::counter!("waypost_rejected_requests_total", "reason" => "several_hosts").increment(1);
        let refusal = plain(StatusCode::BAD_REQUEST, "invalid_request", "A request has one Host header.");
        return refuse_counted(&routes, sender.address, refusal);
    }
    request.extensions_mut().insert(sender);
    next.run(request).await
}

/// The answer to a request whose client's address is not known: no limit could be applied to it.
fn no_client() -> Response {
    tracing::error!("a request without a client address was rejected");
    metrics::counter!("waypost_rejected_requests_total", "reason" => "no_client_address").increment(1);
    plain(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The client's address is not known.")
}

/// Limits the requests that are not for an MCP address, whatever they ask. Many have a tighter limit of their own; calls
/// of MCP have limits per caller, address and server instead.
async fn limit<R: HandlerFactory>(State(routes): State<Arc<RouterState<R>>>, request: Request, next: Next) -> Response {
    let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else { return no_client() };
    match check_rate(&routes, client) {
        // The API asks for a key first, and refuses a large body itself.
        Ok(()) if request.body().size_hint().lower() > MAX_BODY as u64 && !is_api(&request) => too_large(&request),
        Ok(()) => next.run(request).await,
        Err(error) => too_many(&error),
    }
}

fn is_api(request: &Request) -> bool {
    let host = request.extensions().get::<RequestedHost>().map(|asked| &asked.host);
    host == Some(&Host::Main) && request.uri().path().starts_with("/api/v1/")
}

fn too_large(request: &Request) -> Response {
    metrics::counter!("waypost_rejected_requests_total", "reason" => "too_large").increment(1);
    let message = "A request has at most 1 MiB. Choose a smaller file.";
    if page::accepts_html(request.headers()) {
        let page = waypost_web::pages::view::PageError::from(Error::invalid("body", message)).into_response();
        return (StatusCode::PAYLOAD_TOO_LARGE, page).into_response();
    }
    plain(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

fn check_rate<R: HandlerFactory>(routes: &RouterState<R>, client: IpAddr) -> waypost_core::Result<()> {
    routes.web.limits.check(LimitKind::Request, client).map_err(|wait| {
        let seconds = wait.as_secs().max(1);
        let message = format!("There were too many requests from your network. Try again in {seconds} seconds.");
        Error::new(Code::RateLimited, message).with("retry_after_seconds", seconds)
    })
}

/// Refuses a request that came no further, and counts it as well.
fn refuse_counted<R: HandlerFactory>(routes: &RouterState<R>, client: IpAddr, refusal: Response) -> Response {
    match check_rate(routes, client) {
        Ok(()) => refusal,
        Err(error) => too_many(&error),
    }
}

fn too_many(error: &Error) -> Response {
    let mut response = plain(StatusCode::TOO_MANY_REQUESTS, error.code.as_str(), &error.message);
    let seconds = error.details.get("retry_after_seconds").and_then(serde_json::Value::as_u64).unwrap_or(1);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Refuses a host that is neither HOST nor one label below it (RFC 9110, section 15.5.20).
async fn check_host<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(sender) = request.extensions().get::<ClientAddress>().copied() else { return no_client() };
    let forwarded = forwarded_host(request.headers()).filter(|_| sender.is_proxied);
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = forwarded.or(named).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let asked = authority.and_then(|authority| {
        Some(RequestedHost { authority: authority.to_owned(), host: routes.auth.public_url.classify_host(authority)? })
    });
    match asked {
        Some(asked) => {
            request.extensions_mut().insert(asked);
            next.run(request).await
        }
        None => {
            let refusal =
                plain(StatusCode::MISDIRECTED_REQUEST, "misdirected_request", "This host is not served here.");
            refuse_counted(&routes, sender.address, refusal)
        }
    }
}

fn forwarded_host(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-forwarded-host")?.to_str().ok()?.split(',').next().map(str::trim)
}

/// Returns the address of the client of a request from `peer` with these headers.
pub(crate) fn client_of(proxies: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    ClientAddress::behind(proxies, peer, headers).address
}
