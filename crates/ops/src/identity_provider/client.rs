//! A provider's token endpoint, spoken to through the one way out.

use std::time::Duration;

use openidconnect::core::CoreClient;
use openidconnect::{
    AuthType, AuthUrl, ClientId, ClientSecret, EndpointNotSet, EndpointSet, IssuerUrl, JsonWebKeySet, TokenUrl,
};
use waypost_core::oauth_config::{OauthConfig, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_core::{Error, Result};
use waypost_outbound::{Limits, Route};

/// What a person waits for: after this long the provider counts as down.
const LIMITS: Limits = Limits { max_bytes: 256 * 1024, timeout: Duration::from_secs(10), redirects: 0 };

/// Waypost as a client of a provider.
pub type OidcClient =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet, EndpointNotSet>;

/// Waypost as a client of the provider `config`, with its opened secret. It has no keys: those change.
///
/// # Errors
/// `internal` when the saved addresses are none.
pub fn oidc_client(config: &OauthConfig, secret: Option<&SecretText>) -> Result<OidcClient> {
    // Plain OAuth has no issuer, and nothing asks for it then.
    let issuer = if config.issuer.is_empty() { &config.token_endpoint } else { &config.issuer };
    let issuer = IssuerUrl::new(issuer.clone()).map_err(Error::internal)?;
    let mut client = CoreClient::new(ClientId::new(config.client_id.clone()), issuer, JsonWebKeySet::default());
    if let Some(secret) = secret {
        client = client.set_client_secret(ClientSecret::new(secret.expose().to_owned()));
    }
    let auth_type = match config.token_auth_method {
        TokenAuthMethod::ClientSecretBasic => AuthType::BasicAuth,
        TokenAuthMethod::ClientSecretPost | TokenAuthMethod::None => AuthType::RequestBody,
    };
    Ok(client
        .set_auth_type(auth_type)
        // The scopes are the configuration's, `openid` among them where it belongs.
        .disable_openid_scope()
        .set_auth_uri(AuthUrl::new(config.authorization_endpoint.clone()).map_err(Error::internal)?)
        .set_token_uri(TokenUrl::new(config.token_endpoint.clone()).map_err(Error::internal)?))
}

/// Sends a request to a provider: 10 seconds, no redirects.
///
/// # Errors
/// When it gives no answer.
pub async fn send(
    route: Route,
    request: http::Request<Vec<u8>>,
) -> std::result::Result<http::Response<Vec<u8>>, waypost_outbound::Error> {
    route.send(request, LIMITS).await
}
