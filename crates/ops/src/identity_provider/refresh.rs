//! Refresh of the providers' tokens before they expire.

use openidconnect::RefreshToken;
use openidconnect::core::{CoreErrorResponseType, CoreRequestTokenError};
use tokio::task::JoinSet;
use waypost_core::caller::Ctx;
use waypost_core::{Error, Result};
use waypost_outbound::Purpose;
use waypost_store::identity_provider_token::{self as store, IdentityProviderToken};
use waypost_store::oauth_config;

use super::{REFRESH, seal_tokens, token_place};
use crate::login::{LoginProvider, ProviderTokens, oidc_client, send};
use crate::{Ops, oauth_configs};

/// The name of the job that calls [`refresh_due_tokens`].
pub const JOB: &str = "provider-tokens";
/// Tokens that expire within this time are refreshed.
const AHEAD_MS: i64 = 5 * 60 * 1_000;
/// The lease of a token, which is longer than the timeout of a request. It is also the pause before the next attempt.
const LEASE_MS: i64 = 60 * 1_000;
/// The maximum number of tokens per run.
const BATCH_SIZE: i64 = 10;

/// The result of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RefreshSummary {
    /// The number of refreshed tokens.
    pub refreshed: u64,
    /// The number of tokens that were not refreshed. Tokens that the provider rejected permanently are not tried again.
    pub failed: u64,
}

/// The reason why a token was not refreshed. Must not contain a token.
#[derive(Debug)]
enum Failure {
    /// The provider rejected the refresh token (RFC 6749, 5.2).
    Rejected,
    /// A temporary failure, for the log.
    Temporary(String),
}

/// Refreshes some of the tokens that expire within five minutes. Several processes may run this at the same time; each
/// token is refreshed by only one of them.
///
/// # Errors
/// `forbidden` unless the caller is the operator; any error of the store before the first request. Failures of a
/// provider are only logged.
pub async fn refresh_due_tokens(cx: &Ctx, ops: &Ops) -> Result<RefreshSummary> {
    waypost_core::access::authorize_operator(&cx.caller)?;
    let now = cx.now();
    let mut tx = ops.store.begin().await?;
    let due = store::lease_expiring(&mut tx, now, now.plus(AHEAD_MS), now.plus(LEASE_MS), BATCH_SIZE).await?;
    tx.commit().await?;
    let mut work = JoinSet::new();
    for token in due {
        let (cx, ops) = (cx.clone(), ops.clone());
        work.spawn(waypost_jobs::catch(JOB, async move { refresh_one(&cx, &ops, &token).await }));
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

/// Refreshes one token and logs a failure.
async fn refresh_one(cx: &Ctx, ops: &Ops, token: &IdentityProviderToken) -> bool {
    let identity = token.identity_id.as_str();
    let failure = match request_tokens(cx, ops, token).await {
        Ok(new) => match write(ops, token, Some(&new)).await {
            Ok(written) => return written,
            Err(error) => Failure::Temporary(error.to_string()),
        },
        Err(failure) => failure,
    };
    match failure {
        Failure::Temporary(reason) => {
            tracing::warn!(identity, reason, "failed to refresh token of identity provider");
        }
        Failure::Rejected => {
            tracing::warn!(identity, "identity provider rejected refresh token");
            if let Err(error) = write(ops, token, None).await {
                tracing::warn!(identity, %error, "failed to delete rejected refresh token");
            }
        }
    }
    false
}

/// Stores the `new` tokens, or deletes the refresh token. Returns `false` if a sign-in has stored other tokens in the
/// meantime.
async fn write(ops: &Ops, token: &IdentityProviderToken, new: Option<&IdentityProviderToken>) -> Result<bool> {
    let mut tx = ops.store.begin().await?;
    let written = match new {
        Some(new) => store::complete_refresh(&mut tx, token, new).await?,
        None => store::discard_refresh_token(&mut tx, token).await?,
    };
    tx.commit().await?;
    Ok(written)
}

async fn request_tokens(
    cx: &Ctx,
    ops: &Ops,
    token: &IdentityProviderToken,
) -> std::result::Result<IdentityProviderToken, Failure> {
    let temporary = |error: Error| Failure::Temporary(error.to_string());
    let broken = |reason: &str| Failure::Temporary(reason.to_owned());
    let config = async {
        let mut conn = ops.store.read().await?;
        Ok::<_, Error>(oauth_config::find(&mut conn, &token.organization_id, &token.oauth_config_id).await?)
    };
    let config = config.await.map_err(temporary)?.ok_or_else(|| broken("its provider was deleted"))?;
    let keyring = ops.keyring().map_err(temporary)?;
    let secret =
        oauth_configs::open_secret(ops, &config).map_err(|_| broken("the client secret cannot be decrypted"))?;
    let sealed_token = token.refresh_token.as_deref().unwrap_or_default();
    let refresh = keyring.open_text(&token_place(&token.identity_id, REFRESH), sealed_token);
    let refresh = refresh.map_err(|error| Failure::Temporary(error.to_string()))?;
    // The redirect URI is not part of a refresh request.
    let provider = LoginProvider::of_config(&config, secret, String::new());
    let client = oidc_client(&provider).map_err(temporary)?;
    let route = ops.route(Purpose::SignIn, &token.organization_id).await.map_err(temporary)?;
    let http = |request| send(route.clone(), request);
    let old = RefreshToken::new(refresh.expose().to_owned());
    let response = client.exchange_refresh_token(&old).request_async(&http).await.map_err(failure)?;
    let tokens = ProviderTokens::new(&response, || token.scope.clone(), cx.now());
    // Without a new refresh token, the old one remains valid (RFC 6749, 6).
    let tokens = ProviderTokens { refresh_token: tokens.refresh_token.or(Some(refresh)), ..tokens };
    Ok(seal_tokens(cx, keyring, &config, &token.identity_id, &tokens))
}

/// Returns the failure for an error. It contains only the kind of the error, because a provider's text may repeat parts
/// of the request.
fn failure(error: CoreRequestTokenError<waypost_outbound::Error>) -> Failure {
    match error {
        CoreRequestTokenError::ServerResponse(response) => match response.error() {
            CoreErrorResponseType::InvalidGrant => Failure::Rejected,
            CoreErrorResponseType::Extension(_) => Failure::Temporary("the provider rejected the request".to_owned()),
            known => Failure::Temporary(format!("the provider returned the error {}", known.as_ref())),
        },
        CoreRequestTokenError::Request(error) => Failure::Temporary(error.to_string()),
        CoreRequestTokenError::Parse(..) | CoreRequestTokenError::Other(_) => {
            Failure::Temporary("the provider's response cannot be parsed".to_owned())
        }
    }
}
