//! The gateway: `/gateway/mcp`, `/gateway/ORG/mcp` and `/gateway/ORG/SET/mcp`, and the authorization server of the issuer
//! `/gateway`, on the main host.
//!
//! | Address | Who can use it | Cost of a request | Stores | Reveals |
//! |---|---|---|---|---|
//! | all | anyone | a hash, and one query; failures count towards the general rate limit | nothing | nothing: without a valid token, the answer is 401, whether the address exists or not |
//! | all | agents with a token, and people with an access token for exactly this address | a list from memory, or a call of a server that was granted; ten calls at a time | last use of the token; a row per call for 30 days by default | what was granted and approved |

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use waypost_auth::gateway::GatewayRequest;
use waypost_core::scope::Scope;
use waypost_gateway::{GatewayAddress, TokenCheck};
use waypost_http_kit::layered::record_route;
use waypost_mcp::endpoint::HandlerFactory;
use waypost_ops::agent_tokens::{self, ResolvedAgent};
use waypost_ops::gateway_sign_in;
use waypost_ops::gateway_url::{GatewayResource, GatewayUrls};
use waypost_ops::hosting::with_timeout;

use super::client::ClientAddress;
use super::{Host, RequestId, RequestedHost, RouterState, any_origin, not_found, reject_limited, unknown_client};

/// Returns the routes of the gateway.
pub(super) fn routes<R: HandlerFactory>(state: &Arc<RouterState<R>>) -> Router {
    let mut routes = Router::new();
    for path in ["/gateway/mcp", "/gateway/{organization}/mcp", "/gateway/{organization}/{tool_set}/mcp"] {
        routes = routes.route(path, any(serve::<R>));
    }
    routes.route_layer(middleware::from_fn(record_route)).with_state(Arc::clone(state))
}

/// Returns the routes of the authorization server: metadata and endpoints for clients of any origin, which use no cookies,
/// and the pages.
pub(super) fn oauth<R: HandlerFactory>(state: &Arc<RouterState<R>>) -> Router {
    let endpoints = Router::new()
        .nest("/gateway/oauth", waypost_auth::gateway_endpoint_routes())
        .merge(waypost_auth::gateway_well_known_routes())
        .layer(any_origin());
    Router::new()
        .nest("/gateway/oauth", waypost_auth::gateway_page_routes())
        .merge(endpoints)
        .layer(middleware::from_fn_with_state(Arc::clone(state), prepare_oauth::<R>))
        .with_state(state.auth.clone())
}

async fn prepare_oauth<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let requested = request.extensions().get::<RequestedHost>().filter(|requested| requested.host == Host::Main);
    let Some(requested) = requested else { return not_found() };
    let urls = GatewayUrls::new(&state.auth.public_url, &requested.authority);
    let Some(ClientAddress { address: client, .. }) = request.extensions().get().copied() else {
        return unknown_client();
    };
    let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    request.extensions_mut().insert(GatewayRequest { urls, client, request_id });
    next.run(request).await
}

/// The result of authenticating a request.
enum Credentials {
    /// The agent may use the address, provided that the address belongs to its organisation.
    Valid(ResolvedAgent),
    /// There is no token, or it is not valid for this address.
    Invalid,
    /// The token is valid, but the address belongs to another organisation.
    Foreign,
}

async fn serve<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    Extension(requested): Extension<RequestedHost>,
    Extension(client): Extension<ClientAddress>,
    Path(mut names): Path<HashMap<String, String>>,
    request: Request,
) -> Response {
    let Some(gateway) = state.gateway.as_ref().filter(|_| requested.host == Host::Main) else { return not_found() };
    let address = GatewayAddress { organization: names.remove("organization"), tool_set: names.remove("tool_set") };
    let token: Arc<str> = bearer(request.headers()).unwrap_or_default().into();
    match authenticate(&state, &address, &token).await {
        Ok(Credentials::Valid(agent)) => {
            let is_valid = token_check(&state, &address, token);
            gateway.handle(&agent, &address, is_valid, request.into_parts()).await
        }
        Ok(Credentials::Foreign) => not_found(),
        Ok(Credentials::Invalid) => {
            let urls = GatewayUrls::new(&state.auth.public_url, &requested.authority);
            let metadata = resource_of(&address).map(|resource| urls.resource_metadata(&resource));
            reject_limited(&state, client.address, unauthorized(request.headers(), metadata.as_deref()))
        }
        Err(_) => waypost_gateway::unavailable(),
    }
}

