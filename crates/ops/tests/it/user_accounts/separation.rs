//! Tests that unverified accounts are valid for one organisation, and that the first verification of an email revokes
//! what they created.

use waypost_core::account::CodePurpose;
use waypost_core::caller::Caller;
use waypost_core::id::OrganizationId;
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_core::{Code, Error};
use waypost_ops::api_keys::{self, CreateApiKey};
use waypost_ops::invitations::{self, InvitationWithSecret};
use waypost_ops::user_accounts::{
    AccountDetails, NewUserSession, ProviderIdentity, create_account_link, leave_organization, set_up_token,
};
use waypost_ops::{organizations, users};

use super::{DEVICE, FINE, OTHER, Users, open};

const VICTIM: &str = "victim@big.example";
const MALLORY: AccountDetails<'_> = AccountDetails { name: "Mallory", password: FINE };
const VERA: AccountDetails<'_> = AccountDetails { name: "Vera", password: OTHER };

async fn organization(users: &Users, slug: &str) -> OrganizationId {
    organizations::create(&users.operator(), &users.stage.ops, slug, None).await.unwrap().id
}

async fn invite(users: &Users, organization: &OrganizationId, role: Role) -> InvitationWithSecret {
    invitations::create(&users.operator(), &users.stage.ops, organization, VICTIM, role).await.unwrap()
}

async fn emailed(users: &Users, organization: &OrganizationId, role: Role) -> String {
    let invited = invite(users, organization, role).await;
    invitations::mark_emailed(&users.operator(), &users.stage.ops, &invited).await.unwrap();
    invited.secret
}

async fn accept(
    users: &Users,
    token: &str,
    account_details: AccountDetails<'_>,
) -> waypost_core::Result<NewUserSession> {
    users.accounts.accept_and_sign_up(&users.cx(), token, account_details, DEVICE).await.map(|(session, _)| session)
}

fn code(error: waypost_core::Result<NewUserSession>) -> Code {
    error.map_err(|error: Error| error.code).unwrap_err()
}

async fn a_shown_link_is_valid_for_one_organisation(users: Users) {
    let (evil, big) = (organization(&users, "evil").await, organization(&users, "big").await);
    let shown = invite(&users, &evil, Role::Owner).await;
    let session = accept(&users, &shown.secret, MALLORY).await.unwrap();
    assert_eq!((session.user.verified_at, session.user.organization_id.as_ref()), (None, Some(&evil)));
    assert_eq!(users.reach(&session.token).await.unwrap(), ["evil"]);
    // It can neither join nor create another organisation, nor be used for one.
    let cx = users.as_user(&session.user.id);
    let at_big = invite(&users, &big, Role::Owner).await;
    let refused = users.accounts.accept_invitation(&cx, &at_big.secret).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    let refused = organizations::create(&cx, &users.stage.ops, "mine", None).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
    // The invitation of another organisation creates another account.
    let other = accept(&users, &at_big.secret, VERA).await.unwrap();
    assert_ne!(other.user.id, session.user.id);
    assert_eq!(users.reach(&other.token).await.unwrap(), ["big"]);
    assert_eq!(users.reach(&session.token).await.unwrap(), ["evil"]);
    let by_password = users.by_password(VICTIM, FINE).await.unwrap();
    assert_eq!(users.reach(&by_password.token).await.unwrap(), ["evil"]);
    let by_password = users.by_password(VICTIM, OTHER).await.unwrap();
    assert_eq!(users.reach(&by_password.token).await.unwrap(), ["big"]);
    // An unverified account is deleted with its organisation.
    organizations::delete(&users.operator(), &users.stage.ops, &evil).await.unwrap();
    assert_eq!(users.reach(&session.token).await, None);
    assert_eq!(code(users.by_password(VICTIM, FINE).await), Code::InvalidArguments);
}

async fn a_password_of_several_accounts_selects_the_requested_organisation(users: Users) {
    for slug in ["big", "evil"] {
        let id = organization(&users, slug).await;
        let shown = invite(&users, &id, Role::Member).await;
        accept(&users, &shown.secret, VERA).await.unwrap();
    }
    for (wanted, reached) in [("big", "big"), ("evil", "evil"), ("", "big"), ("nowhere", "big")] {
        let session = users.by_password_to(VICTIM, OTHER, wanted).await.unwrap();
        assert_eq!(users.reach(&session.token).await.unwrap(), [reached], "{wanted}");
    }
    let salts = "SELECT substr(password_hash, 1, 52) FROM users WHERE email = 'victim@big.example'";
    let mut conn = users.stage.ops.db().read().await.unwrap();
    let salts: Vec<String> = waypost_store::on!(&mut conn, c => sqlx::query_scalar(salts).fetch_all(c).await.unwrap());
    assert_eq!((salts.len(), &salts[0]), (2, &salts[1]), "one salt, so that both cost as much as one");
}

/// What the reader of a shown link of `evil` has: a session, a key, and a key that was created with it.
struct Prepared {
    session: NewUserSession,
    keys: Vec<String>,
    invitation: String,
}

