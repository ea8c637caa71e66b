//! Redirect URIs: which ones may be registered, and when a requested URI matches a registered one.
//!
//! URIs are compared as text, character by character. Only the port of loopback URIs may differ, because a program
//! learns its port when it starts to listen (RFC 8252, section 7.3; OAuth 2.1, section 2.3.1).

use std::net::IpAddr;

use url::{Host, Url};

/// The maximum length of a redirect URI, in bytes.
const MAX_LENGTH: usize = 2_048;
/// Redirect URIs of widely used clients whose scheme has no dot. RFC 8252, section 7.1, forbids such schemes, because
/// anyone can choose the same one; these are accepted only as whole URIs (docs/sign-in.md).
const KNOWN: &[&str] = &["cursor://anysphere.cursor-mcp/oauth/callback", "warp://mcp/oauth2callback"];
/// Prefixes of redirect URIs that end with a name for the server, as used by Cline in Visual Studio Code.
const KNOWN_PREFIXES: &[&str] = &[
    "vscode://saoudrizwan.claude-dev/mcp-auth/callback/",
    "vscode-insiders://saoudrizwan.claude-dev/mcp-auth/callback/",
];

/// Checks that a redirect URI may be registered.
///
/// # Errors
/// Returns the reason, for the developer of the client.
pub fn check(uri: &str) -> Result<(), String> {
    if uri.len() > MAX_LENGTH {
        return Err(format!("a redirect URI must have at most {MAX_LENGTH} characters"));
    }
    // The parser normalises these characters; a comparison as text would not.
    if uri.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\' || !c.is_ascii()) {
        return Err("a redirect URI must not contain spaces, control characters, backslashes or non-ASCII characters"
            .to_owned());
    }
    let url = Url::parse(uri).map_err(|_| "a redirect URI must be an absolute URI".to_owned())?;
    if url.fragment().is_some() {
        return Err("a redirect URI must not have a fragment (RFC 6749, section 3.1.2)".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a redirect URI must not contain a user name or password".to_owned());
    }
    match url.scheme() {
        "https" | "http" if !is_plain_host(&url) => {
            Err("the host of a redirect URI must consist of letters, digits, dots, hyphens and underscores".to_owned())
        }
        "https" => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        "http" => Err("a redirect URI must use https, except for loopback (127.0.0.1, [::1], localhost)".to_owned()),
        scheme if is_reverse_domain(scheme) || is_known(uri) => Ok(()),
        _ => Err("the scheme of a redirect URI must be https, http for loopback, or contain a dot, such as \
                  com.example.app (RFC 8252, section 7.1)"
            .to_owned()),
    }
}

/// Whether a scheme has the form of a reversed domain name (RFC 8252, section 7.1): labels separated by dots.
fn is_reverse_domain(scheme: &str) -> bool {
    scheme.contains('.') && scheme.split('.').all(|label| !label.is_empty())
}

/// Whether a URI belongs to a widely used client whose scheme has no dot.
fn is_known(uri: &str) -> bool {
    let is_name = |rest: &str| {
        (1..=128).contains(&rest.len())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    KNOWN.contains(&uri) || KNOWN_PREFIXES.iter().any(|prefix| uri.strip_prefix(prefix).is_some_and(is_name))
}

/// Whether the host is an IP address or consists of the characters of host names. The URL standard allows others, such
/// as `;`, `,`, `'` and `*`, which have a special meaning in a Content-Security-Policy.
fn is_plain_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(domain)) => {
            !domain.is_empty() && domain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        None => false,
    }
}

/// Returns the Content-Security-Policy source of a redirect URI: its origin, or the scheme of an application. Returns
/// `None` if [`check`] rejects the URI. A source contains only letters, digits and `+-._:/[]`, so it cannot add
/// anything to a policy.
#[must_use]
pub fn csp_source(uri: &str) -> Option<String> {
    check(uri).ok()?;
    let url = Url::parse(uri).ok()?;
    match url.scheme() {
        "http" | "https" => Some(url.origin().ascii_serialization()),
        scheme => Some(format!("{scheme}:")),
    }
}

/// Whether codes that are sent to the URI stay on the user's device, where any program can impersonate the client (RFC
/// 8252, section 8.6): loopback addresses and custom schemes.
#[must_use]
pub fn is_on_device(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|url| url.scheme() != "https" || is_loopback(&url))
}

/// Whether the URI points to the device on which the browser runs.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// Whether `requested` matches `registered`.
#[must_use]
pub fn matches(registered: &str, requested: &str) -> bool {
    if registered == requested {
        return check(requested).is_ok();
    }
    match (loopback_without_port(registered), loopback_without_port(requested)) {
        (Some(registered), Some(requested)) => registered == requested,
        _ => false,
    }
}

/// Returns the form in which a redirect URI is stored with the consent: a loopback URI without its port, others
/// unchanged.
#[must_use]
pub fn for_consent(uri: &str) -> String {
    loopback_without_port(uri).unwrap_or_else(|| uri.to_owned())
}

