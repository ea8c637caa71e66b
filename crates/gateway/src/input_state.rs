//! The state of a request that requires input (2026-07-28, "Multi Round-Trip Requests").
//!
//! Invariants:
//! 1. An agent never sees the state of a server, and a server never receives a state that it did not send.
//! 2. A state is accepted only from the agent to which it was given, only for the same server, method, target and
//!    arguments, and only for [`LIFETIME_MS`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use waypost_core::caller::Ctx;
use waypost_core::id::{AgentId, InstanceId};
use waypost_core::seal::{Keyring, SealLocation};
use waypost_core::{Code, Error, Result, Timestamp};
use waypost_mcp_wire::canonical::Digest;
use waypost_mcp_wire::strict::{Message, text_of};

/// The time for which a state is accepted, in milliseconds.
pub(crate) const LIFETIME_MS: i64 = 10 * 60 * 1_000;
/// The maximum size of the state of a server, in bytes of JSON text.
const MAX_STATE: usize = 64 * 1024;

/// The content of a sealed state.
#[derive(Serialize, Deserialize)]
struct Content {
    #[serde(rename = "i")]
    instance: InstanceId,
    /// The digest of method, target and arguments.
    #[serde(rename = "d")]
    digest: String,
    #[serde(rename = "e")]
    expires_at: Timestamp,
    #[serde(flatten)]
    state: InputState,
}

/// The state from which a request continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum InputState {
    /// The state of a server that uses revision 2026-07-28: a string as JSON text.
    #[serde(rename = "s")]
    OfServer(String),
    /// The key of a parked call ([`crate::parked`]).
    #[serde(rename = "p")]
    Parked(String),
}

/// The agent that may return a state, and the request with which it may do so.
#[derive(Debug, Clone)]
pub(crate) struct InputBinding {
    pub(crate) agent: AgentId,
    pub(crate) instance: InstanceId,
    /// The request of the agent.
    pub(crate) text: Bytes,
}

impl InputBinding {
    /// Seals a state for the agent, and returns it as JSON text.
    ///
    /// # Errors
    /// `tool_server_error` if the state of the server is too large or not a string.
    pub(crate) fn seal(&self, keyring: &Keyring, cx: &Ctx, state: InputState) -> Result<String> {
        if let InputState::OfServer(state) = &state
            && (state.len() > MAX_STATE || !state.starts_with('"'))
        {
            let message = "The server asks for input with a state that is too large or no string.";
            return Err(Error::new(Code::ToolServerError, message).with("reason", "input_required"));
        }
        let request = Message::read(&self.text).map_err(|error| Error::internal(error.message))?;
        let content = Content {
            instance: self.instance.clone(),
            digest: digest(&request)?,
            expires_at: cx.now().plus(LIFETIME_MS),
            state,
        };
        let content = serde_json::to_vec(&content).map_err(Error::internal)?;
        Ok(format!("\"{}\"", keyring.seal(&location(&self.agent), &content, &*cx.random)))
    }
}

/// Opens the sealed state of a request. Returns `None` if it was not given to this agent for this server and request,
/// or has expired.
pub(crate) fn open(
    keyring: &Keyring,
    agent: &AgentId,
    instance: &InstanceId,
    (request, now): (&Message<'_>, Timestamp),
) -> Option<InputState> {
    let sealed = text_of(request.params.request_state)?;
    let content = keyring.open(&location(agent), &sealed).ok()?;
    let content: Content = serde_json::from_slice(&content).ok()?;
    let is_valid =
        content.instance == *instance && now < content.expires_at && content.digest == digest(request).ok()?;
    is_valid.then_some(content.state)
}

/// Returns the location that binds a state to its agent.
fn location(agent: &AgentId) -> SealLocation<'_> {
    SealLocation { table: "gateway", column: "input_state", row: agent.as_str() }
}

fn digest(request: &Message<'_>) -> Result<String> {
    let arguments: Value = match request.params.arguments {
        Some(raw) => serde_json::from_str(raw).map_err(Error::internal)?,
        None => Value::Null,
    };
    let bound = json!([request.method, text_of(request.target()), arguments]);
    Digest::of(&bound).map(Digest::to_hex).map_err(Error::internal)
}

#[cfg(test)]
mod tests {
    use waypost_core::secret::SecretKey;

    use super::*;

    fn request(tool: &str, arguments: &str, state: &str) -> String {
        let params = format!(r#"{{"name":"{tool}","arguments":{arguments},"requestState":{state}}}"#);
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
    }

    #[test]
    fn a_state_is_bound_to_agent_server_and_request() {
        let cx = Ctx::operator();
        let keyring = Keyring::new(&SecretKey::new([7; 32]), None);
        let [agent, other] = ["agt_1", "agt_2"].map(|id| AgentId::from_store(id.to_owned()));
        let [instance, another] = ["ins_1", "ins_2"].map(|id| InstanceId::from_store(id.to_owned()));
        let first = request("t", r#"{"a":1,"b":2}"#, "null");
        let binding = InputBinding { agent: agent.clone(), instance: instance.clone(), text: first.into() };
        let own = InputState::OfServer(r#""s\u0041""#.to_owned());
        let sealed = binding.seal(&keyring, &cx, own.clone()).unwrap();
        let now = cx.now();
        let open = |text: &str, agent: &AgentId, instance: &InstanceId, now: Timestamp| {
            super::open(&keyring, agent, instance, (&Message::read(text.as_bytes()).unwrap(), now))
        };
        let again = request("t", r#"{"b":2, "a":1}"#, &sealed);
        assert_eq!(open(&again, &agent, &instance, now), Some(own));
        let parked = InputState::Parked("key".to_owned());
        let again_parked = request("t", r#"{"a":1,"b":2}"#, &binding.seal(&keyring, &cx, parked.clone()).unwrap());
        assert_eq!(open(&again_parked, &agent, &instance, now), Some(parked));
        assert_eq!(open(&again, &other, &instance, now), None, "another agent");
        assert_eq!(open(&again, &agent, &another, now), None, "another server");
        assert_eq!(open(&again, &agent, &instance, now.plus(LIFETIME_MS + 1_000)), None, "expired");
        assert_eq!(open(&request("u", r#"{"a":1,"b":2}"#, &sealed), &agent, &instance, now), None, "another tool");
        assert_eq!(open(&request("t", r#"{"a":1}"#, &sealed), &agent, &instance, now), None, "other arguments");
        let tampered = sealed.replacen(|c: char| c.is_ascii_uppercase(), "0", 1);
        for state in [tampered.as_str(), "null", "7", r#""""#, r#""s\u0041""#] {
            assert_eq!(open(&request("t", r#"{"a":1,"b":2}"#, state), &agent, &instance, now), None, "{state}");
        }
        for state in ["7", "null", &format!("\"{}\"", "x".repeat(MAX_STATE))] {
            let error = binding.seal(&keyring, &cx, InputState::OfServer(state.to_owned())).unwrap_err();
            assert_eq!(error.details["reason"], "input_required");
        }
    }
}
