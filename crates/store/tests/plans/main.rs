//! No query of the store scans a whole table, according to the query plans of the databases.
//!
//! The statements are captured from the log while the store's functions run. This is a separate test binary,
//! because there is one log per process.

#[path = "../it/fixture.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use more of it")]
mod fixture;

mod agents;
mod console;
mod explain;
mod instances;
mod listener;
mod play;
mod sign_in;
mod tool_servers;

use std::sync::OnceLock;

use serde_json::Value;
use tokio::sync::MutexGuard;
use tracing_subscriber::layer::SubscriberExt;
use waypost_core::Timestamp;
use waypost_core::analytics::TimeRange;
use waypost_core::assignment::Assignment;
use waypost_core::chain::LinkUpdate;
use waypost_core::id::{SessionId, StepId, VersionId, WalkthroughId};
use waypost_core::organization::Role;
use waypost_core::revision::StepRevisionOperation;
use waypost_core::step::{Step, StepContent};
use waypost_core::version::{VersionInfo, Withdrawal};
use waypost_core::walkthrough::{WalkthroughSort, WalkthroughState, WalkthroughType};
use waypost_store::editing_session::EditingSession;
use waypost_store::step_revision::{DraftScope, NewRevision};
use waypost_store::tool_call::ToolCall;
use waypost_store::walkthrough_list::{SortValue, WalkthroughSearch};
use waypost_store::{
    Db, Tx, api_key, assignment, attempt_counts, audit, counted_call, editing_session, end_user, job_lease, migrate,
    offer, organization, overview, progress, retention, server, session, step, step_revision, system, tool_call, trash,
    user, version, walkthrough, walkthrough_list,
};

use crate::agents::use_agents;
use crate::console::{console_sign_in, invite, read_logs, use_tickets, use_webhooks, users};
use crate::explain::{insert_many_rows, scans};
use crate::fixture::{Fixture, NOW};
use crate::instances::{use_instances, use_toolboxes};
use crate::listener::{Listener, statements_log};
use crate::play::play;
use crate::sign_in::{authorize, join_progress, sign_in};
use crate::tool_servers::{use_catalog, use_secrets};

/// Opens a database and locks the log: both databases share it, so their tests run one after the other.
async fn open(url: &str) -> (Db, MutexGuard<'static, ()>) {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let turn = TURN.lock().await;
    static SET: OnceLock<()> = OnceLock::new();
    SET.get_or_init(|| tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Listener)).unwrap());
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    (db, turn)
}

