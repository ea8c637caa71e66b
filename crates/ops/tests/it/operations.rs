//! What the acts do, refuse and write down.

use waypost_core::organization::{Member, Role};
use waypost_core::server::{AuthType, SignInPolicy, Support, Toolset};
use waypost_core::{Code, Error};
use waypost_ops::assignments::AssignmentPatch;
use waypost_ops::servers::ServerSettings;
use waypost_ops::{api_keys, assignments, organizations, servers, users};
use waypost_store::audit;

use crate::stage::{Stage, plain_key, stage};

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.message.contains(words), "{error}");
}

async fn organisations_have_unique_slugs(stage: Stage) {
    let Stage { ops, cx } = &stage;
    let acme = organizations::create(cx, ops, "acme", Some("  Acme\nGmbH ")).await.unwrap();
    assert_eq!(acme.name, "Acme GmbH");
    let plain = organizations::create(cx, ops, "plain", None).await.unwrap();
    assert_eq!(plain.name, "plain");
    refused(organizations::create(cx, ops, "acme", None).await, Code::Conflict, "`acme` is taken");
    refused(organizations::create(cx, ops, "Acme!", None).await, Code::InvalidArguments, "slug");
    refused(organizations::create(cx, ops, "fine", Some(" ")).await, Code::InvalidArguments, "name");
    let to_acme = organizations::OrganizationPatch { slug: Some("acme".into()), name: None };
    refused(organizations::update(cx, ops, &plain.id, &to_acme).await, Code::Conflict, "`acme` is taken");
    let found = [plain.slug.as_str(), plain.id.as_str()];
    for text in found {
        assert_eq!(organizations::resolve(cx, ops, text).await.unwrap(), plain);
    }
    assert_eq!(organizations::list(cx, ops).await.unwrap(), [acme.clone(), plain.clone()]);
    let member = stage.member(&plain.id, Role::Member);
    assert_eq!(organizations::list(&member, ops).await.unwrap(), [plain]);
}

