//! Requests that make something, sent again: the same key gets the same answer, and nothing is made twice.
//!
//! Invariants: of several requests with one key at once, one is carried out; a key stands for one request only; an answer
//! is repeated for a day; a request that failed on our side may be tried again.

use waypost_core::caller::{Caller, Ctx};
use waypost_core::seal::{Keyring, SealLocation};
use waypost_core::{Code, Error, Result};
use waypost_store::idempotency::{self as store, IdempotencyClaim};

use crate::Ops;

/// An answer is kept this long.
const LIFETIME_MS: i64 = 24 * 60 * 60 * 1_000;
/// Characters of a key at most.
pub const MAX_KEY: usize = 255;

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum BeginOutcome {
    /// Carry it out, then [`complete`] or [`release`].
    New,
    /// Repeat this answer.
    Known(Vec<u8>),
}

fn place(actor: &str) -> SealLocation<'_> {
    SealLocation { table: "idempotency_keys", column: "response", row: actor }
}

/// Takes a key for the request with this hash.
///
/// # Errors
/// `invalid_arguments` when the key is none, or stood for another request; `conflict` while its request is at work.
pub async fn begin(cx: &Ctx, ops: &Ops, keyring: &Keyring, (key, request_hash): (&str, &str)) -> Result<BeginOutcome> {
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let message = format!("`Idempotency-Key` has 1 to {MAX_KEY} visible characters of ASCII.");
        return Err(Error::invalid("Idempotency-Key", message));
    }
    let now = cx.now();
    let organization_id = match &cx.caller {
        Caller::Member { organization_id, .. } => Some(organization_id.clone()),
        _ => None,
    };
    let claim = IdempotencyClaim {
        actor: cx.caller.actor().to_owned(),
        key: key.to_owned(),
        organization_id,
        request_hash: request_hash.to_owned(),
        created_at: now,
        expires_at: now.plus(LIFETIME_MS),
    };
    let mut tx = ops.db.begin().await?;
    if store::claim(&mut tx, &claim).await? {
        tx.commit().await?;
        return Ok(BeginOutcome::New);
    }
    let known = store::find(&mut tx, &claim.actor, key).await?;
    let at_work = || {
        let message = "A request with this key is at work, or broke off. Look whether it did what it should; with another \
                       key it is carried out anew.";
        Error::new(Code::Conflict, message)
    };
    let known = known.ok_or_else(at_work)?;
    if known.request_hash != request_hash {
        return Err(Error::invalid("Idempotency-Key", "This key stood for another request before. Choose a new one."));
    }
    let sealed = known.response.ok_or_else(at_work)?;
    // Sealed with a key that is gone: nobody can repeat it.
    let response = keyring.open(&place(&claim.actor), &sealed).map_err(|error| at_work().caused_by(error))?;
    Ok(BeginOutcome::Known(response))
}

/// Keeps the answer of a key's request.
///
/// # Errors
/// When the store fails.
pub async fn complete(cx: &Ctx, ops: &Ops, keyring: &Keyring, (key, response): (&str, &[u8])) -> Result<()> {
    let actor = cx.caller.actor();
    let sealed = keyring.seal(&place(actor), response, &*cx.random);
    let mut tx = ops.db.begin().await?;
    store::complete(&mut tx, actor, key, &sealed).await?;
    tx.commit().await?;
    Ok(())
}

/// Gives a key back whose request failed on our side: it may be tried again.
///
/// # Errors
/// When the store fails.
pub async fn release(cx: &Ctx, ops: &Ops, key: &str) -> Result<()> {
    let mut tx = ops.db.begin().await?;
    store::release(&mut tx, cx.caller.actor(), key).await?;
    tx.commit().await?;
    Ok(())
}
