//! Checks the complete outcome of each operation: changes, events and notices.

use std::sync::Arc;

use super::operations::{ProgressContext, SelectOptions};
use super::tests::{step_id, version};
use super::{Attempt, AttemptState, Notice, Outcome, ProgressChange, ProgressView, Status, VersionOffer};
use crate::clock::Timestamp;
use crate::error::{Code, Error, Result};
use crate::event::EventKind;
use crate::id::{ProgressId, StepId};
use crate::random::SeededRandom;
use crate::version::Version;

const STARTED: Timestamp = Timestamp(1_000);
const LAST_ACTIVITY: Timestamp = Timestamp(2_000);
const NOW: Timestamp = Timestamp(9_000);
const REPLACE: SelectOptions = SelectOptions { resume: false, to_latest: false, confirmed: true };

/// An attempt with its version, and the version that is offered.
struct Case {
    attempt: Option<(Attempt, Arc<Version>)>,
    offered: VersionOffer,
}

impl Case {
    fn not_started(latest: &Arc<Version>) -> Self {
        Self { attempt: None, offered: VersionOffer { latest: Arc::clone(latest), withdrawal: None } }
    }

    /// An attempt pinned to `pinned`, which is completed if all its steps are in `done`.
    fn new(pinned: &Arc<Version>, done: &[u32], latest: &Arc<Version>) -> Self {
        let is_done = pinned.steps().iter().all(|step| done.contains(&step.ordinal));
        let attempt = Attempt {
            id: ProgressId::from_store("wp_1".into()),
            version_id: pinned.id.clone(),
            completed: done.iter().copied().collect(),
            state: if is_done { AttemptState::Completed { at: LAST_ACTIVITY } } else { AttemptState::InProgress },
            started_at: STARTED,
            last_activity_at: LAST_ACTIVITY,
            closed_at: None,
            metadata: serde_json::Map::from_iter([("team".to_owned(), "blue".into())]),
        };
        Self { attempt: Some((attempt, Arc::clone(pinned))), ..Self::not_started(latest) }
    }

    fn withdrawn(mut self) -> Self {
        self.offered.withdrawal = Some("a dangerous command".to_owned());
        self
    }

    fn attempt(&self) -> Attempt {
        self.attempt.clone().unwrap().0
    }

    fn call<T>(&self, operation: impl FnOnce(&ProgressContext<'_>) -> T) -> T {
        let attempt = self.attempt.as_ref().map(|(attempt, version)| (attempt, version));
        operation(&ProgressContext { attempt, offered: &self.offered, now: NOW, random: &SeededRandom::new(7) })
    }

    fn read(&self) -> (ProgressView, Vec<Notice>) {
        self.call(|context| context.read())
    }

    fn select(&self) -> Outcome {
        self.call(|context| context.select(SelectOptions::default())).unwrap()
    }

    fn move_to_latest(&self) -> Result<Outcome> {
        self.call(|context| context.move_to_latest())
    }

    fn advance(&self, step: Option<u32>) -> Result<Outcome> {
        self.call(|context| context.advance(step.map(step_id).as_ref()))
    }

    fn complete(&self, step: u32) -> Result<Outcome> {
        self.call(|context| context.complete(&step_id(step)))
    }

    fn reset(&self) -> Result<Outcome> {
        self.call(|context| context.reset())
    }
}

fn attempt_event(kind: EventKind) -> (EventKind, Option<StepId>) {
    (kind, None)
}

fn step_event(ordinal: u32) -> (EventKind, Option<StepId>) {
    (EventKind::StepCompleted, Some(step_id(ordinal)))
}

/// Asserts that `outcome` writes nothing and has exactly these notices.
fn assert_unchanged(outcome: &Outcome, notices: &[Notice]) {
    assert!(outcome.change.is_empty(), "{:?}", outcome.change);
    assert_eq!((outcome.notices.as_slice(), &outcome.completed_step_id), (notices, &None));
}

/// Asserts that `outcome` makes exactly this change, shows the changed attempt, and has exactly these notices.
fn assert_changed(outcome: &Outcome, change: &ProgressChange, notices: &[Notice]) {
    assert_eq!(outcome.change, *change);
    assert!(!outcome.change.is_empty());
    assert_eq!((outcome.notices.as_slice(), &outcome.completed_step_id), (notices, &change.completion));
    assert_eq!(outcome.progress.attempt, change.upsert);
}

/// Returns the attempt that `outcome` opened. Asserts that it is new, pinned to `version`, and has no completed steps.
fn new_attempt(outcome: &Outcome, version: &Version) -> Attempt {
    let opened = outcome.change.upsert.clone().unwrap();
    assert_eq!((&opened.version_id, opened.started_at, opened.last_activity_at), (&version.id, NOW, NOW));
    assert_eq!((opened.state, opened.closed_at), (AttemptState::InProgress, None));
    assert!(opened.completed.is_empty() && opened.metadata.is_empty() && opened.id.as_str() != "wp_1");
    opened
}

fn assert_error(result: Result<Outcome>, code: Code) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    error
}

