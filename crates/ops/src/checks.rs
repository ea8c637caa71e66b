//! Checks and error conversions that several operations share.

use waypost_content::name;
use waypost_core::agent::check_name_length;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::UserId;
use waypost_core::{Code, Error, Result, Timestamp};

/// The maximum lifetime of a key, a token or a grant with an expiry: ten years of 365.25 days.
const MAX_LIFETIME_MS: i64 = 3_652 * 24 * 60 * 60 * 1_000 + 12 * 60 * 60 * 1_000;

/// Checks the expiry of a key, a token or a grant.
///
/// # Errors
/// `invalid_arguments` for `expires_at` if the time is not in the future, or more than ten years from now.
pub(crate) fn check_expiry(now: Timestamp, expires_at: Option<Timestamp>) -> Result<()> {
    match expires_at {
        Some(at) if at <= now => Err(Error::invalid("expires_at", "`expires_at` must be in the future.")),
        Some(at) if at.since(now) > MAX_LIFETIME_MS => {
            Err(Error::invalid("expires_at", "`expires_at` must be at most ten years from now. Omit it for no expiry."))
        }
        _ => Ok(()),
    }
}

/// Returns the user who calls an operation; `None` for API keys and the operator.
pub(crate) fn find_user(cx: &Ctx) -> Option<UserId> {
    match &cx.caller {
        Caller::Member { actor, .. } => actor.parse().ok(),
        _ => None,
    }
}

/// Returns the user who calls an operation.
///
/// # Errors
/// `conflict` with `message` (`reason` is `user_required`) for API keys and the operator.
pub(crate) fn require_user(cx: &Ctx, message: &str) -> Result<UserId> {
    find_user(cx).ok_or_else(|| Error::new(Code::Conflict, message).with("reason", "user_required"))
}

/// Cleans and validates the name of an agent, a token or a tool set, which must have 1 to 100 characters.
///
/// # Errors
/// `invalid_arguments` for `name`.
pub(crate) fn check_short_name(text: &str) -> Result<String> {
    let name = name::check("name", text)?;
    check_name_length("name", &name)?;
    Ok(name)
}

/// Whether `count` rows exceed the limit `max`.
pub(crate) fn exceeds(count: i64, max: usize) -> bool {
    usize::try_from(count).is_ok_and(|count| count > max)
}

/// Converts a violation of a unique constraint to `conflict` with `message`. Other errors are converted as usual.
pub(crate) fn conflict_if_taken(error: waypost_store::Error, message: impl FnOnce() -> String) -> Error {
    if error.is_unique_violation() { Error::new(Code::Conflict, message()) } else { error.into() }
}

/// Replaces a `not_found` for the organisation by one for `noun`, so that an object the caller cannot access is
/// reported as if it did not exist.
pub(crate) fn hide_organization(result: Result<()>, noun: &str) -> Result<()> {
    result.map_err(|error| if error.code == Code::NotFound { Error::not_found(noun) } else { error })
}

/// Converts a violation of a foreign key to `conflict`: another caller deleted `what` after it was read. Other errors
/// are converted as usual.
pub(crate) fn conflict_if_deleted(error: waypost_store::Error, what: &str) -> Error {
    if error.is_foreign_key_violation() {
        Error::new(Code::Conflict, format!("{what} was deleted in the meantime."))
    } else {
        error.into()
    }
}
