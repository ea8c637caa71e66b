//! Analytics reads the same data as the log, regardless of packing, retention and erasure.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use waypost_core::analytics::{DAY_MS, Filter, Log, TimeRange, timeline};
use waypost_core::event::EventKind;
use waypost_core::id::EndUserId;
use waypost_core::progress::operations::{ProgressContext, SelectOptions};
use waypost_core::{SystemRandom, Timestamp};
use waypost_store::activity::{self, ActivityQuery};
use waypost_store::analytics::{self, LogQuery, PackedLog};
use waypost_store::progress::NewEndUser;
use waypost_store::retention::{self, ServerLog};
use waypost_store::tool_call::ToolCall;
use waypost_store::writer::{Decision, ProgressCall, Writer};
use waypost_store::{Db, end_user};

use crate::fixture::{Fixture, NOW};
use crate::open;

const ALL: TimeRange = TimeRange { from: Timestamp(0), to: Timestamp(i64::MAX) };

/// A test user of the console. Their activity is in the log but is not counted.
const TESTER: &str = "eu_p4";

#[derive(Debug, Clone)]
enum Operation {
    /// A user continues after a pause, with a client.
    Play { user: u8, pause: i64, client: u8 },
    /// A user restarts the walkthrough.
    Restart { user: u8 },
    /// Rows are packed, `later` milliseconds after the last operation.
    Pack { later: i64 },
    /// A user is erased.
    Erase { user: u8 },
    /// Retention deletes packed rows of a log that are older than `age`, in batches.
    Retain { log: ServerLog, age: i64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => (0..5_u8, prop_oneof![Just(0_i64), 1..4_000_000_i64], 0..3_u8)
            .prop_map(|(user, pause, client)| Operation::Play { user, pause, client }),
        1 => (0..5_u8).prop_map(|user| Operation::Restart { user }),
        3 => (0..8_000_000_i64).prop_map(|later| Operation::Pack { later }),
        1 => (0..5_u8).prop_map(|user| Operation::Erase { user }),
        2 => (prop_oneof![Just(ServerLog::Calls), Just(ServerLog::Events)], 0..40_000_000_i64)
            .prop_map(|(log, age)| Operation::Retain { log, age }),
    ]
}

/// A row of the log: time, end user, and the row as text.
type Row = (Timestamp, String, String);

struct Stage {
    db: Db,
    fixture: Fixture,
    writer: Writer,
    /// The events and calls that retention has deleted from the log.
    deleted: Mutex<[Vec<Row>; 2]>,
}

async fn stage(url: &str) -> Stage {
    let db = open(url).await;
    let fixture = Fixture::new(1);
    fixture.seed(&db).await;
    Fixture::new(2).seed_with_activity(&db).await;
    let (writer, _tasks) = Writer::start(db.clone(), Arc::new(SystemRandom));
    Stage { db, fixture, writer, deleted: Mutex::default() }
}

impl Stage {
    async fn play(&self, user: &str, now: Timestamp, client: Option<String>, restart: bool) {
        let id = EndUserId::from_store(user.to_owned());
        let mut conn = self.db.read().await.unwrap();
        let is_new = !end_user::exists(&mut conn, &self.fixture.organization, &id).await.unwrap();
        drop(conn);
        let organization_id = self.fixture.organization.clone();
        let is_test = user == TESTER;
        let (tracking_id, claimed_email) = (None, None);
        let new = NewEndUser { id: id.clone(), organization_id, tracking_id, claimed_email, is_test, created_at: now };
        let call = ToolCall {
            id: waypost_core::id::ToolCallId::new(now, &SystemRandom),
            end_user_id: Some(id.clone()),
            client_name: client.clone(),
            is_test,
            created_at: now,
            ..self.fixture.tool_call("")
        };
        let offered = self.fixture.version_offer();
        let decide = move |attempt: Option<&waypost_core::progress::Attempt>| {
            let view = ProgressContext {
                attempt: attempt.map(|progress| (progress, &offered.latest)),
                offered: &offered,
                now,
                random: &SystemRandom,
            };
            let select = SelectOptions { resume: !restart, confirmed: true, ..SelectOptions::default() };
            Decision::Done(Box::new(match attempt {
                Some(_) if !restart => view.advance(None).unwrap(),
                _ => view.select(select).unwrap(),
            }))
        };
        let call = ProgressCall {
            key: self.fixture.progress_key(&id),
            new_end_user: is_new.then_some(new),
            new_session: None,
            client_name: client,
            tool_call: Some(Box::new(move |_| call.clone())),
            decide: Box::new(decide),
            deliveries: None,
            now,
        };
        assert!(matches!(self.writer.call(call).await, Ok(Decision::Done(_))));
    }

