//! The parameters of a request that are needed to route it.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::envelope::{Envelope, present, string};
use crate::error::{INVALID_PARAMS, JsonRpcError};

/// The members of `params` that are needed to route a request. Members of another type count as missing.
#[derive(Debug, Clone, Default)]
pub struct RoutingParams<'a> {
    /// Whether `_meta` declares a protocol version, as 2026-07-28 requires ("Per-request metadata").
    pub is_modern: bool,
    /// `protocolVersion` of `initialize`.
    pub requested_version: Option<String>,
    /// The name and version in `clientInfo` of `initialize`, or in `clientInfo` of `_meta`. The version is empty if it
    /// is missing.
    pub client: Option<(String, String)>,
    /// `name` or `uri`: the tool, prompt or resource.
    pub name: Option<String>,
    /// The arguments of a tool or prompt.
    pub arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(rename = "_meta", borrow)]
    meta: Option<&'a RawValue>,
    #[serde(rename = "protocolVersion", borrow)]
    protocol_version: Option<&'a RawValue>,
    #[serde(rename = "clientInfo", borrow)]
    client_info: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    uri: Option<&'a RawValue>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

// The names are those of `crate::revision`; attributes cannot refer to constants.
#[derive(Deserialize, Default)]
struct Meta<'a> {
    #[serde(default, rename = "io.modelcontextprotocol/protocolVersion", borrow, deserialize_with = "present")]
    protocol_version: Option<&'a RawValue>,
    #[serde(rename = "io.modelcontextprotocol/clientInfo", borrow)]
    client_info: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Client<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// Parses the parameters that are needed to route the request.
    ///
    /// # Errors
    /// `INVALID_PARAMS` if `params` is not an object, or repeats a member that is read here.
    pub fn routing_params(&self) -> Result<RoutingParams<'a>, JsonRpcError> {
        let Some(params) = self.params else { return Ok(RoutingParams::default()) };
        let invalid =
            |message: &str| JsonRpcError::new(INVALID_PARAMS, format!("Invalid params: {message}"), self.id.clone());
        if !is_object(params) {
            return Err(invalid("`params` must be an object."));
        }
        let repeated = |_| invalid("a member is repeated.");
        let members: Members<'a> = serde_json::from_str(params.get()).map_err(repeated)?;
        let meta = match members.meta {
            Some(meta) if is_object(meta) => serde_json::from_str(meta.get()).map_err(repeated)?,
            _ => Meta::default(),
        };
        let client = match members.client_info.filter(|info| is_object(info)).or(meta.client_info) {
            Some(info) if is_object(info) => serde_json::from_str(info.get()).map_err(repeated)?,
            _ => Client::default(),
        };
        let text = |raw: Option<&RawValue>| raw.and_then(string).map(std::borrow::Cow::into_owned);
        Ok(RoutingParams {
            is_modern: meta.protocol_version.is_some(),
            requested_version: text(members.protocol_version),
            client: text(client.name).map(|name| (name, text(client.version).unwrap_or_default())),
            name: text(members.name).or_else(|| text(members.uri)),
            arguments: members.arguments,
        })
    }
}

fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::revision::{META_CLIENT_INFO, META_PROTOCOL_VERSION};

    fn message(params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{params}}}"#)
    }

    #[test]
    fn tool_client_and_revision_are_read() {
        let meta = json!({ META_PROTOCOL_VERSION: null, META_CLIENT_INFO: { "name": "c\n", "version": "1" } });
        let text = message(&json!({ "name": "x", "arguments": { "a": 1 }, "_meta": meta }).to_string());
        let envelope = Envelope::parse(text.as_bytes()).unwrap();
        let params = envelope.routing_params().unwrap();
        assert!(params.is_modern, "any value marks the era");
        assert_eq!(params.client, Some(("c\n".to_owned(), "1".to_owned())));
        assert_eq!((params.name.as_deref(), params.arguments.unwrap().get()), (Some("x"), r#"{"a":1}"#));

        let text = message(r#"{"protocolVersion":"2025-06-18","clientInfo":{"name":"old"},"uri":"a:b","name":7}"#);
        let params = Envelope::parse(text.as_bytes()).unwrap().routing_params().unwrap();
        assert!(!params.is_modern);
        assert_eq!(params.requested_version.as_deref(), Some("2025-06-18"));
        assert_eq!(params.client, Some(("old".to_owned(), String::new())));
        assert_eq!(params.name.as_deref(), Some("a:b"));
    }

    #[test]
    fn members_of_another_type_count_as_missing() {
        for params in ["null", "{}", r#"{"_meta":7,"clientInfo":[],"name":{}}"#, r#"{"_meta":{"x":1}}"#] {
            let text = message(params);
            let params = Envelope::parse(text.as_bytes()).unwrap().routing_params().unwrap();
            assert!(!params.is_modern && params.client.is_none() && params.name.is_none(), "{text}");
        }
    }

    #[test]
    fn ambiguous_params_are_rejected() {
        let meta = json!(META_PROTOCOL_VERSION);
        for params in [
            "[]",
            "7",
            r#"{"name":"a","name":"b"}"#,
            r#"{"_meta":{},"_meta":{}}"#,
            &format!(r#"{{"_meta":{{{meta}:1,{meta}:2}}}}"#),
        ] {
            let text = message(params);
            let error = Envelope::parse(text.as_bytes()).unwrap().routing_params().unwrap_err();
            assert_eq!((error.code, error.to_json()["id"].clone()), (INVALID_PARAMS, Value::from("a")), "{text}");
        }
    }
}
