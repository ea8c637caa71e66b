//! Waypost as a client of an authorization server. It uses the client that an admin has registered beforehand, if the
//! instance names one; otherwise its client ID metadata document, if the server accepts one; otherwise dynamic client
//! registration (RFC 7591). Each connection registers a new client, because the server may have deleted a stored one.

use std::time::Duration;

use http::{Request, header};
use serde::Deserialize;
use serde_json::{Value, json};
use waypost_core::oauth_client::ClientAuthMethod;
use waypost_core::{Error, Result};
use waypost_outbound::{Limits, Route};

use super::discovery::{AuthorizationServer, failure};
use crate::remote_tokens::{ClientCredentials, OauthClient};

/// The path of Waypost's metadata document as a client of other authorization servers.
pub const CLIENT_DOCUMENT_PATH: &str = "/connections/client-metadata.json";
/// The path of the redirect URI.
pub const CALLBACK_PATH: &str = "/connections/callback";
/// The limits of a registration.
const LIMITS: Limits = Limits { max_bytes: 64 * 1024, timeout: Duration::from_secs(10), redirects: 0 };
/// The maximum length of an issued ID or secret in bytes.
const MAX_VALUE: usize = 2_048;

/// The response to a registration (RFC 7591, section 3.2.1).
#[derive(Deserialize)]
struct Registration {
    client_id: String,
    client_secret: Option<String>,
    token_endpoint_auth_method: Option<String>,
}

fn metadata(origin: &str) -> Value {
    json!({
        "client_name": "Waypost",
        "client_uri": origin,
        "redirect_uris": [format!("{origin}{CALLBACK_PATH}")],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "application_type": "web",
    })
}

/// Returns Waypost's metadata document as a client of other authorization servers (OAuth Client ID Metadata Document).
/// `origin` is the public origin of this installation.
#[must_use]
pub fn client_document(origin: &str) -> Value {
    let mut document = metadata(origin);
    document["client_id"] = format!("{origin}{CLIENT_DOCUMENT_PATH}").into();
    document["token_endpoint_auth_method"] = "none".into();
    document
}

/// Returns the client to use at an authorization server. `registered` is the one of the instance.
///
/// # Errors
/// `tool_server_error`: `reason` is `no_registration` if the server accepts neither a document nor a registration,
/// `registration_failed`, or `auth_method` if the server does not accept client secrets.
pub(super) async fn find_client(
    route: &Route,
    server: &AuthorizationServer,
    (registered, origin): (Option<ClientCredentials>, &str),
) -> Result<OauthClient> {
    if let Some(registered) = registered {
        return use_registered(server, registered);
    }
    // The authorization server must be able to fetch the document over HTTPS.
    if server.has_client_documents && origin.starts_with("https://") {
        return Ok(OauthClient {
            token_endpoint: server.token_endpoint.clone(),
            revocation_endpoint: server.revocation_endpoint.clone(),
            client_id: format!("{origin}{CLIENT_DOCUMENT_PATH}"),
            auth_method: ClientAuthMethod::None,
            client_secret: None,
        });
    }
    let Some(endpoint) = &server.registration_endpoint else {
        let message = "The authorization server accepts neither metadata documents nor registrations of clients. Register a client \
                       there, and enter its ID for the instance.";
        return Err(failure("no_registration", message));
    };
    let method = choose_method(server.auth_methods.as_deref());
    let mut body = metadata(origin);
    body["token_endpoint_auth_method"] = method.as_str().into();
    if let Some(scope) = &server.scope {
        body["scope"] = scope.as_str().into();
    }
    let request = Request::post(endpoint)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .body(body.to_string().into_bytes())
        .map_err(Error::internal)?;
    let response = route.send(request, LIMITS).await.map_err(|error| failure("unreachable", error.to_string()))?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        let message = format!("The authorization server rejected the registration with HTTP status {status}.");
        return Err(failure("registration_failed", message));
    }
    let client = serde_json::from_slice(response.body()).ok().and_then(|found| accept(found, method, server));
    client.ok_or_else(|| {
        failure("registration_failed", "The authorization server did not answer the registration with a valid client.")
    })
}

/// Returns the client that was registered beforehand. The method by which it authenticates follows from the metadata.
fn use_registered(server: &AuthorizationServer, registered: ClientCredentials) -> Result<OauthClient> {
    let ClientCredentials { client_id, client_secret } = registered;
    let auth_method = match (&client_secret, server.auth_methods.as_deref()) {
        (None, _) => ClientAuthMethod::None,
        // RFC 8414, section 2: the default.
        (Some(_), None) => ClientAuthMethod::Basic,
        (Some(_), Some(supported)) => {
            let mut methods = [ClientAuthMethod::Basic, ClientAuthMethod::Post].into_iter();
            let method = methods.find(|method| supported.iter().any(|text| text == method.as_str()));
            method
                .ok_or_else(|| failure("auth_method", "The authorization server does not accept secrets of clients."))?
        }
    };
    Ok(OauthClient {
        token_endpoint: server.token_endpoint.clone(),
        revocation_endpoint: server.revocation_endpoint.clone(),
        client_id,
        auth_method,
        client_secret: client_secret.map(|secret| secret.expose().to_owned()),
    })
}

/// Returns the authentication method to register: `none` if possible, because PKCE protects the code.
fn choose_method(supported: Option<&[String]>) -> ClientAuthMethod {
    // Without a list, the default is `client_secret_basic` (RFC 8414, section 2). But servers for MCP rarely state a
    // list, and accept public clients.
    let Some(supported) = supported else { return ClientAuthMethod::None };
    let has = |method: ClientAuthMethod| supported.iter().any(|text| text == method.as_str());
    [ClientAuthMethod::None, ClientAuthMethod::Basic, ClientAuthMethod::Post]
        .into_iter()
        .find(|method| has(*method))
        .unwrap_or(ClientAuthMethod::None)
}

/// Returns the registered client; `None` if the response is invalid. The server may have chosen another method.
fn accept(found: Registration, requested: ClientAuthMethod, server: &AuthorizationServer) -> Option<OauthClient> {
    let is_value =
        |text: &String| (1..=MAX_VALUE).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let auth_method = match &found.token_endpoint_auth_method {
        Some(text) => text.parse().ok()?,
        None => requested,
    };
    let has_secret = found.client_secret.is_some() || auth_method == ClientAuthMethod::None;
    let is_valid = has_secret && is_value(&found.client_id) && found.client_secret.iter().all(is_value);
    is_valid.then(|| OauthClient {
        token_endpoint: server.token_endpoint.clone(),
        revocation_endpoint: server.revocation_endpoint.clone(),
        client_id: found.client_id,
        auth_method,
        client_secret: found.client_secret.filter(|_| auth_method != ClientAuthMethod::None),
    })
}
