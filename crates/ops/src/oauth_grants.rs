//! OAuth grants: codes and tokens of end users, from consent to revocation (docs/sign-in.md, invariants 2 to 5).

use serde_json::json;
use sha2::{Digest, Sha256};
use waypost_core::access::{Operation, authorize};
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::id::{EndUserId, OauthGrantId, OrganizationId, ServerId, base32};
use waypost_core::oauth_error::{OauthCode, OauthError};
use waypost_core::oauth_grant::{ACCESS_LIFETIME_MS, CODE_LIFETIME_MS, GRANT_LIFETIME_MS, OauthGrant};
use waypost_core::scope::Scopes;
use waypost_core::secret::hash;
use waypost_core::server::Server;
use waypost_core::{Code as ErrorCode, Error, Result, Timestamp};
use waypost_store::oauth_grant::{
    self as store, AccessToken, AuthorizationCode, CodeOutcome, RefreshOutcome, TokenPair,
};
use waypost_store::{Tx, authorization_request, oauth_client, oauth_consent};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::authorizations::{key_of, not_found};
use crate::hosting::Hosting;
use crate::identity::Subject;
use crate::redirect_uri;

/// The maximum number of grants of an end user at a server. A further grant replaces the oldest one. If that is less
/// than an hour old, the further grant is rejected.
const MAX_GRANTS: u32 = 200;
const HOUR_MS: i64 = 60 * 60 * 1_000;
/// The number of generations of refresh tokens for which reuse is detected. Older tokens are unknown.
const MAX_GENERATIONS: i64 = 1_000;
/// The number of access tokens of a grant that are kept when it is pruned.
const MAX_ACCESS_TOKENS: u32 = 100;
/// The number of generations between two prunings of a grant.
const PRUNE_EVERY: i64 = 100;
/// The maximum length of a token, in bytes.
const MAX_TOKEN: usize = 128;

/// An authenticated client of the token endpoint.
#[derive(Debug, Clone, Copy)]
pub struct TokenClient<'a> {
    /// The server of the endpoint.
    pub server: &'a Server,
    /// The client ID.
    pub client_id: &'a str,
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

/// Returns the scopes that the user has granted to this client before, for this redirect URI. Returns `None` if there
/// are none.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn find_consent(ops: &Ops, request: &AuthorizationRequest, end_user: &EndUserId) -> Result<Option<Scopes>> {
    let (organization, server) = (&request.organization_id, &request.server_id);
    find_consent_for(ops, organization, server, &request.client_id, &request.redirect_uri, end_user).await
}

/// Returns the scopes that the user has granted to the client of a server before, for a redirect URI. Returns `None` if
/// there are none.
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

fn consent_key<'a>(
    request: &'a AuthorizationRequest,
    end_user: &'a EndUserId,
    redirect: &'a str,
) -> oauth_consent::ConsentKey<'a> {
    oauth_consent::ConsentKey {
        organization: &request.organization_id,
        server: &request.server_id,
        end_user,
        client_id: &request.client_id,
        redirect,
    }
}

