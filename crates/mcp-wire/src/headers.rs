//! The headers of a request of 2026-07-28, which must repeat members of its body ("Standard Request Headers").

use std::borrow::Cow;

use serde_json::Value;

use crate::era::check_header;
use crate::error::{HEADER_MISMATCH, JsonRpcError};
use crate::param_headers::{PARAM_PREFIX, ParamHeader};
use crate::revision::{METHOD_HEADER, NAME_HEADER, VERSION_HEADER};
use crate::strict::{Message, MessageKind, text_of};

/// Checks the headers of a message. The names of `headers` are in lower case; repeated headers are separate items.
/// `params` are the headers of the tool that is called. Messages of the revisions with a handshake have no such headers.
///
/// # Errors
/// `HEADER_MISMATCH` if a required header is missing, repeated, malformed or different from the body, or if an argument
/// that is missing or null has a header; the errors of [`check_header`].
pub fn check_headers<'h>(
    message: &Message<'_>,
    headers: impl Iterator<Item = (&'h str, &'h [u8])> + Clone,
    params: &[ParamHeader],
) -> Result<(), JsonRpcError> {
    let Some(method) = message.method.as_deref() else { return Ok(()) };
    let headers = Headers(headers);
    let with_id = |error: JsonRpcError| JsonRpcError { id: message.id(), ..error };
    let version = headers.get(VERSION_HEADER).map_err(with_id)?;
    check_header(version.as_deref(), method, message.is_modern()).map_err(with_id)?;
    let Some(declared) = message.params.meta.protocol_version else { return Ok(()) };
    let check = || {
        compare(VERSION_HEADER, version.as_deref(), text_of(Some(declared)).as_deref())?;
        let is_request = message.kind == MessageKind::Request;
        let found = headers.get(METHOD_HEADER)?;
        if is_request || found.is_some() {
            compare(METHOD_HEADER, found.as_deref(), Some(method))?;
        }
        if is_request && matches!(method, "tools/call" | "prompts/get" | "resources/read") {
            let name = text_of(message.target());
            // A call without a name is rejected by its handler.
            if name.is_some() {
                compare(NAME_HEADER, headers.get(NAME_HEADER)?.as_deref(), name.as_deref())?;
            }
        }
        check_params(message, &headers, params)
    };
    check().map_err(with_id)
}

/// Checks the headers that repeat arguments.
fn check_params<'h, I: Iterator<Item = (&'h str, &'h [u8])> + Clone>(
    message: &Message<'_>,
    headers: &Headers<I>,
    params: &[ParamHeader],
) -> Result<(), JsonRpcError> {
    if message.method.as_deref() != Some("tools/call") || params.is_empty() {
        return Ok(());
    }
    let arguments: Value = message.params.arguments.and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
    for param in params {
        let found = headers.get(&param.name)?;
        let expected = param.text(&arguments);
        let number = param.value(&arguments).and_then(Value::as_f64);
        // `7` and `7.0` are the same integer.
        let is_same_number = number.is_some() && found.as_deref().and_then(|text| text.parse().ok()) == number;
        if !is_same_number && (found.is_some() || expected.is_some()) {
            compare(&param.name, found.as_deref(), expected.as_deref())?;
        }
    }
    Ok(())
}

fn compare(name: &str, found: Option<&str>, expected: Option<&str>) -> Result<(), JsonRpcError> {
    match (found, expected) {
        (Some(found), Some(expected)) if found == expected => Ok(()),
        (None, _) => Err(mismatch(name, "is missing")),
        (Some(_), None) if name.starts_with(PARAM_PREFIX) => Err(mismatch(name, "has no argument in the body")),
        (Some(_), _) => Err(mismatch(name, "differs from the body")),
    }
}

fn mismatch(name: &str, problem: &str) -> JsonRpcError {
    JsonRpcError::new(HEADER_MISMATCH, format!("Header mismatch: `{name}` {problem}."), None)
}

struct Headers<I>(I);

impl<'h, I: Iterator<Item = (&'h str, &'h [u8])> + Clone> Headers<I> {
    /// Returns the decoded value of a header; `None` if it is missing. Fails if the header is repeated or malformed.
    fn get(&self, name: &str) -> Result<Option<Cow<'h, str>>, JsonRpcError> {
        let mut values = self.0.clone().filter(|(other, _)| *other == name).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => decode_header_value(value).map(Some).ok_or_else(|| mismatch(name, "is malformed")),
            (Some(_), Some(_)) => Err(mismatch(name, "is repeated")),
        }
    }
}

