//! Resolves the tag of an image to a digest with the API of its registry (OCI distribution specification 1.1).
//!
//! All requests go through the guard against private networks. Plain HTTP is used only for registries in networks that
//! `outbound_allow` permits, and only if they do not accept TLS connections.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use http::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;
use waypost_core::seal::SecretText;
use waypost_core::{Code, Error, Result};
use waypost_outbound::{Error as OutboundError, Failure, Limits, Route};

use super::image::{ImageReference, ImageVersion, is_digest};

/// The limits of one request. A manifest is at most 4 MiB (OCI distribution specification, "Pushing manifests").
const LIMITS: Limits = Limits { max_bytes: 4 * 1024 * 1024, timeout: Duration::from_secs(10), redirects: 3 };
/// The timeout for the complete resolution.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The media types of manifests, and of lists of manifests for several architectures. A list is preferred, so that its
/// digest works on every architecture.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";
/// The header with the digest of a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// The credentials of a registry: the value of a secret, `USERNAME:PASSWORD`.
#[derive(Debug, Clone)]
pub struct RegistryCredentials {
    /// The user name.
    pub username: String,
    /// The password or token.
    pub password: SecretText,
}

impl RegistryCredentials {
    /// Parses `USERNAME:PASSWORD`. Returns `None` for any other text.
    #[must_use]
    pub fn parse(text: &SecretText) -> Option<Self> {
        let (username, password) = text.expose().split_once(':')?;
        let is_complete = !username.is_empty() && !password.is_empty();
        is_complete.then(|| Self { username: username.to_owned(), password: SecretText::new(password) })
    }

