//! The JSON Schema of an entry's configuration, and its use.
//!
//! Schemas come from the authors of tool servers, and are evaluated by the control plane, so they are limited: patterns
//! take linear time, `$ref` refers only to `#/$defs/NAME`, and its expansion is finite and bounded.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};
use waypost_core::catalog::{environment_name, is_reserved_environment_name};
use waypost_core::{Error, Result};

/// The only supported dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// The maximum size of a schema in bytes.
const MAX_BYTES: usize = 32 * 1024;
/// The maximum nesting of objects and arrays in a schema.
const MAX_DEPTH: usize = 24;
/// The maximum number of values in a schema after each `$ref` has been replaced by its definition.
const MAX_EXPANDED: usize = 10_000;
/// The maximum size of a compiled pattern in bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;
/// The maximum size of a configuration in bytes.
pub const MAX_CONFIG_BYTES: usize = 64 * 1024;

/// The maximum number of characters of a path and of a reason in an error.
const MAX_SHOWN_PATH: usize = 200;
const MAX_SHOWN_REASON: usize = 300;

/// A problem with a schema: its path, and the predicate of a sentence.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SchemaProblem {
    /// The path within the schema, such as `.properties.port`; empty for the schema itself.
    pub path: String,
    /// The problem and its solution: `is missing. Add it.`
    pub text: String,
}

impl SchemaProblem {
    fn new(path: &str, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), text: text.into() }
    }
}

/// Checks the schema of a configuration.
///
/// # Errors
/// The first problem.
pub(super) fn check_schema(schema: &Map<String, Value>) -> std::result::Result<(), SchemaProblem> {
    let whole = Value::Object(schema.clone());
    let size = whole.to_string().len();
    if size > MAX_BYTES {
        let text = format!("has {size} bytes; the maximum is {MAX_BYTES}. Shorten it.");
        return Err(SchemaProblem::new("", text));
    }
    if let Some(dialect) = schema.get("$schema")
        && dialect.as_str().map(|text| text.trim_end_matches('#')) != Some(DIALECT)
    {
        return Err(SchemaProblem::new(".$schema", format!("must be `{DIALECT}`, the only supported dialect.")));
    }
    walk(&whole, "", 0)?;
    let definitions = schema.get("$defs").and_then(Value::as_object);
    let mut expansion = Expansion { definitions, sizes: BTreeMap::new() };
    if expansion.size(&whole)? > MAX_EXPANDED {
        let text = format!("has more than {MAX_EXPANDED} values after replacing each `$ref`. Simplify it.");
        return Err(SchemaProblem::new("", text));
    }
    let accepts_objects = match schema.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        Some(kind) => kind == "object",
    };
    if !accepts_objects {
        return Err(SchemaProblem::new(".type", "must be `object`, because a configuration is an object."));
    }
    jsonschema::draft202012::meta::validate(&whole)
        .map_err(|error| SchemaProblem::new(&dotted(error.instance_path().as_str()), sentence(&error)))?;
    compile(&whole).map_err(|error| SchemaProblem::new("", sentence(&error)))?;
    check_variables(schema)
}

/// Checks a configuration against the schema of a version. Its members become environment variables, so their names are
/// checked as well.
///
/// # Errors
/// `invalid_arguments` for `config`; `path` is the path of the failing member, such as `config.port`. The message contains
/// no values, because a configuration may contain secrets by mistake.
pub fn check_config(schema: &Map<String, Value>, config: &Map<String, Value>) -> Result<()> {
    let invalid = |path: &str, text: String| {
        let path = format!("config{}", shorten_path(path));
        Err(Error::invalid("config", format!("`{path}` {text}")).with("path", path))
    };
    let whole = Value::Object(config.clone());
    let size = whole.to_string().len();
    if size > MAX_CONFIG_BYTES {
        return invalid("", format!("has {size} bytes; the maximum is {MAX_CONFIG_BYTES}. Shorten it."));
    }
    if let Err((name, problem)) = check_names(config.keys()) {
        return invalid(&format!(".{name}"), problem);
    }
    // A stored schema was checked at its import.
    let schema = Value::Object(schema.clone());
    let validator = compile(&schema).map_err(|error| Error::internal(error.masked().to_string()))?;
    match validator.iter_errors(&whole).next() {
        None => Ok(()),
        Some(error) => {
            let reason = shorten(&error.masked().to_string());
            let text = format!("does not match the schema of the entry: {reason}.");
            invalid(&dotted(error.instance_path().as_str()), text)
        }
    }
}

