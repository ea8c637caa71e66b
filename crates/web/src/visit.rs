//! What the root found out about a request.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};

use axum::extract::FromRequestParts;
use http::request::Parts;

/// A request to HOST: it stands in the request's extensions.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The host and port, as the client wrote them.
    pub authority: String,
    /// The client's address.
    pub client: IpAddr,
    /// The request's id, as in the log.
    pub request_id: String,
}

impl Default for Visit {
    fn default() -> Self {
        Self { authority: String::new(), client: IpAddr::V4(Ipv4Addr::UNSPECIFIED), request_id: String::new() }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}
