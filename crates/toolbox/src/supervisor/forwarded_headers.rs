//! Headers from callers that are forwarded to servers with their calls.

use http::{HeaderMap, HeaderName, HeaderValue};
use waypost_toolbox_proto::forwarded_headers::decode;
use waypost_toolbox_proto::http::FORWARDED_HEADERS_HEADER;

/// Headers from the caller of one call. They contain no reserved headers, even if the control plane has sent some, and
/// their number and sizes are limited ([`waypost_toolbox_proto::forwarded_headers`]).
#[derive(Debug, Clone, Default)]
pub struct ForwardedHeaders(HeaderMap);

impl ForwardedHeaders {
    /// Reads them from the headers of a request from the control plane.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let decoded = headers.get(FORWARDED_HEADERS_HEADER).and_then(|value| decode(value.as_bytes()));
        let mut forwarded = HeaderMap::new();
        for (name, value) in decoded.unwrap_or_default() {
            if let (Ok(name), Ok(mut value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(&value)) {
                value.set_sensitive(true);
                forwarded.insert(name, value);
            }
        }
        Self(forwarded)
    }

    /// Returns copies of the headers.
    pub fn to_vec(&self) -> Vec<(HeaderName, HeaderValue)> {
        self.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(String, Vec<u8>)> {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static(FORWARDED_HEADERS_HEADER),
            HeaderValue::from_bytes(text).unwrap(),
        )]);
        let forwarded = ForwardedHeaders::read(&headers);
        assert!(!format!("{forwarded:?}").contains("acme"), "values can be secrets");
        let mut headers: Vec<_> =
            forwarded.to_vec().iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
        headers.sort();
        headers
    }

    #[test]
    fn invalid_names_and_values_are_left_out() {
        let tenant = ("x-tenant".to_owned(), b"acme \xe9".to_vec());
        assert_eq!(read("{\"X-Tenant\":\"acme \u{e9}\"}".as_bytes()), std::slice::from_ref(&tenant));
        assert_eq!(read(br#"{"x-tenant":"acme \u00e9"}"#), [tenant]);
        let none: [(String, Vec<u8>); 0] = [];
        for text in [
            r#"{"x-a":"1\r\nx-b: 2"}"#,
            r#"{"x-a: 1\r\nx-b":"2"}"#,
            r#"{"x-a":"\u0000"}"#,
            r#"{"":"1"}"#,
            r#"{"x a":"1"}"#,
            r#"{"AUTHORIZATION":"1","Mcp-Session-Id":"1","Host":"1"}"#,
            "acme",
        ] {
            assert_eq!(read(text.as_bytes()), none, "{text}");
        }
        assert!(ForwardedHeaders::read(&HeaderMap::new()).to_vec().is_empty());
    }
}
