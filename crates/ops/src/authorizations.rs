//! Authorization requests of clients, while the user signs in and consents.
//!
//! A request belongs to the browser that made it: it is not found without that browser's cookie.

use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::id::{AuthorizationRequestId, OrganizationId};
use waypost_core::issuer::IssuerId;
use waypost_core::secret::hash;
use waypost_core::{Error, Result};
use waypost_store::authorization_request::{self as store, AuthorizationRequestKey};
use waypost_store::row_limits::{self, LimitedTable, RowLimits};
use waypost_store::{expired, oauth_client};

use crate::Ops;
use crate::oauth_clients::UNUSED_LIFETIME_MS;

/// The time that a user has to sign in and consent.
pub const LIFETIME_MS: i64 = 30 * 60 * 1_000;

/// The limits of requests that are neither completed nor waiting for an emailed code.
pub const BOUNDS: RowLimits = RowLimits { per_network: 1_000, per_scope: 10_000, share: 100 };

/// Stores a request of the browser with the cookie `browser`, from `network`. If [`BOUNDS`] is reached, replaces an
/// older request.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn create(ops: &Ops, request: &AuthorizationRequest, browser: &str, network: &str) -> Result<()> {
    let mut tx = ops.store.begin().await?;
    row_limits::evict_excess(&mut tx, LimitedTable::AuthorizationRequests, request.issuer_id.as_str(), network, BOUNDS)
        .await?;
    store::insert(&mut tx, request, &hash(browser), network).await?;
    Ok(tx.commit().await?)
}

/// Returns the pending request `id` of `issuer` if the browser with the cookie `browser` made it.
///
/// # Errors
/// `not_found` if there is no such request; `unavailable` if the database cannot be reached.
pub async fn get(cx: &Ctx, ops: &Ops, issuer: &IssuerId, id: &str, browser: &str) -> Result<AuthorizationRequest> {
    let id: AuthorizationRequestId = id.parse().map_err(|_| not_found())?;
    let browser_hash = hash(browser);
    let key = AuthorizationRequestKey { issuer, id: &id, browser_hash: &browser_hash };
    store::find(&mut ops.store.read().await?, key, cx.now()).await?.ok_or_else(not_found)
}

/// Records the user's consent before the sign-in.
///
/// # Errors
/// The same as for [`get`].
pub async fn record_consent(cx: &Ctx, ops: &Ops, request: &AuthorizationRequest, browser: &str) -> Result<()> {
    let mut tx = ops.store.begin().await?;
    let browser_hash = hash(browser);
    if !store::record_consent(&mut tx, key_of(request, &browser_hash), cx.now()).await? {
        return Err(not_found());
    }
    Ok(tx.commit().await?)
}

/// Returns the key of a stored request.
pub(crate) fn key_of<'a>(request: &'a AuthorizationRequest, browser_hash: &'a str) -> AuthorizationRequestKey<'a> {
    AuthorizationRequestKey { issuer: &request.issuer_id, id: &request.id, browser_hash }
}

/// Returns the organisation of the server that received a request. End users have accounts only there.
pub(crate) fn organization_of(request: &AuthorizationRequest) -> Result<&OrganizationId> {
    request.issuer_id.organization_id().ok_or_else(not_found)
}

pub(crate) fn not_found() -> Error {
    Error::not_found("active sign-in in this browser")
}

/// The time between the expiry of a row and its deletion.
const RETENTION_MS: i64 = 60 * 60 * 1_000;
/// The time between the last use of a client and its deletion. Its last grant has expired by then.
const IDLE_CLIENT_MS: i64 = 180 * 24 * 60 * 60 * 1_000;
/// The maximum number of rows of a table that are deleted in one transaction.
const BATCH_SIZE: u32 = 500;

/// Deletes all requests, codes, tokens, sessions and clients that had expired when the call began, regardless of their
/// number: rows can be created faster than a fixed number per call could be deleted. Each transaction deletes a few
/// rows, so that other writers can proceed in between. Returns the number of deleted rows.
///
/// # Errors
/// `unavailable` if the database cannot be reached.
pub async fn delete_expired(db: &waypost_store::Db, clock: &dyn waypost_core::Clock) -> Result<u64> {
    let now = clock.now();
    // A client can be used until the expiry of a request that it made on its last day.
    let unused = now.plus(-UNUSED_LIFETIME_MS - LIFETIME_MS);
    let mut deleted = 0;
    loop {
        let mut tx = db.begin().await?;
        let rows = expired::delete(&mut tx, now.plus(-RETENTION_MS), BATCH_SIZE).await?;
        let unused = oauth_client::delete_unused(&mut tx, unused, BATCH_SIZE).await?;
        let idle = oauth_client::delete_idle(&mut tx, now.plus(-IDLE_CLIENT_MS), BATCH_SIZE).await?;
        tx.commit().await?;
        deleted += rows.rows + unused + idle;
        if !rows.has_more && unused.max(idle) < u64::from(BATCH_SIZE) {
            return Ok(deleted);
        }
    }
}
