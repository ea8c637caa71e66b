//! What moving to another version means for who is in the midst of one, before anybody moves.
//!
//! Nobody is moved by publishing: they stay on their version until they ask for the newest one, or theirs is withdrawn. What
//! comes of them then is [`crate::progress`]'s business; this says it beforehand, and a property test holds the two together.

use std::collections::{BTreeMap, HashMap};

use crate::progress::StepSet;

/// From the steps of one version to those of another, both as ordinals in their order.
#[derive(Debug, Clone)]
pub struct VersionMove {
    from: Vec<u32>,
    to: Vec<u32>,
    places: HashMap<u32, usize>,
}

/// What a move means for one attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptImpact {
    /// Completed steps of the old version that the new one does not have.
    pub lost: u32,
    /// Steps of the new version that stand before the place where the user was, and that they have not completed: they have
    /// to go back for them.
    pub repeat: u32,
    /// Whether nothing is left to do in the new version, so that moving completes it.
    pub completes: bool,
}

impl VersionMove {
    /// A move between these versions.
    #[must_use]
    pub fn new(from: Vec<u32>, to: Vec<u32>) -> Self {
        let places = to.iter().enumerate().map(|(at, ordinal)| (*ordinal, at)).collect();
        Self { from, to, places }
    }

    /// What it means for an attempt with these completed steps.
    #[must_use]
    pub fn impact_on(&self, completed: &StepSet) -> AttemptImpact {
        let done = |ordinal: &&u32| completed.contains(**ordinal);
        let lost = self.from.iter().filter(done).filter(|ordinal| !self.places.contains_key(ordinal)).count();
        let place = self.place(completed);
        let repeat = self.to[..place].iter().filter(|ordinal| !done(ordinal)).count();
        let count = |number| u32::try_from(number).unwrap_or(u32::MAX);
        AttemptImpact {
            lost: count(lost),
            repeat: count(repeat),
            completes: !self.to.is_empty() && self.to.iter().all(|ordinal| done(&ordinal)),
        }
    }

    /// Where the user stands in the new version: at the step that they were to do next, or the first one behind it that is
    /// still there; when all of these are gone, behind the last step that they have completed.
    fn place(&self, completed: &StepSet) -> usize {
        let open = self.from.iter().filter(|ordinal| !completed.contains(**ordinal));
        let next = open.filter_map(|ordinal| self.places.get(ordinal)).next();
        next.copied().unwrap_or_else(|| {
            self.to.iter().rposition(|ordinal| completed.contains(*ordinal)).map_or(0, |last| last + 1)
        })
    }
}

/// What a move means for many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoveImpact {
    /// How many there are.
    pub users: u64,
    /// Who keeps every completed step and goes on where they were.
    pub lose_nothing: u64,
    /// By how many completed steps they lose: how many people.
    pub lose: BTreeMap<u32, u64>,
    /// By how many steps they have to go back for: how many people.
    pub repeat: BTreeMap<u32, u64>,
    /// For whom moving completes the walkthrough.
    pub complete: u64,
    /// How many people by what happens to them: everybody is in exactly one group, so that the groups add up to `people`.
    pub groups: BTreeMap<AttemptImpact, u64>,
}

impl MoveImpact {
    /// Counts `people` to whom the same happens.
    pub fn add(&mut self, consequence: AttemptImpact, users: u64) {
        self.users += users;
        *self.groups.entry(consequence).or_default() += users;
        if consequence.completes {
            self.complete += users;
        }
        if consequence.lost > 0 {
            *self.lose.entry(consequence.lost).or_default() += users;
        }
        if consequence.repeat > 0 {
            *self.repeat.entry(consequence.repeat).or_default() += users;
        }
        if consequence.lost == 0 && consequence.repeat == 0 {
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
    use crate::version::{Version, VersionStep};

    fn set(ordinals: &[u32]) -> StepSet {
        ordinals.iter().copied().collect()
    }

    fn consequence(from: &[u32], to: &[u32], completed: &[u32]) -> (u32, u32, bool) {
        let it = VersionMove::new(from.to_vec(), to.to_vec()).impact_on(&set(completed));
        (it.lost, it.repeat, it.completes)
    }

    #[test]
    fn what_happens_to_whom() {
        let old = [0, 1, 2, 3];
        assert_eq!(consequence(&old, &old, &[0, 1]), (0, 0, false), "nothing changes");
        assert_eq!(consequence(&old, &[0, 9, 1, 2, 3], &[0, 1]), (0, 1, false), "a step before where they are");
        assert_eq!(consequence(&old, &[0, 1, 2, 9, 3], &[0, 1]), (0, 0, false), "a step behind where they are");
        assert_eq!(consequence(&old, &[0, 2, 3], &[0, 1]), (1, 0, false), "a completed step is gone");
        assert_eq!(consequence(&old, &[0, 1, 3], &[0, 1]), (0, 0, false), "the current step is gone");
        assert_eq!(consequence(&old, &[0, 1, 9], &[0, 1]), (0, 0, false), "all that was left is another step");
        assert_eq!(consequence(&old, &[9, 8], &[0, 1]), (2, 0, false), "another walkthrough altogether");
        assert_eq!(consequence(&old, &[0, 1], &[0, 1]), (0, 0, true), "what is left is gone");
        assert_eq!(consequence(&old, &[3, 2, 0, 1], &[0]), (0, 2, false), "what was to come stands before");
        assert_eq!(consequence(&old, &[], &[0]), (1, 0, false));
    }

    #[test]
    fn many_are_counted() {
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
        let (id, of) = (VersionId::from_store(id.to_owned()), WalkthroughId::from_store("wt_1".to_owned()));
        Arc::new(Version::new(id, of, number, "T".to_owned(), ordinals.iter().map(step).collect()))
    }

    prop_compose! {
        /// Two versions of one walkthrough, in any order, and any set of completed steps.
        fn worlds()(
            from in prop::collection::vec(0_u32..12, 1..10), to in prop::collection::vec(0_u32..12, 1..10),
            done in prop::collection::vec(0_u32..12, 0..12),
        ) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
            let once = |list: Vec<u32>| list.iter().enumerate().filter(|(at, n)| !list[..*at].contains(n)).map(|(_, n)| *n).collect();
            (once(from), once(to), done)
        }
    }

    proptest! {
        /// What is said beforehand is what the move of `progress` does.
        #[test]
        fn says_what_moving_does((from, to, done) in worlds()) {
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
            let said = VersionMove::new(from.clone(), to.clone()).impact_on(&completed);

            let kept = (0..from.len()).filter(|at| before.is_completed(*at) && to.contains(&from[*at])).count();
            prop_assert_eq!(said.lost as usize, before.completed() - kept);
            prop_assert_eq!(said.completes, after.current().is_none());
            let was_next = before.current().and_then(|at| to.iter().position(|ordinal| *ordinal == from[at]));
            if let (Some(was_next), Some(is_next)) = (was_next, after.current()) {
                prop_assert_eq!(said.repeat == 0, is_next == was_next);
                let open = (0..was_next).filter(|at| !after.is_completed(*at)).count();
                prop_assert_eq!(said.repeat as usize, open);
            }
            if from == to {
                prop_assert_eq!((said.lost, said.repeat), (0, 0));
            }
        }
    }
}
