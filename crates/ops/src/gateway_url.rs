//! The URLs of the gateway: its issuer, and the resources of organisations and tool sets.

use url::Url;
use waypost_core::slug::check_organization_slug;

use crate::public_url::{HostKind, PublicUrl};
use crate::slugs;

/// The path of the issuer.
const ISSUER: &str = "/gateway";

/// A protected resource of the gateway: everything that agents of an organisation can use, or one of its tool sets.
/// Neither needs to exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayResource {
    organization: String,
    tool_set: Option<String>,
}

impl GatewayResource {
    /// Returns the resource with these slugs. `None` if one of them is malformed.
    #[must_use]
    pub fn new(organization: &str, tool_set: Option<&str>) -> Option<Self> {
        let is_valid =
            check_organization_slug(organization).is_ok() && tool_set.is_none_or(|slug| slugs::check(slug).is_ok());
        is_valid.then(|| Self { organization: organization.to_owned(), tool_set: tool_set.map(str::to_owned) })
    }

    /// Returns the resource that a resource indicator (RFC 8707) names. `None` if it is not a resource of this gateway.
    /// Scheme and host are case-insensitive, and a trailing slash is ignored.
    #[must_use]
    pub fn parse(public_url: &PublicUrl, resource: &str) -> Option<Self> {
        let (url, host) = public_url.parse_own(resource)?;
        (host == HostKind::Main).then(|| Self::from_path(&url)).flatten()
    }

    /// Returns the resource of a URL that [`Self::parse`] has accepted before.
    #[must_use]
    pub fn from_url(url: &str) -> Option<Self> {
        Self::from_path(&Url::parse(url).ok()?)
    }

    fn from_path(url: &Url) -> Option<Self> {
        let path = url.path();
        let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
        match segments.as_slice() {
            ["", "gateway", organization, "mcp"] => Self::new(organization, None),
            ["", "gateway", organization, tool_set, "mcp"] => Self::new(organization, Some(tool_set)),
            _ => None,
        }
    }

    /// Returns the slug of the organisation.
    #[must_use]
    pub fn organization(&self) -> &str {
        &self.organization
    }

    /// Returns the slug of the tool set. `None` for the organisation as a whole.
    #[must_use]
    pub fn tool_set(&self) -> Option<&str> {
        self.tool_set.as_deref()
    }

    fn path(&self) -> String {
        match &self.tool_set {
            None => format!("{ISSUER}/{}/mcp", self.organization),
            Some(tool_set) => format!("{ISSUER}/{}/{tool_set}/mcp", self.organization),
        }
    }
}

/// The URLs of the gateway, on the host that the request used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayUrls {
    origin: String,
}

impl GatewayUrls {
    /// Returns the URLs for a request to the main host with this authority.
    #[must_use]
    pub fn new(public_url: &PublicUrl, authority: &str) -> Self {
        Self { origin: public_url.main_origin(authority) }
    }

    /// Returns the origin.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the issuer (RFC 8414, section 2), without a trailing slash.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("{}{ISSUER}", self.origin)
    }

    /// Returns the path of a page or an endpoint of the authorization server, such as `/gateway/oauth/token`.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        format!("{ISSUER}/oauth/{name}")
    }

    /// Returns the URL of a resource.
    #[must_use]
    pub fn resource(&self, resource: &GatewayResource) -> String {
        format!("{}{}", self.origin, resource.path())
    }

    /// Returns the URL of a resource's metadata (RFC 9728, section 3.1).
    #[must_use]
    pub fn resource_metadata(&self, resource: &GatewayResource) -> String {
        format!("{}/.well-known/oauth-protected-resource{}", self.origin, resource.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_the_gateway_name_a_resource() {
        let url = PublicUrl::new("https://way.example".parse().unwrap());
        let (acme, reading) = (GatewayResource::new("acme", None), GatewayResource::new("acme", Some("reading")));
        assert!(acme.is_some() && reading.is_some() && acme != reading);
        for (resource, expected) in [
            ("https://way.example/gateway/acme/mcp", &acme),
            ("HTTPS://WAY.example:443/gateway/acme/mcp/", &acme),
            ("https://way.example/gateway/acme/reading/mcp", &reading),
            ("https://way.example/gateway/acme/x/../reading/mcp", &reading),
            ("https://way.example/gateway/mcp", &None),
            ("https://way.example/gateway", &None),
            ("https://way.example/gateway/acme", &None),
            ("https://way.example/gateway/acme/mcp//", &None),
            ("https://way.example//gateway/acme/mcp", &None),
            ("https://way.example/gateway//mcp", &None),
            ("https://way.example/gateway/Acme/mcp", &None),
            ("https://way.example/gateway/acme/a--b/mcp", &None),
            ("https://way.example/gateway/acme/reading/more/mcp", &None),
            ("https://way.example/gateway/acme%2Freading/mcp", &None),
            ("https://acme.way.example/gateway/acme/mcp", &None),
            ("https://way.example/s/acme/mcp", &None),
            ("http://way.example/gateway/acme/mcp", &None),
            ("https://way.example:444/gateway/acme/mcp", &None),
            ("https://u@way.example/gateway/acme/mcp", &None),
            ("https://way.example/gateway/acme/mcp?a", &None),
            ("https://way.example/gateway/acme/mcp#a", &None),
            ("https://evil.example/gateway/acme/mcp", &None),
            ("nonsense", &None),
        ] {
            assert_eq!(&GatewayResource::parse(&url, resource), expected, "{resource}");
        }
        assert_eq!(url.parse_resource("https://way.example/gateway/acme/mcp"), None, "no server");
    }

    #[test]
    fn urls_are_built_from_the_requested_host() {
        let (acme, reading) = (GatewayResource::new("acme", None), GatewayResource::new("acme", Some("reading")));
        let (acme, reading) = (acme.unwrap(), reading.unwrap());
        let urls = GatewayUrls::new(&PublicUrl::new("https://way.example:8443".parse().unwrap()), "evil.example");
        assert_eq!(urls.issuer(), "https://way.example:8443/gateway");
        assert_eq!(urls.path("token"), "/gateway/oauth/token");
        assert_eq!(urls.resource(&reading), "https://way.example:8443/gateway/acme/reading/mcp");
        assert_eq!(GatewayResource::from_url(&urls.resource(&reading)), Some(reading));
        let metadata = "https://way.example:8443/.well-known/oauth-protected-resource/gateway/acme/mcp";
        assert_eq!(urls.resource_metadata(&acme), metadata);
        let local = GatewayUrls::new(&PublicUrl::new("http://localhost:8080".parse().unwrap()), "127.0.0.1:9");
        assert_eq!(local.resource(&acme), "http://127.0.0.1:9/gateway/acme/mcp");
    }
}
