//! Tests of sealed provider tokens: their refresh, and resealing when the key changes.

use http::StatusCode;
use serde_json::json;
use waypost_core::Code;
use waypost_core::caller::Caller;
use waypost_core::organization::Role;
use waypost_core::seal::SealLocation;
use waypost_core::secret::{SecretKey, SecretKeys};
use waypost_core::server::Server;
use waypost_ops::identity_provider::{RefreshSummary, refresh_due_tokens};
use waypost_ops::secret_key::{self, ResealSummary};
use waypost_store::identity_provider_token;

use crate::fixture::{Fixture, fixture};

const HOUR: i64 = 60 * 60 * 1_000;
const FIVE_MINUTES: i64 = 5 * 60 * 1_000;

async fn signed_in(fixture: &Fixture) -> Server {
    fixture.configure(&fixture.settings()).await;
    let server = fixture.server("acme-docs").await;
    fixture.session_of(&fixture.sign_in(&server).await).await;
    server
}

async fn refresh(fixture: &Fixture) -> (u64, u64) {
    let RefreshSummary { refreshed, failed } = refresh_due_tokens(&fixture.cx, &fixture.ops).await.unwrap();
    (refreshed, failed)
}

/// Returns the stored tokens, decrypted.
async fn kept(fixture: &Fixture) -> (String, Option<String>) {
    let identity = waypost_core::id::IdentityId::from_store(fixture.query_text("SELECT id FROM identities").await);
    let mut conn = fixture.ops.store().read().await.unwrap();
    let row = identity_provider_token::find(&mut conn, &fixture.organization, &identity).await.unwrap().unwrap();
    let open = |column, sealed: &str| {
        let place = SealLocation { table: "upstream_tokens", column, row: identity.as_str() };
        fixture.ops.keyring().unwrap().open_text(&place, sealed).unwrap().expose().to_owned()
    };
    (open("access_token", &row.access_token), row.refresh_token.map(|sealed| open("refresh_token", &sealed)))
}

async fn tokens_are_refreshed_before_they_expire(fixture: Fixture) {
    signed_in(&fixture).await;
    assert_eq!(refresh(&fixture).await, (0, 0), "an hour is left");
    fixture.advance_clock(HOUR - FIVE_MINUTES);
    let response =
        json!({"access_token": "second", "token_type": "bearer", "expires_in": 600, "refresh_token": "next"});
    fixture.provider.set().token = Some((StatusCode::OK, response));
    assert_eq!(refresh(&fixture).await, (1, 0));
    let (_, form) = fixture.provider.set().last.clone().unwrap();
    assert_eq!((form["grant_type"].as_str(), form["refresh_token"].as_str()), ("refresh_token", "upstream-refresh"));
    assert_eq!(kept(&fixture).await, ("second".to_owned(), Some("next".to_owned())));
    assert_eq!(refresh(&fixture).await, (0, 0));
    fixture.advance_clock(FIVE_MINUTES);
    // RFC 6749, 6: without a new refresh token, the old one remains valid.
    fixture.provider.set().token = Some((StatusCode::OK, json!({"access_token": "third", "token_type": "bearer"})));
    assert_eq!(refresh(&fixture).await, (1, 0));
    assert_eq!(kept(&fixture).await, ("third".to_owned(), Some("next".to_owned())));
    fixture.advance_clock(24 * HOUR);
    assert_eq!(refresh(&fixture).await, (0, 0), "its expiry is unknown");
}

async fn two_processes_never_refresh_one_token(fixture: Fixture) {
    signed_in(&fixture).await;
    fixture.advance_clock(HOUR);
    let count = fixture.provider.request_count("token");
    let (a, b, c) = tokio::join!(refresh(&fixture), refresh(&fixture), refresh(&fixture));
    assert_eq!((a.0 + b.0 + c.0, a.1 + b.1 + c.1), (1, 0));
    assert_eq!(fixture.provider.request_count("token"), count + 1);
}

async fn a_failed_refresh_is_retried_later(fixture: Fixture) {
    signed_in(&fixture).await;
    fixture.advance_clock(HOUR);
    fixture.provider.set().token = Some((StatusCode::BAD_GATEWAY, json!("down")));
    assert_eq!(refresh(&fixture).await, (0, 1));
    fixture.provider.set().token = None;
    assert_eq!(refresh(&fixture).await, (0, 0), "not immediately");
    fixture.advance_clock(60_000);
    assert_eq!(refresh(&fixture).await, (1, 0));
}

