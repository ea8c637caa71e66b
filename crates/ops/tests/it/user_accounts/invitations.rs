//! Tests of accepting invitations.

use waypost_core::Code;
use waypost_core::id::OrganizationId;
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_ops::user_accounts::AccountDetails;
use waypost_ops::{invitations, organizations, users};
use waypost_store::db::count_statements;

use super::{DEVICE, FINE, MINUTE, OTHER, Users, assert_rejected, open};

const BERTA: AccountDetails<'_> = AccountDetails { name: "Berta", password: OTHER };

async fn invite(users: &Users, email: &str, role: Role) -> String {
    invitations::create(&users.operator(), &users.stage.ops, &users.org, email, role).await.unwrap().secret
}

async fn assert_not_found(users: &Users, token: &str) {
    let error = users.accounts.get_invitation(&users.cx(), token).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let error = users.accounts.accept_and_sign_up(&users.cx(), token, BERTA, DEVICE).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

async fn a_visitor_accepts_once(users: Users) {
    let owner = users.member("anna@example.com", Role::Owner, FINE).await;
    let cx = users.stage.member(&users.org, Role::Owner);
    let cx = match cx.caller.clone() {
        waypost_core::caller::Caller::Member { organization_id, role, .. } => {
            let actor = owner.user.id.to_string();
            users.by(waypost_core::caller::Caller::Member { organization_id, role, actor })
        }
        _ => unreachable!(),
    };
    let made = invitations::create(&cx, &users.stage.ops, &users.org, "Berta@example.com", Role::Admin).await.unwrap();
    let token = made.secret.as_str();
    let invited = users.accounts.get_invitation(&users.cx(), token).await.unwrap();
    assert_eq!(invited.invited_by.as_deref(), Some("Anna"));
    assert_eq!((invited.invitation.email.as_str(), invited.invitation.role), ("Berta@example.com", Role::Admin));
    assert_not_found(&users, "").await;
    let weak = AccountDetails { password: "short", ..BERTA };
    assert_rejected(users.accounts.accept_and_sign_up(&users.cx(), token, weak, DEVICE).await, "password", "at least");
    let cx = users.cx();
    let (a, b) = tokio::join!(
        users.accounts.accept_and_sign_up(&cx, token, BERTA, DEVICE),
        users.accounts.accept_and_sign_up(&cx, token, BERTA, DEVICE)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    let (session, organization) = a.or(b).unwrap();
    assert_eq!(organization.id, users.org);
    assert!(users.is_open(&session).await);
    let member = users::resolve(&users.operator(), &users.stage.ops, &users.org, "berta@example.com").await.unwrap();
    assert_eq!((member.role, &member.user_id), (Role::Admin, &session.user.id));
    assert_not_found(&users, token).await;
    assert_eq!(users.count_events("invitation.accept").await, 1);
    users.by_password("berta@example.com", OTHER).await.unwrap();
}

async fn a_user_signs_in_and_accepts(users: Users) {
    let anna = users.member("anna@example.com", Role::Member, FINE).await;
    let elsewhere =
        waypost_ops::organizations::create(&users.operator(), &users.stage.ops, "other", None).await.unwrap();
    let made =
        invitations::create(&users.operator(), &users.stage.ops, &elsewhere.id, "ANNA@example.com", Role::Owner).await;
    let token = made.unwrap().secret;
    users.by_password("anna@example.com", FINE).await.unwrap();
    let berta = users.member("berta@example.com", Role::Member, FINE).await;
    let error = users.accounts.accept_invitation(&users.as_user(&berta.user.id), &token).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden, "bound to the email");
    assert_eq!(users.accounts.accept_invitation(&users.cx(), &token).await.unwrap_err().code, Code::Forbidden);
    let cx = users.as_user(&anna.user.id);
    let (a, b) =
        tokio::join!(users.accounts.accept_invitation(&cx, &token), users.accounts.accept_invitation(&cx, &token));
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    let member = users::resolve(&users.operator(), &users.stage.ops, &elsewhere.id, "anna@example.com").await.unwrap();
    assert_eq!(member.role, Role::Owner);
}

/// A reader of a link that was shown can create an account for the organisation that showed it, whether or not the
/// email has a verified account; the link does not reveal it. Its effects end when the owner of the email signs in.
async fn a_shown_link_does_not_reveal_whether_an_account_exists(users: Users) {
    let anna = users.member("anna@example.com", Role::Member, FINE).await;
    let other = organizations::create(&users.operator(), &users.stage.ops, "other", None).await.unwrap().id;
    let mut sessions = Vec::new();
    for email in ["anna@example.com", "nobody@example.com"] {
        let made = invitations::create(&users.operator(), &users.stage.ops, &other, email, Role::Owner).await.unwrap();
        let (accepted, statements) = count_statements(async {
            users.accounts.accept_and_sign_up(&users.cx(), &made.secret, BERTA, DEVICE).await.unwrap().0
        })
        .await;
        assert_eq!((&accepted.user.verified_at, accepted.revoked), (&None, false));
        assert_eq!(users.reach(&accepted.token).await.unwrap(), ["other"]);
        sessions.push((accepted, statements));
    }
    assert_eq!(sessions[0].1, sessions[1].1, "both cost the same");
    assert_ne!(sessions[0].0.user.id, anna.user.id);
    assert!(users.is_open(&anna).await);
    users.by_password("anna@example.com", FINE).await.unwrap();
    let again = users.by_code("anna@example.com").await;
    assert_eq!(again.user.id, anna.user.id);
    assert!(!users.is_open(&sessions[0].0).await, "the owner of the email has signed in");
    assert_rejected(users.by_password("anna@example.com", OTHER).await, "password", "is wrong");
    // The reader of the email is asked to sign in, because no one else can have the link.
    let (operator, third) = (users.operator(), third(&users).await);
    let made = invitations::create(&operator, &users.stage.ops, &third, "anna@example.com", Role::Owner).await.unwrap();
    invitations::mark_emailed(&users.operator(), &users.stage.ops, &made).await.unwrap();
    let error = users.accounts.accept_and_sign_up(&users.cx(), &made.secret, BERTA, DEVICE).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict, "an invitation cannot change a password");
}

