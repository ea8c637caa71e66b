//! A walkthrough as a file told it, whatever the format was.

use serde_json::{Map, Value};

use super::source::{SourceRef, line_problem, text_problem, title_problem};
use crate::step::{MAX_STEPS, StepContent};
use crate::walkthrough::{WalkthroughFields, WalkthroughType};
use crate::{Error, Result};

/// A walkthrough as read from a file or a folder.
///
/// Of the head, `None` means that the file says nothing: a new walkthrough gets the default, an existing one keeps
/// what it has. A member that is there and empty (or `null` in JSON) clears it.
#[derive(Debug, Clone, PartialEq)]
pub struct WalkthroughFile {
    /// Name of the file or folder, for messages.
    pub name: String,
    /// Title.
    pub title: Option<String>,
    /// One paragraph for a list.
    pub description: Option<String>,
    /// What it is for.
    pub kind: Option<WalkthroughType>,
    /// What a new walkthrough is for when the file does not say: a course for folders, else a quickstart.
    pub default_kind: WalkthroughType,
    /// How long it takes, in minutes; `Some(None)` clears it.
    pub estimated_duration_minutes: Option<Option<u32>>,
    /// Labels.
    pub tags: Option<Vec<String>>,
    /// Free members, with the unknown members of the file (see [`super::unknown_members`]).
    pub metadata: Option<Map<String, Value>>,
    /// The steps in their order.
    pub steps: Vec<ImportStep>,
    /// What was not refused but should be said.
    pub warnings: Vec<String>,
}

/// A step as read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportStep {
    /// By what the step is found again.
    pub identity: StepIdentity,
    /// Where it stands, for messages.
    pub source: SourceRef,
    /// The author's part.
    pub content: StepContent,
}

/// By what a step of a file is found again in a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepIdentity {
    /// The author's own name for it, or the id of the step in an export.
    Key(String),
    /// The path in the folder, without numbers and extension.
    Path(String),
    /// The title and how often it occurred before, both taken from the content when the import is planned, because
    /// titles are cleaned in between.
    Title,
}

impl StepIdentity {
    /// What is kept in [`crate::step::Step::key`]: the key, or the path; the title is not kept twice.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Key(text) | Self::Path(text) => Some(text),
            Self::Title => None,
        }
    }
}

