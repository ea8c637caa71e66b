//! The authorization endpoint: AS-3 to AS-6 and AS-16.

use http::StatusCode;

use super::{CALLBACK, EndUserBrowser, OauthClient, WEB_CALLBACK, create_sign_in_server};
use crate::app::{App, DAY, open};

waypost_testkit::both!(extended open => a_request_leads_through_sign_in_to_a_code);

async fn a_request_leads_through_sign_in_to_a_code(app: App) {
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let browser = EndUserBrowser::new(&app);
    let response = browser.get(&client.authorize_path(&[])).await;
    assert!(response.location().starts_with("/s/acme/oauth/sign-in?request=arq_"), "{}", response.location());
    browser.sign_in(&server, "anna").await;
    let response = browser.open(&client.authorize_path(&[])).await;
    assert_eq!(response.status, StatusCode::OK, "the user is asked for consent");
    let code = client.get_code(&browser, &[]).await;
    assert!(code.starts_with("wpc_"));
    // RFC 8252, section 8.6: any program on the device can impersonate the client, so consent is asked again.
    let response = browser.open(&client.authorize_path(&[])).await;
    assert_eq!(response.status, StatusCode::OK, "the user is asked for consent again");
    let none = browser.get(&client.authorize_path(&[("prompt", "none")])).await;
    assert_eq!(none.parameter("error").as_deref(), Some("consent_required"));
    let client = OauthClient::register_at(&server, WEB_CALLBACK).await;
    client.get_code(&browser, &[]).await;
    let response = browser.open(&client.authorize_path(&[])).await;
    assert!(response.location().starts_with(&format!("{WEB_CALLBACK}?")), "a known web client needs no consent");
    assert_eq!(response.parameter("state").as_deref(), Some("a b&c"));
    assert_eq!(response.parameter("iss").as_deref(), Some("http://localhost:8080/s/acme"));
    app.finish().await;
}

/// AS-4: with an unknown client or redirect URI the browser is not redirected.
#[tokio::test]
async fn unknown_clients_and_redirect_uris_get_a_page() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let other = create_sign_in_server(&app, "other").await;
    let client = OauthClient::register(&server).await;
    let foreign = OauthClient::register(&other).await;
    let browser = EndUserBrowser::new(&app);
    for changes in [
        &[("client_id", "")][..],
        &[("client_id", "client_unknown")],
        &[("client_id", foreign.id.as_str())],
        &[("client_id", "https://127.0.0.1/client.json")],
        &[("client_id", "https://169.254.169.254/latest/meta-data")],
        &[("client_id", "http://app.example/client.json")],
        &[("redirect_uri", "https://evil.example/cb")],
        &[("redirect_uri", "http://127.0.0.1:3999/other")],
        &[("redirect_uri", "http://127.0.0.1:3999/callback/../x")],
        &[("redirect_uri", "http://localhost:3999/callback")],
        &[("redirect_uri", "javascript:alert(1)")],
    ] {
        let response = browser.get(&client.authorize_path(changes)).await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{changes:?}");
        assert!(response.body.contains("This application cannot be connected"), "{}", response.body);
    }
    let twice = format!("{}&client_id=client_x", client.authorize_path(&[]));
    assert_eq!(browser.get(&twice).await.status, StatusCode::BAD_REQUEST, "RFC 6749, section 3.1");
    // Any port is accepted for a loopback redirect URI (RFC 8252, section 7.3).
    let response = browser.get(&client.authorize_path(&[("redirect_uri", "http://127.0.0.1:5000/callback")])).await;
    assert!(response.location().starts_with("/s/acme/oauth/sign-in"));
    let response = browser.get(&client.authorize_path(&[("redirect_uri", "")])).await;
    assert!(response.location().starts_with("/s/acme/oauth/sign-in"), "the only registered redirect URI");
    app.finish().await;
}

/// Errors for requests with a known client and redirect URI, for a signed-in user.
const ERRORS: &[(&[(&str, &str)], &str)] = &[
    (&[("response_type", "token")], "unsupported_response_type"),
    (&[("response_type", "")], "invalid_request"),
    (&[("response_mode", "fragment")], "invalid_request"),
    (&[("code_challenge", "")], "invalid_request"),
    (&[("code_challenge", "short")], "invalid_request"),
    (&[("code_challenge_method", "plain")], "invalid_request"),
    (&[("code_challenge_method", "")], "invalid_request"),
    (&[("scope", "walk admin")], "invalid_scope"),
    (&[("resource", "https://elsewhere.example/mcp")], "invalid_target"),
    (&[("resource", "http://localhost:8080/s/other/mcp")], "invalid_target"),
    (&[("resource", "http://localhost:8080/mcp")], "invalid_target"),
    (&[("request", "eyJ")], "request_not_supported"),
    (&[("request_uri", "https://app.example/r")], "request_uri_not_supported"),
    (&[("prompt", "none")], "consent_required"),
];

