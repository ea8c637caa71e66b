//! Functions that are common to all decisions about definitions.

use serde_json::{Map, Value, json};
use waypost_core::caller::Ctx;
use waypost_core::tool_definition::{DefinitionKind, ToolDefinition};
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::param_headers::ParamHeader;
use waypost_store::Tx;

use crate::audit::{Entry, record};
use crate::deployments::notify::clean;

/// Checks that a definition can be approved with this digest.
///
/// # Errors
/// `conflict` if it has another digest, or the server no longer lists it; `invalid_arguments` if it has a problem, or its
/// schema is invalid.
pub(crate) fn check(definition: &ToolDefinition, digest: &str) -> Result<()> {
    if definition.digest != digest {
        let message = "This definition has another digest. Read it again before you approve it.";
        return Err(Error::new(Code::Conflict, message).with("digest", definition.digest.as_str()));
    }
    if !definition.is_current {
        let message = "The server no longer lists this definition. Approve the newest one.";
        return Err(Error::new(Code::Conflict, message));
    }
    if let Some(problem) = &definition.problem {
        let message = match problem.as_str() {
            "not_canonical" => "Programs could read this definition in different ways, so it cannot be approved.",
            "invalid_name" => {
                "The name of this definition is too long or has control characters, so it cannot be approved."
            }
            _ => "This definition is too large to be approved.",
        };
        return Err(Error::new(Code::InvalidArguments, message).with("reason", problem.as_str()));
    }
    if definition.kind == DefinitionKind::Tool {
        check_schemas(&definition.definition)?;
    }
    Ok(())
}

/// Checks the schemas of a tool (2026-07-28, "Tools": `inputSchema` is a JSON Schema with `type: object`). Some MCP
/// hosts reject a whole list because of one invalid schema.
fn check_schemas(definition: &str) -> Result<()> {
    let tool: Value = serde_json::from_str(definition).map_err(Error::internal)?;
    let invalid = |message: String| Error::new(Code::InvalidArguments, message).with("reason", "invalid_schema");
    let Some(input) = tool.get("inputSchema") else {
        return Err(invalid("This tool has no `inputSchema`, so it cannot be approved.".to_owned()));
    };
    if input.get("type") != Some(&Value::from("object")) {
        return Err(invalid("The `inputSchema` of this tool must have `type: object`.".to_owned()));
    }
    for (name, schema) in [("inputSchema", Some(input)), ("outputSchema", tool.get("outputSchema"))] {
        if let Some(Err(error)) = schema.map(jsonschema::draft202012::meta::validate) {
            let message =
                format!("The `{name}` of this tool is not a valid JSON Schema: {}.", clean(&error.to_string()));
            return Err(invalid(message));
        }
    }
    if !ParamHeader::are_valid(definition) {
        let message =
            "An `x-mcp-header` in the `inputSchema` of this tool is not valid, so clients would reject the tool.";
        return Err(invalid(message.to_owned()));
    }
    Ok(())
}

/// Records a decision in the audit log.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn record_decision(
    cx: &Ctx,
    tx: &mut Tx,
    definition: &ToolDefinition,
    action: &'static str,
) -> Result<()> {
    let entry = Entry { action, target: definition.id.as_str(), detail: detail(definition).into() };
    record(cx, tx, &definition.organization_id, entry).await
}

/// Records a rejection in the audit log. `withdrawn` are the digests of the other definitions whose approvals have ended with it.
///
/// # Errors
/// Any error of the store.
pub(crate) async fn record_rejection(
    cx: &Ctx,
    tx: &mut Tx,
    definition: &ToolDefinition,
    withdrawn: Vec<String>,
) -> Result<()> {
    let mut detail = detail(definition);
    detail.insert("withdrawn".to_owned(), withdrawn.into());
    let entry = Entry { action: "tool_approval.reject", target: definition.id.as_str(), detail: detail.into() };
    record(cx, tx, &definition.organization_id, entry).await
}

fn detail(definition: &ToolDefinition) -> Map<String, Value> {
    let members = [
        ("instance", json!(definition.instance_id)),
        ("kind", json!(definition.kind)),
        ("name", json!(clean(&definition.name))),
        ("digest", json!(definition.digest)),
        ("class", json!(definition.class)),
        ("reason", json!(definition.reason)),
    ];
    members.into_iter().map(|(member, value)| (member.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tools_with_valid_schemas_can_be_approved() {
        let reason = |definition: Value| {
            check_schemas(&definition.to_string()).err().map(|error| error.details["reason"].clone())
        };
        let object = json!({ "type": "object", "properties": { "a": { "type": "string" } } });
        assert_eq!(reason(json!({ "inputSchema": object })), None);
        assert_eq!(reason(json!({ "inputSchema": object, "outputSchema": { "type": "array" } })), None);
        for invalid in [
            json!({}),
            json!({ "inputSchema": {} }),
            json!({ "inputSchema": true }),
            json!({ "inputSchema": { "type": ["object"] } }),
            json!({ "inputSchema": { "type": "object", "properties": { "a": { "type": "text" } } } }),
            json!({ "inputSchema": object, "outputSchema": { "minimum": "1" } }),
            json!({ "inputSchema": { "type": "object", "properties": { "a": { "type": "number", "x-mcp-header": "A" } } } }),
        ] {
            assert_eq!(reason(invalid.clone()), Some("invalid_schema".into()), "{invalid}");
        }
    }
}