#[test]
fn selecting_starts_an_attempt_at_the_newest_version() {
    let v2 = version(2, &[0, 1]);
    let outcome = Case::not_started(&v2).select();
    let change = ProgressChange {
        upsert: Some(new_attempt(&outcome, &v2)),
        events: vec![attempt_event(EventKind::Started)],
        ..ProgressChange::default()
    };
    assert_changed(&outcome, &change, &[Notice::Started]);
}

#[test]
fn selecting_again_resumes_the_attempt_on_its_version() {
    let (v1, v2) = (version(1, &[0, 1]), version(2, &[0, 1, 2]));
    for (latest, notices) in
        [(&v1, vec![Notice::Resumed]), (&v2, vec![Notice::Resumed, Notice::NewerVersion { number: 2 }])]
    {
        let case = Case::new(&v1, &[0], latest);
        let change = ProgressChange {
            upsert: Some(Attempt { last_activity_at: NOW, ..case.attempt() }),
            events: vec![attempt_event(EventKind::Resumed)],
            ..ProgressChange::default()
        };
        assert_changed(&case.select(), &change, &notices);
    }
}

#[test]
fn a_completed_attempt_is_not_changed_by_calls_that_continue_it() {
    let (v1, v2) = (version(1, &[0, 1]), version(2, &[0, 1, 2]));
    let newer = Notice::NewerVersion { number: 2 };
    for (latest, notices) in
        [(&v1, vec![Notice::AlreadyCompleted]), (&v2, vec![Notice::AlreadyCompleted, newer.clone()])]
    {
        for case in [Case::new(&v1, &[0, 1], latest), Case::new(&v1, &[0, 1], latest).withdrawn()] {
            assert_unchanged(&case.select(), &notices);
            assert_unchanged(&case.advance(None).unwrap(), &notices);
            assert_unchanged(&case.advance(Some(1)).unwrap(), &notices);
            let (progress, shown) = case.read();
            assert_eq!((progress.status(), progress.percent(), shown), (Status::Completed, 100, notices.clone()));
            assert_eq!(progress.completed_at(), Some(LAST_ACTIVITY));
        }
    }
    assert_unchanged(&Case::new(&v1, &[0, 1], &v2).complete(0).unwrap(), &[Notice::StepAlreadyCompleted, newer]);
}

#[test]
fn replacing_closes_the_attempt_and_opens_an_empty_one() {
    let v1 = version(1, &[0, 1, 2]);
    let case = Case::new(&v1, &[0], &v1);
    let outcome = case.call(|context| context.select(REPLACE)).unwrap();
    let change = ProgressChange {
        close: Some(Attempt { closed_at: Some(NOW), ..case.attempt() }),
        upsert: Some(new_attempt(&outcome, &v1)),
        events: vec![attempt_event(EventKind::Restarted)],
        ..ProgressChange::default()
    };
    assert_changed(&outcome, &change, &[Notice::Replaced { percent: 33, completed: 1, total: 3 }]);
}

#[test]
fn an_attempt_in_progress_moves_as_it_is() {
    let (v1, v2) = (version(1, &[0, 1]), version(2, &[0, 2]));
    let case = Case::new(&v1, &[0], &v2);
    let change = ProgressChange {
        upsert: Some(Attempt { version_id: v2.id.clone(), last_activity_at: NOW, ..case.attempt() }),
        events: vec![attempt_event(EventKind::Moved)],
        ..ProgressChange::default()
    };
    let to_latest = SelectOptions { to_latest: true, ..SelectOptions::default() };
    for outcome in [case.move_to_latest().unwrap(), case.call(|context| context.select(to_latest)).unwrap()] {
        assert_changed(&outcome, &change, &[Notice::Moved { from: 1 }]);
        assert_eq!((&outcome.progress.version.id, outcome.progress.latest_number), (&v2.id, 2));
    }
}

