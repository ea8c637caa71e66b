//! Runs the product in the test process, with its router and store, a manual clock and seeded random numbers.

mod content;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use waypost::notifications::{MailNotifier, NotificationSender};
use waypost::operator_socket;
use waypost::router::{self, RouterState};
use waypost_auth::client::document::ClientDocuments;
use waypost_auth::client::document::availability::{Availability, ClientDocumentsMode, HostCheck};
use waypost_auth::identity_provider::IdentityProviders;
use waypost_auth::{Auth, State};
use waypost_console::providers::Provider;
use waypost_console::{Console, ConsoleOptions};
use waypost_core::Random;
use waypost_core::caller::{Caller, Ctx};
use waypost_core::clock::{ManualClock, Timestamp};
use waypost_core::organization::SignUpPolicy;
use waypost_core::random::SeededRandom;
use waypost_core::seal::Keyring;
use waypost_core::secret::SecretKey;
use waypost_gateway::{Gateway, GatewayOptions};
use waypost_http_kit::limits::LimitKind;
use waypost_http_kit::web::{Web, WebState};
use waypost_jobs::Jobs;
use waypost_link::Links;
use waypost_mail::{MemoryMailer, Outbox};
use waypost_mcp::endpoint::{Endpoint, ProductHandlers, SessionMode};
use waypost_mcp::limits::{LimitOptions, Limits};
use waypost_mcp::listen::{ListenOptions, Listeners};
use waypost_ops::hosting::{Hosting, HostingOptions, Tasks};
use waypost_ops::public_url::PublicUrl;
use waypost_ops::tickets::limits::TicketLimits;
use waypost_ops::toolbox_directory::ToolboxDirectory;
use waypost_ops::{Ops, ToolboxSwitch, organizations};
use waypost_outbound::{Outbound, Policy};
use waypost_store::{Db, migrate};
use waypost_testkit::TempDir;

use crate::redaction::IdRedactor;

pub use content::{Org, Server, document};

/// The initial time of every test.
pub const START: Timestamp = Timestamp(1_795_000_000_000);
/// One day in milliseconds.
pub const DAY: i64 = 24 * 60 * 60 * 1_000;

/// The configuration of the product under test.
pub struct Setup {
    pub public_url: &'static str,
    pub limits: LimitOptions,
    /// New anonymous end users per client address and hour.
    pub new_users: u32,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub sign_up: SignUpPolicy,
    /// Whether the product can send email. Sent emails are in [`App::mails`].
    pub can_mail: bool,
    /// Sign-in providers of the console. Providers on loopback are allowed.
    pub providers: Vec<Provider>,
    /// The setting `client_documents`. Tests never connect to the internet.
    pub client_documents: ClientDocumentsMode,
    /// The limits for streams.
    pub listen: ListenOptions,
    /// Ends all streams, as shutdown does.
    pub stop: CancellationToken,
    /// Private networks that outgoing requests can reach.
    pub allow: Vec<waypost_outbound::Allowance>,
    /// The seed of the random numbers. Two processes on one database need different seeds.
    pub seed: u64,
    pub ticket_limits: TicketLimits,
    /// The setting `toolboxes`.
    pub toolboxes: ToolboxSwitch,
    /// `None` switches the gateway off.
    pub gateway: Option<GatewayOptions>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            public_url: "http://localhost:8080",
            limits: LimitOptions::OFF,
            new_users: waypost_ops::limits::NEW_USERS_PER_ADDRESS,
            trusted_proxies: Vec::new(),
            sign_up: SignUpPolicy::Invite,
            can_mail: false,
            providers: Vec::new(),
            // Tokens expire by the manual clock, but the interval between checks is real time.
            listen: ListenOptions { check: Duration::from_millis(50), ..ListenOptions::default() },
            stop: CancellationToken::new(),
            client_documents: ClientDocumentsMode::On,
            allow: Vec::new(),
            seed: 1,
            ticket_limits: TicketLimits::default(),
            toolboxes: ToolboxSwitch::On,
            // Changes take effect immediately.
            gateway: Some(GatewayOptions {
                definition_max_age: Duration::ZERO,
                access_max_age: Duration::ZERO,
                ..GatewayOptions::default()
            }),
        }
    }
}

struct RunningProduct {
    router: Router,
    toolboxes: ToolboxDirectory,
    /// The state for the router of the operator's socket. The router is built on demand, because few tests use it.
    web: Web,
    hosting: Hosting,
    tasks: Tasks,
    /// Ends the streams and the checks of the gateway.
    stop: CancellationToken,
}

