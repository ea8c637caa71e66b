//! Grants: codes and tokens of end users, from consent to revocation (docs/sign-in.md, invariants 2 to 5).

use std::time::Duration;

use moka::sync::Cache;
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

/// How long a positive look-up may be used again.
const TRUST: Duration = Duration::from_secs(1);
/// Grants of one end user at one server. The next one replaces the oldest; if that is less than an hour old, it is rejected.
const MAX_GRANTS: u32 = 200;
const HOUR_MS: i64 = 60 * 60 * 1_000;
/// Generations of refresh tokens that are known as used; older ones are unknown.
const MAX_GENERATIONS: i64 = 1_000;
/// Access tokens of a grant that stay when it is pruned.
const MAX_ACCESS_TOKENS: u32 = 100;
/// A grant is pruned once in so many generations.
const PRUNE_EVERY: i64 = 100;
/// Longer texts are no tokens of ours.
const MAX_TOKEN: usize = 128;

/// Access tokens that were found good within the last second.
#[derive(Debug, Clone)]
pub(crate) struct TokenCache(Cache<(ServerId, String), AccessToken>);

impl Default for TokenCache {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).time_to_live(TRUST).build())
    }
}

/// A client as it stands before the token endpoint, after it proved who it is.
#[derive(Debug, Clone, Copy)]
pub struct TokenClient<'a> {
    /// The server whose endpoint is asked.
    pub server: &'a Server,
    /// The client.
    pub client_id: &'a str,
}

/// A pair of tokens for a client.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSet {
    /// The access token.
    pub access_token: String,
    /// Seconds until it is gone.
    pub expires_in: i64,
    /// The refresh token.
    pub refresh_token: String,
    /// The access token's scopes.
    pub scope: Scopes,
}

/// What a client shows to get tokens for a code.
#[derive(Clone, Copy)]
pub struct CodeExchange<'a> {
    /// The code.
    pub code: &'a str,
    /// The redirect URI that it was sent to; OAuth 2.1 leaves it out here, because PKCE binds the code.
    pub redirect_uri: Option<&'a str>,
    /// The PKCE verifier (RFC 7636, section 4.5).
    pub verifier: &'a str,
}

fn secret_text(cx: &Ctx, prefix: &str) -> String {
    let mut bytes = [0_u8; 32];
    cx.random.fill(&mut bytes);
    format!("{prefix}{}", base32(&bytes))
}

fn invalid_grant(description: &str) -> OauthError {
    OauthError::new(OauthCode::InvalidGrant, description)
}

/// The scopes that the user allowed this client before, for this redirect URI.
///
/// # Errors
/// `unavailable` when the database is away.
pub async fn find_consent(ops: &Ops, request: &AuthorizationRequest, end_user: &EndUserId) -> Result<Option<Scopes>> {
    let token_client = (&request.organization_id, &request.server_id, request.client_id.as_str());
    find_consent_for(ops, token_client, &request.redirect_uri, end_user).await
}

