//! Reads just enough of a request body to route it, before rmcp parses it completely.

use serde::Deserialize;
use serde_json::{Value, json};

/// The maximum number of messages in a batch.
pub const MAX_BATCH: usize = 50;
/// The `_meta` member that marks a request of a stateless revision (2026-07-28, "Per-request metadata").
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// JSON-RPC 2.0, "Parse error".
pub const PARSE_ERROR: i64 = -32_700;
/// JSON-RPC 2.0, "Invalid Request".
pub const INVALID_REQUEST: i64 = -32_600;
/// JSON-RPC 2.0, "Invalid params".
pub const INVALID_PARAMS: i64 = -32_602;
/// JSON-RPC 2.0, "Internal error".
pub const INTERNAL_ERROR: i64 = -32_603;
/// JSON-RPC 2.0, "Method not found".
pub const METHOD_NOT_FOUND: i64 = -32_601;

/// The parts of a message that the endpoint reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// The request's ID. `None` for a notification or a response.
    pub id: Option<Value>,
    /// The method. `None` for a response.
    pub method: Option<String>,
    /// Whether it declares a protocol version in `_meta`, as stateless revisions do.
    pub is_modern: bool,
    /// `params.protocolVersion` of `initialize`.
    pub requested_version: Option<String>,
    /// `params.clientInfo` of `initialize`, or `clientInfo` in `_meta`.
    pub client: Option<(String, String)>,
    /// `params.name` or `params.uri`: the tool, prompt or resource.
    pub name: Option<String>,
    /// `params.arguments.progress_handle`, which identifies the caller for rate limits.
    pub handle: Option<String>,
}

/// The content of a request body.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestBody {
    /// One message.
    Single(Box<Message>),
    /// A batch (2025-03-26 only): each message with its own JSON text.
    Batch(Vec<(Message, String)>),
}

/// A JSON-RPC error.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonRpcError {
    /// The JSON-RPC error code.
    pub code: i64,
    /// The message.
    pub message: String,
    /// The request's ID, if it could be read.
    pub id: Option<Value>,
}

impl RequestBody {
    /// Returns the messages in order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        let (single, batch) = match self {
            Self::Single(message) => (Some(&**message), None),
            Self::Batch(batch) => (None, Some(batch)),
        };
        single.into_iter().chain(batch.into_iter().flatten().map(|(message, _)| message))
    }

    /// Returns the ID of a single request. `None` for a batch.
    #[must_use]
    pub fn id(&self) -> Option<&Value> {
        match self {
            Self::Single(message) => message.id.as_ref(),
            Self::Batch(_) => None,
        }
    }
}

impl JsonRpcError {
    /// Creates an error for the request `id`.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>, id: Option<Value>) -> Self {
        Self { code, message: message.into(), id }
    }

    /// Returns the error response. Without an ID, such as for a parse error, `id` is omitted (protocol revision 2025-11-25
    /// and later).
    #[must_use]
    pub fn to_json(&self) -> Value {
        let error = json!({ "code": self.code, "message": self.message });
        match &self.id {
            Some(id) => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
            None => json!({ "jsonrpc": "2.0", "error": error }),
        }
    }
}

#[derive(Deserialize)]
struct Raw {
    jsonrpc: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    method: Option<Value>,
    params: Option<Value>,
    result: Option<serde::de::IgnoredAny>,
    error: Option<serde::de::IgnoredAny>,
}

/// Deserializes a present member as `Some`, even if it is null: an ID that is null is not an absent ID.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Reads a request body.
///
/// # Errors
/// A [`JsonRpcError`] if the body is not JSON or not a JSON-RPC message.
pub fn peek(bytes: &[u8]) -> Result<RequestBody, JsonRpcError> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'[') {
        return peek_batch(bytes);
    }
    Ok(RequestBody::Single(Box::new(peek_single(bytes)?)))
}

fn peek_single(bytes: &[u8]) -> Result<Message, JsonRpcError> {
    let raw: Raw = match serde_json::from_slice(bytes) {
        Ok(raw) => raw,
        // Valid JSON of another shape is an invalid request, not a parse error.
        Err(error) if error.is_data() => {
            return Err(JsonRpcError::new(INVALID_REQUEST, "Invalid Request: not a JSON-RPC message.", None));
        }
        Err(error) => return Err(JsonRpcError::new(PARSE_ERROR, format!("Parse error: {error}."), None)),
    };
    message(raw)
}

