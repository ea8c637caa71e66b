//! Joining: a machine registers the public key of its daemon with a single-use token.

use data_encoding::BASE64URL_NOPAD;
use serde_json::json;
use waypost_core::caller::Ctx;
use waypost_core::seal::SecretText;
use waypost_core::secret::hash;
use waypost_core::toolbox::JOIN_TOKEN_MS;
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_store::{system, toolbox as store};
use waypost_toolbox_proto::handshake::{JoinRequest, JoinResponse, TOKEN_PREFIX, Versions};

use crate::Ops;
use crate::audit::{Entry, record};
use crate::deployments::notify;
use crate::public_url::PublicUrl;

/// The number of random bytes in a token.
const TOKEN_BYTES: usize = 32;
/// The size of an Ed25519 public key in bytes (RFC 8032, section 5.1.5).
const KEY_BYTES: usize = 32;

/// The token with which a machine joins. It works once.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// The token.
    pub token: SecretText,
    /// When it expires.
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

/// Returns the command line that a person runs on the machine. The token is passed on standard input, so that it does not
/// appear in the list of processes: `echo` is built into shells.
#[must_use]
pub fn join_command(public_url: &PublicUrl, token: &SecretText) -> String {
    format!("echo {} | waypost toolbox join --url {} --token-file -", token.expose(), public_url.origin())
}

/// Returns `text` if it is the encoded form of an Ed25519 public key.
pub(crate) fn check_public_key(text: &str) -> Option<&str> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok().filter(|key| key.len() == KEY_BYTES).map(|_| text)
}

/// Registers the machine of a toolbox. The request is authorized by the token.
///
/// # Errors
/// `forbidden` if the token is unknown, used or expired, the toolbox is revoked, or toolboxes are off; `invalid_arguments` for a malformed
/// key; `conflict` if there is no common version of the protocol. The token stays valid in the last two cases.
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
    // The token stays valid, and only whoever has it learns this.
    ops.check_toolbox_use(&toolbox.organization_id).await?;
    let version = notify::clean(&request.version);
    let mut tx = ops.store.begin().await?;
    let joining = store::Joining { token_hash: &token_hash, public_key, version: &version, now: cx.now() };
    // The statement decides, because another machine may have used the token since it was read.
    if !store::join(&mut tx, &toolbox.organization_id, &toolbox.id, joining).await? {
        return Err(invalid_token());
    }
    let detail = json!({ "name": toolbox.name, "version": version });
    let entry = Entry { action: "toolbox.join", target: toolbox.id.as_str(), detail };
    record(cx, &mut tx, &toolbox.organization_id, entry).await?;
    tx.commit().await?;
    Ok(JoinResponse { toolbox_id: toolbox.id.to_string(), name: toolbox.name })
}

fn invalid_token() -> Error {
    let message = "The token is unknown, expired or has already been used. Create another toolbox to get a new token.";
    Error::new(Code::Forbidden, message)
}