#[test]
fn a_move_that_leaves_no_step_completes_the_attempt() {
    let (v1, v2) = (version(1, &[0, 1]), version(2, &[0]));
    let case = Case::new(&v1, &[0], &v2);
    let moved = Attempt {
        version_id: v2.id.clone(),
        last_activity_at: NOW,
        state: AttemptState::Completed { at: NOW },
        ..case.attempt()
    };
    let change = ProgressChange {
        upsert: Some(moved),
        events: vec![attempt_event(EventKind::Moved), attempt_event(EventKind::Completed)],
        ..ProgressChange::default()
    };
    let outcome = case.move_to_latest().unwrap();
    assert_changed(&outcome, &change, &[Notice::Moved { from: 1 }, Notice::JustCompleted]);
    assert_eq!(outcome.progress.completed_at(), Some(NOW));
}

#[test]
fn moving_a_completed_attempt_opens_one_with_the_same_steps() {
    let (v1, v2) = (version(1, &[0, 1]), version(2, &[0, 1, 2]));
    let case = Case::new(&v1, &[0, 1], &v2);
    let outcome = case.move_to_latest().unwrap();
    let empty = Outcome {
        change: ProgressChange {
            upsert: outcome.change.upsert.clone().map(|opened| Attempt { completed: <_>::default(), ..opened }),
            ..ProgressChange::default()
        },
        ..outcome.clone()
    };
    let change = ProgressChange {
        close: Some(Attempt { closed_at: Some(NOW), ..case.attempt() }),
        upsert: Some(Attempt { completed: case.attempt().completed, ..new_attempt(&empty, &v2) }),
        copy_completions_from: Some(case.attempt().id),
        completion: None,
        events: vec![attempt_event(EventKind::Moved)],
    };
    assert_changed(&outcome, &change, &[Notice::Moved { from: 1 }]);
}

#[test]
fn moving_changes_nothing_at_the_newest_version_and_requires_an_attempt() {
    let v1 = version(1, &[0, 1]);
    assert_unchanged(&Case::new(&v1, &[0], &v1).move_to_latest().unwrap(), &[Notice::AlreadyNewest]);
    assert_unchanged(&Case::new(&v1, &[0, 1], &v1).move_to_latest().unwrap(), &[Notice::AlreadyCompleted]);
    assert_error(Case::not_started(&v1).move_to_latest(), Code::NoActiveWalkthrough);
}

/// The user has not seen the steps of the new version, so no call completes one.
#[test]
fn every_call_that_continues_a_withdrawn_version_only_moves() {
    let (v1, v2) = (version(1, &[0, 1]), version(2, &[0, 1, 2]));
    let case = Case::new(&v1, &[0], &v2).withdrawn();
    let change = ProgressChange {
        upsert: Some(Attempt { version_id: v2.id.clone(), last_activity_at: NOW, ..case.attempt() }),
        events: vec![attempt_event(EventKind::MovedFromWithdrawn)],
        ..ProgressChange::default()
    };
    let notices = [Notice::Withdrawn { from: 1, reason: "a dangerous command".to_owned() }];
    let outcomes = [
        Ok(case.select()),
        case.move_to_latest(),
        case.advance(None),
        case.advance(Some(1)),
        case.advance(Some(9)),
        case.complete(1),
        case.complete(9),
    ];
    for outcome in outcomes {
        assert_changed(&outcome.unwrap(), &change, &notices);
    }
    let (progress, shown) = case.read();
    assert_eq!((&progress.version.id, progress.status(), progress.completed()), (&v2.id, Status::InProgress, 1));
    assert_eq!(shown, notices);
}

#[test]
fn next_completes_the_current_step_with_or_without_its_id() {
    let v1 = version(1, &[0, 1, 2]);
    let case = Case::new(&v1, &[0], &v1);
    let completed = [0, 1].into_iter().collect();
    let change = ProgressChange {
        upsert: Some(Attempt { completed, last_activity_at: NOW, ..case.attempt() }),
        completion: Some(step_id(1)),
        events: vec![step_event(1)],
        ..ProgressChange::default()
    };
    for named in [None, Some(1)] {
        let outcome = case.advance(named).unwrap();
        assert_changed(&outcome, &change, &[]);
        assert_eq!((outcome.progress.current(), outcome.progress.completed_at()), (Some(2), None));
    }
}

