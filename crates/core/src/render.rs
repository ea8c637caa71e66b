//! Turning steps and lists into the text that clients read which take no structured content.
//!
//! A section of author's text stands between `<name>` and `</name>`. An author can write anything, also `</name>`;
//! then the section gets another name, so that no text can end the section that it stands in.

use std::fmt::Write;

use crate::progress::{Notice, Standing, Status};
use crate::step::StepContent;

/// `text` in a section called `name`, or `name-2`, `name-3` … when the text could end it. Nothing for empty text.
#[must_use]
pub fn section(name: &str, text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let lower = text.to_ascii_lowercase();
    let mut unique = name.to_owned();
    let mut number = 1;
    while lower.contains(&format!("</{unique}")) {
        number += 1;
        unique = format!("{name}-{number}");
    }
    format!("<{unique}>\n{text}\n</{unique}>\n")
}

/// One line of author's text: line feeds become spaces.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the notices say, in sentences.
#[must_use]
pub fn message(notices: &[Notice]) -> String {
    let sentences: Vec<String> = notices
        .iter()
        .map(|notice| match notice {
            Notice::Started => "Started.".to_owned(),
            Notice::Resumed => "Resumed.".to_owned(),
            Notice::AlreadyCompleted => "This walkthrough is completed already. To go through it again, call \
                select_walkthrough with resume_if_exists false."
                .to_owned(),
            Notice::StepAlreadyCompleted => "That step was completed before; nothing changed.".to_owned(),
            Notice::Moved { from } => {
                format!("Moved from version {from}; every step that still exists stays completed.")
            }
            Notice::Withdrawn { from, reason } => format!(
                "Version {from} was withdrawn by its author: {}. This is the newest version; no step was completed by \
                 this call. Tell the user before going on.",
                line(reason).trim_end_matches('.')
            ),
            Notice::NewerVersion { number } => format!(
                "A newer version ({number}) exists; select_walkthrough with use_version \"latest\" moves to it."
            ),
            Notice::JustCompleted => "The walkthrough is completed.".to_owned(),
        })
        .collect();
    sentences.join(" ")
}

/// The fields of a step that have text, as sections.
fn fields(content: &StepContent) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    [
        section("intro", &text(&content.introduction_for_agent)),
        section("context", &text(&content.context_for_agent)),
        section("operations", &text(&content.operations_for_agent)),
        section("content", &content.content),
    ]
    .concat()
}

/// The current step of a standing, with what to call next; `guided` names the tool that goes on.
#[must_use]
pub fn step(standing: &Standing, message: &str, handle: Option<&str>, guided: bool) -> String {
    let mut text = String::new();
    let total = standing.version.total();
    match standing.current() {
        Some(index) => {
            let step = &standing.version.steps()[index];
            let (position, percent) = (index + 1, standing.percent());
            let _ = writeln!(text, "Step {position} of {total} ({percent} %): {}", line(&step.content.title));
            if let Some(title) = &step.content.section_title {
                let _ = writeln!(text, "Section: {}", line(title));
            }
            if !message.is_empty() {
                let _ = writeln!(text, "{message}");
            }
            text.push_str(&fields(&step.content));
            let call = if guided {
                format!("next_walkthrough_step with current_step_id {}", step.id)
            } else {
                format!("complete_step with step_id {}", step.id)
            };
            let _ = writeln!(text, "Then call {call}");
        }
        None => {
            let _ = writeln!(text, "All {total} steps are done (100 %). {message}");
        }
    }
    if let Some(handle) = handle {
        let _ = writeln!(text, "progress_handle: {handle}");
    }
    text
}

/// A row of a list of walkthroughs.
#[derive(Debug, Clone)]
pub struct ListRow<'a> {
    /// Id of the walkthrough.
    pub id: &'a str,
    /// Title.
    pub title: &'a str,
    /// Description.
    pub description: &'a str,
    /// How many steps.
    pub steps: u32,
    /// Minutes.
    pub minutes: Option<u32>,
    /// The user's status.
    pub status: Status,
    /// The user's percentage.
    pub percent: u8,
}

