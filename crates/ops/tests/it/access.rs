//! Tests of permissions for existing objects: operations by each kind of caller, in the caller's organisation and in
//! another one. `access_matrix` covers every operation.

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

use crate::fixture::{Fixture, Tenant, plain_key, set_up};

/// Runs the tested operations on `t`, destructive operations last, and returns the result of each.
async fn run_all_operations(cx: &Ctx, ops: &Ops, t: &Tenant, new: &str) -> Vec<(&'static str, String)> {
    let (org, server) = (&t.organization.id, &t.server.id);
    let new_name = Some(format!("{new}-renamed"));
    let rename_server = ServerSettings { slug: Some(format!("{new}-moved")), ..ServerSettings::default() };
    let (rename_org, rename_key) = (
        organizations::OrganizationPatch { name: new_name.clone(), ..Default::default() },
        api_keys::ApiKeyPatch { name: new_name, ..Default::default() },
    );
    let patch = AssignmentPatch { display_order: Some(9), enabled: Some(false) };
    let slug = &t.server.slug;
    let key = SecretKey::new([1; 32]);
    let range = TimeRange { from: Timestamp(0), to: Timestamp(1) };
    let filter = activity::ActivityFilter {
        server_id: None,
        end_user_id: None,
        walkthrough_id: None,
        range,
        after: None,
        oldest_first: true,
        limit: 1,
    };
    let server_id = Some(server.clone());
    let query = AnalyticsQuery { range, server_id, walkthrough_id: None, version: None, client: None };
    let parts = ReportParts { events: true, calls: true, previous: true };
    let all_kinds = TimelineKinds { sessions: true, events: true, calls: true, tickets: true };
    let mut results = Vec::new();
    macro_rules! record {
        ($($operation:literal: $call:expr;)+) => {$( results.push(($operation, code_of($call.await))); )+};
    }
    record! {
        "organizations::create": organizations::create(cx, ops, &format!("{new}-org"), None);
        "organizations::resolve": organizations::resolve(cx, ops, &t.organization.slug);
        "organizations::get": organizations::get(cx, ops, org);
        "organizations::update": organizations::update(cx, ops, org, &rename_org);
        "users::create": users::create(cx, ops, org, &format!("{new}@x.de"), Role::Member);
        "users::create(owner)": users::create(cx, ops, org, &format!("{new}-owner@x.de"), Role::Owner);
        "users::list": users::list(cx, ops, org);
        "users::resolve": users::resolve(cx, ops, org, &t.member.email);
        "users::update": users::update(cx, ops, org, &t.member.user_id, Role::Admin);
        "users::delete": users::delete(cx, ops, org, &t.member.user_id);
        "users::delete(owner)": users::delete(cx, ops, org, &t.owner.user_id);
        "api_keys::create": api_keys::create(cx, ops, org, plain_key(new, Role::Admin));
        "api_keys::create(owner)": api_keys::create(cx, ops, org, plain_key(&format!("{new}-owner"), Role::Owner));
        "api_keys::get": api_keys::get(cx, ops, org, &t.key.id);
        "api_keys::list": api_keys::list(cx, ops, org);
        "api_keys::resolve": api_keys::resolve(cx, ops, org, "first");
        "api_keys::update": api_keys::update(cx, ops, org, &t.key.id, &rename_key);
        "api_keys::delete": api_keys::delete(cx, ops, org, &t.key.id);
        "invitations::create": invitations::create(cx, ops, org, &format!("{new}-i@x.de"), Role::Member);
        "invitations::create(owner)": invitations::create(cx, ops, org, &format!("{new}-j@x.de"), Role::Owner);
        "invitations::list": invitations::list(cx, ops, org, None, 10);
        "invitations::get": invitations::get(cx, ops, org, &t.invitation);
        "invitations::resend": invitations::resend(cx, ops, org, &t.invitation);
        "invitations::revoke": invitations::revoke(cx, ops, org, &t.invitation);
        "audit_events::list": audit_events::list(cx, ops, org, &AuditFilter::default(), None, 10);
        "audit_events::export": audit_events::export(cx, ops, org, &AuditFilter::default(), "csv");
        "logos::find": logos::find(cx, ops, org);
        "overview::get": overview::get(cx, ops, org);
        "overview::get_contents": overview::get_contents(cx, ops, org);
        "joins::list": joins::list(cx, ops, org);
        "joins::list_page": joins::list_page(cx, ops, org, None, 1);
        "joins::count_recent_claims": joins::count_recent_claims(cx, ops, org);
        "joins::get": joins::get(cx, ops, org, &t.join);
        "joins::undo": joins::undo(cx, ops, org, &t.join);
        "claim_links::create": claim_links::create(cx, ops, &key, org, server, "ann", 1);
        "assignments::assign": assignments::assign(cx, ops, org, server, &t.walkthrough, patch);
        "assignments::list": assignments::list(cx, ops, org, server);
        "assignments::unassign": assignments::unassign(cx, ops, org, server, &t.walkthrough);
        "servers::create": servers::create(cx, ops, org, &format!("{new}-server"), &ServerSettings::default());
        "servers::list": servers::list(cx, ops, org);
        "servers::resolve": servers::resolve(cx, ops, slug);
        "servers::get": servers::get(cx, ops, org, server);
        "servers::update": servers::update(cx, ops, org, server, &rename_server);
        "servers::list_former_slugs": servers::list_former_slugs(cx, ops, org, server);
        "servers::release_slug": servers::release_slug(cx, ops, org, server, slug);
        "end_users::list": end_users::list(cx, ops, org, &EndUserSearch { limit: 1, ..EndUserSearch::default() });
        "end_users::get": end_users::get(cx, ops, org, &t.end_user);
        "end_users::get_timeline": end_users::get_timeline(cx, ops, org, &t.end_user, all_kinds, None, 1);
        "end_users::export": end_users::export(cx, ops, org, &t.end_user);
        "activity::list_events": activity::list_events(cx, ops, org, &filter);
        "activity::list_calls": activity::list_calls(cx, ops, org, &filter);
        "activity::list_sessions": activity::list_sessions(cx, ops, org, &filter);
        "analytics::run": analytics::run(cx, ops, org, &query, parts, |report| report.overview());
        "try_it::reset": try_it::reset(cx, ops, org);
        "servers::delete": servers::delete(cx, ops, org, server);
        "end_users::resolve": end_users::resolve(cx, ops, org, "tracked");
        "end_users::delete": end_users::delete(cx, ops, org, &t.end_user);
        "organizations::delete": organizations::delete(cx, ops, org);
    }
    results
}

