//! Lint: errors that prevent publishing, and probable mistakes.

use std::collections::HashMap;
use std::fmt;

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use super::file::{FIELDS, length_problems};
use super::identity::fold_title;
use super::outline::dialect;
use super::source::label;
use crate::clean;
use crate::invisible;
use crate::markdown::normalize_line_endings;
use crate::template::find_placeholder;
use waypost_core::step::{MAX_STEPS, StepContent};
use waypost_core::walkthrough::WalkthroughType;

/// Content above this size in bytes is hard for agents to follow.
pub const LONG_CONTENT_BYTES: usize = 12 * 1024;

/// Maximum number of characters that a finding lists.
const MAX_CHARACTERS: usize = 5;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Prevents publishing.
    Error,
    /// Probably a mistake.
    Warning,
    /// A field is served differently from how it was typed.
    Notice,
}

impl Severity {
    /// Returns the name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// A lint finding.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The label of the step, such as `step 3 "Install"`; `None` for the walkthrough.
    pub step: Option<String>,
    /// The position of the step, from 1; `None` for the walkthrough.
    pub position: Option<usize>,
    /// The name of the field in the model.
    pub field: Option<&'static str>,
    /// The problem and what to do about it.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity.as_str())?;
        if let Some(step) = &self.step {
            write!(f, "{step}: ")?;
        }
        if let Some(field) = self.field {
            write!(f, "`{field}` ")?;
        }
        f.write_str(&self.message)
    }
}

/// Checks the fields of a walkthrough that are served, without its steps.
#[must_use]
pub fn lint_fields(title: &str, description: &str, tags: &[String]) -> Vec<Finding> {
    let fields = [("title", title), ("description", description), ("tags", &tags.join(" "))];
    let findings = fields.into_iter().filter_map(|(field, text)| {
        let message = invisible_characters(text)?;
        Some(Finding { field: Some(field), ..walkthrough_finding(Severity::Warning, message) })
    });
    findings.collect()
}

/// Checks steps in order.
pub fn lint<'a>(kind: WalkthroughType, steps: impl IntoIterator<Item = &'a StepContent>) -> Vec<Finding> {
    let steps: Vec<_> = steps.into_iter().collect();
    let mut findings = Vec::new();
    if steps.is_empty() {
        findings.push(walkthrough_finding(Severity::Error, "there are no steps. Add at least one."));
    }
    if steps.len() > MAX_STEPS {
        let message = format!("there are {} steps; the maximum is {MAX_STEPS}. Split the walkthrough.", steps.len());
        findings.push(walkthrough_finding(Severity::Error, message));
    }
    let mut sections = Sections::default();
    let mut titles: HashMap<String, usize> = HashMap::new();
    for (number, step) in (1..).zip(steps) {
        let mut step_findings = StepLinter { number, step: label(number, Some(&step.title)), findings: &mut findings };
        let served = clean::step(step);
        step_findings.requirements(kind, &served);
        step_findings.lengths(step, &served);
        step_findings.placeholders(step);
        step_findings.content(&served);
        step_findings.invisible(step);
        step_findings.section(step, &mut sections);
        step_findings.changes(step, &served);
        if let Some(earlier) = titles.insert(fold_title(&served.title), number) {
            let message = format!(
                "is also the title of step {earlier}. Rename one of them, or give them keys: without a key, an import \
                 matches a step by its title."
            );
            step_findings.warn("title", message);
        }
    }
    findings
}

fn walkthrough_finding(severity: Severity, message: impl Into<String>) -> Finding {
    Finding { severity, step: None, position: None, field: None, message: message.into() }
}

/// The sections so far, to detect a section that begins twice.
#[derive(Default)]
struct Sections {
    current: Option<String>,
    closed: Vec<String>,
}

struct StepLinter<'a> {
    number: usize,
    step: String,
    findings: &'a mut Vec<Finding>,
}

