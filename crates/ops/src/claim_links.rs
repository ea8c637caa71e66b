//! Claim links: an organisation lets one end user claim the progress recorded under a label ([`crate::joins`]).

use serde_json::json;
use waypost_core::access::{Operation, authorize};
use waypost_core::caller::Ctx;
use waypost_core::claim_link::{self, ClaimLink, MAX_LIFETIME_MS};
use waypost_core::id::{OrganizationId, ServerId};
use waypost_core::secret::SecretKey;
use waypost_core::server::Server;
use waypost_core::{Error, Result};
use waypost_store::server;

use crate::Ops;
use crate::audit::{Entry, record};
use crate::try_it;

/// Signs a link for `label` that is valid for `lifetime_ms` milliseconds on `server`. The label is not looked up: a
/// link for an unused label is possible and claims nothing. On a server without sign-in, the link identifies the same
/// user as the label, so links can be distributed before the server switches to sign-in.
///
/// # Errors
/// `not_found` if the organisation has no such server; `forbidden` for members below admin; `invalid_arguments` with
/// `field` if the label or the lifetime is not valid.
pub async fn create(
    cx: &Ctx,
    ops: &Ops,
    key: &SecretKey,
    organization: &OrganizationId,
    server: &ServerId,
    label: &str,
    lifetime_ms: i64,
) -> Result<(Server, ClaimLink)> {
    authorize(&cx.caller, Operation::ClaimLinkCreate, organization)?;
    let mut tx = ops.store.begin().await?;
    let server = server::find(&mut tx, organization, server).await?.ok_or_else(|| Error::not_found("server"))?;
    if !claim_link::is_label(label) || try_it::is_test_id(label) {
        let message = "A tracking ID must have 1 to 128 characters from A-Z a-z 0-9 . _ ~ - and must not start with \
                       `claim~` or `test~`. IDs that the public page has generated need no link.";
        return Err(Error::invalid("tracking_id", message));
    }
    if !(1..=MAX_LIFETIME_MS).contains(&lifetime_ms) {
        return Err(Error::invalid("expires_in_hours", "The lifetime of a claim link must be 1 to 720 hours."));
    }
    let link = ClaimLink::sign(key, organization, &server.id, label, cx.now(), lifetime_ms);
    let detail = json!({ "tracking_id_length": label.len(), "expires_at": link.expires_at.rfc3339() });
    let entry = Entry { action: "claim_link.create", target: server.id.as_str(), detail };
    record(cx, &mut tx, organization, entry).await?;
    tx.commit().await?;
    Ok((server, link))
}
