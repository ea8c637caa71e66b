//! Answers to clients, where no browser is in between.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use waypost_core::oauth_error::{OauthCode, OauthError};

use crate::site::Site;

/// An error as JSON (RFC 6749, section 5.2; RFC 7591, section 3.2.2). What was our fault is logged.
#[must_use]
pub fn error(site: &Site, error: &OauthError) -> Response {
    if let Some(cause) = &error.cause {
        let source = std::error::Error::source(cause).map(ToString::to_string);
        tracing::error!(request_id = site.request_id, %cause, source, "an OAuth request failed");
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
        // RFC 6749, section 5.2: the scheme by which clients can prove who they are.
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"oauth\""));
    }
    response
}

/// Too many requests of one address.
#[must_use]
pub fn too_many(wait: Duration) -> Response {
    let code = OauthCode::TemporarilyUnavailable;
    let body = json!({ "error": code.as_str(), "error_description": "Too many requests. Try again later." });
    let mut response =
        (StatusCode::TOO_MANY_REQUESTS, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    response
}
