//! Sign-in of console users.

use waypost_core::account::CodePurpose;
use waypost_core::id::{InvitationId, UserCodeId, UserSessionId};
use waypost_core::organization::{Role, User};
use waypost_store::email_code::{CodeCheck, PendingCode};
use waypost_store::user_code::{self, NewUserCode, NewUserLink, UserCodeKey};
use waypost_store::user_session::{self, UserSession};
use waypost_store::{Db, Tx, expired, invitation_accept, on, sign_in_attempt, system, user};

use crate::fixture::{Fixture, NOW};
use crate::open;

const MINUTE: i64 = 60_000;

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

async fn credentials(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let tx = &mut tx;
    assert!(!system::has_account(tx).await.unwrap());
    system::lock_set_up(tx).await.unwrap();
    user::mark_verified(tx, &one.user, NOW).await.unwrap();
    user::mark_verified(tx, &one.user, NOW.plus(1)).await.unwrap();
    assert!(system::has_account(tx).await.unwrap());
    assert!(user::set_name(tx, &one.user, "Anna").await.unwrap());
    user::set_password(tx, &one.user, "argon").await.unwrap();
    let anna = User { name: Some("Anna".into()), verified_at: Some(NOW), ..one.user() };
    let credentials = user::find_credentials(tx, &one.user).await.unwrap().unwrap();
    assert_eq!((&credentials.user, credentials.password_hash.as_deref()), (&anna, Some("argon")));
    assert!(!format!("{credentials:?}").contains("argon"));
    assert_eq!(system::list_accounts(tx, "a1@x.de").await.unwrap(), [credentials]);
    assert_eq!(user::find(tx, &one.user).await.unwrap(), Some(anna));
    assert_eq!(user::find(tx, &two.user).await.unwrap(), Some(two.user()));
}

async fn attempts_are_counted_within_a_day(TwoFixtures { mut tx, .. }: TwoFixtures) {
    let tx = &mut tx;
    const DAY: i64 = 24 * 60 * MINUTE;
    assert_eq!(sign_in_attempt::count(tx, "p1", NOW).await.unwrap(), 0);
    for attempts in 1..4 {
        assert_eq!(sign_in_attempt::increment(tx, "p1", NOW.plus(attempts)).await.unwrap(), attempts);
    }
    assert_eq!(sign_in_attempt::increment(tx, "p2", NOW).await.unwrap(), 1, "slots are independent");
    assert_eq!(sign_in_attempt::count(tx, "p1", NOW.plus(DAY)).await.unwrap(), 3);
    assert_eq!(sign_in_attempt::count(tx, "p1", NOW.plus(DAY + 1)).await.unwrap(), 0);
    assert_eq!(sign_in_attempt::increment(tx, "p1", NOW.plus(DAY + 1)).await.unwrap(), 1);
    expired::delete(tx, NOW.plus(DAY + 1), 10).await.unwrap();
    assert_eq!(sign_in_attempt::count(tx, "p1", NOW.plus(DAY + 2)).await.unwrap(), 1);
    assert_eq!(sign_in_attempt::count(tx, "p2", NOW).await.unwrap(), 0, "the expired row is deleted");
}

async fn organizations_without_owner(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    assert_eq!(system::list_organizations_without_owner(&mut tx).await.unwrap(), []);
    user::set_role(&mut tx, &one.organization, &one.user, Role::Admin).await.unwrap();
    user::remove_member(&mut tx, &two.organization, &two.user).await.unwrap();
    let all = system::list_organizations_without_owner(&mut tx).await.unwrap();
    assert_eq!(all, [one.organization, two.organization]);
}

fn code<'a>(id: &'a UserCodeId, browser_hash: &'a str) -> NewUserCode<'a> {
    NewUserCode {
        id,
        email: "B@x.de",
        email_key: "b@x.de",
        purpose: CodePurpose::SignUp,
        browser_hash,
        code_hash: "right",
        password_hash: Some("argon"),
        created_at: NOW,
        expires_at: NOW.plus(10 * MINUTE),
    }
}

async fn codes(TwoFixtures { mut tx, .. }: TwoFixtures) {
    let tx = &mut tx;
    let id = UserCodeId::from_store("uco_new".into());
    user_code::insert(tx, &code(&id, "mine")).await.unwrap();
    let key = UserCodeKey { id: &id, browser_hash: "mine" };
    let pending = PendingCode { email: "B@x.de".into(), purpose: CodePurpose::SignUp };
    assert_eq!(user_code::find_pending(tx, key, NOW).await.unwrap(), Some(pending));
    let elsewhere = UserCodeKey { browser_hash: "other", ..key };
    assert_eq!(user_code::find_pending(tx, elsewhere, NOW).await.unwrap(), None);
    assert!(user_code::is_correct(tx, key, "right", NOW).await.unwrap());
    assert!(!user_code::is_correct(tx, key, "wrong", NOW).await.unwrap());
    assert!(!user_code::is_correct(tx, elsewhere, "right", NOW).await.unwrap());
    assert!(!user_code::is_correct(tx, key, "right", NOW.plus(10 * MINUTE)).await.unwrap());
    assert!(user_code::verify(tx, elsewhere, "right", NOW).await.unwrap() == CodeCheck::Invalid);
    assert!(user_code::verify(tx, key, "wrong", NOW).await.unwrap() == CodeCheck::Rejected { attempts_left: 4 });
    assert!(user_code::verify(tx, key, "right", NOW.plus(10 * MINUTE)).await.unwrap() == CodeCheck::Invalid);
    let CodeCheck::Accepted(proof) = user_code::verify(tx, key, "right", NOW).await.unwrap() else {
        panic!("the code is correct")
    };
    assert_eq!((proof.email_key.as_str(), proof.password_hash.as_deref()), ("b@x.de", Some("argon")));
    assert!(user_code::verify(tx, key, "right", NOW).await.unwrap() == CodeCheck::Invalid, "once");
    assert!(!user_code::is_correct(tx, key, "right", NOW).await.unwrap());
    assert_eq!(user_code::find_email_key(tx, &id).await.unwrap().as_deref(), Some("b@x.de"), "also for a used code");
    assert_eq!(user_code::find_email_key(tx, &UserCodeId::from_store("uco_none".into())).await.unwrap(), None);
}

