//! Facts about a request that the root router determines once.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use waypost_core::Error;

use crate::status;

/// Facts about a request, stored in its extensions.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// The host and port, as sent by the client.
    pub authority: String,
    /// The client's IP address.
    pub client: IpAddr,
    /// The request ID, as logged.
    pub request_id: String,
}

impl RequestInfo {
    /// Reads the request info from the request's extensions.
    ///
    /// # Errors
    /// `internal` if it is missing: without the client's address, no rate limit can be applied.
    pub fn from_parts(parts: &Parts) -> Result<Self, Error> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Error::internal("the request has no client address"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestInfo {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        Self::from_parts(parts).map_err(|error| {
            status::log(&error);
            status::of(error.code).into_response()
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_request_without_a_client_address_is_rejected() {
        let router = Router::new().route("/", get(|_: RequestInfo| async { "accepted" }));
        let response = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
