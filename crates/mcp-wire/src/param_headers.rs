//! Headers that repeat arguments of tools (2026-07-28, "Custom Headers from Tool Parameters").

use serde::Deserialize;
use serde_json::Value;

use crate::revision::header_value;

/// The prefix of the names of these headers, in lower case.
pub const PARAM_PREFIX: &str = "mcp-param-";
/// The member of a property's schema with the rest of the header's name.
const ANNOTATION: &str = "x-mcp-header";
/// The maximum nesting depth of properties.
const MAX_DEPTH: usize = 16;

/// A header that repeats an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamHeader {
    /// The name of the header in lower case.
    pub name: String,
    /// The names of the properties that lead to the argument.
    path: Vec<String>,
}

impl ParamHeader {
    /// Reads the annotations in the input schema of a tool's definition. Invalid annotations are ignored: those of
    /// types other than string, integer and boolean, those that are not reachable through `properties` alone, and those
    /// with a name that is not a token or is used twice.
    #[must_use]
    pub fn of_tool(definition: &str) -> Vec<Self> {
        Self::read(definition).0
    }

    /// Whether all annotations of a tool's definition are valid, so that [`Self::of_tool`] ignores none. Clients must
    /// reject other tools (2026-07-28, "Custom Headers from Tool Parameters").
    #[must_use]
    pub fn are_valid(definition: &str) -> bool {
        let (headers, annotations) = Self::read(definition);
        headers.len() == annotations
    }

    /// Returns the valid annotations, and the number of all annotations.
    fn read(definition: &str) -> (Vec<Self>, usize) {
        #[derive(Deserialize)]
        struct Tool {
            #[serde(rename = "inputSchema")]
            input_schema: Value,
        }
        let mut found = Annotations::default();
        if definition.contains(ANNOTATION)
            && let Ok(tool) = serde_json::from_str::<Tool>(definition)
        {
            collect(&tool.input_schema, &mut Vec::new(), &mut found);
            found.count = count(&tool.input_schema);
        }
        let Annotations { headers, count } = found;
        let is_unique = |header: &Self| headers.iter().filter(|other| other.name == header.name).count() == 1;
        (headers.iter().filter(|header| is_unique(header)).cloned().collect(), count)
    }

    /// Returns the text of the argument, which [`header_value`] encodes as the value of the header. Returns `None` if
    /// the argument is missing, null or of another type; the header is then absent.
    #[must_use]
    pub fn text(&self, arguments: &Value) -> Option<String> {
        match self.value(arguments)? {
            Value::String(text) => Some(text.clone()),
            value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
            _ => None,
        }
    }

    /// Returns the names and the encoded values of the headers that repeat `arguments` (JSON text).
    #[must_use]
    pub fn values(headers: &[Self], arguments: Option<&str>) -> Vec<(String, String)> {
        if headers.is_empty() {
            return Vec::new();
        }
        let arguments: Value = arguments.and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
        let value = |header: &Self| Some((header.name.clone(), header_value(&header.text(&arguments)?)));
        headers.iter().filter_map(value).collect()
    }

    /// Returns the argument; `None` if it is missing.
    pub(crate) fn value<'v>(&self, arguments: &'v Value) -> Option<&'v Value> {
        self.path.iter().try_fold(arguments, |value, name| value.get(name))
    }
}

/// The annotations of a schema.
#[derive(Default)]
struct Annotations {
    /// The annotations with a valid type and name.
    headers: Vec<ParamHeader>,
    /// The number of all annotations.
    count: usize,
}

/// Collects the annotations that are reachable through `properties` alone.
fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Annotations) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (name, schema) in properties {
        path.push(name.clone());
        let is_simple = matches!(schema["type"].as_str(), Some("string" | "integer" | "boolean"));
        let annotation = schema.get(ANNOTATION);
        let header = annotation.and_then(Value::as_str).filter(|name| is_simple && is_token(name));
        found.headers.extend(header.map(|name| ParamHeader {
            name: format!("{PARAM_PREFIX}{}", name.to_ascii_lowercase()),
            path: path.clone(),
        }));
        if path.len() < MAX_DEPTH {
            collect(schema, path, found);
        }
        path.pop();
    }
}

