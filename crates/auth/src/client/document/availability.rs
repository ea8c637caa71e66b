//! Decides whether client ID metadata documents are advertised.
//!
//! A client that sees `client_id_metadata_document_supported` uses its document and does not register. If this server
//! cannot fetch any document, for example because it has no internet access, such a client fails. With
//! [`ClientDocumentsMode::Auto`], documents are therefore advertised only while they can be fetched.
//!
//! Anyone can specify a document on a host that does not resolve or respond, so a failed fetch proves nothing about
//! other hosts. It only triggers a check, and only the check decides: documents are considered unreachable if none of
//! the [`HOSTS`] can be reached through the same resolver, firewall and certificates as a document. Senders of requests
//! to this server cannot influence which hosts these are or whether they respond.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use waypost_core::{Clock, Timestamp};
use waypost_outbound::{Error, Limits, Route};

/// The hosts of the metadata documents of widely used clients: Claude, Codex and ChatGPT, and Visual Studio Code.
pub const HOSTS: &[&str] = &["https://claude.ai/", "https://chatgpt.com/", "https://vscode.dev/"];
/// The limits of a request to one of the [`HOSTS`].
const LIMITS: Limits = Limits { max_bytes: 1_024, timeout: Duration::from_secs(3), redirects: 0 };
/// The time for which documents are not advertised after a failed check, in milliseconds.
const HOLD_MS: i64 = 10 * 60 * 1_000;
/// The minimum time between two checks that are triggered by failed fetches, in milliseconds: attackers must not be
/// able to make this server query the hosts continuously.
const PAUSE_MS: i64 = 60 * 1_000;
/// The time for which a successful fetch proves that documents can be fetched, in milliseconds.
const RECENT_MS: i64 = 60 * 60 * 1_000;

/// The setting `client_documents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientDocumentsMode {
    /// Advertised while documents can be fetched.
    #[default]
    Auto,
    /// Always advertised, without checks.
    On,
    /// Never advertised. Clients that use a document are rejected.
    Off,
}

impl FromStr for ClientDocumentsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("expected auto, on or off".to_owned()),
        }
    }
}

impl fmt::Display for ClientDocumentsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// The future of [`ReachabilityCheck::is_any_reachable`].
pub type CheckFuture<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// A check of whether this server can reach the hosts of documents.
pub trait ReachabilityCheck: Send + Sync {
    /// Whether at least one of the hosts responds.
    fn is_any_reachable(&self) -> CheckFuture<'_>;
}

/// The production [`ReachabilityCheck`], which queries all [`HOSTS`] concurrently.
pub struct HostCheck {
    route: Route,
    urls: Vec<String>,
}

impl HostCheck {
    /// Creates a check of the [`HOSTS`] through `route`.
    #[must_use]
    pub fn new(route: Route) -> Self {
        Self::of(route, HOSTS.iter().map(|&url| url.to_owned()).collect())
    }

    /// Creates a check of `urls`.
    pub(super) fn of(route: Route, urls: Vec<String>) -> Self {
        Self { route, urls }
    }

    async fn is_reachable(&self, url: &str) -> bool {
        let Ok(request) = Request::builder().method(Method::HEAD).uri(url).body(Vec::new()) else { return false };
        match self.route.send(request, LIMITS).await {
            // Any response proves that a connection was made, even if it is rejected.
            Ok(_) | Err(Error::TooLarge { .. } | Error::Redirect { .. }) => true,
            Err(_) => false,
        }
    }
}

impl ReachabilityCheck for HostCheck {
    fn is_any_reachable(&self) -> CheckFuture<'_> {
        Box::pin(async {
            let mut requests: futures::stream::FuturesUnordered<_> =
                self.urls.iter().map(|url| self.is_reachable(url)).collect();
            while let Some(is_reachable) = futures::StreamExt::next(&mut requests).await {
                if is_reachable {
                    return true;
                }
            }
            false
        })
    }
}

/// A [`ReachabilityCheck`] for [`ClientDocumentsMode::On`], which sends no requests.
pub(super) struct NoCheck;

impl ReachabilityCheck for NoCheck {
    fn is_any_reachable(&self) -> CheckFuture<'_> {
        Box::pin(async { true })
    }
}

/// The current availability of documents. Cheap to clone; clones share their state.
#[derive(Clone)]
pub struct Availability(Arc<Inner>);

