//! Calls by unidentified callers: rows and counts add up to the recorded calls, and the number of rows is limited
//! (src/counted_call.rs).

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use tokio::task::JoinHandle;
use waypost_core::analytics::TimeRange;
use waypost_core::id::ToolCallId;
use waypost_core::{SystemRandom, Timestamp};
use waypost_store::counted_call::{self, ROWS_PER_MINUTE};
use waypost_store::recorder::{Recorder, RecorderEntry};
use waypost_store::retention::{self, CallCounts};
use waypost_store::tool_call::ToolCall;
use waypost_store::{Db, server};

use crate::fixture::{Fixture, NOW, execute};
use crate::open;
use crate::schema::rows;

const ALL: TimeRange = TimeRange { from: Timestamp(0), to: Timestamp(i64::MAX) };
const MINUTE: i64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Unidentified,
    EndUser,
    Test,
}

#[derive(Debug, Clone)]
enum Operation {
    /// Calls of one kind to a server in one minute, recorded by one of two processes.
    Calls { process: usize, server: u8, minute: i64, kind: u8, caller: Caller, count: i64 },
    /// A process ends and is replaced by another one.
    Restart { process: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    let caller = prop_oneof![6 => Just(Caller::Unidentified), 1 => Just(Caller::EndUser), 1 => Just(Caller::Test)];
    prop_oneof![
        9 => (0..2_usize, 1..3_u8, 0..3_i64, 0..4_u8, caller, 1..50_i64).prop_map(
            |(process, server, minute, kind, caller, count)| {
                Operation::Calls { process, server, minute, kind, caller, count }
            }
        ),
        1 => (0..2_usize).prop_map(|process| Operation::Restart { process }),
    ]
}

fn call(server: u8, at: Timestamp, kind: u8, caller: Caller) -> ToolCall {
    let fixture = Fixture::new(server.into());
    ToolCall {
        id: ToolCallId::new(at, &SystemRandom),
        end_user_id: (caller == Caller::EndUser).then(|| fixture.end_user.clone()),
        is_test: caller == Caller::Test,
        tool: ["list_walkthroughs", "get_support"][usize::from(kind % 2)].to_owned(),
        outcome: ["ok", "rate_limited"][usize::from(kind / 2)].to_owned(),
        created_at: at,
        ..fixture.tool_call("")
    }
}

/// The number of calls by server, minute, tool and outcome.
type Totals = BTreeMap<[String; 4], i64>;

/// Adds up the rows of a query: the four key columns, then the number.
async fn totals(db: &Db, sql: &str) -> Totals {
    let mut totals = Totals::new();
    for row in rows::<5>(&mut db.read().await.unwrap(), sql.to_owned()).await {
        let [server, minute, tool, outcome, count] = row.map(Option::unwrap);
        *totals.entry([server, minute, tool, outcome]).or_default() += count.parse::<i64>().unwrap();
    }
    totals
}

async fn count(db: &Db, sql: &str) -> i64 {
    let [count] = rows::<1>(&mut db.read().await.unwrap(), sql.to_owned()).await.remove(0);
    count.unwrap().parse().unwrap()
}

struct Processes {
    db: Db,
    running: [Option<(Recorder, JoinHandle<()>)>; 2],
}

impl Processes {
    fn recorder(&mut self, process: usize) -> &Recorder {
        let db = &self.db;
        &self.running[process].get_or_insert_with(|| Recorder::start(db.clone())).0
    }

