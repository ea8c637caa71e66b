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

use super::{DEVICE, OTHER_PASSWORD, PASSWORD, UserTest, set_up};

const VICTIM: &str = "victim@big.example";
const MALLORY: AccountDetails<'_> = AccountDetails { name: "Mallory", password: PASSWORD };
const VERA: AccountDetails<'_> = AccountDetails { name: "Vera", password: OTHER_PASSWORD };

async fn create_organization(test: &UserTest, slug: &str) -> OrganizationId {
    organizations::create(&test.operator_context(), &test.fixture.ops, slug, None).await.unwrap().id
}

async fn invite(test: &UserTest, organization: &OrganizationId, role: Role) -> InvitationWithSecret {
    invitations::create(&test.operator_context(), &test.fixture.ops, organization, VICTIM, role).await.unwrap()
}

async fn invite_by_email(test: &UserTest, organization: &OrganizationId, role: Role) -> String {
    let invited = invite(test, organization, role).await;
    invitations::mark_emailed(&test.operator_context(), &test.fixture.ops, &invited).await.unwrap();
    invited.secret
}

async fn accept(
    test: &UserTest,
    token: &str,
    account_details: AccountDetails<'_>,
) -> waypost_core::Result<NewUserSession> {
    test.accounts
        .accept_and_sign_up(&test.visitor_context(), token, account_details, DEVICE)
        .await
        .map(|(session, _)| session)
}

fn code(result: waypost_core::Result<NewUserSession>) -> Code {
    result.map_err(|error: Error| error.code).unwrap_err()
}

async fn a_shown_link_is_valid_for_one_organisation(test: UserTest) {
    let (evil, big) = (create_organization(&test, "evil").await, create_organization(&test, "big").await);
    let shown = invite(&test, &evil, Role::Owner).await;
    let session = accept(&test, &shown.secret, MALLORY).await.unwrap();
    assert_eq!((session.user.verified_at, session.user.organization_id.as_ref()), (None, Some(&evil)));
    assert_eq!(test.list_accessible_slugs(&session.token).await.unwrap(), ["evil"]);
    // The account can neither join nor create another organisation.
    let cx = test.user_context(&session.user.id);
    let at_big = invite(&test, &big, Role::Owner).await;
    let error = test.accounts.accept_invitation(&cx, &at_big.secret).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    let error = organizations::create(&cx, &test.fixture.ops, "new", None).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    // The invitation of another organisation creates another account.
    let other = accept(&test, &at_big.secret, VERA).await.unwrap();
    assert_ne!(other.user.id, session.user.id);
    assert_eq!(test.list_accessible_slugs(&other.token).await.unwrap(), ["big"]);
    assert_eq!(test.list_accessible_slugs(&session.token).await.unwrap(), ["evil"]);
    let by_password = test.sign_in_with_password(VICTIM, PASSWORD).await.unwrap();
    assert_eq!(test.list_accessible_slugs(&by_password.token).await.unwrap(), ["evil"]);
    let by_password = test.sign_in_with_password(VICTIM, OTHER_PASSWORD).await.unwrap();
    assert_eq!(test.list_accessible_slugs(&by_password.token).await.unwrap(), ["big"]);
    // An unverified account is deleted with its organisation.
    organizations::delete(&test.operator_context(), &test.fixture.ops, &evil).await.unwrap();
    assert_eq!(test.list_accessible_slugs(&session.token).await, None);
    assert_eq!(code(test.sign_in_with_password(VICTIM, PASSWORD).await), Code::InvalidArguments);
}

