//! Markdown: one file is a walkthrough.
//!
//! ````text
//! ---
//! type: quickstart              optional front matter: title, description, type, tags,
//! tags: [rust, mcp]             estimated_duration_minutes; anything else is kept as metadata
//! ---
//! # Title                       the first H1, before any H2
//!
//! All text up to the first H2 is the description.
//!
//! ## First step                 every H2 is a step; the text after it is the content, unchanged
//!
//! Do this.
//!
//! ```agent-context              blocks for the agent: agent-introduction, agent-context,
//! The user has no account yet.  agent-operations; they are extracted from the content
//! ```
//!
//! ## Second step
//!
//! ```walkthrough-step           settings of a step (YAML): key, section; anything else is kept as
//! key: second                   metadata
//! section: Afterwards
//! ```
//! ````
//!
//! - If both the front matter and an H1 have a title, the H1 is used and the other is kept as metadata.
//! - The `description` of the front matter and the text under the H1 are joined, so that no text is lost.
//! - Any further H1 begins a section. Text directly under it becomes a step with the same title. A heading without text
//!   (`#`) ends the section.
//! - A file with a title and text but no H2 is a walkthrough with one step of that title.
//! - A `metadata` member in front matter or settings holds metadata whose names would otherwise have a meaning.
//! - Content that would be parsed differently is enclosed in the marks of [`super::verbatim`].
//! - Headings in fences, quotes and lists are text. Titles have no markup; content is the exact source.

use std::ops::Range;

use serde_json::{Map, Value};

use super::file::{FIELDS, ImportStep, StepIdentity, WalkthroughFile, check_lengths};
use super::front_matter::{self, Settings, Split};
use super::outline::{Piece, line_of, outline, paragraphs, trim_blank};
use super::source::SourceRef;
use super::verbatim::{self, Verbatim};
use crate::markdown::normalize_line_endings;
use waypost_core::Result;
use waypost_core::step::StepContent;
use waypost_core::walkthrough::WalkthroughType;

/// Blocks that are extracted from the content, in the order of the fields that they fill.
pub(super) const AGENT_BLOCKS: [&str; 3] = ["agent-introduction", "agent-context", "agent-operations"];
/// The block with the settings of a step.
pub(super) const SETTINGS_BLOCK: &str = "walkthrough-step";
/// The name of the front matter in rejections.
pub(super) const FRONT_MATTER: &str = "front matter";

/// Parses the Markdown text of the file `name`. All line endings are normalised to line feeds.
///
/// # Errors
/// `invalid_arguments` naming the file, the step and the field.
pub fn parse(name: &str, text: &str) -> Result<WalkthroughFile> {
    let mut file = WalkthroughFile::new(name, WalkthroughType::Quickstart);
    let source = file.source();
    let text = &*normalize_line_endings(text);
    let split = front_matter::split(text);
    let yaml = split.yaml.map(|yaml| front_matter::read(&source, FRONT_MATTER, yaml, 2)).transpose()?;
    let chapters = chapters(&split);
    let mut steps = chapters.steps;
    let mut description = chapters.description;
    if steps.is_empty() && !description.is_empty() {
        let title = chapters.title.clone().or_else(|| yaml_title(yaml.as_ref()));
        let title = title.ok_or_else(|| {
            source.reject("title", "has no heading. Begin with `# Title`, and each step with `## Step`.")
        })?;
        steps.push(Chapter { title, section: None, line: chapters.line, body: std::mem::take(&mut description) });
    } else if chapters.title.is_some() || !description.is_empty() {
        file.description = Some(std::mem::take(&mut description));
    }
    apply_fields(&mut file, &source, chapters.title, yaml)?;
    WalkthroughFile::check_count(&source, steps.len())?;
    for (index, chapter) in steps.into_iter().enumerate() {
        let step_place = source.step(index + 1, Some(&chapter.title), &format!("line {}", chapter.line));
        let step = step(step_place, Map::new(), chapter)?;
        if let Some(key) = step.identity.key()
            && let Some(other) = file.steps.iter().find(|other| other.identity.key() == Some(key))
        {
            let other = other.source.step_label().unwrap_or_default();
            return Err(step
                .source
                .reject("key", format!("is {key:?}, which is also the key of {other}. Keys must be unique.")));
        }
        file.steps.push(step);
    }
    if file.steps.is_empty() {
        return Err(source.reject("steps", "has no steps. Write each step as `## Title` with text below."));
    }
    Ok(file)
}

