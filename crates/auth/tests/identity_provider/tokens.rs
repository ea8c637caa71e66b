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

use crate::stage::{Stage, stage};

const HOUR: i64 = 60 * 60 * 1_000;
const FIVE_MINUTES: i64 = 5 * 60 * 1_000;

async fn signed_in(stage: &Stage) -> Server {
    stage.configure(&stage.settings()).await;
    let server = stage.server("acme-docs").await;
    stage.who(&stage.sign_in(&server).await).await;
    server
}

async fn refresh(stage: &Stage) -> (u64, u64) {
    let RefreshSummary { refreshed, failed } = refresh_due_tokens(&stage.cx, &stage.ops).await.unwrap();
    (refreshed, failed)
}

/// Returns the stored tokens, decrypted.
async fn kept(stage: &Stage) -> (String, Option<String>) {
    let identity = waypost_core::id::IdentityId::from_store(stage.text("SELECT id FROM identities").await);
    let mut conn = stage.ops.store().read().await.unwrap();
    let row = identity_provider_token::find(&mut conn, &stage.organization, &identity).await.unwrap().unwrap();
    let open = |column, sealed: &str| {
        let place = SealLocation { table: "upstream_tokens", column, row: identity.as_str() };
        stage.ops.keyring().unwrap().open_text(&place, sealed).unwrap().expose().to_owned()
    };
    (open("access_token", &row.access_token), row.refresh_token.map(|sealed| open("refresh_token", &sealed)))
}

async fn tokens_are_refreshed_before_they_expire(stage: Stage) {
    signed_in(&stage).await;
    assert_eq!(refresh(&stage).await, (0, 0), "an hour is left");
    stage.later(HOUR - FIVE_MINUTES);
    let response =
        json!({"access_token": "second", "token_type": "bearer", "expires_in": 600, "refresh_token": "next"});
    stage.provider.set().token = Some((StatusCode::OK, response));
    assert_eq!(refresh(&stage).await, (1, 0));
    let (_, form) = stage.provider.set().last.clone().unwrap();
    assert_eq!((form["grant_type"].as_str(), form["refresh_token"].as_str()), ("refresh_token", "upstream-refresh"));
    assert_eq!(kept(&stage).await, ("second".to_owned(), Some("next".to_owned())));
    assert_eq!(refresh(&stage).await, (0, 0));
    stage.later(FIVE_MINUTES);
    // RFC 6749, 6: without a new refresh token, the old one remains valid.
    stage.provider.set().token = Some((StatusCode::OK, json!({"access_token": "third", "token_type": "bearer"})));
    assert_eq!(refresh(&stage).await, (1, 0));
    assert_eq!(kept(&stage).await, ("third".to_owned(), Some("next".to_owned())));
    stage.later(24 * HOUR);
    assert_eq!(refresh(&stage).await, (0, 0), "its expiry is unknown");
}

async fn two_processes_never_refresh_one_token(stage: Stage) {
    signed_in(&stage).await;
    stage.later(HOUR);
    let count = stage.provider.request_count("token");
    let (a, b, c) = tokio::join!(refresh(&stage), refresh(&stage), refresh(&stage));
    assert_eq!((a.0 + b.0 + c.0, a.1 + b.1 + c.1), (1, 0));
    assert_eq!(stage.provider.request_count("token"), count + 1);
}

async fn a_failed_refresh_is_retried_later(stage: Stage) {
    signed_in(&stage).await;
    stage.later(HOUR);
    stage.provider.set().token = Some((StatusCode::BAD_GATEWAY, json!("down")));
    assert_eq!(refresh(&stage).await, (0, 1));
    stage.provider.set().token = None;
    assert_eq!(refresh(&stage).await, (0, 0), "not immediately");
    stage.later(60_000);
    assert_eq!(refresh(&stage).await, (1, 0));
}

async fn a_rejected_refresh_token_is_deleted(stage: Stage) {
    let server = signed_in(&stage).await;
    stage.later(HOUR);
    stage.provider.set().token = Some((StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"})));
    assert_eq!(refresh(&stage).await, (0, 1));
    assert_eq!(kept(&stage).await, ("upstream-access".to_owned(), None));
    stage.later(HOUR);
    assert_eq!(refresh(&stage).await, (0, 0));
    stage.provider.set().token = None;
    stage.who(&stage.sign_in(&server).await).await;
    assert_eq!(kept(&stage).await.1.as_deref(), Some("upstream-refresh"), "the next sign-in stores a new one");
}

/// The result of a refresh must not replace the tokens of a newer sign-in.
async fn a_concurrent_sign_in_takes_precedence(stage: Stage) {
    let server = signed_in(&stage).await;
    stage.later(HOUR);
    let now = stage.cx.now();
    let mut tx = stage.ops.store().begin().await.unwrap();
    let leased = identity_provider_token::lease_expiring(&mut tx, now, now, now.plus(60_000), 10).await.unwrap();
    tx.commit().await.unwrap();
    let [old] = &leased[..] else { panic!("{leased:?}") };
    stage.who(&stage.sign_in(&server).await).await;
    let late = identity_provider_token::IdentityProviderToken { access_token: "late".into(), ..old.clone() };
    let mut tx = stage.ops.store().begin().await.unwrap();
    assert!(!identity_provider_token::complete_refresh(&mut tx, old, &late).await.unwrap());
    assert!(!identity_provider_token::discard_refresh_token(&mut tx, old).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(kept(&stage).await.0, "upstream-access");
}

async fn everything_is_resealed(mut stage: Stage) {
    let server = signed_in(&stage).await;
    let request = stage.request(&server, true).await;
    stage.begin_login(&server, &request).await;
    let key = |byte| SecretKey::new([byte; 32]);
    let keys = SecretKeys { current: key(8), previous: Some(key(7)) };
    let Stage { cx, ops, .. } = &stage;
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
    stage.ops = stage.ops.clone().with_keyring(new);
    assert_eq!(kept(&stage).await, ("upstream-access".to_owned(), Some("upstream-refresh".to_owned())));
    let member = Caller::Member {
        organization_id: stage.organization.clone(),
        role: Role::Owner,
        actor: "usr_caller".to_owned(),
    };
    let member = stage.cx.with_caller(member);
    let error = secret_key::reseal(&member, &stage.ops, stage.ops.keyring().unwrap()).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    let error = refresh_due_tokens(&member, &stage.ops).await.unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
}

waypost_testkit::both!(stage => two_processes_never_refresh_one_token, a_concurrent_sign_in_takes_precedence);
waypost_testkit::both!(extended stage =>
    tokens_are_refreshed_before_they_expire,
    a_failed_refresh_is_retried_later,
    a_rejected_refresh_token_is_deleted,
    everything_is_resealed,
);
