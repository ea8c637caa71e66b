//! The server that a request is for, and its MCP address.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use waypost_auth::Auth;
use waypost_auth::bearer::Found;
use waypost_auth::server_request::{ServerRequest, has_oauth};
use waypost_core::claim_link::{self, is_personal_segment};
use waypost_core::{Code, Error, personal};
use waypost_mcp::bearer::{Bearer, Challenge};
use waypost_mcp::endpoint::{HandlerFactory, McpRequest, error_response};
use waypost_ops::call_records::{Rejection, record_rejection};
use waypost_ops::public_url::HostKind as Host;
use waypost_ops::try_it;

use super::client::ClientAddress;
use super::{RequestId, RequestedHost, RouterState, check_rate, no_client, page, plain, too_many};

/// The MCP address of the server that a request is for.
#[derive(Debug, Clone)]
struct McpAddress(String);

/// Where a request goes, as far as it says so itself.
pub(super) struct ServerTarget {
    pub(super) asked: RequestedHost,
    slug: String,
    pub(super) client: IpAddr,
    request_id: String,
}

pub(super) fn locate(slug: Option<String>, request: &Request) -> waypost_core::Result<ServerTarget> {
    let asked = request.extensions().get::<RequestedHost>().cloned();
    let (asked, slug) = match (asked, slug) {
        (Some(asked @ RequestedHost { host: Host::Main, .. }), Some(slug)) => (asked, slug),
        (Some(RequestedHost { host: Host::Server(slug), authority }), None) => {
            (RequestedHost { host: Host::Server(slug.clone()), authority }, slug)
        }
        // `/s/…` on a virtual host, or `/mcp` on HOST: no server has this address.
        _ => return Err(Error::not_found("server")),
    };
    let sender = request.extensions().get::<ClientAddress>();
    Ok(ServerTarget {
        asked,
        slug,
        client: sender.ok_or_else(|| Error::internal("a request without a client address"))?.address,
        request_id: request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default(),
    })
}

/// The server that a request is for.
pub(super) async fn find<R: HandlerFactory>(
    routes: &RouterState<R>,
    located: ServerTarget,
) -> waypost_core::Result<ServerRequest> {
    let ServerTarget { asked, slug, client, request_id } = located;
    let (offer_cache, slug) = (routes.hosting.offer_cache(), slug.to_ascii_lowercase());
    if !offer_cache.has_loaded(&slug) {
        // A slug that is made up asks the database each time.
        check_rate(routes, client)?;
    }
    let offers = offer_cache.get(&slug).await.inspect_err(|error| {
        if error.code != Code::NotFound {
            tracing::error!(cause = ?std::error::Error::source(error).map(ToString::to_string), %error, "no server");
        }
    })?;
    Ok(ServerRequest {
        address: routes.auth.public_url.server_urls(&asked.authority, &asked.host, &slug),
        offers,
        client,
        request_id,
    })
}

pub(super) fn param(params: &RawPathParams, name: &str) -> Option<String> {
    params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

/// Finds the server whose authorization server is asked.
pub(super) async fn find_site<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    let found = match locate(param(&params, "slug"), &request) {
        Ok(located) => find(&routes, located).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(site) => {
            request.extensions_mut().insert(site);
            next.run(request).await
        }
        Err(error) if error.code == Code::NotFound => plain(StatusCode::NOT_FOUND, "not_found", &error.message),
        Err(error) if error.code == Code::RateLimited => too_many(&error),
        Err(error) => plain(StatusCode::SERVICE_UNAVAILABLE, error.code.as_str(), &error.message),
    }
}

