//! `waypost serve`: runs everything.

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
use waypost_auth::client::document::Documents;
use waypost_auth::client::document::availability::{Availability, Hosts};
use waypost_auth::identity_provider::IdentityProviders;
use waypost_auth::{Auth, State};
use waypost_core::caller::Ctx;
use waypost_core::secret::SecretKeys;
use waypost_core::{SystemClock, SystemRandom};
use waypost_mcp::endpoint::{Endpoint, ProductHandlers, SessionMode};
use waypost_mcp::limits::{LimitOptions, Limits};
use waypost_mcp::listen::{ListenOptions, Listeners};
use waypost_ops::hosting::{Hosting, HostingOptions, Tasks};
use waypost_ops::identity_provider::IdentityProviderContext;
use waypost_ops::tickets::limits::TicketLimits;
use waypost_ops::user_accounts::set_up_token;
use waypost_outbound::{Outbound, Purpose};
use waypost_store::Db;
use waypost_web::Web;

use super::App;
use crate::config::Settings;
use crate::connections::{ConnectionLimits, Connections, Shutdown, descriptors};
use crate::notifications::{MailNotifier, NotificationSender};
use crate::router::{self, RouterState};
use crate::telemetry::{self, Metrics};
use crate::{demo, jobs, mail, outbound, providers, storage};
use waypost_ops::public_url::PublicUrl;

/// How long open requests may take to finish after the signal to stop; the program is gone within ten seconds.
const GRACE: Duration = Duration::from_secs(5);
/// How long requests and streams that are ended then may take to tell their clients.
const FAREWELL: Duration = Duration::from_millis(500);
/// Descriptors that are kept for the diagnostics port.
const RESERVE: usize = 16;
/// How long the rest of what is queued may take to be written.
const DRAIN: Duration = Duration::from_millis(2_500);
/// How long closing the database may take: one that is away does not answer farewells.
const CLOSE: Duration = Duration::from_millis(500);
/// How long emails that wait may take to be sent.
const POST: Duration = Duration::from_secs(1);

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address and port of the hosted MCP servers.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Origin under which clients reach this installation.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
    /// Address and port of metrics and health, or `off`.
    #[arg(long, value_name = "ADDRESS")]
    diagnostics_listen: Option<String>,
    /// Also makes the demo organisation, once.
    #[arg(long)]
    pub demo: bool,
}

impl Args {
    /// The flags that are settings.
    pub(super) fn settings(&self, flags: &mut Vec<(&'static str, String)>) {
        let given = [
            ("listen", &self.listen),
            ("public_url", &self.public_url),
            ("diagnostics_listen", &self.diagnostics_listen),
        ];
        flags.extend(given.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    }
}

/// Serves until it is told to stop.
///
/// # Errors
/// When it cannot start: the database, an address or the key cannot be used.
pub async fn run(app: App, args: Args) -> anyhow::Result<()> {
    let settings = &app.settings;
    let files = descriptors::raise_limit();
    let _lock = storage::serve_lock(settings)?;
    let keys = storage::keys(settings, &SystemRandom)?;
    let db = app.open().await?.db;
    storage::check_writable(settings, &db).await?;
    if args.demo {
        demo::create(&db).await.context("the demo could not be made")?;
    }
    let main = bind(settings.listen, "listen").await?;
    let diagnostics = match settings.diagnostics_listen {
        Some(address) => Some(bind(address, "diagnostics_listen").await?),
        None => None,
    };
    let address = main.local_addr()?;
    let public_url = PublicUrl::new(settings.public_url(address.port()));
    let metrics = telemetry::start_metrics()?;
    let (hosting, tasks) = start(settings, db.clone(), keys);
    let mail = mail::start(settings, &public_url, args.demo, hosting.jobs())?;
    let outbox = mail.clone();
    let hosting = match &mail {
        Some(mail) => hosting.with_notifier(Arc::new(MailNotifier::new(mail.clone(), public_url.clone()))),
        None => hosting,
    };
    let hosting = hosting.with_ticket_limits(TicketLimits {
        per_address: settings.ticket_limit_per_address,
        per_server: settings.ticket_limit_per_server,
    });
    // `stop`: take no new requests. `end`: give up those that are still open, and streams.
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    let options = LimitOptions {
        per_caller: settings.rate_limit_per_caller,
        burst: settings.rate_limit_burst,
        per_address: settings.rate_limit_callers_per_address,
        per_server: settings.rate_limit_per_server,
    };
    let limits = Limits::new(options, Arc::new(SystemClock));
    let endpoint = Endpoint::new(
        ProductHandlers,
        hosting.clone(),
        limits,
        Arc::new(SystemRandom),
        (SessionMode::Signed, end.clone()),
    )
    .with_listeners(Listeners::new(listen_options(settings), stop.clone()));
    let outbound = Outbound::new(outbound::policy(settings, args.demo)?)
        .context("the way out to other servers cannot be prepared: check the setting `outbound_ca_file`")?;
    let provider_context = IdentityProviderContext { outbound: outbound.clone(), keyring: hosting.keys().keyring() };
    let web = Web::new(waypost_web::State {
        hosting: hosting.clone(),
        public_url: public_url.clone(),
        limits: waypost_web::limits::Limits::new(Arc::new(SystemClock)),
        mail: mail.clone(),
        random: Arc::new(SystemRandom),
        provider_context: provider_context.clone(),
        sign_up: settings.sign_up,
        providers: providers::of(settings)?,
    });
    let set_up = set_up_token(hosting.ops(), hosting.secret()).await?;
    let auth = Auth::new(State {
        hosting: hosting.clone(),
        public_url: public_url.clone(),
        documents: client_documents(settings, outbound)?,
        limits: waypost_auth::limits::Limits::new(Arc::new(SystemClock)),
        mail,
        random: Arc::new(SystemRandom),
        providers: IdentityProviders::new(provider_context.clone()),
    });
    let context =
        jobs::JobContext { metrics: metrics.clone(), provider_context, retention: settings.retention, db: db.clone() };
    let jobs = hosting.jobs().clone();
    jobs::start(&jobs, context);
    jobs::start_emails(&jobs, NotificationSender { cx: Ctx::operator(), ops: hosting.ops().clone() });
    let phases = Shutdown { graceful: stop.clone(), immediate: CancellationToken::new() };
    let connections = Connections::new(ConnectionLimits::main(settings, files), phases.clone());
    let watch = diagnostics.map(|listener| {
        let router = diagnostics_router(metrics, hosting.clone());
        let limits = ConnectionLimits::diagnostics(settings);
        let connections = Connections::with_reserve(limits, phases.clone(), RESERVE, &connections);
        // Not supervised: it accepts connections until the end. Should it panic, probes of `/readyz` fail.
        tokio::spawn(async move { connections.serve(listener, router).await })
    });
    let router = router::build(RouterState {
        trusted_proxies: settings.trusted_proxies.clone(),
        hosting,
        endpoint,
        auth,
        web,
        random: Arc::new(SystemRandom),
    });
    stop_on_signal(stop.clone())?;
    // Unheard it ends the process; heard, a limit on the size of files fails the write, as a full disk does.
    let _limit = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
    if args.demo {
        // First of all: this is where a person begins. The socket accepts connections already.
        say(&demo::invitation(&public_url));
    }
    say(&format!("listening on http://{address}"));
    if let Some(token) = set_up {
        say(&format!("set up: {}/setup?token={token}", public_url.origin()));
    }
    if let Some(notice) = mail::notice(settings, args.demo) {
        say(notice);
    }
    if args.demo {
        say(&demo::snippets(address));
    }
    serve(connections, (main, router), &phases, &end).await;
    // In this order: jobs queue mails and records, what is queued is written, the database is closed.
    jobs.stop().await;
    if let Some(watch) = watch {
        let _ = watch.await;
    }
    if let Some(outbox) = outbox {
        mail::finish(&outbox, POST).await;
    }
    if tokio::time::timeout(DRAIN, tasks.finish()).await.is_err() {
        tracing::error!("the records of the last calls could not be written in time");
    }
    let _ = tokio::time::timeout(CLOSE, db.close()).await;
    Ok(())
}

/// Prints a line. Whoever reads the first ones may have closed the pipe since: that ends no server.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads standard output");
    }
}

