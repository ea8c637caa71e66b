//! The headers that repeat arguments of the tools of a server (2026-07-28, "Custom Headers from Tool Parameters").

use std::collections::HashMap;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use waypost_mcp_wire::Envelope;
use waypost_mcp_wire::param_headers::ParamHeader;

/// The headers of each tool that has any.
#[derive(Debug, Default)]
pub(super) struct ParamHeaders(HashMap<String, Vec<ParamHeader>>);

impl ParamHeaders {
    /// Reads the annotations in the input schemas of tools. Invalid ones are ignored.
    pub(super) fn read(tools: &[Box<RawValue>]) -> Self {
        #[derive(Deserialize)]
        struct Tool {
            name: String,
        }
        let headers = tools.iter().filter_map(|tool| {
            let headers = ParamHeader::of_tool(tool.get());
            let tool = serde_json::from_str::<Tool>(tool.get()).ok().filter(|_| !headers.is_empty())?;
            Some((tool.name, headers))
        });
        Self(headers.collect())
    }

    /// Returns the headers of a call. An argument that is missing or null has no header.
    pub(super) fn of_call(&self, call: &Envelope<'_>) -> Vec<(HeaderName, HeaderValue)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let Ok(routing) = call.routing_params() else { return Vec::new() };
        let params = routing.name.as_deref().and_then(|name| self.0.get(name)).map_or(&[][..], Vec::as_slice);
        let values = ParamHeader::values(params, routing.arguments.map(RawValue::get));
        let header = |(name, value): (String, String)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        };
        values.into_iter().filter_map(header).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn annotated_arguments_have_headers() {
        let schema =
            json!({ "type": "object", "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } });
        let tool = json!({ "name": "t", "inputSchema": schema }).to_string();
        let other = json!({ "name": "u", "inputSchema": { "type": "object" } }).to_string();
        let headers = ParamHeaders::read(&[tool, other].map(|tool| RawValue::from_string(tool).unwrap()));
        let of_call = |name: &str, arguments: Value| {
            let params = json!({ "name": name, "arguments": arguments });
            let text = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
            let headers = headers.of_call(&Envelope::parse(text.as_bytes()).unwrap());
            headers.into_iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(of_call("t", json!({ "region": "é" })), ["mcp-param-region: =?base64?w6k=?="]);
        assert_eq!(of_call("t", json!({ "region": null })), Vec::<String>::new());
        assert_eq!(of_call("u", json!({ "region": "x" })), Vec::<String>::new());
    }
}
