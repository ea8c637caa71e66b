//! The writer with concurrent callers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use waypost_core::id::{EndUserId, WalkthroughId};
use waypost_core::progress::operations::{ProgressContext, SelectOptions};
use waypost_core::progress::{Attempt, Outcome, StepSet};
use waypost_core::random::SeededRandom;
use waypost_core::{Code, Error as CoreError, Random, SystemRandom};
use waypost_store::progress::{self, NewEndUser, ProgressKey};
use waypost_store::writer::{DecideFn, Decision, ProgressCall, Writer};
use waypost_store::{Db, Error};

use crate::fixture::{Fixture, NOW, STEPS};
use crate::open;

pub(crate) struct Stage {
    pub(crate) db: Db,
    pub(crate) fixture: Fixture,
    pub(crate) writer: Writer,
}

pub(crate) async fn stage(url: &str) -> Stage {
    let db = open(url).await;
    let fixture = Fixture::new(1);
    fixture.seed(&db).await;
    let (writer, _tasks) = Writer::start(db.clone(), Arc::new(SystemRandom));
    Stage { db, fixture, writer }
}

/// Starts the walkthrough if it is not started, otherwise completes the current step.
pub(crate) fn begin_or_advance(fixture: &Fixture) -> DecideFn {
    let offered = fixture.version_offer();
    let random: Arc<dyn Random> = Arc::new(SystemRandom);
    Box::new(move |attempt: Option<&Attempt>| {
        let view = ProgressContext {
            attempt: attempt.map(|progress| (progress, &offered.latest)),
            offered: &offered,
            now: NOW,
            random: &*random,
        };
        match attempt {
            None => Decision::Done(Box::new(view.select(SelectOptions::default()).unwrap())),
            Some(_) => view.advance(None).map_or_else(Decision::Rejected, |outcome| Decision::Done(Box::new(outcome))),
        }
    })
}

pub(crate) fn call(fixture: &Fixture, key: ProgressKey, decide: DecideFn) -> ProgressCall {
    let new_end_user = NewEndUser {
        id: key.end_user_id.clone(),
        organization_id: key.organization_id.clone(),
        tracking_id: None,
        claimed_email: None,
        is_test: false,
        created_at: NOW,
    };
    let record = fixture.tool_call("");
    let random = SystemRandom;
    let tool_call = move |_: &Outcome| waypost_store::tool_call::ToolCall {
        id: waypost_core::id::ToolCallId::new(NOW, &random),
        end_user_id: None,
        ..record.clone()
    };
    ProgressCall {
        key,
        new_end_user: Some(new_end_user),
        new_session: None,
        client_name: None,
        tool_call: Some(Box::new(tool_call)),
        deliveries: None,
        decide,
        now: NOW,
    }
}

impl Stage {
    pub(crate) fn key(&self, n: usize) -> ProgressKey {
        self.fixture.progress_key(&EndUserId::from_store(format!("eu_w{n}")))
    }

    /// Inserts the end users of the first `count` keys, so that calls do not have to create them.
    pub(crate) async fn end_users(&self, count: usize) {
        let mut tx = self.db.begin().await.unwrap();
        for n in 0..count {
            let key = self.key(n);
            let sql = format!(
                "INSERT INTO end_users (id, organization_id, created_at) VALUES ('{}', '{}', 1)",
                key.end_user_id, key.organization_id
            );
            crate::fixture::execute(&mut tx, sql).await;
        }
        tx.commit().await.unwrap();
    }

    /// Checks that the step set equals the completion rows. Returns the number of completed steps.
    pub(crate) async fn completed(&self, key: &ProgressKey) -> usize {
        let mut conn = self.db.read().await.unwrap();
        let history = progress::list_attempts(&mut conn, key).await.unwrap();
        let [attempt] = history.as_slice() else { panic!("one attempt, not {}", history.len()) };
        let rows = progress::list_completions(&mut conn, &key.organization_id, &attempt.id).await.unwrap();
        let ordinals: HashMap<_, _> = (0..STEPS).map(|index| (self.fixture.step(index), index)).collect();
        let rows: StepSet = rows.into_iter().map(|(step, _)| ordinals[&step]).collect();
        assert_eq!(rows, attempt.completed);
        rows.len()
    }
}

/// All tasks share the same keys. In any order, the first call per key starts the walkthrough, and each further call
/// completes the next step until none is left.
async fn no_advance_is_lost(stage: Stage) {
    const TASKS: usize = 8;
    const CALLS: usize = 36;
    const KEYS: usize = 6;
    stage.end_users(KEYS).await;
    let stage = Arc::new(stage);
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let stage = Arc::clone(&stage);
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            for n in 0..CALLS {
                let at = (task + n) % KEYS;
                let call = ProgressCall {
                    new_end_user: None,
                    ..call(&stage.fixture, stage.key(at), begin_or_advance(&stage.fixture))
                };
                let Decision::Done(outcome) = stage.writer.call(call).await.unwrap() else { panic!("rejected") };
                seen.push((at, outcome.completed_step_id, outcome.progress.completed()));
            }
            seen
        }));
    }
    let mut by_key: BTreeMap<usize, Vec<_>> = BTreeMap::new();
    for task in tasks {
        for (key, step, completed) in task.await.unwrap() {
            by_key.entry(key).or_default().push((completed, step));
        }
    }
    assert_eq!(by_key.len(), KEYS);
    for (key, mut seen) in by_key {
        assert_eq!(seen.len(), TASKS * CALLS / KEYS);
        seen.sort();
        let mut expected: Vec<_> = (0..seen.len())
            .map(|n| {
                let done = n.min(STEPS as usize);
                (done, (n == done && n > 0).then(|| stage.fixture.step(u32::try_from(n).unwrap() - 1)))
            })
            .collect();
        expected.sort();
        assert_eq!(seen, expected, "key {key}");
        assert_eq!(stage.completed(&stage.key(key)).await, (TASKS * CALLS / KEYS - 1).min(STEPS as usize));
    }
}

