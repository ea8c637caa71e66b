//! Progress: what a user has done of a walkthrough, and what a call makes of it.
//!
//! Invariants (each has a property test in `progress/tests.rs`):
//!
//! 1. 0 ≤ percent ≤ 100, and 100 exactly when the attempt is completed.
//! 2. Only steps of the pinned version count.
//! 3. The same `next` sent twice with the same `current_step_id` advances once.
//! 4. A user stays on the version that they began with and moves only on request, or when it is withdrawn.
//! 5. Moving keeps every completed step: steps are told apart by an ordinal that is given once per walkthrough, so one
//!    [`StepSet`] holds for every version, and a step that comes back is still done.
//! 6. Completed is not taken away: a completed attempt never changes again; going on opens a new one.
//!
//! Everything here is pure. The store reads the attempt inside its write transaction, calls one of the functions of
//! [`operations`], and writes the [`Outcome`].

pub mod join;
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

/// Where an attempt is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptState {
    /// Steps are missing.
    InProgress,
    /// Every step of the pinned version was completed.
    Completed {
        /// When the last one was.
        at: Timestamp,
    },
}

/// One user's attempt at one walkthrough on one server.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The attempt.
    pub id: ProgressId,
    /// The pinned version.
    pub version_id: VersionId,
    /// The steps that were completed, of this and of earlier versions.
    pub completed: StepSet,
    /// Where the attempt is in its life.
    pub state: AttemptState,
    /// When it began.
    pub started_at: Timestamp,
    /// When it last changed.
    pub last_activity_at: Timestamp,
    /// When it was given up for another or reset; none while it is the user's present one.
    pub closed_at: Option<Timestamp>,
    /// Free members.
    pub metadata: Map<String, Value>,
}

/// The word for a progress in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// No attempt.
    NotStarted,
    /// An attempt with steps missing.
    InProgress,
    /// A completed attempt.
    Completed,
}

impl Status {
    /// The word itself.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

/// What is offered: the newest version, and whether the user's own was withdrawn.
#[derive(Debug, Clone)]
pub struct VersionOffer {
    /// The newest version that is not withdrawn.
    pub latest: Arc<Version>,
    /// Why the pinned version was withdrawn, when it was.
    pub withdrawal: Option<String>,
}

/// Where a user stands: an attempt seen with its version.
#[derive(Debug, Clone)]
pub struct ProgressView {
    /// The attempt; none before the first.
    pub attempt: Option<Attempt>,
    /// The version that counts: the pinned one, or the newest before the first attempt.
    pub version: Arc<Version>,
    /// The number of the newest version.
    pub latest_number: u32,
}

impl ProgressView {
    /// The status in one word.
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
        self.version.steps().get(index).is_some_and(|step| attempt.completed.contains(step.ordinal))
    }

    /// The index of the first step that is not completed; none when all are, or before the first attempt began.
    #[must_use]
    pub fn current(&self) -> Option<usize> {
        (0..self.version.step_count()).find(|&index| !self.is_completed(index))
    }

    /// How many steps of the version are completed.
    #[must_use]
    pub fn completed(&self) -> usize {
        (0..self.version.step_count()).filter(|&index| self.is_completed(index)).count()
    }

    /// floor(100 · completed / total); 0 for a version without steps.
    #[must_use]
    pub fn percent(&self) -> u8 {
        percent(self.completed(), self.version.step_count())
    }

    /// When the attempt was completed.
    #[must_use]
    pub fn completed_at(&self) -> Option<Timestamp> {
        match self.attempt.as_ref()?.state {
            AttemptState::Completed { at } => Some(at),
            AttemptState::InProgress => None,
        }
    }
}

/// floor(100 · completed / total), from 0 to 100; 0 when there is nothing to complete.
#[must_use]
pub fn percent(completed: usize, total: usize) -> u8 {
    u8::try_from((completed.min(total) * 100).checked_div(total).unwrap_or(0)).unwrap_or(100)
}

/// Something to tell the user besides the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The attempt began.
    Started,
    /// The attempt goes on.
    Resumed,
    /// A new attempt began in place of one that existed.
    Replaced {
        /// The percentage of the replaced attempt.
        percent: u8,
        /// Its completed steps.
        completed: usize,
        /// The steps of its version.
        total: usize,
    },
    /// The attempt ended; its history is kept.
    Reset,
    /// The walkthrough was completed before; nothing changed.
    AlreadyCompleted,
    /// The attempt is at the newest version already; nothing changed.
    AlreadyNewest,
    /// The step was completed before; nothing changed.
    StepAlreadyCompleted,
    /// The attempt moved from one version to another on request.
    Moved {
        /// From this version.
        from: u32,
    },
    /// The attempt moved because its version was withdrawn.
    Withdrawn {
        /// The version that was withdrawn, when its number is known.
        from: u32,
        /// The author's reason.
        reason: String,
    },
    /// A newer version than the pinned one exists.
    NewerVersion {
        /// Its number.
        number: u32,
    },
    /// The last step was completed by this call.
    JustCompleted,
}

/// What the store has to write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProgressChange {
    /// An attempt that ends: `closed_at` is set.
    pub close: Option<Attempt>,
    /// The attempt to insert or to update.
    pub upsert: Option<Attempt>,
    /// The attempt whose completions the new one takes over.
    pub copy_completions_from: Option<ProgressId>,
    /// The step that was completed.
    pub completion: Option<StepId>,
    /// What happened, in order, with the step where there is one.
    pub events: Vec<(EventKind, Option<StepId>)>,
}

impl ProgressChange {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}

/// What a call makes of an attempt: what to write, and what to tell.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the store has to write.
    pub change: ProgressChange,
    /// Where the user stands afterwards.
    pub progress: ProgressView,
    /// The step that this call completed.
    pub completed_step_id: Option<StepId>,
    /// What to tell the user.
    pub notices: Vec<Notice>,
}
