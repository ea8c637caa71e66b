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
