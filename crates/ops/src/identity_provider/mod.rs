//! Logins of end users with the organisation's identity provider: the state during a login, and the provider's tokens
//! afterwards. None of it ever reaches a client.

mod client;
mod refresh;

use data_encoding::BASE64URL_NOPAD;
use waypost_core::access::{Operation, authorize};
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::id::IdentityId;
use waypost_core::oauth_config::OauthConfig;
use waypost_core::seal::{Keyring, SealLocation, SecretText};
use waypost_core::secret::hash;
use waypost_core::server::{AuthType, Server};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::identity_provider_state::{self, IdentityProviderState};
use waypost_store::identity_provider_token::{self, IdentityProviderToken};
use waypost_store::oauth_config;

use crate::identities::{Claims, EndUserIdentity};
use crate::{Ops, authorizations, browser_sessions, identities, oauth_configs};

pub use client::{OidcClient, oidc_client, send};
pub use refresh::{JOB, RefreshSummary, refresh_due_tokens};

/// The time that a user has to sign in with the provider.
pub const LIFETIME_MS: i64 = 15 * 60 * 1_000;
/// The number of random bytes in a state, a nonce and a verifier.
const RANDOM_BYTES: usize = 32;

/// A login that was started, before the user is redirected to the provider.
#[derive(Debug, Clone)]
pub struct PendingLogin {
    /// The provider.
    pub config: OauthConfig,
    /// The state parameter.
    pub state: SecretText,
    /// The nonce that the ID token must contain.
    pub nonce: String,
    /// The PKCE verifier (RFC 7636, 4.1).
    pub verifier: SecretText,
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
    /// The nonce that the ID token must contain.
    pub nonce: String,
    /// The PKCE verifier.
    pub verifier: SecretText,
}

/// The tokens of a provider.
#[derive(Debug, Clone)]
pub struct ProviderTokens {
    /// The access token for the provider's own API.
    pub access_token: SecretText,
    /// The refresh token.
    pub refresh_token: Option<SecretText>,
    /// The scopes, separated by spaces.
    pub scope: String,
    /// The expiry of the access token. `None` if the provider does not specify it.
    pub expires_at: Option<Timestamp>,
}

/// Starts the login of `request` with the provider of `server`. Requires the user's consent: no client can cause a
/// login with the provider without it.
///
/// # Errors
/// `forbidden` before consent; `not_found` if the server has no provider (any more); any error of the store.
pub async fn begin_login(
    cx: &Ctx,
    ops: &Ops,
    (server, request): (&Server, &AuthorizationRequest),
) -> Result<PendingLogin> {
    let organization = &server.organization_id;
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    if request.consented_at.is_none() || request.server_id != server.id {
        return Err(Error::new(Code::Forbidden, "The user has not given consent to this client yet."));
    }
    let mut tx = ops.store.begin().await?;
    let config = match (&server.oauth_config_id, server.auth_type) {
        (Some(id), AuthType::CustomOauth) => oauth_config::find(&mut tx, organization, id).await?,
        _ => None,
    };
    let config = config.ok_or_else(no_provider)?;
    let random = || {
        let mut bytes = [0_u8; RANDOM_BYTES];
        cx.random.fill(&mut bytes);
        BASE64URL_NOPAD.encode(&bytes)
    };
    let (state, nonce, verifier) = (random(), random(), random());
    let (state_hash, now) = (hash(&state), cx.now());
    let row = IdentityProviderState {
        verifier: ops.keyring()?.seal(&verifier_place(&state_hash), verifier.as_bytes(), &*cx.random),
        state_hash,
        organization_id: organization.clone(),
        oauth_config_id: config.id.clone(),
        request_id: request.id.clone(),
        nonce: nonce.clone(),
        created_at: now,
        expires_at: now.plus(LIFETIME_MS),
    };
    identity_provider_state::insert(&mut tx, &row).await?;
    tx.commit().await?;
    Ok(PendingLogin { config, state: SecretText::new(state), nonce, verifier: SecretText::new(verifier) })
}

/// Finishes the login with `state` in the browser with the cookie `browser`. Each state works once.
///
/// # Errors
/// `not_found` if the state is unknown, used, expired, or belongs to another browser or server; any error of the store.
pub async fn finish_login(
    cx: &Ctx,
    ops: &Ops,
    server: &Server,
    (state, browser): (&str, &str),
) -> Result<LoginCallback> {
    let organization = &server.organization_id;
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    let state_hash = hash(state);
    let mut tx = ops.store.begin().await?;
    let state_row = identity_provider_state::consume(&mut tx, organization, &state_hash, cx.now()).await?;
    // The state is consumed regardless of the result.
    tx.commit().await?;
    let state_row = state_row.ok_or_else(authorizations::not_found)?;
    let request = authorizations::get(cx, ops, server, state_row.request_id.as_str(), browser).await?;
    // The server may use another provider in the meantime.
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
        nonce: state_row.nonce,
        verifier: verifier.map_err(Error::internal)?,
    })
}

/// Signs in the user whom the provider identifies, stores the provider's tokens, and starts a browser session. Returns
/// the session token for the cookie.
///
/// # Errors
/// As [`identities::sign_in`].
pub async fn sign_in(
    cx: &Ctx,
    ops: &Ops,
    config: &OauthConfig,
    (claims, tokens): (&Claims, &ProviderTokens),
) -> Result<(EndUserIdentity, String)> {
    let organization = &config.organization_id;
    let mut tx = ops.store.begin().await?;
    let signed_in = identities::sign_in(cx, &mut tx, organization, claims, config.can_link_by_email()).await?;
    let session = browser_sessions::create(cx, &mut tx, organization, &signed_in).await?;
    let row = seal_tokens(cx, ops.keyring()?, (config, &signed_in.identity_id), tokens);
    identity_provider_token::upsert(&mut tx, &row).await?;
    tx.commit().await?;
    Ok((signed_in, session))
}

fn seal_tokens(
    cx: &Ctx,
    keyring: &Keyring,
    (config, identity): (&OauthConfig, &IdentityId),
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
