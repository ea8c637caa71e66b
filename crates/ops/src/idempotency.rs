//! Idempotency keys: a repeated request with the same key gets the stored response and is not executed again.
//!
//! Invariants: of several concurrent requests with the same key, only one is executed. A key belongs to one request
//! only. A response is replayed for 24 hours. A request that failed with a server error may be retried with the same
//! key.

use waypost_core::caller::Ctx;
use waypost_core::seal::SealLocation;
use waypost_core::{Code, Error, Result};
use waypost_store::idempotency::{self as store, IdempotencyClaim};

use crate::Ops;

/// The time for which a response is stored, in milliseconds.
const LIFETIME_MS: i64 = 24 * 60 * 60 * 1_000;
/// The maximum number of characters in a key.
pub const MAX_KEY: usize = 255;

/// The outcome of [`begin`].
#[derive(Debug, PartialEq, Eq)]
pub enum BeginOutcome {
    /// The key is new: execute the request, then call [`complete`] or [`release`].
    New,
    /// The request has been executed: return this response.
    Known(Vec<u8>),
}

fn location(actor: &str) -> SealLocation<'_> {
    SealLocation { table: "idempotency_keys", column: "response", row: actor }
}

/// Claims a key for the request with this hash.
///
/// # Errors
/// `invalid_arguments` if the key is malformed or belongs to another request; `conflict` if the request with this key
/// has not been completed.
pub async fn begin(cx: &Ctx, ops: &Ops, key: &str, request_hash: &str) -> Result<BeginOutcome> {
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("`Idempotency-Key` must have 1 to {MAX_KEY} printable ASCII characters.");
        return Err(Error::invalid("Idempotency-Key", message));
    }
    let now = cx.now();
    let claim = IdempotencyClaim {
        actor: cx.caller.actor().to_owned(),
        key: key.to_owned(),
        organization_id: cx.caller.organization_id().cloned(),
        request_hash: request_hash.to_owned(),
        created_at: now,
        expires_at: now.plus(LIFETIME_MS),
    };
    let mut tx = ops.store.begin().await?;
    if store::claim(&mut tx, &claim).await? {
        tx.commit().await?;
        return Ok(BeginOutcome::New);
    }
    let existing = store::find(&mut tx, &claim.actor, key).await?;
    let incomplete = || {
        let message = "A request with this key is still running or was interrupted. Check whether it succeeded. To \
                       send it again, use a new key.";
        Error::new(Code::Conflict, message)
    };
    let existing = existing.ok_or_else(incomplete)?;
    if existing.request_hash != request_hash {
        return Err(Error::invalid("Idempotency-Key", "This key was used for a different request. Use a new key."));
    }
    let sealed = existing.response.ok_or_else(incomplete)?;
    // A response that was sealed with a lost key cannot be replayed.
    let response =
        ops.keyring()?.open(&location(&claim.actor), &sealed).map_err(|error| incomplete().caused_by(error))?;
    Ok(BeginOutcome::Known(response))
}

/// Stores the response of a key's request.
///
/// # Errors
/// Returns an error if a database query fails.
pub async fn complete(cx: &Ctx, ops: &Ops, key: &str, response: &[u8]) -> Result<()> {
    let actor = cx.caller.actor();
    let sealed = ops.keyring()?.seal(&location(actor), response, &*cx.random);
    let mut tx = ops.store.begin().await?;
    store::complete(&mut tx, actor, key, &sealed).await?;
    tx.commit().await?;
    Ok(())
}

/// Releases a key whose request failed with a server error, so that the request can be retried.
///
/// # Errors
/// Returns an error if a database query fails.
pub async fn release(cx: &Ctx, ops: &Ops, key: &str) -> Result<()> {
    let mut tx = ops.store.begin().await?;
    store::release(&mut tx, cx.caller.actor(), key).await?;
    tx.commit().await?;
    Ok(())
}
