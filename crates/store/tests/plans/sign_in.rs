//! The statements of sign-ins, OAuth grants and joins.

use waypost_core::Timestamp;
use waypost_core::account::CodePurpose;
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::id::{
    AgentId, AuthorizationRequestId, EmailCodeId, EndUserId, EventId, JoinId, OauthConfigId, OauthGrantId, ProgressId,
};
use waypost_core::issuer::IssuerId;
use waypost_core::join::{Join, JoinUndo};
use waypost_core::oauth_client::OauthClient;
use waypost_core::oauth_grant::{GrantOwner, OauthGrant};
use waypost_core::progress::Attempt;
use waypost_store::browser_session::NewBrowserSession;
use waypost_store::email_code::NewEmailCode;
use waypost_store::progress::ProgressKey;
use waypost_store::row_limits::{LimitedTable, RowLimits};
use waypost_store::{
    Tx, account, authorization_request, browser_session, email_code, end_user, expired, identity, join, logo,
    oauth_client, oauth_consent, oauth_grant, row_limits, session, system,
};

use crate::fixture::{Fixture, NOW};

/// Sign-in of end users.
pub(crate) async fn sign_in(tx: &mut Tx, one: &Fixture) {
    let (org, user) = (&one.organization, &one.end_user);
    let identity = identity::find(tx, org, "waypost", "acc_1").await.unwrap().unwrap();
    identity::find_linkable(tx, org, "https://other", "z@b.example").await.unwrap();
    identity::insert(tx, &identity, None).await.unwrap();
    identity::record_sign_in(tx, &identity, None).await.unwrap();
    end_user::insert(tx, org, &EndUserId::from_store("eu_signed".to_owned()), NOW).await.unwrap();
    let tracked = EndUserId::from_store("eu_tracked".to_owned());
    end_user::insert_tracked(tx, org, &tracked, "t", NOW).await.unwrap();
    end_user::find_profile(tx, org, user).await.unwrap();
    end_user::update_profile(tx, org, user, &end_user::Profile::default()).await.unwrap();
    let account = account::find_by_email(tx, org, "z@b.example").await.unwrap().unwrap();
    account::insert(tx, &account, "z@b.example").await.unwrap();
    account::set_password(tx, org, &account.id, "argon", NOW).await.unwrap();
    let (request, id) =
        (AuthorizationRequestId::from_store("arq_1".to_owned()), EmailCodeId::from_store("ecd_x".into()));
    let code = NewEmailCode {
        id: &id,
        organization: org,
        request: &request,
        email: "a@x.de",
        email_key: "a@x.de",
        purpose: CodePurpose::SignIn,
        code_hash: "hash",
        password_hash: None,
        created_at: NOW,
        expires_at: NOW,
    };
    email_code::insert(tx, &code).await.unwrap();
    let key = email_code::EmailCodeKey { organization: org, request: &request, id: &id };
    email_code::find_pending(tx, key, NOW).await.unwrap();
    email_code::verify(tx, key, "hash", NOW).await.unwrap();
    let session = NewBrowserSession {
        token_hash: "hash",
        end_user_id: user,
        identity_id: &identity.id,
        created_at: NOW,
        expires_at: NOW,
    };
    browser_session::insert(tx, org, &session).await.unwrap();
    browser_session::find(tx, org, "hash", NOW).await.unwrap();
    browser_session::delete(tx, org, "hash").await.unwrap();
    browser_session::delete_for_end_user(tx, org, user).await.unwrap();
    logo::set(tx, org, b"png", NOW).await.unwrap();
    logo::find(tx, org).await.unwrap();
    logo::find_updated_at(tx, org).await.unwrap();
    logo::delete(tx, org).await.unwrap();
}

