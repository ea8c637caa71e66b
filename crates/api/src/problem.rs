//! API errors: problem details (RFC 9457) with a stable `code`.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoResponses, ToSchema};
use waypost_core::Error;
use waypost_http_kit::status;

/// The result of an API handler.
pub type ApiResult<T> = Result<T, ApiError>;

/// An error response (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`. Use `code` to identify the error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The reason phrase of the HTTP status.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A description of the problem and how to resolve it, in English.
    pub detail: String,
    /// The error code. Codes are stable.
    #[schema(value_type = String, example = "not_found")]
    pub code: &'static str,
    /// Additional members, depending on the code, such as `field` for an invalid argument.
    #[serde(flatten)]
    #[schema(value_type = Object, additional_properties)]
    pub details: Map<String, Value>,
}

/// An error with the HTTP status of its response.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    error: Error,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self { status: status::of(error.code), error }
    }
}

impl ApiError {
    /// Creates an error whose response has `status` instead of the status of its code.
    #[must_use]
    pub fn new(status: StatusCode, error: Error) -> Self {
        Self { status, error }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, error } = self;
        status::log(&error);
        let retry_after = status::retry_after(&error);
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        let problem = Problem {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail: error.message,
            code: error.code.as_str(),
            details: error.details,
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"waypost\""));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after.unwrap_or(1)));
            }
            _ => {}
        }
        response
    }
}

/// The error responses of every operation, for the OpenAPI document.
#[derive(IntoResponses)]
pub enum Problems {
    /// Malformed request.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(Problem),
    /// Missing or invalid credentials.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// The caller's role does not allow this operation.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// The resource does not exist, or belongs to another organisation.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// The request conflicts with the current state.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// The resource has changed since the revision in `If-Match`.
    #[response(status = 412, content_type = "application/problem+json")]
    PreconditionFailed(Problem),
    /// The request body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The `Content-Type` of the request body is not supported.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(Problem),
    /// A field is invalid. `field` names it.
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(Problem),
    /// Too many requests. `Retry-After` is the number of seconds to wait.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(Problem),
    /// A required service is temporarily unavailable. Try again later.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}
