//! Sessions of agents that use the revisions with a handshake (2025-11-25, "Session Management").
//!
//! The session ID is sealed and contains everything that the gateway needs, so it is valid in every process, even after
//! a restart. Only later changes are kept in memory: the level of log messages, and the end of the session.
//!
//! Invariants:
//! 1. A session belongs to one agent and one address. For others, it is unknown (404).
//! 2. A session does not authenticate a request: the token does, and is checked first.
//! 3. The memory for changes is bounded. A session whose changes were evicted has the defaults: it gets all log
//!    messages, and has not ended.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, random_part};
use waypost_core::seal::{Keyring, SealLocation};
use waypost_core::{Error, Result, Timestamp};
use waypost_mcp_wire::LIFETIME_MS;
use waypost_mcp_wire::client_capabilities::ClientCapabilities;
use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::revision::SESSION_HEADER;
use waypost_mcp_wire::strict::Message;

use crate::GatewayAddress;

/// The maximum length of a session ID. Longer ones are rejected unread.
const MAX_LENGTH: usize = 1_024;
/// The number of sessions whose changes are remembered.
const REMEMBERED: usize = 10_000;

/// A session of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The address at which the session began.
    #[serde(rename = "o")]
    organization: Option<String>,
    #[serde(rename = "s")]
    tool_set: Option<String>,
    #[serde(rename = "t")]
    issued_at: Timestamp,
    /// 80 random bits, which identify the session.
    #[serde(rename = "r")]
    pub(crate) key: String,
    /// The capabilities that the agent declared, see [`ClientCapabilities::bits`].
    #[serde(rename = "c")]
    capabilities: u8,
}

impl Session {
    /// Creates a session, which begins with the response to `initialize`.
    pub(crate) fn new(address: &GatewayAddress, request: &Message<'_>, cx: &Ctx) -> Self {
        Self {
            organization: address.organization.clone(),
            tool_set: address.tool_set.clone(),
            issued_at: cx.now(),
            key: random_part(&*cx.random),
            capabilities: ClientCapabilities::parse(request.params.capabilities).bits(),
        }
    }

    /// Returns the capabilities that the agent declared.
    pub(crate) fn capabilities(&self) -> ClientCapabilities {
        ClientCapabilities::from_bits(self.capabilities)
    }

    /// Seals the session, and returns the session ID.
    ///
    /// # Errors
    /// `internal` if the session cannot be sealed.
    pub(crate) fn seal(&self, keyring: &Keyring, agent: &AgentId, cx: &Ctx) -> Result<HeaderValue> {
        let text = serde_json::to_vec(self).map_err(Error::internal)?;
        let sealed = keyring.seal(&location(agent), &text, &*cx.random);
        HeaderValue::try_from(sealed).map_err(Error::internal)
    }

    /// Opens a session ID. Returns `None` if it does not belong to this agent and address, or has expired.
    fn open(
        keyring: &Keyring,
        agent: &AgentId,
        address: &GatewayAddress,
        (id, now): (&str, Timestamp),
    ) -> Option<Self> {
        if id.len() > MAX_LENGTH {
            return None;
        }
        let text = keyring.open(&location(agent), id).ok()?;
        let session: Self = serde_json::from_slice(&text).ok()?;
        let is_here = session.organization == address.organization && session.tool_set == address.tool_set;
        // The clocks of replicas may differ by one minute.
        let is_valid = (-60_000..LIFETIME_MS).contains(&now.since(session.issued_at));
        (is_here && is_valid).then_some(session)
    }
}

/// Returns the location that binds a session ID to its agent.
fn location(agent: &AgentId) -> SealLocation<'_> {
    SealLocation { table: "gateway", column: "session", row: agent.as_str() }
}

/// The changes that agents have made to their sessions.
#[derive(Debug)]
pub(crate) struct Sessions(Mutex<LruCache<String, Changes>>);

#[derive(Debug, Default, Clone, Copy)]
struct Changes {
    log_level: Option<LogLevel>,
    has_ended: bool,
}

