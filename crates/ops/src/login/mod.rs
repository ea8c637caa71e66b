//! Logins of end users and console users with an identity provider: OpenID Connect (Core 1.0) or plain OAuth (RFC
//! 6749), always with PKCE (RFC 7636).
//!
//! [`begin_login`] creates the state and the URL to which the browser is redirected; [`finish_login`] turns the
//! provider's response into verified claims. In between, the caller stores the state with [`LoginSecrets`], binds it to
//! the browser, and accepts it only once.

mod claims;
mod client;
mod error;
mod exchange;
mod id_token;
mod keys;
mod userinfo;

use data_encoding::BASE64URL_NOPAD;
use openidconnect::core::{CoreAuthPrompt, CoreAuthenticationFlow, CoreJsonWebKeySet};
use openidconnect::{
    CsrfToken, LoginHint, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
};
use url::Url;
use waypost_core::oauth_config::{OauthConfig, ProviderKind, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_core::{Error, Random, Result, Timestamp};
use waypost_outbound::Route;

use crate::identities::{Claims, issuer_of};

pub(crate) use client::oidc_client;
pub use client::send;
pub use error::LoginError;
pub use keys::KeyCache;

/// The number of random bytes in a state, a nonce and a verifier.
const RANDOM_BYTES: usize = 32;

/// An identity provider, and Waypost as its client.
#[derive(Debug, Clone)]
pub struct LoginProvider {
    /// The provider's protocol.
    pub kind: ProviderKind,
    /// The issuer identifier. Empty if the provider has none.
    pub issuer: String,
    /// The issuer of the provider's identities. `None` if it cannot identify users.
    pub identity_issuer: Option<String>,
    /// The URL that browsers are redirected to.
    pub authorization_endpoint: String,
    /// The URL at which codes are exchanged for tokens.
    pub token_endpoint: String,
    /// The URL that returns further claims; with plain OAuth, the user's identity.
    pub userinfo_endpoint: Option<String>,
    /// The URL of the provider's signing keys.
    pub jwks_uri: Option<String>,
    /// Waypost's client ID at the provider.
    pub client_id: String,
    /// Waypost's client secret at the provider.
    pub client_secret: Option<SecretText>,
    /// The method by which Waypost authenticates at the token endpoint.
    pub token_auth_method: TokenAuthMethod,
    /// The requested scopes, including `openid` where it applies.
    pub scopes: Vec<String>,
    /// The claim that permanently identifies a user.
    pub subject_claim: String,
    /// The claims for which the userinfo endpoint is requested if the ID token lacks them.
    pub required_claims: &'static [&'static str],
    /// The URL to which the provider redirects the browser.
    pub redirect_uri: String,
}

impl LoginProvider {
    /// Returns an organisation's provider, with its decrypted secret.
    #[must_use]
    pub fn of_config(config: &OauthConfig, client_secret: Option<SecretText>, redirect_uri: String) -> Self {
        Self {
            kind: config.kind,
            issuer: config.issuer.clone(),
            identity_issuer: issuer_of(config),
            authorization_endpoint: config.authorization_endpoint.clone(),
            token_endpoint: config.token_endpoint.clone(),
            userinfo_endpoint: config.userinfo_endpoint.clone(),
            jwks_uri: config.jwks_uri.clone(),
            client_id: config.client_id.clone(),
            client_secret,
            token_auth_method: config.token_auth_method,
            scopes: config.scopes.clone(),
            subject_claim: config.subject_claim.clone(),
            required_claims: &["email", "name"],
            redirect_uri,
        }
    }
}

/// The parameters of the request to the provider, in addition to the scopes. They are sent only to OpenID Connect
/// providers.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoginOptions<'a> {
    /// The email address or name of the user, if known.
    pub login_hint: Option<&'a str>,
    /// Whether the user must sign in again.
    pub force_login: bool,
}

/// The secrets of a login, which are stored until the user returns.
#[derive(Debug, Clone)]
pub struct LoginSecrets {
    /// The nonce that the ID token must contain.
    pub nonce: String,
    /// The PKCE verifier (RFC 7636, 4.1).
    pub verifier: SecretText,
}

/// A login that was started.
#[derive(Debug, Clone)]
pub struct StartedLogin {
    /// The URL to which the browser is redirected.
    pub url: Url,
    /// The state parameter.
    pub state: SecretText,
    /// The secrets of the login.
    pub secrets: LoginSecrets,
}

