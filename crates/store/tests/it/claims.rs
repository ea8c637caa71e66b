//! The migration to signed claim links, and pending authorization requests.

use waypost_store::migrate::{migrate, migrate_to};
use waypost_store::{Db, db::Dialect, on};

async fn url(url: &str) -> String {
    url.to_owned()
}

async fn pending_requests_claim_no_tracking_id_after_the_migration(url: String) {
    let db = Db::open(&url).await.unwrap();
    let versions = match db.dialect() {
        Dialect::Sqlite => sqlx_macros::migrate!("migrations/sqlite"),
        Dialect::Postgres => sqlx_macros::migrate!("migrations/postgres"),
    };
    let before = versions.iter().map(|version| version.version).filter(|version| *version < 28).max().unwrap();
    migrate_to(&db, before).await.unwrap();
    let mut sql = "INSERT INTO organizations (id, slug, name, created_at, updated_at) VALUES ('org_a', 'a', 'A', 1, 1);
        INSERT INTO servers (id, organization_id, slug, name, product_name, auth_type, sign_in, toolset, support, allowed_origins,
            walkthrough_tools_enabled, created_at, updated_at)
        VALUES ('srv_a', 'org_a', 'aaa', 'A', 'A', 'platform_oauth', 'auto', 'guided', 'off', '[]', TRUE, 1, 1);"
        .to_owned();
    for (n, tracking_id) in ["NULL", "'ann'", "'personal:abc'"].into_iter().enumerate() {
        sql += &format!(
            "INSERT INTO authorization_requests (id, organization_id, server_id, browser_hash, issuer, client_id, client_name,
                redirect_uri, scope, resource, tracking_id, code_challenge, created_at, expires_at)
             VALUES ('arq_{n}', 'org_a', 'srv_a', 'x', 'x', 'x', 'x', 'x', 'walk', 'x', {tracking_id}, 'x', 1, 2);"
        );
    }
    let mut tx = db.begin().await.unwrap();
    on!(&mut tx, c => sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(c).await.unwrap().rows_affected());
    tx.commit().await.unwrap();
    migrate(&db).await.unwrap();
    let mut conn = db.read().await.unwrap();
    const SQL: &str = "SELECT tracking_id FROM authorization_requests ORDER BY id";
    let left: Vec<Option<String>> = on!(&mut conn, c => sqlx::query_scalar(SQL).fetch_all(c).await.unwrap());
    assert_eq!(left, [None, None, Some("personal:abc".to_owned())]);
    drop(conn);
    db.close().await;
}

waypost_testkit::both!(empty url => pending_requests_claim_no_tracking_id_after_the_migration);
