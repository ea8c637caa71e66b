//! Exchanges the provider's code for tokens and the user's identity.

use openidconnect::core::{CoreErrorResponseType, CoreRequestTokenError, CoreTokenResponse};
use openidconnect::{AuthorizationCode, OAuth2TokenResponse, PkceCodeVerifier, RedirectUrl, TokenResponse};
use waypost_core::oauth_config::{OauthConfig, ProviderKind};
use waypost_core::seal::SecretText;
use waypost_core::{Error, Timestamp};
use waypost_ops::Ops;
use waypost_ops::identities::Claims;
use waypost_ops::identity_provider::{LoginCallback, ProviderTokens, oidc_client, send};
use waypost_outbound::{Purpose, Route};

use super::failure::Failure;
use super::{IdentityProviders, claims, id_token, redirect_uri, userinfo};

/// Exchanges `code` (RFC 6749, 4.1.3) and identifies the user.
///
/// # Errors
/// If the provider is unreachable, rejects the code, or returns data that cannot be trusted.
pub(super) async fn exchange(
    (providers, ops): (&IdentityProviders, &Ops),
    callback: &LoginCallback,
    code: &str,
    now: Timestamp,
) -> Result<(Claims, ProviderTokens), Failure> {
    let config = &callback.config;
    let route = ops.route(Purpose::SignIn, &config.organization_id).await?;
    let response = request_tokens(&route, callback, code).await?;
    let tokens = tokens_from(&response, config, now);
    let claims = match config.kind {
        ProviderKind::Openid => {
            // Without an ID token, nothing binds the response to this sign-in.
            let token =
                response.id_token().ok_or_else(|| Failure::InvalidResponse("it contains no ID token".to_owned()))?;
            let primary = id_token::verify((providers, &route), config, token, &callback.nonce, now).await?;
            let incomplete = primary["email"].is_null() || primary["name"].is_null();
            let userinfo = match config.userinfo_endpoint.as_deref().filter(|_| incomplete) {
                Some(endpoint) => Some(userinfo::fetch(&route, endpoint, &tokens.access_token).await?),
                None => None,
            };
            claims::claims(config, &primary, userinfo.as_ref())?
        }
        ProviderKind::Oauth => {
            let endpoint = config.userinfo_endpoint.as_deref().unwrap_or_default();
            let primary = userinfo::fetch(&route, endpoint, &tokens.access_token).await?;
            claims::claims(config, &primary, None)?
        }
    };
    Ok((claims, tokens))
}

async fn request_tokens(route: &Route, callback: &LoginCallback, code: &str) -> Result<CoreTokenResponse, Failure> {
    let client = oidc_client(&callback.config, callback.client_secret.as_ref())?;
    let redirect = RedirectUrl::new(redirect_uri(&callback.request)).map_err(Error::internal)?;
    let client = client.set_redirect_uri(redirect);
    let http = |request| send(route.clone(), request);
    let response = client
        .exchange_code(AuthorizationCode::new(code.to_owned()))
        .set_pkce_verifier(PkceCodeVerifier::new(callback.verifier.expose().to_owned()))
        .request_async(&http)
        .await;
    response.map_err(|error| match error {
        CoreRequestTokenError::Request(error) => Failure::Unreachable(error),
        // The description is omitted: it may repeat what was sent.
        CoreRequestTokenError::ServerResponse(response) => Failure::Refused(match response.error() {
            CoreErrorResponseType::Extension(_) => "its token endpoint rejected the request".to_owned(),
            known => format!("its token endpoint returned the error {}", known.as_ref()),
        }),
        CoreRequestTokenError::Parse(..) | CoreRequestTokenError::Other(_) => {
            Failure::InvalidResponse("its token endpoint returned no tokens".to_owned())
        }
    })
}

fn tokens_from(response: &CoreTokenResponse, config: &OauthConfig, now: Timestamp) -> ProviderTokens {
    let scopes =
        response.scopes().map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "));
    let lifetime = response.expires_in().and_then(|time| i64::try_from(time.as_millis()).ok());
    ProviderTokens {
        access_token: SecretText::new(response.access_token().secret().clone()),
        refresh_token: response.refresh_token().map(|token| SecretText::new(token.secret().clone())),
        // RFC 6749, 5.1: if the response has no scope, the requested scope was granted.
        scope: scopes.unwrap_or_else(|| config.scopes.join(" ")),
        expires_at: lifetime.map(|lifetime| now.plus(lifetime)),
    }
}
