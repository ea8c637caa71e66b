//! Renders steps and lists as the text block of a result, for clients that do not pass structured content to their
//! model.
//!
//! Each section of the author's text is enclosed in `<name>` and `</name>`. If the text itself contains `</name>`, the
//! section gets a different name, so that no text can end the section that contains it.

use std::fmt::Write;

use crate::guidance::{Guide, single_line};
use waypost_core::progress::{Notice, ProgressView, Status};
use waypost_core::step::StepContent;

/// Characters that a reader may interpret as the beginning of a tag.
const OPEN: [char; 3] = ['<', '＜', '﹤'];

/// Returns the name of a section for `text`: `name`, or `name-2`, `name-3` … if the text could end it. Anything that
/// resembles the end of a section counts: any letter case, white space, and full-width forms of `<` and `/`.
fn section_name(name: &str, text: &str) -> String {
    // Three searches for one character each are much faster than one search for any of them.
    if OPEN.iter().all(|open| !text.contains(*open)) {
        return name.to_owned();
    }
    let mut ends: Vec<String> = Vec::new();
    for (at, open) in text.match_indices(OPEN) {
        let rest = text[at + open.len()..].trim_start();
        if let Some(end) = rest.strip_prefix(['/', '／', '∕', '⁄']) {
            let word = end.trim_start().split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).next();
            ends.push(word.unwrap_or_default().to_ascii_lowercase());
        }
    }
    let mut unique = name.to_owned();
    let mut number = 1;
    while ends.iter().any(|end| end.starts_with(&unique)) {
        number += 1;
        unique = format!("{name}-{number}");
    }
    unique
}

/// Returns `text` in a section called `name`, or `name-2`, `name-3` … if the text could end it. Returns an empty string
/// for empty text.
#[must_use]
pub fn section(name: &str, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let name = section_name(name, text);
    format!("<{name}>\n{text}\n</{name}>\n")
}

/// Renders the non-empty fields of a step as sections.
fn fields(content: &StepContent) -> String {
    let optional = |name, field: &Option<String>| field.as_deref().map(|text| section(name, text)).unwrap_or_default();
    [
        optional("intro", &content.introduction_for_agent),
        optional("context", &content.context_for_agent),
        optional("operations", &content.operations_for_agent),
        section("content", &content.content),
    ]
    .concat()
}

/// Renders the current step: its position, the notices, its sections, and what to do next.
#[must_use]
pub fn step(progress: &ProgressView, guide: &Guide<'_>, notices: &[Notice]) -> String {
    let mut text = String::new();
    let total = progress.version.step_count();
    let notices = guide.notices(notices);
    let mut content_section = String::new();
    match progress.current() {
        Some(index) => {
            let step = &progress.version.steps()[index];
            let (position, percent) = (index + 1, progress.percent());
            let _ = writeln!(text, "Step {position} of {total} ({percent}%): {}", single_line(&step.content.title));
            if let Some(title) = &step.content.section_title {
                let _ = writeln!(text, "Section: {}", single_line(title));
            }
            if !notices.is_empty() {
                let _ = writeln!(text, "{notices}");
            }
            text.push_str(&fields(&step.content));
            content_section = section_name("content", &step.content.content);
        }
        None => {
            let _ = writeln!(text, "All {total} steps are completed (100%). {notices}");
        }
    }
    let next = guide.step_text(progress, &content_section);
    if !next.is_empty() {
        let _ = writeln!(text, "{next}");
    }
    text
}

/// A row of a list of walkthroughs.
#[derive(Debug, Clone)]
pub struct ListRow<'a> {
    /// ID of the walkthrough.
    pub id: &'a str,
    /// Title.
    pub title: &'a str,
    /// Description.
    pub description: &'a str,
    /// Number of steps.
    pub steps: u32,
    /// Estimated duration in minutes.
    pub minutes: Option<u32>,
    /// The user's status.
    pub status: Status,
    /// The user's progress in percent.
    pub percent: u8,
}

