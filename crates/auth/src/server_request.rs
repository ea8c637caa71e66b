//! The hosted server that an HTTP request is for, and the URL by which it was reached.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use waypost_core::server::{AuthType, Server};
use waypost_ops::offers::Offers;
use waypost_ops::public_url::ServerUrls;

/// A request to a hosted server. The router inserts it into the request's extensions.
#[derive(Debug, Clone)]
pub struct ServerRequest {
    /// The URL form by which the server was reached.
    pub address: ServerUrls,
    /// The server and its published content.
    pub offers: Arc<Offers>,
    /// The client's IP address.
    pub client: IpAddr,
    /// The request ID, as in the log.
    pub request_id: String,
}

impl ServerRequest {
    /// Returns the server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.offers.server
    }
}

/// Whether a server is a protected resource with Waypost as its authorization server.
#[must_use]
pub fn has_oauth(server: &Server) -> bool {
    matches!(server.auth_type, AuthType::PlatformOauth | AuthType::CustomOauth)
}

/// Only servers with sign-in have OAuth endpoints: clients interpret 404 as "no sign-in".
impl<S: Send + Sync> FromRequestParts<S> for ServerRequest {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let incoming = parts.extensions.get::<Self>().filter(|incoming| has_oauth(incoming.server()));
        incoming.cloned().ok_or_else(|| StatusCode::NOT_FOUND.into_response())
    }
}
