//! Consent (AS-7 and AS-11) and the binding of a request to its browser.

use http::StatusCode;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;
use waypost_core::claim_link::ClaimLink;
use waypost_core::personal::PersonalId;
use waypost_core::random::SeededRandom;
use waypost_core::secret::SecretKey;
use waypost_ops::claim_links;

use super::{EndUserBrowser, OauthClient, Tokens, WEB_CALLBACK, create_sign_in_server, form_action};
use crate::app::{App, DAY, Server, open};

waypost_testkit::both!(extended open =>
    a_request_is_completed_once,
    a_denied_request_grants_nothing,
    a_label_can_only_be_claimed_with_a_signed_link,
    a_claim_link_without_sign_in_acts_as_its_label,
    a_generated_personal_url_is_claimed_by_its_holder,
);

async fn a_request_is_completed_once(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let page = browser.open(&client.authorize_path(&[])).await;
    let csrf = page.hidden_field("csrf");
    let form = [("csrf", csrf.as_str()), ("decision", "allow")];
    let action = form_action(&page);
    let (one, two) = tokio::join!(browser.post(&action, &form), browser.post(&action, &form));
    let completed = [&one, &two].iter().filter(|response| response.status == StatusCode::SEE_OTHER).count();
    assert_eq!(completed, 1, "{} {}", one.status, two.status);
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants").await, 1);
    assert_eq!(browser.get(&action).await.status, StatusCode::BAD_REQUEST, "the request is completed");
    app.finish().await;
}

async fn a_denied_request_grants_nothing(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let page = browser.open(&client.authorize_path(&[])).await;
    let response =
        browser.post(&form_action(&page), &[("csrf", &page.hidden_field("csrf")), ("decision", "deny")]).await;
    assert_eq!(response.parameter("error").as_deref(), Some("access_denied"));
    assert_eq!(response.parameter("state").as_deref(), Some("a b&c"));
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM audit_events WHERE act = 'grant.refuse'").await, 1);
    assert_eq!(browser.open(&client.authorize_path(&[])).await.status, StatusCode::OK, "the user is asked again");
    app.finish().await;
}

#[tokio::test]
async fn the_page_names_the_client_the_scopes_and_the_redirect() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let page = browser.open(&client.authorize_path(&[("scope", "walk:read")])).await;
    for text in ["Test client", "127.0.0.1:3999", "anna@example.com", "View your walkthroughs and your progress"] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    assert!(page.body.contains("its identity cannot be verified"), "the page warns about a program on this machine");
    let policy = page.header("content-security-policy");
    assert!(policy.contains("form-action 'self' http://127.0.0.1:3999;"), "{policy}");
    app.finish().await;
}

#[tokio::test]
async fn a_request_belongs_to_its_browser() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (victim, _) = EndUserBrowser::signed_in(&server, "victim").await;
    let (attacker, _) = EndUserBrowser::signed_in(&server, "attacker").await;
    let page = attacker.open(&client.authorize_path(&[])).await;
    let (action, csrf) = (form_action(&page), page.hidden_field("csrf"));
    // The victim opens the attacker's request: nothing is shown and nothing happens.
    assert_eq!(victim.get(&action).await.status, StatusCode::BAD_REQUEST);
    victim.get(&client.authorize_path(&[])).await.location();
    assert_eq!(victim.get(&action).await.status, StatusCode::BAD_REQUEST);
    let form = [("csrf", csrf.as_str()), ("decision", "allow")];
    assert_eq!(victim.post(&action, &form).await.status, StatusCode::BAD_REQUEST);
    // A form without its token, or with the token of another request, is rejected.
    for csrf in ["", "AAAA", &victim.open(&client.authorize_path(&[])).await.hidden_field("csrf")] {
        let response = attacker.post(&action, &[("csrf", csrf), ("decision", "allow")]).await;
        assert_eq!(response.status, StatusCode::FORBIDDEN);
    }
    assert_eq!(app.count("SELECT count(*) FROM oauth_grants").await, 0);
    app.advance_clock(31 * 60 * 1_000).await;
    assert_eq!(attacker.post(&action, &form).await.status, StatusCode::BAD_REQUEST, "expired");
    app.finish().await;
}

