//! Parsed walkthrough files, independent of their format.

use serde_json::{Map, Value};

use super::source::{SourceRef, line_problem, text_problem, title_problem};
use waypost_core::step::{MAX_STEPS, StepContent};
use waypost_core::walkthrough::{WalkthroughFields, WalkthroughType};
use waypost_core::{Error, Result};

/// A walkthrough parsed from a file or a folder.
///
/// A field that is `None` is absent from the file: a new walkthrough gets the default, an existing one keeps its value.
/// A member that is present but empty (or `null` in JSON) clears the field.
#[derive(Debug, Clone, PartialEq)]
pub struct WalkthroughFile {
    /// The name of the file or folder, for messages.
    pub name: String,
    /// Title.
    pub title: Option<String>,
    /// Description, one paragraph.
    pub description: Option<String>,
    /// The type.
    pub kind: Option<WalkthroughType>,
    /// The type of a new walkthrough if the file has none: course for folders, otherwise quickstart.
    pub default_kind: WalkthroughType,
    /// Estimated duration in minutes; `Some(None)` clears it.
    pub estimated_duration_minutes: Option<Option<u32>>,
    /// Tags.
    pub tags: Option<Vec<String>>,
    /// Metadata, including the unknown members of the file (see [`super::unknown_members`]).
    pub metadata: Option<Map<String, Value>>,
    /// The steps in order.
    pub steps: Vec<ImportStep>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// A step parsed from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportStep {
    /// The step's identity.
    pub identity: StepIdentity,
    /// The location in the file, for messages.
    pub source: SourceRef,
    /// The content.
    pub content: StepContent,
}

/// The identity by which a step of a file is matched with a step of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepIdentity {
    /// The author's key for the step, or the step's ID in an export.
    Key(String),
    /// The path in the folder, without numbers and extension.
    Path(String),
    /// The title and its occurrence. Determined from the content when the import is planned, because titles are cleaned
    /// in between.
    Title,
}

impl StepIdentity {
    /// Returns the value for [`waypost_core::step::Step::key`]: the key or the path. Returns `None` for
    /// [`Self::Title`].
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

    /// Returns the reference to the whole file.
    #[must_use]
    pub fn source(&self) -> SourceRef {
        SourceRef::file(&self.name)
    }

    /// Returns the fields of the imported walkthrough, in order of precedence: `title` (`--title`), the file, the
    /// existing fields, the defaults.
    ///
    /// # Errors
    /// `invalid_arguments` if there is no title, or if the title is empty or too long.
    pub fn fields(&self, title: Option<&str>, existing: Option<&WalkthroughFields>) -> Result<WalkthroughFields> {
        let chosen = title.or(self.title.as_deref()).or(existing.map(|fields| fields.title.as_str()));
        let chosen = chosen.ok_or_else(|| self.missing_title())?;
        self.source().check_title("title", chosen)?;
        let existing_value = |get: fn(&WalkthroughFields) -> Option<u32>| existing.and_then(get);
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
                .unwrap_or_else(|| existing_value(|fields| fields.estimated_duration_minutes)),
            tags: self.tags.clone().or_else(|| existing.map(|fields| fields.tags.clone())).unwrap_or_default(),
            metadata: self.metadata.clone().or_else(|| existing.map(|f| f.metadata.clone())).unwrap_or_default(),
        })
    }

    fn missing_title(&self) -> Error {
        self.source().reject(
            "title",
            "is missing. Add it to the file (`walkthrough.title` in JSON, `# Title` in Markdown), or pass `--title`.",
        )
    }

    /// Rejects a number of steps that exceeds the maximum.
    pub(super) fn check_count(source: &SourceRef, count: usize) -> Result<()> {
        if count > MAX_STEPS {
            let message = format!("has {count} steps; the maximum is {MAX_STEPS}. Split the walkthrough.");
            return Err(source.reject("steps", message));
        }
        Ok(())
    }
}

/// Checks the lengths of a step's fields. `names` are the names of its fields in the file format, in the order of
/// [`FIELDS`].
pub(super) fn check_lengths(source: &SourceRef, content: &StepContent, names: &[&str; 6]) -> Result<()> {
    match length_problems(content).into_iter().zip(names).find_map(|(problem, name)| Some((problem?, name))) {
        Some((problem, name)) => Err(source.reject(name, problem)),
        None => Ok(()),
    }
}

/// Returns the problems with the lengths of a step's fields, in the order of [`FIELDS`].
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

/// The names of a step's fields in the model.
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
    fn absent_fields_keep_the_existing_value() {
        let file = WalkthroughFile::new("steps.json", WalkthroughType::Quickstart);
        assert_eq!(file.fields(None, Some(&existing())).expect("has a title"), existing());
        assert_eq!(file.fields(Some("New"), Some(&existing())).expect("has a title").title, "New");
        let created = file.fields(Some("New"), None).expect("has a title");
        assert_eq!((created.kind, created.tags.len()), (WalkthroughType::Quickstart, 0));
    }

    #[test]
    fn an_empty_member_clears_the_field() {
        let mut file = WalkthroughFile::new("a.json", WalkthroughType::Quickstart);
        (file.description, file.tags) = (Some(String::new()), Some(Vec::new()));
        file.estimated_duration_minutes = Some(None);
        let fields = file.fields(None, Some(&existing())).expect("has a title");
        assert_eq!((fields.description.as_str(), fields.tags.len()), ("", 0));
        assert_eq!(fields.estimated_duration_minutes, None);
    }

    #[test]
    fn a_missing_title_is_rejected() {
        let file = WalkthroughFile::new("steps.json", WalkthroughType::Quickstart);
        let error = file.fields(None, None).expect_err("no title");
        assert_eq!((&error.details["field"], &error.details["file"]), (&"title".into(), &"steps.json".into()));
        assert!(file.fields(Some("  "), None).is_err() && file.fields(Some(&"x".repeat(201)), None).is_err());
    }
}
