//! A configuration as form fields: one for each property of its JSON Schema.

use serde_json::{Map, Number, Value};
use waypost_core::{Error, Result};

use crate::view::FormError;

/// The maximum length of a text above which its field has several lines.
const LONG_TEXT: u64 = 200;
/// The name of the field for members that the schema does not list.
const REST: &str = "config-rest";

/// The kind of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    /// One line of text.
    Text,
    /// Several lines of text.
    LongText,
    /// A number.
    Number,
    /// One of several values, as JSON.
    Choice,
    /// Any other value, as JSON.
    Json,
}

/// The field of a property.
pub(super) struct ConfigField {
    /// The name in the form. Properties can have any name, so it contains only the position.
    pub(super) name: String,
    /// The name of the property.
    pub(super) member: String,
    pub(super) label: String,
    pub(super) hint: String,
    pub(super) kind: FieldKind,
    /// The value and the label of each choice.
    pub(super) options: Vec<(String, String)>,
    pub(super) value: String,
    is_required: bool,
    /// The attributes of the field, which contain nothing but numbers and constants.
    pub(super) attributes: String,
}

impl ConfigField {
    fn new(position: usize, member: &str, schema: &Value, is_required: bool, value: Option<&Value>) -> Self {
        let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default().trim();
        let title = text("title");
        let label = if title.is_empty() { member } else { title };
        let (kind, mut options) = kind(schema, value);
        if kind == FieldKind::Choice && !is_required {
            options.insert(0, (String::new(), "Not set".to_owned()));
        }
        let mut hint = match (title.is_empty(), text("description")) {
            (true, description) => description.to_owned(),
            (false, "") => member.to_owned(),
            (false, description) => format!("{member}: {description}"),
        };
        if kind == FieldKind::Json {
            hint = format!("{hint} Enter JSON.").trim_start().to_owned();
        }
        Self {
            name: format!("config-{position}"),
            member: member.to_owned(),
            label: if is_required { format!("{label} (required)") } else { label.to_owned() },
            hint,
            kind,
            options,
            value: value.map(|value| to_text(kind, value)).unwrap_or_default(),
            is_required,
            attributes: attributes(kind, schema, is_required),
        }
    }

    pub(super) fn is_long(&self) -> bool {
        matches!(self.kind, FieldKind::LongText | FieldKind::Json)
    }

    pub(super) fn is_choice(&self) -> bool {
        self.kind == FieldKind::Choice
    }

    pub(super) fn choices(&self) -> &[(String, String)] {
        &self.options
    }

    /// Returns the type of the input element.
    pub(super) fn input_type(&self) -> &'static str {
        if self.kind == FieldKind::Number { "number" } else { "text" }
    }

    /// Returns the value. `None` if the field is empty.
    ///
    /// # Errors
    /// `invalid_arguments` with the name of the field.
    fn parse(&self) -> Result<Option<Value>> {
        let invalid = |message: &str| Error::invalid(&self.name, message);
        if self.value.trim().is_empty() {
            return if self.is_required { Err(invalid("Enter a value. It is required.")) } else { Ok(None) };
        }
        let value = match self.kind {
            // Browsers send line breaks as CR LF.
            FieldKind::Text | FieldKind::LongText => Value::String(self.value.replace("\r\n", "\n")),
            FieldKind::Number => {
                let number = serde_json::from_str::<Number>(self.value.trim());
                Value::Number(number.map_err(|_| invalid("Enter a number, such as 8 or 0.5."))?)
            }
            FieldKind::Choice => {
                let is_known = self.options.iter().any(|(value, _)| *value == self.value);
                let value = serde_json::from_str(&self.value).ok().filter(|_| is_known);
                value.ok_or_else(|| invalid("Select one of the values."))?
            }
            FieldKind::Json => parse_json(&self.value).map_err(|message| invalid(&message))?,
        };
        Ok(Some(value))
    }
}

/// Returns the kind of a field, and its choices.
fn kind(schema: &Value, value: Option<&Value>) -> (FieldKind, Vec<(String, String)>) {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let label = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return (FieldKind::Choice, values.iter().map(|value| (value.to_string(), label(value))).collect());
    }
    let types = match schema.get("type") {
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(one)) => vec![one.as_str()],
        _ => Vec::new(),
    };
    let mut types = types.into_iter().filter(|name| *name != "null");
    let kind = match (types.next(), types.next()) {
        (Some("string"), None) if value.is_none_or(Value::is_string) => {
            let is_long = schema.get("contentMediaType").is_some()
                || schema.get("maxLength").and_then(Value::as_u64).is_some_and(|length| length > LONG_TEXT)
                || value.and_then(Value::as_str).is_some_and(|text| text.contains('\n'));
            if is_long { FieldKind::LongText } else { FieldKind::Text }
        }
        (Some("number" | "integer"), None) if value.is_none_or(Value::is_number) => FieldKind::Number,
        (Some("boolean"), None) => {
            let options = [("true", "Yes"), ("false", "No")];
            let options = options.map(|(value, label)| (value.to_owned(), label.to_owned())).to_vec();
            return (FieldKind::Choice, options);
        }
        _ => FieldKind::Json,
    };
    (kind, Vec::new())
}

