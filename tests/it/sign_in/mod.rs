//! Sign-in over HTTP (docs/sign-in.md). RS-n and AS-n are the requirements that a test covers.

mod authorize;
mod consent;
mod floods;
mod metadata;
mod register;
mod resource;
mod row_limits;
mod token;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;
use waypost_core::id::EndUserId;
use waypost_core::server::AuthType;
use waypost_ops::identities::{self, Claims};
use waypost_ops::{browser_sessions, servers};

use crate::app::{App, Server};

/// The redirect URI of a client on the user's device.
pub const CALLBACK: &str = "http://127.0.0.1:3999/callback";
/// The redirect URI of a web client.
pub const WEB_CALLBACK: &str = "https://app.example/callback";
/// The client's PKCE verifier.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// Creates a server with `platform_oauth` and a walkthrough with three steps.
pub async fn create_sign_in_server(app: &App, slug: &str) -> Server {
    let server = app.server(slug).await;
    server.walkthrough("Install Acme", &["Download", "Unpack", "Run"]).await;
    require_sign_in(&server).await;
    server
}

/// Switches the server to `platform_oauth`.
pub async fn require_sign_in(server: &Server) {
    let settings =
        servers::ServerSettings { auth_type: Some(AuthType::PlatformOauth), ..servers::ServerSettings::default() };
    server.update(settings).await;
}

