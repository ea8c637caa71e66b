//! OpenID Connect (Core 1.0, Discovery 1.0) with PKCE (RFC 7636).

use chrono::DateTime;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreRequestTokenError,
    CoreUserInfoClaims,
};
use openidconnect::{
    AuthorizationCode, ClientId, ClientSecret, CsrfToken, DiscoveryError, IssuerUrl, Nonce, OAuth2TokenResponse,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse,
};
use waypost_core::{Error, Result, Timestamp};
use waypost_ops::Ops;
use waypost_ops::identity_provider::send;
use waypost_ops::user_accounts::{PendingUserLogin, ProviderIdentity, UserLoginCallback};

use super::Provider;

/// The tolerance for provider clocks that are behind.
const SKEW_MS: i64 = 60 * 1_000;
/// Algorithms with a public key only. With a shared secret, everyone who knows it can sign; with `none`, everyone can.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// Fetches the provider's metadata and keys. They are not cached: console users sign in rarely, and new keys must take
/// effect immediately.
async fn discover(provider: &Provider, issuer: &str, ops: &Ops) -> Result<CoreProviderMetadata> {
    let route = provider.route(ops)?;
    let http = |request| send(route.clone(), request);
    let url = IssuerUrl::new(issuer.to_owned()).map_err(Error::internal)?;
    CoreProviderMetadata::discover_async(url, &http).await.map_err(|error| match error {
        DiscoveryError::Request(error) => provider.unavailable(error),
        _ => provider.rejected("invalid provider metadata"),
    })
}

pub(super) async fn authorization_url(
    provider: &Provider,
    issuer: &str,
    ops: &Ops,
    (leaving, redirect_uri): (&PendingUserLogin, &str),
) -> Result<String> {
    let metadata = discover(provider, issuer, ops).await?;
    let client = CoreClient::from_provider_metadata(metadata, ClientId::new(provider.client_id.clone()), None)
        .set_redirect_uri(RedirectUrl::new(redirect_uri.to_owned()).map_err(Error::internal)?);
    let (state, nonce) = (leaving.state.expose().to_owned(), leaving.nonce.clone());
    let verifier = PkceCodeVerifier::new(leaving.verifier.expose().to_owned());
    let (url, ..) = client
        .authorize_url(CoreAuthenticationFlow::AuthorizationCode, || CsrfToken::new(state), || Nonce::new(nonce))
        .add_scope(Scope::new("email".to_owned()))
        .add_scope(Scope::new("profile".to_owned()))
        .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
        .url();
    Ok(url.into())
}

pub(super) async fn fetch_identity(
    provider: &Provider,
    issuer: &str,
    ops: &Ops,
    (returned, code): (&UserLoginCallback, &str),
    (redirect_uri, now): (&str, Timestamp),
) -> Result<ProviderIdentity> {
    let metadata = discover(provider, issuer, ops).await?;
    let route = provider.route(ops)?;
    let http = |request| send(route.clone(), request);
    let secret = ClientSecret::new(provider.client_secret.expose().to_owned());
    let client = CoreClient::from_provider_metadata(metadata, ClientId::new(provider.client_id.clone()), Some(secret))
        .set_redirect_uri(RedirectUrl::new(redirect_uri.to_owned()).map_err(Error::internal)?);
    let request = client
        .exchange_code(AuthorizationCode::new(code.to_owned()))
        .map_err(|_| provider.rejected("the provider has no token endpoint"))?
        .set_pkce_verifier(PkceCodeVerifier::new(returned.verifier.expose().to_owned()));
    let response = request.request_async(&http).await.map_err(|error| match error {
        CoreRequestTokenError::Request(error) => provider.unavailable(error),
        _ => provider.rejected("the token endpoint returned an error"),
    })?;
    let token = response.id_token().ok_or_else(|| provider.rejected("the token endpoint returned no ID token"))?;
    let now = now.plus(-SKEW_MS);
    let verifier = client
        .id_token_verifier()
        .set_allowed_algs(ALGORITHMS)
        .set_time_fn(move || DateTime::from_timestamp_millis(now.0).unwrap_or_default());
    let claims = token
        .claims(&verifier, &Nonce::new(returned.nonce.clone()))
        .map_err(|_| provider.rejected("the ID token failed validation"))?;
    // Core, 3.1.3.7: the authorized party, if present, must be this client.
    if claims.authorized_party().is_some_and(|party| party.as_str() != provider.client_id) {
        return Err(provider.rejected("the ID token was issued to another client"));
    }
    let mut email = claims.email().map(|email| (email.to_string(), claims.email_verified() == Some(true)));
    let mut name = claims.name().and_then(|name| name.get(None)).map(|name| name.to_string());
    if email.is_none()
        && let Ok(request) = client.user_info(response.access_token().clone(), Some(claims.subject().clone()))
    {
        // Core, 5.3.2: the subject must be the same, which the library checks.
        let info: CoreUserInfoClaims = request
            .request_async(&http)
            .await
            .map_err(|_| provider.rejected("the userinfo endpoint returned an error"))?;
        email = info.email().map(|email| (email.to_string(), info.email_verified() == Some(true)));
        name = name.or_else(|| info.name().and_then(|name| name.get(None)).map(|name| name.to_string()));
    }
    Ok(ProviderIdentity {
        issuer: issuer.to_owned(),
        subject: claims.subject().to_string(),
        email: email.filter(|(_, verified)| *verified).map(|(email, _)| email),
        name,
    })
}