    /// Ends a process after it has written all recorded calls.
    async fn end(&mut self, process: usize) {
        if let Some((recorder, done)) = self.running[process].take() {
            drop(recorder);
            done.await.unwrap();
        }
    }
}

/// Runs the operations. Returns the number of calls by unidentified callers and of other calls.
async fn record(processes: &mut Processes, operations: &[Operation]) -> (Totals, i64) {
    let (mut unidentified, mut others) = (Totals::new(), 0);
    for operation in operations {
        match operation {
            Operation::Restart { process } => processes.end(*process).await,
            Operation::Calls { process, server, minute, kind, caller, count } => {
                for n in 0..*count {
                    let at = Timestamp((NOW.0.div_euclid(MINUTE) + minute) * MINUTE + n * 997 % MINUTE);
                    let call = call(*server, at, *kind, *caller);
                    if *caller == Caller::Unidentified {
                        let minute = at.0.div_euclid(MINUTE).to_string();
                        let names = [call.server_id.to_string(), minute, call.tool.clone(), call.outcome.clone()];
                        *unidentified.entry(names).or_default() += 1;
                    } else {
                        others += 1;
                    }
                    processes.recorder(*process).record(RecorderEntry::Call(Box::new(call))).await;
                }
            }
        }
    }
    for process in 0..2 {
        processes.end(process).await;
    }
    (unidentified, others)
}

async fn rows_and_counts_add_up(db: Db) {
    const ROWS: &str = "SELECT server_id, CAST(created_at / 60000 AS TEXT), tool, outcome, '1' FROM tool_calls
        WHERE end_user_id IS NULL AND NOT is_test";
    const COUNTS: &str =
        "SELECT server_id, CAST(minute AS TEXT), tool, outcome, CAST(count AS TEXT) FROM counted_calls";
    const OTHERS: &str = "SELECT CAST(count(*) AS TEXT) FROM tool_calls WHERE end_user_id IS NOT NULL OR is_test";
    for n in [1, 2] {
        Fixture::new(n).seed_with_activity(&db).await;
    }
    let mut processes = Processes { db: db.clone(), running: [None, None] };
    let mut runner = TestRunner::new(Config::default());
    let mut is_counted = false;
    for _ in 0..12 {
        let mut tx = db.begin().await.unwrap();
        execute(&mut tx, "DELETE FROM tool_calls; DELETE FROM counted_calls".to_owned()).await;
        tx.commit().await.unwrap();
        let operations = prop::collection::vec(operation(), 5..40).new_tree(&mut runner).unwrap().current();
        let (unidentified, others) = record(&mut processes, &operations).await;
        let (rows, counts) = (totals(&db, ROWS).await, totals(&db, COUNTS).await);
        assert_eq!(count(&db, OTHERS).await, others, "{operations:?}");
        let mut sum = rows.clone();
        let mut rows_of = BTreeMap::<_, i64>::new();
        for ([server, minute, ..], count) in &rows {
            *rows_of.entry((server, minute)).or_default() += count;
        }
        for (names, count) in &counts {
            *sum.entry(names.clone()).or_default() += count;
            assert_eq!(
                rows_of[&(&names[0], &names[1])],
                ROWS_PER_MINUTE,
                "counted although the limit of rows was not reached: {operations:?}"
            );
        }
        assert_eq!(sum, unidentified, "{operations:?}");
        assert!(rows_of.values().all(|rows| *rows <= ROWS_PER_MINUTE), "{rows_of:?} {operations:?}");
        is_counted |= !counts.is_empty();
        sums_agree(&db, &counts).await;
    }
    assert!(is_counted, "some calls are only counted");
}

/// Checks the sums that analytics and the list of servers use against the tables.
async fn sums_agree(db: &Db, counts: &Totals) {
    let begin = NOW.0.div_euclid(MINUTE) * MINUTE;
    let mut conn = db.read().await.unwrap();
    for n in [1, 2] {
        let Fixture { organization, server, .. } = Fixture::new(n);
        let of_server = |(names, _): &(&[String; 4], &i64)| names[0] == server.as_str();
        let counted: i64 = counts.iter().filter(of_server).map(|(_, count)| count).sum();
        let read = async |conn: &mut _, range| {
            let counted = counted_call::sum(conn, &organization, Some(&server), range).await.unwrap();
            assert_eq!(counted_call::sum(conn, &organization, None, range).await.unwrap(), counted, "its only server");
            counted.iter().map(|call| call.count).sum::<u64>().cast_signed()
        };
        assert_eq!(read(&mut conn, ALL).await, counted);
        for at in [begin, begin + 1, begin + MINUTE, begin + 2 * MINUTE - 1] {
            let parts = [TimeRange { to: Timestamp(at), ..ALL }, TimeRange { from: Timestamp(at), ..ALL }];
            let parts = [read(&mut conn, parts[0]).await, read(&mut conn, parts[1]).await];
            assert_eq!(parts.iter().sum::<i64>(), counted, "two ranges add up at {at}: {parts:?}");
        }
        let logged =
            format!("SELECT CAST(count(*) AS TEXT) FROM tool_calls WHERE server_id = '{server}' AND NOT is_test");
        let usage = server::usage(&mut conn, &organization, &server, Timestamp(0)).await.unwrap();
        assert_eq!(usage.calls, count(db, &logged).await + counted);
    }
}

/// Records `calls` calls by unidentified callers to server 1, within one minute.
async fn flood(db: &Db, at: Timestamp, calls: i64) {
    let (recorder, done) = Recorder::start(db.clone());
    for _ in 0..calls {
        recorder.record(RecorderEntry::Call(Box::new(call(1, at, 0, Caller::Unidentified)))).await;
    }
    drop(recorder);
    done.await.unwrap();
}

/// Counts are deleted by age and with their server.
async fn counts_are_deleted(db: Db) {
    const COUNTED: &str = "SELECT CAST(COALESCE(sum(count), 0) AS TEXT) FROM counted_calls";
    let one = Fixture::new(1);
    one.seed(&db).await;
    for minute in 0..3 {
        flood(&db, NOW.plus(minute * MINUTE), ROWS_PER_MINUTE + 10 + minute).await;
    }
    assert_eq!(count(&db, COUNTED).await, 10 + 11 + 12);
    let mut tx = db.begin().await.unwrap();
    let begin = Timestamp(NOW.0.div_euclid(MINUTE) * MINUTE);
    for (before, servers) in [(begin, vec![]), (begin.plus(MINUTE), vec![one.server.clone()])] {
        assert_eq!(
            retention::list_servers_with_old_counts(&mut tx, CallCounts::Unidentified, before).await.unwrap(),
            servers
        );
        let deleted =
            retention::delete_counts(&mut tx, CallCounts::Unidentified, &one.server, before, 9).await.unwrap();
        assert_eq!(deleted, servers.len() as u64);
    }
    tx.commit().await.unwrap();
    assert_eq!(count(&db, COUNTED).await, 11 + 12);
    let mut tx = db.begin().await.unwrap();
    assert!(server::delete(&mut tx, &one.organization, &one.server).await.unwrap());
    tx.commit().await.unwrap();
    flood(&db, NOW, ROWS_PER_MINUTE + 1).await;
    assert_eq!(count(&db, COUNTED).await, 0, "deleted with the server, and none are added afterwards");
}

waypost_testkit::both!(open => rows_and_counts_add_up, counts_are_deleted);
