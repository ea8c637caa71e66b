//! The revision history of a draft's steps: which edits create a new revision, and how long revisions are kept.

use crate::clock::Timestamp;
use crate::id::StepId;
use crate::step::StepContent;
use crate::walkthrough::names;

/// Edits by the same actor within this time of the first one share a revision.
pub const COLLAPSE_MS: i64 = 10 * 60 * 1_000;
/// Retention of a superseded revision: 90 days, in milliseconds.
pub const RETENTION_MS: i64 = 90 * 24 * 60 * 60 * 1_000;
/// Maximum number of revisions of a step. The oldest are deleted first.
pub const MAX_REVISIONS: u32 = 1_000;
/// Maximum total size of a step's revisions in bytes. The oldest are deleted first.
pub const MAX_REVISION_BYTES: u64 = 8 * 1024 * 1024;

names! {
    /// The operation that created a revision. `baseline`: the step as it was before its history was kept. `edit`: edits by
    /// one user within 10 minutes share a revision. `delete`: the revision contains the deleted content.
    StepRevisionOperation {
        /// The step as it was before its history was kept.
        Baseline = "baseline",
        /// The step was added.
        Add = "add",
        /// The step was edited. The only operation whose revisions are collapsed.
        Edit = "edit",
        /// A file was imported.
        Import = "import",
        /// A revision, a version or a deleted step was restored.
        Restore = "restore",
        /// The step was deleted; the revision holds the deleted content.
        Delete = "delete",
    }
}

/// A revision of a step, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionInfo {
    /// The number of the revision, counted from 1 within the step.
    pub number: u32,
    /// The operation that created the revision.
    pub operation: StepRevisionOperation,
    /// The ID of the user or the key, `operator`, or empty if unknown.
    pub actor: String,
    /// The revision whose content was restored.
    pub restored_from: Option<u32>,
    /// The step's title.
    pub title: String,
    /// When the first edit was made.
    pub created_at: Timestamp,
    /// When the last edit was made.
    pub updated_at: Timestamp,
    /// Whether the draft is at this revision.
    pub is_current: bool,
}

/// A revision of a step with its content.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRevision {
    /// The revision without its content.
    pub info: RevisionInfo,
    /// The step's key at that time.
    pub key: Option<String>,
    /// For a deletion: the step that preceded it; `None` if it was the first step.
    pub after_step_id: Option<StepId>,
    /// The step's content.
    pub content: StepContent,
}

/// Whether an edit by `actor` at `now` updates the revision `last` instead of creating a new one: `last` is current and
/// was created less than [`COLLAPSE_MS`] ago, and both are edits by the same actor.
#[must_use]
pub fn can_collapse(last: &RevisionInfo, operation: StepRevisionOperation, actor: &str, now: Timestamp) -> bool {
    last.is_current
        && (last.operation, operation) == (StepRevisionOperation::Edit, StepRevisionOperation::Edit)
        && last.actor == actor
        && (0..COLLAPSE_MS).contains(&now.since(last.created_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_edits_by_the_same_actor_within_ten_minutes_collapse() {
        let last = RevisionInfo {
            number: 2,
            operation: StepRevisionOperation::Edit,
            actor: "usr_a".to_owned(),
            restored_from: None,
            title: String::new(),
            created_at: Timestamp(1_000),
            updated_at: Timestamp(5_000),
            is_current: true,
        };
        let collapsed = |last: &RevisionInfo, operation, actor, at| can_collapse(last, operation, actor, Timestamp(at));
        assert!(collapsed(&last, StepRevisionOperation::Edit, "usr_a", 1_000));
        assert!(collapsed(&last, StepRevisionOperation::Edit, "usr_a", 1_000 + COLLAPSE_MS - 1));
        assert!(
            !collapsed(&last, StepRevisionOperation::Edit, "usr_a", 1_000 + COLLAPSE_MS),
            "counted from the first edit, not the last"
        );
        assert!(!collapsed(&last, StepRevisionOperation::Edit, "usr_a", 999), "the clock was set back");
        assert!(!collapsed(&last, StepRevisionOperation::Edit, "usr_b", 2_000));
        assert!(!collapsed(
            &RevisionInfo { is_current: false, ..last.clone() },
            StepRevisionOperation::Edit,
            "usr_a",
            2_000
        ));
        for operation in
            StepRevisionOperation::ALL.iter().filter(|operation| **operation != StepRevisionOperation::Edit)
        {
            assert!(!collapsed(&last, *operation, "usr_a", 2_000), "{operation}");
            assert!(
                !collapsed(
                    &RevisionInfo { operation: *operation, ..last.clone() },
                    StepRevisionOperation::Edit,
                    "usr_a",
                    2_000
                ),
                "{operation}"
            );
        }
    }
}
