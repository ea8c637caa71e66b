//! The names under which the gateway offers tools, prompts and resources (contract, section 8).

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};

/// The maximum length of a public name in characters. Host applications add their own prefix, and reject names of more
/// than 64 characters.
pub const MAX_PUBLIC_NAME: usize = 48;
/// The number of characters of the hash in a changed name.
const HASH: usize = 6;
/// The separator between the slug of the instance and the original name.
const SEPARATOR: &str = "__";
/// The start of the URI scheme of resources.
const SCHEME: &str = "wp+";

/// Returns the public name of a tool or prompt: `SLUG__NAME`, if it has at most [`MAX_PUBLIC_NAME`] characters and all
/// are from `[A-Za-z0-9_-]`. Otherwise, other characters become `_`, the name is truncated, and `_` and six characters
/// of the hash of slug and name are appended, so that different names remain different: only a deliberately chosen name
/// can collide. Names of different instances never collide, because slugs have at most 24 characters and contain no
/// `_`.
#[must_use]
pub fn public_name(slug: &str, name: &str) -> String {
    let full = format!("{slug}{SEPARATOR}{name}");
    if is_unchanged(slug, name) {
        return full;
    }
    let hash = Sha256::new().chain_update(slug).chain_update([0]).chain_update(name).finalize();
    let hash = BASE32_NOPAD.encode(&hash).to_ascii_lowercase();
    let cut = full.chars().map(|c| if is_allowed(c) { c } else { '_' }).take(MAX_PUBLIC_NAME - HASH - 1);
    cut.chain(['_']).chain(hash.chars().take(HASH)).collect()
}

/// Whether `public` is the [`public_name`] of a tool or prompt. Unchanged names are compared without allocation,
/// because a server can have hundreds of tools.
#[must_use]
pub fn is_public_name(public: &str, slug: &str, name: &str) -> bool {
    match is_unchanged(slug, name) {
        true => public.strip_prefix(slug).and_then(|rest| rest.strip_prefix(SEPARATOR)) == Some(name),
        false => public == public_name(slug, name),
    }
}

/// Whether the public name consists of the unchanged slug and name.
fn is_unchanged(slug: &str, name: &str) -> bool {
    slug.len() + SEPARATOR.len() + name.len() <= MAX_PUBLIC_NAME && slug.chars().chain(name.chars()).all(is_allowed)
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// Returns the public URI of a resource or template: `wp+SLUG:URI`.
#[must_use]
pub fn public_uri(slug: &str, uri: &str) -> String {
    format!("{SCHEME}{slug}:{uri}")
}

/// Returns the slug and the original URI of a public URI; `None` if `uri` is not a public URI.
#[must_use]
pub fn split_public_uri(uri: &str) -> Option<(&str, &str)> {
    uri.strip_prefix(SCHEME)?.split_once(':').filter(|(slug, _)| !slug.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_changed_only_if_necessary_and_always_in_the_same_way() {
        assert_eq!(public_name("files", "read_file-2"), "files__read_file-2");
        assert_eq!(public_name("s", &"a".repeat(45)), format!("s__{}", "a".repeat(45)));
        // These values must never change: agents and policies refer to them.
        assert_eq!(public_name("s", &"a".repeat(46)), "s__aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_x2zegl");
        assert_eq!(public_name("files", "read.file"), "files__read_file_s6dvff");
        assert_eq!(public_name("files", "lesen é"), "files__lesen___fm2mxo");
        assert_ne!(public_name("files", "read.file"), public_name("files", "read/file"));
    }

    #[test]
    fn thousands_of_similar_names_stay_different() {
        let names: HashSet<String> =
            (0..5_000).map(|n| public_name("instance", &format!("{}{n}", "x".repeat(60)))).collect();
        assert_eq!(names.len(), 5_000);
    }

    proptest! {
        #[test]
        fn public_names_are_valid_and_different(
            slug in "[a-z][a-z0-9-]{0,38}", other_slug in "[a-z][a-z0-9-]{0,38}", name in "\\PC{1,80}", other in "\\PC{1,80}",
        ) {
            let public = public_name(&slug, &name);
            prop_assert!(public.len() <= MAX_PUBLIC_NAME);
            prop_assert!(public.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
            let prefix = format!("{slug}__");
            prop_assert!(public.starts_with(&prefix));
            prop_assert_eq!(public_name(&slug, &other) == public, name == other);
            prop_assert!(is_public_name(&public, &slug, &name));
            prop_assert_eq!(is_public_name(&public, &slug, &other), name == other);
            prop_assert_eq!(is_public_name(&public, &other_slug, &name), slug == other_slug);
            prop_assert_eq!(is_public_name(&other, &slug, &name), other == public);
            prop_assert_eq!(public_name(&other_slug, &name) == public, slug == other_slug);
        }

        #[test]
        fn public_uris_can_be_split(slug in "[a-z][a-z0-9-]{0,38}", uri in "\\PC{0,40}", other in "\\PC{0,20}") {
            let public = public_uri(&slug, &uri);
            prop_assert_eq!(split_public_uri(&public), Some((slug.as_str(), uri.as_str())));
            prop_assert_eq!(split_public_uri(&other).map(|(slug, uri)| public_uri(slug, uri)).unwrap_or(other.clone()), other);
        }
    }
}