struct Inner {
    mode: ClientDocumentsMode,
    /// Whether documents may also be in private networks, which the check does not cover.
    allows_private: bool,
    check: Arc<dyn ReachabilityCheck>,
    clock: Arc<dyn Clock>,
    known: Mutex<LastCheck>,
    /// Held during a check; concurrent callers wait for it.
    checking: tokio::sync::Mutex<()>,
}

/// The results of the last check and the last fetch.
#[derive(Default)]
struct LastCheck {
    /// Whether documents can be fetched. `None` if unknown.
    reachable: Option<bool>,
    checked_at: Option<Timestamp>,
    fetched_at: Option<Timestamp>,
}

impl Availability {
    /// Creates the state for `mode`. With `allows_private`, documents may be in private networks: they are advertised
    /// until a fetch and the subsequent check have failed.
    #[must_use]
    pub fn new(
        mode: ClientDocumentsMode,
        allows_private: bool,
        check: Arc<dyn ReachabilityCheck>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (known, checking) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { mode, allows_private, check, clock, known, checking }))
    }

    /// Returns the mode.
    #[must_use]
    pub fn mode(&self) -> ClientDocumentsMode {
        self.0.mode
    }

    /// Whether the server metadata advertises documents. The first call may wait a few seconds for a check.
    pub async fn is_advertised(&self) -> bool {
        let is_advertised = match self.0.mode {
            ClientDocumentsMode::On => true,
            ClientDocumentsMode::Off => false,
            ClientDocumentsMode::Auto => match self.cached() {
                Some(reachable) => reachable,
                None => self.check().await,
            },
        };
        metrics::gauge!("waypost_client_documents_advertised").set(if is_advertised { 1.0 } else { 0.0 });
        is_advertised
    }

    /// Records that a document was fetched.
    pub(super) fn succeeded(&self) {
        if self.0.mode != ClientDocumentsMode::Auto {
            return;
        }
        let now = self.0.clock.now();
        let mut known = self.known();
        known.fetched_at = Some(now);
        record(&mut known, true);
    }

    /// Records that the host of a document could not be reached. Unless the state is recent, checks in the background
    /// whether any of the hosts is reachable.
    pub(super) fn failed(&self) {
        if self.0.mode != ClientDocumentsMode::Auto || self.is_settled() {
            return;
        }
        let availability = self.clone();
        waypost_jobs::spawn("client-documents", async move {
            availability.check().await;
        });
    }

    fn known(&self) -> MutexGuard<'_, LastCheck> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the cached result. Returns `None` if a check is required.
    fn cached(&self) -> Option<bool> {
        let now = self.0.clock.now();
        let mut known = self.known();
        match (known.reachable, known.checked_at) {
            (Some(false), Some(at)) if now.since(at) >= HOLD_MS => {
                known.reachable = None;
                // The next client with a document triggers a check.
                self.0.allows_private.then_some(true)
            }
            (Some(reachable), _) => Some(reachable),
            (None, _) => self.0.allows_private.then_some(true),
        }
    }

    /// Whether the state is recent enough that a failed fetch does not trigger a check.
    fn is_settled(&self) -> bool {
        let now = self.0.clock.now();
        let known = self.known();
        let within = |at: Option<Timestamp>, time: i64| at.is_some_and(|at| now.since(at) < time);
        // If private networks are allowed, a fetched document is better evidence than the check.
        within(known.checked_at, PAUSE_MS) || self.0.allows_private && within(known.fetched_at, RECENT_MS)
    }

    async fn check(&self) -> bool {
        let started_at = self.0.clock.now();
        let _checking = self.0.checking.lock().await;
        {
            let mut known = self.known();
            // Another caller has performed a check while this one waited.
            if let (Some(reachable), Some(at)) = (known.reachable, known.checked_at)
                && at >= started_at
            {
                return reachable;
            }
            known.checked_at = Some(started_at);
        }
        let reachable = self.0.check.is_any_reachable().await;
        record(&mut self.known(), reachable);
        reachable
    }
}

/// Stores whether documents can be fetched, and logs a change.
fn record(known: &mut LastCheck, reachable: bool) {
    if known.reachable.replace(reachable) == Some(reachable) {
        return;
    }
    metrics::gauge!("waypost_client_documents_advertised").set(if reachable { 1.0 } else { 0.0 });
    if reachable {
        tracing::info!("client metadata documents are reachable and advertised");
    } else {
        tracing::warn!(
            hosts = HOSTS.join(" "),
            "client metadata documents are unreachable and not advertised: clients register instead; set \
             `client_documents` to `off` if this server has no internet access"
        );
    }
}
