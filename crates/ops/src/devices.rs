//! Device cookies: signed cookies of browsers that have signed in before. Attempts from other clients do not lock out
//! these browsers (OWASP, "Slow Down Online Guessing Attacks with Device Cookies").
//!
//! The cookie is bound to one account. It contains a nonce and a stamp (a MAC of the account's password hash), so a new
//! password invalidates every cookie of the account. It is not a credential: a password or a code is still required.

use data_encoding::BASE64URL_NOPAD;
use waypost_core::secret::SecretKey;
use waypost_core::{Random, Timestamp};

/// The lifetime of a cookie in milliseconds.
pub const LIFETIME_MS: i64 = 90 * 24 * 60 * 60 * 1_000;
const COOKIE: &str = "device cookie";
const STAMP: &str = "password of a device cookie";
const NONCE_BYTES: usize = 16;
const STAMP_BYTES: usize = 16;
/// The length of the signed content: the time of issue in milliseconds, the nonce and the stamp.
const CONTENT_BYTES: usize = 8 + NONCE_BYTES + STAMP_BYTES;

/// A browser that has signed in before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    nonce: [u8; NONCE_BYTES],
    stamp: [u8; STAMP_BYTES],
}

impl Device {
    /// Returns the nonce that identifies the browser.
    pub(crate) fn nonce(&self) -> &[u8] {
        &self.nonce
    }

    /// Whether the account has the same password as when the cookie was issued. `password_hash` is the current hash, or
    /// `None` if the account has no password.
    pub(crate) fn is_current(&self, secret: &SecretKey, password_hash: Option<&str>) -> bool {
        self.stamp == stamp(secret, password_hash)
    }
}

/// Returns the cookie for a browser that has just signed in to `account`, whose password has the hash `password_hash`.
pub(crate) fn issue(
    secret: &SecretKey,
    random: &dyn Random,
    account: &str,
    password_hash: Option<&str>,
    now: Timestamp,
) -> String {
    let mut nonce = [0_u8; NONCE_BYTES];
    random.fill(&mut nonce);
    let mut bytes = now.0.to_be_bytes().to_vec();
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&stamp(secret, password_hash));
    let signature = secret.sign(COOKIE, &message(&bytes, account));
    bytes.extend_from_slice(&signature);
    BASE64URL_NOPAD.encode(&bytes)
}

/// Parses the cookie of a browser for `account`. Returns `None` if it is malformed, is for another account, has
/// expired, or was not issued by this installation. [`Device::is_current`] checks whether it is still valid.
pub(crate) fn read(secret: &SecretKey, account: &str, cookie: &str, now: Timestamp) -> Option<Device> {
    let bytes = BASE64URL_NOPAD.decode(cookie.as_bytes()).ok()?;
    let (content, signature) = bytes.split_at_checked(CONTENT_BYTES)?;
    if !secret.verify(COOKIE, &message(content, account), signature) {
        return None;
    }
    let (issued_at, rest) = content.split_first_chunk()?;
    let (nonce, stamp) = rest.split_first_chunk()?;
    let age = now.0 - i64::from_be_bytes(*issued_at);
    let device = Device { nonce: *nonce, stamp: stamp.try_into().ok()? };
    (0..LIFETIME_MS).contains(&age).then_some(device)
}

fn message(content: &[u8], account: &str) -> Vec<u8> {
    [content, account.as_bytes()].concat()
}

fn stamp(secret: &SecretKey, password_hash: Option<&str>) -> [u8; STAMP_BYTES] {
    let signature = secret.sign(STAMP, password_hash.unwrap_or_default().as_bytes());
    let mut stamp = [0; STAMP_BYTES];
    for (to, from) in stamp.iter_mut().zip(signature.iter()) {
        *to = *from;
    }
    stamp
}

#[cfg(test)]
mod tests {
    use waypost_core::random::SeededRandom;

    use super::*;

    #[test]
    fn a_cookie_is_bound_to_account_password_key_and_time() {
        let (secret, other, random) = (SecretKey::new([1; 32]), SecretKey::new([2; 32]), SeededRandom::new(1));
        let now = Timestamp(1_790_000_000_000);
        let cookie = issue(&secret, &random, "anna@x.de", Some("hash"), now);
        assert_eq!(cookie.len(), 96);
        let device = read(&secret, "anna@x.de", &cookie, now).unwrap();
        assert!(device.is_current(&secret, Some("hash")));
        assert!(!device.is_current(&secret, Some("new")) && !device.is_current(&secret, None));
        assert_ne!(cookie, issue(&secret, &random, "anna@x.de", Some("hash"), now));
        assert_eq!(read(&secret, "berta@x.de", &cookie, now), None);
        assert_eq!(read(&other, "anna@x.de", &cookie, now), None);
        assert_eq!(read(&secret, "anna@x.de", &cookie, now.plus(-1)), None);
        assert!(read(&secret, "anna@x.de", &cookie, now.plus(LIFETIME_MS - 1)).is_some());
        assert_eq!(read(&secret, "anna@x.de", &cookie, now.plus(LIFETIME_MS)), None);
        for index in 0..cookie.len() {
            let mut forged = cookie.clone().into_bytes();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(read(&secret, "anna@x.de", &String::from_utf8(forged).unwrap(), now), None, "{index}");
        }
        assert_eq!(read(&secret, "anna@x.de", "", now), None);
        assert!(issue(&secret, &random, "a", None, now) != cookie);
    }
}
