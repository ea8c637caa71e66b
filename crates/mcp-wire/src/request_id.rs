//! IDs of requests.

use std::fmt;

use serde::Serialize;
use serde_json::Number;
use serde_json::value::RawValue;

/// The ID of a request: a string or an integer, never null (MCP, "Base protocol").
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
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
        Self::from_text(raw.get())
    }

    /// Parses the JSON text of an ID. Returns `None` if it is neither a string nor an integer.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        if text.starts_with('"') {
            return serde_json::from_str(text).ok().map(Self::Text);
        }
        let number: Number = serde_json::from_str(text).ok()?;
        (!number.is_f64()).then_some(Self::Integer(number))
    }
}

/// Writes the ID as JSON.
impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => number.fmt(f),
            Self::Text(text) => serde_json::Value::from(text.as_str()).fmt(f),
        }
    }
}

impl From<u64> for RequestId {
    fn from(number: u64) -> Self {
        Self::Integer(number.into())
    }
}