#[tokio::test]
async fn a_session_is_valid_for_one_organisation() {
    let app = App::new().await;
    let (acme, other) = (create_sign_in_server(&app, "acme").await, create_sign_in_server(&app, "other").await);
    let client = OauthClient::register(&other).await;
    let (browser, _) = EndUserBrowser::signed_in(&acme, "anna").await;
    let response = browser.get(&client.authorize_path(&[])).await;
    assert!(response.location().starts_with("/s/other/oauth/sign-in"), "{}", response.location());
    // The cookie is not accepted under the other organisation's name either.
    let stolen = browser.cookie(&format!("__Host-wp_eu_{}", acme.org.id)).unwrap();
    browser.set_cookie(&format!("__Host-wp_eu_{}", other.org.id), &stolen);
    let response = browser.get(&client.authorize_path(&[])).await;
    assert!(response.location().starts_with("/s/other/oauth/sign-in"), "{}", response.location());
    // A browser session lasts 30 days.
    app.advance_clock(29 * DAY).await;
    let client = OauthClient::register(&acme).await;
    assert_eq!(browser.open(&client.authorize_path(&[])).await.status, StatusCode::OK);
    app.advance_clock(DAY - 1).await;
    assert_eq!(browser.open(&client.authorize_path(&[])).await.status, StatusCode::OK);
    app.advance_clock(1).await;
    let client = OauthClient::register(&acme).await;
    assert!(browser.get(&client.authorize_path(&[])).await.location().starts_with("/s/acme/oauth/sign-in"));
    app.finish().await;
}

/// AS-12: additional scopes need new consent and do not affect existing grants.
#[tokio::test]
async fn additional_scopes_need_consent_and_keep_existing_grants() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register_at(&server, WEB_CALLBACK).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let response = client.exchange(&client.get_code(&browser, &[("scope", "walk:read")]).await).await;
    assert_eq!(response.json()["scope"], "walk:read");
    let reading = Tokens::from_response(&response);
    let rejected = super::start_walkthrough(&server, Some(&reading.access)).await;
    assert_eq!(rejected.status, StatusCode::FORBIDDEN);
    assert_eq!(
        rejected.header("www-authenticate"),
        "Bearer resource_metadata=\"http://localhost:8080/.well-known/oauth-protected-resource/s/acme/mcp\", \
         scope=\"walk\", error=\"insufficient_scope\"",
        "RS-7"
    );
    assert_eq!(browser.open(&client.authorize_path(&[("scope", "walk walk:read")])).await.status, StatusCode::OK);
    let more = client.exchange(&client.get_code(&browser, &[("scope", "walk walk:read")]).await).await;
    assert_eq!(more.json()["scope"], "walk walk:read");
    assert_eq!(
        super::start_walkthrough(&server, Some(&Tokens::from_response(&more).access)).await.status,
        StatusCode::OK
    );
    // The first grant remains valid, and a subset of the allowed scopes needs no new consent.
    Tokens::from_response(&client.refresh(&reading.refresh).await);
    let response = browser.open(&client.authorize_path(&[("scope", "walk:read")])).await;
    assert!(response.location().starts_with(WEB_CALLBACK));
    app.finish().await;
}

