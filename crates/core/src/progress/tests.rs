//! Checks random edits, publications, withdrawals and calls against the invariants and a simple model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::operations::{ProgressContext, SelectOptions};
use super::{Attempt, AttemptState, AttemptSummary, Notice, Outcome, Status, VersionOffer, percent};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::id::{StepId, VersionId, WalkthroughId};
use crate::random::SeededRandom;
use crate::step::StepContent;
use crate::version::{StoredVersion, Version, VersionStep};

/// An action on a walkthrough. The numbers are mapped to existing objects.
#[derive(Debug, Clone)]
enum Action {
    /// Publish these ordinals in this order.
    Publish(Vec<u32>),
    Withdraw(usize),
    Select {
        resume: bool,
        to_latest: bool,
        confirmed: bool,
    },
    MoveToLatest,
    Next,
    /// `next` with the ID of a step of the pinned version.
    NextAt(usize),
    /// Repeats the last `next`.
    Repeat,
    Complete(usize),
    Reset,
}

const RESUME: Action = Action::Select { resume: true, to_latest: false, confirmed: false };

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let publish = prop::collection::btree_set(0_u32..12, 1..8)
        .prop_flat_map(|set| Just(set.into_iter().collect::<Vec<_>>()).prop_shuffle())
        .prop_map(Action::Publish);
    let action = prop_oneof![
        2 => publish.clone(),
        1 => (0_usize..8).prop_map(Action::Withdraw),
        2 => any::<[bool; 3]>().prop_map(|[resume, to_latest, confirmed]| Action::Select { resume, to_latest, confirmed }),
        1 => Just(Action::MoveToLatest),
        6 => Just(Action::Next),
        3 => (0_usize..12).prop_map(Action::NextAt),
        2 => Just(Action::Repeat),
        3 => (0_usize..12).prop_map(Action::Complete),
        1 => Just(Action::Reset),
    ];
    (publish, prop::collection::vec(action, 0..60)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    })
}

pub(super) fn step_id(ordinal: u32) -> StepId {
    StepId::from_store(format!("ws_{ordinal}"))
}

pub(super) fn version(number: u32, ordinals: &[u32]) -> Arc<Version> {
    let steps = ordinals
        .iter()
        .map(|&ordinal| VersionStep {
            id: step_id(ordinal),
            ordinal,
            content: StepContent { title: format!("Step {ordinal}"), ..StepContent::default() },
        })
        .collect();
    let id = VersionId::from_store(format!("wv_{number}"));
    Arc::new(Version::from_clean(StoredVersion {
        id,
        walkthrough_id: WalkthroughId::from_store("wt_1".into()),
        number,
        title: "T".into(),
        steps,
    }))
}

struct Simulation {
    versions: Vec<Arc<Version>>,
    withdrawn: BTreeMap<u32, String>,
    attempt: Option<Attempt>,
    /// Every step completed by any attempt since the last reset or restart.
    done: BTreeSet<u32>,
    now: Timestamp,
    random: SeededRandom,
    last_next: Option<StepId>,
}

impl Simulation {
    fn offered(&self) -> Option<VersionOffer> {
        let latest = self.versions.iter().rev().find(|version| !self.withdrawn.contains_key(&version.number))?;
        let pinned = self.pinned();
        let withdrawal = pinned.and_then(|version| self.withdrawn.get(&version.number).cloned());
        Some(VersionOffer { latest: Arc::clone(latest), withdrawal })
    }

    fn pinned(&self) -> Option<&Arc<Version>> {
        let attempt = self.attempt.as_ref()?;
        self.versions.iter().find(|version| version.id == attempt.version_id)
    }

