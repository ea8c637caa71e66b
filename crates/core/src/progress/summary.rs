//! The status and percentage of an attempt for lists, computed from sets of ordinals without loading step contents.
//!
//! Invariant (property test in `progress/tests.rs`): equal to the result of
//! [`super::operations::ProgressContext::read`] for the same attempt and versions.

use super::{Status, StepSet, percent};

/// The parts of an attempt that lists need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptSummary {
    /// Whether every step of the pinned version is completed.
    pub is_completed: bool,
    /// The completed steps, of the pinned and earlier versions.
    pub completed: StepSet,
    /// The steps of the pinned version.
    pub steps: StepSet,
}

impl AttemptSummary {
    /// Returns the status and the percentage. `moves_to` contains the steps of the newest version if the pinned version
    /// was withdrawn: an attempt in progress is shown as it will be after the move.
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