impl Default for Sessions {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Sessions {
    /// Returns the session of a request; `Some(None)` if the request has none, and `None` if it is unknown or has ended.
    pub(crate) fn find(
        &self,
        keyring: &Keyring,
        agent: &AgentId,
        address: &GatewayAddress,
        (headers, now): (&HeaderMap, Timestamp),
    ) -> Option<Option<Session>> {
        let mut ids = headers.get_all(SESSION_HEADER).iter();
        let Some(id) = ids.next() else { return Some(None) };
        let id = id.to_str().ok().filter(|_| ids.next().is_none())?;
        let session = Session::open(keyring, agent, address, (id, now))?;
        let has_ended = self.changes().peek(&session.key).is_some_and(|changes| changes.has_ended);
        (!has_ended).then_some(Some(session))
    }

    /// Ends a session. Other processes are not informed, which is harmless: a session does not authenticate requests.
    pub(crate) fn end(&self, session: &Session) {
        self.change(session, |changes| changes.has_ended = true);
    }

    /// Sets the minimum level of the log messages that the agent wants.
    pub(crate) fn set_log_level(&self, session: &Session, level: LogLevel) {
        self.change(session, |changes| changes.log_level = Some(level));
    }

    /// Returns the level that the agent has set; `None` if it has set none.
    pub(crate) fn log_level(&self, session: &Session) -> Option<LogLevel> {
        self.changes().get(&session.key)?.log_level
    }

    fn change(&self, session: &Session, change: impl FnOnce(&mut Changes)) {
        let mut all = self.changes();
        let mut changes = all.get(&session.key).copied().unwrap_or_default();
        change(&mut changes);
        all.insert(session.key.clone(), changes);
    }

    fn changes(&self) -> MutexGuard<'_, LruCache<String, Changes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use waypost_core::secret::SecretKey;

    use super::*;

    const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{"roots":{}}}}"#;

    fn headers(id: &HeaderValue) -> HeaderMap {
        HeaderMap::from_iter([(SESSION_HEADER.parse().unwrap(), id.clone())])
    }

    #[test]
    fn a_session_is_valid_for_its_agent_and_address_until_it_ends() {
        let cx = Ctx::operator();
        let keyring = Keyring::new(&SecretKey::new([7; 32]), None);
        let [agent, other] = ["agt_1", "agt_2"].map(|id| AgentId::from_store(id.to_owned()));
        let here = GatewayAddress { organization: Some("acme".to_owned()), tool_set: None };
        let elsewhere = GatewayAddress { tool_set: Some("set".to_owned()), ..here.clone() };
        let session = Session::new(&here, &Message::read(INITIALIZE.as_bytes()).unwrap(), &cx);
        assert_eq!(session.capabilities().to_json(), r#"{"roots":{}}"#);
        let id = session.seal(&keyring, &agent, &cx).unwrap();
        assert!(
            id.len() <= MAX_LENGTH && id.as_bytes().iter().all(|byte| (0x21..=0x7e).contains(byte)),
            "visible ASCII"
        );

        let (sessions, now) = (Sessions::default(), session.issued_at);
        let find = |agent: &AgentId, address: &GatewayAddress, now: Timestamp| {
            sessions.find(&keyring, agent, address, (&headers(&id), now)).flatten()
        };
        assert_eq!(find(&agent, &here, now), Some(session.clone()));
        assert_eq!(find(&agent, &here, now.plus(LIFETIME_MS - 1)), Some(session.clone()));
        assert_eq!(find(&agent, &here, now.plus(LIFETIME_MS)), None, "expired");
        assert_eq!(find(&agent, &here, now.plus(-60_001)), None, "from the future");
        assert_eq!(find(&other, &here, now), None, "another agent");
        assert_eq!(find(&agent, &elsewhere, now), None, "another address");
        let mut two = headers(&id);
        two.append(SESSION_HEADER, id.clone());
        for invalid in
            [two, headers(&HeaderValue::from_static("x")), headers(&HeaderValue::from_bytes(&[0xff]).unwrap())]
        {
            assert_eq!(sessions.find(&keyring, &agent, &here, (&invalid, now)), None, "{invalid:?}");
        }
        assert_eq!(sessions.find(&keyring, &agent, &here, (&HeaderMap::new(), now)), Some(None), "no session");

        sessions.set_log_level(&session, LogLevel::Error);
        assert_eq!(sessions.log_level(&session), Some(LogLevel::Error));
        sessions.end(&session);
        assert_eq!(find(&agent, &here, now), None, "ended");
    }
}