/// The authorization response of a provider (RFC 6749, 4.1.2; RFC 9207, 2).
#[derive(Debug, Clone, Default)]
pub struct AuthorizationResponse {
    /// The code.
    pub code: Option<String>,
    /// The issuer that responded.
    pub iss: Option<String>,
    /// The error code.
    pub error: Option<String>,
}

/// The source of the keys that verify ID tokens.
#[derive(Debug, Clone)]
pub enum SigningKeys<'a> {
    /// A cache of the keys at `jwks_uri`, under an ID of the provider.
    Cached(&'a KeyCache, &'a str),
    /// Keys that were fetched for this login.
    Fetched(CoreJsonWebKeySet),
}

/// The response to a login, with the data needed to verify it.
#[derive(Debug, Clone)]
pub struct LoginVerification<'a> {
    /// The provider.
    pub provider: &'a LoginProvider,
    /// The route of requests to the provider.
    pub route: &'a Route,
    /// The keys that verify ID tokens.
    pub keys: SigningKeys<'a>,
    /// The stored secrets of the login.
    pub secrets: &'a LoginSecrets,
    /// The provider's response.
    pub response: &'a AuthorizationResponse,
    /// The current time.
    pub now: Timestamp,
}

/// The tokens of a provider.
#[derive(Debug, Clone)]
pub struct ProviderTokens {
    /// The access token for the provider's own API.
    pub access_token: SecretText,
    /// The refresh token.
    pub refresh_token: Option<SecretText>,
    /// The scopes, separated by spaces.
    pub scope: String,
    /// The expiry of the access token. `None` if the provider does not specify it.
    pub expires_at: Option<Timestamp>,
}

impl ProviderTokens {
    /// Returns the tokens of a response at `now`. `default_scope` returns the scope if the response has none.
    pub(crate) fn new(
        response: &impl OAuth2TokenResponse,
        default_scope: impl FnOnce() -> String,
        now: Timestamp,
    ) -> Self {
        let scopes =
            response.scopes().map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "));
        let lifetime = response.expires_in().and_then(|time| i64::try_from(time.as_millis()).ok());
        Self {
            access_token: SecretText::new(response.access_token().secret().clone()),
            refresh_token: response.refresh_token().map(|token| SecretText::new(token.secret().clone())),
            scope: scopes.unwrap_or_else(default_scope),
            expires_at: lifetime.map(|lifetime| now.plus(lifetime)),
        }
    }
}

/// A finished login.
#[derive(Debug, Clone)]
pub struct FinishedLogin {
    /// The verified claims about the user.
    pub claims: Claims,
    /// The provider's tokens.
    pub tokens: ProviderTokens,
}

/// Starts a login: creates its state and secrets, and the authorization request (RFC 6749, 4.1.1; OpenID Connect Core,
/// 3.1.2.1) with PKCE (S256).
///
/// # Errors
/// `internal` if the provider's URLs are not valid.
pub fn begin_login(provider: &LoginProvider, options: LoginOptions<'_>, random: &dyn Random) -> Result<StartedLogin> {
    let token = || {
        let mut bytes = [0_u8; RANDOM_BYTES];
        random.fill(&mut bytes);
        BASE64URL_NOPAD.encode(&bytes)
    };
    let (state, nonce, verifier) = (token(), token(), token());
    let client = oidc_client(provider)?
        .set_redirect_uri(RedirectUrl::new(provider.redirect_uri.clone()).map_err(Error::internal)?);
    let challenge = PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier.clone()));
    let (csrf_token, request_nonce) = (CsrfToken::new(state.clone()), Nonce::new(nonce.clone()));
    let mut request = client
        .authorize_url(CoreAuthenticationFlow::AuthorizationCode, move || csrf_token, move || request_nonce)
        .add_scopes(provider.scopes.iter().cloned().map(Scope::new))
        .set_pkce_challenge(challenge);
    // Plain OAuth has neither parameter, and a server may reject unknown ones.
    if provider.kind == ProviderKind::Openid {
        if let Some(hint) = options.login_hint {
            request = request.set_login_hint(LoginHint::new(hint.to_owned()));
        }
        if options.force_login {
            request = request.add_prompt(CoreAuthPrompt::Login);
        }
    }
    let (mut url, ..) = request.url();
    if provider.kind == ProviderKind::Oauth {
        let kept: Vec<_> = url.query_pairs().into_owned().filter(|(name, _)| name != "nonce").collect();
        url.query_pairs_mut().clear().extend_pairs(kept);
    }
    let secrets = LoginSecrets { nonce, verifier: SecretText::new(verifier) };
    Ok(StartedLogin { url, state: SecretText::new(state), secrets })
}

