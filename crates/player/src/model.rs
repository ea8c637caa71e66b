//! The results of the walkthrough tools, with only the members that the player needs. All others are ignored.

use serde::{Deserialize, Serialize};

/// One page of `list_walkthroughs`.
#[derive(Debug, Deserialize)]
pub(crate) struct WalkthroughPage {
    pub(crate) walkthroughs: Vec<WalkthroughEntry>,
    #[serde(default)]
    pub(crate) next_cursor: Option<String>,
}

/// A walkthrough in a list.
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

    /// Returns the name to show to users: the slug if there is one, otherwise the ID.
    pub(crate) fn name(&self) -> &str {
        self.slug.as_deref().unwrap_or(&self.id)
    }
}

/// The result of `select_walkthrough` and `next_walkthrough_step`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct StepResult {
    pub(crate) walkthrough: Walkthrough,
    pub(crate) progress: Progress,
    #[serde(default)]
    pub(crate) step: Option<Step>,
    /// A message for the user. (`message` is for agents.)
    #[serde(default)]
    pub(crate) notice: Option<String>,
}

/// The walkthrough of a step result.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Walkthrough {
    /// ID assigned by the server.
    pub id: String,
    /// Slug, if the server has one.
    #[serde(default)]
    pub slug: Option<String>,
    /// Title.
    pub title: String,
    /// Version being played.
    #[serde(default)]
    pub version: Option<u64>,
    /// Newest published version.
    #[serde(default)]
    pub latest_version: Option<u64>,
}

/// The user's progress.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct Progress {
    /// `not_started`, `in_progress` or `completed`.
    pub status: String,
    /// Number of completed steps.
    #[serde(default)]
    pub completed: u64,
    /// Number of steps.
    #[serde(default)]
    pub total: u64,
    /// Percentage of completed steps, rounded down.
    #[serde(default)]
    pub percent: u64,
    /// Start time in RFC 3339 format.
    #[serde(default)]
    pub started_at: Option<String>,
    /// Completion time in RFC 3339 format.
    #[serde(default)]
    pub completed_at: Option<String>,
}

impl Progress {
    pub(crate) fn is_completed(&self) -> bool {
        self.status == COMPLETED
    }
}

/// A step with its content.
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

/// The result of `get_walkthrough_status`.
#[derive(Debug, Deserialize)]
pub(crate) struct WalkthroughStatus {
    pub(crate) progress: Progress,
    #[serde(default)]
    pub(crate) steps: Vec<StepOutline>,
}

/// A step without its content.
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
