//! Looking at a provider before it is saved: its metadata (OpenID Connect Discovery 1.0; RFC 8414), and whether its
//! endpoints are there.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use waypost_core::name;
use waypost_core::oauth_config::{OauthConfig, ProviderKind};
use waypost_outbound::{Error as OutboundError, Limits, Route};

/// A document of metadata, or a set of keys.
const DOCUMENT: Limits = Limits { max_bytes: 256 * 1024, timeout: Duration::from_secs(10), redirects: 2 };
/// Only whether somebody answers counts.
const KNOCK: Limits = Limits { max_bytes: 1024 * 1024, timeout: Duration::from_secs(10), redirects: 0 };

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, but somebody should know.
    Warning,
    /// People could not sign in: it is not saved so.
    Error,
}

impl Level {
    /// The name on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was found out about a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// A sentence for the administrator.
    pub message: String,
}

impl Finding {
    pub(super) fn new(level: Level, message: impl Into<String>) -> Self {
        Self { level, message: message.into() }
    }

    fn error(message: impl Into<String>) -> Self {
        Self::new(Level::Error, message)
    }
}

/// What was typed in of a provider's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Typed {
    pub issuer: Option<String>,
    pub metadata_url: Option<String>,
    pub authorization_endpoint: Option<String>,
    pub token_endpoint: Option<String>,
    pub userinfo_endpoint: Option<String>,
}

/// A provider as it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Provider {
    pub kind: ProviderKind,
    pub issuer: String,
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub userinfo_endpoint: Option<String>,
    pub jwks_uri: Option<String>,
    /// How clients may show their secret; none when the provider does not say.
    pub auth_methods: Option<Vec<String>>,
    /// Scopes that it knows; none when it does not say.
    pub scopes: Option<Vec<String>>,
}

