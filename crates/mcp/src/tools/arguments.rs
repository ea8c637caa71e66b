//! Validation of tool arguments, and their redaction for call records.

use rmcp::model::JsonObject;
use serde_json::{Map, Value};
use waypost_core::{Error, Result};

/// The maximum number of characters of an argument that is recorded.
const MAX_RECORDED: usize = 200;
/// The maximum number of characters of an argument name that is echoed.
const MAX_NAME: usize = 64;

/// Removes known arguments that are `null` or `""`, which clients with strict schemas send for absent arguments. A
/// required argument that is removed counts as missing.
pub(super) fn drop_absent(arguments: &mut JsonObject, schema: &JsonObject) {
    let Some(known) = schema.get("properties").and_then(Value::as_object) else { return };
    let is_absent = |value: &Value| value.is_null() || value.as_str() == Some("");
    arguments.retain(|name, value| !(known.contains_key(name) && is_absent(value)));
}

/// Validates `arguments` against the tool's schema, whose keywords are those of [`super::schema`]: `properties` with
/// `type`, `enum`, `minLength` and `maxLength`, and `required`; other members are not allowed. `confirm` is never
/// required, so that the error without it is `confirmation_required`.
///
/// # Errors
/// `invalid_arguments`, which names the field and the violated rule.
pub(super) fn check(schema: &JsonObject, arguments: &JsonObject) -> Result<()> {
    let known = schema.get("properties").and_then(Value::as_object);
    for (name, value) in arguments {
        let violated = match known.and_then(|known| known.get(name)) {
            // The store cannot hold NUL, and no valid argument contains it.
            _ if value.as_str().is_some_and(|text| text.contains('\0')) => {
                Some(" must not contain NUL characters".to_owned())
            }
            Some(property) => violated_rule(property, value).map(|rule| format!(" {rule}")),
            None => Some(" is not an argument of this tool".to_owned()),
        };
        if let Some(violated) = violated {
            let name = truncate_name(name);
            return Err(Error::invalid(&name, format!("`{name}`{violated}.")));
        }
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    match required.filter(|name| *name != "confirm").find(|name| !arguments.contains_key(*name)) {
        Some(name) => Err(Error::invalid(name, format!("`{name}` is missing."))),
        None => Ok(()),
    }
}

/// Returns the rule of `property` that `value` violates.
fn violated_rule(property: &Value, value: &Value) -> Option<String> {
    let kind = property["type"].as_str().unwrap_or_default();
    let has_type = match kind {
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        _ => false,
    };
    if !has_type {
        return Some(format!("must be a {kind}"));
    }
    if let Some(options) = property["enum"].as_array().filter(|options| !options.contains(value)) {
        return Some(format!("must be one of {}", Value::from(options.clone())));
    }
    let text = value.as_str()?;
    let is_longer = |limit: u64| text.len() as u64 > limit && text.chars().count() as u64 > limit;
    if let Some(limit) = property["maxLength"].as_u64().filter(|limit| is_longer(*limit)) {
        return Some(format!("must have at most {limit} characters"));
    }
    (text.is_empty() && property["minLength"].as_u64().is_some_and(|limit| limit > 0))
        .then(|| "must not be empty".to_owned())
}

/// Returns the name of an argument in the form in which it is echoed. It is truncated, because clients can send any
/// name.
fn truncate_name(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}

/// Returns the arguments as JSON for the call record: handles and emails are masked, long strings are truncated, and
/// arguments that are not in the schema are omitted.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::tools::schema;

    fn arguments() -> impl Strategy<Value = JsonObject> {
        let name = prop_oneof![
            Just("walkthrough_id"),
            Just("use_version"),
            Just("confirm"),
            Just("resume_if_exists"),
            Just("query"),
            Just("title"),
            Just("problem"),
            Just("email"),
            Just("cursor"),
            Just("current_step_id"),
            Just("other"),
        ];
        let value = prop_oneof![
            Just(json!("started")),
            Just(json!("latest")),
            Just(json!("")),
            Just(json!(true)),
            Just(json!(null)),
            Just(json!(1)),
            Just(json!(["x"])),
            Just(json!({})),
            Just(json!("é".repeat(320))),
            Just(json!("é".repeat(321))),
            Just(json!("x".repeat(500))),
            Just(json!("x".repeat(501))),
            "[a-z ]{0,8}".prop_map(Value::from),
        ];
        prop::collection::vec((name.prop_map(str::to_owned), value), 0..4).prop_map(|all| all.into_iter().collect())
    }

    proptest! {
        /// A JSON Schema validator gives the same result, except for `confirm`.
        #[test]
        fn arguments_are_valid_if_and_only_if_they_match_the_schema(given in arguments()) {
            for schema in [
                schema::list_arguments(), schema::select_arguments(), schema::next_arguments(), schema::read_arguments(),
                schema::reset_arguments(), schema::complete_arguments(), schema::support_arguments(),
            ] {
                let mut reference = schema.clone();
                reference["required"].as_array_mut().unwrap().retain(|name| name != "confirm");
                let expected = jsonschema::is_valid(&reference, &Value::Object(given.clone()));
                let checked = check(schema.as_object().unwrap(), &given);
                prop_assert_eq!(checked.is_ok(), expected, "{:?} for {}", checked, schema);
            }
        }
    }

    /// [`check`] ignores other keywords, so the schemas must not use them.
    #[test]
    fn schemas_use_only_the_keywords_that_are_checked() {
        for schema in [
            schema::list_arguments(),
            schema::select_arguments(),
            schema::next_arguments(),
            schema::read_arguments(),
            schema::reset_arguments(),
            schema::complete_arguments(),
            schema::support_arguments(),
            json!({ "type": "object", "properties": { "email": schema::email() }, "required": [], "additionalProperties": false }),
        ] {
            let keywords: Vec<_> = schema.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keywords, ["type", "properties", "required", "additionalProperties"]);
            for (name, property) in schema["properties"].as_object().unwrap() {
                assert!(matches!(property["type"].as_str(), Some("string" | "boolean")), "{name}");
                for keyword in property.as_object().unwrap().keys() {
                    let known = ["type", "enum", "minLength", "maxLength", "description", "default", "format"];
                    assert!(known.contains(&keyword.as_str()), "{name}: {keyword}");
                }
            }
        }
    }
}