fn peek_batch(bytes: &[u8]) -> Result<RequestBody, JsonRpcError> {
    let raw: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(bytes)
        .map_err(|error| JsonRpcError::new(PARSE_ERROR, format!("Parse error: {error}."), None))?;
    if raw.is_empty() || raw.len() > MAX_BATCH {
        let message = format!("Invalid Request: a batch has 1 to {MAX_BATCH} messages.");
        return Err(JsonRpcError::new(INVALID_REQUEST, message, None));
    }
    let mut batch = Vec::with_capacity(raw.len());
    for text in raw {
        // Checked before parsing, so that deeply nested batches cannot overflow the stack.
        if text.get().starts_with('[') {
            return Err(JsonRpcError::new(INVALID_REQUEST, "Invalid Request: a batch cannot contain a batch.", None));
        }
        let message = peek_single(text.get().as_bytes())?;
        if message.method.as_deref() == Some("initialize") {
            // 2025-03-26, "Lifecycle": the initialize request must not be part of a batch.
            let text = "Invalid Request: initialize cannot be part of a batch.";
            return Err(JsonRpcError::new(INVALID_REQUEST, text, message.id));
        }
        batch.push((message, text.get().to_owned()));
    }
    Ok(RequestBody::Batch(batch))
}

fn message(raw: Raw) -> Result<Message, JsonRpcError> {
    // MCP, "Base protocol": IDs are strings or integers, never null.
    let id = match raw.id {
        None => None,
        Some(Value::Null) if raw.method.is_none() => None,
        Some(Value::String(id)) => Some(Value::String(id)),
        Some(Value::Number(id)) if !id.is_f64() => Some(Value::Number(id)),
        Some(_) => {
            return Err(JsonRpcError::new(
                INVALID_REQUEST,
                "Invalid Request: `id` must be a string or an integer.",
                None,
            ));
        }
    };
    let invalid = |message: &str| JsonRpcError::new(INVALID_REQUEST, format!("Invalid Request: {message}"), id.clone());
    if raw.jsonrpc != Some(Value::String("2.0".to_owned())) {
        return Err(invalid("`jsonrpc` must be \"2.0\"."));
    }
    let method = match raw.method {
        Some(Value::String(method)) => Some(method),
        Some(_) => return Err(invalid("`method` must be a string.")),
        None if raw.result.is_some() || raw.error.is_some() => None,
        None => return Err(invalid("`method` is missing.")),
    };
    let params = match raw.params {
        None | Some(Value::Null) => Value::Null,
        Some(params @ Value::Object(_)) => params,
        Some(_) => return Err(JsonRpcError::new(INVALID_PARAMS, "Invalid params: `params` must be an object.", id)),
    };
    let meta = &params["_meta"];
    let client = if params["clientInfo"].is_object() {
        &params["clientInfo"]
    } else {
        &meta["io.modelcontextprotocol/clientInfo"]
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(Message {
        is_modern: meta.get(META_PROTOCOL_VERSION).is_some(),
        requested_version: text(&params["protocolVersion"]),
        client: text(&client["name"]).map(|name| (name, text(&client["version"]).unwrap_or_default())),
        name: text(&params["name"]).or_else(|| text(&params["uri"])),
        // An empty handle is an absent one (contract, section 4).
        handle: text(&params["arguments"]["progress_handle"]).filter(|handle| !handle.is_empty()),
        id,
        method,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> Option<i64> {
        peek(body.as_bytes()).err().map(|error| error.code)
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
            (r#"{"jsonrpc":"2.0","id":null,"error":{}}"#, None),
            (r#"{"jsonrpc":"2.0","method":"tools/call","id":1,"params":[]}"#, Some(INVALID_PARAMS)),
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
    }

    #[test]
    fn revision_client_and_handle_are_read() {
        let body = json!({ "jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": {
            "name": "x", "arguments": { "progress_handle": "wph_1" },
            "_meta": { META_PROTOCOL_VERSION: "2026-07-28", "io.modelcontextprotocol/clientInfo": { "name": "c", "version": "1" } },
        }});
        let Ok(RequestBody::Single(message)) = peek(body.to_string().as_bytes()) else { panic!("a message") };
        assert!(message.is_modern);
        assert_eq!(message.client, Some(("c".to_owned(), "1".to_owned())));
        assert_eq!(message.handle.as_deref(), Some("wph_1"));
    }
}
