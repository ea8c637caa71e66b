//! Validation of an author's input before it is stored. Input is stored as entered and cleaned when it is served (see
//! [`waypost_content::clean`]), with these exceptions:
//!
//! - Line endings are normalised to line feeds, and U+0000 is removed.
//! - Single-line fields (titles, sections, tags) are trimmed, and line breaks in them become spaces. Empty and
//!   duplicate tags are removed.
//! - A blank text for the agent is stored as absent.
//!
//! Limits apply both to the input and to the text that is served.

use waypost_content::markdown::{clean_line, clean_markdown, clean_plain, normalize_line_endings};
use waypost_content::transfer::identity::{key_problem, title_key};
use waypost_core::step::{MAX_FIELD_BYTES, MAX_TITLE_CHARS, StepContent};
use waypost_core::walkthrough::WalkthroughFields;
use waypost_core::{Error, Result};

/// The maximum number of tags of a walkthrough.
const MAX_TAGS: usize = 100;

/// Creates the error for a field (first argument) with a problem (second argument). Errors in files also name the
/// location in the file.
pub(super) type FieldError<'a> = &'a dyn Fn(&str, &str) -> Error;

/// Creates the error for an argument of a call.
pub(super) fn argument_error(field: &str, problem: &str) -> Error {
    Error::invalid(field, format!("`{field}` {problem}"))
}

/// Checks the fields of a walkthrough and returns them as they are stored.
pub(super) fn check_fields(fields: WalkthroughFields, reject: FieldError<'_>) -> Result<WalkthroughFields> {
    let metadata = fields.metadata;
    check_metadata(&metadata, reject)?;
    let mut tags: Vec<String> = Vec::with_capacity(fields.tags.len());
    for tag in &fields.tags {
        let tag = check_line("tags", tag, reject)?;
        if !clean_line(&tag).is_empty() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(reject("tags", &format!("has {} tags, but can have at most {MAX_TAGS}. Remove some.", tags.len())));
    }
    Ok(WalkthroughFields {
        title: check_title(&fields.title, reject)?,
        description: check_text("description", &fields.description, |text| clean_plain(text).len(), reject)?,
        kind: fields.kind,
        estimated_duration_minutes: fields.estimated_duration_minutes,
        tags,
        metadata,
    })
}

/// Checks the content of a step and returns it as it is stored. The text may be empty in a draft, but not when
/// publishing.
pub(super) fn check_step(content: StepContent, reject: FieldError<'_>) -> Result<StepContent> {
    check_metadata(&content.metadata, reject)?;
    let section = check_line("section_title", content.section_title.as_deref().unwrap_or_default(), reject)?;
    Ok(StepContent {
        title: check_title(&content.title, reject)?,
        section_title: Some(section).filter(|section| !section.is_empty()),
        content: check_text("content", &content.content, |text| clean_markdown(text).len(), reject)?,
        introduction_for_agent: check_agent_text("introduction_for_agent", content.introduction_for_agent, reject)?,
        context_for_agent: check_agent_text("context_for_agent", content.context_for_agent, reject)?,
        operations_for_agent: check_agent_text("operations_for_agent", content.operations_for_agent, reject)?,
        metadata: content.metadata,
    })
}

/// Checks the key of a step.
pub(super) fn check_key(key: Option<String>, reject: FieldError<'_>) -> Result<Option<String>> {
    match key.as_deref().and_then(key_problem) {
        Some(problem) => Err(reject("key", &problem)),
        None => Ok(key),
    }
}

/// Checks a text for the agent. Returns `None` if it is blank.
fn check_agent_text(field: &str, input: Option<String>, reject: FieldError<'_>) -> Result<Option<String>> {
    let Some(input) = input else { return Ok(None) };
    let input = check_text(field, &input, |text| clean_plain(text).len(), reject)?;
    Ok(Some(input).filter(|text| !text.trim().is_empty()))
}

/// Checks a title, 1 to 200 characters. A title that is empty when served is rejected: it could not be distinguished
/// from another one.
fn check_title(text: &str, reject: FieldError<'_>) -> Result<String> {
    let title = check_line("title", text, reject)?;
    if title_key(&title).is_empty() { Err(reject("title", "is empty. Write a title.")) } else { Ok(title) }
}

/// Checks a single-line field, at most 200 characters.
fn check_line(field: &str, text: &str, reject: FieldError<'_>) -> Result<String> {
    let line = normalize_line_endings(text).trim().replace('\n', " ");
    let count = line.chars().count();
    if count > MAX_TITLE_CHARS {
        let problem = format!("has {count} characters, but can have at most {MAX_TITLE_CHARS}. Shorten it.");
        return Err(reject(field, &problem));
    }
    Ok(line)
}

/// Checks a text. `served_size` returns the size of the served text in bytes.
fn check_text(field: &str, input: &str, served_size: impl Fn(&str) -> usize, reject: FieldError<'_>) -> Result<String> {
    let input = normalize_line_endings(input);
    if input.len() > MAX_FIELD_BYTES {
        let problem = format!("has {} bytes, but can have at most {MAX_FIELD_BYTES}. Shorten it.", input.len());
        return Err(reject(field, &problem));
    }
    let size = served_size(&input);
    if size > MAX_FIELD_BYTES {
        let problem = format!("has {size} bytes after cleaning, but can have at most {MAX_FIELD_BYTES}. Shorten it.");
        return Err(reject(field, &problem));
    }
    Ok(input.into_owned())
}

fn check_metadata(metadata: &serde_json::Map<String, serde_json::Value>, reject: FieldError<'_>) -> Result<()> {
    if metadata.is_empty() {
        return Ok(());
    }
    let size = serde_json::to_string(metadata).map_or(usize::MAX, |text| text.len());
    if size > MAX_FIELD_BYTES {
        return Err(reject("metadata", &format!("has {size} bytes as JSON, but can have at most {MAX_FIELD_BYTES}.")));
    }
    Ok(())
}
