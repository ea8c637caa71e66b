//! An installation with an identity provider, servers whose users sign in with it, and a browser.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::{Extension, Router};
use http::{Request, StatusCode, header};
use tower::ServiceExt;
use url::Url;
use waypost_auth::client::document::ClientDocuments;
use waypost_auth::identity_provider::IdentityProviders;
use waypost_auth::server_request::ServerRequest;
use waypost_auth::{Auth, State};
use waypost_core::authorization::AuthorizationRequest;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::clock::ManualClock;
use waypost_core::id::{AuthorizationRequestId, OrganizationId};
use waypost_core::oauth_config::OauthConfig;
use waypost_core::random::SeededRandom;
use waypost_core::seal::SecretText;
use waypost_core::secret::SecretKey;
use waypost_core::server::{AuthType, Server};
use waypost_core::{Random, Timestamp};
use waypost_http_kit::cookies;
use waypost_ops::browser_sessions::{self, BrowserSession};
use waypost_ops::hosting::{Hosting, HostingOptions};
use waypost_ops::oauth_configs::{self, OauthConfigSettings};
use waypost_ops::public_url::{HostKind as Host, PublicUrl};
use waypost_ops::{Ops, authorizations, organizations, servers};
use waypost_outbound::{Outbound, Policy};
use waypost_store::{Db, migrate, on};

use crate::provider::Provider;

/// The time at which every test starts.
pub const NOW: Timestamp = Timestamp(1_795_000_000_000);
/// The value of the browser's cookie.
pub const BROWSER: &str = "browser-of-anna";
/// Waypost's client secret at the provider. It must be encoded for HTTP Basic.
pub const CLIENT_SECRET: &str = "hunter2 & co";
const AUTHORITY: &str = "localhost:8080";

pub struct Fixture {
    pub provider: Provider,
    pub ops: Ops,
    pub cx: Ctx,
    pub organization: OrganizationId,
    clock: Arc<ManualClock>,
    hosting: Hosting,
    router: Router,
}

/// A response to the browser.
pub struct Page {
    pub status: StatusCode,
    pub location: Option<String>,
    pub session: Option<String>,
    pub text: String,
}

pub async fn fixture(url: &str) -> Fixture {
    let db = Db::open(url).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    let clock = Arc::new(ManualClock::new(NOW));
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
    let options = HostingOptions {
        keys: SecretKey::new([7; 32]).into(),
        version_cache_bytes: 1024,
        clock: clock.clone(),
        random: Arc::clone(&random),
    };
    let policy = Policy { allow: vec!["127.0.0.0/8=sign-in".parse().unwrap()], extra_roots_pem: None };
    let outbound = Outbound::new(policy).unwrap();
    let (hosting, _) = Hosting::start(db, options);
    let hosting = hosting.with_outbound(outbound.clone());
    let auth = Auth::new(State {
        hosting: hosting.clone(),
        public_url: PublicUrl::new(format!("http://{AUTHORITY}").parse().unwrap()),
        documents: ClientDocuments::new(outbound, clock.clone()),
        limits: waypost_http_kit::limits::Limits::new(clock.clone()),
        mail: None,
        random: Arc::clone(&random),
        providers: IdentityProviders::default(),
    });
    let cx = Ctx { caller: Caller::Operator, clock: clock.clone(), random, request_id: "test".into() };
    let ops = hosting.ops().clone();
    let organization = organizations::create(&cx, &ops, "acme", None).await.unwrap().id;
    let router = Router::new().nest("/s/{slug}/oauth", waypost_auth::page_routes()).with_state(auth);
    Fixture { provider: Provider::start().await, ops, cx, organization, clock, hosting, router }
}

impl Fixture {
    /// Returns the settings of the provider.
    pub fn settings(&self) -> OauthConfigSettings {
        OauthConfigSettings {
            name: Some("Acme ID".into()),
            issuer: Some(self.provider.issuer.clone()),
            client_id: Some("waypost".into()),
            client_secret: Some(SecretText::new(CLIENT_SECRET)),
            ..OauthConfigSettings::default()
        }
    }

    /// Returns the settings of the same provider without metadata.
    pub fn settings_without_metadata(&self) -> OauthConfigSettings {
        let at = |path: &str| Some(format!("{}{path}", self.provider.issuer));
        OauthConfigSettings {
            issuer: None,
            authorization_endpoint: at("/authorize"),
            token_endpoint: at("/token"),
            userinfo_endpoint: at("/userinfo"),
            ..self.settings()
        }
    }

    pub async fn configure(&self, settings: &OauthConfigSettings) -> OauthConfig {
        let created = oauth_configs::create(&self.cx, &self.ops, &self.organization, settings).await;
        created.unwrap().0
    }

