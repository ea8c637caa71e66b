//! Tests of the operations of users on their own account.

use waypost_core::Code;
use waypost_core::caller::Caller;
use waypost_core::organization::Role;
use waypost_ops::user_accounts::{leave_organization, set_name};
use waypost_ops::{organizations, user_sessions, users};

use super::{DEVICE, FINE, MINUTE, OTHER, Users, assert_rejected, open};

async fn a_new_password_ends_all_other_sessions(users: Users) {
    let one = users.member("anna@example.com", Role::Owner, FINE).await;
    let two = users.by_password("anna@example.com", FINE).await.unwrap();
    let cx = users.as_user(&one.user.id);
    let keep = user_sessions::find(&cx, &users.stage.ops, &two.token).await.unwrap().unwrap().id;
    let change =
        async |old, new| users.accounts.change_password(&cx, (old, new), &keep, DEVICE).await.map(|it| it.ended);
    assert_rejected(change(OTHER, OTHER).await, "password", "current password is wrong");
    assert_rejected(change("", OTHER).await, "password", "current password is wrong");
    assert_rejected(change(FINE, "anna@example.com").await, "new_password", "easy to guess");
    assert!(users.is_open(&one).await);
    assert_eq!(change(FINE, OTHER).await.unwrap(), 1);
    assert!(!users.is_open(&one).await && users.is_open(&two).await);
    users.by_password("anna@example.com", OTHER).await.unwrap();
    // An open session does not bypass the limits.
    users.clock.advance(MINUTE);
    for _ in 0..3 {
        assert_rejected(change(FINE, FINE).await, "password", "current password is wrong");
    }
    assert_eq!(change(OTHER, FINE).await.unwrap_err().code, Code::RateLimited);
    users.clock.advance(MINUTE / 3);
    change(OTHER, FINE).await.unwrap();
    for caller in [Caller::Visitor, Caller::Operator] {
        let error = users.accounts.change_password(&users.by(caller), (FINE, OTHER), &keep, DEVICE).await.unwrap_err();
        assert_eq!(error.code, Code::Forbidden);
    }
}

async fn the_last_owner_cannot_leave(users: Users) {
    let (ops, anna) = (&users.stage.ops, users.member("anna@example.com", Role::Owner, FINE).await);
    let cx = users.as_user(&anna.user.id);
    let error = leave_organization(&cx, ops, &users.org).await.unwrap_err();
    assert!(error.code == Code::Conflict && error.message.contains("last owner"), "{error}");
    let berta = users.member("berta@example.com", Role::Owner, FINE).await;
    let bertas = users.as_user(&berta.user.id);
    let (a, b) = tokio::join!(leave_organization(&cx, ops, &users.org), leave_organization(&bertas, ops, &users.org));
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "one of the last two owners stays: {a:?} {b:?}");
    let left = users::list(&users.operator(), ops, &users.org).await.unwrap();
    assert_eq!(left.len(), 1);
    let former = if a.is_ok() { &cx } else { &bertas };
    assert_eq!(leave_organization(former, ops, &users.org).await.unwrap_err().code, Code::NotFound);
    assert_eq!(user_sessions::get_user(former, ops).await.unwrap().name.as_deref(), Some("Anna"), "they stay a user");
    let other = organizations::create(&users.operator(), ops, "other", None).await.unwrap();
    assert_eq!(leave_organization(&cx, ops, &other.id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(leave_organization(&users.operator(), ops, &users.org).await.unwrap_err().code, Code::Forbidden);
}

async fn names_are_cleaned(users: Users) {
    let anna = users.member("anna@example.com", Role::Owner, FINE).await;
    let cx = users.as_user(&anna.user.id);
    set_name(&cx, &users.stage.ops, " Anna\r\nBcc: x@y.de\u{202e} ").await.unwrap();
    let name = user_sessions::get_user(&cx, &users.stage.ops).await.unwrap().name;
    assert_eq!(name.as_deref(), Some("Anna  Bcc: x@y.de"));
    assert_rejected(set_name(&cx, &users.stage.ops, "\0").await, "name", "");
    assert_eq!(set_name(&users.cx(), &users.stage.ops, "X").await.unwrap_err().code, Code::Forbidden);
}

waypost_testkit::both!(
    open => a_new_password_ends_all_other_sessions, the_last_owner_cannot_leave, names_are_cleaned
);
