//! Slugs of instances and tool sets. Slugs of instances are part of the public names of tools, and slugs of tool sets
//! are part of URLs that people copy, so two slugs of the same kind in an organisation must never look alike.

use unicode_security::confusable_detection::skeleton;
use waypost_core::instance::MAX_SLUG;
use waypost_core::{Error, Result};

/// Validates the form of a slug: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, 1 to 24 characters, without `--`.
///
/// # Errors
/// `invalid_arguments` for `slug`.
pub(crate) fn check(slug: &str) -> Result<()> {
    let is_valid = (1..=MAX_SLUG).contains(&slug.len())
        && slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !slug.starts_with('-')
        && !slug.ends_with('-')
        && !slug.contains("--");
    if is_valid {
        return Ok(());
    }
    let message = format!(
        "`slug` must have 1 to {MAX_SLUG} lower-case letters, digits and hyphens. It must begin and end with a letter or \
         a digit, and must not contain `--`."
    );
    Err(Error::invalid("slug", message))
}

/// Returns the skeleton of a slug (UTS 39, section 4): two slugs that look alike have the same one.
pub(crate) fn to_skeleton(slug: &str) -> String {
    skeleton(slug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_slugs_of_the_documented_form_are_accepted() {
        for slug in ["a", "0", "github", "a-b", "a-b-c", "a1-2b", "abcdefghijklmnopqrstuvwx"] {
            check(slug).unwrap();
        }
        for slug in
            ["", "-", "-a", "a-", "a--b", "A", "a_b", "a.b", "a b", "ä", "а", "a\n", "abcdefghijklmnopqrstuvwxy"]
        {
            assert_eq!(check(slug).unwrap_err().details["field"], "slug", "{slug}");
        }
    }

    #[test]
    fn slugs_that_look_alike_have_the_same_skeleton() {
        for (one, other) in [("l1", "ll"), ("rn", "m"), ("burn", "bum"), ("pay-1", "pay-l")] {
            assert_eq!(to_skeleton(one), to_skeleton(other), "{one} {other}");
        }
        for (one, other) in [("a", "b"), ("github", "gitlab"), ("a-b", "ab"), ("v2", "v3")] {
            assert_ne!(to_skeleton(one), to_skeleton(other), "{one} {other}");
        }
    }

    proptest! {
        /// Only slugs that match the regular expression of the contract are accepted.
        #[test]
        fn exactly_the_slugs_of_the_regular_expression_are_accepted(slug in "[a-z0-9A-Z_-]{0,27}") {
            let bytes = slug.as_bytes();
            let is_inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let expected = bytes.len() <= 24
                && bytes.first().is_some_and(is_inner)
                && bytes.last().is_some_and(is_inner)
                && bytes.iter().all(|byte| is_inner(byte) || *byte == b'-')
                && bytes.windows(2).all(|pair| pair != b"--");
            prop_assert_eq!(check(&slug).is_ok(), expected);
        }
    }
}
