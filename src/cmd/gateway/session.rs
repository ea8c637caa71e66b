//! The session with the gateway (2025-11-25, "Session Management"), and the client state that is restored in a new
//! session.
//!
//! Invariants:
//! 1. Each session has its own number, which is never reused: a message that fails in a session causes only that
//!    session to be replaced.
//! 2. The remembered state is bounded: one `initialize` request, one log level, and up to [`MAX_SUBSCRIPTIONS`]
//!    resources.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::watch;
use waypost_gateway::MAX_SUBSCRIPTIONS;
use waypost_mcp_wire::log_level::LogLevel;
use waypost_mcp_wire::revision::{SESSION_HEADER, VERSION_HEADER};
use waypost_mcp_wire::strict::{Message, ResultMembers, text_of};

/// The capabilities for which a gateway can declare `listChanged`, and the methods of their notifications.
const LISTS: &[(&str, &str)] = &[
    ("tools", "notifications/tools/list_changed"),
    ("prompts", "notifications/prompts/list_changed"),
    ("resources", "notifications/resources/list_changed"),
];

/// A session. Before the handshake, its number is 0 and it has no ID.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    pub(super) number: u64,
    /// The ID, if the gateway has sent one.
    pub(super) id: Option<HeaderValue>,
    /// The negotiated protocol revision, which is sent with every message.
    pub(super) revision: Option<String>,
    /// Whether the client has sent `notifications/initialized`.
    pub(super) is_initialized: bool,
    /// Whether the session has replaced one that the gateway no longer knew.
    pub(super) is_replacement: bool,
}

impl Session {
    /// Adds the headers with which every message of the session is sent.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        if let Some(revision) = self.revision.as_deref().and_then(|revision| HeaderValue::try_from(revision).ok()) {
            headers.insert(VERSION_HEADER, revision);
        }
        if let Some(id) = &self.id {
            headers.insert(SESSION_HEADER, id.clone());
        }
    }
}

/// The current session.
#[derive(Debug)]
pub(super) struct Sessions {
    current: watch::Sender<Session>,
    remembered: Mutex<Remembered>,
}

/// The state that the client has set up in its session.
#[derive(Debug, Default)]
struct Remembered {
    /// The `initialize` request.
    initialize: String,
    /// The methods of the `list_changed` notifications that the gateway has declared.
    list_changes: Vec<&'static str>,
    log_level: Option<LogLevel>,
    /// The URIs of the resources to which the client is subscribed.
    subscriptions: Vec<String>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { current: watch::Sender::new(Session::default()), remembered: Mutex::default() }
    }
}

impl Sessions {
    /// Returns the current session.
    pub(super) fn current(&self) -> Session {
        Session::clone(&self.current.borrow())
    }

    /// Returns a receiver that is notified whenever the current session changes.
    pub(super) fn watch(&self) -> watch::Receiver<Session> {
        self.current.subscribe()
    }

    /// Begins a session after the handshake of the client. Discards the state of the previous session.
    pub(super) fn begin(&self, request: &Message<'_>, id: Option<HeaderValue>, result: &ResultMembers<'_>) {
        let capabilities: Value =
            result.capabilities.and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
        let list_changes = LISTS.iter().filter(|(list, _)| capabilities[*list]["listChanged"] == true);
        *self.remembered() = Remembered {
            initialize: request.text.to_owned(),
            list_changes: list_changes.map(|(_, method)| *method).collect(),
            ..Remembered::default()
        };
        let revision = text_of(result.protocol_version).map(Cow::into_owned);
        self.current.send_modify(|current| {
            *current = Session { number: current.number + 1, id, revision, ..Session::default() };
        });
    }

    /// Records that the client has sent `notifications/initialized`.
    pub(super) fn confirm(&self) {
        self.current.send_if_modified(|current| {
            let is_changed = current.number > 0 && !current.is_initialized;
            current.is_initialized |= is_changed;
            is_changed
        });
    }

    /// Replaces the session with this number by one with another ID, unless it is no longer the current session.
    pub(super) fn replace(&self, number: u64, id: Option<HeaderValue>) {
        self.current.send_if_modified(|current| {
            let is_current = current.number == number;
            if is_current {
                current.number += 1;
                current.id = id;
                current.is_replacement = true;
            }
            is_current
        });
    }

    /// Remembers a request of the client that the gateway has answered with a result.
    pub(super) fn remember(&self, request: &Message<'_>) {
        let uri = text_of(request.target());
        let mut remembered = self.remembered();
        match (request.method.as_deref(), uri) {
            (Some("logging/setLevel"), _) => remembered.log_level = LogLevel::parse(request.params.level),
            (Some("resources/subscribe"), Some(uri)) => {
                let subscriptions = &mut remembered.subscriptions;
                if subscriptions.len() < MAX_SUBSCRIPTIONS && !subscriptions.iter().any(|known| *known == uri) {
                    subscriptions.push(uri.into_owned());
                }
            }
            (Some("resources/unsubscribe"), Some(uri)) => remembered.subscriptions.retain(|known| *known != uri),
            _ => {}
        }
    }

