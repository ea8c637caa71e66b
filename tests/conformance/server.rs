//! Servers for the suite: the product's router on a new database and a free port.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::ListenerExt;
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
use waypost_http_kit::web::{Web, WebState};
use waypost_mcp::endpoint::{Endpoint, HandlerFactory, ProductHandlers, SessionMode};
use waypost_mcp::limits::{LimitOptions, Limits};
use waypost_ops::hosting::{Hosting, HostingOptions};
use waypost_ops::public_url::PublicUrl;
use waypost_ops::toolbox_directory::ToolboxDirectory;
use waypost_ops::{Ops, organizations, servers};
use waypost_outbound::{Outbound, Policy};
use waypost_store::{Db, migrate};
use waypost_testkit::TempDir;

use crate::fixtures::Fixtures;

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
    let (folder, db) = store().await;
    let (cx, ops) = (Ctx::operator(), Ops::new(db.clone()));
    let organization = organizations::create(&cx, &ops, "conformance", None).await.unwrap();
    servers::create(&cx, &ops, &organization.id, "conformance", &servers::ServerSettings::default()).await.unwrap();
    let sessions = SessionMode::InMemory(Arc::new(LocalSessionManager::default()));
    start(folder, db, Fixtures::new(), sessions, "conformance").await
}

/// Starts the demo, as `waypost serve --demo` does.
pub async fn with_demo() -> Server {
    let (folder, db) = store().await;
    demo::create(&db).await.unwrap();
    start(folder, db, ProductHandlers, SessionMode::Signed, "demo").await
}

async fn store() -> (TempDir, Db) {
    let folder = waypost_testkit::folder();
    let db = Db::open(&waypost_testkit::sqlite_url(&folder)).await.unwrap();
    migrate::migrate(&db).await.unwrap();
    (folder, db)
}

async fn start<R: HandlerFactory>(folder: TempDir, db: Db, responder: R, sessions: SessionMode, slug: &str) -> Server {
    let settings = Settings::default();
    let options = HostingOptions {
        keys: SecretKey::new([7; 32]).into(),
        version_cache_bytes: settings.version_cache_bytes,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    let (hosting, _tasks) = Hosting::start(db, options);
    let stop = CancellationToken::new();
    let limits = Limits::new(LimitOptions::default(), Arc::new(SystemClock));
    let endpoint = Endpoint::new(responder, hosting.clone(), limits, Arc::new(SystemRandom), sessions, stop.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let outbound = Outbound::new(Policy { allow: Vec::new(), extra_roots_pem: None }).unwrap();
    let hosting = hosting.with_outbound(outbound.clone());
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
        ConsoleOptions { sign_up: settings.sign_up, providers: Vec::new(), api_document: waypost_api::document },
    );
    let public_url = PublicUrl::new(origin.parse().unwrap());
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let toolboxes = ToolboxDirectory::new(hosting.ops().clone(), public_url, clock, random);
    let router = router::build(RouterState {
        gateway: None,
        trusted_proxies: Vec::new(),
        hosting,
        endpoint,
        auth,
        console,
        toolboxes,
        random: Arc::new(SystemRandom),
    });
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned()).into_future());
    Server { url: format!("{origin}/s/{slug}/mcp"), stop, _folder: folder }
}
