//! Public metadata of the authorization server and of the protected resources.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use waypost_core::oauth_client::ClientAuthMethod;
use waypost_core::scope::{Scope, Scopes};
use waypost_ops::gateway_url::GatewayResource;

use crate::Auth;
use crate::gateway::GatewayRequest;
use crate::issuer_request::IssuerRequest;
use crate::server_request::ServerRequest;

/// The `Cache-Control` header of metadata.
const CACHE: &str = "public, max-age=300";

/// `/.well-known/oauth-authorization-server…` (RFC 8414, section 3), and the same document at the path of OpenID
/// Connect Discovery, where some clients look for it.
pub async fn authorization_server<R: IssuerRequest>(State(auth): State<Auth>, incoming: R) -> Response {
    let documents = auth.documents.is_advertised().await;
    ([(header::CACHE_CONTROL, CACHE)], Json(document(&incoming, documents))).into_response()
}

fn document(incoming: &impl IssuerRequest, documents: bool) -> Value {
    let issuer = incoming.issuer();
    let endpoint = |name: &str| format!("{issuer}/oauth/{name}");
    let auth_methods: Vec<_> = ClientAuthMethod::ALL.iter().map(|method| method.as_str()).collect();
    json!({
        "issuer": issuer,
        "authorization_endpoint": endpoint("authorize"),
        "token_endpoint": endpoint("token"),
        "registration_endpoint": endpoint("register"),
        "revocation_endpoint": endpoint("revoke"),
        "scopes_supported": incoming.issuer_id().scopes().iter().map(|scope| scope.as_str()).collect::<Vec<_>>(),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": auth_methods,
        "revocation_endpoint_auth_methods_supported": auth_methods,
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": ["none", "login", "consent"],
        // RFC 9207, section 3.
        "authorization_response_iss_parameter_supported": true,
        // draft-ietf-oauth-client-id-metadata-document, section 5.
        "client_id_metadata_document_supported": documents,
    })
}

/// The path parameter of a personal URL.
#[derive(Debug, Deserialize)]
pub struct PersonalPath {
    tracking_id: Option<String>,
}

/// `/.well-known/oauth-protected-resource…` (RFC 9728, section 3). `resource` is exactly the URL that the client used.
pub async fn protected_resource(
    State(_): State<Auth>,
    incoming: ServerRequest,
    Path(personal): Path<PersonalPath>,
) -> Response {
    if personal.tracking_id.as_deref().is_some_and(|id| !waypost_core::claim_link::is_personal_segment(id)) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let document = json!({
        "resource": incoming.address.resource(personal.tracking_id.as_deref()),
        "resource_name": incoming.server().name,
        "authorization_servers": [incoming.address.issuer()],
        "scopes_supported": [Scopes::default().to_string()],
        "bearer_methods_supported": ["header"],
    });
    ([(header::CACHE_CONTROL, CACHE)], Json(document)).into_response()
}

/// The path parameters of a resource of the gateway.
#[derive(Debug, Deserialize)]
pub struct GatewayPath {
    organization: String,
    tool_set: Option<String>,
}

/// The protected resource metadata of a resource of the gateway (RFC 9728, section 3). Does not reveal whether the
/// organisation or the tool set exists.
pub async fn gateway_resource(incoming: GatewayRequest, Path(path): Path<GatewayPath>) -> Response {
    let Some(resource) = GatewayResource::new(&path.organization, path.tool_set.as_deref()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let document = json!({
        "resource": incoming.urls.resource(&resource),
        "resource_name": resource.tool_set().unwrap_or(resource.organization()),
        "authorization_servers": [incoming.urls.issuer()],
        "scopes_supported": [Scope::Gateway.as_str()],
        "bearer_methods_supported": ["header"],
    });
    ([(header::CACHE_CONTROL, CACHE)], Json(document)).into_response()
}
