//! The identity of a machine: its toolbox, its control plane, and its keys.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use url::Url;
use waypost_toolbox_proto::handshake::signed_text;

use crate::files;

/// The name of the file in the data directory.
const FILE: &str = "identity.json";

/// Why the identity cannot be used. The message is for the operator of the machine.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The machine has not joined.
    #[error("This machine has not joined a control plane. Run `waypost toolbox join` first.")]
    NotJoined,
    /// The file cannot be read or written.
    #[error("`{path}` cannot be read or written: {error}.")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The file is damaged.
    #[error("`{path}` is damaged. Restore it from a backup, or revoke the toolbox, remove the file and join again.")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system provides no random bytes.
    #[error("A key cannot be created, because the system provides no random bytes.")]
    NoRandom,
}

/// An Ed25519 key. `Debug` shows only the public key.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SigningKey {
    pkcs8: Vec<u8>,
    public: String,
}

impl SigningKey {
    /// Generates a key.
    ///
    /// # Errors
    /// Returns [`IdentityError::NoRandom`] if the system provides no random bytes.
    pub fn generate() -> Result<Self, IdentityError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IdentityError::NoRandom)?;
        Self::from_pkcs8(document.as_ref().to_vec()).map_err(|_| IdentityError::NoRandom)
    }

    /// Returns the public key in base64url without padding.
    #[must_use]
    pub fn public_key(&self) -> &str {
        &self.public
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, &'static str> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| "not a key")?;
        let public = BASE64URL_NOPAD.encode(pair.public_key().as_ref());
        Ok(Self { pkcs8, public })
    }

    /// Signs `text`. The signature is 64 bytes in base64url without padding; empty if the key is invalid, which
    /// [`Self::from_pkcs8`] rules out.
    fn sign(&self, text: &str) -> String {
        let pair = Ed25519KeyPair::from_pkcs8(&self.pkcs8);
        pair.map(|pair| BASE64URL_NOPAD.encode(pair.sign(text.as_bytes()).as_ref())).unwrap_or_default()
    }
}

impl TryFrom<String> for SigningKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::from_pkcs8(BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| "not a key")?)
    }
}

impl From<SigningKey> for String {
    fn from(key: SigningKey) -> Self {
        BASE64URL_NOPAD.encode(&key.pkcs8)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// The identity of a machine, stored in the data directory with mode 0600.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The ID of the toolbox (`tbx_…`).
    pub toolbox_id: String,
    /// The name of the toolbox.
    pub name: String,
    /// The URL of the control plane, without a path.
    pub url: Url,
    /// The key that the control plane knows.
    key: SigningKey,
    /// The key that replaces the current one. While it is set, the control plane knows one of the two keys. If the
    /// connection was lost during the replacement, the daemon does not know which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_key: Option<SigningKey>,
}

/// The keys that are used for one handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// The current key signs. The next key is presented if there is one.
    CurrentKey,
    /// The next key signs: the control plane may have stored it without the daemon receiving the confirmation.
    NextKey,
}

impl Identity {
    /// Creates the identity of a machine that has joined. It is not stored.
    #[must_use]
    pub fn new(toolbox_id: String, name: String, url: Url, key: SigningKey) -> Self {
        Self { toolbox_id, name, url, key, next_key: None }
    }

    /// Loads the identity.
    ///
    /// # Errors
    /// Returns an [`IdentityError`] if the machine has not joined, or the file cannot be read or is damaged.
    pub fn load(data_dir: &Path) -> Result<Self, IdentityError> {
        let path = data_dir.join(FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|_| IdentityError::Damaged { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(IdentityError::NotJoined),
            Err(error) => Err(IdentityError::File { path, error }),
        }
    }

    /// Stores the identity.
    ///
    /// # Errors
    /// Returns [`IdentityError::File`] if the file cannot be written.
    pub fn save(&self, data_dir: &Path) -> Result<(), IdentityError> {
        let path = data_dir.join(FILE);
        let content = serde_json::to_vec_pretty(self).map_err(io::Error::from);
        let saved = content.and_then(|content| files::replace(&path, &content));
        saved.map_err(|error| IdentityError::File { path, error })
    }

    /// Returns the origin of the control plane, such as `https://waypost.example.com`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Returns the current public key in base64url without padding.
    #[must_use]
    pub fn public_key(&self) -> &str {
        self.key.public_key()
    }

    /// Whether a next key has been created and not yet been accepted.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.next_key.is_some()
    }

