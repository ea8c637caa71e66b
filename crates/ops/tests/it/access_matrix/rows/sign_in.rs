//! The rows of the operations with which end users sign in.

use waypost_core::account::CodePurpose;
use waypost_core::id::{IdentityId, OauthConfigId};
use waypost_core::oauth_config::{OauthConfig, ProviderKind, TokenAuthMethod};
use waypost_core::seal::SecretText;
use waypost_core::secret::SecretKey;
use waypost_core::{Error, Timestamp};
use waypost_ops::accounts::{CodeEntry, CodeRequest, PasswordSignIn, SignInClient};
use waypost_ops::identities::{Claims, EndUserIdentity};
use waypost_ops::identity_provider::LoginRequest;
use waypost_ops::login::{FinishedLogin, ProviderTokens};
use waypost_ops::oauth_clients::ClientRegistration;
use waypost_ops::oauth_configs::OauthConfigSettings;
use waypost_ops::{
    accounts, browser_sessions, identities, identity_provider, logos, oauth_clients, oauth_configs, oauth_grants,
};

use super::super::Access;
use super::{ADDRESS, Call, Row, row};
use crate::account_test::authorization_request;
use crate::fixture::Tenant;

pub(super) async fn sign_in(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, request) = (&t.organization.id, &authorization_request(cx, t));
    let accounts = &accounts::Accounts::new(ops.clone(), SecretKey::new([7; 32]));
    let client = SignInClient { address: ADDRESS, device: "" };
    let new_code = CodeRequest { email: "ann@x.de", purpose: CodePurpose::SignIn, password: None };
    let entry = CodeEntry { id: "ecd_0", code: "12345678", new_password: None };
    let password = PasswordSignIn { email: "ann@x.de", password: "quartz-banjo-umbrella-42" };
    let mut rows = rows! {
        Client accounts::Accounts::create_code(accounts, cx, request, new_code, client);
        Client accounts::Accounts::get_code(accounts, cx, request, entry.id);
        Client accounts::Accounts::sign_in_with_code(accounts, cx, request, entry, ADDRESS);
        Client accounts::Accounts::sign_in_with_password(accounts, cx, org, password, client);
        Client browser_sessions::find(cx, ops, org, "token");
        Client browser_sessions::delete(cx, ops, org, "token");
        Client oauth_grants::issue_code(cx, ops, request, "browser", &t.end_user);
        Client oauth_grants::deny(cx, ops, request, "browser", None);
        Client logos::find_public(cx, ops, org);
        Client logos::get_branding(cx, ops, org);
    };
    let registered =
        oauth_clients::register(cx, ops, &(&t.server).into(), "network", &ClientRegistration::default()).await;
    let registered =
        registered.map_err(|error| error.cause.unwrap_or_else(|| Error::invalid("registration", error.description)));
    rows.push(row(Access::Client, &["oauth_clients", "register"], registered));
    // Rolled back.
    let mut tx = ops.store().begin().await.unwrap();
    let signed_in = identities::sign_in(cx, &mut tx, org, &Claims::default(), false).await;
    rows.push(row(Access::Client, &["identities", "sign_in"], signed_in));
    drop(tx);
    let mut tx = ops.store().begin().await.unwrap();
    let identity =
        EndUserIdentity { end_user_id: t.end_user.clone(), identity_id: IdentityId::from_store("idn_0".into()) };
    let created = browser_sessions::create(cx, &mut tx, org, &identity).await;
    rows.push(row(Access::Client, &["browser_sessions", "create"], created));
    rows
}

pub(super) async fn sign_in_with_provider(call: Call<'_>) -> Vec<Row> {
    let Call { cx, ops, tenant: t, .. } = call;
    let (org, config) = (&t.organization.id, &oauth_config(t));
    let mut request = authorization_request(cx, t);
    request.consented_at = Some(request.created_at);
    let access_token = SecretText::new("secret");
    let tokens = ProviderTokens { access_token, refresh_token: None, scope: String::new(), expires_at: None };
    let finished = FinishedLogin { claims: Claims::default(), tokens };
    let redirect_uri = "https://waypost.example/oauth/callback";
    let login = LoginRequest { server: &t.server, request: &request, redirect_uri };
    let settings = &OauthConfigSettings::default();
    rows! {
        Client identity_provider::begin_login(cx, ops, login);
        Client identity_provider::finish_login(cx, ops, &t.server, "state", "browser");
        Client identity_provider::sign_in(cx, ops, config, &finished);
        Admin oauth_configs::create(cx, ops, org, settings);
        Member oauth_configs::list(cx, ops, org);
        Member oauth_configs::resolve(cx, ops, org, "name");
        Member oauth_configs::get(cx, ops, org, &config.id);
        Member oauth_configs::list_servers(cx, ops, org, &config.id);
        Admin oauth_configs::update(cx, ops, config, settings);
        Admin oauth_configs::check(cx, ops, config);
        Admin oauth_configs::delete(cx, ops, org, &config.id);
    }
}

fn oauth_config(t: &Tenant) -> OauthConfig {
    OauthConfig {
        id: OauthConfigId::from_store("oac_0".into()),
        organization_id: t.organization.id.clone(),
        name: "Provider".into(),
        kind: ProviderKind::Oauth,
        issuer: String::new(),
        authorization_endpoint: "https://idp.example/authorize".into(),
        token_endpoint: "https://idp.example/token".into(),
        userinfo_endpoint: None,
        jwks_uri: None,
        client_id: "client".into(),
        client_secret: None,
        token_auth_method: TokenAuthMethod::None,
        scopes: Vec::new(),
        subject_claim: "sub".into(),
        link_verified_email: false,
        created_at: Timestamp(1),
        updated_at: Timestamp(1),
    }
}
