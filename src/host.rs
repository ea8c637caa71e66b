//! Which host a request is for, and from which origins a browser may call (contract, section 3).

use std::net::IpAddr;

use url::{Host, Url};

/// Hosts that all mean this machine.
const LOOPBACK: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// The public URL, taken apart.
#[derive(Debug, Clone)]
pub struct PublicUrl {
    url: Url,
    /// Lower case; an IPv6 address without brackets.
    host: String,
    loopback: bool,
}

/// What a host means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Site {
    /// HOST itself.
    Main,
    /// `SLUG.HOST`.
    Server(String),
}

/// A host name or address without port, brackets and final dot, in lower case.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

fn is_loopback(host: &str) -> bool {
    LOOPBACK.contains(&host) || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl PublicUrl {
    /// Takes a public URL apart; its host decides what HOST is.
    #[must_use]
    pub fn new(url: Url) -> Self {
        let host = bare(url.host_str().unwrap_or("localhost"));
        let loopback = is_loopback(&host);
        Self { url, host, loopback }
    }

    /// The origin, such as `https://waypost.example`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// What the host of a request means; none for a host that is not served here (421).
    #[must_use]
    pub fn site(&self, authority: &str) -> Option<Site> {
        let authority: http::uri::Authority = authority.parse().ok()?;
        let host = bare(authority.host());
        if host == self.host || self.loopback && LOOPBACK.contains(&host.as_str()) {
            return Some(Site::Main);
        }
        let bases = [self.host.as_str(), if self.loopback { "localhost" } else { "" }];
        let slug = bases
            .into_iter()
            // An address has no names below it.
            .filter(|base| !base.is_empty() && base.parse::<IpAddr>().is_err())
            .find_map(|base| host.strip_suffix(base)?.strip_suffix('.'))?;
        (!slug.is_empty() && !slug.contains('.')).then(|| Site::Server(slug.to_owned()))
    }

    /// Whether a browser's `origin` may call the server called `slug` that allows `extra` origins besides its own.
    #[must_use]
    pub fn allows_origin(&self, origin: &str, slug: &str, extra: &[String]) -> bool {
        if extra.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        let Ok(origin) = Url::parse(origin) else { return false };
        if !matches!(origin.scheme(), "http" | "https") || origin.path() != "/" {
            return false;
        }
        let host = match origin.host() {
            Some(Host::Domain(domain)) => bare(domain),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return false,
        };
        if self.loopback {
            return is_loopback(&host) || host == format!("{slug}.localhost");
        }
        let same_way =
            origin.scheme() == self.url.scheme() && origin.port_or_known_default() == self.url.port_or_known_default();
        same_way && (host == self.host || host == format!("{slug}.{}", self.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(url: &str) -> PublicUrl {
        PublicUrl::new(url.parse().unwrap())
    }

    fn server(slug: &str) -> Option<Site> {
        Some(Site::Server(slug.to_owned()))
    }

    #[test]
    fn tells_hosts_apart() {
        let url = public("https://way.example");
        for (host, site) in [
            ("way.example", Some(Site::Main)),
            ("WAY.example.:443", Some(Site::Main)),
            ("acme.way.example", server("acme")),
            ("Acme.way.example:8443", server("acme")),
            ("a.b.way.example", None),
            (".way.example", None),
            ("way.example.evil.example", None),
            ("evilway.example", None),
            ("localhost", None),
            ("127.0.0.1", None),
            ("", None),
            ("not a host", None),
        ] {
            assert_eq!(url.site(host), site, "{host}");
        }
        let local = public("http://localhost:8080");
        for (host, site) in [
            ("localhost:8080", Some(Site::Main)),
            ("127.0.0.1:9999", Some(Site::Main)),
            ("[::1]:8080", Some(Site::Main)),
            ("demo.localhost:8080", server("demo")),
            ("demo.127.0.0.1", None),
            ("evil.example", None),
        ] {
            assert_eq!(local.site(host), site, "{host}");
        }
        assert_eq!(public("http://127.0.0.1:8080").site("demo.localhost"), server("demo"));
        assert_eq!(public("http://10.0.0.5").site("demo.10.0.0.5"), None);
    }

    #[test]
    fn tells_origins_apart() {
        let url = public("https://way.example");
        let extra = vec!["https://docs.acme.example".to_owned()];
        for (origin, allowed) in [
            ("https://way.example", true),
            ("https://acme.way.example", true),
            ("https://docs.acme.example", true),
            ("https://other.way.example", false),
            ("http://way.example", false),
            ("https://way.example:8443", false),
            ("http://localhost:3000", false),
            ("https://evil.example", false),
            ("null", false),
            ("file://", false),
            ("https://way.example/path", false),
        ] {
            assert_eq!(url.allows_origin(origin, "acme", &extra), allowed, "{origin}");
        }
        let local = public("http://localhost:8080");
        for (origin, allowed) in [
            ("http://localhost:3000", true),
            ("http://127.0.0.1:6274", true),
            ("http://[::1]:1", true),
            ("http://acme.localhost:8080", true),
            ("http://other.localhost:8080", false),
            ("https://localhost.evil.example", false),
            ("http://evil.example", false),
        ] {
            assert_eq!(local.allows_origin(origin, "acme", &[]), allowed, "{origin}");
        }
    }
}
