//! Sign-in of end users, limited to the organisation.

use waypost_core::Timestamp;
use waypost_core::account::{Account, CodePurpose};
use waypost_core::id::{AccountId, AuthorizationRequestId, EmailCodeId, EndUserId, IdentityId};
use waypost_store::browser_session::NewBrowserSession;
use waypost_store::email_code::{CodeCheck, EmailCodeKey, NewEmailCode, PendingCode};
use waypost_store::identity::Identity;
use waypost_store::{Db, Tx, account, browser_session, email_code, end_user, identity, logo};

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

async fn identities(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let org = &one.organization;
    let identity = identity::find(&mut tx, org, "waypost", "acc_1").await.unwrap().unwrap();
    assert_eq!(
        (&identity.end_user_id, identity.email.as_deref(), identity.email_verified),
        (&one.end_user, Some("Z@b.example"), true)
    );
    assert_eq!(identity::find(&mut tx, &two.organization, "waypost", "acc_1").await.unwrap(), None);
    assert_eq!(identity::find(&mut tx, org, "https://other", "acc_1").await.unwrap(), None);
    let linked = identity::find_linkable(&mut tx, org, "https://other", "z@b.example").await.unwrap();
    assert_eq!(linked.as_ref(), Some(&identity));
    assert_eq!(identity::find_linkable(&mut tx, org, "waypost", "z@b.example").await.unwrap(), None, "same issuer");
    assert_eq!(identity::find_linkable(&mut tx, org, "https://other", "y@b.example").await.unwrap(), None);
    let again = Identity { id: IdentityId::from_store("idn_9".into()), ..identity.clone() };
    assert!(
        !identity::insert(&mut tx, &again, None).await.unwrap(),
        "the identity exists, and the transaction continues"
    );
    let unverified = Identity { email_verified: false, last_sign_in_at: NOW, ..identity };
    identity::record_sign_in(&mut tx, &unverified, Some("z@b.example")).await.unwrap();
    assert_eq!(identity::find(&mut tx, org, "waypost", "acc_1").await.unwrap(), Some(unverified));
    assert_eq!(identity::find_linkable(&mut tx, org, "https://other", "z@b.example").await.unwrap(), None);
    let new = EndUserId::from_store("eu_new".into());
    end_user::insert(&mut tx, org, &new, NOW).await.unwrap();
    assert_eq!(end_user::find_profile(&mut tx, org, &new).await.unwrap(), Some(end_user::Profile::default()));
    assert_eq!(end_user::find_profile(&mut tx, &two.organization, &new).await.unwrap(), None);
}

async fn accounts(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let org = &one.organization;
    let account = account::find_by_email(&mut tx, org, "z@b.example").await.unwrap().unwrap();
    assert_eq!((account.id.as_str(), account.password_hash.as_deref()), ("acc_1", Some("argon")));
    assert!(!format!("{account:?}").contains("argon"));
    let new = Account { id: AccountId::from_store("acc_9".into()), ..account.clone() };
    assert!(!account::insert(&mut tx, &new, "z@b.example").await.unwrap());
    assert!(account::insert(&mut tx, &new, "y@b.example").await.unwrap());
    let foreign = &two.organization;
    account::set_password(&mut tx, foreign, &account.id, "evil", NOW).await.unwrap();
    let kept = account::find_by_email(&mut tx, org, "z@b.example").await.unwrap().unwrap();
    assert_eq!(kept.password_hash.as_deref(), Some("argon"));
}

async fn codes(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let (org, request) = (&one.organization, AuthorizationRequestId::from_store("arq_1".into()));
    let (id, other) = (EmailCodeId::from_store("ecd_a".into()), EmailCodeId::from_store("ecd_b".into()));
    let code = |id, created_at: Timestamp| NewEmailCode {
        id,
        organization: org,
        request: &request,
        email: "A@x.de",
        email_key: "a@x.de",
        purpose: CodePurpose::SignUp,
        code_hash: "right",
        password_hash: Some("argon"),
        created_at,
        expires_at: created_at.plus(10 * MINUTE),
    };
    email_code::insert(&mut tx, &code(&id, NOW)).await.unwrap();
    let key = EmailCodeKey { organization: org, request: &request, id: &id };
    let pending = PendingCode { email: "A@x.de".into(), purpose: CodePurpose::SignUp };
    assert_eq!(email_code::find_pending(&mut tx, key, NOW).await.unwrap(), Some(pending));
    let foreign_request = AuthorizationRequestId::from_store("arq_2".into());
    for foreign in [
        EmailCodeKey { organization: &two.organization, ..key },
        EmailCodeKey { request: &foreign_request, ..key },
        EmailCodeKey { id: &other, ..key },
    ] {
        assert_eq!(email_code::find_pending(&mut tx, foreign, NOW).await.unwrap(), None);
        assert!(!email_code::is_correct(&mut tx, foreign, "right", NOW).await.unwrap());
        assert!(email_code::verify(&mut tx, foreign, "right", NOW).await.unwrap() == CodeCheck::Invalid);
    }
    assert!(email_code::is_correct(&mut tx, key, "right", NOW).await.unwrap());
    assert!(!email_code::is_correct(&mut tx, key, "wrong", NOW).await.unwrap());
    assert!(!email_code::is_correct(&mut tx, key, "right", NOW.plus(10 * MINUTE)).await.unwrap());
    assert!(email_code::verify(&mut tx, key, "wrong", NOW).await.unwrap() == CodeCheck::Rejected { attempts_left: 4 });
    assert!(email_code::verify(&mut tx, key, "right", NOW.plus(10 * MINUTE)).await.unwrap() == CodeCheck::Invalid);
    let CodeCheck::Accepted(proof) = email_code::verify(&mut tx, key, "right", NOW).await.unwrap() else {
        panic!("the correct code was rejected")
    };
    assert_eq!((proof.email_key.as_str(), proof.password_hash.as_deref()), ("a@x.de", Some("argon")));
    assert!(email_code::verify(&mut tx, key, "right", NOW).await.unwrap() == CodeCheck::Invalid, "the code is used");
}

