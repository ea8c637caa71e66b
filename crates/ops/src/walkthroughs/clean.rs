//! What an author wrote, cleaned and within the limits, before it is stored. Cleaning twice is cleaning once, so that
//! an import finds its own work unchanged.

use waypost_core::markdown::{clean_line, clean_markdown, clean_plain};
use waypost_core::step::{MAX_FIELD_BYTES, MAX_TITLE_CHARS, StepContent};
use waypost_core::transfer::identity::{fold, key_problem};
use waypost_core::walkthrough::WalkthroughFields;
use waypost_core::{Error, Result};

/// Labels of a walkthrough at most.
const MAX_TAGS: usize = 100;

/// Makes the refusal of a field (first) for a problem (second): a file names more places than a form.
pub(super) type Refuse<'a> = &'a dyn Fn(&str, &str) -> Error;

/// The refusal of an argument.
pub(super) fn argument(field: &str, problem: &str) -> Error {
    Error::invalid(field, format!("`{field}` {problem}"))
}

/// The author's part of a head.
pub(super) fn head(fields: WalkthroughFields, refuse: Refuse<'_>) -> Result<WalkthroughFields> {
    let metadata = fields.metadata;
    metadata_fits(&metadata, refuse)?;
    let mut tags: Vec<String> = Vec::with_capacity(fields.tags.len());
    for tag in &fields.tags {
        let tag = line("tags", tag, refuse)?;
        if !tag.is_empty() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.len() > MAX_TAGS {
        return Err(refuse("tags", &format!("has {} labels, {MAX_TAGS} at most. Leave some out.", tags.len())));
    }
    Ok(WalkthroughFields {
        title: title(&fields.title, refuse)?,
        description: fits("description", clean_plain(&fields.description).trim().to_owned(), refuse)?,
        kind: fields.kind,
        estimated_duration_minutes: fields.estimated_duration_minutes,
        tags,
        metadata,
    })
}

/// The author's part of a step. The content may be empty in a draft; publishing asks for it.
pub(super) fn step(content: StepContent, refuse: Refuse<'_>) -> Result<StepContent> {
    metadata_fits(&content.metadata, refuse)?;
    let section = line("section_title", content.section_title.as_deref().unwrap_or_default(), refuse)?;
    Ok(StepContent {
        title: title(&content.title, refuse)?,
        section_title: Some(section).filter(|section| !section.is_empty()),
        content: fits("content", clean_markdown(&content.content).into_owned(), refuse)?,
        introduction_for_agent: agent("introduction_for_agent", content.introduction_for_agent, refuse)?,
        context_for_agent: agent("context_for_agent", content.context_for_agent, refuse)?,
        operations_for_agent: agent("operations_for_agent", content.operations_for_agent, refuse)?,
        metadata: content.metadata,
    })
}

/// The author's own name of a step.
pub(super) fn key(key: Option<String>, refuse: Refuse<'_>) -> Result<Option<String>> {
    match key.as_deref().and_then(key_problem) {
        Some(problem) => Err(refuse("key", &problem)),
        None => Ok(key),
    }
}

/// Text for the agent: plain, and absent rather than blank.
fn agent(field: &str, text: Option<String>, refuse: Refuse<'_>) -> Result<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    let text = fits(field, clean_plain(&text).into_owned(), refuse)?;
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

/// A title, 1 to 200 characters. One that folds to nothing could not be told from another such one.
fn title(text: &str, refuse: Refuse<'_>) -> Result<String> {
    let title = line("title", text, refuse)?;
    if fold(&title).is_empty() { Err(refuse("title", "is empty. Write a title.")) } else { Ok(title) }
}

/// A single line, 200 characters at most.
pub(super) fn line(field: &str, text: &str, refuse: Refuse<'_>) -> Result<String> {
    let line = clean_line(text);
    let count = line.chars().count();
    if count > MAX_TITLE_CHARS {
        return Err(refuse(field, &format!("has {count} characters, {MAX_TITLE_CHARS} at most. Shorten it.")));
    }
    Ok(line)
}

fn fits(field: &str, text: String, refuse: Refuse<'_>) -> Result<String> {
    if text.len() > MAX_FIELD_BYTES {
        return Err(refuse(field, &format!("has {} bytes, {MAX_FIELD_BYTES} at most. Shorten it.", text.len())));
    }
    Ok(text)
}

fn metadata_fits(metadata: &serde_json::Map<String, serde_json::Value>, refuse: Refuse<'_>) -> Result<()> {
    if metadata.is_empty() {
        return Ok(());
    }
    let size = serde_json::to_string(metadata).map_or(usize::MAX, |text| text.len());
    if size > MAX_FIELD_BYTES {
        return Err(refuse("metadata", &format!("has {size} bytes as JSON, {MAX_FIELD_BYTES} at most.")));
    }
    Ok(())
}