/// Authorization of OAuth clients.
pub(crate) async fn authorize(tx: &mut Tx, one: &Fixture) {
    let (org, server, user) = (&one.organization, &one.server, &one.end_user);
    let id = AuthorizationRequestId::from_store("arq_1".to_owned());
    let issuer = &IssuerId::Server { organization_id: org.clone(), server_id: server.clone() };
    let owner = GrantOwner::EndUser { server_id: server.clone(), end_user_id: user.clone() };
    let key = authorization_request::AuthorizationRequestKey { issuer, id: &id, browser_hash: "browser" };
    let request = authorization_request::find(tx, key, Timestamp(8)).await.unwrap().unwrap();
    let other = AuthorizationRequest { id: AuthorizationRequestId::from_store("arq_other".to_owned()), ..request };
    authorization_request::insert(tx, &other, "browser", "network").await.unwrap();
    let bounds = RowLimits { per_network: 0, per_scope: 0, share: 0 };
    let all = RowLimits { share: 100, ..bounds };
    for table in [LimitedTable::OauthClients, LimitedTable::AuthorizationRequests, LimitedTable::UserSignIns] {
        for scope in [server.as_str(), IssuerId::GATEWAY] {
            row_limits::evict_excess(tx, table, scope, "other", bounds).await.unwrap();
            row_limits::evict_excess(tx, table, scope, "other", all).await.unwrap();
        }
    }
    authorization_request::record_consent(tx, key, NOW).await.unwrap();
    authorization_request::complete(tx, key, NOW).await.unwrap();
    let client = oauth_client::find(tx, issuer, "client-1", NOW).await.unwrap().unwrap();
    oauth_client::insert(tx, &OauthClient { client_id: "other".to_owned(), ..client }, "network").await.unwrap();
    oauth_client::find_nth_newest_unused(tx, server, 10).await.unwrap();
    oauth_client::record_use(tx, issuer, "client-1", NOW).await.unwrap();
    let consent = oauth_consent::ConsentKey {
        organization: org,
        server,
        end_user: user,
        client_id: "client",
        redirect: "https://x",
    };
    oauth_consent::upsert(tx, consent, "walk", NOW).await.unwrap();
    oauth_consent::find(tx, consent).await.unwrap();
    let grant = oauth_grant::find(tx, org, &OauthGrantId::from_store("ogr_1".to_owned())).await.unwrap().unwrap();
    let grant = OauthGrant { id: OauthGrantId::from_store("ogr_other".to_owned()), ..grant };
    let code = oauth_grant::AuthorizationCode {
        code_hash: "hash".to_owned(),
        redirect_uri: "https://x".to_owned(),
        code_challenge: "challenge".to_owned(),
        expires_at: NOW,
    };
    oauth_grant::insert(tx, &grant, &code).await.unwrap();
    oauth_grant::consume_code(tx, issuer, "client", "hash", Timestamp(1)).await.unwrap();
    oauth_grant::consume_code(tx, issuer, "client", "hash", NOW).await.unwrap();
    let pair = oauth_grant::TokenPair {
        access_hash: "access".to_owned(),
        scope: "walk".to_owned(),
        access_expires_at: NOW,
        refresh_hash: "refresh".to_owned(),
        generation: 1,
    };
    oauth_grant::insert_token_pair(tx, &grant.id, &pair, NOW).await.unwrap();
    oauth_grant::refresh(tx, issuer, "client", "refresh", Timestamp(1), NOW).await.unwrap();
    oauth_grant::prune_tokens(tx, &grant.id, 0, 10).await.unwrap();
    oauth_grant::find_access_token(tx, org, server, "access", NOW).await.unwrap();
    oauth_grant::find_by_token(tx, issuer, "client", "access").await.unwrap();
    oauth_grant::revoke_access_token(tx, "access", NOW).await.unwrap();
    oauth_grant::mark_revocation_recorded(tx, &grant.id, NOW, NOW).await.unwrap();
    oauth_grant::revoke(tx, org, &grant.id, "test", NOW).await.unwrap();
    oauth_grant::revoke_for_end_user(tx, org, user, "test", NOW).await.unwrap();
    oauth_grant::revoke_for_server(tx, org, server, "test", NOW).await.unwrap();
    let provider = OauthConfigId::from_store("oac_1".to_owned());
    oauth_grant::revoke_for_provider(tx, org, &provider, "test", NOW).await.unwrap();
    oauth_grant::find_nth_newest(tx, org, &owner, 2).await.unwrap();
    oauth_grant::delete_created_until(tx, org, &owner, Timestamp(1)).await.unwrap();
    let person = GrantOwner::Agent(AgentId::from_store("agt_person1".to_owned()));
    oauth_grant::find_nth_newest(tx, org, &person, 2).await.unwrap();
    system::find_person_token(tx, "access-person-1", NOW).await.unwrap();
    system::list_person_grants(tx, &one.user, NOW).await.unwrap();
    oauth_grant::delete_created_until(tx, org, &person, Timestamp(1)).await.unwrap();
    expired::delete(tx, NOW, 10).await.unwrap();
    oauth_client::delete_unused(tx, NOW, 10).await.unwrap();
    oauth_client::delete_idle(tx, NOW, 10).await.unwrap();
}

