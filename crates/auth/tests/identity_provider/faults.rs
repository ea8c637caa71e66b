//! Tests of providers that are down, slow or send invalid data.

use http::StatusCode;
use serde_json::{Value, json};
use waypost_core::server::Server;

use crate::fixture::{BROWSER, Fixture, NOW, Page, fixture, parameter};

/// Asserts that the login failed and that the page shows the reason and the next steps.
#[track_caller]
fn assert_failed(page: &Page, reason: &str) {
    assert_eq!((page.status, page.session.as_deref()), (StatusCode::BAD_GATEWAY, None), "{}", page.text);
    assert!(page.text.contains(reason), "{reason}: {}", page.text);
    assert!(page.text.contains("/s/acme-docs/oauth/upstream?request=arq_"), "a link to try again");
    assert!(page.text.contains("http://127.0.0.1:4000/callback?own=1"), "a link back to the client");
    for secret in ["upstream-access", "upstream-refresh", "code-", "hunter2", "Client <1>"] {
        assert!(!page.text.contains(secret), "{secret}: {}", page.text);
    }
}

async fn ready(fixture: &Fixture) -> Server {
    fixture.configure(&fixture.settings()).await;
    fixture.server("acme-docs").await
}

async fn the_claims_of_the_token_are_validated(fixture: Fixture) {
    let server = ready(&fixture).await;
    let seconds = NOW.0 / 1_000;
    for (claims, reason) in [
        (json!({"nonce": "another"}), "another sign-in"),
        (json!({"nonce": null}), "another sign-in"),
        (json!({"aud": "somebody"}), "meant for another client"),
        (json!({"aud": ["waypost", "somebody"]}), "meant for another client"),
        (json!({"azp": "somebody"}), "was issued to"),
        (json!({"iss": "https://evil.example"}), "by another issuer"),
        (json!({"exp": seconds - 61}), "has expired"),
        (json!({"sub": null}), "returned no tokens"),
        (json!({"sub": ""}), "does not identify a user"),
    ] {
        fixture.provider.set().claims = claims.clone();
        let page = fixture.sign_in(&server).await;
        assert_failed(&page, reason);
    }
    assert_eq!(fixture.query_number("SELECT count(*) FROM identities").await, 0);
    assert_eq!(fixture.query_number("SELECT count(*) FROM identity_provider_tokens").await, 0);
    // A small clock skew is tolerated.
    fixture.provider.set().claims = json!({"exp": seconds - 30, "azp": "waypost"});
    fixture.session_of(&fixture.sign_in(&server).await).await;
}

async fn the_signature_of_the_token_is_validated(fixture: Fixture) {
    let server = ready(&fixture).await;
    for header in [json!({"alg": "none"}), json!({"alg": "HS256"}), json!({"alg": "HS256", "kid": "key-1"})] {
        fixture.provider.set().header = Some(header.clone());
        let page = fixture.sign_in(&server).await;
        assert_eq!((page.status, page.session), (StatusCode::BAD_GATEWAY, None), "{header}");
    }
    // Signed with another key than the one it specifies.
    fixture.advance_clock(11_000);
    fixture.provider.set().header = Some(json!({"alg": "EdDSA", "kid": "key-1"}));
    fixture.provider.set().key = 9;
    assert_failed(&fixture.sign_in(&server).await, "signature of its token is invalid");
    // Without an ID token, the login fails, even though there is a userinfo endpoint.
    fixture.provider.set().id_token = false;
    assert_failed(&fixture.sign_in(&server).await, "no ID token");
    assert_eq!(fixture.query_number("SELECT count(*) FROM identities").await, 0);
}

async fn an_unknown_key_causes_a_refetch_but_not_too_often(fixture: Fixture) {
    let server = ready(&fixture).await;
    let before = fixture.provider.request_count("keys");
    fixture.session_of(&fixture.sign_in(&server).await).await;
    fixture.session_of(&fixture.sign_in(&server).await).await;
    assert_eq!(fixture.provider.request_count("keys"), before + 1, "keys are cached");
    {
        let mut provider = fixture.provider.set();
        (provider.key, provider.published) = (2, vec![1, 2]);
    }
    fixture.session_of(&fixture.sign_in(&server).await).await;
    assert_eq!(fixture.provider.request_count("keys"), before + 2, "an unknown key causes a refetch");
    {
        let mut provider = fixture.provider.set();
        (provider.key, provider.published) = (3, vec![1, 2, 3]);
    }
    assert_failed(&fixture.sign_in(&server).await, "a key that it does not publish");
    assert_eq!(fixture.provider.request_count("keys"), before + 2, "keys were refetched a moment ago");
    fixture.advance_clock(10_000);
    fixture.session_of(&fixture.sign_in(&server).await).await;
    assert_eq!(fixture.provider.request_count("keys"), before + 3);
    fixture.advance_clock(60 * 60 * 1_000);
    fixture.provider.set().key = 1;
    fixture.session_of(&fixture.sign_in(&server).await).await;
    assert_eq!(fixture.provider.request_count("keys"), before + 4, "an hour later they are fetched again");
}

async fn userinfo_of_another_user_is_rejected(fixture: Fixture) {
    let server = ready(&fixture).await;
    fixture.provider.set().claims = json!({"name": null});
    fixture.provider.set().userinfo["sub"] = "bert".into();
    assert_failed(&fixture.sign_in(&server).await, "another user than its token");
    fixture.provider.set().userinfo["sub"] = "anna".into();
    let session = fixture.session_of(&fixture.sign_in(&server).await).await;
    assert_eq!(session.name.as_deref(), Some("Anna"), "from userinfo");
    fixture.provider.set().userinfo = Value::Null;
    assert_failed(&fixture.sign_in(&server).await, "no JSON object");
}