#[test]
fn next_never_completes_a_step_that_is_not_current() {
    let v1 = version(1, &[0, 1, 2]);
    let case = Case::new(&v1, &[0], &v1);
    assert_unchanged(&case.advance(Some(0)).unwrap(), &[Notice::StepAlreadyCompleted]);
    for (named, place) in [(2, "a later step"), (9, "no step of the version")] {
        let error = assert_error(case.advance(Some(named)), Code::StepMismatch);
        let message = format!("ws_{named} is not the current step. The current step is ws_1 (\"Step 1\").");
        assert_eq!(error.message, message, "{place}");
    }
    assert_error(Case::not_started(&v1).advance(None), Code::NoActiveWalkthrough);
}

#[test]
fn the_last_step_completes_the_attempt() {
    let (v1, v2) = (version(1, &[0, 1]), version(2, &[0, 1, 2]));
    let case = Case::new(&v1, &[0], &v2);
    let done = Attempt {
        completed: [0, 1].into_iter().collect(),
        state: AttemptState::Completed { at: NOW },
        last_activity_at: NOW,
        ..case.attempt()
    };
    let change = ProgressChange {
        upsert: Some(done),
        completion: Some(step_id(1)),
        events: vec![step_event(1), attempt_event(EventKind::Completed)],
        ..ProgressChange::default()
    };
    let notices = [Notice::JustCompleted, Notice::NewerVersion { number: 2 }];
    assert_changed(&case.advance(None).unwrap(), &change, &notices);
    assert_changed(&case.complete(1).unwrap(), &change, &notices);
}

#[test]
fn any_step_of_the_version_can_be_completed() {
    let v1 = version(1, &[0, 1, 2]);
    let case = Case::new(&v1, &[0], &v1);
    let change = ProgressChange {
        upsert: Some(Attempt { completed: [0, 2].into_iter().collect(), last_activity_at: NOW, ..case.attempt() }),
        completion: Some(step_id(2)),
        events: vec![step_event(2)],
        ..ProgressChange::default()
    };
    assert_changed(&case.complete(2).unwrap(), &change, &[]);
    assert_unchanged(&case.complete(0).unwrap(), &[Notice::StepAlreadyCompleted]);
    assert_error(case.complete(9), Code::StepNotFound);
}

#[test]
fn completing_a_step_starts_the_walkthrough() {
    let v1 = version(1, &[0, 1]);
    let outcome = Case::not_started(&v1).complete(1).unwrap();
    let opened = outcome.change.upsert.clone().unwrap();
    assert_eq!((opened.started_at, opened.completed.clone()), (NOW, [1].into_iter().collect()));
    let change = ProgressChange {
        upsert: Some(opened),
        completion: Some(step_id(1)),
        events: vec![attempt_event(EventKind::Started), step_event(1)],
        ..ProgressChange::default()
    };
    assert_changed(&outcome, &change, &[]);
}

#[test]
fn resetting_closes_the_attempt() {
    let (v1, v2) = (version(1, &[0, 1]), version(2, &[0]));
    let case = Case::new(&v1, &[0], &v2);
    let change = ProgressChange {
        close: Some(Attempt { closed_at: Some(NOW), last_activity_at: NOW, ..case.attempt() }),
        events: vec![attempt_event(EventKind::Reset)],
        ..ProgressChange::default()
    };
    let outcome = case.reset().unwrap();
    assert_changed(&outcome, &change, &[Notice::Reset]);
    assert_eq!((outcome.progress.status(), &outcome.progress.version.id), (Status::NotStarted, &v2.id));
    assert_error(Case::not_started(&v1).reset(), Code::NoProgress);
}

#[test]
fn reading_reports_the_status_and_a_newer_version() {
    let (v1, v2) = (version(1, &[0, 1]), version(2, &[0]));
    let read = |case: Case| {
        let (progress, notices) = case.read();
        (progress.status().as_str(), progress.percent(), progress.completed_at(), notices)
    };
    assert_eq!(read(Case::not_started(&v2)), ("not_started", 0, None, vec![]));
    assert_eq!(read(Case::new(&v1, &[0], &v1)), ("in_progress", 50, None, vec![]));
    assert_eq!(read(Case::new(&v1, &[0], &v2)), ("in_progress", 50, None, vec![Notice::NewerVersion { number: 2 }]));
    let completed = ("completed", 100, Some(LAST_ACTIVITY), vec![Notice::AlreadyCompleted]);
    assert_eq!(read(Case::new(&v1, &[0, 1], &v1)), completed);
    // A withdrawn newest version is not offered: no notice recommends an older version.
    assert_eq!(read(Case::new(&v2, &[], &v1)), ("in_progress", 0, None, vec![]));
}
