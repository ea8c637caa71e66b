//! Logins of end users with the organisation's identity provider: the state during a login, and the provider's tokens
//! afterwards. Neither is ever sent to a client.

mod refresh;

use url::Url;
use waypost_core::access::{Operation, authorize};
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::id::IdentityId;
use waypost_core::issuer::IssuerId;
use waypost_core::oauth_config::OauthConfig;
use waypost_core::seal::{Keyring, SealLocation, SecretText};
use waypost_core::secret::hash;
use waypost_core::server::{AuthType, Server};
use waypost_core::{Code, Error, Result};
use waypost_store::identity_provider_state::{self, IdentityProviderState};
use waypost_store::identity_provider_token::{self, IdentityProviderToken};
use waypost_store::oauth_config;

use crate::identities::EndUserIdentity;
use crate::login::{self, FinishedLogin, LoginOptions, LoginProvider, LoginSecrets, ProviderTokens, StartedLogin};
use crate::{Ops, authorizations, browser_sessions, identities, oauth_configs};

pub use refresh::{JOB, RefreshSummary, refresh_due_tokens};

/// The time that a user has to sign in with the provider.
pub const LIFETIME_MS: i64 = 15 * 60 * 1_000;

/// The authorization request that a login with the provider of a server belongs to.
#[derive(Debug, Clone, Copy)]
pub struct LoginRequest<'a> {
    /// The server.
    pub server: &'a Server,
    /// The authorization request.
    pub request: &'a AuthorizationRequest,
    /// The URL to which the provider redirects the browser.
    pub redirect_uri: &'a str,
}

/// A login that was started, before the user is redirected to the provider.
#[derive(Debug, Clone)]
pub struct PendingLogin {
    /// The provider.
    pub config: OauthConfig,
    /// The URL to which the browser is redirected.
    pub url: Url,
}

/// A login whose user has returned from the provider in the browser that started it.
#[derive(Debug, Clone)]
pub struct LoginCallback {
    /// The provider.
    pub config: OauthConfig,
    /// Waypost's client secret at the provider.
    pub client_secret: Option<SecretText>,
    /// The authorization request that the login belongs to.
    pub request: AuthorizationRequest,
    /// The secrets of the login.
    pub secrets: LoginSecrets,
}

/// Starts the login of an authorization request with the provider of its server. Requires the user's consent: no client
/// can cause a login with the provider without it.
///
/// # Errors
/// `forbidden` before consent; `not_found` if the server has no provider; any error of the store.
pub async fn begin_login(cx: &Ctx, ops: &Ops, login: LoginRequest<'_>) -> Result<PendingLogin> {
    let LoginRequest { server, request, redirect_uri } = login;
    let organization = &server.organization_id;
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    if request.consented_at.is_none() || request.issuer_id != IssuerId::from(server) {
        return Err(Error::new(Code::Forbidden, "The user has not given consent to this client yet."));
    }
    let mut tx = ops.store.begin().await?;
    let config = match (&server.oauth_config_id, server.auth_type) {
        (Some(id), AuthType::CustomOauth) => oauth_config::find(&mut tx, organization, id).await?,
        _ => None,
    };
    let config = config.ok_or_else(no_provider)?;
    let options = LoginOptions {
        login_hint: request.login_hint.as_deref(),
        force_login: request.prompt.as_deref().is_some_and(|prompt| prompt.split(' ').any(|word| word == "login")),
    };
    // The secret is only needed at the token endpoint.
    let provider = LoginProvider::of_config(&config, None, redirect_uri.to_owned());
    let StartedLogin { url, state, secrets } = login::begin_login(&provider, options, &*cx.random)?;
    let (state_hash, now) = (hash(state.expose()), cx.now());
    let row = IdentityProviderState {
        verifier: ops.keyring()?.seal(&verifier_place(&state_hash), secrets.verifier.expose().as_bytes(), &*cx.random),
        state_hash,
        organization_id: organization.clone(),
        oauth_config_id: config.id.clone(),
        request_id: request.id.clone(),
        nonce: secrets.nonce,
        created_at: now,
        expires_at: now.plus(LIFETIME_MS),
    };
    identity_provider_state::insert(&mut tx, &row).await?;
    tx.commit().await?;
    Ok(PendingLogin { config, url })
}

