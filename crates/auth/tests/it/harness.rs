//! Hosted servers with their sign-in pages, a manual clock, and browsers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use tower::ServiceExt;
use waypost_auth::client::document::ClientDocuments;
use waypost_auth::identity_provider::IdentityProviders;
use waypost_auth::server_request::ServerRequest;
use waypost_auth::{Auth, State};
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::Ctx;
use waypost_core::clock::ManualClock;
use waypost_core::id::AuthorizationRequestId;
use waypost_core::random::SeededRandom;
use waypost_core::secret::SecretKey;
use waypost_core::server::{AuthType, Server};
use waypost_core::{Random, Timestamp};
use waypost_http_kit::limits::Limits;
use waypost_mail::{EmailMessage, MemoryMailer, Outbox};
use waypost_ops::hosting::{Hosting, HostingOptions};
use waypost_ops::public_url::{HostKind as Host, PublicUrl};
use waypost_ops::{Ops, authorizations, organizations, servers};
use waypost_outbound::{Outbound, Policy};
use waypost_store::{Db, migrate, server};

pub const MINUTE: i64 = 60_000;
const HOST: &str = "localhost:8080";

/// The sign-in pages on a temporary SQLite database.
pub struct Pages {
    pub ops: Ops,
    pub cx: Ctx,
    pub clock: Arc<ManualClock>,
    pub mails: MemoryMailer,
    router: Router,
    hosting: Hosting,
    public_url: PublicUrl,
    /// Each browser has its own address, so that none uses up the limits of another.
    addresses: Mutex<u8>,
    _folder: waypost_testkit::TempDir,
}

/// A browser: its cookies and its current authorization request.
pub struct Browser<'a> {
    pages: &'a Pages,
    server: Server,
    pub cookies: BTreeMap<String, String>,
    pub request: AuthorizationRequestId,
    pub address: IpAddr,
    /// The CSRF token of its forms, once a page is loaded.
    pub csrf: String,
}

/// A response.
#[derive(Debug)]
pub struct TestResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl TestResponse {
    /// Returns the redirect target.
    #[track_caller]
    pub fn location(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        self.headers[header::LOCATION].to_str().unwrap()
    }

    /// Asserts the status, and that the body contains all of `words`.
    #[track_caller]
    pub fn shows(&self, status: StatusCode, words: &[&str]) {
        assert_eq!(self.status, status, "{}", self.body);
        for word in words {
            assert!(self.body.contains(word), "{word} in {}", self.body);
        }
    }
}

impl Pages {
    pub async fn new() -> Self {
        Self::with_mail(true).await
    }

    pub async fn with_mail(can_mail: bool) -> Self {
        let folder = waypost_testkit::folder();
        let db = Db::open(&waypost_testkit::sqlite_url(&folder)).await.unwrap();
        migrate::migrate(&db).await.unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1_790_000_000_000)));
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
        let secret = SecretKey::new([7; 32]);
        let options = HostingOptions {
            keys: secret.clone().into(),
            version_cache_bytes: 1_024,
            clock: clock.clone(),
            random: Arc::clone(&random),
        };
        let (hosting, _tasks) = Hosting::start(db.clone(), options);
        let outbound = Outbound::new(Policy { allow: Vec::new(), extra_roots_pem: None }).unwrap();
        let hosting = hosting.with_outbound(outbound.clone());
        let mails = MemoryMailer::default();
        let public_url = PublicUrl::new(format!("http://{HOST}").parse().unwrap());
        let auth = Auth::new(State {
            hosting: hosting.clone(),
            public_url: public_url.clone(),
            documents: ClientDocuments::new(outbound.clone(), clock.clone()),
            limits: Limits::new(clock.clone()),
            mail: can_mail.then(|| Outbox::start(Arc::new(mails.clone()))),
            random: Arc::clone(&random),
            providers: IdentityProviders::default(),
        });
        let router = Router::new().nest("/s/{slug}/oauth", waypost_auth::page_routes()).with_state(auth);
        let cx = Ctx { clock: clock.clone(), random, ..Ctx::operator() };
        let (ops, addresses) = (Ops::new(db), Mutex::new(0));
        Self { ops, cx, clock, mails, router, hosting, public_url, addresses, _folder: folder }
    }

    /// Creates an organisation and a server with the same slug.
    pub async fn server(&self, slug: &str, auth_type: AuthType) -> Server {
        let organization = organizations::create(&self.cx, &self.ops, slug, Some("Acme & Söhne")).await.unwrap();
        let settings = servers::ServerSettings { product_name: Some("Acme Cloud".into()), ..Default::default() };
        let made = servers::create(&self.cx, &self.ops, &organization.id, slug, &settings).await.unwrap();
        self.set_auth_type(made, auth_type).await
    }

    /// Changes the `auth_type` of a server.
    pub async fn set_auth_type(&self, server: Server, auth_type: AuthType) -> Server {
        let server = Server { auth_type, ..server };
        let mut tx = self.ops.store().begin().await.unwrap();
        server::update(&mut tx, &server).await.unwrap();
        tx.commit().await.unwrap();
        self.hosting.offer_cache().poll().await.unwrap();
        server
    }

    /// Opens a browser with a new authorization request.
    pub async fn browser(&self, server: &Server) -> Browser<'_> {
        let address = {
            let mut last = self.addresses.lock().unwrap();
            *last += 1;
            IpAddr::from([192, 0, 2, *last])
        };
        let cookie = format!("flow-{address}");
        let cookies = BTreeMap::from([("__Host-wp_flow".to_owned(), cookie)]);
        let request = AuthorizationRequestId::from_store(String::new());
        let mut browser =
            Browser { pages: self, server: server.clone(), cookies, request, address, csrf: String::new() };
        browser.begin().await;
        browser
    }

    /// Waits for `count` emails and returns the code of the newest.
    pub async fn code(&self, count: usize) -> (String, EmailMessage) {
        let mail = self.mails.wait_for_count(count).await.pop().unwrap();
        (mail.text.lines().next().unwrap().to_owned(), mail)
    }
}