async fn a_rejected_refresh_token_is_deleted(fixture: Fixture) {
    let server = signed_in(&fixture).await;
    fixture.advance_clock(HOUR);
    fixture.provider.set().token = Some((StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"})));
    assert_eq!(refresh(&fixture).await, (0, 1));
    assert_eq!(kept(&fixture).await, ("upstream-access".to_owned(), None));
    fixture.advance_clock(HOUR);
    assert_eq!(refresh(&fixture).await, (0, 0));
    fixture.provider.set().token = None;
    fixture.session_of(&fixture.sign_in(&server).await).await;
    assert_eq!(kept(&fixture).await.1.as_deref(), Some("upstream-refresh"), "the next sign-in stores a new one");
}

/// The result of a refresh must not replace the tokens of a newer sign-in.
async fn a_concurrent_sign_in_takes_precedence(fixture: Fixture) {
    let server = signed_in(&fixture).await;
    fixture.advance_clock(HOUR);
    let now = fixture.cx.now();
    let mut tx = fixture.ops.store().begin().await.unwrap();
    let leased = identity_provider_token::lease_expiring(&mut tx, now, now, now.plus(60_000), 10).await.unwrap();
    tx.commit().await.unwrap();
    let [old] = &leased[..] else { panic!("{leased:?}") };
    fixture.session_of(&fixture.sign_in(&server).await).await;
    let late = identity_provider_token::IdentityProviderToken { access_token: "late".into(), ..old.clone() };
    let mut tx = fixture.ops.store().begin().await.unwrap();
    assert!(!identity_provider_token::complete_refresh(&mut tx, old, &late).await.unwrap());
    assert!(!identity_provider_token::discard_refresh_token(&mut tx, old).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(kept(&fixture).await.0, "upstream-access");
}

async fn everything_is_resealed(mut fixture: Fixture) {
    let server = signed_in(&fixture).await;
    let request = fixture.request(&server, true).await;
    fixture.begin_login(&server, &request).await;
    let key = |byte| SecretKey::new([byte; 32]);
    let keys = SecretKeys { current: key(8), previous: Some(key(7)) };
    let Fixture { cx, ops, .. } = &fixture;
    assert_eq!(secret_key::count_unreadable(ops, &keys.keyring()).await.unwrap(), 0);
    assert_eq!(secret_key::count_unreadable(ops, &SecretKeys::from(key(8)).keyring()).await.unwrap(), 4);
    // With the wrong keys, nothing changes.
    let wrong = SecretKeys { current: key(8), previous: Some(key(9)) };
    let done = secret_key::reseal(cx, ops, &wrong.keyring()).await.unwrap();
    assert_eq!(done, ResealSummary { resealed: 0, unreadable: 4 });
    // The secret, two tokens and a verifier.
    let done = secret_key::reseal(cx, ops, &keys.keyring()).await.unwrap();
    assert_eq!(done, ResealSummary { resealed: 4, unreadable: 0 });
    assert_eq!(secret_key::reseal(cx, ops, &keys.keyring()).await.unwrap(), ResealSummary::default());
    let new = SecretKeys::from(key(8)).keyring();
    assert_eq!(secret_key::count_unreadable(ops, &new).await.unwrap(), 0);
    fixture.ops = fixture.ops.clone().with_keyring(new);
    assert_eq!(kept(&fixture).await, ("upstream-access".to_owned(), Some("upstream-refresh".to_owned())));
    let member = Caller::Member {
        organization_id: fixture.organization.clone(),
        role: Role::Owner,
        actor: "usr_caller".to_owned(),
    };
    let member = fixture.cx.with_caller(member);
    let error = secret_key::reseal(&member, &fixture.ops, fixture.ops.keyring().unwrap()).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    let error = refresh_due_tokens(&member, &fixture.ops).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
}

waypost_testkit::both!(fixture => two_processes_never_refresh_one_token, a_concurrent_sign_in_takes_precedence);
waypost_testkit::both!(extended fixture =>
    tokens_are_refreshed_before_they_expire,
    a_failed_refresh_is_retried_later,
    a_rejected_refresh_token_is_deleted,
    everything_is_resealed,
);
