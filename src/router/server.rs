//! Finds the hosted server that a request is addressed to, and authenticates MCP requests.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use waypost_auth::Auth;
use waypost_auth::bearer::BearerToken;
use waypost_auth::server_request::{ServerRequest, has_oauth};
use waypost_core::claim_link::{self, is_personal_segment};
use waypost_core::{Code, Error, personal};
use waypost_http_kit::limits::LimitKind;
use waypost_mcp::bearer::{Bearer, Challenge};
use waypost_mcp::endpoint::{HandlerFactory, McpRequest, error_response};
use waypost_ops::call_records::{Rejection, record_rejection};
use waypost_ops::public_url::HostKind as Host;
use waypost_ops::try_it;

use super::client::ClientAddress;
use super::{RequestId, RequestedHost, RouterState, check_rate, json_error, page, too_many_requests, unknown_client};

/// The server whose MCP endpoint a request is addressed to.
#[derive(Clone)]
struct FoundServer {
    request: ServerRequest,
    /// The tracking ID in the URL.
    tracking_id: Option<String>,
    /// The end user that the tracking ID identifies.
    user: Option<String>,
}

/// The target of a request, before the server is looked up.
pub(super) struct ServerTarget {
    pub(super) requested: RequestedHost,
    slug: String,
    pub(super) client: IpAddr,
    request_id: String,
}

pub(super) fn locate(slug: Option<String>, request: &Request) -> waypost_core::Result<ServerTarget> {
    let requested = request.extensions().get::<RequestedHost>().cloned();
    let (requested, slug) = match (requested, slug) {
        (Some(requested @ RequestedHost { host: Host::Main, .. }), Some(slug)) => (requested, slug),
        (Some(RequestedHost { host: Host::Server(slug), authority }), None) => {
            (RequestedHost { host: Host::Server(slug.clone()), authority }, slug)
        }
        // `/s/…` on a virtual host, or `/mcp` on the main host.
        _ => return Err(Error::not_found("server")),
    };
    let sender = request.extensions().get::<ClientAddress>();
    Ok(ServerTarget {
        requested,
        slug,
        client: sender.ok_or_else(|| Error::internal("a request without a client address"))?.address,
        request_id: request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
    })
}

/// Finds the server that a request is addressed to.
pub(super) async fn find<R: HandlerFactory>(
    state: &RouterState<R>,
    target: ServerTarget,
) -> waypost_core::Result<ServerRequest> {
    let ServerTarget { requested, slug, client, request_id } = target;
    let (offer_cache, slug) = (state.hosting.offer_cache(), slug.to_ascii_lowercase());
    if !offer_cache.has_loaded(&slug) {
        // An unknown slug causes a database query for every request.
        check_rate(state, LimitKind::Request, client)?;
    }
    let offers = offer_cache.get(&slug).await.inspect_err(|error| {
        if error.code != Code::NotFound {
            tracing::error!(cause = ?std::error::Error::source(error).map(ToString::to_string), %error, "failed to load a server");
        }
    })?;
    Ok(ServerRequest {
        address: state.auth.public_url.server_urls(&requested.authority, &requested.host, &slug),
        offers,
        client,
        request_id,
    })
}

pub(super) fn param(params: &RawPathParams, name: &str) -> Option<String> {
    params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

/// Finds the server whose authorization server a request is addressed to.
pub(super) async fn find_site<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let result = match locate(param(&params, "slug"), &request) {
        Ok(target) => find(&state, target).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(site) => {
            request.extensions_mut().insert(site);
            next.run(request).await
        }
        Err(error) if error.code == Code::NotFound => json_error(StatusCode::NOT_FOUND, "not_found", &error.message),
        Err(error) if error.code == Code::RateLimited => too_many_requests(&error),
        Err(error) => json_error(StatusCode::SERVICE_UNAVAILABLE, error.code.as_str(), &error.message),
    }
}

