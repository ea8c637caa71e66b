//! JSON: the envelope in version 1.0 or 1.1, or a bare array of steps.
//!
//! Known members are validated; rejections name the file, the step and the field. Unknown members are kept (see
//! [`super::unknown_members`]). Some members are known in addition to those of the specification: the `metadata` of a
//! step if it is an object (otherwise it is kept as an unknown member), and `key` also in 1.0. `status` and
//! `exportedAt` are ignored.

use serde_json::{Map, Value};

use super::file::{ImportStep, StepIdentity, WalkthroughFile, check_lengths};
use super::identity::key_problem;
use super::order::{Hint, Next, order};
use super::source::{Members, SourceRef, check_depth, noun, whole};
use super::unknown_members;
use waypost_core::Result;
use waypost_core::step::StepContent;
use waypost_core::walkthrough::WalkthroughType;

/// The names of a step's fields in JSON, in the order of the model.
const NAMES: [&str; 6] = [
    "title",
    "sectionTitle",
    "contentFields.contentForUser",
    "contentFields.introductionForAgent",
    "contentFields.contextForAgent",
    "contentFields.operationsForAgent",
];

/// The version of the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// `nextStepReference` is an index.
    V1_0,
    /// `nextStepReference` is an index or a key.
    V1_1,
}

/// Parses the JSON text of the file `name`.
///
/// # Errors
/// `invalid_arguments` naming the file, the step and the field.
pub fn parse(name: &str, text: &str) -> Result<WalkthroughFile> {
    let source = SourceRef::file(name);
    let value = document(&source, text)?;
    let mut file = WalkthroughFile::new(name, WalkthroughType::Quickstart);
    match value {
        Value::Array(steps) => read_steps(&mut file, Version::V1_1, steps)?,
        Value::Object(map) => read_envelope(&mut file, Members::new(source, map))?,
        other => {
            let message =
                format!("must be an object with `walkthrough` and `steps`, or a list of steps, not {}.", noun(&other));
            return Err(source.reject("document", message));
        }
    }
    Ok(file)
}

/// Parses a text as JSON.
pub(super) fn document(source: &SourceRef, text: &str) -> Result<Value> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(text).map_err(|cause| syntax_error(source, text, &cause))
}

fn syntax_error(source: &SourceRef, text: &str, cause: &serde_json::Error) -> waypost_core::Error {
    if text.trim().is_empty() {
        return source.reject("document", "is empty.");
    }
    let cause_text = cause.to_string();
    let reason = cause_text.split(" at line ").next().unwrap_or(&cause_text);
    let message = format!("is not valid JSON at line {}, column {}: {reason}.", cause.line(), cause.column());
    source.reject("document", message).with("line", cause.line()).with("column", cause.column())
}

fn read_envelope(file: &mut WalkthroughFile, mut envelope: Members) -> Result<()> {
    if envelope.has("details") && !envelope.has("walkthrough") {
        let message = "is the index of a Killercoda scenario. Import its whole folder instead.";
        return Err(envelope.source.reject("document", message));
    }
    let version = read_version(&mut envelope)?;
    envelope.take_raw("exportedAt");
    let Some(walkthrough) = envelope.object("walkthrough")? else {
        return Err(envelope.source.reject("walkthrough", "is missing. Add an object with at least a `title`."));
    };
    let steps = match envelope.take("steps") {
        Some(Value::Array(steps)) => steps,
        Some(other) => return Err(envelope.wrong_type("steps", "a list", &other)),
        None => return Err(envelope.source.reject("steps", "is missing. Add a list of steps.")),
    };
    let envelope_metadata = envelope.object("metadata")?.unwrap_or_default();
    check_depth(&envelope.source.within("metadata."), &envelope_metadata)?;
    let (own, walkthrough) = read_walkthrough(file, Members::new(envelope.source.within("walkthrough."), walkthrough))?;
    let unknown = [envelope.rest()?, envelope_metadata, walkthrough];
    file.metadata = Some(unknown_members::join(&unknown_members::WALKTHROUGH, own, unknown));
    read_steps(file, version, steps)
}

fn read_version(envelope: &mut Members) -> Result<Version> {
    const HINT: &str = "Write \"1.1\" (or \"1.0\").";
    match envelope.text("version")?.as_deref() {
        Some("1.0") => Ok(Version::V1_0),
        Some("1.1") => Ok(Version::V1_1),
        Some(other) => Err(envelope.source.reject("version", format!("is {other:?}, which is not supported. {HINT}"))),
        None => Err(envelope.source.reject("version", format!("is missing. {HINT}"))),
    }
}

/// Parses the walkthrough's fields into `file`. Returns the author's metadata and the unknown members.
fn read_walkthrough(
    file: &mut WalkthroughFile,
    mut walkthrough: Members,
) -> Result<(Map<String, Value>, Map<String, Value>)> {
    if let Some(title) = walkthrough.text("title")? {
        walkthrough.source.check_title("title", &title)?;
        file.title = Some(title);
    }
    file.description = match walkthrough.take_raw("description") {
        None => None,
        Some(Value::Null) => Some(String::new()),
        Some(Value::String(text)) => {
            walkthrough.source.check_text("description", &text)?;
            Some(text)
        }
        Some(other) => return Err(walkthrough.wrong_type("description", "text", &other)),
    };
    if let Some(kind) = walkthrough.text("type")? {
        let kind =
            kind.parse().map_err(|expected| walkthrough.source.reject("type", format!("is {kind:?}: {expected}.")))?;
        file.kind = Some(kind);
    }
    walkthrough.take_raw("status");
    file.estimated_duration_minutes = match walkthrough.take_raw("estimatedDurationMinutes") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(value) => Some(Some(minutes(&walkthrough, "estimatedDurationMinutes", &value)?)),
    };
    file.tags = match walkthrough.take_raw("tags") {
        None => None,
        Some(Value::Null) => Some(Vec::new()),
        Some(value) => Some(texts(&walkthrough, "tags", value)?),
    };
    let own = walkthrough.object("metadata")?.unwrap_or_default();
    check_depth(&SourceRef::file(&file.name).within("walkthrough.metadata."), &own)?;
    Ok((own, walkthrough.rest()?))
}

