//! From the provider's code to who signed in.

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

/// Exchanges `code` (RFC 6749, 4.1.3) and finds out who signed in.
///
/// # Errors
/// When the provider is down, refuses, or says what cannot be trusted.
pub(super) async fn exchange(
    (providers, ops): (&IdentityProviders, &Ops),
    returned: &LoginCallback,
    code: &str,
    now: Timestamp,
) -> Result<(Claims, ProviderTokens), Failure> {
    let config = &returned.config;
    let route = providers.provider_context.route(ops, Purpose::SignIn, &config.organization_id).await?;
    let answer = ask(&route, returned, code).await?;
    let tokens = tokens_of(&answer, config, now);
    let claims = match config.kind {
        ProviderKind::Openid => {
            // Without a token nothing would say that the answer belongs to this sign-in.
            let token = answer.id_token().ok_or_else(|| Failure::Answer("there is no ID token in it".to_owned()))?;
            let said = id_token::verify((providers, &route), config, token, &returned.nonce, now).await?;
            let incomplete = said["email"].is_null() || said["name"].is_null();
            let userinfo = match config.userinfo_endpoint.as_deref().filter(|_| incomplete) {
                Some(endpoint) => Some(userinfo::ask(&route, endpoint, &tokens.access_token).await?),
                None => None,
            };
            claims::claims(config, &said, userinfo.as_ref())?
        }
        ProviderKind::Oauth => {
            let endpoint = config.userinfo_endpoint.as_deref().unwrap_or_default();
            let said = userinfo::ask(&route, endpoint, &tokens.access_token).await?;
            claims::claims(config, &said, None)?
        }
    };
    Ok((claims, tokens))
}

async fn ask(route: &Route, returned: &LoginCallback, code: &str) -> Result<CoreTokenResponse, Failure> {
    let client = oidc_client(&returned.config, returned.client_secret.as_ref())?;
    let redirect = RedirectUrl::new(redirect_uri(&returned.request)).map_err(Error::internal)?;
    let client = client.set_redirect_uri(redirect);
    let http = |request| send(route.clone(), request);
    let answer = client
        .exchange_code(AuthorizationCode::new(code.to_owned()))
        .set_pkce_verifier(PkceCodeVerifier::new(returned.verifier.expose().to_owned()))
        .request_async(&http)
        .await;
    answer.map_err(|error| match error {
        CoreRequestTokenError::Request(error) => Failure::Down(error),
        // What it describes further may repeat what it was sent.
        CoreRequestTokenError::ServerResponse(answer) => Failure::Refused(match answer.error() {
            CoreErrorResponseType::Extension(_) => "its token endpoint says no".to_owned(),
            known => format!("its token endpoint says {}", known.as_ref()),
        }),
        CoreRequestTokenError::Parse(..) | CoreRequestTokenError::Other(_) => {
            Failure::Answer("its token endpoint gives no tokens".to_owned())
        }
    })
}

fn tokens_of(answer: &CoreTokenResponse, config: &OauthConfig, now: Timestamp) -> ProviderTokens {
    let scopes = answer.scopes().map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "));
    let lifetime = answer.expires_in().and_then(|time| i64::try_from(time.as_millis()).ok());
    ProviderTokens {
        access_token: SecretText::new(answer.access_token().secret().clone()),
        refresh_token: answer.refresh_token().map(|token| SecretText::new(token.secret().clone())),
        // RFC 6749, 5.1: one that says nothing gave what was asked for.
        scope: scopes.unwrap_or_else(|| config.scopes.join(" ")),
        expires_at: lifetime.map(|lifetime| now.plus(lifetime)),
    }
}
