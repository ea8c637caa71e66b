//! Tests of the login with a provider.

use http::StatusCode;
use waypost_core::oauth_config::TokenAuthMethod;
use waypost_core::seal::SealLocation;
use waypost_ops::oauth_configs::{self, OauthConfigSettings};
use waypost_store::identity;

use crate::fixture::{BROWSER, Fixture, fixture, parameter};

async fn a_user_signs_in_with_openid(fixture: Fixture) {
    fixture.configure(&fixture.settings()).await;
    let server = fixture.server("acme-docs").await;
    let request = fixture.request(&server, true).await;
    let target = fixture.begin_login(&server, &request).await;
    assert_eq!(target.path(), "/authorize");
    for (name, expected) in [
        ("response_type", "code"),
        ("client_id", "waypost"),
        ("redirect_uri", "http://localhost:8080/s/acme-docs/oauth/callback"),
        ("scope", "openid email profile"),
        ("code_challenge_method", "S256"),
        ("login_hint", "anna@acme.example"),
        ("prompt", "login"),
    ] {
        assert_eq!(parameter(&target, name), expected);
    }
    let state = parameter(&target, "state");
    assert!(state.len() >= 43 && parameter(&target, "nonce").len() >= 43 && state != parameter(&target, "nonce"));
    let code = fixture.provider.approve(&target);
    let page = fixture.get(&server, &format!("callback?code={code}&state={state}"), BROWSER).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
    let next = format!("/s/acme-docs/oauth/authorize/continue?request={}", request.id);
    assert_eq!(page.location.as_deref(), Some(next.as_str()));
    let session = fixture.session_of(&page).await;
    assert_eq!((session.name.as_deref(), session.email.as_deref()), (Some("Anna"), Some("anna@acme.example")));
    let (authorization, form) = fixture.provider.set().last.clone().unwrap();
    // RFC 6749, 2.3.1: both are form-encoded first.
    let basic = data_encoding::BASE64.encode(b"waypost:hunter2+%26+co");
    assert_eq!(authorization.as_deref(), Some(format!("Basic {basic}").as_str()));
    assert!(!form.contains_key("client_secret"));
    // A second login yields the same end user.
    let again = fixture.sign_in(&server).await;
    assert_eq!(fixture.session_of(&again).await.end_user_id, session.end_user_id);
}

/// RS-6: only the parameters of the client's request that concern the user reach the provider. The client's state, PKCE
/// challenge, redirect URI and ID do not.
async fn rs_6_nothing_of_the_client_goes_to_the_provider(fixture: Fixture) {
    fixture.configure(&fixture.settings()).await;
    let server = fixture.server("acme-docs").await;
    let request = fixture.request(&server, true).await;
    let target = fixture.begin_login(&server, &request).await;
    let code = fixture.provider.approve(&target);
    let page =
        fixture.get(&server, &format!("callback?code={code}&state={}", parameter(&target, "state")), BROWSER).await;
    fixture.session_of(&page).await;
    let (authorization, form) = fixture.provider.set().last.clone().unwrap();
    let sent: Vec<String> =
        target.query_pairs().map(|(_, value)| value.into_owned()).chain(form.into_values()).collect();
    let own = [request.state.clone().unwrap(), request.code_challenge, request.redirect_uri, request.client_id];
    for value in own {
        assert!(!sent.contains(&value), "{value} is in {sent:?}");
    }
    assert!(authorization.unwrap().starts_with("Basic "), "Waypost authenticates with its own secret");
}

async fn the_tokens_of_the_provider_are_encrypted(fixture: Fixture) {
    let config = fixture.configure(&fixture.settings()).await;
    let server = fixture.server("acme-docs").await;
    let session = fixture.session_of(&fixture.sign_in(&server).await).await;
    let sealed = fixture.query_text("SELECT access_token FROM identity_provider_tokens").await;
    assert!(sealed.starts_with("v1.") && !sealed.contains("upstream-access"));
    let keyring = fixture.ops.keyring().unwrap();
    let place = SealLocation { table: "upstream_tokens", column: "access_token", row: session.identity_id.as_str() };
    assert_eq!(keyring.open_text(&place, &sealed).unwrap().expose(), "upstream-access");
    let place = SealLocation { column: "refresh_token", ..place };
    let sealed = fixture.query_text("SELECT refresh_token FROM identity_provider_tokens").await;
    assert_eq!(keyring.open_text(&place, &sealed).unwrap().expose(), "upstream-refresh");
    let place = SealLocation { table: "oauth_configs", column: "client_secret", row: config.id.as_str() };
    let secret = config.client_secret.unwrap();
    assert_eq!(keyring.open_text(&place, &secret).unwrap().expose(), crate::fixture::CLIENT_SECRET);
    // During a login.
    let request = fixture.request(&server, true).await;
    let target = fixture.begin_login(&server, &request).await;
    let stored = fixture.query_text("SELECT state_hash || ' ' || verifier FROM identity_provider_states").await;
    assert!(!stored.contains(&parameter(&target, "state")), "the state is stored as a hash");
    assert!(stored.contains(" v1."), "the verifier is sealed");
}

