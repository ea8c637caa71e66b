//! The access matrix of all operations: each is called by each kind of caller, in the caller's organisation and in
//! another.
//!
//! The list of operations is read from the sources, so a new operation fails `every_operation_has_a_row` until it has a
//! row in `rows` or `content.rs`, or an exception here with its reason. The rows need no valid arguments: an
//! operation must refuse a caller before it checks its arguments. `access.rs` checks some of the operations with
//! existing objects.

/// Calls operations: each line is an access, a path and the arguments.
macro_rules! rows {
    ($($access:ident $($segment:ident)::+ ($($argument:expr),* $(,)?);)+) => {
        vec![$(row(Access::$access, &[$(stringify!($segment)),+], $($segment)::+($($argument),*).await)),+]
    };
}

mod content;
mod rows;
mod sources;

use std::collections::BTreeSet;

use waypost_core::caller::{Caller, Ctx};
use waypost_core::id::AuditEventId;
use waypost_core::organization::Role;
use waypost_core::{Code, Error};
use waypost_ops::organizations;
use waypost_ops::servers::{self, ServerSettings};
use waypost_store::audit;

use self::rows::{Call, Row, call_all};
use crate::fixture::{Fixture, Tenant, set_up};
use crate::hosted;

/// The callers that may perform an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The operator only: work that spans all organisations.
    Operator,
    /// Owners of the organisation, and the operator.
    Owner,
    /// Admins and owners of the organisation, and the operator.
    Admin,
    /// All members of the organisation, and the operator.
    Member,
    /// The MCP clients of the organisation's servers, and the operator.
    Client,
    /// The MCP clients of this server, and the operator.
    Play,
    /// Signed-in users, on their own account.
    User,
}

impl Access {
    /// Whether a caller within its own organisation may perform the operation.
    fn allows(self, caller: &str) -> bool {
        let allowed: &[&str] = match self {
            Self::Operator => &["operator"],
            Self::Owner => &["operator", "owner"],
            Self::Admin => &["operator", "owner", "admin"],
            Self::Member => &["operator", "owner", "admin", "member"],
            Self::Client | Self::Play => &["operator", "client"],
            Self::User => &["user"],
        };
        allowed.contains(&caller)
    }

    /// Whether the operation belongs to no organisation, so that a caller without access receives `forbidden`.
    fn is_global(self) -> bool {
        matches!(self, Self::Operator | Self::User)
    }
}

/// The operations that have no row, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("api_keys::authenticate", "determines the caller: the argument is the key"),
    ("authorizations::get", "only the browser whose cookie is an argument finds its request"),
    ("authorizations::record_consent", "only the browser whose cookie is an argument finds its request"),
    ("call_records::CallContext::record", "records a call that another operation has authorized; returns nothing"),
    ("idempotency::begin", "keys belong to the caller: the caller's own actor is part of the key"),
    ("idempotency::complete", "keys belong to the caller: the caller's own actor is part of the key"),
    ("idempotency::release", "keys belong to the caller: the caller's own actor is part of the key"),
    ("identity::identify_failed_call", "determines whom to record for a rejected call; returns no error"),
    ("oauth_clients::find", "anyone may use a registered client; its secret is checked separately"),
    ("oauth_grants::exchange_code", "authorized by the code in the arguments"),
    ("oauth_grants::refresh_tokens", "authorized by the refresh token in the arguments"),
    ("oauth_grants::revoke_token", "authorized by the token in the arguments"),
    ("organizations::create", "two kinds of callers may: see `organisations_are_created_and_listed`"),
    ("organizations::list", "the result depends on the caller: see `organisations_are_created_and_listed`"),
    ("tool_definitions::observe", "stores what a server lists, for callers that were authorized to use or check it"),
    ("toolboxes::join", "authorized by the join token in the arguments"),
    ("user_accounts::UserAccounts::accept_and_sign_up", "authorized by the invitation's token in the arguments"),
    ("user_accounts::UserAccounts::begin_login", "signs in: the caller is a visitor"),
    ("user_accounts::UserAccounts::create_code", "signs in: the caller is a visitor"),
    ("user_accounts::UserAccounts::finish_login", "signs in: the caller is a visitor"),
    ("user_accounts::UserAccounts::get_account_link_user", "authorized by the link's token in the arguments"),
    ("user_accounts::UserAccounts::get_code", "only the browser whose cookie is an argument finds its code"),
    ("user_accounts::UserAccounts::get_invitation", "authorized by the invitation's token in the arguments"),
    ("user_accounts::UserAccounts::set_up", "authorized by the setup token in the arguments"),
    ("user_accounts::UserAccounts::sign_in_with_code", "signs in: the caller is a visitor"),
    ("user_accounts::UserAccounts::sign_in_with_password", "signs in: the caller is a visitor"),
    ("user_accounts::UserAccounts::sign_in_with_provider", "signs in: the caller is a visitor"),
    ("user_accounts::UserAccounts::use_account_link", "authorized by the link's token in the arguments"),
    ("user_sessions::create", "the last step of a sign-in"),
    ("user_sessions::find", "determines the caller: the argument is the session's token"),
    ("user_sessions::touch", "records the use of a session that `find` has returned"),
    ("walkthroughs::trash::purge_expired", "authorizes each walkthrough with `purge`"),
];

