//! Responses to OAuth clients (not to browsers).

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use waypost_core::oauth_error::{OauthCode, OauthError};

use crate::issuer_request::IssuerRequest;

/// Returns an error as JSON (RFC 6749, section 5.2; RFC 7591, section 3.2.2). Logs the cause of internal errors.
#[must_use]
pub fn error(incoming: &impl IssuerRequest, error: &OauthError) -> Response {
    if let Some(cause) = &error.cause {
        let source = std::error::Error::source(cause).map(ToString::to_string);
        tracing::error!(request_id = incoming.request_id(), %cause, source, "OAuth request failed");
    }
    let status = match error.code {
        OauthCode::InvalidClient => StatusCode::UNAUTHORIZED,
        OauthCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        OauthCode::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let body = json!({ "error": error.code.as_str(), "error_description": error.description });
    let mut response = (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        // RFC 6749, section 5.2: the scheme with which clients can authenticate.
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"oauth\""));
    }
    response
}

/// Returns the response to a request that exceeds the rate limit of its client address.
#[must_use]
pub fn too_many(wait: Duration) -> Response {
    let code = OauthCode::TemporarilyUnavailable;
    let body = json!({ "error": code.as_str(), "error_description": "Too many requests. Try again later." });
    let mut response =
        (StatusCode::TOO_MANY_REQUESTS, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    response
}
