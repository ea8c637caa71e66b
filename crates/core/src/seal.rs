//! Encryption of third-party secrets at rest with AES-256-GCM (NIST SP 800-38D). Each secret is bound to its storage
//! location.
//!
//! A sealed text is `v1.KEY.BASE64URL(nonce ciphertext tag)`. The key's ID, table, column and row are authenticated as
//! associated data: a text that was modified or moved to another location cannot be opened.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use crate::random::Random;
use crate::secret::SecretKey;

const VERSION: &str = "v1";
/// The length of a nonce in bytes (SP 800-38D, section 5.2.1.1: 96 bits).
const NONCE_BYTES: usize = 12;

/// A secret in plain text. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the secret. Never log it or show it on a page.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// The storage location of a sealed text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealLocation<'a> {
    /// The table.
    pub table: &'a str,
    /// The column.
    pub column: &'a str,
    /// The row's primary key.
    pub row: &'a str,
}

/// The reason why a sealed text cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not a sealed text of a supported version.
    #[error("not a sealed text of a supported version")]
    Malformed,
    /// The text was sealed with a key that is neither current nor previous.
    #[error("the text was sealed with another secret key")]
    UnknownKey,
    /// The text was modified, or belongs to another location.
    #[error("the sealed text was modified or moved")]
    Damaged,
    /// The plaintext is not UTF-8.
    #[error("the sealed text does not contain UTF-8")]
    NotText,
}

/// The keys for sealing and opening. New texts are sealed with the current key.
#[derive(Clone)]
pub struct Keyring {
    current: Key,
    previous: Option<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    bytes: [u8; 32],
}

impl Key {
    fn new(secret: &SecretKey) -> Self {
        Self {
            // Identifies the key without revealing it.
            id: HEXLOWER.encode(&secret.sign("seal: id of the key", b"")[..8]),
            bytes: secret.sign("seal: key", b""),
        }
    }

    fn aead(&self) -> Aes256Gcm {
        Aes256Gcm::new(&self.bytes.into())
    }

    /// Returns the associated data. Length prefixes separate the parts.
    fn associated_data(&self, location: &SealLocation<'_>) -> Vec<u8> {
        let mut data = Vec::new();
        for part in [VERSION, &self.id, location.table, location.column, location.row] {
            data.extend_from_slice(&(part.len() as u64).to_le_bytes());
            data.extend_from_slice(part.as_bytes());
        }
        data
    }
}

impl Keyring {
    /// Derives the keys from the installation's secret keys.
    #[must_use]
    pub fn new(current: &SecretKey, previous: Option<&SecretKey>) -> Self {
        Self { current: Key::new(current), previous: previous.map(Key::new) }
    }

    /// Seals `plaintext` for `location` with the current key and a random 96-bit nonce (SP 800-38D, section 8.2.2).
    #[must_use]
    pub fn seal(&self, location: &SealLocation<'_>, plaintext: &[u8], random: &dyn Random) -> String {
        let mut nonce = [0_u8; NONCE_BYTES];
        random.fill(&mut nonce);
        let payload = Payload { msg: plaintext, aad: &self.current.associated_data(location) };
        #[expect(clippy::expect_used, reason = "fails only for more than 64 GiB")]
        let ciphertext = self
            .current
            .aead()
            .encrypt(&Nonce::from(nonce), payload)
            .expect("the secret is shorter than the limit of AES-GCM");
        let sealed = BASE64URL_NOPAD.encode(&[&nonce[..], &ciphertext].concat());
        format!("{VERSION}.{}.{sealed}", self.current.id)
    }

    /// Opens a text that was sealed for `location`, with the current or the previous key.
    ///
    /// # Errors
    /// Returns an error if the text is malformed, was sealed with another key, was modified, or belongs to another
    /// location.
    pub fn open(&self, location: &SealLocation<'_>, sealed: &str) -> Result<Vec<u8>, SealError> {
        let (id, encoded) = split(sealed)?;
        let key = self.find_key(id).ok_or(SealError::UnknownKey)?;
        let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).map_err(|_| SealError::Malformed)?;
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Malformed)?;
        let nonce = Nonce::from(*nonce);
        let payload = Payload { msg: ciphertext, aad: &key.associated_data(location) };
        key.aead().decrypt(&nonce, payload).map_err(|_| SealError::Damaged)
    }

    /// Opens a UTF-8 text that was sealed for `location`. Otherwise like [`Self::open`].
    ///
    /// # Errors
    /// Those of [`Self::open`], and [`SealError::NotText`] if the plaintext is not UTF-8.
    pub fn open_text(&self, location: &SealLocation<'_>, sealed: &str) -> Result<SecretText, SealError> {
        String::from_utf8(self.open(location, sealed)?).map(SecretText).map_err(|_| SealError::NotText)
    }

    /// Returns the prefixes of texts sealed with the current and with the previous key (both are the same if there
    /// is no previous key). The store uses them to find texts sealed with other keys.
    #[must_use]
    pub fn prefixes(&self) -> (String, String) {
        let prefix = |key: &Key| format!("{VERSION}.{}.", key.id);
        (prefix(&self.current), prefix(self.previous.as_ref().unwrap_or(&self.current)))
    }

    /// Whether the text was sealed with the current key.
    #[must_use]
    pub fn is_current(&self, sealed: &str) -> bool {
        split(sealed).is_ok_and(|(id, _)| id == self.current.id)
    }

    /// Whether the text was sealed with the current or the previous key.
    #[must_use]
    pub fn knows(&self, sealed: &str) -> bool {
        split(sealed).is_ok_and(|(id, _)| self.find_key(id).is_some())
    }

    fn find_key(&self, id: &str) -> Option<&Key> {
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().find(|key| key.id == id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(…)")
    }
}