#[tokio::test]
async fn other_errors_are_sent_to_the_client() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    create_sign_in_server(&app, "other").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    client.get_code(&browser, &[]).await;
    app.advance_clock(DAY).await;
    for (changes, error) in ERRORS {
        let response = browser.get(&client.authorize_path(changes)).await;
        assert!(response.location().starts_with(&format!("{CALLBACK}?")), "{}", response.location());
        assert_eq!(response.parameter("error").as_deref(), Some(*error), "{changes:?}");
        assert_eq!(response.parameter("state").as_deref(), Some("a b&c"));
        assert_eq!(response.parameter("iss").as_deref(), Some("http://localhost:8080/s/acme"), "AS-5");
        assert_eq!(response.parameter("code"), None);
    }
    let visitor = EndUserBrowser::new(&app).get(&client.authorize_path(&[("prompt", "none")])).await;
    assert_eq!(visitor.parameter("error").as_deref(), Some("login_required"));
    let response = browser.get(&client.authorize_path(&[("state", ""), ("scope", "x")])).await;
    assert_eq!(response.parameter("state"), None, "no state was sent");
    app.finish().await;
}

/// RFC 9700, section 4.11.2: anyone can register a client and would get a redirect from a trusted host to any URL.
#[tokio::test]
async fn a_new_client_gets_no_redirects_before_the_user_consents() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    create_sign_in_server(&app, "other").await;
    let client = OauthClient::register_at(&server, WEB_CALLBACK).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    let visitor = EndUserBrowser::new(&app);
    let none = [("prompt", "none")];
    for (browser, changes, error) in ERRORS
        .iter()
        .map(|(changes, error)| (&browser, *changes, *error))
        .chain(ERRORS[..13].iter().map(|(changes, error)| (&visitor, *changes, *error)))
        .chain([(&visitor, &none[..], "login_required")])
    {
        let page = browser.get(&client.authorize_path(changes)).await;
        assert_eq!((page.status, page.header("location")), (StatusCode::BAD_REQUEST, ""), "{changes:?}");
        assert!(page.body.contains("Test client") && page.body.contains("app.example"), "{}", page.body);
        let link = format!("href=\"{WEB_CALLBACK}?error={error}&");
        assert!(page.body.contains(&link) && page.body.contains("state=a+b%26c"), "{link}: {}", page.body);
        assert!(!page.body.contains("http-equiv"), "the page does not redirect automatically");
    }
    // After consent, only the user who allowed the client is redirected.
    client.get_code(&browser, &[]).await;
    let response = browser.get(&client.authorize_path(&[("scope", "x")])).await;
    assert_eq!(response.parameter("error").as_deref(), Some("invalid_scope"));
    let (other, _) = EndUserBrowser::signed_in(&server, "bea").await;
    for browser in [&other, &visitor] {
        assert_eq!(browser.get(&client.authorize_path(&[("scope", "x")])).await.status, StatusCode::BAD_REQUEST);
    }
    app.advance_clock(DAY - 1).await;
    assert_eq!(visitor.get(&client.authorize_path(&[("scope", "x")])).await.status, StatusCode::BAD_REQUEST);
    app.advance_clock(1).await;
    let response = visitor.get(&client.authorize_path(&[("scope", "x")])).await;
    assert_eq!(response.parameter("error").as_deref(), Some("invalid_scope"), "the client is no longer new");
    app.finish().await;
}

/// Each fetch is a request to a URL chosen by the caller.
#[tokio::test]
async fn document_fetches_are_rate_limited() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let browser = EndUserBrowser::new(&app);
    let mut statuses = Vec::new();
    while statuses.len() < 200 && statuses.last() != Some(&StatusCode::TOO_MANY_REQUESTS) {
        let id = format!("https://10.0.0.1/{}", statuses.len());
        statuses.push(browser.get(&client.authorize_path(&[("client_id", id.as_str())])).await.status);
    }
    assert!(statuses.len() > 60 && statuses.len() < 200, "{}", statuses.len());
    assert_eq!(statuses[59], StatusCode::BAD_REQUEST);
    browser.get(&client.authorize_path(&[])).await.location();
    app.finish().await;
}

/// AS-6: every URL of the server is a valid resource in any equivalent spelling. A missing resource means the server.
#[tokio::test]
async fn equivalent_resource_urls_are_accepted() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register(&server).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    for resource in [
        "",
        "HTTP://LOCALHOST:8080/s/acme/mcp",
        "http://localhost:8080/s/acme/mcp/",
        "http://127.0.0.1:9/s/acme/mcp",
        "http://acme.localhost:8080",
        "http://acme.localhost:8080/",
        "http://acme.localhost:8080/mcp",
    ] {
        client.get_code(&browser, &[("resource", resource)]).await;
    }
    app.finish().await;
}

/// AS-16: `prompt` is honoured, and unknown parameters are ignored.
#[tokio::test]
async fn the_prompt_parameter_is_honoured() {
    let app = App::new().await;
    let server = create_sign_in_server(&app, "acme").await;
    let client = OauthClient::register_at(&server, WEB_CALLBACK).await;
    let (browser, _) = EndUserBrowser::signed_in(&server, "anna").await;
    client.get_code(&browser, &[("unknown", "x"), ("ui_locales", "de")]).await;
    let response = browser.open(&client.authorize_path(&[("prompt", "none")])).await;
    assert!(response.parameter("code").is_some(), "consent is not required");
    let response = browser.open(&client.authorize_path(&[("prompt", "consent")])).await;
    assert_eq!(response.status, StatusCode::OK);
    app.advance_clock(1).await;
    let response = browser.get(&client.authorize_path(&[("prompt", "login")])).await;
    assert!(response.location().starts_with("/s/acme/oauth/sign-in"), "{}", response.location());
    app.finish().await;
}
