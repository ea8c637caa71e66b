//! Rewriting of messages that are relayed between two connections.
//!
//! Each connection has its own request IDs and progress tokens. Only these are replaced in the text that was received.
//! Everything else, such as unknown members, the order of members and the notation of numbers, remains unchanged.

use serde::Deserialize;
use serde_json::value::RawValue;

pub use crate::edits::make_single_line;
use crate::edits::{Edits, key_of};
use crate::envelope::{Envelope, present};
use crate::error::{INVALID_PARAMS, JsonRpcError};
use crate::revision::{META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_PROTOCOL_VERSION};

/// The members of `_meta` that every request of 2026-07-28 declares. Each is JSON text.
#[derive(Debug, Clone)]
pub struct RequestMeta {
    /// `io.modelcontextprotocol/protocolVersion`.
    pub protocol_version: String,
    /// `io.modelcontextprotocol/clientInfo`.
    pub client_info: String,
    /// `io.modelcontextprotocol/clientCapabilities`.
    pub client_capabilities: String,
}

/// A request with the ID and progress token of another connection.
#[derive(Debug)]
pub struct RelayedRequest {
    /// The text of the request, in one line.
    pub text: Vec<u8>,
    /// The values of the original connection.
    pub original: Original,
}

/// The ID and progress token of a request on its original connection, as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// The ID.
    pub id: Box<str>,
    /// The progress token.
    pub progress_token: Option<Box<str>>,
    /// Whether the request is `subscriptions/listen` (2026-07-28), whose messages repeat the ID in `_meta`.
    pub is_subscription: bool,
}

/// The request to which a notification belongs, by the ID that [`relay_request`] assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationTarget {
    /// The request with this progress token.
    Progress(u64),
    /// The `subscriptions/listen` request with this ID (2026-07-28).
    Subscription(u64),
}

impl NotificationTarget {
    /// Returns the ID of the request.
    #[must_use]
    pub fn id(self) -> u64 {
        match self {
            Self::Progress(id) | Self::Subscription(id) => id,
        }
    }
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(default, rename = "_meta", borrow, deserialize_with = "present")]
    meta: Option<&'a RawValue>,
    #[serde(default, rename = "progressToken", borrow, deserialize_with = "present")]
    progress_token: Option<&'a RawValue>,
}

// The names are those of `crate::revision`; attributes cannot refer to constants.
#[derive(Deserialize, Default)]
struct Meta<'a> {
    #[serde(default, rename = "progressToken", borrow, deserialize_with = "present")]
    progress_token: Option<&'a RawValue>,
    #[serde(default, rename = "io.modelcontextprotocol/subscriptionId", borrow, deserialize_with = "present")]
    subscription: Option<&'a RawValue>,
    #[serde(default, rename = "io.modelcontextprotocol/protocolVersion", borrow, deserialize_with = "present")]
    protocol_version: Option<&'a RawValue>,
    #[serde(default, rename = "io.modelcontextprotocol/clientInfo", borrow, deserialize_with = "present")]
    client_info: Option<&'a RawValue>,
    #[serde(default, rename = "io.modelcontextprotocol/clientCapabilities", borrow, deserialize_with = "present")]
    client_capabilities: Option<&'a RawValue>,
    #[serde(default, rename = "io.modelcontextprotocol/logLevel", borrow, deserialize_with = "present")]
    log_level: Option<&'a RawValue>,
}

