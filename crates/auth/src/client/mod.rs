//! The client of a request: registered at this issuer (RFC 7591) or identified by its metadata document.

pub mod document;

use std::time::Duration;

use url::Url;
use waypost_core::oauth_client::ClientAuthMethod;
use waypost_core::secret::hash;
use waypost_core::{Error, Timestamp};
use waypost_ops::{oauth_clients, redirect_uri};
use waypost_outbound::Purpose;

use crate::Auth;
use crate::client::document::{DocumentError, is_document_url};
use crate::issuer_request::IssuerRequest;
use waypost_http_kit::limits::LimitKind;

/// An OAuth client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The ID: assigned at registration, or the URL of its metadata document.
    pub id: String,
    /// The self-reported name, which is not verified.
    pub name: String,
    /// The host of the metadata document. `None` for a registered client, and at the token endpoint.
    pub host: Option<String>,
    /// The allowed redirect URIs.
    pub redirect_uris: Vec<String>,
    /// The time of registration. `None` if the client has a metadata document.
    pub registered_at: Option<Timestamp>,
    /// The client authentication method.
    pub auth_method: ClientAuthMethod,
    /// The SHA-256 hash of the secret, in hexadecimal. `None` for a public client.
    secret_hash: Option<String>,
}

/// The reason why a client cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The ID is unknown, or its registration has expired.
    #[error("This application is not registered with this server, or its registration has expired.")]
    Unregistered,
    /// The metadata document cannot be used.
    #[error("{}", .0.message())]
    Document(#[from] DocumentError),
    /// The network that the request came from has caused too many fetches of documents. Contains the time to wait.
    #[error("Too many metadata documents were requested.")]
    RateLimited(Duration),
    /// The operation failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Returns the client `id` of an issuer for the token endpoint. Does not fetch the metadata document of a client that
/// has one: codes and tokens are bound to the ID, so the document is not needed.
///
/// # Errors
/// Returns a [`ClientError`] if the client cannot be used.
pub async fn get_for_token(auth: &Auth, incoming: &impl IssuerRequest, id: &str) -> Result<Client, ClientError> {
    if !is_document_url(id) {
        return get(auth, incoming, id).await;
    }
    Ok(Client {
        id: id.to_owned(),
        name: id.to_owned(),
        host: None,
        redirect_uris: Vec::new(),
        registered_at: None,
        auth_method: ClientAuthMethod::None,
        secret_hash: None,
    })
}

/// Returns the client `id` of an issuer.
///
/// # Errors
/// Returns a [`ClientError`] if the client cannot be used.
pub async fn get(auth: &Auth, incoming: &impl IssuerRequest, id: &str) -> Result<Client, ClientError> {
    if is_document_url(id) {
        let route = incoming.route(auth, Purpose::ClientDocuments).await?;
        if !auth.documents.is_cached(&route, id) {
            auth.limits.check(LimitKind::ClientDocument, incoming.address()).map_err(ClientError::RateLimited)?;
        }
        let document = auth.documents.get(&route, id).await.inspect_err(|error| {
            let request_id = incoming.request_id();
            tracing::info!(request_id, client_id = id, %error, "failed to use client metadata document");
        })?;
        return Ok(Client {
            id: document.client_id.clone(),
            name: document.client_name.clone(),
            host: Url::parse(id).ok().and_then(|url| url.host_str().map(str::to_owned)),
            redirect_uris: document.redirect_uris.clone(),
            registered_at: None,
            auth_method: ClientAuthMethod::None,
            secret_hash: None,
        });
    }
    let client = oauth_clients::find(&auth.context(incoming), auth.hosting.ops(), &incoming.issuer_id(), id).await?;
    client.map_or(Err(ClientError::Unregistered), |client| {
        Ok(Client {
            id: client.client_id,
            name: client.name,
            host: None,
            redirect_uris: client.redirect_uris,
            registered_at: Some(client.created_at),
            auth_method: client.auth_method,
            secret_hash: client.secret_hash,
        })
    })
}

impl Client {
    /// Returns the redirect URI for a request: `requested` if it is registered, or the only registered one if
    /// `requested` is `None`. Returns `None` otherwise.
    #[must_use]
    pub fn redirect_uri(&self, requested: Option<&str>) -> Option<String> {
        match (requested, self.redirect_uris.as_slice()) {
            (Some(uri), registered) => {
                registered.iter().any(|own| redirect_uri::matches(own, uri)).then(|| uri.to_owned())
            }
            (None, [only]) => Some(only.clone()),
            (None, _) => None,
        }
    }

    /// Whether the client is authenticated by `secret`. A public client has no secret and must not send one.
    #[must_use]
    pub fn accepts(&self, method: ClientAuthMethod, secret: Option<&str>) -> bool {
        match (&self.secret_hash, secret) {
            (None, secret) => secret.is_none_or(str::is_empty),
            // Only hashes are compared, so the timing reveals nothing about the secret.
            (Some(own), Some(secret)) => self.auth_method == method && *own == hash(secret),
            (Some(_), None) => false,
        }
    }
}