/// Parses a number of minutes, which must fit into a signed 32-bit column.
pub(super) fn minutes(walkthrough: &Members, name: &str, value: &Value) -> Result<u32> {
    let fits = whole(value).and_then(|number| i32::try_from(number).ok()).and_then(|number| u32::try_from(number).ok());
    fits.ok_or_else(|| {
        walkthrough.source.reject(name, format!("must be a non-negative whole number of minutes, not {value}."))
    })
}

fn texts(walkthrough: &Members, name: &str, value: Value) -> Result<Vec<String>> {
    let Value::Array(items) = value else { return Err(walkthrough.wrong_type(name, "a list of strings", &value)) };
    let text = |(at, item)| match item {
        Value::String(text) => Ok(text),
        other => Err(walkthrough.wrong_type(&format!("{name}[{at}]"), "text", &other)),
    };
    items.into_iter().enumerate().map(text).collect()
}

fn read_steps(file: &mut WalkthroughFile, version: Version, steps: Vec<Value>) -> Result<()> {
    let source = file.source();
    WalkthroughFile::check_count(&source, steps.len())?;
    let mut parsed = Vec::with_capacity(steps.len());
    let mut hints = Vec::with_capacity(steps.len());
    for (index, step) in steps.into_iter().enumerate() {
        let (step, hint) = read_step(&source, version, index, step)?;
        parsed.push(Some(step));
        hints.push(hint);
    }
    let (order, warning) = order(&hints)?;
    file.warnings.extend(warning);
    file.steps = order.into_iter().filter_map(|at| parsed[at].take()).collect();
    Ok(())
}

fn read_step(file: &SourceRef, version: Version, index: usize, step: Value) -> Result<(ImportStep, Hint)> {
    let location = format!("steps[{index}]");
    let title = step.get("title").and_then(Value::as_str);
    let source = file.step(index + 1, title, &location);
    let Value::Object(map) = step else {
        return Err(source.reject(&location, format!("must be an object, not {}.", noun(&step))));
    };
    let mut step = Members::new(source.clone(), map);
    let key = step.text("key")?;
    if let Some(problem) = key.as_deref().and_then(key_problem) {
        return Err(source.reject("key", problem));
    }
    let Some(title) = step.text("title")? else { return Err(source.reject("title", "is missing. Write a title.")) };
    let section_title = step.text("sectionTitle")?;
    let display_order = step.whole("displayOrder")?;
    let next = read_next(&mut step, version)?;
    let fields = match step.take("contentFields") {
        Some(Value::Object(fields)) => Members::new(source.within("contentFields."), fields),
        Some(other) => return Err(step.wrong_type("contentFields", "an object", &other)),
        None => {
            return Err(
                source.reject("contentFields", "is missing. Add an object with `version` and `contentForUser`.")
            );
        }
    };
    let (mut content, unknown_fields) = read_content(fields)?;
    (content.title, content.section_title) = (title, section_title);
    let own = match step.take_raw("metadata") {
        Some(Value::Object(own)) => own,
        None | Some(Value::Null) => Map::new(),
        Some(other) => {
            step.put_back("metadata", other);
            Map::new()
        }
    };
    check_depth(&source.within("metadata."), &own)?;
    content.metadata = unknown_members::join(&unknown_members::STEP, own, [step.rest()?, unknown_fields]);
    check_lengths(&source, &content, &NAMES)?;
    let identity = key.clone().map_or(StepIdentity::Title, StepIdentity::Key);
    let hint = Hint { source: source.clone(), key, next, display_order };
    Ok((ImportStep { identity, source, content }, hint))
}

fn read_next(step: &mut Members, version: Version) -> Result<Next> {
    const NAME: &str = "nextStepReference";
    match step.take_raw(NAME) {
        None => Ok(Next::Absent),
        Some(Value::Null) => Ok(Next::End),
        Some(Value::String(key)) if version == Version::V1_1 => Ok(Next::Key(key)),
        Some(value) => whole(&value).map(Next::Index).ok_or_else(|| {
            let expected = match version {
                Version::V1_0 => "the index of a step (from 0) or null",
                Version::V1_1 => "the index of a step (from 0), the key of a step, or null",
            };
            step.wrong_type(NAME, expected, &value)
        }),
    }
}

/// Parses the text fields of a step. Returns them with the unknown members.
fn read_content(mut fields: Members) -> Result<(StepContent, Map<String, Value>)> {
    match fields.text("version")?.as_deref() {
        Some("v1") => {}
        Some(other) => {
            return Err(fields
                .source
                .reject("version", format!("is {other:?}, which is not supported. Write \"v1\".")));
        }
        None => return Err(fields.source.reject("version", "is missing. Write \"v1\".")),
    }
    let Some(content) = fields.text("contentForUser")? else {
        return Err(fields.source.reject("contentForUser", "is missing. Add the text for the user."));
    };
    let content = StepContent {
        content,
        introduction_for_agent: fields.text("introductionForAgent")?,
        context_for_agent: fields.text("contextForAgent")?,
        operations_for_agent: fields.text("operationsForAgent")?,
        ..StepContent::default()
    };
    Ok((content, fields.rest()?))
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