/// Renders a list of walkthroughs, with its `message` at the end.
#[must_use]
pub fn list(rows: &[ListRow<'_>], message: &str) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let minutes = row.minutes.map(|minutes| format!(", about {minutes} min")).unwrap_or_default();
        let state = match row.status {
            Status::NotStarted => "not started".to_owned(),
            Status::InProgress => format!("in progress, {}%", row.percent),
            Status::Completed => "completed".to_owned(),
        };
        let title = single_line(row.title);
        let _ = writeln!(text, "{}. {title} ({} steps{minutes}; {state}) id {}", number + 1, row.steps, row.id);
        if !row.description.is_empty() {
            let _ = writeln!(text, "   {}", single_line(row.description));
        }
    }
    text.push_str(message);
    text
}

/// A walkthrough with the user's progress, without its steps.
#[derive(Debug, Clone, Copy)]
pub struct DetailsView<'a> {
    /// The walkthrough.
    pub row: &'a ListRow<'a>,
    /// Its type.
    pub kind: &'a str,
    /// Its tags.
    pub tags: &'a [String],
    /// The user's progress.
    pub progress: &'a ProgressView,
}

/// Renders a walkthrough with the user's progress, and `message` at the end.
#[must_use]
pub fn details(view: &DetailsView<'_>, message: &str) -> String {
    let DetailsView { row, kind, tags, progress } = view;
    let mut text = format!("{}\nType: {kind}; {} steps", single_line(row.title), row.steps);
    if let Some(minutes) = row.minutes {
        let _ = write!(text, "; about {minutes} min");
    }
    if !tags.is_empty() {
        let _ = write!(text, "; tags: {}", tags.iter().map(|tag| single_line(tag)).collect::<Vec<_>>().join(", "));
    }
    text.push('\n');
    if !row.description.is_empty() {
        let _ = writeln!(text, "{}", single_line(row.description));
    }
    let (completed, total) = (progress.completed(), progress.version.step_count());
    let status = progress.status().as_str().replace('_', " ");
    let _ = writeln!(text, "Progress: {status}, {completed} of {total} steps completed ({}%).", progress.percent());
    text.push_str(message);
    text
}