    /// Creates and stores the next key, unless there is one.
    ///
    /// # Errors
    /// Returns [`IdentityError::NoRandom`] or [`IdentityError::File`]. The identity in memory is unchanged.
    pub fn begin_rotation(&mut self, data_dir: &Path) -> Result<(), IdentityError> {
        if self.next_key.is_some() {
            return Ok(());
        }
        let next = Self { next_key: Some(SigningKey::generate()?), ..self.clone() };
        next.save(data_dir)?;
        *self = next;
        Ok(())
    }

    /// Replaces the current key with the next one, after the control plane has accepted it.
    ///
    /// # Errors
    /// Returns [`IdentityError::File`]. The key has been replaced in memory, but both keys are still stored, so the
    /// daemon tries both after a restart.
    pub fn finish_rotation(&mut self, data_dir: &Path) -> Result<(), IdentityError> {
        let Some(next) = self.next_key.take() else {
            return Ok(());
        };
        self.key = next;
        self.save(data_dir)
    }

    /// Returns the signature of `nonce`, and the next public key if it is presented.
    #[must_use]
    pub fn sign(&self, nonce: &str, attempt: Attempt) -> (String, Option<String>) {
        let (key, next) = match (attempt, &self.next_key) {
            (Attempt::NextKey, Some(next)) => (next, None),
            (_, next) => (&self.key, next.as_ref().map(|next| next.public.clone())),
        };
        (key.sign(&signed_text(nonce, &self.toolbox_id, &self.origin(), next.as_deref())), next)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn identity() -> Identity {
        let url = Url::parse("https://waypost.example.com").unwrap();
        Identity::new("tbx_1".into(), "rack".into(), url, SigningKey::generate().unwrap())
    }

    #[test]
    fn an_identity_is_stored_for_its_owner_only_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Identity::load(folder.path()), Err(IdentityError::NotJoined)));
        let identity = identity();
        identity.save(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = Identity::load(folder.path()).unwrap();
        assert_eq!(loaded.sign("nonce", Attempt::CurrentKey), identity.sign("nonce", Attempt::CurrentKey));
        let secret = String::from(identity.key.clone());
        assert!(std::fs::read_to_string(&path).unwrap().contains(&secret));
        assert!(!format!("{loaded:?}").contains(&secret));
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(Identity::load(folder.path()), Err(IdentityError::Damaged { .. })));
    }

    #[test]
    fn both_keys_are_kept_until_the_next_one_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let mut identity = identity();
        identity.begin_rotation(folder.path()).unwrap();
        let (_, next) = identity.sign("nonce", Attempt::CurrentKey);
        identity.begin_rotation(folder.path()).unwrap();
        assert_eq!(identity.sign("nonce", Attempt::CurrentKey).1, next, "a second request does not replace it again");
        let mut loaded = Identity::load(folder.path()).unwrap();
        assert!(loaded.is_rotating());
        let signed_by_next = loaded.sign("nonce", Attempt::NextKey);
        assert_eq!(signed_by_next.1, None);
        loaded.finish_rotation(folder.path()).unwrap();
        let loaded = Identity::load(folder.path()).unwrap();
        assert!(!loaded.is_rotating());
        assert_eq!(loaded.sign("nonce", Attempt::CurrentKey), signed_by_next);
        assert_eq!(loaded.key.public_key(), next.unwrap());
    }
}