/// Returns a context of each kind of caller in the tenant's organisation.
fn callers(fixture: &Fixture, tenant: &Tenant) -> Vec<(&'static str, Ctx)> {
    let organization = &tenant.organization.id;
    let client = Caller::Client { organization_id: organization.clone(), server_id: tenant.server.id.clone() };
    vec![
        ("operator", fixture.cx.clone()),
        ("owner", fixture.member_context(organization, Role::Owner)),
        ("admin", fixture.member_context(organization, Role::Admin)),
        ("member", fixture.member_context(organization, Role::Member)),
        ("client", fixture.context(client)),
        ("user", fixture.context(Caller::User { user_id: tenant.member.user_id.clone() })),
        ("visitor", fixture.context(Caller::Visitor)),
    ]
}

/// Calls every operation on `tenant`.
async fn call(fixture: &Fixture, cx: &Ctx, tenant: &Tenant, new: &str) -> Vec<Row> {
    let hosting = hosted::start(fixture.ops.store().clone(), fixture.cx.clock.clone());
    call_all(Call { cx, operator: &fixture.cx, ops: &fixture.ops, hosting: &hosting, tenant, new }).await
}

/// Whether the error says that the caller has no access, and not that an argument is invalid or an object is missing.
fn is_refusal(error: &Error, code: Code) -> bool {
    let is_hidden = ["There is no such organisation.", "There is no such server."].contains(&error.message.as_str());
    error.code == code && (code == Code::Forbidden || is_hidden)
}

fn assert_refused(row: &Row, code: Code, caller: &str) {
    let is_refused = row.error.as_ref().is_some_and(|error| is_refusal(error, code));
    assert!(is_refused, "{caller} {}: {:?} instead of `{}`", row.name, row.error, code.as_str());
}

/// A caller without the required role receives `forbidden`; a caller without access to the organisation, `not_found`.
async fn operations_refuse_all_other_callers(fixture: Fixture) {
    let names: Vec<&str> =
        callers(&fixture, &fixture.create_tenant("names").await).iter().map(|(name, _)| *name).collect();
    for (index, name) in names.into_iter().enumerate() {
        let tenant = fixture.create_tenant(&format!("{name}-own")).await;
        let (_, cx) = callers(&fixture, &tenant).swap_remove(index);
        for row in call(&fixture, &cx, &tenant, name).await {
            if row.access.allows(name) {
                let error = row.error.as_ref();
                assert!(error.is_none_or(|error| error.code != Code::Forbidden), "{name} {}: {error:?}", row.name);
                let is_hidden = error.is_some_and(|error| is_refusal(error, Code::NotFound));
                assert!(!is_hidden || row.access.is_global(), "{name} {}: {error:?}", row.name);
            } else if row.access.is_global() || !matches!(name, "user" | "visitor") {
                assert_refused(&row, Code::Forbidden, name);
            } else {
                assert_refused(&row, Code::NotFound, name);
            }
        }
    }
}

