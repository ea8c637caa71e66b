//! The URLs of hosted servers: the host that a request is for, the origins from which browsers may call, and the URLs
//! under which a server is reachable.
//!
//! A server has two equivalent URL forms, `SLUG.HOST` and `HOST/s/SLUG`. Its issuer, its resources and their metadata
//! are built from the form that the request used.

use std::net::IpAddr;

use url::{Host, Url};

/// Host names of the local machine.
const LOOPBACK: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// The parsed public URL.
#[derive(Debug, Clone)]
pub struct PublicUrl {
    url: Url,
    /// In lowercase; an IPv6 address without brackets.
    host: String,
    is_loopback: bool,
}

/// The meaning of a request's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostKind {
    /// HOST, the host of the public URL.
    Main,
    /// `SLUG.HOST`.
    Server(String),
}

/// The form of a server's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlForm {
    /// `SLUG.HOST`.
    Host,
    /// `HOST/s/SLUG`.
    Path,
}

/// The URLs of a hosted server, in the form that the request used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrls {
    origin: String,
    slug: String,
    form: UrlForm,
}

/// The server that a resource indicator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerResource {
    /// The server's slug, as written in the resource indicator.
    pub slug: String,
    /// The tracking ID, if the resource is a personal URL.
    pub tracking_id: Option<String>,
}

impl ServerUrls {
    /// Returns the origin, such as `https://waypost.example`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the prefix of the server's paths: empty, or `/s/SLUG`.
    #[must_use]
    pub fn prefix(&self) -> String {
        match self.form {
            UrlForm::Host => String::new(),
            UrlForm::Path => format!("/s/{}", self.slug),
        }
    }

    /// Returns the issuer (RFC 8414, section 2), without a trailing slash.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("{}{}", self.origin, self.prefix())
    }

    /// Returns the URL of the public page: `HOST/s/SLUG`, or `SLUG.HOST/`.
    #[must_use]
    pub fn page(&self) -> String {
        match self.form {
            UrlForm::Host => format!("{}/", self.origin),
            UrlForm::Path => self.issuer(),
        }
    }

    /// Returns the path of a page or an endpoint of the authorization server, such as `/s/SLUG/oauth/token`.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        format!("{}/oauth/{name}", self.prefix())
    }

    /// Returns the MCP URL, or the personal one if a tracking ID is given. It is the resource of tokens (RFC 8707,
    /// section 2).
    #[must_use]
    pub fn resource(&self, tracking_id: Option<&str>) -> String {
        format!("{}{}", self.origin, self.resource_path(tracking_id))
    }

    /// Returns the URL of that resource's metadata (RFC 9728, section 3.1: the resource's path follows the well-known
    /// path).
    #[must_use]
    pub fn resource_metadata(&self, tracking_id: Option<&str>) -> String {
        format!("{}/.well-known/oauth-protected-resource{}", self.origin, self.resource_path(tracking_id))
    }

    fn resource_path(&self, tracking_id: Option<&str>) -> String {
        match tracking_id {
            Some(tracking_id) => format!("{}/t/{tracking_id}/mcp", self.prefix()),
            None => format!("{}/mcp", self.prefix()),
        }
    }
}

