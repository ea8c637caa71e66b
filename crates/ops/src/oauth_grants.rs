//! OAuth grants: codes and tokens, from consent to revocation (docs/sign-in.md, invariants 2 to 5). Grants of people at
//! the gateway are created by [`crate::gateway_sign_in`].

use serde_json::json;
use sha2::{Digest, Sha256};
use waypost_core::access::{Operation, authorize};
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::id::{EndUserId, OauthGrantId, OrganizationId, ServerId, base32};
use waypost_core::issuer::IssuerId;
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_core::oauth_grant::{ACCESS_LIFETIME_MS, CODE_LIFETIME_MS, GRANT_LIFETIME_MS, GrantOwner, OauthGrant};
use waypost_core::scope::Scopes;
use waypost_core::secret::hash;
use waypost_core::server::Server;
use waypost_core::{Code as ErrorCode, Error, Result, Timestamp};
use waypost_store::oauth_grant::{
    self as store, AccessToken, AuthorizationCode, CodeOutcome, RefreshOutcome, TokenPair,
};
use waypost_store::{Tx, authorization_request, oauth_client, oauth_consent};

use crate::audit::{Entry, record};
use crate::authorizations::{key_of, not_found, organization_of};
use crate::gateway_url::GatewayResource;
use crate::hosting::Hosting;
use crate::identity::Subject;
use crate::{Ops, agents, redirect_uri};

/// The maximum number of grants of an end user at a server, and of an agent. A further grant replaces the oldest one,
/// unless that is less than an hour old; in that case, the new grant is rejected.
const MAX_GRANTS: u32 = 200;
const HOUR_MS: i64 = 60 * 60 * 1_000;
/// The number of generations of refresh tokens for which reuse is detected. Older tokens are unknown.
const MAX_GENERATIONS: i64 = 1_000;
/// The number of access tokens of a grant that are kept when it is pruned.
const MAX_ACCESS_TOKENS: u32 = 100;
/// The number of generations between two prunings of a grant.
const PRUNE_EVERY: i64 = 100;
/// The maximum length of a token, in bytes.
pub(crate) const MAX_TOKEN: usize = 128;

/// An authenticated client of the token endpoint.
#[derive(Debug, Clone, Copy)]
pub struct TokenClient<'a> {
    /// The issuer of the endpoint.
    pub issuer: &'a IssuerId,
    /// The client ID.
    pub client_id: &'a str,
    /// The resource of the gateway that the request names. `None` if it names none, and always at a server, whose
    /// tokens are valid for all its resources.
    pub resource: Option<&'a GatewayResource>,
}

/// A pair of tokens for a client.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSet {
    /// The access token.
    pub access_token: String,
    /// The lifetime of the access token, in seconds.
    pub expires_in: i64,
    /// The refresh token.
    pub refresh_token: String,
    /// The scopes of the access token.
    pub scope: Scopes,
}

/// A request to exchange a code for tokens.
#[derive(Clone, Copy)]
pub struct CodeExchange<'a> {
    /// The code.
    pub code: &'a str,
    /// The redirect URI that received the code. OAuth 2.1 omits it, because PKCE binds the code.
    pub redirect_uri: Option<&'a str>,
    /// The PKCE verifier (RFC 7636, section 4.5).
    pub verifier: &'a str,
}

fn new_secret(cx: &Ctx, prefix: &str) -> String {
    let mut bytes = [0_u8; 32];
    cx.random.fill(&mut bytes);
    format!("{prefix}{}", base32(&bytes))
}

fn invalid_grant(description: &str) -> OauthError {
    OauthError::new(OauthCode::InvalidGrant, description)
}

/// Returns the scopes that the user has previously granted to this client for this redirect URI. Returns `None` if
/// there are none.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn find_consent(ops: &Ops, request: &AuthorizationRequest, end_user: &EndUserId) -> Result<Option<Scopes>> {
    let IssuerId::Server { organization_id: organization, server_id: server } = &request.issuer_id else {
        return Ok(None);
    };
    find_consent_for(ops, organization, server, &request.client_id, &request.redirect_uri, end_user).await
}

