//! Who may do what, tried act by act, with each kind of caller, at home and in another organisation.

use waypost_core::analytics::TimeRange;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::AuditEventId;
use waypost_core::organization::Role;
use waypost_core::secret::SecretKey;
use waypost_core::{Result, Timestamp};
use waypost_ops::analytics::{AnalyticsQuery, ReportParts};
use waypost_ops::assignments::AssignmentPatch;
use waypost_ops::audit_events::{self, AuditFilter};
use waypost_ops::end_users::{EndUserSearch, TimelineKinds};
use waypost_ops::servers::ServerSettings;
use waypost_ops::{
    Ops, activity, analytics, api_keys, assignments, claim_links, end_users, invitations, joins, logos, organizations,
    overview, servers, try_it, users,
};
use waypost_store::audit;

use crate::stage::{Stage, Tenant, plain_key, stage};

/// Does every act on `t`, those that destroy last; says what came of each.
async fn every_act(cx: &Ctx, ops: &Ops, t: &Tenant, new: &str) -> Vec<(&'static str, String)> {
    let (org, server, place) = (&t.organization.id, &t.server.id, (&t.server.id, &t.walkthrough));
    let named = Some(format!("{new}-renamed"));
    let renamed = ServerSettings { slug: Some(format!("{new}-moved")), ..ServerSettings::default() };
    let (rename_org, rename_key) = (
        organizations::OrganizationPatch { name: named.clone(), slug: None },
        api_keys::ApiKeyPatch { name: named, ..Default::default() },
    );
    let later = AssignmentPatch { display_order: Some(9), enabled: Some(false) };
    let slug = &t.server.slug;
    let key = SecretKey::new([1; 32]);
    let range = TimeRange { from: Timestamp(0), to: Timestamp(1) };
    let log = activity::ActivityFilter {
        server_id: None,
        end_user_id: None,
        walkthrough_id: None,
        range,
        after: None,
        oldest_first: true,
        limit: 1,
    };
    let server_id = Some(server.clone());
    let asked = AnalyticsQuery { range, server_id, walkthrough_id: None, version: None, client: None };
    let parts = ReportParts { events: true, calls: true, before: true };
    let everything = TimelineKinds { sessions: true, events: true, calls: true, tickets: true };
    let mut told = Vec::new();
    macro_rules! tell {
        ($($act:literal: $call:expr;)+) => {$( told.push(($act, outcome($call.await))); )+};
    }
    tell! {
        "organizations::create": organizations::create(cx, ops, &format!("{new}-org"), None);
        "organizations::find": organizations::resolve(cx, ops, &t.organization.slug);
        "organizations::show": organizations::get(cx, ops, org);
        "organizations::update": organizations::update(cx, ops, org, &rename_org);
        "users::create": users::create(cx, ops, org, &format!("{new}@x.de"), Role::Member);
        "users::create(owner)": users::create(cx, ops, org, &format!("{new}-owner@x.de"), Role::Owner);
        "users::list": users::list(cx, ops, org);
        "users::find": users::resolve(cx, ops, org, &t.member.email);
        "users::update": users::update(cx, ops, org, &t.member.user_id, Role::Admin);
        "users::delete": users::delete(cx, ops, org, &t.member.user_id);
        "users::delete(owner)": users::delete(cx, ops, org, &t.owner.user_id);
        "api_keys::create": api_keys::create(cx, ops, org, plain_key(new, Role::Admin));
        "api_keys::create(owner)": api_keys::create(cx, ops, org, plain_key(&format!("{new}-owner"), Role::Owner));
        "api_keys::show": api_keys::get(cx, ops, org, &t.key.id);
        "api_keys::list": api_keys::list(cx, ops, org);
        "api_keys::find": api_keys::resolve(cx, ops, org, "first");
        "api_keys::update": api_keys::update(cx, ops, org, &t.key.id, &rename_key);
        "api_keys::delete": api_keys::delete(cx, ops, org, &t.key.id);
        "invitations::create": invitations::create(cx, ops, org, &format!("{new}-i@x.de"), Role::Member);
        "invitations::create(own)": invitations::create(cx, ops, org, &format!("{new}-j@x.de"), Role::Owner);
        "invitations::list": invitations::list(cx, ops, org, None, 10);
        "invitations::show": invitations::get(cx, ops, org, &t.invitation);
        "invitations::resend": invitations::resend(cx, ops, org, &t.invitation);
        "invitations::revoke": invitations::revoke(cx, ops, org, &t.invitation);
        "audit_events::list": audit_events::list(cx, ops, org, &AuditFilter::default(), (None, 10));
        "audit_events::export": audit_events::export(cx, ops, org, &AuditFilter::default(), "csv");
        "logos::show": logos::find(cx, ops, org);
        "overview::show": overview::get(cx, ops, org);
        "overview::contents": overview::get_contents(cx, ops, org);
        "joins::list": joins::list(cx, ops, org);
        "joins::list_page": joins::list_page(cx, ops, org, (None, 1));
        "joins::count_recent_claims": joins::count_recent_claims(cx, ops, org);
        "joins::show": joins::get(cx, ops, org, &t.join);
        "joins::undo": joins::undo(cx, ops, org, &t.join);
        "claim_links::create": claim_links::create(cx, (ops, &key), org, server, ("ann", 1));
        "assignments::add": assignments::assign(cx, ops, org, place, later);
        "assignments::list": assignments::list(cx, ops, org, server);
        "assignments::remove": assignments::unassign(cx, ops, org, server, &t.walkthrough);
        "servers::create": servers::create(cx, ops, org, &format!("{new}-server"), &ServerSettings::default());
        "servers::list": servers::list(cx, ops, org);
        "servers::find": servers::resolve(cx, ops, slug);
        "servers::show": servers::get(cx, ops, org, server);
        "servers::update": servers::update(cx, ops, org, server, &renamed);
        "servers::former_slugs": servers::list_former_slugs(cx, ops, org, server);
        "servers::release_slug": servers::release_slug(cx, ops, org, server, slug);
        "end_users::list": end_users::list(cx, ops, org, &EndUserSearch { limit: 1, ..EndUserSearch::default() });
        "end_users::show": end_users::get(cx, ops, org, &t.end_user);
        "end_users::time_line": end_users::get_timeline(cx, ops, (org, &t.end_user), everything, (None, 1));
        "end_users::export": end_users::export(cx, ops, org, &t.end_user);
        "activity::events": activity::list_events(cx, ops, org, &log);
        "activity::calls": activity::list_calls(cx, ops, org, &log);
        "activity::sessions": activity::list_sessions(cx, ops, org, &log);
        "analytics::ask": analytics::run(cx, ops, (org, &asked), parts, |report| report.overview());
        "try_it::reset": try_it::reset(cx, ops, org);
        "servers::delete": servers::delete(cx, ops, org, server);
        "end_users::find": end_users::resolve(cx, ops, org, "tracked");
        "end_users::delete": end_users::delete(cx, ops, org, &t.end_user);
        "organizations::delete": organizations::delete(cx, ops, org);
    }
    told
}

