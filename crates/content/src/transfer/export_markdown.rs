//! Export to one Markdown file, in the form that [`super::markdown`] reads.
//!
//! Steps are written in plain Markdown. Content that would be parsed differently (with headings of level 1 or 2,
//! leading or trailing blank lines, or an open fence that would swallow the following text) is enclosed in the marks of
//! [`super::verbatim`]. Every walkthrough can therefore be written, and parsing the text returns the same walkthrough.
//! Line endings are written as line feeds.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;

use super::export::{ExportStep, keys};
use super::markdown::{AGENT_BLOCKS, SETTINGS_BLOCK, parse};
use super::outline::{Piece, outline, trim_blank};
use super::source::label;
use super::verbatim;
use crate::markdown::normalize_line_endings;
use waypost_core::step::StepContent;
use waypost_core::walkthrough::WalkthroughFields;
use waypost_core::{Error, Result};

/// The advice in error messages.
const ADVICE: &str = "Export it as JSON instead.";
/// Names of the agent fields in the settings of a step, in the order of [`AGENT_BLOCKS`].
const AGENT_SETTINGS: [&str; 3] = ["introduction_for_agent", "context_for_agent", "operations_for_agent"];

/// Returns the walkthrough with its steps in order as one Markdown text.
///
/// # Errors
/// `invalid_arguments` naming the field if there is no step, or if a title is empty or has several lines (neither can
/// be stored).
pub fn export_markdown<'a, S>(fields: &WalkthroughFields, steps: S) -> Result<String>
where
    S: IntoIterator,
    S::Item: Into<ExportStep<'a>>,
{
    let steps: Vec<ExportStep<'_>> = steps.into_iter().map(Into::into).collect();
    if steps.is_empty() {
        return Err(Error::invalid("steps", format!("A Markdown file needs at least one step. {ADVICE}")));
    }
    let keys = keys(&steps);
    let contents: Vec<_> = steps.iter().map(|step| with_line_feeds(step.content)).collect();
    let steps: Vec<_> = keys.into_iter().zip(&contents).collect();
    let fields =
        WalkthroughFields { description: normalize_line_endings(&fields.description).into_owned(), ..fields.clone() };
    let text = write(&fields, &steps);
    check(&text, &fields, &steps)?;
    Ok(text)
}

/// A step to write: its key, unless another step has the same one, and its content.
type KeyedStep<'a> = (Option<&'a str>, &'a StepContent);

fn with_line_feeds(content: &StepContent) -> StepContent {
    let agent = |text: &Option<String>| text.as_deref().map(|text| normalize_line_endings(text).into_owned());
    StepContent {
        content: normalize_line_endings(&content.content).into_owned(),
        introduction_for_agent: agent(&content.introduction_for_agent),
        context_for_agent: agent(&content.context_for_agent),
        operations_for_agent: agent(&content.operations_for_agent),
        ..content.clone()
    }
}

fn write(fields: &WalkthroughFields, steps: &[KeyedStep<'_>]) -> String {
    let in_text = can_follow_heading(&fields.description);
    let mut text = format!("---\ntype: {}\ntags: {}\n", fields.kind, yaml(fields.tags.clone()));
    if let Some(minutes) = fields.estimated_duration_minutes {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "estimated_duration_minutes: {minutes}");
    }
    if !in_text {
        let _ = writeln!(text, "description: {}", yaml(fields.description.as_str()));
    }
    if !fields.metadata.is_empty() {
        let _ = writeln!(text, "metadata: {}", yaml(fields.metadata.clone()));
    }
    let _ = writeln!(text, "---\n\n# {}", escape(&fields.title));
    if in_text && !fields.description.is_empty() {
        let _ = writeln!(text, "\n{}", fields.description);
    }
    for step in steps {
        let plain = write_step(*step, false);
        text.push_str(&if is_unambiguous(&plain, *step) { plain } else { write_step(*step, true) });
    }
    text
}

/// Formats a value as YAML. JSON is valid YAML and unambiguous, except for some unescaped characters that YAML rejects.
fn yaml(value: impl Into<Value>) -> String {
    let mut text = String::new();
    for c in value.into().to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            _ => text.push(c),
        }
    }
    text
}