/// The scopes that the user allowed the client (organisation, server, client ID) before, for a redirect URI.
///
/// # Errors
/// `unavailable` if the database is away.
pub async fn find_consent_for(
    ops: &Ops,
    (organization, server, client_id): (&OrganizationId, &ServerId, &str),
    redirect_uri: &str,
    end_user: &EndUserId,
) -> Result<Option<Scopes>> {
    let redirect = redirect_uri::for_consent(redirect_uri);
    let key = oauth_consent::ConsentKey { organization, server, end_user, client_id, redirect: &redirect };
    let found = oauth_consent::find(&mut ops.db.read().await?, key).await?;
    Ok(found.and_then(|scope| Scopes::parse(&scope).ok()))
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

/// Completes a request: writes the user's consent and a grant, and gives out its code. A request is completed once.
///
/// # Errors
/// `not_found` when the request is not open any more; `rate_limited` if the user has too many grants that are younger than an hour;
/// `unavailable` when the database is away.
pub async fn issue_code(
    cx: &Ctx,
    ops: &Ops,
    request: &AuthorizationRequest,
    browser: &str,
    end_user: &EndUserId,
) -> Result<String> {
    authorize(&cx.caller, Operation::EndUserSignIn, &request.organization_id)?;
    let now = cx.now();
    let mut tx = ops.db.begin().await?;
    let browser_hash = hash(browser);
    if !authorization_request::complete(&mut tx, key_of(request, &browser_hash), now).await? {
        return Err(not_found());
    }
    make_room(&mut tx, request, end_user, now).await?;
    let redirect = redirect_uri::for_consent(&request.redirect_uri);
    let key = consent_key(request, end_user, &redirect);
    let asked = Scopes::parse(&request.scope).unwrap_or_default();
    // What was allowed before stays allowed: asking for more later must not lose it.
    let before = oauth_consent::find(&mut tx, key).await?.and_then(|scope| Scopes::parse(&scope).ok());
    let allowed = before.map_or(asked, |before| before.union(&asked));
    oauth_consent::upsert(&mut tx, key, &allowed.to_string(), now).await?;
    oauth_client::record_use(&mut tx, &request.server_id, &request.client_id, now).await?;
    let grant = OauthGrant {
        id: OauthGrantId::new(now, &*cx.random),
        organization_id: request.organization_id.clone(),
        server_id: request.server_id.clone(),
        end_user_id: end_user.clone(),
        client_id: request.client_id.clone(),
        client_name: request.client_name.clone(),
        scope: asked.to_string(),
        resource: request.resource.clone(),
        created_at: now,
        expires_at: now.plus(GRANT_LIFETIME_MS),
    };
    let code = secret_text(cx, "wpc_");
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

/// Deletes the oldest grants of an end user at a server if there is no room for another one.
async fn make_room(tx: &mut Tx, request: &AuthorizationRequest, end_user: &EndUserId, now: Timestamp) -> Result<()> {
    let server = (&request.organization_id, &request.server_id);
    let Some(at) = store::find_nth_newest(tx, server, end_user, MAX_GRANTS).await? else { return Ok(()) };
    if now.since(at) < HOUR_MS {
        let message = "You have connected very many times within an hour. Wait an hour, then connect again.";
        return Err(Error::new(ErrorCode::RateLimited, message).with("retry_after_seconds", HOUR_MS / 1_000));
    }
    store::delete_created_until(tx, server, end_user, at).await?;
    Ok(())
}

/// Closes a request without a grant: the user said no. It is recorded if the end user is known: who has not signed in writes
/// nothing into the audit log.
///
/// # Errors
/// `not_found` if the request is not open any more; `unavailable` if the database is away.
pub async fn deny(
    cx: &Ctx,
    ops: &Ops,
    request: &AuthorizationRequest,
    browser: &str,
    end_user: Option<&EndUserId>,
) -> Result<()> {
    authorize(&cx.caller, Operation::EndUserSignIn, &request.organization_id)?;
    let mut tx = ops.db.begin().await?;
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

/// Gives tokens for a code (RFC 6749, section 4.1.3). Whatever comes of it, the code is used up; one that was used
/// before revokes its grant.
///
/// # Errors
/// `invalid_grant`; `temporarily_unavailable` when the database is away.
pub async fn exchange_code(
    cx: &Ctx,
    ops: &Ops,
    token_client: TokenClient<'_>,
    exchange: CodeExchange<'_>,
) -> Result<TokenSet, OauthError> {
    let server = token_client.server;
    let now = cx.now();
    let mut tx = ops.db.begin().await.map_err(Error::from)?;
    let key = (&server.organization_id, &server.id);
    let consumed = store::consume_code(&mut tx, key, token_client.client_id, &hash(exchange.code), now).await;
    let answer = match consumed.map_err(Error::from)? {
        CodeOutcome::Valid { grant, redirect_uri, code_challenge } => {
            if exchange.redirect_uri.is_some_and(|named| named != redirect_uri) {
                Err(invalid_grant("The code was sent to another redirect_uri."))
            } else if !verifies(exchange.verifier, &code_challenge) {
                Err(invalid_grant("The code_verifier does not belong to the code_challenge."))
            } else {
                let scopes = Scopes::parse(&grant.scope).unwrap_or_default();
                Ok(give(cx, &mut tx, &grant.id, (1, scopes)).await?)
            }
        }
        CodeOutcome::Reused(grant) => {
            revoke_grant(cx, &mut tx, server, (&grant, "code_reuse")).await?;
            Err(invalid_grant("The code was used before. Everything that came of it is revoked."))
        }
        CodeOutcome::Invalid => Err(invalid_grant("The code is unknown here, or has expired.")),
    };
    tx.commit().await.map_err(Error::from)?;
    answer
}

/// Whether `challenge` is the S256 challenge of `verifier` (RFC 7636, section 4.6).
fn verifies(verifier: &str, challenge: &str) -> bool {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (43..=128).contains(&verifier.len())
        && verifier.bytes().all(unreserved)
        && data_encoding::BASE64URL_NOPAD.encode(&Sha256::digest(verifier.as_bytes())) == challenge
}

async fn give(cx: &Ctx, tx: &mut Tx, grant: &OauthGrantId, (generation, scopes): (i64, Scopes)) -> Result<TokenSet> {
    let now = cx.now();
    let (access_token, refresh_token) = (secret_text(cx, "wpt_"), secret_text(cx, "wpr_"));
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
    (grant, reason): (&OauthGrantId, &'static str),
) -> Result<()> {
    if store::revoke(tx, &server.organization_id, grant, reason, cx.now()).await? {
        let detail = json!({ "reason": reason });
        record(cx, tx, &server.organization_id, Entry { action: "grant.revoke", target: grant.as_str(), detail })
            .await?;
    }
    Ok(())
}

/// Gives a fresh pair for a refresh token (RFC 6749, section 6; RFC 9700, section 4.14.2). `scopes` may ask for less
/// than was granted, never for more.
///
/// # Errors
/// `invalid_grant`, `invalid_scope`; `temporarily_unavailable` when the database is away.
pub async fn refresh_tokens(
    cx: &Ctx,
    ops: &Ops,
    token_client: TokenClient<'_>,
    (refresh_token, scopes): (&str, Option<Scopes>),
) -> Result<TokenSet, OauthError> {
    let server = token_client.server;
    let now = cx.now();
    let mut tx = ops.db.begin().await.map_err(Error::from)?;
    let key = (&server.organization_id, &server.id);
    let times = (now, now.plus(GRANT_LIFETIME_MS));
    let rotated = store::refresh(&mut tx, key, token_client.client_id, &hash(refresh_token), times).await;
    let answer = match rotated.map_err(Error::from)? {
        RefreshOutcome::Valid { grant, generation } => {
            let granted = Scopes::parse(&grant.scope).unwrap_or_default();
            let scopes = scopes.unwrap_or(granted);
            if !granted.covers(&scopes) {
                // Not committed: the token was good, and stays so.
                return Err(OauthError::new(OauthCode::InvalidScope, "The scope is more than was granted."));
            }
            oauth_client::record_use(&mut tx, &server.id, token_client.client_id, now).await.map_err(Error::from)?;
            if generation % PRUNE_EVERY == 0 {
                let first = generation - MAX_GENERATIONS;
                store::prune_tokens(&mut tx, &grant.id, first, MAX_ACCESS_TOKENS).await.map_err(Error::from)?;
            }
            Ok(give(cx, &mut tx, &grant.id, (generation, scopes)).await?)
        }
        RefreshOutcome::Reused(grant) => {
            revoke_grant(cx, &mut tx, server, (&grant, "refresh_reuse")).await?;
            Err(invalid_grant("The refresh token was used before. Everything that came of its grant is revoked."))
        }
        RefreshOutcome::Invalid => Err(invalid_grant("The refresh token is unknown here, has expired, or is revoked.")),
    };
    tx.commit().await.map_err(Error::from)?;
    answer
}

/// Revokes a token (RFC 7009): a refresh token with its whole grant, an access token alone. An unknown one is revoked
/// already. The audit log has one entry per hour about the access tokens of a grant.
///
/// # Errors
/// `temporarily_unavailable` when the database is away.
pub async fn revoke_token(
    cx: &Ctx,
    hosting: &Hosting,
    token_client: TokenClient<'_>,
    token: &str,
) -> Result<(), OauthError> {
    let server = token_client.server;
    let token_hash = hash(token);
    let mut tx = hosting.ops.db.begin().await.map_err(Error::from)?;
    let key = (&server.organization_id, &server.id);
    match store::find_by_token(&mut tx, key, token_client.client_id, &token_hash).await.map_err(Error::from)? {
        None => return Ok(()),
        Some((grant, true)) => revoke_grant(cx, &mut tx, server, (&grant, "client")).await?,
        Some((grant, false)) => {
            let now = cx.now();
            let was_active = store::revoke_access_token(&mut tx, &token_hash, now).await.map_err(Error::from)?;
            // A client can refresh and revoke without end.
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

/// Whom an access token names on a server; none when it is not good there.
///
/// # Errors
/// `unavailable` when the database is away.
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
    let found = store::find_access_token(&mut conn, &server.organization_id, &server.id, &key.1, now).await?;
    let Some(access) = found else { return Ok(None) };
    hosting.tokens.0.insert(key, access.clone());
    Ok(subject(access, now))
}

/// Whether the access token with this hash still names a user on a server. It is looked up in the database, because
/// its caller asks rarely, for a stream that has been open for a while.
///
/// # Errors
/// `unavailable` when the database is away.
pub async fn is_token_active(hosting: &Hosting, server: &Server, token_hash: &str) -> Result<bool> {
    let now = hosting.clock.now();
    let mut conn = hosting.read().await?;
    let found = store::find_access_token(&mut conn, &server.organization_id, &server.id, token_hash, now).await?;
    Ok(found.is_some_and(|access| access.expires_at > now))
}

fn subject(access: AccessToken, now: Timestamp) -> Option<Subject> {
    let scopes = Scopes::parse(&access.scope).ok()?;
    (access.expires_at > now).then_some(Subject { end_user_id: access.end_user_id, grant_id: access.grant_id, scopes })
}