/// Returns the scopes that the user has previously granted to a client of a server for a redirect URI. Returns `None`
/// if there are none.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn find_consent_for(
    ops: &Ops,
    organization: &OrganizationId,
    server: &ServerId,
    client_id: &str,
    redirect_uri: &str,
    end_user: &EndUserId,
) -> Result<Option<Scopes>> {
    let redirect = redirect_uri::for_consent(redirect_uri);
    let key = oauth_consent::ConsentKey { organization, server, end_user, client_id, redirect: &redirect };
    let consent = oauth_consent::find(&mut ops.store.read().await?, key).await?;
    Ok(consent.and_then(|scope| Scopes::parse(&scope).ok()))
}

/// Completes an authorization request of an end user: stores their consent and a grant, and returns the grant's code. A
/// request can be completed only once.
///
/// # Errors
/// `not_found` if the request is no longer pending; `rate_limited` if the user has too many grants that are younger
/// than an hour; `unavailable` if the database cannot be reached.
pub async fn issue_code(
    cx: &Ctx,
    ops: &Ops,
    request: &AuthorizationRequest,
    browser: &str,
    end_user: &EndUserId,
) -> Result<String> {
    let IssuerId::Server { organization_id, server_id } = &request.issuer_id else { return Err(not_found()) };
    authorize(&cx.caller, Operation::EndUserSignIn, organization_id)?;
    let now = cx.now();
    let mut tx = ops.store.begin().await?;
    complete(cx, &mut tx, request, browser).await?;
    let redirect = redirect_uri::for_consent(&request.redirect_uri);
    let key = oauth_consent::ConsentKey {
        organization: organization_id,
        server: server_id,
        end_user,
        client_id: &request.client_id,
        redirect: &redirect,
    };
    let requested = Scopes::parse(&request.scope).unwrap_or_default();
    // Scopes that were granted before remain granted: a request for other scopes must not remove them.
    let before = oauth_consent::find(&mut tx, key).await?.and_then(|scope| Scopes::parse(&scope).ok());
    let allowed = before.map_or(requested, |before| before.union(&requested));
    oauth_consent::upsert(&mut tx, key, &allowed.to_string(), now).await?;
    let owner = GrantOwner::EndUser { server_id: server_id.clone(), end_user_id: end_user.clone() };
    let code = create(cx, &mut tx, request, organization_id, owner).await?;
    tx.commit().await?;
    Ok(code)
}

/// Marks a request as completed.
///
/// # Errors
/// `not_found` if the request is no longer pending.
pub(crate) async fn complete(cx: &Ctx, tx: &mut Tx, request: &AuthorizationRequest, browser: &str) -> Result<()> {
    let browser_hash = hash(browser);
    if authorization_request::complete(tx, key_of(request, &browser_hash), cx.now()).await? {
        Ok(())
    } else {
        Err(not_found())
    }
}

/// Creates the grant of a completed request with its code, and returns the code.
///
/// # Errors
/// `rate_limited` if the owner has too many grants that are younger than an hour; any error of the store.
pub(crate) async fn create(
    cx: &Ctx,
    tx: &mut Tx,
    request: &AuthorizationRequest,
    organization: &OrganizationId,
    owner: GrantOwner,
) -> Result<String> {
    let now = cx.now();
    evict_oldest(tx, organization, &owner, now).await?;
    oauth_client::record_use(tx, &request.issuer_id, &request.client_id, now).await?;
    let grant = OauthGrant {
        id: OauthGrantId::new(now, &*cx.random),
        organization_id: organization.clone(),
        owner,
        client_id: request.client_id.clone(),
        client_name: request.client_name.clone(),
        scope: request.scope.clone(),
        resource: request.resource.clone(),
        created_at: now,
        expires_at: now.plus(GRANT_LIFETIME_MS),
    };
    let code = new_secret(cx, "wpc_");
    let row = AuthorizationCode {
        code_hash: hash(&code),
        redirect_uri: request.redirect_uri.clone(),
        code_challenge: request.code_challenge.clone(),
        expires_at: now.plus(CODE_LIFETIME_MS),
    };
    store::insert(tx, &grant, &row).await?;
    let mut detail = json!({
        "client_id": grant.client_id,
        "client_name_length": grant.client_name.chars().count(),
        "redirect_uri_length": request.redirect_uri.len(),
        "scope": grant.scope,
    });
    match &grant.owner {
        GrantOwner::EndUser { end_user_id, .. } => detail["end_user_id"] = end_user_id.as_str().into(),
        GrantOwner::Agent(agent) => {
            detail["agent_id"] = agent.as_str().into();
            detail["resource"] = grant.resource.as_str().into();
        }
    }
    record(cx, tx, organization, Entry { action: "grant.create", target: grant.id.as_str(), detail }).await?;
    Ok(code)
}

