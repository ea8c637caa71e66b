//! Signing in to the console with GitHub and with an OpenID Connect provider. Both providers run in the test process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Form, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::{HeaderMap, StatusCode, header};
use openidconnect::core::{CoreEdDsaPrivateSigningKey, CoreJwsSigningAlgorithm};
use openidconnect::{JsonWebKeyId, PrivateSigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use url::Url;
use waypost_console::providers::{Github, Provider, ProviderKind};
use waypost_core::organization::{Role, SignUpPolicy};
use waypost_core::seal::SecretText;
use waypost_ops::user_accounts::create_account_link;
use waypost_ops::users;

use super::{ConsoleBrowser, ConsoleResponse};
use crate::app::{App, START, Setup};

/// The claims and emails that the provider returns, and its issued codes with their PKCE challenge and nonce.
struct ProviderState {
    claims: Value,
    emails: Value,
    codes: HashMap<String, (String, String)>,
}

#[derive(Clone)]
struct FakeProvider {
    origin: String,
    state: Arc<Mutex<ProviderState>>,
}

impl FakeProvider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let emails = json!([{"email": "other@example.com", "primary": false, "verified": true},
            {"email": "anna@example.com", "primary": true, "verified": true}]);
        let state = ProviderState { claims: json!({}), emails, codes: HashMap::new() };
        let provider = Self { origin, state: Arc::new(Mutex::new(state)) };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(|| async { Json(json!({ "keys": [signing_key().as_verification_key()] })) }))
            .route("/token", post(token))
            .route("/login/oauth/access_token", post(token))
            .route(
                "/user",
                get(|headers: HeaderMap| async move { github_response(&headers, json!({"id": 7, "login": "anna"})) }),
            )
            .route("/user/emails", get(get_emails))
            .with_state(provider.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        provider
    }

    fn providers(&self) -> Vec<Provider> {
        let provider = |key, name: &str, kind| Provider {
            key,
            name: name.to_owned(),
            kind,
            client_id: "waypost".to_owned(),
            client_secret: SecretText::new("secret"),
        };
        let github = Github { site: self.origin.clone(), api: self.origin.clone() };
        vec![
            provider("github", "GitHub", ProviderKind::Github(github)),
            provider("openid", "Acme ID", ProviderKind::Openid { issuer: self.origin.clone() }),
        ]
    }

    async fn start_app(&self, sign_up: SignUpPolicy) -> App {
        App::with(Setup { sign_up, providers: self.providers(), ..Setup::default() }).await
    }

    /// Starts a login with `provider` and authorizes it. Returns the path of the callback.
    async fn authorize(&self, browser: &ConsoleBrowser, provider: &str) -> String {
        let redirect = browser.get(&format!("/login/with/{provider}?next=/account")).await;
        let url = Url::parse(redirect.assert_status(303).location()).unwrap();
        let parameters: HashMap<_, _> = url.query_pairs().into_owned().collect();
        let callback = format!("http://localhost:8080/login/with/{provider}/callback");
        assert_eq!((&parameters["redirect_uri"], parameters["code_challenge_method"].as_str()), (&callback, "S256"));
        let code = format!("code-{}", parameters["state"]);
        let nonce = parameters.get("nonce").cloned().unwrap_or_default();
        self.state.lock().unwrap().codes.insert(code.clone(), (parameters["code_challenge"].clone(), nonce));
        format!("/login/with/{provider}/callback?code={code}&state={}", parameters["state"])
    }

    async fn sign_in(&self, browser: &ConsoleBrowser, provider: &str) -> ConsoleResponse {
        let callback_path = self.authorize(browser, provider).await;
        browser.get(&callback_path).await
    }

    fn set_claims(&self, claims: Value) {
        self.state.lock().unwrap().claims = claims;
    }
}

fn signing_key() -> CoreEdDsaPrivateSigningKey {
    // PKCS #8 of an Ed25519 key (RFC 8410, section 7).
    let der = [&hex("302e020100300506032b657004220420")[..], &[1; 32]].concat();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(&der));
    CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, Some(JsonWebKeyId::new("key".to_owned()))).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

async fn metadata(State(provider): State<FakeProvider>) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", provider.origin);
    Json(json!({
        "issuer": provider.origin, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "jwks_uri": at("/keys"), "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
    }))
}

