//! Authorization requests: what a client asked for, while its user signs in and consents.
//!
//! A request belongs to the browser that made it: whoever does not show that browser's cookie does not find it.

use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::id::AuthorizationRequestId;
use waypost_core::secret::hash;
use waypost_core::server::Server;
use waypost_core::{Error, Result};
use waypost_store::authorization_request::{self as store, Key};
use waypost_store::{expired, oauth_client};

use crate::Ops;

/// A user has this long to sign in and consent.
pub const LIFETIME_MS: i64 = 30 * 60 * 1_000;

/// Keeps a request of the browser with the cookie `browser`.
///
/// # Errors
/// `unavailable` when the database is away.
pub async fn create(ops: &Ops, request: &AuthorizationRequest, browser: &str) -> Result<()> {
    let mut tx = ops.db.begin().await?;
    store::insert(&mut tx, request, &hash(browser)).await?;
    Ok(tx.commit().await?)
}

/// The request `id` at `server`, when the browser with the cookie `browser` made it and it is still open.
///
/// # Errors
/// `not_found` when it is not, for whatever reason; `unavailable` when the database is away.
pub async fn find(cx: &Ctx, ops: &Ops, server: &Server, id: &str, browser: &str) -> Result<AuthorizationRequest> {
    let id: AuthorizationRequestId = id.parse().map_err(|_| not_found())?;
    let browser_hash = hash(browser);
    let key = Key { organization: &server.organization_id, server: &server.id, id: &id, browser_hash: &browser_hash };
    store::find(&mut ops.db.read().await?, key, cx.now()).await?.ok_or_else(not_found)
}

/// Notes that the user of this browser allowed the client, before they signed in.
///
/// # Errors
/// As [`find`].
pub async fn consent(cx: &Ctx, ops: &Ops, request: &AuthorizationRequest, browser: &str) -> Result<()> {
    let mut tx = ops.db.begin().await?;
    let browser_hash = hash(browser);
    if !store::consent(&mut tx, key_of(request, &browser_hash), cx.now()).await? {
        return Err(not_found());
    }
    Ok(tx.commit().await?)
}

/// The key of a request that was found.
pub(crate) fn key_of<'a>(request: &'a AuthorizationRequest, browser_hash: &'a str) -> Key<'a> {
    Key { organization: &request.organization_id, server: &request.server_id, id: &request.id, browser_hash }
}

pub(crate) fn not_found() -> Error {
    Error::not_found("sign-in under way in this browser")
}

/// What has expired is deleted this long afterwards.
const KEPT_MS: i64 = 60 * 60 * 1_000;
/// A client that registered and never came back is deleted after this long.
const UNUSED_CLIENT_MS: i64 = 24 * 60 * 60 * 1_000;
/// A client that came no more is deleted after this long: its last grant has ended by then.
const IDLE_CLIENT_MS: i64 = 180 * 24 * 60 * 60 * 1_000;

/// Deletes what has expired of requests, codes, tokens, sessions and clients, some at a time: a call takes the writer
/// for a moment only. Says how many rows that were.
///
/// # Errors
/// `unavailable` when the database is away.
pub async fn delete_expired(db: &waypost_store::Db, clock: &dyn waypost_core::Clock) -> Result<u64> {
    const AT_ONCE: i64 = 500;
    let now = clock.now();
    let mut tx = db.begin().await?;
    let rows = expired::delete(&mut tx, now.plus(-KEPT_MS), AT_ONCE).await?;
    let (unused, idle) = (now.plus(-UNUSED_CLIENT_MS), now.plus(-IDLE_CLIENT_MS));
    let clients = oauth_client::delete_unused(&mut tx, unused, idle, AT_ONCE).await?;
    tx.commit().await?;
    Ok(rows + clients)
}
