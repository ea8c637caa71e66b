//! The names under which the gateway shows the tools, prompts and resources of its upstream servers.
//!
//! A name begins with the slug of the instance, which the organisation has chosen, never with a name that the server
//! reports. Hosts add a prefix of their own and reject names with more than 64 characters, hence [`MAX_LENGTH`].

use sha2::{Digest, Sha256};
use waypost_core::id::base32;

/// The maximum length of a public name.
pub const MAX_LENGTH: usize = 48;
/// The number of characters of the hash at the end of a name that was changed.
const HASH_LENGTH: usize = 6;
const SEPARATOR: &str = "__";
const URI_PREFIX: &str = "wp+";

/// Returns the public name of a tool or prompt: `SLUG__NAME`, or `NAME` without a slug. A name that is too long or contains
/// other characters than `[A-Za-z0-9_-]` is cut, and ends with a hash of the original.
#[must_use]
pub fn public_name(slug: Option<&str>, name: &str) -> String {
    let full = slug.map_or_else(|| name.to_owned(), |slug| format!("{slug}{SEPARATOR}{name}"));
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !full.is_empty() && full.len() <= MAX_LENGTH && full.chars().all(is_allowed) {
        return full;
    }
    let hash = base32(&Sha256::digest(full.as_bytes())[..5]);
    let kept = full.chars().take(MAX_LENGTH - HASH_LENGTH - 1).map(|c| if is_allowed(c) { c } else { '_' });
    format!("{}_{}", kept.collect::<String>(), &hash[..HASH_LENGTH])
}

/// Returns the public URI of a resource, or of a URI template: `wp+SLUG:URI`, or `URI` without a slug.
#[must_use]
pub fn public_uri(slug: Option<&str>, uri: &str) -> String {
    slug.map_or_else(|| uri.to_owned(), |slug| format!("{URI_PREFIX}{slug}:{uri}"))
}

/// Splits a public URI into the slug of the instance and the original URI. Returns `None` if it has another form.
#[must_use]
pub fn split_uri(uri: &str) -> Option<(&str, &str)> {
    let (slug, uri) = uri.strip_prefix(URI_PREFIX)?.split_once(':')?;
    let is_slug =
        !slug.is_empty() && slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    is_slug.then_some((slug, uri))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_are_kept() {
        assert_eq!(public_name(Some("files"), "read_file"), "files__read_file");
        assert_eq!(public_name(None, "read-file"), "read-file");
        let longest = "t".repeat(MAX_LENGTH - "files__".len());
        assert_eq!(public_name(Some("files"), &longest).len(), MAX_LENGTH);
    }

    /// The names are stored in agents' configurations, so the hash must never change.
    #[test]
    fn other_names_get_a_stable_hash() {
        for (name, expected) in [
            ("read.file", "files__read_file_r8acq5"),
            ("läsen", "files__l_sen_0y5cgw"),
            ("", "files__"),
            (&*"x".repeat(200), "files__xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx_ex7maj"),
        ] {
            assert_eq!(public_name(Some("files"), name), expected);
        }
    }

    #[test]
    fn uris_are_wrapped_and_unwrapped() {
        assert_eq!(public_uri(Some("docs"), "file:///a:b"), "wp+docs:file:///a:b");
        assert_eq!(split_uri("wp+docs:file:///a:b"), Some(("docs", "file:///a:b")));
        for other in ["file:///a", "wp+:x", "wp+docs", "wp+Docs:x", "WP+docs:x"] {
            assert_eq!(split_uri(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn different_names_stay_different(one in ".{0,80}", other in ".{0,80}", slug in "[a-z0-9]{1,24}") {
            prop_assume!(one != other);
            let (one, other) = (public_name(Some(&slug), &one), public_name(Some(&slug), &other));
            prop_assert!(one.len() <= MAX_LENGTH && other.len() <= MAX_LENGTH);
            prop_assert_ne!(one, other);
        }

        #[test]
        fn uris_survive_the_round_trip(slug in "[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?", uri in ".{0,60}") {
            let public = public_uri(Some(&slug), &uri);
            prop_assert_eq!(split_uri(&public), Some((slug.as_str(), uri.as_str())));
        }
    }
}