async fn prepare(users: &Users, evil: &OrganizationId) -> Prepared {
    let shown = invite(users, evil, Role::Owner).await;
    let session = accept(users, &shown.secret, MALLORY).await.unwrap();
    let member = |actor: String| users.by(Caller::Member { organization_id: evil.clone(), role: Role::Owner, actor });
    let ops = &users.stage.ops;
    let new = |name, scope| CreateApiKey { name, scope, expires_at: None };
    let (first, one) =
        api_keys::create(&member(session.user.id.to_string()), ops, evil, new("one", Role::Owner)).await.unwrap();
    let (_, two) = api_keys::create(&member(first.id.to_string()), ops, evil, new("two", Role::Admin)).await.unwrap();
    let cx = member(first.id.to_string());
    let invited = invitations::create(&cx, ops, evil, "friend@evil.example", Role::Owner).await.unwrap();
    Prepared { session, keys: vec![one, two], invitation: invited.secret }
}

async fn assert_everything_is_revoked(users: &Users, prepared: &Prepared) {
    assert_eq!(users.reach(&prepared.session.token).await, None, "the session has ended");
    assert_eq!(code(users.by_password(VICTIM, FINE).await), Code::InvalidArguments, "the password is removed");
    for key in &prepared.keys {
        assert_eq!(api_keys::authenticate(&users.cx(), &users.stage.ops, key).await.unwrap(), None);
    }
    let found = users.accounts.get_invitation(&users.cx(), &prepared.invitation).await;
    assert_eq!(found.unwrap_err().code, Code::NotFound, "the invitation is revoked");
}

async fn a_code_by_email_revokes_earlier_accounts(users: Users) {
    let evil = organization(&users, "evil").await;
    let prepared = prepare(&users, &evil).await;
    let vera = users.by_code(VICTIM).await;
    assert!(vera.revoked && vera.user.verified_at.is_some());
    assert_everything_is_revoked(&users, &prepared).await;
    assert_eq!((vera.user.name.as_deref(), users.reach(&vera.token).await.unwrap()), (None, vec!["evil".to_owned()]));
    // Only once: what the owner of the email creates afterwards remains.
    let again = users.by_code(VICTIM).await;
    assert!(!again.revoked);
    assert!(users.is_open(&vera).await);
    let big = organization(&users, "big").await;
    let token = emailed(&users, &big, Role::Owner).await;
    assert_eq!(code(accept(&users, &token, MALLORY).await), Code::Conflict, "the account must sign in");
    users.accounts.accept_invitation(&users.as_user(&vera.user.id), &token).await.unwrap();
    assert_eq!(users.reach(&vera.token).await.unwrap(), ["big", "evil"]);
    assert_eq!(users.reach(&prepared.session.token).await, None);
}

async fn an_emailed_invitation_revokes_earlier_accounts(users: Users) {
    let (evil, big) = (organization(&users, "evil").await, organization(&users, "big").await);
    let prepared = prepare(&users, &evil).await;
    let token = emailed(&users, &big, Role::Admin).await;
    let vera = accept(&users, &token, VERA).await.unwrap();
    assert!(vera.revoked && vera.user.verified_at.is_some());
    assert_everything_is_revoked(&users, &prepared).await;
    assert_eq!(users.reach(&vera.token).await.unwrap(), ["big", "evil"]);
    assert_eq!(vera.user.name.as_deref(), Some("Vera"));
    users.by_password(VICTIM, OTHER).await.unwrap();
    // A new link that is shown no longer verifies the email.
    let small = organization(&users, "small").await;
    let invited = invite(&users, &small, Role::Member).await;
    invitations::mark_emailed(&users.operator(), &users.stage.ops, &invited).await.unwrap();
    let resent =
        invitations::resend(&users.operator(), &users.stage.ops, &small, &invited.invitation.id).await.unwrap();
    assert!(!users.accounts.get_invitation(&users.cx(), &resent.secret).await.unwrap().invitation.emailed);
    let stale = invitations::mark_emailed(&users.operator(), &users.stage.ops, &invited).await.unwrap_err();
    assert_eq!(stale.code, Code::Conflict);
    let member = users.stage.member(&small, Role::Member);
    assert_eq!(invitations::mark_emailed(&member, &users.stage.ops, &resent).await.unwrap_err().code, Code::Forbidden);
}

async fn a_provider_revokes_earlier_accounts(users: Users) {
    let evil = organization(&users, "evil").await;
    let prepared = prepare(&users, &evil).await;
    let identity = ProviderIdentity {
        issuer: "https://id.example".to_owned(),
        subject: "1".to_owned(),
        email: Some("Victim@big.example".to_owned()),
        name: Some("Vera".to_owned()),
    };
    let unproven = ProviderIdentity { email: None, ..identity.clone() };
    assert_eq!(code(users.accounts.sign_in_with_provider(&users.cx(), &unproven, DEVICE).await), Code::Forbidden);
    assert!(users.is_open(&prepared.session).await);
    let vera = users.accounts.sign_in_with_provider(&users.cx(), &identity, DEVICE).await.unwrap();
    assert!(vera.revoked);
    assert_everything_is_revoked(&users, &prepared).await;
    assert_eq!(vera.user.name.as_deref(), Some("Vera"));
    let again = users.accounts.sign_in_with_provider(&users.cx(), &unproven, DEVICE).await.unwrap();
    assert_eq!((again.user.id, again.revoked), (vera.user.id, false));
}

