//! Reads and writes of each kind of object, limited to the organisation.

use waypost_core::Timestamp;
use waypost_core::analytics::TimeRange;
use waypost_core::assignment::Assignment;
use waypost_core::id::{AssignmentId, AuditEventId, EndUserId, OrganizationId, ServerId, SessionId, UserId};
use waypost_core::organization::{ApiKey, Member, Organization, Role, User};
use waypost_core::server::{Server, Toolset};
use waypost_core::walkthrough::WalkthroughState;
use waypost_store::progress::ProgressKey;
use waypost_store::session::{self, NewSession};
use waypost_store::{
    Db, activity, api_key, assignment, audit, end_user, organization, progress, server, system, tool_call, user,
};

use crate::fixture::{Fixture, NOW};
use crate::open;

struct TwoFixtures {
    db: Db,
    one: Fixture,
    two: Fixture,
}

async fn two_fixtures(url: &str) -> TwoFixtures {
    let db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    TwoFixtures { db, one, two }
}

async fn organizations(TwoFixtures { db, one, two }: TwoFixtures) {
    let mut tx = db.begin().await.unwrap();
    let config = tx.config_version().await.unwrap().version;
    assert_eq!(organization::find(&mut tx, &one.organization).await.unwrap(), Some(one.organization()));
    assert_eq!(system::find_organization_by_slug(&mut tx, "org-2").await.unwrap(), Some(two.organization()));
    assert_eq!(system::find_organization_by_slug(&mut tx, "org-3").await.unwrap(), None);
    assert_eq!(system::list_organizations(&mut tx).await.unwrap(), [one.organization(), two.organization()]);
    let changed =
        Organization { name: "N".into(), toolboxes_enabled: false, slug: "org-0".into(), ..two.organization() };
    assert!(organization::update(&mut tx, &changed, NOW).await.unwrap());
    assert_eq!(system::list_organizations(&mut tx).await.unwrap(), [changed.clone(), one.organization()]);
    assert_eq!(tx.config_version().await.unwrap().version, config + 1);
    // The switches are independent of each other.
    let before = tx.organization_version(&two.organization).await.unwrap();
    let changed = Organization { toolboxes_enabled: true, gateway_enabled: false, ..changed };
    assert!(organization::update(&mut tx, &changed, NOW).await.unwrap());
    assert_eq!(organization::find(&mut tx, &two.organization).await.unwrap(), Some(changed.clone()));
    assert_ne!(tx.organization_version(&two.organization).await.unwrap(), before, "the change is noticed everywhere");
    let third = Organization {
        id: OrganizationId::from_store("org_3".into()),
        slug: "org-3".into(),
        gateway_enabled: false,
        ..one.organization()
    };
    organization::insert(&mut tx, &third).await.unwrap();
    assert_eq!(organization::find(&mut tx, &third.id).await.unwrap(), Some(third));
    let unknown = Organization { id: OrganizationId::from_store("org_9".into()), ..changed.clone() };
    assert!(!organization::update(&mut tx, &Organization { slug: "x".into(), ..unknown }, NOW).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let twin = Organization { slug: "org-1".into(), ..changed };
    assert!(organization::update(&mut tx, &twin, NOW).await.unwrap_err().is_unique_violation());
}

async fn users(TwoFixtures { db, one, two }: TwoFixtures) {
    let mut tx = db.begin().await.unwrap();
    let owner = Member {
        user_id: one.user.clone(),
        email: "A1@x.de".into(),
        name: None,
        role: Role::Owner,
        is_verified: false,
        created_at: NOW,
    };
    let org = &one.organization;
    assert_eq!(user::find_member(&mut tx, org, &one.user).await.unwrap(), Some(owner.clone()));
    assert_eq!(user::find_member(&mut tx, org, &two.user).await.unwrap(), None);
    assert_eq!(user::find_member_by_email(&mut tx, org, "a1@x.de").await.unwrap(), Some(owner.clone()));
    assert_eq!(user::find_member_by_email(&mut tx, org, "a2@x.de").await.unwrap(), None);
    let accounts = system::list_accounts(&mut tx, "a2@x.de").await.unwrap();
    assert_eq!(accounts.into_iter().map(|accounts| accounts.user).collect::<Vec<_>>(), [two.user()]);
    user::add_member(&mut tx, org, &two.user, Role::Member, NOW).await.unwrap();
    assert_eq!(user::list_members(&mut tx, org).await.unwrap().len(), 2);
    assert_eq!(user::lock_owners(&mut tx, org).await.unwrap(), std::slice::from_ref(&one.user));
    assert!(user::set_role(&mut tx, org, &two.user, Role::Owner).await.unwrap());
    assert_eq!(user::lock_owners(&mut tx, org).await.unwrap(), [one.user.clone(), two.user.clone()]);
    assert!(!user::set_role(&mut tx, org, &UserId::from_store("usr_9".into()), Role::Owner).await.unwrap());
    assert!(user::remove_member(&mut tx, org, &one.user).await.unwrap());
    assert!(!user::remove_member(&mut tx, org, &one.user).await.unwrap());
    assert!(user::delete_without_membership(&mut tx, &one.user).await.unwrap());
    assert!(!user::delete_without_membership(&mut tx, &two.user).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let again = User { email: "a2@X.de".into(), ..one.user() };
    assert!(user::insert(&mut tx, &again, "a2@x.de").await.unwrap_err().is_unique_violation());
    drop(tx);
    let mut tx = db.begin().await.unwrap();
    let twice = user::add_member(&mut tx, org, &two.user, Role::Member, NOW).await;
    assert!(twice.unwrap_err().is_unique_violation());
}

async fn api_keys(TwoFixtures { db, one, two }: TwoFixtures) {
    let mut tx = db.begin().await.unwrap();
    let org = &one.organization;
    let key = system::find_api_key(&mut tx, "hash-1").await.unwrap().unwrap();
    assert_eq!((&key.organization_id, key.scope), (org, Role::Admin));
    assert_eq!(system::find_api_key(&mut tx, "hash-9").await.unwrap(), None);
    assert_eq!(api_key::find(&mut tx, org, &one.key).await.unwrap().as_ref(), Some(&key));
    assert_eq!(api_key::find(&mut tx, org, &two.key).await.unwrap(), None);
    assert_eq!(api_key::find_by_name(&mut tx, org, "key").await.unwrap().as_ref(), Some(&key));
    assert_eq!(api_key::list(&mut tx, org).await.unwrap(), std::slice::from_ref(&key));
    let renamed = ApiKey { name: "other".into(), scope: Role::Member, expires_at: Some(NOW.plus(9)), ..key.clone() };
    assert!(api_key::update(&mut tx, &renamed).await.unwrap());
    assert!(!api_key::update(&mut tx, &ApiKey { id: two.key.clone(), ..renamed.clone() }).await.unwrap());
    assert_eq!(api_key::find(&mut tx, org, &one.key).await.unwrap(), Some(renamed.clone()));
    api_key::record_use(&mut tx, &two.organization, &one.key, NOW, NOW).await.unwrap();
    assert_eq!(api_key::find(&mut tx, org, &one.key).await.unwrap(), Some(renamed.clone()), "another organisation");
    for (at, before, noted) in [(5, 0, 5), (6, 4, 5), (7, 5, 7)] {
        api_key::record_use(&mut tx, org, &one.key, NOW.plus(at), NOW.plus(before)).await.unwrap();
        let key = api_key::find(&mut tx, org, &one.key).await.unwrap().unwrap();
        assert_eq!(key.last_used_at, Some(NOW.plus(noted)), "at {at}");
    }
    assert!(!api_key::delete(&mut tx, org, &two.key).await.unwrap());
    assert!(api_key::delete(&mut tx, org, &one.key).await.unwrap());
    assert_eq!(system::find_api_key(&mut tx, "hash-1").await.unwrap(), None);
    api_key::insert(&mut tx, &key, "hash-3", "operator").await.unwrap();
    let twin = ApiKey { id: waypost_core::id::ApiKeyId::from_store("key_9".into()), ..key };
    assert!(api_key::insert(&mut tx, &twin, "hash-4", "operator").await.unwrap_err().is_unique_violation());
}

async fn servers(TwoFixtures { db, one, two }: TwoFixtures) {
    let mut tx = db.begin().await.unwrap();
    for fixture in [&one, &two] {
        // Removes the identity provider of the fixture's server.
        assert!(server::update(&mut tx, &fixture.server()).await.unwrap());
    }
    let (org, config) = (&one.organization, tx.config_version().await.unwrap().version);
    assert_eq!(server::find(&mut tx, org, &one.server).await.unwrap(), Some(one.server()));
    assert_eq!(server::find(&mut tx, org, &two.server).await.unwrap(), None);
    assert_eq!(system::find_server_by_id(&mut tx, &two.server).await.unwrap(), Some(two.server()));
    assert_eq!(server::list(&mut tx, org).await.unwrap(), [one.server()]);
    assert_eq!(system::find_server_by_slug(&mut tx, "server-1").await.unwrap(), Some((one.server(), false)));
    assert_eq!(system::find_server_by_slug(&mut tx, "former-1").await.unwrap(), Some((one.server(), true)));
    assert_eq!(system::find_server_by_slug(&mut tx, "nothing").await.unwrap(), None);
    // Changing back to the former slug is not a conflict. Then the slug in between is a former one.
    let back = Server { slug: "former-1".into(), toolset: Toolset::Guided, ..one.server() };
    assert!(server::update(&mut tx, &back).await.unwrap());
    assert_eq!(server::list_aliases(&mut tx, org, &one.server).await.unwrap(), ["server-1"]);
    assert_eq!(system::find_server_by_slug(&mut tx, "server-1").await.unwrap(), Some((back.clone(), true)));
    let renamed = Server { name: "N".into(), ..back };
    assert!(server::update(&mut tx, &renamed).await.unwrap(), "the slug is unchanged");
    assert_eq!(server::list_aliases(&mut tx, org, &one.server).await.unwrap(), ["server-1"]);
    assert!(!server::release_alias(&mut tx, &two.organization, &one.server, "server-1").await.unwrap());
    assert!(!server::release_alias(&mut tx, org, &two.server, "server-1").await.unwrap());
    assert!(server::release_alias(&mut tx, org, &one.server, "server-1").await.unwrap());
    assert_eq!(system::find_server_by_slug(&mut tx, "server-1").await.unwrap(), None);
    let foreign = Server { organization_id: org.clone(), slug: "other".into(), ..two.server() };
    assert!(!server::update(&mut tx, &foreign).await.unwrap(), "another organisation's server");
    assert_eq!(server::list_aliases(&mut tx, &two.organization, &two.server).await.unwrap(), ["former-2"]);
    assert!(tx.config_version().await.unwrap().version > config);
    tx.commit().await.unwrap();
}

async fn servers_are_searched_and_counted(TwoFixtures { db, one, two }: TwoFixtures) {
    let mut tx = db.begin().await.unwrap();
    let org = &one.organization;
    for (n, name) in [(1, "100% Ready"), (2, "A_B"), (3, "Plain")] {
        let id = ServerId::from_store(format!("srv_x{n}"));
        let new = Server { id, slug: format!("x-{n}"), name: name.into(), ..one.server() };
        server::insert(&mut tx, &new).await.unwrap();
    }
    let mut slugs = async |text: Option<&str>, after: Option<&str>, limit: u32| {
        let query = server::ServerSearch { text, after, limit };
        let servers = server::search(&mut tx, org, query).await.unwrap();
        servers.into_iter().map(|server| server.slug).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(slugs(None, None, 10).await, "server-1 x-1 x-2 x-3");
    assert_eq!(slugs(None, Some("server-1"), 2).await, "x-1 x-2");
    for (text, found) in [
        ("ready", "x-1"),
        ("READY", "x-1"),
        ("100%", "x-1"),
        ("%", "x-1"),
        ("_", "x-2"),
        ("!", ""),
        ("X-", "x-1 x-2 x-3"),
        ("product", "server-1 x-1 x-2 x-3"),
        ("'; DROP TABLE servers", ""),
    ] {
        assert_eq!(slugs(Some(text), None, 10).await, found, "{text}");
    }
    let used = server::usage(&mut tx, org, &one.server, Timestamp(0)).await.unwrap();
    assert_eq!((used.walkthroughs, used.calls), (1, 4), "one call with a row, three that are only counted");
    let used = server::usage(&mut tx, org, &one.server, Timestamp(i64::MAX)).await.unwrap();
    assert!(used.calls == 0 && used.last_call_at.is_some(), "{used:?}");
    assert_eq!(server::usage(&mut tx, org, &two.server, Timestamp(0)).await.unwrap(), server::ServerUsage::default());
    let held = server::count_contents(&mut tx, org, &one.server, Timestamp(1)).await.unwrap();
    assert_eq!(server::count_signed_in(&mut tx, org, &one.server, Timestamp(1)).await.unwrap(), 1);
    assert_eq!(server::count_signed_in(&mut tx, org, &two.server, Timestamp(1)).await.unwrap(), 0);
    assert_eq!(held, server::ServerContents { walkthroughs: 1, attempts: 1, end_users: 1, signed_in: 1 });
    let held = server::count_contents(&mut tx, org, &one.server, Timestamp(i64::MAX)).await.unwrap();
    assert_eq!(held.signed_in, 0, "expired grants do not count");
    assert_eq!(
        server::count_contents(&mut tx, org, &two.server, Timestamp(1)).await.unwrap(),
        server::ServerContents::default()
    );
}

async fn slugs_are_unique_among_current_and_former_slugs(TwoFixtures { db, one, .. }: TwoFixtures) {
    let id = ServerId::from_store("srv_9".into());
    for slug in ["server-2", "former-2", "former-1"] {
        let mut tx = db.begin().await.unwrap();
        let new = Server { id: id.clone(), slug: slug.into(), ..one.server() };
        assert!(server::insert(&mut tx, &new).await.unwrap_err().is_unique_violation(), "{slug}");
    }
    for slug in ["server-2", "former-2"] {
        let mut tx = db.begin().await.unwrap();
        let moved = Server { slug: slug.into(), ..one.server() };
        assert!(server::update(&mut tx, &moved).await.unwrap_err().is_unique_violation(), "{slug}");
    }
}

/// A server changes its slug while others try to use the old one: a slug is never both current and former.
async fn slugs_stay_unique_under_concurrency(TwoFixtures { db, one, two }: TwoFixtures) {
    let mut tasks = Vec::new();
    for n in 0..8 {
        let db = db.clone();
        let away = Server { slug: format!("away-{n}"), ..one.server() };
        let new = Server { id: ServerId::from_store(format!("srv_n{n}")), slug: "server-1".into(), ..two.server() };
        tasks.push(tokio::spawn(async move {
            let mut tx = db.begin().await?;
            if n % 2 == 0 {
                server::update(&mut tx, &away).await.map(|_| ())?
            } else {
                server::insert(&mut tx, &new).await?
            };
            tx.commit().await
        }));
    }
    for (n, task) in tasks.into_iter().enumerate() {
        let result = task.await.unwrap();
        assert_eq!(result.is_ok(), n % 2 == 0, "{n}: changing the slug succeeds, using it does not: {result:?}");
    }
    let mut conn = db.read().await.unwrap();
    assert!(
        system::find_server_by_slug(&mut conn, "server-1").await.unwrap().unwrap().1,
        "a former slug of the first server"
    );
}

async fn assignments(TwoFixtures { db, one, two }: TwoFixtures) {
    let mut tx = db.begin().await.unwrap();
    let (org, config) = (&one.organization, tx.config_version().await.unwrap().version);
    let assignment = assignment::find_by_walkthrough(&mut tx, org, &one.server, &one.walkthrough).await.unwrap();
    assert_eq!(assignment, Some(one.assignment()));
    assert_eq!(assignment::find_by_walkthrough(&mut tx, org, &two.server, &two.walkthrough).await.unwrap(), None);
    let listed = assignment::list(&mut tx, org, &one.server).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].title.as_str(), listed[0].slug.as_str()), ("W", "w"));
    assert_eq!((&listed[0].assignment, listed[0].state), (&one.assignment(), WalkthroughState::Published));
    assert_eq!(assignment::list(&mut tx, org, &two.server).await.unwrap(), []);
    assert_eq!(assignment::next_display_order(&mut tx, org, &one.server).await.unwrap(), 2);
    assert_eq!(assignment::next_display_order(&mut tx, org, &two.server).await.unwrap(), 1);
    let moved = Assignment { display_order: -5, enabled: false, ..one.assignment() };
    assert!(assignment::update(&mut tx, org, &one.assignment, Some(-5), None).await.unwrap());
    assert!(assignment::update(&mut tx, org, &one.assignment, None, Some(false)).await.unwrap());
    assert_eq!(
        assignment::list(&mut tx, org, &one.server).await.unwrap()[0].assignment,
        moved,
        "the two updates are independent"
    );
    assert!(!assignment::update(&mut tx, org, &two.assignment, Some(1), None).await.unwrap());
    let assignment = assignment::find(&mut tx, org, &one.assignment).await.unwrap().unwrap();
    assert_eq!((assignment.server_name.as_str(), assignment.server_slug.as_str()), ("Server", "server-1"));
    assert_eq!(assignment::find(&mut tx, org, &two.assignment).await.unwrap(), None);
    let assigned = assignment::list_for_walkthrough(&mut tx, org, &one.walkthrough).await.unwrap();
    assert_eq!(assigned, std::slice::from_ref(&assignment));
    assert_eq!(assignment::list_for_walkthrough(&mut tx, org, &two.walkthrough).await.unwrap(), []);
    let places = [(one.assignment.clone(), 7), (two.assignment.clone(), 7)];
    assignment::set_display_orders(&mut tx, org, &places).await.unwrap();
    let reordered = Assignment { display_order: 7, ..moved };
    assert_eq!(assignment::list(&mut tx, org, &one.server).await.unwrap()[0].assignment, reordered);
    let theirs = assignment::find(&mut tx, &two.organization, &two.assignment).await.unwrap().unwrap();
    assert_eq!(theirs.assignment, two.assignment(), "another organisation's");
    let id = AssignmentId::from_store("msw_9".into());
    for (server_id, walkthrough_id) in [(&one.server, &two.walkthrough), (&two.server, &one.walkthrough)] {
        let (server_id, walkthrough_id) = (server_id.clone(), walkthrough_id.clone());
        let mixed = Assignment { id: id.clone(), server_id, walkthrough_id, ..one.assignment() };
        assert!(!assignment::insert(&mut tx, &mixed).await.unwrap(), "across organisations");
    }
    assert!(!assignment::delete(&mut tx, org, &two.assignment).await.unwrap());
    assert_eq!(assignment::list_candidates(&mut tx, org, &one.server, "", 9).await.unwrap(), []);
    assert!(assignment::delete(&mut tx, org, &one.assignment).await.unwrap());
    let candidates = assignment::list_candidates(&mut tx, org, &one.server, "W", 9).await.unwrap();
    assert_eq!((candidates.len(), &candidates[0].id), (1, &one.walkthrough));
    assert_eq!(assignment::list_candidates(&mut tx, org, &one.server, "%", 9).await.unwrap(), []);
    assert!(assignment::insert(&mut tx, &one.assignment()).await.unwrap());
    assert!(tx.config_version().await.unwrap().version > config);
    let twice = assignment::insert(&mut tx, &Assignment { id, ..one.assignment() }).await;
    assert!(twice.unwrap_err().is_unique_violation());
}