    /// Returns the header value of HTTP Basic authentication (RFC 7617).
    fn basic(&self) -> Option<HeaderValue> {
        let encoded = BASE64.encode(format!("{}:{}", self.username, self.password.expose()).as_bytes());
        sensitive(&format!("Basic {encoded}"))
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns the digest of `image`: that of the reference, or the one to which the registry currently resolves the tag.
///
/// # Errors
/// `image_not_found` if the registry has no such image; `image_denied` if credentials are missing or rejected;
/// `invalid_arguments` if the registry cannot be used.
pub(super) async fn resolve_digest(
    route: &Route,
    image: &ImageReference,
    credentials: Option<&RegistryCredentials>,
) -> Result<String> {
    let tag = match image.version() {
        ImageVersion::Digest(digest) => return Ok(digest.clone()),
        ImageVersion::Tag(tag) => tag,
    };
    let registry = Registry { route, image, tag, credentials };
    let resolved = tokio::time::timeout(TIMEOUT, registry.resolve()).await;
    resolved.unwrap_or_else(|_| Err(registry.unusable("it did not respond in time")))
}

struct Registry<'a> {
    route: &'a Route,
    image: &'a ImageReference,
    tag: &'a str,
    credentials: Option<&'a RegistryCredentials>,
}

impl Registry<'_> {
    async fn resolve(&self) -> Result<String> {
        let (url, first) = self.connect().await?;
        let authorization = match first.status() {
            StatusCode::UNAUTHORIZED => Some(self.authorize(&url, first.headers()).await?),
            _ => None,
        };
        let response = match &authorization {
            Some(_) => self.request(Method::HEAD, &url, authorization.as_ref()).await?,
            None => first,
        };
        self.check_status(response.status())?;
        let digest = response.headers().get(CONTENT_DIGEST).and_then(|digest| digest.to_str().ok());
        if let Some(digest) = digest.filter(|digest| is_digest(digest)) {
            return Ok(digest.to_owned());
        }
        // The header is optional. The digest of a manifest is that of its bytes.
        let response = self.request(Method::GET, &url, authorization.as_ref()).await?;
        self.check_status(response.status())?;
        Ok(format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(response.body()))))
    }

    /// Requests the manifest without credentials. Returns its URL, and the response. Tries HTTP if the registry does not
    /// accept TLS connections and is in an allowed network.
    async fn connect(&self) -> Result<(Url, http::Response<Vec<u8>>)> {
        let https = self.manifest_url("https")?;
        let error = match self.try_request(Method::HEAD, &https, None).await {
            Ok(response) => return Ok((https, response)),
            Err(error) => error,
        };
        // A registry whose certificate is rejected accepts TLS connections.
        let may_accept_http = !is_certificate_rejected(&error)
            && matches!(
                error,
                OutboundError::Timeout { .. }
                    | OutboundError::Unreachable {
                        failure: Failure::Connection | Failure::Tls(_) | Failure::IncompleteResponse,
                        ..
                    }
            );
        let http = self.manifest_url("http")?;
        if may_accept_http && self.route.check_url(&http).is_ok() {
            match self.try_request(Method::HEAD, &http, None).await {
                Ok(response) => return Ok((http, response)),
                // The name resolves to a public address, to which HTTP is not allowed.
                Err(OutboundError::HttpNotAllowed { .. }) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Err(self.failed(error))
    }

    fn manifest_url(&self, scheme: &str) -> Result<Url> {
        let (host, name, tag) = (self.image.api_host(), self.image.name(), self.tag);
        let url = Url::parse(&format!("{scheme}://{host}/v2/{name}/manifests/{tag}"));
        url.map_err(|_| self.unusable("its host is not valid"))
    }

    async fn request(
        &self,
        method: Method,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<http::Response<Vec<u8>>> {
        self.try_request(method, url, authorization).await.map_err(|error| self.failed(error))
    }

    async fn try_request(
        &self,
        method: Method,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<http::Response<Vec<u8>>, OutboundError> {
        self.send(method, url, MANIFEST_TYPES, authorization).await
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        accept: &'static str,
        authorization: Option<&HeaderValue>,
    ) -> Result<http::Response<Vec<u8>>, OutboundError> {
        let mut request = http::Request::new(Vec::new());
        *request.method_mut() = method;
        let uri = url.as_str().parse().map_err(|_| OutboundError::InvalidUrl { reason: "it is not a URI" })?;
        *request.uri_mut() = uri;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(authorization) = authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        self.route.send(request, LIMITS).await
    }

    /// Returns the authorization that the challenges in the response require.
    async fn authorize(&self, url: &Url, headers: &HeaderMap) -> Result<HeaderValue> {
        let challenges = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge<'_>> = challenges.filter_map(Challenge::parse).collect();
        if let Some(challenge) = challenges.iter().find(|challenge| challenge.is("bearer")) {
            return self.request_token(url, challenge).await;
        }
        if challenges.iter().any(|challenge| challenge.is("basic")) {
            let basic = self.credentials.and_then(RegistryCredentials::basic);
            return basic.ok_or_else(|| self.denied());
        }
        Err(self.unusable("it requires a kind of authentication that is not supported"))
    }

    /// Requests a token that permits pulling the image, with the credentials if there are any
    /// (<https://distribution.github.io/distribution/spec/auth/token/>).
    async fn request_token(&self, url: &Url, challenge: &Challenge<'_>) -> Result<HeaderValue> {
        let realm = challenge.parameter("realm").and_then(|realm| Url::parse(&realm).ok());
        let mut realm = realm.ok_or_else(|| self.unusable("its challenge has no valid realm"))?;
        if url.scheme() == "https" && realm.scheme() != "https" {
            return Err(self.unusable("it sends clients to a token server without TLS"));
        }
        let service = challenge.parameter("service");
        realm
            .query_pairs_mut()
            .extend_pairs(service.map(|service| ("service", service)))
            .append_pair("scope", &format!("repository:{}:pull", self.image.name()));
        let basic = self.credentials.and_then(RegistryCredentials::basic);
        let response = self.send(Method::GET, &realm, "application/json", basic.as_ref()).await;
        let response = response.map_err(|error| self.failed(error))?;
        self.check_status(response.status())?;
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let token = ["token", "access_token"].into_iter().find_map(|name| body[name].as_str());
        let value = token.and_then(|token| sensitive(&format!("Bearer {token}")));
        value.ok_or_else(|| self.unusable("its token server did not return a token"))
    }

    fn check_status(&self, status: StatusCode) -> Result<()> {
        match status {
            StatusCode::OK => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.denied()),
            StatusCode::NOT_FOUND => Err(self.not_found()),
            StatusCode::TOO_MANY_REQUESTS => {
                Err(self.unusable("it limits the number of requests. Try again later, or set `registry_secret`"))
            }
            status => Err(self.unusable(&format!("it returned status {}", status.as_u16()))),
        }
    }

    fn not_found(&self) -> Error {
        let message = format!("The registry has no image `{}`. Check the name and the tag.", self.image);
        Error::new(Code::ImageNotFound, message)
    }

    fn denied(&self) -> Error {
        let advice = match self.credentials {
            Some(_) => "Check the name, and whether the credentials in `registry_secret` are valid for it.",
            None => {
                "Check the name. For a private image, create a secret with the value `USERNAME:PASSWORD`, and name it \
                 in `registry_secret`."
            }
        };
        Error::new(Code::ImageDenied, format!("The registry denied access to the image `{}`. {advice}", self.image))
    }

    /// Returns the error for a registry that cannot be used. `problem` is a clause about the registry.
    fn unusable(&self, problem: &str) -> Error {
        let (image, host) = (self.image, self.image.api_host());
        let message = format!("The tag of `{image}` cannot be resolved by the registry `{host}`: {problem}.");
        Error::new(Code::InvalidArguments, message)
    }

    fn failed(&self, error: OutboundError) -> Error {
        let advice = match is_certificate_rejected(&error) {
            true => " If the registry has its own certificate authority, add it to the setting `outbound_ca_file`.",
            false => "",
        };
        let message = format!("The tag of `{}` cannot be resolved. {error}{advice}", self.image);
        Error::new(Code::InvalidArguments, message).caused_by(error)
    }
}

/// Whether the TLS library rejected the certificate of a server: `invalid peer certificate: …`.
fn is_certificate_rejected(error: &OutboundError) -> bool {
    matches!(
        error,
        OutboundError::Unreachable { failure: Failure::Tls(reason), .. } if reason.contains("peer certificate")
    )
}

/// A challenge of a registry (RFC 9110, section 11.6.1). Registries send one per header.
struct Challenge<'a> {
    scheme: &'a str,
    parameters: &'a str,
}

impl<'a> Challenge<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, parameters) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        (!scheme.is_empty()).then_some(Self { scheme, parameters })
    }

    fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// Returns the value of a parameter: a token or a quoted string.
    fn parameter(&self, name: &str) -> Option<String> {
        let mut rest = self.parameters.trim_start();
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=')?;
            let (value, after) = match after.trim_start().strip_prefix('"') {
                Some(quoted) => unquote(quoted)?,
                None => {
                    let end = after.find(',').unwrap_or(after.len());
                    (after[..end].trim().to_owned(), &after[end..])
                }
            };
            if key.trim().eq_ignore_ascii_case(name) {
                return Some(value);
            }
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        None
    }
}

