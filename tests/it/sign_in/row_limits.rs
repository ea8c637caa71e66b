//! Limits for rows that anonymous callers can create at a server's OAuth endpoints (docs/security.md). Which rows are
//! replaced is tested in crates/store/tests/it/row_limits.rs.

use super::{EndUserBrowser, OauthClient, create_sign_in_server};
use crate::app::{App, open};

waypost_testkit::both!(extended open => registrations_are_limited, authorization_requests_are_limited);

async fn registrations_are_limited(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let count = async || app.count("SELECT count(*) FROM oauth_clients").await;
    OauthClient::register(&server).await;
    app.execute(
        "INSERT INTO oauth_clients (server_id, client_id, organization_id, name, redirect_uris, application_type, auth_method,
            created_at, last_used_at, network)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
         SELECT server_id, 'client_' || i, organization_id, name, redirect_uris, application_type, auth_method, created_at,
            last_used_at, network FROM n CROSS JOIN oauth_clients",
    )
    .await;
    OauthClient::register(&server).await;
    assert_eq!(count().await, 1_000, "the limit per network");
    app.execute("UPDATE oauth_clients SET network = 'another one'").await;
    app.execute(
        "INSERT INTO oauth_clients (server_id, client_id, organization_id, name, redirect_uris, application_type, auth_method,
            created_at, last_used_at, network)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000)
         SELECT server_id, 'other_' || i, organization_id, name, redirect_uris, application_type, auth_method, created_at,
            last_used_at, 'network ' || (i % 80) FROM n
         CROSS JOIN (SELECT * FROM oauth_clients ORDER BY client_id LIMIT 1) AS one",
    )
    .await;
    OauthClient::register(&server).await;
    assert_eq!(count().await, 5_000, "the limit per server");
    app.finish().await;
}

async fn authorization_requests_are_limited(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let browser = EndUserBrowser::new(&app);
    let count = async || app.count("SELECT count(*) FROM authorization_requests").await;
    assert_eq!(browser.get(&client.authorize_path(&[])).await.status, 303);
    app.execute(
        "INSERT INTO authorization_requests (id, organization_id, server_id, browser_hash, issuer, client_id, client_name,
            redirect_uri, scope, resource, code_challenge, created_at, expires_at, network)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
         SELECT 'arq_' || i, organization_id, server_id, browser_hash, issuer, client_id, client_name, redirect_uri, scope,
            resource, code_challenge, created_at, expires_at, network FROM n CROSS JOIN authorization_requests",
    )
    .await;
    browser.get(&client.authorize_path(&[])).await;
    assert_eq!(count().await, 1_000, "the limit per network");
    app.execute("UPDATE authorization_requests SET network = 'another one'").await;
    app.execute(
        "INSERT INTO authorization_requests (id, organization_id, server_id, browser_hash, issuer, client_id, client_name,
            redirect_uri, scope, resource, code_challenge, created_at, expires_at, network)
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000)
         SELECT 'other_' || i, organization_id, server_id, browser_hash, issuer, client_id, client_name, redirect_uri, scope,
            resource, code_challenge, created_at, expires_at, 'network ' || (i % 180) FROM n
         CROSS JOIN (SELECT * FROM authorization_requests ORDER BY id LIMIT 1) AS one",
    )
    .await;
    browser.get(&client.authorize_path(&[])).await;
    assert_eq!(count().await, 10_000, "the limit per server");
    app.finish().await;
}
