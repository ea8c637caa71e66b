//! Slugs derived from names. The rules of slugs are in [`waypost_core::slug`].

use waypost_core::slug::{MAX_LABEL, MAX_WALKTHROUGH_SLUG, truncate};
use waypost_core::step::MAX_TITLE_CHARS;

use crate::invisible;

/// The slug of a title without any usable characters.
const FALLBACK: &str = "walkthrough";

/// Derives a slug from a title: 1 to 60 characters from `[a-z0-9-]`, truncated between words if possible.
#[must_use]
pub fn from_title(title: &str) -> String {
    // Limits the work. A slug is shorter than a title, so this many characters are enough.
    let prefix: String = invisible::remove(title).chars().take(MAX_TITLE_CHARS).collect();
    let slug = truncate(&slug::slugify(prefix), MAX_WALKTHROUGH_SLUG);
    if slug.is_empty() { FALLBACK.to_owned() } else { slug }
}

/// Suggests a slug for a server with this name. It is valid but may be reserved or taken, and has room for a numeric
/// suffix.
#[must_use]
pub fn suggest_server_slug(name: &str) -> String {
    let slug = from_title(name);
    let mut slug = slug.get(..MAX_LABEL - 3).unwrap_or(&slug).trim_end_matches('-').replace("--", "-");
    if slug.as_bytes().get(2..4) == Some(b"--") || slug.len() < 3 {
        slug = format!("{}-mcp", slug.trim_matches('-'));
    }
    slug
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use waypost_core::slug::{check_organization_slug, make_unique};

    use super::*;

    /// Whether the slug is valid for a server, apart from reserved slugs.
    fn is_label(slug: &str) -> bool {
        slug.len() >= 3 && check_organization_slug(slug).is_ok()
    }

    #[test]
    fn slugs_are_derived_from_titles() {
        let long = "word ".repeat(30);
        let table = [
            ("Install the CLI", "install-the-cli"),
            ("  Größe & Maß!  ", "grosse-mass"),
            ("你好", "ni-hao"),
            ("!!!", "walkthrough"),
            ("", "walkthrough"),
            (long.as_str(), "word-word-word-word-word-word-word-word-word-word-word-word"),
        ];
        for (title, expected) in table {
            assert_eq!(from_title(title), expected, "{title}");
        }
        assert_eq!(from_title(&"x".repeat(100)).len(), 60);
    }

    proptest! {
        #[test]
        fn a_slug_derived_from_any_title_is_valid(title in any::<String>(), times in 1_usize..5) {
            let slug = from_title(&title.repeat(times));
            prop_assert!((1..=60).contains(&slug.len()));
            prop_assert!(slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(!slug.starts_with('-') && !slug.ends_with('-'));
            let other = make_unique(&slug, |taken| taken == slug);
            prop_assert!(other != slug && (1..=60).contains(&other.len()));
        }

        #[test]
        fn a_slug_suggested_for_any_server_is_valid(name in any::<String>()) {
            let slug = suggest_server_slug(&name);
            prop_assert!(is_label(&slug) && is_label(&format!("{slug}-20")), "{slug}");
        }
    }
}
