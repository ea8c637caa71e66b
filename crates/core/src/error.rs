//! The error type of all operations: a stable code, a message for the user, and a cause for the log.

use std::fmt;

use serde_json::{Map, Value};

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A stable error code that clients can match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// An argument is missing, of the wrong type or out of range; `details.field` names it.
    InvalidArguments,
    /// The walkthrough does not exist or is not offered on this server.
    WalkthroughNotFound,
    /// The walkthrough has no steps.
    WalkthroughEmpty,
    /// No walkthrough is in progress.
    NoActiveWalkthrough,
    /// Several walkthroughs are in progress; `details.candidates` lists them.
    AmbiguousWalkthrough,
    /// The given step is not the current one; `details.current_step_id` is the ID of the current step.
    StepMismatch,
    /// The pinned version has no such step.
    StepNotFound,
    /// The operation is destructive and was not confirmed.
    ConfirmationRequired,
    /// The handle is unknown or expired.
    HandleUnknown,
    /// An email is required before the operation.
    EmailRequired,
    /// The operation requires a signed-in user.
    SignInRequired,
    /// There is no progress to reset.
    NoProgress,
    /// Too many calls.
    RateLimited,
    /// A dependency is temporarily unavailable.
    Unavailable,
    /// The object does not exist, or the caller may not know that it does.
    NotFound,
    /// The operation conflicts with the current state, such as a name that is already in use.
    Conflict,
    /// The object has changed in the meantime.
    PreconditionFailed,
    /// The registry has no such image.
    ImageNotFound,
    /// The registry denied access to the image.
    ImageDenied,
    /// A tool server reported an error, did not answer, or did not answer with MCP; `details.reason` says which.
    ToolServerError,
    /// The caller is not allowed to perform the operation.
    Forbidden,
    /// An internal error.
    Internal,
}

impl Code {
    /// Returns the name used in messages, logs and responses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArguments => "invalid_arguments",
            Self::WalkthroughNotFound => "walkthrough_not_found",
            Self::WalkthroughEmpty => "walkthrough_empty",
            Self::NoActiveWalkthrough => "no_active_walkthrough",
            Self::AmbiguousWalkthrough => "ambiguous_walkthrough",
            Self::StepMismatch => "step_mismatch",
            Self::StepNotFound => "step_not_found",
            Self::ConfirmationRequired => "confirmation_required",
            Self::HandleUnknown => "handle_unknown",
            Self::EmailRequired => "email_required",
            Self::SignInRequired => "sign_in_required",
            Self::NoProgress => "no_progress",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition_failed",
            Self::ImageNotFound => "image_not_found",
            Self::ImageDenied => "image_denied",
            Self::ToolServerError => "tool_server_error",
            Self::Forbidden => "forbidden",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of an operation.
///
/// `Display` is the message for the user; it never contains SQL, a path or a stack trace. The cause is the error's
/// `source`.
#[derive(Debug)]
pub struct Error {
    /// The error code.
    pub code: Code,
    /// The message for the user: what happened and what to do.
    pub message: String,
    /// Further members of the response, such as `field` or `candidates`.
    pub details: Map<String, Value>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Creates an error with a message for the user.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Map::new(), cause: None }
    }

    /// Creates an `invalid_arguments` error that names the invalid `field`.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArguments, message).with("field", field)
    }

    /// Creates a `not_found` error for `noun`.
    #[must_use]
    pub fn not_found(noun: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {noun}."))
    }

    /// Creates an `internal` error with a generic message. Only the log contains the cause.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "An internal error occurred. Try again; if it persists, contact the operator.")
            .caused_by(cause)
    }

    /// Adds a member to [`Self::details`].
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Returns the `reason` in [`Self::details`], which distinguishes errors with the same code. Returns `None` if
    /// there is no reason.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.details.get("reason").and_then(Value::as_str)
    }

    /// Returns the same error without its cause, for further callers that it applies to.
    #[must_use]
    pub fn without_cause(&self) -> Self {
        Self { code: self.code, message: self.message.clone(), details: self.details.clone(), cause: None }
    }

    /// Adds the cause for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
