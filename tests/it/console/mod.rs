//! The console and the REST API over HTTP, in the test process. Each module is named after the feature that it
//! tests. A [`ConsoleBrowser`] keeps cookies and sends the headers of a browser.

mod access;
mod agent_pages;
mod agents;
mod analytics;
mod api_keys;
mod approval_pages;
mod assets;
mod audit;
mod bulk;
mod call_pages;
mod editor;
mod instance_links;
pub mod instances;
mod invitations;
mod joins;
mod members;
mod organizations;
mod pages;
mod personal_pages;
mod providers;
mod remote_entry_pages;
mod secret_pages;
mod servers;
pub mod sign_in;
mod takeover;
mod ticket_flood;
mod tickets;
mod tool_servers;
mod tool_set_pages;
mod toolbox_pages;
mod try_it;
mod walkthroughs;
mod webhooks;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::Value;
use url::form_urlencoded;
use waypost_core::id::{OrganizationId, UserId};
use waypost_core::organization::Role;
use waypost_ops::user_sessions::{self, Browser as Device};
use waypost_ops::users;

use crate::app::{App, Org};

/// A response whose body has been read.
#[derive(Debug)]
pub struct ConsoleResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: axum::body::Bytes,
    pub body: String,
}

impl ConsoleResponse {
    /// Returns the value of a header, or an empty string if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the redirect target.
    pub fn location(&self) -> &str {
        self.header("location")
    }

    /// Returns the body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// Asserts that the body contains `text`.
    #[track_caller]
    pub fn assert_contains(&self, text: &str) -> &Self {
        assert!(self.body.contains(text), "{text:?} is missing:\n{}", self.body);
        self
    }

    /// Asserts that the body does not contain `text`.
    #[track_caller]
    pub fn assert_lacks(&self, text: &str) -> &Self {
        assert!(!self.body.contains(text), "{text:?} is present:\n{}", self.body);
        self
    }

    /// Asserts the status code.
    #[track_caller]
    pub fn assert_status(&self, status: u16) -> &Self {
        assert_eq!(self.status.as_u16(), status, "{} {}", self.location(), self.body);
        self
    }

    /// Asserts a redirect to `location`.
    #[track_caller]
    pub fn assert_redirect(&self, location: &str) -> &Self {
        assert_eq!((self.status.as_u16(), self.location()), (303, location), "{}", self.body);
        self
    }
}

/// A browser with its cookies.
pub struct ConsoleBrowser {
    app: App,
    cookies: Mutex<BTreeMap<String, String>>,
    /// The slug of the organisation for API calls. If empty, the session's organisation is used.
    org: String,
    /// The client address, if it differs from the default.
    client: Option<IpAddr>,
}

impl ConsoleBrowser {
    /// Returns a browser without a session.
    pub fn new(app: &App) -> Self {
        Self { app: app.clone(), cookies: Mutex::default(), org: String::new(), client: None }
    }

    /// Creates a member of `org` with this role and returns a browser signed in as the member.
    pub async fn member(org: &Org, email: &str, role: Role) -> Self {
        let app = &org.app;
        let member = users::create(app.cx(), &app.ops(), &org.id, email, role).await.unwrap();
        Self::of_user(app, &member.user_id).await
    }

    /// Creates an owner of `org` and returns a browser signed in as the owner.
    pub async fn owner(org: &Org) -> Self {
        Self::member(org, &format!("owner@{}.example", org.id.as_str().replace('_', "-")), Role::Owner).await
    }

    /// Verifies a user's email and returns a browser signed in as the user.
    pub async fn of_user(app: &App, user: &UserId) -> Self {
        let mut tx = app.db().begin().await.unwrap();
        waypost_store::user::mark_verified(&mut tx, user, app.cx().now()).await.unwrap();
        let device = Device { user_agent: "Test", address: [192, 0, 2, 7].into(), device: "" };
        let token = user_sessions::create(app.cx(), &mut tx, user, device).await.unwrap();
        tx.commit().await.unwrap();
        let browser = Self::new(app);
        browser.set_cookie("__Host-wp_console", &token);
        browser
    }