/// Returns `ok` or the error code.
fn code_of<T>(result: Result<T>) -> String {
    result.map_or_else(|error| error.code.as_str().to_owned(), |_| "ok".to_owned())
}

const EXPECTED: &str = "\
organizations::create          operator
organizations::resolve         operator owner admin member
organizations::get             operator owner admin member
organizations::update          operator owner admin
users::create                  operator owner admin
users::create(owner)           operator owner
users::list                    operator owner admin member
users::resolve                 operator owner admin member
users::update                  operator owner admin
users::delete                  operator owner admin
users::delete(owner)           operator owner
api_keys::create               operator owner admin
api_keys::create(owner)        operator owner
api_keys::get                  operator owner admin
api_keys::list                 operator owner admin
api_keys::resolve              operator owner admin
api_keys::update               operator owner admin
api_keys::delete               operator owner admin
invitations::create            operator owner admin
invitations::create(owner)     operator owner
invitations::list              operator owner admin
invitations::get               operator owner admin
invitations::resend            operator owner admin
invitations::revoke            operator owner admin
audit_events::list             operator owner admin
audit_events::export           operator owner admin
logos::find                    operator owner admin member
overview::get                  operator owner admin member
overview::get_contents         operator owner
joins::list                    operator owner admin
joins::list_page               operator owner admin
joins::count_recent_claims     operator owner admin
joins::get                     operator owner admin
joins::undo                    operator owner admin
claim_links::create            operator owner admin
assignments::assign            operator owner admin member
assignments::list              operator owner admin member
assignments::unassign          operator owner admin member
servers::create                operator owner admin
servers::list                  operator owner admin member
servers::resolve               operator owner admin member
servers::get                   operator owner admin member
servers::update                operator owner admin
servers::list_former_slugs     operator owner admin member
servers::release_slug          operator owner admin
end_users::list                operator owner admin member
end_users::get                 operator owner admin member
end_users::get_timeline        operator owner admin member
end_users::export              operator owner admin
activity::list_events          operator owner admin member
activity::list_calls           operator owner admin member
activity::list_sessions        operator owner admin member
analytics::run                 operator owner admin member
try_it::reset                  operator owner admin member
servers::delete                operator owner admin
end_users::resolve             operator owner admin
end_users::delete              operator owner admin
organizations::delete          operator owner
";

