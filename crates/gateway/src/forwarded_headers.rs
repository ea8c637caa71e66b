//! Headers of agents that are forwarded to servers: those that the operator lists, and no others.
//!
//! Invariants:
//! 1. Without a list, nothing is forwarded. No list can contain a header with credentials for this installation, or one that
//!    belongs to HTTP, to MCP, or to the connection.
//! 2. A header that a server could read in different ways is not forwarded: a call that repeats a listed header is rejected.
//! 3. A header of the connection to the server, such as a secret of the instance, is never replaced ([`waypost_ops`], and the
//!    daemon for a server in a container).

use std::str::FromStr;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderName};
use waypost_mcp_wire::strict::Message;
use waypost_mcp_wire::{INVALID_REQUEST, JsonRpcError};
use waypost_toolbox_proto::forwarded_headers::{MAX_HEADERS, MAX_NAME, MAX_TOTAL, MAX_VALUE, is_reserved};

/// The names of the headers of agents that are forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardedHeaders(Vec<HeaderName>);

impl FromStr for ForwardedHeaders {
    type Err = String;

    /// Parses a comma-separated list of header names. The error says which name is invalid.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut names = Vec::new();
        for text in text.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let name: HeaderName =
                text.parse().map_err(|_| format!("expected names of headers, such as X-Tenant, not `{text}`"))?;
            if is_reserved(name.as_str()) {
                return Err(format!("the header `{name}` is never forwarded"));
            }
            if name.as_str().len() > MAX_NAME {
                return Err(format!("expected names of at most {MAX_NAME} characters, not `{name}`"));
            }
            if names.contains(&name) {
                return Err(format!("the header `{name}` is listed twice"));
            }
            names.push(name);
        }
        if names.len() > MAX_HEADERS {
            return Err(format!("expected at most {MAX_HEADERS} headers"));
        }
        Ok(Self(names))
    }
}

impl ForwardedHeaders {
    /// Returns the headers of a call that are forwarded: those that are listed and belong to the message, not to the
    /// connection (RFC 9110, section 7.6.1).
    ///
    /// # Errors
    /// `INVALID_REQUEST` if one is repeated or too large.
    pub(crate) fn select(&self, request: &Message<'_>, headers: &HeaderMap) -> Result<HeaderMap, JsonRpcError> {
        let mut selected = HeaderMap::new();
        let mut total = 0;
        for name in self.0.iter().filter(|name| !is_of_connection(name, headers)) {
            let mut values = headers.get_all(name).iter();
            let Some(value) = values.next() else { continue };
            let invalid = |problem: &str| {
                let text = format!("Invalid Request: the header `{name}` {problem}.");
                JsonRpcError::new(INVALID_REQUEST, text, request.id())
            };
            if values.next().is_some() {
                return Err(invalid("is repeated"));
            }
            total += value.len();
            if value.len() > MAX_VALUE || total > MAX_TOTAL {
                return Err(invalid("is too large, alone or together with others"));
            }
            let mut value = value.clone();
            value.set_sensitive(true);
            selected.insert(name.clone(), value);
        }
        Ok(selected)
    }
}

/// Whether the `Connection` header names this header.
fn is_of_connection(name: &HeaderName, headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_invalid_or_reserved_cannot_be_listed() {
        let parse = |text: &str| text.parse::<ForwardedHeaders>();
        let listed = parse("X-Tenant, x-user,").unwrap();
        assert_eq!(listed.0, ["x-tenant", "x-user"]);
        assert_eq!(parse("").unwrap(), ForwardedHeaders::default());
        for reserved in [
            "Authorization",
            "COOKIE",
            "Proxy-Authorization",
            "host",
            "Connection",
            "keep-alive",
            "TE",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "proxy-connection",
            "Content-Type",
            "content-length",
            "accept",
            "Accept-Language",
            "Mcp-Session-Id",
            "mcp-param-x",
            "origin",
            "X-Forwarded-For",
            "forwarded",
            "traceparent",
            "tracestate",
            "last-event-id",
            "User-Agent",
            "waypost-container-key",
        ] {
            assert!(parse(&format!("x-tenant,{reserved}")).unwrap_err().contains("never forwarded"), "{reserved}");
        }
        for invalid in ["a b", "x:y", "é", "x-tenant,X-TENANT"] {
            assert!(parse(invalid).is_err(), "{invalid}");
        }
        assert!(parse(&"x".repeat(MAX_NAME)).is_ok());
        assert!(parse(&"x".repeat(MAX_NAME + 1)).is_err());
        let names = |number: usize| (0..number).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",");
        assert!(parse(&names(MAX_HEADERS)).is_ok());
        assert!(parse(&names(MAX_HEADERS + 1)).is_err());
    }

    #[test]
    fn only_listed_headers_are_selected_and_their_size_is_limited() {
        let request = Message::read(br#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#).unwrap();
        let listed: ForwardedHeaders = "x-a,x-b,x-c".parse().unwrap();
        let select = |headers: &[(&str, &str)]| {
            let mut all = HeaderMap::new();
            for (name, value) in headers {
                all.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
            }
            listed.select(&request, &all).map(|selected| {
                assert!(selected.values().all(http::HeaderValue::is_sensitive));
                let mut names: Vec<_> = selected.keys().map(|name| name.as_str().to_owned()).collect();
                names.sort();
                names
            })
        };
        let none: [&str; 0] = [];
        assert_eq!(select(&[("authorization", "Bearer x"), ("cookie", "a=b"), ("x-api-key", "k")]).unwrap(), none);
        assert_eq!(select(&[("X-A", "1"), ("x-b", ""), ("x-d", "2")]).unwrap(), ["x-a", "x-b"]);
        // A header that `Connection` names does not belong to the message.
        assert_eq!(select(&[("connection", "close, X-A"), ("x-a", "1"), ("x-c", "1")]).unwrap(), ["x-c"]);
        let repeated = select(&[("x-a", "1"), ("x-a", "1")]).unwrap_err();
        assert_eq!((repeated.code, repeated.message.contains("repeated")), (INVALID_REQUEST, true));
        let (largest, larger) = ("v".repeat(MAX_VALUE), "v".repeat(MAX_VALUE + 1));
        let rest = "v".repeat(MAX_TOTAL - MAX_VALUE);
        assert!(select(&[("x-a", &largest), ("x-b", &rest)]).is_ok());
        assert!(select(&[("x-a", &larger)]).is_err());
        assert!(select(&[("x-a", &largest), ("x-b", &rest), ("x-c", "v")]).is_err());
    }
}
