//! Errors of the API: problem details (RFC 9457) with a stable `code`.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoResponses, ToSchema};
use waypost_core::{Code, Error};

/// What a handler of the API gives.
pub type ApiResult<T> = Result<T, ApiError>;

/// The body of an answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the code says more than a page could.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// What happened and what to do, for people.
    pub detail: String,
    /// What happened, for programs; stable.
    #[schema(value_type = String, example = "not_found")]
    pub code: &'static str,
    /// Which argument is wrong and the like.
    #[serde(flatten)]
    #[schema(value_type = Object, additional_properties)]
    pub details: Map<String, Value>,
}

/// An error on its way out of the API.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    error: Error,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self { status: status(error.code), error }
    }
}

impl ApiError {
    /// An error with a status of its own.
    #[must_use]
    pub fn new(status: StatusCode, error: Error) -> Self {
        Self { status, error }
    }
}

/// The status that an error has over HTTP (RFC 9110, section 15; RFC 6585).
#[must_use]
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidArguments => StatusCode::UNPROCESSABLE_ENTITY,
        Code::NotFound | Code::WalkthroughNotFound | Code::StepNotFound | Code::HandleUnknown => StatusCode::NOT_FOUND,
        Code::Conflict
        | Code::WalkthroughEmpty
        | Code::ConfirmationRequired
        | Code::NoActiveWalkthrough
        | Code::AmbiguousWalkthrough
        | Code::StepMismatch
        | Code::NoProgress
        | Code::EmailRequired => StatusCode::CONFLICT,
        Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Code::Forbidden => StatusCode::FORBIDDEN,
        Code::SignInRequired => StatusCode::UNAUTHORIZED,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Seconds until a request is worth repeating, if the error says so.
#[must_use]
pub fn retry_after(error: &Error) -> Option<u64> {
    error.details.get("retry_after_seconds").and_then(Value::as_u64)
}

/// Logs an error that is ours, once, at the edge.
pub fn log(error: &Error) {
    if matches!(error.code, Code::Internal | Code::Unavailable) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(code = error.code.as_str(), cause, "the request failed");
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, error } = self;
        log(&error);
        let retry_after = error.details.get("retry_after_seconds").and_then(Value::as_u64);
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

/// The answers that every operation may give beside its own, for the OpenAPI document.
#[derive(IntoResponses)]
pub enum Problems {
    /// The request cannot be read.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(Problem),
    /// No key, no session, or one that is not valid.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(Problem),
    /// The role is too low.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// There is no such thing, or none that the caller may know of.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// It contradicts what is there.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// What was edited has changed meanwhile.
    #[response(status = 412, content_type = "application/problem+json")]
    PreconditionFailed(Problem),
    /// The body is too large.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The body is of a kind that is not read here.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMediaType(Problem),
    /// A field is wrong; `field` names it.
    #[response(status = 422, content_type = "application/problem+json")]
    Invalid(Problem),
    /// Too many requests; `Retry-After` says how long to wait.
    #[response(status = 429, content_type = "application/problem+json")]
    TooMany(Problem),
    /// A part that is needed does not answer at the moment.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}
