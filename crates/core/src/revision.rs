//! The history of a draft's steps: which edits make a revision of their own, and how long revisions are kept.

use crate::clock::Timestamp;
use crate::id::StepId;
use crate::step::StepContent;
use crate::walkthrough::names;

/// Edits of one person within this time of the first one share a revision.
pub const COLLAPSE_MS: i64 = 10 * 60 * 1_000;
/// A revision is kept this long after another one took its place.
pub const RETENTION_MS: i64 = 90 * 24 * 60 * 60 * 1_000;
/// Maximum number of revisions of a step. The oldest are deleted first.
pub const MAX_REVISIONS: u32 = 1_000;
/// Maximum total size of a step's revisions in bytes. The oldest are deleted first.
pub const MAX_REVISION_BYTES: u64 = 8 * 1024 * 1024;

names! {
    /// The act that made a revision.
    RevisionOperation {
        /// The step as it was before its history was kept.
        Baseline = "baseline",
        /// The step was added.
        Add = "add",
        /// The step was edited. The only act whose revisions are collapsed.
        Edit = "edit",
        /// A file was imported.
        Import = "import",
        /// A revision, a version or a deleted step was restored.
        Restore = "restore",
        /// The step was deleted; the revision holds what was deleted.
        Delete = "delete",
    }
}

/// A revision of a step, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionInfo {
    /// Counts from 1 within the step.
    pub number: u32,
    /// The act that made it.
    pub operation: RevisionOperation,
    /// The ID of the user or the key, `operator`, or empty if unknown.
    pub actor: String,
    /// The revision whose content was restored.
    pub restored_from: Option<u32>,
    /// The step's title.
    pub title: String,
    /// When its first edit was made.
    pub created_at: Timestamp,
    /// When its last edit was made.
    pub updated_at: Timestamp,
    /// Whether the draft is at this revision.
    pub is_current: bool,
}

/// A revision of a step with all it holds.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRevision {
    /// The revision without its content.
    pub head: RevisionInfo,
    /// The step's key at that time.
    pub key: Option<String>,
    /// Of a deletion: the step that stood before it. `None` for the first.
    pub after_step_id: Option<StepId>,
    /// The step's content.
    pub content: StepContent,
}

/// Whether an edit by `actor` at `now` replaces the revision `last` instead of making another one: both are edits of the
/// same person, and `last` was begun less than [`COLLAPSE_MS`] ago.
#[must_use]
pub fn can_collapse(last: &RevisionInfo, operation: RevisionOperation, actor: &str, now: Timestamp) -> bool {
    last.is_current
        && (last.operation, operation) == (RevisionOperation::Edit, RevisionOperation::Edit)
        && last.actor == actor
        && (0..COLLAPSE_MS).contains(&now.since(last.created_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_edits_of_the_same_person_within_ten_minutes_collapse() {
        let last = RevisionInfo {
            number: 2,
            operation: RevisionOperation::Edit,
            actor: "usr_a".to_owned(),
            restored_from: None,
            title: String::new(),
            created_at: Timestamp(1_000),
            updated_at: Timestamp(5_000),
            is_current: true,
        };
        let collapsed = |last: &RevisionInfo, operation, actor, at| can_collapse(last, operation, actor, Timestamp(at));
        assert!(collapsed(&last, RevisionOperation::Edit, "usr_a", 1_000));
        assert!(collapsed(&last, RevisionOperation::Edit, "usr_a", 1_000 + COLLAPSE_MS - 1));
        assert!(
            !collapsed(&last, RevisionOperation::Edit, "usr_a", 1_000 + COLLAPSE_MS),
            "from the first edit, not the last"
        );
        assert!(!collapsed(&last, RevisionOperation::Edit, "usr_a", 999), "the clock was set back");
        assert!(!collapsed(&last, RevisionOperation::Edit, "usr_b", 2_000));
        assert!(!collapsed(
            &RevisionInfo { is_current: false, ..last.clone() },
            RevisionOperation::Edit,
            "usr_a",
            2_000
        ));
        for operation in RevisionOperation::ALL.iter().filter(|operation| **operation != RevisionOperation::Edit) {
            assert!(!collapsed(&last, *operation, "usr_a", 2_000), "{operation}");
            assert!(
                !collapsed(
                    &RevisionInfo { operation: *operation, ..last.clone() },
                    RevisionOperation::Edit,
                    "usr_a",
                    2_000
                ),
                "{operation}"
            );
        }
    }
}
