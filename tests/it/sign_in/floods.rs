//! Data that anonymous callers can create is bounded and expires (docs/security.md).

use axum::body::Body;
use http::Request;
use insta::assert_snapshot;
use serde_json::json;
use waypost_ops::authorizations;
use waypost_store::db::count_statements;

use super::{
    CALLBACK, EndUserBrowser, OauthClient, Tokens, WEB_CALLBACK, create_sign_in_server, form_action, oauth_path,
    post_form, post_json,
};
use crate::app::{App, DAY, open};

waypost_testkit::both!(extended open =>
    registrations_put_no_client_text_in_the_audit_log,
    an_unused_registration_expires,
    a_used_registration_is_kept,
    all_expired_rows_are_deleted,
    visitors_write_nothing_to_the_audit_log,
    grants_of_a_user_are_limited,
    tokens_of_a_grant_are_limited,
    repeated_revocations_log_one_entry_per_hour,
);

async fn registrations_put_no_client_text_in_the_audit_log(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let long = format!("https://app.example/{}", "a".repeat(2_000));
    let metadata = json!({ "client_name": "Attacker".repeat(100), "redirect_uris": [long, CALLBACK] });
    assert_eq!(post_json(&app, &oauth_path(&server, "register"), &metadata).await.status, 201);
    let entry = app.query_lines("SELECT detail FROM audit_events WHERE act = 'client.register'").await;
    assert!(!entry.contains("Attacker") && !entry.contains(&"a".repeat(32)) && !entry.contains("127.0.0.1"), "{entry}");
    assert!(entry.contains("\"name_length\":200") && entry.contains("[2020,30]"), "{entry}");
    // 40 KB of redirect URIs are rejected.
    let many = json!({ "redirect_uris": vec![long; 20] });
    assert_eq!(post_json(&app, &oauth_path(&server, "register"), &many).await.error().1, "invalid_redirect_uri");
    for _ in 0..30 {
        OauthClient::register(&server).await;
    }
    let entries = "SELECT count(*) FROM audit_events WHERE act = 'client.register'";
    assert_eq!(app.count(entries).await, 10, "at most ten entries per hour");
    app.advance_clock(60 * 60 * 1_000).await;
    OauthClient::register(&server).await;
    assert_eq!(app.count(entries).await, 11);
    assert_eq!(app.count("SELECT count(*) FROM audit_events WHERE length(detail) > 300").await, 0);
    app.finish().await;
}

async fn an_unused_registration_expires(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    app.advance_clock(DAY - 1).await;
    // A user who began in time can finish.
    let page = browser.open(&client.authorize_path(&[])).await;
    let late = OauthClient::register(&server).await;
    app.advance_clock(1).await;
    let gone = browser.get(&client.authorize_path(&[])).await;
    assert!(gone.status == 400 && gone.body.contains("registration has expired"), "{}", gone.body);
    assert_eq!(client.exchange("code").await.error(), (401, "invalid_client".to_owned()));
    authorizations::delete_expired(app.db(), &*app.cx().clock).await.unwrap();
    let form = [("csrf", page.hidden_field("csrf")), ("decision", "allow".to_owned())];
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let code = browser.post(&form_action(&page), &form).await.parameter("code").unwrap();
    assert_eq!(client.exchange(&code).await.status, 200);
    app.advance_clock(DAY + 30 * 60 * 1_000).await;
    authorizations::delete_expired(app.db(), &*app.cx().clock).await.unwrap();
    assert_eq!(app.count("SELECT count(*) FROM oauth_clients").await, 1, "{} is deleted", late.id);
    app.finish().await;
}

async fn a_used_registration_is_kept(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    // Used in the millisecond of the registration.
    client.get_code(&browser, &[]).await;
    app.advance_clock(29 * DAY).await;
    authorizations::delete_expired(app.db(), &*app.cx().clock).await.unwrap();
    client.get_code(&browser, &[]).await;
    app.finish().await;
}

