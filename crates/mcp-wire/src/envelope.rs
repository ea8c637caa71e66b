//! Envelopes of JSON-RPC messages.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::error::{INVALID_REQUEST, JsonRpcError, PARSE_ERROR};
use crate::request_id::RequestId;

/// The maximum number of messages in a batch.
pub const MAX_BATCH: usize = 50;
/// The maximum nesting depth of arrays and objects in a message. `serde_json` has the same limit, so every accepted
/// message can be parsed completely.
pub const MAX_DEPTH: usize = 127;

/// A message. The members that every message has are parsed; the others are kept as the text that was received.
#[derive(Debug, Clone)]
pub struct Envelope<'a> {
    /// The complete text of the message.
    pub text: &'a str,
    /// The ID. `None` for a notification, or for an error response to a request whose ID could not be read.
    pub id: Option<RequestId>,
    /// The ID as received, including null.
    pub raw_id: Option<&'a RawValue>,
    /// The method. `None` for a response.
    pub method: Option<Cow<'a, str>>,
    /// The parameters. `None` if they are missing or null.
    pub params: Option<&'a RawValue>,
    /// The parameters as received, including null.
    pub(crate) raw_params: Option<&'a RawValue>,
    /// The result of a successful response.
    pub result: Option<&'a RawValue>,
    /// The error of an error response.
    pub error: Option<&'a RawValue>,
}

/// The members of a message. A repeated member is an error, because parsers disagree about which value counts.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow)]
    jsonrpc: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<&'a RawValue>,
    #[serde(default, borrow, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Deserializes a present member as `Some`, even if it is null: an ID that is null is not an absent ID.
pub(crate) fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Envelope<'a> {
    /// Parses one message.
    ///
    /// # Errors
    /// A [`JsonRpcError`] with the code `PARSE_ERROR` if the text is not JSON, or nested deeper than [`MAX_DEPTH`];
    /// `INVALID_REQUEST` if it is not a JSON-RPC message or repeats one of its members.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, JsonRpcError> {
        let parse_error =
            |error: &dyn std::fmt::Display| JsonRpcError::new(PARSE_ERROR, format!("Parse error: {error}."), None);
        if is_too_deep(bytes) {
            return Err(parse_error(&format_args!("more than {MAX_DEPTH} levels of nesting")));
        }
        let not_a_message = || JsonRpcError::new(INVALID_REQUEST, "Invalid Request: not a JSON-RPC message.", None);
        let members: Members<'a> = match serde_json::from_slice(bytes) {
            // `serde_json` also deserializes an array with the values of the members.
            Ok(_) if !bytes.trim_ascii_start().starts_with(b"{") => return Err(not_a_message()),
            Ok(members) => members,
            // Valid JSON of another shape is an invalid request, not a parse error.
            Err(error) if error.is_data() => return Err(not_a_message()),
            Err(error) => return Err(parse_error(&error)),
        };
        // Members that are not read have not been checked for valid UTF-8.
        let text = std::str::from_utf8(bytes).map_err(|error| parse_error(&error))?;
        let id = match members.id {
            Some(raw) if raw.get() == "null" && members.method.is_none() => None,
            Some(raw) => Some(RequestId::parse(raw).ok_or_else(|| {
                JsonRpcError::new(INVALID_REQUEST, "Invalid Request: `id` must be a string or an integer.", None)
            })?),
            None => None,
        };
        let invalid =
            |message: &str| JsonRpcError::new(INVALID_REQUEST, format!("Invalid Request: {message}"), id.clone());
        if members.jsonrpc.and_then(string).as_deref() != Some("2.0") {
            return Err(invalid("`jsonrpc` must be \"2.0\"."));
        }
        let method = match members.method {
            Some(raw) => Some(string(raw).ok_or_else(|| invalid("`method` must be a string."))?),
            None if members.result.is_some() || members.error.is_some() => None,
            None => return Err(invalid("`method` is missing.")),
        };
        let Members { id: raw_id, params: raw_params, result, error, .. } = members;
        let params = raw_params.filter(|params| params.get() != "null");
        Ok(Self { text, id, raw_id, method, params, raw_params, result, error })
    }
}

/// Parses a string. Returns `None` if `raw` is another type.
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    /// Borrows the string if it contains no escapes.
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

/// The messages of a request body.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// One message.
    Single(Envelope<'a>),
    /// A batch (2025-03-26 only).
    Batch(Vec<Envelope<'a>>),
}

impl<'a> Body<'a> {
    /// Parses a request body.
    ///
    /// # Errors
    /// The errors of [`Envelope::parse`]; `INVALID_REQUEST` if a batch is empty, has more than [`MAX_BATCH`] messages,
    /// contains a batch or contains `initialize`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, JsonRpcError> {
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if first == Some(&b'[') { Self::parse_batch(bytes) } else { Envelope::parse(bytes).map(Self::Single) }
    }

    fn parse_batch(bytes: &'a [u8]) -> Result<Self, JsonRpcError> {
        let messages: Vec<&'a RawValue> = serde_json::from_slice(bytes)
            .map_err(|error| JsonRpcError::new(PARSE_ERROR, format!("Parse error: {error}."), None))?;
        if messages.is_empty() || messages.len() > MAX_BATCH {
            let message = format!("Invalid Request: a batch has 1 to {MAX_BATCH} messages.");
            return Err(JsonRpcError::new(INVALID_REQUEST, message, None));
        }
        let mut batch = Vec::with_capacity(messages.len());
        for message in messages {
            if message.get().starts_with('[') {
                let text = "Invalid Request: a batch cannot contain a batch.";
                return Err(JsonRpcError::new(INVALID_REQUEST, text, None));
            }
            let envelope = Envelope::parse(message.get().as_bytes())?;
            if envelope.method.as_deref() == Some("initialize") {
                // 2025-03-26, "Lifecycle": the initialize request must not be part of a batch.
                let text = "Invalid Request: initialize cannot be part of a batch.";
                return Err(JsonRpcError::new(INVALID_REQUEST, text, envelope.id));
            }
            batch.push(envelope);
        }
        Ok(Self::Batch(batch))
    }
}