/// Replaces the ID of a request, and its progress token if it has one, with `id`. Members of `meta` that the request
/// does not declare itself are added. Without `meta`, the members of `_meta` that exist only in 2026-07-28 are removed.
///
/// # Errors
/// `INVALID_PARAMS` if `params` or `_meta` is not an object, or repeats a member that is read here.
pub fn relay_request(
    request: &Envelope<'_>,
    id: u64,
    meta: Option<&RequestMeta>,
) -> Result<RelayedRequest, JsonRpcError> {
    let invalid =
        |message: &str| JsonRpcError::new(INVALID_PARAMS, format!("Invalid params: {message}"), request.id.clone());
    let mut edits = Edits::new(request.text);
    let number = id.to_string();
    if let Some(raw) = request.raw_id {
        edits.replace(raw.get(), &number);
    }
    let mut progress_token = None;
    match request.params {
        None => add_params(&mut edits, request, meta),
        Some(params) => {
            let repeated = |_| invalid("`params` must be an object that does not repeat a member.");
            let members: Params<'_> = object(params).ok_or_else(|| repeated(()))?;
            match members.meta.filter(|meta| meta.get() != "null") {
                None => add_meta(&mut edits, params, members.meta, meta),
                Some(raw) => {
                    let own: Meta<'_> = object(raw)
                        .ok_or_else(|| invalid("`_meta` must be an object that does not repeat a member."))?;
                    if let Some(token) = own.progress_token {
                        edits.replace(token.get(), &number);
                        progress_token = Some(token.get().into());
                    }
                    match meta {
                        Some(meta) => complete_meta(&mut edits, raw, &own, meta),
                        None => remove_meta(&mut edits, request, &own),
                    }
                }
            }
        }
    }
    let id = request.raw_id.map_or("null", RawValue::get).into();
    let is_subscription = request.method.as_deref() == Some("subscriptions/listen");
    Ok(RelayedRequest { text: edits.apply(), original: Original { id, progress_token, is_subscription } })
}

/// Returns the request to which a notification belongs; `None` if it belongs to the connection as a whole.
#[must_use]
pub fn notification_target(notification: &Envelope<'_>) -> Option<NotificationTarget> {
    let params: Params<'_> = object(notification.params?)?;
    if notification.method.as_deref() == Some("notifications/progress") {
        return integer(params.progress_token?).map(NotificationTarget::Progress);
    }
    let meta: Meta<'_> = object(params.meta?)?;
    integer(meta.subscription?).map(NotificationTarget::Subscription)
}

/// Restores the original progress token or subscription ID in a notification. Returns `None` if the request has no
/// progress token, so that a progress notification cannot belong to it.
#[must_use]
pub fn restore_notification(
    notification: &Envelope<'_>,
    target: NotificationTarget,
    original: &Original,
) -> Option<Vec<u8>> {
    let mut edits = Edits::new(notification.text);
    let params: Params<'_> = object(notification.params?)?;
    match target {
        NotificationTarget::Progress(_) => {
            edits.replace(params.progress_token?.get(), original.progress_token.as_ref()?)
        }
        NotificationTarget::Subscription(_) => {
            let meta: Meta<'_> = object(params.meta?)?;
            edits.replace(meta.subscription?.get(), &original.id);
        }
    }
    Some(edits.apply())
}

