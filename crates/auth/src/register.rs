//! `POST /oauth/register`: dynamic client registration (RFC 7591). Open to everybody, so it is limited per address and per
//! server, and clients that nobody uses expire after a day.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use waypost_core::oauth_client::OauthClient;
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_ops::oauth_clients::{self, Registration};

use crate::Auth;
use crate::answer;
use crate::limits::Kind;
use crate::site::Site;

/// Bytes of a registration at most.
const MAX_BODY: usize = 64 * 1_024;

/// Client metadata (RFC 7591, section 2), as far as it means anything here; further members are passed over.
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

/// Registers a client and says what was registered.
pub async fn register(State(auth): State<Auth>, site: Site, body: Bytes) -> Response {
    if let Err(wait) = auth.limits.check(Kind::Register, site.client) {
        return answer::too_many(wait);
    }
    match metadata(&body) {
        Ok(registration) => {
            let cx = auth.context(&site);
            let network = auth.network(&site);
            match oauth_clients::register(&cx, auth.hosting.ops(), site.server(), &network, &registration).await {
                Ok((client, secret)) => registered(&client, secret.as_deref()),
                Err(error) => answer::error(&site, &error),
            }
        }
        Err(error) => answer::error(&site, &error),
    }
}

fn metadata(body: &[u8]) -> Result<Registration, OauthError> {
    let refused = |why: String| OauthError::new(OauthCode::InvalidClientMetadata, why);
    if body.len() > MAX_BODY {
        return Err(refused(format!("The metadata is longer than {MAX_BODY} bytes.")));
    }
    let metadata: Metadata =
        serde_json::from_slice(body).map_err(|error| refused(format!("The body is no client metadata: {error}.")))?;
    Ok(Registration {
        client_name: metadata.client_name,
        redirect_uris: metadata.redirect_uris.unwrap_or_default(),
        application_type: metadata.application_type,
        token_endpoint_auth_method: metadata.token_endpoint_auth_method,
        grant_types: metadata.grant_types,
        response_types: metadata.response_types,
    })
}

/// RFC 7591, section 3.2.1.
fn registered(client: &OauthClient, secret: Option<&str>) -> Response {
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
        // It does not expire by itself.
        document["client_secret_expires_at"] = Value::from(0);
    }
    (StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(document)).into_response()
}
