//! Tests of passwords, the setup of an installation, and account links.

use waypost_core::Code;
use waypost_core::organization::Role;
use waypost_core::secret::SecretKey;
use waypost_ops::user_accounts::{
    AccountDetails, NewOwner, create_account_link, create_first_account_link, set_up_token,
};
use waypost_ops::{organizations, users};

use super::{DEVICE, MINUTE, OTHER_PASSWORD, PASSWORD, UserTest, assert_rejected, set_up};

const ANNA: NewOwner<'_> = NewOwner { email: "anna@example.com", name: "Anna", password: PASSWORD };

async fn find_set_up_token(test: &UserTest) -> Option<String> {
    set_up_token(&test.fixture.ops, &SecretKey::new([7; 32])).await.unwrap()
}

async fn the_set_up_makes_the_user_the_owner_of_organisations_without_one(test: UserTest) {
    let (ops, operator) = (&test.fixture.ops, test.operator_context());
    let owned = organizations::create(&operator, ops, "owned", None).await.unwrap();
    users::create(&operator, ops, &owned.id, "other@example.com", Role::Owner).await.unwrap();
    let joined = organizations::create(&operator, ops, "joined", None).await.unwrap();
    users::create(&operator, ops, &joined.id, "anna@example.com", Role::Member).await.unwrap();
    let token = find_set_up_token(&test).await.unwrap();
    for wrong in ["", "x", "AAAA"] {
        let error = test.accounts.set_up(&test.visitor_context(), wrong, ANNA, DEVICE).await.unwrap_err();
        assert_eq!(error.code, Code::NotFound, "{wrong}");
    }
    let other = set_up_token(ops, &SecretKey::new([8; 32])).await.unwrap().unwrap();
    assert_eq!(test.accounts.check_set_up(&other).await.unwrap_err().code, Code::NotFound);
    for (wrong, field) in [
        (NewOwner { email: "anna", ..ANNA }, "email"),
        (NewOwner { name: " ", ..ANNA }, "name"),
        (NewOwner { password: "anna@example.com", ..ANNA }, "password"),
    ] {
        assert_rejected(test.accounts.set_up(&test.visitor_context(), &token, wrong, DEVICE).await, field, "");
    }
    let session = test.accounts.set_up(&test.visitor_context(), &token, ANNA, DEVICE).await.unwrap();
    assert!(test.is_active(&session).await);
    for (organization, role) in [(&test.org, Some(Role::Owner)), (&joined.id, Some(Role::Owner)), (&owned.id, None)] {
        let user = users::resolve(&operator, ops, organization, "anna@example.com").await;
        assert_eq!(user.ok().map(|member| member.role), role);
    }
    assert_eq!(find_set_up_token(&test).await, None);
    let again = test
        .accounts
        .set_up(&test.visitor_context(), &token, NewOwner { email: "b@example.com", ..ANNA }, DEVICE)
        .await;
    assert_eq!(again.unwrap_err().code, Code::NotFound);
    test.sign_in_with_password("anna@example.com", PASSWORD).await.unwrap();
}

async fn only_one_of_two_concurrent_set_ups_succeeds(test: UserTest) {
    let token = find_set_up_token(&test).await.unwrap();
    let cx = test.visitor_context();
    let berta = NewOwner { email: "berta@example.com", ..ANNA };
    let (a, b) =
        tokio::join!(test.accounts.set_up(&cx, &token, ANNA, DEVICE), test.accounts.set_up(&cx, &token, berta, DEVICE));
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    assert_eq!(test.count_events("member.create").await, 1);
}