/// Restores the original ID in the response to request `id`. An error response without an ID receives the original one.
#[must_use]
pub fn restore_response(response: &Envelope<'_>, id: u64, original: &Original) -> Vec<u8> {
    let mut edits = Edits::new(response.text);
    match response.raw_id {
        Some(raw) => edits.replace(raw.get(), &original.id),
        None => edits.insert_members(response.text, &format!("\"id\":{}", original.id)),
    }
    let result = response.result.filter(|_| original.is_subscription);
    let meta = result.and_then(object::<Params<'_>>).and_then(|result| result.meta);
    if let Some(raw) = meta.and_then(object::<Meta<'_>>).and_then(|meta| meta.subscription)
        && integer(raw) == Some(id)
    {
        edits.replace(raw.get(), &original.id);
    }
    edits.apply()
}

fn object<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    raw.get().starts_with('{').then(|| serde_json::from_str(raw.get()).ok())?
}

/// Returns the ID of a response if it is one that [`relay_request`] assigned.
#[must_use]
pub fn response_id(response: &Envelope<'_>) -> Option<u64> {
    integer(response.raw_id?)
}

fn integer(raw: &RawValue) -> Option<u64> {
    // Other notations of the same number are not the ID that was sent.
    let text = raw.get();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Adds `params` with `meta` to a message without parameters.
fn add_params(edits: &mut Edits<'_>, request: &Envelope<'_>, meta: Option<&RequestMeta>) {
    let Some(meta) = meta else { return };
    let params = format!("{{\"_meta\":{{{}}}}}", meta.members(&Meta::default()));
    match request.raw_params {
        Some(raw) => edits.replace(raw.get(), &params),
        None => edits.insert_members(request.text, &format!("\"params\":{params}")),
    }
}

/// Adds `_meta` to parameters without it. `raw` is null, or `None` if the member is missing.
fn add_meta(edits: &mut Edits<'_>, params: &RawValue, raw: Option<&RawValue>, meta: Option<&RequestMeta>) {
    let Some(meta) = meta else { return };
    let members = meta.members(&Meta::default());
    match raw {
        Some(raw) => edits.replace(raw.get(), &format!("{{{members}}}")),
        None => edits.insert_members(params.get(), &format!("\"_meta\":{{{members}}}")),
    }
}

/// Adds the members that an existing `_meta` lacks.
fn complete_meta(edits: &mut Edits<'_>, raw: &RawValue, own: &Meta<'_>, meta: &RequestMeta) {
    let members = meta.members(own);
    if !members.is_empty() {
        edits.insert_members(raw.get(), &members);
    }
}

/// Removes the members that exist only in requests of 2026-07-28.
fn remove_meta(edits: &mut Edits<'_>, request: &Envelope<'_>, own: &Meta<'_>) {
    let members = [own.protocol_version, own.client_info, own.client_capabilities, own.log_level];
    for raw in members.into_iter().flatten() {
        edits.remove_member(key_of(request.text, raw.get()), raw.get());
    }
}

impl RequestMeta {
    /// Returns the members that `own` lacks, as comma-separated JSON text.
    fn members(&self, own: &Meta<'_>) -> String {
        let members = [
            (META_PROTOCOL_VERSION, &self.protocol_version, own.protocol_version),
            (META_CLIENT_INFO, &self.client_info, own.client_info),
            (META_CLIENT_CAPABILITIES, &self.client_capabilities, own.client_capabilities),
        ];
        let missing = members.into_iter().filter(|(_, _, own)| own.is_none());
        missing.map(|(name, value, _)| format!("\"{name}\":{value}")).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn meta() -> RequestMeta {
        RequestMeta {
            protocol_version: "\"V\"".to_owned(),
            client_info: "{}".to_owned(),
            client_capabilities: "{}".to_owned(),
        }
    }

    fn relay(text: &str, meta: Option<&RequestMeta>) -> (String, Original) {
        let relayed = relay_request(&Envelope::parse(text.as_bytes()).unwrap(), 42, meta).unwrap();
        (String::from_utf8(relayed.text).unwrap(), relayed.original)
    }

    #[test]
    fn only_the_id_and_the_progress_token_are_replaced() {
        let text = "{ \"id\" : \"a\\u0062\",\n\"x\":1.0, \"method\":\"m\",\"params\":{\"_meta\":{\"progressToken\": 7 ,\"y\":1e2},\"a\":{\"id\":\"ab\"}},\"jsonrpc\":\"2.0\"}";
        let (relayed, original) = relay(text, None);
        assert_eq!(relayed, text.replace("\"a\\u0062\"", "42").replace(": 7 ,", ": 42 ,").replace('\n', " "));
        assert_eq!(
            original,
            Original { id: "\"a\\u0062\"".into(), progress_token: Some("7".into()), is_subscription: false }
        );
        assert_eq!(
            relay(r#"{"jsonrpc":"2.0","method":"m","id":1}"#, None).0,
            r#"{"jsonrpc":"2.0","method":"m","id":42}"#
        );
    }

    #[test]
    fn missing_request_metadata_is_added() {
        let full = json!({ META_PROTOCOL_VERSION: "V", META_CLIENT_INFO: {}, META_CLIENT_CAPABILITIES: {} });
        for params in [
            "",
            r#","params":null"#,
            r#","params":{}"#,
            r#","params":{ "_meta" : null}"#,
            r#","params":{"_meta": { } }"#,
        ] {
            let (text, _) = relay(&format!(r#"{{"jsonrpc":"2.0","method":"m","id":1{params}}}"#), Some(&meta()));
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["params"], json!({ "_meta": full }), "{text}");
        }
        let own = r#"{"jsonrpc":"2.0","method":"m","id":1,"params":{"b":1,"_meta":{"io.modelcontextprotocol/clientInfo":{"name":"x"}}}}"#;
        let value: Value = serde_json::from_str(&relay(own, Some(&meta())).0).unwrap();
        assert_eq!(value["params"]["_meta"][META_CLIENT_INFO], json!({ "name": "x" }));
        assert_eq!(value["params"]["_meta"][META_PROTOCOL_VERSION], "V");
        for params in ["[]", "7", r#"{"_meta":7}"#, r#"{"_meta":{},"_meta":{}}"#] {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"m","id":1,"params":{params}}}"#);
            let error = relay_request(&Envelope::parse(text.as_bytes()).unwrap(), 1, None).unwrap_err();
            assert_eq!(error.code, INVALID_PARAMS, "{text}");
        }
    }

    #[test]
    fn only_2026_07_28_has_request_metadata() {
        let declared = r#""io.modelcontextprotocol/clientCapabilities":{"roots":{}},"a":1,"io.modelcontextprotocol/logLevel":"info""#;
        let text = format!(r#"{{"jsonrpc":"2.0","method":"m","id":42,"params":{{"_meta":{{{declared}}}}}}}"#);
        assert_eq!(relay(&text, None).0, r#"{"jsonrpc":"2.0","method":"m","id":42,"params":{"_meta":{"a":1}}}"#);
        let relayed: Value = serde_json::from_str(&relay(&text, Some(&meta())).0).unwrap();
        assert_eq!(relayed["params"]["_meta"][META_CLIENT_CAPABILITIES], json!({ "roots": {} }));
    }

    #[test]
    fn responses_and_notifications_are_restored() {
        let original = Original { id: "\"x\"".into(), progress_token: Some("\"t\"".into()), is_subscription: true };
        let restore = |text: &str| {
            let restored = restore_response(&Envelope::parse(text.as_bytes()).unwrap(), 42, &original);
            String::from_utf8(restored).unwrap()
        };
        assert_eq!(
            restore(r#"{"jsonrpc":"2.0","id":42,"result":{"id":42}}"#),
            r#"{"jsonrpc":"2.0","id":"x","result":{"id":42}}"#
        );
        assert_eq!(restore(r#"{"jsonrpc":"2.0","error":{}}"#), r#"{"id":"x","jsonrpc":"2.0","error":{}}"#);
        assert_eq!(restore(r#"{"jsonrpc":"2.0","id":null,"error":{}}"#), r#"{"jsonrpc":"2.0","id":"x","error":{}}"#);
        let listen = r#"{"jsonrpc":"2.0","id":42,"result":{"_meta":{"io.modelcontextprotocol/subscriptionId":42}}}"#;
        assert_eq!(restore(listen), listen.replace("42", "\"x\""));

        let notification = |text: &str| {
            let envelope = Envelope::parse(text.as_bytes()).unwrap();
            let target = notification_target(&envelope)?;
            let restored = restore_notification(&envelope, target, &original).unwrap();
            Some((target, String::from_utf8(restored).unwrap()))
        };
        let progress =
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":42,"progress":1}}"#;
        assert_eq!(notification(progress), Some((NotificationTarget::Progress(42), progress.replace("42", "\"t\""))));
        let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":42}}}"#;
        assert_eq!(notification(changed), Some((NotificationTarget::Subscription(42), changed.replace("42", "\"x\""))));
        for other in ["{}", "{\"progressToken\":\"42\"}", "[]"] {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{other}}}"#);
            assert_eq!(notification(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn relaying_and_restoring_change_nothing_else(id in "[ -~é]{0,12}", text in "[ -~é\n]{0,30}", n in any::<i64>()) {
            let params = json!({ "arguments": { "text": text, "id": n, "_meta": { "progressToken": 1 } }, "_meta": { "a": n } });
            let request = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string();
            let (relayed, original) = relay(&request, None);
            let response = relayed.replace(r#""method":"tools/call","params""#, r#""result""#);
            let restored = restore_response(&Envelope::parse(response.as_bytes()).unwrap(), 42, &original);
            let expected = request.replace(r#""method":"tools/call","params""#, r#""result""#);
            prop_assert_eq!(String::from_utf8(restored).unwrap(), expected);
        }
    }
}