/// Finishes the login with `state` in the browser with the cookie `browser`. Each state works once.
///
/// # Errors
/// `not_found` if the state is unknown, used, expired, or belongs to another browser or server; any error of the store.
pub async fn finish_login(cx: &Ctx, ops: &Ops, server: &Server, state: &str, browser: &str) -> Result<LoginCallback> {
    let organization = &server.organization_id;
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    let state_hash = hash(state);
    let mut tx = ops.store.begin().await?;
    let state_row = identity_provider_state::consume(&mut tx, organization, &state_hash, cx.now()).await?;
    // The state is consumed regardless of the result.
    tx.commit().await?;
    let state_row = state_row.ok_or_else(authorizations::not_found)?;
    let request = authorizations::get(cx, ops, &server.into(), state_row.request_id.as_str(), browser).await?;
    // The server may have been switched to another provider in the meantime.
    if server.oauth_config_id.as_ref() != Some(&state_row.oauth_config_id) {
        return Err(no_provider());
    }
    let config = oauth_config::find(&mut ops.store.read().await?, organization, &state_row.oauth_config_id).await?;
    let config = config.ok_or_else(no_provider)?;
    let verifier = ops.keyring()?.open_text(&verifier_place(&state_hash), &state_row.verifier);
    Ok(LoginCallback {
        client_secret: oauth_configs::open_secret(ops, &config)?,
        config,
        request,
        secrets: LoginSecrets { nonce: state_row.nonce, verifier: verifier.map_err(Error::internal)? },
    })
}

/// Signs in the user whom the provider identifies, stores the provider's tokens, and starts a browser session. Returns
/// the session token for the cookie.
///
/// # Errors
/// The same as for [`identities::sign_in`].
pub async fn sign_in(
    cx: &Ctx,
    ops: &Ops,
    config: &OauthConfig,
    login: &FinishedLogin,
) -> Result<(EndUserIdentity, String)> {
    let organization = &config.organization_id;
    let mut tx = ops.store.begin().await?;
    let signed_in = identities::sign_in(cx, &mut tx, organization, &login.claims, config.can_link_by_email()).await?;
    let session = browser_sessions::create(cx, &mut tx, organization, &signed_in).await?;
    let row = seal_tokens(cx, ops.keyring()?, config, &signed_in.identity_id, &login.tokens);
    identity_provider_token::upsert(&mut tx, &row).await?;
    tx.commit().await?;
    Ok((signed_in, session))
}

fn seal_tokens(
    cx: &Ctx,
    keyring: &Keyring,
    config: &OauthConfig,
    identity: &IdentityId,
    tokens: &ProviderTokens,
) -> IdentityProviderToken {
    let seal = |column, token: &SecretText| {
        keyring.seal(&token_place(identity, column), token.expose().as_bytes(), &*cx.random)
    };
    IdentityProviderToken {
        identity_id: identity.clone(),
        organization_id: config.organization_id.clone(),
        oauth_config_id: config.id.clone(),
        access_token: seal(ACCESS, &tokens.access_token),
        refresh_token: tokens.refresh_token.as_ref().map(|token| seal(REFRESH, token)),
        scope: tokens.scope.clone(),
        expires_at: tokens.expires_at,
        updated_at: cx.now(),
    }
}

const ACCESS: &str = "access_token";
const REFRESH: &str = "refresh_token";

fn token_place<'a>(identity: &'a IdentityId, column: &'a str) -> SealLocation<'a> {
    SealLocation { table: identity_provider_token::SEAL_LABEL, column, row: identity.as_str() }
}

fn verifier_place(state_hash: &str) -> SealLocation<'_> {
    SealLocation { table: identity_provider_state::SEAL_LABEL, column: "verifier", row: state_hash }
}

fn no_provider() -> Error {
    Error::not_found("identity provider for this server")
}
