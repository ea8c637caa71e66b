//! The writer with cached attempts, while other processes change the same attempts (src/writer/mod.rs, second
//! invariant).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use waypost_core::progress::operations::{ProgressContext, SelectOptions};
use waypost_core::progress::{Attempt, Outcome, VersionOffer};
use waypost_core::{Error as CoreError, SystemRandom, Timestamp};
use waypost_store::progress::{self, ProgressKey};
use waypost_store::writer::{DecideFn, Decision, ProgressCall, Writer};

use crate::fixture::{NOW, STEPS, execute};
use crate::open;
use crate::writer::{Stage, begin_or_advance, call, stage};

/// The number of processes, each with a writer and therefore a cache of its own.
const PROCESSES: usize = 3;

struct Processes {
    stage: Stage,
    writers: Vec<Writer>,
}

async fn processes(url: &str) -> Processes {
    let stage = stage(url).await;
    let mut writers = vec![stage.writer.clone()];
    for _ in 1..PROCESSES {
        let db = open(url).await;
        writers.push(Writer::start(db, Arc::new(SystemRandom)).0);
    }
    Processes { stage, writers }
}

/// An action on one of the attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// The call of a user.
    Call(Operation),
    /// A step is completed without the writer, as by a join.
    CompleteElsewhere,
    /// The attempt is closed without the writer.
    CloseElsewhere,
    /// The end user is deleted and created again.
    DeleteUser,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Advance,
    Select,
    Restart,
    Reset,
}

fn act() -> impl Strategy<Value = Act> {
    let operation = prop_oneof![
        8 => Just(Operation::Advance),
        2 => Just(Operation::Select),
        1 => Just(Operation::Restart),
        1 => Just(Operation::Reset),
    ];
    prop_oneof![
        12 => operation.prop_map(Act::Call),
        3 => Just(Act::CompleteElsewhere),
        1 => Just(Act::CloseElsewhere),
        1 => Just(Act::DeleteUser),
    ]
}

/// Returns the actions of a test in order, each with its process and user.
fn acts(runner: &mut TestRunner) -> Vec<(usize, usize, Act)> {
    let strategy = prop::collection::vec((0..PROCESSES, 0..2_usize, act()), 60..120);
    strategy.new_tree(runner).unwrap().current()
}

fn apply(
    offered: &VersionOffer,
    operation: Operation,
    attempt: Option<&Attempt>,
    now: Timestamp,
) -> Result<Outcome, CoreError> {
    let attempt = attempt.map(|attempt| (attempt, &offered.latest));
    let context = ProgressContext { attempt, offered, now, random: &SystemRandom };
    match operation {
        Operation::Advance => context.advance(None),
        Operation::Select => context.select(SelectOptions::default()),
        Operation::Restart => context.select(SelectOptions { resume: false, confirmed: true, to_latest: false }),
        Operation::Reset => context.reset(),
    }
}

/// Returns the attempt without its ID, which is random.
fn comparable(attempt: Option<Attempt>) -> Option<Attempt> {
    attempt.map(|attempt| Attempt { id: waypost_core::id::ProgressId::from_store(String::new()), ..attempt })
}

impl Processes {
    async fn find(&self, key: &ProgressKey) -> Option<Attempt> {
        progress::find_open(&mut self.stage.db.read().await.unwrap(), key).await.unwrap()
    }

    async fn execute(&self, sql: String) {
        let mut tx = self.stage.db.begin().await.unwrap();
        execute(&mut tx, sql).await;
        tx.commit().await.unwrap();
    }

    /// Runs an operation in a process. Returns the decision.
    async fn call(&self, process: usize, key: &ProgressKey, operation: Operation, now: Timestamp) -> Decision {
        let offered = self.stage.fixture.version_offer();
        let decide: DecideFn = Box::new(move |attempt| {
            apply(&offered, operation, attempt, now)
                .map_or_else(Decision::Rejected, |outcome| Decision::Done(Box::new(outcome)))
        });
        let call = ProgressCall { new_end_user: None, now, ..call(&self.stage.fixture, key.clone(), decide) };
        self.writers[process].call(call).await.unwrap()
    }