/// A list of walkthroughs, with what to call next.
#[must_use]
pub fn list(rows: &[ListRow<'_>], more: bool) -> String {
    if rows.is_empty() {
        return "There are no walkthroughs here at the moment.".to_owned();
    }
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let minutes = row.minutes.map(|minutes| format!(", about {minutes} min")).unwrap_or_default();
        let state = match row.status {
            Status::NotStarted => "not started".to_owned(),
            Status::InProgress => format!("in progress, {} %", row.percent),
            Status::Completed => "completed".to_owned(),
        };
        let title = line(row.title);
        let _ = writeln!(text, "{}. {title} ({} steps{minutes}; {state}) id {}", number + 1, row.steps, row.id);
        if !row.description.is_empty() {
            let _ = writeln!(text, "   {}", line(row.description));
        }
    }
    if more {
        text.push_str("There are more: call again with cursor next_cursor.\n");
    }
    text.push_str("Call select_walkthrough with the id of the one that the user wants.");
    text
}

/// The titles of a version's steps with their states, and no content of them.
#[must_use]
pub fn outline(standing: &Standing, message: &str) -> String {
    let (completed, total) = (standing.completed(), standing.version.total());
    let mut text = format!(
        "{}: {}, {completed} of {total} steps completed ({} %).\n",
        line(&standing.version.title),
        standing.status().as_str().replace('_', " "),
        standing.percent()
    );
    if !message.is_empty() {
        let _ = writeln!(text, "{message}");
    }
    let current = standing.current();
    let mut section = None;
    for (index, step) in standing.version.steps().iter().enumerate() {
        if section != step.content.section_title.as_deref() {
            section = step.content.section_title.as_deref();
            let _ = writeln!(text, "{}", line(section.unwrap_or_default()));
        }
        let mark = match index {
            _ if standing.is_completed(index) => "x",
            index if Some(index) == current => ">",
            _ => " ",
        };
        let _ = writeln!(text, "[{mark}] {}. {} ({})", index + 1, line(&step.content.title), step.id);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::id::{StepId, VersionId, WalkthroughId};
    use crate::version::{FrozenStep, Version};

    fn standing(content: StepContent) -> Standing {
        let id = StepId::from_store("ws_0123456789abcdef".into());
        let version = Version::new(
            VersionId::from_store("wv_1".into()),
            WalkthroughId::from_store("wt_1".into()),
            1,
            "T".into(),
            vec![FrozenStep { id, ordinal: 0, content }],
        );
        Standing { attempt: None, version: Arc::new(version), latest_number: 1 }
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

    #[test]
    fn a_step_reads_like_this() {
        let text = step(&standing(full()), "Started.", Some("wph_abc"), true);
        let expected = "\
Step 1 of 1 (0 %): Install
Section: Begin
Started.
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
Then call next_walkthrough_step with current_step_id ws_0123456789abcdef
progress_handle: wph_abc
";
        assert_eq!(text, expected);
    }

    #[test]
    fn fixed_text_around_a_step_is_at_most_250_bytes() {
        let content = full();
        let own = [
            content.title.len(),
            content.section_title.as_ref().unwrap().len(),
            content.content.len(),
            content.introduction_for_agent.as_ref().unwrap().len(),
            content.context_for_agent.as_ref().unwrap().len(),
            content.operations_for_agent.as_ref().unwrap().len(),
        ];
        let handle = "wph_0123456789abcdefghjkmnpqrs";
        let text = step(&standing(content), "Started.", Some(handle), true);
        let fixed = text.len() - own.iter().sum::<usize>();
        assert!(fixed <= 250, "{fixed} bytes");
    }

    proptest! {
        /// Whatever an author writes, the section ends where it was ended.
        #[test]
        fn no_text_ends_its_section(parts in prop::collection::vec(
            prop_oneof![Just("</content>"), Just("</content-2>"), Just("</CONTENT-3"), Just("\n"), Just("x")], 0..12)) {
            let text = parts.concat();
            let rendered = section("content", &text);
            if text.is_empty() {
                prop_assert!(rendered.is_empty());
            } else {
                let name = rendered[1..].split('>').next().unwrap();
                let end = format!("</{name}>");
                prop_assert_eq!(rendered.to_ascii_lowercase().matches(&end).count(), 1);
                prop_assert!(rendered.trim_end().ends_with(&end));
                prop_assert_eq!(&rendered[name.len() + 3..rendered.len() - end.len() - 2], text);
            }
        }
    }
}