struct Inner {
    db: Db,
    mails: MemoryMailer,
    outbound: Outbound,
    request_limits: waypost_http_kit::limits::Limits,
    keyring: Keyring,
    clock: Arc<ManualClock>,
    cx: Ctx,
    running: Mutex<Option<RunningProduct>>,
    names: Mutex<IdRedactor>,
    /// The number of calls that reached a tool. Each must have been recorded when the test ends.
    calls: AtomicI64,
    /// Whether recorded calls were deleted on purpose, with their end user or server.
    deleted: Mutex<bool>,
    _folder: Option<TempDir>,
}

/// The product in the test process. Every test must end with [`App::finish`].
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// Starts the product on the database at `url`. Used by `waypost_testkit::both!`.
pub async fn open(url: &str) -> App {
    App::start(url, None, Setup::default()).await
}

impl App {
    /// Starts the product on a new SQLite database.
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    /// Starts the product on a new SQLite database with the given setup.
    pub async fn with(setup: Setup) -> Self {
        let folder = waypost_testkit::folder();
        let url = waypost_testkit::sqlite_url(&folder);
        Self::start(&url, Some(folder), setup).await
    }

    /// Starts the product on an existing database, which is kept when the product stops.
    pub async fn open_at(url: &str) -> Self {
        Self::start(url, None, Setup::default()).await
    }

    /// Starts the product on an existing database with the given setup.
    pub async fn open_with(url: &str, setup: Setup) -> Self {
        Self::start(url, None, setup).await
    }

