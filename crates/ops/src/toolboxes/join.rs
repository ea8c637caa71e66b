//! Joining: a machine registers the public key of its daemon with a single-use token.
//!
//! Invariants:
//! 1. A token admits one public key. Its hash is kept because the response to the machine may be lost: until the daemon
//!    opens its first link, and at most until the token expires. Until then, a request with the same token and the same
//!    key returns the same result and changes nothing.
//! 2. A request with the same token and another key is rejected like one with an unknown token. A request with the
//!    token and the registered public key that is sent by another machine returns only the ID and the name of the
//!    toolbox: opening the link requires the private key.
//! 3. A toolbox has at most one token. A new token can only be created before the first heartbeat; it invalidates the
//!    previous token and the key that was registered with it.

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_core::access::Operation;
use waypost_core::caller::Ctx;
use waypost_core::id::{OrganizationId, ToolboxId};
use waypost_core::seal::SecretText;
use waypost_core::secret::hash;
use waypost_core::toolbox::{JOIN_TOKEN_MS, Toolbox, ToolboxState};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::{Tx, system, toolbox as store};
use waypost_toolbox_proto::handshake::{JoinRequest, JoinResponse, TOKEN_PREFIX, Versions};

use super::{ToolboxView, not_found, record_operation, view};
use crate::Ops;
use crate::audit::{Entry, record};
use crate::deployments::notify;
use crate::public_url::PublicUrl;

/// The number of random bytes in a token.
const TOKEN_BYTES: usize = 32;
/// The size of an Ed25519 public key in bytes (RFC 8032, section 5.1.5).
const KEY_BYTES: usize = 32;

/// The token with which a machine joins. It works for one machine.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// The token.
    pub token: SecretText,
    /// The time at which it expires.
    pub expires_at: Timestamp,
}

impl JoinToken {
    pub(super) fn new(cx: &Ctx) -> Self {
        let mut bytes = [0_u8; TOKEN_BYTES];
        cx.random.fill(&mut bytes);
        let token = SecretText::new(format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)));
        Self { token, expires_at: cx.now().plus(JOIN_TOKEN_MS) }
    }

    pub(super) fn hash(&self) -> String {
        hash(self.token.expose())
    }
}

/// Returns the command line that a user runs on the machine. The token is passed on standard input, so that it does not
/// appear in the process list: `echo` is built into shells.
#[must_use]
pub fn join_command(public_url: &PublicUrl, token: &SecretText) -> String {
    format!("echo {} | waypost toolbox join --url {} --token-file -", token.expose(), public_url.origin())
}

/// Returns `text` if it is the encoded form of an Ed25519 public key.
pub(crate) fn check_public_key(text: &str) -> Option<&str> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok().filter(|key| key.len() == KEY_BYTES).map(|_| text)
}

/// Registers the machine of a toolbox. The request is authorized by the token. A machine whose response was lost can
/// repeat its request with the same key until its daemon has connected or the token has expired.
///
/// # Errors
/// `forbidden` if the token is unknown, used or expired, the toolbox is revoked, or toolboxes are switched off;
/// `invalid_arguments` for a malformed key; `conflict` if there is no common protocol version. The token stays valid in
/// the last two cases.
pub async fn join(cx: &Ctx, ops: &Ops, request: &JoinRequest) -> Result<JoinResponse> {
    let public_key = check_public_key(&request.public_key).ok_or_else(|| {
        Error::invalid("public_key", "`public_key` must be an Ed25519 public key in base64url without padding.")
    })?;
    ops.check_toolboxes()?;
    Versions::OWN.negotiate(request.protocol).map_err(|message| Error::new(Code::Conflict, message))?;
    if !request.token.starts_with(TOKEN_PREFIX) {
        return Err(invalid_token());
    }
    // The lookup uses a hash of 256 random bits, so its timing reveals nothing about the token.
    let token_hash = hash(&request.token);
    let found = system::find_toolbox_by_token(&mut ops.store.read().await?, &token_hash).await?;
    let toolbox = found.ok_or_else(invalid_token)?;
    // The token stays valid, and only a machine that has it learns this.
    ops.check_toolbox_use(&toolbox.organization_id).await?;
    let version = notify::clean(&request.version);
    let mut tx = ops.store.begin().await?;
    let joining = store::Joining { token_hash: &token_hash, public_key, version: &version, now: cx.now() };
    // The statement decides, because another machine may have used the token since it was read.
    if !store::join(&mut tx, &toolbox.organization_id, &toolbox.id, joining).await? {
        return match find_joined(&mut tx, &toolbox, joining).await? {
            Some(joined) => Ok(response(joined)),
            None => Err(invalid_token()),
        };
    }
    let detail = json!({ "name": toolbox.name, "version": version });
    let entry = Entry { action: "toolbox.join", target: toolbox.id.as_str(), detail };
    record(cx, &mut tx, &toolbox.organization_id, entry).await?;
    tx.commit().await?;
    Ok(response(toolbox))
}

fn response(toolbox: Toolbox) -> JoinResponse {
    JoinResponse { toolbox_id: toolbox.id.to_string(), name: toolbox.name }
}

/// Returns the toolbox if the same machine has joined it with the same token, which is still known and has not expired.
async fn find_joined(tx: &mut Tx, toolbox: &Toolbox, joining: store::Joining<'_>) -> Result<Option<Toolbox>> {
    let found = store::lock(tx, &toolbox.organization_id, &toolbox.id).await?;
    Ok(found.filter(|found| {
        found.revoked_at.is_none()
            && found.join_token_hash.as_deref() == Some(joining.token_hash)
            && found.join_expires_at.is_some_and(|at| at > joining.now)
            && found.public_key.as_deref() == Some(joining.public_key)
    }))
}

/// Creates a new join token for a toolbox that has never been online. The previous token becomes invalid, and a machine
/// that has joined with it can no longer connect. Returns the toolbox with the token, which cannot be retrieved again.
///
/// # Errors
/// `forbidden` for members below admin, or if toolboxes are switched off; `not_found` if the toolbox does not exist;
/// `conflict` if it is not pending.
pub async fn renew_token(
    cx: &Ctx,
    ops: &Ops,
    organization: &OrganizationId,
    id: &ToolboxId,
) -> Result<(ToolboxView, JoinToken)> {
    ops.authorize_toolbox_use(cx, Operation::ToolboxWrite, organization).await?;
    let mut tx = ops.store.begin().await?;
    let toolbox = store::lock(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let token = JoinToken::new(cx);
    let hash = token.hash();
    let new = store::NewToken { hash: &hash, expires_at: token.expires_at, now: cx.now() };
    if toolbox.state(cx.now()) != ToolboxState::Pending || !store::renew_token(&mut tx, organization, id, new).await? {
        let message = "Only a pending toolbox can have a new token: this one has been online or is revoked. Create \
                       another toolbox for another machine.";
        return Err(Error::new(Code::Conflict, message));
    }
    record_operation(cx, &mut tx, &toolbox, "toolbox.renew_token").await?;
    let renewed = store::lock(&mut tx, organization, id).await?.ok_or_else(not_found)?;
    let view = view(cx, &mut tx, renewed).await?;
    tx.commit().await?;
    // A daemon that is connected but has not sent its first heartbeat has the key that was removed.
    ops.links().close(id);
    Ok((view, token))
}

fn invalid_token() -> Error {
    let message = "The token is unknown, expired or has already been used. Create a new join command for the \
                   toolbox.";
    Error::new(Code::Forbidden, message)
}
