//! Events of an attempt.

use crate::walkthrough::names;

names! {
    /// The kind of an event.
    EventKind {
        /// An attempt was started.
        Started = "started",
        /// An attempt was resumed.
        Resumed = "resumed",
        /// A step was completed.
        StepCompleted = "step_completed",
        /// The last step was completed.
        Completed = "completed",
        /// The user moved to a newer version on request.
        Moved = "moved",
        /// The user was moved because their version was withdrawn.
        MovedFromWithdrawn = "moved_from_withdrawn",
        /// An attempt was started that replaced the previous one.
        Restarted = "restarted",
        /// Anonymous progress was joined to that of the signed-in user.
        Joined = "joined",
        /// The user reset the attempt.
        Reset = "reset",
    }
}

impl EventKind {
    /// Returns the rank that orders events of one attempt within the same millisecond: the order in which a single call
    /// produces them.
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