/// Whether arrays and objects are nested deeper than [`MAX_DEPTH`]. This check is needed because raw values are skipped
/// without recursion, and therefore without a limit.
fn is_too_deep(bytes: &[u8]) -> bool {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn code(body: &str) -> Option<i64> {
        Body::parse(body.as_bytes()).err().map(|error| error.code)
    }

    #[test]
    fn invalid_messages_are_rejected() {
        let cases = [
            ("", Some(PARSE_ERROR)),
            ("{", Some(PARSE_ERROR)),
            ("nonsense", Some(PARSE_ERROR)),
            ("null", Some(INVALID_REQUEST)),
            ("42", Some(INVALID_REQUEST)),
            ("\"text\"", Some(INVALID_REQUEST)),
            ("{}", Some(INVALID_REQUEST)),
            (r#"{"jsonrpc":"1.0","method":"ping","id":1}"#, Some(INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","method":7,"id":1}"#, Some(INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","method":"ping","id":null}"#, Some(INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","method":"ping","id":{}}"#, Some(INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","method":"ping","id":1.5}"#, Some(INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","method":"ping","id":99999999999999999999}"#, Some(INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","method":"ping","method":"tools/call","id":1}"#, Some(INVALID_REQUEST)),
            (r#"{"jsonrpc":"2.0","id":null,"error":{}}"#, None),
            (r#"{"jsonrpc":"2.0","method":"ping","id":1}"#, None),
            (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, None),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, None),
            ("[]", Some(INVALID_REQUEST)),
            ("[1]", Some(INVALID_REQUEST)),
            (r#"[{"jsonrpc":"2.0","method":"ping","id":1}]"#, None),
            (r#"[{"jsonrpc":"2.0","method":"initialize","id":1}]"#, Some(INVALID_REQUEST)),
            (r#"[[{"jsonrpc":"2.0","method":"ping","id":1}]]"#, Some(INVALID_REQUEST)),
        ];
        for (body, expected) in cases {
            assert_eq!(code(body), expected, "{body}");
        }
        assert_eq!(code(&"[".repeat(100_000)), Some(PARSE_ERROR));
        assert_eq!(code(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))), Some(INVALID_REQUEST));
        let members = br#"["2.0", 1, "ping", {}, null, null]"#;
        assert_eq!(Envelope::parse(members).unwrap_err().code, INVALID_REQUEST);
        let unread = Envelope::parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"a\",\"x\":\"\xff\"}").unwrap_err();
        assert_eq!(unread.code, PARSE_ERROR);
        let error = Envelope::parse(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}").unwrap_err();
        assert_eq!(error.message, "Parse error: invalid unicode code point at line 1 column 35.");
    }

    #[test]
    fn every_accepted_depth_can_be_parsed_completely() {
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"jsonrpc":"2.0","method":"x","id":1,"params":{{"name":"[[","a":{open}{close}}}}}"#)
        };
        // The message and its parameters are two levels.
        let deepest = nested(MAX_DEPTH - 2);
        assert_eq!(code(&deepest), None);
        assert!(serde_json::from_str::<Value>(&deepest).is_ok());
        assert_eq!(code(&nested(MAX_DEPTH - 1)), Some(PARSE_ERROR));
        assert_eq!(code(&nested(1_000_000)), Some(PARSE_ERROR));
    }

    fn json_values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn members_are_kept_as_they_were_received(
            id in prop_oneof![any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from)],
            method in any::<String>(),
            params in prop::collection::vec((any::<String>(), json_values()), 0..5),
        ) {
            let params = Value::Object(params.into_iter().collect());
            let text = json!({ "params": params, "id": id, "method": method, "extra": params, "jsonrpc": "2.0" });
            let text = serde_json::to_string_pretty(&text).unwrap();
            let envelope = Envelope::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(serde_json::to_value(envelope.id.unwrap()).unwrap(), id);
            prop_assert_eq!(envelope.method.unwrap(), method);
            let raw = envelope.params.unwrap().get();
            prop_assert_eq!(serde_json::from_str::<Value>(raw).unwrap(), params);
            prop_assert!(text.contains(raw) && envelope.text == text, "the text is not rewritten");
        }

        #[test]
        fn any_bytes_are_accepted_or_rejected_with_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Err(error) = Body::parse(&bytes) {
                prop_assert!([PARSE_ERROR, INVALID_REQUEST].contains(&error.code));
            }
        }

        #[test]
        fn mutated_messages_never_panic(at in 0_usize..80, byte in any::<u8>()) {
            let mut text = br#"[{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"\u00e9"}}]"#.to_vec();
            let at = at % text.len();
            text[at] = byte;
            if let Ok(Body::Batch(batch)) = Body::parse(&text) {
                prop_assert_eq!(batch.len(), 1);
            }
        }
    }
}
