//! `waypost serve`: runs all parts of an installation.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use waypost_auth::client::document::ClientDocuments;
use waypost_auth::client::document::availability::{Availability, HostCheck};
use waypost_auth::identity_provider::IdentityProviders;
use waypost_auth::{Auth, State};
use waypost_console::{Console, ConsoleOptions};
use waypost_core::caller::Ctx;
use waypost_core::secret::SecretKeys;
use waypost_core::{SystemClock, SystemRandom};
use waypost_gateway::{Gateway, GatewayOptions};
use waypost_http_kit::web::{Web, WebState};
use waypost_jobs::Jobs;
use waypost_mail::Outbox;
use waypost_mcp::endpoint::{Endpoint, ProductHandlers, SessionMode};
use waypost_mcp::limits::{LimitOptions, Limits};
use waypost_mcp::listen::{ListenOptions, Listeners};
use waypost_ops::hosting::{Hosting, HostingOptions, Tasks};
use waypost_ops::public_url::PublicUrl;
use waypost_ops::tickets::limits::TicketLimits;
use waypost_ops::toolbox_directory::ToolboxDirectory;
use waypost_ops::user_accounts::set_up_token;
use waypost_outbound::{Outbound, Purpose};
use waypost_store::Db;

use super::App;
use crate::config::Settings;
use crate::connections::{ConnectionLimits, Connections, Shutdown, descriptors};
use crate::jobs::JobContext;
use crate::notifications::{MailNotifier, NotificationSender};
use crate::operator_socket::OperatorSocket;
use crate::replicas::{InternalListener, Replica};
use crate::router::{self, RouterState};
use crate::telemetry::{self, Metrics};
use crate::{demo, jobs, mail, outbound, providers, storage};

/// Time for open requests to finish after a stop signal. The process must exit within ten seconds.
const GRACE_PERIOD: Duration = Duration::from_secs(5);
/// Time for cancelled requests and streams to notify their clients.
const CANCELLATION_TIMEOUT: Duration = Duration::from_millis(500);
/// File descriptors reserved for the diagnostics port.
const RESERVED_DESCRIPTORS: usize = 16;
/// Time for writing the remaining queued records.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Time for closing the database, which may be unreachable.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for sending queued emails.
const MAIL_TIMEOUT: Duration = Duration::from_secs(1);

/// Arguments of `waypost serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port to listen on.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Public URL of this installation: an origin without a path.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Address and port of the diagnostics port (metrics and health), or `off`.
    #[arg(long, value_name = "ADDRESS")]
    diagnostics_listen: Option<String>,
    /// Create the demo organisation, unless it was created before.
    #[arg(long)]
    pub demo: bool,
}

