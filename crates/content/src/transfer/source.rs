//! References to locations in imported files. Every rejection names the file, the step and the field.

use std::fmt;

use serde_json::{Map, Value};

use waypost_core::Error;
use waypost_core::step::{MAX_FIELD_BYTES, MAX_TITLE_CHARS};

/// Maximum nesting of objects and arrays in metadata. The store parses metadata with a limit of 128 levels, so this
/// limit must be well below it.
const MAX_DEPTH: usize = 64;

/// A reference to an imported file or one of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRef {
    file: String,
    step: Option<StepPlace>,
    prefix: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct StepPlace {
    label: String,
    location: String,
}

impl SourceRef {
    /// Refers to the whole file `name`.
    #[must_use]
    pub fn file(name: &str) -> Self {
        Self { file: name.to_owned(), step: None, prefix: "" }
    }

    /// Refers to the step `number` (from 1) of the file at `location` (`steps[2]`, `line 14`, a path).
    #[must_use]
    pub fn step(&self, number: usize, title: Option<&str>, location: &str) -> Self {
        let step = StepPlace { label: label(number, title), location: location.to_owned() };
        Self { file: self.file.clone(), step: Some(step), prefix: "" }
    }

    /// Refers to a member of the same location. `prefix` (with a trailing dot) is prepended to the names of fields.
    #[must_use]
    pub fn within(&self, prefix: &'static str) -> Self {
        Self { prefix, ..self.clone() }
    }

    /// Returns the name of the file.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.file
    }

    /// Returns the label of the step, such as `step 3 "Install"`. Returns `None` for the whole file.
    #[must_use]
    pub fn step_label(&self) -> Option<&str> {
        self.step.as_ref().map(|step| step.label.as_str())
    }

    /// Returns the location of the step in the file. Returns `None` for the whole file.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.step.as_ref().map(|step| step.location.as_str())
    }

    /// Creates the rejection of `field` at this location. `problem` is the predicate of a sentence that begins with the
    /// field, followed by what to do: `is missing. Write a title.`
    #[must_use]
    pub fn reject(&self, field: &str, problem: impl fmt::Display) -> Error {
        let field = format!("{}{field}", self.prefix);
        let error = match &self.step {
            Some(step) if self.file.ends_with(&step.location) => {
                Error::invalid(&field, format!("{}: {}, `{field}` {problem}", self.file, step.label))
            }
            Some(step) => Error::invalid(
                &field,
                format!("{}: {} ({}), `{field}` {problem}", self.file, step.label, step.location),
            ),
            None => Error::invalid(&field, format!("{}: `{field}` {problem}", self.file)),
        };
        let error = error.with("file", self.file.as_str());
        match &self.step {
            Some(step) => error.with("step", step.label.as_str()).with("location", step.location.as_str()),
            None => error,
        }
    }

    /// Checks a title (or another single line): 1 to 200 characters.
    ///
    /// # Errors
    /// `invalid_arguments` naming the location.
    pub fn check_title(&self, field: &str, title: &str) -> waypost_core::Result<()> {
        title_problem(title).map_or(Ok(()), |problem| Err(self.reject(field, problem)))
    }

    /// Checks a single line that may be empty: at most 200 characters.
    ///
    /// # Errors
    /// `invalid_arguments` naming the location.
    pub fn check_line(&self, field: &str, line: &str) -> waypost_core::Result<()> {
        line_problem(line).map_or(Ok(()), |problem| Err(self.reject(field, problem)))
    }

    /// Checks a text: at most 64 KiB.
    ///
    /// # Errors
    /// `invalid_arguments` naming the location.
    pub fn check_text(&self, field: &str, text: &str) -> waypost_core::Result<()> {
        text_problem(text).map_or(Ok(()), |problem| Err(self.reject(field, problem)))
    }
}

/// Returns the problem with a title. Returns `None` if it is valid.
pub(super) fn title_problem(title: &str) -> Option<String> {
    if title.trim().is_empty() { Some("is empty. Write a title.".to_owned()) } else { line_problem(title) }
}

/// Returns the problem with a single line that may be empty.
pub(super) fn line_problem(line: &str) -> Option<String> {
    let count = line.trim().chars().count();
    (count > MAX_TITLE_CHARS).then(|| format!("has {count} characters; the maximum is {MAX_TITLE_CHARS}. Shorten it."))
}

/// Returns the problem with a text.
pub(super) fn text_problem(text: &str) -> Option<String> {
    let count = text.len();
    (count > MAX_FIELD_BYTES)
        .then(|| format!("has {count} bytes; the maximum is {MAX_FIELD_BYTES}. Shorten or split it."))
}