    async fn roll(&self, now: Timestamp) {
        let due = analytics::list_due(&mut self.db.read().await.unwrap(), now).await.unwrap();
        for due in due {
            let mut tx = self.db.begin().await.unwrap();
            while analytics::roll_up(&mut tx, &due, now).await.unwrap() {}
            tx.commit().await.unwrap();
        }
    }

    async fn read(&self, range: TimeRange) -> Log {
        let query = LogQuery {
            organization: &self.fixture.organization,
            server: Some(&self.fixture.server),
            walkthrough: Some(&self.fixture.walkthrough),
            range,
        };
        let mut packed = PackedLog::default();
        let mut tx = self.db.snapshot().await.unwrap();
        analytics::read_events(&mut tx, query, &mut packed).await.unwrap();
        analytics::read_calls(&mut tx, query, &mut packed).await.unwrap();
        packed.unpack(range).unwrap()
    }

    /// Returns the events and the calls in the log.
    async fn stored(&self) -> [Vec<Row>; 2] {
        let query = ActivityQuery {
            organization: &self.fixture.organization,
            server: None,
            end_user: None,
            walkthrough: Some(&self.fixture.walkthrough),
            range: ALL,
            after: None,
            oldest_first: true,
            limit: 1_000_000,
        };
        let mut conn = self.db.read().await.unwrap();
        let events = activity::list_events(&mut conn, &query).await.unwrap().into_iter().map(|event| {
            let step = event.step_id.as_ref().map_or("-", |step| step.as_str());
            let names =
                [event.progress_id.as_str(), event.end_user_id.as_str(), event.walkthrough_id.as_str()].join(" ");
            let (version, client) = (event.version_id.as_str(), event.client_name.as_deref().unwrap_or("-"));
            let text = format!("{} {names} {version} {step} {client} {:?}", event.kind, event.elapsed_ms);
            (event.created_at, event.end_user_id.to_string(), text)
        });
        let events = events.collect();
        let calls = activity::list_calls(&mut conn, &ActivityQuery { walkthrough: None, ..query }).await.unwrap();
        let calls = calls.into_iter().map(|call| {
            let user = call.end_user_id.map_or_else(|| "-".to_owned(), |user| user.to_string());
            (call.created_at, user, format!("{:?} {}", call.client_name, call.duration_us))
        });
        [events, calls.collect()]
    }

    /// Deletes packed rows of a log that are older than `before`, three at a time.
    async fn retain(&self, log: ServerLog, before: Timestamp) {
        let old = self.stored().await;
        loop {
            let mut tx = self.db.begin().await.unwrap();
            let rows = retention::delete_log(&mut tx, log, &self.fixture.server, before, 3).await.unwrap();
            tx.commit().await.unwrap();
            if rows < 3 {
                break;
            }
        }
        let remaining = self.stored().await;
        let mut deleted = self.deleted.lock().unwrap();
        for ((deleted, old), remaining) in deleted.iter_mut().zip(old).zip(remaining) {
            let mut remaining = remaining.into_iter().peekable();
            // Both lists have the same order, and the remaining rows are a subset.
            for row in old {
                if remaining.next_if_eq(&row).is_none() {
                    assert!(row.0 < before, "not older than {before}: {row:?}");
                    deleted.push(row);
                }
            }
            assert_eq!(remaining.next(), None);
        }
    }

