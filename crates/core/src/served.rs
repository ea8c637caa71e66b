//! What users and agents receive of what authors typed.
//!
//! Walkthroughs are stored as they were typed and cleaned when they are loaded to be served (see [`crate::markdown`]).
//! So an author never loses a character, and stricter rules of cleaning hold for what is already published. Cleaning
//! twice is cleaning once.

use crate::invisible::is_invisible;
use crate::markdown::{clean_line, clean_markdown, clean_plain};
use crate::step::StepContent;

/// Stands for a title of which nothing is left.
const UNTITLED: &str = "Untitled";
/// Excerpts that are shown of one field at most.
pub const MAX_EXCERPTS: usize = 3;
/// Characters of an excerpt at most.
const EXCERPT_CHARS: usize = 80;
/// Characters that stay before and after what has changed.
const CONTEXT_CHARS: usize = 16;
/// Pairs of lines that are compared at most; beyond that the difference is one piece.
const MAX_PAIRS: usize = 250_000;

/// Returns a title as it is served: one clean line, never empty.
#[must_use]
pub fn title(text: &str) -> String {
    let line = clean_line(text);
    if line.is_empty() { UNTITLED.to_owned() } else { line }
}

/// Returns a description as it is served: plain text.
#[must_use]
pub fn description(text: &str) -> String {
    clean_plain(text).trim().to_owned()
}

/// Returns labels as they are served: clean lines, without empty and repeated ones.
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

/// Returns a step as it is served. Metadata is not served to anyone and stays as it is.
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

/// A field that is served otherwise than it was typed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// Name of the field.
    pub field: &'static str,
    /// Excerpts, as typed and as served; characters that cannot be seen are written as `\u{200b}`.
    pub excerpts: Vec<(String, String)>,
    /// How many further places change.
    pub more: usize,
}

impl std::fmt::Display for Change {
    /// Says what changes, without the name of the field.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("changes when it is served: ")?;
        for (at, (before, after)) in self.excerpts.iter().enumerate() {
            write!(f, "{}\"{before}\" → \"{after}\"", if at == 0 { "" } else { "; " })?;
        }
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        f.write_str(".")
    }
}

/// Returns what of a step is served otherwise than it was typed; `served` is what [`step`] makes of `typed`.
#[must_use]
pub fn changes(typed: &StepContent, served: &StepContent) -> Vec<Change> {
    let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let agent = |name, before: &Option<String>, after: &Option<String>| {
        // Blanks alone are nothing to an agent.
        let before = text(before);
        change(name, if before.trim().is_empty() { "" } else { &before }, &text(after))
    };
    // Blanks around a line are not stored, and a step without a title is an error of its own.
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

fn change(field: &'static str, before: &str, after: &str) -> Option<Change> {
    if before == after {
        return None;
    }
    let pieces = pieces(before, after);
    let excerpts = pieces.iter().take(MAX_EXCERPTS).map(|(before, after)| excerpt(before, after)).collect();
    Some(Change { field, excerpts, more: pieces.len().saturating_sub(MAX_EXCERPTS) })
}

/// The lines that differ, in runs: those before and those after.
fn pieces(before: &str, after: &str) -> Vec<(String, String)> {
    let (a, b): (Vec<_>, Vec<_>) = (before.split('\n').collect(), after.split('\n').collect());
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[start..a.len() - end], &b[start..b.len() - end]);
    if a.len() * b.len() > MAX_PAIRS {
        return vec![piece(a, b)];
    }
    // The length of the longest common run of lines from each pair on.
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
    let (mut i, mut j, mut pieces, mut from) = (0, 0, Vec::new(), None::<(usize, usize)>);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            pieces.extend(from.take().map(|(i0, j0)| piece(&a[i0..i], &b[j0..j])));
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
    pieces.extend(from.map(|(i0, j0)| piece(&a[i0..], &b[j0..])));
    pieces
}

/// Two runs of lines as texts. Where there is none on one side, the line break is what differs.
fn piece(a: &[&str], b: &[&str]) -> (String, String) {
    let text = |lines: &[&str], other: &[&str]| lines.join("\n") + if other.is_empty() { "\n" } else { "" };
    (text(a, b), text(b, a))
}

/// What differs between two texts with a little of what stands around it.
fn excerpt(before: &str, after: &str) -> (String, String) {
    let (a, b): (Vec<_>, Vec<_>) = (before.chars().collect(), after.chars().collect());
    let start = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(|(a, b)| a == b).count();
    let from = start.saturating_sub(CONTEXT_CHARS);
    let cut = |text: &[char]| {
        let to = (text.len() - end + CONTEXT_CHARS).min(text.len());
        let shown = &text[from..to.min(from + EXCERPT_CHARS)];
        let (first, last) = (if from > 0 { "…" } else { "" }, if from + shown.len() < text.len() { "…" } else { "" });
        format!("{first}{}{last}", visible(shown))
    };
    (cut(&a), cut(&b))
}

fn visible(text: &[char]) -> String {
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
    fn serves_what_is_clean() {
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
    fn tells_what_changes() {
        let changes = changes(&typed(), &step(&typed()));
        let told: Vec<_> = changes.iter().map(|change| format!("{} {change}", change.field)).collect();
        assert_eq!(
            told,
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
        let (before, _) = &shown.iter().find(|change| change.field == "content").expect("it changes").excerpts[0];
        assert_eq!(before, &format!("…{}<b>{}…", "x".repeat(16), "y".repeat(16)));
    }

    proptest! {
        #[test]
        fn what_is_served_stays(title in ".{0,20}", text in "(<br>|<b>|\\PC|\n|\u{200b}|`|- |# ){0,30}", agent in ".{0,20}") {
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
