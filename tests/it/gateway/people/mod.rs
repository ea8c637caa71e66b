//! People at the gateway, who sign in through the console, and whose clients get tokens (docs/gateway.md, "People").

mod attacks;
mod flow;

use std::collections::BTreeMap;

use axum::body::Body;
use data_encoding::BASE64URL_NOPAD;
use http::{Request, StatusCode, header};
use serde_json::json;
use sha2::{Digest, Sha256};
use waypost_core::id::{AgentId, UserId};
use waypost_core::organization::Role;
use waypost_ops::{agents, users};

use crate::app::{App, Org};
use crate::console::sign_in::hidden_field;
use crate::console::{ConsoleBrowser, ConsoleResponse};
use crate::sign_in::{CALLBACK, SignInResponse, Tokens, VERIFIER, encode_form, post_form, post_json, send};

/// The resource of the organisation `acme`.
pub(super) const ACME: &str = "http://localhost:8080/gateway/acme/mcp";

/// Returns the path of a resource.
fn path_of(resource: &str) -> &str {
    resource.strip_prefix("http://localhost:8080").unwrap()
}

/// A member of an organisation, signed in to the console.
pub(super) struct PersonBrowser {
    pub(super) browser: ConsoleBrowser,
    pub(super) user: UserId,
}

impl PersonBrowser {
    pub(super) async fn new(org: &Org, email: &str) -> Self {
        let app = &org.app;
        let user = users::create(app.cx(), &app.ops(), &org.id, email, Role::Member).await.unwrap().user_id;
        Self { browser: ConsoleBrowser::of_user(app, &user).await, user }
    }
}

/// Returns the agent of a person.
pub(super) async fn agent_of(org: &Org, user: &UserId) -> Option<AgentId> {
    let app = &org.app;
    let agents = agents::list(app.cx(), &app.ops(), &org.id, None, 100).await.unwrap();
    let mut own = agents.into_iter().filter(|view| view.agent.user_id.as_ref() == Some(user));
    own.next().map(|view| view.agent.id)
}

/// A public client registered at the gateway.
pub(super) struct GatewayClient {
    app: App,
    id: String,
}

impl GatewayClient {
    pub(super) async fn register(app: &App) -> Self {
        let metadata = json!({
            "client_name": "Test client",
            "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "none",
        });
        let response = post_json(app, "/gateway/oauth/register", &metadata).await;
        assert_eq!(response.status, StatusCode::CREATED, "{}", response.body);
        Self { app: app.clone(), id: response.json()["client_id"].as_str().unwrap().to_owned() }
    }

    /// Returns the path of an authorization request. An empty value in `changes` removes a parameter.
    fn authorize_path(&self, resource: &str, changes: &[(&str, &str)]) -> String {
        let challenge = BASE64URL_NOPAD.encode(&Sha256::digest(VERIFIER));
        let mut parameters = BTreeMap::from([
            ("response_type", "code"),
            ("client_id", self.id.as_str()),
            ("redirect_uri", CALLBACK),
            ("state", "a b&c"),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
            ("resource", resource),
        ]);
        parameters.extend(changes.iter().copied());
        parameters.retain(|_, value| !value.is_empty());
        format!("/gateway/oauth/authorize?{}", encode_form(&parameters.into_iter().collect::<Vec<_>>()))
    }

    /// Opens an authorization request and follows redirects within the product.
    async fn open(&self, browser: &ConsoleBrowser, resource: &str, changes: &[(&str, &str)]) -> ConsoleResponse {
        follow(browser, browser.get(&self.authorize_path(resource, changes)).await).await
    }

    async fn get_code(&self, browser: &ConsoleBrowser, resource: &str) -> String {
        let page = self.open(browser, resource, &[]).await;
        code_of(&decide(browser, page.assert_status(200), "allow").await)
    }

    async fn post_token(&self, path: &str, form: &[(&str, &str)]) -> SignInResponse {
        let form: Vec<_> = form.iter().copied().chain([("client_id", self.id.as_str())]).collect();
        post_form(&self.app, path, &form).await
    }

    async fn exchange(&self, code: &str, resource: &str) -> SignInResponse {
        let form = [
            ("grant_type", "authorization_code"),
            ("redirect_uri", CALLBACK),
            ("code", code),
            ("code_verifier", VERIFIER),
            ("resource", resource),
        ];
        self.post_token("/gateway/oauth/token", &form).await
    }

    async fn refresh(&self, token: &str) -> SignInResponse {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.post_token("/gateway/oauth/token", &form).await
    }

    pub(super) async fn get_tokens(&self, browser: &ConsoleBrowser, resource: &str) -> Tokens {
        let code = self.get_code(browser, resource).await;
        Tokens::from_response(&self.exchange(&code, resource).await)
    }
}

/// Follows redirects within the product.
async fn follow(browser: &ConsoleBrowser, mut response: ConsoleResponse) -> ConsoleResponse {
    while response.status == StatusCode::SEE_OTHER && response.location().starts_with('/') {
        response = browser.get(response.location()).await;
    }
    response
}

/// Submits the form of the consent page.
async fn decide(browser: &ConsoleBrowser, page: &ConsoleResponse, decision: &str) -> ConsoleResponse {
    let (csrf, user) = (hidden_field(page, "csrf"), hidden_field(page, "user"));
    let fields = [("csrf", csrf.as_str()), ("user", user.as_str()), ("decision", decision)];
    browser.post(&consent_path(page), &fields).await
}

/// Returns the path of the consent form on a page.
fn consent_path(page: &ConsoleResponse) -> String {
    let from = page.body.find("/gateway/oauth/consent?request=").unwrap_or_else(|| panic!("{}", page.body));
    page.body[from..].split('"').next().unwrap().to_owned()
}

/// Returns the code in the redirect to the client.
#[track_caller]
fn code_of(response: &ConsoleResponse) -> String {
    parameter(response, "code").unwrap_or_else(|| panic!("{} {}", response.location(), response.body))
}

fn parameter(response: &ConsoleResponse, name: &str) -> Option<String> {
    let url = url::Url::parse(response.location()).ok()?;
    assert!(response.location().starts_with(CALLBACK), "{}", response.location());
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// Lists the tools at an address of the gateway. Returns the status, the challenge and the body.
async fn list_tools(app: &App, path: &str, token: Option<&str>) -> (u16, String, String) {
    let mut request = Request::post(path)
        .header(header::HOST, "localhost:8080")
        .header(header::CONTENT_TYPE, "application/json")
        .header("mcp-protocol-version", "2025-11-25");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let response = send(app, request.body(Body::from(body)).unwrap()).await;
    let challenge = response.header(header::WWW_AUTHENTICATE).to_owned();
    (response.status.as_u16(), challenge, response.body)
}

/// Returns the status of listing the tools at an address.
async fn status(app: &App, path: &str, token: &str) -> u16 {
    list_tools(app, path, Some(token)).await.0
}
