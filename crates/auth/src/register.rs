//! `POST /oauth/register`: dynamic client registration (RFC 7591). Open to anyone, so it is limited per client address
//! and per issuer, and unused clients expire after a day.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use waypost_core::oauth_client::OauthClient;
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_ops::oauth_clients::{self, ClientRegistration};

use crate::Auth;
use crate::issuer_request::IssuerRequest;
use crate::response;
use waypost_http_kit::limits::LimitKind;

/// The maximum size of a registration, in bytes.
const MAX_BODY: usize = 64 * 1_024;

/// The client metadata (RFC 7591, section 2) that this server uses. Other members are ignored.
#[derive(Debug, Deserialize)]
struct Metadata {
    client_name: Option<String>,
    #[serde(default)]
    redirect_uris: Option<Vec<String>>,
    application_type: Option<String>,
    token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
}

/// Registers a client and returns its registration.
pub async fn register<R: IssuerRequest>(State(auth): State<Auth>, incoming: R, body: Bytes) -> Response {
    if let Err(wait) = auth.limits.check(LimitKind::ClientRegistration, incoming.address()) {
        return response::too_many(wait);
    }
    match metadata(&body) {
        Ok(registration) => {
            let cx = auth.context(&incoming);
            let network = auth.network(&incoming);
            let issuer = incoming.issuer_id();
            match oauth_clients::register(&cx, auth.hosting.ops(), &issuer, &network, &registration).await {
                Ok((client, secret)) => registration_response(&client, secret.as_deref()),
                Err(error) => response::error(&incoming, &error),
            }
        }
        Err(error) => response::error(&incoming, &error),
    }
}

fn metadata(body: &[u8]) -> Result<ClientRegistration, OauthError> {
    let invalid = |reason: String| OauthError::new(OauthCode::InvalidClientMetadata, reason);
    if body.len() > MAX_BODY {
        return Err(invalid(format!("The metadata is longer than {MAX_BODY} bytes.")));
    }
    let metadata: Metadata = serde_json::from_slice(body)
        .map_err(|error| invalid(format!("The body is not valid client metadata: {error}.")))?;
    Ok(ClientRegistration {
        client_name: metadata.client_name,
        redirect_uris: metadata.redirect_uris.unwrap_or_default(),
        application_type: metadata.application_type,
        token_endpoint_auth_method: metadata.token_endpoint_auth_method,
        grant_types: metadata.grant_types,
        response_types: metadata.response_types,
    })
}

/// Returns the response to a registration (RFC 7591, section 3.2.1).
fn registration_response(client: &OauthClient, secret: Option<&str>) -> Response {
    let mut document = json!({
        "client_id": client.client_id,
        "client_id_issued_at": client.created_at.0.div_euclid(1_000),
        "client_name": client.name,
        "redirect_uris": client.redirect_uris,
        "application_type": client.application_type.as_str(),
        "token_endpoint_auth_method": client.auth_method.as_str(),
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    });
    if let Some(secret) = secret {
        document["client_secret"] = Value::from(secret);
        // 0: the secret does not expire.
        document["client_secret_expires_at"] = Value::from(0);
    }
    (StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(document)).into_response()
}