    async fn erase(&self, user: &str) {
        let id = EndUserId::from_store(user.to_owned());
        let mut tx = self.db.begin().await.unwrap();
        end_user::delete(&mut tx, &self.fixture.organization, &id).await.unwrap();
        tx.commit().await.unwrap();
        for deleted in self.deleted.lock().unwrap().iter_mut() {
            deleted.retain(|(_, end_user, _)| end_user != user);
        }
    }

    /// Checks that analytics reads all rows of the log, including those that retention has deleted, in total and in a
    /// range.
    async fn check(&self, range: TimeRange) {
        for range in [ALL, range] {
            let log = self.read(range).await;
            let text = |number| log.names.text(number).unwrap_or("-").to_owned();
            let users = log.events.iter().map(|event| event.user).chain(log.calls.iter().map(|call| call.user));
            assert!(users.into_iter().all(|user| text(user) != TESTER), "test users are not counted");
            let events = log.events.iter().map(|event| {
                let names = [event.attempt, event.user, event.walkthrough, event.version, event.step, event.client]
                    .map(text)
                    .join(" ");
                let elapsed = (event.elapsed_ms >= 0).then_some(event.elapsed_ms);
                (event.at, text(event.user), format!("{} {names} {elapsed:?}", event.kind))
            });
            let calls = log.calls.iter().map(|call| {
                (call.at, text(call.user), format!("{:?} {}", log.names.text(call.client), call.duration_us))
            });
            let read: [Vec<Row>; 2] = [events.collect(), calls.collect()];
            let (stored, deleted) = (self.stored().await, self.deleted.lock().unwrap().clone());
            for ((mut read, stored), deleted) in read.into_iter().zip(stored).zip(deleted) {
                let mut known: Vec<Row> = stored.into_iter().chain(deleted).collect();
                known.retain(|(at, ..)| range.contains(*at));
                known.sort();
                read.sort();
                assert_eq!(read, known);
            }
        }
    }
}

/// Runs the sequences, and compares segments and log after each of them. Returns the time of the last operation.
async fn check_sequences(stage: &Stage, sequences: &[Vec<Operation>]) -> Timestamp {
    let mut now = NOW;
    let mut segments = 0;
    for operations in sequences {
        for operation in operations {
            match operation {
                Operation::Play { user, pause, client } => {
                    now = now.plus(*pause);
                    let client = (*client > 0).then(|| format!("client-{client}"));
                    stage.play(&format!("eu_p{user}"), now, client, false).await;
                }
                Operation::Restart { user } => stage.play(&format!("eu_p{user}"), now, None, true).await,
                Operation::Pack { later } => stage.roll(now.plus(*later)).await,
                Operation::Erase { user } => stage.erase(&format!("eu_p{user}")).await,
                Operation::Retain { log, age } => stage.retain(*log, now.plus(-age)).await,
            }
            // Time advances after packing, because no row may be written before the end of the segments.
            if let Operation::Pack { later } = operation {
                now = now.plus(*later);
            }
        }
        let from = NOW.plus(now.since(NOW) / 3);
        stage.check(TimeRange { from, to: NOW.plus(now.since(NOW) * 2 / 3) }).await;
        let count = "SELECT CAST(count(*) AS TEXT) FROM analytics_segments".to_owned();
        let mut conn = stage.db.read().await.unwrap();
        let count = crate::schema::rows::<1>(&mut conn, count).await.remove(0).into_iter().next().flatten();
        segments = segments.max(count.unwrap().parse::<u32>().unwrap());
    }
    assert!(segments > 10, "segments were created: {segments}");
    now
}