/// Each task has its own key, and the first call creates the end user.
async fn calls_of_different_users_are_independent(stage: Stage) {
    const TASKS: usize = 24;
    let stage = Arc::new(stage);
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let stage = Arc::clone(&stage);
        tasks.push(tokio::spawn(async move {
            for n in 0..5 {
                let mut call = call(&stage.fixture, stage.key(task), begin_or_advance(&stage.fixture));
                if n > 0 {
                    call.new_end_user = None;
                }
                let Decision::Done(outcome) = stage.writer.call(call).await.unwrap() else { panic!("rejected") };
                assert_eq!(outcome.progress.completed(), n);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for task in 0..TASKS {
        assert_eq!(stage.completed(&stage.key(task)).await, 4);
    }
}

/// Calls that the database rejects, that are rejected, or that panic do not affect other calls.
async fn a_failing_call_does_not_affect_others(stage: Stage) {
    let mut calls = Vec::new();
    for n in 0..40 {
        let mut key = stage.key(n);
        let decide: DecideFn = match n % 10 {
            3 => {
                key.walkthrough_id = WalkthroughId::from_store("wt_gone".into());
                begin_or_advance(&stage.fixture)
            }
            5 => Box::new(|_| Decision::Rejected(CoreError::new(Code::NoProgress, "no"))),
            7 => Box::new(|_| panic!("a fault")),
            _ => begin_or_advance(&stage.fixture),
        };
        let mut call = call(&stage.fixture, key, decide);
        if n % 10 == 9 {
            call.tool_call = Some(Box::new(|_| panic!("a fault in the record")));
        }
        calls.push(stage.writer.call(call));
    }
    for (n, result) in futures::future::join_all(calls).await.into_iter().enumerate() {
        match (n % 10, result) {
            (3, Err(error)) => assert!(error.is_foreign_key_violation(), "{error}"),
            (5, Ok(Decision::Rejected(error))) => assert_eq!(error.code, Code::NoProgress),
            (7 | 9, Ok(Decision::Rejected(error))) => assert_eq!(error.code, Code::Internal),
            (0 | 1 | 2 | 4 | 6 | 8, Ok(Decision::Done(_))) => assert_eq!(stage.completed(&stage.key(n)).await, 0),
            (_, other) => panic!("{n}: {other:?}"),
        }
    }
    let mut conn = stage.db.read().await.unwrap();
    for n in [3, 5, 7, 9] {
        let end_user = stage.key(n).end_user_id;
        let exists = waypost_store::end_user::exists(&mut conn, &stage.fixture.organization, &end_user);
        assert!(!exists.await.unwrap(), "{n}: a call without effect creates no end user");
    }
}

/// Start, advance, reset and restart in one sequence: the history is correct regardless of the grouping.
async fn attempts_are_ordered(stage: Stage) {
    stage.end_users(1).await;
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
    let mut calls = Vec::new();
    for n in 0..12 {
        let (offered, random) = (stage.fixture.version_offer(), Arc::clone(&random));
        let decide: DecideFn = Box::new(move |attempt| {
            let attempt = attempt.map(|progress| (progress, &offered.latest));
            let view = ProgressContext { attempt, offered: &offered, now: NOW, random: &*random };
            let outcome = match n % 4 {
                0 => view.select(SelectOptions { resume: false, confirmed: true, ..SelectOptions::default() }),
                3 => view.reset(),
                _ => view.advance(None),
            };
            outcome.map_or_else(Decision::Rejected, |outcome| Decision::Done(Box::new(outcome)))
        });
        calls.push(ProgressCall { new_end_user: None, ..call(&stage.fixture, stage.key(0), decide) });
    }
    // The queue keeps the order, but two workers may process two groups, so each call waits for the previous one.
    for call in calls {
        assert!(matches!(stage.writer.call(call).await, Ok(Decision::Done(_))));
    }
    let mut conn = stage.db.read().await.unwrap();
    let history = progress::list_attempts(&mut conn, &stage.key(0)).await.unwrap();
    assert_eq!(history.len(), 3);
    for attempt in history {
        assert_eq!((attempt.completed.len(), attempt.closed_at), (2, Some(NOW)));
        let rows = progress::list_completions(&mut conn, &stage.fixture.organization, &attempt.id).await.unwrap();
        assert_eq!(rows.len(), 2);
    }
    assert_eq!(
        waypost_store::tool_call::list(&mut conn, &stage.fixture.organization, &stage.fixture.server, 99)
            .await
            .unwrap()
            .len(),
        12
    );
}

/// After the database is closed, every call returns the error `unavailable`.
async fn a_closed_database_is_reported_as_unavailable(stage: Stage) {
    stage.db.close().await;
    let calls = (0..5).map(|n| stage.writer.call(call(&stage.fixture, stage.key(n), begin_or_advance(&stage.fixture))));
    for result in futures::future::join_all(calls).await {
        let error = result.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        assert_eq!(CoreError::from(error).code, Code::Unavailable);
    }
    assert!(Error::WriterStopped.is_unavailable());
}

waypost_testkit::both!(stage =>
    no_advance_is_lost,
    calls_of_different_users_are_independent,
    a_failing_call_does_not_affect_others,
    attempts_are_ordered,
    a_closed_database_is_reported_as_unavailable,
);