/// Joins and undoing them.
pub(crate) async fn join_progress(tx: &mut Tx, one: &Fixture) {
    let (org, id, user) = (&one.organization, JoinId::from_store("joi_1".to_owned()), &one.end_user);
    session::is_joined(tx, org, "handle-1").await.unwrap();
    session::set_joined(tx, org, &one.server, user, Some(NOW)).await.unwrap();
    end_user::set_claimed_email(tx, org, user, "a@x.de").await.unwrap();
    end_user::find_claimed_email(tx, org, user).await.unwrap();
    join::list(tx, org).await.unwrap();
    join::count_claims(tx, org, NOW).await.unwrap();
    join::list_page(tx, org, None, 2).await.unwrap();
    join::list_page(tx, org, Some(&id), 2).await.unwrap();
    join::is_claim_link_spent(tx, org, &one.server, user, NOW).await.unwrap();
    let join = join::find(tx, org, &id).await.unwrap().unwrap();
    join::is_settled(tx, org, &one.server, user, user).await.unwrap();
    join::find_claimant(tx, org, user).await.unwrap();
    join::lock_end_users(tx, org, user, user).await.unwrap();
    join::mark_undone(tx, org, &id, NOW).await.unwrap().unwrap();
    let again = Join { id: JoinId::from_store("joi_again".to_owned()), ..join };
    join::insert(tx, &again, &JoinUndo::default()).await.unwrap();
    let mut open = join::lock_open_attempts(tx, org, &one.server, user, user).await.unwrap();
    let (walkthrough, attempt, _) = open.remove(0);
    let key = ProgressKey { walkthrough_id: walkthrough, ..one.progress_key(user) };
    join::lock_open_attempt(tx, &key).await.unwrap().unwrap();
    let closed = Attempt { closed_at: Some(NOW), ..attempt.clone() };
    join::update_attempt(tx, org, &closed).await.unwrap();
    let fresh = Attempt { id: ProgressId::from_store("wp_fresh".to_owned()), ..attempt.clone() };
    join::insert_attempt(tx, &key, &fresh).await.unwrap();
    join::copy_completions(tx, org, &attempt.id, &fresh.id).await.unwrap();
    let shared = join::list_shared_completions(tx, org, &attempt.id, &fresh.id).await.unwrap();
    assert_eq!(shared, [(one.step(0), 0)]);
    join::delete_completion(tx, org, &fresh.id, &one.step(0)).await.unwrap();
    let event = EventId::from_store("ev_joined".to_owned());
    join::insert_event(tx, &event, &key, &fresh, NOW, None).await.unwrap();
    join::update_attempt(tx, org, &Attempt { closed_at: Some(NOW), ..fresh }).await.unwrap();
    join::reopen_attempt(tx, org, &attempt.id).await.unwrap();
}
