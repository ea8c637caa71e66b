//! Validation of tool arguments, and their redaction for call records.

use jsonschema::error::ValidationErrorKind;
use rmcp::model::JsonObject;
use serde_json::{Map, Value};
use waypost_core::{Error, Result};

/// The maximum number of characters of an argument that is recorded.
const MAX_RECORDED: usize = 200;
/// The maximum number of characters of an argument name that is echoed.
const MAX_NAME: usize = 64;

/// Removes known arguments that are `null` or `""`, which clients with strict schemas send for absent arguments. A required
/// argument that is removed counts as missing.
pub(super) fn drop_absent(arguments: &mut JsonObject, schema: &JsonObject) {
    let Some(known) = schema.get("properties").and_then(Value::as_object) else { return };
    let is_absent = |value: &Value| value.is_null() || value.as_str() == Some("");
    arguments.retain(|name, value| !(known.contains_key(name) && is_absent(value)));
}

/// Validates `arguments` against the tool's schema.
///
/// # Errors
/// `invalid_arguments`, which names the field and the violated rule.
pub(super) fn check(validator: &jsonschema::Validator, arguments: &JsonObject) -> Result<()> {
    // The store cannot hold NUL, and no valid argument contains it.
    for (name, value) in arguments {
        if value.as_str().is_some_and(|text| text.contains('\0')) {
            let name = truncate_name(name);
            return Err(Error::invalid(&name, format!("`{name}`: control characters are not allowed.")));
        }
    }
    let instance = Value::Object(arguments.clone());
    let Some(error) = validator.iter_errors(&instance).next() else { return Ok(()) };
    let (field, why) = match error.kind() {
        ValidationErrorKind::Required { property } => {
            (property.as_str().unwrap_or_default().to_owned(), "is missing".to_owned())
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            (truncate_name(unexpected.first().map_or("", String::as_str)), "is not an argument of this tool".to_owned())
        }
        ValidationErrorKind::Enum { options } => (field_of(&error), format!("must be one of {options}")),
        ValidationErrorKind::MaxLength { limit } => (field_of(&error), format!("must have at most {limit} characters")),
        ValidationErrorKind::MinLength { .. } => (field_of(&error), "must not be empty".to_owned()),
        ValidationErrorKind::Type { kind } => (field_of(&error), expected(kind)),
        _ => (field_of(&error), "does not match the schema".to_owned()),
    };
    Err(Error::invalid(&field, format!("`{field}` {why}.")))
}

/// Returns the name of an argument as it is echoed: clients can send any name.
fn truncate_name(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

fn field_of(error: &jsonschema::ValidationError<'_>) -> String {
    truncate_name(error.instance_path().as_str().trim_start_matches('/'))
}

fn expected(kind: &jsonschema::error::TypeKind) -> String {
    match kind {
        jsonschema::error::TypeKind::Single(kind) => format!("must be a {kind}"),
        jsonschema::error::TypeKind::Multiple(kinds) => format!("must be one of {kinds:?}"),
    }
}

/// Returns the arguments as JSON for the call record: handles and emails are masked, long texts are truncated, and arguments
/// that are not in the schema are omitted.
pub(super) fn redact(arguments: &JsonObject, schema: &JsonObject) -> String {
    let known = schema.get("properties").and_then(Value::as_object);
    let kept: Map<String, Value> = arguments
        .iter()
        .filter(|(name, _)| known.is_some_and(|known| known.contains_key(*name)))
        .map(|(name, value)| {
            let value = match (name.as_str(), value) {
                ("progress_handle" | "email", _) => Value::from("…"),
                (_, Value::String(text)) => {
                    Value::from(text.chars().take(MAX_RECORDED).collect::<String>().replace('\0', ""))
                }
                (_, value @ (Value::Bool(_) | Value::Number(_) | Value::Null)) => value.clone(),
                _ => Value::from("(not a plain value)"),
            };
            (name.clone(), value)
        })
        .collect();
    Value::Object(kept).to_string()
}
