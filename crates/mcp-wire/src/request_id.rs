//! IDs of requests.

use serde::Serialize;
use serde_json::Number;
use serde_json::value::RawValue;

/// The ID of a request: a string or an integer, never null (MCP, "Base protocol").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RequestId {
    /// An integer.
    Integer(Number),
    /// A string.
    Text(String),
}

impl RequestId {
    /// Parses an ID. Returns `None` if `raw` is neither a string nor an integer.
    pub(crate) fn parse(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        if text.starts_with('"') {
            return serde_json::from_str(text).ok().map(Self::Text);
        }
        let number: Number = serde_json::from_str(text).ok()?;
        (!number.is_f64()).then_some(Self::Integer(number))
    }
}

impl From<u64> for RequestId {
    fn from(number: u64) -> Self {
        Self::Integer(number.into())
    }
}
