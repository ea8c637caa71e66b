//! What the root found out about a request.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::request::Parts;
use waypost_core::Error;

use crate::problem::ApiError;

/// A request to HOST: it stands in the request's extensions.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// The host and port, as the client wrote them.
    pub authority: String,
    /// The client's address.
    pub client: IpAddr,
    /// The request's id, as in the log.
    pub request_id: String,
}

impl RequestInfo {
    /// Returns what the root found out.
    ///
    /// # Errors
    /// `internal` if it found out nothing: without the client's address no limit can be applied.
    pub fn of(parts: &Parts) -> Result<Self, Error> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Error::internal("a request without a client address"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RequestInfo {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self::of(parts)?)
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
        let router = Router::new().route("/", get(|_: RequestInfo| async { "let in" }));
        let answer = router.oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