/// One call deletes more rows than two client addresses can create between two calls.
async fn all_expired_rows_are_deleted(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let browser = EndUserBrowser::new(&app);
    browser.get(&client.authorize_path(&[])).await.location();
    app.execute(
        "INSERT INTO authorization_requests (id, organization_id, server_id, browser_hash, issuer, client_id, client_name,
            redirect_uri, scope, resource, code_challenge, created_at, expires_at)
        SELECT 'arq_' || n, organization_id, server_id, browser_hash, issuer, client_id, client_name, redirect_uri, scope,
            resource, code_challenge, created_at, expires_at
        FROM authorization_requests, (WITH RECURSIVE numbers (n) AS
            (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2600) SELECT n FROM numbers) AS many",
    )
    .await;
    app.execute(
        "INSERT INTO email_codes (id, organization_id, request_id, email, email_key, purpose, code_hash, attempts,
            created_at, expires_at)
        SELECT id, organization_id, id, 'a@b.example', 'a@b.example', 'sign_in', 'hash', 0, created_at, expires_at
        FROM authorization_requests",
    )
    .await;
    app.execute(
        "INSERT INTO user_codes (id, email, email_key, purpose, browser_hash, code_hash, attempts, created_at, expires_at)
        SELECT id, 'a@b.example', 'a@b.example', 'sign_in', 'browser', 'hash', 0, created_at, expires_at
        FROM authorization_requests",
    )
    .await;
    app.execute(
        "INSERT INTO user_sign_ins (state_hash, browser_hash, provider, nonce, code_verifier, next, created_at, expires_at)
        SELECT id, 'browser', 'google', 'nonce', 'verifier', '/', created_at, expires_at FROM authorization_requests",
    )
    .await;
    app.execute(
        "INSERT INTO oauth_clients (server_id, client_id, organization_id, name, redirect_uris, application_type,
            auth_method, created_at, last_used_at)
        SELECT server_id, id, organization_id, 'name', '[]', 'native', 'none', created_at, created_at
        FROM authorization_requests",
    )
    .await;
    app.advance_clock(2 * DAY).await;
    let deleted = authorizations::delete_expired(app.db(), &*app.cx().clock).await.unwrap();
    assert!(deleted > 4 * 2_600, "{deleted}");
    for count in [
        "SELECT count(*) FROM authorization_requests",
        "SELECT count(*) FROM email_codes",
        "SELECT count(*) FROM user_codes",
        "SELECT count(*) FROM user_sign_ins",
        "SELECT count(*) FROM oauth_clients",
    ] {
        assert_eq!(app.count(count).await, 0, "{count}");
    }
    app.finish().await;
}

/// Every page of a request contains its form token, even for visitors who have not signed in.
async fn visitors_write_nothing_to_the_audit_log(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let before = app.count("SELECT count(*) FROM audit_events").await;
    let visitor = EndUserBrowser::new(&app);
    let page = visitor.open(&client.authorize_path(&[])).await;
    let consent = form_action(&page).replace(page_name(&form_action(&page)), "consent");
    let response = visitor.post(&consent, &[("csrf", &page.hidden_field("csrf")), ("decision", "deny")]).await;
    assert_eq!(response.parameter("error").as_deref(), Some("access_denied"));
    assert_eq!(app.count("SELECT count(*) FROM audit_events").await, before);
    app.finish().await;
}

/// Pages and images need only a few read statements, so they are served while another transaction holds the writer.
#[tokio::test]
async fn pages_and_images_need_no_write_transaction() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (visitor, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let page = visitor.open(&client.authorize_path(&[])).await;
    let query = form_action(&page).split_once('?').unwrap().1.to_owned();
    let (mut paths, console) =
        (Vec::new(), ["login", "sign-up", "forgot", "code", "link", "invite", "setup", "logo.png"]);
    for name in ["sign-in", "sign-in/code", "sign-in/link", "sign-in/password", "sign-up", "consent"] {
        paths.push((name, oauth_path(&server, &format!("{name}?{query}"))));
    }
    paths.extend(["sign-in.css", "logo.png"].map(|name| (name, oauth_path(&server, name))));
    paths.extend(console.map(|name| (name, format!("/{name}"))));
    paths.extend([("page", "/s/acme".to_owned()), ("its logo", "/s/acme/logo.png".to_owned())]);
    let mut seen = String::new();
    let writer = app.db().begin().await.unwrap();
    for (name, path) in paths {
        let cookies = visitor.cookies();
        let request = Request::get(path).header("host", "localhost:8080").header("cookie", cookies);
        let request = request.body(Body::empty()).unwrap();
        let (response, statements) = count_statements(app.send(request)).await;
        seen.push_str(&format!("{name}: {} with {statements} statements\n", response.status().as_u16()));
    }
    drop(writer);
    assert_snapshot!(seen, @r"
    sign-in: 200 with 3 statements
    sign-in/code: 422 with 3 statements
    sign-in/link: 422 with 3 statements
    sign-in/password: 200 with 3 statements
    sign-up: 503 with 1 statements
    consent: 200 with 4 statements
    sign-in.css: 200 with 0 statements
    logo.png: 404 with 1 statements
    login: 200 with 2 statements
    sign-up: 403 with 0 statements
    forgot: 503 with 0 statements
    code: 422 with 0 statements
    link: 404 with 1 statements
    invite: 404 with 1 statements
    setup: 404 with 0 statements
    logo.png: 404 with 0 statements
    page: 200 with 2 statements
    its logo: 404 with 1 statements
    ");
    app.finish().await;
}

async fn grants_of_a_user_are_limited(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register_at(&server, WEB_CALLBACK).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    client.get_code(&browser, &[]).await;
    app.execute(
        "INSERT INTO oauth_grants (id, organization_id, server_id, end_user_id, client_id, client_name, scope, resource,
            generation, created_at, expires_at)
        SELECT 'ogr_' || n, organization_id, server_id, end_user_id, client_id, client_name, scope, resource, generation,
            created_at + n, expires_at
        FROM oauth_grants, (WITH RECURSIVE numbers (n) AS
            (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 199) SELECT n FROM numbers) AS many",
    )
    .await;
    let response = browser.get(&client.authorize_path(&[])).await;
    assert!(response.status == 429 && response.body.contains("Wait an hour"), "{}", response.body);
    let (other, _) = EndUserBrowser::signed_in(&server, "bea").await;
    client.get_code(&other, &[]).await;
    let entries = app.count("SELECT count(*) FROM audit_events WHERE act = 'grant.create'").await;
    assert_eq!(entries, 2, "one for each user: the rejected request has no entry");
    app.advance_clock(60 * 60 * 1_000).await;
    client.get_code(&browser, &[]).await;
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants").await, 201, "200 grants of one user, 1 of the other");
    assert_eq!(
        app.count("SELECT count(*) FROM oauth_grants WHERE id = 'ogr_1'").await,
        1,
        "only the oldest grant was deleted"
    );
    app.finish().await;
}