/// In another organisation, everything is `not_found`, and nothing is changed.
async fn operations_hide_other_organisations(fixture: Fixture) {
    let (home, other) = (fixture.create_tenant("home").await, fixture.create_tenant("other").await);
    let before = list_event_ids(&fixture, &other).await;
    for (name, cx) in callers(&fixture, &home).into_iter().filter(|(name, _)| *name != "operator") {
        for row in call(&fixture, &cx, &other, "foreign").await.iter().filter(|row| !row.access.is_global()) {
            assert_refused(row, Code::NotFound, name);
        }
    }
    assert_eq!(list_event_ids(&fixture, &other).await, before, "nothing was changed");
}

/// A client cannot play walkthroughs of another server, even in its own organisation.
async fn clients_play_only_on_their_own_server(fixture: Fixture) {
    let tenant = fixture.create_tenant("home").await;
    let organization_id = tenant.organization.id.clone();
    let settings = ServerSettings::default();
    let server = servers::create(&fixture.cx, &fixture.ops, &organization_id, "second", &settings).await.unwrap();
    let cx = fixture.context(Caller::Client { organization_id, server_id: server.id });
    let rows = call(&fixture, &cx, &tenant, "second").await;
    let play: Vec<&Row> = rows.iter().filter(|row| row.access == Access::Play).collect();
    assert!(!play.is_empty());
    for row in play {
        assert_refused(row, Code::NotFound, "client of another server");
    }
}

/// The operator and users with a verified email can create organisations. The operator lists all organisations, other
/// callers only their own.
async fn organisations_are_created_and_listed(fixture: Fixture) {
    let (home, _other) = (fixture.create_tenant("home").await, fixture.create_tenant("other").await);
    for (name, cx) in callers(&fixture, &home) {
        let slug = format!("new-{name}");
        let created = organizations::create(&cx, &fixture.ops, &slug, None).await.map(|created| created.slug);
        match name {
            "operator" => assert_eq!(created.unwrap(), slug),
            // The fixture's users have not verified their email.
            "user" => assert!(created.unwrap_err().message.starts_with("Your email is not verified"), "{name}"),
            _ => assert_eq!(created.unwrap_err().code, Code::Forbidden, "{name}"),
        }
        let listed = organizations::list(&cx, &fixture.ops).await;
        let slugs = listed.map(|listed| listed.into_iter().map(|organization| organization.slug).collect::<Vec<_>>());
        match name {
            "operator" => assert_eq!(slugs.unwrap().len(), 3),
            "client" | "visitor" => assert_eq!(slugs.unwrap_err().code, Code::Forbidden, "{name}"),
            _ => assert_eq!(slugs.unwrap(), ["home"], "{name}"),
        }
    }
}

/// A new operation fails this test until it has a row, or an exception with its reason.
async fn every_operation_has_a_row(fixture: Fixture) {
    let tenant = fixture.create_tenant("home").await;
    let rows = call(&fixture, &fixture.context(Caller::Visitor), &tenant, "new").await;
    let rows: BTreeSet<String> = rows.into_iter().map(|row| row.name).collect();
    let exceptions: BTreeSet<String> = EXCEPTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert!(rows.is_disjoint(&exceptions), "row and exception: {:?}", rows.intersection(&exceptions));
    let operations = sources::list_operations();
    let covered = &rows | &exceptions;
    assert_eq!(&operations - &covered, BTreeSet::new(), "operations without a row");
    assert_eq!(&covered - &operations, BTreeSet::new(), "rows and exceptions of operations that do not exist");
}

async fn list_event_ids(fixture: &Fixture, tenant: &Tenant) -> Vec<AuditEventId> {
    let mut conn = fixture.ops.store().read().await.unwrap();
    let events = audit::list(&mut conn, &tenant.organization.id, None, 100).await.unwrap();
    events.into_iter().map(|event| event.id).collect()
}

waypost_testkit::both!(extended set_up =>
    operations_refuse_all_other_callers,
    operations_hide_other_organisations,
    clients_play_only_on_their_own_server,
    organisations_are_created_and_listed,
    every_operation_has_a_row,
);