fn loopback_without_port(uri: &str) -> Option<String> {
    check(uri).ok()?;
    let url = Url::parse(uri).ok()?;
    if url.scheme() != "http" || !is_loopback(&url) {
        return None;
    }
    // From the text, not from the parsed URL, which would normalise the path.
    let (authority, rest) = match uri.get("http://".len()..)?.split_once('/') {
        Some((authority, path)) => (authority, format!("/{path}")),
        None => (uri.get("http://".len()..)?, String::new()),
    };
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    Some(format!("http://{host}{rest}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_safe_uris_may_be_registered() {
        for uri in [
            "https://app.example/callback?tenant=a",
            "https://my_app.example/cb",
            "http://127.0.0.1:3999/callback",
            "http://localhost/cb",
            "http://[::1]:1/cb",
            "com.example.app:/oauth",
            "com.example.app://host;a/oauth",
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "warp://mcp/oauth2callback",
            "vscode://saoudrizwan.claude-dev/mcp-auth/callback/0a_b-C",
        ] {
            assert_eq!(check(uri), Ok(()), "{uri}");
        }
        for uri in [
            "",
            "callback",
            "/callback",
            "http://app.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "https://app.example/cb#fragment",
            "https://user@app.example/cb",
            "https://app.example\\@evil.example/",
            "https://app.example/\ncb",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "https://äpp.example/",
            // RFC 8252, section 7.1: the scheme must contain a dot.
            "myapp://callback",
            "myapp:/cb",
            "com.:/cb",
            "intent://scan/#Intent;scheme=zxing;end",
            // Known clients are accepted only with their whole URI.
            "cursor://evil.example/oauth/callback",
            "cursor://anysphere.cursor-mcp/oauth/callback/",
            "cursor://anysphere.cursor-mcp/oauth/callback?x",
            "vscode://evil.extension/mcp-auth/callback/a",
            "vscode://saoudrizwan.claude-dev/mcp-auth/callback/",
            "vscode://saoudrizwan.claude-dev/mcp-auth/callback/a/b",
            "vscode://saoudrizwan.claude-dev/mcp-auth/callback/a?b",
            // Characters with a special meaning in a Content-Security-Policy.
            "https://app.example;sandbox/cb",
            "https://app.example,x/cb",
            "https://*/cb",
            "https://*.example/cb",
            "https://'none'/cb",
        ] {
            assert!(check(uri).is_err(), "{uri}");
        }
        assert!(check(&format!("https://app.example/{}", "a".repeat(MAX_LENGTH))).is_err());
    }

    #[test]
    fn only_the_port_of_a_loopback_uri_may_differ() {
        for (registered, requested, expected) in [
            ("https://a.example/cb", "https://a.example/cb", true),
            ("https://a.example/cb", "https://a.example/cb/", false),
            ("https://a.example/cb", "https://a.example:444/cb", false),
            ("https://a.example/cb", "https://A.example/cb", false),
            ("https://a.example/cb", "https://a.example/cb?x=1", false),
            ("http://127.0.0.1/cb", "http://127.0.0.1:5000/cb", true),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:5000/cb", true),
            ("http://127.0.0.1:1/cb", "http://127.0.0.1:5000/other", false),
            ("http://127.0.0.1:1/cb", "http://localhost:1/cb", false),
            ("http://[::1]:1/cb", "http://[::1]:2/cb", true),
            ("http://localhost:1/cb", "http://localhost:2/cb", true),
            ("http://localhost:1/cb", "http://localhost:2/cb/../x", false),
            ("http://localhost/cb", "https://localhost/cb", false),
            ("com.example.app://x/cb", "com.example.app://x/cb", true),
            ("com.example.app://x/cb", "com.example.app://x:2/cb", false),
            // Registered before such schemes were rejected.
            ("myapp://x/cb", "myapp://x/cb", false),
        ] {
            assert_eq!(matches(registered, requested), expected, "{registered} {requested}");
        }
        assert_eq!(for_consent("http://127.0.0.1:5000/cb"), for_consent("http://127.0.0.1:6000/cb"));
        assert_eq!(for_consent("https://a.example/cb"), "https://a.example/cb");
    }

    proptest! {
        /// No part of a redirect URI can add anything to a policy.
        #[test]
        fn a_source_adds_nothing_to_a_policy(
            uri in "(https://|http://localhost|http://\\[::1\\]|[a-z]{1,3}\\.[a-z+.;-]{1,4}:|)[ -~]{0,24}",
        ) {
            if let Some(source) = csp_source(&uri) {
                prop_assert!(check(&uri).is_ok());
                let plain = |c: char| c.is_ascii_alphanumeric() || "+-._:/[]".contains(c);
                prop_assert!(source.chars().all(plain), "{} in {}", source, uri);
            } else {
                prop_assert!(check(&uri).is_err());
            }
        }
    }

    #[test]
    fn uris_on_the_device_are_distinguished_from_web_uris() {
        for (uri, expected) in [
            ("https://app.example/cb", false),
            ("https://localhost/cb", true),
            ("http://127.0.0.1:3999/cb", true),
            ("com.example.app:/cb", true),
        ] {
            assert_eq!(is_on_device(uri), expected, "{uri}");
        }
        assert_eq!(csp_source("http://127.0.0.1:3999/cb?a=b;x").as_deref(), Some("http://127.0.0.1:3999"));
        assert_eq!(csp_source("https://app.example/cb").as_deref(), Some("https://app.example"));
        assert_eq!(csp_source("com.example.app:/cb").as_deref(), Some("com.example.app:"));
        assert_eq!(csp_source("nonsense"), None);
    }
}
