//! Retention: deleted rows, batches, and the freed space.

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use waypost_core::audit::AuditEvent;
use waypost_core::id::{AuditEventId, ToolCallId};
use waypost_core::{SystemRandom, Timestamp};
use waypost_store::retention::{self, CallCounts, ServerLog};
use waypost_store::tool_call::{self, RejectionCount, ToolCall};
use waypost_store::{Db, analytics, audit, migrate, space};

use crate::fixture::{Fixture, NOW};
use crate::open;

const DAY: i64 = 86_400_000;
/// The size in bytes of a call with 200 bytes of arguments, in the log and packed, as documented in docs/operations.md.
const DOCUMENTED_BYTES: (i64, i64) = (1_000, 60);

/// Inserts `count` calls to a server, one per second starting at `from`.
async fn add_calls(db: &Db, fixture: &Fixture, from: Timestamp, count: i64) {
    let call = |n: i64| {
        let at = from.plus(n * 1_000);
        let arguments = "x".repeat(200);
        let id = ToolCallId::new(at, &SystemRandom);
        ToolCall { id, created_at: at, arguments, end_user_id: None, ..fixture.tool_call("") }
    };
    let calls: Vec<_> = (0..count).map(call).collect();
    for calls in calls.chunks(500) {
        let mut tx = db.begin().await.unwrap();
        tool_call::insert(&mut tx, calls).await.unwrap();
        tx.commit().await.unwrap();
    }
}

async fn pack(db: &Db, now: Timestamp) {
    for due in analytics::list_due(&mut db.read().await.unwrap(), now).await.unwrap() {
        let mut tx = db.begin().await.unwrap();
        while analytics::roll_up(&mut tx, &due, now).await.unwrap() {}
        tx.commit().await.unwrap();
    }
}

async fn delete_calls(db: &Db, fixture: &Fixture, before: Timestamp, limit: i64) -> u64 {
    let mut tx = db.begin().await.unwrap();
    let rows = retention::delete_log(&mut tx, ServerLog::Calls, &fixture.server, before, limit).await.unwrap();
    tx.commit().await.unwrap();
    rows
}

async fn calls(db: &Db, fixture: &Fixture) -> Vec<Timestamp> {
    let mut conn = db.read().await.unwrap();
    let calls = tool_call::list(&mut conn, &fixture.organization, &fixture.server, 1_000_000).await.unwrap();
    calls.into_iter().map(|call| call.created_at).collect()
}

/// Only packed rows of the given server are deleted, oldest first and up to the limit.
async fn packed_rows_are_deleted_in_batches(db: Db) {
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed(&db).await;
    two.seed(&db).await;
    add_calls(&db, &one, NOW, 20).await;
    add_calls(&db, &two, NOW, 20).await;
    let after = NOW.plus(DAY);
    assert_eq!(delete_calls(&db, &one, after, 100).await, 0, "nothing is packed yet");
    pack(&db, after).await;
    add_calls(&db, &one, after, 5).await;
    assert_eq!(delete_calls(&db, &one, NOW.plus(10_000), 4).await, 4);
    assert_eq!(calls(&db, &one).await.last(), Some(&NOW.plus(4_000)), "the oldest ones");
    assert_eq!(delete_calls(&db, &one, NOW.plus(10_000), 100).await, 6);
    assert_eq!(delete_calls(&db, &one, NOW.plus(2 * DAY), 100).await, 10);
    assert_eq!(calls(&db, &one).await.len(), 5, "rows that are not packed");
    assert_eq!(calls(&db, &two).await.len(), 20);
    let old = |before| {
        let db = db.clone();
        async move {
            let mut conn = db.read().await.unwrap();
            retention::list_servers_with_old_rows(&mut conn, ServerLog::Calls, before).await.unwrap()
        }
    };
    assert_eq!(old(NOW).await, [], "no row is older than the oldest row");
    assert_eq!(old(NOW.plus(1)).await, [two.server], "servers without packed rows are omitted");
}

/// Audit events and counts of rejected calls are deleted by age.
async fn audit_events_and_rejections_are_deleted_by_age(db: Db) {
    let one = Fixture::new(1);
    one.seed(&db).await;
    let mut tx = db.begin().await.unwrap();
    let minute = NOW.0 / 60_000;
    for n in 0..5 {
        let created_at = NOW.plus((n - 4) * DAY);
        let id = AuditEventId::new(created_at, &SystemRandom);
        audit::insert(&mut tx, &AuditEvent { id, created_at, ..one.audit_event(0) }).await.unwrap();
        let rejections = RejectionCount {
            server_id: one.server.clone(),
            minute: minute - n,
            reason: "unauthorized".to_owned(),
            organization_id: one.organization.clone(),
            count: 1,
        };
        tool_call::add_rejections(&mut tx, &[rejections]).await.unwrap();
    }
    let before = NOW.plus(-2 * DAY);
    assert_eq!(retention::delete_audit(&mut tx, before, 1).await.unwrap(), 1);
    assert_eq!(retention::delete_audit(&mut tx, before, 9).await.unwrap(), 1);
    let remaining = audit::list(&mut tx, &one.organization, None, 100).await.unwrap();
    assert!(
        remaining.iter().filter(|entry| entry.created_at <= NOW).all(|entry| entry.created_at >= before),
        "{remaining:?}"
    );
    let before = Timestamp((minute - 1) * 60_000);
    let first = Timestamp((minute - 4) * 60_000);
    assert_eq!(retention::list_servers_with_old_counts(&mut tx, CallCounts::Rejected, first).await.unwrap(), []);
    let servers =
        retention::list_servers_with_old_counts(&mut tx, CallCounts::Rejected, first.plus(60_000)).await.unwrap();
    assert_eq!(servers, std::slice::from_ref(&one.server), "also for a server without packed calls");
    assert_eq!(retention::delete_counts(&mut tx, CallCounts::Rejected, &one.server, before, 2).await.unwrap(), 2);
    assert_eq!(retention::delete_counts(&mut tx, CallCounts::Rejected, &one.server, before, 9).await.unwrap(), 1);
    tx.commit().await.unwrap();
}