/// Calls every function of the store that a request can reach. New functions must be added here.
async fn call_all(db: &Db, one: &Fixture) {
    let org = &one.organization;
    let mut tx = db.begin().await.unwrap();
    tx.config_version().await.unwrap();
    tx.list_changed_organizations(1, 10).await.unwrap();
    organization::find(&mut tx, org).await.unwrap();
    organization::update(&mut tx, &one.organization(), NOW).await.unwrap();
    system::find_organization_by_slug(&mut tx, "org-1").await.unwrap();
    system::list_organizations(&mut tx).await.unwrap();
    system::find_server_by_slug(&mut tx, "server-1").await.unwrap();
    system::find_server_by_id(&mut tx, &one.server).await.unwrap();
    system::find_api_key(&mut tx, "hash").await.unwrap();
    system::list_accounts(&mut tx, "a1@x.de").await.unwrap();
    users(&mut tx, one).await;
    user::find_member(&mut tx, org, &one.user).await.unwrap();
    user::find_member_by_email(&mut tx, org, "a1@x.de").await.unwrap();
    user::list_members(&mut tx, org).await.unwrap();
    user::lock_owners(&mut tx, org).await.unwrap();
    user::set_role(&mut tx, org, &one.user, Role::Owner).await.unwrap();
    api_key::find(&mut tx, org, &one.key).await.unwrap();
    api_key::find_by_name(&mut tx, org, "key").await.unwrap();
    let keys = api_key::list(&mut tx, org).await.unwrap();
    api_key::update(&mut tx, &keys[0]).await.unwrap();
    api_key::record_use(&mut tx, org, &one.key, NOW, NOW).await.unwrap();
    server::find(&mut tx, org, &one.server).await.unwrap();
    server::list(&mut tx, org).await.unwrap();
    server::search(&mut tx, org, server::ServerSearch { text: Some("a"), after: Some("b"), limit: 9 }).await.unwrap();
    server::usage(&mut tx, org, &one.server, NOW).await.unwrap();
    server::count_signed_in(&mut tx, org, &one.server, NOW).await.unwrap();
    server::count_contents(&mut tx, org, &one.server, NOW).await.unwrap();
    server::list_aliases(&mut tx, org, &one.server).await.unwrap();
    server::update(&mut tx, &one.server()).await.unwrap();
    server::release_alias(&mut tx, org, &one.server, "former-1").await.unwrap();
    assignment::find_by_walkthrough(&mut tx, org, &one.server, &one.walkthrough).await.unwrap();
    assignment::list(&mut tx, org, &one.server).await.unwrap();
    assignment::next_display_order(&mut tx, org, &one.server).await.unwrap();
    assignment::list_for_walkthrough(&mut tx, org, &one.walkthrough).await.unwrap();
    assignment::find(&mut tx, org, &one.assignment).await.unwrap();
    assignment::list_candidates(&mut tx, org, &one.server, "w", 9).await.unwrap();
    assignment::update(&mut tx, org, &one.assignment, Some(1), Some(true)).await.unwrap();
    assignment::set_display_orders(&mut tx, org, &[(one.assignment.clone(), 2)]).await.unwrap();
    assignment::delete(&mut tx, org, &one.assignment).await.unwrap();
    assignment::insert(&mut tx, &Assignment { display_order: 3, ..one.assignment() }).await.unwrap();
    audit::list(&mut tx, org, None, 10).await.unwrap();
    audit::list(&mut tx, org, Some(&one.audit_event(9).id), 10).await.unwrap();
    audit::find_actor_names(&mut tx, org, &[one.user.as_str(), one.key.as_str()]).await.unwrap();
    overview::count_contents(&mut tx, org).await.unwrap();
    overview::find_onboarding_state(&mut tx, org).await.unwrap();
    overview::count_active_end_users(&mut tx, org, NOW).await.unwrap();
    invite(&mut tx, one).await;
    end_user::find_by_tracking_id(&mut tx, org, "tracked").await.unwrap();
    end_user::exists(&mut tx, org, &one.end_user).await.unwrap();
    progress::list_open(&mut tx, org, &one.end_user, &one.server).await.unwrap();
    progress::summarize_open(&mut tx, org, &one.end_user, &one.server).await.unwrap();
    progress::find_open_with_step(&mut tx, org, &one.end_user, &one.server, &one.step(0)).await.unwrap();
    offer::list_step_titles(&mut tx, org, &one.server).await.unwrap();
    progress::find_open(&mut tx, &one.progress_key(&one.end_user)).await.unwrap();
    progress::list_completions(&mut tx, org, &one.progress).await.unwrap();
    progress::list_attempts(&mut tx, &one.progress_key(&one.end_user)).await.unwrap();
    tool_call::list(&mut tx, org, &one.server, 10).await.unwrap();
    let unknown = |n| ToolCall { end_user_id: None, ..one.tool_call(&format!("tc_unknown_{n}")) };
    counted_call::record(&mut tx, (0..=counted_call::ROWS_PER_MINUTE).map(unknown).collect()).await.unwrap();
    for server in [None, Some(&one.server)] {
        tool_call::sum_rejected(&mut tx, org, server, TimeRange { from: Timestamp(0), to: NOW }).await.unwrap();
        counted_call::sum(&mut tx, org, server, TimeRange { from: Timestamp(0), to: NOW }).await.unwrap();
    }
    offer::list(&mut tx, org, &one.server).await.unwrap();
    session::find(&mut tx, org, &one.server, "handle-1", NOW).await.unwrap();
    session::record_use(&mut tx, "handle-1", NOW).await.unwrap();
    let used = session::NewSession {
        id: SessionId::from_store("ses_used".to_owned()),
        organization_id: org.clone(),
        server_id: one.server.clone(),
        end_user_id: one.end_user.clone(),
        handle_hash: None,
        client_name: None,
        client_version: None,
        protocol_version: None,
        created_at: NOW,
        last_used_at: NOW,
    };
    session::upsert(&mut tx, &[used]).await.unwrap();
    session::delete_expired(&mut tx, NOW, 10).await.unwrap();
    for log in [retention::ServerLog::Calls, retention::ServerLog::Events] {
        retention::list_servers_with_old_rows(&mut tx, log, NOW).await.unwrap();
        retention::delete_log(&mut tx, log, &one.server, Timestamp(1), 10).await.unwrap();
    }
    for counts in [retention::CallCounts::Rejected, retention::CallCounts::Unidentified] {
        retention::list_servers_with_old_counts(&mut tx, counts, NOW).await.unwrap();
        retention::delete_counts(&mut tx, counts, &one.server, Timestamp(1), 10).await.unwrap();
    }
    retention::delete_audit(&mut tx, Timestamp(1), 10).await.unwrap();
    job_lease::acquire(&mut tx, "packing", "a", NOW, NOW).await.unwrap();
    job_lease::release(&mut tx, "packing", "a").await.unwrap();
    write(&mut tx, one).await;
    join_progress(&mut tx, one).await;
    read_logs(&mut tx, one).await;
    sign_in(&mut tx, one).await;
    console_sign_in(&mut tx, one).await;
    authorize(&mut tx, one).await;
    use_tickets(&mut tx, one).await;
    use_webhooks(&mut tx, one).await;
    use_catalog(&mut tx, one).await;
    use_secrets(&mut tx, one).await;
    use_agents(&mut tx, one).await;
    use_instances(&mut tx, one).await;
    use_toolboxes(&mut tx, one).await;
    tx.commit().await.unwrap();
    play(db, one).await;
    let mut tx = db.begin().await.unwrap();
    // Deletes objects of another organisation, because deleting the many rows of the first one would take long.
    let (two, org) = (Fixture::new(2), &Fixture::new(2).organization);
    end_user::delete(&mut tx, org, &two.end_user).await.unwrap();
    api_key::delete(&mut tx, org, &two.key).await.unwrap();
    server::delete(&mut tx, org, &two.server).await.unwrap();
    user::remove_member(&mut tx, org, &two.user).await.unwrap();
    user::delete_without_membership(&mut tx, &two.user).await.unwrap();
    walkthrough::delete(&mut tx, org, &two.walkthrough).await.unwrap();
    organization::delete(&mut tx, org).await.unwrap();
    tx.commit().await.unwrap();
}

