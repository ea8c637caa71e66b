//! Data of an organisation: invitations, audit log, counts.

use waypost_core::audit::AuditEvent;
use waypost_core::id::{AuditEventId, InvitationId, UserId};
use waypost_core::invitation::Invitation;
use waypost_core::organization::Role;
use waypost_core::{SystemRandom, Timestamp};
use waypost_store::audit::{self, AuditFilter};
use waypost_store::{Db, Tx, invitation, overview, user};

use crate::fixture::{Fixture, NOW, execute};
use crate::open;

struct TwoFixtures {
    tx: Tx,
    one: Fixture,
    two: Fixture,
}

async fn two_fixtures(url: &str) -> TwoFixtures {
    let db: Db = open(url).await;
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed_with_activity(&db).await;
    two.seed_with_activity(&db).await;
    TwoFixtures { tx: db.begin().await.unwrap(), one, two }
}

async fn invitations(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let org = &one.organization;
    let new = |n: u32| Invitation {
        id: InvitationId::from_store(format!("inv_x{n}")),
        organization_id: org.clone(),
        email: "B@x.de".to_owned(),
        role: Role::Member,
        invited_by: one.user.to_string(),
        created_at: NOW,
        expires_at: NOW.plus(10),
        accepted_at: None,
        revoked_at: None,
    };
    assert!(invitation::lock(&mut tx, org).await.unwrap());
    assert!(!invitation::lock(&mut tx, &waypost_core::id::OrganizationId::from_store("org_9".into())).await.unwrap());
    assert_eq!(invitation::count_pending(&mut tx, org, NOW).await.unwrap(), 0, "the fixture's invitation is revoked");
    for n in 1..4 {
        invitation::insert(&mut tx, &new(n), "b@x.de", &format!("hash-{n}")).await.unwrap();
    }
    assert_eq!(invitation::find(&mut tx, org, &new(1).id).await.unwrap(), Some(new(1)));
    assert_eq!(invitation::find(&mut tx, &two.organization, &new(1).id).await.unwrap(), None);
    assert_eq!(invitation::list(&mut tx, org, None, 2).await.unwrap(), [new(3), new(2)]);
    let older = invitation::list(&mut tx, org, Some(&new(2).id), 10).await.unwrap();
    assert_eq!((older.len(), &older[0]), (2, &new(1)));
    assert_eq!(invitation::count_pending(&mut tx, org, NOW).await.unwrap(), 3);
    assert_eq!(invitation::count_pending(&mut tx, org, NOW.plus(10)).await.unwrap(), 0);
    let renewed = Invitation { expires_at: NOW.plus(20), ..new(1) };
    let foreign = Invitation { organization_id: two.organization.clone(), ..renewed.clone() };
    assert!(!invitation::renew(&mut tx, &foreign, "new").await.unwrap());
    assert!(invitation::renew(&mut tx, &renewed, "new").await.unwrap());
    assert_eq!(invitation::find(&mut tx, org, &new(1).id).await.unwrap(), Some(renewed.clone()));
    let (email_key, id) = ("b@x.de", new(1).id);
    assert_eq!(invitation::revoke_for_email(&mut tx, &two.organization, email_key, Some(&id), NOW).await.unwrap(), []);
    let mut revoked = invitation::revoke_for_email(&mut tx, org, email_key, Some(&id), NOW.plus(1)).await.unwrap();
    revoked.sort();
    assert_eq!(revoked, [new(2).id, new(3).id]);
    assert!(!invitation::renew(&mut tx, &new(2), "newer").await.unwrap(), "it is revoked");
    assert!(!invitation::revoke(&mut tx, org, &new(2).id, NOW).await.unwrap());
    assert!(!invitation::revoke(&mut tx, &two.organization, &new(1).id, NOW).await.unwrap());
    assert!(invitation::revoke(&mut tx, org, &new(1).id, NOW.plus(2)).await.unwrap());
    let invitation = invitation::find(&mut tx, org, &new(1).id).await.unwrap().unwrap();
    assert_eq!(invitation.revoked_at, Some(NOW.plus(2)));
}