impl Args {
    /// Appends the flags that are settings.
    pub(super) fn settings(&self, flags: &mut Vec<(&'static str, String)>) {
        let values = [
            ("listen", &self.listen),
            ("public_url", &self.public_url),
            ("diagnostics_listen", &self.diagnostics_listen),
        ];
        flags.extend(values.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    }
}

/// The two stop phases: `accept` stops accepting new requests, `open` cancels open requests and streams.
#[derive(Default)]
struct StopTokens {
    accept: CancellationToken,
    open: CancellationToken,
}

/// The listeners of the two ports.
struct PortListeners {
    main: TcpListener,
    diagnostics: Option<TcpListener>,
}

/// The services that requests and jobs use.
struct Services {
    hosting: Hosting,
    tasks: Tasks,
    outbox: Option<Outbox>,
    outbound: Outbound,
    public_url: PublicUrl,
    /// The role of this process as a replica; `None` without an internal listener.
    replica: Option<Replica>,
}

/// Serves until a stop signal.
///
/// # Errors
/// If it cannot start because the database, a listen address or the secret key is not usable.
pub async fn run(app: App, args: Args) -> anyhow::Result<()> {
    let settings = &app.settings;
    let files = descriptors::raise_limit();
    let _lock = storage::serve_lock(settings)?;
    let keys = storage::keys(settings, &SystemRandom)?;
    let db = app.open().await?.db;
    storage::check_writable(settings, &db).await?;
    if args.demo {
        demo::create(&db).await.context("the demo could not be created")?;
    }
    let listeners = bind_ports(settings).await?;
    let address = listeners.main.local_addr()?;
    let public_url = PublicUrl::new(settings.public_url(address.port()));
    let metrics = telemetry::start_metrics()?;
    let replica = Replica::from_settings(settings, &db, &keys)?;
    let internal = match &replica {
        Some(replica) => Some(replica.listener(bind(replica.listen, "internal_listen").await?)),
        None => None,
    };
    let services = start_services(settings, db.clone(), keys, public_url, replica, args.demo)?;
    let stop = StopTokens::default();
    let web = build_web(&services);
    let operator = settings.database_url.is_sqlite().then(|| bind_operator_socket(settings)).flatten();
    let router = build_router(settings, &services, web.clone(), &stop)?;
    let set_up = set_up_token(services.hosting.ops(), services.hosting.secret()).await?;
    let jobs = start_jobs(settings, &services, metrics.clone());
    let phases = Shutdown { graceful: stop.accept.clone(), immediate: CancellationToken::new() };
    let connections = Connections::new(ConnectionLimits::main(settings, files), phases.clone());
    #[expect(
        clippy::disallowed_methods,
        reason = "not supervised, because it runs until the end; if it panics, probes of `/readyz` fail"
    )]
    let diagnostics_task = listeners.diagnostics.map(|listener| {
        let router = diagnostics_router(metrics, services.hosting.clone());
        let limits = ConnectionLimits::diagnostics(settings);
        let connections = Connections::with_reserve(limits, phases.clone(), RESERVED_DESCRIPTORS, &connections);
        tokio::spawn(async move { connections.serve(listener, router).await })
    });
    stop_on_signal(stop.accept.clone())?;
    // By default, SIGXFSZ terminates the process. With a handler, exceeding a file size limit is a write error instead.
    let _limit = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    print_hints(settings, &services.public_url, address, set_up.as_deref(), args.demo);
    let Services { hosting, tasks, outbox, .. } = services;
    let internal = serve_internal(internal, settings, phases.clone(), web.clone());
    let operator =
        serve_operator(operator, Connections::new(ConnectionLimits::operator(settings), phases.clone()), web);
    let (links, stopping) = (hosting.ops().links().clone(), stop.accept.clone());
    let others = async move {
        tokio::join!(operator, internal, async {
            stopping.cancelled().await;
            // Ends the responses that follow a log.
            links.close_all();
        });
    };
    // All clones must be dropped before the tasks end.
    drop(hosting);
    serve(connections, listeners.main, router, others, &phases, &stop.open).await;
    // The order matters: jobs enqueue emails and records, queues are drained, then the database is closed.
    jobs.stop().await;
    if let Some(task) = diagnostics_task {
        let _ = task.await;
    }
    if let Some(outbox) = outbox {
        mail::finish(&outbox, MAIL_TIMEOUT).await;
    }
    if tokio::time::timeout(DRAIN_TIMEOUT, tasks.finish()).await.is_err() {
        tracing::error!("timed out writing the records of the last calls");
    }
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, db.close()).await;
    Ok(())
}

async fn bind_ports(settings: &Settings) -> anyhow::Result<PortListeners> {
    let main = bind(settings.listen, "listen").await?;
    let diagnostics = match settings.diagnostics_listen {
        Some(address) => Some(bind(address, "diagnostics_listen").await?),
        None => None,
    };
    Ok(PortListeners { main, diagnostics })
}

