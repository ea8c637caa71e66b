//! Discovery of the authorization server of a remote server: the metadata of the resource (RFC 9728), then that of the
//! authorization server (RFC 8414; OpenID Connect Discovery 1.0).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use waypost_core::{Code, Error, Result};
use waypost_outbound::{Error as OutboundError, Limits, Route};

use crate::remote_tokens::{Challenge, MAX_SCOPE, scope_words};

/// The limits of each request.
const LIMITS: Limits = Limits { max_bytes: 64 * 1024, timeout: Duration::from_secs(10), redirects: 0 };
/// The maximum length of a URL in metadata in bytes.
const MAX_URL: usize = 2_048;
/// The requests that a server which requires OAuth answers with a challenge. Some servers accept the first one without
/// a token.
const PROBES: [&str; 2] = [
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"waypost","version":"1"}}}"#,
    r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#,
];

/// The discovered metadata of an authorization server.
pub(super) struct AuthorizationServer {
    /// The resource of tokens (RFC 8707).
    pub resource: String,
    pub issuer: String,
    pub authorization_endpoint: Url,
    pub token_endpoint: String,
    pub registration_endpoint: Option<String>,
    /// The revocation endpoint (RFC 7009), if Waypost may connect to it.
    pub revocation_endpoint: Option<String>,
    /// Whether the URL of a metadata document is accepted as the ID of a client.
    pub has_client_documents: bool,
    /// The authentication methods of the token endpoint. `None` if the metadata does not list them.
    pub auth_methods: Option<Vec<String>>,
    /// Whether responses state the issuer (RFC 9207).
    pub has_iss: bool,
    /// The scope to request.
    pub scope: Option<String>,
}

/// Metadata of a protected resource (RFC 9728, section 2).
#[derive(Deserialize)]
struct ResourceMetadata {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    scopes_supported: Option<Vec<String>>,
}

/// Metadata of an authorization server (RFC 8414, section 2).
#[derive(Deserialize)]
struct ServerMetadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    registration_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    code_challenge_methods_supported: Vec<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    client_id_metadata_document_supported: bool,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    scopes_supported: Vec<String>,
}

/// Returns the error for a server that cannot be used.
pub(super) fn failure(reason: &str, message: impl Into<String>) -> Error {
    Error::new(Code::ToolServerError, message).with("reason", reason)
}

fn invalid(message: &str) -> Error {
    failure("invalid_metadata", message)
}

/// Discovers the authorization server of the server at `url`. `headers` are those that the instance sends.
///
/// # Errors
/// `tool_server_error`; `reason` says why.
pub(super) async fn discover(route: &Route, url: &Url, headers: HeaderMap) -> Result<AuthorizationServer> {
    let challenge = probe(route, url, headers).await?;
    let metadata = find_resource_metadata(route, url, challenge.metadata_url.as_deref()).await?;
    if !covers(&metadata.resource, url) {
        let message = "The server's metadata is for another resource than its URL, so its tokens would not be for it.";
        return Err(failure("resource_mismatch", message));
    }
    let issuer = metadata.authorization_servers.first();
    let issuer = issuer.ok_or_else(|| invalid("The server's metadata names no authorization server."))?;
    let server = find_server_metadata(route, issuer).await?;
    if !server.code_challenge_methods_supported.iter().any(|method| method == "S256") {
        let message = "The authorization server does not support PKCE with S256, which MCP requires.";
        return Err(failure("no_pkce", message));
    }
    let scope = choose_scope(challenge.scope, metadata.scopes_supported, &server.scopes_supported);
    Ok(AuthorizationServer {
        resource: metadata.resource,
        authorization_endpoint: check_endpoint(route, &server.authorization_endpoint)?,
        token_endpoint: check_endpoint(route, &server.token_endpoint)?.into(),
        registration_endpoint: match &server.registration_endpoint {
            Some(text) => Some(check_endpoint(route, text)?.into()),
            None => None,
        },
        // It is used only to clean up, so an invalid one does not prevent the connection.
        revocation_endpoint: server
            .revocation_endpoint
            .and_then(|text| check_endpoint(route, &text).ok())
            .map(String::from),
        issuer: server.issuer,
        has_client_documents: server.client_id_metadata_document_supported,
        auth_methods: server.token_endpoint_auth_methods_supported,
        has_iss: server.authorization_response_iss_parameter_supported,
        scope,
    })
}

