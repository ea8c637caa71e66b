//! Secrets of others at rest: sealed with AES-256-GCM (NIST SP 800-38D), each to the place where it is kept.
//!
//! A sealed text is `v1.KEY.BASE64URL(nonce ciphertext tag)`. The key's id, table, column and row are authenticated
//! with it: a text that was moved to another place, or changed, does not open.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use crate::random::Random;
use crate::secret::SecretKey;

const VERSION: &str = "v1";

/// A secret in the open. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Takes the secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself: for whom it is meant, never for a log or a page.
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

/// Where a sealed text is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealLocation<'a> {
    /// The table.
    pub table: &'a str,
    /// The column.
    pub column: &'a str,
    /// The row, by its primary key.
    pub row: &'a str,
}

/// Why a text does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is no sealed text of a version that this program knows.
    #[error("this is no sealed text that this program can read")]
    Malformed,
    /// The key that it was sealed with is neither the current nor the previous one.
    #[error("this was sealed with another secret key")]
    UnknownKey,
    /// It was changed, or belongs to another place.
    #[error("this sealed text was changed or moved")]
    Damaged,
    /// What it holds is no text.
    #[error("this sealed text holds no UTF-8")]
    NotText,
}

/// The keys that open: what is sealed anew is sealed with the current one.
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
            // Tells the key without telling anything of it.
            id: HEXLOWER.encode(&secret.sign("seal: id of the key", b"")[..8]),
            bytes: secret.sign("seal: key", b""),
        }
    }

    fn aead(&self) -> LessSafeKey {
        #[expect(clippy::expect_used, reason = "a key of this algorithm has 32 bytes")]
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.bytes).expect("32 bytes"))
    }

    /// Lengths keep the parts apart.
    fn associated(&self, place: &SealLocation<'_>) -> Aad<Vec<u8>> {
        let mut data = Vec::new();
        for part in [VERSION, &self.id, place.table, place.column, place.row] {
            data.extend_from_slice(&(part.len() as u64).to_le_bytes());
            data.extend_from_slice(part.as_bytes());
        }
        Aad::from(data)
    }
}

impl Keyring {
    /// The keys that belong to the installation's secret keys.
    #[must_use]
    pub fn new(current: &SecretKey, previous: Option<&SecretKey>) -> Self {
        Self { current: Key::new(current), previous: previous.map(Key::new) }
    }

    /// Seals `plaintext` to `place` with the current key, under a random nonce of 96 bits (SP 800-38D, 8.2.2).
    #[must_use]
    pub fn seal(&self, place: &SealLocation<'_>, plaintext: &[u8], random: &dyn Random) -> String {
        let mut nonce = [0_u8; NONCE_LEN];
        random.fill(&mut nonce);
        let mut text = plaintext.to_vec();
        #[expect(clippy::expect_used, reason = "fails only beyond 64 GiB")]
        self.current
            .aead()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), self.current.associated(place), &mut text)
            .expect("a secret that is no longer than AES-GCM allows");
        let sealed = BASE64URL_NOPAD.encode(&[&nonce[..], &text].concat());
        format!("{VERSION}.{}.{sealed}", self.current.id)
    }

    /// Opens what was sealed to `place`, with the current or the previous key.
    ///
    /// # Errors
    /// When it is no sealed text, was sealed with another key, was changed, or belongs to another place.
    pub fn open(&self, place: &SealLocation<'_>, sealed: &str) -> Result<Vec<u8>, SealError> {
        let (id, bytes) = parts(sealed)?;
        let key = self.key(id).ok_or(SealError::UnknownKey)?;
        let mut bytes = BASE64URL_NOPAD.decode(bytes.as_bytes()).map_err(|_| SealError::Malformed)?;
        if bytes.len() < NONCE_LEN {
            return Err(SealError::Malformed);
        }
        let mut text = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| SealError::Malformed)?;
        let opened = key.aead().open_in_place(nonce, key.associated(place), &mut text);
        Ok(opened.map_err(|_| SealError::Damaged)?.to_vec())
    }

    /// As [`Self::open`], for texts.
    ///
    /// # Errors
    /// As [`Self::open`], and when it is no UTF-8.
    pub fn open_text(&self, place: &SealLocation<'_>, sealed: &str) -> Result<SecretText, SealError> {
        String::from_utf8(self.open(place, sealed)?).map(SecretText).map_err(|_| SealError::NotText)
    }

    /// What every text begins with that was sealed with the current key, and with the previous one (the same when there
    /// is none): by these the store finds those that were not.
    #[must_use]
    pub fn prefixes(&self) -> (String, String) {
        let prefix = |key: &Key| format!("{VERSION}.{}.", key.id);
        (prefix(&self.current), prefix(self.previous.as_ref().unwrap_or(&self.current)))
    }

    /// Whether it was sealed with the current key.
    #[must_use]
    pub fn is_current(&self, sealed: &str) -> bool {
        parts(sealed).is_ok_and(|(id, _)| id == self.current.id)
    }

    /// Whether it was sealed with the current or the previous key.
    #[must_use]
    pub fn knows(&self, sealed: &str) -> bool {
        parts(sealed).is_ok_and(|(id, _)| self.key(id).is_some())
    }

    fn key(&self, id: &str) -> Option<&Key> {
        [Some(&self.current), self.previous.as_ref()].into_iter().flatten().find(|key| key.id == id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(…)")
    }
}

