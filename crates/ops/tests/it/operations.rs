//! Tests of the effects, errors and audit events of operations.

use waypost_core::organization::{Member, Role};
use waypost_core::server::{AuthType, SignInPolicy, Support, Toolset};
use waypost_core::{Code, Error};
use waypost_ops::assignments::AssignmentPatch;
use waypost_ops::servers::ServerSettings;
use waypost_ops::{api_keys, assignments, organizations, servers, users};
use waypost_store::audit;

use crate::fixture::{Fixture, plain_key, set_up};

#[track_caller]
fn assert_rejected<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(words), "{error}");
}

async fn organisations_have_unique_slugs(fixture: Fixture) {
    let Fixture { ops, cx } = &fixture;
    let acme = organizations::create(cx, ops, "acme", Some("  Acme\nGmbH ")).await.unwrap();
    assert_eq!(acme.name, "Acme GmbH");
    let plain = organizations::create(cx, ops, "plain", None).await.unwrap();
    assert_eq!(plain.name, "plain");
    assert_rejected(organizations::create(cx, ops, "acme", None).await, Code::Conflict, "`acme` is taken");
    assert_rejected(organizations::create(cx, ops, "Acme!", None).await, Code::InvalidArguments, "slug");
    assert_rejected(organizations::create(cx, ops, "fine", Some(" ")).await, Code::InvalidArguments, "name");
    let to_acme = organizations::OrganizationPatch { slug: Some("acme".into()), ..Default::default() };
    assert_rejected(organizations::update(cx, ops, &plain.id, &to_acme).await, Code::Conflict, "`acme` is taken");
    let found = [plain.slug.as_str(), plain.id.as_str()];
    for text in found {
        assert_eq!(organizations::resolve(cx, ops, text).await.unwrap(), plain);
    }
    assert_eq!(organizations::list(cx, ops).await.unwrap(), [acme.clone(), plain.clone()]);
    let member = fixture.member_context(&plain.id, Role::Member);
    assert_eq!(organizations::list(&member, ops).await.unwrap(), [plain]);
}