/// Completes a request: stores the user's consent and a grant, and returns its code. A request can be completed once.
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
    authorize(&cx.caller, Operation::EndUserSignIn, &request.organization_id)?;
    let now = cx.now();
    let mut tx = ops.store.begin().await?;
    let browser_hash = hash(browser);
    if !authorization_request::complete(&mut tx, key_of(request, &browser_hash), now).await? {
        return Err(not_found());
    }
    make_room(&mut tx, request, end_user, now).await?;
    let redirect = redirect_uri::for_consent(&request.redirect_uri);
    let key = consent_key(request, end_user, &redirect);
    let requested = Scopes::parse(&request.scope).unwrap_or_default();
    // Scopes that were granted before remain granted: a request for other scopes must not remove them.
    let before = oauth_consent::find(&mut tx, key).await?.and_then(|scope| Scopes::parse(&scope).ok());
    let allowed = before.map_or(requested, |before| before.union(&requested));
    oauth_consent::upsert(&mut tx, key, &allowed.to_string(), now).await?;
    oauth_client::record_use(&mut tx, &request.server_id, &request.client_id, now).await?;
    let grant = OauthGrant {
        id: OauthGrantId::new(now, &*cx.random),
        organization_id: request.organization_id.clone(),
        server_id: request.server_id.clone(),
        end_user_id: end_user.clone(),
        client_id: request.client_id.clone(),
        client_name: request.client_name.clone(),
        scope: requested.to_string(),
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
    store::insert(&mut tx, &grant, &row).await?;
    let detail = json!({
        "end_user_id": end_user.as_str(),
        "client_id": grant.client_id,
        "client_name_length": grant.client_name.chars().count(),
        "redirect_uri_length": request.redirect_uri.len(),
        "scope": grant.scope,
    });
    record(cx, &mut tx, &grant.organization_id, Entry { action: "grant.create", target: grant.id.as_str(), detail })
        .await?;
    tx.commit().await?;
    Ok(code)
}

/// Deletes the oldest grants of an end user at a server if the maximum is reached.
async fn make_room(tx: &mut Tx, request: &AuthorizationRequest, end_user: &EndUserId, now: Timestamp) -> Result<()> {
    let AuthorizationRequest { organization_id, server_id, .. } = request;
    let oldest_kept = store::find_nth_newest(tx, organization_id, server_id, end_user, MAX_GRANTS).await?;
    let Some(created_at) = oldest_kept else { return Ok(()) };
    if now.since(created_at) < HOUR_MS {
        let message = "You have connected too many times within an hour. Wait an hour, then connect again.";
        return Err(Error::new(ErrorCode::RateLimited, message).with("retry_after_seconds", HOUR_MS / 1_000));
    }
    store::delete_created_until(tx, organization_id, server_id, end_user, created_at).await?;
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
    authorize(&cx.caller, Operation::EndUserSignIn, &request.organization_id)?;
    let mut tx = ops.store.begin().await?;
    let browser_hash = hash(browser);
    if !authorization_request::complete(&mut tx, key_of(request, &browser_hash), cx.now()).await? {
        return Err(not_found());
    }
    if let Some(end_user) = end_user {
        let detail = json!({ "client_id": request.client_id, "end_user_id": end_user.as_str() });
        let entry = Entry { action: "grant.refuse", target: request.id.as_str(), detail };
        record(cx, &mut tx, &request.organization_id, entry).await?;
    }
    Ok(tx.commit().await?)
}