fn start_services(
    settings: &Settings,
    db: Db,
    keys: SecretKeys,
    public_url: PublicUrl,
    replica: Option<Replica>,
    demo: bool,
) -> anyhow::Result<Services> {
    let outbound = Outbound::new(outbound::policy(settings, demo)?)
        .context("outgoing requests cannot be set up: check the setting `outbound_ca_file`")?;
    let options = HostingOptions {
        keys,
        version_cache_bytes: settings.version_cache_bytes,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    let (hosting, tasks) = Hosting::start(db, options);
    let ticket_limits =
        TicketLimits { per_address: settings.ticket_limit_per_address, per_server: settings.ticket_limit_per_server };
    let mut hosting = hosting
        .with_outbound(outbound.clone())
        .with_new_users_per_address(settings.new_users_per_address)
        .with_ticket_limits(ticket_limits)
        .with_instance_limit(settings.instance_limit)
        .with_console_origin(public_url.origin())
        .with_toolboxes(settings.toolbox_switch());
    if let Some(replica) = &replica {
        hosting = hosting.with_forward(replica.forward());
    }
    let outbox = mail::start(settings, &public_url, demo, hosting.jobs())?;
    if let Some(outbox) = &outbox {
        hosting = hosting.with_notifier(Arc::new(MailNotifier::new(outbox.clone(), public_url.clone())));
    }
    Ok(Services { hosting, tasks, outbox, outbound, public_url, replica })
}

/// Creates the state of the console and the REST API.
fn build_web(services: &Services) -> Web {
    Web::new(WebState {
        hosting: services.hosting.clone(),
        public_url: services.public_url.clone(),
        limits: waypost_http_kit::limits::Limits::new(Arc::new(SystemClock)),
        mail: services.outbox.clone(),
        random: Arc::new(SystemRandom),
    })
}

/// Listens on the operator's socket. Without it, `serve` works except for the commands that need it, so a failure is not
/// an error. On PostgreSQL, commands use the internal listener instead.
fn bind_operator_socket(settings: &Settings) -> Option<OperatorSocket> {
    OperatorSocket::bind(&settings.data_dir)
        .inspect_err(|error| {
            let error = format!("{error:#}");
            tracing::warn!(error, "commands that need the running process will not work");
        })
        .ok()
}

async fn serve_operator(socket: Option<OperatorSocket>, connections: Connections, web: Web) {
    if let Some(socket) = socket {
        socket.serve(connections, web).await;
    }
}

async fn serve_internal(listener: Option<InternalListener>, settings: &Settings, stop: Shutdown, web: Web) {
    if let Some(listener) = listener {
        listener.serve(ConnectionLimits::internal(settings), stop, web).await;
    }
}

/// Builds the router of the main port.
fn build_router(settings: &Settings, services: &Services, web: Web, stop: &StopTokens) -> anyhow::Result<Router> {
    let Services { hosting, outbox, outbound, public_url, .. } = services;
    let options = LimitOptions {
        per_caller: settings.rate_limit_per_caller,
        burst: settings.rate_limit_burst,
        per_address: settings.rate_limit_callers_per_address,
        per_server: settings.rate_limit_per_server,
    };
    let endpoint = Endpoint::new(
        ProductHandlers,
        hosting.clone(),
        Limits::new(options, Arc::new(SystemClock)),
        Arc::new(SystemRandom),
        SessionMode::Signed,
        stop.open.clone(),
    )
    .with_listeners(Listeners::new(listen_options(settings), stop.accept.clone()));
    let options = ConsoleOptions {
        sign_up: settings.sign_up,
        providers: providers::from_settings(settings)?,
        api_document: waypost_api::document,
        has_gateway: settings.gateway,
    };
    let auth = Auth::new(State {
        hosting: hosting.clone(),
        public_url: public_url.clone(),
        documents: client_documents(settings, outbound.clone())?,
        limits: web.limits.clone(),
        mail: outbox.clone(),
        random: Arc::new(SystemRandom),
        providers: IdentityProviders::default(),
    });
    Ok(router::build(RouterState {
        trusted_proxies: settings.trusted_proxies.clone(),
        hosting: hosting.clone(),
        endpoint,
        auth,
        console: Console::new(web, options),
        gateway: settings
            .gateway
            .then(|| Gateway::new(hosting, Ctx::operator(), public_url.origin(), gateway_options(settings)))
            .map(|gateway| Arc::new(gateway.with_stop(stop.accept.clone()))),
        toolboxes: toolbox_directory(services),
        random: Arc::new(SystemRandom),
    }))
}

fn gateway_options(settings: &Settings) -> GatewayOptions {
    let definition_max_age = Duration::from_secs(settings.gateway_definition_max_age_seconds.into());
    GatewayOptions {
        definition_max_age,
        call_timeout: Duration::from_secs(settings.gateway_call_timeout_seconds.into()),
        calls_per_hour: settings.gateway_calls_per_hour,
        forwarded_headers: settings.gateway_forwarded_headers.clone(),
        elicitation_hosts: settings.gateway_elicitation_hosts.clone(),
        ..GatewayOptions::default()
    }
}

fn start_jobs(settings: &Settings, services: &Services, metrics: Metrics) -> Jobs {
    let jobs = services.hosting.jobs().clone();
    let (ops, toolboxes) = (services.hosting.ops().clone(), toolbox_directory(services));
    let leases = services.replica.as_ref().map(|replica| replica.leases.clone());
    jobs::start(&jobs, JobContext { metrics, retention: settings.retention, ops: ops.clone(), toolboxes, leases });
    jobs::start_emails(&jobs, NotificationSender { cx: Ctx::operator(), ops });
    jobs
}

fn toolbox_directory(services: &Services) -> ToolboxDirectory {
    let Services { hosting, public_url, .. } = services;
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let leases = services.replica.as_ref().map(|replica| replica.leases.clone());
    ToolboxDirectory::new(hosting.ops().clone(), public_url.clone(), clock, random).with_leases(leases)
}

/// Prints the address of the installation and the next steps.
fn print_hints(settings: &Settings, public_url: &PublicUrl, address: SocketAddr, set_up: Option<&str>, demo: bool) {
    if demo {
        // Printed first, because users start here. The socket already accepts connections.
        print_line(&demo::page_hint(public_url));
    }
    print_line(&format!("listening on http://{address}"));
    if let Some(token) = set_up {
        print_line(&format!("set up: {}/setup?token={token}", public_url.origin()));
    }
    if let Some(notice) = mail::notice(settings, demo) {
        print_line(notice);
    }
    if demo {
        print_line(&demo::usage_hint(address));
    }
}

/// Prints a line. A closed pipe is not an error, because the reader may need only the first lines.
fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%error, "failed to write to standard output");
    }
}

