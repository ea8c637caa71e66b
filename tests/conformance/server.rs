//! Servers for the suite: the product's router on a new database and a free port.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use http::{HeaderValue, StatusCode, header};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use waypost::config::Settings;
use waypost::demo;
use waypost::router::{self, RouterState};
use waypost_auth::client::document::ClientDocuments;
use waypost_auth::identity_provider::IdentityProviders;
use waypost_auth::{Auth, State};
use waypost_console::{Console, ConsoleOptions};
use waypost_core::caller::Ctx;
use waypost_core::secret::SecretKey;
use waypost_core::{SystemClock, SystemRandom};
use waypost_gateway::{Gateway, GatewayOptions};
use waypost_http_kit::web::{Web, WebState};
use waypost_mcp::endpoint::{Endpoint, HandlerFactory, ProductHandlers, SessionMode};
use waypost_mcp::limits::{LimitOptions, Limits};
use waypost_mcp_wire::revision::{METHOD_HEADER, MODERN};
use waypost_ops::hosting::{Hosting, HostingOptions};
use waypost_ops::public_url::PublicUrl;
use waypost_ops::toolbox_directory::ToolboxDirectory;
use waypost_ops::{Ops, organizations, servers};
use waypost_outbound::{Outbound, Policy};
use waypost_store::{Db, migrate};
use waypost_testkit::TempDir;

use crate::fixtures::Fixtures;
use crate::gateway;

