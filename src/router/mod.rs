//! Routes requests by host and path to the hosted servers, the authorization servers, the console and the API.

mod client;
mod gateway;
mod health;
mod page;
mod server;
mod toolbox;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use ipnet::IpNet;
use serde_json::json;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tracing::Instrument;
use waypost_auth::Auth;
use waypost_console::Console;
use waypost_core::id::base32;
use waypost_core::{Code, Error, Random};
use waypost_gateway::Gateway;
use waypost_http_kit::layered::{MatchedRoute, layered, record_route};
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::request_info::RequestInfo;
use waypost_mcp::endpoint::{Endpoint, HandlerFactory};
use waypost_ops::hosting::Hosting;
use waypost_ops::limits::MAX_BODY;
use waypost_ops::public_url::HostKind as Host;
use waypost_ops::toolbox_directory::ToolboxDirectory;

use self::client::ClientAddress;

pub use self::health::health_routes;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The state of the router.
pub struct RouterState<R> {
    /// Proxies whose forwarded headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The hosted servers.
    pub hosting: Hosting,
    /// The MCP endpoint of all hosted servers.
    pub endpoint: Endpoint<R>,
    /// The authorization server of all hosted servers and the gateway.
    pub auth: Auth,
    /// The console and the public pages of the hosted servers. The REST API uses the same state.
    pub console: Console,
    /// The gateway through which agents use tool servers. `None` if it is switched off.
    pub gateway: Option<Arc<Gateway>>,
    /// The dependencies of the links to toolboxes.
    pub toolboxes: ToolboxDirectory,
    /// Source of randomness for request IDs.
    pub random: Arc<dyn Random>,
}

/// The ID of a request, used in logs and call records.
#[derive(Debug, Clone)]
struct RequestId(String);

/// The host that a request is addressed to.
#[derive(Debug, Clone)]
struct RequestedHost {
    /// The authority as sent by the client, including the port.
    authority: String,
    /// The host that the authority refers to.
    host: Host,
}

/// Builds the router of the main port.
pub fn build<R: HandlerFactory>(state: RouterState<R>) -> Router {
    let state = Arc::new(state);
    // `server::find_server` rejects origins that are not allowed; all others are echoed. Preflight requests are answered
    // before authentication.
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::WWW_AUTHENTICATE, HeaderName::from_static("mcp-session-id")])
        .max_age(Duration::from_secs(3_600));
    let mut mcp = Router::new();
    for prefix in ["", "/t/{tracking_id}", "/s/{slug}", "/s/{slug}/t/{tracking_id}"] {
        for path in ["/mcp", "/mcp/"] {
            mcp = mcp.route(&format!("{prefix}{path}"), any(server::endpoint::<R>));
        }
        // The paths of the former HTTP+SSE transport, as used by SDKs.
        for path in ["/sse", "/sse/", "/message", "/messages", "/messages/", "/mcp/sse"] {
            mcp = mcp.route(&format!("{prefix}{path}"), any(server::removed_transport::<R>));
        }
    }
    let mcp = mcp
        .layer(cors)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), server::find_server::<R>))
        .route_layer(middleware::from_fn(record_route))
        .with_state(Arc::clone(&state));
    let limited = layered(others(&state), DefaultBodyLimit::max(MAX_BODY));
    let limited = layered(limited, middleware::from_fn_with_state(Arc::clone(&state), apply_rate_limit::<R>));
    let gateway = if state.gateway.is_some() { gateway::routes(&state) } else { Router::new() };
    let hosts = layered(
        mcp.merge(gateway).fallback_service(limited),
        middleware::from_fn_with_state(Arc::clone(&state), check_host::<R>),
    );
    let all = health_routes(state.hosting.clone()).fallback_service(hosts);
    layered(all, middleware::from_fn_with_state(state, observe::<R>))
}

/// Returns the routes that share the general rate limit: everything except MCP endpoints.
fn others<R: HandlerFactory>(state: &Arc<RouterState<R>>) -> Router {
    let console = waypost_console::router(state.console.clone(), any(fallback));
    let console = Router::new().nest_service("/api/v1", waypost_api::router(&state.console)).fallback_service(console);
    let console = layered(console, middleware::from_fn_with_state(Arc::clone(state), serve_console::<R>));
    let gateway = if state.gateway.is_some() { gateway::oauth(state) } else { Router::new() };
    Router::new()
        .merge(oauth(state))
        .merge(gateway)
        .merge(public_pages(state))
        .merge(toolbox::routes(state))
        .route_layer(middleware::from_fn(record_route))
        .fallback_service(console)
}

