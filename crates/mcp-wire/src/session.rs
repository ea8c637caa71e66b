//! Sessions of the revisions before 2026-07-28, without server-side state: the session ID is signed, and contains
//! everything that the server needs.
//!
//! The format is `BASE64URL(payload) . BASE64URL(HMAC-SHA256)`, both without padding: visible ASCII, as "Session
//! Management" of Streamable HTTP requires. The payload contains the server, the time, 128 random bits, the negotiated
//! revision and, if known, the end user and the client.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use waypost_core::id::{EndUserId, ServerId};
use waypost_core::secret::{SecretKey, SecretKeys, hash};
use waypost_core::{Random, Timestamp};

/// The lifetime of a session: 30 days, in milliseconds.
pub const LIFETIME_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
const PURPOSE: &str = "mcp session";
/// The maximum length of a session ID. Longer IDs are rejected without being read.
const MAX_LENGTH: usize = 1_024;
/// The maximum length of a client's name and of its version, in characters.
const MAX_CLIENT: usize = 64;
/// The number of hexadecimal digits of [`principal`].
const PRINCIPAL: usize = 16;

/// The content of a session ID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The only server on which the session is valid.
    #[serde(rename = "s")]
    pub server_id: ServerId,
    /// When the session was issued.
    #[serde(rename = "t")]
    pub issued_at: Timestamp,
    /// 128 random bits in hexadecimal.
    #[serde(rename = "r")]
    pub random: String,
    /// The negotiated revision.
    #[serde(rename = "v")]
    pub protocol_version: String,
    /// The digest of the end user to which the session is bound, if `initialize` had a token (see [`principal`]).
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The client's name and version, for the records of its calls. `None` if they are unknown.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    pub client: Option<(String, String)>,
}

/// A valid session.
#[derive(Debug)]
pub struct OpenedSession<'k> {
    /// The session.
    pub session: Session,
    /// The key that signed it. Values that are derived from this key survive a key rotation.
    pub key: &'k SecretKey,
}

impl Session {
    /// Creates a session on a server.
    #[must_use]
    pub fn new(
        server_id: ServerId,
        now: Timestamp,
        random: &dyn Random,
        protocol_version: String,
        client: Option<&(String, String)>,
    ) -> Self {
        let mut bytes = [0_u8; 16];
        random.fill(&mut bytes);
        let short = |text: &str| text.chars().take(MAX_CLIENT).collect();
        let client = client.map(|(name, version)| (short(name), short(version)));
        let random = data_encoding::HEXLOWER.encode(&bytes);
        Self { server_id, issued_at: now, random, protocol_version, principal: None, client }
    }

    /// Binds the session to an end user, if there is one.
    #[must_use]
    pub fn bound_to(self, end_user: Option<&EndUserId>) -> Self {
        Self { principal: end_user.map(principal), ..self }
    }

    /// Whether `end_user` can use this session. Any user can use a session that is not bound to a user (MCP, "Security
    /// Best Practices", session hijacking). A session never identifies a signed-in user; this check only keeps users
    /// apart.
    #[must_use]
    pub fn is_valid_for(&self, end_user: &EndUserId) -> bool {
        self.principal.as_ref().is_none_or(|own| *own == principal(end_user))
    }

    /// Returns the session ID for the client.
    #[must_use]
    pub fn seal(&self, secret: &SecretKey) -> String {
        let payload = serde_json::to_vec(self).unwrap_or_default();
        let signature = secret.sign(PURPOSE, &payload);
        format!("{}.{}", BASE64URL_NOPAD.encode(&payload), BASE64URL_NOPAD.encode(&signature))
    }

    /// Opens a session ID. Returns `None` if its signature is invalid, if it belongs to another server, if it was
    /// issued more than a minute in the future, or if it is older than 30 days.
    #[must_use]
    pub fn open<'k>(id: &str, keys: &'k SecretKeys, server_id: &ServerId, now: Timestamp) -> Option<OpenedSession<'k>> {
        if id.len() > MAX_LENGTH {
            return None;
        }
        let (payload, signature) = id.split_once('.')?;
        let payload = BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?;
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        let key = keys.find_signing_key(PURPOSE, &payload, &signature)?;
        let session: Self = serde_json::from_slice(&payload).ok()?;
        // Allow one minute of clock skew between replicas.
        let age = now.since(session.issued_at);
        (session.server_id == *server_id && (-60_000..LIFETIME_MS).contains(&age))
            .then_some(OpenedSession { session, key })
    }
}

/// Returns a short digest of an end user's ID, which does not reveal the ID.
fn principal(end_user: &EndUserId) -> String {
    hash(end_user.as_str()).chars().take(PRINCIPAL).collect()
}

#[cfg(test)]
mod tests {
    use waypost_core::random::SeededRandom;

    use super::*;

    #[test]
    fn only_signed_ids_are_accepted() {
        let secret = SecretKey::new([7; 32]);
        let server = ServerId::from_store("srv_1".into());
        let start = Timestamp(1_000_000_000);
        let session = Session::new(server.clone(), start, &SeededRandom::new(1), "2025-06-18".into(), None);
        let id = session.seal(&secret);
        assert!(id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "visible ASCII");
        let keys = SecretKeys::from(secret.clone());
        let open = |id: &str, keys: &SecretKeys, server: &ServerId, now| {
            let opened = Session::open(id, keys, server, now)?;
            assert_eq!(opened.key.sign("x", b"y"), secret.sign("x", b"y"), "the key that signed it");
            Some(opened.session)
        };
        assert_eq!(open(&id, &keys, &server, start), Some(session.clone()));
        let rotated = SecretKeys { current: SecretKey::new([8; 32]), previous: Some(secret.clone()) };
        assert_eq!(open(&id, &rotated, &server, start), Some(session.clone()), "signed with the previous key");
        assert_eq!(open(&id, &keys, &server, start.plus(LIFETIME_MS - 1)), Some(session));
        assert_eq!(open(&id, &keys, &server, start.plus(LIFETIME_MS)), None, "expired");
        assert_eq!(open(&id, &keys, &server, start.plus(-60_001)), None, "from the future");
        assert_eq!(open(&id, &SecretKey::new([8; 32]).into(), &server, start), None, "another key");
        assert_eq!(open(&id, &keys, &ServerId::from_store("srv_2".into()), start), None, "another server");
        for at in 0..id.len() {
            let mut changed = id.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(open(&changed, &keys, &server, start), None, "changed at {at}");
        }
        for invalid in ["", ".", "a.b", "é.é", &"a".repeat(10_000)] {
            assert_eq!(open(invalid, &keys, &server, start), None);
        }
    }

    #[test]
    fn a_bound_session_is_valid_for_its_user_only() {
        let secret = SecretKey::new([7; 32]);
        let (server, now) = (ServerId::from_store("srv_1".into()), Timestamp(1_000_000_000));
        let (anna, bert) = (EndUserId::from_store("eu_anna".into()), EndUserId::from_store("eu_bert".into()));
        let session = Session::new(server.clone(), now, &SeededRandom::new(1), "2025-06-18".into(), None);
        assert!(session.is_valid_for(&anna) && session.is_valid_for(&bert), "not bound to a user");
        let id = session.bound_to(Some(&anna)).seal(&secret);
        let keys = secret.into();
        let opened = Session::open(&id, &keys, &server, now).unwrap().session;
        assert!(opened.is_valid_for(&anna) && !opened.is_valid_for(&bert));
    }
}
