//! One error for every act: a stable code, a message for the user, and a cause for the log.

use std::fmt;

use serde_json::{Map, Value};

/// Result of an act.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a name that stays: checks and clients may compare with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// An argument is missing, of the wrong type or out of range; `details.field` names it.
    InvalidArguments,
    /// No such walkthrough is offered here.
    WalkthroughNotFound,
    /// The walkthrough has no steps.
    WalkthroughEmpty,
    /// Nothing is in progress.
    NoActiveWalkthrough,
    /// Several walkthroughs are in progress; `details.candidates` lists them.
    AmbiguousWalkthrough,
    /// The step is not the current one; `details.current_step_id` is.
    StepMismatch,
    /// The pinned version has no such step.
    StepNotFound,
    /// The act destroys something and was not confirmed.
    ConfirmationRequired,
    /// The handle is unknown or expired.
    HandleUnknown,
    /// An e-mail address is asked for before something begins here.
    EmailRequired,
    /// Only a signed-in user can do this here.
    SignInRequired,
    /// There is no progress that could be reset.
    NoProgress,
    /// Too many calls.
    RateLimited,
    /// A part that is needed does not answer at the moment.
    Unavailable,
    /// No such thing, or none that the caller may know of.
    NotFound,
    /// The act contradicts what is there: a name that is taken, a state that forbids it.
    Conflict,
    /// What was edited has changed meanwhile.
    PreconditionFailed,
    /// The caller may not do this.
    Forbidden,
    /// A fault of Waypost's own.
    Internal,
}

impl Code {
    /// The name in messages, logs and answers.
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

/// Why an act was refused or failed.
///
/// `Display` is the message for the user: it never shows SQL, a path or a stack. The cause is the error's `source`.
#[derive(Debug)]
pub struct Error {
    /// What kind of error.
    pub code: Code,
    /// What happened and what to do, for the user.
    pub message: String,
    /// Further members of the answer, such as `field` or `candidates`.
    pub details: Map<String, Value>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with a message for the user.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Map::new(), cause: None }
    }

    /// An argument is wrong: `field` says which, `message` why.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArguments, message).with("field", field)
    }

    /// There is no such `noun`.
    #[must_use]
    pub fn not_found(noun: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {noun}."))
    }

    /// A fault of our own: the user is told no more than that, the log gets the cause.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "Something went wrong on our side. Try again; if it stays, tell the operator.")
            .caused_by(cause)
    }

    /// Adds a member to the answer.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
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