async fn the_last_owner_cannot_be_removed(fixture: Fixture) {
    let Fixture { ops, cx } = &fixture;
    let t = fixture.create_tenant("acme").await;
    let org = &t.organization.id;
    let (owner, member) = (&t.owner.user_id, &t.member.user_id);
    assert_rejected(users::delete(cx, ops, org, owner).await, Code::Conflict, "last owner");
    assert_rejected(users::update(cx, ops, org, owner, Role::Admin).await, Code::Conflict, "last owner");
    assert_eq!(users::update(cx, ops, org, owner, Role::Owner).await.unwrap().role, Role::Owner);
    users::update(cx, ops, org, member, Role::Owner).await.unwrap();
    // Both owners are downgraded concurrently: one of the updates is rejected.
    let (a, b) = tokio::join!(
        users::update(cx, ops, org, owner, Role::Member),
        users::update(cx, ops, org, member, Role::Member)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    let owners = users::list(cx, ops, org).await.unwrap().into_iter().filter(|member| member.role == Role::Owner);
    assert_eq!(owners.count(), 1);
}

async fn a_user_can_be_in_several_organisations(fixture: Fixture) {
    let Fixture { ops, cx } = &fixture;
    let (one, two) = (fixture.create_tenant("one").await, fixture.create_tenant("two").await);
    let (one, two) = (&one.organization.id, &two.organization.id);
    let anna = users::create(cx, ops, one, "Anna@Example.com", Role::Admin).await.unwrap();
    // An unverified email has a separate account in each organisation.
    let separate = users::create(cx, ops, two, "anna@example.com", Role::Owner).await.unwrap();
    assert_ne!(separate.user_id, anna.user_id);
    users::delete(cx, ops, two, &separate.user_id).await.unwrap();
    let mut tx = ops.store().begin().await.unwrap();
    waypost_store::user::mark_verified(&mut tx, &anna.user_id, cx.now()).await.unwrap();
    tx.commit().await.unwrap();
    let again = users::create(cx, ops, two, " anna@example.COM ", Role::Member).await.unwrap();
    assert_eq!((&again.user_id, again.email.as_str(), again.role), (&anna.user_id, "Anna@Example.com", Role::Member));
    assert_rejected(
        users::create(cx, ops, one, "ANNA@example.com", Role::Owner).await,
        Code::Conflict,
        "already a member",
    );
    assert_rejected(users::create(cx, ops, one, "anna", Role::Owner).await, Code::InvalidArguments, "email");
    let anna = Member { is_verified: true, ..anna };
    assert_eq!(users::resolve(cx, ops, one, "ANNA@EXAMPLE.COM").await.unwrap(), anna);
    users::delete(cx, ops, one, &anna.user_id).await.unwrap();
    assert_rejected(users::resolve(cx, ops, one, anna.user_id.as_str()).await, Code::NotFound, "member");
    assert_eq!(users::resolve(cx, ops, two, anna.user_id.as_str()).await.unwrap(), again);
    users::delete(cx, ops, two, &anna.user_id).await.unwrap();
    let new = users::create(cx, ops, one, "anna@example.com", Role::Member).await.unwrap();
    assert_eq!(new.user_id, anna.user_id, "a verified account is kept");
    let ben = users::create(cx, ops, one, "ben@example.com", Role::Member).await.unwrap();
    users::delete(cx, ops, one, &ben.user_id).await.unwrap();
    let new = users::create(cx, ops, one, "ben@example.com", Role::Member).await.unwrap();
    assert_ne!(new.user_id, ben.user_id, "an unverified account without an organisation is deleted");
}

async fn server_settings_are_validated(fixture: Fixture) {
    let Fixture { ops, cx } = &fixture;
    let t = fixture.create_tenant("acme").await;
    let (org, id) = (&t.organization.id, &t.server.id);
    let set = |settings: ServerSettings| async move { servers::update(cx, ops, org, id, &settings).await };
    let custom = ServerSettings { auth_type: Some(AuthType::CustomOauth), ..ServerSettings::default() };
    let error = set(custom.clone()).await.unwrap_err();
    assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &"oauth_config".into()));
    assert!(error.message.contains("needs an identity provider"), "{error}");
    assert_rejected(servers::create(cx, ops, org, "new", &custom).await, Code::InvalidArguments, "identity provider");
    let origins = ServerSettings { allowed_origins: Some(vec!["https://a.de/x".into()]), ..ServerSettings::default() };
    assert_rejected(set(origins).await, Code::InvalidArguments, "https://a.de/x");
    let valid = ServerSettings {
        slug: Some("moved".into()),
        name: Some("Name".into()),
        product_name: Some("Product".into()),
        auth_type: Some(AuthType::None),
        oauth_config: None,
        sign_in: Some(SignInPolicy::OnConnect),
        walkthrough_tools_enabled: Some(false),
        toolset: Some(Toolset::Stepwise),
        support: Some(Support::Tickets),
        allowed_origins: Some(vec!["https://B.de".into(), "https://a.de:443".into()]),
        public_page: Some(false),
        public_page_indexed: Some(true),
    };
    let server = set(valid).await.unwrap();
    assert_eq!((server.public_page, server.public_page_indexed), (false, true));
    assert_eq!(server.allowed_origins, ["https://a.de", "https://b.de"]);
    assert_eq!(
        (server.name.as_str(), server.toolset, server.walkthrough_tools_enabled),
        ("Name", Toolset::Stepwise, false)
    );
    assert_eq!(servers::get(cx, ops, org, id).await.unwrap(), server);
    assert_eq!(set(ServerSettings::default()).await.unwrap(), server, "empty settings change nothing");
}

async fn former_slugs_resolve_until_they_are_released(fixture: Fixture) {
    let Fixture { ops, cx } = &fixture;
    let (one, two) = (fixture.create_tenant("one").await, fixture.create_tenant("two").await);
    let (org, id) = (&one.organization.id, &one.server.id);
    let to = |slug: &str| ServerSettings { slug: Some(slug.to_owned()), ..ServerSettings::default() };
    let moved = servers::update(cx, ops, org, id, &to("uno")).await.unwrap();
    for text in ["one", "uno", id.as_str()] {
        assert_eq!(servers::resolve(cx, ops, text).await.unwrap(), moved);
    }
    assert_eq!(servers::list_former_slugs(cx, ops, org, id).await.unwrap(), ["one"]);
    let (other, other_id) = (&two.organization.id, &two.server.id);
    assert_rejected(servers::update(cx, ops, other, other_id, &to("one")).await, Code::Conflict, "`one` is taken");
    assert_rejected(
        servers::create(cx, ops, other, "uno", &ServerSettings::default()).await,
        Code::Conflict,
        "`uno` is taken",
    );
    assert_rejected(servers::release_slug(cx, ops, org, id, "uno").await, Code::NotFound, "former slug");
    servers::release_slug(cx, ops, org, id, "one").await.unwrap();
    assert_rejected(servers::resolve(cx, ops, "one").await, Code::NotFound, "server");
    assert_eq!(servers::update(cx, ops, other, other_id, &to("one")).await.unwrap().slug, "one");
}

