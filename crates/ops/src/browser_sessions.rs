//! Browser sessions of end users, each valid in one organisation.

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_core::Result;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::id::OrganizationId;
use waypost_core::secret::hash;
use waypost_store::Tx;
pub use waypost_store::browser_session::BrowserSession;
use waypost_store::browser_session::{self as store, NewBrowserSession};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::identities::EndUserIdentity;

/// The lifetime of a session.
pub const LIFETIME_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// The number of random bytes in a token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// Creates a session in the transaction of the sign-in. Returns the token for the cookie, which cannot be retrieved
/// again.
///
/// # Errors
/// `not_found` for an organisation other than the caller's; any error of the store.
pub async fn create(
    cx: &Ctx,
    tx: &mut Tx,
    organization: &OrganizationId,
    identity: &EndUserIdentity,
) -> Result<String> {
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    let mut bytes = [0_u8; TOKEN_BYTES];
    cx.random.fill(&mut bytes);
    let token = BASE64URL_NOPAD.encode(&bytes);
    let now = cx.now();
    let session = NewBrowserSession {
        token_hash: &hash(&token),
        end_user_id: &identity.end_user_id,
        identity_id: &identity.identity_id,
        created_at: now,
        expires_at: now.plus(LIFETIME_MS),
    };
    store::insert(tx, organization, &session).await?;
    Ok(token)
}

/// Returns the session of a cookie. Returns `None` if it does not exist in this organisation or has expired.
///
/// # Errors
/// The same as for [`create`].
pub async fn find(cx: &Ctx, ops: &Ops, organization: &OrganizationId, token: &str) -> Result<Option<BrowserSession>> {
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    // The lookup uses a hash of 256 random bits, so its timing reveals nothing about the token.
    Ok(store::find(&mut ops.store.read().await?, organization, &hash(token), cx.now()).await?)
}

/// Deletes a session. Succeeds if there is none.
///
/// # Errors
/// The same as for [`create`].
pub async fn delete(cx: &Ctx, ops: &Ops, organization: &OrganizationId, token: &str) -> Result<()> {
    authorize(&cx.caller, Operation::EndUserSignIn, organization)?;
    let mut tx = ops.store.begin().await?;
    if let Some(end_user) = store::delete(&mut tx, organization, &hash(token)).await? {
        let entry = Entry { action: "end_user.sign_out", target: end_user.as_str(), detail: json!({}) };
        record(cx, &mut tx, organization, entry).await?;
        tx.commit().await?;
    }
    Ok(())
}
