//! The headers that repeat arguments of tools (2026-07-28, "Custom Headers from Tool Parameters").

use std::collections::HashMap;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use waypost_mcp_wire::Envelope;
use waypost_mcp_wire::revision::header_value;

/// The prefix of the names of these headers.
const PREFIX: &str = "mcp-param-";
/// The member of a property's schema with the rest of the header's name.
const ANNOTATION: &str = "x-mcp-header";
/// The maximum nesting depth of properties.
const MAX_DEPTH: usize = 16;

/// The headers of each tool that has any.
#[derive(Debug, Default)]
pub(super) struct ParamHeaders(HashMap<String, Vec<Param>>);

#[derive(Debug)]
struct Param {
    header: HeaderName,
    /// The names of the properties that lead to the argument.
    path: Vec<String>,
}

impl ParamHeaders {
    /// Reads the annotations in the input schemas of tools. Invalid ones are ignored.
    pub(super) fn read(tools: &[Box<RawValue>]) -> Self {
        #[derive(Deserialize)]
        struct Tool {
            name: String,
            #[serde(rename = "inputSchema")]
            input_schema: Value,
        }
        let mut headers = HashMap::new();
        for tool in tools.iter().filter(|tool| tool.get().contains(ANNOTATION)) {
            let Ok(tool) = serde_json::from_str::<Tool>(tool.get()) else { continue };
            let mut params = Vec::new();
            collect(&tool.input_schema, &mut Vec::new(), &mut params);
            headers.insert(tool.name, params);
        }
        Self(headers)
    }

    /// Returns the headers of a call. An argument that is missing or null has none.
    pub(super) fn of_call(&self, call: &Envelope<'_>) -> Vec<(HeaderName, HeaderValue)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let Ok(routing) = call.routing_params() else { return Vec::new() };
        let params = routing.name.as_deref().and_then(|name| self.0.get(name)).map_or(&[][..], Vec::as_slice);
        let arguments = routing.arguments.and_then(|arguments| serde_json::from_str::<Value>(arguments.get()).ok());
        let Some(arguments) = arguments.filter(|_| !params.is_empty()) else { return Vec::new() };
        let header = |param: &Param| {
            let value = param.path.iter().try_fold(&arguments, |value, name| value.get(name))?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => return None,
            };
            Some((param.header.clone(), HeaderValue::try_from(header_value(&text)).ok()?))
        };
        params.iter().filter_map(header).collect()
    }
}

/// Collects the annotations that are reachable through `properties` only.
fn collect(schema: &Value, path: &mut Vec<String>, params: &mut Vec<Param>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (name, schema) in properties {
        path.push(name.clone());
        let is_simple = matches!(schema["type"].as_str(), Some("string" | "integer" | "boolean"));
        let header = schema.get(ANNOTATION).and_then(Value::as_str).filter(|_| is_simple);
        let header = header.and_then(|name| HeaderName::try_from(format!("{PREFIX}{name}")).ok());
        params.extend(header.map(|header| Param { header, path: path.clone() }));
        if path.len() < MAX_DEPTH {
            collect(schema, path, params);
        }
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotated_arguments_have_headers() {
        let schema = json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "options": { "type": "object", "properties": { "count": { "type": "integer", "x-mcp-header": "Count" } } },
            "dry": { "type": "boolean", "x-mcp-header": "Dry" },
            "list": { "type": "array", "x-mcp-header": "List" },
            "bad": { "type": "string", "x-mcp-header": "a b" },
            "plain": { "type": "string" },
        } });
        let tool = json!({ "name": "t", "inputSchema": schema }).to_string();
        let other = json!({ "name": "u", "inputSchema": { "type": "object" } }).to_string();
        let headers = ParamHeaders::read(&[tool, other].map(|tool| RawValue::from_string(tool).unwrap()));
        let of_call = |name: &str, arguments: Value| {
            let params = json!({ "name": name, "arguments": arguments });
            let text = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
            let headers = headers.of_call(&Envelope::parse(text.as_bytes()).unwrap());
            headers.into_iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect::<Vec<_>>()
        };
        let arguments =
            json!({ "region": "é", "options": { "count": 7 }, "dry": false, "list": ["x"], "plain": "p", "bad": "b" });
        assert_eq!(
            of_call("t", arguments),
            ["mcp-param-region: =?base64?w6k=?=", "mcp-param-count: 7", "mcp-param-dry: false"]
        );
        assert_eq!(of_call("t", json!({ "region": null, "options": 1 })), Vec::<String>::new());
        assert_eq!(of_call("u", json!({ "region": "x" })), Vec::<String>::new());
    }
}
