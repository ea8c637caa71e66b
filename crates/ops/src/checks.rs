//! Checks that several acts share.

use waypost_core::{Code, Error, Result};

/// Makes of a unique violation the refusal that `message` words; other errors stay what they are.
pub(crate) fn taken(error: waypost_store::Error, message: impl FnOnce() -> String) -> Error {
    if error.is_unique_violation() { Error::new(Code::Conflict, message()) } else { error.into() }
}

/// What the caller may not know of is not there: turns the refusal of a foreign organisation into that of `noun`.
pub(crate) fn hidden(result: Result<()>, noun: &str) -> Result<()> {
    result.map_err(|error| if error.code == Code::NotFound { Error::not_found(noun) } else { error })
}

/// Stands in for [`waypost_core::slug`] until that is there.
pub(crate) mod slug {
    use waypost_core::{Error, Result};

    pub(crate) fn check_server_slug(slug: &str) -> Result<()> {
        label(slug)
    }

    pub(crate) fn check_organization_slug(slug: &str) -> Result<()> {
        label(slug)
    }

    fn label(slug: &str) -> Result<()> {
        let fine = (3..=40).contains(&slug.len())
            && slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !slug.starts_with('-')
            && !slug.ends_with('-')
            && slug.as_bytes().get(2..4) != Some(b"--");
        let message = "`slug` must have 3 to 40 of a-z, 0-9 and `-`, and neither begin nor end with `-`.";
        if fine { Ok(()) } else { Err(Error::invalid("slug", message)) }
    }
}