impl StepLinter<'_> {
    fn push(&mut self, severity: Severity, field: &'static str, message: impl Into<String>) {
        let (step, message) = (Some(self.step.clone()), message.into());
        self.findings.push(Finding { severity, step, position: Some(self.number), field: Some(field), message });
    }

    fn warn(&mut self, field: &'static str, message: impl Into<String>) {
        self.push(Severity::Warning, field, message);
    }

    /// Checks the fields that publishing requires.
    fn requirements(&mut self, kind: WalkthroughType, step: &StepContent) {
        for field in kind.missing_fields(step) {
            let message = match field {
                "content" => "is empty. Write the text for the user.".to_owned(),
                _ => format!("is empty, but every step of a walkthrough of type `{kind}` requires it."),
            };
            self.push(Severity::Error, field, message);
        }
    }

    /// Checks the length limits, which apply to the typed text and to the served text.
    fn lengths(&mut self, step: &StepContent, served: &StepContent) {
        let problems = length_problems(step).into_iter().zip(length_problems(served)).zip(FIELDS);
        for ((typed, served), field) in problems {
            if let Some(problem) = typed.or_else(|| served.map(|problem| format!("as served {problem}"))) {
                self.push(Severity::Error, field, problem);
            }
        }
    }

    fn placeholders(&mut self, step: &StepContent) {
        for (field, text) in texts(step) {
            if let Some(placeholder) = text.and_then(find_placeholder) {
                let message =
                    format!("still contains the template placeholder {placeholder}. Replace it with your own text.");
                self.push(Severity::Error, field, message);
            }
        }
    }

    fn invisible(&mut self, step: &StepContent) {
        for (field, text) in texts(step) {
            if let Some(message) = text.and_then(invisible_characters) {
                self.warn(field, message);
            }
        }
    }

    fn changes(&mut self, step: &StepContent, served: &StepContent) {
        for change in clean::changes(step, served) {
            self.push(Severity::Notice, change.field, change.to_string());
        }
    }

    fn content(&mut self, step: &StepContent) {
        if step.content.len() > LONG_CONTENT_BYTES {
            let message = format!(
                "has {} bytes; agents follow steps with less than {LONG_CONTENT_BYTES} bytes better. Consider splitting the step.",
                step.content.len()
            );
            self.warn("content", message);
        }
        if !step.content.trim().is_empty() && has_only_headings(&step.content) {
            self.warn("content", "has headings but no text. Write what to do.");
        }
    }

    fn section(&mut self, step: &StepContent, sections: &mut Sections) {
        if step.section_title.as_deref().is_some_and(|title| title.trim().is_empty()) {
            self.warn("section_title", "is empty. Write a title, or remove the section.");
        }
        let section = step.section_title.as_deref().map(fold_title).filter(|title| !title.is_empty());
        if section == sections.current {
            return;
        }
        sections.closed.extend(sections.current.take());
        if section.as_ref().is_some_and(|section| sections.closed.contains(section)) {
            self.warn("section_title", "begins this section a second time. Move its steps together.");
        }
        sections.current = section;
    }
}