/// Finds the server whose MCP endpoint a request is addressed to, and rejects origins that are not allowed.
pub(super) async fn find_server<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    if page::is_page_request(&request) {
        let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else {
            return unknown_client();
        };
        return match check_rate(&state, LimitKind::Request, client) {
            Ok(()) => page::public_page(&state, param(&params, "slug"), request).await,
            Err(error) => too_many_requests(&error),
        };
    }
    let tracking_id = param(&params, "tracking_id");
    if tracking_id.as_deref().is_some_and(|id| !is_personal_segment(id)) {
        let message = "A tracking ID consists of 1 to 128 characters from A-Z a-z 0-9 . _ ~ -";
        return reject_limited(&state, &request, Error::new(Code::NotFound, message));
    }
    let target = match locate(param(&params, "slug"), &request) {
        Ok(target) => target,
        Err(error) => return reject_limited(&state, &request, error),
    };
    let site = match find(&state, target).await {
        Ok(site) => site,
        Err(error) => return error_response(&error),
    };
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        let server = site.server();
        let public_url = &state.auth.public_url;
        let allowed =
            origin.to_str().is_ok_and(|origin| public_url.allows_origin(origin, &server.slug, &server.allowed_origins));
        if !allowed {
            record_rejection(&state.hosting, server, Rejection::OriginNotAllowed);
            let error = Error::new(Code::Forbidden, "Requests from this origin are not allowed.");
            return reject_limited(&state, &request, error);
        }
    }
    if *request.method() == Method::OPTIONS
        && let Err(error) = check_rate(&state, LimitKind::Request, site.client)
    {
        return error_response(&error);
    }
    let (keys, now) = (state.hosting.keys(), state.hosting.clock().now());
    let user = tracking_id.as_deref().map(claim_link::tracking_id);
    let user = user.map(|id| try_it::resolve(keys, &site.server().id, id, now)).transpose();
    let user = match user {
        Ok(user) => user,
        Err(error) => return reject_limited(&state, &request, error),
    };
    request.extensions_mut().insert(FoundServer { request: site, tracking_id, user });
    next.run(request).await
}

/// Rejects a request that does not reach the MCP endpoint, and counts it against the general rate limit.
fn reject_limited<R: HandlerFactory>(state: &RouterState<R>, request: &Request, error: Error) -> Response {
    let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else {
        return unknown_client();
    };
    error_response(&check_rate(state, LimitKind::Request, client).err().unwrap_or(error))
}

/// Authenticates a request by its token.
async fn authenticate(auth: &Auth, found: FoundServer, headers: &HeaderMap) -> waypost_core::Result<McpRequest> {
    let FoundServer { request, tracking_id, user } = found;
    let bearer = bearer(auth, &request, tracking_id.as_deref(), headers).await?;
    let ServerRequest { offers, client: address, request_id, .. } = request;
    // From here on, only the hash of a personal ID is used.
    let tracking_id = user.map(|id| personal::stored_form(&id).into_owned());
    Ok(McpRequest { offers, tracking_id, bearer, address, request_id })
}

async fn bearer(
    auth: &Auth,
    site: &ServerRequest,
    tracking_id: Option<&str>,
    headers: &HeaderMap,
) -> waypost_core::Result<Bearer> {
    if !has_oauth(site.server()) {
        return Ok(Bearer::NotRequired);
    }
    let challenge = Challenge { resource_metadata: site.address.resource_metadata(tracking_id) };
    Ok(match waypost_auth::bearer::authenticate(auth, site.server(), headers).await? {
        BearerToken::Missing => Bearer::Missing(challenge),
        BearerToken::Invalid => Bearer::Invalid(challenge),
        BearerToken::Valid(subject) => Bearer::Valid { subject, challenge },
    })
}

/// The MCP endpoint of a server.
pub(super) async fn endpoint<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    mut request: Request<Body>,
) -> Response {
    let Some(found) = request.extensions_mut().remove::<FoundServer>() else { return server_missing() };
    match authenticate(&state.auth, found, request.headers()).await {
        Ok(mcp_request) => state.endpoint.handle(request, &mcp_request).await,
        Err(error) => error_response(&error),
    }
}

fn server_missing() -> Response {
    error_response(&Error::internal("a request reached an MCP endpoint without a server"))
}

/// Responds to requests of the removed HTTP+SSE transport.
pub(super) async fn removed_transport<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    request: Request<Body>,
) -> Response {
    let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else {
        return unknown_client();
    };
    if let Err(error) = check_rate(&state, LimitKind::Request, client) {
        return error_response(&error);
    }
    match request.extensions().get::<FoundServer>() {
        Some(found) => waypost_mcp::transport::gone(&found.request.address.resource(found.tracking_id.as_deref())),
        None => server_missing(),
    }
}