/// Parses the URL of an endpoint, and checks that Waypost may connect to it.
fn check_endpoint(route: &Route, text: &str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|url| text.len() <= MAX_URL && url.fragment().is_none());
    let url = url.ok_or_else(|| invalid("The authorization server's metadata contains an invalid URL."))?;
    route.check_url(&url).map_err(|error| failure("unreachable", error.to_string()))?;
    Ok(url)
}

/// Returns the scope to request: that of the challenge, otherwise those of the resource; and `offline_access`, if the
/// authorization server supports it, so that it issues a refresh token.
fn choose_scope(challenge: Option<String>, resource: Option<Vec<String>>, supported: &[String]) -> Option<String> {
    const OFFLINE: &str = "offline_access";
    let text = challenge.or_else(|| resource.map(|scopes| scopes.join(" "))).unwrap_or_default();
    let mut words: Vec<&str> = scope_words(&text).collect();
    if supported.iter().any(|scope| scope == OFFLINE) && !words.contains(&OFFLINE) {
        words.push(OFFLINE);
    }
    let scope = words.join(" ");
    (!scope.is_empty() && scope.len() <= MAX_SCOPE).then_some(scope)
}

/// Whether the resource with this identifier contains `url`: it has the same origin, and its path is that of the URL or
/// a parent of it. Most servers state the URL itself, and some their origin.
fn covers(resource: &str, url: &Url) -> bool {
    let Some(resource) =
        Url::parse(resource).ok().filter(|parsed| resource.len() <= MAX_URL && parsed.fragment().is_none())
    else {
        return false;
    };
    let path = resource.path().trim_end_matches('/');
    let rest = url.path().strip_prefix(path);
    resource.origin() == url.origin()
        && resource.has_host()
        && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && resource.query().is_none_or(|query| Some(query) == url.query())
}

/// Sends requests without a token until one is answered with a challenge, and returns its parameters (RFC 9728, section
/// 5.1). A server that sends no challenge may still have metadata.
async fn probe(route: &Route, url: &Url, mut headers: HeaderMap) -> Result<Challenge> {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    for (number, probe) in PROBES.into_iter().enumerate() {
        match send_probe(route, url, (headers.clone(), probe)).await {
            Ok(Some(challenge)) => return Ok(challenge),
            // A server that has answered the first request may drop requests without a session.
            Err(error) if number == 0 => return Err(error),
            Ok(None) | Err(_) => {}
        }
    }
    Ok(Challenge::default())
}

/// Sends a request without a token. Returns the parameters of the challenge, if there is one.
async fn send_probe(route: &Route, url: &Url, (headers, body): (HeaderMap, &str)) -> Result<Option<Challenge>> {
    let mut request = Request::post(url.as_str()).body(body.into()).map_err(Error::internal)?;
    *request.headers_mut() = headers;
    let response = match route.send(request, LIMITS).await {
        Ok(response) => response,
        // A stream that does not end is an answer as well.
        Err(OutboundError::Timeout { .. } | OutboundError::TooLarge { .. }) => return Ok(None),
        Err(error) => return Err(failure("unreachable", error.to_string())),
    };
    if response.status().is_redirection() {
        let message = "The server redirects to another URL, which is not followed. Use that URL.";
        return Err(failure("redirect", message));
    }
    let values = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
    let mut challenges = values.filter_map(|value| value.to_str().ok()).map(Challenge::parse);
    let found = challenges.find(|challenge| challenge.metadata_url.is_some());
    Ok(found.filter(|_| response.status() == StatusCode::UNAUTHORIZED))
}

