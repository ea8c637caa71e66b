//! Signing in to the console with GitHub and with a provider of OpenID Connect, which stand in this process.

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
use waypost_core::organization::{Role, SignUp};
use waypost_core::seal::SecretText;
use waypost_ops::user_accounts::create_account_link;
use waypost_ops::users;
use waypost_web::providers::{Github, Provider, ProviderKind};

use super::{Answer, Browser};
use crate::app::{App, START, Setup};

/// What the provider says, and whom it has sent back: PKCE's challenge and the nonce, by code.
struct Behaviour {
    claims: Value,
    emails: Value,
    codes: HashMap<String, (String, String)>,
}

#[derive(Clone)]
struct Fake {
    origin: String,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let emails = json!([{"email": "other@example.com", "primary": false, "verified": true},
            {"email": "anna@example.com", "primary": true, "verified": true}]);
        let behaviour = Behaviour { claims: json!({}), emails, codes: HashMap::new() };
        let fake = Self { origin, behaviour: Arc::new(Mutex::new(behaviour)) };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(|| async { Json(json!({ "keys": [key().as_verification_key()] })) }))
            .route("/token", post(token))
            .route("/login/oauth/access_token", post(token))
            .route(
                "/user",
                get(|headers: HeaderMap| async move { github(&headers, json!({"id": 7, "login": "anna"})) }),
            )
            .route("/user/emails", get(emails_of))
            .with_state(fake.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        fake
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

    async fn app(&self, sign_up: SignUp) -> App {
        App::with(Setup { sign_up, providers: self.providers(), ..Setup::default() }).await
    }

    /// Leaves for `provider`, agrees there, and gives the address to which the browser is sent back.
    async fn agree(&self, browser: &Browser, provider: &str) -> String {
        let away = browser.get(&format!("/login/with/{provider}?next=/account")).await;
        let url = Url::parse(away.is(303).location()).unwrap();
        let asked: HashMap<_, _> = url.query_pairs().into_owned().collect();
        let callback = format!("http://localhost:8080/login/with/{provider}/callback");
        assert_eq!((&asked["redirect_uri"], asked["code_challenge_method"].as_str()), (&callback, "S256"));
        let code = format!("code-{}", asked["state"]);
        let nonce = asked.get("nonce").cloned().unwrap_or_default();
        self.behaviour.lock().unwrap().codes.insert(code.clone(), (asked["code_challenge"].clone(), nonce));
        format!("/login/with/{provider}/callback?code={code}&state={}", asked["state"])
    }

    async fn sign_in(&self, browser: &Browser, provider: &str) -> Answer {
        let back = self.agree(browser, provider).await;
        browser.get(&back).await
    }

    fn claim(&self, claims: Value) {
        self.behaviour.lock().unwrap().claims = claims;
    }
}

fn key() -> CoreEdDsaPrivateSigningKey {
    // PKCS #8 of an Ed25519 key (RFC 8410, section 7).
    let der = [&hex("302e020100300506032b657004220420")[..], &[1; 32]].concat();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(&der));
    CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, Some(JsonWebKeyId::new("key".to_owned()))).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

async fn metadata(State(fake): State<Fake>) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", fake.origin);
    Json(json!({
        "issuer": fake.origin, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
        "jwks_uri": at("/keys"), "response_types_supported": ["code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA"],
    }))
}

async fn token(State(fake): State<Fake>, Form(form): Form<HashMap<String, String>>) -> Response {
    let mut behaviour = fake.behaviour.lock().unwrap();
    let verifier = BASE64URL_NOPAD.encode(&Sha256::digest(form["code_verifier"].as_bytes()));
    let known = behaviour.codes.remove(&form["code"]).filter(|(challenge, _)| *challenge == verifier);
    let Some((_, nonce)) = known else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    let now = START.0 / 1_000;
    let mut claims = json!({
        "iss": fake.origin, "sub": "anna", "aud": "waypost", "iat": now, "exp": now + 300, "nonce": nonce,
        "name": "Anna", "email": "anna@example.com", "email_verified": true,
    });
    for (name, value) in behaviour.claims.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encode(&json!({"alg": "EdDSA", "kid": "key"})), encode(&claims));
    let signature = key().sign(&CoreJwsSigningAlgorithm::EdDsa, signed.as_bytes()).unwrap();
    let id_token = format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature));
    Json(json!({"access_token": "access", "token_type": "Bearer", "id_token": id_token})).into_response()
}

fn github(headers: &HeaderMap, answer: Value) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != "Bearer access") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(answer).into_response()
}

async fn emails_of(State(fake): State<Fake>, headers: HeaderMap) -> Response {
    github(&headers, fake.behaviour.lock().unwrap().emails.clone())
}

#[tokio::test]
async fn a_provider_signs_in_who_has_the_address() {
    let fake = Fake::start().await;
    for provider in ["github", "openid"] {
        let app = fake.app(SignUp::Invite).await;
        let org = app.org("acme").await;
        let member = users::create(app.cx(), &app.ops(), &org.id, "Anna@example.com", Role::Owner).await.unwrap();
        let browser = Browser::new(&app);
        browser.page("/login?next=/account").await.says("Continue with GitHub").says("Continue with Acme ID");
        fake.sign_in(&browser, provider).await.leads_to("/account");
        browser.page("/account").await.says("Anna@example.com");
        // Known from now on, also with another address there.
        fake.claim(json!({"email": "new@example.com"}));
        let again = Browser::new(&app);
        fake.sign_in(&again, provider).await.leads_to("/account");
        again.page("/account").await.says("Anna@example.com");
        fake.claim(json!({}));
        assert_eq!(app.count("SELECT count(*) FROM users").await, 1);
        assert_eq!(app.count("SELECT count(*) FROM user_identities").await, 1);
        assert!(users::find(app.cx(), &app.ops(), &org.id, member.user_id.as_str()).await.is_ok());
        app.finish().await;
    }
}