/// Returns the label of a step for messages, such as `step 3 "Install"`, with the title shortened and escaped.
pub(super) fn label(number: usize, title: Option<&str>) -> String {
    match title.map(str::trim).filter(|title| !title.is_empty()) {
        Some(title) => format!("step {number} {:?}", shorten(title)),
        None => format!("step {number}"),
    }
}

fn shorten(title: &str) -> String {
    match title.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &title[..end]),
        None => title.to_owned(),
    }
}

/// The members of an object, which are taken out by name. The remaining members are unknown and kept.
pub(super) struct Members {
    pub(super) source: SourceRef,
    map: Map<String, Value>,
}

impl Members {
    pub(super) fn new(source: SourceRef, map: Map<String, Value>) -> Self {
        Self { source, map }
    }

    /// Takes a member, including `null`.
    pub(super) fn take_raw(&mut self, name: &str) -> Option<Value> {
        self.map.shift_remove(name)
    }

    /// Takes a member; `null` counts as absent.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.take_raw(name).filter(|value| !value.is_null())
    }

    /// Puts a member back among the unknown ones.
    pub(super) fn put_back(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    pub(super) fn text(&mut self, name: &str) -> waypost_core::Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(name, "text", &other)),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    pub(super) fn object(&mut self, name: &str) -> waypost_core::Result<Option<Map<String, Value>>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(self.wrong_type(name, "an object", &other)),
        }
    }

    pub(super) fn whole(&mut self, name: &str) -> waypost_core::Result<Option<i64>> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => whole(&value).map(Some).ok_or_else(|| self.wrong_type(name, "a whole number", &value)),
        }
    }

    pub(super) fn wrong_type(&self, name: &str, expected: &str, found: &Value) -> Error {
        self.source.reject(name, format!("must be {expected}, not {}.", noun(found)))
    }

    /// Returns the remaining members.
    pub(super) fn rest(self) -> waypost_core::Result<Map<String, Value>> {
        check_depth(&self.source, &self.map)?;
        Ok(self.map)
    }
}

/// Rejects members that are nested too deeply to be read back.
pub(super) fn check_depth(source: &SourceRef, members: &Map<String, Value>) -> waypost_core::Result<()> {
    match members.iter().find(|(_, value)| is_deeper_than(value, MAX_DEPTH)) {
        Some((name, _)) => {
            Err(source.reject(name, format!("is nested more than {MAX_DEPTH} levels deep. Flatten it.")))
        }
        None => Ok(()),
    }
}

fn is_deeper_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|item| is_deeper_than(item, levels - 1)),
        Value::Object(members) => levels == 0 || members.values().any(|item| is_deeper_than(item, levels - 1)),
        _ => false,
    }
}

/// Parses a whole number, including the form `2.0` that some serialisers write.
pub(super) fn whole(value: &Value) -> Option<i64> {
    /// The largest value up to which a double represents every whole number exactly.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= EXACT)?;
        #[expect(clippy::cast_possible_truncation, reason = "whole and within the exact range, checked above")]
        Some(number as i64)
    })
}

/// Describes the type of a value in words.
pub(super) fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_names_file_step_and_field() {
        let source = SourceRef::file("a.json").step(3, Some("Install"), "steps[2]").within("contentFields.");
        let error = source.reject("contentForUser", "is missing.");
        assert_eq!(error.message, "a.json: step 3 \"Install\" (steps[2]), `contentFields.contentForUser` is missing.");
        assert_eq!(error.details["file"], "a.json");
        assert_eq!(error.details["step"], "step 3 \"Install\"");
        assert_eq!(error.details["location"], "steps[2]");
        assert_eq!(error.details["field"], "contentFields.contentForUser");
    }

    #[test]
    fn a_title_cannot_garble_a_message() {
        assert_eq!(label(1, Some("a\nb\u{1b}[31m")), "step 1 \"a\\nb\\u{1b}[31m\"");
        assert_eq!(label(2, Some("  ")), "step 2");
        assert!(label(1, Some(&"ä".repeat(300))).chars().count() < 80);
    }

    #[test]
    fn whole_numbers_are_parsed_in_any_notation() {
        let table =
            [("3", Some(3)), ("2.0", Some(2)), ("-1", Some(-1)), ("1.5", None), ("1e300", None), ("\"3\"", None)];
        for (text, expected) in table {
            let value: Value = serde_json::from_str(text).expect("a test value");
            assert_eq!(whole(&value), expected, "{text}");
        }
    }
}
