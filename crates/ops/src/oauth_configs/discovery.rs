//! Checks of a provider before it is saved: its metadata (OpenID Connect Discovery 1.0; RFC 8414) and whether its
//! endpoints respond.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use waypost_content::name;
use waypost_core::oauth_config::{OauthConfig, ProviderKind};
use waypost_outbound::{Error as OutboundError, Limits, Route};

/// The limits of a request for metadata or keys.
const DOCUMENT_LIMITS: Limits = Limits { max_bytes: 256 * 1024, timeout: Duration::from_secs(10), redirects: 2 };
/// The limits of a request that only checks whether an endpoint responds.
const PROBE_LIMITS: Limits = Limits { max_bytes: 1024 * 1024, timeout: Duration::from_secs(10), redirects: 0 };

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingLevel {
    /// No problem.
    Ok,
    /// The provider works, but the administrator should know about it.
    Warning,
    /// Users could not sign in, so the provider is not saved.
    Error,
}

impl FindingLevel {
    /// Returns the name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A finding of a check of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFinding {
    /// The severity.
    pub level: FindingLevel,
    /// A sentence for the administrator.
    pub message: String,
}

impl ProviderFinding {
    pub(super) fn new(level: FindingLevel, message: impl Into<String>) -> Self {
        Self { level, message: message.into() }
    }

    fn error(message: impl Into<String>) -> Self {
        Self::new(FindingLevel::Error, message)
    }
}

/// The entered URLs of a provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ProviderInput {
    pub issuer: Option<String>,
    pub metadata_url: Option<String>,
    pub authorization_endpoint: Option<String>,
    pub token_endpoint: Option<String>,
    pub userinfo_endpoint: Option<String>,
}

/// A provider as described by its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Provider {
    pub kind: ProviderKind,
    pub issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub userinfo_endpoint: Option<String>,
    pub jwks_uri: Option<String>,
    /// The supported client authentication methods. `None` if the metadata does not list them.
    pub auth_methods: Option<Vec<String>>,
    /// The supported scopes. `None` if the metadata does not list them.
    pub scopes: Option<Vec<String>>,
}

impl Provider {
    /// Returns a saved provider, without the values that only its metadata contains.
    pub fn saved(config: &OauthConfig) -> Self {
        Self {
            kind: config.kind,
            issuer: config.issuer.clone(),
            authorization_endpoint: config.authorization_endpoint.clone(),
            token_endpoint: config.token_endpoint.clone(),
            userinfo_endpoint: config.userinfo_endpoint.clone(),
            jwks_uri: config.jwks_uri.clone(),
            auth_methods: None,
            scopes: None,
        }
    }
}

/// Provider metadata (RFC 8414, section 2; OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: Option<String>,
    token_endpoint: Option<String>,
    userinfo_endpoint: Option<String>,
    jwks_uri: Option<String>,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    id_token_signing_alg_values_supported: Option<Vec<String>>,
    scopes_supported: Option<Vec<String>>,
}

/// Checks the entered URLs. Returns a provider if the findings contain no errors.
pub(super) async fn examine(route: &Route, input: &ProviderInput) -> (Option<Provider>, Vec<ProviderFinding>) {
    let mut findings = Vec::new();
    let provider = match discover(route, input, &mut findings).await {
        Ok(provider) => provider,
        Err(finding) => {
            findings.push(finding);
            return (None, findings);
        }
    };
    findings.extend(check_endpoints(route, &provider).await);
    (Some(provider), findings)
}

async fn discover(
    route: &Route,
    input: &ProviderInput,
    findings: &mut Vec<ProviderFinding>,
) -> Result<Provider, ProviderFinding> {
    let (address, metadata): (String, Metadata) = match (&input.issuer, &input.metadata_url) {
        (Some(issuer), _) => {
            let url = parse("issuer", issuer)?;
            let (address, metadata) = first(route, &url).await?;
            if metadata.issuer != *issuer {
                return Err(issuer_mismatch(&address, &metadata.issuer, &format!("`{issuer}` was entered")));
            }
            (address, metadata)
        }
        (None, Some(text)) => {
            let url = parse("metadata URL", text)?;
            let metadata: Metadata = match document(route, &url).await? {
                Ok(metadata) => metadata,
                Err(reason) => return Err(ProviderFinding::error(format!("There is no metadata at {url}: {reason}."))),
            };
            // OpenID Connect Discovery, 4.3, and RFC 8414, 3.3: the metadata of an issuer must be below its own URL.
            let own = Url::parse(&metadata.issuer).map(|issuer| well_known(&issuer)).unwrap_or_default();
            if !own.contains(&url) {
                return Err(issuer_mismatch(
                    url.as_str(),
                    &metadata.issuer,
                    "the metadata of that issuer is at another URL",
                ));
            }
            (url.to_string(), metadata)
        }
        (None, None) => return from_input(input),
    };
    evaluate(&address, metadata, input, findings)
}