/// Members without the required role receive `forbidden`.
async fn operations_require_the_documented_roles(fixture: Fixture) {
    let mut table: Vec<(&str, String)> = Vec::new();
    for (index, name) in ["operator", "owner", "admin", "member", "client"].into_iter().enumerate() {
        let tenant = fixture.create_tenant(&format!("{name}-own")).await;
        let org = &tenant.organization.id;
        let cx = match name {
            "operator" => fixture.cx.clone(),
            "owner" => fixture.member_context(org, Role::Owner),
            "admin" => fixture.member_context(org, Role::Admin),
            "member" => fixture.member_context(org, Role::Member),
            _ => fixture.context(Caller::Client { organization_id: org.clone(), server_id: tenant.server.id.clone() }),
        };
        for (row, (operation, result)) in
            run_all_operations(&cx, &fixture.ops, &tenant, name).await.into_iter().enumerate()
        {
            if index == 0 {
                table.push((operation, String::new()));
            }
            match result.as_str() {
                "ok" => table[row].1.push_str(&format!(" {name}")),
                "forbidden" => {}
                other => panic!("{name} {operation}: {other}"),
            }
        }
    }
    let table: String = table.into_iter().map(|(operation, callers)| format!("{operation:30}{callers}\n")).collect();
    assert_eq!(table, EXPECTED);
}

/// Members of another organisation receive `not_found` regardless of their role, and change nothing.
async fn other_organisations_are_not_found(fixture: Fixture) {
    let (home, other) = (fixture.create_tenant("home").await, fixture.create_tenant("other").await);
    let (id, server_id) = (home.organization.id.clone(), home.server.id.clone());
    let client = fixture.context(Caller::Client { organization_id: id.clone(), server_id });
    let before = list_event_ids(&fixture, &other).await;
    for cx in [fixture.member_context(&id, Role::Owner), fixture.member_context(&id, Role::Member), client] {
        for (operation, result) in run_all_operations(&cx, &fixture.ops, &other, "foreign").await {
            let expected = if operation == "organizations::create" { "forbidden" } else { "not_found" };
            assert_eq!(result, expected, "{operation} by {:?}", cx.caller);
        }
    }
    assert_eq!(list_event_ids(&fixture, &other).await, before, "nothing was changed");
}

/// IDs of another organisation are not found in the caller's own organisation, and nothing is changed.
async fn foreign_ids_are_not_found(fixture: Fixture) {
    let (home, other) = (fixture.create_tenant("home").await, fixture.create_tenant("other").await);
    let mixed = Tenant { organization: home.organization.clone(), ..other };
    let cx = fixture.member_context(&home.organization.id, Role::Owner);
    let allowed = [
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
        "logos::find",
        "overview",
        "end_users::list",
        "activity::",
        // Only the caller's own test user, in the caller's own organisation.
        "try_it::reset",
    ];
    // These search by name, and both organisations use the same names. `servers::list` has no argument of the other
    // organisation.
    let by_name = ["api_keys::resolve", "end_users::resolve", "servers::list"];
    for (operation, result) in run_all_operations(&cx, &fixture.ops, &mixed, "mixed").await {
        if !allowed.iter().chain(&by_name).any(|prefix| operation.starts_with(prefix)) {
            assert_eq!(result, "not_found", "{operation}");
        }
    }
    let operator = &fixture.cx;
    assert_eq!(servers::list(operator, &fixture.ops, &mixed.server.organization_id).await.unwrap().len(), 1);
}

async fn list_event_ids(fixture: &Fixture, tenant: &Tenant) -> Vec<AuditEventId> {
    let mut conn = fixture.ops.store().read().await.unwrap();
    let events = audit::list(&mut conn, &tenant.organization.id, None, 100).await.unwrap();
    events.into_iter().map(|event| event.id).collect()
}

waypost_testkit::both!(extended set_up =>
    operations_require_the_documented_roles,
    other_organisations_are_not_found,
    foreign_ids_are_not_found,
);
