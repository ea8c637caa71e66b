//! The rows of users, their accounts and API keys.

use waypost_core::id::UserSessionId;
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_core::secret::SecretKey;
use waypost_ops::public_url::PublicUrl;
use waypost_ops::user_sessions::Browser;
use waypost_ops::{api_keys, invitation_emails, invitations, organizations, user_accounts, user_sessions, users};

use super::super::Access;
use super::{ADDRESS, Call, Row, row};
use crate::fixture::plain_key;

pub(super) async fn own_account(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, new, .. } = call;
    let accounts = &user_accounts::UserAccounts::new(ops.clone(), SecretKey::new([7; 32]), SignUpPolicy::Open);
    let session = &UserSessionId::from_store("uss_0".into());
    let browser = Browser { user_agent: "", address: ADDRESS, device: "" };
    rows! {
        User organizations::check_slug(cx, ops, new);
        User organizations::suggest_slug(cx, ops, new);
        User user_sessions::list(cx, ops);
        User user_sessions::delete(cx, ops, session);
        User user_sessions::delete_others(cx, ops, None);
        User user_sessions::get_user(cx, ops);
        User user_sessions::list_memberships(cx, ops);
        User user_accounts::set_name(cx, ops, "Ann");
        User user_accounts::UserAccounts::has_password(accounts, cx);
        User user_accounts::UserAccounts::change_password(accounts, cx, "", "short", session, browser);
        User user_accounts::UserAccounts::accept_invitation(accounts, cx, "token");
        User user_accounts::leave_organization(cx, ops, &t.organization.id);
    }
}

pub(super) async fn members(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, new, .. } = call;
    let (org, user, key, invitation) = (&t.organization.id, &t.member.user_id, &t.key.id, &t.invitation);
    let email = |name: &str| format!("{new}-{name}@x.de");
    let rename = api_keys::ApiKeyPatch { name: Some(format!("{new}-renamed")), ..Default::default() };
    let public_url = PublicUrl::new("https://waypost.example".parse().unwrap());
    rows! {
        Admin users::create(cx, ops, org, &email("a"), Role::Member);
        Owner users::create(cx, ops, org, &email("b"), Role::Owner);
        Member users::list(cx, ops, org);
        Member users::resolve(cx, ops, org, &t.member.email);
        Owner users::update(cx, ops, org, user, Role::Owner);
        Admin users::update(cx, ops, org, user, Role::Admin);
        Admin api_keys::create(cx, ops, org, plain_key(new, Role::Admin));
        Owner api_keys::create(cx, ops, org, plain_key(&format!("{new}-owner"), Role::Owner));
        Admin api_keys::get(cx, ops, org, key);
        Admin api_keys::list(cx, ops, org);
        Admin api_keys::resolve(cx, ops, org, "first");
        Admin api_keys::update(cx, ops, org, key, &rename);
        Admin api_keys::delete(cx, ops, org, key);
        Admin invitations::create(cx, ops, org, &email("i"), Role::Member);
        Owner invitations::create(cx, ops, org, &email("j"), Role::Owner);
        Admin invitations::list(cx, ops, org, None, 10);
        Admin invitations::get(cx, ops, org, invitation);
        Admin invitations::mark_emailed(cx, ops, &t.invited);
        Admin invitation_emails::send(cx, ops, &t.invited, &public_url, None);
        Admin invitations::resend(cx, ops, org, invitation);
        Admin invitations::revoke(cx, ops, org, invitation);
    }
}