/// Exchanges a code for tokens (RFC 6749, section 4.1.3). The code is consumed regardless of the result; a reused code
/// revokes its grant.
///
/// # Errors
/// `invalid_grant`; `temporarily_unavailable` if the database cannot be reached.
pub async fn exchange_code(
    cx: &Ctx,
    ops: &Ops,
    token_client: TokenClient<'_>,
    exchange: CodeExchange<'_>,
) -> Result<TokenSet, OauthError> {
    let server = token_client.server;
    let now = cx.now();
    let mut tx = ops.store.begin().await.map_err(Error::from)?;
    let (organization, code) = (&server.organization_id, hash(exchange.code));
    let consumed = store::consume_code(&mut tx, organization, &server.id, token_client.client_id, &code, now).await;
    let result = match consumed.map_err(Error::from)? {
        CodeOutcome::Valid { grant, redirect_uri, code_challenge } => {
            if exchange.redirect_uri.is_some_and(|named| named != redirect_uri) {
                Err(invalid_grant("The code was issued for another redirect_uri."))
            } else if !is_verifier_of(exchange.verifier, &code_challenge) {
                Err(invalid_grant("The code_verifier does not match the code_challenge."))
            } else {
                let scopes = Scopes::parse(&grant.scope).unwrap_or_default();
                Ok(issue_tokens(cx, &mut tx, &grant.id, 1, scopes).await?)
            }
        }
        CodeOutcome::Reused(grant) => {
            revoke_grant(cx, &mut tx, server, &grant, "code_reuse").await?;
            Err(invalid_grant("The code was already used. All tokens issued for it are revoked."))
        }
        CodeOutcome::Invalid => Err(invalid_grant("The code is unknown or has expired.")),
    };
    tx.commit().await.map_err(Error::from)?;
    result
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

async fn revoke_grant(
    cx: &Ctx,
    tx: &mut Tx,
    server: &Server,
    grant: &OauthGrantId,
    reason: &'static str,
) -> Result<()> {
    if store::revoke(tx, &server.organization_id, grant, reason, cx.now()).await? {
        let detail = json!({ "reason": reason });
        record(cx, tx, &server.organization_id, Entry { action: "grant.revoke", target: grant.as_str(), detail })
            .await?;
    }
    Ok(())
}

/// Exchanges a refresh token for a new pair of tokens (RFC 6749, section 6; RFC 9700, section 4.14.2). `scopes` may be
/// fewer than granted, never more.
///
/// # Errors
/// `invalid_grant`; `invalid_scope`; `temporarily_unavailable` if the database cannot be reached.
pub async fn refresh_tokens(
    cx: &Ctx,
    ops: &Ops,
    token_client: TokenClient<'_>,
    refresh_token: &str,
    scopes: Option<Scopes>,
) -> Result<TokenSet, OauthError> {
    let server = token_client.server;
    let now = cx.now();
    let mut tx = ops.store.begin().await.map_err(Error::from)?;
    let organization = &server.organization_id;
    let (token_hash, expires_at) = (hash(refresh_token), now.plus(GRANT_LIFETIME_MS));
    let client = token_client.client_id;
    let rotated = store::refresh(&mut tx, organization, &server.id, client, &token_hash, now, expires_at).await;
    let result = match rotated.map_err(Error::from)? {
        RefreshOutcome::Valid { grant, generation } => {
            let granted = Scopes::parse(&grant.scope).unwrap_or_default();
            let scopes = scopes.unwrap_or(granted);
            if !granted.covers(&scopes) {
                // Not committed, so the refresh token remains valid.
                return Err(OauthError::new(OauthCode::InvalidScope, "The scope exceeds the granted scope."));
            }
            oauth_client::record_use(&mut tx, &server.id, token_client.client_id, now).await.map_err(Error::from)?;
            if generation % PRUNE_EVERY == 0 {
                let first = generation - MAX_GENERATIONS;
                store::prune_tokens(&mut tx, &grant.id, first, MAX_ACCESS_TOKENS).await.map_err(Error::from)?;
            }
            Ok(issue_tokens(cx, &mut tx, &grant.id, generation, scopes).await?)
        }
        RefreshOutcome::Reused(grant) => {
            revoke_grant(cx, &mut tx, server, &grant, "refresh_reuse").await?;
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
    let server = token_client.server;
    let token_hash = hash(token);
    let mut tx = hosting.ops.store.begin().await.map_err(Error::from)?;
    let found =
        store::find_by_token(&mut tx, &server.organization_id, &server.id, token_client.client_id, &token_hash).await;
    match found.map_err(Error::from)? {
        None => return Ok(()),
        Some((grant, true)) => revoke_grant(cx, &mut tx, server, &grant, "client").await?,
        Some((grant, false)) => {
            let now = cx.now();
            let was_active = store::revoke_access_token(&mut tx, &token_hash, now).await.map_err(Error::from)?;
            // A client can refresh and revoke without limit.
            if was_active
                && store::mark_revocation_recorded(&mut tx, &grant, now, now.plus(-HOUR_MS))
                    .await
                    .map_err(Error::from)?
            {
                let entry = Entry { action: "token.revoke", target: grant.as_str(), detail: json!({}) };
                record(cx, &mut tx, &server.organization_id, entry).await?;
            }
        }
    }
    tx.commit().await.map_err(Error::from)?;
    hosting.tokens.0.invalidate(&(server.id.clone(), token_hash));
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
