//! Arguments of tools: checked against the schema, and made fit for the record.

use jsonschema::error::ValidationErrorKind;
use rmcp::model::JsonObject;
use serde_json::{Map, Value};
use waypost_core::{Error, Result};

/// Characters of an argument that are recorded at most.
const RECORDED: usize = 200;
/// Characters of an argument's name that are said back at most.
const NAME: usize = 64;

/// Removes arguments of the schema that are `null` or `""`: clients with strict schemas send these for an argument that is
/// absent. A required argument that is removed is missing.
pub(super) fn drop_absent(arguments: &mut JsonObject, schema: &JsonObject) {
    let Some(known) = schema.get("properties").and_then(Value::as_object) else { return };
    let is_absent = |value: &Value| value.is_null() || value.as_str() == Some("");
    arguments.retain(|name, value| !(known.contains_key(name) && is_absent(value)));
}

/// Checks `arguments` against the tool's schema.
///
/// # Errors
/// `invalid_arguments` naming the field and what is expected of it.
pub(super) fn check(validator: &jsonschema::Validator, arguments: &JsonObject) -> Result<()> {
    // NUL is in no text that the store can hold, and in no argument that means anything.
    for (name, value) in arguments {
        if value.as_str().is_some_and(|text| text.contains('\0')) {
            let name = shown(name);
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
            (shown(unexpected.first().map_or("", String::as_str)), "is not an argument of this tool".to_owned())
        }
        ValidationErrorKind::Enum { options } => (field_of(&error), format!("must be one of {options}")),
        ValidationErrorKind::MaxLength { limit } => (field_of(&error), format!("has {limit} characters at most")),
        ValidationErrorKind::MinLength { .. } => (field_of(&error), "must not be empty".to_owned()),
        ValidationErrorKind::Type { kind } => (field_of(&error), expected(kind)),
        _ => (field_of(&error), "is not what the schema asks for".to_owned()),
    };
    Err(Error::invalid(&field, format!("`{field}` {why}.")))
}

/// The name of a member as it is said back: a client can send any.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME).collect()
}

fn field_of(error: &jsonschema::ValidationError<'_>) -> String {
    shown(error.instance_path().as_str().trim_start_matches('/'))
}

fn expected(kind: &jsonschema::error::TypeKind) -> String {
    match kind {
        jsonschema::error::TypeKind::Single(kind) => format!("must be a {kind}"),
        jsonschema::error::TypeKind::Multiple(kinds) => format!("must be one of {kinds:?}"),
    }
}

/// The schema's own arguments as JSON for the record: handles and addresses are masked, long texts are cut, members
/// that the schema does not know are left out.
pub(super) fn for_record(arguments: &JsonObject, schema: &JsonObject) -> String {
    let known = schema.get("properties").and_then(Value::as_object);
    let kept: Map<String, Value> = arguments
        .iter()
        .filter(|(name, _)| known.is_some_and(|known| known.contains_key(*name)))
        .map(|(name, value)| {
            let value = match (name.as_str(), value) {
                ("progress_handle" | "email", _) => Value::from("…"),
                (_, Value::String(text)) => {
                    Value::from(text.chars().take(RECORDED).collect::<String>().replace('\0', ""))
                }
                (_, value @ (Value::Bool(_) | Value::Number(_) | Value::Null)) => value.clone(),
                _ => Value::from("(not a plain value)"),
            };
            (name.clone(), value)
        })
        .collect();
    Value::Object(kept).to_string()
}