fn yaml_title(yaml: Option<&Map<String, Value>>) -> Option<String> {
    yaml?.get("title")?.as_str().map(str::to_owned)
}

/// Fills the walkthrough's fields in `file` from the H1 and the front matter.
pub(super) fn apply_fields(
    file: &mut WalkthroughFile,
    source: &SourceRef,
    heading: Option<String>,
    yaml: Option<Map<String, Value>>,
) -> Result<()> {
    if let Some(yaml) = yaml {
        let mut fields = front_matter::parse_fields(source, yaml)?;
        file.title = fields.title.take();
        if let (Some(title), Some(heading)) = (&file.title, &heading)
            && title.trim() != heading
        {
            file.warnings.push(format!(
                "{}: `title` is {title:?} in the front matter, but {heading:?} in the heading. The heading is used.",
                source.file_name()
            ));
            fields.metadata.insert("title".to_owned(), title.as_str().into());
        }
        if let Some(description) = fields.description {
            let text = file.description.take().filter(|text| !text.is_empty());
            file.description = Some(text.map_or_else(|| description.clone(), |text| paragraphs(&description, &text)));
        }
        file.kind = fields.kind;
        file.estimated_duration_minutes = fields.estimated_duration_minutes.map(Some);
        file.tags = fields.tags;
        file.metadata = Some(fields.metadata);
    }
    file.title = heading.or(file.title.take());
    if let Some(title) = &file.title {
        source.check_title("title", title)?;
    }
    source.check_text("description", file.description.as_deref().unwrap_or_default())
}

/// The source of a step: its heading and text.
pub(super) struct Chapter {
    pub(super) title: String,
    pub(super) section: Option<String>,
    pub(super) line: usize,
    pub(super) body: String,
}

struct Chapters {
    title: Option<String>,
    description: String,
    /// The line of the title.
    line: usize,
    steps: Vec<Chapter>,
}

/// Splits the text at headings of level 1 and 2.
fn chapters(split: &Split<'_>) -> Chapters {
    let body = split.body;
    let heading = |piece| match piece {
        Piece::Heading { level, title, range } if level <= 2 => Some((level, title, range)),
        _ => None,
    };
    let cuts: Vec<_> = outline_outside(body).into_iter().filter_map(heading).collect();
    let before = cuts.first().map_or(body, |(_, _, range)| &body[..range.start]);
    let mut chapters =
        Chapters { title: None, description: trim_blank(before).to_owned(), line: split.first_line, steps: Vec::new() };
    let mut section: Option<String> = None;
    let (mut line, mut counted) = (split.first_line, 0);
    for (index, (level, title, range)) in cuts.iter().enumerate() {
        let end = cuts.get(index + 1).map_or(body.len(), |(_, _, next)| next.start);
        let text = trim_blank(&body[range.end..end]);
        // Count from heading to heading, so that a file with only headings does not take quadratic time.
        line += line_of(&body[counted..range.start], range.start - counted) - 1;
        counted = range.start;
        if index == 0 && *level == 1 {
            chapters.description = paragraphs(&chapters.description, text);
            (chapters.title, chapters.line) = (Some(title.clone()), line);
            continue;
        }
        if *level == 1 {
            section = Some(title.clone()).filter(|title| !title.is_empty());
        }
        if *level == 2 || !text.is_empty() {
            chapters.steps.push(Chapter {
                title: title.clone(),
                section: section.clone(),
                line,
                body: text.to_owned(),
            });
        }
    }
    chapters
}

/// Returns the outline of `text` without the parts between marks.
pub(super) fn outline_outside(text: &str) -> Vec<Piece> {
    outline(&verbatim::mask(text, &verbatim::find(text)))
}