async fn a_password_of_several_accounts_selects_the_requested_organisation(test: UserTest) {
    for slug in ["big", "evil"] {
        let id = create_organization(&test, slug).await;
        let shown = invite(&test, &id, Role::Member).await;
        accept(&test, &shown.secret, VERA).await.unwrap();
    }
    for (requested, expected) in [("big", "big"), ("evil", "evil"), ("", "big"), ("nowhere", "big")] {
        let session = test.sign_in_to_organization(VICTIM, OTHER_PASSWORD, requested).await.unwrap();
        assert_eq!(test.list_accessible_slugs(&session.token).await.unwrap(), [expected], "{requested}");
    }
    let salts = "SELECT substr(password_hash, 1, 52) FROM users WHERE email = 'victim@big.example'";
    let mut conn = test.fixture.ops.store().read().await.unwrap();
    let salts: Vec<String> = waypost_store::on!(&mut conn, c => sqlx::query_scalar(salts).fetch_all(c).await.unwrap());
    assert_eq!((salts.len(), &salts[0]), (2, &salts[1]), "one salt, so that both are checked at the cost of one");
}

/// Objects that an attacker has created with a link that `evil` showed: a session, a key, a key that was created with
/// that key, and an invitation.
struct PreparedAttack {
    session: NewUserSession,
    keys: Vec<String>,
    invitation: String,
}

async fn prepare(test: &UserTest, evil: &OrganizationId) -> PreparedAttack {
    let shown = invite(test, evil, Role::Owner).await;
    let session = accept(test, &shown.secret, MALLORY).await.unwrap();
    let member =
        |actor: String| test.context(Caller::Member { organization_id: evil.clone(), role: Role::Owner, actor });
    let ops = &test.fixture.ops;
    let new = |name, scope| CreateApiKey { name, scope, expires_at: None };
    let (first, one) =
        api_keys::create(&member(session.user.id.to_string()), ops, evil, new("one", Role::Owner)).await.unwrap();
    let (_, two) = api_keys::create(&member(first.id.to_string()), ops, evil, new("two", Role::Admin)).await.unwrap();
    let cx = member(first.id.to_string());
    let invited = invitations::create(&cx, ops, evil, "friend@evil.example", Role::Owner).await.unwrap();
    PreparedAttack { session, keys: vec![one, two], invitation: invited.secret }
}

async fn assert_everything_is_revoked(test: &UserTest, prepared: &PreparedAttack) {
    assert_eq!(test.list_accessible_slugs(&prepared.session.token).await, None, "the session has ended");
    assert_eq!(
        code(test.sign_in_with_password(VICTIM, PASSWORD).await),
        Code::InvalidArguments,
        "the password is removed"
    );
    for key in &prepared.keys {
        assert_eq!(api_keys::authenticate(&test.visitor_context(), &test.fixture.ops, key).await.unwrap(), None);
    }
    let found = test.accounts.get_invitation(&test.visitor_context(), &prepared.invitation).await;
    assert_eq!(found.unwrap_err().code, Code::NotFound, "the invitation is revoked");
}

async fn a_code_by_email_revokes_earlier_accounts(test: UserTest) {
    let evil = create_organization(&test, "evil").await;
    let prepared = prepare(&test, &evil).await;
    let vera = test.sign_in_with_code(VICTIM).await;
    assert!(vera.revoked && vera.user.verified_at.is_some());
    assert_everything_is_revoked(&test, &prepared).await;
    assert_eq!(
        (vera.user.name.as_deref(), test.list_accessible_slugs(&vera.token).await.unwrap()),
        (None, vec!["evil".to_owned()])
    );
    // Only once: what the owner of the email creates afterwards remains.
    let again = test.sign_in_with_code(VICTIM).await;
    assert!(!again.revoked);
    assert!(test.is_active(&vera).await);
    let big = create_organization(&test, "big").await;
    let token = invite_by_email(&test, &big, Role::Owner).await;
    assert_eq!(code(accept(&test, &token, MALLORY).await), Code::Conflict, "the owner of the account must sign in");
    test.accounts.accept_invitation(&test.user_context(&vera.user.id), &token).await.unwrap();
    assert_eq!(test.list_accessible_slugs(&vera.token).await.unwrap(), ["big", "evil"]);
    assert_eq!(test.list_accessible_slugs(&prepared.session.token).await, None);
}