fn to_text(kind: FieldKind, value: &Value) -> String {
    match (kind, value) {
        (FieldKind::Text | FieldKind::LongText, Value::String(text)) => text.clone(),
        (FieldKind::Json, value) => serde_json::to_string_pretty(value).unwrap_or_default(),
        (_, value) => value.to_string(),
    }
}

fn attributes(kind: FieldKind, schema: &Value, is_required: bool) -> String {
    let mut attributes = "autocomplete=\"off\" spellcheck=\"false\"".to_owned();
    if is_required {
        attributes.push_str(" required");
    }
    if kind == FieldKind::Number {
        let step = if schema.get("type").is_some_and(|name| name == "integer") { "1" } else { "any" };
        attributes.push_str(&format!(" step=\"{step}\""));
        for (name, keyword) in [("min", "minimum"), ("max", "maximum")] {
            if let Some(limit) = schema.get(keyword).and_then(Value::as_number) {
                attributes.push_str(&format!(" {name}=\"{limit}\""));
            }
        }
    }
    attributes
}

fn parse_json(text: &str) -> std::result::Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("This is not valid JSON: {error}."))
}

/// The fields of a configuration.
pub(super) struct ConfigForm {
    pub(super) fields: Vec<ConfigField>,
    /// The field for members that the schema does not list. `None` if there are none and none can be added.
    pub(super) rest: Option<ConfigField>,
}

impl ConfigForm {
    /// Creates the fields for a schema with the values of `config`. For a new instance, `config` is `None`, and the
    /// fields have the default values of the schema.
    pub(super) fn new(schema: &Map<String, Value>, config: Option<&Map<String, Value>>) -> Self {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let required = schema.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|required| required == name));
        let field = |(position, (member, property)): (usize, (&String, &Value))| {
            let property = resolve(schema, property);
            let value = match config {
                Some(config) => config.get(member),
                None => property.get("default"),
            };
            ConfigField::new(position, member, property, is_required(member), value)
        };
        let fields = properties.iter().enumerate().map(field).collect();
        let is_other = |(member, _): &(&String, &Value)| !properties.contains_key(*member);
        let members: Map<String, Value> = config
            .unwrap_or(&none)
            .iter()
            .filter(is_other)
            .map(|(member, value)| (member.clone(), value.clone()))
            .collect();
        let is_open =
            properties.is_empty() && !schema.is_empty() && schema.get("additionalProperties") != Some(&false.into());
        let rest = (is_open || !members.is_empty()).then(|| ConfigField {
            name: REST.to_owned(),
            member: String::new(),
            label: if properties.is_empty() { "Members" } else { "Other members" }.to_owned(),
            hint: "Enter a JSON object.".to_owned(),
            kind: FieldKind::Json,
            options: Vec::new(),
            value: if members.is_empty() { String::new() } else { to_text(FieldKind::Json, &members.into()) },
            is_required: false,
            attributes: String::new(),
        });
        Self { fields, rest }
    }

    /// Replaces the values with those of a submitted form.
    #[must_use]
    pub(super) fn with_input(mut self, pairs: &[(String, String)]) -> Self {
        let input = |name: &str| pairs.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
        for field in self.fields.iter_mut().chain(&mut self.rest) {
            field.value = input(&field.name).unwrap_or_default();
        }
        self
    }

    /// Whether there is nothing to configure.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.rest.is_none()
    }

    /// Returns the configuration. Empty fields are omitted.
    ///
    /// # Errors
    /// `invalid_arguments` with the name of the form field.
    pub(super) fn parse(&self) -> Result<Map<String, Value>> {
        let mut config = Map::new();
        if let Some(rest) = &self.rest
            && let Some(value) = rest.parse()?
        {
            let Value::Object(members) = value else {
                return Err(Error::invalid(REST, "Enter a JSON object, such as {\"name\": \"value\"}."));
            };
            config = members;
        }
        for field in &self.fields {
            if let Some(value) = field.parse()? {
                config.insert(field.member.clone(), value);
            }
        }
        Ok(config)
    }

    /// Moves an error about a member of the configuration to its field.
    pub(super) fn locate(&self, error: Error) -> Error {
        let path = error.details.get("path").and_then(Value::as_str).and_then(|path| path.strip_prefix("config."));
        let Some(path) = path else { return error };
        let is_at = |field: &&ConfigField| {
            path.strip_prefix(field.member.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let Some(field) = self.fields.iter().filter(is_at).max_by_key(|field| field.member.len()) else { return error };
        let message = match error.message.split_once("schema of the entry: ") {
            Some((_, reason)) => format!("This is not a valid value: {reason}"),
            None => error.message.clone(),
        };
        Error::invalid(&field.name, message)
    }

    /// Returns the message of an error that belongs to the configuration as a whole.
    pub(super) fn general_error<'a>(&self, form_error: &'a FormError) -> Option<&'a str> {
        form_error.message_for("config")
    }
}

