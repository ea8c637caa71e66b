//! The server that a request is for, and the address under which it was asked.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use waypost_core::server::{AuthType, Server};
use waypost_ops::offers::Offers;
use waypost_ops::public_url::ServerUrls;

/// What the router found out about a request: it stands in the request's extensions.
#[derive(Debug, Clone)]
pub struct Site {
    /// The address of the server, as it was asked.
    pub address: ServerUrls,
    /// The server and what it offers.
    pub offers: Arc<Offers>,
    /// The client's address.
    pub client: IpAddr,
    /// The request's id, as in the log.
    pub request_id: String,
}

impl Site {
    /// The server.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.offers.server
    }
}

/// Whether a server is a protected resource, with Waypost as its authorization server.
#[must_use]
pub fn has_oauth(server: &Server) -> bool {
    matches!(server.auth_type, AuthType::PlatformOauth | AuthType::CustomOauth)
}

/// Only servers with sign-in have OAuth addresses: clients take their absence for "no sign-in".
impl<S: Send + Sync> FromRequestParts<S> for Site {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let site = parts.extensions.get::<Self>().filter(|site| has_oauth(site.server()));
        site.cloned().ok_or_else(|| StatusCode::NOT_FOUND.into_response())
    }
}
