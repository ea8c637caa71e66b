//! A configurable identity provider on loopback. Its keys are Ed25519, each derived from one byte.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

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
use waypost_core::Timestamp;

use crate::fixture::NOW;

/// The state and the behaviour of the provider.
pub struct Behaviour {
    /// Members of the metadata to override; null removes one.
    pub metadata: Value,
    /// Claims of the ID token to override; null removes one.
    pub claims: Value,
    /// Overrides the header of the ID token.
    pub header: Option<Value>,
    /// The signing key.
    pub key: u8,
    /// The published keys.
    pub published: Vec<u8>,
    /// Overrides the response of the token endpoint.
    pub token: Option<(StatusCode, Value)>,
    /// Whether the response contains an ID token.
    pub id_token: bool,
    pub userinfo: Value,
    /// The current time, for tokens.
    pub now: Timestamp,
    /// Whether the token endpoint never responds; instead, eleven seconds pass.
    pub hangs: bool,
    /// The PKCE challenge and the nonce, by code.
    codes: HashMap<String, (String, String)>,
    /// The number of requests, by endpoint.
    pub requests: HashMap<&'static str, u32>,
    /// The last request to the token endpoint: its `Authorization` header and its form.
    pub last: Option<(Option<String>, HashMap<String, String>)>,
}

#[derive(Clone)]
pub struct Provider {
    pub issuer: String,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Provider {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let behaviour = Behaviour {
            metadata: json!({}),
            claims: json!({}),
            header: None,
            key: 1,
            published: vec![1],
            token: None,
            id_token: true,
            userinfo: json!({"sub": "anna", "id": 7, "name": "Anna", "email": "anna@acme.example"}),
            now: NOW,
            hangs: false,
            codes: HashMap::new(),
            requests: HashMap::new(),
            last: None,
        };
        let provider = Self { issuer, behaviour: Arc::new(Mutex::new(behaviour)) };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(keys))
            .route("/authorize", get(|| async { StatusCode::BAD_REQUEST }))
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .with_state(provider.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        provider
    }

    pub fn set(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap()
    }

    pub fn request_count(&self, what: &'static str) -> u32 {
        self.set().requests.get(what).copied().unwrap_or_default()
    }

    fn count(&self, what: &'static str) -> MutexGuard<'_, Behaviour> {
        let mut behaviour = self.set();
        *behaviour.requests.entry(what).or_default() += 1;
        behaviour
    }

    /// Approves the request of `authorization_url` and returns a code.
    pub fn approve(&self, authorization_url: &url::Url) -> String {
        let parameters: HashMap<_, _> = authorization_url.query_pairs().into_owned().collect();
        let code = format!("code-{}", parameters["state"]);
        let nonce = parameters.get("nonce").cloned().unwrap_or_default();
        self.set().codes.insert(code.clone(), (parameters["code_challenge"].clone(), nonce));
        code
    }

    fn document(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize"),
            "token_endpoint": at("/token"),
            "userinfo_endpoint": at("/userinfo"),
            "jwks_uri": at("/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
            "code_challenge_methods_supported": ["S256"],
        })
    }
}

fn patch(document: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(document.as_object_mut().unwrap().remove(name)),
            value => document[name] = value.clone(),
        }
    }
}

async fn metadata(State(provider): State<Provider>) -> Json<Value> {
    let mut document = provider.document();
    patch(&mut document, &provider.count("metadata").metadata);
    Json(document)
}

async fn keys(State(provider): State<Provider>) -> Json<Value> {
    let behaviour = provider.count("keys");
    let keys: Vec<_> = behaviour.published.iter().map(|seed| json!(key(*seed).as_verification_key())).collect();
    Json(json!({ "keys": keys }))
}

async fn userinfo(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    let behaviour = provider.count("userinfo");
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != "Bearer upstream-access") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(behaviour.userinfo.clone()).into_response()
}

async fn token(
    State(provider): State<Provider>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    if provider.count("token").hangs {
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(11)).await;
        std::future::pending::<()>().await;
    }
    let mut behaviour = provider.set();
    let authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    behaviour.last = Some((authorization, form.clone()));
    if let Some((status, response)) = &behaviour.token {
        return (*status, Json(response.clone())).into_response();
    }
    let mut response = json!({
        "access_token": "upstream-access", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "upstream-refresh",
    });
    if form["grant_type"] == "authorization_code" {
        let known = behaviour.codes.remove(&form["code"]);
        let verifier = BASE64URL_NOPAD.encode(&Sha256::digest(form["code_verifier"].as_bytes()));
        let Some((_, nonce)) = known.filter(|(challenge, _)| *challenge == verifier) else {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
        };
        if behaviour.id_token {
            response["id_token"] = json!(id_token(&provider.issuer, &behaviour, &nonce));
        }
    }
    Json(response).into_response()
}

fn id_token(issuer: &str, behaviour: &Behaviour, nonce: &str) -> String {
    let now = behaviour.now.0 / 1_000;
    let mut claims = json!({
        "iss": issuer, "sub": "anna", "aud": "waypost", "iat": now, "exp": now + 300, "nonce": nonce,
        "name": "Anna", "email": "anna@acme.example", "email_verified": true,
    });
    patch(&mut claims, &behaviour.claims);
    let kid = format!("key-{}", behaviour.key);
    let header = behaviour.header.clone().unwrap_or_else(|| json!({"alg": "EdDSA", "kid": kid}));
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = key(behaviour.key).sign(&CoreJwsSigningAlgorithm::EdDsa, signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// RFC 8410, section 7: the DER prefix, followed by the 32 bytes of the private key.
fn key(seed: u8) -> CoreEdDsaPrivateSigningKey {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend([seed; 32]);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(&der));
    CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, Some(JsonWebKeyId::new(format!("key-{seed}")))).unwrap()
}