/// Id of the key, and what it sealed.
fn parts(sealed: &str) -> Result<(&str, &str), SealError> {
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

    const PLACE: SealLocation<'static> = SealLocation { table: "oauth_configs", column: "client_secret", row: "oac_1" };

    fn key(byte: u8) -> SecretKey {
        SecretKey::new([byte; 32])
    }

    #[test]
    fn opens_only_where_it_was_sealed() {
        let ring = Keyring::new(&key(1), None);
        let sealed = ring.seal(&PLACE, b"geheim", &SeededRandom::new(1));
        assert_eq!(ring.open(&PLACE, &sealed).as_deref(), Ok(&b"geheim"[..]));
        for moved in [
            SealLocation { row: "oac_2", ..PLACE },
            SealLocation { column: "token_endpoint", ..PLACE },
            SealLocation { table: "upstream_tokens", ..PLACE },
            // The same letters, cut elsewhere.
            SealLocation { column: "client_secre", row: "toac_1", ..PLACE },
        ] {
            assert_eq!(ring.open(&moved, &sealed), Err(SealError::Damaged), "{moved:?}");
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let ring = Keyring::new(&key(1), None);
        let sealed = ring.seal(&PLACE, b"geheim", &SeededRandom::new(1));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(ring.open(&PLACE, &String::from_utf8(changed).unwrap()).is_err(), "changed at {at}");
            assert!(ring.open(&PLACE, &sealed[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(ring.open(&PLACE, &format!("{sealed}.x")), Err(SealError::Malformed));
    }

    #[test]
    fn a_rotation_keeps_what_the_previous_key_sealed() {
        let (old, new) = (Keyring::new(&key(1), None), Keyring::new(&key(2), Some(&key(1))));
        let sealed = old.seal(&PLACE, b"geheim", &SeededRandom::new(1));
        assert!(old.is_current(&sealed) && !new.is_current(&sealed) && new.knows(&sealed));
        assert_eq!(new.open(&PLACE, &sealed).as_deref(), Ok(&b"geheim"[..]));
        let again = new.seal(&PLACE, b"geheim", &SeededRandom::new(2));
        assert!(new.is_current(&again) && !old.knows(&again));
        assert_eq!(old.open(&PLACE, &again), Err(SealError::UnknownKey));
        assert_eq!(Keyring::new(&key(3), Some(&key(2))).open(&PLACE, &sealed), Err(SealError::UnknownKey));
    }

    /// Another key with the id of the right one: the authentication tells, not the id.
    #[test]
    fn another_key_does_not_open() {
        let (one, mut two) = (Keyring::new(&key(1), None), Keyring::new(&key(2), None));
        let sealed = one.seal(&PLACE, b"geheim", &SeededRandom::new(1));
        two.current.id.clone_from(&one.current.id);
        assert_eq!(two.open(&PLACE, &sealed), Err(SealError::Damaged));
    }

    #[test]
    fn neither_nonces_repeat_nor_secrets_show() {
        let (ring, random) = (Keyring::new(&key(1), None), SeededRandom::new(1));
        assert_ne!(ring.seal(&PLACE, b"geheim", &random), ring.seal(&PLACE, b"geheim", &random));
        assert_eq!(format!("{ring:?} {:?}", SecretText::new("geheim")), "Keyring(…) SecretText(…)");
    }
}