/// Returns the routes of the authorization servers: metadata and endpoints for clients of any origin, which use no
/// cookies, and the pages.
fn oauth<R: HandlerFactory>(state: &Arc<RouterState<R>>) -> Router {
    let endpoints = Router::new()
        .nest("/oauth", waypost_auth::endpoint_routes())
        .nest("/s/{slug}/oauth", waypost_auth::endpoint_routes())
        .merge(waypost_auth::well_known_routes())
        .layer(any_origin());
    Router::new()
        .nest("/oauth", waypost_auth::page_routes())
        .nest("/s/{slug}/oauth", waypost_auth::page_routes())
        .merge(endpoints)
        .layer(middleware::from_fn_with_state(Arc::clone(state), server::find_site::<R>))
        .with_state(state.auth.clone())
}

/// Allows clients of any origin, which send no cookies.
fn any_origin() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::any())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::WWW_AUTHENTICATE, header::RETRY_AFTER])
        .max_age(Duration::from_secs(3_600))
}

/// Returns the routes of the servers' public pages in path form. [`serve_console`] serves them on virtual hosts.
fn public_pages<R: HandlerFactory>(state: &Arc<RouterState<R>>) -> Router {
    let page = || -> MethodRouter<Arc<RouterState<R>>> { get(page::show::<R>).fallback(fallback) };
    Router::new()
        .route("/s/{slug}", page())
        .route("/s/{slug}/", page())
        .route("/s/{slug}/logo.png", get(page::logo::<R>).fallback(fallback))
        .route("/logo.png", get(page::logo::<R>).fallback(fallback))
        .with_state(Arc::clone(state))
}

/// Serves the console and the API on the main host, and the public page of a server on its virtual host.
async fn serve_console<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let requested = request.extensions().get::<RequestedHost>().cloned();
    let Some(RequestedHost { authority, host: Host::Main }) = requested else {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        return match request.uri().path() {
            "/" if is_read => page::public_page(&state, None, request).await,
            _ => not_found(),
        };
    };
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else {
        return unknown_client();
    };
    request.extensions_mut().insert(RequestInfo { authority, client, request_id });
    next.run(request).await
}

/// Responds with 404: with a page to browsers on the main host, otherwise with JSON.
async fn fallback(request: Request) -> Response {
    let requested = request.extensions().get::<RequestedHost>();
    if requested.is_some_and(|requested| requested.host == Host::Main) && page::accepts_html(request.headers()) {
        return waypost_console::view::PageError::from(Error::not_found("page")).into_response();
    }
    not_found()
}

fn not_found() -> Response {
    json_error(StatusCode::NOT_FOUND, "not_found", "Not found.")
}

fn json_error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "code": code, "message": message }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Assigns a request ID, determines the client, and records the status and duration of the request.
async fn observe<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = tokio::time::Instant::now();
    let mut bytes = [0_u8; 10];
    state.random.fill(&mut bytes);
    let id = format!("req_{}", base32(&bytes));
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    // Log the route, not the path, which may contain a tracking ID.
    let route = MatchedRoute::default();
    request.extensions_mut().insert(route.clone());
    let span = tracing::info_span!("request", request_id = id);
    let mut response = match identify_client(&state, &mut request) {
        Ok(()) => next.run(request).instrument(span.clone()).await,
        Err(response) => response,
    };
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    let route = route.as_str();
    span.in_scope(|| tracing::debug!(%method, route, status, elapsed_us = elapsed.as_micros(), "request completed"));
    metrics::counter!("waypost_http_requests_total", "status" => status.to_string()).increment(1);
    metrics::histogram!("waypost_http_request_seconds").record(elapsed.as_secs_f64());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Determines the client's address, which rate limits are based on. Rejects requests without an address, and requests