impl WalkthroughFile {
    pub(super) fn new(name: &str, default_kind: WalkthroughType) -> Self {
        Self {
            name: name.to_owned(),
            title: None,
            description: None,
            kind: None,
            default_kind,
            estimated_duration_minutes: None,
            tags: None,
            metadata: None,
            steps: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The source that stands for the whole file.
    #[must_use]
    pub fn source(&self) -> SourceRef {
        SourceRef::file(&self.name)
    }

    /// The head that the walkthrough gets: `title` (`--title`) before the file, the file before what exists, and
    /// the defaults last.
    ///
    /// # Errors
    /// `invalid_arguments` when there is no title anywhere, or `title` is empty or too long.
    pub fn fields(&self, title: Option<&str>, existing: Option<&WalkthroughFields>) -> Result<WalkthroughFields> {
        let chosen = title.or(self.title.as_deref()).or(existing.map(|fields| fields.title.as_str()));
        let chosen = chosen.ok_or_else(|| self.missing_title())?;
        self.source().check_title("title", chosen)?;
        let had = |get: fn(&WalkthroughFields) -> Option<u32>| existing.and_then(get);
        Ok(WalkthroughFields {
            title: chosen.to_owned(),
            description: self
                .description
                .clone()
                .or_else(|| existing.map(|f| f.description.clone()))
                .unwrap_or_default(),
            kind: self.kind.or(existing.map(|fields| fields.kind)).unwrap_or(self.default_kind),
            estimated_duration_minutes: self
                .estimated_duration_minutes
                .unwrap_or_else(|| had(|fields| fields.estimated_duration_minutes)),
            tags: self.tags.clone().or_else(|| existing.map(|fields| fields.tags.clone())).unwrap_or_default(),
            metadata: self.metadata.clone().or_else(|| existing.map(|f| f.metadata.clone())).unwrap_or_default(),
        })
    }

    fn missing_title(&self) -> Error {
        self.source().reject(
            "title",
            "is missing. Write it in the file (`walkthrough.title` in JSON, `# Title` in Markdown), or pass `--title`.",
        )
    }

    /// Refuses more steps than a walkthrough holds.
    pub(super) fn check_count(source: &SourceRef, count: usize) -> Result<()> {
        if count > MAX_STEPS {
            let message = format!("has {count} steps, {MAX_STEPS} at most. Split the walkthrough.");
            return Err(source.reject("steps", message));
        }
        Ok(())
    }
}

/// Checks the lengths of a step's texts; `names` are the names of its fields in the format at hand, in the order of
/// [`FIELDS`].
pub(super) fn check_lengths(source: &SourceRef, content: &StepContent, names: &[&str; 6]) -> Result<()> {
    match length_problems(content).into_iter().zip(names).find_map(|(problem, name)| Some((problem?, name))) {
        Some((problem, name)) => Err(source.reject(name, problem)),
        None => Ok(()),
    }
}

/// What is wrong with the lengths of a step's texts, in the order of [`FIELDS`].
pub(super) fn length_problems(content: &StepContent) -> [Option<String>; 6] {
    let text = |field: &Option<String>| text_problem(field.as_deref().unwrap_or_default());
    [
        title_problem(&content.title),
        line_problem(content.section_title.as_deref().unwrap_or_default()),
        text_problem(&content.content),
        text(&content.introduction_for_agent),
        text(&content.context_for_agent),
        text(&content.operations_for_agent),
    ]
}

/// The fields of a step by their names in the model.
pub(super) const FIELDS: [&str; 6] =
    ["title", "section_title", "content", "introduction_for_agent", "context_for_agent", "operations_for_agent"];

#[cfg(test)]
mod tests {
    use super::*;

    fn existing() -> WalkthroughFields {
        WalkthroughFields {
            title: "Old".to_owned(),
            description: "Said".to_owned(),
            kind: WalkthroughType::Installer,
            estimated_duration_minutes: Some(5),
            tags: vec!["a".to_owned()],
            metadata: Map::new(),
        }
    }

    #[test]
    fn what_the_file_does_not_say_stays() {
        let file = WalkthroughFile::new("steps.json", WalkthroughType::Quickstart);
        assert_eq!(file.fields(None, Some(&existing())).expect("has a title"), existing());
        assert_eq!(file.fields(Some("New"), Some(&existing())).expect("has a title").title, "New");
        let created = file.fields(Some("New"), None).expect("has a title");
        assert_eq!((created.kind, created.tags.len()), (WalkthroughType::Quickstart, 0));
    }

    #[test]
    fn an_empty_member_clears() {
        let mut file = WalkthroughFile::new("a.json", WalkthroughType::Quickstart);
        (file.description, file.tags) = (Some(String::new()), Some(Vec::new()));
        file.estimated_duration_minutes = Some(None);
        let fields = file.fields(None, Some(&existing())).expect("has a title");
        assert_eq!((fields.description.as_str(), fields.tags.len()), ("", 0));
        assert_eq!(fields.estimated_duration_minutes, None);
    }

    #[test]
    fn asks_for_a_title() {
        let file = WalkthroughFile::new("steps.json", WalkthroughType::Quickstart);
        let error = file.fields(None, None).expect_err("no title");
        assert_eq!((&error.details["field"], &error.details["file"]), (&"title".into(), &"steps.json".into()));
        assert!(file.fields(Some("  "), None).is_err() && file.fields(Some(&"x".repeat(201)), None).is_err());
    }
}
