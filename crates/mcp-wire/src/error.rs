//! JSON-RPC errors.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::request_id::RequestId;

/// JSON-RPC 2.0, "Parse error".
pub const PARSE_ERROR: i64 = -32_700;
/// JSON-RPC 2.0, "Invalid Request".
pub const INVALID_REQUEST: i64 = -32_600;
/// JSON-RPC 2.0, "Method not found".
pub const METHOD_NOT_FOUND: i64 = -32_601;
/// JSON-RPC 2.0, "Invalid params".
pub const INVALID_PARAMS: i64 = -32_602;
/// JSON-RPC 2.0, "Internal error".
pub const INTERNAL_ERROR: i64 = -32_603;
/// 2025-11-25, "URL Elicitation Required Error": the user has to open pages before the request can succeed.
pub const URL_ELICITATION_REQUIRED: i64 = -32_042;
/// 2026-07-28, "Standard Request Headers": a header is missing, malformed or differs from the body.
pub const HEADER_MISMATCH: i64 = -32_020;
/// 2026-07-28, "Errors": the request needs a capability that the client did not declare.
pub const MISSING_CAPABILITY: i64 = -32_021;
/// 2026-07-28, "Versioning": the server does not support the revision of the request.
pub const UNSUPPORTED_VERSION: i64 = -32_022;

/// An error that is sent as the response to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonRpcError {
    /// The JSON-RPC error code.
    pub code: i64,
    /// The message.
    pub message: String,
    /// The request's ID, if it could be read.
    pub id: Option<RequestId>,
    /// Further information.
    pub data: Option<Box<Value>>,
}

impl JsonRpcError {
    /// Creates an error for the request `id`.
    #[must_use]
    pub fn new(code: i64, message: impl Into<String>, id: Option<RequestId>) -> Self {
        Self { code, message: message.into(), id, data: None }
    }

    /// Adds further information.
    #[must_use]
    pub fn with_data(self, data: Value) -> Self {
        Self { data: Some(Box::new(data)), ..self }
    }

    /// Returns the error response. Without an ID, such as for a parse error, `id` is omitted (protocol revision
    /// 2025-11-25 and later).
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(data) = &self.data {
            error["data"] = Value::clone(data);
        }
        match &self.id {
            Some(id) => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
            None => json!({ "jsonrpc": "2.0", "error": error }),
        }
    }
}

/// The `error` member of a response.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ErrorObject {
    /// The JSON-RPC error code.
    pub code: i64,
    /// The message.
    #[serde(default)]
    pub message: String,
}
