//! Any two attempts at any two versions, joined, gone on with, and record apart again.

use proptest::prelude::*;

use super::*;
use crate::id::{StepId, WalkthroughId};
use crate::random::SeededRandom;
use crate::step::StepContent;
use crate::version::VersionStep;

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
    Version::new(id, WalkthroughId::from_store("wt_1".into()), number, "T".into(), steps.collect())
}

/// An attempt as the acts leave one: completed exactly when every step of its version is.
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

/// One or two versions, an anonymous attempt, and perhaps one of the user's own.
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
    // Often everything is done: completed attempts are the interesting ones.
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

struct Scene {
    versions: Vec<Version>,
    from: Attempt,
    to: Option<Attempt>,
}

impl Scene {
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
    fn nothing_is_lost_and_the_newer_version_wins(case in cases()) {
        let scene = Scene::new(&case);
        let joined = scene.join();
        let (from, to) = (&scene.from, scene.to.as_ref());
        let own = |ordinal| to.is_some_and(|to| to.completed.contains(ordinal));
        for ordinal in 0..STEPS {
            prop_assert_eq!(joined.to.completed.contains(ordinal), from.completed.contains(ordinal) || own(ordinal));
            prop_assert_eq!(joined.record.added.contains(ordinal), from.completed.contains(ordinal) && !own(ordinal));
        }
        prop_assert_eq!(is_done(&joined.to), is_complete(scene.version(&joined.to), &joined.to.completed));
        let were_done = is_done(from) || to.is_some_and(is_done);
        prop_assert!(!were_done || is_done(&joined.to), "completed stays completed");
        let newest = to.into_iter().chain([from]).map(|attempt| scene.version(attempt).number).max().unwrap();
        prop_assert!(scene.version(&joined.to).number == newest || were_done);
        prop_assert_eq!(joined.to.started_at, to.map_or(from.started_at, |to| to.started_at.min(from.started_at)));
        prop_assert_eq!(&joined.from, &Attempt { closed_at: Some(NOW), ..from.clone() });
        prop_assert_eq!(joined.is_new, to.is_none());
        prop_assert_eq!(joined.to.closed_at, None);
    }

    #[test]
    fn undone_at_once_it_was_never_there(case in cases()) {
        let scene = Scene::new(&case);
        let joined = scene.join();
        let text = serde_json::to_string(&joined.record).unwrap();
        let record: JoinRecord = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&record, &joined.record);
        let back = undo(&record, scene.pinned(&joined.to), &scene.from.completed, LATER);
        match &scene.to {
            Some(to) => prop_assert_eq!(&back, to),
            None => {
                prop_assert_eq!(back.closed_at, Some(LATER));
                prop_assert!(back.completed.is_empty());
            }
        }
    }

    #[test]
    fn undone_later_what_the_user_did_stays(case in cases(), more in steps(1)) {
        let scene = Scene::new(&case);
        let joined = scene.join();
        // What is done already is not done again: so it goes with the acts.
        let fresh: Vec<u32> = more.into_iter().filter(|ordinal| !joined.to.completed.contains(*ordinal)).collect();
        prop_assume!(!fresh.is_empty() && !is_done(&joined.to));
        let mut present = joined.to.clone();
        present.completed = present.completed.union(&fresh.iter().copied().collect());
        present.last_activity_at = LATER;
        if is_complete(scene.version(&present), &present.completed) {
            present.state = AttemptState::Completed { at: LATER };
        }
        let back = undo(&joined.record, scene.pinned(&present), &scene.from.completed, LATER);
        for ordinal in 0..STEPS {
            let own = scene.to.as_ref().is_some_and(|to| to.completed.contains(ordinal)) || fresh.contains(&ordinal);
            prop_assert_eq!(back.completed.contains(ordinal), own);
        }
        prop_assert_eq!(back.closed_at, None);
        prop_assert_eq!(is_done(&back), is_complete(scene.version(&back), &back.completed));
        prop_assert_eq!(&back.version_id, &present.version_id, "the user stays where they have gone on");
    }
}

#[test]
fn a_step_that_was_done_again_afterwards_is_the_users_own() {
    let v = version(1, &[0, 1, 2]);
    let from = attempt("wp_from", &v, &[0, 1], 1);
    let joined = join(PinnedAttempt { attempt: &from, version: &v }, None, NOW, &SeededRandom::new(1));
    // The user has begun again and completed step 1 themselves.
    let again = attempt("wp_again", &v, &[1], 50);
    let back = undo(&joined.record, PinnedAttempt { attempt: &again, version: &v }, &StepSet::default(), LATER);
    assert_eq!(back, again);
}
