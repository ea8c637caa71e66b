//! The recorder with more rejected calls than the capacity of its queue.

use waypost_core::Timestamp;
use waypost_core::analytics::TimeRange;
use waypost_store::Db;
use waypost_store::recorder::{Recorder, RecorderEntry};
use waypost_store::tool_call::{self, ToolCall};

use crate::fixture::{Fixture, NOW};
use crate::open;

async fn a_flood_of_rejected_calls_is_counted_and_displaces_no_record(db: Db) {
    const FLOOD: i64 = 100_000;
    let fixture = Fixture::new(1);
    fixture.seed(&db).await;
    let (recorder, done) = Recorder::start(db.clone());
    // This loop does not await, so the recorder's task, on the same thread, cannot write in the meantime.
    for n in 0..FLOOD {
        let reason = if n % 4 == 0 { "unauthorized" } else { "rate_limited" };
        recorder.count_rejection(&fixture.organization, &fixture.server, reason, NOW);
    }
    let call = ToolCall { end_user_id: None, ..fixture.tool_call("tc_after") };
    recorder.record(RecorderEntry::Call(Box::new(call))).await;
    drop(recorder);
    done.await.unwrap();

    let mut tx = db.begin().await.unwrap();
    let range = TimeRange { from: Timestamp(0), to: NOW.plus(1) };
    let rejected = tool_call::sum_rejected(&mut tx, &fixture.organization, None, range).await.unwrap();
    let counts: Vec<_> = rejected.iter().map(|call| (call.reason.as_str(), call.count)).collect();
    assert_eq!(counts, [("rate_limited", FLOOD * 3 / 4), ("unauthorized", FLOOD / 4)]);
    assert_eq!(tool_call::list(&mut tx, &fixture.organization, &fixture.server, 10).await.unwrap().len(), 1);
}

waypost_testkit::both!(open => a_flood_of_rejected_calls_is_counted_and_displaces_no_record);
