//! Rows that can be created without signing in: their number is limited, and no client can lock out others.

use std::collections::BTreeMap;

use waypost_core::issuer::IssuerId;
use waypost_core::oauth_client::{ApplicationType, ClientAuthMethod, OauthClient};
use waypost_core::random::SeededRandom;
use waypost_core::{Random, Timestamp};
use waypost_store::row_limits::{LimitedTable, RowLimits, evict_excess};
use waypost_store::user_sign_in::{self, UserSignIn};
use waypost_store::{Conn, Db, authorization_request, oauth_client, on};

use crate::fixture::{Fixture, NOW, execute};
use crate::open;

const LIMITS: RowLimits = RowLimits { per_network: 5, per_scope: 11, share: 3 };
const NETWORKS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

async fn fixture(url: &str) -> (Db, Fixture) {
    let (db, fixture) = (open(url).await, Fixture::new(1));
    fixture.seed_with_activity(&db).await;
    (db, fixture)
}

/// Returns the number of limited rows per network, without the rows of the fixture.
async fn rows(conn: &mut Conn, table: LimitedTable) -> BTreeMap<String, i64> {
    let sql = match table {
        LimitedTable::OauthClients => {
            "SELECT network, count(*) FROM oauth_clients WHERE used_at IS NULL AND server_id = 'srv_1' GROUP BY network"
        }
        LimitedTable::AuthorizationRequests => {
            "SELECT network, count(*) FROM authorization_requests WHERE network IS NOT NULL AND server_id = 'srv_1' GROUP BY network"
        }
        LimitedTable::UserSignIns => {
            "SELECT network, count(*) FROM user_sign_ins WHERE provider = 'github' GROUP BY network"
        }
    };
    let rows: Vec<(String, i64)> = on!(conn, c => sqlx::query_as(sql).fetch_all(c).await.unwrap());
    rows.into_iter().collect()
}

fn issuer(fixture: &Fixture) -> IssuerId {
    IssuerId::Server { organization_id: fixture.organization.clone(), server_id: fixture.server.clone() }
}