    /// Creates a server whose users sign in with the provider.
    pub async fn server(&self, slug: &str) -> Server {
        let settings = servers::ServerSettings { auth_type: Some(AuthType::CustomOauth), ..Default::default() };
        servers::create(&self.cx, &self.ops, &self.organization, slug, &settings).await.unwrap()
    }

    pub fn advance_clock(&self, milliseconds: i64) {
        self.clock.advance(milliseconds);
        self.provider.set().now = self.cx.now();
    }

    /// Reloads the settings of the servers.
    pub async fn poll(&self) {
        self.hosting.offer_cache().poll().await.unwrap();
    }

    /// Creates a client's authorization request for `server` in the browser.
    pub async fn request(&self, server: &Server, consented: bool) -> AuthorizationRequest {
        let now = self.cx.now();
        let request = AuthorizationRequest {
            id: AuthorizationRequestId::new(now, &*self.cx.random),
            issuer_id: server.into(),
            issuer: format!("http://{AUTHORITY}/s/{}", server.slug),
            client_id: "client".into(),
            client_name: "Client <1>".into(),
            redirect_uri: "http://127.0.0.1:4000/callback?own=1".into(),
            state: Some("of the client".into()),
            scope: "walk".into(),
            resource: format!("http://{AUTHORITY}/s/{}/mcp", server.slug),
            claim: None,
            code_challenge: "challenge".into(),
            prompt: Some("login".into()),
            login_hint: Some("anna@acme.example".into()),
            created_at: now,
            expires_at: now.plus(authorizations::LIFETIME_MS),
            consented_at: consented.then_some(now),
        };
        authorizations::create(&self.ops, &request, BROWSER, "network").await.unwrap();
        request
    }

    pub async fn get(&self, server: &Server, path_and_query: &str, browser: &str) -> Page {
        let offers = self.hosting.offer_cache().get(&server.slug).await.unwrap();
        let address = PublicUrl::new(format!("http://{AUTHORITY}").parse().unwrap());
        let incoming = ServerRequest {
            address: address.server_urls(AUTHORITY, &Host::Main, &server.slug),
            offers,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            request_id: "test".into(),
        };
        let request = Request::get(format!("/s/{}/oauth/{path_and_query}", server.slug))
            .header(header::COOKIE, format!("{}={browser}", cookies::END_USER_BROWSER))
            .body(Body::empty())
            .unwrap();
        let response = self.router.clone().layer(Extension(incoming)).oneshot(request).await.unwrap();
        let text = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let cookie = text(header::SET_COOKIE).and_then(|cookie| {
            let pair = cookie.split(';').next()?.split_once('=')?;
            (pair.0 == cookies::end_user_session(&self.organization)).then(|| pair.1.to_owned())
        });
        let (location, status) = (text(header::LOCATION), response.status());
        let body = to_bytes(response.into_body(), 1024 * 1024).await.unwrap();
        Page { status, location, session: cookie, text: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Begins the login. Returns the URL of the provider to which the browser is redirected.
    pub async fn begin_login(&self, server: &Server, request: &AuthorizationRequest) -> Url {
        let page = self.get(server, &format!("upstream?request={}", request.id), BROWSER).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let target = page.text.split("content=\"0; url=").nth(1).unwrap().split('"').next().unwrap();
        target.replace("&#38;", "&").replace("&amp;", "&").parse().unwrap()
    }

    /// Performs a complete login with the user's approval.
    pub async fn sign_in(&self, server: &Server) -> Page {
        let request = self.request(server, true).await;
        let target = self.begin_login(server, &request).await;
        let code = self.provider.approve(&target);
        self.get(server, &format!("callback?code={code}&state={}", parameter(&target, "state")), BROWSER).await
    }

    /// Returns the session of the cookie that a response sets. Panics if it sets none.
    pub async fn session_of(&self, page: &Page) -> BrowserSession {
        let session = page.session.as_deref().unwrap_or_else(|| panic!("{}: {}", page.status, page.text));
        browser_sessions::find(&self.cx, &self.ops, &self.organization, session).await.unwrap().unwrap()
    }

    /// Queries a number from the database.
    pub async fn query_number(&self, sql: &'static str) -> i64 {
        let mut conn = self.ops.store().read().await.unwrap();
        on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap())
    }

    /// Queries a string from the database.
    pub async fn query_text(&self, sql: &'static str) -> String {
        let mut conn = self.ops.store().read().await.unwrap();
        on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap())
    }

    pub async fn execute(&self, sql: &'static str) {
        let mut tx = self.ops.store().begin().await.unwrap();
        on!(&mut tx, c => sqlx::query(sql).execute(c).await.unwrap().rows_affected());
        tx.commit().await.unwrap();
    }
}

pub fn parameter(url: &Url, name: &str) -> String {
    let pair = url.query_pairs().find(|(own, _)| own == name);
    pair.unwrap_or_else(|| panic!("{name} in {url}")).1.into_owned()
}