async fn audit_events(TwoFixtures { db, one, two }: TwoFixtures) {
    let mut tx = db.begin().await.unwrap();
    for at in 2..6 {
        audit::insert(&mut tx, &one.audit_event(at)).await.unwrap();
    }
    let newest = audit::list(&mut tx, &one.organization, None, 2).await.unwrap();
    assert_eq!(newest, [one.audit_event(5), one.audit_event(4)]);
    let older = audit::list(&mut tx, &one.organization, Some(&newest[1].id), 10).await.unwrap();
    assert_eq!(older, [one.audit_event(3), one.audit_event(2), one.audit_event(1)]);
    let first = AuditEventId::from_store("aud_0".into());
    assert_eq!(audit::list(&mut tx, &one.organization, Some(&first), 10).await.unwrap(), []);
    assert_eq!(audit::list(&mut tx, &two.organization, None, 10).await.unwrap(), [two.audit_event(1)]);
}

async fn end_users(TwoFixtures { db, one, two }: TwoFixtures) {
    let mut conn = db.read().await.unwrap();
    let (org, unknown) = (&one.organization, EndUserId::from_store("eu_9".into()));
    assert_eq!(end_user::find_by_tracking_id(&mut conn, org, "tracked").await.unwrap(), Some(one.end_user.clone()));
    assert_eq!(end_user::find_by_tracking_id(&mut conn, org, "Tracked").await.unwrap(), None, "case-sensitive");
    assert!(end_user::exists(&mut conn, org, &one.end_user).await.unwrap());
    assert!(!end_user::exists(&mut conn, org, &two.end_user).await.unwrap());
    assert!(!end_user::exists(&mut conn, org, &unknown).await.unwrap());
}