/// A server with default settings, which runs until it is dropped.
pub struct Server {
    /// The MCP URL.
    pub url: String,
    stop: CancellationToken,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Starts the fixtures behind the product's router, with sessions in memory.
pub async fn with_fixtures() -> Server {
    start_fixtures(true).await
}

/// Starts the fixtures as a server that speaks only `revision`, if it is one with a handshake, and otherwise as
/// [`with_fixtures`].
pub async fn with_fixtures_of(revision: &str) -> Server {
    start_fixtures(revision == MODERN).await
}

async fn start_fixtures(has_discovery: bool) -> Server {
    let (folder, db) = store().await;
    let (cx, ops) = (Ctx::operator(), Ops::new(db.clone()));
    let organization = organizations::create(&cx, &ops, "conformance", None).await.unwrap();
    servers::create(&cx, &ops, &organization.id, "conformance", &servers::ServerSettings::default()).await.unwrap();
    let sessions = SessionMode::InMemory(Arc::new(LocalSessionManager::default()));
    let endpoints = Endpoints { has_discovery, ..Endpoints::of_server("conformance") };
    start(folder, start_hosting(db, &[]), Fixtures::new(), sessions, endpoints).await
}

/// Starts the product with its gateway, through which an agent uses the server at `url`. Every request has the token of the
/// agent, because the suite cannot send one.
pub async fn with_gateway(url: &str) -> Server {
    let (folder, db) = store().await;
    let (hosting, outbound) = start_hosting(db, &["127.0.0.0/8=tools"]);
    let token = gateway::connect(hosting.ops(), url).await;
    let mut authorization: HeaderValue = format!("Bearer {token}").parse().unwrap();
    authorization.set_sensitive(true);
    let gateway = Gateway::new(&hosting, Ctx::operator(), String::new(), GatewayOptions::default());
    let endpoints = Endpoints {
        path: gateway::PATH.to_owned(),
        gateway: Some(gateway),
        authorization: Some(authorization),
        has_discovery: true,
    };
    start(folder, (hosting, outbound), ProductHandlers, SessionMode::Signed, endpoints).await
}

/// The product with its gateway, and its operations.
pub struct Product {
    /// The server, whose URL is its origin.
    pub server: Server,
    /// The operations.
    pub ops: Ops,
}

/// Starts the product with its gateway, through which agents can use servers on loopback.
pub async fn with_open_gateway() -> Product {
    let (folder, db) = store().await;
    let (hosting, outbound) = start_hosting(db, &["127.0.0.0/8=tools", "::1/128=tools"]);
    let ops = hosting.ops().clone();
    let gateway = Gateway::new(&hosting, Ctx::operator(), String::new(), GatewayOptions::default());
    let endpoints = Endpoints { path: String::new(), gateway: Some(gateway), authorization: None, has_discovery: true };
    let server = start(folder, (hosting, outbound), ProductHandlers, SessionMode::Signed, endpoints).await;
    Product { server, ops }
}

/// Starts the demo, as `waypost serve --demo` does.
pub async fn with_demo() -> Server {
    let (folder, db) = store().await;
    demo::create(&db).await.unwrap();
    start(folder, start_hosting(db, &[]), ProductHandlers, SessionMode::Signed, Endpoints::of_server("demo")).await
}

async fn store() -> (TempDir, Db) {
    let folder = waypost_testkit::folder();
    let db = Db::open(&waypost_testkit::sqlite_url(&folder)).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    (folder, db)
}

/// The content that a server serves.
struct Endpoints {
    /// The path of the MCP endpoint that the suite tests.
    path: String,
    gateway: Option<Gateway>,
    /// The header `Authorization` of every request.
    authorization: Option<HeaderValue>,
    /// Whether `server/discover` is answered, which only 2026-07-28 has.
    has_discovery: bool,
}

impl Endpoints {
    fn of_server(slug: &str) -> Self {
        Self { path: format!("/s/{slug}/mcp"), gateway: None, authorization: None, has_discovery: true }
    }
}

/// Starts the shared services, which may connect to the addresses in `allow` in addition to public ones.
fn start_hosting(db: Db, allow: &[&str]) -> (Hosting, Outbound) {
    let options = HostingOptions {
        keys: SecretKey::new([7; 32]).into(),
        version_cache_bytes: Settings::default().version_cache_bytes,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    let (hosting, _tasks) = Hosting::start(db, options);
    let allow = allow.iter().map(|text| text.parse().unwrap()).collect();
    let outbound = Outbound::new(Policy { allow, extra_roots_pem: None }).unwrap();
    (hosting.with_outbound(outbound.clone()), outbound)
}

async fn start<R: HandlerFactory>(
    folder: TempDir,
    (hosting, outbound): (Hosting, Outbound),
    responder: R,
    sessions: SessionMode,
    endpoints: Endpoints,
) -> Server {
    let settings = Settings::default();
    let stop = CancellationToken::new();
    let limits = Limits::new(LimitOptions::default(), Arc::new(SystemClock));
    let endpoint = Endpoint::new(responder, hosting.clone(), limits, Arc::new(SystemRandom), sessions, stop.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let auth = Auth::new(State {
        hosting: hosting.clone(),
        public_url: PublicUrl::new(origin.parse().unwrap()),
        documents: ClientDocuments::new(outbound, Arc::new(SystemClock)),
        limits: waypost_http_kit::limits::Limits::new(Arc::new(SystemClock)),
        mail: None,
        random: Arc::new(SystemRandom),
        providers: IdentityProviders::default(),
    });
    let web = Web::new(WebState {
        hosting: hosting.clone(),
        public_url: PublicUrl::new(origin.parse().unwrap()),
        limits: waypost_http_kit::limits::Limits::new(Arc::new(SystemClock)),
        mail: None,
        random: Arc::new(SystemRandom),
    });
    let console = Console::new(
        web,
        ConsoleOptions {
            sign_up: settings.sign_up,
            providers: Vec::new(),
            api_document: waypost_api::document,
            has_gateway: endpoints.gateway.is_some(),
        },
    );
    let public_url = PublicUrl::new(origin.parse().unwrap());
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let toolboxes = ToolboxDirectory::new(hosting.ops().clone(), public_url, clock, random);
    let mut router = router::build(RouterState {
        gateway: endpoints.gateway.map(Arc::new),
        trusted_proxies: Vec::new(),
        hosting,
        endpoint,
        auth,
        console,
        toolboxes,
        random: Arc::new(SystemRandom),
    });
    if let Some(authorization) = endpoints.authorization {
        router = router.layer(middleware::map_request(move |mut request: Request| {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
            async move { request }
        }));
    }
    if !endpoints.has_discovery {
        router = router.layer(middleware::from_fn(reject_discovery));
    }
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned()).into_future());
    Server { url: format!("{origin}{}", endpoints.path), stop, _folder: folder }
}

async fn reject_discovery(request: Request, next: Next) -> Response {
    match request.headers().get(METHOD_HEADER) {
        Some(method) if method == "server/discover" => StatusCode::BAD_REQUEST.into_response(),
        _ => next.run(request).await,
    }
}
