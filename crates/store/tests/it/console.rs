//! Sessions of console users, and idempotency keys.

use waypost_core::id::{UserId, UserSessionId};
use waypost_core::organization::Role;
use waypost_store::idempotency::{self, IdempotencyClaim, IdempotencyRecord};
use waypost_store::user_session::{self, UserSession};
use waypost_store::{Db, Tx, migrate};

use crate::fixture::{Fixture, NOW};

struct TwoFixtures {
    tx: Tx,
    one: Fixture,
    two: Fixture,
}

async fn two_fixtures(url: &str) -> TwoFixtures {
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    let (one, two) = (Fixture::new(1), Fixture::new(2));
    one.seed(&db).await;
    two.seed(&db).await;
    TwoFixtures { tx: db.begin().await.unwrap(), one, two }
}

fn session(user: &UserId, n: i64) -> UserSession {
    UserSession {
        id: UserSessionId::from_store(format!("uss_x{n}")),
        user_id: user.clone(),
        organization_id: None,
        user_agent: "Browser".to_owned(),
        address: "127.0.0.1".to_owned(),
        created_at: NOW,
        last_used_at: NOW.plus(n),
        expires_at: NOW.plus(1_000),
    }
}

async fn sessions(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let (mine, other) = (session(&one.user, 1), session(&one.user, 2));
    user_session::insert(&mut tx, &mine, "a").await.unwrap();
    user_session::insert(&mut tx, &other, "b").await.unwrap();
    assert_eq!(user_session::find(&mut tx, "a", NOW).await.unwrap(), Some(mine.clone()));
    assert_eq!(user_session::find(&mut tx, "a", NOW.plus(1_000)).await.unwrap(), None, "expired");
    assert_eq!(user_session::find(&mut tx, "c", NOW).await.unwrap(), None);
    assert_eq!(user_session::list(&mut tx, &one.user, NOW).await.unwrap(), [other.clone(), mine.clone()]);
    let touched = UserSession {
        organization_id: Some(one.organization.clone()),
        address: "::1".to_owned(),
        last_used_at: NOW.plus(9),
        ..mine.clone()
    };
    user_session::record_use(&mut tx, &touched).await.unwrap();
    assert_eq!(user_session::find(&mut tx, "a", NOW).await.unwrap(), Some(touched));
    assert!(!user_session::delete(&mut tx, &two.user, &mine.id).await.unwrap(), "another user's");
    assert_eq!(user_session::delete_others(&mut tx, &one.user, Some(&mine.id)).await.unwrap(), 1);
    assert!(user_session::delete(&mut tx, &one.user, &mine.id).await.unwrap());
    assert_eq!(user_session::list(&mut tx, &one.user, NOW).await.unwrap(), []);
}

async fn memberships(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    waypost_store::user::add_member(&mut tx, &two.organization, &one.user, Role::Member, NOW).await.unwrap();
    let memberships = user_session::list_memberships(&mut tx, &one.user).await.unwrap();
    let memberships: Vec<_> =
        memberships.into_iter().map(|membership| (membership.organization.id, membership.role)).collect();
    assert_eq!(memberships, [(one.organization, Role::Owner), (two.organization, Role::Member)]);
}

async fn idempotency_keys(TwoFixtures { mut tx, one, .. }: TwoFixtures) {
    let claim = IdempotencyClaim {
        actor: "usr_x".to_owned(),
        key: "once".to_owned(),
        organization_id: Some(one.organization.clone()),
        request_hash: "hash".to_owned(),
        created_at: NOW,
        expires_at: NOW.plus(10),
    };
    assert!(idempotency::claim(&mut tx, &claim).await.unwrap());
    assert!(!idempotency::claim(&mut tx, &claim).await.unwrap(), "taken");
    assert!(
        idempotency::claim(&mut tx, &IdempotencyClaim { actor: "usr_y".to_owned(), ..claim.clone() }).await.unwrap()
    );
    let record = |response: Option<&str>| {
        Some(IdempotencyRecord { request_hash: "hash".to_owned(), response: response.map(ToOwned::to_owned) })
    };
    assert_eq!(idempotency::find(&mut tx, "usr_x", "once").await.unwrap(), record(None));
    idempotency::complete(&mut tx, "usr_x", "once", "sealed").await.unwrap();
    assert_eq!(idempotency::find(&mut tx, "usr_x", "once").await.unwrap(), record(Some("sealed")));
    idempotency::release(&mut tx, "usr_x", "once").await.unwrap();
    assert_eq!(
        idempotency::find(&mut tx, "usr_x", "once").await.unwrap(),
        record(Some("sealed")),
        "a key with a response is not released"
    );
    idempotency::release(&mut tx, "usr_y", "once").await.unwrap();
    assert_eq!(idempotency::find(&mut tx, "usr_y", "once").await.unwrap(), None);
    let later = IdempotencyClaim { created_at: NOW.plus(10), expires_at: NOW.plus(20), ..claim };
    assert!(idempotency::claim(&mut tx, &later).await.unwrap(), "the old one has expired");
}

waypost_testkit::both!(two_fixtures => sessions, memberships, idempotency_keys);
