//! The way of an end user through the organisation's identity provider, and what is kept of it: the state while they are
//! away, the provider's tokens afterwards. Nothing of it ever reaches a client.

mod client;
mod refresh;

use data_encoding::BASE64URL_NOPAD;
use waypost_core::access::{Operation, authorize};
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::id::{IdentityId, OrganizationId};
use waypost_core::oauth_config::OauthConfig;
use waypost_core::seal::{Keyring, SealLocation, SecretText};
use waypost_core::secret::hash;
use waypost_core::server::{AuthType, Server};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_outbound::{Outbound, Purpose, Route};
use waypost_store::identity_provider_state::{self, IdentityProviderState};
use waypost_store::identity_provider_token::{self, IdentityProviderToken};
use waypost_store::{oauth_config, organization};

use crate::identities::{Claims, EndUserIdentity};
use crate::{Ops, authorizations, browser_sessions, identities, oauth_configs};

pub use client::{OidcClient, oidc_client, send};
pub use refresh::{JOB, RefreshSummary, refresh_due_tokens};

/// A user has this long to sign in at the provider.
pub const LIFETIME_MS: i64 = 15 * 60 * 1_000;
/// Random bytes in a state, a nonce, a verifier.
const RANDOM_BYTES: usize = 32;

/// What acts on providers need beside the database.
#[derive(Debug, Clone)]
pub struct IdentityProviderContext {
    /// The way out.
    pub outbound: Outbound,
    /// The keys that open what is sealed.
    pub keyring: Keyring,
}

impl IdentityProviderContext {
    /// The route of requests for `purpose` to addresses that users of `organization` named.
    ///
    /// # Errors
    /// As [`outbound_route`].
    pub async fn route(&self, ops: &Ops, purpose: Purpose, organization: &OrganizationId) -> Result<Route> {
        outbound_route(&self.outbound, ops, purpose, organization).await
    }
}

/// The route of requests for `purpose` to addresses that users of `organization` named. Reads the organisation's slug
/// if an entry of `outbound_allow` for this purpose names an organisation.
///
/// # Errors
/// If the store fails, or the HTTP client cannot be created.
pub async fn outbound_route(
    outbound: &Outbound,
    ops: &Ops,
    purpose: Purpose,
    organization: &OrganizationId,
) -> Result<Route> {
    let slug = match outbound.is_limited_to_organizations(purpose) {
        true => organization::find(&mut ops.db.read().await?, organization).await?.map(|found| found.slug),
        false => None,
    };
    let names: Vec<&str> = std::iter::once(organization.as_str()).chain(slug.as_deref()).collect();
    outbound.route(purpose, &names).map_err(Error::internal)
}

/// A user who is about to leave for the provider.
#[derive(Debug, Clone)]
pub struct PendingLogin {
    /// The provider.
    pub config: OauthConfig,
    /// The value that brings them back.
    pub state: SecretText,
    /// What the ID token has to repeat.
    pub nonce: String,
    /// PKCE's verifier (RFC 7636, 4.1).
    pub verifier: SecretText,
}

/// A user who came back from the provider, in the browser in which they left.
#[derive(Debug, Clone)]
pub struct LoginCallback {
    /// The provider.
    pub config: OauthConfig,
    /// Waypost's secret there.
    pub client_secret: Option<SecretText>,
    /// What they left for.
    pub request: AuthorizationRequest,
    /// What the ID token has to repeat.
    pub nonce: String,
    /// PKCE's verifier.
    pub verifier: SecretText,
}

/// What a token endpoint gave.
#[derive(Debug, Clone)]
pub struct ProviderTokens {
    /// For the provider's own services.
    pub access_token: SecretText,
    /// For new ones.
    pub refresh_token: Option<SecretText>,
    /// What they allow, separated by spaces.
    pub scope: String,
    /// When the access token ends; none when the provider does not say.
    pub expires_at: Option<Timestamp>,
}

/// Notes that the user of `request` leaves for the provider of `server`. Only after they allowed the client what it asks
/// for: no client is let near the provider without it.
///
/// # Errors
/// `forbidden` before consent; `not_found` when the server has no provider (any more); when the store fails.
pub async fn begin_login(
    cx: &Ctx,
    ops: &Ops,
    provider_context: &IdentityProviderContext,
    (server, request): (&Server, &AuthorizationRequest),
) -> Result<PendingLogin> {
    let organization = &server.organization_id;
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    if request.consented_at.is_none() || request.server_id != server.id {
        return Err(Error::new(Code::Forbidden, "Nobody has allowed this client anything yet."));
    }
    let mut tx = ops.db.begin().await?;
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
        verifier: provider_context.keyring.seal(&verifier_place(&state_hash), verifier.as_bytes(), &*cx.random),
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

/// Takes back the user who comes with `state`, once, in the browser with the cookie `browser`.
///
/// # Errors
/// `not_found` when the state is unknown, used, expired, or of another browser or server; when the store fails.
pub async fn finish_login(
    cx: &Ctx,
    ops: &Ops,
    provider_context: &IdentityProviderContext,
    server: &Server,
    (state, browser): (&str, &str),
) -> Result<LoginCallback> {
    let organization = &server.organization_id;
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    let state_hash = hash(state);
    let mut tx = ops.db.begin().await?;
    let away = identity_provider_state::consume(&mut tx, organization, &state_hash, cx.now()).await?;
    // Used up whatever comes now.
    tx.commit().await?;
    let away = away.ok_or_else(authorizations::not_found)?;
    let request = authorizations::find(cx, ops, server, away.request_id.as_str(), browser).await?;
    // The server may have another provider by now.
    if server.oauth_config_id.as_ref() != Some(&away.oauth_config_id) {
        return Err(no_provider());
    }
    let config = oauth_config::find(&mut ops.db.read().await?, organization, &away.oauth_config_id).await?;
    let config = config.ok_or_else(no_provider)?;
    let verifier = provider_context.keyring.open_text(&verifier_place(&state_hash), &away.verifier);
    Ok(LoginCallback {
        client_secret: oauth_configs::open_secret(provider_context, &config)?,
        config,
        request,
        nonce: away.nonce,
        verifier: verifier.map_err(Error::internal)?,
    })
}

/// Signs in the user whom the provider vouches for, keeps its tokens, and begins a browser session; gives the session
/// cookie's value.
///
/// # Errors
/// As [`identities::sign_in`].
pub async fn sign_in(
    cx: &Ctx,
    ops: &Ops,
    provider_context: &IdentityProviderContext,
    config: &OauthConfig,
    (claims, tokens): (&Claims, &ProviderTokens),
) -> Result<(EndUserIdentity, String)> {
    let organization = &config.organization_id;
    let mut tx = ops.db.begin().await?;
    let signed_in = identities::sign_in(cx, &mut tx, organization, claims, config.can_link_by_email()).await?;
    let session = browser_sessions::create(cx, &mut tx, organization, &signed_in).await?;
    let row = sealed(cx, provider_context, (config, &signed_in.identity_id), tokens);
    identity_provider_token::upsert(&mut tx, &row).await?;
    tx.commit().await?;
    Ok((signed_in, session))
}

fn sealed(
    cx: &Ctx,
    provider_context: &IdentityProviderContext,
    (config, identity): (&OauthConfig, &IdentityId),
    tokens: &ProviderTokens,
) -> IdentityProviderToken {
    let seal = |column, token: &SecretText| {
        provider_context.keyring.seal(&token_place(identity, column), token.expose().as_bytes(), &*cx.random)
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