/// An attacker guesses labels after the server has switched to sign-in. The guesses give no progress, and the
/// responses do not reveal which labels exist. With the organisation's link the progress is claimed once, after the
/// page has announced it.
async fn a_label_can_only_be_claimed_with_a_signed_link(app: App) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    let before = server.personal("ann");
    before.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    before.call("next_walkthrough_step", json!({})).await.ok();
    super::require_sign_in(&server).await;
    let client = OauthClient::register_at(&server, WEB_CALLBACK).await;
    let position = async |tokens: &Tokens| {
        let response = super::start_walkthrough(&server, Some(&tokens.access)).await.json();
        response["result"]["structuredContent"]["step"]["position"].clone()
    };
    let (attacker, _) = EndUserBrowser::signed_in(&server, "mallory").await;
    client.get_code(&attacker, &[]).await;
    let key = SecretKey::new([0; 32]);
    let now = app.cx().now();
    let forged = ClaimLink::sign(&key, &server.org.id, &server.id, "ann", now, DAY).segment();
    for guess in ["ann", "nobody", &forged, &format!("claim~ann~1~9999999999999~{}", "A".repeat(43))] {
        let resource = format!("http://localhost:8080/s/acme/t/{guess}/mcp");
        let response = attacker.open(&client.authorize_path(&[("resource", &resource)])).await;
        assert!(response.location().starts_with(WEB_CALLBACK), "{guess}: the same response for all: {}", response.body);
        let tokens = Tokens::from_response(&client.exchange(&response.parameter("code").unwrap()).await);
        assert_eq!(position(&tokens).await, 1, "{guess}");
    }
    assert_eq!(app.count("SELECT count(*) FROM joins").await, 0);
    assert_eq!(app.count("SELECT count(*) FROM authorization_requests WHERE tracking_id IS NOT NULL").await, 0);

    let (first, _) = EndUserBrowser::signed_in(&server, "anna").await;
    client.get_code(&first, &[]).await;
    let link = create_claim_link(&server, "ann").await;
    // The metadata for the link names the link as the resource.
    let path = link.strip_prefix("http://localhost:8080").unwrap();
    let metadata = first.get(&format!("/.well-known/oauth-protected-resource{path}")).await.json();
    assert_eq!(metadata["resource"], link);
    let resource = [("resource", link.as_str())];
    // The client is already allowed, but consent is asked because the page must announce the claim.
    let page = first.open(&client.authorize_path(&resource)).await;
    assert!(page.status == StatusCode::OK && page.body.contains("ann"), "{}", page.body);
    let tokens = Tokens::from_response(&client.exchange(&client.get_code(&first, &resource).await).await);
    assert_eq!(position(&tokens).await, 2);
    assert_eq!(app.count("SELECT count(*) FROM audit_events WHERE act = 'join.create'").await, 1);
    assert_eq!(
        app.count("SELECT count(*) FROM oauth_grants WHERE resource LIKE '%claim%'").await,
        0,
        "the claim is not stored"
    );
    // After the claim, the response is the same as for an unknown label.
    let response = attacker.open(&client.authorize_path(&resource)).await;
    assert!(response.location().starts_with(WEB_CALLBACK), "the response reveals nothing");
    let tokens = Tokens::from_response(&client.exchange(&response.parameter("code").unwrap()).await);
    assert_eq!(position(&tokens).await, 1);
    let text = metrics.render();
    for (reason, count) in [("unsigned", 2), ("invalid", 2), ("spent", 1)] {
        let line = format!("waypost_claims_rejected_total{{reason=\"{reason}\"}} {count}");
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    app.finish().await;
}

/// Creates a claim link and returns its URL.
async fn create_claim_link(server: &Server, label: &str) -> String {
    let (cx, ops) = (server.app.cx(), server.app.ops());
    let key = SecretKey::new([7; 32]);
    let created = claim_links::create(cx, &ops, &key, &server.org.id, &server.id, label, 3_600_000).await;
    let (_, link) = created.unwrap();
    format!("http://localhost:8080/s/{}/t/{}/mcp", server.slug, link.segment())
}

/// Without sign-in a claim link identifies the same end user as its label. It cannot be turned into a console test
/// ID.
async fn a_claim_link_without_sign_in_acts_as_its_label(app: App) {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    let link = create_claim_link(&server, "ann").await;
    let segment = link.split('/').nth(6).unwrap().to_owned();
    server.personal(&segment).call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    server.personal("ann").call("next_walkthrough_step", json!({})).await.ok();
    assert_eq!(app.query_lines("SELECT tracking_id FROM end_users").await.trim(), "ann");
    let forged = segment.replacen("~ann~", "~test~usr_1~", 1);
    let path = format!("/s/acme/t/{forged}/mcp");
    let response = super::post_json(&app, &path, &json!({})).await;
    assert_eq!(response.status, StatusCode::NOT_FOUND, "{}", response.body);
    app.finish().await;
}

/// An ID generated by the public page is a secret, so its holder needs no link.
async fn a_generated_personal_url_is_claimed_by_its_holder(app: App) {
    let server = app.server("acme").await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    let id = PersonalId::new(&SeededRandom::new(5));
    let before = server.personal(id.expose());
    before.call("select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await.ok();
    super::require_sign_in(&server).await;
    let client = OauthClient::register_at(&server, WEB_CALLBACK).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let resource = format!("http://localhost:8080/s/acme/t/{}/mcp", id.expose());
    client.get_code(&browser, &[("resource", &resource)]).await;
    assert_eq!(app.count("SELECT count(*) FROM joins WHERE kind = 'tracking'").await, 1);
    app.finish().await;
}
