//! Any two attempts at any two versions, joined, gone on with, and record apart again.

use proptest::prelude::*;

use super::*;
use crate::id::{StepId, WalkthroughId};
use crate::random::SeededRandom;
use crate::step::StepContent;
use crate::version::{StoredVersion, VersionStep};

const NOW: Timestamp = Timestamp(10_000);
const LATER: Timestamp = Timestamp(20_000);
const STEPS: u32 = 10;

fn version(number: u32, ordinals: &[u32]) -> Version {
    let steps = ordinals.iter().map(|&ordinal| VersionStep {
        id: StepId::from_store(format!("ws_{ordinal}")),
        ordinal,
        content: StepContent::default(),
    });
    let id = VersionId::from_store(format!("wv_{number}"));
    Version::from_clean(StoredVersion {
        id,
        walkthrough_id: WalkthroughId::from_store("wt_1".into()),
        number,
        title: "T".into(),
        steps: steps.collect(),
    })
}

/// Creates an attempt that is completed if and only if every step of its version is.
fn attempt(id: &str, version: &Version, done: &[u32], at: i64) -> Attempt {
    let completed: StepSet = done.iter().copied().collect();
    let is_done = is_complete(version, &completed);
    Attempt {
        id: ProgressId::from_store(id.to_owned()),
        version_id: version.id.clone(),
        completed,
        state: if is_done { AttemptState::Completed { at: Timestamp(at + 5) } } else { AttemptState::InProgress },
        started_at: Timestamp(at),
        last_activity_at: Timestamp(at + 7),
        closed_at: None,
        metadata: serde_json::Map::new(),
    }
}

/// One or two versions, an anonymous attempt, and optionally an attempt of the user.
#[derive(Debug, Clone)]
struct Case {
    versions: Vec<Vec<u32>>,
    from: (usize, Vec<u32>, i64),
    to: Option<(usize, Vec<u32>, i64)>,
}

fn steps(least: usize) -> impl Strategy<Value = Vec<u32>> {
    prop::sample::subsequence((0..STEPS).collect::<Vec<_>>(), least..=STEPS as usize)
}

fn one(versions: Vec<Vec<u32>>) -> impl Strategy<Value = (usize, Vec<u32>, i64)> {
    // Complete all steps often, because completed attempts are the interesting ones.
    (0..versions.len(), steps(0), any::<bool>(), 0_i64..100).prop_map(move |(at, mut done, all, started)| {
        if all {
            done.extend(&versions[at]);
        }
        (at, done, started)
    })
}

fn cases() -> impl Strategy<Value = Case> {
    prop::collection::vec(steps(1), 1..3).prop_flat_map(|versions| {
        (one(versions.clone()), prop::option::of(one(versions.clone()))).prop_map(move |(from, to)| Case {
            versions: versions.clone(),
            from,
            to,
        })
    })
}

struct Fixture {
    versions: Vec<Version>,
    from: Attempt,
    to: Option<Attempt>,
}

impl Fixture {
    fn new(case: &Case) -> Self {
        let versions: Vec<Version> = (1..).zip(&case.versions).map(|(number, steps)| version(number, steps)).collect();
        let make = |id, (at, done, started): &(usize, Vec<u32>, i64)| attempt(id, &versions[*at], done, *started);
        let (from, to) = (make("wp_from", &case.from), case.to.as_ref().map(|to| make("wp_to", to)));
        Self { from, to, versions }
    }

    fn version(&self, attempt: &Attempt) -> &Version {
        self.versions.iter().find(|version| version.id == attempt.version_id).unwrap()
    }

    fn pinned<'a>(&'a self, attempt: &'a Attempt) -> PinnedAttempt<'a> {
        PinnedAttempt { attempt, version: self.version(attempt) }
    }

    fn join(&self) -> JoinOutcome {
        join(self.pinned(&self.from), self.to.as_ref().map(|to| self.pinned(to)), NOW, &SeededRandom::new(1))
    }
}

fn is_done(attempt: &Attempt) -> bool {
    attempt.state != AttemptState::InProgress
}