/// Returns the number of annotations in a schema and all schemas in it, including those that are not reachable through
/// `properties` alone. Members whose values are not schemas are skipped.
fn count(schema: &Value) -> usize {
    /// Members that map arbitrary names to schemas.
    const BY_NAME: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
    const VALUES: [&str; 4] = ["const", "default", "enum", "examples"];
    match schema {
        Value::Array(schemas) => schemas.iter().map(count).sum(),
        Value::Object(members) => {
            let inner = members.iter().map(|(name, value)| match value {
                Value::Object(schemas) if BY_NAME.contains(&name.as_str()) => schemas.values().map(count).sum(),
                _ if name == ANNOTATION || VALUES.contains(&name.as_str()) => 0,
                _ => count(value),
            });
            usize::from(members.contains_key(ANNOTATION)) + inner.sum::<usize>()
        }
        _ => 0,
    }
}

/// Whether a text is a token, and can thus be part of a header's name (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token_byte)
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
            "empty": { "type": "string", "x-mcp-header": "" },
            "one": { "type": "string", "x-mcp-header": "Same" },
            "two": { "type": "string", "x-mcp-header": "same" },
            "plain": { "type": "string" },
        } });
        let headers = ParamHeader::of_tool(&json!({ "name": "t", "inputSchema": schema }).to_string());
        let of_call = |arguments: Value| {
            let text = |header: &ParamHeader| header.text(&arguments).map(|text| format!("{}: {text}", header.name));
            headers.iter().filter_map(text).collect::<Vec<_>>()
        };
        let arguments =
            json!({ "region": "é", "options": { "count": 7 }, "dry": false, "list": ["x"], "plain": "p", "one": "1" });
        assert_eq!(of_call(arguments), ["mcp-param-region: é", "mcp-param-count: 7", "mcp-param-dry: false"]);
        assert_eq!(of_call(json!({ "region": null, "options": 1 })), Vec::<String>::new());
        assert_eq!(ParamHeader::of_tool(r#"{"name":"u","inputSchema":{"type":"object"}}"#), []);
    }

    #[test]
    fn every_annotation_must_be_valid() {
        let are_valid = |properties: Value| {
            let schema = json!({ "type": "object", "properties": properties });
            ParamHeader::are_valid(&json!({ "name": "t", "inputSchema": schema }).to_string())
        };
        let region = json!({ "type": "string", "x-mcp-header": "Region" });
        assert!(are_valid(json!({})) && are_valid(json!({ "a": region, "b": { "type": "string" } })));
        assert!(are_valid(json!({ "x-mcp-header": { "type": "object" }, "a": { "properties": { "b": region } } })));
        for kind in ["number", "object", "array", "null"] {
            assert!(!are_valid(json!({ "a": { "type": kind, "x-mcp-header": "Region" } })), "{kind}");
        }
        for name in [json!(""), json!("My Region"), json!("a:b"), json!("Région"), json!("a\tb"), json!(1), json!(null)]
        {
            assert!(!are_valid(json!({ "a": { "type": "string", "x-mcp-header": name } })), "{name}");
        }
        assert!(!are_valid(json!({ "a": region, "b": { "type": "string", "x-mcp-header": "region" } })), "used twice");
        assert!(!are_valid(json!({ "a": region, "b": { "properties": { "c": region } } })), "used twice");
        // Annotations that are not reachable through `properties` alone.
        for unreachable in [
            json!({ "type": "array", "items": region }),
            json!({ "oneOf": [region, { "type": "null" }] }),
            json!({ "type": "object", "additionalProperties": region }),
            json!({ "items": { "properties": { "b": region } } }),
        ] {
            assert!(!are_valid(json!({ "a": unreachable })), "{unreachable}");
        }
        let mut deep = region.clone();
        for _ in 0..MAX_DEPTH {
            deep = json!({ "type": "object", "properties": { "a": deep } });
        }
        assert!(!are_valid(json!({ "a": deep })), "deeper than headers are read");
        assert!(are_valid(json!({ "a": { "default": { "x-mcp-header": "A" }, "enum": [{ "x-mcp-header": "A" }] } })));
        assert!(ParamHeader::are_valid("x-mcp-header"), "not a tool");
    }
}
