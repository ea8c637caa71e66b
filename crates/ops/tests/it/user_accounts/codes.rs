//! Tests of codes by email.

use waypost_core::Code;
use waypost_core::account::CodePurpose;
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_ops::user_accounts::{UserCodeEntry, UserCodeRequest};

use super::{DEVICE, FINE, MINUTE, OTHER, Users, assert_rejected, open};

async fn a_code_signs_in_once_in_its_own_browser(users: Users) {
    let id = users.create_member("anna@example.com", Role::Owner).await;
    let issued = users.ask(" Anna@Example.com", CodePurpose::SignIn, None).await.unwrap();
    assert!(issued.has_user && !format!("{issued:?}").contains(&issued.code));
    let entry =
        UserCodeEntry { id: issued.id.as_str(), code: &issued.code, cookie: "other", name: "", new_password: "" };
    assert_rejected(users.accounts.sign_in_with_code(&users.cx(), entry, DEVICE).await, "code", "no longer valid");
    assert_rejected(users.enter("uco_000000000000000000000000", &issued.code).await, "code", "no longer valid");
    assert_rejected(users.enter("nonsense\0", &issued.code).await, "code", "no longer valid");
    assert_rejected(users.enter(issued.id.as_str(), "1234567").await, "code", "8 digits");
    users.clock.advance(MINUTE);
    let session = users.enter(issued.id.as_str(), &issued.code).await.unwrap();
    assert_eq!(session.user.id, id);
    assert!(session.user.verified_at.is_some(), "the code verified the email");
    assert_rejected(users.enter(issued.id.as_str(), &issued.code).await, "code", "no longer valid");
    assert_rejected(users.by_password("anna@example.com", OTHER).await, "password", "is wrong");
    let two = users.ask("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    let (a, b) = tokio::join!(users.enter(two.id.as_str(), &two.code), users.enter(two.id.as_str(), &two.code));
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
}

async fn a_code_has_five_attempts_and_ten_minutes(users: Users) {
    users.create_member("anna@example.com", Role::Owner).await;
    for email in ["anna@example.com", "nobody@example.com"] {
        let issued = users.ask(email, CodePurpose::SignIn, None).await.unwrap();
        let wrong = if issued.code == "00000000" { "00000001" } else { "00000000" };
        for words in [
            "4 more attempts",
            "3 more attempts",
            "2 more attempts",
            "one more attempt",
            "the last attempt",
            "no longer valid",
        ] {
            assert_rejected(users.enter(issued.id.as_str(), wrong).await, "code", words);
        }
        assert_rejected(users.enter(issued.id.as_str(), &issued.code).await, "code", "no longer valid");
    }
    let issued = users.ask("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    users.clock.advance(10 * MINUTE);
    assert_rejected(users.enter(issued.id.as_str(), &issued.code).await, "code", "no longer valid");
}

async fn signing_in_creates_no_account(users: Users) {
    let users = users.with(SignUpPolicy::Open);
    for purpose in [CodePurpose::SignIn, CodePurpose::Reset] {
        let issued = users.ask("nobody@example.com", purpose, None).await.unwrap();
        assert!(!issued.has_user);
        assert_rejected(users.enter(issued.id.as_str(), &issued.code).await, "code", "no longer valid");
    }
    let mut conn = users.stage.ops.db().read().await.unwrap();
    assert_eq!(waypost_store::system::list_accounts(&mut conn, "nobody@example.com").await.unwrap(), []);
}

async fn a_code_creates_an_account_if_sign_up_is_open(users: Users) {
    let request = UserCodeRequest {
        email: "b@example.com",
        purpose: CodePurpose::SignUp,
        password: Some(FINE),
        cookie: "browser",
    };
    assert_eq!(
        users.accounts.create_code(&users.cx(), request, DEVICE).await.unwrap_err().code,
        Code::Forbidden,
        "by invitation"
    );
    let users = users.with(SignUpPolicy::Closed);
    assert_eq!(
        users.accounts.create_code(&users.cx(), request, DEVICE).await.unwrap_err().code,
        Code::Forbidden,
        "closed"
    );
    let users = users.with(SignUpPolicy::Open);
    let weak = UserCodeRequest { password: Some("b@example.com"), ..request };
    assert_rejected(users.accounts.create_code(&users.cx(), weak, DEVICE).await, "password", "easy to guess");
    let issued = users.accounts.create_code(&users.cx(), request, DEVICE).await.unwrap();
    assert_rejected(users.by_password("b@example.com", FINE).await, "password", "is wrong");
    let nameless =
        UserCodeEntry { id: issued.id.as_str(), code: &issued.code, cookie: "browser", name: " ", new_password: "" };
    assert_rejected(users.accounts.sign_in_with_code(&users.cx(), nameless, DEVICE).await, "name", "");
    let session = users.enter(issued.id.as_str(), &issued.code).await.unwrap();
    assert_eq!(session.user.name.as_deref(), Some("Berta"));
    users.by_password("b@example.com", FINE).await.unwrap();
    // Another sign-up is equivalent to a forgotten password; the name is kept.
    let issued = users.ask("B@example.com", CodePurpose::SignUp, Some(OTHER)).await.unwrap();
    assert!(issued.has_user);
    let named = UserCodeEntry {
        id: issued.id.as_str(),
        code: &issued.code,
        cookie: "browser",
        name: "Mallory",
        new_password: "",
    };
    let again = users.accounts.sign_in_with_code(&users.cx(), named, DEVICE).await.unwrap();
    assert_eq!((&again.user.id, again.user.name.as_deref()), (&session.user.id, Some("Berta")));
    assert!(!users.is_open(&session).await, "a new password ends earlier sessions");
}

async fn the_sign_up_setting_applies_when_the_code_is_entered(users: Users) {
    let users = users.with(SignUpPolicy::Open);
    let issued = users.ask("b@example.com", CodePurpose::SignUp, Some(FINE)).await.unwrap();
    let users = users.with(SignUpPolicy::Invite);
    assert_rejected(users.enter(issued.id.as_str(), &issued.code).await, "code", "no longer valid");
}

async fn a_code_sets_a_new_password(users: Users) {
    let old = users.member("anna@example.com", Role::Owner, FINE).await;
    let issued = users.ask("anna@example.com", CodePurpose::Reset, None).await.unwrap();
    let weak = UserCodeEntry {
        id: issued.id.as_str(),
        code: &issued.code,
        cookie: "browser",
        name: "",
        new_password: "password1234",
    };
    assert_rejected(users.accounts.sign_in_with_code(&users.cx(), weak, DEVICE).await, "new_password", "easy to guess");
    let new = users.enter(issued.id.as_str(), &issued.code).await.unwrap();
    assert!(users.is_open(&new).await && !users.is_open(&old).await);
    assert_rejected(users.by_password("anna@example.com", FINE).await, "password", "is wrong");
    users.by_password("anna@example.com", OTHER).await.unwrap();
    assert_eq!(users.count_events("user.password").await, 2);
}

async fn codes_are_stored_as_keyed_hashes(users: Users) {
    let issued = users.ask("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    let mut conn = users.stage.ops.db().read().await.unwrap();
    let sql = "SELECT code_hash FROM user_codes";
    let stored: String = waypost_store::on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap());
    assert!(stored.len() == 64 && stored != waypost_core::secret::hash(&issued.code), "{stored}");
}

waypost_testkit::both!(
    open => a_code_signs_in_once_in_its_own_browser, a_code_has_five_attempts_and_ten_minutes,
    signing_in_creates_no_account,
    a_code_creates_an_account_if_sign_up_is_open, the_sign_up_setting_applies_when_the_code_is_entered,
    a_code_sets_a_new_password, codes_are_stored_as_keyed_hashes
);