/// Renders the titles of a version's steps with their states, without content, and `message` at the end.
#[must_use]
pub fn outline(progress: &ProgressView, message: &str) -> String {
    let (completed, total) = (progress.completed(), progress.version.step_count());
    let mut text = format!(
        "{}: {}, {completed} of {total} steps completed ({}%).\n",
        single_line(&progress.version.title),
        progress.status().as_str().replace('_', " "),
        progress.percent()
    );
    let current = progress.current();
    let mut section = None;
    for (index, step) in progress.version.steps().iter().enumerate() {
        if section != step.content.section_title.as_deref() {
            section = step.content.section_title.as_deref();
            let _ = writeln!(text, "{}", single_line(section.unwrap_or_default()));
        }
        let mark = match index {
            _ if progress.is_completed(index) => "x",
            index if Some(index) == current => ">",
            _ => " ",
        };
        let _ = writeln!(text, "[{mark}] {}. {} ({})", index + 1, single_line(&step.content.title), step.id);
    }
    text.push_str(message);
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::guidance::{ToolFlow, UserIdentity};
    use waypost_core::id::{StepId, VersionId, WalkthroughId};
    use waypost_core::version::{StoredVersion, VersionStep};

    fn progress(content: StepContent) -> ProgressView {
        let id = StepId::from_store("ws_0123456789abcdef".into());
        let version = crate::clean::version(StoredVersion {
            id: VersionId::from_store("wv_1".into()),
            walkthrough_id: WalkthroughId::from_store("wt_1".into()),
            number: 1,
            title: "T".into(),
            steps: vec![VersionStep { id, ordinal: 0, content }],
        });
        ProgressView { attempt: None, version: Arc::new(version), latest_number: 1 }
    }

    fn full() -> StepContent {
        StepContent {
            title: "Install".into(),
            section_title: Some("Begin".into()),
            content: "Run `make`.".into(),
            introduction_for_agent: Some("Say hello.".into()),
            context_for_agent: Some("Linux.".into()),
            operations_for_agent: Some("1. Run it.".into()),
            ..StepContent::default()
        }
    }

    const HANDLE: &str = "wph_0123456789abcdefghjkmnpqrs";

    fn rendered(progress: &ProgressView, flow: ToolFlow, user: &UserIdentity, notices: &[Notice]) -> String {
        let id = WalkthroughId::from_store("wt_0123456789abcdef".into());
        step(progress, &Guide { flow, user, walkthrough_id: &id, title: "T" }, notices)
    }

    #[test]
    fn a_step_is_rendered_in_full() {
        let user = UserIdentity::Handle("wph_abc".to_owned());
        let text = rendered(&progress(full()), ToolFlow::Guided, &user, &[Notice::Started]);
        let expected = r#"Step 1 of 1 (0%): Install
Section: Begin
Started "T".
<intro>
Say hello.
</intro>
<context>
Linux.
</context>
<operations>
1. Run it.
</operations>
<content>
Run `make`.
</content>
Show <content> and stop. Only when the user says it is done, call next_walkthrough_step(walkthrough_id: "wt_0123456789abcdef", current_step_id: "ws_0123456789abcdef", progress_handle: "wph_abc"). Pass progress_handle on every call; save it in your notes (AGENTS.md, .waypost) to resume.
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn the_instructions_refer_to_the_section_with_the_content() {
        let content = StepContent { content: "`</content>`".into(), ..full() };
        let text = rendered(&progress(content), ToolFlow::Stepwise, &UserIdentity::Known, &[]);
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            r#"Show <content-2> and stop. Only when the user says it is done, call complete_step(walkthrough_id: "wt_0123456789abcdef", step_id: "ws_0123456789abcdef")."#
        );
    }

    #[test]
    fn fixed_text_around_a_step_is_at_most_450_bytes() {
        let content = full();
        let own = [
            content.title.len(),
            content.section_title.as_ref().unwrap().len(),
            content.content.len(),
            content.introduction_for_agent.as_ref().unwrap().len(),
            content.context_for_agent.as_ref().unwrap().len(),
            content.operations_for_agent.as_ref().unwrap().len(),
        ];
        let user = UserIdentity::Handle(HANDLE.to_owned());
        for flow in [ToolFlow::Guided, ToolFlow::Stepwise] {
            for notice in [Notice::Started, Notice::Resumed] {
                let text = rendered(&progress(content.clone()), flow, &user, &[notice]);
                let fixed = text.len() - own.iter().sum::<usize>() - "T".len();
                assert!(fixed <= 450, "{flow:?}: {fixed} bytes around\n{text}");
            }
        }
    }

    proptest! {
        /// No text can end its own section.
        #[test]
        fn no_text_ends_its_section(parts in prop::collection::vec(
            prop_oneof![
                Just("</content>"), Just("</content-2>"), Just("</CONTENT-3"), Just("< / content>"), Just("＜／content-2 "),
                Just("\n"), Just("x"), Just("</"), Just("<"), Just("content"),
            ], 0..12)) {
            let text = parts.concat();
            let rendered = section("content", &text);
            if text.is_empty() {
                prop_assert!(rendered.is_empty());
            } else {
                let name = rendered[1..].split('>').next().unwrap();
                let end = format!("</{name}>");
                let plain = rendered.to_ascii_lowercase().replace('＜', "<").replace('／', "/");
                prop_assert_eq!(plain.split_whitespace().collect::<String>().matches(&end).count(), 1, "{}", rendered);
                prop_assert!(rendered.trim_end().ends_with(&end));
                prop_assert_eq!(&rendered[name.len() + 3..rendered.len() - end.len() - 2], text);
            }
        }
    }
}
