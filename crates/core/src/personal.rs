//! Personal IDs: the tracking IDs that the public page generates, one per visitor.
//!
//! A tracking ID chosen by an organisation is a label. A personal ID is a bearer secret that gives access to the user's
//! progress, so it is never stored or logged, and is shown only to its user. Everything behind the router uses its
//! [`stored_form`], a hash that cannot appear in a URL as a tracking ID because it contains a `:`.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

use crate::id::{ServerId, base32};
use crate::random::Random;
use crate::secret::SecretKeys;
use crate::slug::is_tracking_id;

/// The prefix that distinguishes personal IDs from labels.
pub const PREFIX: &str = "pu_";
/// The prefix of the [`stored_form`].
pub const STORED_PREFIX: &str = "personal:";
/// Random bytes in a personal ID: 128 bits.
const BYTES: usize = 16;
/// Characters after the prefix: 128 bits in base 32.
const CHARS: usize = 26;
/// The purpose of the cookie's signature.
const PURPOSE: &str = "cookie of a public page";

/// A personal ID, such as `pu_1k3…`.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonalId(String);

impl PersonalId {
    /// Generates a personal ID with 128 random bits.
    #[must_use]
    pub fn new(random: &dyn Random) -> Self {
        let mut bytes = [0_u8; BYTES];
        random.fill(&mut bytes);
        Self(format!("{PREFIX}{}", base32(&bytes)))
    }

    /// Parses a personal ID. Returns `None` if the text does not have exactly the generated form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX)?;
        // Crockford's alphabet omits `i`, `l`, `o` and `u`.
        let is_symbol = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'z') && !b"ilou".contains(&byte);
        (rest.len() == CHARS && rest.bytes().all(is_symbol)).then(|| Self(text.to_owned()))
    }

    /// Returns the secret, for the page that shows it to its user.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the value of the cookie that remembers this ID for one server. It contains a signature, so a forged
    /// value or a value issued for another server is ignored.
    #[must_use]
    pub fn to_cookie(&self, keys: &SecretKeys, server: &ServerId) -> String {
        let signature = keys.current.sign(PURPOSE, self.signed_text(server).as_bytes());
        format!("{}.{}", self.0, BASE64URL_NOPAD.encode(&signature))
    }

    /// Parses a cookie value. Returns `None` unless this installation issued it for this server.
    #[must_use]
    pub fn from_cookie(value: &str, keys: &SecretKeys, server: &ServerId) -> Option<Self> {
        let (id, signature) = value.split_once('.')?;
        let id = Self::parse(id)?;
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        keys.find_signing_key(PURPOSE, id.signed_text(server).as_bytes(), &signature)?;
        Some(id)
    }

    fn signed_text(&self, server: &ServerId) -> String {
        format!("{server} {}", self.0)
    }
}

impl fmt::Debug for PersonalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonalId(…)")
    }
}

/// Returns the form of a tracking ID that is stored, logged and shown: the hash of a personal ID, or any other ID
/// unchanged.
#[must_use]
pub fn stored_form(tracking_id: &str) -> Cow<'_, str> {
    match PersonalId::parse(tracking_id) {
        Some(id) => {
            let digest = Sha256::digest(id.0.as_bytes());
            Cow::Owned(format!("{STORED_PREFIX}{}", base32(&digest[..BYTES])))
        }
        None => Cow::Borrowed(tracking_id),
    }
}

/// Replaces every personal ID in `text`, such as a URL, with its [`stored_form`].
#[must_use]
pub fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PREFIX) {
        let (before, from) = rest.split_at(at);
        let length = from.bytes().take_while(|byte| is_tracking_id(char::from(*byte).encode_utf8(&mut [0; 4]))).count();
        out.push_str(before);
        out.push_str(&stored_form(&from[..length]));
        rest = &from[length..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;
    use crate::secret::SecretKey;
    use proptest::prelude::*;

    fn keys(byte: u8) -> SecretKeys {
        SecretKey::new([byte; 32]).into()
    }

    fn server(letter: &str) -> ServerId {
        format!("srv_{}", letter.repeat(16)).parse().unwrap()
    }

    #[test]
    fn new_ids_are_unique_tracking_ids() {
        let random = SeededRandom::new(1);
        let (one, two) = (PersonalId::new(&random), PersonalId::new(&random));
        assert_ne!(one, two);
        for id in [&one, &two] {
            assert!(is_tracking_id(id.expose()) && id.expose().len() == 29, "{}", id.expose());
            assert_eq!(PersonalId::parse(id.expose()).as_ref(), Some(id));
        }
        assert_eq!(format!("{one:?}"), "PersonalId(…)");
    }

    #[test]
    fn labels_are_not_personal_ids() {
        let id = PersonalId::new(&SeededRandom::new(2)).0;
        let invalid = [
            String::new(),
            "customer-4711".to_owned(),
            "pu_".to_owned(),
            id.to_uppercase(),
            format!("{id}0"),
            id[..28].to_owned(),
            format!("{}u", &id[..28]),
            id.replace("pu_", "wp_"),
        ];
        for text in invalid {
            assert_eq!(PersonalId::parse(&text), None, "{text}");
            assert_eq!(stored_form(&text), text);
        }
    }

    #[test]
    fn the_stored_form_hides_the_id_and_is_not_a_tracking_id() {
        let id = PersonalId::new(&SeededRandom::new(3));
        let hash = stored_form(id.expose()).into_owned();
        assert!(hash.starts_with("personal:") && !hash.contains(&id.0[3..]) && !is_tracking_id(&hash), "{hash}");
        assert_eq!(stored_form(id.expose()), hash, "deterministic");
        assert_eq!(stored_form(&hash), hash, "idempotent");
        let url = format!("https://x.example/s/acme/t/{}/mcp?pu_=pu_x", id.expose());
        assert_eq!(mask(&url), format!("https://x.example/s/acme/t/{hash}/mcp?pu_=pu_x"));
    }

    #[test]
    fn a_cookie_is_valid_for_one_server_of_one_installation() {
        let id = PersonalId::new(&SeededRandom::new(4));
        let value = id.to_cookie(&keys(7), &server("a"));
        assert_eq!(PersonalId::from_cookie(&value, &keys(7), &server("a")), Some(id.clone()));
        assert_eq!(PersonalId::from_cookie(&value, &keys(7), &server("b")), None, "another server");
        assert_eq!(PersonalId::from_cookie(&value, &keys(8), &server("a")), None, "another installation");
        let rotated = SecretKeys { current: SecretKey::new([8; 32]), previous: Some(SecretKey::new([7; 32])) };
        assert_eq!(PersonalId::from_cookie(&value, &rotated, &server("a")), Some(id.clone()), "after a rotation");
        let other = PersonalId::new(&SeededRandom::new(5));
        let (_, signature) = value.split_once('.').unwrap();
        for forged in [
            id.expose().to_owned(),
            format!("{}.", id.expose()),
            format!("{}.{signature}", other.expose()),
            format!("customer-4711.{signature}"),
            format!("{value}0"),
            value.to_uppercase(),
        ] {
            assert_eq!(PersonalId::from_cookie(&forged, &keys(7), &server("a")), None, "{forged}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in any::<String>()) {
            let _ = (PersonalId::parse(&text), PersonalId::from_cookie(&text, &keys(1), &server("a")), stored_form(&text));
            prop_assert_eq!(mask(&text), text);
        }
    }
}