async fn a_link_sets_name_and_password_once(test: UserTest) {
    let (ops, operator) = (&test.fixture.ops, test.operator_context());
    let id = test.create_member("anna@example.com", Role::Owner).await;
    assert_rejected(
        test.sign_in_with_password("anna@example.com", PASSWORD).await,
        "password",
        "or password is incorrect",
    );
    let older = create_first_account_link(&operator, ops, &test.org, &id).await.unwrap().unwrap();
    let link = create_first_account_link(&operator, ops, &test.org, &id).await.unwrap().unwrap();
    assert!(!format!("{link:?}").contains(&link.token));
    let account_details = AccountDetails { name: "Anna", password: PASSWORD };
    let assert_not_found =
        |result: waypost_core::Result<_>| assert_eq!(result.err().map(|error| error.code), Some(Code::NotFound));
    assert_not_found(
        test.accounts.use_account_link(&test.visitor_context(), &older.token, account_details, DEVICE).await.map(drop),
    );
    assert_not_found(
        test.accounts.use_account_link(&test.visitor_context(), "", account_details, DEVICE).await.map(drop),
    );
    assert_eq!(
        test.accounts.get_account_link_user(&test.visitor_context(), &link.token).await.unwrap().email,
        "anna@example.com"
    );
    let weak = AccountDetails { password: "password1234", ..account_details };
    assert_rejected(
        test.accounts.use_account_link(&test.visitor_context(), &link.token, weak, DEVICE).await,
        "password",
        "easy to guess",
    );
    let (cx, token) = (test.visitor_context(), link.token.as_str());
    let (a, b) = tokio::join!(
        test.accounts.use_account_link(&cx, token, account_details, DEVICE),
        test.accounts.use_account_link(&cx, token, account_details, DEVICE)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    let session = a.or(b).unwrap();
    assert_eq!(session.user.display_name(), "Anna");
    assert!(create_first_account_link(&operator, ops, &test.org, &id).await.unwrap().is_none(), "the user can sign in");
    // A user with a password can set a new one with a link, which ends the old password and its sessions.
    let link = create_account_link(&operator, ops, &test.org, &id).await.unwrap();
    test.clock.advance(48 * 60 * MINUTE);
    assert_not_found(test.accounts.get_account_link_user(&test.visitor_context(), &link.token).await.map(drop));
    let link = create_account_link(&operator, ops, &test.org, &id).await.unwrap();
    test.clock.advance(48 * 60 * MINUTE - 1);
    let other = AccountDetails { password: OTHER_PASSWORD, ..account_details };
    let new = test.accounts.use_account_link(&test.visitor_context(), &link.token, other, DEVICE).await.unwrap();
    assert!(test.is_active(&new).await && !test.is_active(&session).await);
    assert_rejected(
        test.sign_in_with_password("anna@example.com", PASSWORD).await,
        "password",
        "or password is incorrect",
    );
    // Only the operator creates links: they give access to every organisation of the user.
    for caller in [test.user_context(&id), test.fixture.member_context(&test.org, Role::Owner), test.visitor_context()]
    {
        let error = create_account_link(&caller, ops, &test.org, &id).await.unwrap_err();
        assert_eq!(error.code, Code::Forbidden);
    }
    let other = organizations::create(&operator, ops, "other", None).await.unwrap();
    assert_eq!(create_account_link(&operator, ops, &other.id, &id).await.unwrap_err().code, Code::NotFound);
}

async fn every_sign_in_creates_a_session(test: UserTest) {
    let first = test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let second = test.sign_in_with_password("anna@example.com", PASSWORD).await.unwrap();
    assert_ne!(first.token, second.token);
    assert!(test.is_active(&first).await && test.is_active(&second).await);
    assert!(!format!("{first:?}").contains(&first.token));
    assert_eq!(test.count_events("user.sign_in").await, 2);
    let mut conn = test.fixture.ops.store().read().await.unwrap();
    let agents = "SELECT user_agent FROM user_sessions";
    let agents: Vec<String> =
        waypost_store::on!(&mut conn, c => sqlx::query_scalar(agents).fetch_all(c).await.unwrap());
    assert!(agents.iter().all(|agent| agent == "Test  Set-Cookie: x"), "{agents:?}");
    test.clock.advance(waypost_ops::user_sessions::LIFETIME_MS);
    assert!(!test.is_active(&first).await, "the session has expired");
}

waypost_testkit::both!(set_up => only_one_of_two_concurrent_set_ups_succeeds, a_link_sets_name_and_password_once);
waypost_testkit::both!(extended set_up =>
    the_set_up_makes_the_user_the_owner_of_organisations_without_one,
    every_sign_in_creates_a_session,
);