    async fn complete_elsewhere(&self, key: &ProgressKey, now: Timestamp) {
        let Some(attempt) = self.find(key).await else { return };
        let Some(ordinal) = (0..STEPS).rev().find(|ordinal| !attempt.completed.contains(*ordinal)) else { return };
        let mut completed = attempt.completed.clone();
        completed.insert(ordinal);
        if completed.len() == STEPS as usize {
            return;
        }
        let (id, step) = (&attempt.id, self.stage.fixture.step(ordinal));
        self.execute(format!("UPDATE progress SET completed_steps = '{}' WHERE id = '{id}'", completed.to_hex())).await;
        self.execute(format!(
            "INSERT INTO step_completions (progress_id, step_id, version_id, completed_at)
             VALUES ('{id}', '{step}', '{}', {})",
            attempt.version_id, now.0
        ))
        .await;
    }
}

/// For any sequence of calls in several processes and of changes that bypass the writers, every call takes effect on
/// the current state of its attempt, as if there were no caches.
async fn a_call_is_decided_on_the_current_state(processes: Processes) {
    processes.stage.end_users(2).await;
    let mut runner = TestRunner::new(Config::default());
    let mut changed = 0;
    for (n, (process, user, act)) in acts(&mut runner).into_iter().enumerate() {
        let (key, now) = (processes.stage.key(user), Timestamp(NOW.0 + i64::try_from(n).unwrap()));
        let before = processes.find(&key).await;
        let context = format!("{n}: {act:?} in process {process} on {before:?}");
        match act {
            Act::Call(operation) => {
                let expected = apply(&processes.stage.fixture.version_offer(), operation, before.as_ref(), now);
                let decision = processes.call(process, &key, operation, now).await;
                let after = processes.find(&key).await;
                match (expected, decision) {
                    (Ok(expected), Decision::Done(outcome)) => {
                        changed += usize::from(!outcome.change.is_empty());
                        assert_eq!(outcome.completed_step_id, expected.completed_step_id, "{context}");
                        assert_eq!(outcome.notices, expected.notices, "{context}");
                        assert_eq!(comparable(after), comparable(expected.progress.attempt), "{context}");
                    }
                    (Err(expected), Decision::Rejected(error)) => {
                        assert_eq!(error.code, expected.code, "{context}");
                        assert_eq!(after, before, "{context}");
                    }
                    other => panic!("{context}: {other:?}"),
                }
            }
            Act::CompleteElsewhere => processes.complete_elsewhere(&key, now).await,
            Act::CloseElsewhere => {
                let sql = "UPDATE progress SET closed_at = 1 WHERE closed_at IS NULL AND end_user_id =";
                processes.execute(format!("{sql} '{}'", key.end_user_id)).await;
            }
            Act::DeleteUser => {
                let (user, organization) = (&key.end_user_id, &key.organization_id);
                processes.execute(format!("DELETE FROM end_users WHERE id = '{user}'")).await;
                let columns = "end_users (id, organization_id, created_at)";
                processes.execute(format!("INSERT INTO {columns} VALUES ('{user}', '{organization}', 1)")).await;
            }
        }
    }
    assert!(changed > 0);
    let mut conn = processes.stage.db.read().await.unwrap();
    for user in 0..2 {
        let key = processes.stage.key(user);
        for attempt in progress::list_attempts(&mut conn, &key).await.unwrap() {
            let rows = progress::list_completions(&mut conn, &key.organization_id, &attempt.id).await.unwrap();
            let completed: BTreeSet<_> = (0..STEPS).filter(|ordinal| attempt.completed.contains(*ordinal)).collect();
            let expected: BTreeSet<_> =
                completed.into_iter().map(|ordinal| processes.stage.fixture.step(ordinal)).collect();
            assert_eq!(rows.into_iter().map(|(step, _)| step).collect::<BTreeSet<_>>(), expected);
        }
    }
}

