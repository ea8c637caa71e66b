//! Accepting invitations.

use waypost_core::Code;
use waypost_core::id::OrganizationId;
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_ops::user_accounts::AccountDetails;
use waypost_ops::{invitations, organizations, users};
use waypost_store::db::count_statements;

use super::{DEVICE, FINE, MINUTE, OTHER, Users, open, refused};

const BERTA: AccountDetails<'_> = AccountDetails { name: "Berta", password: OTHER };

async fn invite(users: &Users, email: &str, role: Role) -> String {
    invitations::create(&users.operator(), &users.stage.ops, &users.org, email, role).await.unwrap().secret
}

async fn gone(users: &Users, token: &str) {
    let error = users.accounts.get_invitation(&users.cx(), token).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    let error = users.accounts.accept_and_sign_up(&users.cx(), token, BERTA, DEVICE).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
}

async fn a_newcomer_accepts_once(users: Users) {
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
    gone(&users, "").await;
    let weak = AccountDetails { password: "short", ..BERTA };
    refused(users.accounts.accept_and_sign_up(&users.cx(), token, weak, DEVICE).await, "password", "at least");
    let cx = users.cx();
    let (a, b) = tokio::join!(
        users.accounts.accept_and_sign_up(&cx, token, BERTA, DEVICE),
        users.accounts.accept_and_sign_up(&cx, token, BERTA, DEVICE)
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    let (session, organization) = a.or(b).unwrap();
    assert_eq!(organization.id, users.org);
    assert!(users.is_open(&session).await);
    let member = users::find(&users.operator(), &users.stage.ops, &users.org, "berta@example.com").await.unwrap();
    assert_eq!((member.role, &member.user_id), (Role::Admin, &session.user.id));
    gone(&users, token).await;
    assert_eq!(users.told("invitation.accept").await, 1);
    users.by_password("berta@example.com", OTHER).await.unwrap();
}

async fn who_has_an_account_signs_in_and_accepts(users: Users) {
    let anna = users.member("anna@example.com", Role::Member, FINE).await;
    let elsewhere =
        waypost_ops::organizations::create(&users.operator(), &users.stage.ops, "other", None).await.unwrap();
    let made =
        invitations::create(&users.operator(), &users.stage.ops, &elsewhere.id, "ANNA@example.com", Role::Owner).await;
    let token = made.unwrap().secret;
    users.by_password("anna@example.com", FINE).await.unwrap();
    let berta = users.member("berta@example.com", Role::Member, FINE).await;
    let error = users.accounts.accept_invitation(&users.as_user(&berta.user.id), &token).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden, "bound to the address");
    assert_eq!(users.accounts.accept_invitation(&users.cx(), &token).await.unwrap_err().code, Code::Forbidden);
    let cx = users.as_user(&anna.user.id);
    let (a, b) =
        tokio::join!(users.accounts.accept_invitation(&cx, &token), users.accounts.accept_invitation(&cx, &token));
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1, "{a:?} {b:?}");
    let member = users::find(&users.operator(), &users.stage.ops, &elsewhere.id, "anna@example.com").await.unwrap();
    assert_eq!(member.role, Role::Owner);
}

/// Whoever has a link that was shown can create an account for the organisation that showed it, whether the address has a
/// verified account or not; the link does not tell. What comes of it ends when the owner of the address signs in.
async fn a_shown_link_does_not_tell_whether_there_is_an_account(users: Users) {
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
    assert!(!users.is_open(&sessions[0].0).await, "the owner of the address has come");
    refused(users.by_password("anna@example.com", OTHER).await, "password", "is wrong");
    // Who reads the mail at the address is told to sign in: nobody else can have the link.
    let (operator, third) = (users.operator(), third(&users).await);
    let made = invitations::create(&operator, &users.stage.ops, &third, "anna@example.com", Role::Owner).await.unwrap();
    invitations::mark_emailed(&users.operator(), &users.stage.ops, &made).await.unwrap();
    let error = users.accounts.accept_and_sign_up(&users.cx(), &made.secret, BERTA, DEVICE).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict, "nobody sets another password by an invitation");
}

async fn third(users: &Users) -> OrganizationId {
    organizations::create(&users.operator(), &users.stage.ops, "third", None).await.unwrap().id
}

async fn an_invitation_ends(users: Users) {
    let token = invite(&users, "berta@example.com", Role::Member).await;
    users.clock.advance(48 * 60 * MINUTE - 1);
    users.accounts.get_invitation(&users.cx(), &token).await.unwrap();
    users.clock.advance(1);
    gone(&users, &token).await;
    let token = invite(&users, "berta@example.com", Role::Member).await;
    users.clock.advance(1);
    let newer = invite(&users, "berta@example.com", Role::Member).await;
    gone(&users, &token).await;
    let all = invitations::list(&users.operator(), &users.stage.ops, &users.org, None, 10).await.unwrap();
    invitations::revoke(&users.operator(), &users.stage.ops, &users.org, &all[0].invitation.id).await.unwrap();
    gone(&users, &newer).await;
    assert_eq!(users.told("invitation.accept").await, 0);
}

async fn who_became_a_member_meanwhile_keeps_their_role(users: Users) {
    let token = invite(&users, "berta@example.com", Role::Member).await;
    users.invited_by_hand("berta@example.com", Role::Admin).await;
    users.accounts.accept_and_sign_up(&users.cx(), &token, BERTA, DEVICE).await.unwrap();
    let member = users::find(&users.operator(), &users.stage.ops, &users.org, "berta@example.com").await.unwrap();
    assert_eq!(member.role, Role::Admin);
}

async fn closed_means_no_new_accounts(users: Users) {
    let users = users.with(SignUpPolicy::Closed);
    let token = invite(&users, "berta@example.com", Role::Member).await;
    let error = users.accounts.accept_and_sign_up(&users.cx(), &token, BERTA, DEVICE).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    // The invitation was not used up by that.
    let users = users.with(SignUpPolicy::Invite);
    users.accounts.accept_and_sign_up(&users.cx(), &token, BERTA, DEVICE).await.unwrap();
}

waypost_testkit::both!(
    open => a_newcomer_accepts_once, a_shown_link_does_not_tell_whether_there_is_an_account, who_has_an_account_signs_in_and_accepts, an_invitation_ends,
    who_became_a_member_meanwhile_keeps_their_role, closed_means_no_new_accounts
);