async fn tokens_of_a_grant_are_limited(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let tokens = client.get_tokens(&browser).await;
    // Simulates 1,298 rotations.
    app.execute("UPDATE refresh_tokens SET generation = 1299").await;
    app.execute("UPDATE oauth_grants SET generation = 1299").await;
    for sql in [
        "INSERT INTO refresh_tokens (token_hash, grant_id, generation, created_at)
        SELECT 'old_' || n, grant_id, n, created_at FROM refresh_tokens, (WITH RECURSIVE numbers (n) AS
            (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1298) SELECT n FROM numbers) AS many",
        "INSERT INTO access_tokens (token_hash, grant_id, scope, created_at, expires_at)
        SELECT 'old_' || n, grant_id, scope, created_at - n, expires_at
        FROM access_tokens, (WITH RECURSIVE numbers (n) AS
            (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1298) SELECT n FROM numbers) AS many",
    ] {
        app.execute(sql).await;
    }
    let tokens = Tokens::from_response(&client.refresh(&tokens.refresh).await);
    assert_eq!(app.count("SELECT min(generation) FROM refresh_tokens").await, 300);
    assert_eq!(app.count("SELECT count(*) FROM refresh_tokens").await, 1_001);
    assert_eq!(app.count("SELECT count(*) FROM access_tokens").await, 101);
    assert_eq!(super::start_walkthrough(&server, Some(&tokens.access)).await.status, 200);
    Tokens::from_response(&client.refresh(&tokens.refresh).await);
    app.finish().await;
}

async fn repeated_revocations_log_one_entry_per_hour(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let entries = "SELECT count(*) FROM audit_events WHERE act = 'token.revoke'";
    let revoke = async |token: &str| {
        let form = [("token", token), ("client_id", client.id.as_str())];
        assert_eq!(post_form(&app, &oauth_path(&server, "revoke"), &form).await.status, 200);
        assert_eq!(super::start_walkthrough(&server, Some(token)).await.status, 401);
    };
    let mut tokens = client.get_tokens(&browser).await;
    for _ in 0..5 {
        // Each token is revoked twice.
        revoke(&tokens.access).await;
        revoke(&tokens.access).await;
        tokens = Tokens::from_response(&client.refresh(&tokens.refresh).await);
    }
    assert_eq!(app.count(entries).await, 1);
    let other = client.get_tokens(&browser).await;
    revoke(&other.access).await;
    assert_eq!(app.count(entries).await, 2, "another grant has its own entries");
    app.advance_clock(60 * 60 * 1_000).await;
    revoke(&tokens.access).await;
    assert_eq!(app.count(entries).await, 2, "an expired token is not revoked");
    tokens = Tokens::from_response(&client.refresh(&tokens.refresh).await);
    revoke(&tokens.access).await;
    assert_eq!(app.count(entries).await, 3);
    app.finish().await;
}

/// Returns the part of the path between `oauth/` and the query.
fn page_name(path: &str) -> &str {
    path.split_once("/oauth/").unwrap().1.split('?').next().unwrap()
}