async fn a_provider_that_rejects_or_returns_invalid_data(fixture: Fixture) {
    let server = ready(&fixture).await;
    for (status, response, reason) in [
        (StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}), "invalid_grant"),
        (
            StatusCode::UNAUTHORIZED,
            json!({"error": "invalid_client", "error_description": "hunter2"}),
            "invalid_client",
        ),
        (StatusCode::BAD_REQUEST, json!({"error": "hunter2"}), "rejected the request"),
        (StatusCode::OK, json!(["code-1"]), "returned no tokens"),
        (StatusCode::FOUND, json!({}), "returned no tokens"),
        (StatusCode::INTERNAL_SERVER_ERROR, json!("upstream-access"), "returned no tokens"),
    ] {
        fixture.provider.set().token = Some((status, response));
        assert_failed(&fixture.sign_in(&server).await, reason);
    }
}

async fn a_provider_that_is_down(fixture: Fixture) {
    let server = ready(&fixture).await;
    // Nothing listens on port 9 of the loopback interface.
    fixture.execute("UPDATE oauth_configs SET token_endpoint = 'http://127.0.0.1:9/token'").await;
    let page = fixture.sign_in(&server).await;
    assert_failed(&page, "Acme ID did not respond");
    assert_failed(&page, "cannot be reached");
    // A link-local address in the database: no connection is attempted.
    fixture.execute("UPDATE oauth_configs SET token_endpoint = 'https://169.254.169.254/token'").await;
    assert_failed(&fixture.sign_in(&server).await, "not on the public internet");
}

/// The provider pauses and advances the time while nothing but the request to it is waiting.
#[tokio::test(flavor = "current_thread")]
async fn a_provider_that_is_slow() {
    let folder = waypost_testkit::folder();
    let fixture = fixture(&waypost_testkit::sqlite_url(&folder)).await;
    let server = ready(&fixture).await;
    fixture.provider.set().hangs = true;
    assert_failed(&fixture.sign_in(&server).await, "did not respond in time");
}

async fn an_error_instead_of_a_code_fails_the_login(fixture: Fixture) {
    let server = ready(&fixture).await;
    let back = async |query: &str| {
        let request = fixture.request(&server, true).await;
        let target = fixture.begin_login(&server, &request).await;
        let path = format!("callback?{query}&state={}", parameter(&target, "state"));
        (fixture.get(&server, &path, BROWSER).await, request)
    };
    // RFC 6749, 4.1.2.1: the user denied access. Waypost forwards this to the client with its own state and issuer.
    let (page, request) = back("error=access_denied&error_description=%3Cb%3E").await;
    assert_eq!(
        page.location.as_deref(),
        Some(
            "http://127.0.0.1:4000/callback?own=1&error=access_denied&state=of+the+client\
             &iss=http%3A%2F%2Flocalhost%3A8080%2Fs%2Facme-docs"
        )
    );
    let over = fixture.get(&server, &format!("upstream?request={}", request.id), BROWSER).await;
    assert_eq!(over.status, StatusCode::BAD_REQUEST, "the request is closed");
    let (page, _) = back("error=%3Cscript%3E").await;
    assert_failed(&page, "rejected the sign-in");
    assert!(!page.text.contains("<script>"));
    assert_failed(&back("code=").await.0, "");
    assert_failed(&back("foo=bar").await.0, "no code");
    // RFC 9207: a response of another provider.
    assert_failed(&back("code=x&iss=https%3A%2F%2Fevil.example").await.0, "a different identity provider");
    assert_eq!(fixture.provider.request_count("token"), 1, "with the empty code only");
    let request = fixture.request(&server, true).await;
    let target = fixture.begin_login(&server, &request).await;
    let code = fixture.provider.approve(&target);
    let query = format!("callback?code={code}&iss={}&state={}", fixture.provider.issuer, parameter(&target, "state"));
    fixture.session_of(&fixture.get(&server, &query, BROWSER).await).await;
}

async fn a_login_fails_if_the_provider_was_replaced_meanwhile(fixture: Fixture) {
    let server = ready(&fixture).await;
    let request = fixture.request(&server, true).await;
    let target = fixture.begin_login(&server, &request).await;
    let code = fixture.provider.approve(&target);
    let other = waypost_ops::oauth_configs::OauthConfigSettings { name: Some("Other".into()), ..fixture.settings() };
    fixture.configure(&other).await;
    let settings = waypost_ops::servers::ServerSettings { oauth_config: Some("Other".into()), ..Default::default() };
    let changed = waypost_ops::servers::update(&fixture.cx, &fixture.ops, &fixture.organization, &server.id, &settings);
    changed.await.unwrap();
    fixture.poll().await;
    let path = format!("callback?code={code}&state={}", parameter(&target, "state"));
    assert_eq!(fixture.get(&server, &path, BROWSER).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(fixture.provider.request_count("token"), 0);
}

waypost_testkit::both!(fixture => a_login_fails_if_the_provider_was_replaced_meanwhile);
waypost_testkit::both!(extended fixture =>
    the_claims_of_the_token_are_validated,
    the_signature_of_the_token_is_validated,
    an_unknown_key_causes_a_refetch_but_not_too_often,
    userinfo_of_another_user_is_rejected,
    a_provider_that_rejects_or_returns_invalid_data,
    a_provider_that_is_down,
    an_error_instead_of_a_code_fails_the_login,
);
