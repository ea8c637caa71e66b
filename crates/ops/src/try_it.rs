//! "Try it": calls to a server that a user makes from the console. They are marked as tests and excluded from every
//! count.
//!
//! The console makes the calls at a personal URL whose tracking ID is `test~USER~EXPIRY~SIGNATURE`, signed with the
//! installation's key for one server. Only the console can create a signed ID, so an end user cannot be excluded from
//! the analytics by posing as a test user. The calls belong to an end user with the tracking ID `test~USER`, who is
//! marked with `is_test`. Other tracking IDs that begin with `test~` are rejected.

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ServerId};
use waypost_core::secret::{SecretKey, SecretKeys};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::end_user;

use crate::Ops;
use crate::audit::{Entry, record};

/// The prefix of the tracking IDs of test users. Reserved: organisations cannot use it.
pub const PREFIX: &str = "test~";
/// The lifetime of a signed tracking ID.
pub const LIFETIME_MS: i64 = 12 * 3_600_000;
const PURPOSE: &str = "try it";

/// Whether a tracking ID belongs to a test user.
#[must_use]
pub fn is_test_id(tracking_id: &str) -> bool {
    tracking_id.starts_with(PREFIX)
}

fn message(server: &ServerId, user: &str, expires_at: &str) -> Vec<u8> {
    format!("{server}\n{user}\n{expires_at}").into_bytes()
}

/// Returns a signed tracking ID with which the calling user can try out `server`.
#[must_use]
pub fn sign(cx: &Ctx, secret: &SecretKey, server: &ServerId) -> String {
    let (user, expires_at) = (cx.caller.actor(), cx.now().plus(LIFETIME_MS).0.to_string());
    let signature = secret.sign(PURPOSE, &message(server, user, &expires_at));
    format!("{PREFIX}{user}~{expires_at}~{}", BASE64URL_NOPAD.encode(&signature))
}

/// Returns the tracking ID of the end user whom a personal URL of `server` identifies: the test user's for a signed
/// test ID, otherwise the ID itself.
///
/// # Errors
/// `not_found` for a test ID that is not signed for this server or has expired.
pub fn resolve(keys: &SecretKeys, server: &ServerId, tracking_id: String, now: Timestamp) -> Result<String> {
    let Some(rest) = tracking_id.strip_prefix(PREFIX) else { return Ok(tracking_id) };
    let mut parts = rest.split('~');
    let verified = (|| {
        let (user, expires_at, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        keys.find_signing_key(PURPOSE, &message(server, user, expires_at), &bytes)?;
        let is_valid = parts.next().is_none() && now.0 < expires_at.parse().ok()?;
        is_valid.then(|| format!("{PREFIX}{user}"))
    })();
    verified.ok_or_else(|| {
        let message = "This test link has expired or is not valid. Reload the \"Try it\" page in the console.";
        Error::new(Code::NotFound, message)
    })
}

/// Deletes the caller's test user with all progress, so that the next test starts from the beginning. Does nothing if
/// there is none.
///
/// # Errors
/// `not_found` if the caller cannot access the organisation.
pub async fn reset(cx: &Ctx, ops: &Ops, organization: &OrganizationId) -> Result<()> {
    authorize(&cx.caller, Operation::ServerRead, organization)?;
    let tracking_id = format!("{PREFIX}{}", cx.caller.actor());
    let mut tx = ops.store.begin().await?;
    let Some(id) = end_user::find_by_tracking_id(&mut tx, organization, &tracking_id).await? else { return Ok(()) };
    end_user::delete(&mut tx, organization, &id).await?;
    record(cx, &mut tx, organization, Entry { action: "try_it.reset", target: id.as_str(), detail: json!({}) }).await?;
    Ok(tx.commit().await?)
}
