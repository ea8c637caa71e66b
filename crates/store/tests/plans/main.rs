//! No query of the store reads a whole table: the database itself is asked how it would go about each of them.
//!
//! The statements are not copied into this file: they are taken from the driver's log while the store's functions run.
//! A program of its own, because the log is one per process.

#[path = "../it/world.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use more of it")]
mod world;

mod console;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;
use tokio::sync::MutexGuard;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use waypost_core::account::CodePurpose;
use waypost_core::analytics::Range;
use waypost_core::assignment::Assignment;
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::chain::Link;
use waypost_core::id::{
    AuthorizationRequestId, EmailCodeId, EndUserId, EventId, InvitationId, JoinId, OauthConfigId, OauthGrantId,
    ProgressId, SessionId, StepId, TicketCommentId, TicketId, UserCodeId, VersionId, WalkthroughId, WebhookDeliveryId,
    WebhookId,
};
use waypost_core::invitation::Invitation;
use waypost_core::join::{Join, Undo};
use waypost_core::oauth_client::OauthClient;
use waypost_core::oauth_grant::OauthGrant;
use waypost_core::organization::Role;
use waypost_core::progress::Attempt;
use waypost_core::progress::act::{Select, View};
use waypost_core::revision::RevisionAct;
use waypost_core::step::{Step, StepContent};
use waypost_core::ticket::{Ticket, TicketComment, TicketCommentEdit, TicketStatus};
use waypost_core::version::{VersionHead, Withdrawal};
use waypost_core::walkthrough::{WalkthroughSort, WalkthroughState, WalkthroughType};
use waypost_core::webhook::{NewDelivery, Webhook, WebhookEvent};
use waypost_core::{SystemRandom, Timestamp};
use waypost_store::analytics::{Due, Packed, Wanted};
use waypost_store::browser_session::NewBrowserSession;
use waypost_store::editing_session::EditingSession;
use waypost_store::email_code::NewCode;
use waypost_store::idempotency::Claim;
use waypost_store::open_rows::{Bounds, Table};
use waypost_store::progress::ProgressKey;
use waypost_store::step_revision::{NewRevision, Scope};
use waypost_store::walkthrough_list::{After, Search};
use waypost_store::writer::{Call, Decided, Writer};
use waypost_store::{
    Db, Dialect, Tx, account, activity, analytics, api_key, assignment, audit, authorization_request, browser_session,
    editing_session, email_code, end_user, expired, idempotency, identity, invitation, invitation_accept, job_lease,
    join, logo, migrate, oauth_client, oauth_consent, oauth_grant, offer, on, open_rows, organization, overview,
    progress, retention, server, session, standing, step, step_revision, system, ticket, ticket_comment, tool_call, trash, user,
    user_code, user_session, version, walkthrough, walkthrough_list, webhook, webhook_delivery,
};

use crate::console::{console_sign_in, delivery, help, invite, look_back, send, users};
use crate::world::{NOW, World, execute};

/// What may be read as a whole: one row, or all rows by the query's nature.
const WHOLE: &[&str] = &[
    "UPDATE config_version SET version = version + 1 WHERE id = 1",
    "SELECT version FROM config_version WHERE id = 1",
    "SELECT id, slug, name, created_at FROM organizations ORDER BY slug",
    // One row per server.
    "SELECT server_id FROM analytics_rollups ORDER BY server_id",
    // Once in the life of an installation: when it is set up.
    "SELECT id FROM organizations WHERE NOT EXISTS (SELECT 1 FROM memberships \
     WHERE memberships.organization_id = organizations.id AND memberships.role = 'owner') ORDER BY id",
    // Looks each server up in the log, by index.
    "SELECT servers.organization_id, servers.id FROM servers LEFT JOIN analytics_rollups ON \
     analytics_rollups.server_id = servers.id WHERE EXISTS (SELECT 1 FROM walkthrough_events WHERE \
     walkthrough_events.server_id = servers.id AND walkthrough_events.created_at >= \
     COALESCE(analytics_rollups.events_until, 0) AND walkthrough_events.created_at < $1) OR EXISTS (SELECT 1 \
     FROM tool_calls WHERE tool_calls.server_id = servers.id AND tool_calls.created_at >= \
     COALESCE(analytics_rollups.calls_until, 0) AND tool_calls.created_at < $1) OR EXISTS (SELECT 1 FROM \
     walkthrough_events WHERE walkthrough_events.server_id = servers.id AND walkthrough_events.created_at >= \
     COALESCE(analytics_rollups.events_until, 0) AND walkthrough_events.created_at < $2 LIMIT 1 OFFSET $3) OR \
     EXISTS (SELECT 1 FROM tool_calls WHERE tool_calls.server_id = servers.id AND tool_calls.created_at >= \
     COALESCE(analytics_rollups.calls_until, 0) AND tool_calls.created_at < $2 LIMIT 1 OFFSET $3)",
];
/// Names in SQLite's plans that are no tables: rows of a JSON document, and what was read before.
const NO_TABLES: &[&str] = &["json_each", "batch", "source", "ranked", "CONSTANT", "(subquery", "turns"];