/// Deletes the oldest grants of an owner if the maximum is reached.
///
/// # Errors
/// `rate_limited` if these grants are younger than an hour.
async fn evict_oldest(tx: &mut Tx, organization: &OrganizationId, owner: &GrantOwner, now: Timestamp) -> Result<()> {
    let oldest_kept = store::find_nth_newest(tx, organization, owner, MAX_GRANTS).await?;
    let Some(created_at) = oldest_kept else { return Ok(()) };
    if now.since(created_at) < HOUR_MS {
        let message = "You have connected too many times within an hour. Wait an hour, then connect again.";
        return Err(Error::new(ErrorCode::RateLimited, message).with("retry_after_seconds", HOUR_MS / 1_000));
    }
    store::delete_created_until(tx, organization, owner, created_at).await?;
    Ok(())
}

/// Completes a request without a grant, because the user denied access. The denial is recorded only if the end user is
/// known: a visitor who has not signed in cannot write to the audit log.
///
/// # Errors
/// `not_found` if the request is no longer pending; `unavailable` if the database cannot be reached.
pub async fn deny(
    cx: &Ctx,
    ops: &Ops,
    request: &AuthorizationRequest,
    browser: &str,
    end_user: Option<&EndUserId>,
) -> Result<()> {
    let organization = organization_of(request)?;
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    let mut tx = ops.store.begin().await?;
    complete(cx, &mut tx, request, browser).await?;
    if let Some(end_user) = end_user {
        let detail = json!({ "client_id": request.client_id, "end_user_id": end_user.as_str() });
        let entry = Entry { action: "grant.refuse", target: request.id.as_str(), detail };
        record(cx, &mut tx, organization, entry).await?;
    }
    Ok(tx.commit().await?)
}

/// Exchanges a code for tokens (RFC 6749, section 4.1.3). The code is consumed even if the request is rejected; a
/// reused code revokes its grant.
///
/// # Errors
/// `invalid_grant` if the code or the verifier is invalid, or the user can no longer use the resource; `invalid_target`
/// if the request names a resource other than that of the grant; `temporarily_unavailable` if the database cannot be
/// reached.
pub async fn exchange_code(
    cx: &Ctx,
    ops: &Ops,
    token_client: TokenClient<'_>,
    exchange: CodeExchange<'_>,
) -> Result<TokenSet, OauthError> {
    let TokenClient { issuer, client_id, .. } = token_client;
    let mut tx = ops.store.begin().await.map_err(Error::from)?;
    let consumed = store::consume_code(&mut tx, issuer, client_id, &hash(exchange.code), cx.now()).await;
    let result = match consumed.map_err(Error::from)? {
        CodeOutcome::Valid { grant, redirect_uri, code_challenge } => {
            if exchange.redirect_uri.is_some_and(|named| named != redirect_uri) {
                Err(invalid_grant("The code was issued for another redirect_uri."))
            } else if !is_verifier_of(exchange.verifier, &code_challenge) {
                Err(invalid_grant("The code_verifier does not match the code_challenge."))
            } else {
                match check_grant(&mut tx, token_client, &grant).await {
                    Ok(()) => {
                        let scopes = scopes_of(issuer, &grant);
                        Ok(issue_tokens(cx, &mut tx, &grant.id, 1, scopes).await?)
                    }
                    // The database failed, so nothing is committed and the code remains valid.
                    Err(error) if error.cause.is_some() => return Err(error),
                    Err(error) => Err(error),
                }
            }
        }
        CodeOutcome::Reused(grant) => {
            revoke_grant(cx, &mut tx, &grant, "code_reuse").await?;
            Err(invalid_grant("The code was already used. All tokens issued for it are revoked."))
        }
        CodeOutcome::Invalid => Err(invalid_grant("The code is unknown or has expired.")),
    };
    tx.commit().await.map_err(Error::from)?;
    result
}