async fn links(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let tx = &mut tx;
    let ids: Vec<_> = (0..3).map(|n| UserCodeId::from_store(format!("uco_link{n}"))).collect();
    let link = |n: usize, token_hash: &'static str| NewUserLink {
        id: &ids[n],
        user: if n == 2 { &two.user } else { &one.user },
        email: "B@x.de",
        email_key: "b@x.de",
        token_hash,
        created_at: NOW,
        expires_at: NOW.plus(MINUTE),
    };
    user_code::insert_link(tx, &link(0, "first")).await.unwrap();
    user_code::insert_link(tx, &link(1, "second")).await.unwrap();
    assert_eq!(user_code::find_link(tx, "first", NOW).await.unwrap(), None, "replaced");
    user_code::insert_link(tx, &link(2, "third")).await.unwrap();
    assert_eq!(user_code::find_link(tx, "second", NOW).await.unwrap().as_ref(), Some(&one.user));
    assert_eq!(user_code::find_link(tx, "third", NOW).await.unwrap().as_ref(), Some(&two.user), "by account");
    assert_eq!(user_code::find_link(tx, "code", NOW).await.unwrap(), None, "a code is not a link");
    let as_code = UserCodeKey { id: &ids[1], browser_hash: "" };
    assert_eq!(user_code::find_pending(tx, as_code, NOW).await.unwrap(), None, "a link is not a code");
    assert!(user_code::verify(tx, as_code, "second", NOW).await.unwrap() == CodeCheck::Invalid);
    assert_eq!(user_code::consume_link(tx, "second", NOW.plus(MINUTE)).await.unwrap(), None, "expired");
    assert_eq!(user_code::consume_link(tx, "second", NOW).await.unwrap().as_ref(), Some(&one.user));
    assert_eq!(user_code::consume_link(tx, "second", NOW).await.unwrap(), None, "once");
}

async fn sessions_are_deleted_by_token(TwoFixtures { mut tx, one, .. }: TwoFixtures) {
    let session = UserSession {
        id: UserSessionId::from_store("uss_new".into()),
        user_id: one.user.clone(),
        organization_id: None,
        user_agent: String::new(),
        address: String::new(),
        created_at: NOW,
        last_used_at: NOW,
        expires_at: NOW.plus(MINUTE),
    };
    user_session::insert(&mut tx, &session, "hash").await.unwrap();
    assert_eq!(user_session::find(&mut tx, "hash", NOW).await.unwrap(), Some(session));
    assert_eq!(user_session::delete_by_token(&mut tx, "other").await.unwrap(), None);
    assert_eq!(user_session::delete_by_token(&mut tx, "hash").await.unwrap(), Some(one.user));
    assert_eq!(user_session::find(&mut tx, "hash", NOW).await.unwrap(), None);
}

async fn invitations_are_accepted_once(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let open = "UPDATE invitations SET revoked_at = NULL, expires_at = 1790000060000";
    on!(&mut tx, c => sqlx::query(open).execute(c).await.unwrap().rows_affected());
    let invitation = system::find_invitation(&mut tx, "token-1", NOW).await.unwrap().unwrap();
    let id = InvitationId::from_store("inv_1".into());
    assert_eq!((&invitation.id, &invitation.organization, invitation.role), (&id, &one.organization(), Role::Member));
    assert_eq!((invitation.email.as_str(), invitation.email_key.as_str()), ("C@b.example", "c@b.example"));
    assert_eq!(system::find_invitation(&mut tx, "token-3", NOW).await.unwrap(), None);
    assert_eq!(system::find_invitation(&mut tx, "token-1", NOW.plus(MINUTE)).await.unwrap(), None);
    assert!(!invitation_accept::accept(&mut tx, &two.organization, &id, NOW).await.unwrap());
    assert!(!invitation_accept::accept(&mut tx, &one.organization, &id, NOW.plus(MINUTE)).await.unwrap());
    assert!(invitation_accept::accept(&mut tx, &one.organization, &id, NOW).await.unwrap());
    assert!(!invitation_accept::accept(&mut tx, &one.organization, &id, NOW).await.unwrap(), "once");
    assert_eq!(system::find_invitation(&mut tx, "token-1", NOW).await.unwrap(), None);
}

waypost_testkit::both!(two_fixtures =>
    credentials,
    attempts_are_counted_within_a_day,
    organizations_without_owner,
    codes,
    links,
    sessions_are_deleted_by_token,
    invitations_are_accepted_once,
);