async fn token(State(provider): State<FakeProvider>, Form(form): Form<HashMap<String, String>>) -> Response {
    let mut state = provider.state.lock().unwrap();
    let verifier = BASE64URL_NOPAD.encode(&Sha256::digest(form["code_verifier"].as_bytes()));
    let known = state.codes.remove(&form["code"]).filter(|(challenge, _)| *challenge == verifier);
    let Some((_, nonce)) = known else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    let now = START.0 / 1_000;
    let mut claims = json!({
        "iss": provider.origin, "sub": "anna", "aud": "waypost", "iat": now, "exp": now + 300, "nonce": nonce,
        "name": "Anna", "email": "anna@example.com", "email_verified": true,
    });
    for (name, value) in state.claims.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encode(&json!({"alg": "EdDSA", "kid": "key"})), encode(&claims));
    let signature = signing_key().sign(&CoreJwsSigningAlgorithm::EdDsa, signed.as_bytes()).unwrap();
    let id_token = format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature));
    Json(json!({"access_token": "access", "token_type": "Bearer", "id_token": id_token})).into_response()
}

fn github_response(headers: &HeaderMap, response: Value) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != "Bearer access") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(response).into_response()
}

async fn get_emails(State(provider): State<FakeProvider>, headers: HeaderMap) -> Response {
    github_response(&headers, provider.state.lock().unwrap().emails.clone())
}