async fn a_key_authenticates_until_it_is_deleted(fixture: Fixture) {
    let Fixture { ops, cx } = &fixture;
    let t = fixture.create_tenant("acme").await;
    let org = &t.organization.id;
    let (key, secret) = api_keys::create(cx, ops, org, plain_key("ci", Role::Admin)).await.unwrap();
    assert!(secret.starts_with("wpk_") && secret.len() == 47, "{}", secret.len());
    let caller = api_keys::authenticate(cx, ops, &secret).await.unwrap().unwrap();
    assert_eq!(caller.actor(), key.id.as_str());
    assert_rejected(
        users::delete(&fixture.context(caller), ops, org, &t.owner.user_id).await,
        Code::Forbidden,
        "owner",
    );
    for wrong in ["", "wpk_", &secret[..46], "wpa_0"] {
        assert_eq!(api_keys::authenticate(cx, ops, wrong).await.unwrap(), None);
    }
    assert_rejected(
        api_keys::create(cx, ops, org, plain_key(" ci ", Role::Member)).await,
        Code::Conflict,
        "`ci` already exists",
    );
    let used = waypost_core::organization::ApiKey { last_used_at: Some(cx.now()), ..key.clone() };
    for text in ["ci", key.id.as_str()] {
        assert_eq!(api_keys::resolve(cx, ops, org, text).await.unwrap(), used);
    }
    api_keys::delete(cx, ops, org, &key.id).await.unwrap();
    assert_eq!(api_keys::authenticate(cx, ops, &secret).await.unwrap(), None);
}

async fn assigning_again_updates_the_assignment(fixture: Fixture) {
    let Fixture { ops, cx } = &fixture;
    let t = fixture.create_tenant("acme").await;
    let (org, server, walkthrough) = (&t.organization.id, &t.server.id, &t.walkthrough);
    let version = || async { ops.store().read().await.unwrap().config_version().await.unwrap().version };
    let before = version().await;
    let same = assignments::assign(cx, ops, org, server, walkthrough, AssignmentPatch::default()).await.unwrap();
    assert_eq!((same.display_order, same.enabled), (1, true));
    assert_eq!(version().await, before, "an empty patch does not change the configuration version");
    let disable = AssignmentPatch { display_order: Some(7), enabled: Some(false) };
    let updated = assignments::assign(cx, ops, org, server, walkthrough, disable).await.unwrap();
    assert_eq!((updated.display_order, updated.enabled, &updated.id), (7, false, &same.id));
    assert!(version().await > before);
    let listed = assignments::list(cx, ops, org, server).await.unwrap();
    assert_eq!(listed[0].assignment, updated);
    assignments::unassign(cx, ops, org, server, walkthrough).await.unwrap();
    assert_rejected(assignments::unassign(cx, ops, org, server, walkthrough).await, Code::NotFound, "assignment");
    let unknown = waypost_core::id::WalkthroughId::from_store("wt_gone".into());
    let assigned = assignments::assign(cx, ops, org, server, &unknown, AssignmentPatch::default()).await;
    assert_rejected(assigned, Code::WalkthroughNotFound, "walkthrough");
}

async fn operations_are_audited(fixture: Fixture) {
    let Fixture { ops, cx } = &fixture;
    let t = fixture.create_tenant("acme").await;
    organizations::delete(&fixture.member_context(&t.organization.id, Role::Owner), ops, &t.organization.id)
        .await
        .unwrap();
    let mut conn = ops.store().read().await.unwrap();
    let events = audit::list(&mut conn, &t.organization.id, None, 100).await.unwrap();
    let mut actions: Vec<_> = events.iter().map(|event| (event.act.as_str(), event.actor.as_str())).collect();
    actions.sort_unstable();
    let expected = [
        ("assignment.add", "operator"),
        ("invitation.create", "operator"),
        ("key.create", "operator"),
        ("member.create", "operator"),
        ("member.create", "operator"),
        ("organization.create", "operator"),
        ("organization.delete", "usr_caller"),
        ("server.create", "operator"),
    ];
    assert_eq!(actions, expected);
    assert!(events.iter().all(|event| !format!("{event:?}").contains("wpk_")), "no secret in the log");
    drop(conn);
    assert_rejected(organizations::get(cx, ops, &t.organization.id).await, Code::NotFound, "organisation");
}

waypost_testkit::both!(extended set_up =>
    organisations_have_unique_slugs,
    the_last_owner_cannot_be_removed,
    a_user_can_be_in_several_organisations,
    server_settings_are_validated,
    former_slugs_resolve_until_they_are_released,
    a_key_authenticates_until_it_is_deleted,
    assigning_again_updates_the_assignment,
    operations_are_audited,
);
