//! Checks what an author typed before it is stored. It is stored as it was typed, and cleaned when it is served (see
//! [`waypost_core::clean`]); only these change:
//!
//! - Every line ends in a line feed, and there is no U+0000.
//! - What has one line (titles, sections, labels) is stored without blanks around it, and a line break in it is a space.
//!   Empty and repeated labels are left out.
//! - A text for the agent that is blank is absent.
//!
//! Limits hold for what was typed and for what is served of it.

use waypost_core::markdown::{clean_line, clean_markdown, clean_plain, normalize_line_endings};
use waypost_core::step::{MAX_FIELD_BYTES, MAX_TITLE_CHARS, StepContent};
use waypost_core::transfer::identity::{key_problem, title_key};
use waypost_core::walkthrough::WalkthroughFields;
use waypost_core::{Error, Result};

/// Labels of a walkthrough at most.
const MAX_TAGS: usize = 100;

/// Makes the refusal of a field (first) for a problem (second): a file names more places than a form.
pub(super) type FieldError<'a> = &'a dyn Fn(&str, &str) -> Error;

/// The refusal of an argument.
pub(super) fn argument_error(field: &str, problem: &str) -> Error {
    Error::invalid(field, format!("`{field}` {problem}"))
}

/// Returns the author's part of a head as it is stored.
pub(super) fn head(fields: WalkthroughFields, refuse: FieldError<'_>) -> Result<WalkthroughFields> {
    let metadata = fields.metadata;
    metadata_fits(&metadata, refuse)?;
    let mut tags: Vec<String> = Vec::with_capacity(fields.tags.len());
    for tag in &fields.tags {
        let tag = line("tags", tag, refuse)?;
        if !clean_line(&tag).is_empty() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(refuse("tags", &format!("has {} labels, {MAX_TAGS} at most. Leave some out.", tags.len())));
    }
    Ok(WalkthroughFields {
        title: title(&fields.title, refuse)?,
        description: text("description", &fields.description, |text| clean_plain(text).len(), refuse)?,
        kind: fields.kind,
        estimated_duration_minutes: fields.estimated_duration_minutes,
        tags,
        metadata,
    })
}

/// Returns the author's part of a step as it is stored. The content may be empty in a draft; publishing asks for it.
pub(super) fn step(content: StepContent, refuse: FieldError<'_>) -> Result<StepContent> {
    metadata_fits(&content.metadata, refuse)?;
    let section = line("section_title", content.section_title.as_deref().unwrap_or_default(), refuse)?;
    Ok(StepContent {
        title: title(&content.title, refuse)?,
        section_title: Some(section).filter(|section| !section.is_empty()),
        content: text("content", &content.content, |text| clean_markdown(text).len(), refuse)?,
        introduction_for_agent: agent("introduction_for_agent", content.introduction_for_agent, refuse)?,
        context_for_agent: agent("context_for_agent", content.context_for_agent, refuse)?,
        operations_for_agent: agent("operations_for_agent", content.operations_for_agent, refuse)?,
        metadata: content.metadata,
    })
}

/// The author's own name of a step.
pub(super) fn key(key: Option<String>, refuse: FieldError<'_>) -> Result<Option<String>> {
    match key.as_deref().and_then(key_problem) {
        Some(problem) => Err(refuse("key", &problem)),
        None => Ok(key),
    }
}

/// Text for the agent: absent rather than blank.
fn agent(field: &str, typed: Option<String>, refuse: FieldError<'_>) -> Result<Option<String>> {
    let Some(typed) = typed else { return Ok(None) };
    let typed = text(field, &typed, |text| clean_plain(text).len(), refuse)?;
    Ok(Some(typed).filter(|text| !text.trim().is_empty()))
}

/// A title, 1 to 200 characters. One of which nothing is served could not be told from another such one.
fn title(text: &str, refuse: FieldError<'_>) -> Result<String> {
    let title = line("title", text, refuse)?;
    if title_key(&title).is_empty() { Err(refuse("title", "is empty. Write a title.")) } else { Ok(title) }
}

/// A single line, 200 characters at most.
fn line(field: &str, text: &str, refuse: FieldError<'_>) -> Result<String> {
    let line = normalize_line_endings(text).trim().replace('\n', " ");
    let count = line.chars().count();
    if count > MAX_TITLE_CHARS {
        return Err(refuse(field, &format!("has {count} characters, {MAX_TITLE_CHARS} at most. Shorten it.")));
    }
    Ok(line)
}

/// A text; `served` gives the bytes of what is served of it.
fn text(field: &str, typed: &str, served: impl Fn(&str) -> usize, refuse: FieldError<'_>) -> Result<String> {
    let typed = normalize_line_endings(typed);
    if typed.len() > MAX_FIELD_BYTES {
        return Err(refuse(field, &format!("has {} bytes, {MAX_FIELD_BYTES} at most. Shorten it.", typed.len())));
    }
    let size = served(&typed);
    if size > MAX_FIELD_BYTES {
        let problem = format!("has {size} bytes as it is served, {MAX_FIELD_BYTES} at most. Shorten it.");
        return Err(refuse(field, &problem));
    }
    Ok(typed.into_owned())
}

fn metadata_fits(metadata: &serde_json::Map<String, serde_json::Value>, refuse: FieldError<'_>) -> Result<()> {
    if metadata.is_empty() {
        return Ok(());
    }
    let size = serde_json::to_string(metadata).map_or(usize::MAX, |text| text.len());
    if size > MAX_FIELD_BYTES {
        return Err(refuse("metadata", &format!("has {size} bytes as JSON, {MAX_FIELD_BYTES} at most.")));
    }
    Ok(())
}