async fn attempts_and_calls(TwoFixtures { db, one, two }: TwoFixtures) {
    let mut conn = db.read().await.unwrap();
    let org = &one.organization;
    let open = progress::list_open(&mut conn, org, &one.end_user, &one.server).await.unwrap();
    assert_eq!(open, [(one.walkthrough.clone(), one.attempt())].into());
    assert!(progress::list_open(&mut conn, org, &two.end_user, &two.server).await.unwrap().is_empty());
    let key = one.progress_key(&one.end_user);
    assert_eq!(progress::find_open(&mut conn, &key).await.unwrap(), Some(one.attempt()));
    let theirs = ProgressKey { organization_id: two.organization.clone(), ..key.clone() };
    assert_eq!(progress::find_open(&mut conn, &theirs).await.unwrap(), None);
    let summaries = progress::summarize_open(&mut conn, org, &one.end_user, &one.server).await.unwrap();
    let summary = &summaries[&one.walkthrough];
    assert_eq!((summaries.len(), &summary.version_id), (1, &one.attempt().version_id));
    assert_eq!((&summary.summary.completed, summary.summary.is_completed), (&one.attempt().completed, false));
    let none = progress::summarize_open(&mut conn, &two.organization, &one.end_user, &one.server).await.unwrap();
    assert!(none.is_empty());
    let titles = waypost_store::offer::list_step_titles(&mut conn, org, &one.server).await.unwrap();
    assert_eq!(titles.keys().collect::<Vec<_>>(), [&one.attempt().version_id]);
    assert!(
        waypost_store::offer::list_step_titles(&mut conn, &two.organization, &one.server).await.unwrap().is_empty()
    );
    let walkthrough_id =
        progress::find_open_with_step(&mut conn, org, &one.end_user, &one.server, &one.step(1)).await.unwrap();
    assert_eq!(walkthrough_id, Some(one.walkthrough.clone()));
    assert_eq!(
        progress::find_open_with_step(&mut conn, org, &one.end_user, &one.server, &two.step(1)).await.unwrap(),
        None,
        "a step of another organisation"
    );
    let step = one.step(1);
    let elsewhere =
        progress::find_open_with_step(&mut conn, &two.organization, &one.end_user, &one.server, &step).await;
    assert_eq!(elsewhere.unwrap(), None);
    let done = progress::list_completions(&mut conn, org, &one.progress).await.unwrap();
    assert_eq!(done, [(one.step(0), NOW)]);
    assert_eq!(progress::list_completions(&mut conn, org, &two.progress).await.unwrap(), []);
    assert_eq!(progress::list_attempts(&mut conn, &key).await.unwrap(), [one.attempt()]);
    assert_eq!(tool_call::list(&mut conn, org, &one.server, 10).await.unwrap().len(), 1);
    assert_eq!(tool_call::list(&mut conn, org, &two.server, 10).await.unwrap().len(), 0);
}

