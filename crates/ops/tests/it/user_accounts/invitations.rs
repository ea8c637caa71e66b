//! Tests of accepting invitations.

use waypost_core::Code;
use waypost_core::id::OrganizationId;
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_ops::user_accounts::AccountDetails;
use waypost_ops::{invitations, organizations, users};
use waypost_store::db::count_statements;

use super::{DEVICE, MINUTE, OTHER_PASSWORD, PASSWORD, UserTest, assert_rejected, set_up};

const BERTA: AccountDetails<'_> = AccountDetails { name: "Berta", password: OTHER_PASSWORD };

async fn invite(test: &UserTest, email: &str, role: Role) -> String {
    invitations::create(&test.operator_context(), &test.fixture.ops, &test.org, email, role).await.unwrap().secret
}

async fn assert_not_found(test: &UserTest, token: &str) {
    let error = test.accounts.get_invitation(&test.visitor_context(), token).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let error = test.accounts.accept_and_sign_up(&test.visitor_context(), token, BERTA, DEVICE).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

async fn a_visitor_accepts_once(test: UserTest) {
    let owner = test.create_verified_member("anna@example.com", Role::Owner, PASSWORD).await;
    let cx = test.fixture.member_context(&test.org, Role::Owner);
    let cx = match cx.caller.clone() {
        waypost_core::caller::Caller::Member { organization_id, role, .. } => {
            let actor = owner.user.id.to_string();
            test.context(waypost_core::caller::Caller::Member { organization_id, role, actor })
        }
        _ => unreachable!(),
    };
    let created =
        invitations::create(&cx, &test.fixture.ops, &test.org, "Berta@example.com", Role::Admin).await.unwrap();
    let token = created.secret.as_str();
    let invited = test.accounts.get_invitation(&test.visitor_context(), token).await.unwrap();
    assert_eq!(invited.invited_by.as_deref(), Some("Anna"));
    assert_eq!((invited.invitation.email.as_str(), invited.invitation.role), ("Berta@example.com", Role::Admin));
    assert_not_found(&test, "").await;
    let weak = AccountDetails { password: "short", ..BERTA };
    assert_rejected(
        test.accounts.accept_and_sign_up(&test.visitor_context(), token, weak, DEVICE).await,
        "password",
        "at least",
    );
    let cx = test.visitor_context();
    let (a, b) = tokio::join!(
        test.accounts.accept_and_sign_up(&cx, token, BERTA, DEVICE),
        test.accounts.accept_and_sign_up(&cx, token, BERTA, DEVICE)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    let (session, organization) = a.or(b).unwrap();
    assert_eq!(organization.id, test.org);
    assert!(test.is_active(&session).await);
    let member =
        users::resolve(&test.operator_context(), &test.fixture.ops, &test.org, "berta@example.com").await.unwrap();
    assert_eq!((member.role, &member.user_id), (Role::Admin, &session.user.id));
    assert_not_found(&test, token).await;
    assert_eq!(test.count_events("invitation.accept").await, 1);
    test.sign_in_with_password("berta@example.com", OTHER_PASSWORD).await.unwrap();
}

async fn a_user_signs_in_and_accepts(test: UserTest) {
    let anna = test.create_verified_member("anna@example.com", Role::Member, PASSWORD).await;
    let other =
        waypost_ops::organizations::create(&test.operator_context(), &test.fixture.ops, "other", None).await.unwrap();
    let created =
        invitations::create(&test.operator_context(), &test.fixture.ops, &other.id, "ANNA@example.com", Role::Owner)
            .await;
    let token = created.unwrap().secret;
    test.sign_in_with_password("anna@example.com", PASSWORD).await.unwrap();
    let berta = test.create_verified_member("berta@example.com", Role::Member, PASSWORD).await;
    let error = test.accounts.accept_invitation(&test.user_context(&berta.user.id), &token).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden, "bound to the email");
    assert_eq!(
        test.accounts.accept_invitation(&test.visitor_context(), &token).await.unwrap_err().code,
        Code::Forbidden
    );
    let cx = test.user_context(&anna.user.id);
    let (a, b) =
        tokio::join!(test.accounts.accept_invitation(&cx, &token), test.accounts.accept_invitation(&cx, &token));
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    let member =
        users::resolve(&test.operator_context(), &test.fixture.ops, &other.id, "anna@example.com").await.unwrap();
    assert_eq!(member.role, Role::Owner);
}

/// If an invitation link is shown instead of emailed, anyone who reads it can create an account for the inviting
/// organisation, whether or not the email has a verified account, and does not learn whether it has. The sessions and
/// the password of that account end when the owner of the email signs in with a code.
async fn a_shown_link_does_not_reveal_whether_an_account_exists(test: UserTest) {
    let anna = test.create_verified_member("anna@example.com", Role::Member, PASSWORD).await;
    let other = organizations::create(&test.operator_context(), &test.fixture.ops, "other", None).await.unwrap().id;
    let mut sessions = Vec::new();
    for email in ["anna@example.com", "nobody@example.com"] {
        let created =
            invitations::create(&test.operator_context(), &test.fixture.ops, &other, email, Role::Owner).await.unwrap();
        let (accepted, statements) = count_statements(async {
            test.accounts.accept_and_sign_up(&test.visitor_context(), &created.secret, BERTA, DEVICE).await.unwrap().0
        })
        .await;
        assert_eq!((&accepted.user.verified_at, accepted.revoked), (&None, false));
        assert_eq!(test.list_accessible_slugs(&accepted.token).await.unwrap(), ["other"]);
        sessions.push((accepted, statements));
    }
    assert_eq!(sessions[0].1, sessions[1].1, "both cost the same");
    assert_ne!(sessions[0].0.user.id, anna.user.id);
    assert!(test.is_active(&anna).await);
    test.sign_in_with_password("anna@example.com", PASSWORD).await.unwrap();
    let again = test.sign_in_with_code("anna@example.com").await;
    assert_eq!(again.user.id, anna.user.id);
    assert!(!test.is_active(&sessions[0].0).await, "the owner of the email has signed in");
    assert_rejected(test.sign_in_with_password("anna@example.com", OTHER_PASSWORD).await, "password", "is incorrect");
    // An emailed link asks its reader to sign in, because only the owner of the email can have the link.
    let (operator, third) = (test.operator_context(), create_third_organization(&test).await);
    let created =
        invitations::create(&operator, &test.fixture.ops, &third, "anna@example.com", Role::Owner).await.unwrap();
    invitations::mark_emailed(&test.operator_context(), &test.fixture.ops, &created).await.unwrap();
    let error =
        test.accounts.accept_and_sign_up(&test.visitor_context(), &created.secret, BERTA, DEVICE).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict, "an invitation cannot change a password");
}

