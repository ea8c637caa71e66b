//! The gateway's call log.

use waypost_core::call::{Call, CallMethod, CallOutcome};
use waypost_core::id::{AgentId, CallId, InstanceId, OrganizationId};
use waypost_core::{SystemRandom, Timestamp};
use waypost_store::call::{self, CallFilter, CallSummary};
use waypost_store::call_contents::{self, SealedContents};
use waypost_store::recorder::{Recorder, RecorderEntry};
use waypost_store::{Db, Dialect, Tx, agent, organization};

use crate::fixture::{Fixture, execute};
use crate::open;

const ALL: CallFilter<'_> = CallFilter {
    agent: None,
    instance: None,
    tool: None,
    outcome: None,
    since: Timestamp(0),
    until: Timestamp(i64::MAX),
    after: None,
};

struct Log {
    db: Db,
    tx: Tx,
    one: Fixture,
    two: Fixture,
}

async fn log(url: &str) -> Log {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    let mut tx = db.begin().await.unwrap();
    // The fixture's own calls.
    call::delete_old(&mut tx, Timestamp(i64::MAX), 9).await.unwrap();
    Log { db, tx, one, two }
}

fn new_call(fixture: &Fixture, at: i64) -> Call {
    Call {
        id: CallId::new(Timestamp(at), &SystemRandom),
        organization_id: fixture.organization.clone(),
        agent_id: AgentId::from_store("agt_1".to_owned()),
        instance_id: Some(InstanceId::from_store("ins_1".to_owned())),
        method: CallMethod::ToolsCall,
        tool: "search".to_owned(),
        outcome: CallOutcome::Ok,
        duration_ms: 12,
        upstream_ms: Some(9),
        request_bytes: 120,
        response_bytes: i64::MAX,
        argument_shape: r#"{"q'\"é":"string"}"#.to_owned(),
        at: Timestamp(at),
    }
}

async fn list(tx: &mut Tx, organization: &OrganizationId, filter: CallFilter<'_>) -> Vec<Call> {
    call::list(tx, organization, filter, 9).await.unwrap()
}