#[tokio::test]
async fn strangers_follow_the_setting() {
    let fake = Fake::start().await;
    let app = fake.app(SignUp::Invite).await;
    fake.sign_in(&Browser::new(&app), "openid").await.is(403).says("by invitation");
    assert_eq!(app.count("SELECT count(*) FROM users").await, 0);
    app.finish().await;
    let app = fake.app(SignUp::Open).await;
    fake.claim(json!({"email_verified": false}));
    fake.sign_in(&Browser::new(&app), "openid").await.is(403).says("does not vouch for an e-mail address");
    fake.claim(json!({}));
    let browser = Browser::new(&app);
    fake.sign_in(&browser, "openid").await.leads_to("/account");
    fake.behaviour.lock().unwrap().emails = json!([{"email": "anna@example.com", "primary": true, "verified": false}]);
    fake.sign_in(&Browser::new(&app), "github").await.is(403);
    app.finish().await;
}

#[tokio::test]
async fn a_state_is_for_one_browser_and_one_provider_once() {
    let fake = Fake::start().await;
    let app = fake.app(SignUp::Open).await;
    let browser = Browser::new(&app);
    let back = fake.agree(&browser, "openid").await;
    Browser::new(&app).get(&back).await.is(404).says("in another browser");
    browser.get(&back).await.leads_to("/account");
    browser.get(&back).await.is(404);
    let back = fake.agree(&browser, "openid").await;
    browser.get(&back.replace("/openid/", "/github/")).await.is(404);
    let back = fake.agree(&browser, "openid").await;
    browser.get(&format!("{back}&iss=https://evil.example")).await.is(403).says("another provider");
    let back = fake.agree(&browser, "openid").await;
    browser.get(&format!("{back}&error=access_denied")).await.is(403).says("Acme ID did not sign you in");
    let back = fake.agree(&browser, "openid").await;
    app.later(15 * 60 * 1_000).await;
    browser.get(&back).await.is(404);
    browser.get("/login/with/other").await.is(404);
    app.finish().await;
}

#[tokio::test]
async fn who_leaves_in_a_loop_replaces_their_own() {
    let fake = Fake::start().await;
    let app = fake.app(SignUp::Open).await;
    let browser = Browser::new(&app);
    for n in 0..310 {
        if n % 100 == 0 {
            // The limit by the minute is another one.
            app.later(60_000).await;
        }
        Browser::new(&app).get("/login/with/github").await.is(303);
    }
    assert_eq!(app.count("SELECT count(*) FROM user_sign_ins").await, 300);
    assert_eq!(app.count("SELECT count(*) FROM user_sign_ins WHERE length(network) = 22").await, 300, "a keyed hash");
    let back = fake.agree(&browser, "openid").await;
    app.later(60_000).await;
    browser.get(&back).await.leads_to("/account");
    app.finish().await;
}

#[tokio::test]
async fn what_cannot_be_trusted_signs_nobody_in() {
    let fake = Fake::start().await;
    let app = fake.app(SignUp::Open).await;
    for wrong in [
        json!({"nonce": "other"}),
        json!({"aud": "other"}),
        json!({"iss": "https://evil.example"}),
        json!({"exp": 1}),
        json!({"azp": "other"}),
    ] {
        fake.claim(wrong.clone());
        let answer = fake.sign_in(&Browser::new(&app), "openid").await;
        assert_eq!(answer.status, 403, "{wrong}: {}", answer.body);
    }
    assert_eq!(app.count("SELECT count(*) FROM users").await, 0);
    app.finish().await;
}

/// Whoever made the account with an invitation link may not be who has the address: their password and sessions end.
#[tokio::test]
async fn the_first_vouching_ends_the_password_before() {
    const FINE: &str = "quartz-banjo-umbrella-42";
    let fake = Fake::start().await;
    let app = fake.app(SignUp::Invite).await;
    let org = app.org("acme").await;
    let member = users::create(app.cx(), &app.ops(), &org.id, "anna@example.com", Role::Owner).await.unwrap();
    let link = create_account_link(app.cx(), &app.ops(), &org.id, &member.user_id).await.unwrap();
    let before = Browser::new(&app);
    let fields = [("token", link.token.as_str()), ("name", "Mallory"), ("password", FINE)];
    before.post("/link", &fields).await.leads_to("/");
    let browser = Browser::new(&app);
    fake.sign_in(&browser, "openid").await.leads_to("/account");
    before.get("/account").await.leads_to("/login?next=%2Faccount");
    before.post("/login", &[("email", "anna@example.com"), ("password", FINE)]).await.is(422);
    browser.page("/account").await.says("You have no password yet");
    browser.post("/account/password", &[("new_password", FINE)]).await.leads_to("/account");
    fake.sign_in(&Browser::new(&app), "openid").await.leads_to("/account");
    before.post("/login", &[("email", "anna@example.com"), ("password", FINE)]).await.leads_to("/");
    app.finish().await;
}
