//! HTTP statuses of errors.

use http::StatusCode;
use serde_json::Value;
use waypost_core::{Code, Error};

/// Returns the HTTP status for an error code (RFC 9110, section 15; RFC 6585).
#[must_use]
pub fn of(code: Code) -> StatusCode {
    match code {
        Code::InvalidArguments | Code::ImageNotFound | Code::ImageDenied => StatusCode::UNPROCESSABLE_ENTITY,
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
        Code::ToolServerError => StatusCode::BAD_GATEWAY,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns the number of seconds to wait before a retry, or `None` if the error does not specify it.
#[must_use]
pub fn retry_after(error: &Error) -> Option<u64> {
    error.details.get("retry_after_seconds").and_then(Value::as_u64)
}

/// Logs an error with the code `internal` or `unavailable`. Called once per request, where the response is created. A
/// toolbox that is not connected is not an error of this installation.
pub fn log(error: &Error) {
    let is_remote = error.details.contains_key("reason");
    if error.code == Code::Internal || (error.code == Code::Unavailable && !is_remote) {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::error!(code = error.code.as_str(), cause, "request failed");
    }
}
