//! The form in which requests are sent to a server.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use waypost_mcp_wire::relay::{Original, RequestMeta};
use waypost_mcp_wire::revision::MODERN;

use super::caller::Caller;

/// The result of the negotiation with a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Negotiated {
    /// The revision.
    pub(super) revision: String,
    /// The result of `initialize` (legacy) or `server/discover` (modern), as received.
    pub(super) result: String,
    /// The ID of the HTTP session (legacy).
    pub(super) session: Option<String>,
    /// Whether `notifications/initialized` was sent (legacy).
    pub(super) is_announced: bool,
}

impl Negotiated {
    pub(super) fn wire(&self) -> Wire {
        Wire { revision: Some(self.revision.clone()), session: self.session.clone() }
    }

    /// Whether the server has declared a capability.
    pub(super) fn has_capability(&self, name: &str) -> bool {
        let result: Result<serde_json::Value, _> = serde_json::from_str(&self.result);
        result.is_ok_and(|result| result["capabilities"][name].is_object())
    }

    /// Whether the server declares support for subscriptions to resources.
    pub(super) fn has_subscriptions(&self) -> bool {
        let result: Result<serde_json::Value, _> = serde_json::from_str(&self.result);
        result.is_ok_and(|result| result["capabilities"]["resources"]["subscribe"] == true)
    }
}

/// The values of the headers that belong to a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wire {
    /// The revision; `None` during the legacy handshake.
    pub(super) revision: Option<String>,
    /// The ID of the session.
    pub(super) session: Option<String>,
}

impl Wire {
    pub(super) fn modern() -> Self {
        Self { revision: Some(MODERN.to_owned()), session: None }
    }

    pub(super) fn is_modern(&self) -> bool {
        self.revision.as_deref() == Some(MODERN)
    }
}

/// A request to send.
pub(super) struct Request {
    pub(super) id: u64,
    /// The message as a line, with `id` as its ID.
    pub(super) text: Bytes,
    pub(super) original: Original,
    /// The caller that the server can ask; `None` for requests that cannot cause requests to a caller.
    pub(super) caller: Option<Caller>,
    pub(super) method: String,
    /// The tool, prompt or resource.
    pub(super) name: Option<String>,
    /// Additional headers of the HTTP request. They never replace headers of the daemon or the connection.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) deadline: Instant,
    /// Held until the call ends.
    pub(super) slot: Option<OwnedSemaphorePermit>,
    /// Whether the server is notified if the call is dropped. Must be `false` for `initialize`.
    pub(super) is_cancellable: bool,
}

/// Returns the name and version with which the daemon introduces itself.
pub(super) fn client_info() -> serde_json::Value {
    json!({ "name": "waypost-toolbox", "version": env!("CARGO_PKG_VERSION") })
}

/// Returns the members of `_meta` that a modern request must have.
pub(super) fn request_meta() -> RequestMeta {
    RequestMeta {
        protocol_version: format!("\"{MODERN}\""),
        client_info: client_info().to_string(),
        client_capabilities: "{}".to_owned(),
    }
}

/// Adds a line feed to a single-line message. It is harmless in the body of an HTTP request.
pub(super) fn as_line(mut text: Vec<u8>) -> Vec<u8> {
    text.push(b'\n');
    text
}

/// Returns the notification that cancels request `id`.
pub(super) fn cancelled(id: u64) -> Vec<u8> {
    let params = json!({ "requestId": id, "reason": "The caller no longer waits." });
    json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }).to_string().into_bytes()
}