async fn the_audit_log_is_searched(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let org = &one.organization;
    let entry = |at: Timestamp, actor: &str, act: &str| AuditEvent {
        id: AuditEventId::new(at, &SystemRandom),
        actor: actor.to_owned(),
        act: act.to_owned(),
        created_at: at,
        ..one.audit_event(1)
    };
    let entries = [
        entry(NOW, "usr_1", "member.create"),
        entry(NOW.plus(1), "key_1", "member.update"),
        entry(NOW.plus(2), "usr_1", "key.create"),
        AuditEvent { target: "key_x".to_owned(), ..entry(NOW.plus(3), "operator", "member_x.y") },
    ];
    for entry in &entries {
        audit::insert(&mut tx, entry).await.unwrap();
    }
    // The event of the fixture sorts after all times.
    let all = AuditFilter { to: Some(NOW.plus(9)), ..AuditFilter::default() };
    let from = |at: i64| AuditFilter { from: Some(NOW.plus(at)), ..all.clone() };
    let to = |at: i64| AuditFilter { to: Some(NOW.plus(at)), ..AuditFilter::default() };
    for (filter, expected) in [
        (all.clone(), &[3, 2, 1, 0][..]),
        (AuditFilter { act: "member.".into(), ..all.clone() }, &[1, 0]),
        (AuditFilter { act: "member".into(), ..all.clone() }, &[3, 1, 0]),
        (AuditFilter { act: "%".into(), ..all.clone() }, &[]),
        (AuditFilter { actor: "usr_1".into(), ..all.clone() }, &[2, 0]),
        (AuditFilter { target: "key_x".into(), ..all.clone() }, &[3]),
        (from(2), &[3, 2]),
        (to(2), &[1, 0]),
        (AuditFilter { from: Some(NOW.plus(1)), ..to(3) }, &[2, 1]),
        (AuditFilter { from: Some(Timestamp(-1)), ..to(i64::MIN / 2) }, &[]),
    ] {
        let events = audit::search(&mut tx, org, &filter, None, 10).await.unwrap();
        let expected: Vec<_> = expected.iter().map(|at| entries[*at].clone()).collect();
        assert_eq!(events, expected, "{filter:?}");
    }
    let page = audit::search(&mut tx, org, &all, Some(&entries[2].id), 1).await.unwrap();
    assert_eq!(page, [entries[1].clone()]);
    assert_eq!(audit::search(&mut tx, &two.organization, &all, None, 10).await.unwrap(), []);
    let names = audit::find_actor_names(&mut tx, org, &["usr_1", "key_1", "key_2", "operator", "it's"]).await.unwrap();
    let names: Vec<_> = names.iter().map(|(id, name)| (id.as_str(), name.as_str())).collect();
    assert_eq!(names, [("key_1", "key"), ("usr_1", "A1@x.de")], "keys of other organisations are omitted");
    assert!(audit::find_actor_names(&mut tx, org, &[]).await.unwrap().is_empty());
}

async fn counts(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let org = &one.organization;
    let contents = overview::count_contents(&mut tx, org).await.unwrap();
    let expected =
        overview::OrganizationContents { servers: 1, walkthroughs: 1, end_users: 1, members: 1, api_keys: 1 };
    assert_eq!(contents, expected);
    let state = overview::find_onboarding_state(&mut tx, org).await.unwrap();
    let expected = overview::OnboardingState {
        servers: 1,
        first_server: Some("srv_1".to_owned()),
        walkthroughs: 1,
        first_walkthrough: Some("wt_1".to_owned()),
        published: 1,
        offered: 1,
        offering_server: Some("srv_1".to_owned()),
        called: 1,
    };
    assert_eq!(state, expected);
    assert_eq!(overview::count_active_end_users(&mut tx, org, NOW).await.unwrap(), 1);
    assert_eq!(overview::count_active_end_users(&mut tx, org, NOW.plus(1)).await.unwrap(), 0);
    let sql = format!("UPDATE assignments SET enabled = FALSE WHERE organization_id = '{org}'");
    execute(&mut tx, sql).await;
    let state = overview::find_onboarding_state(&mut tx, org).await.unwrap();
    assert_eq!((state.offered, state.offering_server), (0, None));
    let gone = overview::find_onboarding_state(&mut tx, &waypost_core::id::OrganizationId::from_store("org_9".into()))
        .await
        .unwrap();
    assert_eq!((gone.servers, gone.first_server, gone.called), (0, None, 0));
    assert_eq!(overview::find_onboarding_state(&mut tx, &two.organization).await.unwrap().offered, 1);
}

/// A verified account is kept when its last membership ends.
async fn accounts_outlive_memberships(TwoFixtures { mut tx, one, .. }: TwoFixtures) {
    user::mark_verified(&mut tx, &one.user, NOW).await.unwrap();
    assert!(user::remove_member(&mut tx, &one.organization, &one.user).await.unwrap());
    assert!(!user::delete_without_membership(&mut tx, &one.user).await.unwrap());
    assert!(user::find(&mut tx, &one.user).await.unwrap().is_some());
    assert!(!user::delete_without_membership(&mut tx, &UserId::from_store("usr_9".into())).await.unwrap());
}

waypost_testkit::both!(two_fixtures => invitations, the_audit_log_is_searched, counts, accounts_outlive_memberships);
