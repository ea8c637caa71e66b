//! The installation's secret key, and what is derived from it.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::seal::Keyring;

/// 32 secret bytes. They never show in a log: `Debug` hides them.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// The key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits; none when the text is anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// HMAC-SHA256 of `message` under this key, apart for every `purpose` (RFC 2104): a value made for one purpose
    /// means nothing for another.
    #[must_use]
    pub fn sign(&self, purpose: &str, message: &[u8]) -> [u8; 32] {
        self.mac(purpose, message).finalize().into_bytes().into()
    }

    /// Whether `signature` is [`Self::sign`] of `message`, in constant time.
    #[must_use]
    pub fn verify(&self, purpose: &str, message: &[u8], signature: &[u8]) -> bool {
        self.mac(purpose, message).verify_slice(signature).is_ok()
    }

    fn mac(&self, purpose: &str, message: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        // The length keeps purpose and message apart.
        mac.update(&(purpose.len() as u64).to_le_bytes());
        mac.update(purpose.as_bytes());
        mac.update(message);
        mac
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// The installation's secret keys: what is made from now on is made with the current one, and what was made with the
/// previous one still counts as long as it is there.
#[derive(Debug, Clone)]
pub struct SecretKeys {
    /// The key.
    pub current: SecretKey,
    /// The one before it.
    pub previous: Option<SecretKey>,
}

impl SecretKeys {
    /// The key with which `signature` is [`SecretKey::sign`] of `message`; none when it is neither.
    #[must_use]
    pub fn find_signing_key(&self, purpose: &str, message: &[u8], signature: &[u8]) -> Option<&SecretKey> {
        let mut keys = [Some(&self.current), self.previous.as_ref()].into_iter().flatten();
        keys.find(|key| key.verify(purpose, message, signature))
    }

    /// The keys that seal and open.
    #[must_use]
    pub fn keyring(&self) -> Keyring {
        Keyring::new(&self.current, self.previous.as_ref())
    }
}

impl From<SecretKey> for SecretKeys {
    fn from(current: SecretKey) -> Self {
        Self { current, previous: None }
    }
}

/// SHA-256 as lower-case hexadecimal: how secrets of high entropy are stored.
#[must_use]
pub fn hash(secret: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_apart_for_each_purpose() {
        let key = SecretKey::from_hex(&"0f".repeat(32)).unwrap();
        let signature = key.sign("session", b"message");
        assert!(key.verify("session", b"message", &signature));
        assert!(!key.verify("handle", b"message", &signature));
        assert!(!key.verify("session", b"messages", &signature));
        assert_ne!(key.sign("ab", b"c"), key.sign("a", b"bc"));
        assert_eq!(format!("{key:?}"), "SecretKey(…)");
        let other = SecretKey::new([7; 32]);
        let keys = SecretKeys { current: other.clone(), previous: Some(key.clone()) };
        let signed =
            |keys: &SecretKeys| keys.find_signing_key("session", b"message", &signature).map(|key| key.sign("a", b"b"));
        assert_eq!(signed(&keys), Some(key.sign("a", b"b")), "with the previous one");
        assert_eq!(signed(&key.into()), signed(&keys));
        assert_eq!(signed(&other.into()), None);
        assert!(SecretKey::from_hex("0f").is_none() && SecretKey::from_hex(&"0g".repeat(32)).is_none());
    }
}