/// Replaces a reference to a definition with the definition.
fn resolve<'a>(schema: &'a Map<String, Value>, property: &'a Value) -> &'a Value {
    let name = property.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix("#/$defs/"));
    let definition = name.and_then(|name| schema.get("$defs")?.get(name));
    definition.unwrap_or(property)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn schema() -> Map<String, Value> {
        map(json!({
            "properties": {
                "url": { "type": "string", "title": "Base URL", "description": "Of the service." },
                "port": { "type": "integer", "minimum": 1, "maximum": 65535, "default": 443 },
                "verbose": { "type": "boolean" },
                "mode": { "enum": ["fast", "slow", 3] },
                "list": { "type": "array" },
                "note": { "type": ["string", "null"], "maxLength": 5000 },
                "level": { "$ref": "#/$defs/level" },
            },
            "required": ["url", "mode"],
            "$defs": { "level": { "type": "number" } },
        }))
    }

    #[test]
    fn properties_become_fields_by_their_type() {
        let form = ConfigForm::new(&schema(), None);
        let kinds: Vec<_> = form.fields.iter().map(|field| field.kind).collect();
        use FieldKind::{Choice, Json, LongText, Number, Text};
        assert_eq!(kinds, [Text, Number, Choice, Choice, Json, LongText, Number]);
        assert_eq!(
            (form.fields[0].label.as_str(), form.fields[0].hint.as_str()),
            ("Base URL (required)", "url: Of the service.")
        );
        assert_eq!(form.fields[1].value, "443");
        assert!(
            form.fields[1].attributes.ends_with("step=\"1\" min=\"1\" max=\"65535\""),
            "{}",
            form.fields[1].attributes
        );
        assert_eq!((form.fields[2].options.len(), form.fields[3].options.len()), (3, 3));
        assert!(form.rest.is_none());
    }

    #[test]
    fn a_configuration_is_unchanged_after_it_is_shown_and_submitted() {
        let config = map(json!({
            "url": "https://x.example", "port": 8080, "verbose": false, "mode": 3, "list": [1, { "a": 2 }], "note": "a\nb",
            "level": 0.5, "extra": { "kept": true },
        }));
        let form = ConfigForm::new(&schema(), Some(&config));
        let input: Vec<_> = form
            .fields
            .iter()
            .chain(&form.rest)
            .map(|field| (field.name.clone(), field.value.replace('\n', "\r\n")))
            .collect();
        let parsed = ConfigForm::new(&schema(), Some(&config)).with_input(&input).parse().unwrap();
        assert_eq!(Value::Object(parsed), Value::Object(config));
        let optional = map(json!({ "properties": { "a": { "type": "string" }, "b": { "enum": [1] } } }));
        assert!(ConfigForm::new(&optional, None).with_input(&[]).parse().unwrap().is_empty());
    }

    #[test]
    fn invalid_input_is_reported_at_its_field() {
        for (field, text) in [(0, " "), (1, "many"), (2, "maybe"), (3, "\"other\""), (4, "[1"), (6, "1 2")] {
            let name = format!("config-{field}");
            let mut input = vec![(name.clone(), text.to_owned())];
            // If a name occurs more than once, the first value is used.
            input.extend([("config-0", "x"), ("config-3", "3")].map(|(name, text)| (name.to_owned(), text.to_owned())));
            let form = ConfigForm::new(&schema(), None).with_input(&input);
            assert_eq!(form.parse().unwrap_err().details["field"], name.as_str(), "{text}");
        }
        let open = map(json!({ "type": "object" }));
        let form = ConfigForm::new(&open, None).with_input(&[(REST.to_owned(), "[]".to_owned())]);
        assert_eq!(form.parse().unwrap_err().details["field"], REST);
    }

    #[test]
    fn errors_of_members_are_shown_at_their_field() {
        let form = ConfigForm::new(&schema(), None);
        let error = |path: &str| {
            let error = Error::invalid("config", format!("`{path}` does not match the schema of the entry: too big."));
            form.locate(error.with("path", path))
        };
        let port = error("config.port");
        assert_eq!(
            (&port.details["field"], port.message.as_str()),
            (&json!("config-1"), "This is not a valid value: too big.")
        );
        assert_eq!(error("config.list.0").details["field"], "config-4");
        assert_eq!(error("config").details["field"], "config");
        assert_eq!(error("config.ports").details["field"], "config");
    }
}