/// Splits a sealed text into the key's ID and the encrypted part.
fn split(sealed: &str) -> Result<(&str, &str), SealError> {
    let mut parts = sealed.split('.');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(VERSION), Some(id), Some(bytes), None) => Ok((id, bytes)),
        _ => Err(SealError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;

    const LOCATION: SealLocation<'static> =
        SealLocation { table: "oauth_configs", column: "client_secret", row: "oac_1" };

    fn key(byte: u8) -> SecretKey {
        SecretKey::new([byte; 32])
    }

    #[test]
    fn a_text_opens_only_at_its_location() {
        let ring = Keyring::new(&key(1), None);
        let sealed = ring.seal(&LOCATION, b"hunter2", &SeededRandom::new(1));
        assert_eq!(ring.open(&LOCATION, &sealed).as_deref(), Ok(&b"hunter2"[..]));
        for moved in [
            SealLocation { row: "oac_2", ..LOCATION },
            SealLocation { column: "token_endpoint", ..LOCATION },
            SealLocation { table: "upstream_tokens", ..LOCATION },
            // The same characters, split differently.
            SealLocation { column: "client_secre", row: "toac_1", ..LOCATION },
        ] {
            assert_eq!(ring.open(&moved, &sealed), Err(SealError::Damaged), "{moved:?}");
        }
    }

    /// Sealed with OpenSSL's AES-256-GCM: stored secrets must stay readable if the library changes.
    #[test]
    fn a_text_sealed_by_another_implementation_opens() {
        let sealed = "v1.67827e1a6dcb1ca7.AAECAwQFBgcICQoLPatkPVMkx8nPrK-jx0HNIqmYYBNpwA";
        assert_eq!(Keyring::new(&key(1), None).open(&LOCATION, sealed).as_deref(), Ok(&b"geheim"[..]));
    }

    #[test]
    fn every_modification_is_detected() {
        let ring = Keyring::new(&key(1), None);
        let sealed = ring.seal(&LOCATION, b"hunter2", &SeededRandom::new(1));
        for index in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert!(ring.open(&LOCATION, &String::from_utf8(changed).unwrap()).is_err(), "changed at {index}");
            assert!(ring.open(&LOCATION, &sealed[..index]).is_err(), "cut at {index}");
        }
        assert_eq!(ring.open(&LOCATION, &format!("{sealed}.x")), Err(SealError::Malformed));
    }

    #[test]
    fn texts_sealed_with_the_previous_key_open_after_a_rotation() {
        let (old, new) = (Keyring::new(&key(1), None), Keyring::new(&key(2), Some(&key(1))));
        let sealed = old.seal(&LOCATION, b"hunter2", &SeededRandom::new(1));
        assert!(old.is_current(&sealed) && !new.is_current(&sealed) && new.knows(&sealed));
        assert_eq!(new.open(&LOCATION, &sealed).as_deref(), Ok(&b"hunter2"[..]));
        let again = new.seal(&LOCATION, b"hunter2", &SeededRandom::new(2));
        assert!(new.is_current(&again) && !old.knows(&again));
        assert_eq!(old.open(&LOCATION, &again), Err(SealError::UnknownKey));
        assert_eq!(Keyring::new(&key(3), Some(&key(2))).open(&LOCATION, &sealed), Err(SealError::UnknownKey));
    }

    /// A different key with the same ID: the authentication tag detects it, not the ID.
    #[test]
    fn a_text_does_not_open_with_another_key() {
        let (first, mut second) = (Keyring::new(&key(1), None), Keyring::new(&key(2), None));
        let sealed = first.seal(&LOCATION, b"hunter2", &SeededRandom::new(1));
        second.current.id.clone_from(&first.current.id);
        assert_eq!(second.open(&LOCATION, &sealed), Err(SealError::Damaged));
    }

    #[test]
    fn nonces_are_unique_and_secrets_are_hidden() {
        let (ring, random) = (Keyring::new(&key(1), None), SeededRandom::new(1));
        assert_ne!(ring.seal(&LOCATION, b"hunter2", &random), ring.seal(&LOCATION, b"hunter2", &random));
        assert_eq!(format!("{ring:?} {:?}", SecretText::new("hunter2")), "Keyring(…) SecretText(…)");
    }
}