/// Decodes the value of a header as [`header_value`](crate::revision::header_value) encodes it. Surrounding white space
/// is ignored. A value with only the prefix or only the suffix of an encoded value is literal. Returns `None` if it is
/// malformed.
#[must_use]
pub fn decode_header_value(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    let encoded = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    match encoded {
        Some(encoded) => {
            let bytes = data_encoding::BASE64.decode(encoded.as_bytes()).ok()?;
            String::from_utf8(bytes).ok().map(Cow::Owned)
        }
        None => text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)).then_some(Cow::Borrowed(text)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::error::INVALID_PARAMS;
    use crate::revision::{META_PROTOCOL_VERSION, MODERN, header_value};
    use crate::smuggling;

    fn check(body: &[u8], headers: &[(String, String)], params: &[ParamHeader]) -> Result<(), JsonRpcError> {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        check_headers(&Message::read(body).unwrap(), headers, params)
    }

    #[test]
    fn headers_that_differ_from_the_body_are_rejected() {
        let tool = smuggling::headers_tool("tool");
        let params = ParamHeader::of_tool(&tool);
        assert_eq!(params.len(), 2);
        let cases = smuggling::headers("7", "tool");
        assert!(cases.len() >= 15);
        for case in cases {
            let result = check(&case.body, &case.headers, &params);
            match case.code {
                Some(code) => {
                    let error = result.expect_err(case.name);
                    assert_eq!((error.code, error.id), (code, Some(7.into())), "{}", case.name);
                }
                None => assert_eq!(result, Ok(()), "{}", case.name),
            }
        }
    }

    #[test]
    fn other_messages_need_no_headers() {
        for body in [
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
        ] {
            assert_eq!(check(body.as_bytes(), &[], &[]), Ok(()));
        }
        let legacy = br#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
        let error = check(legacy, &[("mcp-protocol-version".into(), MODERN.into())], &[]).unwrap_err();
        assert_eq!(error.code, INVALID_PARAMS, "only the header declares the revision");
    }

    #[test]
    fn numbers_are_compared_by_value_and_strings_by_text() {
        let params = ParamHeader::of_tool(&smuggling::headers_tool("t"));
        let accepts = |arguments: &str, name: &str, value: &str| {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"t","arguments":{arguments},"_meta":{{"{META_PROTOCOL_VERSION}":"{MODERN}"}}}}}}"#
            );
            let headers =
                [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "t"), (name, value)];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
            check(body.as_bytes(), &headers, &params).is_ok()
        };
        assert!(
            accepts(r#"{"count":7.0}"#, "mcp-param-count", "7") && !accepts(r#"{"count":7}"#, "mcp-param-count", "8")
        );
        assert!(accepts(r#"{"region":"7"}"#, "mcp-param-region", "7"));
        assert!(!accepts(r#"{"region":"7"}"#, "mcp-param-region", "7.0"));
        assert!(!accepts(r#"{"region":null}"#, "mcp-param-region", "null"));
    }

    #[test]
    fn headers_are_decoded() {
        for (value, expected) in [
            ("a b", Some("a b")),
            (" a\t", Some("a")),
            ("", Some("")),
            ("=?base64?w6k=?=", Some("é")),
            ("é", None),
            ("=?base64?w6k?=", None),
            ("=?base64?w6k=", Some("=?base64?w6k=")),
            ("=?base64?/w==?=", None),
            ("a\u{1}", None),
        ] {
            assert_eq!(decode_header_value(value.as_bytes()).as_deref(), expected, "{value}");
        }
        assert_eq!(decode_header_value(b"\xff"), None);
    }

    proptest! {
        #[test]
        fn any_name_can_be_sent_in_a_header(name in "\\PC{1,20}", other in "\\PC{1,20}") {
            let encoded = header_value(&name);
            prop_assert_eq!(decode_header_value(encoded.as_bytes()), Some(Cow::Borrowed(name.as_str())));
            let body = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": name, "_meta": { META_PROTOCOL_VERSION: MODERN } } }).to_string();
            let headers = |name: &str| [("mcp-protocol-version", MODERN.to_owned()), ("mcp-method", "tools/call".to_owned()), ("mcp-name", header_value(name))].map(|(name, value)| (name.to_owned(), value));
            prop_assert_eq!(check(body.as_bytes(), &headers(&name), &[]), Ok(()));
            prop_assert_eq!(check(body.as_bytes(), &headers(&other), &[]).is_ok(), name == other);
        }
    }
}
