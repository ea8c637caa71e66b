//! What happens to an attempt, as the company sees it later.

use crate::walkthrough::names;

names! {
    /// What happened.
    EventKind {
        /// An attempt began.
        Started = "started",
        /// The user came back to an attempt.
        Resumed = "resumed",
        /// A step was completed.
        StepCompleted = "step_completed",
        /// The last step was completed.
        Completed = "completed",
        /// The user moved to a newer version on request.
        Moved = "moved",
        /// The user was moved because their version was withdrawn.
        MovedFromWithdrawn = "moved_from_withdrawn",
        /// The user gave the attempt up for a new one.
        Restarted = "restarted",
        /// What somebody did before they signed in became theirs.
        Joined = "joined",
        /// The user reset the attempt.
        Reset = "reset",
    }
}

impl EventKind {
    /// Of events of one attempt in the same millisecond, those with a lower rank came first: what one call does, it does in
    /// this order.
    #[must_use]
    pub fn rank(self) -> u8 {
        match self {
            Self::Started | Self::Restarted => 0,
            Self::Joined | Self::Moved | Self::MovedFromWithdrawn | Self::Resumed => 1,
            Self::StepCompleted => 2,
            Self::Completed => 3,
            Self::Reset => 4,
        }
    }
}
