//! Retention deletes what is old, and only that, while calls go on.

use waypost_core::audit::AuditEvent;
use waypost_core::id::{AuditEventId, ToolCallId};
use waypost_core::{Clock, SystemRandom};
use waypost_ops::analytics;
use waypost_ops::identity::Credentials;
use waypost_ops::retention::{DeletedRows, RetentionPeriods, delete_old};
use waypost_store::tool_call::{self, ToolCall};
use waypost_store::{audit, counted_call, on, space};

use crate::hosted::{Hosted, hosted};

const DAY: i64 = 86_400_000;
const CALLS: i64 = 1_234;

async fn count(world: &Hosted, sql: &'static str) -> i64 {
    let mut conn = world.ops.db().read().await.unwrap();
    on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap())
}

/// Calls, a count of calls, and an entry of the audit log from now, packed a day later.
async fn fill(world: &Hosted) {
    let (db, now) = (world.ops.db(), world.clock.now());
    let call = |n: i64| ToolCall {
        id: ToolCallId::new(now, &SystemRandom),
        organization_id: world.org.clone(),
        server_id: world.server.clone(),
        end_user_id: None,
        session_id: None,
        is_test: false,
        tool: "list_walkthroughs".to_owned(),
        arguments: "{}".to_owned(),
        outcome: "ok".to_owned(),
        duration_us: n,
        client_name: None,
        protocol_version: None,
        request_id: "r".to_owned(),
        created_at: now,
    };
    let calls: Vec<_> = (0..CALLS).map(call).collect();
    let id = AuditEventId::new(now, &SystemRandom);
    let mut tx = db.begin().await.unwrap();
    tool_call::insert(&mut tx, &calls).await.unwrap();
    // More of the same minute are only counted.
    counted_call::record(&mut tx, (0..7).map(call).collect()).await.unwrap();
    let organization_id = world.org.clone();
    let (actor, target) = ("cli".to_owned(), "x".to_owned());
    let entry = AuditEvent {
        id,
        organization_id,
        actor,
        act: "test.old".to_owned(),
        target,
        detail: serde_json::Map::new(),
        created_at: now,
    };
    audit::insert(&mut tx, &entry).await.unwrap();
    tx.commit().await.unwrap();
    world.clock.advance(DAY);
    analytics::pack_settled(db, &*world.clock).await.unwrap();
}

/// Nothing is deleted before its time, nothing at all without periods, and users get on meanwhile.
async fn what_is_old_is_deleted_while_users_play(world: Hosted) {
    fill(&world).await;
    let db = world.ops.db().clone();
    let year = RetentionPeriods {
        tool_calls: Some(365 * DAY),
        events: Some(365 * DAY),
        audit: Some(365 * DAY),
        deliveries: Some(365 * DAY),
    };
    world.clock.advance(364 * DAY - 1);
    assert_eq!(delete_old(&db, &*world.clock, &year).await.unwrap(), DeletedRows::default());
    world.clock.advance(10 * 365 * DAY);
    assert_eq!(delete_old(&db, &*world.clock, &RetentionPeriods::default()).await.unwrap(), DeletedRows::default());
    let deletion = tokio::spawn({
        let (db, clock) = (db.clone(), world.clock.clone());
        async move { delete_old(&db, &*clock, &year).await.unwrap() }
    });
    for n in 0..20 {
        let answer = world.select(&Credentials::Nothing).await;
        assert!(answer.is_ok(), "{n}");
    }
    let deleted = deletion.await.unwrap();
    assert!(deleted.tool_calls >= CALLS.unsigned_abs() && deleted.counted_calls == 1, "{deleted:?}");
    assert_eq!(count(&world, "SELECT count(*) FROM counted_calls").await, 0);
    assert_eq!(count(&world, "SELECT count(*) FROM tool_calls WHERE tool = 'list_walkthroughs'").await, 0);
    assert_eq!(count(&world, "SELECT count(*) FROM audit_events WHERE act = 'test.old'").await, 0);
    assert_eq!(count(&world, "SELECT count(*) FROM progress").await, 20, "progress stays");
}

/// A run returns free pages of a SQLite file, except those that stay for new rows. It does so without any period.
async fn free_space_is_released(world: Hosted) {
    let db = world.ops.db().clone();
    if space::count_pages(&db).await.unwrap().is_none() {
        return;
    }
    let mut tx = db.begin().await.unwrap();
    for sql in ["CREATE TABLE big (data BLOB)", "INSERT INTO big VALUES (zeroblob(12000000))", "DROP TABLE big"] {
        on!(&mut tx, c => sqlx::query(sql).execute(c).await.unwrap().rows_affected());
    }
    tx.commit().await.unwrap();
    let before = space::count_pages(&db).await.unwrap().unwrap();
    assert!(before.is_incremental && before.free > 2_900, "{before:?}");
    delete_old(&db, &*world.clock, &RetentionPeriods::default()).await.unwrap();
    let after = space::count_pages(&db).await.unwrap().unwrap();
    assert_eq!(after.free, 1_024, "4 MiB stay: {after:?}");
    // Pages of SQLite's pointer map go with them.
    assert!(before.all - after.all >= before.free - after.free, "{before:?} {after:?}");
}

waypost_testkit::both!(hosted => what_is_old_is_deleted_while_users_play, free_space_is_released);