async fn insert(db: &Db, fixture: &Fixture, table: LimitedTable, (n, network): (i64, &str)) {
    let mut tx = db.begin().await.unwrap();
    let scope = if table == LimitedTable::UserSignIns { "github" } else { fixture.server.as_str() };
    evict_excess(&mut tx, table, scope, network, LIMITS).await.unwrap();
    match table {
        LimitedTable::OauthClients => {
            let client = OauthClient {
                issuer_id: issuer(fixture),
                client_id: format!("new-{n}"),
                name: "Client".to_owned(),
                redirect_uris: Vec::new(),
                application_type: ApplicationType::Native,
                auth_method: ClientAuthMethod::None,
                secret_hash: None,
                created_at: NOW.plus(n),
                last_used_at: NOW.plus(n),
                used_at: None,
            };
            oauth_client::insert(&mut tx, &client, network).await.unwrap();
        }
        LimitedTable::AuthorizationRequests => {
            let sql = format!(
                "INSERT INTO authorization_requests (id, organization_id, server_id, browser_hash, issuer, client_id,
                    client_name, redirect_uri, scope, resource, code_challenge, created_at, expires_at, network)
                 VALUES ('new-{n}', 'org_1', 'srv_1', 'b', 'i', 'c', 'n', 'r', 'walk', 'r', 'c', {n}, {n}, '{network}')"
            );
            execute(&mut tx, sql).await;
        }
        LimitedTable::UserSignIns => {
            let row = UserSignIn {
                state_hash: format!("new-{n}"),
                browser_hash: "b".to_owned(),
                provider: "github".to_owned(),
                nonce: "n".to_owned(),
                code_verifier: "v".to_owned(),
                next: "/".to_owned(),
                created_at: NOW.plus(n),
                expires_at: NOW.plus(n),
            };
            user_sign_in::insert(&mut tx, &row, network).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
}

/// For any sequence of inserts: the limits hold, the new row exists, a network that has reached its share evicts only
/// its own rows, and rows without a limit are kept.
async fn limits_hold_and_a_flood_evicts_only_its_own_rows(url: String) {
    let (db, fixture) = fixture(&url).await;
    let random = SeededRandom::new(7);
    for table in [LimitedTable::OauthClients, LimitedTable::AuthorizationRequests, LimitedTable::UserSignIns] {
        for n in 0..150_i64 {
            let mut byte = [0_u8; 1];
            random.fill(&mut byte);
            // At first, two networks create nearly all rows.
            let among = if n < 60 && byte[0] < 240 { 2 } else { NETWORKS.len() };
            let network = NETWORKS[usize::from(byte[0]) % among];
            let before = rows(&mut db.read().await.unwrap(), table).await;
            insert(&db, &fixture, table, (n, network)).await;
            let after = rows(&mut db.read().await.unwrap(), table).await;
            let own = |rows: &BTreeMap<String, i64>| rows.get(network).copied().unwrap_or(0);
            assert!(after.values().all(|count| *count <= LIMITS.per_network), "{n}: {after:?}");
            assert!(after.values().sum::<i64>() <= LIMITS.per_scope, "{n}: {after:?}");
            assert!(own(&after) > 0, "{n}: {after:?}");
            if own(&before) >= LIMITS.share {
                let others = |mut rows: BTreeMap<String, i64>| {
                    rows.remove(network);
                    rows
                };
                assert_eq!(others(before), others(after), "{n}: {network} evicted rows of others");
            }
        }
    }
    let mut conn = db.read().await.unwrap();
    let kept: i64 = on!(&mut conn, c => sqlx::query_scalar("SELECT count(*) FROM oauth_clients WHERE client_id = 'client-1'")
        .fetch_one(c).await.unwrap());
    assert_eq!(kept, 1, "used clients are kept");
    let others = "SELECT count(*) FROM user_sign_ins WHERE provider <> 'github'";
    let others: i64 = on!(&mut conn, c => sqlx::query_scalar(others).fetch_one(c).await.unwrap());
    assert_eq!(others, 1, "sign-ins at other providers are kept");
}

/// The limits hold for concurrent inserts.
async fn limits_hold_for_concurrent_inserts(url: String) {
    let (db, fixture) = fixture(&url).await;
    let inserts = (0..40).map(|n| insert(&db, &fixture, LimitedTable::OauthClients, (n, NETWORKS[n as usize % 4])));
    futures::future::join_all(inserts).await;
    let after = rows(&mut db.read().await.unwrap(), LimitedTable::OauthClients).await;
    assert_eq!(after.values().sum::<i64>(), LIMITS.per_scope, "{after:?}");
}

/// Requests are not evicted if a code was sent for them or they are completed.
async fn requests_with_a_code_are_kept(url: String) {
    let (db, fixture) = fixture(&url).await;
    let table = LimitedTable::AuthorizationRequests;
    for n in 0..3 {
        insert(&db, &fixture, table, (n, "a")).await;
    }
    let mut tx = db.begin().await.unwrap();
    let id = waypost_core::id::AuthorizationRequestId::from_store("new-0".to_owned());
    let code = waypost_store::email_code::NewEmailCode {
        id: &waypost_core::id::EmailCodeId::from_store("ecd_new".to_owned()),
        organization: &fixture.organization,
        request: &id,
        email: "new@b.example",
        email_key: "new@b.example",
        purpose: waypost_core::account::CodePurpose::SignIn,
        code_hash: "hash",
        password_hash: None,
        created_at: NOW,
        expires_at: NOW,
    };
    waypost_store::email_code::insert(&mut tx, &code).await.unwrap();
    let id = waypost_core::id::AuthorizationRequestId::from_store("new-1".to_owned());
    let key = authorization_request::AuthorizationRequestKey { issuer: &issuer(&fixture), id: &id, browser_hash: "b" };
    assert!(authorization_request::complete(&mut tx, key, Timestamp(0)).await.unwrap());
    tx.commit().await.unwrap();
    for n in 3..30 {
        insert(&db, &fixture, table, (n, "a")).await;
    }
    let mut conn = db.read().await.unwrap();
    const KEPT: &str = "SELECT id FROM authorization_requests WHERE id LIKE 'new-%' AND network IS NULL ORDER BY id";
    let kept: Vec<String> = on!(&mut conn, c => sqlx::query_scalar(KEPT).fetch_all(c).await.unwrap());
    assert_eq!(kept, ["new-0", "new-1"]);
    assert_eq!(rows(&mut conn, table).await["a"], LIMITS.per_network);
}

waypost_testkit::both!(url_of =>
    limits_hold_and_a_flood_evicts_only_its_own_rows,
    limits_hold_for_concurrent_inserts,
    requests_with_a_code_are_kept,
);

async fn url_of(url: &str) -> String {
    url.to_owned()
}