/// Several processes advance the same attempts concurrently: each call completes the next step, and none is lost or
/// counted twice.
async fn no_advance_is_lost_between_processes(processes: Processes) {
    const CALLS: usize = 24;
    const KEYS: usize = 2;
    processes.stage.end_users(KEYS).await;
    let processes = Arc::new(processes);
    let tasks: Vec<_> = (0..PROCESSES * 2)
        .map(|task| {
            let processes = Arc::clone(&processes);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for n in 0..CALLS / 2 {
                    let at = (task + n) % KEYS;
                    let key = processes.stage.key(at);
                    let decide = begin_or_advance(&processes.stage.fixture);
                    let call = ProgressCall { new_end_user: None, ..call(&processes.stage.fixture, key, decide) };
                    let Decision::Done(outcome) = processes.writers[task % PROCESSES].call(call).await.unwrap() else {
                        panic!("rejected")
                    };
                    seen.push((at, outcome.completed_step_id, outcome.progress.completed()));
                }
                seen
            })
        })
        .collect();
    let mut by_key: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for task in tasks {
        for (key, step, completed) in task.await.unwrap() {
            by_key.entry(key).or_default().push((completed, step));
        }
    }
    for (key, mut seen) in by_key {
        seen.sort();
        let mut expected: Vec<_> = (0..seen.len())
            .map(|n| {
                let done = n.min(STEPS as usize);
                (done, (n == done && n > 0).then(|| processes.stage.fixture.step(u32::try_from(n).unwrap() - 1)))
            })
            .collect();
        expected.sort();
        assert_eq!(seen, expected, "key {key}");
        processes.stage.completed(&processes.stage.key(key)).await;
    }
}

/// Several processes create the same user at the same time, while other calls advance another user: one call creates
/// the user, with the first attempt and its records; the others change nothing, and no advance is lost.
async fn one_call_creates_a_user(processes: Processes) {
    const ROUNDS: usize = 4;
    const CALLS: usize = PROCESSES * 4;
    processes.stage.end_users(1).await;
    let (processes, other) = (&processes, &processes.stage.key(0));
    let fixture = &processes.stage.fixture;
    for round in 0..ROUNDS {
        let calls = (0..CALLS).map(|n| async move {
            let writer = &processes.writers[n % PROCESSES];
            if n >= PROCESSES * 2 {
                let call =
                    ProgressCall { new_end_user: None, ..call(fixture, other.clone(), begin_or_advance(fixture)) };
                assert!(matches!(writer.call(call).await, Ok(Decision::Done(_))));
                return None;
            }
            let key = processes.stage.key(1 + round * CALLS + n);
            let mut call = call(fixture, key.clone(), begin_or_advance(fixture));
            call.new_end_user.as_mut().unwrap().tracking_id = Some(format!("user-{round}"));
            Some((key, writer.call(call).await))
        });
        let mut created = 0;
        for (key, result) in futures::future::join_all(calls).await.into_iter().flatten() {
            let mut conn = processes.stage.db.read().await.unwrap();
            let exists =
                waypost_store::end_user::exists(&mut conn, &fixture.organization, &key.end_user_id).await.unwrap();
            let attempts = progress::list_attempts(&mut conn, &key).await.unwrap().len();
            match result {
                Ok(Decision::Done(_)) => {
                    created += 1;
                    assert_eq!((exists, attempts), (true, 1));
                }
                Err(error) => {
                    assert!(error.is_unique_violation(), "{error}");
                    assert_eq!((exists, attempts), (false, 0));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(created, 1);
    }
    let advances = ROUNDS * (CALLS - PROCESSES * 2);
    assert_eq!(processes.stage.completed(other).await, (advances - 1).min(STEPS as usize));
    let mut conn = processes.stage.db.read().await.unwrap();
    let calls = waypost_store::tool_call::list(&mut conn, &fixture.organization, &fixture.server, 99).await.unwrap();
    assert_eq!(calls.len(), ROUNDS + (advances - 1).min(STEPS as usize) + 1);
}

waypost_testkit::both!(processes =>
    a_call_is_decided_on_the_current_state,
    one_call_creates_a_user,
    no_advance_is_lost_between_processes,
);
