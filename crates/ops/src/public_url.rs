//! The addresses of hosted servers: which host a request is for, from which origins a browser may call, and which URLs
//! a server answers to.
//!
//! A server has two equivalent forms of address, `SLUG.HOST` and `HOST/s/SLUG`. Its issuer, its resources and their
//! metadata are built from the form that was asked.

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
pub enum HostKind {
    /// HOST itself.
    Main,
    /// `SLUG.HOST`.
    Server(String),
}

/// Which of its two forms an address has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlForm {
    /// `SLUG.HOST`.
    Host,
    /// `HOST/s/SLUG`.
    Path,
}

/// An address of a hosted server, as it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrls {
    origin: String,
    slug: String,
    form: UrlForm,
}

/// What a resource indicator names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerResource {
    /// The server's slug, as it was written.
    pub slug: String,
    /// The tracking id of a personal URL.
    pub tracking_id: Option<String>,
}

impl ServerUrls {
    /// The origin, such as `https://waypost.example`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What the paths of this server begin with: empty, or `/s/SLUG`.
    #[must_use]
    pub fn prefix(&self) -> String {
        match self.form {
            UrlForm::Host => String::new(),
            UrlForm::Path => format!("/s/{}", self.slug),
        }
    }

    /// The issuer (RFC 8414, section 2): without a slash at the end.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("{}{}", self.origin, self.prefix())
    }

    /// The public page: `HOST/s/SLUG`, or `SLUG.HOST/`.
    #[must_use]
    pub fn page(&self) -> String {
        match self.form {
            UrlForm::Host => format!("{}/", self.origin),
            UrlForm::Path => self.issuer(),
        }
    }

    /// The path of a page or an endpoint of the authorization server, such as `/s/SLUG/oauth/token`.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        format!("{}/oauth/{name}", self.prefix())
    }

    /// The MCP address, with a tracking id the personal one: the resource of tokens (RFC 8707, section 2).
    #[must_use]
    pub fn resource(&self, tracking_id: Option<&str>) -> String {
        format!("{}{}", self.origin, self.resource_path(tracking_id))
    }

    /// Where the metadata of that resource is (RFC 9728, section 3.1: the path comes after the well-known one).
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

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// The host, in lower case; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the host of a request means; none for a host that is not served here (421).
    #[must_use]
    pub fn classify_host(&self, authority: &str) -> Option<HostKind> {
        let authority: http::uri::Authority = authority.parse().ok()?;
        let host = bare(authority.host());
        if host == self.host || self.loopback && LOOPBACK.contains(&host.as_str()) {
            return Some(HostKind::Main);
        }
        let bases = [self.host.as_str(), if self.loopback { "localhost" } else { "" }];
        let slug = bases
            .into_iter()
            // An address has no names below it.
            .filter(|base| !base.is_empty() && base.parse::<IpAddr>().is_err())
            .find_map(|base| host.strip_suffix(base)?.strip_suffix('.'))?;
        (!slug.is_empty() && !slug.contains('.')).then(|| HostKind::Server(slug.to_owned()))
    }

    /// The address of the server `slug` on the host that was asked.
    #[must_use]
    pub fn server_urls(&self, authority: &str, site: &HostKind, slug: &str) -> ServerUrls {
        let (origin, form) = match site {
            // Loopback has several names and ports: metadata is built from the one that was asked.
            HostKind::Main if self.loopback => (format!("{}://{authority}", self.url.scheme()), UrlForm::Path),
            HostKind::Main => (self.origin(), UrlForm::Path),
            HostKind::Server(_) if self.loopback => (format!("{}://{authority}", self.url.scheme()), UrlForm::Host),
            HostKind::Server(label) => {
                let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
                (format!("{}://{label}.{}{port}", self.url.scheme(), self.host), UrlForm::Host)
            }
        };
        ServerUrls { origin: origin.to_ascii_lowercase(), slug: slug.to_owned(), form }
    }

    /// The address `HOST/s/SLUG` of a server, for who asked `authority`.
    #[must_use]
    pub fn path_urls(&self, authority: &str, slug: &str) -> ServerUrls {
        self.server_urls(authority, &HostKind::Main, slug)
    }

    /// The address `SLUG.HOST` of a server, for who asked `authority`; none where HOST is an address (RFC 3986, section
    /// 3.2.2), which has no names below it.
    #[must_use]
    pub fn host_urls(&self, authority: &str, slug: &str) -> Option<ServerUrls> {
        if !self.loopback {
            let named = self.host.parse::<IpAddr>().is_err();
            return named.then(|| self.server_urls("", &HostKind::Server(slug.to_owned()), slug));
        }
        let port = authority.parse::<http::uri::Authority>().ok().and_then(|it| it.port_u16());
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Some(self.server_urls(&format!("{slug}.localhost{port}"), &HostKind::Server(slug.to_owned()), slug))
    }

    /// What has to be registered at an identity provider, so that it sends the users of a server back: one address for
    /// each form of the server's.
    #[must_use]
    pub fn redirect_uris(&self, authority: &str, slug: &str) -> Vec<String> {
        let forms = [Some(self.path_urls(authority, slug)), self.host_urls(authority, slug)];
        forms.into_iter().flatten().map(|address| format!("{}/oauth/callback", address.issuer())).collect()
    }

    /// Which server a resource indicator (RFC 8707) names; none when it is no address of a server here. Scheme and host
    /// may be in any case, and a slash at the end does no harm.
    #[must_use]
    pub fn parse_resource(&self, resource: &str) -> Option<ServerResource> {
        let url = Url::parse(resource).ok()?;
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if !plain || url.fragment().is_some() || url.scheme() != self.url.scheme() {
            return None;
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let site = self.classify_host(&format!("{}{port}", url.host_str()?))?;
        if !self.loopback && url.port_or_known_default() != self.url.port_or_known_default() {
            return None;
        }
        let segments: Vec<&str> = url.path().trim_matches('/').split('/').collect();
        let (slug, rest) = match (&site, segments.as_slice()) {
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

    fn server(slug: &str) -> Option<HostKind> {
        Some(HostKind::Server(slug.to_owned()))
    }

    #[test]
    fn tells_hosts_apart() {
        let url = public("https://way.example");
        for (host, site) in [
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
            assert_eq!(url.classify_host(host), site, "{host}");
        }
        let local = public("http://localhost:8080");
        for (host, site) in [
            ("localhost:8080", Some(HostKind::Main)),
            ("127.0.0.1:9999", Some(HostKind::Main)),
            ("[::1]:8080", Some(HostKind::Main)),
            ("demo.localhost:8080", server("demo")),
            ("demo.127.0.0.1", None),
            ("evil.example", None),
        ] {
            assert_eq!(local.classify_host(host), site, "{host}");
        }
        assert_eq!(public("http://127.0.0.1:8080").classify_host("demo.localhost"), server("demo"));
        assert_eq!(public("http://10.0.0.5").classify_host("demo.10.0.0.5"), None);
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

    #[test]
    fn builds_addresses_from_what_was_asked() {
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
    fn has_two_forms() {
        let forms = |public_url: &str, authority: &str| {
            let url = public(public_url);
            let host = url.host_urls(authority, "acme").map(|address| address.resource(None));
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
    fn knows_its_resources() {
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