    fn call<T>(&self, offered: &VersionOffer, call: impl FnOnce(&ProgressContext<'_>) -> T) -> T {
        let attempt = self.attempt.as_ref().zip(self.pinned());
        call(&ProgressContext { attempt, offered, now: self.now, random: &self.random })
    }

    /// Applies an outcome and checks the invariants that hold after every action.
    fn apply(&mut self, before: Option<Attempt>, outcome: &Outcome) {
        let change = &outcome.change;
        if let Some(closed) = &change.close {
            assert_eq!(Some(&closed.id), before.as_ref().map(|attempt| &attempt.id));
            assert_eq!(closed.closed_at, Some(self.now));
            assert_eq!(closed.completed, before.as_ref().unwrap().completed, "history is kept");
            self.attempt = None;
        }
        if let Some(put) = &change.upsert {
            if let Some(old) = before.as_ref().filter(|old| old.id == put.id) {
                assert_eq!(old.state, AttemptState::InProgress, "a completed attempt never changes");
            } else {
                assert!(before.is_none() || change.close.is_some(), "one open attempt at a time");
            }
            self.attempt = Some(put.clone());
        }
        if let Some(step) = &change.completion {
            let ordinal = step.as_str()[3..].parse().unwrap();
            assert!(self.done.insert(ordinal), "a step is completed once");
        }
        assert_eq!(outcome.completed_step_id, change.completion);
        assert_eq!(outcome.progress.attempt, self.attempt);
        let progress = &outcome.progress;
        assert_eq!(progress.percent() == 100, progress.status() == Status::Completed);
        assert!(progress.percent() <= 100);
        let counted = progress.version.steps().iter().filter(|step| self.done.contains(&step.ordinal)).count();
        assert_eq!(progress.completed(), counted, "exactly the completed steps of the pinned version count");
    }

    /// Checks that the summary for lists equals the progress.
    fn check_summary(&self) {
        let (Some(offered), Some(attempt), Some(pinned)) = (self.offered(), &self.attempt, self.pinned()) else {
            return;
        };
        let step_set = |version: &Version| version.steps().iter().map(|step| step.ordinal).collect();
        let summary = AttemptSummary {
            is_completed: attempt.state != AttemptState::InProgress,
            completed: attempt.completed.clone(),
            steps: step_set(pinned),
        };
        let latest = step_set(&offered.latest);
        let is_moved = offered.withdrawal.is_some() && pinned.id != offered.latest.id;
        let (progress, _) = self.call(&offered, |view| view.read());
        assert_eq!(summary.status_and_percent(is_moved.then_some(&latest)), (progress.status(), progress.percent()));
    }

    /// Checks the invariants of selecting a walkthrough.
    fn check_selected(
        &mut self,
        options: SelectOptions,
        before: &Option<Attempt>,
        moves_away: bool,
        outcome: &Outcome,
    ) {
        let same = before.as_ref().map(|attempt| &attempt.version_id)
            == outcome.progress.attempt.as_ref().map(|attempt| &attempt.version_id);
        if options.resume && !options.to_latest && !moves_away && before.is_some() {
            assert!(same, "moves only on request");
        }
        if !options.resume || before.is_none() {
            self.done.clear();
            assert_eq!(outcome.progress.completed(), 0);
        }
        let reported = outcome.notices.iter().find_map(|notice| match notice {
            Notice::Replaced { completed, .. } => Some(*completed),
            _ => None,
        });
        let replaced = before.as_ref().filter(|_| !options.resume).and(outcome.change.close.as_ref());
        assert_eq!(reported.is_some(), replaced.is_some(), "what was replaced is reported");
        assert!(reported.unwrap_or(0) <= replaced.map_or(0, |attempt| attempt.completed.len()));
    }

    fn run(&mut self, action: &Action) {
        self.now = self.now.plus(1);
        match action {
            Action::Publish(ordinals) => {
                let number = u32::try_from(self.versions.len()).unwrap() + 1;
                self.versions.push(version(number, ordinals));
                return;
            }
            Action::Withdraw(raw) => {
                let number = self.versions[raw % self.versions.len()].number;
                self.withdrawn.insert(number, "a dangerous command".to_owned());
                return;
            }
            _ => {}
        }
        let Some(offered) = self.offered() else { return };
        let before = self.attempt.clone();
        let pinned = self.pinned().cloned();
        let moves_away = offered.withdrawal.is_some()
            && before.as_ref().is_some_and(|attempt| attempt.state == AttemptState::InProgress);
        let nth = |raw: usize| {
            let version = pinned.as_ref().unwrap_or(&offered.latest);
            version.steps()[raw % version.step_count()].id.clone()
        };
        let result = match action {
            Action::Select { resume, to_latest, confirmed } => {
                let options = SelectOptions { resume: *resume, to_latest: *to_latest, confirmed: *confirmed };
                let result = self.call(&offered, |view| view.select(options));
                let has_progress = before.as_ref().is_some_and(|attempt| !attempt.completed.is_empty());
                assert_eq!(
                    result.is_err(),
                    !*resume && !*confirmed && has_progress,
                    "progress is replaced if confirmed"
                );
                if let Ok(outcome) = &result {
                    self.check_selected(options, &before, moves_away, outcome);
                }
                result
            }
            Action::MoveToLatest => {
                let result = self.call(&offered, |view| view.move_to_latest());
                if let Ok(outcome) = &result {
                    assert_eq!(outcome.completed_step_id, None);
                    let version = &outcome.progress.version;
                    assert_eq!(version.id, offered.latest.id, "at the newest version");
                    if before.as_ref().is_some_and(|attempt| attempt.version_id == version.id) {
                        assert!(outcome.change.is_empty(), "unchanged if already there");
                    }
                }
                result
            }
            Action::Next => self.call(&offered, |view| view.advance(None)),
            Action::NextAt(raw) => {
                let step = nth(*raw);
                self.last_next = Some(step.clone());
                self.call(&offered, |view| view.advance(Some(&step)))
            }
            Action::Repeat => {
                let Some(step) = self.last_next.clone() else { return };
                let done = step.as_str()[3..].parse().is_ok_and(|ordinal| self.done.contains(&ordinal));
                let result = self.call(&offered, |view| view.advance(Some(&step)));
                if let Ok(outcome) = &result {
                    assert!(!(done && outcome.completed_step_id.is_some()), "the same next advances once");
                }
                result
            }
            Action::Complete(raw) => {
                let step = nth(*raw);
                if before.is_none() {
                    self.done.clear();
                }
                self.call(&offered, |view| view.complete(&step))
            }
            Action::Reset => {
                let result = self.call(&offered, |view| view.reset());
                if result.is_ok() {
                    self.done.clear();
                }
                result
            }
            Action::Publish(_) | Action::Withdraw(_) => return,
        };
        match result {
            Ok(outcome) => {
                if moves_away && !matches!(action, Action::Reset | Action::Select { resume: false, .. }) {
                    assert_eq!(outcome.completed_step_id, None, "an unseen step is not completed");
                    assert!(outcome.notices.iter().any(|notice| matches!(notice, Notice::Withdrawn { .. })));
                    assert_eq!(outcome.progress.version.id, offered.latest.id);
                }
                self.apply(before, &outcome);
            }
            Err(error) => {
                let expected = match action {
                    Action::Reset => Code::NoProgress,
                    Action::Select { .. } => Code::ConfirmationRequired,
                    _ if before.is_none() => Code::NoActiveWalkthrough,
                    _ => Code::StepMismatch,
                };
                assert_eq!(error.code, expected, "{action:?}: {error}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn invariants_hold_for_any_sequence_of_actions(actions in actions()) {
        let mut simulation = Simulation {
            versions: Vec::new(),
            withdrawn: BTreeMap::new(),
            attempt: None,
            done: BTreeSet::new(),
            now: Timestamp(1_000),
            random: SeededRandom::new(7),
            last_next: None,
        };
        for action in &actions {
            simulation.run(action);
            simulation.check_summary();
        }
        // As long as a version is offered, every user can complete it.
        if let Some(offered) = simulation.offered() {
            simulation.run(&RESUME);
            for _ in 0..offered.latest.step_count().max(12) {
                simulation.run(&Action::Next);
            }
            let completed = matches!(simulation.attempt.unwrap().state, AttemptState::Completed { .. });
            prop_assert!(completed);
        }
    }

    #[test]
    fn percent_is_the_floor(completed in 0_usize..1_000, total in 0_usize..1_000) {
        let percent = percent(completed, total);
        prop_assert!(percent <= 100);
        if total > 0 && completed <= total {
            prop_assert_eq!(percent == 100, completed == total);
            prop_assert!(usize::from(percent) * total <= completed * 100);
            prop_assert!((usize::from(percent) + 1) * total > completed * 100);
        }
    }
}

fn simulation_with(versions: &[&[u32]]) -> Simulation {
    let mut simulation = Simulation {
        versions: Vec::new(),
        withdrawn: BTreeMap::new(),
        attempt: None,
        done: BTreeSet::new(),
        now: Timestamp(1_000),
        random: SeededRandom::new(7),
        last_next: None,
    };
    simulation.run(&Action::Publish(versions[0].to_vec()));
    simulation.run(&RESUME);
    for ordinals in &versions[1..] {
        simulation.run(&Action::Publish(ordinals.to_vec()));
    }
    simulation
}

#[test]
fn a_move_keeps_completed_steps_that_exist_or_are_added_again() {
    let mut simulation = simulation_with(&[&[0, 1, 2]]);
    simulation.run(&Action::Next);
    simulation.run(&Action::Next);
    simulation.run(&Action::Publish(vec![3, 1]));
    simulation.run(&Action::Select { resume: true, to_latest: true, confirmed: false });
    let offered = simulation.offered().unwrap();
    let (progress, _) = simulation.call(&offered, |view| view.read());
    assert_eq!((progress.completed(), progress.current()), (1, Some(0)));
    simulation.run(&Action::Publish(vec![0, 1, 3]));
    simulation.run(&Action::Select { resume: true, to_latest: true, confirmed: false });
    let offered = simulation.offered().unwrap();
    let (progress, _) = simulation.call(&offered, |view| view.read());
    assert_eq!(
        (progress.completed(), progress.current()),
        (2, Some(2)),
        "step 0 was added again and is still completed"
    );
}

#[test]
fn a_completed_attempt_moves_into_a_new_one() {
    let mut simulation = simulation_with(&[&[0, 1]]);
    simulation.run(&Action::Next);
    simulation.run(&Action::Next);
    let first = simulation.attempt.clone().unwrap();
    assert!(matches!(first.state, AttemptState::Completed { .. }));
    simulation.run(&Action::Publish(vec![0, 1, 2]));
    simulation.run(&RESUME);
    assert_eq!(simulation.attempt, Some(first.clone()), "completion is final");
    simulation.run(&Action::Select { resume: true, to_latest: true, confirmed: false });
    let second = simulation.attempt.clone().unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(second.state, AttemptState::InProgress);
    assert_eq!(second.completed, first.completed);
}

#[test]
fn replacing_progress_requires_confirmation_and_is_reported() {
    let mut simulation = simulation_with(&[&[0, 1, 2, 3, 4]]);
    let replace = SelectOptions { resume: false, ..SelectOptions::default() };
    let offered = simulation.offered().unwrap();
    let fresh = simulation.call(&offered, |view| view.select(replace)).unwrap();
    assert_eq!(
        fresh.notices,
        [Notice::Replaced { percent: 0, completed: 0, total: 5 }],
        "no confirmation without progress"
    );
    for _ in 0..3 {
        simulation.run(&Action::Next);
    }
    let error = simulation.call(&offered, |view| view.select(replace)).unwrap_err();
    assert_eq!(error.code, Code::ConfirmationRequired);
    assert!(error.message.contains("60% (3 of 5 steps)"), "{error}");
    let replaced = simulation.call(&offered, |view| view.select(SelectOptions { confirmed: true, ..replace })).unwrap();
    assert_eq!(replaced.notices, [Notice::Replaced { percent: 60, completed: 3, total: 5 }]);
    for _ in 0..2 {
        simulation.run(&Action::Next);
    }
    let error = simulation.call(&offered, |view| view.select(replace)).unwrap_err();
    assert_eq!(error.code, Code::ConfirmationRequired, "a completed attempt has progress too");
}