/// with several `Host` headers.
fn identify_client<R: HandlerFactory>(state: &RouterState<R>, request: &mut Request) -> Result<(), Response> {
    let client = ClientAddress::from_request(&state.trusted_proxies, request).ok_or_else(unknown_client)?;
    if client::has_several_hosts(request.headers()) {
        metrics::counter!("waypost_rejected_requests_total", "reason" => "several_hosts").increment(1);
        let response =
            json_error(StatusCode::BAD_REQUEST, "invalid_request", "A request must have exactly one Host header.");
        return Err(reject_limited(state, client.address, response));
    }
    request.extensions_mut().insert(client);
    Ok(())
}

/// Returns the response to a request without a client address, to which no rate limit could be applied.
fn unknown_client() -> Response {
    tracing::error!("rejected a request without a client address");
    metrics::counter!("waypost_rejected_requests_total", "reason" => "no_client_address").increment(1);
    json_error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The client address is unknown.")
}

/// Applies the general rate limit to all requests except MCP calls, which have limits per caller, address and server.
async fn apply_rate_limit<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else {
        return unknown_client();
    };
    match check_rate(&state, LimitKind::Request, client) {
        // The API checks the key first and rejects large bodies itself.
        Ok(()) if request.body().size_hint().lower() > MAX_BODY as u64 && !is_api_request(&request) => {
            too_large(&request)
        }
        Ok(()) => next.run(request).await,
        Err(error) => too_many_requests(&error),
    }
}

fn is_api_request(request: &Request) -> bool {
    let host = request.extensions().get::<RequestedHost>().map(|requested| &requested.host);
    host == Some(&Host::Main) && request.uri().path().starts_with("/api/v1/")
}

fn too_large(request: &Request) -> Response {
    metrics::counter!("waypost_rejected_requests_total", "reason" => "too_large").increment(1);
    let message = "The request is larger than 1 MiB. Choose a smaller file.";
    if page::accepts_html(request.headers()) {
        let page = waypost_console::view::PageError::from(Error::invalid("body", message)).into_response();
        return (StatusCode::PAYLOAD_TOO_LARGE, page).into_response();
    }
    json_error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

/// Counts a request towards a limit.
///
/// # Errors
/// `rate_limited` if there were too many.
fn check_rate<R: HandlerFactory>(state: &RouterState<R>, kind: LimitKind, client: IpAddr) -> waypost_core::Result<()> {
    state.console.limits.check(kind, client).map_err(|wait| {
        let seconds = wait.as_secs().max(1);
        let message = format!("Too many requests from your network. Try again in {seconds} seconds.");
        Error::new(Code::RateLimited, message).with("retry_after_seconds", seconds)
    })
}

/// Rejects a request with `response`, and counts it against the rate limit.
fn reject_limited<R: HandlerFactory>(state: &RouterState<R>, client: IpAddr, response: Response) -> Response {
    match check_rate(state, LimitKind::Request, client) {
        Ok(()) => response,
        Err(error) => too_many_requests(&error),
    }
}

fn too_many_requests(error: &Error) -> Response {
    let mut response = json_error(StatusCode::TOO_MANY_REQUESTS, error.code.as_str(), &error.message);
    let seconds = error.details.get("retry_after_seconds").and_then(serde_json::Value::as_u64).unwrap_or(1);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Rejects requests for a host that is neither the main host nor one label below it (RFC 9110, section 15.5.20).
async fn check_host<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(client) = request.extensions().get::<ClientAddress>().copied() else { return unknown_client() };
    let forwarded = forwarded_host(request.headers()).filter(|_| client.is_proxied);
    let host_header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = forwarded.or(host_header).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let requested = authority.and_then(|authority| {
        Some(RequestedHost { authority: authority.to_owned(), host: state.auth.public_url.classify_host(authority)? })
    });
    match requested {
        Some(requested) => {
            request.extensions_mut().insert(requested);
            next.run(request).await
        }
        None => {
            let response = json_error(StatusCode::MISDIRECTED_REQUEST, "misdirected_request", "Unknown host.");
            reject_limited(&state, client.address, response)
        }
    }
}

fn forwarded_host(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-forwarded-host")?.to_str().ok()?.split(',').next().map(str::trim)
}

/// Returns the client address of a request from `peer` with the given headers.
pub(crate) fn client_of(proxies: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    ClientAddress::from_headers(proxies, peer, headers).address
}