/// The size of a call before and after packing and deletion matches docs/operations.md. Prints the sizes.
#[tokio::test]
async fn a_call_has_the_documented_size() {
    const CALLS: i64 = 20_000;
    let folder = waypost_testkit::folder();
    let db = open(&waypost_testkit::sqlite_url(&folder)).await;
    let fixture = Fixture::new(1);
    fixture.seed(&db).await;
    let bytes = async || {
        let pages = space::count_pages(&db).await.unwrap().unwrap();
        (pages.all - pages.free) * 4_096 / CALLS
    };
    let empty = bytes().await;
    add_calls(&db, &fixture, NOW, CALLS).await;
    let logged = bytes().await - empty;
    pack(&db, NOW.plus(DAY)).await;
    while delete_calls(&db, &fixture, NOW.plus(DAY), 500).await > 0 {}
    let packed = bytes().await - empty;
    println!("a call takes {logged} bytes in the log and {packed} bytes packed");
    assert!(logged < DOCUMENTED_BYTES.0 && packed < DOCUMENTED_BYTES.1, "{logged} {packed}");
}

/// A SQLite file shrinks when rows are deleted and free pages are released.
#[tokio::test]
async fn the_file_shrinks() {
    let folder = waypost_testkit::folder();
    let url = waypost_testkit::sqlite_url(&folder);
    let db = open(&url).await;
    let fixture = Fixture::new(1);
    fixture.seed(&db).await;
    add_calls(&db, &fixture, NOW, 20_000).await;
    let before = space::count_pages(&db).await.unwrap().unwrap();
    assert!(before.is_incremental, "new files support it");
    pack(&db, NOW.plus(DAY)).await;
    while delete_calls(&db, &fixture, NOW.plus(DAY), 500).await > 0 {}
    let full = space::count_pages(&db).await.unwrap().unwrap();
    assert!(full.free > before.all / 2, "{full:?}");
    space::release_pages(&db, 10).await.unwrap();
    let step = space::count_pages(&db).await.unwrap().unwrap();
    assert_eq!(full.free - step.free, 10, "no more pages than requested");
    space::release_pages(&db, u32::MAX >> 1).await.unwrap();
    let after = space::count_pages(&db).await.unwrap().unwrap();
    assert!(after.free == 0 && after.all < before.all / 2, "{before:?} {after:?}");
    db.close().await;
    let bytes = std::fs::metadata(folder.path().join("waypost.db")).unwrap().len();
    assert!(bytes < u64::try_from(before.all).unwrap() * 4_096 / 2, "{bytes}");
}

/// An old file releases no pages until it is compacted, which changes nothing else.
#[tokio::test]
async fn an_old_file_is_compacted_once() {
    let folder = waypost_testkit::folder();
    let url = waypost_testkit::empty_sqlite_url(&folder);
    let old = url.parse::<SqliteConnectOptions>().unwrap().create_if_missing(true);
    let mut old = old.pragma("journal_mode", "wal").connect().await.unwrap();
    sqlx::query("CREATE TABLE before (id TEXT)").execute(&mut old).await.unwrap();
    drop(old);
    let db = Db::open(&url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    let fixture = Fixture::new(1);
    fixture.seed(&db).await;
    add_calls(&db, &fixture, NOW, 2_000).await;
    pack(&db, NOW.plus(DAY)).await;
    while delete_calls(&db, &fixture, NOW.plus(DAY), 500).await > 0 {}
    add_calls(&db, &fixture, NOW.plus(DAY), 3).await;
    space::release_pages(&db, 1_000).await.unwrap();
    let pages = space::count_pages(&db).await.unwrap().unwrap();
    assert!(!pages.is_incremental && pages.free > 10, "{pages:?}");
    space::compact(&db).await.unwrap();
    db.close().await;
    let db = open(&url).await;
    let after = space::count_pages(&db).await.unwrap().unwrap();
    assert!(after.is_incremental && after.free == 0 && after.all < pages.all, "{after:?}");
    assert_eq!(calls(&db, &fixture).await.len(), 3);
}

waypost_testkit::both!(open => packed_rows_are_deleted_in_batches, audit_events_and_rejections_are_deleted_by_age);
