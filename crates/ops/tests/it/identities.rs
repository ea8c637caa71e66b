//! Tests of identities and browser sessions.

use waypost_core::Code;
use waypost_core::caller::Ctx;
use waypost_core::organization::Role;
use waypost_ops::browser_sessions;
use waypost_ops::identities::{self, Claims, EndUserIdentity};
use waypost_store::end_user::{self, Profile};

use crate::account_test::{AccountTest, set_up_accounts};
use crate::fixture::Tenant;

fn claims(issuer: &str, subject: &str, email: &str, email_verified: bool) -> Claims {
    let email = Some(email.to_owned());
    Claims { issuer: issuer.into(), subject: subject.into(), email, email_verified, name: None, picture_url: None }
}

async fn sign_in(test: &AccountTest, tenant: &Tenant, claims: &Claims, link: bool) -> EndUserIdentity {
    try_sign_in(test, &test.client_context(tenant), tenant, claims, link).await.unwrap()
}

async fn try_sign_in(
    test: &AccountTest,
    cx: &Ctx,
    tenant: &Tenant,
    claims: &Claims,
    link: bool,
) -> waypost_core::Result<EndUserIdentity> {
    let mut tx = test.fixture.ops.store().begin().await.unwrap();
    let identity = identities::sign_in(cx, &mut tx, &tenant.organization.id, claims, link).await?;
    tx.commit().await.unwrap();
    Ok(identity)
}

async fn a_subject_is_one_end_user_of_one_organisation(test: AccountTest) {
    let anna = claims("https://id.example", "anna", "anna@example.com", true);
    let first = sign_in(&test, &test.one, &anna, false).await;
    assert_eq!(sign_in(&test, &test.one, &anna, false).await, first);
    let moved = claims("https://id.example", "anna", "new@example.com", true);
    assert_eq!(sign_in(&test, &test.one, &moved, false).await, first, "the subject identifies the user, not the email");
    for other in [
        claims("https://id.example", "berta", "anna@example.com", true),
        claims("https://other.example", "anna", "anna@example.com", true),
    ] {
        assert_ne!(sign_in(&test, &test.one, &other, false).await.end_user_id, first.end_user_id);
    }
    let in_other_organization = sign_in(&test, &test.two, &anna, true).await;
    assert_ne!(in_other_organization.end_user_id, first.end_user_id, "never across organisations");
    assert_eq!(test.count_events("end_user.sign_in").await, 5);
    assert_eq!(test.count_events("end_user.link").await, 0);
}

async fn only_verified_emails_are_linked_and_only_if_enabled(test: AccountTest) {
    let one = &test.one;
    let account = sign_in(&test, one, &claims("waypost", "acc", "Anna@Example.com", true), false).await;
    let unverified = sign_in(&test, one, &claims("https://a", "1", "anna@example.com", false), true).await;
    assert_ne!(unverified.end_user_id, account.end_user_id);
    // The oldest identity is linked; identities of the same millisecond have no order.
    test.clock.advance(1);
    let switched_off = sign_in(&test, one, &claims("https://b", "1", "anna@example.com", true), false).await;
    assert_ne!(switched_off.end_user_id, account.end_user_id);
    let linked = sign_in(&test, one, &claims("https://c", "1", "anna@example.COM", true), true).await;
    assert_eq!(linked.end_user_id, account.end_user_id, "the oldest with that email");
    assert_ne!(linked.identity_id, account.identity_id);
    let same_issuer = sign_in(&test, one, &claims("https://c", "2", "anna@example.com", true), true).await;
    assert_eq!(same_issuer.end_user_id, account.end_user_id, "an identity of another issuer has the email");
    // An email is not linked if only unverified identities and identities of the same issuer have it.
    let berta = sign_in(&test, one, &claims("https://a", "2", "berta@example.com", false), true).await;
    let one_berta = sign_in(&test, one, &claims("https://d", "1", "berta@example.com", true), true).await;
    assert_ne!(one_berta.end_user_id, berta.end_user_id, "the email of the other identity is not verified");
    let two_berta = sign_in(&test, one, &claims("https://d", "2", "berta@example.com", true), true).await;
    assert_ne!(two_berta.end_user_id, one_berta.end_user_id, "the issuer has assigned the email to another subject");
    assert_eq!(test.count_events("end_user.link").await, 2);
}

async fn the_profile_contains_the_claims_of_the_issuer(test: AccountTest) {
    let org = &test.one.organization.id;
    let profile = async |identity: &EndUserIdentity| {
        let mut conn = test.fixture.ops.store().read().await.unwrap();
        end_user::find_profile(&mut conn, org, &identity.end_user_id).await.unwrap().unwrap()
    };
    let mut anna = claims("https://id", "anna", "Anna@Example.com", true);
    anna.name = Some("  Anna\u{202e}\nB ".into());
    anna.picture_url = Some("https://pictures.example/anna.png".into());
    let identity = sign_in(&test, &test.one, &anna, false).await;
    let expected = Profile {
        name: Some("Anna B".into()),
        picture_url: Some("https://pictures.example/anna.png".into()),
        email: Some("Anna@Example.com".into()),
    };
    assert_eq!(profile(&identity).await, expected);
    for picture in ["http://pictures.example/x.png", "javascript:alert(1)", "data:image/png;base64,x", "nonsense"] {
        let mut again = claims("https://id", "anna", "other@example.com", false);
        again.picture_url = Some(picture.into());
        sign_in(&test, &test.one, &again, false).await;
        assert_eq!(profile(&identity).await, expected, "an invalid picture changes nothing");
    }
    let renamed = Claims { name: Some("Anna C".into()), ..claims("https://id", "anna", "c@example.com", true) };
    sign_in(&test, &test.one, &renamed, false).await;
    let now = profile(&identity).await;
    assert_eq!((now.name.as_deref(), now.email.as_deref()), (Some("Anna C"), Some("c@example.com")));
}

