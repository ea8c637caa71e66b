//! The gateway: `/gateway/mcp`, `/gateway/ORG/mcp` and `/gateway/ORG/SET/mcp`, on the main host.
//!
//! | Address | Who can use it | Cost of a request | Stores | Reveals |
//! |---|---|---|---|---|
//! | all | anyone | a hash, and one query for a token of the right form; failures count towards the general rate limit | nothing | nothing: without a valid token, the answer is 401, whether the address exists or not |
//! | all | agents with a token | a list from memory, or a call of a server that was granted; ten calls at a time | last use of the token | what was granted and approved |

use std::collections::HashMap;
use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use waypost_gateway::GatewayAddress;
use waypost_http_kit::layered::record_route;
use waypost_mcp::endpoint::HandlerFactory;
use waypost_ops::agent_tokens;

use super::client::ClientAddress;
use super::{Host, RequestedHost, RouterState, json_error, not_found, reject_limited};

/// Returns the routes of the gateway.
pub(super) fn routes<R: HandlerFactory>(state: &Arc<RouterState<R>>) -> Router {
    let mut routes = Router::new();
    for path in ["/gateway/mcp", "/gateway/{organization}/mcp", "/gateway/{organization}/{tool_set}/mcp"] {
        routes = routes.route(path, any(serve::<R>));
    }
    routes.route_layer(middleware::from_fn(record_route)).with_state(Arc::clone(state))
}

async fn serve<R: HandlerFactory>(
    State(state): State<Arc<RouterState<R>>>,
    Extension(requested): Extension<RequestedHost>,
    Extension(client): Extension<ClientAddress>,
    Path(mut names): Path<HashMap<String, String>>,
    request: Request,
) -> Response {
    let Some(gateway) = state.gateway.as_ref().filter(|_| requested.host == Host::Main) else { return not_found() };
    let agent = match bearer(request.headers()) {
        Some(token) => agent_tokens::resolve(&state.hosting, token).await,
        None => Ok(None),
    };
    let agent = match agent {
        Ok(Some(agent)) => agent,
        Ok(None) => return reject_limited(&state, client.address, unauthorized(request.headers())),
        Err(_) => return json_error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again in a few seconds."),
    };
    let address = GatewayAddress { organization: names.remove("organization"), tool_set: names.remove("tool_set") };
    gateway.handle(&agent, &address, request.into_parts()).await
}

/// Returns the bearer token (RFC 6750, section 2.1). Several headers are ambiguous, so they count as none.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The challenge (RFC 6750, section 3): without `error` if no token was sent.
fn unauthorized(headers: &HeaderMap) -> Response {
    let challenge = match headers.contains_key(header::AUTHORIZATION) {
        true => "Bearer error=\"invalid_token\"",
        false => "Bearer",
    };
    let message = "Send the token of an agent: Authorization: Bearer wpa_…";
    let error = json!({ "jsonrpc": "2.0", "error": { "code": -31_401, "message": message } }).to_string();
    let mut response = (StatusCode::UNAUTHORIZED, error).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}