/// Returns a provider without metadata: plain OAuth.
fn from_input(input: &ProviderInput) -> Result<Provider, ProviderFinding> {
    let (Some(authorization_endpoint), Some(token_endpoint), Some(userinfo_endpoint)) =
        (&input.authorization_endpoint, &input.token_endpoint, &input.userinfo_endpoint)
    else {
        return Err(ProviderFinding::error(
            "Specify the provider by its issuer, by its metadata URL, or by its authorization, token and userinfo \
             endpoints.",
        ));
    };
    Ok(Provider {
        kind: ProviderKind::Oauth,
        issuer: String::new(),
        authorization_endpoint: authorization_endpoint.clone(),
        token_endpoint: token_endpoint.clone(),
        userinfo_endpoint: Some(userinfo_endpoint.clone()),
        jwks_uri: None,
        auth_methods: None,
        scopes: None,
    })
}

fn issuer_mismatch(address: &str, stated: &str, expectation: &str) -> ProviderFinding {
    let stated = sanitize(stated);
    ProviderFinding::error(format!(
        "The provider's metadata at {address} states the issuer `{stated}`, but {expectation}."
    ))
}

/// Returns a provider's text in a form that is safe for terminals.
fn sanitize(text: &str) -> String {
    name::clean(text).chars().take(200).collect()
}

fn evaluate(
    address: &str,
    metadata: Metadata,
    input: &ProviderInput,
    findings: &mut Vec<ProviderFinding>,
) -> Result<Provider, ProviderFinding> {
    let missing =
        |what: &str| ProviderFinding::error(format!("The provider's metadata at {address} contains no {what}."));
    let algorithms = metadata.id_token_signing_alg_values_supported;
    // OpenID Connect requires both; a plain OAuth server at the same URL has neither.
    let kind = match (&metadata.jwks_uri, &algorithms) {
        (Some(_), Some(_)) => ProviderKind::Openid,
        _ => ProviderKind::Oauth,
    };
    let public = |name: &String| ["RS", "PS", "ES", "Ed"].iter().any(|start| name.starts_with(start));
    if kind == ProviderKind::Openid && !algorithms.iter().flatten().any(public) {
        return Err(ProviderFinding::error(format!(
            "According to its metadata at {address}, the provider does not sign ID tokens with a public key (`{}`), so \
             they cannot be verified.",
            sanitize(&algorithms.unwrap_or_default().join(", "))
        )));
    }
    let methods = metadata.code_challenge_methods_supported;
    findings.push(match methods.is_some_and(|methods| methods.iter().any(|method| method == "S256")) {
        true => ProviderFinding::new(FindingLevel::Ok, format!("The metadata at {address} is valid ({kind}).")),
        false => ProviderFinding::new(
            FindingLevel::Warning,
            format!(
                "The provider's metadata at {address} does not list support for PKCE with S256; Waypost sends it \
                 anyway."
            ),
        ),
    });
    let userinfo_endpoint = metadata.userinfo_endpoint.or_else(|| input.userinfo_endpoint.clone());
    if kind == ProviderKind::Oauth && userinfo_endpoint.is_none() {
        return Err(ProviderFinding::error(format!(
            "The provider's metadata at {address} describes plain OAuth and contains no userinfo endpoint. Enter it."
        )));
    }
    Ok(Provider {
        kind,
        issuer: metadata.issuer,
        authorization_endpoint: metadata.authorization_endpoint.ok_or_else(|| missing("authorization endpoint"))?,
        token_endpoint: metadata.token_endpoint.ok_or_else(|| missing("token endpoint"))?,
        userinfo_endpoint,
        jwks_uri: metadata.jwks_uri.filter(|_| kind == ProviderKind::Openid),
        auth_methods: metadata.token_endpoint_auth_methods_supported,
        scopes: metadata.scopes_supported,
    })
}

/// Returns the possible URLs of an issuer's metadata: OpenID Connect appends the well-known path, RFC 8414 (sections
/// 3.1 and 5) inserts it.
fn well_known(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_end_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url.set_query(None);
        url.set_fragment(None);
        url
    };
    let mut urls = vec![
        at(format!("{path}/.well-known/openid-configuration")),
        at(format!("/.well-known/oauth-authorization-server{path}")),
    ];
    if !path.is_empty() {
        urls.push(at(format!("/.well-known/openid-configuration{path}")));
    }
    urls
}