async fn an_emailed_invitation_revokes_earlier_accounts(test: UserTest) {
    let (evil, big) = (create_organization(&test, "evil").await, create_organization(&test, "big").await);
    let prepared = prepare(&test, &evil).await;
    let token = invite_by_email(&test, &big, Role::Admin).await;
    let vera = accept(&test, &token, VERA).await.unwrap();
    assert!(vera.revoked && vera.user.verified_at.is_some());
    assert_everything_is_revoked(&test, &prepared).await;
    assert_eq!(test.list_accessible_slugs(&vera.token).await.unwrap(), ["big", "evil"]);
    assert_eq!(vera.user.name.as_deref(), Some("Vera"));
    test.sign_in_with_password(VICTIM, OTHER_PASSWORD).await.unwrap();
    // A new link that is shown no longer verifies the email.
    let small = create_organization(&test, "small").await;
    let invited = invite(&test, &small, Role::Member).await;
    invitations::mark_emailed(&test.operator_context(), &test.fixture.ops, &invited).await.unwrap();
    let resent =
        invitations::resend(&test.operator_context(), &test.fixture.ops, &small, &invited.invitation.id).await.unwrap();
    assert!(!test.accounts.get_invitation(&test.visitor_context(), &resent.secret).await.unwrap().invitation.emailed);
    let stale = invitations::mark_emailed(&test.operator_context(), &test.fixture.ops, &invited).await.unwrap_err();
    assert_eq!(stale.code, Code::Conflict);
    let member = test.fixture.member_context(&small, Role::Member);
    assert_eq!(invitations::mark_emailed(&member, &test.fixture.ops, &resent).await.unwrap_err().code, Code::Forbidden);
}

async fn a_provider_revokes_earlier_accounts(test: UserTest) {
    let evil = create_organization(&test, "evil").await;
    let prepared = prepare(&test, &evil).await;
    let identity = ProviderIdentity {
        issuer: "https://id.example".to_owned(),
        subject: "1".to_owned(),
        email: Some("Victim@big.example".to_owned()),
        name: Some("Vera".to_owned()),
    };
    let unproven = ProviderIdentity { email: None, ..identity.clone() };
    assert_eq!(
        code(test.accounts.sign_in_with_provider(&test.visitor_context(), &unproven, DEVICE).await),
        Code::Forbidden
    );
    assert!(test.is_active(&prepared.session).await);
    let vera = test.accounts.sign_in_with_provider(&test.visitor_context(), &identity, DEVICE).await.unwrap();
    assert!(vera.revoked);
    assert_everything_is_revoked(&test, &prepared).await;
    assert_eq!(vera.user.name.as_deref(), Some("Vera"));
    let again = test.accounts.sign_in_with_provider(&test.visitor_context(), &unproven, DEVICE).await.unwrap();
    assert_eq!((again.user.id, again.revoked), (vera.user.id, false));
}

async fn several_unverified_accounts_become_one(test: UserTest) {
    let (evil, big) = (create_organization(&test, "evil").await, create_organization(&test, "big").await);
    let prepared = prepare(&test, &evil).await;
    let at_big = invite(&test, &big, Role::Admin).await;
    let own = accept(&test, &at_big.secret, VERA).await.unwrap();
    let test = test.with_policy(SignUpPolicy::Open);
    let issued = test.request_code(VICTIM, CodePurpose::SignUp, Some(OTHER_PASSWORD)).await.unwrap();
    let vera = test.enter_code(issued.id.as_str(), &issued.code).await.unwrap();
    assert_everything_is_revoked(&test, &prepared).await;
    assert_eq!(test.list_accessible_slugs(&own.token).await, None, "the creator of the account is unknown");
    assert_eq!(test.list_accessible_slugs(&vera.token).await.unwrap(), ["big", "evil"]);
    test.sign_in_with_password(VICTIM, OTHER_PASSWORD).await.unwrap();
    let role = users::resolve(&test.operator_context(), &test.fixture.ops, &big, VICTIM).await.unwrap().role;
    assert_eq!(role, Role::Admin);
    let mut conn = test.fixture.ops.store().read().await.unwrap();
    assert_eq!(waypost_store::system::list_accounts(&mut conn, VICTIM).await.unwrap().len(), 1);
}