async fn a_login_requires_consent(fixture: Fixture) {
    fixture.configure(&fixture.settings()).await;
    let server = fixture.server("acme-docs").await;
    let request = fixture.request(&server, false).await;
    let page = fixture.get(&server, &format!("upstream?request={}", request.id), BROWSER).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    assert!(page.location.unwrap().contains("/oauth/authorize/continue?request="));
    assert_eq!(fixture.query_number("SELECT count(*) FROM identity_provider_states").await, 0);
    let page = fixture.get(&server, &format!("upstream?request={}", request.id), "another-browser").await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
}

async fn a_state_works_once_in_its_own_browser_until_it_expires(fixture: Fixture) {
    fixture.configure(&fixture.settings()).await;
    let (server, other) = (fixture.server("acme-docs").await, fixture.server("acme-more").await);
    let back = async |browser: &str, at: &waypost_core::server::Server, late: i64| {
        let request = fixture.request(&server, true).await;
        let target = fixture.begin_login(&server, &request).await;
        let code = fixture.provider.approve(&target);
        fixture.advance_clock(late);
        let path = format!("callback?code={code}&state={}", parameter(&target, "state"));
        let page = fixture.get(at, &path, browser).await;
        // The state is consumed, regardless of the result.
        let again = fixture.get(&server, &path, BROWSER).await;
        assert_eq!((again.status, again.session), (StatusCode::BAD_REQUEST, None), "replayed");
        page.status
    };
    assert_eq!(back(BROWSER, &server, 0).await, StatusCode::SEE_OTHER);
    assert_eq!(fixture.provider.request_count("token"), 1);
    assert_eq!(back("browser-of-eve", &server, 0).await, StatusCode::BAD_REQUEST, "another browser");
    assert_eq!(back(BROWSER, &other, 0).await, StatusCode::BAD_REQUEST, "another server");
    assert_eq!(back(BROWSER, &server, 15 * 60 * 1_000).await, StatusCode::BAD_REQUEST, "too late");
    assert_eq!(fixture.provider.request_count("token"), 1, "the provider is called only for a valid state");
    for path in ["callback", "callback?code=x", "callback?code=x&state=unknown", "callback?state=a&state=b"] {
        assert_eq!(fixture.get(&server, path, BROWSER).await.status, StatusCode::BAD_REQUEST, "{path}");
    }
}

async fn a_user_signs_in_with_plain_oauth(fixture: Fixture) {
    let config = fixture
        .configure(&OauthConfigSettings { link_verified_email: Some(true), ..fixture.settings_without_metadata() })
        .await;
    let server = fixture.server("acme-docs").await;
    fixture.provider.set().userinfo["email_verified"] = true.into();
    let request = fixture.request(&server, true).await;
    let target = fixture.begin_login(&server, &request).await;
    let names: Vec<_> = target.query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert!(!names.iter().any(|name| ["nonce", "prompt", "login_hint", "scope"].contains(&name.as_str())), "{names:?}");
    let code = fixture.provider.approve(&target);
    let path = format!("callback?code={code}&state={}", parameter(&target, "state"));
    let page = fixture.get(&server, &path, BROWSER).await;
    let session = fixture.session_of(&page).await;
    // Plain OAuth does not verify an email, so it links no identities.
    assert_eq!((session.name.as_deref(), session.email), (Some("Anna"), None));
    assert!(!config.can_link_by_email());
    let issuer = format!("oauth2:{}", fixture.provider.issuer);
    let mut conn = fixture.ops.store().read().await.unwrap();
    let identity = identity::find(&mut conn, &fixture.organization, &issuer, "7").await.unwrap().unwrap();
    assert_eq!((identity.id, identity.email_verified), (session.identity_id, false));
}

async fn a_public_client_sends_no_secret(fixture: Fixture) {
    let settings = OauthConfigSettings { client_secret: None, ..fixture.settings() };
    let config = fixture.configure(&settings).await;
    assert_eq!(config.token_auth_method, TokenAuthMethod::None);
    let server = fixture.server("acme-docs").await;
    fixture.session_of(&fixture.sign_in(&server).await).await;
    let (authorization, form) = fixture.provider.set().last.clone().unwrap();
    assert_eq!((authorization, form["client_id"].as_str()), (None, "waypost"));
    let post = OauthConfigSettings {
        client_secret: fixture.settings().client_secret,
        token_auth_method: Some(TokenAuthMethod::ClientSecretPost),
        ..OauthConfigSettings::default()
    };
    oauth_configs::update(&fixture.cx, &fixture.ops, &config, &post).await.unwrap();
    fixture.session_of(&fixture.sign_in(&server).await).await;
    let (authorization, form) = fixture.provider.set().last.clone().unwrap();
    assert_eq!((authorization, form["client_secret"].as_str()), (None, crate::fixture::CLIENT_SECRET));
}

waypost_testkit::both!(fixture => a_state_works_once_in_its_own_browser_until_it_expires);
waypost_testkit::both!(extended fixture =>
    a_user_signs_in_with_openid,
    rs_6_nothing_of_the_client_goes_to_the_provider,
    the_tokens_of_the_provider_are_encrypted,
    a_login_requires_consent,
    a_user_signs_in_with_plain_oauth,
    a_public_client_sends_no_secret,
);