async fn third(users: &Users) -> OrganizationId {
    organizations::create(&users.operator(), &users.stage.ops, "third", None).await.unwrap().id
}

async fn an_invitation_expires_or_is_revoked(users: Users) {
    let token = invite(&users, "berta@example.com", Role::Member).await;
    users.clock.advance(48 * 60 * MINUTE - 1);
    users.accounts.get_invitation(&users.cx(), &token).await.unwrap();
    users.clock.advance(1);
    assert_not_found(&users, &token).await;
    let token = invite(&users, "berta@example.com", Role::Member).await;
    users.clock.advance(1);
    let newer = invite(&users, "berta@example.com", Role::Member).await;
    assert_not_found(&users, &token).await;
    let all = invitations::list(&users.operator(), &users.stage.ops, &users.org, None, 10).await.unwrap();
    invitations::revoke(&users.operator(), &users.stage.ops, &users.org, &all[0].invitation.id).await.unwrap();
    assert_not_found(&users, &newer).await;
    assert_eq!(users.count_events("invitation.accept").await, 0);
}

async fn an_existing_member_keeps_their_role(users: Users) {
    let token = invite(&users, "berta@example.com", Role::Member).await;
    users.create_member("berta@example.com", Role::Admin).await;
    users.accounts.accept_and_sign_up(&users.cx(), &token, BERTA, DEVICE).await.unwrap();
    let member = users::resolve(&users.operator(), &users.stage.ops, &users.org, "berta@example.com").await.unwrap();
    assert_eq!(member.role, Role::Admin);
}

async fn closed_sign_up_rejects_invitations(users: Users) {
    let users = users.with(SignUpPolicy::Closed);
    let token = invite(&users, "berta@example.com", Role::Member).await;
    let error = users.accounts.accept_and_sign_up(&users.cx(), &token, BERTA, DEVICE).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    // The invitation was not consumed.
    let users = users.with(SignUpPolicy::Invite);
    users.accounts.accept_and_sign_up(&users.cx(), &token, BERTA, DEVICE).await.unwrap();
}

waypost_testkit::both!(
    open => a_visitor_accepts_once, a_shown_link_does_not_reveal_whether_an_account_exists, a_user_signs_in_and_accepts, an_invitation_expires_or_is_revoked,
    an_existing_member_keeps_their_role, closed_sign_up_rejects_invitations
);
