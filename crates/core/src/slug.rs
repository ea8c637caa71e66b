//! Names in addresses: of walkthroughs, servers and organisations.

use crate::{Error, Result, invisible};

/// Characters in the slug of a walkthrough at most.
pub const MAX_WALKTHROUGH_SLUG: usize = 60;
/// Characters in the slug of a server or an organisation at most: a DNS label has 63, and we leave room.
pub const MAX_LABEL: usize = 40;

/// Characters in a tracking id at most.
const MAX_TRACKING_ID: usize = 128;

/// Whether `text` is a tracking id: 1 to 128 of `[A-Za-z0-9._~-]`, the characters that stand in a URL as they are
/// (RFC 3986, section 2.3).
#[must_use]
pub fn is_tracking_id(text: &str) -> bool {
    (1..=MAX_TRACKING_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}

/// What a title becomes that has nothing to make a slug of.
const FALLBACK: &str = "walkthrough";

/// Slugs that no server can have: a server's slug is a host name below the public host, and these are names that people
/// and programs expect to belong to the operator, or that Waypost uses or may use itself. Words that a team may well
/// want for its server (`demo`, `test`, `staging`) are not on the list.
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
    // Services and mailboxes by convention or standard (RFC 2142), and names that clients look up by themselves.
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
    // Pages that only the operator may show.
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
    // Names with a meaning of their own to resolvers and programs.
    "broadcasthost",
    "invalid",
    "local",
    "localdomain",
    "localhost",
    "null",
    "undefined",
];

/// The slug of a title: 1 to 60 of `[a-z0-9-]`, cut between words where that leaves something.
#[must_use]
pub fn from_title(title: &str) -> String {
    // A title has 200 characters; one character can become several letters, and there is no use in more than this.
    let beginning: String = invisible::remove(title).chars().take(crate::step::MAX_TITLE_CHARS).collect();
    let slug = cut(&slug::slugify(beginning), MAX_WALKTHROUGH_SLUG);
    if slug.is_empty() { FALLBACK.to_owned() } else { slug }
}

/// `base` when it is free, else the first free of `base-2`, `base-3` and so on, shortened to fit.
pub fn make_unique(base: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(base) {
        return base.to_owned();
    }
    let mut number = 2_u64;
    loop {
        let suffix = format!("-{number}");
        let candidate = format!("{}{suffix}", cut(base, MAX_WALKTHROUGH_SLUG - suffix.len()));
        if !taken(&candidate) {
            return candidate;
        }
        number += 1;
    }
}

/// The first `length` characters at most of a slug, without half a word at the end unless it is the only one.
fn cut(slug: &str, length: usize) -> String {
    if slug.len() <= length {
        return slug.to_owned();
    }
    let whole_word = slug.as_bytes().get(length) == Some(&b'-');
    let beginning = &slug[..length];
    let end = if whole_word { length } else { beginning.rfind('-').unwrap_or(length) };
    beginning[..end].trim_end_matches('-').to_owned()
}

/// The beginning of a slug for a server with this name: it fits, but may be reserved or taken. Room is left for a number.
#[must_use]
pub fn suggest_server_slug(name: &str) -> String {
    let slug = from_title(name);
    let mut slug = slug.get(..MAX_LABEL - 3).unwrap_or(&slug).trim_end_matches('-').replace("--", "-");
    if slug.as_bytes().get(2..4) == Some(b"--") || slug.len() < 3 {
        slug = format!("{}-mcp", slug.trim_matches('-'));
    }
    slug
}

/// Checks the slug of a server: a DNS label of 3 to 40 characters that is not reserved.
///
/// # Errors
/// `invalid_arguments` for the field `slug`.
pub fn check_server_slug(text: &str) -> Result<()> {
    check_label(text, 3)?;
    if RESERVED.contains(&text) {
        return Err(Error::invalid("slug", format!("The slug `{text}` is reserved. Choose another one.")));
    }
    Ok(())
}

/// Checks the slug of an organisation: like a server's, from 2 characters, and nothing is reserved, because it is no host
/// name.
///
/// # Errors
/// `invalid_arguments` for the field `slug`.
pub fn check_organization_slug(text: &str) -> Result<()> {
    check_label(text, 2)
}

fn check_label(text: &str, shortest: usize) -> Result<()> {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let problem = if !(shortest..=MAX_LABEL).contains(&text.chars().count()) {
        format!("has {shortest} to {MAX_LABEL} characters")
    } else if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        "can only contain lowercase letters from a to z, digits and `-`".to_owned()
    } else if !edge(text.bytes().next()) || !edge(text.bytes().last()) {
        "begins and ends with a letter or a digit".to_owned()
    } else if text.as_bytes().get(2..4) == Some(b"--") {
        // RFC 5891, section 4.2.3.1: these places mark internationalised names.
        "has no `--` as its third and fourth character".to_owned()
    } else {
        return Ok(());
    };
    let shown: String = text.chars().take(MAX_LABEL).collect();
    Err(Error::invalid("slug", format!("The slug {shown:?} does not fit: a slug {problem}.")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn makes_slugs_of_titles() {
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

    #[test]
    fn numbers_what_is_taken() {
        assert_eq!(make_unique("a", |_| false), "a");
        assert_eq!(make_unique("a", |slug| ["a", "a-2"].contains(&slug)), "a-3");
        let long = "x".repeat(60);
        let second = make_unique(&long, |slug| slug == long);
        assert_eq!((second.len(), second.ends_with("x-2")), (60, true));
    }

    #[test]
    fn checks_labels() {
        for fine in ["demo", "acme", "a1b", "x-y", "a-b--c", "123", &"a".repeat(40)] {
            assert!(check_server_slug(fine).is_ok(), "{fine}");
            assert!(check_organization_slug(fine).is_ok(), "{fine}");
        }
        let long = "a".repeat(41);
        for wrong in ["", "a", "-ab", "ab-", "A-b", "a_b", "a.b", "ab--c", "xn--a", "äöü", "a b", "ab\n", &long] {
            let error = check_server_slug(wrong).expect_err(wrong);
            assert_eq!(error.details["field"], "slug");
            assert!(check_organization_slug(wrong).is_err(), "{wrong}");
        }
        assert!(check_server_slug("ab").is_err() && check_organization_slug("ab").is_ok());
        assert!(check_server_slug("www").is_err() && check_organization_slug("www").is_ok());
    }

    #[test]
    fn reserved_names_are_slugs_and_there_once() {
        let mut sorted = RESERVED.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), RESERVED.len());
        assert!(RESERVED.iter().all(|name| check_label(name, 3).is_ok()));
        assert!(!RESERVED.contains(&"demo"));
    }

    proptest! {
        #[test]
        fn slugs_of_any_title_fit(title in any::<String>(), times in 1_usize..5) {
            let slug = from_title(&title.repeat(times));
            prop_assert!((1..=60).contains(&slug.len()));
            prop_assert!(slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            prop_assert!(!slug.starts_with('-') && !slug.ends_with('-'));
            let other = make_unique(&slug, |taken| taken == slug);
            prop_assert!(other != slug && (1..=60).contains(&other.len()));
        }

        #[test]
        fn slugs_of_any_server_fit(name in any::<String>()) {
            let slug = suggest_server_slug(&name);
            prop_assert!(check_label(&slug, 3).is_ok() && check_label(&format!("{slug}-20"), 3).is_ok(), "{slug}");
        }

        #[test]
        fn checks_never_panic(text in any::<String>()) {
            let _ = (check_server_slug(&text).is_ok(), check_organization_slug(&text).is_ok());
        }
    }
}