async fn browser_sessions(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let (org, identity) = (&one.organization, IdentityId::from_store("idn_1".into()));
    let session = NewBrowserSession {
        token_hash: "hash",
        end_user_id: &one.end_user,
        identity_id: &identity,
        created_at: NOW,
        expires_at: NOW.plus(MINUTE),
    };
    browser_session::insert(&mut tx, org, &session).await.unwrap();
    let found = browser_session::find(&mut tx, org, "hash", NOW).await.unwrap().unwrap();
    assert_eq!((found.end_user_id, found.issuer.as_str()), (one.end_user.clone(), "waypost"));
    assert_eq!(browser_session::find(&mut tx, &two.organization, "hash", NOW).await.unwrap(), None);
    assert_eq!(browser_session::find(&mut tx, org, "hash", NOW.plus(MINUTE)).await.unwrap(), None);
    assert_eq!(browser_session::delete(&mut tx, &two.organization, "hash").await.unwrap(), None);
    assert_eq!(browser_session::delete_for_end_user(&mut tx, &two.organization, &one.end_user).await.unwrap(), 0);
    assert_eq!(browser_session::delete_for_end_user(&mut tx, org, &one.end_user).await.unwrap(), 2);
    browser_session::insert(&mut tx, org, &session).await.unwrap();
    assert_eq!(browser_session::delete(&mut tx, org, "hash").await.unwrap(), Some(one.end_user));
    assert_eq!(browser_session::delete(&mut tx, org, "hash").await.unwrap(), None);
}

async fn logos(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    assert_eq!(logo::find(&mut tx, &one.organization).await.unwrap().as_deref(), Some(b"hallo".as_slice()));
    logo::set(&mut tx, &one.organization, b"other", NOW).await.unwrap();
    assert_eq!(logo::find(&mut tx, &one.organization).await.unwrap().as_deref(), Some(b"other".as_slice()));
    assert_eq!(logo::find_updated_at(&mut tx, &one.organization).await.unwrap(), Some(NOW));
    assert!(logo::delete(&mut tx, &one.organization).await.unwrap());
    assert!(!logo::delete(&mut tx, &one.organization).await.unwrap());
    assert_eq!(logo::find_updated_at(&mut tx, &one.organization).await.unwrap(), None);
    assert_eq!(logo::find(&mut tx, &two.organization).await.unwrap().as_deref(), Some(b"hallo".as_slice()));
}

async fn end_users_are_searched(TwoFixtures { mut tx, one, two }: TwoFixtures) {
    let (org, id) = (&one.organization, EndUserId::from_store("eu_new".into()));
    end_user::insert_tracked(&mut tx, org, &id, "50%_off!", NOW).await.unwrap();
    let profile = end_user::Profile {
        name: Some("Änne Çelik".to_owned()),
        email: Some("Aenne@b.example".to_owned()),
        ..end_user::Profile::default()
    };
    end_user::update_profile(&mut tx, org, &id, &profile).await.unwrap();
    // `_`, `%` and the escape character are ordinary characters.
    for (text, is_found) in [
        ("eu_new", true),
        ("eu_ne", false),
        ("Änne Ç", true),
        ("ELIK", true),
        ("aenne@B", true),
        ("50%_off!", true),
        ("0%O", false),
        ("5__off", false),
        ("_OFF!", true),
    ] {
        let search = end_user::EndUserSearch { text: Some(text), limit: 10, ..end_user::EndUserSearch::default() };
        let found = end_user::list(&mut tx, org, search).await.unwrap();
        assert_eq!(found.iter().any(|user| user.id == id), is_found, "{text}");
        assert!(!end_user::list(&mut tx, &two.organization, search).await.unwrap().iter().any(|user| user.id == id));
    }
}

waypost_testkit::both!(two_fixtures => end_users_are_searched, identities, accounts, codes, browser_sessions, logos);
