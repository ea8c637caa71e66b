//! Joins any two attempts at any two versions, continues the result, and undoes the join.

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

/// Whether every step of `version` is completed: the model of `is_complete`.
fn has_all_steps(version: &Version, completed: &StepSet) -> bool {
    let steps: StepSet = version.steps().iter().map(|step| step.ordinal).collect();
    steps.difference(completed).is_empty()
}

/// Creates an attempt that is completed if and only if every step of its version is.
fn attempt(id: &str, version: &Version, done: &[u32], at: i64) -> Attempt {
    let completed: StepSet = done.iter().copied().collect();
    let is_done = has_all_steps(version, &completed);
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
        let make = |id, (index, done, started): &(usize, Vec<u32>, i64)| attempt(id, &versions[*index], done, *started);
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
        prop_assert_eq!(is_done(&joined.to), has_all_steps(fixture.version(&joined.to), &joined.to.completed));
        let were_done = is_done(from) || to.is_some_and(is_done);
        prop_assert!(!were_done || is_done(&joined.to), "completed stays completed");
        let newest = to.into_iter().chain([from]).map(|attempt| fixture.version(attempt).number).max().unwrap();
        prop_assert!(fixture.version(&joined.to).number == newest || were_done);
        prop_assert_eq!(joined.to.started_at, to.map_or(from.started_at, |to| to.started_at.min(from.started_at)));
        prop_assert_eq!(&joined.from, &Attempt { closed_at: Some(NOW), ..from.clone() });
        let last_activity_at = to.map_or(from.last_activity_at, |to| to.last_activity_at.max(from.last_activity_at));
        prop_assert_eq!(joined.to.last_activity_at, last_activity_at);
        prop_assert_eq!(joined.is_new, to.is_none());
        prop_assert_eq!(joined.to.closed_at, None);
        prop_assert_ne!(&joined.to.id, &from.id);
        prop_assert_eq!((&joined.record.from, &joined.record.to), (&from.id, &joined.to.id));
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
        if has_all_steps(fixture.version(&current), &current.completed) {
            current.state = AttemptState::Completed { at: LATER };
        }
        let back = undo(&joined.record, fixture.pinned(&current), &fixture.from.completed, LATER);
        for ordinal in 0..STEPS {
            let own = fixture.to.as_ref().is_some_and(|to| to.completed.contains(ordinal)) || fresh.contains(&ordinal);
            prop_assert_eq!(back.completed.contains(ordinal), own);
        }
        prop_assert_eq!(back.closed_at, None);
        prop_assert_eq!(is_done(&back), has_all_steps(fixture.version(&back), &back.completed));
        prop_assert_eq!(&back.version_id, &current.version_id, "the user stays on the current version");
        let started_at = fixture.to.as_ref().map_or(current.started_at, |to| to.started_at);
        prop_assert_eq!(back.started_at, started_at, "the user's own attempt started then");
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

#[test]
fn a_copy_of_a_closed_attempt_is_open() {
    let v = version(1, &[0, 1]);
    let from = Attempt { closed_at: Some(Timestamp(50)), ..attempt("wp_from", &v, &[0], 1) };
    let joined = join(PinnedAttempt { attempt: &from, version: &v }, None, NOW, &SeededRandom::new(1));
    assert_eq!((joined.to.closed_at, joined.from.closed_at), (None, Some(NOW)));
}

/// The earliest completion of the version counts. A completion of an older version does not, because the newer version
/// has other steps.
#[test]
fn a_joined_attempt_was_completed_when_its_version_was() {
    let (old, new) = (version(1, &[0, 1]), version(2, &[0, 1, 2]));
    let completed_at = |from: (&Version, &[u32]), to: (&Version, &[u32])| {
        let from_attempt = attempt("wp_from", from.0, from.1, 100);
        let to_attempt = attempt("wp_to", to.0, to.1, 200);
        let pinned = PinnedAttempt { attempt: &from_attempt, version: from.0 };
        let own = PinnedAttempt { attempt: &to_attempt, version: to.0 };
        AttemptSnapshot::of(&join(pinned, Some(own), NOW, &SeededRandom::new(1)).to).completed_at
    };
    let at = |at| Some(Timestamp(at));
    assert_eq!(completed_at((&old, &[0, 1]), (&old, &[0, 1])), at(105), "both: the earlier one");
    assert_eq!(completed_at((&old, &[0, 1]), (&old, &[0])), at(105), "only the anonymous attempt");
    assert_eq!(completed_at((&old, &[0]), (&old, &[0, 1])), at(205), "only the user's attempt");
    assert_eq!(completed_at((&old, &[0, 1]), (&new, &[0, 1, 2])), at(205), "not the older version");
    assert_eq!(completed_at((&new, &[0, 1, 2]), (&old, &[0, 1])), at(105), "not the older version");
    assert_eq!(completed_at((&old, &[0, 1]), (&new, &[2])), Some(NOW), "by the join itself");
    assert_eq!(completed_at((&old, &[0]), (&old, &[])), None);
}

#[test]
fn resuming_after_the_join_does_not_prevent_the_full_undo() {
    let (old, new) = (version(1, &[0, 1, 2]), version(2, &[0, 1, 2, 3]));
    let (from, to) = (attempt("wp_from", &new, &[0], 1), attempt("wp_to", &old, &[1], 100));
    let pinned = PinnedAttempt { attempt: &from, version: &new };
    let own = PinnedAttempt { attempt: &to, version: &old };
    let joined = join(pinned, Some(own), NOW, &SeededRandom::new(1));
    assert_eq!(joined.to.version_id, new.id);
    let resumed = Attempt { last_activity_at: LATER, ..joined.to };
    let current = PinnedAttempt { attempt: &resumed, version: &new };
    let back = undo(&joined.record, current, &from.completed, LATER);
    assert_eq!(back, Attempt { last_activity_at: LATER, ..to });
}

/// Undoing a join closes only the attempt that the join created, and only if the user has completed nothing in it.
#[test]
fn only_an_empty_attempt_that_the_join_created_is_closed() {
    let v = version(1, &[0, 1, 2]);
    let from = attempt("wp_from", &v, &[0], 1);
    let to = attempt("wp_to", &v, &[], 100);
    let pinned = |attempt| PinnedAttempt { attempt, version: &v };
    let created = join(pinned(&from), None, NOW, &SeededRandom::new(1));
    let merged = join(pinned(&from), Some(pinned(&to)), NOW, &SeededRandom::new(1));
    let closed_at = |record: &JoinRecord, current: &Attempt| {
        undo(record, PinnedAttempt { attempt: current, version: &v }, &from.completed, LATER).closed_at
    };
    assert_eq!(closed_at(&created.record, &created.to), Some(LATER));
    let continued = Attempt { completed: [0, 1].into_iter().collect(), ..created.to.clone() };
    assert_eq!(closed_at(&created.record, &continued), None, "the user has completed a step");
    let restarted = attempt("wp_again", &v, &[], 500);
    assert_eq!(closed_at(&created.record, &restarted), None, "the user has started again");
    let changed = Attempt { started_at: Timestamp(0), ..merged.to.clone() };
    assert_eq!(closed_at(&merged.record, &changed), None, "the user had an attempt before the join");
}

#[test]
fn undoing_keeps_the_start_of_an_attempt_that_replaced_the_joined_one() {
    let v = version(1, &[0, 1, 2]);
    let (from, to) = (attempt("wp_from", &v, &[0], 1), attempt("wp_to", &v, &[1], 100));
    let pinned = |attempt| PinnedAttempt { attempt, version: &v };
    let joined = join(pinned(&from), Some(pinned(&to)), NOW, &SeededRandom::new(1));
    let restarted = attempt("wp_again", &v, &[1], 500);
    assert_eq!(undo(&joined.record, pinned(&restarted), &StepSet::default(), LATER), restarted);
}
