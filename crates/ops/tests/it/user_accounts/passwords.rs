//! Passwords, the set-up of an installation, and links.

use waypost_core::organization::Role;
use waypost_core::secret::SecretKey;
use waypost_core::{Code, Timestamp};
use waypost_ops::user_accounts::{
    AccountDetails, NewOwner, create_account_link, create_first_account_link, set_up_token,
};
use waypost_ops::{organizations, users};

use super::{DEVICE, FINE, MINUTE, OTHER, Users, open, refused};

const ANNA: NewOwner<'_> = NewOwner { email: "anna@example.com", name: "Anna", password: FINE };

async fn token(users: &Users) -> Option<String> {
    set_up_token(&users.stage.ops, &SecretKey::new([7; 32])).await.unwrap()
}

async fn whoever_sets_up_owns_what_has_no_owner(users: Users) {
    let (ops, operator) = (&users.stage.ops, users.operator());
    let owned = organizations::create(&operator, ops, "owned", None).await.unwrap();
    users::create(&operator, ops, &owned.id, "other@example.com", Role::Owner).await.unwrap();
    let mine = organizations::create(&operator, ops, "mine", None).await.unwrap();
    users::create(&operator, ops, &mine.id, "anna@example.com", Role::Member).await.unwrap();
    let token = token(&users).await.unwrap();
    for wrong in ["", "x", "AAAA"] {
        let error = users.accounts.set_up(&users.cx(), wrong, ANNA, DEVICE).await.unwrap_err();
        assert_eq!(error.code, Code::NotFound, "{wrong}");
    }
    let other = set_up_token(ops, &SecretKey::new([8; 32])).await.unwrap().unwrap();
    assert_eq!(users.accounts.check_set_up(&other).await.unwrap_err().code, Code::NotFound);
    for (wrong, field) in [
        (NewOwner { email: "anna", ..ANNA }, "email"),
        (NewOwner { name: " ", ..ANNA }, "name"),
        (NewOwner { password: "anna@example.com", ..ANNA }, "password"),
    ] {
        refused(users.accounts.set_up(&users.cx(), &token, wrong, DEVICE).await, field, "");
    }
    let session = users.accounts.set_up(&users.cx(), &token, ANNA, DEVICE).await.unwrap();
    assert!(users.is_open(&session).await);
    for (organization, role) in [(&users.org, Some(Role::Owner)), (&mine.id, Some(Role::Owner)), (&owned.id, None)] {
        let found = users::find(&operator, ops, organization, "anna@example.com").await;
        assert_eq!(found.ok().map(|member| member.role), role);
    }
    assert_eq!(self::token(&users).await, None);
    let again = users.accounts.set_up(&users.cx(), &token, NewOwner { email: "b@example.com", ..ANNA }, DEVICE).await;
    assert_eq!(again.unwrap_err().code, Code::NotFound);
    users.by_password("anna@example.com", FINE).await.unwrap();
}

async fn one_of_two_sets_up(users: Users) {
    let token = token(&users).await.unwrap();
    let cx = users.cx();
    let berta = NewOwner { email: "berta@example.com", ..ANNA };
    let (a, b) = tokio::join!(
        users.accounts.set_up(&cx, &token, ANNA, DEVICE),
        users.accounts.set_up(&cx, &token, berta, DEVICE)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    assert_eq!(users.told("member.create").await, 1);
}

async fn a_link_sets_name_and_password_once(users: Users) {
    let (ops, operator) = (&users.stage.ops, users.operator());
    let id = users.invited_by_hand("anna@example.com", Role::Owner).await;
    refused(users.by_password("anna@example.com", FINE).await, "password", "or the password is wrong");
    let older = create_first_account_link(&operator, ops, &users.org, &id).await.unwrap().unwrap();
    let link = create_first_account_link(&operator, ops, &users.org, &id).await.unwrap().unwrap();
    assert!(!format!("{link:?}").contains(&link.token));
    let newcomer = AccountDetails { name: "Anna", password: FINE };
    let gone = |result: waypost_core::Result<_>| assert_eq!(result.err().map(|it| it.code), Some(Code::NotFound));
    gone(users.accounts.use_account_link(&users.cx(), &older.token, newcomer, DEVICE).await.map(drop));
    gone(users.accounts.use_account_link(&users.cx(), "", newcomer, DEVICE).await.map(drop));
    assert_eq!(users.accounts.get_account_link_user(&users.cx(), &link.token).await.unwrap().email, "anna@example.com");
    let weak = AccountDetails { password: "password1234", ..newcomer };
    refused(users.accounts.use_account_link(&users.cx(), &link.token, weak, DEVICE).await, "password", "easy to guess");
    let (cx, token) = (users.cx(), link.token.as_str());
    let (a, b) = tokio::join!(
        users.accounts.use_account_link(&cx, token, newcomer, DEVICE),
        users.accounts.use_account_link(&cx, token, newcomer, DEVICE)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    let session = a.or(b).unwrap();
    assert_eq!(session.user.display_name(), "Anna");
    assert!(create_first_account_link(&operator, ops, &users.org, &id).await.unwrap().is_none(), "they can sign in");
    // Also who has a password gets a new one by a link, and the one before and its sessions end.
    let link = create_account_link(&operator, ops, &users.org, &id).await.unwrap();
    users.clock.advance(48 * 60 * MINUTE);
    gone(users.accounts.get_account_link_user(&users.cx(), &link.token).await.map(drop));
    let link = create_account_link(&operator, ops, &users.org, &id).await.unwrap();
    users.clock.advance(48 * 60 * MINUTE - 1);
    let other = AccountDetails { password: OTHER, ..newcomer };
    let new = users.accounts.use_account_link(&users.cx(), &link.token, other, DEVICE).await.unwrap();
    assert!(users.is_open(&new).await && !users.is_open(&session).await);
    refused(users.by_password("anna@example.com", FINE).await, "password", "or the password is wrong");
    // Only the operator makes links: they lead into every organisation of the user.
    for caller in [users.as_user(&id), users.stage.member(&users.org, Role::Owner), users.cx()] {
        let error = create_account_link(&caller, ops, &users.org, &id).await.unwrap_err();
        assert_eq!(error.code, Code::Forbidden);
    }
    let other = organizations::create(&operator, ops, "other", None).await.unwrap();
    assert_eq!(create_account_link(&operator, ops, &other.id, &id).await.unwrap_err().code, Code::NotFound);
}

async fn every_sign_in_is_a_session_of_its_own(users: Users) {
    let first = users.member("anna@example.com", Role::Owner, FINE).await;
    let second = users.by_password("anna@example.com", FINE).await.unwrap();
    assert_ne!(first.token, second.token);
    assert!(users.is_open(&first).await && users.is_open(&second).await);
    assert!(!format!("{first:?}").contains(&first.token));
    assert_eq!(users.told("user.sign_in").await, 2);
    let mut conn = users.stage.ops.db().read().await.unwrap();
    let agents = "SELECT user_agent FROM user_sessions";
    let agents: Vec<String> =
        waypost_store::on!(&mut conn, c => sqlx::query_scalar(agents).fetch_all(c).await.unwrap());
    assert!(agents.iter().all(|agent| agent == "Test  Set-Cookie: x"), "{agents:?}");
    users.clock.advance(waypost_ops::user_sessions::LIFETIME_MS);
    assert!(!users.is_open(&first).await, "{:?}", Timestamp(0));
}

waypost_testkit::both!(
    open => whoever_sets_up_owns_what_has_no_owner, one_of_two_sets_up, a_link_sets_name_and_password_once,
    every_sign_in_is_a_session_of_its_own
);