async fn several_unverified_accounts_become_one(users: Users) {
    let (evil, big) = (organization(&users, "evil").await, organization(&users, "big").await);
    let prepared = prepare(&users, &evil).await;
    let at_big = invite(&users, &big, Role::Admin).await;
    let own = accept(&users, &at_big.secret, VERA).await.unwrap();
    let users = users.with(SignUpPolicy::Open);
    let made = users.ask(VICTIM, CodePurpose::SignUp, Some(OTHER)).await.unwrap();
    let vera = users.enter(made.id.as_str(), &made.code).await.unwrap();
    assert_everything_is_revoked(&users, &prepared).await;
    assert_eq!(users.reach(&own.token).await, None, "its creator is unknown");
    assert_eq!(users.reach(&vera.token).await.unwrap(), ["big", "evil"]);
    users.by_password(VICTIM, OTHER).await.unwrap();
    let role = users::resolve(&users.operator(), &users.stage.ops, &big, VICTIM).await.unwrap().role;
    assert_eq!(role, Role::Admin);
    let mut conn = users.stage.ops.db().read().await.unwrap();
    assert_eq!(waypost_store::system::list_accounts(&mut conn, VICTIM).await.unwrap().len(), 1);
}

async fn an_account_link_verifies_nothing(users: Users) {
    let (evil, big) = (organization(&users, "evil").await, organization(&users, "big").await);
    let (ops, operator) = (&users.stage.ops, users.operator());
    let member = users::create(&operator, ops, &evil, VICTIM, Role::Owner).await.unwrap();
    let link = create_account_link(&operator, ops, &evil, &member.user_id).await.unwrap();
    let kept = create_account_link(&operator, ops, &evil, &member.user_id).await.unwrap();
    let gone = users.accounts.use_account_link(&users.cx(), &link.token, MALLORY, DEVICE).await;
    assert_eq!(code(gone), Code::NotFound, "replaced");
    let session = users.accounts.use_account_link(&users.cx(), &kept.token, MALLORY, DEVICE).await.unwrap();
    assert_eq!(session.user.verified_at, None);
    users::create(&operator, ops, &big, VICTIM, Role::Owner).await.unwrap();
    assert_eq!(users.reach(&session.token).await.unwrap(), ["evil"]);
    // A link that is pending when the owner of the email signs in is revoked, because it could set the owner's
    // password.
    let open = create_account_link(&operator, ops, &evil, &member.user_id).await.unwrap();
    let vera = users.by_code(VICTIM).await;
    assert_eq!(users.reach(&vera.token).await.unwrap(), ["big", "evil"]);
    assert_eq!(users.reach(&session.token).await, None);
    assert_eq!(code(users.accounts.use_account_link(&users.cx(), &open.token, MALLORY, DEVICE).await), Code::NotFound);
}

async fn an_unverified_account_without_an_organisation_is_deleted(users: Users) {
    let evil = organization(&users, "evil").await;
    users::create(&users.operator(), &users.stage.ops, &evil, "owner@evil.example", Role::Owner).await.unwrap();
    let shown = invite(&users, &evil, Role::Member).await;
    let session = accept(&users, &shown.secret, MALLORY).await.unwrap();
    leave_organization(&users.as_user(&session.user.id), &users.stage.ops, &evil).await.unwrap();
    assert_eq!(users.reach(&session.token).await, None);
    // Another invitation creates another account.
    let shown = invite(&users, &evil, Role::Member).await;
    let again = accept(&users, &shown.secret, VERA).await.unwrap();
    assert_ne!(again.user.id, session.user.id);
}

async fn an_installation_is_set_up_only_once(users: Users) {
    let key = waypost_core::secret::SecretKey::new([7; 32]);
    assert!(set_up_token(&users.stage.ops, &key).await.unwrap().is_some());
    let shown = invite(&users, &users.org, Role::Member).await;
    accept(&users, &shown.secret, MALLORY).await.unwrap();
    assert!(set_up_token(&users.stage.ops, &key).await.unwrap().is_none(), "an unverified user has signed in");
}

waypost_testkit::both!(
    open => a_shown_link_is_valid_for_one_organisation,
    a_password_of_several_accounts_selects_the_requested_organisation, a_code_by_email_revokes_earlier_accounts,
    an_emailed_invitation_revokes_earlier_accounts, a_provider_revokes_earlier_accounts,
    several_unverified_accounts_become_one, an_account_link_verifies_nothing,
    an_unverified_account_without_an_organisation_is_deleted, an_installation_is_set_up_only_once
);