/// Checks that a request does not name a resource other than that of the grant, and that the person who owns a grant at
/// the gateway may still use it.
async fn check_grant(tx: &mut Tx, token_client: TokenClient<'_>, grant: &OauthGrant) -> Result<(), OauthError> {
    if let Some(named) = token_client.resource
        && GatewayResource::from_url(&grant.resource).as_ref() != Some(named)
    {
        return Err(OauthError::new(OauthCode::InvalidTarget, "The grant is for another resource."));
    }
    match &grant.owner {
        GrantOwner::EndUser { .. } => Ok(()),
        GrantOwner::Agent(agent) if agents::is_person_active(tx, &grant.organization_id, agent).await? => Ok(()),
        GrantOwner::Agent(_) => Err(invalid_grant("The user can no longer use this resource.")),
    }
}

fn scopes_of(issuer: &IssuerId, grant: &OauthGrant) -> Scopes {
    Scopes::parse_supported(&grant.scope, issuer.scopes()).unwrap_or_default()
}

/// Whether `challenge` is the S256 challenge of `verifier` (RFC 7636, section 4.6).
fn is_verifier_of(verifier: &str, challenge: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (43..=128).contains(&verifier.len())
        && verifier.bytes().all(unreserved)
        && data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(verifier.as_bytes())) == challenge
}

async fn issue_tokens(
    cx: &Ctx,
    tx: &mut Tx,
    grant: &OauthGrantId,
    generation: i64,
    scopes: Scopes,
) -> Result<TokenSet> {
    let now = cx.now();
    let (access_token, refresh_token) = (new_secret(cx, "wpt_"), new_secret(cx, "wpr_"));
    let pair = TokenPair {
        access_hash: hash(&access_token),
        scope: scopes.to_string(),
        access_expires_at: now.plus(ACCESS_LIFETIME_MS),
        refresh_hash: hash(&refresh_token),
        generation,
    };
    store::insert_token_pair(tx, grant, &pair, now).await?;
    Ok(TokenSet { access_token, expires_in: ACCESS_LIFETIME_MS / 1_000, refresh_token, scope: scopes })
}

/// Revokes a grant with all its tokens, and records this unless the grant was already revoked.
pub(crate) async fn revoke_grant(cx: &Ctx, tx: &mut Tx, grant: &OauthGrant, reason: &'static str) -> Result<()> {
    if store::revoke(tx, &grant.organization_id, &grant.id, reason, cx.now()).await? {
        let detail = json!({ "reason": reason });
        let entry = Entry { action: "grant.revoke", target: grant.id.as_str(), detail };
        record(cx, tx, &grant.organization_id, entry).await?;
    }
    Ok(())
}

/// Exchanges a refresh token for a new pair of tokens (RFC 6749, section 6; RFC 9700, section 4.14.2). `scopes` may be
/// fewer than granted, never more.
///
/// # Errors
/// `invalid_grant` if the refresh token is invalid, or the user can no longer use the resource; `invalid_scope` if
/// `scopes` exceeds the grant; `invalid_target` if the request names another resource; `temporarily_unavailable` if the
/// database cannot be reached.
pub async fn refresh_tokens(
    cx: &Ctx,
    ops: &Ops,
    token_client: TokenClient<'_>,
    refresh_token: &str,
    scopes: Option<Scopes>,
) -> Result<TokenSet, OauthError> {
    let TokenClient { issuer, client_id, .. } = token_client;
    let now = cx.now();
    let mut tx = ops.store.begin().await.map_err(Error::from)?;
    let (token_hash, expires_at) = (hash(refresh_token), now.plus(GRANT_LIFETIME_MS));
    let rotated = store::refresh(&mut tx, issuer, client_id, &token_hash, now, expires_at).await;
    let result = match rotated.map_err(Error::from)? {
        RefreshOutcome::Valid { grant, generation } => {
            // Not committed in case of an error, so the refresh token remains valid.
            check_grant(&mut tx, token_client, &grant).await?;
            let granted = scopes_of(issuer, &grant);
            let scopes = scopes.unwrap_or(granted);
            if !granted.covers(&scopes) {
                return Err(OauthError::new(OauthCode::InvalidScope, "The scope exceeds the granted scope."));
            }
            oauth_client::record_use(&mut tx, issuer, client_id, now).await.map_err(Error::from)?;
            if generation % PRUNE_EVERY == 0 {
                let first = generation - MAX_GENERATIONS;
                store::prune_tokens(&mut tx, &grant.id, first, MAX_ACCESS_TOKENS).await.map_err(Error::from)?;
            }
            Ok(issue_tokens(cx, &mut tx, &grant.id, generation, scopes).await?)
        }
        RefreshOutcome::Reused(grant) => {
            revoke_grant(cx, &mut tx, &grant, "refresh_reuse").await?;
            Err(invalid_grant("The refresh token was already used. All tokens of its grant are revoked."))
        }
        RefreshOutcome::Invalid => Err(invalid_grant("The refresh token is unknown, expired or revoked.")),
    };
    tx.commit().await.map_err(Error::from)?;
    result
}