fn start(settings: &Settings, db: Db, keys: SecretKeys) -> (Hosting, Tasks) {
    let options = HostingOptions {
        keys,
        version_cache_bytes: settings.version_cache_bytes,
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    let (hosting, tasks) = Hosting::start(db, options);
    (hosting.with_new_users_per_address(settings.new_users_per_address), tasks)
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

fn client_documents(settings: &Settings, outbound: Outbound) -> anyhow::Result<Documents> {
    let private = outbound.allows_any(Purpose::ClientDocuments);
    let check = Arc::new(Hosts::new(outbound.route(Purpose::ClientDocuments, &[])?));
    let availability = Availability::new(settings.client_documents, private, check, Arc::new(SystemClock));
    Ok(Documents::new(outbound, Arc::new(SystemClock)).with_availability(availability))
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}: stop what listens there, or choose another address with the setting `{setting}`")
    })
}

/// Serves until it is told to stop, then lets open requests finish for a while; cancels `end` for those that do not.
/// When it returns, no connection is left, and nothing that a request held.
async fn serve(
    connections: Connections,
    (listener, router): (TcpListener, Router),
    stop: &Shutdown,
    end: &CancellationToken,
) {
    let overtime = async {
        stop.graceful.cancelled().await;
        tokio::time::sleep(GRACE).await;
        end.cancel();
        tokio::time::sleep(FAREWELL).await;
        // A client that has not sent its whole request has lost nothing: it is told by the end of the connection.
        let busy = connections.active_count();
        if busy > 0 {
            tracing::warn!(connections = busy, "some requests did not finish in time and are cut off");
        }
        stop.immediate.cancel();
    };
    // Even if all connections end in time, the diagnostics port is to end now.
    let serving = async {
        connections.serve(listener, router).await;
        stop.immediate.cancel();
    };
    tokio::pin!(overtime, serving);
    tokio::select! {
        () = &mut serving => {}
        () = &mut overtime => serving.await,
    }
}

fn diagnostics_router(metrics: Metrics, hosting: Hosting) -> Router {
    let depth = hosting.clone();
    Router::new()
        .route(
            "/metrics",
            get(move || async move {
                metrics::gauge!("waypost_writer_queue_depth").set(depth.queue_depth() as f64);
                depth.jobs().observe();
                metrics.render()
            }),
        )
        .merge(router::health_routes(hosting))
}

fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(())
}