impl Browser<'_> {
    /// Starts a new authorization request in the same browser.
    pub async fn begin(&mut self) {
        let now = self.pages.cx.now();
        let request = AuthorizationRequest {
            id: AuthorizationRequestId::new(now, &*self.pages.cx.random),
            issuer_id: (&self.server).into(),
            issuer: format!("http://{HOST}/s/{}", self.server.slug),
            client_id: "client".into(),
            client_name: "Client <b>".into(),
            redirect_uri: "http://127.0.0.1:3999/cb".into(),
            state: None,
            scope: "walk".into(),
            resource: format!("http://{HOST}/s/{}/mcp", self.server.slug),
            claim: None,
            code_challenge: "challenge".into(),
            prompt: None,
            login_hint: Some("hint@example.com".into()),
            created_at: now,
            expires_at: now.plus(authorizations::LIFETIME_MS),
            consented_at: None,
        };
        let flow = &self.cookies["__Host-wp_flow"];
        authorizations::create(&self.pages.ops, &request, flow, "network").await.unwrap();
        self.request = request.id;
        self.csrf.clear();
    }

    pub fn path(&self, name: &str) -> String {
        format!("/s/{}/oauth/{name}?request={}", self.server.slug, self.request)
    }

    pub async fn get(&mut self, name: &str) -> TestResponse {
        let path = if name.starts_with('/') { name.to_owned() } else { self.path(name) };
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Submits a form with the CSRF token of the last page.
    pub async fn post(&mut self, name: &str, fields: &[(&str, &str)]) -> TestResponse {
        if self.csrf.is_empty() {
            self.get("sign-in").await;
        }
        let csrf = self.csrf.clone();
        self.post_with(name, &csrf, fields).await
    }

    pub async fn post_with(&mut self, name: &str, csrf: &str, fields: &[(&str, &str)]) -> TestResponse {
        let request = Request::post(self.path(name)).header(header::ORIGIN, format!("http://{HOST}"));
        self.ask(form(request, csrf, fields)).await
    }

    /// Submits a form from a page of another origin.
    pub async fn post_from(&mut self, origin: &str, name: &str, fields: &[(&str, &str)]) -> TestResponse {
        let csrf = self.csrf.clone();
        let request = Request::post(self.path(name)).header(header::ORIGIN, origin);
        self.ask(form(request, &csrf, fields)).await
    }

    /// Returns the ID of the code in the redirect after a form.
    #[track_caller]
    pub fn sent(&self, response: &TestResponse) -> String {
        response.location().split_once("&sent=").unwrap().1.to_owned()
    }

    async fn ask(&mut self, mut request: Request) -> TestResponse {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request.headers_mut().insert(header::COOKIE, cookies.join("; ").parse().unwrap());
        let offers = self.pages.hosting.offer_cache().get(&self.server.slug).await.unwrap();
        let address = self.pages.public_url.server_urls(HOST, &Host::Main, &self.server.slug);
        request.extensions_mut().insert(ServerRequest {
            address,
            offers,
            client: self.address,
            request_id: "r".into(),
        });
        let response = self.pages.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        for set in parts.headers.get_all(header::SET_COOKIE) {
            let (name, rest) = set.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if rest.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        if let Some((_, rest)) = body.split_once("name=\"csrf\" value=\"") {
            self.csrf = rest.split('"').next().unwrap().to_owned();
        }
        TestResponse { status: parts.status, headers: parts.headers, body }
    }

    /// Returns the session cookie.
    pub fn session(&self) -> Option<&String> {
        self.cookies.get(&format!("__Host-wp_eu_{}", self.server.organization_id))
    }

    /// Returns the user whom the consent page shows as signed in. Returns `None` if there is no consent page.
    pub async fn signed_in_as(&mut self) -> Option<String> {
        let page = self.get("consent").await;
        let (_, rest) = page.body.split_once("<dt>Signed in as</dt><dd>")?;
        Some(rest.split('<').next().unwrap().to_owned())
    }
}

fn form(request: http::request::Builder, csrf: &str, fields: &[(&str, &str)]) -> Request {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.append_pair("csrf", csrf).extend_pairs(fields);
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    request.body(Body::from(body.finish())).unwrap()
}