/// Creates a step from a chapter and the front matter of its file (empty for a step in a single file).
pub(super) fn step(source: SourceRef, yaml: Map<String, Value>, chapter: Chapter) -> Result<ImportStep> {
    let extracted = extract(&source, &chapter.body)?;
    let mut settings = yaml;
    if let Some(block) = extracted.settings {
        for (name, value) in front_matter::read(&source, SETTINGS_BLOCK, &block, 1)? {
            if settings.insert(name.clone(), value).is_some() {
                return Err(
                    source.reject(&name, "is set in the front matter and in the `walkthrough-step` block. Remove one.")
                );
            }
        }
    }
    let Settings { title, key, mut content } = front_matter::settings(&source, settings)?;
    // The heading is used; a different title is kept as metadata.
    if let Some(other) = title.filter(|title| title.trim() != chapter.title) {
        content.metadata.insert("title".to_owned(), other.into());
    }
    content.title = chapter.title;
    content.section_title = content.section_title.or(chapter.section);
    content.content = extracted.content;
    let fields = agent_fields(&mut content);
    for ((field, name), block) in fields.into_iter().zip(AGENT_BLOCKS).zip(extracted.agent) {
        let Some(block) = block else { continue };
        if field.replace(block).is_some() {
            return Err(source.reject(name, "is set in the settings of the step and in a block. Remove one."));
        }
    }
    check_lengths(&source, &content, &FIELDS)?;
    let identity = key.map_or(StepIdentity::Title, StepIdentity::Key);
    Ok(ImportStep { identity, source, content })
}

fn agent_fields(content: &mut StepContent) -> [&mut Option<String>; 3] {
    [&mut content.introduction_for_agent, &mut content.context_for_agent, &mut content.operations_for_agent]
}

/// A text and the blocks extracted from it.
struct BodyParts {
    content: String,
    settings: Option<String>,
    agent: [Option<String>; 3],
}

fn extract(source: &SourceRef, body: &str) -> Result<BodyParts> {
    let mut extracted = BodyParts { content: String::new(), settings: None, agent: Default::default() };
    let blocks = verbatim::find(body);
    let mut done = 0;
    for piece in outline(&verbatim::mask(body, &blocks)) {
        match piece {
            Piece::Heading { .. } => {}
            Piece::Html { range } => {
                let Ok(at) = blocks.binary_search_by_key(&range.start, |block| block.whole.start) else { continue };
                append(&mut extracted.content, trim_blank(&body[done..range.start]));
                append(&mut extracted.content, &body[blocks[at].inner.clone()]);
                done = blocks[at].whole.end;
            }
            Piece::Fence { info, text, range } => {
                let slot = match AGENT_BLOCKS.iter().position(|name| *name == info) {
                    Some(at) => &mut extracted.agent[at],
                    None if info == SETTINGS_BLOCK => &mut extracted.settings,
                    None => continue,
                };
                if slot.replace(unmasked(body, &blocks, &range).unwrap_or(text)).is_some() {
                    return Err(source.reject(&info, "occurs twice in this step. Write one block."));
                }
                append(&mut extracted.content, trim_blank(&body[done..range.start]));
                done = range.end;
            }
        }
    }
    append(&mut extracted.content, trim_blank(&body[done..]));
    Ok(extracted)
}

/// Appends a paragraph to a content. The existing content is not trimmed, because it may come from between marks.
fn append(content: &mut String, text: &str) {
    if !content.is_empty() && !text.is_empty() {
        content.push_str("\n\n");
    }
    content.push_str(text);
}

/// Returns the text of a fence that contains marks, which are plain text there.
fn unmasked(body: &str, blocks: &[Verbatim], fence: &Range<usize>) -> Option<String> {
    let overlaps = |block: &Verbatim| block.whole.start < fence.end && fence.start < block.whole.end;
    blocks.iter().any(overlaps).then_some(())?;
    outline(&body[fence.clone()]).into_iter().find_map(|piece| match piece {
        Piece::Fence { text, .. } => Some(text),
        Piece::Heading { .. } | Piece::Html { .. } => None,
    })
}

#[cfg(test)]
#[path = "markdown_tests.rs"]
mod tests;