/// Revokes a token (RFC 7009): a refresh token with its whole grant, an access token alone. Succeeds for unknown
/// tokens. Revocations of access tokens are recorded at most once per hour and grant.
///
/// # Errors
/// `temporarily_unavailable` if the database cannot be reached.
pub async fn revoke_token(
    cx: &Ctx,
    hosting: &Hosting,
    token_client: TokenClient<'_>,
    token: &str,
) -> Result<(), OauthError> {
    let TokenClient { issuer, client_id, .. } = token_client;
    let token_hash = hash(token);
    let mut tx = hosting.ops.store.begin().await.map_err(Error::from)?;
    let found = store::find_by_token(&mut tx, issuer, client_id, &token_hash).await;
    match found.map_err(Error::from)? {
        None => return Ok(()),
        Some((grant, true)) => revoke_grant(cx, &mut tx, &grant, "client").await?,
        Some((grant, false)) => {
            let now = cx.now();
            let was_active = store::revoke_access_token(&mut tx, &token_hash, now).await.map_err(Error::from)?;
            // A client can refresh and revoke without limit, so not every revocation is recorded.
            if was_active
                && store::mark_revocation_recorded(&mut tx, &grant.id, now, now.plus(-HOUR_MS))
                    .await
                    .map_err(Error::from)?
            {
                let entry = Entry { action: "token.revoke", target: grant.id.as_str(), detail: json!({}) };
                record(cx, &mut tx, &grant.organization_id, entry).await?;
            }
        }
    }
    tx.commit().await.map_err(Error::from)?;
    match issuer {
        IssuerId::Server { server_id, .. } => hosting.tokens.0.invalidate(&(server_id.clone(), token_hash)),
        IssuerId::Gateway => hosting.person_tokens.0.invalidate(&token_hash),
    }
    Ok(())
}

/// Returns the subject of an access token. Returns `None` if the token is not valid on this server.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn authenticate(hosting: &Hosting, server: &Server, token: &str) -> Result<Option<Subject>> {
    if token.len() > MAX_TOKEN {
        return Ok(None);
    }
    let now = hosting.clock.now();
    let key = (server.id.clone(), hash(token));
    if let Some(access) = hosting.tokens.0.get(&key) {
        return Ok(subject(access, now));
    }
    let mut conn = hosting.read().await?;
    let token = store::find_access_token(&mut conn, &server.organization_id, &server.id, &key.1, now).await?;
    let Some(access) = token else { return Ok(None) };
    hosting.tokens.0.insert(key, access.clone());
    Ok(subject(access, now))
}

/// Whether the access token with this hash is still valid on a server. Always queries the database, because it is
/// called rarely, for long-lived streams.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn is_token_active(hosting: &Hosting, server: &Server, token_hash: &str) -> Result<bool> {
    let now = hosting.clock.now();
    let mut conn = hosting.read().await?;
    let token = store::find_access_token(&mut conn, &server.organization_id, &server.id, token_hash, now).await?;
    Ok(token.is_some_and(|access| access.expires_at > now))
}

fn subject(access: AccessToken, now: Timestamp) -> Option<Subject> {
    let scopes = Scopes::parse(&access.scope).ok()?;
    (access.expires_at > now).then_some(Subject { end_user_id: access.end_user_id, grant_id: access.grant_id, scopes })
}
