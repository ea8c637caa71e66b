//! Statements that wait for another process's row lock. After the wait, PostgreSQL re-evaluates only the outer conditions
//! of the statement. SQLite has a single writer.

use waypost_core::id::{IdentityId, OauthConfigId};
use waypost_store::identity_provider_token::{self, IdentityProviderToken};
use waypost_store::{Db, on, session};

use crate::fixture::{Fixture, NOW, execute};
use crate::open;

const MINUTE: i64 = 60_000;
const YEAR: i64 = 365 * 24 * 60 * MINUTE;

async fn fixture(url: &str) -> (Db, Fixture) {
    let (db, fixture) = (open(url).await, Fixture::new(1));
    fixture.seed_with_activity(&db).await;
    (db, fixture)
}

/// Waits until a statement in this database waits for a lock.
async fn wait_for_blocked_statement(db: &Db) {
    const SQL: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let is_blocked = async {
        loop {
            let mut conn = db.read().await.unwrap();
            let count: i64 = on!(&mut conn, c => sqlx::query_scalar(SQL).fetch_one(c).await.unwrap());
            if count > 0 {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), is_blocked).await.expect("the statement should wait");
}

waypost_testkit::needs_postgres! {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_refreshed_token_is_not_leased_again() {
        let (db, fixture) = fixture(&waypost_testkit::postgres_url()).await;
        let token = IdentityProviderToken {
            identity_id: IdentityId::from_store("idn_1".into()),
            organization_id: fixture.organization.clone(),
            oauth_config_id: OauthConfigId::from_store("oac_1".into()),
            access_token: "first".to_owned(),
            refresh_token: Some("first".to_owned()),
            scope: "openid".to_owned(),
            expires_at: Some(NOW),
            updated_at: NOW,
        };
        let refreshed = IdentityProviderToken {
            refresh_token: Some("second".to_owned()),
            expires_at: Some(NOW.plus(YEAR)),
            ..token.clone()
        };
        let mut tx = db.begin().await.unwrap();
        identity_provider_token::upsert(&mut tx, &token).await.unwrap();
        tx.commit().await.unwrap();
        let lease = async |db: Db| {
            let mut tx = db.begin().await.unwrap();
            let leased = identity_provider_token::lease_expiring(&mut tx, NOW, NOW, NOW.plus(MINUTE), 10).await;
            tx.commit().await.unwrap();
            leased.unwrap().len()
        };
        let mut tx = db.begin().await.unwrap();
        let leased = identity_provider_token::lease_expiring(&mut tx, NOW, NOW, NOW.plus(MINUTE), 10).await.unwrap();
        assert_eq!(leased, std::slice::from_ref(&token));
        assert!(identity_provider_token::complete_refresh(&mut tx, &token, &refreshed).await.unwrap());
        let (late, ()) = tokio::join!(lease(db.clone()), async {
            wait_for_blocked_statement(&db).await;
            tx.commit().await.unwrap();
        });
        assert_eq!(late, 0, "the token is no longer due");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_session_that_is_being_used_is_not_deleted() {
        let (db, _) = fixture(&waypost_testkit::postgres_url()).await;
        let now = NOW.plus(YEAR);
        let mut tx = db.begin().await.unwrap();
        execute(&mut tx, format!("UPDATE client_sessions SET last_used_at = {}", now.0)).await;
        let delete = async |db: Db| {
            let mut tx = db.begin().await.unwrap();
            let deleted = session::delete_expired(&mut tx, now, 10).await.unwrap();
            tx.commit().await.unwrap();
            deleted
        };
        let (deleted, ()) = tokio::join!(delete(db.clone()), async {
            wait_for_blocked_statement(&db).await;
            tx.commit().await.unwrap();
        });
        assert_eq!(deleted, 0);
        let mut tx = db.begin().await.unwrap();
        assert_eq!(session::delete_expired(&mut tx, now.plus(YEAR), 10).await.unwrap(), 1);
    }
}