/// Segments and log contain the same rows after any sequence of operations, including erasure. The sequences run on the
/// same database one after the other, so a failing input is printed and not shrunk.
async fn segments_and_log_agree(stage: Stage) {
    let sequences = prop::collection::vec(prop::collection::vec(operation(), 30..60), 12);
    let config = Config { cases: 1, max_shrink_iters: 0, failure_persistence: None, ..Config::default() };
    let handle = tokio::runtime::Handle::current();
    let ended_at = Cell::new(NOW);
    let result = TestRunner::new(config).run(&sequences, |sequences| {
        ended_at.set(tokio::task::block_in_place(|| handle.block_on(check_sequences(&stage, &sequences))));
        Ok(())
    });
    result.unwrap();
    let mut now = ended_at.get();
    // Adds rows for the checks below, because the sequences may have erased most users.
    for n in 0..24 {
        stage.play(&format!("eu_p{}", n % 4), now, None, n < 4).await;
    }
    now = now.plus(DAY_MS);
    stage.roll(now).await;
    for log in [ServerLog::Calls, ServerLog::Events] {
        stage.retain(log, now).await;
    }
    stage.check(TimeRange { from: NOW, to: now }).await;
    let deleted = stage.deleted.lock().unwrap().each_ref().map(Vec::len);
    assert!(deleted.iter().all(|rows| *rows > 20), "retention deleted rows: {deleted:?}");
    for user in 0..5 {
        stage.erase(&format!("eu_p{user}")).await;
    }
    stage.check(ALL).await;
    assert_eq!(stage.read(ALL).await.events.len(), 0, "also erased from segments whose rows were deleted");
    stage.play(TESTER, now, None, false).await;
    let mut conn = stage.db.read().await.unwrap();
    let tester = EndUserId::from_store(TESTER.to_owned());
    let query = ActivityQuery {
        organization: &stage.fixture.organization,
        server: None,
        end_user: Some(&tester),
        walkthrough: None,
        range: ALL,
        after: None,
        oldest_first: true,
        limit: 1,
    };
    assert_eq!(
        activity::list_events(&mut conn, &query).await.unwrap().len(),
        1,
        "events of a test user are listed for that user"
    );
    assert!(activity::list_calls(&mut conn, &query).await.unwrap()[0].is_test);
}

/// The daily numbers do not change when the log is packed and deleted, in any time zone. There are events on both sides
/// of each midnight, where deletion ends. The days are those around 25 October 2026, which has 25 hours in Berlin.
async fn daily_numbers_are_kept_when_rows_are_deleted(stage: Stage) {
    const SUNDAY: Timestamp = Timestamp(1_792_886_400_000);
    const HOUR: i64 = 3_600_000;
    // The Line Islands, Nepal, Berlin in summer and in winter, UTC, and Baker Island.
    let offsets = [14 * HOUR, 5 * HOUR + 45 * 60_000, 2 * HOUR, HOUR, 0, -12 * HOUR];
    let mut midnights: Vec<_> =
        (0..3).flat_map(|day| offsets.map(|offset| SUNDAY.plus(day * DAY_MS - offset))).collect();
    midnights.sort();
    let (first, last) = (midnights[0], midnights[midnights.len() - 1]);
    for (n, at) in midnights.iter().flat_map(|at| [at.plus(-1), *at, at.plus(1)]).enumerate() {
        stage.play(&format!("eu_p{}", n % 4), at, None, n % 5 == 0).await;
    }
    let days = async || {
        let sunday_in_berlin = TimeRange { from: SUNDAY.plus(-2 * HOUR), to: SUNDAY.plus(23 * HOUR) };
        let mut days = Vec::new();
        for range in [
            sunday_in_berlin,
            TimeRange { from: first, to: last },
            TimeRange { from: first.plus(-1), to: last.plus(2) },
        ] {
            let log = stage.read(range).await;
            days.extend(offsets.map(|offset| timeline(&log, range, Filter::default(), DAY_MS, offset)));
        }
        days
    };
    let before = days().await;
    let whole: Vec<_> = before.iter().rev().take(offsets.len()).collect();
    let counts = whole.iter().map(|days| days.iter().map(|day| (day.started, day.active)).collect::<Vec<_>>());
    assert!(counts.flatten().filter(|(started, active)| *started > 0 && *active > 0).count() > 2 * offsets.len());
    stage.roll(last.plus(DAY_MS)).await;
    assert_eq!(days().await, before, "packed");
    for midnight in midnights {
        for log in [ServerLog::Calls, ServerLog::Events] {
            stage.retain(log, midnight).await;
        }
        for rows in stage.stored().await {
            assert_eq!(rows.iter().map(|(at, ..)| *at).min(), Some(midnight), "rows of exactly this age are kept");
        }
        assert_eq!(days().await, before, "deleted up to {midnight}");
    }
}