fn compile(schema: &Value) -> std::result::Result<Validator, ValidationError<'static>> {
    let patterns = PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
    jsonschema::options().with_draft(Draft::Draft202012).with_pattern_options(patterns).build(schema)
}

fn sentence(error: &ValidationError<'_>) -> String {
    format!("is not valid in JSON Schema 2020-12: {}.", shorten(&error.to_string()))
}

/// Returns a reason as a part of a sentence of limited length.
fn shorten(reason: &str) -> String {
    let reason: String = reason.chars().filter(|letter| !letter.is_control()).take(MAX_SHOWN_REASON).collect();
    reason.trim_end_matches('.').to_owned()
}

/// Returns a path without control characters, of limited length.
fn shorten_path(path: &str) -> String {
    let mut shown: String = path.chars().filter(|letter| !letter.is_control()).take(MAX_SHOWN_PATH).collect();
    if shown.len() < path.len() {
        shown.push('…');
    }
    shown
}

/// Converts a JSON pointer to the notation of field names: `/a/0` becomes `.a[0]`.
fn dotted(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
    let part = |part: String| if part.parse::<usize>().is_ok() { format!("[{part}]") } else { format!(".{part}") };
    parts.map(part).collect()
}

/// Checks nesting and references.
fn walk(value: &Value, path: &str, depth: usize) -> std::result::Result<(), SchemaProblem> {
    if depth > MAX_DEPTH {
        return Err(SchemaProblem::new("", format!("is nested more than {MAX_DEPTH} levels deep. Flatten it.")));
    }
    match value {
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(at, item)| walk(item, &format!("{path}[{at}]"), depth + 1))
        }
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            let path = format!("{path}.{name}");
            // A keyword has a string as its value; a property with this name has a schema.
            match (name.as_str(), member) {
                ("$ref", Value::String(target)) if definition_name(target).is_none() => {
                    let text = "must be `#/$defs/NAME`. References to other places and documents are not supported.";
                    Err(SchemaProblem::new(&path, text))
                }
                ("$dynamicRef" | "$recursiveRef", Value::String(_)) => {
                    Err(SchemaProblem::new(&path, "is not supported. Use `$ref` with `#/$defs/NAME`."))
                }
                ("$id", Value::String(_)) if depth > 0 => {
                    Err(SchemaProblem::new(&path, "is supported only at the root of the schema. Remove it."))
                }
                _ => walk(member, &path, depth + 1),
            }
        }),
        _ => Ok(()),
    }
}

/// Returns the name in `#/$defs/NAME`.
fn definition_name(target: &str) -> Option<&str> {
    target.strip_prefix("#/$defs/").filter(|name| !name.is_empty() && !name.contains(['/', '%', '~', '#']))
}

/// Computes the size of a schema in which each `$ref` is replaced by its definition, which bounds the work of a
/// validation.
struct Expansion<'a> {
    definitions: Option<&'a Map<String, Value>>,
    /// The size of each definition; `None` while it is being computed.
    sizes: BTreeMap<&'a str, Option<usize>>,
}

impl<'a> Expansion<'a> {
    fn size(&mut self, value: &'a Value) -> std::result::Result<usize, SchemaProblem> {
        match value {
            Value::Array(items) => self.sum(items.iter()),
            Value::Object(members) => {
                let target = members.get("$ref").and_then(Value::as_str).and_then(definition_name);
                let referred = target.map_or(Ok(0), |name| self.definition_size(name))?;
                Ok(self.sum(members.values())?.saturating_add(referred))
            }
            _ => Ok(1),
        }
    }

    fn sum(&mut self, values: impl Iterator<Item = &'a Value>) -> std::result::Result<usize, SchemaProblem> {
        let mut total = 1_usize;
        for value in values {
            total = total.saturating_add(self.size(value)?);
        }
        Ok(total)
    }

