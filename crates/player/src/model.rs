//! What the walkthrough tools answer: the members the player needs, all others ignored.

use serde::{Deserialize, Serialize};

/// One page of `list_walkthroughs`.
#[derive(Debug, Deserialize)]
pub(crate) struct WalkthroughPage {
    pub(crate) walkthroughs: Vec<WalkthroughEntry>,
    #[serde(default)]
    pub(crate) next_cursor: Option<String>,
}

/// One walkthrough of a list.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct WalkthroughEntry {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) slug: Option<String>,
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) step_count: Option<u64>,
    #[serde(default)]
    pub(crate) estimated_duration_minutes: Option<u64>,
    #[serde(default)]
    pub(crate) status: Option<String>,
}

impl WalkthroughEntry {
    pub(crate) fn is_completed(&self) -> bool {
        self.status.as_deref() == Some(COMPLETED)
    }

    /// What a person types to mean this walkthrough.
    pub(crate) fn name(&self) -> &str {
        self.slug.as_deref().unwrap_or(&self.id)
    }
}

/// The answer of `select_walkthrough` and `next_walkthrough_step`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StepResult {
    pub(crate) walkthrough: Walkthrough,
    pub(crate) progress: Progress,
    #[serde(default)]
    pub(crate) step: Option<Step>,
    /// What there is to tell the user. `message` is for agents.
    #[serde(default)]
    pub(crate) notice: Option<String>,
}

/// The walkthrough that a result is about.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Walkthrough {
    /// Id, as the server names it.
    pub id: String,
    /// Slug, where the server has one.
    #[serde(default)]
    pub slug: Option<String>,
    /// Title.
    pub title: String,
    /// Version that is being played.
    #[serde(default)]
    pub version: Option<u64>,
    /// Newest version there is.
    #[serde(default)]
    pub latest_version: Option<u64>,
}

/// How far it is played.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Progress {
    /// `not_started`, `in_progress` or `completed`.
    pub status: String,
    /// Steps that are completed.
    #[serde(default)]
    pub completed: u64,
    /// Steps there are.
    #[serde(default)]
    pub total: u64,
    /// Completed steps in percent, rounded down.
    #[serde(default)]
    pub percent: u64,
    /// Start, RFC 3339.
    #[serde(default)]
    pub started_at: Option<String>,
    /// End, RFC 3339.
    #[serde(default)]
    pub completed_at: Option<String>,
}

impl Progress {
    pub(crate) fn is_completed(&self) -> bool {
        self.status == COMPLETED
    }
}

/// One step with its content.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Step {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) position: u64,
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) section_title: Option<String>,
    #[serde(default)]
    pub(crate) content: Option<String>,
}

/// The answer of `get_walkthrough_status`.
#[derive(Debug, Deserialize)]
pub(crate) struct WalkthroughStatus {
    pub(crate) progress: Progress,
    #[serde(default)]
    pub(crate) steps: Vec<StepOutline>,
}

/// One step without its content.
#[derive(Debug, Deserialize)]
pub(crate) struct StepOutline {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) section_title: Option<String>,
    #[serde(default)]
    pub(crate) position: u64,
    #[serde(default)]
    pub(crate) state: String,
}

const COMPLETED: &str = "completed";
