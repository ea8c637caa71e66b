//! The era of a request: the revisions with a handshake, or 2026-07-28.

use crate::error::{INVALID_PARAMS, JsonRpcError, METHOD_NOT_FOUND};
use crate::methods;
use crate::revision::{META_PROTOCOL_VERSION, MODERN};

/// Checks that the revision in the header of a request matches its body. `header` is the value of
/// [`VERSION_HEADER`](crate::revision::VERSION_HEADER). `is_modern` states whether `_meta` declares a revision.
///
/// # Errors
/// `METHOD_NOT_FOUND` for a modern `initialize`; `INVALID_PARAMS` if only the header declares the modern revision. The
/// error has no ID.
pub fn check_header(header: Option<&str>, method: &str, is_modern: bool) -> Result<(), JsonRpcError> {
    if is_modern && method == "initialize" {
        return Err(JsonRpcError::new(METHOD_NOT_FOUND, methods::not_found(method, true), None));
    }
    if header == Some(MODERN) && !is_modern && method != "initialize" {
        let text = format!("Invalid params: `_meta` lacks {META_PROTOCOL_VERSION}, which {MODERN} requires.");
        return Err(JsonRpcError::new(INVALID_PARAMS, text, None));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_body_must_declare_the_same_era() {
        let code = |header, method, is_modern| check_header(header, method, is_modern).err().map(|error| error.code);
        assert_eq!(code(Some(MODERN), "tools/list", true), None);
        assert_eq!(code(Some(MODERN), "tools/list", false), Some(INVALID_PARAMS));
        assert_eq!(code(Some(MODERN), "initialize", false), None, "the handshake negotiates the revision");
        assert_eq!(code(None, "initialize", true), Some(METHOD_NOT_FOUND));
        assert_eq!(code(Some("2025-06-18"), "tools/list", false), None);
    }
}