    /// Returns the `initialize` request of the client.
    pub(super) fn initialize_request(&self) -> String {
        self.remembered().initialize.clone()
    }

    /// Returns the request that sets the log level again; `None` if the client has not set one.
    pub(super) fn log_level_request(&self) -> Option<String> {
        let level = self.remembered().log_level?;
        Some(request("waypost-level", "logging/setLevel", &json!({ "level": level.as_str() })))
    }

    /// Returns the requests that subscribe to all resources again.
    pub(super) fn subscription_requests(&self) -> Vec<String> {
        let remembered = self.remembered();
        let numbered = remembered.subscriptions.iter().enumerate();
        let subscribe = |(number, uri): (usize, &String)| {
            request(&format!("waypost-{number}"), "resources/subscribe", &json!({ "uri": uri }))
        };
        numbered.map(subscribe).collect()
    }

    /// Returns the `list_changed` notifications that the gateway has declared to the client.
    pub(super) fn list_changes(&self) -> Vec<Vec<u8>> {
        let notification = |method: &&str| json!({ "jsonrpc": "2.0", "method": method }).to_string().into_bytes();
        self.remembered().list_changes.iter().map(notification).collect()
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a request that is sent by this command, not by the client. Its response is the body of the HTTP response, so
/// the ID may be equal to one that the client uses.
fn request(id: &str, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(sessions: &Sessions, capabilities: &Value) {
        let request = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
        let result = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities });
        let response = json!({ "jsonrpc": "2.0", "id": 1, "result": result }).to_string();
        let response = Message::read(response.as_bytes()).unwrap();
        let id = HeaderValue::from_static("s");
        sessions.begin(&Message::read(request.as_bytes()).unwrap(), Some(id), &response.result.unwrap());
    }

    fn remember(sessions: &Sessions, method: &str, params: &Value) {
        sessions.remember(&Message::read(request("1", method, params).as_bytes()).unwrap());
    }

    #[test]
    fn a_session_is_replaced_once_and_keeps_the_state_of_the_client() {
        let sessions = Sessions::default();
        sessions.confirm();
        assert!(!sessions.current().is_initialized, "there was no handshake");
        begin(&sessions, &json!({}));
        let lost = sessions.current();
        assert_eq!((lost.number, lost.is_initialized), (1, false));
        sessions.confirm();
        for id in ["s2", "s3"] {
            sessions.replace(lost.number, Some(HeaderValue::from_static(id)));
        }
        let current = sessions.current();
        assert_eq!((current.number, current.is_initialized, current.is_replacement), (2, true, true));
        assert_eq!((current.id.unwrap().to_str().unwrap(), current.revision.as_deref()), ("s2", Some("2025-11-25")));
        begin(&sessions, &json!({}));
        let current = sessions.current();
        assert_eq!((current.number, current.is_initialized, current.is_replacement), (3, false, false));
    }

    #[test]
    fn the_client_state_is_remembered_until_the_next_handshake() {
        let sessions = Sessions::default();
        begin(
            &sessions,
            &json!({ "tools": { "listChanged": true }, "prompts": {}, "resources": { "listChanged": false } }),
        );
        let tools = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
        assert_eq!(sessions.list_changes(), [tools.to_string().into_bytes()]);
        assert_eq!((sessions.log_level_request(), sessions.subscription_requests().len()), (None, 0));
        for (method, params) in [
            ("logging/setLevel", json!({ "level": "error" })),
            ("resources/subscribe", json!({ "uri": "a" })),
            ("resources/subscribe", json!({ "uri": "b" })),
            ("resources/subscribe", json!({ "uri": "b" })),
            ("resources/subscribe", json!({})),
            ("resources/unsubscribe", json!({ "uri": "a" })),
            ("tools/list", json!({})),
        ] {
            remember(&sessions, method, &params);
        }
        let level = request("waypost-level", "logging/setLevel", &json!({ "level": "error" }));
        let subscription = request("waypost-0", "resources/subscribe", &json!({ "uri": "b" }));
        assert_eq!(sessions.log_level_request(), Some(level));
        assert_eq!(sessions.subscription_requests(), [subscription]);
        for number in 0..2 * MAX_SUBSCRIPTIONS {
            remember(&sessions, "resources/subscribe", &json!({ "uri": number.to_string() }));
        }
        assert_eq!(sessions.subscription_requests().len(), MAX_SUBSCRIPTIONS);
        begin(&sessions, &json!({}));
        assert!(sessions.list_changes().is_empty() && sessions.subscription_requests().is_empty());
        assert_eq!(sessions.log_level_request(), None);
    }
}
