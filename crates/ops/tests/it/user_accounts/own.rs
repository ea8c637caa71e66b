//! Tests of the operations of users on their own account.

use waypost_core::Code;
use waypost_core::caller::Caller;
use waypost_core::organization::Role;
use waypost_ops::user_accounts::{leave_organization, set_name};
use waypost_ops::{organizations, user_sessions, users};

use super::{DEVICE, MINUTE, OTHER_PASSWORD, PASSWORD, UserTest, assert_rejected, set_up};

async fn a_new_password_ends_all_other_sessions(test: UserTest) {
    let one = test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let two = test.sign_in_with_password("anna@example.com", PASSWORD).await.unwrap();
    let cx = test.user_context(&one.user.id);
    let keep = user_sessions::find(&cx, &test.fixture.ops, &two.token).await.unwrap().unwrap().id;
    let change =
        async |old, new| test.accounts.change_password(&cx, old, new, &keep, DEVICE).await.map(|change| change.ended);
    assert_rejected(change(OTHER_PASSWORD, OTHER_PASSWORD).await, "password", "current password is incorrect");
    assert_rejected(change("", OTHER_PASSWORD).await, "password", "current password is incorrect");
    assert_rejected(change(PASSWORD, "anna@example.com").await, "new_password", "easy to guess");
    assert!(test.is_active(&one).await);
    assert_eq!(change(PASSWORD, OTHER_PASSWORD).await.unwrap(), 1);
    assert!(!test.is_active(&one).await && test.is_active(&two).await);
    test.sign_in_with_password("anna@example.com", OTHER_PASSWORD).await.unwrap();
    // An open session does not bypass the limits.
    test.clock.advance(MINUTE);
    for _ in 0..3 {
        assert_rejected(change(PASSWORD, PASSWORD).await, "password", "current password is incorrect");
    }
    assert_eq!(change(OTHER_PASSWORD, PASSWORD).await.unwrap_err().code, Code::RateLimited);
    test.clock.advance(MINUTE / 3);
    change(OTHER_PASSWORD, PASSWORD).await.unwrap();
    for caller in [Caller::Visitor, Caller::Operator] {
        let error = test
            .accounts
            .change_password(&test.context(caller), PASSWORD, OTHER_PASSWORD, &keep, DEVICE)
            .await
            .unwrap_err();
        assert_eq!(error.code, Code::Forbidden);
    }
}

async fn the_last_owner_cannot_leave(test: UserTest) {
    let (ops, anna) = (&test.fixture.ops, test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await);
    let cx = test.user_context(&anna.user.id);
    let error = leave_organization(&cx, ops, &test.org).await.unwrap_err();
    assert!(error.code == Code::Conflict && error.message.contains("last owner"), "{error}");
    let berta = test.create_verified_member("berta@example.com", Role::Owner, PASSWORD).await;
    let bertas = test.user_context(&berta.user.id);
    let (a, b) = tokio::join!(leave_organization(&cx, ops, &test.org), leave_organization(&bertas, ops, &test.org));
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "one of the last two owners stays: {a:?} {b:?}");
    let members = users::list(&test.operator_context(), ops, &test.org).await.unwrap();
    assert_eq!(members.len(), 1);
    let former = if a.is_ok() { &cx } else { &bertas };
    assert_eq!(leave_organization(former, ops, &test.org).await.unwrap_err().code, Code::NotFound);
    assert_eq!(user_sessions::get_user(former, ops).await.unwrap().name.as_deref(), Some("Anna"), "still a user");
    let other = organizations::create(&test.operator_context(), ops, "other", None).await.unwrap();
    assert_eq!(leave_organization(&cx, ops, &other.id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(leave_organization(&test.operator_context(), ops, &test.org).await.unwrap_err().code, Code::Forbidden);
}

async fn names_are_cleaned(test: UserTest) {
    let anna = test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let cx = test.user_context(&anna.user.id);
    set_name(&cx, &test.fixture.ops, " Anna\r\nBcc: x@y.de\u{202e} ").await.unwrap();
    let name = user_sessions::get_user(&cx, &test.fixture.ops).await.unwrap().name;
    assert_eq!(name.as_deref(), Some("Anna  Bcc: x@y.de"));
    assert_rejected(set_name(&cx, &test.fixture.ops, "\0").await, "name", "");
    assert_eq!(set_name(&test.visitor_context(), &test.fixture.ops, "X").await.unwrap_err().code, Code::Forbidden);
}

waypost_testkit::both!(extended set_up =>
    a_new_password_ends_all_other_sessions,
    the_last_owner_cannot_leave,
    names_are_cleaned,
);
