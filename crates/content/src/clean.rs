//! Cleaning of authors' text before it is served to users and agents.
//!
//! Walkthroughs are stored exactly as typed and cleaned when they are loaded for serving (see [`crate::markdown`]).
//! Authors therefore never lose a character, and stricter cleaning rules also apply to versions that are already
//! published. Cleaning is idempotent.

use crate::invisible::is_invisible;
use crate::markdown::{clean_line, clean_markdown, clean_plain};
use waypost_core::step::StepContent;
use waypost_core::version::{StoredVersion, Version, VersionStep};

/// The title that replaces one that is empty after cleaning.
const UNTITLED: &str = "Untitled";
/// Maximum number of excerpts per field.
pub const MAX_EXCERPTS: usize = 3;
/// Maximum length of an excerpt in characters.
const EXCERPT_CHARS: usize = 80;
/// Characters of unchanged text shown on each side of a change.
const CONTEXT_CHARS: usize = 16;
/// Maximum number of line pairs to compare. Larger differences are reported as a single hunk.
const MAX_PAIRS: usize = 250_000;

/// Cleans a title: a single line that is never empty.
#[must_use]
pub fn title(text: &str) -> String {
    let line = clean_line(text);
    if line.is_empty() { UNTITLED.to_owned() } else { line }
}

/// Cleans a description, which is plain text.
#[must_use]
pub fn description(text: &str) -> String {
    clean_plain(text).trim().to_owned()
}

/// Cleans tags, and removes empty and duplicate ones.
#[must_use]
pub fn tags(tags: &[String]) -> Vec<String> {
    let mut clean: Vec<String> = Vec::with_capacity(tags.len());
    for tag in tags.iter().map(|tag| clean_line(tag)) {
        if !tag.is_empty() && !clean.contains(&tag) {
            clean.push(tag);
        }
    }
    clean
}

/// Cleans a step. Metadata is never served, so it is left unchanged.
#[must_use]
pub fn step(content: &StepContent) -> StepContent {
    let agent = |text: &Option<String>| {
        let clean = clean_plain(text.as_deref()?);
        (!clean.trim().is_empty()).then(|| clean.into_owned())
    };
    StepContent {
        title: title(&content.title),
        section_title: content.section_title.as_deref().map(clean_line).filter(|section| !section.is_empty()),
        content: clean_markdown(&content.content).into_owned(),
        introduction_for_agent: agent(&content.introduction_for_agent),
        context_for_agent: agent(&content.context_for_agent),
        operations_for_agent: agent(&content.operations_for_agent),
        metadata: content.metadata.clone(),
    }
}

/// Cleans a version. This takes time proportional to the size of its text, so versions are built once and shared.
#[must_use]
pub fn version(stored: StoredVersion) -> Version {
    let clean = |content: VersionStep| VersionStep { content: step(&content.content), ..content };
    let steps = stored.steps.into_iter().map(clean).collect();
    Version::from_clean(StoredVersion { title: title(&stored.title), steps, ..stored })
}

/// A field whose served text differs from the text that was typed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldChange {
    /// Name of the field.
    pub field: &'static str,
    /// Pairs of excerpts, as typed and as served. Invisible characters are escaped, as in `\u{200b}`.
    pub excerpts: Vec<(String, String)>,
    /// Number of further changes that are not shown.
    pub more: usize,
}

impl std::fmt::Display for FieldChange {
    /// Describes the change without the name of the field.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("changes when it is served: ")?;
        for (index, (before, after)) in self.excerpts.iter().enumerate() {
            write!(f, "{}\"{before}\" → \"{after}\"", if index == 0 { "" } else { "; " })?;
        }
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        f.write_str(".")
    }
}

/// Returns the fields of a step whose served text differs from the typed text. `served` is the result of [`step`] for
/// `typed`.
#[must_use]
pub fn changes(typed: &StepContent, served: &StepContent) -> Vec<FieldChange> {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let agent = |name, before: &Option<String>, after: &Option<String>| {
        // A field with only white space counts as empty for an agent.
        let before = text(before);
        change(name, if before.trim().is_empty() { "" } else { &before }, &text(after))
    };
    // White space around a line is not stored, and a step without a title is reported separately.
    let typed_title = Some(typed.title.trim()).filter(|title| !title.is_empty());
    let changes = [
        typed_title.and_then(|title| change("title", title, &served.title)),
        change("section_title", text(&typed.section_title).trim(), &text(&served.section_title)),
        change("content", &typed.content, &served.content),
        agent("introduction_for_agent", &typed.introduction_for_agent, &served.introduction_for_agent),
        agent("context_for_agent", &typed.context_for_agent, &served.context_for_agent),
        agent("operations_for_agent", &typed.operations_for_agent, &served.operations_for_agent),
    ];
    changes.into_iter().flatten().collect()
}

fn change(field: &'static str, before: &str, after: &str) -> Option<FieldChange> {
    if before == after {
        return None;
    }
    let hunks = hunks(before, after);
    let excerpts = hunks.iter().take(MAX_EXCERPTS).map(|(before, after)| excerpt(before, after)).collect();
    Some(FieldChange { field, excerpts, more: hunks.len().saturating_sub(MAX_EXCERPTS) })
}

