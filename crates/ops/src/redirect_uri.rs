//! Redirect URIs: which may be registered, and when a requested one is one of the registered.
//!
//! A URI is compared as text, character by character. Only loopback ones may differ in their port, because a program
//! learns it when it listens (RFC 8252, section 7.3; OAuth 2.1, section 2.3.1).

use std::net::IpAddr;

use url::{Host, Url};

/// Bytes in a redirect URI at most.
const MAX_LENGTH: usize = 2_048;
/// Schemes that a browser runs or shows by itself: code must never be sent there.
const FORBIDDEN: &[&str] = &[
    "about",
    "blob",
    "chrome",
    "data",
    "file",
    "filesystem",
    "ftp",
    "javascript",
    "mailto",
    "tel",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// Why a text is no redirect URI, for the developer of the client.
///
/// # Errors
/// One sentence.
pub fn check(uri: &str) -> Result<(), String> {
    if uri.len() > MAX_LENGTH {
        return Err(format!("a redirect URI has at most {MAX_LENGTH} characters"));
    }
    // The parser mends these; a comparison as text would not.
    if uri.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\' || !c.is_ascii()) {
        return Err("a redirect URI has no spaces, control characters, backslashes or letters beyond ASCII".to_owned());
    }
    let url = Url::parse(uri).map_err(|_| "a redirect URI is an absolute URI".to_owned())?;
    if url.fragment().is_some() {
        return Err("a redirect URI has no fragment (RFC 6749, section 3.1.2)".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a redirect URI has no user name".to_owned());
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        "http" => {
            Err("a redirect URI is https, unless it leads to this machine (127.0.0.1, [::1], localhost)".to_owned())
        }
        scheme if FORBIDDEN.contains(&scheme) => Err(format!("the scheme {scheme} is not for redirect URIs")),
        _ => Ok(()),
    }
}

/// Whether the URI leads to the machine on which the browser runs.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(domain)) => domain == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// Whether `requested` is `registered`.
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

/// What is remembered of a redirect URI when the user allows it: the URI, for a loopback one without its port.
#[must_use]
pub fn remembered(uri: &str) -> String {
    loopback_without_port(uri).unwrap_or_else(|| uri.to_owned())
}

fn loopback_without_port(uri: &str) -> Option<String> {
    check(uri).ok()?;
    let url = Url::parse(uri).ok()?;
    if url.scheme() != "http" || !is_loopback(&url) {
        return None;
    }
    // From the text and not from the parsed URL, which would mend the path.
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
    use super::*;

    #[test]
    fn what_may_be_registered() {
        for uri in [
            "https://app.example/callback?tenant=a",
            "http://127.0.0.1:3999/callback",
            "http://localhost/cb",
            "http://[::1]:1/cb",
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "com.example.app:/oauth",
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
        ] {
            assert!(check(uri).is_err(), "{uri}");
        }
        assert!(check(&format!("https://app.example/{}", "a".repeat(MAX_LENGTH))).is_err());
    }

    #[test]
    fn only_the_port_of_loopback_may_differ() {
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
            ("cursor://x/cb", "cursor://x/cb", true),
            ("cursor://x/cb", "cursor://x:2/cb", false),
        ] {
            assert_eq!(matches(registered, requested), expected, "{registered} {requested}");
        }
        assert_eq!(remembered("http://127.0.0.1:5000/cb"), remembered("http://127.0.0.1:6000/cb"));
        assert_eq!(remembered("https://a.example/cb"), "https://a.example/cb");
    }
}