async fn concurrent_first_sign_ins_create_one_end_user(test: AccountTest) {
    let anna = claims("https://id.example", "anna", "anna@example.com", true);
    let (a, b, c, d) = tokio::join!(
        sign_in(&test, &test.one, &anna, true),
        sign_in(&test, &test.one, &anna, true),
        sign_in(&test, &test.one, &anna, true),
        sign_in(&test, &test.one, &anna, true),
    );
    assert!([&b, &c, &d].into_iter().all(|other| *other == a), "{a:?} {b:?} {c:?} {d:?}");
    let mut conn = test.fixture.ops.store().read().await.unwrap();
    let sql = "SELECT count(*) FROM end_users WHERE tracking_id IS NULL";
    let count: i64 = waypost_store::on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap());
    assert_eq!(count, 1, "no end user is left over");
}

async fn only_clients_of_the_organisation_can_sign_in(test: AccountTest) {
    let anna = claims("https://id.example", "anna", "anna@example.com", true);
    let foreign = test.client_context(&test.two);
    let error = try_sign_in(&test, &foreign, &test.one, &anna, false).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let owner = test.fixture.member_context(&test.one.organization.id, Role::Owner);
    assert_eq!(try_sign_in(&test, &owner, &test.one, &anna, false).await.unwrap_err().code, Code::Forbidden);
    for wrong in [claims("https://id.example", "", "a@b.de", true), claims("", "anna", "a@b.de", true)] {
        let cx = test.client_context(&test.one);
        let error = try_sign_in(&test, &cx, &test.one, &wrong, false).await.unwrap_err();
        assert_eq!(error.code, Code::InvalidArguments);
    }
}

async fn sessions_are_scoped_to_their_organisation_and_expire(test: AccountTest) {
    let (ops, one, two) = (&test.fixture.ops, &test.one, &test.two);
    let (cx, org) = (test.client_context(one), &one.organization.id);
    let identity = sign_in(&test, one, &claims("https://id", "anna", "anna@example.com", true), false).await;
    let create = async || {
        let mut tx = ops.store().begin().await.unwrap();
        let token = browser_sessions::create(&cx, &mut tx, org, &identity).await.unwrap();
        tx.commit().await.unwrap();
        token
    };
    let token = create().await;
    assert_eq!(token.len(), 43);
    let session = browser_sessions::find(&cx, ops, org, &token).await.unwrap().unwrap();
    assert_eq!((&session.end_user_id, &session.identity_id), (&identity.end_user_id, &identity.identity_id));
    assert_eq!(
        (session.email.as_deref(), session.name, session.issuer.as_str()),
        (Some("anna@example.com"), None, "https://id")
    );
    let in_other_organization =
        browser_sessions::find(&test.client_context(two), ops, &two.organization.id, &token).await;
    assert_eq!(in_other_organization.unwrap(), None, "the cookie is not valid in another organisation");
    assert_eq!(
        browser_sessions::find(&test.client_context(two), ops, org, &token).await.unwrap_err().code,
        Code::NotFound
    );
    assert_eq!(browser_sessions::find(&cx, ops, org, "nonsense").await.unwrap(), None);
    browser_sessions::delete(&test.client_context(two), ops, &two.organization.id, &token).await.unwrap();
    assert!(browser_sessions::find(&cx, ops, org, &token).await.unwrap().is_some());
    browser_sessions::delete(&cx, ops, org, &token).await.unwrap();
    browser_sessions::delete(&cx, ops, org, &token).await.unwrap();
    assert_eq!(browser_sessions::find(&cx, ops, org, &token).await.unwrap(), None);
    assert_eq!(test.count_events("end_user.sign_out").await, 1);
    let token = create().await;
    test.clock.advance(browser_sessions::LIFETIME_MS - 1);
    assert!(browser_sessions::find(&cx, ops, org, &token).await.unwrap().is_some());
    test.clock.advance(1);
    assert_eq!(browser_sessions::find(&cx, ops, org, &token).await.unwrap(), None);
    let stored = "SELECT count(*) FROM browser_sessions WHERE token_hash = $1";
    let mut conn = ops.store().read().await.unwrap();
    let plain: i64 =
        waypost_store::on!(&mut conn, c => sqlx::query_scalar(stored).bind(&token).fetch_one(c).await.unwrap());
    assert_eq!(plain, 0, "only the hash is stored");
}

waypost_testkit::both!(set_up_accounts => concurrent_first_sign_ins_create_one_end_user);
waypost_testkit::both!(extended set_up_accounts =>
    a_subject_is_one_end_user_of_one_organisation,
    only_verified_emails_are_linked_and_only_if_enabled,
    the_profile_contains_the_claims_of_the_issuer,
    only_clients_of_the_organisation_can_sign_in,
    sessions_are_scoped_to_their_organisation_and_expire,
);