/// An event has the client and the time since the previous activity; a completion has the total duration.
async fn events_have_the_time_since_the_previous_activity(stage: Stage) {
    for (at, client) in [(0, "a"), (5_000, "b"), (5_000, "b"), (65_000, "b")] {
        stage.play("eu_p1", NOW.plus(at), Some(client.to_owned()), false).await;
    }
    stage.play("eu_p1", NOW.plus(70_000), None, true).await;
    let log = stage.read(ALL).await;
    let mut events: Vec<_> = log
        .events
        .iter()
        .map(|event| (event.at.since(NOW), event.kind, event.elapsed_ms, log.names.text(event.client)))
        .collect();
    events.sort_by_key(|(at, ..)| *at);
    let expected = [
        (0, EventKind::Started, -1, Some("a")),
        (5_000, EventKind::StepCompleted, 5_000, Some("b")),
        (5_000, EventKind::StepCompleted, 0, Some("b")),
        (65_000, EventKind::StepCompleted, 60_000, Some("b")),
        (70_000, EventKind::Restarted, -1, None),
    ];
    assert_eq!(events, expected);
    for at in 0..40 {
        stage.play("eu_p1", NOW.plus(80_000 + at * 1_000), None, false).await;
    }
    let took = stage.read(ALL).await.events.iter().find(|event| event.kind == EventKind::Completed).unwrap().took_ms;
    assert_eq!(took, 80_000 + 39_000 - 70_000);
}

/// The pages of each list add up to the whole list, in both directions.
async fn lists_are_paginated(stage: Stage) {
    for at in 0..30 {
        stage.play(&format!("eu_p{}", at % 3), NOW.plus(at / 2), None, false).await;
    }
    let mut conn = stage.db.read().await.unwrap();
    let user = EndUserId::from_store("eu_p1".to_owned());
    for (server, end_user) in [(None, None), (Some(&stage.fixture.server), None), (None, Some(&user))] {
        for oldest_first in [true, false] {
            let mut query = ActivityQuery {
                organization: &stage.fixture.organization,
                server,
                end_user,
                walkthrough: None,
                range: ALL,
                after: None,
                oldest_first,
                limit: 1_000,
            };
            let whole = activity::list_events(&mut conn, &query).await.unwrap();
            assert_eq!(whole.len(), if end_user.is_some() { 10 } else { 30 });
            let calls = activity::list_calls(&mut conn, &query).await.unwrap();
            assert_eq!(calls.len(), whole.len());
            query.limit = 7;
            let mut pages = Vec::new();
            loop {
                let page = activity::list_events(&mut conn, &query).await.unwrap();
                let Some(last) = page.last() else { break };
                query.after = Some((last.created_at, last.id.to_string()));
                pages.extend(page);
            }
            assert_eq!(pages, whole);
            assert!(whole.windows(2).all(|pair| (pair[0].created_at <= pair[1].created_at) == oldest_first
                || pair[0].created_at == pair[1].created_at));
        }
    }
    let other = Fixture::new(2);
    let query = ActivityQuery {
        organization: &stage.fixture.organization,
        server: Some(&other.server),
        end_user: None,
        walkthrough: None,
        range: ALL,
        after: None,
        oldest_first: true,
        limit: 10,
    };
    assert_eq!(activity::list_events(&mut conn, &query).await.unwrap(), []);
    let theirs = ActivityQuery { organization: &other.organization, ..query };
    assert_eq!(activity::list_sessions(&mut conn, &theirs).await.unwrap().len(), 1);
}

waypost_testkit::both!(stage =>
    segments_and_log_agree,
    daily_numbers_are_kept_when_rows_are_deleted,
    events_have_the_time_since_the_previous_activity,
    lists_are_paginated,
);