    /// Sets the client address to 198.51.100.`n`.
    pub fn with_client_address(self, n: u8) -> Self {
        Self { client: Some([198, 51, 100, n].into()), ..self }
    }

    /// Sets the organisation for API calls.
    pub fn for_org(self, slug: &str) -> Self {
        Self { org: slug.to_owned(), ..self }
    }

    /// Returns the slug of the organisation for API calls.
    pub fn org(&self) -> &str {
        &self.org
    }

    pub fn set_cookie(&self, name: &str, value: &str) {
        self.cookies.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    /// Loads a page.
    pub async fn get(&self, path: &str) -> ConsoleResponse {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Loads a page and asserts status 200.
    #[track_caller]
    pub fn get_page(&self, path: &str) -> impl Future<Output = ConsoleResponse> {
        let at = std::panic::Location::caller();
        async move {
            let response = self.get(path).await;
            assert_eq!(response.status, StatusCode::OK, "{at}: {path} {} {}", response.location(), response.body);
            response
        }
    }

    /// Submits a same-origin form.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> ConsoleResponse {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin");
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    /// Calls the API as a script of the console does. `path` is relative to `/api/v1`.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> ConsoleResponse {
        let mut request =
            Request::builder().method(method).uri(format!("/api/v1{path}")).header("sec-fetch-site", "same-origin");
        if !self.org.is_empty() {
            request = request.header("waypost-organization", &self.org);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }

    /// Sends a request with host and cookies, and keeps the cookies of the response.
    pub async fn send(&self, mut request: Request<Body>) -> ConsoleResponse {
        request.headers_mut().entry(header::HOST).or_insert("localhost:8080".parse().unwrap());
        if let Some(client) = self.client {
            request.extensions_mut().insert(ConnectInfo(SocketAddr::from((client, 50_000))));
        }
        let cookies: Vec<_> =
            self.cookies.lock().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request.headers_mut().insert(header::COOKIE, cookies.join("; ").parse().unwrap());
        }
        let response = read_response(self.app.send(request).await).await;
        for line in response.headers.get_all(header::SET_COOKIE) {
            let line = line.to_str().unwrap();
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            assert!(line.contains("; Secure") && line.contains("; HttpOnly") && line.contains("; Path=/"), "{line}");
            if line.contains("Max-Age=0") {
                self.cookies.lock().unwrap().remove(name);
            } else {
                self.set_cookie(name, value);
            }
        }
        response
    }
}

/// Calls the API with a new API key of `org`.
pub async fn call_with_key(org: &Org, role: Role, method: Method, path: &str, body: Option<Value>) -> ConsoleResponse {
    let secret = create_key(&org.app, &org.id, role).await;
    call_with_secret(&org.app, &secret, method, path, body).await
}

/// Calls the REST API with the secret of an API key.
pub async fn call_with_secret(
    app: &App,
    secret: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> ConsoleResponse {
    let request = Request::builder()
        .method(method)
        .uri(format!("/api/v1{path}"))
        .header(header::HOST, "localhost:8080")
        .header(header::AUTHORIZATION, format!("Bearer {secret}"))
        .header(header::CONTENT_TYPE, "application/json");
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    read_response(app.send(request.body(body).unwrap()).await).await
}

/// Creates an API key and returns its secret.
pub async fn create_key(app: &App, org: &OrganizationId, role: Role) -> String {
    let name = format!("key {}", app.count("SELECT count(*) FROM api_keys").await);
    let new = waypost_ops::api_keys::CreateApiKey { name: &name, scope: role, expires_at: None };
    waypost_ops::api_keys::create(app.cx(), &app.ops(), org, new).await.unwrap().1
}

async fn read_response(response: http::Response<Body>) -> ConsoleResponse {
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 4 * 1024 * 1024).await.unwrap();
    let body = String::from_utf8_lossy(&bytes).into_owned();
    ConsoleResponse { status: parts.status, headers: parts.headers, bytes, body }
}