/// Returns a host name or IP address in lowercase, without brackets or a trailing dot.
fn normalize_host(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

fn is_loopback_host(host: &str) -> bool {
    LOOPBACK.contains(&host) || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl PublicUrl {
    /// Creates a `PublicUrl`. The host of `url` becomes HOST.
    #[must_use]
    pub fn new(url: Url) -> Self {
        let host = normalize_host(url.host_str().unwrap_or("localhost"));
        let is_loopback = is_loopback_host(&host);
        Self { url, host, is_loopback }
    }

    /// Returns the origin, such as `https://waypost.example`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Whether the host is a loopback host.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// Returns the host in lowercase; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Classifies a request's host. Returns `None` if the host is not served (421).
    #[must_use]
    pub fn classify_host(&self, authority: &str) -> Option<HostKind> {
        let authority: http::uri::Authority = authority.parse().ok()?;
        let host = normalize_host(authority.host());
        if host == self.host || self.is_loopback && LOOPBACK.contains(&host.as_str()) {
            return Some(HostKind::Main);
        }
        let bases = [self.host.as_str(), if self.is_loopback { "localhost" } else { "" }];
        let slug = bases
            .into_iter()
            // An IP address has no subdomains.
            .filter(|base| !base.is_empty() && base.parse::<IpAddr>().is_err())
            .find_map(|base| host.strip_suffix(base)?.strip_suffix('.'))?;
        (!slug.is_empty() && !slug.contains('.')).then(|| HostKind::Server(slug.to_owned()))
    }

    /// Returns the URLs of the server `slug` for a request to the host `authority`.
    #[must_use]
    pub fn server_urls(&self, authority: &str, host_kind: &HostKind, slug: &str) -> ServerUrls {
        let (origin, form) = match host_kind {
            HostKind::Main => (self.main_origin(authority), UrlForm::Path),
            HostKind::Server(_) if self.is_loopback => (format!("{}://{authority}", self.url.scheme()), UrlForm::Host),
            HostKind::Server(label) => {
                let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
                (format!("{}://{label}.{}{port}", self.url.scheme(), self.host), UrlForm::Host)
            }
        };
        ServerUrls { origin: origin.to_ascii_lowercase(), slug: slug.to_owned(), form }
    }

    /// Returns the URLs `HOST/s/SLUG` of a server, for a request to the host `authority`.
    #[must_use]
    pub fn path_urls(&self, authority: &str, slug: &str) -> ServerUrls {
        self.server_urls(authority, &HostKind::Main, slug)
    }

    /// Returns the URLs `SLUG.HOST` of a server, for a request to the host `authority`. Returns `None` if HOST is an IP
    /// address (RFC 3986, section 3.2.2), which has no subdomains.
    #[must_use]
    pub fn host_urls(&self, authority: &str, slug: &str) -> Option<ServerUrls> {
        if !self.is_loopback {
            let is_name = self.host.parse::<IpAddr>().is_err();
            return is_name.then(|| self.server_urls("", &HostKind::Server(slug.to_owned()), slug));
        }
        let port = authority.parse::<http::uri::Authority>().ok().and_then(|authority| authority.port_u16());
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Some(self.server_urls(&format!("{slug}.localhost{port}"), &HostKind::Server(slug.to_owned()), slug))
    }

    /// Returns the redirect URIs that must be registered with a server's identity provider, one for each URL form of
    /// the server.
    #[must_use]
    pub fn redirect_uris(&self, authority: &str, slug: &str) -> Vec<String> {
        let forms = [Some(self.path_urls(authority, slug)), self.host_urls(authority, slug)];
        forms.into_iter().flatten().map(|urls| format!("{}/oauth/callback", urls.issuer())).collect()
    }

    /// Returns the origin under which a request to the main host with this authority reached the installation.
    pub(crate) fn main_origin(&self, authority: &str) -> String {
        // A loopback server is reachable under several names and ports; metadata is built from the requested one.
        if self.is_loopback { format!("{}://{authority}", self.url.scheme()) } else { self.origin() }
    }

    /// Returns the server that a resource indicator (RFC 8707) names. Returns `None` if it is not the URL of a server
    /// of this installation. Scheme and host are case-insensitive, and a trailing slash is ignored.
    #[must_use]
    pub fn parse_resource(&self, resource: &str) -> Option<ServerResource> {
        let (url, host_kind) = self.parse_own(resource)?;
        let segments: Vec<&str> = url.path().trim_matches('/').split('/').collect();
        let (slug, rest) = match (&host_kind, segments.as_slice()) {
            (HostKind::Server(slug), rest) => (slug.as_str(), rest),
            (HostKind::Main, ["s", slug, rest @ ..]) => (*slug, rest),
            (HostKind::Main, _) => return None,
        };
        let tracking_id = match rest {
            [] | [""] | ["mcp"] => None,
            ["t", tracking_id, "mcp"] => Some((*tracking_id).to_owned()),
            _ => return None,
        };
        Some(ServerResource { slug: slug.to_owned(), tracking_id })
    }

    /// Parses a URL of this installation without user info, query or fragment.
    pub(crate) fn parse_own(&self, text: &str) -> Option<(Url, HostKind)> {
        let url = Url::parse(text).ok()?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if !is_plain || url.fragment().is_some() || url.scheme() != self.url.scheme() {
            return None;
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let host_kind = self.classify_host(&format!("{}{port}", url.host_str()?))?;
        let is_own_port = self.is_loopback || url.port_or_known_default() == self.url.port_or_known_default();
        is_own_port.then_some((url, host_kind))
    }

    /// Whether `origin` is the origin of this installation. On a loopback host, this applies to every loopback name and
    /// port.
    #[must_use]
    pub fn is_main_origin(&self, origin: &str) -> bool {
        let Ok(origin) = Url::parse(origin) else { return false };
        let is_plain = origin.path() == "/" && origin.query().is_none() && origin.fragment().is_none();
        if !is_plain || !origin.username().is_empty() || origin.password().is_some() {
            return false;
        }
        let host = match origin.host() {
            Some(Host::Domain(domain)) => normalize_host(domain),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return false,
        };
        let same_scheme = origin.scheme() == self.url.scheme();
        if self.is_loopback {
            return same_scheme && is_loopback_host(&host);
        }
        same_scheme && host == self.host && origin.port_or_known_default() == self.url.port_or_known_default()
    }

    /// Whether browsers may call the server `slug` from `origin`. `extra` contains the server's additional allowed
    /// origins.
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
            Some(Host::Domain(domain)) => normalize_host(domain),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return false,
        };
        if self.is_loopback {
            return is_loopback_host(&host) || host == format!("{slug}.localhost");
        }
        let same_scheme_and_port =
            origin.scheme() == self.url.scheme() && origin.port_or_known_default() == self.url.port_or_known_default();
        same_scheme_and_port && (host == self.host || host == format!("{slug}.{}", self.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(url: &str) -> PublicUrl {
        PublicUrl::new(url.parse().unwrap())
    }

    fn server(slug: &str) -> Option<HostKind> {
        Some(HostKind::Server(slug.to_owned()))
    }

    #[test]
    fn hosts_are_classified() {
        let url = public("https://way.example");
        for (host, expected) in [
            ("way.example", Some(HostKind::Main)),
            ("WAY.example.:443", Some(HostKind::Main)),
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
            assert_eq!(url.classify_host(host), expected, "{host}");
        }
        let local = public("http://localhost:8080");
        for (host, expected) in [
            ("localhost:8080", Some(HostKind::Main)),
            ("127.0.0.1:9999", Some(HostKind::Main)),
            ("[::1]:8080", Some(HostKind::Main)),
            ("demo.localhost:8080", server("demo")),
            ("demo.127.0.0.1", None),
            ("evil.example", None),
        ] {
            assert_eq!(local.classify_host(host), expected, "{host}");
        }
        assert_eq!(public("http://127.0.0.1:8080").classify_host("demo.localhost"), server("demo"));
        assert_eq!(public("http://10.0.0.5").classify_host("demo.10.0.0.5"), None);
    }

    #[test]
    fn only_allowed_origins_are_accepted() {
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

    #[test]
    fn only_its_own_origin_is_the_main_origin() {
        let url = public("https://way.example");
        for (origin, expected) in [
            ("https://way.example", true),
            ("HTTPS://WAY.example:443/", true),
            ("https://acme.way.example", false),
            ("http://way.example", false),
            ("https://way.example:8443", false),
            ("https://way.example/s/acme", false),
            ("https://user@way.example", false),
            ("https://way.example?q", false),
            ("https://way.example.evil.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(url.is_main_origin(origin), expected, "{origin}");
        }
        let local = public("http://localhost:8080");
        for (origin, expected) in [
            ("http://localhost:8080", true),
            ("http://127.0.0.1:9999", true),
            ("http://[::1]:1", true),
            ("https://localhost:8080", false),
            ("http://demo.localhost:8080", false),
            ("http://evil.example", false),
        ] {
            assert_eq!(local.is_main_origin(origin), expected, "{origin}");
        }
    }

    #[test]
    fn urls_are_built_from_the_requested_host() {
        let url = public("https://way.example:8443");
        let host = url.server_urls("ACME.way.example", &HostKind::Server("acme".into()), "acme");
        assert_eq!(host.issuer(), "https://acme.way.example:8443");
        assert_eq!(host.path("token"), "/oauth/token");
        assert_eq!(host.resource(None), "https://acme.way.example:8443/mcp");
        let path = url.server_urls("evil.example", &HostKind::Main, "acme");
        assert_eq!(path.issuer(), "https://way.example:8443/s/acme");
        assert_eq!(path.resource(Some("a~b")), "https://way.example:8443/s/acme/t/a~b/mcp");
        let metadata = "https://way.example:8443/.well-known/oauth-protected-resource/s/acme/mcp";
        assert_eq!(path.resource_metadata(None), metadata);
        let local = public("http://localhost:8080").server_urls("127.0.0.1:9999", &HostKind::Main, "acme");
        assert_eq!(local.issuer(), "http://127.0.0.1:9999/s/acme");
    }

    #[test]
    fn a_server_has_two_url_forms() {
        let forms = |public_url: &str, authority: &str| {
            let url = public(public_url);
            let host = url.host_urls(authority, "acme").map(|urls| urls.resource(None));
            (url.path_urls(authority, "acme").resource(None), host.unwrap_or_default())
        };
        let expected = ("https://way.example:8443/s/acme/mcp", "https://acme.way.example:8443/mcp");
        let (path, host) = forms("https://way.example:8443", "evil.example");
        assert_eq!((path.as_str(), host.as_str()), expected);
        let (path, host) = forms("http://localhost:8080", "127.0.0.1:9999");
        assert_eq!(
            (path.as_str(), host.as_str()),
            ("http://127.0.0.1:9999/s/acme/mcp", "http://acme.localhost:9999/mcp")
        );
        assert_eq!(forms("http://10.0.0.5", "10.0.0.5").1, "");
    }

    #[test]
    fn resource_indicators_are_parsed() {
        let named = |slug: &str, tracking_id: Option<&str>| {
            Some(ServerResource { slug: slug.into(), tracking_id: tracking_id.map(str::to_owned) })
        };
        let url = public("https://way.example");
        for (resource, expected) in [
            ("https://way.example/s/acme/mcp", named("acme", None)),
            ("HTTPS://WAY.example/s/acme/mcp/", named("acme", None)),
            ("https://acme.way.example/mcp", named("acme", None)),
            ("https://acme.way.example", named("acme", None)),
            ("https://acme.way.example/", named("acme", None)),
            ("https://way.example/s/acme", named("acme", None)),
            ("https://way.example/s/acme/t/anna/mcp", named("acme", Some("anna"))),
            ("https://acme.way.example/t/anna/mcp", named("acme", Some("anna"))),
            ("http://way.example/s/acme/mcp", None),
            ("https://way.example:444/s/acme/mcp", None),
            ("https://way.example/mcp", None),
            ("https://way.example", None),
            ("https://way.example/s/acme/other", None),
            ("https://way.example/s/acme/mcp?a=b", None),
            ("https://way.example/s/acme/mcp#x", None),
            ("https://u@way.example/s/acme/mcp", None),
            ("https://evil.example/s/acme/mcp", None),
            ("nonsense", None),
        ] {
            assert_eq!(url.parse_resource(resource), expected, "{resource}");
        }
        let local = public("http://localhost:8080");
        assert_eq!(local.parse_resource("http://127.0.0.1:1/s/demo/mcp"), named("demo", None));
        assert_eq!(local.parse_resource("http://[::1]:1/s/demo/mcp"), named("demo", None));
    }
}
