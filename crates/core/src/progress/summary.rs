//! The status and percentage of an attempt, for lists: computed from sets of ordinals, without any step's content.
//!
//! Invariant (property test in `progress/tests.rs`): equal to what [`super::operations::ProgressContext::read`] gives for the same
//! attempt and versions.

use super::{Status, StepSet, percent};

/// An attempt as lists need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptSummary {
    /// Whether every step of the pinned version was completed.
    pub is_completed: bool,
    /// The completed steps, of the pinned and of earlier versions.
    pub completed: StepSet,
    /// The steps of the pinned version.
    pub steps: StepSet,
}

impl AttemptSummary {
    /// Returns the status and the percentage. `moves_to` has the steps of the newest version if the pinned version was
    /// withdrawn: an attempt in progress is shown as it will be after the move.
    #[must_use]
    pub fn status_and_percent(&self, moves_to: Option<&StepSet>) -> (Status, u8) {
        if self.is_completed {
            return (Status::Completed, self.percent_of(&self.steps));
        }
        let Some(steps) = moves_to else { return (Status::InProgress, self.percent_of(&self.steps)) };
        let is_complete = self.completed.common_count(steps) == steps.len();
        (if is_complete { Status::Completed } else { Status::InProgress }, self.percent_of(steps))
    }

    fn percent_of(&self, steps: &StepSet) -> u8 {
        percent(self.completed.common_count(steps), steps.len())
    }
}