fn heard() -> &'static Mutex<BTreeSet<String>> {
    static HEARD: OnceLock<Mutex<BTreeSet<String>>> = OnceLock::new();
    HEARD.get_or_init(Mutex::default)
}

/// Writes down every statement of which the driver tells.
struct Listener;

#[derive(Default)]
struct Fields {
    summary: String,
    statement: String,
}

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn Debug) {}

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.statement),
            _ => {}
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let text = if fields.statement.is_empty() { fields.summary } else { fields.statement };
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            heard().lock().unwrap().insert(text);
        }
    }
}

/// A database, and the turn of its test: the two databases share the log, so one follows the other from the migration on.
async fn open(url: &str) -> (Db, MutexGuard<'static, ()>) {
    static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let turn = TURN.lock().await;
    static SET: OnceLock<()> = OnceLock::new();
    SET.get_or_init(|| tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Listener)).unwrap());
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    (db, turn)
}

/// Calls every function of the store that a product's call can lead to. A new one belongs in here.
async fn everything(db: &Db, one: &World) {
    let org = &one.organization;
    let mut tx = db.begin().await.unwrap();
    organization::get(&mut tx, org).await.unwrap();
    organization::update(&mut tx, &one.organization(), NOW).await.unwrap();
    system::find_organization(&mut tx, "org-1").await.unwrap();
    system::list_organizations(&mut tx).await.unwrap();
    system::find_server(&mut tx, "server-1").await.unwrap();
    system::get_server(&mut tx, &one.server).await.unwrap();
    system::find_api_key(&mut tx, "hash").await.unwrap();
    system::find_accounts(&mut tx, "a1@x.de").await.unwrap();
    users(&mut tx, one).await;
    user::get_member(&mut tx, org, &one.user).await.unwrap();
    user::find_member(&mut tx, org, "a1@x.de").await.unwrap();
    user::list_members(&mut tx, org).await.unwrap();
    user::lock_owners(&mut tx, org).await.unwrap();
    user::set_role(&mut tx, org, &one.user, Role::Owner).await.unwrap();
    api_key::get(&mut tx, org, &one.key).await.unwrap();
    api_key::find_by_name(&mut tx, org, "key").await.unwrap();
    let keys = api_key::list(&mut tx, org).await.unwrap();
    api_key::update(&mut tx, &keys[0]).await.unwrap();
    api_key::used(&mut tx, org, &one.key, (NOW, NOW)).await.unwrap();
    server::get(&mut tx, org, &one.server).await.unwrap();
    server::list(&mut tx, org).await.unwrap();
    server::search(&mut tx, org, server::Query { text: Some("a"), after: Some("b"), limit: 9 }).await.unwrap();
    server::usage(&mut tx, org, &one.server, NOW).await.unwrap();
    server::signed_in(&mut tx, org, &one.server, NOW).await.unwrap();
    server::holdings(&mut tx, org, &one.server, NOW).await.unwrap();
    server::aliases(&mut tx, org, &one.server).await.unwrap();
    server::update(&mut tx, &one.server()).await.unwrap();
    server::release_alias(&mut tx, org, &one.server, "former-1").await.unwrap();
    assignment::find(&mut tx, org, &one.server, &one.walkthrough).await.unwrap();
    assignment::list(&mut tx, org, &one.server).await.unwrap();
    assignment::next_order(&mut tx, org, &one.server).await.unwrap();
    assignment::list_of_walkthrough(&mut tx, org, &one.walkthrough).await.unwrap();
    assignment::get(&mut tx, org, &one.assignment).await.unwrap();
    assignment::candidates(&mut tx, org, &one.server, ("w", 9)).await.unwrap();
    assignment::update(&mut tx, org, &one.assignment, (Some(1), Some(true))).await.unwrap();
    assignment::set_places(&mut tx, org, &[(one.assignment.clone(), 2)]).await.unwrap();
    assignment::delete(&mut tx, org, &one.assignment).await.unwrap();
    assignment::insert(&mut tx, &Assignment { display_order: 3, ..one.assignment() }).await.unwrap();
    audit::list(&mut tx, org, None, 10).await.unwrap();
    audit::list(&mut tx, org, Some(&one.audit_event(9).id), 10).await.unwrap();
    audit::names(&mut tx, org, &[one.user.as_str(), one.key.as_str()]).await.unwrap();
    overview::contents(&mut tx, org).await.unwrap();
    overview::state(&mut tx, org).await.unwrap();
    overview::active(&mut tx, org, NOW).await.unwrap();
    invite(&mut tx, one).await;
    end_user::find_by_tracking_id(&mut tx, org, "tracked").await.unwrap();
    end_user::exists(&mut tx, org, &one.end_user).await.unwrap();
    progress::list_open(&mut tx, org, &one.end_user, &one.server).await.unwrap();
    progress::summarize_open(&mut tx, org, &one.end_user, &one.server).await.unwrap();
    let ids = (org, &one.end_user, &one.server);
    progress::find_open_with_step(&mut tx, ids, &one.step(0)).await.unwrap();
    offer::step_titles(&mut tx, org, &one.server).await.unwrap();
    progress::get_open(&mut tx, &one.progress_key(&one.end_user)).await.unwrap();
    progress::completions(&mut tx, org, &one.progress).await.unwrap();
    progress::history(&mut tx, &one.progress_key(&one.end_user)).await.unwrap();
    tool_call::list(&mut tx, org, &one.server, 10).await.unwrap();
    for server in [None, Some(&one.server)] {
        tool_call::rejected(&mut tx, org, server, Range { from: Timestamp(0), to: NOW }).await.unwrap();
    }
    offer::list(&mut tx, org, &one.server).await.unwrap();
    session::find(&mut tx, org, &one.server, "handle-1", NOW).await.unwrap();
    session::used(&mut tx, "handle-1", NOW).await.unwrap();
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
    session::put_used(&mut tx, &[used]).await.unwrap();
    session::delete_expired(&mut tx, NOW, 10).await.unwrap();
    retention::servers(&mut tx).await.unwrap();
    for log in [retention::ServerLog::Calls, retention::ServerLog::Events] {
        retention::delete_log(&mut tx, log, &one.server, (Timestamp(1), 10)).await.unwrap();
    }
    retention::delete_rejections(&mut tx, &one.server, Timestamp(1), 10).await.unwrap();
    retention::delete_audit(&mut tx, Timestamp(1), 10).await.unwrap();
    job_lease::acquire(&mut tx, ("packing", "a"), NOW, NOW).await.unwrap();
    job_lease::release(&mut tx, "packing", "a").await.unwrap();
    write(&mut tx, one).await;
    take_over(&mut tx, one).await;
    look_back(&mut tx, one).await;
    sign_in(&mut tx, one).await;
    console_sign_in(&mut tx, one).await;
    authorize(&mut tx, one).await;
    help(&mut tx, one).await;
    send(&mut tx, one).await;
    tx.commit().await.unwrap();
    play(db, one).await;
    let mut tx = db.begin().await.unwrap();
    // Of another organisation, because this one has a crowd that it would take long to delete.
    let (two, org) = (World::new(2), &World::new(2).organization);
    end_user::delete(&mut tx, org, &two.end_user).await.unwrap();
    api_key::delete(&mut tx, org, &two.key).await.unwrap();
    server::delete(&mut tx, org, &two.server).await.unwrap();
    user::remove_member(&mut tx, org, &two.user).await.unwrap();
    user::delete_without_membership(&mut tx, &two.user).await.unwrap();
    walkthrough::delete(&mut tx, org, &two.walkthrough).await.unwrap();
    organization::delete(&mut tx, org).await.unwrap();
    tx.commit().await.unwrap();
}