async fn sessions_without_a_handle(TwoFixtures { db, one, two }: TwoFixtures) {
    let session = |id: &str, fixture: &Fixture, at: i64| NewSession {
        id: SessionId::from_store(format!("ses_{id}")),
        organization_id: fixture.organization.clone(),
        server_id: fixture.server.clone(),
        end_user_id: fixture.end_user.clone(),
        handle_hash: None,
        client_name: Some("client".to_owned()),
        client_version: None,
        protocol_version: None,
        created_at: NOW.plus(at),
        last_used_at: NOW.plus(at),
    };
    let mut tx = db.begin().await.unwrap();
    let gone = NewSession { end_user_id: EndUserId::from_store("eu_gone".into()), ..session("gone", &one, 1) };
    session::upsert(&mut tx, &[session("a", &one, 1), gone, session("b", &two, 2)]).await.unwrap();
    session::upsert(&mut tx, &[session("a", &one, 9), session("b", &two, 1)]).await.unwrap();
    let range = TimeRange { from: NOW.plus(1), to: NOW.plus(10) };
    for (fixture, expected) in [(&one, ("ses_a", 1, 9)), (&two, ("ses_b", 2, 2))] {
        let query = activity::ActivityQuery {
            organization: &fixture.organization,
            server: None,
            end_user: Some(&fixture.end_user),
            walkthrough: None,
            range,
            after: None,
            oldest_first: false,
            limit: 10,
        };
        let sessions = activity::list_sessions(&mut tx, &query).await.unwrap();
        let sessions: Vec<_> = sessions
            .iter()
            .map(|session| (session.id.as_str(), session.created_at.since(NOW), session.last_used_at.since(NOW)))
            .collect();
        assert_eq!(sessions, [expected], "an earlier use does not replace a later one");
    }
}

waypost_testkit::both!(two_fixtures =>
    sessions_without_a_handle,
    organizations,
    users,
    api_keys,
    servers,
    servers_are_searched_and_counted,
    slugs_are_unique_among_current_and_former_slugs,
    slugs_stay_unique_under_concurrency,
    assignments,
    audit_events,
    end_users,
    attempts_and_calls,
);