/// Lists of walkthroughs.
async fn list(tx: &mut Tx, one: &Fixture) {
    let (org, id) = (&one.organization, &one.walkthrough);
    for sort in WalkthroughSort::ALL {
        for (descending, further) in [(false, false), (false, true), (true, false), (true, true)] {
            let after = match sort {
                WalkthroughSort::Title => SortValue::Title("w".to_owned()),
                WalkthroughSort::UpdatedAt | WalkthroughSort::CreatedAt => SortValue::Time(NOW.0),
            };
            let search = WalkthroughSearch {
                title: "w",
                plain: "w",
                state: Some(WalkthroughState::Published),
                kind: Some(WalkthroughType::Course),
                server: Some(&one.server),
                sort: *sort,
                descending,
                after: further.then_some((after, id)),
                limit: 10,
            };
            walkthrough_list::search(tx, org, &search).await.unwrap();
        }
    }
    walkthrough_list::list_servers(tx, org, [id]).await.unwrap();
    attempt_counts::count_by_version(tx, org, id).await.unwrap();
    attempt_counts::for_each_group(tx, org, id, |_, _, _| {}).await.unwrap();
}

/// Operations on drafts and versions.
async fn write(tx: &mut Tx, one: &Fixture) {
    let (org, id) = (&one.organization, &one.walkthrough);
    assert!(walkthrough::lock_names(tx, org).await.unwrap());
    walkthrough::find(tx, org, id).await.unwrap();
    let head = walkthrough::find_for_update(tx, org, id).await.unwrap().unwrap();
    walkthrough::find_by_slug(tx, org, &head.slug).await.unwrap();
    walkthrough::find_by_title(tx, org, "a title").await.unwrap();
    list(tx, one).await;
    revise(tx, one).await;
    use_trash(tx, one).await;
    walkthrough::count(tx, org).await.unwrap();
    walkthrough::list_slugs_with_prefix(tx, org, "a").await.unwrap();
    walkthrough::update(tx, &head, "a title").await.unwrap();
    let (a, b) = (StepId::from_store("ws_a".to_owned()), StepId::from_store("ws_b".to_owned()));
    let step = |id: &StepId, ordinal| Step {
        id: id.clone(),
        ordinal,
        key: None,
        next_step_id: None,
        content: StepContent::default(),
    };
    let steps = [step(&a, 1_000), step(&b, 1_001)];
    step::insert(tx, org, id, &steps).await.unwrap();
    step::update(tx, org, id, &steps).await.unwrap();
    step::relink(tx, org, id, &[LinkUpdate { from: Some(a.clone()), to: None }]).await.unwrap();
    step::list(tx, org, id).await.unwrap();
    step::list_links(tx, org, id).await.unwrap();
    step::list_outline(tx, org, id).await.unwrap();
    step::find_by_key(tx, org, id, "key").await.unwrap();
    step::find(tx, org, id, &a).await.unwrap();
    let version = VersionInfo {
        id: VersionId::from_store("wv_new".to_owned()),
        walkthrough_id: id.clone(),
        number: version::max_number(tx, org, id).await.unwrap() + 1,
        fields: head.fields(),
        step_count: 2,
        created_at: NOW,
        withdrawal: None,
    };
    version::insert(tx, org, &version, &steps).await.unwrap();
    version::find_with_steps(tx, org, &version.id).await.unwrap().unwrap();
    version::list_steps(tx, org, &version.id).await.unwrap();
    version::list_ordinals(tx, org, &version.id).await.unwrap();
    version::list(tx, org, id).await.unwrap();
    version::find(tx, org, &version.id).await.unwrap();
    version::find_by_number(tx, org, id, version.number).await.unwrap();
    version::find_newest(tx, org, id).await.unwrap();
    let withdrawal = Withdrawal { at: NOW, reason: "Wrong".to_owned() };
    version::withdraw(tx, org, &version.id, &withdrawal).await.unwrap();
    step::delete(tx, org, id, [&a, &b]).await.unwrap();
    assert_eq!(step::consume_removed(tx, org, id, &a).await.unwrap(), Some(1_000));
    let unknown = WalkthroughId::from_store("wt_unknown".to_owned());
    walkthrough::delete(tx, org, &unknown).await.unwrap();
}