/// What authors look for.
async fn list(tx: &mut Tx, one: &World) {
    let (org, id) = (&one.organization, &one.walkthrough);
    for sort in WalkthroughSort::ALL {
        for (descending, further) in [(false, false), (false, true), (true, false), (true, true)] {
            let after = match sort {
                WalkthroughSort::Title => After::Title("w".to_owned()),
                WalkthroughSort::UpdatedAt | WalkthroughSort::CreatedAt => After::Time(NOW.0),
            };
            let search = Search {
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
    walkthrough_list::servers(tx, org, [id]).await.unwrap();
    standing::by_version(tx, org, id).await.unwrap();
    standing::each_group(tx, org, id, |_, _, _| {}).await.unwrap();
}

/// What authors do to a walkthrough.
async fn write(tx: &mut Tx, one: &World) {
    let (org, id) = (&one.organization, &one.walkthrough);
    assert!(walkthrough::lock_names(tx, org).await.unwrap());
    walkthrough::find(tx, org, id).await.unwrap();
    let head = walkthrough::find_for_update(tx, org, id).await.unwrap().unwrap();
    walkthrough::find_by_slug(tx, org, &head.slug).await.unwrap();
    walkthrough::find_by_title(tx, org, "a title").await.unwrap();
    list(tx, one).await;
    revise(tx, one).await;
    throw_away(tx, one).await;
    walkthrough::count(tx, org).await.unwrap();
    walkthrough::slugs_with_prefix(tx, org, "a").await.unwrap();
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
    step::relink(tx, org, id, &[Link { from: Some(a.clone()), to: None }]).await.unwrap();
    step::list(tx, org, id).await.unwrap();
    step::outline(tx, org, id).await.unwrap();
    step::find(tx, org, id, &a).await.unwrap();
    let version = VersionHead {
        id: VersionId::from_store("wv_new".to_owned()),
        walkthrough_id: id.clone(),
        number: version::last_number(tx, org, id).await.unwrap() + 1,
        fields: head.fields(),
        step_count: 2,
        created_at: NOW,
        withdrawal: None,
    };
    version::insert(tx, org, &version, &steps).await.unwrap();
    version::load(tx, org, &version.id).await.unwrap().unwrap();
    version::steps(tx, org, &version.id).await.unwrap();
    version::ordinals(tx, org, &version.id).await.unwrap();
    version::list(tx, org, id).await.unwrap();
    version::find(tx, org, &version.id).await.unwrap();
    version::find_by_number(tx, org, id, version.number).await.unwrap();
    version::newest(tx, org, id).await.unwrap();
    let withdrawal = Withdrawal { at: NOW, reason: "Wrong".to_owned() };
    version::withdraw(tx, org, &version.id, &withdrawal).await.unwrap();
    step::delete(tx, org, id, [&a, &b]).await.unwrap();
    assert_eq!(step::take_removed(tx, org, id, &a).await.unwrap(), Some(1_000));
    let unknown = WalkthroughId::from_store("wt_unknown".to_owned());
    walkthrough::delete(tx, org, &unknown).await.unwrap();
}

/// The trash.
async fn throw_away(tx: &mut Tx, one: &World) {
    let (org, id) = (&one.organization, &one.walkthrough);
    let head = walkthrough::find(tx, org, id).await.unwrap().unwrap();
    assert!(trash::put(tx, org, id, (NOW, "operator")).await.unwrap());
    assert_eq!(trash::find(tx, org, id).await.unwrap().unwrap().walkthrough, head);
    trash::list(tx, org, 10).await.unwrap();
    trash::due(tx, NOW, 10).await.unwrap();
    assert!(trash::take(tx, &head, "a title").await.unwrap());
}

/// The history of a draft.
async fn revise(tx: &mut Tx, one: &World) {
    let scope = Scope { organization_id: &one.organization, walkthrough_id: &one.walkthrough };
    let id = StepId::from_store("ws_revised".to_owned());
    let step = Step { id: id.clone(), ordinal: 2_000, key: None, next_step_id: None, content: StepContent::default() };
    step_revision::keep_baseline(tx, scope, NOW, [&id]).await.unwrap();
    let new = NewRevision { act: RevisionAct::Edit, actor: "operator", restored_from: None, at: NOW };
    step_revision::append(tx, scope, new, [(&step, None)]).await.unwrap();
    step_revision::replace(tx, scope, 1, new, &step).await.unwrap();
    step_revision::trim(tx, scope, (10, 10), [&id]).await.unwrap();
    step_revision::list(tx, scope, &id, (None, 10)).await.unwrap();
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
    editing_session::put(tx, &session).await.unwrap();
    editing_session::find_open(tx, &one.organization, &session.id, NOW).await.unwrap();
    audit::update_detail(tx, &one.organization, &event.id, Value::Null).await.unwrap();
}

/// What signs an end user in.
async fn sign_in(tx: &mut Tx, one: &World) {
    let (org, user) = (&one.organization, &one.end_user);
    let found = identity::find(tx, org, "waypost", "acc_1").await.unwrap().unwrap();
    identity::find_to_link(tx, org, "https://other", "z@b.example").await.unwrap();
    identity::insert(tx, &found, None).await.unwrap();
    identity::signed_in(tx, &found, None).await.unwrap();
    end_user::insert(tx, org, &EndUserId::from_store("eu_signed".to_owned()), NOW).await.unwrap();
    let tracked = EndUserId::from_store("eu_tracked".to_owned());
    end_user::insert_tracked(tx, org, (&tracked, "t"), NOW).await.unwrap();
    end_user::profile(tx, org, user).await.unwrap();
    end_user::update_profile(tx, org, user, &end_user::Profile::default()).await.unwrap();
    let account = account::find_by_email(tx, org, "z@b.example").await.unwrap().unwrap();
    account::insert(tx, &account, "z@b.example").await.unwrap();
    account::set_password(tx, org, &account.id, "argon", NOW).await.unwrap();
    let (request, id) =
        (AuthorizationRequestId::from_store("arq_1".to_owned()), EmailCodeId::from_store("ecd_x".into()));
    let code = NewCode {
        id: &id,
        organization: org,
        request: &request,
        email: "a@x.de",
        email_key: "a@x.de",
        purpose: CodePurpose::SignIn,
        code_hash: "hash",
        password_hash: None,
        created_at: NOW,
        expires_at: NOW,
    };
    email_code::insert(tx, &code).await.unwrap();
    let key = email_code::Key { organization: org, request: &request, id: &id };
    email_code::find_open(tx, key, NOW).await.unwrap();
    email_code::enter(tx, key, "hash", NOW).await.unwrap();
    let session = NewBrowserSession {
        token_hash: "hash",
        end_user_id: user,
        identity_id: &found.id,
        created_at: NOW,
        expires_at: NOW,
    };
    browser_session::insert(tx, org, &session).await.unwrap();
    browser_session::find(tx, org, "hash", NOW).await.unwrap();
    browser_session::delete(tx, org, "hash").await.unwrap();
    browser_session::delete_of_end_user(tx, org, user).await.unwrap();
    logo::set(tx, org, b"png", NOW).await.unwrap();
    logo::get(tx, org).await.unwrap();
    logo::updated_at(tx, org).await.unwrap();
    logo::delete(tx, org).await.unwrap();
}

/// What a client gets for a user who signed in.
async fn authorize(tx: &mut Tx, one: &World) {
    let (org, server, user) = (&one.organization, &one.server, &one.end_user);
    let id = AuthorizationRequestId::from_store("arq_1".to_owned());
    let key = authorization_request::Key { organization: org, server, id: &id, browser_hash: "browser" };
    let request = authorization_request::find(tx, key, Timestamp(8)).await.unwrap().unwrap();
    let other = AuthorizationRequest { id: AuthorizationRequestId::from_store("arq_other".to_owned()), ..request };
    authorization_request::insert(tx, &other, "browser", "network").await.unwrap();
    let bounds = Bounds { per_network: 0, per_server: 0, share: 0 };
    let all = Bounds { share: 100, ..bounds };
    for table in [Table::OauthClients, Table::AuthorizationRequests] {
        open_rows::make_room(tx, table, (server, "other"), bounds).await.unwrap();
        open_rows::make_room(tx, table, (server, "other"), all).await.unwrap();
    }
    authorization_request::consent(tx, key, NOW).await.unwrap();
    authorization_request::complete(tx, key, NOW).await.unwrap();
    let client = oauth_client::find(tx, org, server, "client", NOW).await.unwrap().unwrap();
    oauth_client::insert(tx, &OauthClient { client_id: "other".to_owned(), ..client }, "network").await.unwrap();
    oauth_client::nth_newest_unused(tx, server, 10).await.unwrap();
    oauth_client::used(tx, server, "client", NOW).await.unwrap();
    let consent =
        oauth_consent::Key { organization: org, server, end_user: user, client_id: "client", redirect: "https://x" };
    oauth_consent::put(tx, consent, "walk", NOW).await.unwrap();
    oauth_consent::find(tx, consent).await.unwrap();
    let grant = oauth_grant::find(tx, org, &OauthGrantId::from_store("ogr_1".to_owned())).await.unwrap().unwrap();
    let grant = OauthGrant { id: OauthGrantId::from_store("ogr_other".to_owned()), ..grant };
    let code = oauth_grant::Code {
        code_hash: "hash".to_owned(),
        redirect_uri: "https://x".to_owned(),
        code_challenge: "challenge".to_owned(),
        expires_at: NOW,
    };
    oauth_grant::insert(tx, &grant, &code).await.unwrap();
    oauth_grant::consume_code(tx, (org, server), "client", "hash", Timestamp(1)).await.unwrap();
    oauth_grant::consume_code(tx, (org, server), "client", "hash", NOW).await.unwrap();
    let pair = oauth_grant::Pair {
        access_hash: "access".to_owned(),
        scope: "walk".to_owned(),
        access_expires_at: NOW,
        refresh_hash: "refresh".to_owned(),
        generation: 1,
    };
    oauth_grant::insert_pair(tx, &grant.id, &pair, NOW).await.unwrap();
    oauth_grant::rotate(tx, (org, server), "client", "refresh", (Timestamp(1), NOW)).await.unwrap();
    oauth_grant::prune(tx, &grant.id, 0, 10).await.unwrap();
    oauth_grant::find_access(tx, org, server, "access", NOW).await.unwrap();
    oauth_grant::find_by_token(tx, (org, server), "client", "access").await.unwrap();
    oauth_grant::revoke_access(tx, "access", NOW).await.unwrap();
    oauth_grant::revoke(tx, org, &grant.id, "test", NOW).await.unwrap();
    oauth_grant::revoke_of_end_user(tx, org, user, "test", NOW).await.unwrap();
    oauth_grant::revoke_of_server(tx, org, server, "test", NOW).await.unwrap();
    let provider = OauthConfigId::from_store("oac_1".to_owned());
    oauth_grant::revoke_of_provider(tx, org, &provider, "test", NOW).await.unwrap();
    oauth_grant::nth_newest(tx, (org, server), user, 2).await.unwrap();
    oauth_grant::delete_until(tx, (org, server), user, Timestamp(1)).await.unwrap();
    expired::delete(tx, NOW, 10).await.unwrap();
    oauth_client::delete_unused(tx, NOW, 10).await.unwrap();
    oauth_client::delete_idle(tx, NOW, 10).await.unwrap();
}

/// What is noted of a user, a join, and its undoing.
async fn take_over(tx: &mut Tx, one: &World) {
    let (org, id, user) = (&one.organization, JoinId::from_store("joi_1".to_owned()), &one.end_user);
    session::is_joined(tx, org, "handle-1").await.unwrap();
    session::set_joined(tx, org, (&one.server, user), Some(NOW)).await.unwrap();
    end_user::set_claimed_email(tx, org, user, "a@x.de").await.unwrap();
    end_user::claimed_email(tx, org, user).await.unwrap();
    join::list(tx, org).await.unwrap();
    join::count_claims(tx, org, NOW).await.unwrap();
    join::list_page(tx, org, None, 2).await.unwrap();
    join::list_page(tx, org, Some(&id), 2).await.unwrap();
    join::is_spent(tx, org, &one.server, (user, NOW)).await.unwrap();
    let found = join::get(tx, org, &id).await.unwrap().unwrap();
    join::is_settled(tx, org, &one.server, (user, user)).await.unwrap();
    join::claimed_by(tx, org, user).await.unwrap();
    join::lock_users(tx, org, (user, user)).await.unwrap();
    join::set_undone(tx, org, &id, NOW).await.unwrap().unwrap();
    let again = Join { id: JoinId::from_store("joi_again".to_owned()), ..found };
    join::insert(tx, &again, &Undo::default()).await.unwrap();
    let mut open = join::open_of_both(tx, org, &one.server, (user, user)).await.unwrap();
    let (walkthrough, attempt, _) = open.remove(0);
    let key = ProgressKey { walkthrough_id: walkthrough, ..one.progress_key(user) };
    join::open(tx, &key).await.unwrap().unwrap();
    let closed = Attempt { closed_at: Some(NOW), ..attempt.clone() };
    join::save(tx, org, &closed).await.unwrap();
    let fresh = Attempt { id: ProgressId::from_store("wp_fresh".to_owned()), ..attempt.clone() };
    join::open_new(tx, &key, &fresh).await.unwrap();
    join::copy_completions(tx, org, (&attempt.id, &fresh.id)).await.unwrap();
    let shared = join::shared_completions(tx, org, (&attempt.id, &fresh.id)).await.unwrap();
    assert_eq!(shared, [(one.step(0), 0)]);
    join::delete_completion(tx, org, &fresh.id, &one.step(0)).await.unwrap();
    let event = EventId::from_store("ev_joined".to_owned());
    join::insert_event(tx, &event, &key, &fresh, (NOW, None)).await.unwrap();
    join::save(tx, org, &Attempt { closed_at: Some(NOW), ..fresh }).await.unwrap();
    join::reopen(tx, org, &attempt.id).await.unwrap();
}

/// A step, and a new attempt: what the writer says to the database.
async fn play(db: &Db, one: &World) {
    let (writer, _tasks) = Writer::start(db.clone(), Arc::new(SystemRandom));
    for select in [false, true] {
        let (offered, record) = (one.offered(), one.tool_call(if select { "tc_a" } else { "tc_b" }));
        let call = Call {
            key: one.progress_key(&one.end_user),
            new_end_user: None,
            new_session: None,
            client_name: None,
            tool_call: Some(Box::new(move |_| record.clone())),
            announce: Some(Box::new(move |_| vec![delivery(if select { "whd_a" } else { "whd_b" })])),
            decide: Box::new(move |attempt| {
                let attempt = attempt.map(|it| (it, &offered.latest));
                let view = View { attempt, offered: &offered, now: NOW, random: &SystemRandom };
                let restart = Select { resume: false, confirmed: true, ..Select::default() };
                Decided::Done(Box::new(if select {
                    view.select(restart).unwrap()
                } else {
                    view.advance(None).unwrap()
                }))
            }),
            now: NOW,
        };
        assert!(matches!(writer.call(call).await, Ok(Decided::Done(_))));
    }
}

async fn no_statement_reads_a_whole_table((db, _turn): (Db, MutexGuard<'static, ()>)) {
    for n in 2..12 {
        World::new(n).seed_played(&db).await;
    }
    let one = World::new(1);
    one.seed_played(&db).await;
    crowd(&db, &one).await;
    heard().lock().unwrap().clear();
    everything(&db, &one).await;
    let statements = std::mem::take(&mut *heard().lock().unwrap());
    let statements: Vec<_> = statements
        .into_iter()
        .filter(|sql| ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].iter().any(|word| sql.starts_with(word)))
        .collect();
    for table in ["progress", "walkthrough_events", "tool_calls", "server_aliases", "assignments", "audit_events"] {
        assert!(statements.iter().any(|sql| sql.contains(table)), "the log tells of {table}: {statements:#?}");
    }
    let mut problems = Vec::new();
    for sql in statements.iter().filter(|sql| !WHOLE.contains(&sql.as_str())) {
        let scans = match db.dialect() {
            Dialect::Sqlite => sqlite_scans(&db, sql).await,
            Dialect::Postgres => postgres_scans(&db, sql).await,
        };
        problems.extend(scans.into_iter().map(|scan| format!("{scan}: {sql}")));
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

/// Enough rows that a plan for many is the right one, and the statistics that say so. SQLite goes without: nobody
/// makes them there, and it expects many rows by itself.
async fn crowd(db: &Db, one: &World) {
    const MANY: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)";
    let World { organization, server, walkthrough, version, .. } = one;
    let now = NOW.0;
    let mut tx = db.begin().await.unwrap();
    let sql = format!(
        "{MANY} INSERT INTO end_users (id, organization_id, created_at)
         SELECT 'eu_c' || i, '{organization}', {now} FROM n;
         {MANY} INSERT INTO progress (id, organization_id, end_user_id, server_id, walkthrough_id, version_id, status,
             completed_steps, started_at, last_activity_at, metadata)
         SELECT 'wp_c' || i, '{organization}', 'eu_c' || i, '{server}', '{walkthrough}', '{version}', 'in_progress', '',
             {now}, {now}, '{{}}' FROM n;"
    );
    execute(&mut tx, sql).await;
    if db.dialect() == Dialect::Postgres {
        execute(&mut tx, "ANALYZE".to_owned()).await;
    }
    tx.commit().await.unwrap();
}

/// The tables that SQLite would read as a whole.
async fn sqlite_scans(db: &Db, sql: &str) -> Vec<String> {
    let sql = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let mut conn = db.read().await.unwrap();
    let rows: Vec<(i64, i64, i64, String)> = on!(&mut conn, c => sqlx::query_as(sql).fetch_all(c).await.unwrap());
    let scans = rows.into_iter().map(|(.., detail)| detail).filter(|detail| {
        detail.strip_prefix("SCAN ").is_some_and(|rest| !NO_TABLES.iter().any(|name| rest.starts_with(name)))
    });
    scans.collect()
}

/// The tables that PostgreSQL would read as a whole, or by an index but without a condition on it.
async fn postgres_scans(db: &Db, sql: &str) -> Vec<String> {
    let mut tx = db.begin().await.unwrap();
    let prepare = format!(
        "SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan; PREPARE asked AS {sql}"
    );
    execute(&mut tx, prepare).await;
    let count = "SELECT CAST(cardinality(parameter_types) AS BIGINT) FROM pg_prepared_statements WHERE name = 'asked'";
    let count: i64 = on!(&mut tx, c => sqlx::query_scalar(count).fetch_one(c).await.unwrap());
    let values = vec!["NULL"; usize::try_from(count).unwrap()].join(", ");
    let values = if values.is_empty() { values } else { format!("({values})") };
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE asked{values}"));
    let plan: String = match waypost_store::Conn::raw(&mut tx) {
        waypost_store::db::Raw::Postgres(c) => {
            use sqlx::{Executor, Row};
            let row = c.fetch_one(sqlx::raw_sql(explain)).await.unwrap();
            row.try_get_unchecked(0).unwrap()
        }
        waypost_store::db::Raw::Sqlite(_) => unreachable!("asked for PostgreSQL"),
    };
    execute(&mut tx, "DEALLOCATE asked".to_owned()).await;
    let mut found = Vec::new();
    walk(&serde_json::from_str(&plan).unwrap(), &mut found);
    found
}

fn walk(node: &Value, found: &mut Vec<String>) {
    match node {
        Value::Array(nodes) => nodes.iter().for_each(|node| walk(node, found)),
        Value::Object(members) => {
            let kind = members.get("Node Type").and_then(Value::as_str).unwrap_or_default();
            let by_index = matches!(kind, "Index Scan" | "Index Only Scan" | "Bitmap Index Scan");
            if kind == "Seq Scan" || (by_index && !members.contains_key("Index Cond")) {
                let of = members.get("Relation Name").or_else(|| members.get("Index Name"));
                found.push(format!("{kind} of {}", of.and_then(Value::as_str).unwrap_or_default()));
            }
            members.values().for_each(|member| walk(member, found));
        }
        _ => {}
    }
}

waypost_testkit::both!(open => no_statement_reads_a_whole_table);
