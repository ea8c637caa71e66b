//! Tests that retention deletes only rows older than their retention period, while calls continue.

use waypost_core::audit::AuditEvent;
use waypost_core::call::{Call, CallMethod, CallOutcome};
use waypost_core::id::{AgentId, AuditEventId, CallId, ToolCallId};
use waypost_core::{Clock, SystemRandom};
use waypost_ops::analytics;
use waypost_ops::identity::Credentials;
use waypost_ops::retention::{DeletedRows, RetentionPeriods, delete_old};
use waypost_store::tool_call::{self, ToolCall};
use waypost_store::{audit, call as gateway_call, counted_call, on, space};

use crate::hosted::{HostedTest, hosted};

const DAY: i64 = 86_400_000;
const CALLS: i64 = 1_234;

async fn count(hosted: &HostedTest, sql: &'static str) -> i64 {
    let mut conn = hosted.ops.store().read().await.unwrap();
    on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap())
}

/// Inserts calls, a call count, a call through the gateway and an audit event with the current time, and packs them a day later.
async fn insert_rows(hosted: &HostedTest) {
    let (db, now) = (hosted.ops.store(), hosted.clock.now());
    let call = |n: i64| ToolCall {
        id: ToolCallId::new(now, &SystemRandom),
        organization_id: hosted.org.clone(),
        server_id: hosted.server.clone(),
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
    // Further calls of the same minute are only counted.
    counted_call::record(&mut tx, (0..7).map(call).collect()).await.unwrap();
    let organization_id = hosted.org.clone();
    let (actor, target) = ("cli".to_owned(), "x".to_owned());
    let event = AuditEvent {
        id,
        organization_id,
        actor,
        act: "test.old".to_owned(),
        target,
        detail: serde_json::Map::new(),
        created_at: now,
    };
    audit::insert(&mut tx, &event).await.unwrap();
    let through_gateway = Call {
        id: CallId::new(now, &SystemRandom),
        organization_id: hosted.org.clone(),
        agent_id: AgentId::from_store("agt_1".to_owned()),
        instance_id: None,
        method: CallMethod::ToolsCall,
        tool: "find".to_owned(),
        outcome: CallOutcome::Denied,
        duration_ms: 1,
        upstream_ms: None,
        request_bytes: 1,
        response_bytes: 0,
        argument_shape: "{}".to_owned(),
        at: now,
    };
    gateway_call::insert(&mut tx, &[through_gateway]).await.unwrap();
    tx.commit().await.unwrap();
    hosted.clock.advance(DAY);
    analytics::pack_settled(db, &*hosted.clock).await.unwrap();
}

/// Nothing is deleted before the end of a period or without a period. Users can continue in the meantime.
async fn old_rows_are_deleted_while_users_continue(hosted: HostedTest) {
    insert_rows(&hosted).await;
    let db = hosted.ops.store().clone();
    let one_year = RetentionPeriods {
        tool_calls: Some(365 * DAY),
        events: Some(365 * DAY),
        audit: Some(365 * DAY),
        deliveries: Some(365 * DAY),
        gateway_calls: Some(365 * DAY),
    };
    hosted.clock.advance(364 * DAY - 1);
    assert_eq!(delete_old(&db, &*hosted.clock, &one_year).await.unwrap(), DeletedRows::default());
    hosted.clock.advance(10 * 365 * DAY);
    assert_eq!(delete_old(&db, &*hosted.clock, &RetentionPeriods::default()).await.unwrap(), DeletedRows::default());
    let deletion = tokio::spawn({
        let (db, clock) = (db.clone(), hosted.clock.clone());
        async move { delete_old(&db, &*clock, &one_year).await.unwrap() }
    });
    for n in 0..20 {
        let result = hosted.select(&Credentials::Nothing).await;
        assert!(result.is_ok(), "{n}");
    }
    let deleted = deletion.await.unwrap();
    assert!(deleted.tool_calls >= CALLS.unsigned_abs() && deleted.counted_calls == 1, "{deleted:?}");
    assert_eq!((deleted.gateway_calls, count(&hosted, "SELECT count(*) FROM calls").await), (1, 0));
    assert_eq!(count(&hosted, "SELECT count(*) FROM counted_calls").await, 0);
    assert_eq!(count(&hosted, "SELECT count(*) FROM tool_calls WHERE tool = 'list_walkthroughs'").await, 0);
    assert_eq!(count(&hosted, "SELECT count(*) FROM audit_events WHERE act = 'test.old'").await, 0);
    assert_eq!(count(&hosted, "SELECT count(*) FROM progress").await, 20, "progress is kept");
}

/// Retention releases free pages of a SQLite file, except a reserve for new rows, even without any period.
async fn free_space_is_released(hosted: HostedTest) {
    let db = hosted.ops.store().clone();
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
    delete_old(&db, &*hosted.clock, &RetentionPeriods::default()).await.unwrap();
    let after = space::count_pages(&db).await.unwrap().unwrap();
    assert_eq!(after.free, 1_024, "4 MiB are kept: {after:?}");
    // Pages of SQLite's pointer map are released with them.
    assert!(before.all - after.all >= before.free - after.free, "{before:?} {after:?}");
}

waypost_testkit::both!(hosted => old_rows_are_deleted_while_users_continue);
waypost_testkit::both!(extended hosted => free_space_is_released);
