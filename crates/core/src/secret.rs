//! The installation's secret key and its derived keys and signatures.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::seal::Keyring;

/// A 32-byte secret key. `Debug` hides the bytes, so that they are never logged.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Creates a key from its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Parses 64 hexadecimal digits. Returns `None` for any other text.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// Returns the HMAC-SHA256 of `message` under this key (RFC 2104), with domain separation by `purpose`: a signature
    /// for one purpose is invalid for any other.
    #[must_use]
    pub fn sign(&self, purpose: &str, message: &[u8]) -> [u8; 32] {
        self.mac(purpose, message).finalize().into_bytes().into()
    }

    /// Verifies that `signature` was created by [`Self::sign`] for `message`, in constant time.
    #[must_use]
    pub fn verify(&self, purpose: &str, message: &[u8], signature: &[u8]) -> bool {
        self.mac(purpose, message).verify_slice(signature).is_ok()
    }

    fn mac(&self, purpose: &str, message: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        // The length prefix separates the purpose from the message.
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

/// The installation's secret keys. The current key signs and encrypts; values from the previous key remain valid while
/// it is configured.
#[derive(Debug, Clone)]
pub struct SecretKeys {
    /// The current key.
    pub current: SecretKey,
    /// The previous key.
    pub previous: Option<SecretKey>,
}

impl SecretKeys {
    /// Returns the key that created `signature` for `message`. Returns `None` if neither key did.
    #[must_use]
    pub fn find_signing_key(&self, purpose: &str, message: &[u8], signature: &[u8]) -> Option<&SecretKey> {
        let mut keys = [Some(&self.current), self.previous.as_ref()].into_iter().flatten();
        keys.find(|key| key.verify(purpose, message, signature))
    }

    /// Returns the keyring for sealing and opening secrets.
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

/// Returns the SHA-256 in lowercase hexadecimal, the form in which high-entropy secrets are stored.
#[must_use]
pub fn hash(secret: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_separated_by_purpose() {
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
        assert_eq!(signed(&keys), Some(key.sign("a", b"b")), "with the previous key");
        assert_eq!(signed(&key.into()), signed(&keys));
        assert_eq!(signed(&other.into()), None);
        assert!(SecretKey::from_hex("0f").is_none() && SecretKey::from_hex(&"0g".repeat(32)).is_none());
    }
}
