//! Codes by mail.

use waypost_core::Code;
use waypost_core::account::CodePurpose;
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_ops::user_accounts::{UserCodeEntry, UserCodeRequest};

use super::{DEVICE, FINE, MINUTE, OTHER, Users, open, refused};

async fn a_code_signs_in_once_in_its_own_browser(users: Users) {
    let id = users.invited_by_hand("anna@example.com", Role::Owner).await;
    let made = users.ask(" Anna@Example.com", CodePurpose::SignIn, None).await.unwrap();
    assert!(made.has_user && !format!("{made:?}").contains(&made.code));
    let entered = UserCodeEntry { id: made.id.as_str(), code: &made.code, cookie: "other", name: "", new_password: "" };
    refused(users.accounts.sign_in_with_code(&users.cx(), entered, DEVICE).await, "code", "any more");
    refused(users.enter("uco_000000000000000000000000", &made.code).await, "code", "any more");
    refused(users.enter("nonsense\0", &made.code).await, "code", "any more");
    refused(users.enter(made.id.as_str(), "1234567").await, "code", "8 digits");
    users.clock.advance(MINUTE);
    let session = users.enter(made.id.as_str(), &made.code).await.unwrap();
    assert_eq!(session.user.id, id);
    assert!(session.user.verified_at.is_some(), "the code proved the address");
    refused(users.enter(made.id.as_str(), &made.code).await, "code", "any more");
    refused(users.by_password("anna@example.com", OTHER).await, "password", "is wrong");
    let two = users.ask("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    let (a, b) = tokio::join!(users.enter(two.id.as_str(), &two.code), users.enter(two.id.as_str(), &two.code));
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
}

async fn a_code_has_five_tries_and_ten_minutes(users: Users) {
    users.invited_by_hand("anna@example.com", Role::Owner).await;
    for email in ["anna@example.com", "nobody@example.com"] {
        let made = users.ask(email, CodePurpose::SignIn, None).await.unwrap();
        let wrong = if made.code == "00000000" { "00000001" } else { "00000000" };
        for words in ["4 more tries", "3 more tries", "2 more tries", "one more try", "the last try", "any more"] {
            refused(users.enter(made.id.as_str(), wrong).await, "code", words);
        }
        refused(users.enter(made.id.as_str(), &made.code).await, "code", "any more");
    }
    let made = users.ask("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    users.clock.advance(10 * MINUTE);
    refused(users.enter(made.id.as_str(), &made.code).await, "code", "any more");
}

async fn who_has_no_account_gets_none_by_signing_in(users: Users) {
    let users = users.with(SignUpPolicy::Open);
    for purpose in [CodePurpose::SignIn, CodePurpose::Reset] {
        let made = users.ask("nobody@example.com", purpose, None).await.unwrap();
        assert!(!made.has_user);
        refused(users.enter(made.id.as_str(), &made.code).await, "code", "any more");
    }
    let mut conn = users.stage.ops.db().read().await.unwrap();
    assert_eq!(waypost_store::system::list_accounts(&mut conn, "nobody@example.com").await.unwrap(), []);
}

async fn a_code_makes_an_account_where_that_is_open(users: Users) {
    let asked = UserCodeRequest {
        email: "b@example.com",
        purpose: CodePurpose::SignUp,
        password: Some(FINE),
        cookie: "browser",
    };
    assert_eq!(
        users.accounts.create_code(&users.cx(), asked, DEVICE).await.unwrap_err().code,
        Code::Forbidden,
        "by invitation"
    );
    let users = users.with(SignUpPolicy::Closed);
    assert_eq!(
        users.accounts.create_code(&users.cx(), asked, DEVICE).await.unwrap_err().code,
        Code::Forbidden,
        "closed"
    );
    let users = users.with(SignUpPolicy::Open);
    let weak = UserCodeRequest { password: Some("b@example.com"), ..asked };
    refused(users.accounts.create_code(&users.cx(), weak, DEVICE).await, "password", "easy to guess");
    let made = users.accounts.create_code(&users.cx(), asked, DEVICE).await.unwrap();
    refused(users.by_password("b@example.com", FINE).await, "password", "is wrong");
    let nameless =
        UserCodeEntry { id: made.id.as_str(), code: &made.code, cookie: "browser", name: " ", new_password: "" };
    refused(users.accounts.sign_in_with_code(&users.cx(), nameless, DEVICE).await, "name", "");
    let session = users.enter(made.id.as_str(), &made.code).await.unwrap();
    assert_eq!(session.user.name.as_deref(), Some("Berta"));
    users.by_password("b@example.com", FINE).await.unwrap();
    // Signing up again is the same as a forgotten password; the name stays.
    let made = users.ask("B@example.com", CodePurpose::SignUp, Some(OTHER)).await.unwrap();
    assert!(made.has_user);
    let named =
        UserCodeEntry { id: made.id.as_str(), code: &made.code, cookie: "browser", name: "Mallory", new_password: "" };
    let again = users.accounts.sign_in_with_code(&users.cx(), named, DEVICE).await.unwrap();
    assert_eq!((&again.user.id, again.user.name.as_deref()), (&session.user.id, Some("Berta")));
    assert!(!users.is_open(&session).await, "a new password ends what was begun with the old one");
}

async fn the_setting_counts_when_the_code_is_entered(users: Users) {
    let users = users.with(SignUpPolicy::Open);
    let made = users.ask("b@example.com", CodePurpose::SignUp, Some(FINE)).await.unwrap();
    let users = users.with(SignUpPolicy::Invite);
    refused(users.enter(made.id.as_str(), &made.code).await, "code", "any more");
}

async fn a_code_sets_a_new_password(users: Users) {
    let old = users.member("anna@example.com", Role::Owner, FINE).await;
    let made = users.ask("anna@example.com", CodePurpose::Reset, None).await.unwrap();
    let weak = UserCodeEntry {
        id: made.id.as_str(),
        code: &made.code,
        cookie: "browser",
        name: "",
        new_password: "password1234",
    };
    refused(users.accounts.sign_in_with_code(&users.cx(), weak, DEVICE).await, "new_password", "easy to guess");
    let new = users.enter(made.id.as_str(), &made.code).await.unwrap();
    assert!(users.is_open(&new).await && !users.is_open(&old).await);
    refused(users.by_password("anna@example.com", FINE).await, "password", "is wrong");
    users.by_password("anna@example.com", OTHER).await.unwrap();
    assert_eq!(users.told("user.password").await, 2);
}

async fn codes_are_kept_as_keyed_hashes(users: Users) {
    let made = users.ask("anna@example.com", CodePurpose::SignIn, None).await.unwrap();
    let mut conn = users.stage.ops.db().read().await.unwrap();
    let sql = "SELECT code_hash FROM user_codes";
    let kept: String = waypost_store::on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap());
    assert!(kept.len() == 64 && kept != waypost_core::secret::hash(&made.code), "{kept}");
}

waypost_testkit::both!(
    open => a_code_signs_in_once_in_its_own_browser, a_code_has_five_tries_and_ten_minutes,
    who_has_no_account_gets_none_by_signing_in,
    a_code_makes_an_account_where_that_is_open, the_setting_counts_when_the_code_is_entered,
    a_code_sets_a_new_password, codes_are_kept_as_keyed_hashes
);
