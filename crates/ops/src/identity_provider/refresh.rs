//! Refreshing the provider's tokens before they end.

use openidconnect::core::{CoreErrorResponseType, CoreRequestTokenError};
use openidconnect::{OAuth2TokenResponse, RefreshToken};
use tokio::task::JoinSet;
use waypost_core::caller::Ctx;
use waypost_core::seal::SecretText;
use waypost_core::{Error, Result, Timestamp};
use waypost_outbound::Purpose;
use waypost_store::identity_provider_token::{self as store, IdentityProviderToken};
use waypost_store::oauth_config;

use super::{IdentityProviderContext, ProviderTokens, REFRESH, oidc_client, sealed, send, token_place};
use crate::{Ops, oauth_configs};

/// The name of the job that calls [`refresh_due_tokens`].
pub const JOB: &str = "provider-tokens";
/// ProviderTokens that end within this time are refreshed.
const AHEAD_MS: i64 = 5 * 60 * 1_000;
/// Nobody else tries for so long: longer than a provider may take to answer, and the pause before the next try when it
/// does not.
const LEASE_MS: i64 = 60 * 1_000;
/// ProviderTokens that are refreshed at once.
const AT_ONCE: i64 = 10;

/// What became of the tokens that were due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefreshSummary {
    /// RefreshSummary.
    pub refreshed: u64,
    /// Not refreshed; those that the provider refused for good are not tried again.
    pub failed: u64,
}

/// Why a token was not refreshed. Nothing here may hold a token.
#[derive(Debug)]
enum Failure {
    /// The provider takes the refresh token no more (RFC 6749, 5.2).
    Refused,
    /// What may pass, for the log.
    Passing(String),
}

/// Refreshes some of the tokens that end within five minutes. Several processes may do this at the same time: each
/// token is refreshed by one.
///
/// # Errors
/// When the store fails before anything was asked; a provider that fails is a line in the log.
pub async fn refresh_due_tokens(
    cx: &Ctx,
    ops: &Ops,
    provider_context: &IdentityProviderContext,
) -> Result<RefreshSummary> {
    waypost_core::access::authorize_operator(&cx.caller)?;
    let now = cx.now();
    let mut tx = ops.db.begin().await?;
    let due = store::lease_expiring(&mut tx, now, (now.plus(AHEAD_MS), now.plus(LEASE_MS)), AT_ONCE).await?;
    tx.commit().await?;
    let mut work = JoinSet::new();
    for token in due {
        let (cx, ops, provider_context) = (cx.clone(), ops.clone(), provider_context.clone());
        work.spawn(waypost_jobs::catch(JOB, async move { one(&cx, &ops, &provider_context, &token).await }));
    }
    let mut outcome = RefreshSummary::default();
    while let Some(done) = work.join_next().await {
        match done {
            Ok(Some(true)) => outcome.refreshed += 1,
            Ok(_) | Err(_) => outcome.failed += 1,
        }
    }
    Ok(outcome)
}

/// Refreshes one token; says in the log what failed.
async fn one(cx: &Ctx, ops: &Ops, provider_context: &IdentityProviderContext, token: &IdentityProviderToken) -> bool {
    let identity = token.identity_id.as_str();
    let failure = match refreshed(cx, ops, provider_context, token).await {
        Ok(new) => match write(ops, token, Some(&new)).await {
            Ok(written) => return written,
            Err(error) => Failure::Passing(error.to_string()),
        },
        Err(failure) => failure,
    };
    match failure {
        Failure::Passing(why) => {
            tracing::warn!(identity, why, "a token of an identity provider could not be refreshed");
        }
        Failure::Refused => {
            tracing::warn!(identity, "an identity provider does not refresh its token any more");
            if let Err(error) = write(ops, token, None).await {
                tracing::warn!(identity, %error, "a dead token could not be forgotten");
            }
        }
    }
    false
}

/// Writes the `new` tokens, or that there will be none; false when a sign-in has brought others meanwhile.
async fn write(ops: &Ops, token: &IdentityProviderToken, new: Option<&IdentityProviderToken>) -> Result<bool> {
    let mut tx = ops.db.begin().await?;
    let written = match new {
        Some(new) => store::complete_refresh(&mut tx, token, new).await?,
        None => store::discard_refresh_token(&mut tx, token).await?,
    };
    tx.commit().await?;
    Ok(written)
}

async fn refreshed(
    cx: &Ctx,
    ops: &Ops,
    provider_context: &IdentityProviderContext,
    token: &IdentityProviderToken,
) -> std::result::Result<IdentityProviderToken, Failure> {
    let passing = |error: Error| Failure::Passing(error.to_string());
    let broken = |why: &str| Failure::Passing(why.to_owned());
    let config = async {
        let mut conn = ops.db.read().await?;
        Ok::<_, Error>(oauth_config::find(&mut conn, &token.organization_id, &token.oauth_config_id).await?)
    };
    let config = config.await.map_err(passing)?.ok_or_else(|| broken("its provider is gone"))?;
    let secret =
        oauth_configs::open_secret(provider_context, &config).map_err(|_| broken("the client secret does not open"))?;
    let sealed_token = token.refresh_token.as_deref().unwrap_or_default();
    let refresh = provider_context.keyring.open_text(&token_place(&token.identity_id, REFRESH), sealed_token);
    let refresh = refresh.map_err(|error| Failure::Passing(error.to_string()))?;
    let client = oidc_client(&config, secret.as_ref()).map_err(passing)?;
    let route = provider_context.route(ops, Purpose::SignIn, &token.organization_id).await.map_err(passing)?;
    let http = |request| send(route.clone(), request);
    let old = RefreshToken::new(refresh.expose().to_owned());
    let answer = client.exchange_refresh_token(&old).request_async(&http).await.map_err(failure)?;
    let tokens = tokens_of(&answer, cx.now(), token);
    // A provider that sends no new refresh token means the old one to stay (RFC 6749, 6).
    let tokens = ProviderTokens { refresh_token: tokens.refresh_token.or(Some(refresh)), ..tokens };
    Ok(sealed(cx, provider_context, (&config, &token.identity_id), &tokens))
}

fn tokens_of(answer: &impl OAuth2TokenResponse, now: Timestamp, old: &IdentityProviderToken) -> ProviderTokens {
    let scopes = answer.scopes().map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "));
    let lifetime = answer.expires_in().and_then(|time| i64::try_from(time.as_millis()).ok());
    ProviderTokens {
        access_token: SecretText::new(answer.access_token().secret().clone()),
        refresh_token: answer.refresh_token().map(|token| SecretText::new(token.secret().clone())),
        scope: scopes.unwrap_or_else(|| old.scope.clone()),
        expires_at: lifetime.map(|lifetime| now.plus(lifetime)),
    }
}

/// Only the kind of an error is told: what a provider writes may repeat what it was sent.
fn failure(error: CoreRequestTokenError<waypost_outbound::Error>) -> Failure {
    match error {
        CoreRequestTokenError::ServerResponse(answer) => match answer.error() {
            CoreErrorResponseType::InvalidGrant => Failure::Refused,
            CoreErrorResponseType::Extension(_) => Failure::Passing("the provider refuses".to_owned()),
            known => Failure::Passing(format!("the provider answers {}", known.as_ref())),
        },
        CoreRequestTokenError::Request(error) => Failure::Passing(error.to_string()),
        CoreRequestTokenError::Parse(..) | CoreRequestTokenError::Other(_) => {
            Failure::Passing("the provider's answer cannot be read".to_owned())
        }
    }
}