/// The trash.
async fn use_trash(tx: &mut Tx, one: &Fixture) {
    let (org, id) = (&one.organization, &one.walkthrough);
    let head = walkthrough::find(tx, org, id).await.unwrap().unwrap();
    assert!(trash::insert(tx, org, id, NOW, "operator").await.unwrap());
    assert_eq!(trash::find_for_update(tx, org, id).await.unwrap().unwrap().walkthrough, head);
    trash::list(tx, org, 10).await.unwrap();
    trash::list_expired(tx, NOW, 10).await.unwrap();
    assert!(trash::restore(tx, &head, "a title").await.unwrap());
}

/// The history of a draft.
async fn revise(tx: &mut Tx, one: &Fixture) {
    let scope = DraftScope { organization_id: &one.organization, walkthrough_id: &one.walkthrough };
    let id = StepId::from_store("ws_revised".to_owned());
    let step = Step { id: id.clone(), ordinal: 2_000, key: None, next_step_id: None, content: StepContent::default() };
    step_revision::insert_baseline(tx, scope, NOW, [&id]).await.unwrap();
    let new = NewRevision { operation: StepRevisionOperation::Edit, actor: "operator", restored_from: None, at: NOW };
    step_revision::append(tx, scope, new, [(&step, None)]).await.unwrap();
    step_revision::replace(tx, scope, 1, new, &step).await.unwrap();
    step_revision::trim(tx, scope, 10, 10, [&id]).await.unwrap();
    step_revision::list(tx, scope, &id, None, 10).await.unwrap();
    step_revision::find(tx, scope, &id, 1).await.unwrap().unwrap();
    step_revision::list_deleted(tx, scope, 10).await.unwrap();
    step_revision::delete_superseded(tx, NOW, 10).await.unwrap();
    let event = one.audit_event(9);
    let session = EditingSession {
        id: "ws_revised operator".to_owned(),
        organization_id: one.organization.clone(),
        walkthrough_id: one.walkthrough.clone(),
        audit_event_id: event.id.clone(),
        edits: 1,
        expires_at: NOW,
    };
    editing_session::upsert(tx, &session).await.unwrap();
    editing_session::find_open(tx, &one.organization, &session.id, NOW).await.unwrap();
    audit::update_detail(tx, &one.organization, &event.id, Value::Null).await.unwrap();
}

async fn no_statement_reads_a_whole_table((db, _turn): (Db, MutexGuard<'static, ()>)) {
    for n in 2..12 {
        Fixture::new(n).seed_with_activity(&db).await;
    }
    let one = Fixture::new(1);
    one.seed_with_activity(&db).await;
    insert_many_rows(&db, &one).await;
    statements_log().lock().unwrap().clear();
    call_all(&db, &one).await;
    let statements = std::mem::take(&mut *statements_log().lock().unwrap());
    let statements: Vec<_> = statements
        .into_iter()
        .filter(|sql| ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].iter().any(|word| sql.starts_with(word)))
        .collect();
    for table in ["progress", "walkthrough_events", "tool_calls", "server_aliases", "assignments", "audit_events"] {
        assert!(
            statements.iter().any(|sql| sql.contains(table)),
            "the log contains no statement for {table}: {statements:#?}"
        );
    }
    let mut problems = Vec::new();
    for sql in &statements {
        let scans = scans(&db, sql).await;
        problems.extend(scans.into_iter().map(|scan| format!("{scan}: {sql}")));
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

// Empty databases, because a template would be migrated outside of the turn of its test.
waypost_testkit::both!(empty open => no_statement_reads_a_whole_table);
