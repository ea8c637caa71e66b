//! Error conversions that several operations share.

use waypost_core::{Code, Error, Result};

/// Converts a violation of a unique constraint to `conflict` with this message. Other errors are converted as usual.
pub(crate) fn conflict_if_taken(error: waypost_store::Error, message: impl FnOnce() -> String) -> Error {
    if error.is_unique_violation() { Error::new(Code::Conflict, message()) } else { error.into() }
}

/// Replaces a `not_found` for the organisation by one for `noun`, so that an object the caller cannot access is
/// reported as if it did not exist.
pub(crate) fn hide_organization(result: Result<()>, noun: &str) -> Result<()> {
    result.map_err(|error| if error.code == Code::NotFound { Error::not_found(noun) } else { error })
}
