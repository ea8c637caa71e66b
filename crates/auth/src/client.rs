//! The client of a request: registered at this server (RFC 7591), or known by its metadata document.

pub mod document;

use std::time::Duration;

use url::Url;
use waypost_core::oauth_client::AuthMethod;
use waypost_core::secret::hash;
use waypost_core::{Error, Timestamp};
use waypost_ops::upstream::route_of;
use waypost_ops::{oauth_clients, redirect_uri};
use waypost_outbound::Purpose;

use crate::Auth;
use crate::client::document::{DocumentError, is_document_url};
use crate::limits::Kind;
use crate::site::Site;

/// A client, as far as requests need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its id: what it got at registration, or the URL of its document.
    pub id: String,
    /// What it calls itself: a claim.
    pub name: String,
    /// The host that vouches for it, when it has a document.
    pub host: Option<String>,
    /// Where its codes may be sent.
    pub redirect_uris: Vec<String>,
    /// When it registered; `None` if it has a document.
    pub registered_at: Option<Timestamp>,
    /// How it proves who it is.
    pub auth_method: AuthMethod,
    /// SHA-256 of its secret, hexadecimal.
    secret_hash: Option<String>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// No client registered with this id, or no longer.
    #[error("This application is not registered here, or its registration has ended.")]
    Unregistered,
    /// Its document cannot be used.
    #[error("{}", .0.message())]
    Document(#[from] DocumentError),
    /// The network of the request has had too many documents fetched; how long to wait.
    #[error("Too many documents were fetched.")]
    TooMany(Duration),
    /// The database is away.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// The client called `id` at a server, for the token endpoint: codes and tokens are bound to the id, so the document of
/// a client that has one is not needed again, and may be away.
///
/// # Errors
/// Why there is none.
pub async fn find_known(auth: &Auth, site: &Site, id: &str) -> Result<Client, Unknown> {
    if !is_document_url(id) {
        return find(auth, site, id).await;
    }
    Ok(Client {
        id: id.to_owned(),
        name: id.to_owned(),
        host: None,
        redirect_uris: Vec::new(),
        registered_at: None,
        auth_method: AuthMethod::None,
        secret_hash: None,
    })
}

/// The client called `id` at a server.
///
/// # Errors
/// Why there is none.
pub async fn find(auth: &Auth, site: &Site, id: &str) -> Result<Client, Unknown> {
    if is_document_url(id) {
        let (ops, organization) = (auth.hosting.ops(), &site.server().organization_id);
        let route = route_of(auth.documents.outbound(), ops, Purpose::ClientDocuments, organization).await?;
        if !auth.documents.is_cached(&route, id) {
            auth.limits.check(Kind::Document, site.client).map_err(Unknown::TooMany)?;
        }
        let document = auth.documents.get(&route, id).await.inspect_err(|error| {
            let request_id = &site.request_id;
            tracing::info!(request_id, client_id = id, %error, "a client metadata document cannot be used");
        })?;
        return Ok(Client {
            id: document.client_id.clone(),
            name: document.client_name.clone(),
            host: Url::parse(id).ok().and_then(|url| url.host_str().map(str::to_owned)),
            redirect_uris: document.redirect_uris.clone(),
            registered_at: None,
            auth_method: AuthMethod::None,
            secret_hash: None,
        });
    }
    let found = oauth_clients::find(&auth.context(site), auth.hosting.ops(), site.server(), id).await?;
    found.map_or(Err(Unknown::Unregistered), |client| {
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
    /// The redirect URI of a request: the one it names if it is registered; when it names none, the only one.
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

    /// Whether it proved who it is: a public client proves nothing and shows no secret.
    #[must_use]
    pub fn accepts(&self, method: AuthMethod, secret: Option<&str>) -> bool {
        match (&self.secret_hash, secret) {
            (None, secret) => secret.is_none_or(str::is_empty),
            // Hashes are compared: how long it takes tells nothing of the secret.
            (Some(own), Some(secret)) => self.auth_method == method && *own == hash(secret),
            (Some(_), None) => false,
        }
    }
}
