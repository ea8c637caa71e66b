//! An OAuth client of identity providers that uses the outbound HTTP client.

use std::time::Duration;

use openidconnect::core::CoreClient;
use openidconnect::{
    AuthType, AuthUrl, ClientId, ClientSecret, EndpointNotSet, EndpointSet, IssuerUrl, JsonWebKeySet, TokenUrl,
};
use waypost_core::oauth_config::TokenAuthMethod;
use waypost_core::{Error, Result};
use waypost_outbound::{Limits, Route};

use super::LoginProvider;

/// The limits of a request. A user is waiting, so the provider counts as unreachable after this time.
const LIMITS: Limits = Limits { max_bytes: 256 * 1024, timeout: Duration::from_secs(10), redirects: 0 };

/// Waypost as an OAuth client of a provider.
pub(crate) type OidcClient =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet, EndpointNotSet>;

/// Returns Waypost as an OAuth client of `provider`. The client has no keys, because those change.
///
/// # Errors
/// `internal` if the saved URLs are not valid.
pub(crate) fn oidc_client(provider: &LoginProvider) -> Result<OidcClient> {
    // Plain OAuth has no issuer; the value is not used then.
    let issuer = if provider.issuer.is_empty() { &provider.token_endpoint } else { &provider.issuer };
    let issuer = IssuerUrl::new(issuer.clone()).map_err(Error::internal)?;
    let mut client = CoreClient::new(ClientId::new(provider.client_id.clone()), issuer, JsonWebKeySet::default());
    if let Some(secret) = &provider.client_secret {
        client = client.set_client_secret(ClientSecret::new(secret.expose().to_owned()));
    }
    let auth_type = match provider.token_auth_method {
        TokenAuthMethod::ClientSecretBasic => AuthType::BasicAuth,
        TokenAuthMethod::ClientSecretPost | TokenAuthMethod::None => AuthType::RequestBody,
    };
    Ok(client
        .set_auth_type(auth_type)
        // `provider.scopes` contains all scopes, including `openid` where it applies.
        .disable_openid_scope()
        .set_auth_uri(AuthUrl::new(provider.authorization_endpoint.clone()).map_err(Error::internal)?)
        .set_token_uri(TokenUrl::new(provider.token_endpoint.clone()).map_err(Error::internal)?))
}

/// Sends a request to a provider, with a timeout of 10 seconds and without following redirects.
///
/// # Errors
/// Returns an error if there is no response.
pub async fn send(
    route: Route,
    request: http::Request<Vec<u8>>,
) -> std::result::Result<http::Response<Vec<u8>>, waypost_outbound::Error> {
    route.send(request, LIMITS).await
}