    async fn start(url: &str, folder: Option<TempDir>, setup: Setup) -> Self {
        let db = Db::open(url).await.unwrap();
        migrate::migrate(&db).await.unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(setup.seed));
        let options = HostingOptions {
            keys: SecretKey::new([7; 32]).into(),
            version_cache_bytes: 8 * 1024 * 1024,
            clock: clock.clone(),
            random: Arc::clone(&random),
        };
        let (hosting, tasks) = Hosting::start(db.clone(), options);
        let mut allow = setup.allow;
        if !setup.providers.is_empty() {
            allow.push("127.0.0.0/8=sign-in".parse().unwrap());
        }
        let outbound = Outbound::new(Policy { allow, extra_roots_pem: None }).unwrap();
        let hosting = hosting.with_new_users_per_address(setup.new_users).with_outbound(outbound.clone());
        let keyring = hosting.keys().keyring();
        let mails = MemoryMailer::default();
        let mail = setup.can_mail.then(|| Outbox::start_in(hosting.jobs(), Arc::new(mails.clone())));
        let public_url = PublicUrl::new(setup.public_url.parse().unwrap());
        let hosting = match &mail {
            Some(mail) => hosting.with_notifier(Arc::new(MailNotifier::new(mail.clone(), public_url))),
            None => hosting,
        };
        let hosting = hosting.with_ticket_limits(setup.ticket_limits).with_toolboxes(setup.toolboxes);
        let hosting = hosting.with_console_origin(PublicUrl::new(setup.public_url.parse().unwrap()).origin());
        let endpoint = Endpoint::new(
            ProductHandlers,
            hosting.clone(),
            Limits::new(setup.limits, clock.clone()),
            Arc::clone(&random),
            SessionMode::Signed,
            CancellationToken::new(),
        )
        .with_listeners(Listeners::new(setup.listen, setup.stop.clone()));
        let hosts = Arc::new(HostCheck::new(outbound.route(waypost_outbound::Purpose::ClientDocuments, &[]).unwrap()));
        let availability = Availability::new(setup.client_documents, false, hosts, clock.clone());
        let request_limits = waypost_http_kit::limits::Limits::new(clock.clone());
        let auth = Auth::new(State {
            hosting: hosting.clone(),
            public_url: PublicUrl::new(setup.public_url.parse().unwrap()),
            documents: ClientDocuments::new(outbound.clone(), clock.clone()).with_availability(availability),
            limits: request_limits.clone(),
            mail: None,
            random: Arc::clone(&random),
            providers: IdentityProviders::default(),
        });
        let web = Web::new(WebState {
            hosting: hosting.clone(),
            public_url: PublicUrl::new(setup.public_url.parse().unwrap()),
            limits: request_limits.clone(),
            mail,
            random: Arc::clone(&random),
        });
        let console = Console::new(
            web.clone(),
            ConsoleOptions {
                sign_up: setup.sign_up,
                providers: setup.providers,
                api_document: waypost_api::document,
                has_gateway: setup.gateway.is_some(),
            },
        );
        let public_url = PublicUrl::new(setup.public_url.parse().unwrap());
        let toolboxes = ToolboxDirectory::new(hosting.ops().clone(), public_url, clock.clone(), Arc::clone(&random));
        let gateway_cx = Ctx {
            caller: Caller::Operator,
            clock: clock.clone(),
            random: Arc::clone(&random),
            request_id: "gateway".into(),
        };
        let origin = PublicUrl::new(setup.public_url.parse().unwrap()).origin();
        let stop = setup.stop.child_token();
        let routes = RouterState {
            trusted_proxies: setup.trusted_proxies,
            hosting: hosting.clone(),
            endpoint,
            auth,
            console,
            gateway: setup
                .gateway
                .map(|options| Arc::new(Gateway::new(&hosting, gateway_cx, origin, options).with_stop(stop.clone()))),
            toolboxes: toolboxes.clone(),
            random: Arc::clone(&random),
        };
        hosting.offer_cache().poll().await.unwrap();
        let cx =
            Ctx { caller: Caller::Operator, clock: clock.clone(), random: Arc::clone(&random), request_id: "t".into() };
        Self(Arc::new(Inner {
            db,
            mails,
            outbound,
            request_limits,
            keyring,
            clock,
            cx,
            running: Mutex::new(Some(RunningProduct {
                router: router::build(routes),
                web,
                toolboxes,
                hosting,
                tasks,
                stop,
            })),
            names: Mutex::default(),
            calls: AtomicI64::new(0),
            deleted: Mutex::new(false),
            _folder: folder,
        }))
    }

    pub fn cx(&self) -> &Ctx {
        &self.0.cx
    }

    pub fn db(&self) -> &Db {
        &self.0.db
    }

    /// Returns the emails that the product has sent.
    pub fn mails(&self) -> &MemoryMailer {
        &self.0.mails
    }

    pub fn ops(&self) -> Ops {
        Ops::new(self.0.db.clone()).with_outbound(self.0.outbound.clone()).with_keyring(self.0.keyring.clone())
    }

    /// Returns the operations of the running product, whose links to toolboxes the API uses.
    pub fn running_ops(&self) -> Ops {
        self.0.running.lock().unwrap().as_ref().unwrap().hosting.ops().clone()
    }

    /// Counts `number` requests from `address` towards the limit of all requests, without sending them.
    pub fn count_requests(&self, address: &str, number: u32) {
        for _ in 0..number {
            self.0.request_limits.check(LimitKind::Request, address.parse().unwrap()).unwrap();
        }
    }

    /// Sends a request through the router, from 192.0.2.7.
    pub async fn send(&self, mut request: Request<Body>) -> Response<Body> {
        let peer = ConnectInfo(std::net::SocketAddr::from(([192, 0, 2, 7], 50_000)));
        request.extensions_mut().get_or_insert_with(|| peer);
        self.send_without_peer(request).await
    }

    /// Sends a request without a peer address.
    pub async fn send_without_peer(&self, request: Request<Body>) -> Response<Body> {
        self.router().oneshot(request).await.unwrap()
    }

    /// Sends a request through the router of the operator's socket.
    pub async fn send_as_operator(&self, request: Request<Body>) -> Response<Body> {
        let web = self.0.running.lock().unwrap().as_ref().unwrap().web.clone();
        operator_socket::router(&web).oneshot(request).await.unwrap()
    }

    /// Advances the clock and reloads the offers of all servers.
    pub async fn advance_clock(&self, milliseconds: i64) {
        self.0.clock.advance(milliseconds);
        self.refresh().await;
    }

    /// Reloads the offers of all servers, as every process does within a second.
    pub async fn refresh(&self) {
        let hosting = self.0.running.lock().unwrap().as_ref().unwrap().hosting.clone();
        hosting.offer_cache().poll().await.unwrap();
    }

    /// Sends the emails about tickets that are due, as every process does within a second. Returns the number of
    /// attempts.
    pub async fn send_emails(&self) -> usize {
        let ops = self.0.running.lock().unwrap().as_ref().unwrap().hosting.ops().clone();
        let sender = NotificationSender { cx: self.0.cx.clone(), ops };
        let mut attempts = 0;
        loop {
            match sender.run_once().await.unwrap() {
                0 => return attempts,
                count => attempts += count,
            }
        }
    }

    /// Replaces each ID with a numbered placeholder.
    pub fn redact(&self, text: &str) -> String {
        self.0.names.lock().unwrap().redact(text)
    }

    /// Counts a call that reached a tool.
    pub fn count_call(&self) {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
    }

    /// Disables the check that every call is recorded, because the test deletes recorded calls.
    pub fn skip_call_check(&self) {
        *self.0.deleted.lock().unwrap() = true;
    }

    /// Returns an integer from the database.
    pub async fn count(&self, sql: &'static str) -> i64 {
        let mut conn = self.0.db.read().await.unwrap();
        waypost_store::on!(&mut conn, c => sqlx::query_scalar(sql).fetch_one(c).await.unwrap())
    }

    /// Returns the rows of a query with one text column, one per line, with IDs redacted.
    pub async fn query_lines(&self, sql: &'static str) -> String {
        let mut conn = self.0.db.read().await.unwrap();
        let rows: Vec<String> = waypost_store::on!(&mut conn, c => sqlx::query_scalar(sql).fetch_all(c).await.unwrap());
        self.redact(&rows.join("\n"))
    }

    /// Executes a statement directly on the database.
    pub async fn execute(&self, sql: &'static str) {
        let mut tx = self.0.db.begin().await.unwrap();
        waypost_store::on!(&mut tx, c => { sqlx::query(sql).execute(c).await.unwrap(); });
        tx.commit().await.unwrap();
    }

    /// Returns the number of calls that are recorded or counted.
    async fn count_recorded_calls(&self) -> i64 {
        let rows = self.count("SELECT count(*) FROM tool_calls").await;
        rows + self.count("SELECT CAST(COALESCE(sum(count), 0) AS BIGINT) FROM counted_calls").await
    }

    /// Waits until the recorder has written every call.
    pub async fn wait_for_records(&self) {
        let written = async {
            while self.count_recorded_calls().await < self.0.calls.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), written).await.expect("the recorder writes every call");
    }

    /// Returns the supervised jobs of this process.
    pub fn jobs(&self) -> Jobs {
        self.0.running.lock().unwrap().as_ref().unwrap().hosting.jobs().clone()
    }

    /// Returns the router of the main port.
    pub fn router(&self) -> Router {
        self.0.running.lock().unwrap().as_ref().unwrap().router.clone()
    }

    /// Returns the links to toolboxes.
    pub fn links(&self) -> Links {
        self.0.running.lock().unwrap().as_ref().unwrap().hosting.ops().links().clone()
    }

    /// Returns the directory that the links use.
    pub fn toolboxes(&self) -> ToolboxDirectory {
        self.0.running.lock().unwrap().as_ref().unwrap().toolboxes.clone()
    }

    /// Stops the product. All pending writes are completed.
    pub async fn stop(&self) {
        let Some(running) = self.0.running.lock().unwrap().take() else { return };
        let RunningProduct { router, web, toolboxes, hosting, tasks, stop } = running;
        stop.cancel();
        drop((router, web, toolboxes, hosting));
        // Completes only when no other reference to the hosting is left.
        tokio::time::timeout(Duration::from_secs(20), tasks.finish())
            .await
            .expect("all references to the hosting are dropped");
    }

    /// Stops the product and checks the invariants of the database.
    pub async fn finish(self) {
        self.stop().await;
        if !*self.0.deleted.lock().unwrap() {
            let calls = self.0.calls.load(Ordering::SeqCst);
            assert_eq!(self.count_recorded_calls().await, calls, "each call is recorded or counted");
        }
        const DUPLICATE_ATTEMPTS: &str = "SELECT count(*) FROM (SELECT 1 AS one FROM progress WHERE closed_at IS NULL
            GROUP BY end_user_id, server_id, walkthrough_id HAVING count(*) > 1) AS doubles";
        assert_eq!(self.count(DUPLICATE_ATTEMPTS).await, 0, "at most one open attempt per walkthrough");
        const UNUSED_END_USERS: &str = "SELECT count(*) FROM end_users
            WHERE NOT EXISTS (SELECT 1 FROM tool_calls WHERE tool_calls.end_user_id = end_users.id)
              AND NOT EXISTS (SELECT 1 FROM identities WHERE identities.end_user_id = end_users.id)";
        assert_eq!(self.count(UNUSED_END_USERS).await, 0, "end users are created only by calls and sign-ins");
        const CROSS_ORGANIZATION_PROGRESS: &str = "SELECT count(*) FROM progress
            JOIN end_users ON end_users.id = progress.end_user_id JOIN servers ON servers.id = progress.server_id
            JOIN walkthroughs ON walkthroughs.id = progress.walkthrough_id
            WHERE end_users.organization_id <> progress.organization_id
               OR servers.organization_id <> progress.organization_id
               OR walkthroughs.organization_id <> progress.organization_id";
        assert_eq!(self.count(CROSS_ORGANIZATION_PROGRESS).await, 0, "progress stays within one organisation");
        self.0.db.close().await;
    }

    /// Creates an organisation.
    pub async fn org(&self, slug: &str) -> Org {
        let organization = organizations::create(self.cx(), &self.ops(), slug, None).await.unwrap();
        Org { app: self.clone(), id: organization.id }
    }

    /// Creates an organisation and a server with the same slug.
    pub async fn server(&self, slug: &str) -> Server {
        self.org(slug).await.server(slug).await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let last = Arc::strong_count(&self.0) == 1;
        if last && !std::thread::panicking() && self.0.running.lock().is_ok_and(|running| running.is_some()) {
            panic!("the test did not end with App::finish");
        }
    }
}