fn outcome<T>(result: Result<T>) -> String {
    result.map_or_else(|error| error.code.as_str().to_owned(), |_| "ok".to_owned())
}

const EXPECTED: &str = "\
organizations::create     operator
organizations::find       operator owner admin member
organizations::show       operator owner admin member
organizations::update     operator owner admin
users::create             operator owner admin
users::create(owner)      operator owner
users::list               operator owner admin member
users::find               operator owner admin member
users::update             operator owner admin
users::delete             operator owner admin
users::delete(owner)      operator owner
api_keys::create          operator owner admin
api_keys::create(owner)   operator owner
api_keys::show            operator owner admin
api_keys::list            operator owner admin
api_keys::find            operator owner admin
api_keys::update          operator owner admin
api_keys::delete          operator owner admin
invitations::create       operator owner admin
invitations::create(own)  operator owner
invitations::list         operator owner admin
invitations::show         operator owner admin
invitations::resend       operator owner admin
invitations::revoke       operator owner admin
audit_events::list        operator owner admin
audit_events::export      operator owner admin
logos::show               operator owner admin member
overview::show            operator owner admin member
overview::contents        operator owner
joins::list               operator owner admin
joins::list_page          operator owner admin
joins::count_recent_claims operator owner admin
joins::show               operator owner admin
joins::undo               operator owner admin
claim_links::create       operator owner admin
assignments::add          operator owner admin member
assignments::list         operator owner admin member
assignments::remove       operator owner admin member
servers::create           operator owner admin
servers::list             operator owner admin member
servers::find             operator owner admin member
servers::show             operator owner admin member
servers::update           operator owner admin
servers::former_slugs     operator owner admin member
servers::release_slug     operator owner admin
end_users::list           operator owner admin member
end_users::show           operator owner admin member
end_users::time_line      operator owner admin member
end_users::export         operator owner admin
activity::events          operator owner admin member
activity::calls           operator owner admin member
activity::sessions        operator owner admin member
analytics::ask            operator owner admin member
try_it::reset             operator owner admin member
servers::delete           operator owner admin
end_users::find           operator owner admin
end_users::delete         operator owner admin
organizations::delete     operator owner
";

