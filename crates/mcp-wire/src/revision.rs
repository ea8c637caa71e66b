//! The revisions of the protocol, and the names of headers and `_meta` members that declare them.
//!
//! The revisions before 2026-07-28 begin with a handshake (`initialize`) and are called legacy. 2026-07-28, called
//! modern, has no handshake: every request declares its revision.

/// The revisions with a handshake, oldest first.
pub const LEGACY: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// The newest revision with a handshake.
pub const NEWEST_LEGACY: &str = "2025-11-25";
/// The only revision that supports batches.
pub const BATCH: &str = "2025-03-26";
/// The revision without a handshake.
pub const MODERN: &str = "2026-07-28";

/// The header with the revision.
pub const VERSION_HEADER: &str = "mcp-protocol-version";
/// The header with the session ID (legacy).
pub const SESSION_HEADER: &str = "mcp-session-id";
/// The header with the method (modern).
pub const METHOD_HEADER: &str = "mcp-method";
/// The header with the name of the tool or prompt, or the URI of the resource (modern).
pub const NAME_HEADER: &str = "mcp-name";

/// The `_meta` member with the revision, which marks a modern request ("Per-request metadata").
pub const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The `_meta` member with the client's name and version.
pub const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// The `_meta` member with the client's capabilities.
pub const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// The `_meta` member with the level of log messages that the client accepts during the request.
pub const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// Returns the revision for a handshake that requests `requested`: `requested` itself if it is a known revision with a
/// handshake, otherwise the newest one ("Lifecycle").
#[must_use]
pub fn negotiate(requested: &str) -> &'static str {
    LEGACY.iter().copied().find(|known| *known == requested).unwrap_or(NEWEST_LEGACY)
}

/// Returns `value` in the form that [`NAME_HEADER`] requires: as Base64 in `=?base64?…?=`
/// if it is empty, begins with this marker, has leading or trailing spaces or is not printable ASCII; otherwise
/// unchanged.
#[must_use]
pub fn header_value(value: &str) -> String {
    let is_plain = !value.is_empty()
        && value.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
        && value.trim() == value
        && !value.starts_with("=?base64?");
    if is_plain { value.to_owned() } else { format!("=?base64?{}?=", data_encoding::BASE64.encode(value.as_bytes())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_never_negotiates_the_modern_revision() {
        for (requested, expected) in [("2025-06-18", "2025-06-18"), (MODERN, NEWEST_LEGACY), ("", NEWEST_LEGACY)] {
            assert_eq!(negotiate(requested), expected);
        }
        assert_eq!(LEGACY.last(), Some(&NEWEST_LEGACY));
    }

    #[test]
    fn names_are_encoded_if_a_header_cannot_contain_them() {
        assert_eq!(header_value("tool_1"), "tool_1");
        for (value, expected) in [("é", "=?base64?w6k=?="), (" a", "=?base64?IGE=?="), ("a\n", "=?base64?YQo=?=")] {
            assert_eq!(header_value(value), expected);
        }
        assert_eq!(header_value("=?base64?YQ==?="), "=?base64?PT9iYXNlNjQ/WVE9PT89?=", "literal text is encoded again");
    }
}
