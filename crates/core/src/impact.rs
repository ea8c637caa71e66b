//! The predicted impact of moving attempts in progress to another version.
//!
//! Publishing does not move users: they stay on their version until they ask for the newest one, or their version is
//! withdrawn. [`crate::progress`] performs the move; this module predicts its result, and a property test verifies that
//! both agree.

use std::collections::{BTreeMap, HashMap};

use crate::progress::StepSet;

/// A move from one version to another, each given by its step ordinals in order.
#[derive(Debug, Clone)]
pub struct VersionMove {
    from: Vec<u32>,
    to: Vec<u32>,
    positions: HashMap<u32, usize>,
}

/// The impact of a move on one attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptImpact {
    /// Completed steps of the old version that the new one does not have.
    pub lost: u32,
    /// Uncompleted steps of the new version before the user's position, which the user has to go back to.
    pub repeat: u32,
    /// Whether no step of the new version is left, so that moving completes the walkthrough.
    pub completes: bool,
}

impl VersionMove {
    /// Creates a move between two versions.
    #[must_use]
    pub fn new(from: Vec<u32>, to: Vec<u32>) -> Self {
        let positions = to.iter().enumerate().map(|(index, ordinal)| (*ordinal, index)).collect();
        Self { from, to, positions }
    }

    /// Returns the impact on an attempt with these completed steps.
    #[must_use]
    pub fn impact_on(&self, completed: &StepSet) -> AttemptImpact {
        let done = |ordinal: &&u32| completed.contains(**ordinal);
        let lost = self.from.iter().filter(done).filter(|ordinal| !self.positions.contains_key(ordinal)).count();
        let position = self.position(completed);
        let repeat = self.to[..position].iter().filter(|ordinal| !done(ordinal)).count();
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        AttemptImpact {
            lost: count(lost),
            repeat: count(repeat),
            completes: !self.to.is_empty() && self.to.iter().all(|ordinal| done(&ordinal)),
        }
    }

    /// Returns the user's position in the new version: at their next step, or at the first remaining step after it. If
    /// none of these remain, returns the position after their last completed step.
    fn position(&self, completed: &StepSet) -> usize {
        let open = self.from.iter().filter(|ordinal| !completed.contains(**ordinal));
        let next = open.filter_map(|ordinal| self.positions.get(ordinal)).next();
        next.copied().unwrap_or_else(|| {
            self.to.iter().rposition(|ordinal| completed.contains(*ordinal)).map_or(0, |last| last + 1)
        })
    }
}

/// The impact of a move on many users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoveImpact {
    /// Total number of users.
    pub users: u64,
    /// Number of users who keep every completed step and continue where they were.
    pub lose_nothing: u64,
    /// Number of users by the number of completed steps that they lose.
    pub lose: BTreeMap<u32, u64>,
    /// Number of users by the number of steps that they have to go back to.
    pub repeat: BTreeMap<u32, u64>,
    /// Number of users for whom moving completes the walkthrough.
    pub complete: u64,
    /// Number of users by impact. Every user is in exactly one group, so the groups add up to `users`.
    pub groups: BTreeMap<AttemptImpact, u64>,
}