/// Fetches a JSON document; `None` if there is none at this URL.
async fn fetch<T: DeserializeOwned>(route: &Route, url: &Url) -> Result<Option<T>> {
    let response = route.get(url, LIMITS).await.map_err(|error| match error {
        OutboundError::TooLarge { .. } => invalid("A metadata document is too large."),
        error => failure("unreachable", error.to_string()),
    })?;
    if response.status.is_redirection() {
        let message = format!("The metadata of `{}` redirects to another URL, which is not followed.", host(url));
        return Err(failure("redirect", message));
    }
    if response.status != StatusCode::OK {
        return Ok(None);
    }
    let parsed = serde_json::from_slice(&response.body);
    parsed.map(Some).map_err(|_| invalid(&format!("The metadata of `{}` is not valid.", host(url))))
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

fn with_path(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    url.set_path(path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

async fn find_resource_metadata(route: &Route, url: &Url, stated: Option<&str>) -> Result<ResourceMetadata> {
    const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
    let none = || {
        let message =
            "The server has no metadata of a protected resource (RFC 9728), so it cannot be connected with OAuth.";
        failure("no_metadata", message)
    };
    if let Some(text) = stated {
        return fetch(route, &check_endpoint(route, text)?).await?.ok_or_else(none);
    }
    let path = url.path().trim_end_matches('/');
    if !path.is_empty()
        && let Some(found) = fetch(route, &with_path(url, &format!("{WELL_KNOWN}{path}"))).await?
    {
        return Ok(found);
    }
    fetch(route, &with_path(url, WELL_KNOWN)).await?.ok_or_else(none)
}

/// Returns the possible URLs of an issuer's metadata, in the order that MCP specifies.
fn server_metadata_urls(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    let mut paths = vec![
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("/.well-known/openid-configuration{path}"),
    ];
    if !path.is_empty() {
        paths.push(format!("{path}/.well-known/openid-configuration"));
    }
    paths.iter().map(|path| with_path(issuer, path)).collect()
}

async fn find_server_metadata(route: &Route, issuer: &str) -> Result<ServerMetadata> {
    let parsed = Url::parse(issuer)
        .ok()
        .filter(|url| issuer.len() <= MAX_URL && url.has_host() && url.query().is_none() && url.fragment().is_none());
    let parsed = parsed.ok_or_else(|| invalid("The server's metadata names an invalid authorization server."))?;
    for url in server_metadata_urls(&parsed) {
        let Some(metadata) = fetch::<ServerMetadata>(route, &url).await? else { continue };
        // RFC 8414, section 3.3: a server must not state the metadata of another issuer.
        if metadata.issuer != issuer {
            let message = "The metadata of the authorization server is that of another issuer.";
            return Err(failure("issuer_mismatch", message));
        }
        return Ok(metadata);
    }
    let message = format!("The authorization server `{}` has no metadata (RFC 8414).", host(&parsed));
    Err(failure("no_metadata", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_covers_urls_below_it() {
        let url = "https://far.example:8443/a/mcp?key=1".parse().unwrap();
        for (resource, expected) in [
            ("https://far.example:8443/a/mcp", true),
            ("https://FAR.example:8443/a/mcp/", true),
            ("https://far.example:8443/a", true),
            ("https://far.example:8443", true),
            ("https://far.example:8443/a/mcp?key=1", true),
            ("https://far.example:8443/a/mcp?key=2", false),
            ("https://far.example:8443/a/mc", false),
            ("https://far.example:8443/a/mcp/b", false),
            ("https://far.example/a/mcp", false),
            ("http://far.example:8443/a/mcp", false),
            ("https://far.example.evil.example:8443/a/mcp", false),
            ("https://far.example:8443/a/mcp#x", false),
            ("urn:far", false),
            ("", false),
        ] {
            assert_eq!(covers(resource, &url), expected, "{resource}");
        }
    }

    #[test]
    fn issuer_metadata_urls_are_in_the_order_that_mcp_specifies() {
        let urls = |issuer: &str| -> Vec<String> {
            server_metadata_urls(&issuer.parse().unwrap()).into_iter().map(String::from).collect()
        };
        assert_eq!(
            urls("https://id.example"),
            [
                "https://id.example/.well-known/oauth-authorization-server",
                "https://id.example/.well-known/openid-configuration",
            ]
        );
        assert_eq!(
            urls("https://id.example/acme"),
            [
                "https://id.example/.well-known/oauth-authorization-server/acme",
                "https://id.example/.well-known/openid-configuration/acme",
                "https://id.example/acme/.well-known/openid-configuration",
            ]
        );
    }

    #[test]
    fn the_scope_of_the_challenge_takes_precedence() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let choose = |challenge: Option<&str>, resource: &[&str], supported: &[&str]| {
            choose_scope(challenge.map(str::to_owned), Some(list(resource)), &list(supported))
        };
        assert_eq!(choose(Some("a b"), &["c"], &[]).as_deref(), Some("a b"));
        assert_eq!(choose(None, &["c", "d"], &["offline_access"]).as_deref(), Some("c d offline_access"));
        assert_eq!(choose(None, &["a\"b", "é", ""], &[]), None);
        assert_eq!(choose(None, &[&"x".repeat(MAX_SCOPE + 1)], &[]), None);
    }
}