async fn an_owner_is_always_left(stage: Stage) {
    let Stage { ops, cx } = &stage;
    let t = stage.tenant("acme").await;
    let org = &t.organization.id;
    let (owner, member) = (&t.owner.user_id, &t.member.user_id);
    refused(users::delete(cx, ops, org, owner).await, Code::Conflict, "last owner");
    refused(users::update(cx, ops, org, owner, Role::Admin).await, Code::Conflict, "last owner");
    assert_eq!(users::update(cx, ops, org, owner, Role::Owner).await.unwrap().role, Role::Owner);
    users::update(cx, ops, org, member, Role::Owner).await.unwrap();
    // Each takes the other's place away at the same moment: one of them is too late.
    let (a, b) = tokio::join!(
        users::update(cx, ops, org, owner, Role::Member),
        users::update(cx, ops, org, member, Role::Member)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    let owners = users::list(cx, ops, org).await.unwrap().into_iter().filter(|member| member.role == Role::Owner);
    assert_eq!(owners.count(), 1);
}

async fn a_user_can_be_in_several_organisations(stage: Stage) {
    let Stage { ops, cx } = &stage;
    let (one, two) = (stage.tenant("one").await, stage.tenant("two").await);
    let (one, two) = (&one.organization.id, &two.organization.id);
    let anna = users::create(cx, ops, one, "Anna@Example.com", Role::Admin).await.unwrap();
    // An address that is not verified has an account of its own in each organisation.
    let apart = users::create(cx, ops, two, "anna@example.com", Role::Owner).await.unwrap();
    assert_ne!(apart.user_id, anna.user_id);
    users::delete(cx, ops, two, &apart.user_id).await.unwrap();
    let mut tx = ops.db().begin().await.unwrap();
    waypost_store::user::mark_verified(&mut tx, &anna.user_id, cx.now()).await.unwrap();
    tx.commit().await.unwrap();
    let again = users::create(cx, ops, two, " anna@example.COM ", Role::Member).await.unwrap();
    assert_eq!((&again.user_id, again.email.as_str(), again.role), (&anna.user_id, "Anna@Example.com", Role::Member));
    refused(users::create(cx, ops, one, "ANNA@example.com", Role::Owner).await, Code::Conflict, "already a member");
    refused(users::create(cx, ops, one, "anna", Role::Owner).await, Code::InvalidArguments, "email");
    let anna = Member { is_verified: true, ..anna };
    assert_eq!(users::resolve(cx, ops, one, "ANNA@EXAMPLE.COM").await.unwrap(), anna);
    users::delete(cx, ops, one, &anna.user_id).await.unwrap();
    refused(users::resolve(cx, ops, one, anna.user_id.as_str()).await, Code::NotFound, "member");
    assert_eq!(users::resolve(cx, ops, two, anna.user_id.as_str()).await.unwrap(), again);
    users::delete(cx, ops, two, &anna.user_id).await.unwrap();
    let new = users::create(cx, ops, one, "anna@example.com", Role::Member).await.unwrap();
    assert_eq!(new.user_id, anna.user_id, "a verified account stays");
    let ben = users::create(cx, ops, one, "ben@example.com", Role::Member).await.unwrap();
    users::delete(cx, ops, one, &ben.user_id).await.unwrap();
    let new = users::create(cx, ops, one, "ben@example.com", Role::Member).await.unwrap();
    assert_ne!(new.user_id, ben.user_id, "an unverified one without an organisation is deleted");
}

async fn servers_are_checked(stage: Stage) {
    let Stage { ops, cx } = &stage;
    let t = stage.tenant("acme").await;
    let (org, id) = (&t.organization.id, &t.server.id);
    let set = |settings: ServerSettings| async move { servers::update(cx, ops, org, id, &settings).await };
    let custom = ServerSettings { auth_type: Some(AuthType::CustomOauth), ..ServerSettings::default() };
    let error = set(custom.clone()).await.unwrap_err();
    assert_eq!((error.code, &error.details["field"]), (Code::InvalidArguments, &"oauth_config".into()));
    assert!(error.message.contains("needs an identity provider"), "{error}");
    refused(servers::create(cx, ops, org, "new", &custom).await, Code::InvalidArguments, "identity provider");
    let origins = ServerSettings { allowed_origins: Some(vec!["https://a.de/x".into()]), ..ServerSettings::default() };
    refused(set(origins).await, Code::InvalidArguments, "https://a.de/x");
    let fine = ServerSettings {
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
    let server = set(fine).await.unwrap();
    assert_eq!((server.public_page, server.public_page_indexed), (false, true));
    assert_eq!(server.allowed_origins, ["https://a.de", "https://b.de"]);
    assert_eq!(
        (server.name.as_str(), server.toolset, server.walkthrough_tools_enabled),
        ("Name", Toolset::Stepwise, false)
    );
    assert_eq!(servers::get(cx, ops, org, id).await.unwrap(), server);
    assert_eq!(set(ServerSettings::default()).await.unwrap(), server, "nothing asked, nothing changed");
}

async fn former_slugs_serve_until_they_are_released(stage: Stage) {
    let Stage { ops, cx } = &stage;
    let (one, two) = (stage.tenant("one").await, stage.tenant("two").await);
    let (org, id) = (&one.organization.id, &one.server.id);
    let to = |slug: &str| ServerSettings { slug: Some(slug.to_owned()), ..ServerSettings::default() };
    let moved = servers::update(cx, ops, org, id, &to("uno")).await.unwrap();
    for text in ["one", "uno", id.as_str()] {
        assert_eq!(servers::resolve(cx, ops, text).await.unwrap(), moved);
    }
    assert_eq!(servers::list_former_slugs(cx, ops, org, id).await.unwrap(), ["one"]);
    let (other, other_id) = (&two.organization.id, &two.server.id);
    refused(servers::update(cx, ops, other, other_id, &to("one")).await, Code::Conflict, "`one` is taken");
    refused(servers::create(cx, ops, other, "uno", &ServerSettings::default()).await, Code::Conflict, "`uno` is taken");
    refused(servers::release_slug(cx, ops, org, id, "uno").await, Code::NotFound, "former slug");
    servers::release_slug(cx, ops, org, id, "one").await.unwrap();
    refused(servers::resolve(cx, ops, "one").await, Code::NotFound, "server");
    assert_eq!(servers::update(cx, ops, other, other_id, &to("one")).await.unwrap().slug, "one");
}

async fn keys_are_shown_once(stage: Stage) {
    let Stage { ops, cx } = &stage;
    let t = stage.tenant("acme").await;
    let org = &t.organization.id;
    let (key, secret) = api_keys::create(cx, ops, org, plain_key("ci", Role::Admin)).await.unwrap();
    assert!(secret.starts_with("wpk_") && secret.len() == 47, "{}", secret.len());
    let caller = api_keys::authenticate(cx, ops, &secret).await.unwrap().unwrap();
    assert_eq!(caller.actor(), key.id.as_str());
    refused(users::delete(&stage.by(caller), ops, org, &t.owner.user_id).await, Code::Forbidden, "owner");
    for wrong in ["", "wpk_", &secret[..46], "wpa_0"] {
        assert_eq!(api_keys::authenticate(cx, ops, wrong).await.unwrap(), None);
    }
    refused(api_keys::create(cx, ops, org, plain_key(" ci ", Role::Member)).await, Code::Conflict, "`ci` already exists");
    let used = waypost_core::organization::ApiKey { last_used_at: Some(cx.now()), ..key.clone() };
    for text in ["ci", key.id.as_str()] {
        assert_eq!(api_keys::resolve(cx, ops, org, text).await.unwrap(), used);
    }
    api_keys::delete(cx, ops, org, &key.id).await.unwrap();
    assert_eq!(api_keys::authenticate(cx, ops, &secret).await.unwrap(), None);
}

async fn placing_twice_changes_what_is_asked(stage: Stage) {
    let Stage { ops, cx } = &stage;
    let t = stage.tenant("acme").await;
    let (org, server, place) = (&t.organization.id, &t.server.id, (&t.server.id, &t.walkthrough));
    let version = || async { ops.db().read().await.unwrap().config_version().await.unwrap() };
    let before = version().await;
    let same = assignments::assign(cx, ops, org, place, AssignmentPatch::default()).await.unwrap();
    assert_eq!((same.display_order, same.enabled), (1, true));
    assert_eq!(version().await, before, "nothing changed, nobody is told");
    let off = AssignmentPatch { display_order: Some(7), enabled: Some(false) };
    let off = assignments::assign(cx, ops, org, place, off).await.unwrap();
    assert_eq!((off.display_order, off.enabled, &off.id), (7, false, &same.id));
    assert!(version().await > before);
    let listed = assignments::list(cx, ops, org, server).await.unwrap();
    assert_eq!(listed[0].assignment, off);
    assignments::unassign(cx, ops, org, server, &t.walkthrough).await.unwrap();
    refused(assignments::unassign(cx, ops, org, server, &t.walkthrough).await, Code::NotFound, "assignment");
    let gone = waypost_core::id::WalkthroughId::from_store("wt_gone".into());
    let placed = assignments::assign(cx, ops, org, (server, &gone), AssignmentPatch::default()).await;
    refused(placed, Code::WalkthroughNotFound, "walkthrough");
}

async fn everything_is_written_down(stage: Stage) {
    let Stage { ops, cx } = &stage;
    let t = stage.tenant("acme").await;
    organizations::delete(&stage.member(&t.organization.id, Role::Owner), ops, &t.organization.id).await.unwrap();
    let mut conn = ops.db().read().await.unwrap();
    let events = audit::list(&mut conn, &t.organization.id, None, 100).await.unwrap();
    let mut told: Vec<_> = events.iter().map(|event| (event.act.as_str(), event.actor.as_str())).collect();
    told.sort_unstable();
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
    assert_eq!(told, expected);
    assert!(events.iter().all(|event| !format!("{event:?}").contains("wpk_")), "no secret in the log");
    drop(conn);
    refused(organizations::get(cx, ops, &t.organization.id).await, Code::NotFound, "organisation");
}

waypost_testkit::both!(
    stage => organisations_have_unique_slugs, an_owner_is_always_left, a_user_can_be_in_several_organisations,
    servers_are_checked, former_slugs_serve_until_they_are_released, keys_are_shown_once,
    placing_twice_changes_what_is_asked, everything_is_written_down
);