/// The whole table in one picture. Whoever may not is told `forbidden`, and nothing is written.
async fn who_may_do_what(stage: Stage) {
    let mut table: Vec<(&str, String)> = Vec::new();
    for (at, name) in ["operator", "owner", "admin", "member", "client"].into_iter().enumerate() {
        let tenant = stage.tenant(&format!("{name}-home")).await;
        let org = &tenant.organization.id;
        let cx = match name {
            "operator" => stage.cx.clone(),
            "owner" => stage.member(org, Role::Owner),
            "admin" => stage.member(org, Role::Admin),
            "member" => stage.member(org, Role::Member),
            _ => stage.by(Caller::Client { organization_id: org.clone(), server_id: tenant.server.id.clone() }),
        };
        for (row, (act, told)) in every_act(&cx, &stage.ops, &tenant, name).await.into_iter().enumerate() {
            if at == 0 {
                table.push((act, String::new()));
            }
            match told.as_str() {
                "ok" => table[row].1.push_str(&format!(" {name}")),
                "forbidden" => {}
                other => panic!("{name} {act}: {other}"),
            }
        }
    }
    let table: String = table.into_iter().map(|(act, who)| format!("{act:25}{who}\n")).collect();
    assert_eq!(table, EXPECTED);
}

/// Whoever is at home elsewhere learns nothing, whatever their role is, and changes nothing.
async fn another_organisation_is_not_there(stage: Stage) {
    let (home, other) = (stage.tenant("home").await, stage.tenant("other").await);
    let (id, server_id) = (home.organization.id.clone(), home.server.id.clone());
    let client = stage.by(Caller::Client { organization_id: id.clone(), server_id });
    let before = log_of(&stage, &other).await;
    for cx in [stage.member(&id, Role::Owner), stage.member(&id, Role::Member), client] {
        for (act, told) in every_act(&cx, &stage.ops, &other, "foreign").await {
            let expected = if act == "organizations::create" { "forbidden" } else { "not_found" };
            assert_eq!(told, expected, "{act} by {:?}", cx.caller);
        }
    }
    assert_eq!(log_of(&stage, &other).await, before, "nothing was done");
}

/// One's own organisation with the ids of another one: not found, and the other one keeps what it has.
async fn foreign_ids_are_not_found(stage: Stage) {
    let (home, other) = (stage.tenant("home").await, stage.tenant("other").await);
    let mixed = Tenant { organization: home.organization.clone(), ..other };
    let cx = stage.member(&home.organization.id, Role::Owner);
    let fine = [
        "organizations",
        "users::create",
        "users::list",
        "api_keys::create",
        "api_keys::list",
        "servers::create",
        "joins::list",
        "joins::count_recent_claims",
        "invitations::create",
        "invitations::list",
        "audit_events",
        "logos::show",
        "overview",
        "end_users::list",
        "activity::",
        // Only the caller's own test user, in the caller's own organisation.
        "try_it::reset",
    ];
    // These look for names, which both organisations have.
    let by_name = ["api_keys::find", "end_users::find", "servers::list"];
    for (act, told) in every_act(&cx, &stage.ops, &mixed, "mixed").await {
        if !fine.iter().chain(&by_name).any(|prefix| act.starts_with(prefix)) {
            assert_eq!(told, "not_found", "{act}");
        }
    }
    let foreign = stage.cx.clone();
    assert_eq!(servers::list(&foreign, &stage.ops, &mixed.server.organization_id).await.unwrap().len(), 1);
}

async fn log_of(stage: &Stage, tenant: &Tenant) -> Vec<AuditEventId> {
    let mut conn = stage.ops.db().read().await.unwrap();
    let events = audit::list(&mut conn, &tenant.organization.id, None, 100).await.unwrap();
    events.into_iter().map(|event| event.id).collect()
}

waypost_testkit::both!(stage => who_may_do_what, another_organisation_is_not_there, foreign_ids_are_not_found);