/// Returns the runs of lines that differ, as pairs of the text before and after.
fn hunks(before: &str, after: &str) -> Vec<(String, String)> {
    let (a, b): (Vec<_>, Vec<_>) = (before.split('\n').collect(), after.split('\n').collect());
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[start..a.len() - end], &b[start..b.len() - end]);
    if a.len() * b.len() > MAX_PAIRS {
        return vec![hunk(a, b)];
    }
    // The length of the longest common subsequence that starts at each pair of lines.
    let width = b.len() + 1;
    let mut common = vec![0_u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i * width + j] = if a[i] == b[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut hunks, mut from) = (0, 0, Vec::new(), None::<(usize, usize)>);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            hunks.extend(from.take().map(|(i0, j0)| hunk(&a[i0..i], &b[j0..j])));
            (i, j) = (i + 1, j + 1);
            continue;
        }
        from.get_or_insert((i, j));
        if j == b.len() || (i < a.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            i += 1
        } else {
            j += 1
        }
    }
    hunks.extend(from.map(|(i0, j0)| hunk(&a[i0..], &b[j0..])));
    hunks
}

/// Joins the lines of two runs. If one side has no lines, the other includes its line break as part of the
/// difference.
fn hunk(a: &[&str], b: &[&str]) -> (String, String) {
    let text = |lines: &[&str], other: &[&str]| lines.join("\n") + if other.is_empty() { "\n" } else { "" };
    (text(a, b), text(b, a))
}

/// Returns the part in which two strings differ, with some surrounding context.
fn excerpt(before: &str, after: &str) -> (String, String) {
    let (a, b): (Vec<_>, Vec<_>) = (before.chars().collect(), after.chars().collect());
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let from = start.saturating_sub(CONTEXT_CHARS);
    let cut = |text: &[char]| {
        let to = (text.len() - end + CONTEXT_CHARS).min(text.len());
        let shown = &text[from..to.min(from + EXCERPT_CHARS)];
        let (first, last) = (if from > 0 { "…" } else { "" }, if from + shown.len() < text.len() { "…" } else { "" });
        format!("{first}{}{last}", escape_invisible(shown))
    };
    (cut(&a), cut(&b))
}

fn escape_invisible(text: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    for &c in text {
        match c {
            '\n' => shown.push('⏎'),
            ' '..='~' => shown.push(c),
            _ if is_invisible(c) && !c.is_control() => shown.extend(c.escape_unicode()),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn typed() -> StepContent {
        StepContent {
            title: "  A\u{202e} title ".to_owned(),
            section_title: Some("\u{200b}".to_owned()),
            content: "Go <b>on</b>.\n\nStays.\n\nfast<br>slow\n\n```\n<br>\n```".to_owned(),
            introduction_for_agent: Some(" ".to_owned()),
            context_for_agent: Some("use <port>\u{200b}".to_owned()),
            ..StepContent::default()
        }
    }

    #[test]
    fn fields_are_cleaned() {
        let served = step(&typed());
        assert_eq!((served.title.as_str(), served.section_title.as_deref()), ("A title", None));
        assert_eq!(served.content, "Go on.\n\nStays.\n\nfast  \nslow\n\n```\n<br>\n```");
        assert_eq!(
            (served.introduction_for_agent.as_deref(), served.context_for_agent.as_deref()),
            (None, Some("use <port>"))
        );
        assert_eq!(title(" \u{200b}"), "Untitled");
        assert_eq!(tags(&["a\u{200b}".to_owned(), "a".to_owned(), " ".to_owned()]), ["a"]);
        assert_eq!(description("\n a\r\nb "), "a\nb");
    }

    #[test]
    fn changes_are_reported_per_field() {
        let changes = changes(&typed(), &step(&typed()));
        let messages: Vec<_> = changes.iter().map(|change| format!("{} {change}", change.field)).collect();
        assert_eq!(
            messages,
            [
                r#"title changes when it is served: "A\u{202e} title" → "A title"."#,
                r#"section_title changes when it is served: "\u{200b}" → ""."#,
                r#"content changes when it is served: "Go <b>on</b>." → "Go on."; "fast<br>slow" → "fast  ⏎slow"."#,
                r#"context_for_agent changes when it is served: "use <port>\u{200b}" → "use <port>"."#,
            ]
        );
        let many = "a<br>b\n\nx\n\n".repeat(5);
        let content = StepContent { content: many, ..typed() };
        assert_eq!(super::changes(&content, &step(&content))[2].more, 2);
        let long =
            StepContent { content: format!("{}<b>{}", "x".repeat(500), "y".repeat(500)), ..StepContent::default() };
        let shown = super::changes(&long, &step(&long));
        let (before, _) =
            &shown.iter().find(|change| change.field == "content").expect("a change of the content").excerpts[0];
        assert_eq!(before, &format!("…{}<b>{}…", "x".repeat(16), "y".repeat(16)));
    }

    proptest! {
        #[test]
        fn cleaning_is_idempotent(title in ".{0,20}", text in "(<br>|<b>|\\PC|\n|\u{200b}|`|- |# ){0,30}", agent in ".{0,20}") {
            let typed = StepContent {
                title: title.clone(), section_title: Some(title), content: text, context_for_agent: Some(agent), ..StepContent::default()
            };
            let served = step(&typed);
            prop_assert_eq!(&step(&served), &served);
            prop_assert!(changes(&served, &served).is_empty());
            for change in changes(&typed, &served) {
                prop_assert!(!change.excerpts.is_empty() && change.excerpts.iter().all(|(a, b)| a != b), "{:?}", change);
            }
        }
    }
}