proptest! {
    #[test]
    fn a_join_keeps_all_steps_and_the_newer_version(case in cases()) {
        let fixture = Fixture::new(&case);
        let joined = fixture.join();
        let (from, to) = (&fixture.from, fixture.to.as_ref());
        let own = |ordinal| to.is_some_and(|to| to.completed.contains(ordinal));
        for ordinal in 0..STEPS {
            prop_assert_eq!(joined.to.completed.contains(ordinal), from.completed.contains(ordinal) || own(ordinal));
            prop_assert_eq!(joined.record.added.contains(ordinal), from.completed.contains(ordinal) && !own(ordinal));
        }
        prop_assert_eq!(is_done(&joined.to), is_complete(fixture.version(&joined.to), &joined.to.completed));
        let were_done = is_done(from) || to.is_some_and(is_done);
        prop_assert!(!were_done || is_done(&joined.to), "completed stays completed");
        let newest = to.into_iter().chain([from]).map(|attempt| fixture.version(attempt).number).max().unwrap();
        prop_assert!(fixture.version(&joined.to).number == newest || were_done);
        prop_assert_eq!(joined.to.started_at, to.map_or(from.started_at, |to| to.started_at.min(from.started_at)));
        prop_assert_eq!(&joined.from, &Attempt { closed_at: Some(NOW), ..from.clone() });
        prop_assert_eq!(joined.is_new, to.is_none());
        prop_assert_eq!(joined.to.closed_at, None);
    }

    #[test]
    fn an_immediate_undo_restores_the_attempt(case in cases()) {
        let fixture = Fixture::new(&case);
        let joined = fixture.join();
        let text = serde_json::to_string(&joined.record).unwrap();
        let record: JoinRecord = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&record, &joined.record);
        let back = undo(&record, fixture.pinned(&joined.to), &fixture.from.completed, LATER);
        match &fixture.to {
            Some(to) => prop_assert_eq!(&back, to),
            None => {
                prop_assert_eq!(back.closed_at, Some(LATER));
                prop_assert!(back.completed.is_empty());
            }
        }
    }

    #[test]
    fn a_later_undo_keeps_the_users_own_steps(case in cases(), more in steps(1)) {
        let fixture = Fixture::new(&case);
        let joined = fixture.join();
        // Completed steps cannot be completed again.
        let fresh: Vec<u32> = more.into_iter().filter(|ordinal| !joined.to.completed.contains(*ordinal)).collect();
        prop_assume!(!fresh.is_empty() && !is_done(&joined.to));
        let mut current = joined.to.clone();
        current.completed = current.completed.union(&fresh.iter().copied().collect());
        current.last_activity_at = LATER;
        if is_complete(fixture.version(&current), &current.completed) {
            current.state = AttemptState::Completed { at: LATER };
        }
        let back = undo(&joined.record, fixture.pinned(&current), &fixture.from.completed, LATER);
        for ordinal in 0..STEPS {
            let own = fixture.to.as_ref().is_some_and(|to| to.completed.contains(ordinal)) || fresh.contains(&ordinal);
            prop_assert_eq!(back.completed.contains(ordinal), own);
        }
        prop_assert_eq!(back.closed_at, None);
        prop_assert_eq!(is_done(&back), is_complete(fixture.version(&back), &back.completed));
        prop_assert_eq!(&back.version_id, &current.version_id, "the user stays on the current version");
    }
}

#[test]
fn a_step_completed_again_after_the_join_is_kept() {
    let v = version(1, &[0, 1, 2]);
    let from = attempt("wp_from", &v, &[0, 1], 1);
    let joined = join(PinnedAttempt { attempt: &from, version: &v }, None, NOW, &SeededRandom::new(1));
    // The user has restarted and completed step 1 themselves.
    let again = attempt("wp_again", &v, &[1], 50);
    let back = undo(&joined.record, PinnedAttempt { attempt: &again, version: &v }, &StepSet::default(), LATER);
    assert_eq!(back, again);
}
