//! Slugs: the names of walkthroughs, servers and organisations in URLs.

use crate::{Error, Result};

/// Maximum length of a walkthrough's slug.
pub const MAX_WALKTHROUGH_SLUG: usize = 60;
/// Maximum length of the slug of a server or an organisation. Shorter than a DNS label, which has at most
/// 63 characters.
pub const MAX_LABEL: usize = 40;

/// Maximum length of a tracking ID.
const MAX_TRACKING_ID: usize = 128;

/// Whether `text` is a tracking ID: 1 to 128 characters from `[A-Za-z0-9._~-]`, which need no escaping in a URL
/// (RFC 3986, section 2.3).
#[must_use]
pub fn is_tracking_id(text: &str) -> bool {
    (1..=MAX_TRACKING_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}

/// Slugs that no server can have. A server's slug is a host name below the public host. These names are reserved
/// because people and programs expect them to belong to the operator, or because Waypost uses or may use them itself.
/// Names that a team might reasonably choose (`demo`, `test`, `staging`) are not reserved.
pub const RESERVED: &[&str] = &[
    // Waypost's own parts.
    "admin",
    "api",
    "app",
    "apps",
    "assets",
    "auth",
    "billing",
    "cdn",
    "console",
    "dashboard",
    "docs",
    "gateway",
    "health",
    "healthz",
    "internal",
    "livez",
    "login",
    "logout",
    "mcp",
    "metrics",
    "oauth",
    "oauth2",
    "openapi",
    "readyz",
    "register",
    "registry",
    "signin",
    "signup",
    "sso",
    "static",
    "system",
    "toolbox",
    "toolboxes",
    "waypost",
    "webhook",
    "webhooks",
    "well-known",
    // Conventional or standard names of services and mailboxes (RFC 2142), and names that clients look up
    // automatically.
    "abuse",
    "autoconfig",
    "autodiscover",
    "dns",
    "email",
    "ftp",
    "hostmaster",
    "imap",
    "mail",
    "mta-sts",
    "noc",
    "ntp",
    "pop",
    "pop3",
    "postmaster",
    "root",
    "sftp",
    "smtp",
    "ssh",
    "ssl",
    "vpn",
    "webmail",
    "webmaster",
    "wpad",
    "www",
    "www1",
    "www2",
    // Pages reserved for the operator.
    "account",
    "accounts",
    "blog",
    "contact",
    "help",
    "legal",
    "password",
    "payment",
    "payments",
    "pricing",
    "privacy",
    "security",
    "status",
    "support",
    "terms",
    // Names with a special meaning to resolvers and programs.
    "broadcasthost",
    "invalid",
    "local",
    "localdomain",
    "localhost",
    "null",
    "undefined",
];

/// Returns `base` if it is not taken, otherwise the first of `base-2`, `base-3` … that is not, truncated to fit.
pub fn make_unique(base: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(base) {
        return base.to_owned();
    }
    let mut number = 2_u64;
    loop {
        let suffix = format!("-{number}");
        let candidate = format!("{}{suffix}", truncate(base, MAX_WALKTHROUGH_SLUG - suffix.len()));
        if !taken(&candidate) {
            return candidate;
        }
        number += 1;
    }
}

/// Truncates a slug to at most `length` characters, at the end of a word if possible.
#[must_use]
pub fn truncate(slug: &str, length: usize) -> String {
    if slug.len() <= length {
        return slug.to_owned();
    }
    let whole_word = slug.as_bytes().get(length) == Some(&b'-');
    let prefix = &slug[..length];
    let end = if whole_word { length } else { prefix.rfind('-').unwrap_or(length) };
    prefix[..end].trim_end_matches('-').to_owned()
}

/// Checks the slug of a server: a DNS label of 3 to 40 characters that is not reserved.
///
/// # Errors
/// `invalid_arguments` for the field `slug`.
pub fn check_server_slug(text: &str) -> Result<()> {
    check_label(text, 3)?;
    if RESERVED.contains(&text) {
        return Err(Error::invalid("slug", format!("The slug `{text}` is reserved. Choose another.")));
    }
    Ok(())
}

/// Checks the slug of an organisation: like a server's, but with at least 2 characters and without reserved names,
/// because it is not a host name.
///
/// # Errors
/// `invalid_arguments` for the field `slug`.
pub fn check_organization_slug(text: &str) -> Result<()> {
    check_label(text, 2)
}

fn check_label(text: &str, shortest: usize) -> Result<()> {
    let is_alphanumeric =
        |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let rule = if !(shortest..=MAX_LABEL).contains(&text.chars().count()) {
        format!("must have {shortest} to {MAX_LABEL} characters")
    } else if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        "may contain only lowercase letters from a to z, digits and `-`".to_owned()
    } else if !is_alphanumeric(text.bytes().next()) || !is_alphanumeric(text.bytes().last()) {
        "must begin and end with a letter or a digit".to_owned()
    } else if text.as_bytes().get(2..4) == Some(b"--") {
        // RFC 5891, section 4.2.3.1: these positions mark internationalised names.
        "must not have `--` as its third and fourth characters".to_owned()
    } else {
        return Ok(());
    };
    let shown: String = text.chars().take(MAX_LABEL).collect();
    Err(Error::invalid("slug", format!("The slug {shown:?} is invalid: a slug {rule}.")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_taken_slug_gets_a_number() {
        assert_eq!(make_unique("a", |_| false), "a");
        assert_eq!(make_unique("a", |slug| ["a", "a-2"].contains(&slug)), "a-3");
        let long = "x".repeat(60);
        let second = make_unique(&long, |slug| slug == long);
        assert_eq!((second.len(), second.ends_with("x-2")), (60, true));
    }

    #[test]
    fn labels_are_checked() {
        for valid in ["demo", "acme", "a1b", "x-y", "a-b--c", "123", &"a".repeat(40)] {
            assert!(check_server_slug(valid).is_ok(), "{valid}");
            assert!(check_organization_slug(valid).is_ok(), "{valid}");
        }
        let long = "a".repeat(41);
        for invalid in ["", "a", "-ab", "ab-", "A-b", "a_b", "a.b", "ab--c", "xn--a", "äöü", "a b", "ab\n", &long] {
            let error = check_server_slug(invalid).expect_err(invalid);
            assert_eq!(error.details["field"], "slug");
            assert!(check_organization_slug(invalid).is_err(), "{invalid}");
        }
        assert!(check_server_slug("ab").is_err() && check_organization_slug("ab").is_ok());
        assert!(check_server_slug("www").is_err() && check_organization_slug("www").is_ok());
    }

    #[test]
    fn reserved_names_are_valid_slugs_without_duplicates() {
        let mut sorted = RESERVED.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), RESERVED.len());
        assert!(RESERVED.iter().all(|name| check_label(name, 3).is_ok()));
        assert!(!RESERVED.contains(&"demo"));
    }

    proptest! {
        #[test]
        fn checks_never_panic(text in any::<String>()) {
            let _ = (check_server_slug(&text).is_ok(), check_organization_slug(&text).is_ok());
        }
    }
}
