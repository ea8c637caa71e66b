//! Checks that several acts share.

use waypost_core::{Code, Error, Result};

/// Makes of a unique violation the refusal that `message` words; other errors stay what they are.
pub(crate) fn conflict_if_taken(error: waypost_store::Error, message: impl FnOnce() -> String) -> Error {
    if error.is_unique_violation() { Error::new(Code::Conflict, message()) } else { error.into() }
}

/// What the caller may not know of is not there: turns the refusal of a foreign organisation into that of `noun`.
pub(crate) fn hide_organization(result: Result<()>, noun: &str) -> Result<()> {
    result.map_err(|error| if error.code == Code::NotFound { Error::not_found(noun) } else { error })
}