/// A response whose body has been read.
#[derive(Debug)]
pub struct SignInResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl SignInResponse {
    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }

    /// Returns the redirect target. Panics if the response is not a redirect.
    pub fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        self.header(header::LOCATION)
    }

    /// Returns a query parameter of the redirect target.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let url = Url::parse(self.location()).unwrap();
        let mut values = url.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} occurs once");
        value
    }

    /// Returns the status and the OAuth error code.
    pub fn error(&self) -> (u16, String) {
        assert_eq!(self.header(header::CACHE_CONTROL), "no-store");
        assert!(self.json()["error_description"].is_string(), "{}", self.body);
        (self.status.as_u16(), self.json()["error"].as_str().unwrap().to_owned())
    }

    /// Returns the value of a hidden field.
    pub fn hidden_field(&self, name: &str) -> String {
        let marker = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.body.split_once(&marker).unwrap_or_else(|| panic!("no {name} in {}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }
}

/// A browser that keeps cookies.
#[derive(Clone)]
pub struct EndUserBrowser {
    app: App,
    cookies: Arc<Mutex<BTreeMap<String, String>>>,
}

impl EndUserBrowser {
    pub fn new(app: &App) -> Self {
        Self { app: app.clone(), cookies: Arc::default() }
    }

    /// Returns a browser signed in to the organisation of `server`, and the end user.
    pub async fn signed_in(server: &Server, subject: &str) -> (Self, EndUserId) {
        let browser = Self::new(&server.app);
        let identity = browser.sign_in(server, subject).await;
        (browser, identity)
    }

    pub async fn sign_in(&self, server: &Server, subject: &str) -> EndUserId {
        self.sign_in_with_issuer(server, "waypost", subject).await
    }

    pub async fn sign_in_with_issuer(&self, server: &Server, issuer: &str, subject: &str) -> EndUserId {
        let (app, organization) = (&server.app, &server.org.id);
        let claims = Claims {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
            email: Some(format!("{subject}@example.com")),
            email_verified: true,
            ..Claims::default()
        };
        let mut tx = app.db().begin().await.unwrap();
        let identity = identities::sign_in(app.cx(), &mut tx, organization, &claims, false).await.unwrap();
        let cookie = browser_sessions::create(app.cx(), &mut tx, organization, &identity).await.unwrap();
        tx.commit().await.unwrap();
        self.cookies.lock().unwrap().insert(format!("__Host-wp_eu_{organization}"), cookie);
        identity.end_user_id
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    /// Returns all cookies as a `Cookie` header.
    pub fn cookies(&self) -> String {
        let cookies = self.cookies.lock().unwrap();
        cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    pub fn set_cookie(&self, name: &str, value: &str) {
        self.cookies.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    pub async fn get(&self, path: &str) -> SignInResponse {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> SignInResponse {
        self.send(Method::POST, path, Some(encode_form(form))).await
    }

    /// Gets a page and follows redirects within the product.
    pub async fn open(&self, path: &str) -> SignInResponse {
        let mut response = self.get(path).await;
        while response.status == StatusCode::SEE_OTHER && response.location().starts_with('/') {
            let next = response.location().to_owned();
            response = self.get(&next).await;
        }
        response
    }

    async fn send(&self, method: Method, path: &str, form: Option<String>) -> SignInResponse {
        let cookies = self.cookies();
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost:8080");
        if !cookies.is_empty() {
            request = request.header(header::COOKIE, cookies);
        }
        if form.is_some() {
            request = request
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::ORIGIN, "http://localhost:8080");
        }
        let response = send(&self.app, request.body(Body::from(form.unwrap_or_default())).unwrap()).await;
        for line in response.headers.get_all(header::SET_COOKIE) {
            let line = line.to_str().unwrap();
            assert!(line.contains("; HttpOnly; SameSite=Lax; Secure; Path=/"), "{line}");
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.lock().unwrap().insert(name.to_owned(), value.to_owned());
        }
        if response.header(header::CONTENT_TYPE).starts_with("text/html") {
            let policy = response.header(header::CONTENT_SECURITY_POLICY);
            assert!(
                policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"),
                "{policy}"
            );
            assert!(!policy.contains("unsafe"), "{policy}");
            assert_eq!(response.header(header::CACHE_CONTROL), "no-store");
            assert!(!response.body.contains("<script") && !response.body.contains("style="), "{}", response.body);
        }
        response
    }
}

pub async fn send(app: &App, request: Request<Body>) -> SignInResponse {
    let (parts, body) = app.send(request).await.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
    SignInResponse { status: parts.status, headers: parts.headers, body }
}

pub fn encode_form(form: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

/// An OAuth client registered at a server.
#[derive(Clone)]
pub struct OauthClient {
    pub server: Server,
    pub id: String,
    pub callback: &'static str,
}

impl OauthClient {
    /// Registers a public client on the user's device.
    pub async fn register(server: &Server) -> Self {
        Self::register_at(server, CALLBACK).await
    }

    /// Registers a public client with one redirect URI.
    pub async fn register_at(server: &Server, callback: &'static str) -> Self {
        let metadata = json!({
            "client_name": "Test client",
            "redirect_uris": [callback],
            "token_endpoint_auth_method": "none",
        });
        let response = post_json(&server.app, &oauth_path(server, "register"), &metadata).await;
        assert_eq!(response.status, StatusCode::CREATED, "{}", response.body);
        Self { server: server.clone(), id: response.json()["client_id"].as_str().unwrap().to_owned(), callback }
    }

    /// Returns the path of an authorization request with `changes` applied. An empty value removes a parameter.
    pub fn authorize_path(&self, changes: &[(&str, &str)]) -> String {
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(VERIFIER));
        let resource = format!("http://localhost:8080/s/{}/mcp", self.server.slug);
        let mut parameters = BTreeMap::from([
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", self.callback),
            ("state", "a b&c"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("resource", &resource),
        ]);
        parameters.extend(changes.iter().copied());
        parameters.retain(|_, value| !value.is_empty());
        let query = encode_form(&parameters.into_iter().collect::<Vec<_>>());
        format!("{}?{query}", oauth_path(&self.server, "authorize"))
    }

    /// Opens an authorization request, consents if asked, and returns the code.
    pub async fn get_code(&self, browser: &EndUserBrowser, changes: &[(&str, &str)]) -> String {
        let mut response = browser.open(&self.authorize_path(changes)).await;
        if response.status == StatusCode::OK {
            let action = form_action(&response);
            response = browser.post(&action, &[("csrf", &response.hidden_field("csrf")), ("decision", "allow")]).await;
        }
        assert!(response.location().starts_with(self.callback), "{}", response.location());
        response.parameter("code").unwrap_or_else(|| panic!("no code: {}", response.location()))
    }

    /// Posts `form` to the token endpoint as this client.
    pub async fn post_token(&self, form: &[(&str, &str)]) -> SignInResponse {
        let form: Vec<_> = form.iter().copied().chain([("client_id", self.id.as_str())]).collect();
        post_form(&self.server.app, &oauth_path(&self.server, "token"), &form).await
    }

    pub async fn exchange(&self, code: &str) -> SignInResponse {
        let (grant, redirect) = (("grant_type", "authorization_code"), ("redirect_uri", self.callback));
        self.post_token(&[grant, redirect, ("code", code), ("code_verifier", VERIFIER)]).await
    }

    pub async fn refresh(&self, token: &str) -> SignInResponse {
        self.post_token(&[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// Runs the authorization code flow and returns the tokens.
    pub async fn get_tokens(&self, browser: &EndUserBrowser) -> Tokens {
        Tokens::from_response(&self.exchange(&self.get_code(browser, &[]).await).await)
    }
}

/// A token response.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl Tokens {
    pub fn from_response(response: &SignInResponse) -> Self {
        assert_eq!(response.status, StatusCode::OK, "{}", response.body);
        assert_eq!(response.header(header::CACHE_CONTROL), "no-store");
        let body = response.json();
        assert_eq!(body["token_type"], "Bearer");
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Self { access: text("access_token"), refresh: text("refresh_token") }
    }
}

pub fn oauth_path(server: &Server, name: &str) -> String {
    format!("/s/{}/oauth/{name}", server.slug)
}

/// Returns the action of the first form of a page.
pub fn form_action(page: &SignInResponse) -> String {
    let (_, rest) = page.body.split_once("action=\"").unwrap_or_else(|| panic!("no form: {}", page.body));
    rest.split('"').next().unwrap().replace("&amp;", "&").replace("&#38;", "&")
}

pub async fn post_json(app: &App, path: &str, body: &Value) -> SignInResponse {
    let request = Request::post(path).header(header::HOST, "localhost:8080");
    let request = request.header(header::CONTENT_TYPE, "application/json");
    send(app, request.body(Body::from(body.to_string())).unwrap()).await
}

pub async fn post_form(app: &App, path: &str, form: &[(&str, &str)]) -> SignInResponse {
    let request = Request::post(path).header(header::HOST, "localhost:8080");
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    send(app, request.body(Body::from(encode_form(form))).unwrap()).await
}

/// Calls a tool, with a bearer token if given.
pub async fn call_tool(server: &Server, token: Option<&str>, tool: &str, arguments: Value) -> SignInResponse {
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": tool, "arguments": arguments } });
    let mut request = Request::post(format!("/s/{}/mcp", server.slug))
        .header(header::HOST, "localhost:8080")
        .header(header::CONTENT_TYPE, "application/json")
        .header("mcp-protocol-version", "2025-11-25");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = send(&server.app, request.body(Body::from(message.to_string())).unwrap()).await;
    if response.status == StatusCode::OK {
        server.app.count_call();
    }
    response
}

/// Calls `select_walkthrough` for the test walkthrough.
pub async fn start_walkthrough(server: &Server, token: Option<&str>) -> SignInResponse {
    call_tool(server, token, "select_walkthrough", json!({ "walkthrough_id": "install-acme" })).await
}