impl Provider {
    /// A saved provider, with nothing of what only its metadata says.
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

/// RFC 8414, section 2, and OpenID Connect Discovery 1.0, section 3.
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

/// Finds out what is at the addresses that were typed in. Without errors among the findings there is a provider.
pub(super) async fn examine(route: &Route, typed: &Typed) -> (Option<Provider>, Vec<Finding>) {
    let mut findings = Vec::new();
    let provider = match described(route, typed, &mut findings).await {
        Ok(provider) => provider,
        Err(finding) => {
            findings.push(finding);
            return (None, findings);
        }
    };
    findings.extend(knock_everywhere(route, &provider).await);
    (Some(provider), findings)
}

async fn described(route: &Route, typed: &Typed, findings: &mut Vec<Finding>) -> Result<Provider, Finding> {
    let (address, metadata): (String, Metadata) = match (&typed.issuer, &typed.metadata_url) {
        (Some(issuer), _) => {
            let url = parse("issuer", issuer)?;
            let (address, metadata) = first(route, &url).await?;
            if metadata.issuer != *issuer {
                return Err(lies(&address, &metadata.issuer, &format!("`{issuer}` was typed in")));
            }
            (address, metadata)
        }
        (None, Some(text)) => {
            let url = parse("metadata URL", text)?;
            let metadata: Metadata = match document(route, &url).await? {
                Ok(metadata) => metadata,
                Err(why) => return Err(Finding::error(format!("There is no metadata at {url}: {why}."))),
            };
            // OpenID Connect Discovery, 4.3, and RFC 8414, 3.3: an issuer speaks only from below its own address.
            let own = Url::parse(&metadata.issuer).map(|issuer| well_known(&issuer)).unwrap_or_default();
            if !own.contains(&url) {
                return Err(lies(url.as_str(), &metadata.issuer, "the metadata of that issuer has another address"));
            }
            (url.to_string(), metadata)
        }
        (None, None) => return typed_in(typed),
    };
    judge(&address, metadata, typed, findings)
}

/// A provider without metadata: plain OAuth.
fn typed_in(typed: &Typed) -> Result<Provider, Finding> {
    let (Some(authorization_endpoint), Some(token_endpoint), Some(userinfo_endpoint)) =
        (&typed.authorization_endpoint, &typed.token_endpoint, &typed.userinfo_endpoint)
    else {
        return Err(Finding::error(
            "Name the provider by its issuer, or by its metadata URL, or by its authorization, token and userinfo \
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

fn lies(address: &str, says: &str, but: &str) -> Finding {
    let says = shown(says);
    Finding::error(format!("The provider's metadata at {address} says its issuer is `{says}`, but {but}."))
}

/// What a provider wrote, fit for a terminal.
fn shown(text: &str) -> String {
    name::clean(text).chars().take(200).collect()
}

fn judge(address: &str, metadata: Metadata, typed: &Typed, findings: &mut Vec<Finding>) -> Result<Provider, Finding> {
    let missing = |what: &str| Finding::error(format!("The provider's metadata at {address} names no {what}."));
    let algorithms = metadata.id_token_signing_alg_values_supported;
    // OpenID Connect requires both of its providers; a plain server that answers at the same address has neither.
    let kind = match (&metadata.jwks_uri, &algorithms) {
        (Some(_), Some(_)) => ProviderKind::Openid,
        _ => ProviderKind::Oauth,
    };
    let public = |name: &String| ["RS", "PS", "ES", "Ed"].iter().any(|start| name.starts_with(start));
    if kind == ProviderKind::Openid && !algorithms.iter().flatten().any(public) {
        return Err(Finding::error(format!(
            "The provider's metadata at {address} says that it signs ID tokens with no public key (`{}`), so they \
             would prove nothing.",
            shown(&algorithms.unwrap_or_default().join(", "))
        )));
    }
    let methods = metadata.code_challenge_methods_supported;
    findings.push(match methods.is_some_and(|methods| methods.iter().any(|method| method == "S256")) {
        true => Finding::new(Level::Ok, format!("The metadata at {address} is in order ({kind}).")),
        false => Finding::new(
            Level::Warning,
            format!(
                "The provider's metadata at {address} does not say that it supports PKCE with S256; Waypost sends it \
                 anyway."
            ),
        ),
    });
    let userinfo_endpoint = metadata.userinfo_endpoint.or_else(|| typed.userinfo_endpoint.clone());
    if kind == ProviderKind::Oauth && userinfo_endpoint.is_none() {
        return Err(Finding::error(format!(
            "The provider's metadata at {address} is that of plain OAuth and names no userinfo endpoint: type it in."
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

/// Where the metadata of an issuer may be: OpenID Connect appends, RFC 8414 (section 3.1, 5) inserts.
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

/// The first document that is there.
async fn first(route: &Route, issuer: &Url) -> Result<(String, Metadata), Finding> {
    let mut tried = Vec::new();
    for url in well_known(issuer) {
        match document(route, &url).await? {
            Ok(metadata) => return Ok((url.to_string(), metadata)),
            Err(why) => tried.push(format!("{url} ({why})")),
        }
    }
    Err(Finding::error(format!(
        "The provider `{issuer}` has no metadata; looked at {}. If it has none at all, type its endpoints in.",
        tried.join(", ")
    )))
}

/// A JSON document; the inner error says why there is none at this address, the outer one that nobody answers.
async fn document<T: DeserializeOwned>(route: &Route, url: &Url) -> Result<Result<T, String>, Finding> {
    match route.get(url, DOCUMENT).await {
        Ok(answer) if answer.status != http::StatusCode::OK => Ok(Err(format!("it answers {}", answer.status))),
        Ok(answer) => Ok(serde_json::from_slice(&answer.body).map_err(|_| "it is not what it should be".to_owned())),
        Err(error) => Err(Finding::error(format!("{url} gives no answer: {error}"))),
    }
}

fn parse(what: &str, text: &str) -> Result<Url, Finding> {
    match Url::parse(text) {
        Ok(url) if url.host().is_some() && url.fragment().is_none() && url.query().is_none() => Ok(url),
        _ => Err(Finding::error(format!("The {what} `{}` is no address such as https://id.example.com.", shown(text)))),
    }
}

async fn knock_everywhere(route: &Route, provider: &Provider) -> Vec<Finding> {
    let knock = async |what: &str, text: Option<&String>| match text {
        Some(text) => knock(route, what, text).await,
        None => None,
    };
    let (authorization, token, userinfo, keys) = tokio::join!(
        knock("authorization endpoint", Some(&provider.authorization_endpoint)),
        knock("token endpoint", Some(&provider.token_endpoint)),
        knock("userinfo endpoint", provider.userinfo_endpoint.as_ref()),
        keys(route, provider.jwks_uri.as_ref()),
    );
    let findings: Vec<_> = [authorization, token, userinfo, keys].into_iter().flatten().collect();
    if findings.is_empty() { vec![Finding::new(Level::Ok, "Every endpoint answers.")] } else { findings }
}

/// Whether somebody answers; what, does not matter: without a request's parameters most answer with an error.
async fn knock(route: &Route, what: &str, text: &str) -> Option<Finding> {
    let url = match Url::parse(text) {
        // RFC 6749, 3.1 and 3.2: no fragment.
        Ok(url) if url.fragment().is_none() => url,
        _ => return Some(Finding::error(format!("The {what} `{}` is no address.", shown(text)))),
    };
    match route.get(&url, KNOCK).await {
        Ok(_) | Err(OutboundError::TooLarge { .. }) => None,
        Err(error) => Some(Finding::error(format!("The {what} {url} gives no answer: {error}"))),
    }
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<serde_json::Value>,
}

async fn keys(route: &Route, address: Option<&String>) -> Option<Finding> {
    let address = address?;
    let Ok(url) = Url::parse(address) else {
        return Some(Finding::error(format!("The address of the keys `{}` is no address.", shown(address))));
    };
    match document::<Keys>(route, &url).await {
        Ok(Ok(keys)) if keys.keys.iter().any(|key| key["kty"] != "oct") => None,
        Ok(Ok(_)) => Some(Finding::error(format!("There is no public key at {url}."))),
        Ok(Err(why)) => Some(Finding::error(format!("There are no keys at {url}: {why}."))),
        Err(finding) => Some(finding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_both_standards_put_it() {
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
