//! Progress: the steps of a walkthrough that a user has completed, and how tool calls change them.
//!
//! Invariants (each has a property test in `progress/tests.rs`):
//!
//! 1. 0 ≤ percent ≤ 100, and 100 if and only if the attempt is completed.
//! 2. Only steps of the pinned version count.
//! 3. Sending the same `next` twice with the same `current_step_id` advances once.
//! 4. A user stays on the version they started with and moves only on request, or when that version is withdrawn.
//! 5. Moving keeps every completed step: steps are identified by an ordinal that is assigned once per walkthrough, so
//!    one [`StepSet`] is valid for every version, and a step that is removed and added again is still completed.
//! 6. Completion is final: a completed attempt never changes; continuing opens a new attempt.
//!
//! Everything here is pure. The store reads the attempt inside its write transaction, calls one of the functions of
//! [`operations`], and writes the [`Outcome`].

pub mod join;
#[cfg(test)]
mod operation_tests;
pub mod operations;
mod set;
mod summary;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Map, Value};

pub use self::set::StepSet;
pub use self::summary::AttemptSummary;
use crate::clock::Timestamp;
use crate::event::EventKind;
use crate::id::{ProgressId, StepId, VersionId};
use crate::version::Version;

/// The state of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptState {
    /// At least one step is not completed.
    InProgress,
    /// Every step of the pinned version is completed.
    Completed {
        /// When the last step was completed.
        at: Timestamp,
    },
}

/// One user's attempt at one walkthrough on one server.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The attempt's ID.
    pub id: ProgressId,
    /// The pinned version.
    pub version_id: VersionId,
    /// The completed steps, of this and earlier versions.
    pub completed: StepSet,
    /// The state.
    pub state: AttemptState,
    /// When the attempt was started.
    pub started_at: Timestamp,
    /// When the attempt was last changed or resumed.
    pub last_activity_at: Timestamp,
    /// When the attempt was replaced or reset; `None` while it is the user's current attempt.
    pub closed_at: Option<Timestamp>,
    /// Arbitrary metadata.
    pub metadata: Map<String, Value>,
}

/// The progress status shown in results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There is no attempt.
    NotStarted,
    /// The attempt has uncompleted steps.
    InProgress,
    /// The attempt is completed.
    Completed,
}

impl Status {
    /// Returns the name used in results.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

/// The version that a walkthrough currently offers, and whether the user's pinned version was withdrawn.
#[derive(Debug, Clone)]
pub struct VersionOffer {
    /// The newest version that is not withdrawn.
    pub latest: Arc<Version>,
    /// The reason why the pinned version was withdrawn; `None` if it was not.
    pub withdrawal: Option<String>,
}

/// A user's progress: an attempt together with its version.
#[derive(Debug, Clone)]
pub struct ProgressView {
    /// The attempt; `None` if the walkthrough has not been started.
    pub attempt: Option<Attempt>,
    /// The pinned version; the newest one if the walkthrough has not been started.
    pub version: Arc<Version>,
    /// The number of the newest version.
    pub latest_number: u32,
}

impl ProgressView {
    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.attempt.as_ref().map(|attempt| attempt.state) {
            None => Status::NotStarted,
            Some(AttemptState::InProgress) => Status::InProgress,
            Some(AttemptState::Completed { .. }) => Status::Completed,
        }
    }

    /// Whether the step at `index` of the version is completed.
    #[must_use]
    pub fn is_completed(&self, index: usize) -> bool {
        let Some(attempt) = &self.attempt else { return false };
        self.version.ordinals().get(index).is_some_and(|ordinal| attempt.completed.contains(*ordinal))
    }

    /// Returns the index of the first step that is not completed. Returns `None` if all steps are completed.
    #[must_use]
    pub fn current(&self) -> Option<usize> {
        let is_completed =
            |ordinal: &u32| self.attempt.as_ref().is_some_and(|attempt| attempt.completed.contains(*ordinal));
        self.version.ordinals().iter().position(|ordinal| !is_completed(ordinal))
    }

    /// Returns the number of completed steps of the version.
    #[must_use]
    pub fn completed(&self) -> usize {
        let Some(attempt) = &self.attempt else { return 0 };
        self.version.ordinals().iter().filter(|ordinal| attempt.completed.contains(**ordinal)).count()
    }

    /// Returns floor(100 · completed / total); 0 for a version without steps.
    #[must_use]
    pub fn percent(&self) -> u8 {
        percent(self.completed(), self.version.step_count())
    }

    /// Returns the time at which the attempt was completed. Returns `None` if it is not completed.
    #[must_use]
    pub fn completed_at(&self) -> Option<Timestamp> {
        match self.attempt.as_ref()?.state {
            AttemptState::Completed { at } => Some(at),
            AttemptState::InProgress => None,
        }
    }
}

/// Returns floor(100 · completed / total), from 0 to 100; 0 if `total` is 0.
#[must_use]
pub fn percent(completed: usize, total: usize) -> u8 {
    u8::try_from((completed.min(total) * 100).checked_div(total).unwrap_or(0)).unwrap_or(100)
}

/// A notice that accompanies the step in a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The attempt was started.
    Started,
    /// The attempt was resumed.
    Resumed,
    /// A new attempt replaced an existing one.
    Replaced {
        /// The percentage of the replaced attempt.
        percent: u8,
        /// The number of its completed steps.
        completed: usize,
        /// The number of steps of its version.
        total: usize,
    },
    /// The attempt was closed; its history is kept.
    Reset,
    /// The walkthrough was already completed; nothing changed.
    AlreadyCompleted,
    /// The attempt is already on the newest version; nothing changed.
    AlreadyNewest,
    /// The step was already completed; nothing changed.
    StepAlreadyCompleted,
    /// The attempt moved from one version to another on request.
    Moved {
        /// The number of the previous version.
        from: u32,
    },
    /// The attempt moved because its version was withdrawn.
    Withdrawn {
        /// The number of the withdrawn version.
        from: u32,
        /// The author's reason.
        reason: String,
    },
    /// A newer version than the pinned one is available.
    NewerVersion {
        /// Its number.
        number: u32,
    },
    /// This call completed the last step.
    JustCompleted,
}

/// The changes that the store has to write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProgressChange {
    /// An attempt to close; its `closed_at` is set.
    pub close: Option<Attempt>,
    /// The attempt to insert or update.
    pub upsert: Option<Attempt>,
    /// The attempt whose completions are copied to the new one.
    pub copy_completions_from: Option<ProgressId>,
    /// The step that was completed.
    pub completion: Option<StepId>,
    /// The events to record, in order, each with its step. `None` for events of the whole attempt.
    pub events: Vec<(EventKind, Option<StepId>)>,
}

impl ProgressChange {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// The result of an operation on an attempt: the changes to write and the notices to show.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The changes that the store has to write.
    pub change: ProgressChange,
    /// The user's progress afterwards.
    pub progress: ProgressView,
    /// The step that this call completed.
    pub completed_step_id: Option<StepId>,
    /// The notices for the user.
    pub notices: Vec<Notice>,
}