/// Formats a step, with its content between marks if `marked`.
fn write_step((key, content): KeyedStep<'_>, marked: bool) -> String {
    let mut settings = Vec::new();
    let mut setting = |name: &str, value: Value| settings.push(format!("{name}: {}", yaml(value)));
    if let Some(key) = key {
        setting("key", key.into());
    }
    if let Some(section) = &content.section_title {
        setting("section", section.as_str().into());
    }
    let agent = [&content.introduction_for_agent, &content.context_for_agent, &content.operations_for_agent];
    let agent = agent.map(Option::as_deref);
    for (name, text) in AGENT_SETTINGS.iter().zip(agent) {
        if let Some(text) = text.filter(|text| verbatim::has_mark(text)) {
            setting(name, text.into());
        }
    }
    if !content.metadata.is_empty() {
        setting("metadata", content.metadata.clone().into());
    }
    let mut text = format!("\n## {}\n", escape(&content.title));
    if !settings.is_empty() {
        write_block(&mut text, SETTINGS_BLOCK, &settings.join("\n"));
    }
    if marked {
        verbatim::write(&mut text, &content.content);
    } else if !content.content.is_empty() {
        let _ = writeln!(text, "\n{}", content.content);
    }
    for (name, block) in AGENT_BLOCKS.iter().zip(agent) {
        if let Some(block) = block.filter(|block| !verbatim::has_mark(block)) {
            write_block(&mut text, name, block);
        }
    }
    text
}

/// Writes a fenced block. The fence is longer than any run of backticks in the text.
fn write_block(text: &mut String, name: &str, block: &str) {
    let longest = block.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat((longest + 1).max(3));
    let end = if block.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "\n{fence}{name}\n{block}{end}{fence}");
}

/// Whether a description after the title is parsed unchanged and does not affect the following steps.
fn can_follow_heading(text: &str) -> bool {
    const NEXT: &str = "\n\n## x\n";
    let mut cuts = outline(&format!("{text}{NEXT}")).into_iter().filter_map(|piece| match piece {
        Piece::Heading { level: 1 | 2, range, .. } => Some(range.start),
        _ => None,
    });
    trim_blank(text) == text && !verbatim::has_mark(text) && cuts.next() == Some(text.len() + 2)
}

/// Whether a step without marks is parsed unchanged and does not affect the following step.
fn is_unambiguous(plain: &str, (key, content): KeyedStep<'_>) -> bool {
    if verbatim::has_mark(&content.content) {
        return false;
    }
    let read = parse("export.md", &format!("# x\n{plain}\n## x\n"));
    read.is_ok_and(|read| match &read.steps[..] {
        [step, next] => {
            step.identity.key() == key
                && difference(&step.content, content).is_none()
                && next.content.title == "x"
                && next.content.content.is_empty()
        }
        _ => false,
    })
}

/// Escapes a title for a heading, because titles contain no markup.
fn escape(title: &str) -> Cow<'_, str> {
    let mut escaped = String::with_capacity(title.len());
    let mut before = ' ';
    for c in title.chars() {
        // `#` after a space would close the heading.
        if "\\`*_[]<>&~|".contains(c) || (c == '#' && matches!(before, ' ' | '\t')) {
            escaped.push('\\');
        }
        escaped.push(c);
        before = c;
    }
    if escaped == title { Cow::Borrowed(title) } else { Cow::Owned(escaped) }
}

