//! Tests of audit events of sign-ins.

use serde_json::json;
use waypost_core::account::CodePurpose;
use waypost_core::audit::AuditEvent;
use waypost_core::id::OrganizationId;
use waypost_core::organization::Role;
use waypost_ops::user_accounts::ProviderIdentity;
use waypost_ops::{organizations, users};
use waypost_store::audit::{self, AuditFilter};

use super::{DEVICE, MINUTE, PASSWORD, UserTest, at, set_up};

async fn list_sign_ins(test: &UserTest, organization: &OrganizationId) -> Vec<AuditEvent> {
    let filter = AuditFilter { act: "user.sign_in".to_owned(), ..AuditFilter::default() };
    let mut conn = test.fixture.ops.store().read().await.unwrap();
    let mut events = audit::search(&mut conn, organization, &filter, None, 1_000).await.unwrap();
    events.reverse();
    events
}

async fn every_sign_in_is_recorded_in_each_organisation(test: UserTest) {
    let anna = test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let other = organizations::create(&test.operator_context(), &test.fixture.ops, "other", None).await.unwrap().id;
    users::create(&test.operator_context(), &test.fixture.ops, &other, "anna@example.com", Role::Member).await.unwrap();
    let unrelated =
        organizations::create(&test.operator_context(), &test.fixture.ops, "unrelated", None).await.unwrap().id;
    test.clock.advance(1);
    test.sign_in_with_password("anna@example.com", PASSWORD).await.unwrap();
    test.clock.advance(1);
    test.sign_in_with_password("anna@example.com", "wrong password 123").await.unwrap_err();
    test.clock.advance(1);
    let issued = test.request_code("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    let wrong = if issued.code == "00000000" { "00000001" } else { "00000000" };
    test.enter_code(issued.id.as_str(), wrong).await.unwrap_err();
    test.clock.advance(1);
    test.enter_code(issued.id.as_str(), &issued.code).await.unwrap();
    test.sign_in_with_password("nobody@example.com", PASSWORD).await.unwrap_err();
    let id = anna.user.id.as_str();
    let events: Vec<_> =
        list_sign_ins(&test, &other).await.into_iter().map(|event| (event.act, event.actor, event.target)).collect();
    let events: Vec<_> = events.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), c.as_str())).collect();
    let expected = [
        ("user.sign_in", id, id),
        ("user.sign_in_failed", "visitor", id),
        ("user.sign_in_failed", "visitor", id),
        ("user.sign_in", id, id),
    ];
    assert_eq!(events, expected);
    let home = list_sign_ins(&test, &test.org).await;
    assert_eq!(home.len(), 5, "including the first sign-in, before the user joined the other organisation");
    let cx = test.visitor_context();
    let detail = |by: &str| json!({ "by": by, "address": "192.0.2.7", "user_agent": "Test  Set-Cookie: x", "request_id": cx.request_id });
    assert_eq!(json!(home[1].detail), detail("password"));
    let mut failed = detail("password");
    failed["failures_within_an_hour"] = json!(1);
    assert_eq!(json!(home[2].detail), failed);
    assert_eq!((&home[3].detail["by"], &home[3].detail["failures_within_an_hour"]), (&json!("code"), &json!(2)));
    assert!(list_sign_ins(&test, &unrelated).await.is_empty());
}

/// Audit events cannot be deleted, so no one may fill the log without signing in.
async fn failed_sign_ins_do_not_flood_the_log(test: UserTest) {
    test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    for n in 0..130 {
        test.sign_in_with_password_from(at(n), "anna@example.com", "wrong password 123").await.unwrap_err();
    }
    let counts = async || {
        let failed =
            list_sign_ins(&test, &test.org).await.into_iter().filter(|event| event.act == "user.sign_in_failed");
        let mut counts: Vec<_> =
            failed.map(|event| event.detail["failures_within_an_hour"].as_i64().unwrap()).collect();
        counts.sort_unstable();
        counts
    };
    assert_eq!(counts().await, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100]);
    test.clock.advance(60 * MINUTE);
    test.sign_in_with_password("anna@example.com", "wrong password 123").await.unwrap_err();
    assert_eq!(counts().await.len(), 12);
}

/// An unusable code is recorded for the account that it was sent to. An unknown code is not recorded.
async fn unusable_codes_are_recorded(test: UserTest) {
    test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let issued = test.request_code("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    test.enter_code("uco_000000000000000000000000", &issued.code).await.unwrap_err();
    test.enter_code("nonsense", &issued.code).await.unwrap_err();
    let failed = async || {
        let entries = list_sign_ins(&test, &test.org).await;
        entries
            .iter()
            .filter(|event| event.act == "user.sign_in_failed")
            .map(|event| event.detail["by"].clone())
            .collect::<Vec<_>>()
    };
    assert!(failed().await.is_empty());
    test.clock.advance(10 * MINUTE);
    test.enter_code(issued.id.as_str(), &issued.code).await.unwrap_err();
    assert_eq!(failed().await, ["code"], "expired");
    let issued = test.request_code("nobody@example.com", CodePurpose::SignIn, None).await.unwrap();
    test.clock.advance(10 * MINUTE);
    test.enter_code(issued.id.as_str(), &issued.code).await.unwrap_err();
    assert_eq!(failed().await, ["code"]);
    // One client address cannot fill the log with unusable codes.
    let issued = test.request_code("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    test.clock.advance(10 * MINUTE);
    for _ in 0..10 {
        test.enter_code(issued.id.as_str(), &issued.code).await.unwrap_err();
    }
    assert_eq!(failed().await.len(), 4, "at most three at once are recorded");
}

/// A failed sign-in with a provider is recorded for the linked account, or for the verified email of the identity.
async fn failed_sign_ins_with_a_provider_are_recorded(test: UserTest) {
    let anna = test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await.user.id;
    let identity = |subject: &str, email: Option<&str>| ProviderIdentity {
        issuer: "https://id.example".to_owned(),
        subject: subject.to_owned(),
        email: email.map(str::to_owned),
        name: None,
    };
    let enter = async |provider_identity: ProviderIdentity| {
        test.accounts.sign_in_with_provider(&test.visitor_context(), &provider_identity, DEVICE).await
    };
    let known = identity("1", Some("anna@example.com"));
    enter(known.clone()).await.unwrap();
    enter(identity("2", None)).await.unwrap_err();
    enter(identity("2", Some("nobody@example.com"))).await.unwrap_err();
    let failed = async || {
        let entries = list_sign_ins(&test, &test.org).await;
        let failed = entries.into_iter().filter(|event| event.act == "user.sign_in_failed");
        failed.map(|event| (event.target, event.detail["by"].clone())).collect::<Vec<_>>()
    };
    assert!(failed().await.is_empty(), "the identities belong to no account");
    let mut tx = test.fixture.ops.store().begin().await.unwrap();
    let unverify = "UPDATE users SET verified_at = NULL WHERE id = $1";
    waypost_store::on!(&mut tx, c => sqlx::query(unverify).bind(anna.as_str()).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    enter(ProviderIdentity { email: None, ..known }).await.unwrap_err();
    assert_eq!(failed().await, [(anna.to_string(), json!("provider"))]);
}

waypost_testkit::both!(extended set_up =>
    unusable_codes_are_recorded,
    failed_sign_ins_with_a_provider_are_recorded,
    every_sign_in_is_recorded_in_each_organisation,
    failed_sign_ins_do_not_flood_the_log,
);