fn listen_options(settings: &Settings) -> ListenOptions {
    let count = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    ListenOptions {
        total: count(settings.listen_limit),
        per_server: count(settings.listen_limit_per_server),
        per_address: count(settings.listen_limit_per_address),
        ..ListenOptions::default()
    }
}

fn client_documents(settings: &Settings, outbound: Outbound) -> anyhow::Result<ClientDocuments> {
    let private = outbound.allows_any(Purpose::ClientDocuments);
    let check = Arc::new(HostCheck::new(outbound.route(Purpose::ClientDocuments, &[])?));
    let availability = Availability::new(settings.client_documents, private, check, Arc::new(SystemClock));
    Ok(ClientDocuments::new(outbound, Arc::new(SystemClock)).with_availability(availability))
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop the program that uses it, or choose another address with the setting `{setting}`")
    })
}

/// Serves the main port and `others` until `stop` is cancelled, waits for open requests during the grace period, and
/// then cancels `end` for the remaining ones. When it returns, all connections are closed and all resources of requests
/// are released.
async fn serve(
    connections: Connections,
    listener: TcpListener,
    router: Router,
    others: impl Future<Output = ()>,
    stop: &Shutdown,
    end: &CancellationToken,
) {
    let shutdown = async {
        stop.graceful.cancelled().await;
        tokio::time::sleep(GRACE_PERIOD).await;
        end.cancel();
        tokio::time::sleep(CANCELLATION_TIMEOUT).await;
        // Connections with incomplete requests do not count: closing them loses nothing.
        let active = connections.active_count();
        if active > 0 {
            tracing::warn!(connections = active, "closing connections whose requests did not finish in time");
        }
        stop.immediate.cancel();
    };
    // Also stops the diagnostics port if all connections of the main port were closed in time.
    let serving = async {
        tokio::join!(connections.serve(listener, router), others);
        stop.immediate.cancel();
    };
    tokio::pin!(shutdown, serving);
    tokio::select! {
        () = &mut serving => {}
        () = &mut shutdown => serving.await,
    }
}

fn diagnostics_router(metrics: Metrics, hosting: Hosting) -> Router {
    let hosting_for_metrics = hosting.clone();
    Router::new()
        .route(
            "/metrics",
            get(move || async move {
                metrics::gauge!("waypost_writer_queue_depth").set(hosting_for_metrics.queue_depth() as f64);
                hosting_for_metrics.jobs().observe();
                metrics.render()
            }),
        )
        .merge(router::health_routes(hosting))
}

/// Cancels `stop` at SIGTERM and SIGINT.
///
/// # Errors
/// If the signals cannot be handled.
pub(super) fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    #[expect(clippy::disallowed_methods, reason = "waits for one signal until the process ends")]
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down");
        stop.cancel();
    });
    Ok(())
}