/// Parses the written text and compares it with the walkthrough, so that an incorrect file is never exported.
fn check(text: &str, fields: &WalkthroughFields, steps: &[KeyedStep<'_>]) -> Result<()> {
    let read = parse("export.md", text).map_err(|error| {
        let field = error.details.get("field").and_then(Value::as_str).unwrap_or("steps").to_owned();
        Error::invalid(&field, format!("This walkthrough cannot be written as Markdown: {error} {ADVICE}"))
    })?;
    for (index, (key, content)) in steps.iter().enumerate() {
        let read_step = read.steps.get(index);
        let field = match read_step {
            Some(read_step) if read_step.identity.key() == *key => difference(&read_step.content, content),
            _ => Some("content"),
        };
        if let Some(field) = field {
            let step = label(index + 1, Some(&content.title));
            let message = format!("{step}, `{field}` cannot be written as Markdown without changes. {ADVICE}");
            return Err(Error::invalid(field, message).with("step", step));
        }
    }
    let is_same = read.steps.len() == steps.len() && read.fields(None, None).is_ok_and(|read| read == *fields);
    if is_same {
        return Ok(());
    }
    let message = format!("The fields of the walkthrough cannot be written as Markdown without changes. {ADVICE}");
    Err(Error::invalid("walkthrough", message))
}

fn difference(found: &StepContent, expected: &StepContent) -> Option<&'static str> {
    super::plan::changed_content(expected, found).first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};
    use waypost_core::walkthrough::WalkthroughType;

    fn fields() -> WalkthroughFields {
        WalkthroughFields {
            title: "C# & *stars* #".to_owned(),
            description: "About.\n\n### More".to_owned(),
            kind: WalkthroughType::Installer,
            estimated_duration_minutes: Some(5),
            tags: vec!["a, b".to_owned(), "no".to_owned()],
            metadata: Map::from_iter([("title".to_owned(), json!({"x": [1.5, null, "a\nb"]}))]),
        }
    }

    fn content(title: &str, content: &str) -> StepContent {
        StepContent { title: title.to_owned(), content: content.to_owned(), ..StepContent::default() }
    }

    #[test]
    fn an_export_is_parsed_unchanged() {
        let rich = StepContent {
            section_title: Some("yes".to_owned()),
            introduction_for_agent: Some(String::new()),
            context_for_agent: Some("```sh\nls\n```\n".to_owned()),
            operations_for_agent: Some("\n````\n".to_owned()),
            metadata: Map::from_iter([
                ("key".to_owned(), json!("x")),
                ("$unknown".to_owned(), json!({"step": {"y": 1}})),
            ]),
            ..content("Vec<T> & `x` [y](z) ~a~ \\ _b_", "    code\n\n```md\n# no\n## no\n```\n\n> ## no\n\n### deep")
        };
        let steps = [rich, content("#", ""), content("#", "x\r\ny")];
        let keys = ["01", "ws_000000000001", "a/b"];
        let steps: Vec<_> = keys.iter().zip(&steps).map(|(key, content)| ExportStep { key, content }).collect();
        for description in ["About.\n\n### More", "", "has\n\n# headings\n", " \n"] {
            let fields = WalkthroughFields { description: description.to_owned(), ..fields() };
            let text = export_markdown(&fields, steps.iter().copied()).unwrap_or_else(|error| panic!("{error}"));
            let read = parse("a.md", &text).expect("an export is valid");
            assert_eq!(read.steps[2].content.content, "x\ny");
            assert_eq!(read.fields(None, None).expect("it has a title"), fields);
            assert!(read.warnings.is_empty());
        }
    }

    #[test]
    fn ambiguous_content_is_marked() {
        let table = [
            ("plain\n\n### deep", false),
            ("## a heading", true),
            ("Title\n===\n\nOther\n---", true),
            ("```\nan open fence", true),
            ("\n\nblank lines", true),
            ("blanks behind  ", true),
            ("```agent-context\nfor whom?\n```", true),
            ("<!-- an open comment", true),
            ("<script>\n\n## open", true),
            ("---\na: 1\n---", true),
            ("<!-- walkthrough-content -->\n## x", true),
            ("```md\n<!-- /walkthrough-content -->\n```", true),
        ];
        for (text, marked) in table {
            let step = StepContent {
                context_for_agent: Some("<!-- walkthrough-content -->\nx".to_owned()),
                ..content("A", text)
            };
            let next = content("B", "x");
            let steps = [ExportStep { key: "a", content: &step }, ExportStep { key: "b", content: &next }];
            let file = export_markdown(&fields(), steps).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(file.contains("\n<!-- walkthrough-content"), marked, "{file}");
            let read = parse("a.md", &file).expect("an export is valid");
            assert_eq!(
                read.steps.into_iter().map(|step| step.content).collect::<Vec<_>>(),
                [step.clone(), next.clone()]
            );
        }
    }

    #[test]
    fn a_duplicate_key_is_written_once() {
        let steps = [content("A", "x"), content("B", "x")];
        let steps: Vec<_> = steps.iter().map(|content| ExportStep { key: "same", content }).collect();
        let file = parse("a.md", &export_markdown(&fields(), steps).expect("it can be exported")).expect("valid input");
        assert_eq!([file.steps[0].identity.key(), file.steps[1].identity.key()], [Some("same"), None]);
        assert!(export_markdown(&fields(), std::iter::empty::<ExportStep<'_>>()).is_err());
    }
}
