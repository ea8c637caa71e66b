//! What a step holds.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::id::StepId;

/// Characters in a title at most.
pub const MAX_TITLE_CHARS: usize = 200;
/// Bytes in a text field at most.
pub const MAX_FIELD_BYTES: usize = 64 * 1024;
/// Steps in a walkthrough at most.
pub const MAX_STEPS: usize = 500;

/// The author's part of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepContent {
    /// Title, 1 to 200 characters.
    pub title: String,
    /// Heading of the section that the step stands in.
    pub section_title: Option<String>,
    /// What the user reads, Markdown.
    pub content: String,
    /// How the agent should open the step, plain text.
    pub introduction_for_agent: Option<String>,
    /// What the agent should know, plain text.
    pub context_for_agent: Option<String>,
    /// What the agent should do, plain text.
    pub operations_for_agent: Option<String>,
    /// Free members, kept and written back.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// A step of a draft: a link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The step, for life.
    pub id: StepId,
    /// Number within the walkthrough, given once and never again: the step's bit in a [`crate::progress::StepSet`].
    pub ordinal: u32,
    /// The author's own name of the step, by which an import finds it again.
    pub key: Option<String>,
    /// The step that follows; none for the last one.
    pub next_step_id: Option<StepId>,
    /// The author's part.
    pub content: StepContent,
}
