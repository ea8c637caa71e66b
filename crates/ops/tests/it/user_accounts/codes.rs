//! Tests of codes by email.

use waypost_core::Code;
use waypost_core::account::CodePurpose;
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_ops::user_accounts::{UserCodeEntry, UserCodeRequest};

use super::{DEVICE, MINUTE, OTHER_PASSWORD, PASSWORD, UserTest, assert_rejected, set_up};

async fn a_code_signs_in_once_in_its_own_browser(test: UserTest) {
    let id = test.create_member("anna@example.com", Role::Owner).await;
    let issued = test.request_code(" Anna@Example.com", CodePurpose::SignIn, None).await.unwrap();
    assert!(issued.has_user && !format!("{issued:?}").contains(&issued.code));
    let entry =
        UserCodeEntry { id: issued.id.as_str(), code: &issued.code, cookie: "other", name: "", new_password: "" };
    assert_rejected(
        test.accounts.sign_in_with_code(&test.visitor_context(), entry, DEVICE).await,
        "code",
        "no longer valid",
    );
    assert_rejected(test.enter_code("uco_000000000000000000000000", &issued.code).await, "code", "no longer valid");
    assert_rejected(test.enter_code("nonsense\0", &issued.code).await, "code", "no longer valid");
    assert_rejected(test.enter_code(issued.id.as_str(), "1234567").await, "code", "8 digits");
    test.clock.advance(MINUTE);
    let session = test.enter_code(issued.id.as_str(), &issued.code).await.unwrap();
    assert_eq!(session.user.id, id);
    assert!(session.user.verified_at.is_some(), "the code verified the email");
    assert_rejected(test.enter_code(issued.id.as_str(), &issued.code).await, "code", "no longer valid");
    assert_rejected(test.sign_in_with_password("anna@example.com", OTHER_PASSWORD).await, "password", "is incorrect");
    let two = test.request_code("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    let (a, b) = tokio::join!(test.enter_code(two.id.as_str(), &two.code), test.enter_code(two.id.as_str(), &two.code));
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
}

async fn a_code_has_five_attempts_and_ten_minutes(test: UserTest) {
    test.create_member("anna@example.com", Role::Owner).await;
    for email in ["anna@example.com", "nobody@example.com"] {
        let issued = test.request_code(email, CodePurpose::SignIn, None).await.unwrap();
        let wrong = if issued.code == "00000000" { "00000001" } else { "00000000" };
        for words in [
            "4 more attempts",
            "3 more attempts",
            "2 more attempts",
            "one more attempt",
            "the last attempt",
            "no longer valid",
        ] {
            assert_rejected(test.enter_code(issued.id.as_str(), wrong).await, "code", words);
        }
        assert_rejected(test.enter_code(issued.id.as_str(), &issued.code).await, "code", "no longer valid");
    }
    let issued = test.request_code("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    test.clock.advance(10 * MINUTE);
    assert_rejected(test.enter_code(issued.id.as_str(), &issued.code).await, "code", "no longer valid");
}

async fn signing_in_creates_no_account(test: UserTest) {
    let test = test.with_policy(SignUpPolicy::Open);
    for purpose in [CodePurpose::SignIn, CodePurpose::Reset] {
        let issued = test.request_code("nobody@example.com", purpose, None).await.unwrap();
        assert!(!issued.has_user);
        assert_rejected(test.enter_code(issued.id.as_str(), &issued.code).await, "code", "no longer valid");
    }
    let mut conn = test.fixture.ops.store().read().await.unwrap();
    assert_eq!(waypost_store::system::list_accounts(&mut conn, "nobody@example.com").await.unwrap(), []);
}

async fn a_code_creates_an_account_if_sign_up_is_open(test: UserTest) {
    let request = UserCodeRequest {
        email: "b@example.com",
        purpose: CodePurpose::SignUp,
        password: Some(PASSWORD),
        cookie: "browser",
    };
    assert_eq!(
        test.accounts.create_code(&test.visitor_context(), request, DEVICE).await.unwrap_err().code,
        Code::Forbidden,
        "by invitation"
    );
    let test = test.with_policy(SignUpPolicy::Closed);
    assert_eq!(
        test.accounts.create_code(&test.visitor_context(), request, DEVICE).await.unwrap_err().code,
        Code::Forbidden,
        "closed"
    );
    let test = test.with_policy(SignUpPolicy::Open);
    let weak = UserCodeRequest { password: Some("b@example.com"), ..request };
    assert_rejected(
        test.accounts.create_code(&test.visitor_context(), weak, DEVICE).await,
        "password",
        "easy to guess",
    );
    let issued = test.accounts.create_code(&test.visitor_context(), request, DEVICE).await.unwrap();
    assert_rejected(test.sign_in_with_password("b@example.com", PASSWORD).await, "password", "is incorrect");
    let nameless =
        UserCodeEntry { id: issued.id.as_str(), code: &issued.code, cookie: "browser", name: " ", new_password: "" };
    assert_rejected(test.accounts.sign_in_with_code(&test.visitor_context(), nameless, DEVICE).await, "name", "");
    let session = test.enter_code(issued.id.as_str(), &issued.code).await.unwrap();
    assert_eq!(session.user.name.as_deref(), Some("Berta"));
    test.sign_in_with_password("b@example.com", PASSWORD).await.unwrap();
    // Another sign-up is equivalent to a forgotten password; the name is kept.
    let issued = test.request_code("B@example.com", CodePurpose::SignUp, Some(OTHER_PASSWORD)).await.unwrap();
    assert!(issued.has_user);
    let named = UserCodeEntry {
        id: issued.id.as_str(),
        code: &issued.code,
        cookie: "browser",
        name: "Mallory",
        new_password: "",
    };
    let again = test.accounts.sign_in_with_code(&test.visitor_context(), named, DEVICE).await.unwrap();
    assert_eq!((&again.user.id, again.user.name.as_deref()), (&session.user.id, Some("Berta")));
    assert!(!test.is_active(&session).await, "a new password ends earlier sessions");
}

async fn the_sign_up_setting_applies_when_the_code_is_entered(test: UserTest) {
    let test = test.with_policy(SignUpPolicy::Open);
    let issued = test.request_code("b@example.com", CodePurpose::SignUp, Some(PASSWORD)).await.unwrap();
    let test = test.with_policy(SignUpPolicy::Invite);
    assert_rejected(test.enter_code(issued.id.as_str(), &issued.code).await, "code", "no longer valid");
}

async fn a_code_sets_a_new_password(test: UserTest) {
    let old = test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let issued = test.request_code("anna@example.com", CodePurpose::Reset, None).await.unwrap();
    let weak = UserCodeEntry {
        id: issued.id.as_str(),
        code: &issued.code,
        cookie: "browser",
        name: "",
        new_password: "password1234",
    };
    assert_rejected(
        test.accounts.sign_in_with_code(&test.visitor_context(), weak, DEVICE).await,
        "new_password",
        "easy to guess",
    );
    let new = test.enter_code(issued.id.as_str(), &issued.code).await.unwrap();
    assert!(test.is_active(&new).await && !test.is_active(&old).await);
    assert_rejected(test.sign_in_with_password("anna@example.com", PASSWORD).await, "password", "is incorrect");
    test.sign_in_with_password("anna@example.com", OTHER_PASSWORD).await.unwrap();
    assert_eq!(test.count_events("user.password").await, 2);
}

async fn codes_are_stored_as_keyed_hashes(test: UserTest) {
    let issued = test.request_code("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    let mut conn = test.fixture.ops.store().read().await.unwrap();
    let sql = "SELECT code_hash FROM user_codes";
    let stored: String = waypost_store::on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap());
    assert!(stored.len() == 64 && stored != waypost_core::secret::hash(&issued.code), "{stored}");
}

waypost_testkit::both!(set_up => a_code_signs_in_once_in_its_own_browser);
waypost_testkit::both!(extended set_up =>
    a_code_has_five_attempts_and_ten_minutes,
    signing_in_creates_no_account,
    a_code_creates_an_account_if_sign_up_is_open,
    the_sign_up_setting_applies_when_the_code_is_entered,
    a_code_sets_a_new_password,
    codes_are_stored_as_keyed_hashes,
);