/// Returns the protected resource of an address. `None` for the address without an organisation, and for malformed ones.
fn resource_of(address: &GatewayAddress) -> Option<GatewayResource> {
    GatewayResource::new(address.organization.as_deref()?, address.tool_set.as_deref())
}

/// Returns a function that authenticates the token of an open stream again.
fn token_check<R: HandlerFactory>(
    state: &Arc<RouterState<R>>,
    address: &GatewayAddress,
    token: Arc<str>,
) -> TokenCheck {
    let (state, address) = (Arc::clone(state), Arc::new(address.clone()));
    Arc::new(move || {
        let (state, address, token) = (Arc::clone(&state), Arc::clone(&address), Arc::clone(&token));
        Box::pin(async move { Ok(matches!(authenticate(&state, &address, &token).await?, Credentials::Valid(_))) })
    })
}

/// Authenticates a request by the token of an agent, or by the access token of a person for exactly this resource.
/// Fails if this takes too long.
async fn authenticate<R: HandlerFactory>(
    state: &RouterState<R>,
    address: &GatewayAddress,
    token: &str,
) -> waypost_core::Result<Credentials> {
    with_timeout(Box::pin(find_credentials(state, address, token))).await
}

async fn find_credentials<R: HandlerFactory>(
    state: &RouterState<R>,
    address: &GatewayAddress,
    token: &str,
) -> waypost_core::Result<Credentials> {
    if let Some(agent) = agent_tokens::resolve(&state.hosting, token).await? {
        return Ok(Credentials::Valid(agent));
    }
    let Some(person) = gateway_sign_in::authenticate(&state.hosting, token).await? else {
        return Ok(Credentials::Invalid);
    };
    let is_foreign = address.organization.as_deref().is_some_and(|slug| slug != person.resource.organization());
    Ok(match resource_of(address) {
        Some(resource) if resource == person.resource => Credentials::Valid(person.agent),
        _ if is_foreign => Credentials::Foreign,
        // The client can ask its user to sign in for a token for this address, whether the address exists or not.
        _ => Credentials::Invalid,
    })
}

/// Returns the bearer token (RFC 6750, section 2.1). Several `Authorization` headers are ambiguous, so they are
/// ignored.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Returns the response with the challenge (RFC 6750, section 3; RFC 9728, section 5.1): without `error` if no token
/// was sent, and without metadata for an address for which users cannot sign in.
fn unauthorized(headers: &HeaderMap, metadata: Option<&str>) -> Response {
    let mut parameters = Vec::new();
    if headers.contains_key(header::AUTHORIZATION) {
        parameters.push("error=\"invalid_token\"".to_owned());
    }
    if let Some(metadata) = metadata {
        parameters.push(format!("resource_metadata=\"{metadata}\""));
        parameters.push(format!("scope=\"{}\"", Scope::Gateway));
    }
    let challenge = format!("Bearer {}", parameters.join(", "));
    let message = match metadata {
        Some(_) => "Sign in with OAuth, or send the token of an agent: Authorization: Bearer wpa_…",
        None => "Send the token of an agent: Authorization: Bearer wpa_…",
    };
    let error = json!({ "jsonrpc": "2.0", "error": { "code": -31_401, "message": message } }).to_string();
    let mut response = (StatusCode::UNAUTHORIZED, error).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(challenge) = HeaderValue::from_str(challenge.trim_end()) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