/// Returns the first metadata document that exists, with its URL.
async fn first(route: &Route, issuer: &Url) -> Result<(String, Metadata), ProviderFinding> {
    let mut tried = Vec::new();
    for url in well_known(issuer) {
        match document(route, &url).await? {
            Ok(metadata) => return Ok((url.to_string(), metadata)),
            Err(reason) => tried.push(format!("{url} ({reason})")),
        }
    }
    Err(ProviderFinding::error(format!(
        "No metadata of the provider `{issuer}` was found at {}. If the provider has no metadata, enter its endpoints.",
        tried.join(", ")
    )))
}

/// Fetches a JSON document. The inner error is the reason why there is none at this URL; the outer error means that the
/// host does not respond.
async fn document<T: DeserializeOwned>(route: &Route, url: &Url) -> Result<Result<T, String>, ProviderFinding> {
    match route.get(url, DOCUMENT_LIMITS).await {
        Ok(response) if response.status != http::StatusCode::OK => {
            Ok(Err(format!("it returned the status {}", response.status)))
        }
        Ok(response) => Ok(serde_json::from_slice(&response.body).map_err(|_| "it is malformed".to_owned())),
        Err(error) => Err(ProviderFinding::error(format!("{url} did not respond: {error}"))),
    }
}

fn parse(what: &str, text: &str) -> Result<Url, ProviderFinding> {
    match Url::parse(text) {
        Ok(url) if url.host().is_some() && url.fragment().is_none() && url.query().is_none() => Ok(url),
        _ => Err(ProviderFinding::error(format!(
            "The {what} `{}` is not a valid URL, such as https://id.example.com.",
            sanitize(text)
        ))),
    }
}

async fn check_endpoints(route: &Route, provider: &Provider) -> Vec<ProviderFinding> {
    let check_endpoint = async |what: &str, text: Option<&String>| match text {
        Some(text) => check_endpoint(route, what, text).await,
        None => None,
    };
    let (authorization, token, userinfo, keys) = tokio::join!(
        check_endpoint("authorization endpoint", Some(&provider.authorization_endpoint)),
        check_endpoint("token endpoint", Some(&provider.token_endpoint)),
        check_endpoint("userinfo endpoint", provider.userinfo_endpoint.as_ref()),
        keys(route, provider.jwks_uri.as_ref()),
    );
    let findings: Vec<_> = [authorization, token, userinfo, keys].into_iter().flatten().collect();
    if findings.is_empty() { vec![ProviderFinding::new(FindingLevel::Ok, "All endpoints respond.")] } else { findings }
}

/// Checks that an endpoint responds. The response does not matter, because most endpoints return an error for a request
/// without parameters.
async fn check_endpoint(route: &Route, what: &str, text: &str) -> Option<ProviderFinding> {
    let url = match Url::parse(text) {
        // RFC 6749, 3.1 and 3.2: no fragment.
        Ok(url) if url.fragment().is_none() => url,
        _ => return Some(ProviderFinding::error(format!("The {what} `{}` is not a valid URL.", sanitize(text)))),
    };
    match route.get(&url, PROBE_LIMITS).await {
        Ok(_) | Err(OutboundError::TooLarge { .. }) => None,
        Err(error) => Some(ProviderFinding::error(format!("The {what} {url} did not respond: {error}"))),
    }
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<serde_json::Value>,
}

async fn keys(route: &Route, address: Option<&String>) -> Option<ProviderFinding> {
    let address = address?;
    let Ok(url) = Url::parse(address) else {
        return Some(ProviderFinding::error(format!("The URL of the keys `{}` is not valid.", sanitize(address))));
    };
    match document::<Keys>(route, &url).await {
        Ok(Ok(keys)) if keys.keys.iter().any(|key| key["kty"] != "oct") => None,
        Ok(Ok(_)) => Some(ProviderFinding::error(format!("There is no public key at {url}."))),
        Ok(Err(reason)) => Some(ProviderFinding::error(format!("There are no keys at {url}: {reason}."))),
        Err(finding) => Some(finding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_searched_at_the_urls_of_both_standards() {
        let urls = |issuer: &str| {
            let urls = well_known(&issuer.parse().unwrap());
            urls.into_iter().map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(
            urls("https://id.example/"),
            [
                "https://id.example/.well-known/openid-configuration",
                "https://id.example/.well-known/oauth-authorization-server",
            ]
        );
        assert_eq!(
            urls("https://id.example/realms/acme"),
            [
                "https://id.example/realms/acme/.well-known/openid-configuration",
                "https://id.example/.well-known/oauth-authorization-server/realms/acme",
                "https://id.example/.well-known/openid-configuration/realms/acme",
            ]
        );
    }
}