async fn calls_are_listed_newest_first_with_filters(Log { mut tx, one, two, .. }: Log) {
    let org = &one.organization;
    let read = new_call(&one, 1_000);
    let denied = Call {
        instance_id: None,
        outcome: CallOutcome::Denied,
        upstream_ms: None,
        tool: "a 'quoted' \u{2028} name 🚀".to_owned(),
        ..new_call(&one, 2_000)
    };
    let prompt = Call {
        agent_id: AgentId::from_store("agt_gone".to_owned()),
        instance_id: Some(InstanceId::from_store("ins_gone".to_owned())),
        method: CallMethod::PromptsGet,
        ..new_call(&one, 3_000)
    };
    let foreign = new_call(&two, 2_500);
    let calls = [read.clone(), denied.clone(), prompt.clone(), foreign.clone()];
    call::insert(&mut tx, &calls).await.unwrap();
    assert_eq!(list(&mut tx, org, ALL).await, [prompt.clone(), denied.clone(), read.clone()]);
    assert_eq!(list(&mut tx, &two.organization, ALL).await, [foreign]);
    assert_eq!(call::list(&mut tx, org, ALL, 1).await.unwrap(), std::slice::from_ref(&prompt));
    for (filter, expected) in [
        (CallFilter { agent: Some(&prompt.agent_id), ..ALL }, vec![&prompt]),
        (CallFilter { instance: read.instance_id.as_ref(), ..ALL }, vec![&read]),
        (CallFilter { tool: Some("search"), ..ALL }, vec![&prompt, &read]),
        (CallFilter { outcome: Some(CallOutcome::Ok), ..ALL }, vec![&prompt, &read]),
        (CallFilter { outcome: Some(CallOutcome::Denied), ..ALL }, vec![&denied]),
        (CallFilter { outcome: Some(CallOutcome::Failed), ..ALL }, vec![]),
        (CallFilter { since: Timestamp(2_000), ..ALL }, vec![&prompt, &denied]),
        (CallFilter { until: Timestamp(2_000), ..ALL }, vec![&read]),
        (CallFilter { since: Timestamp(1_000), until: Timestamp(1_001), ..ALL }, vec![&read]),
        (CallFilter { after: Some(&prompt.id), ..ALL }, vec![&denied, &read]),
        (CallFilter { after: Some(&prompt.id), until: Timestamp(2_000), ..ALL }, vec![&read]),
        (
            CallFilter { agent: Some(&read.agent_id), outcome: Some(CallOutcome::Denied), tool: Some("search"), ..ALL },
            vec![],
        ),
    ] {
        assert_eq!(list(&mut tx, org, filter).await.iter().collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

async fn calls_are_counted_for_each_agent_and_instance(Log { mut tx, one, two, .. }: Log) {
    let org = &one.organization;
    let other = Call { instance_id: Some(InstanceId::from_store("ins_2".to_owned())), ..new_call(&one, 2_000) };
    let unknown = Call { instance_id: None, outcome: CallOutcome::Denied, ..new_call(&one, 5_000) };
    let error = Call { outcome: CallOutcome::ToolError, ..new_call(&one, 4_000) };
    let calls = [new_call(&one, 1_000), other.clone(), new_call(&one, 3_000), error, unknown, new_call(&two, 4_500)];
    call::insert(&mut tx, &calls).await.unwrap();
    let mut summarize = async |since, limit| {
        let found = call::summarize(&mut tx, org, Timestamp(since), limit).await.unwrap();
        let toolbox = |one: &CallSummary| one.toolbox_id.as_ref().map(ToString::to_string);
        let expected = |one: &CallSummary| (one.instance_id.as_str() == "ins_1").then(|| "tbx_1".to_owned());
        assert!(found.iter().all(|one| toolbox(one) == expected(one)), "`ins_2` belongs to another organisation");
        let summary = |one: CallSummary| (one.instance_id.to_string(), one.calls, one.failures, one.last_at.0);
        found.into_iter().map(summary).collect::<Vec<_>>()
    };
    let one = |calls, failures| ("ins_1".to_owned(), calls, failures, 4_000);
    let two = ("ins_2".to_owned(), 1, 0, 2_000);
    assert_eq!(summarize(0, 9).await, [one(3, 1), two.clone()]);
    assert_eq!(summarize(2_000, 9).await, [one(2, 1), two.clone()]);
    assert_eq!(summarize(2_001, 9).await, [one(2, 1)]);
    assert_eq!(summarize(0, 3).await, [one(2, 1)], "the call of no instance counts for the limit");
    assert_eq!(summarize(4_001, 9).await, []);
}

/// 300 calls need several statements.
async fn any_number_of_calls_is_inserted(Log { mut tx, one, .. }: Log) {
    let gone = Call { organization_id: OrganizationId::from_store("org_gone".to_owned()), ..new_call(&one, 1) };
    call::insert(&mut tx, [&gone]).await.unwrap();
    for count in [0, 1, 127, 128, 129, 300] {
        let calls: Vec<Call> = (1..=count).map(|n| Call { duration_ms: n, ..new_call(&one, n) }).collect();
        // Each sixth call is followed by one of a deleted organisation.
        let followed = |call: &Call| call.duration_ms % 6 == 0;
        let mixed = calls.iter().flat_map(|call| std::iter::once(call).chain(followed(call).then_some(&gone)));
        call::insert(&mut tx, mixed).await.unwrap();
        let found = call::list(&mut tx, &one.organization, ALL, 400).await.unwrap();
        assert_eq!(found, calls.into_iter().rev().collect::<Vec<_>>());
        assert_eq!(call::delete_old(&mut tx, Timestamp(i64::MAX), 400).await.unwrap(), count.unsigned_abs());
    }
}

async fn old_calls_are_deleted_in_batches(Log { mut tx, one, two, .. }: Log) {
    let org = &one.organization;
    let calls: Vec<Call> = (1..=5).map(|n| new_call(&one, n * 1_000)).collect();
    call::insert(&mut tx, &calls).await.unwrap();
    call::insert(&mut tx, &[new_call(&two, 1_500)]).await.unwrap();
    assert_eq!(call::delete_old(&mut tx, Timestamp(1_000), 9).await.unwrap(), 0);
    assert_eq!(call::delete_old(&mut tx, Timestamp(4_000), 3).await.unwrap(), 3, "also of the other organisation");
    assert_eq!(call::delete_old(&mut tx, Timestamp(4_000), 3).await.unwrap(), 1);
    assert_eq!(call::delete_old(&mut tx, Timestamp(4_000), 3).await.unwrap(), 0);
    assert_eq!(list(&mut tx, org, ALL).await, [calls[4].clone(), calls[3].clone()]);
    assert_eq!(list(&mut tx, &two.organization, ALL).await, []);
}

/// The log outlives agents and instances, but not the organisation.
async fn the_log_ends_with_its_organisation(Log { mut tx, one, two, .. }: Log) {
    let org = &one.organization;
    let (own, other) = (new_call(&one, 1_000), new_call(&two, 1_000));
    call::insert(&mut tx, &[own.clone(), other.clone()]).await.unwrap();
    assert!(agent::delete(&mut tx, org, &own.agent_id).await.unwrap());
    assert_eq!(list(&mut tx, org, ALL).await, [own]);
    assert!(organization::delete(&mut tx, org).await.unwrap());
    assert_eq!(list(&mut tx, org, ALL).await, []);
    call::insert(&mut tx, &[new_call(&one, 2_000)]).await.unwrap();
    assert_eq!(list(&mut tx, org, ALL).await, [], "the organisation no longer exists");
    assert_eq!(list(&mut tx, &two.organization, ALL).await, [other]);
}

/// Contents belong to their call, and end also with the agent and the instance, which the log outlives.
async fn contents_end_with_what_they_belong_to(Log { db, mut tx, one, two }: Log) {
    let org = &one.organization;
    let calls = [1_000, 2_000, 3_000, 4_000].map(|at| new_call(&one, at));
    let sealed = |call: &Call, contents: &str| SealedContents {
        call_id: call.id.clone(),
        organization_id: call.organization_id.clone(),
        agent_id: call.agent_id.clone(),
        instance_id: call.instance_id.clone().unwrap(),
        contents: contents.to_owned(),
    };
    call::insert(&mut tx, &calls).await.unwrap();
    let [first, second, third, fourth] = &calls;
    // Without a call, an agent or an instance of the organisation, there are no contents.
    let unknown = new_call(&one, 5_000);
    let foreign = SealedContents { organization_id: two.organization.clone(), ..sealed(third, "foreign") };
    let gone = SealedContents { agent_id: AgentId::from_store("agt_gone".to_owned()), ..sealed(third, "gone") };
    let none = SealedContents { instance_id: InstanceId::from_store("ins_2".to_owned()), ..sealed(third, "none") };
    let rows = [sealed(first, "a'\u{2028}"), sealed(second, "b"), sealed(&unknown, "x"), foreign, gone, none];
    call_contents::insert(&mut tx, &rows).await.unwrap();
    for (call, expected) in [(first, Some("a'\u{2028}")), (second, Some("b")), (third, None), (&unknown, None)] {
        let found = call_contents::find(&mut tx, org, &call.id).await.unwrap();
        assert_eq!(found.as_deref(), expected);
    }
    assert_eq!(call_contents::find(&mut tx, &two.organization, &first.id).await.unwrap(), None);
    assert_eq!(call::find(&mut tx, org, &first.id).await.unwrap().as_ref(), Some(first));
    assert_eq!(call::find(&mut tx, &two.organization, &first.id).await.unwrap(), None);
    assert_eq!(call::delete_old(&mut tx, Timestamp(2_000), 9).await.unwrap(), 1);
    assert_eq!(call_contents::find(&mut tx, org, &first.id).await.unwrap(), None);
    assert!(agent::delete(&mut tx, org, &second.agent_id).await.unwrap());
    assert_eq!(call_contents::find(&mut tx, org, &second.id).await.unwrap(), None);
    assert_eq!(list(&mut tx, org, ALL).await.len(), 3, "the log keeps the calls");
    tx.commit().await.unwrap();
    // The recorder writes a call even if its contents are not stored any more.
    let (recorder, done) = Recorder::start(db.clone());
    assert!(recorder.has_room_for_contents());
    let call = new_call(&one, 6_000);
    let entry = (call.clone(), sealed(&call, "late"));
    recorder.record_or_drop(RecorderEntry::GatewayCallWithContents(Box::new(entry)));
    drop(recorder);
    done.await.unwrap();
    let mut conn = db.read().await.unwrap();
    assert_eq!(call::find(&mut conn, org, &call.id).await.unwrap(), Some(call.clone()));
    assert_eq!(call_contents::find(&mut conn, org, &call.id).await.unwrap(), None);
    assert_eq!(call_contents::find(&mut conn, org, &fourth.id).await.unwrap(), None);
}

/// Enqueuing never waits: while the recorder cannot write, the queue takes a limited number of calls, and all others are
/// dropped.
async fn a_full_queue_drops_calls(Log { db, mut tx, one, .. }: Log) {
    const QUEUE: usize = 8_192;
    const BATCH: usize = 512;
    // Until the end of the transaction. On SQLite, it is the only one that can write.
    if db.dialect() == Dialect::Postgres {
        execute(&mut tx, "LOCK TABLE calls".to_owned()).await;
    }
    let (recorder, done) = Recorder::start(db.clone());
    for at in 0..2 * QUEUE {
        let call = new_call(&one, i64::try_from(at).unwrap());
        recorder.record_or_drop(RecorderEntry::GatewayCall(Box::new(call)));
    }
    drop(recorder);
    tx.commit().await.unwrap();
    done.await.unwrap();
    let mut conn = db.read().await.unwrap();
    let written = call::list(&mut conn, &one.organization, ALL, 100_000).await.unwrap();
    // The recorder may have taken one batch before the queue was full.
    assert!((QUEUE..=QUEUE + BATCH).contains(&written.len()), "{}", written.len());
    assert_eq!(written.last().unwrap().at, Timestamp(0), "the first calls are kept");
}

waypost_testkit::both!(log =>
    calls_are_listed_newest_first_with_filters,
    calls_are_counted_for_each_agent_and_instance,
    any_number_of_calls_is_inserted,
    old_calls_are_deleted_in_batches,
    the_log_ends_with_its_organisation,
    contents_end_with_what_they_belong_to,
    a_full_queue_drops_calls,
);
