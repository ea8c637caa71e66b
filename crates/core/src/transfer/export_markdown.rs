//! Export to one Markdown file, in the form that [`super::markdown`] reads.
//!
//! Not everything can be written in that form: a content with headings of level 1 or 2 would be cut into steps, and one
//! with an open fence would swallow what follows. So the text is read again before it is given away, and refused when
//! something has changed. JSON holds everything.

use std::fmt::Write;

use serde_json::Value;

use super::export::ExportStep;
use super::markdown::{AGENT_BLOCKS, SETTINGS_BLOCK, parse};
use super::outline::{Piece, outline, trim_blank};
use super::place::label;
use crate::step::StepContent;
use crate::walkthrough::WalkthroughFields;
use crate::{Error, Result};

/// What a refusal advises.
const ADVICE: &str = "Export it as JSON, which holds everything.";

/// The walkthrough with its steps in order as one Markdown text.
///
/// # Errors
/// `invalid_arguments` naming the step and the field that Markdown cannot hold.
pub fn export_markdown<'a, S>(fields: &WalkthroughFields, steps: S) -> Result<String>
where
    S: IntoIterator,
    S::Item: Into<ExportStep<'a>>,
{
    let steps: Vec<ExportStep<'_>> = steps.into_iter().map(Into::into).collect();
    if steps.is_empty() {
        return Err(Error::invalid("steps", format!("A Markdown file needs at least one step. {ADVICE}")));
    }
    let text = write(fields, &steps);
    check(&text, fields, &steps)?;
    Ok(text)
}

fn write(fields: &WalkthroughFields, steps: &[ExportStep<'_>]) -> String {
    let in_text = stands_under_a_heading(&fields.description);
    let mut text = format!("---\ntype: {}\ntags: {}\n", fields.kind, Value::from(fields.tags.clone()));
    if let Some(minutes) = fields.estimated_duration_minutes {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "estimated_duration_minutes: {minutes}");
    }
    if !in_text {
        let _ = writeln!(text, "description: {}", Value::from(fields.description.as_str()));
    }
    if !fields.metadata.is_empty() {
        let _ = writeln!(text, "metadata: {}", Value::from(fields.metadata.clone()));
    }
    let _ = writeln!(text, "---\n\n# {}", escape(&fields.title));
    if in_text && !fields.description.is_empty() {
        let _ = writeln!(text, "\n{}", fields.description);
    }
    for step in steps {
        write_step(&mut text, step);
    }
    text
}

/// YAML reads JSON, so that values are written as JSON: no value can be taken for something else.
fn write_step(text: &mut String, step: &ExportStep<'_>) {
    let content = step.content;
    let mut settings = format!("key: {}", Value::from(step.key));
    if let Some(section) = &content.section_title {
        let _ = write!(settings, "\nsection: {}", Value::from(section.as_str()));
    }
    if !content.metadata.is_empty() {
        let _ = write!(settings, "\nmetadata: {}", Value::from(content.metadata.clone()));
    }
    let _ = writeln!(text, "\n## {}", escape(&content.title));
    write_block(text, SETTINGS_BLOCK, &settings);
    if !content.content.is_empty() {
        let _ = writeln!(text, "\n{}", content.content);
    }
    let agent = [&content.introduction_for_agent, &content.context_for_agent, &content.operations_for_agent];
    for (name, block) in AGENT_BLOCKS.iter().zip(agent) {
        if let Some(block) = block {
            write_block(text, name, block);
        }
    }
}

/// A fence is longer than any row of backticks in its text.
fn write_block(text: &mut String, name: &str, block: &str) {
    let longest = block.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat((longest + 1).max(3));
    let end = if block.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "\n{fence}{name}\n{block}{end}{fence}");
}

fn stands_under_a_heading(text: &str) -> bool {
    let cut = |piece: &Piece| matches!(piece, Piece::Heading { level: 1 | 2, .. });
    trim_blank(text) == text && !outline(text).iter().any(cut)
}

/// A title as the text of a heading: what is markup in Markdown is not in a title.
fn escape(title: &str) -> String {
    let mut escaped = String::with_capacity(title.len());
    let mut before = ' ';
    for c in title.chars() {
        // `#` after a space would close the heading.
        if "\\`*_[]<>&~|".contains(c) || (c == '#' && before == ' ') {
            escaped.push('\\');
        }
        escaped.push(c);
        before = c;
    }
    escaped
}

/// Reads what was written and compares.
fn check(text: &str, fields: &WalkthroughFields, steps: &[ExportStep<'_>]) -> Result<()> {
    let read = parse("export.md", text).map_err(|error| {
        let field = error.details.get("field").and_then(Value::as_str).unwrap_or("steps").to_owned();
        Error::invalid(&field, format!("This walkthrough does not fit into Markdown: {error} {ADVICE}"))
    })?;
    for (at, step) in steps.iter().enumerate() {
        let found = read.steps.get(at);
        let field = match found {
            Some(found) if found.identity.key() == Some(step.key) => difference(&found.content, step.content),
            _ => Some("content"),
        };
        if let Some(field) = field {
            let step = label(at + 1, Some(&step.content.title));
            let message = format!("{step}, `{field}`: cannot be written as Markdown without a change. {ADVICE}");
            return Err(Error::invalid(field, message).with("step", step));
        }
    }
    let same = read.steps.len() == steps.len() && read.fields(None, None).is_ok_and(|read| read == *fields);
    if same {
        return Ok(());
    }
    let message = format!("The head of the walkthrough cannot be written as Markdown without a change. {ADVICE}");
    Err(Error::invalid("walkthrough", message))
}

fn difference(found: &StepContent, wanted: &StepContent) -> Option<&'static str> {
    super::plan::changed_content(wanted, found).first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walkthrough::WalkthroughType;
    use serde_json::{Map, json};

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
    fn writes_what_is_read_again() {
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
            let read = parse("a.md", &text).expect("what was checked");
            assert_eq!(read.fields(None, None).expect("it has a title"), fields);
            assert!(read.warnings.is_empty());
        }
    }

    #[test]
    fn refuses_what_would_change() {
        let table = [
            ("## a heading", "content"),
            ("```\nan open fence", "content"),
            ("\n\nblank lines", "content"),
            ("```agent-context\nfor whom?\n```", "content"),
            ("<!-- an open comment", "content"),
        ];
        for (text, field) in table {
            let step = content("A", text);
            let next = content("B", "x");
            let steps = [ExportStep { key: "a", content: &step }, ExportStep { key: "b", content: &next }];
            let error = export_markdown(&fields(), steps).expect_err(text);
            assert_eq!(
                (&error.details["field"], &error.details["step"]),
                (&field.into(), &"step 1 \"A\"".into()),
                "{error}"
            );
        }
        assert!(export_markdown(&fields(), std::iter::empty::<ExportStep<'_>>()).is_err());
    }
}
