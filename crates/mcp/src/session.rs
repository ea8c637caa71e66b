//! Sessions of the revisions before 2026-07-28, without a row anywhere: the id that the client sends back says all
//! that the server has to know, and is signed.
//!
//! `BASE64URL(payload) . BASE64URL(HMAC-SHA256)`, both without padding: visible ASCII, as "Session Management" of
//! Streamable HTTP asks for. The payload holds server, time, 128 random bits and the negotiated revision.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use waypost_core::id::{EndUserId, ServerId};
use waypost_core::secret::{Keys, SecretKey, hash};
use waypost_core::{Random, Timestamp};
use waypost_ops::identity::session_handle;

/// A session is valid for 30 days.
pub const LIFETIME_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
const PURPOSE: &str = "mcp session";
/// The longest id that is looked at.
const MAX_LENGTH: usize = 1_024;
/// The longest name and version of a client, in characters.
const MAX_CLIENT: usize = 64;
/// Hexadecimal digits of [`principal`].
const PRINCIPAL: usize = 16;

/// What a session id says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The only server on which it is valid.
    #[serde(rename = "s")]
    pub server_id: ServerId,
    /// When it was made.
    #[serde(rename = "t")]
    pub issued_at: Timestamp,
    /// 128 random bits, hexadecimal: by these the end user is found.
    #[serde(rename = "r")]
    pub random: String,
    /// The negotiated revision.
    #[serde(rename = "v")]
    pub protocol_version: String,
    /// For whom it was made, when a token came with `initialize`: see [`principal`].
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// What the client called itself, for the record of its calls.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    pub client: Option<(String, String)>,
    /// The handle that it stands for, once it was opened. The same key makes it that signed the session: it stays when
    /// the key is replaced.
    #[serde(skip)]
    pub handle: Option<String>,
}

impl Session {
    /// A new session on a server.
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
        Self { server_id, issued_at: now, random, protocol_version, principal: None, client, handle: None }
    }

    /// The same session, for one end user alone.
    #[must_use]
    pub fn bound_to(self, end_user: Option<&EndUserId>) -> Self {
        Self { principal: end_user.map(principal), ..self }
    }

    /// Whether `end_user` may use this session: everybody may use one that was made for nobody (MCP, "Security Best
    /// Practices", session hijacking). It identifies nobody; this only keeps what belongs to two users apart.
    #[must_use]
    pub fn admits(&self, end_user: &EndUserId) -> bool {
        self.principal.as_ref().is_none_or(|own| *own == principal(end_user))
    }

    /// The id for the client.
    #[must_use]
    pub fn seal(&self, secret: &SecretKey) -> String {
        let payload = serde_json::to_vec(self).unwrap_or_default();
        let signature = secret.sign(PURPOSE, &payload);
        format!("{}.{}", BASE64URL_NOPAD.encode(&payload), BASE64URL_NOPAD.encode(&signature))
    }

    /// Reads an id; none when it is not ours, not of this server, from the future or older than 30 days.
    #[must_use]
    pub fn open(id: &str, keys: &Keys, server_id: &ServerId, now: Timestamp) -> Option<Self> {
        if id.len() > MAX_LENGTH {
            return None;
        }
        let (payload, signature) = id.split_once('.')?;
        let payload = BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?;
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        let key = keys.that_signed(PURPOSE, &payload, &signature)?;
        let session: Self = serde_json::from_slice(&payload).ok()?;
        let handle = Some(session_handle(key, session.random.as_bytes()));
        // A minute of grace for replicas whose clocks differ.
        let age = now.since(session.issued_at);
        (session.server_id == *server_id && (-60_000..LIFETIME_MS).contains(&age)).then_some(Self { handle, ..session })
    }
}

/// A short name of an end user that tells nobody who they are.
fn principal(end_user: &EndUserId) -> String {
    hash(end_user.as_str()).chars().take(PRINCIPAL).collect()
}

#[cfg(test)]
mod tests {
    use waypost_core::random::SeededRandom;

    use super::*;

    #[test]
    fn opens_only_what_it_sealed() {
        let secret = SecretKey::new([7; 32]);
        let server = ServerId::from_store("srv_1".into());
        let start = Timestamp(1_000_000_000);
        let session = Session::new(server.clone(), start, &SeededRandom::new(1), "2025-06-18".into(), None);
        let id = session.seal(&secret);
        assert!(id.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "visible ASCII");
        let keys = Keys::from(secret.clone());
        let handle = Some(session_handle(&secret, session.random.as_bytes()));
        let session = Session { handle, ..session };
        assert_eq!(Session::open(&id, &keys, &server, start), Some(session.clone()));
        let rotated = Keys { current: SecretKey::new([8; 32]), previous: Some(secret.clone()) };
        assert_eq!(Session::open(&id, &rotated, &server, start), Some(session.clone()), "the same handle");
        assert_eq!(Session::open(&id, &keys, &server, start.plus(LIFETIME_MS - 1)), Some(session));
        assert_eq!(Session::open(&id, &keys, &server, start.plus(LIFETIME_MS)), None, "expired");
        assert_eq!(Session::open(&id, &keys, &server, start.plus(-60_001)), None, "from the future");
        assert_eq!(Session::open(&id, &SecretKey::new([8; 32]).into(), &server, start), None, "another key");
        assert_eq!(Session::open(&id, &keys, &ServerId::from_store("srv_2".into()), start), None, "another server");
        for at in 0..id.len() {
            let mut changed = id.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(Session::open(&changed, &keys, &server, start), None, "changed at {at}");
        }
        for nonsense in ["", ".", "a.b", "é.é", &"a".repeat(10_000)] {
            assert_eq!(Session::open(nonsense, &keys, &server, start), None);
        }
    }
    #[test]
    fn is_bound_to_whom_it_was_made_for() {
        let secret = SecretKey::new([7; 32]);
        let (server, now) = (ServerId::from_store("srv_1".into()), Timestamp(1_000_000_000));
        let (anna, bert) = (EndUserId::from_store("eu_anna".into()), EndUserId::from_store("eu_bert".into()));
        let session = Session::new(server.clone(), now, &SeededRandom::new(1), "2025-06-18".into(), None);
        assert!(session.admits(&anna) && session.admits(&bert), "made for nobody");
        let id = session.bound_to(Some(&anna)).seal(&secret);
        let opened = Session::open(&id, &secret.into(), &server, now).unwrap();
        assert!(opened.admits(&anna) && !opened.admits(&bert));
    }
}