    fn definition_size(&mut self, name: &'a str) -> std::result::Result<usize, SchemaProblem> {
        let path = format!(".$defs.{name}");
        match self.sizes.get(name) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => {
                return Err(SchemaProblem::new(&path, "refers to itself. Recursive schemas are not supported."));
            }
            None => {}
        }
        let definition = self.definitions.and_then(|definitions| definitions.get(name));
        let definition = definition.ok_or_else(|| SchemaProblem::new(&path, "is missing. Add the definition."))?;
        self.sizes.insert(name, None);
        let size = self.size(definition)?;
        self.sizes.insert(name, Some(size));
        Ok(size)
    }
}

fn check_variables(schema: &Map<String, Value>) -> std::result::Result<(), SchemaProblem> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(()) };
    check_names(properties.keys())
        .map_err(|(name, problem)| SchemaProblem::new(&format!(".properties.{name}"), problem))
}

/// Checks that members of a configuration set different environment variables, and none that is reserved. The error
/// contains the name of the member and the problem.
fn check_names<'a>(names: impl Iterator<Item = &'a String>) -> std::result::Result<(), (&'a str, String)> {
    let mut variables: BTreeMap<String, &str> = BTreeMap::new();
    for name in names {
        let variable = environment_name(name);
        if variable.is_empty() {
            return Err((name, "is empty. Choose another name.".to_owned()));
        }
        if is_reserved_environment_name(&variable) {
            return Err((
                name,
                format!("would set the reserved environment variable `{variable}`. Choose another name."),
            ));
        }
        if let Some(other) = variables.insert(variable.clone(), name) {
            let problem = format!("and `{other}` would both set the environment variable `{variable}`. Rename one.");
            return Err((name, problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("not an object: {other}"),
        }
    }

    fn check(schema: Value) -> Option<(String, String)> {
        check_schema(&object(schema)).err().map(|problem| (problem.path, problem.text))
    }

    #[test]
    fn common_schemas_are_accepted() {
        for schema in [
            json!({}),
            json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false,
                "$id": "https://docs.example/schema.json", "required": ["url"],
                "properties": { "url": { "type": "string", "format": "uri", "pattern": "^https://" },
                    "limits": { "$ref": "#/$defs/limits" }, "$ref": { "type": "string" } },
                "$defs": { "limits": { "type": "object", "properties": { "rows": { "$ref": "#/$defs/count" } } },
                    "count": { "type": "integer", "minimum": 1, "default": 10 } } }),
            json!({ "type": ["object", "null"], "$schema": "https://json-schema.org/draft/2020-12/schema#" }),
        ] {
            assert_eq!(check(schema.clone()), None, "{schema}");
        }
    }

    #[test]
    fn problems_name_their_path() {
        let chain: Map<_, _> = (0..40)
            .map(|n| {
                let next = format!("#/$defs/d{}", n + 1);
                (format!("d{n}"), json!({ "allOf": [{ "$ref": next }, { "$ref": next }] }))
            })
            .chain([("d40".to_owned(), json!({ "type": "string" }))])
            .collect();
        let mut deep = json!({ "type": "string" });
        for _ in 0..30 {
            deep = json!({ "items": deep });
        }
        for (schema, path, words) in [
            (json!({ "type": "array" }), ".type", "must be `object`"),
            (json!({ "type": "text" }), ".type", "must be `object`"),
            (json!({ "properties": { "a": { "type": "text" } } }), ".properties.a.type", "not valid in JSON Schema"),
            (json!({ "properties": { "a": { "minimum": "1" } } }), ".properties.a.minimum", "not valid"),
            (json!({ "$schema": "http://json-schema.org/draft-07/schema#" }), ".$schema", "only supported dialect"),
            (json!({ "$ref": "https://evil.example/schema.json" }), ".$ref", "#/$defs/NAME"),
            (json!({ "properties": { "a": { "$ref": "file:///etc/passwd" } } }), ".properties.a.$ref", "other places"),
            (json!({ "allOf": [{ "$ref": "#/properties/a" }] }), ".allOf[0].$ref", "#/$defs/NAME"),
            (json!({ "$dynamicRef": "#a" }), ".$dynamicRef", "not supported"),
            (json!({ "properties": { "a": { "$id": "x" } } }), ".properties.a.$id", "only at the root"),
            (json!({ "$ref": "#/$defs/a" }), ".$defs.a", "is missing"),
            (json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/a" } } }), ".$defs.a", "refers to itself"),
            (json!({ "$ref": "#/$defs/d0", "$defs": chain }), "", "after replacing each `$ref`"),
            (json!({ "not": deep }), "", "levels deep"),
            (json!({ "description": "x".repeat(MAX_BYTES) }), "", "the maximum is 32768"),
            (json!({ "properties": { "path": {} } }), ".properties.path", "reserved environment variable `PATH`"),
            (json!({ "properties": { "ld-preload": {} } }), ".properties.ld-preload", "`LD_PRELOAD`"),
            (json!({ "properties": { "a-b": {}, "a_b": {} } }), ".properties.a_b", "`a-b` would both set"),
            (json!({ "properties": { "": {} } }), ".properties.", "is empty"),
            (json!({ "properties": { "a": { "pattern": "(?=x)" } } }), "", "not valid in JSON Schema"),
            (json!({ "properties": { "a": { "pattern": "(x{1000}){1000}" } } }), "", "not valid in JSON Schema"),
        ] {
            let (found, text) = check(schema.clone()).unwrap_or_else(|| panic!("{schema} is accepted"));
            assert!(found == path && text.contains(words), "{schema}: {found:?} {text}");
            assert!(text.ends_with('.') && !text.ends_with(".."), "{text}");
        }
    }

    #[test]
    fn configurations_are_checked_without_showing_values() {
        let schema = object(json!({ "properties": { "port": { "type": "integer" }, "mode": { "enum": ["a"] } },
            "required": ["port"], "additionalProperties": { "type": "string", "pattern": "^(a+)+$" } }));
        let check = |config: Value| check_config(&schema, &object(config));
        assert!(check(json!({ "port": 1, "mode": "a", "other": "aaa" })).is_ok());
        for (config, words) in [
            (json!({}), "`config` does not match the schema of the entry"),
            (json!({ "port": "hunter2" }), "`config.port` does not match"),
            (json!({ "port": 1, "mode": "hunter2" }), "`config.mode` does not match"),
            (json!({ "port": 1, "other": "hunter2" }), "`config.other` does not match"),
            (json!({ "port": 1, "Path": "a" }), "`config.Path` would set the reserved environment variable `PATH`"),
            (json!({ "port": 1, "a.b": "a", "a_b": "a" }), "`config.a_b` and `a.b` would both set"),
            (json!({ "port": 1, "other": "a".repeat(MAX_CONFIG_BYTES) }), "the maximum is 65536"),
        ] {
            let error = check(config).unwrap_err();
            assert!(error.details["field"] == "config" && error.message.contains(words), "{error}");
            assert!(!error.message.contains("hunter2"), "{error}");
        }
        let error = check(json!({ "port": "hunter2" })).unwrap_err();
        assert_eq!(error.details["path"], "config.port");
        // Errors are bounded, whatever the configuration and the schema contain.
        let schema_with_long_names = object(json!({ "additionalProperties": false,
            "properties": { "list": { "items": { "enum": vec!["x".repeat(50); 300] } } } }));
        for config in [json!({ "n".repeat(5_000): 1 }), json!({ "list": [0, "hunter2"] })] {
            let error = check_config(&schema_with_long_names, &object(config)).unwrap_err();
            assert!(error.message.len() < 2_000 && !error.message.contains("hunter2"), "{error}");
        }
        let error = check_config(&schema_with_long_names, &object(json!({ "list": [0] }))).unwrap_err();
        assert_eq!(error.details["path"], "config.list[0]");
        // Takes linear time.
        assert!(check(json!({ "port": 1, "other": format!("{}b", "a".repeat(50_000)) })).is_err());
        assert!(check_config(&Map::new(), &object(json!({ "any": [1] }))).is_ok());
    }
}