async fn create_third_organization(test: &UserTest) -> OrganizationId {
    organizations::create(&test.operator_context(), &test.fixture.ops, "third", None).await.unwrap().id
}

async fn an_invitation_expires_or_is_revoked(test: UserTest) {
    let token = invite(&test, "berta@example.com", Role::Member).await;
    test.clock.advance(48 * 60 * MINUTE - 1);
    test.accounts.get_invitation(&test.visitor_context(), &token).await.unwrap();
    test.clock.advance(1);
    assert_not_found(&test, &token).await;
    let token = invite(&test, "berta@example.com", Role::Member).await;
    test.clock.advance(1);
    let newer = invite(&test, "berta@example.com", Role::Member).await;
    assert_not_found(&test, &token).await;
    let all = invitations::list(&test.operator_context(), &test.fixture.ops, &test.org, None, 10).await.unwrap();
    invitations::revoke(&test.operator_context(), &test.fixture.ops, &test.org, &all[0].invitation.id).await.unwrap();
    assert_not_found(&test, &newer).await;
    assert_eq!(test.count_events("invitation.accept").await, 0);
}

async fn an_existing_member_keeps_their_role(test: UserTest) {
    let token = invite(&test, "berta@example.com", Role::Member).await;
    test.create_member("berta@example.com", Role::Admin).await;
    test.accounts.accept_and_sign_up(&test.visitor_context(), &token, BERTA, DEVICE).await.unwrap();
    let member =
        users::resolve(&test.operator_context(), &test.fixture.ops, &test.org, "berta@example.com").await.unwrap();
    assert_eq!(member.role, Role::Admin);
}

async fn closed_sign_up_rejects_invitations(test: UserTest) {
    let test = test.with_policy(SignUpPolicy::Closed);
    let token = invite(&test, "berta@example.com", Role::Member).await;
    let error = test.accounts.accept_and_sign_up(&test.visitor_context(), &token, BERTA, DEVICE).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    // The invitation was not consumed.
    let test = test.with_policy(SignUpPolicy::Invite);
    test.accounts.accept_and_sign_up(&test.visitor_context(), &token, BERTA, DEVICE).await.unwrap();
}

waypost_testkit::both!(set_up => a_visitor_accepts_once);
waypost_testkit::both!(extended set_up =>
    a_shown_link_does_not_reveal_whether_an_account_exists,
    a_user_signs_in_and_accepts,
    an_invitation_expires_or_is_revoked,
    an_existing_member_keeps_their_role,
    closed_sign_up_rejects_invitations,
);
