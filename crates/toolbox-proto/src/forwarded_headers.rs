//! Headers from agents that are forwarded to servers in containers with a call, encoded as the value of
//! [`FORWARDED_HEADERS_HEADER`](crate::http::FORWARDED_HEADERS_HEADER).
//!
//! The value is a JSON object with a member for each header. The value of a header is a string in which each character
//! represents one byte (ISO 8859-1), because it need not be UTF-8. With the largest headers, the text is smaller than
//! 14 KiB, so that it fits into the 16 KiB of headers that a link accepts.
//!
//! Both ends check names and sizes: no header that belongs to HTTP, to MCP or to the connection is forwarded.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The maximum number of headers.
pub const MAX_HEADERS: usize = 20;
/// The maximum length of a header name in bytes.
pub const MAX_NAME: usize = 64;
/// The maximum size of a header value in bytes.
pub const MAX_VALUE: usize = 4 * 1024;
/// The maximum total size of the header values of a call in bytes. Many servers reject more than 8 KiB of headers.
pub const MAX_TOTAL: usize = 6 * 1024;

/// Names of headers that are never forwarded: those of credentials, of the connection (RFC 9110, sections 7.6.1 and
/// 10.1.1), of MCP, and of W3C Trace Context, which is sent in `_meta`.
const RESERVED: [&str; 20] = [
    "authorization",
    "connection",
    "cookie",
    "cookie2",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "last-event-id",
    "origin",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];
/// Prefixes of the names of headers that are never forwarded.
const RESERVED_PREFIXES: [&str; 6] = ["accept", "content-", "mcp-", "proxy-", "waypost-", "x-forwarded-"];

/// Whether the header with this name, in upper or lower case, is never forwarded.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Encodes headers, which must have distinct names.
#[must_use]
pub fn encode<'h>(headers: impl IntoIterator<Item = (&'h str, &'h [u8])>) -> String {
    let member = |(name, value): (&str, &[u8])| {
        let value: String = value.iter().copied().map(char::from).collect();
        (name.to_owned(), Value::String(value))
    };
    Value::Object(headers.into_iter().map(member).collect::<Map<_, _>>()).to_string()
}

/// Decodes the text that [`encode`] returns, and leaves out the headers that are never forwarded. Returns `None` if it
/// is malformed, or exceeds a limit.
#[must_use]
pub fn decode(text: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let texts: BTreeMap<String, String> = serde_json::from_slice(text).ok()?;
    let mut headers = BTreeMap::new();
    let mut total = 0;
    for (name, text) in texts {
        let value: Vec<u8> = text.chars().map(|byte| u8::try_from(byte).ok()).collect::<Option<_>>()?;
        total += value.len();
        if name.len() > MAX_NAME || value.len() > MAX_VALUE {
            return None;
        }
        headers.insert(name, value);
    }
    if headers.len() > MAX_HEADERS || total > MAX_TOTAL {
        return None;
    }
    headers.retain(|name, _| !is_reserved(name));
    Some(headers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes headers with values of these sizes, whose names have `name` bytes, and returns the text and whether it can be read.
    fn encoded(sizes: &[usize], name: usize) -> (String, bool) {
        let headers: Vec<_> =
            sizes.iter().enumerate().map(|(number, size)| (format!("{number:x>name$}"), vec![b'"'; *size])).collect();
        let text = encode(headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
        let is_read = decode(text.as_bytes()).is_some_and(|read| read.len() == sizes.len());
        (text, is_read)
    }

    #[test]
    fn the_number_the_names_and_the_values_of_headers_are_limited() {
        assert!(encoded(&[0; MAX_HEADERS], 3).1);
        assert!(!encoded(&[0; MAX_HEADERS + 1], 3).1);
        assert!(encoded(&[0], MAX_NAME).1);
        assert!(!encoded(&[0], MAX_NAME + 1).1);
        assert!(encoded(&[MAX_VALUE, MAX_TOTAL - MAX_VALUE], 3).1);
        assert!(!encoded(&[MAX_VALUE + 1], 3).1);
        assert!(!encoded(&[MAX_VALUE, MAX_TOTAL - MAX_VALUE, 1], 3).1);
        let mut largest = [0; MAX_HEADERS];
        (largest[0], largest[1]) = (MAX_VALUE, MAX_TOTAL - MAX_VALUE);
        let (text, is_read) = encoded(&largest, MAX_NAME);
        assert!(is_read && text.len() < 14 * 1024, "{}", text.len());
    }

    #[test]
    fn reserved_headers_are_left_out_and_malformed_texts_are_rejected() {
        let text =
            r#"{"Authorization":"a","cookie":"a","MCP-Session-Id":"a","content-length":"1","TE":"a","x-tenant":"b"}"#;
        assert_eq!(decode(text.as_bytes()), Some(BTreeMap::from([("x-tenant".to_owned(), b"b".to_vec())])));
        assert_eq!(decode(b"{}"), Some(BTreeMap::new()));
        for text in
            ["", "{", "[]", "null", r#"{"x-a":1}"#, r#"{"x-a":null}"#, r#"{"x-a":["b"]}"#, r#"{"x-a":"\u0100"}"#]
        {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn values_of_any_bytes_survive_a_round_trip(
            headers in prop::collection::btree_map("x-[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..100), 0..10),
        ) {
            let text = encode(headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
            prop_assert_eq!(decode(text.as_bytes()), Some(headers));
        }
    }
}