/// Finishes a login whose state was valid: checks the issuer of the response, exchanges the code (RFC 6749, 4.1.3), and
/// verifies the ID token (OpenID Connect Core, 3.1.3.7) or, with plain OAuth, queries the userinfo endpoint.
///
/// # Errors
/// Returns an error if the provider is unreachable, rejects the code, or returns data that cannot be trusted.
pub async fn finish_login(login: LoginVerification<'_>) -> std::result::Result<FinishedLogin, LoginError> {
    let LoginVerification { provider, response, .. } = &login;
    // This check comes first: a response from another provider must not be processed (RFC 9207, 2.4).
    if response.iss.as_ref().is_some_and(|iss| !provider.issuer.is_empty() && *iss != provider.issuer) {
        return Err(LoginError::OtherIssuer);
    }
    if let Some(error) = &response.error {
        return Err(LoginError::Refused(error::sanitize(error)));
    }
    let code = response.code.as_deref().ok_or_else(|| LoginError::InvalidResponse("it contains no code".to_owned()))?;
    exchange::exchange(&login, code).await
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use sha2::{Digest, Sha256};
    use waypost_core::random::SeededRandom;

    use super::*;

    fn provider(kind: ProviderKind) -> LoginProvider {
        LoginProvider {
            kind,
            issuer: "https://id.example".to_owned(),
            identity_issuer: None,
            authorization_endpoint: "https://id.example/authorize?tenant=1".to_owned(),
            token_endpoint: "https://id.example/token".to_owned(),
            userinfo_endpoint: None,
            jwks_uri: None,
            client_id: "waypost".to_owned(),
            client_secret: Some(SecretText::new("planted secret")),
            token_auth_method: TokenAuthMethod::ClientSecretPost,
            scopes: vec!["openid".to_owned(), "email".to_owned()],
            subject_claim: "sub".to_owned(),
            required_claims: &[],
            redirect_uri: "https://waypost.example/callback".to_owned(),
        }
    }

    #[test]
    fn the_authorization_request_is_bound_to_the_login() {
        let random = SeededRandom::new(1);
        let options = LoginOptions { login_hint: Some("anna@example.com"), force_login: true };
        let login = begin_login(&provider(ProviderKind::Openid), options, &random).unwrap();
        let parameters: HashMap<_, _> = login.url.query_pairs().into_owned().collect();
        let verifier = login.secrets.verifier.expose();
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(verifier.as_bytes()));
        for (name, value) in [
            ("tenant", "1"),
            ("client_id", "waypost"),
            ("redirect_uri", "https://waypost.example/callback"),
            ("response_type", "code"),
            ("scope", "openid email"),
            ("state", login.state.expose()),
            ("nonce", &login.secrets.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("login_hint", "anna@example.com"),
            ("prompt", "login"),
        ] {
            assert_eq!(parameters[name], value, "{name}");
        }
        assert_eq!(parameters.len(), 11, "{parameters:?}");
        assert!(!login.url.as_str().contains("planted") && !login.url.as_str().contains(verifier));
        let another = begin_login(&provider(ProviderKind::Openid), options, &random).unwrap();
        assert_ne!(another.state.expose(), login.state.expose());
        assert!(another.secrets.nonce != login.secrets.nonce && another.secrets.verifier.expose() != verifier);
    }

    #[test]
    fn plain_oauth_requests_have_no_openid_connect_parameters() {
        let options = LoginOptions { login_hint: Some("anna@example.com"), force_login: true };
        let login = begin_login(&provider(ProviderKind::Oauth), options, &SeededRandom::new(1)).unwrap();
        let parameters: HashMap<_, _> = login.url.query_pairs().into_owned().collect();
        assert!(["nonce", "login_hint", "prompt"].iter().all(|name| !parameters.contains_key(*name)), "{parameters:?}");
        assert_eq!(parameters["code_challenge_method"], "S256");
    }
}