impl MoveImpact {
    /// Adds a number of users with the same impact.
    pub fn add(&mut self, impact: AttemptImpact, users: u64) {
        self.users += users;
        *self.groups.entry(impact).or_default() += users;
        if impact.completes {
            self.complete += users;
        }
        if impact.lost > 0 {
            *self.lose.entry(impact.lost).or_default() += users;
        }
        if impact.repeat > 0 {
            *self.repeat.entry(impact.repeat).or_default() += users;
        }
        if impact.lost == 0 && impact.repeat == 0 {
            self.lose_nothing += users;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{ProgressId, StepId, VersionId, WalkthroughId};
    use crate::progress::operations::{ProgressContext, SelectOptions};
    use crate::progress::{Attempt, AttemptState, VersionOffer};
    use crate::random::SeededRandom;
    use crate::step::StepContent;
    use crate::version::{StoredVersion, Version, VersionStep};

    fn set(ordinals: &[u32]) -> StepSet {
        ordinals.iter().copied().collect()
    }

    fn impact(from: &[u32], to: &[u32], completed: &[u32]) -> (u32, u32, bool) {
        let impact = VersionMove::new(from.to_vec(), to.to_vec()).impact_on(&set(completed));
        (impact.lost, impact.repeat, impact.completes)
    }

    #[test]
    fn the_impact_depends_on_the_completed_steps() {
        let old = [0, 1, 2, 3];
        assert_eq!(impact(&old, &old, &[0, 1]), (0, 0, false), "nothing changes");
        assert_eq!(impact(&old, &[0, 9, 1, 2, 3], &[0, 1]), (0, 1, false), "a step added before the current one");
        assert_eq!(impact(&old, &[0, 1, 2, 9, 3], &[0, 1]), (0, 0, false), "a step added after the current one");
        assert_eq!(impact(&old, &[0, 2, 3], &[0, 1]), (1, 0, false), "a completed step was removed");
        assert_eq!(impact(&old, &[0, 1, 3], &[0, 1]), (0, 0, false), "the current step was removed");
        assert_eq!(impact(&old, &[0, 1, 9], &[0, 1]), (0, 0, false), "the remaining steps were replaced");
        assert_eq!(impact(&old, &[9, 8], &[0, 1]), (2, 0, false), "all steps were replaced");
        assert_eq!(impact(&old, &[0, 1], &[0, 1]), (0, 0, true), "the remaining steps were removed");
        assert_eq!(impact(&old, &[3, 2, 0, 1], &[0]), (0, 2, false), "the remaining steps were moved to the front");
        assert_eq!(impact(&old, &[], &[0]), (1, 0, false));
    }

    #[test]
    fn impacts_are_summed_up() {
        let mut all = MoveImpact::default();
        all.add(AttemptImpact { lost: 0, repeat: 0, completes: false }, 380);
        all.add(AttemptImpact { lost: 0, repeat: 1, completes: false }, 30);
        all.add(AttemptImpact { lost: 2, repeat: 1, completes: false }, 2);
        assert_eq!((all.users, all.lose_nothing), (412, 380));
        assert_eq!((all.repeat[&1], all.lose[&2]), (32, 2));
    }

    fn version(id: &str, number: u32, ordinals: &[u32]) -> Arc<Version> {
        let step = |ordinal: &u32| VersionStep {
            id: StepId::from_store(format!("ws_{ordinal}")),
            ordinal: *ordinal,
            content: StepContent::default(),
        };
        Arc::new(Version::from_clean(StoredVersion {
            id: VersionId::from_store(id.to_owned()),
            walkthrough_id: WalkthroughId::from_store("wt_1".to_owned()),
            number,
            title: "T".to_owned(),
            steps: ordinals.iter().map(step).collect(),
        }))
    }

    prop_compose! {
        /// Two versions of one walkthrough, in any order, and any set of completed steps.
        fn versions_and_completed_steps()(
            from in prop::collection::vec(0_u32..12, 1..10), to in prop::collection::vec(0_u32..12, 1..10),
            done in prop::collection::vec(0_u32..12, 0..12),
        ) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
            let once = |list: Vec<u32>| list.iter().enumerate().filter(|(index, n)| !list[..*index].contains(n)).map(|(_, n)| *n).collect();
            (once(from), once(to), done)
        }
    }

    proptest! {
        /// The prediction equals the result of the move in `progress`.
        #[test]
        fn the_prediction_matches_the_move((from, to, done) in versions_and_completed_steps()) {
            let (old, new) = (version("wv_1", 1, &from), version("wv_2", 2, &to));
            let completed = set(&done);
            let attempt = Attempt {
                id: ProgressId::from_store("wp_1".to_owned()),
                version_id: old.id.clone(),
                completed: completed.clone(),
                state: AttemptState::InProgress,
                started_at: Timestamp(1),
                last_activity_at: Timestamp(1),
                closed_at: None,
                metadata: serde_json::Map::new(),
            };
            let offered = VersionOffer { latest: Arc::clone(&new), withdrawal: None };
            let random = SeededRandom::new(1);
            let view = ProgressContext { attempt: Some((&attempt, &old)), offered: &offered, now: Timestamp(2), random: &random };
            let before = view.read().0;
            let after = view.select(SelectOptions { to_latest: true, ..SelectOptions::default() }).unwrap().progress;
            let impact = VersionMove::new(from.clone(), to.clone()).impact_on(&completed);

            let kept = (0..from.len()).filter(|at| before.is_completed(*at) && to.contains(&from[*at])).count();
            prop_assert_eq!(impact.lost as usize, before.completed() - kept);
            prop_assert_eq!(impact.completes, after.current().is_none());
            let was_next = before.current().and_then(|at| to.iter().position(|ordinal| *ordinal == from[at]));
            if let (Some(was_next), Some(is_next)) = (was_next, after.current()) {
                prop_assert_eq!(impact.repeat == 0, is_next == was_next);
                let open = (0..was_next).filter(|index| !after.is_completed(*index)).count();
                prop_assert_eq!(impact.repeat as usize, open);
            }
            if from == to {
                prop_assert_eq!((impact.lost, impact.repeat), (0, 0));
            }
        }
    }
}