/// Reads a quoted string after its first quote. Returns its value and the rest of the text.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let text = r#"Bearer realm="https://auth.example/token?a=b,c",service = "a \"b\"" , scope=pull , x="" "#;
        let challenge = Challenge::parse(text).unwrap();
        assert!(challenge.is("bearer") && !challenge.is("basic"));
        for (name, value) in [
            ("realm", Some("https://auth.example/token?a=b,c")),
            ("Service", Some("a \"b\"")),
            ("scope", Some("pull")),
            ("x", Some("")),
            ("y", None),
        ] {
            assert_eq!(challenge.parameter(name).as_deref(), value, "{name}");
        }
        for text in ["Basic", "Bearer realm", "Bearer realm=\"x", "Bearer =", "Bearer \"", "Bearer ,,,"] {
            assert_eq!(Challenge::parse(text).unwrap().parameter("realm"), None, "{text}");
        }
        assert!(Challenge::parse(" ").is_none());
    }

    #[test]
    fn credentials_are_a_user_name_and_a_password() {
        let parse = |text: &str| RegistryCredentials::parse(&SecretText::new(text));
        let parsed = parse("ann:a:b").unwrap();
        assert_eq!((parsed.username.as_str(), parsed.password.expose()), ("ann", "a:b"));
        assert!(!format!("{parsed:?}").contains("a:b"));
        for text in ["", "ann", "ann:", ":x"] {
            assert!(parse(text).is_none(), "{text}");
        }
        assert_eq!(parsed.basic().unwrap(), "Basic YW5uOmE6Yg==");
    }
}
