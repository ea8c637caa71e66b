//! OpenID Connect providers, configured from their metadata (OpenID Connect Discovery 1.0).

use openidconnect::core::CoreProviderMetadata;
use openidconnect::{DiscoveryError, IssuerUrl};
use waypost_core::oauth_config::{ProviderKind, TokenAuthMethod};
use waypost_core::{Error, Result};
use waypost_ops::Ops;
use waypost_ops::login::{LoginProvider, SigningKeys, send};

use super::Provider;

/// Fetches the provider's metadata and keys. They are not cached: console users sign in rarely, and new keys must take
/// effect immediately.
pub(super) async fn discover(
    provider: &Provider,
    issuer: &str,
    ops: &Ops,
    redirect_uri: &str,
) -> Result<(LoginProvider, SigningKeys<'static>)> {
    let route = provider.route(ops)?;
    let http = |request| send(route.clone(), request);
    let url = IssuerUrl::new(issuer.to_owned()).map_err(Error::internal)?;
    let metadata = CoreProviderMetadata::discover_async(url, &http).await.map_err(|error| match error {
        DiscoveryError::Request(error) => provider.unavailable(error),
        _ => provider.rejected(&"invalid provider metadata"),
    })?;
    let token_endpoint = metadata.token_endpoint().ok_or_else(|| provider.rejected(&"there is no token endpoint"))?;
    let login_provider = LoginProvider {
        kind: ProviderKind::Openid,
        issuer: issuer.to_owned(),
        identity_issuer: Some(issuer.to_owned()),
        authorization_endpoint: metadata.authorization_endpoint().to_string(),
        token_endpoint: token_endpoint.to_string(),
        userinfo_endpoint: metadata.userinfo_endpoint().map(|endpoint| endpoint.to_string()),
        jwks_uri: Some(metadata.jwks_uri().to_string()),
        client_id: provider.client_id.clone(),
        client_secret: Some(provider.client_secret.clone()),
        token_auth_method: TokenAuthMethod::ClientSecretBasic,
        scopes: ["openid", "email", "profile"].map(str::to_owned).to_vec(),
        subject_claim: "sub".to_owned(),
        required_claims: &["email"],
        redirect_uri: redirect_uri.to_owned(),
    };
    Ok((login_provider, SigningKeys::Fetched(metadata.jwks().clone())))
}