#[tokio::test]
async fn a_provider_signs_in_the_member_by_email() {
    let fake = FakeProvider::start().await;
    for provider in ["github", "openid"] {
        let app = fake.start_app(SignUpPolicy::Invite).await;
        let org = app.org("acme").await;
        let member = users::create(app.cx(), &app.ops(), &org.id, "Anna@example.com", Role::Owner).await.unwrap();
        let browser = ConsoleBrowser::new(&app);
        browser
            .get_page("/login?next=/account")
            .await
            .assert_contains("Continue with GitHub")
            .assert_contains("Continue with Acme ID");
        fake.sign_in(&browser, provider).await.assert_redirect("/account");
        browser.get_page("/account").await.assert_contains("Anna@example.com");
        // The identity is linked now, so a different email at the provider does not matter.
        fake.set_claims(json!({"email": "new@example.com"}));
        let again = ConsoleBrowser::new(&app);
        fake.sign_in(&again, provider).await.assert_redirect("/account");
        again.get_page("/account").await.assert_contains("Anna@example.com");
        fake.set_claims(json!({}));
        assert_eq!(app.count("SELECT count(*) FROM users").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM user_identities").await, 1);
        assert!(users::resolve(app.cx(), &app.ops(), &org.id, member.user_id.as_str()).await.is_ok());
        app.finish().await;
    }
}

#[tokio::test]
async fn unknown_accounts_follow_the_sign_up_setting() {
    let fake = FakeProvider::start().await;
    let app = fake.start_app(SignUpPolicy::Invite).await;
    fake.sign_in(&ConsoleBrowser::new(&app), "openid").await.assert_status(403).assert_contains("by invitation");
    assert_eq!(app.count("SELECT count(*) FROM users").await, 0);
    app.finish().await;
    let app = fake.start_app(SignUpPolicy::Open).await;
    fake.set_claims(json!({"email_verified": false}));
    fake.sign_in(&ConsoleBrowser::new(&app), "openid")
        .await
        .assert_status(403)
        .assert_contains("has not verified your email");
    fake.set_claims(json!({}));
    let browser = ConsoleBrowser::new(&app);
    fake.sign_in(&browser, "openid").await.assert_redirect("/account");
    fake.state.lock().unwrap().emails = json!([{"email": "anna@example.com", "primary": true, "verified": false}]);
    fake.sign_in(&ConsoleBrowser::new(&app), "github").await.assert_status(403);
    app.finish().await;
}

#[tokio::test]
async fn a_login_state_works_once_for_one_browser_and_provider() {
    let fake = FakeProvider::start().await;
    let app = fake.start_app(SignUpPolicy::Open).await;
    let browser = ConsoleBrowser::new(&app);
    let callback_path = fake.authorize(&browser, "openid").await;
    ConsoleBrowser::new(&app).get(&callback_path).await.assert_status(404).assert_contains("in another browser");
    browser.get(&callback_path).await.assert_redirect("/account");
    browser.get(&callback_path).await.assert_status(404);
    let callback_path = fake.authorize(&browser, "openid").await;
    browser.get(&callback_path.replace("/openid/", "/github/")).await.assert_status(404);
    let callback_path = fake.authorize(&browser, "openid").await;
    browser
        .get(&format!("{callback_path}&iss=https://evil.example"))
        .await
        .assert_status(403)
        .assert_contains("a different provider");
    let callback_path = fake.authorize(&browser, "openid").await;
    browser
        .get(&format!("{callback_path}&error=access_denied"))
        .await
        .assert_status(403)
        .assert_contains("Acme ID did not sign you in");
    let callback_path = fake.authorize(&browser, "openid").await;
    app.advance_clock(15 * 60 * 1_000).await;
    browser.get(&callback_path).await.assert_status(404);
    browser.get("/login/with/other").await.assert_status(404);
    app.finish().await;
}

#[tokio::test]
async fn repeated_logins_replace_rows_of_the_same_network() {
    let fake = FakeProvider::start().await;
    let app = fake.start_app(SignUpPolicy::Open).await;
    let browser = ConsoleBrowser::new(&app);
    for n in 0..310 {
        if n % 100 == 0 {
            // Avoids the separate per-minute limit.
            app.advance_clock(60_000).await;
        }
        ConsoleBrowser::new(&app).get("/login/with/github").await.assert_status(303);
    }
    assert_eq!(app.count("SELECT count(*) FROM user_sign_ins").await, 300);
    assert_eq!(app.count("SELECT count(*) FROM user_sign_ins WHERE length(network) = 22").await, 300, "a keyed hash");
    let callback_path = fake.authorize(&browser, "openid").await;
    app.advance_clock(60_000).await;
    browser.get(&callback_path).await.assert_redirect("/account");
    app.finish().await;
}

#[tokio::test]
async fn invalid_id_tokens_are_rejected() {
    let fake = FakeProvider::start().await;
    let app = fake.start_app(SignUpPolicy::Open).await;
    for wrong in [
        json!({"nonce": "other"}),
        json!({"aud": "other"}),
        json!({"iss": "https://evil.example"}),
        json!({"exp": 1}),
        json!({"azp": "other"}),
    ] {
        fake.set_claims(wrong.clone());
        let response = fake.sign_in(&ConsoleBrowser::new(&app), "openid").await;
        assert_eq!(response.status, 403, "{wrong}: {}", response.body);
    }
    assert_eq!(app.count("SELECT count(*) FROM users").await, 0);
    app.finish().await;
}

/// An account created with a link might not belong to the owner of the email, so its password and sessions are revoked.
#[tokio::test]
async fn the_first_provider_sign_in_revokes_the_earlier_password() {
    const PASSWORD: &str = "quartz-banjo-umbrella-42";
    let fake = FakeProvider::start().await;
    let app = fake.start_app(SignUpPolicy::Invite).await;
    let org = app.org("acme").await;
    let member = users::create(app.cx(), &app.ops(), &org.id, "anna@example.com", Role::Owner).await.unwrap();
    let link = create_account_link(app.cx(), &app.ops(), &org.id, &member.user_id).await.unwrap();
    let earlier_browser = ConsoleBrowser::new(&app);
    let fields = [("token", link.token.as_str()), ("name", "Mallory"), ("password", PASSWORD)];
    earlier_browser.post("/link", &fields).await.assert_redirect("/");
    let browser = ConsoleBrowser::new(&app);
    fake.sign_in(&browser, "openid").await.assert_redirect("/account");
    earlier_browser.get("/account").await.assert_redirect("/login?next=%2Faccount");
    earlier_browser.post("/login", &[("email", "anna@example.com"), ("password", PASSWORD)]).await.assert_status(422);
    browser.get_page("/account").await.assert_contains("You have no password yet");
    browser.post("/account/password", &[("new_password", PASSWORD)]).await.assert_redirect("/account");
    fake.sign_in(&ConsoleBrowser::new(&app), "openid").await.assert_redirect("/account");
    earlier_browser.post("/login", &[("email", "anna@example.com"), ("password", PASSWORD)]).await.assert_redirect("/");
    app.finish().await;
}