async fn an_account_link_verifies_nothing(test: UserTest) {
    let (evil, big) = (create_organization(&test, "evil").await, create_organization(&test, "big").await);
    let (ops, operator) = (&test.fixture.ops, test.operator_context());
    let member = users::create(&operator, ops, &evil, VICTIM, Role::Owner).await.unwrap();
    let link = create_account_link(&operator, ops, &evil, &member.user_id).await.unwrap();
    let kept = create_account_link(&operator, ops, &evil, &member.user_id).await.unwrap();
    let replaced = test.accounts.use_account_link(&test.visitor_context(), &link.token, MALLORY, DEVICE).await;
    assert_eq!(code(replaced), Code::NotFound);
    let session = test.accounts.use_account_link(&test.visitor_context(), &kept.token, MALLORY, DEVICE).await.unwrap();
    assert_eq!(session.user.verified_at, None);
    users::create(&operator, ops, &big, VICTIM, Role::Owner).await.unwrap();
    assert_eq!(test.list_accessible_slugs(&session.token).await.unwrap(), ["evil"]);
    // A link that is pending when the owner of the email signs in is revoked, because it could set the owner's
    // password.
    let open = create_account_link(&operator, ops, &evil, &member.user_id).await.unwrap();
    let vera = test.sign_in_with_code(VICTIM).await;
    assert_eq!(test.list_accessible_slugs(&vera.token).await.unwrap(), ["big", "evil"]);
    assert_eq!(test.list_accessible_slugs(&session.token).await, None);
    assert_eq!(
        code(test.accounts.use_account_link(&test.visitor_context(), &open.token, MALLORY, DEVICE).await),
        Code::NotFound
    );
}

async fn an_unverified_account_without_an_organisation_is_deleted(test: UserTest) {
    let evil = create_organization(&test, "evil").await;
    users::create(&test.operator_context(), &test.fixture.ops, &evil, "owner@evil.example", Role::Owner).await.unwrap();
    let shown = invite(&test, &evil, Role::Member).await;
    let session = accept(&test, &shown.secret, MALLORY).await.unwrap();
    leave_organization(&test.user_context(&session.user.id), &test.fixture.ops, &evil).await.unwrap();
    assert_eq!(test.list_accessible_slugs(&session.token).await, None);
    // Another invitation creates another account.
    let shown = invite(&test, &evil, Role::Member).await;
    let again = accept(&test, &shown.secret, VERA).await.unwrap();
    assert_ne!(again.user.id, session.user.id);
}

async fn an_installation_is_set_up_only_once(test: UserTest) {
    let key = waypost_core::secret::SecretKey::new([7; 32]);
    assert!(set_up_token(&test.fixture.ops, &key).await.unwrap().is_some());
    let shown = invite(&test, &test.org, Role::Member).await;
    accept(&test, &shown.secret, MALLORY).await.unwrap();
    assert!(set_up_token(&test.fixture.ops, &key).await.unwrap().is_none(), "an unverified user has signed in");
}

waypost_testkit::both!(set_up => an_installation_is_set_up_only_once);
waypost_testkit::both!(extended set_up =>
    a_shown_link_is_valid_for_one_organisation,
    a_password_of_several_accounts_selects_the_requested_organisation,
    a_code_by_email_revokes_earlier_accounts,
    an_emailed_invitation_revokes_earlier_accounts,
    a_provider_revokes_earlier_accounts,
    several_unverified_accounts_become_one,
    an_account_link_verifies_nothing,
    an_unverified_account_without_an_organisation_is_deleted,
);