/// Returns the fields of a step that are served.
fn texts(step: &StepContent) -> [(&'static str, Option<&str>); 6] {
    [
        ("title", Some(&step.title)),
        ("section_title", step.section_title.as_deref()),
        ("content", Some(&step.content)),
        ("introduction_for_agent", step.introduction_for_agent.as_deref()),
        ("context_for_agent", step.context_for_agent.as_deref()),
        ("operations_for_agent", step.operations_for_agent.as_deref()),
    ]
}

/// Returns a message with the number and kinds of invisible characters in a text.
fn invisible_characters(text: &str) -> Option<String> {
    let text = normalize_line_endings(text);
    let mut kinds: Vec<char> = Vec::new();
    let mut count = 0;
    for c in invisible::ranges(&text).into_iter().flat_map(|range| text[range].chars()) {
        count += 1;
        if !kinds.contains(&c) && kinds.len() <= MAX_CHARACTERS {
            kinds.push(c);
        }
    }
    let named = kinds.iter().take(MAX_CHARACTERS).map(|&c| format!("U+{:04X}", u32::from(c)));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = if kinds.len() > MAX_CHARACTERS { " …" } else { "" };
    let characters = if count == 1 { "1 invisible character" } else { &format!("{count} invisible characters") };
    (count > 0).then(|| {
        format!(
            "has {characters} ({named}{more}), which agents can read but users cannot see. They are removed when served; delete them."
        )
    })
}

/// Whether Markdown contains headings and no other text.
fn has_only_headings(content: &str) -> bool {
    let mut in_heading = false;
    let mut headings = false;
    for event in Parser::new_ext(content, dialect()) {
        match event {
            Event::Start(Tag::Heading { .. }) => (in_heading, headings) = (true, true),
            Event::End(TagEnd::Heading(_)) => in_heading = false,
            Event::Text(text) | Event::Code(text) | Event::Html(text) | Event::InlineHtml(text)
                if !in_heading && !text.trim().is_empty() =>
            {
                return false;
            }
            Event::Start(Tag::Image { .. }) if !in_heading => return false,
            _ => {}
        }
    }
    headings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(title: &str, content: &str) -> StepContent {
        StepContent { title: title.to_owned(), content: content.to_owned(), ..StepContent::default() }
    }

    fn fields(kind: WalkthroughType, steps: &[StepContent]) -> Vec<(Severity, &'static str)> {
        let findings = lint(kind, steps);
        findings.into_iter().map(|finding| (finding.severity, finding.field.unwrap_or_default())).collect()
    }

    #[test]
    fn fields_required_for_publishing_are_checked() {
        use Severity::Error;
        use WalkthroughType::{Course, Installer, Integration, Troubleshooting};
        let table: [(_, &[_]); 4] = [
            (Course, &[(Error, "content")]),
            (Installer, &[(Error, "content"), (Error, "operations_for_agent")]),
            (Troubleshooting, &[(Error, "content"), (Error, "context_for_agent")]),
            (Integration, &[(Error, "content"), (Error, "context_for_agent"), (Error, "operations_for_agent")]),
        ];
        for (kind, expected) in table {
            assert_eq!(fields(kind, &[step("A", " ")]), expected, "{kind}");
        }
        assert_eq!(fields(Course, &[]), [(Error, "")]);
        assert_eq!(fields(Course, &[step("A", "x")]), []);
    }

    #[test]
    fn template_placeholders_are_errors() {
        let kind = WalkthroughType::Course;
        let agent =
            StepContent { context_for_agent: Some("Say ‹fill in: what›.".to_owned()), ..step("A", "{{exec}}") };
        assert_eq!(fields(kind, std::slice::from_ref(&agent)), [(Severity::Error, "context_for_agent")]);
        let message = lint(kind, &[agent])[0].to_string();
        assert!(
            message
                .contains("step 1 \"A\": `context_for_agent` still contains the template placeholder ‹fill in: what›"),
            "{message}"
        );
    }

    #[test]
    fn limits_are_checked() {
        use Severity::{Error, Warning};
        let kind = WalkthroughType::Course;
        assert_eq!(fields(kind, &[step(&"x".repeat(201), "x")]), [(Error, "title")]);
        assert_eq!(fields(kind, &[step("", "x")]), [(Error, "title")]);
        assert_eq!(fields(kind, &[step("A", &"x".repeat(64 * 1024 + 1))]), [(Error, "content"), (Warning, "content")]);
        let many: Vec<_> = (0..501).map(|n| step(&n.to_string(), "x")).collect();
        assert_eq!(fields(kind, &many), [(Error, "")]);
    }

    #[test]
    fn fields_that_are_served_differently_are_reported() {
        use Severity::{Error, Notice};
        let kind = WalkthroughType::Course;
        let findings = lint(kind, &[step("A", "fast<br>slow"), step("B", "`<br>`")]);
        let told: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["notice: step 1 \"A\": `content` changes when it is served: \"fast<br>slow\" → \"fast  ⏎slow\"."]
        );
        assert_eq!(fields(kind, &[step("A", "<!-- nothing to read -->")]), [(Error, "content"), (Notice, "content")]);
        // With a backslash for each tag, the text is too long.
        let tight = "<x>".repeat(64 * 1024 / 3);
        assert!(fields(kind, &[step("A", &tight)]).contains(&(Error, "content")));
    }

    #[test]
    fn probable_mistakes_are_warnings() {
        use Severity::Warning;
        let kind = WalkthroughType::Course;
        let in_section =
            |section: &str, title: &str| StepContent { section_title: Some(section.to_owned()), ..step(title, "x") };
        assert_eq!(fields(kind, &[step("A", &"x".repeat(12 * 1024 + 1))]), [(Warning, "content")]);
        assert_eq!(fields(kind, &[step("A", "# Only\n\n## this\n")]), [(Warning, "content")]);
        assert_eq!(fields(kind, &[step("A", "# Only\n\n```\ncode\n```\n")]), []);
        assert_eq!(fields(kind, &[step("A", "![](x.png)")]), []);
        assert_eq!(fields(kind, &[step("A", "x"), step(" a", "x")]), [(Warning, "title")]);
        assert_eq!(fields(kind, &[in_section(" ", "A")]), [(Warning, "section_title")]);
        let split = [in_section("S", "A"), step("B", "x"), in_section("s", "C"), in_section("S", "D")];
        assert_eq!(fields(kind, &split), [(Warning, "section_title")]);
    }

    #[test]
    fn invisible_characters_are_warnings() {
        let hidden = StepContent {
            context_for_agent: Some("\u{E0061}\u{E0062}\u{E0063}\u{E0064}\u{E0065}\u{E0066}".to_owned()),
            ..step("A", "`a\u{202e}`\r\n\n[x]: # (hidden)")
        };
        let told: Vec<_> = lint(WalkthroughType::Course, &[hidden]).iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "warning: step 1 \"A\": `content` has 1 invisible character (U+202E), which agents can read but users cannot \
                 see. They are removed when served; delete them.",
                "warning: step 1 \"A\": `context_for_agent` has 6 invisible characters (U+E0061, U+E0062, U+E0063, U+E0064, \
                 U+E0065 …), which agents can read but users cannot see. They are removed when served; delete them.",
                "notice: step 1 \"A\": `content` changes when it is served: \"`a\\u{202e}`\\r\" → \"`a`\"; \
                 \"[x]: # (hidden)\" → \"\".",
                "notice: step 1 \"A\": `context_for_agent` changes when it is served: \
                 \"\\u{e0061}\\u{e0062}\\u{e0063}\\u{e0064}\\u{e0065}\\u{e0066}\" → \"\".",
            ]
        );
        let findings = lint_fields("A\u{200b}", "fine", &["b\u{3164}".to_owned()]);
        let fields: Vec<_> = findings.iter().map(|finding| finding.field.unwrap_or_default()).collect();
        assert_eq!(fields, ["title", "tags"]);
        assert!(
            findings[0].to_string().starts_with("warning: `title` has 1 invisible character (U+200B)"),
            "{}",
            findings[0]
        );
    }
}
