//! Steps of a walkthrough.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::StepId;

/// Maximum length of a title in characters.
pub const MAX_TITLE_CHARS: usize = 200;
/// Maximum size of a text field in bytes.
pub const MAX_FIELD_BYTES: usize = 64 * 1024;
/// Maximum number of steps in a walkthrough.
pub const MAX_STEPS: usize = 500;

/// The content of a step, written by its author.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepContent {
    /// Title, 1 to 200 characters.
    pub title: String,
    /// Title of the section that contains the step.
    pub section_title: Option<String>,
    /// The text for the user, in Markdown.
    pub content: String,
    /// Instructions for the agent on introducing the step, in plain text.
    pub introduction_for_agent: Option<String>,
    /// Background for the agent, in plain text.
    pub context_for_agent: Option<String>,
    /// Operations for the agent to perform, in plain text.
    pub operations_for_agent: Option<String>,
    /// Arbitrary metadata, preserved on export.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// A step of a draft: a node in the linked list of steps (see [`crate::chain`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The step's permanent ID.
    pub id: StepId,
    /// Number within the walkthrough, never reused: the step's bit in a [`crate::progress::StepSet`].
    pub ordinal: u32,
    /// The author's own name for the step, by which an import matches it.
    pub key: Option<String>,
    /// The next step; `None` for the last one.
    pub next_step_id: Option<StepId>,
    /// The content.
    pub content: StepContent,
}
