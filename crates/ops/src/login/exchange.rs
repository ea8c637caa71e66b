//! Exchanges the provider's code for tokens and the user's identity.

use openidconnect::core::{CoreErrorResponseType, CoreRequestTokenError, CoreTokenResponse};
use openidconnect::{AuthorizationCode, PkceCodeVerifier, RedirectUrl, TokenResponse};
use waypost_core::Error;
use waypost_core::oauth_config::ProviderKind;

use super::client::{oidc_client, send};
use super::error::LoginError;
use super::{FinishedLogin, LoginVerification, ProviderTokens, claims, id_token, userinfo};

/// Exchanges `code` (RFC 6749, 4.1.3) and identifies the user.
///
/// # Errors
/// Returns an error if the provider is unreachable, rejects the code, or returns data that cannot be trusted.
pub(super) async fn exchange(login: &LoginVerification<'_>, code: &str) -> Result<FinishedLogin, LoginError> {
    let LoginVerification { provider, route, now, .. } = login;
    let response = request_tokens(login, code).await?;
    // RFC 6749, 5.1: if the response has no scope, the requested scope was granted.
    let tokens = ProviderTokens::new(&response, || provider.scopes.join(" "), *now);
    let claims = match provider.kind {
        ProviderKind::Openid => {
            // Without an ID token, nothing binds the response to this sign-in.
            let token =
                response.id_token().ok_or_else(|| LoginError::InvalidResponse("it contains no ID token".to_owned()))?;
            let primary = id_token::verify(login, token).await?;
            let is_incomplete = provider.required_claims.iter().any(|name| primary[*name].is_null());
            let userinfo = match provider.userinfo_endpoint.as_deref().filter(|_| is_incomplete) {
                Some(endpoint) => Some(userinfo::fetch(route, endpoint, &tokens.access_token).await?),
                None => None,
            };
            claims::claims(provider, &primary, userinfo.as_ref())?
        }
        ProviderKind::Oauth => {
            let endpoint = provider.userinfo_endpoint.as_deref().unwrap_or_default();
            let primary = userinfo::fetch(route, endpoint, &tokens.access_token).await?;
            claims::claims(provider, &primary, None)?
        }
    };
    Ok(FinishedLogin { claims, tokens })
}

async fn request_tokens(login: &LoginVerification<'_>, code: &str) -> Result<CoreTokenResponse, LoginError> {
    let provider = login.provider;
    let redirect = RedirectUrl::new(provider.redirect_uri.clone()).map_err(Error::internal)?;
    let client = oidc_client(provider)?.set_redirect_uri(redirect);
    let http = |request| send(login.route.clone(), request);
    let response = client
        .exchange_code(AuthorizationCode::new(code.to_owned()))
        .set_pkce_verifier(PkceCodeVerifier::new(login.secrets.verifier.expose().to_owned()))
        .request_async(&http)
        .await;
    response.map_err(|error| match error {
        CoreRequestTokenError::Request(error) => LoginError::Unreachable(error),
        // The description is omitted, because it may repeat parts of the request.
        CoreRequestTokenError::ServerResponse(response) => LoginError::Refused(match response.error() {
            CoreErrorResponseType::Extension(_) => "its token endpoint rejected the request".to_owned(),
            known => format!("its token endpoint returned the error {}", known.as_ref()),
        }),
        CoreRequestTokenError::Parse(..) | CoreRequestTokenError::Other(_) => {
            LoginError::InvalidResponse("its token endpoint returned no tokens".to_owned())
        }
    })
}