/// Finds the server whose MCP address is asked, and refuses origins that may not call it.
pub(super) async fn find_server<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Response {
    if page::is_wanted(&request) {
        let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else {
            return no_client();
        };
        return match check_rate(&routes, client) {
            Ok(()) => page::of(&routes, param(&params, "slug"), request).await,
            Err(error) => too_many(&error),
        };
    }
    let tracking_id = param(&params, "tracking_id");
    if tracking_id.as_deref().is_some_and(|id| !is_personal_segment(id)) {
        let message = "A tracking id is 1 to 128 of the characters A-Z a-z 0-9 . _ ~ -";
        return refuse_limited(&routes, &request, Error::new(Code::NotFound, message));
    }
    let located = match locate(param(&params, "slug"), &request) {
        Ok(located) => located,
        Err(error) => return refuse_limited(&routes, &request, error),
    };
    let site = match find(&routes, located).await {
        Ok(site) => site,
        Err(error) => return error_response(&error),
    };
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        let server = site.server();
        let public_url = &routes.auth.public_url;
        let allowed =
            origin.to_str().is_ok_and(|origin| public_url.allows_origin(origin, &server.slug, &server.allowed_origins));
        if !allowed {
            record_rejection(&routes.hosting, server, Rejection::OriginNotAllowed);
            let error = Error::new(Code::Forbidden, "This origin may not call this server.");
            return refuse_limited(&routes, &request, error);
        }
    }
    if *request.method() == Method::OPTIONS
        && let Err(error) = check_rate(&routes, site.client)
    {
        return error_response(&error);
    }
    // Whom the ID identifies, beside the ID itself, which belongs to the address.
    let (keys, now) = (routes.hosting.keys(), routes.hosting.clock().now());
    let user = tracking_id.as_deref().map(claim_link::tracking_id);
    let user = user.map(|id| try_it::resolve(keys, &site.server().id, id, now)).transpose();
    let user = match user {
        Ok(user) => user,
        Err(error) => return refuse_limited(&routes, &request, error),
    };
    request.extensions_mut().insert((site, tracking_id, user));
    next.run(request).await
}

/// Refuses a request at an MCP address that does not reach the endpoint, which has limits of its own.
fn refuse_limited<R: HandlerFactory>(routes: &RouterState<R>, request: &Request, error: Error) -> Response {
    let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else { return no_client() };
    error_response(&check_rate(routes, client).err().unwrap_or(error))
}

/// Finds out whom the request's token names.
pub(super) async fn arrive<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    type Found = (ServerRequest, Option<String>, Option<String>);
    let Some((site, tracking_id, user)) = request.extensions_mut().remove::<Found>() else {
        return error_response(&Error::internal("a request came to an MCP address without a server"));
    };
    let headers = request.headers().clone();
    let bearer = match bearer(&routes.auth, &site, (tracking_id.as_deref(), &headers)).await {
        Ok(bearer) => bearer,
        Err(error) => return error_response(&error),
    };
    let ServerRequest { offers, address: mcp_address, client: address, request_id, .. } = site;
    if !request.uri().path().trim_end_matches('/').ends_with("/mcp") {
        request.extensions_mut().insert(McpAddress(mcp_address.resource(tracking_id.as_deref())));
    }
    // From here on nothing sees a personal ID, only its hash.
    let tracking_id = user.map(|id| personal::stored_form(&id).into_owned());
    request.extensions_mut().insert(Arc::new(McpRequest { offers, tracking_id, bearer, address, request_id }));
    next.run(request).await
}

async fn bearer(
    auth: &Auth,
    site: &ServerRequest,
    (tracking_id, headers): (Option<&str>, &HeaderMap),
) -> waypost_core::Result<Bearer> {
    if !has_oauth(site.server()) {
        return Ok(Bearer::NotRequired);
    }
    let challenge = Challenge { resource_metadata: site.address.resource_metadata(tracking_id) };
    Ok(match waypost_auth::bearer::find(auth, site.server(), headers).await? {
        Found::Missing => Bearer::Missing(challenge),
        Found::Invalid => Bearer::Invalid(challenge),
        Found::Valid(subject) => Bearer::Valid { subject, challenge },
    })
}

pub(super) async fn endpoint<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    request: Request<Body>,
) -> Response {
    match request.extensions().get::<Arc<McpRequest>>().cloned() {
        Some(arrived) => routes.endpoint.handle(request, &arrived).await,
        None => error_response(&Error::internal("a request came to the endpoint without a server")),
    }
}

/// The addresses of the HTTP+SSE transport.
pub(super) async fn removed_transport<R: HandlerFactory>(
    State(routes): State<Arc<RouterState<R>>>,
    request: Request<Body>,
) -> Response {
    let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else { return no_client() };
    if let Err(error) = check_rate(&routes, client) {
        return error_response(&error);
    }
    match request.extensions().get::<McpAddress>() {
        Some(address) => waypost_mcp::transport::gone(&address.0),
        None => {
            error_response(&Error::internal("a request came to an address of the former transport without a server"))
        }
    }
}
