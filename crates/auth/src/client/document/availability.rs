//! Whether client id metadata documents are advertised.
//!
//! A client that sees `client_id_metadata_document_supported` names its document and does not register. If this
//! server cannot fetch any document, for example because it has no way to the internet, such a client fails. So with
//! [`Mode::Auto`] documents are advertised only while they can be fetched.
//!
//! Anybody can name a document on a host that does not resolve or does not answer, so a fetch that fails proves
//! nothing about other hosts. It is only a reason to check, and only the check decides: documents count as out of
//! reach if none of the [`HOSTS`] can be reached, through the same resolver, firewall and certificates as a document.
//! Nobody who sends requests to this server has a say in which hosts these are or whether they answer.

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
/// What asking one of them may cost.
const LIMITS: Limits = Limits { max_bytes: 1_024, timeout: Duration::from_secs(3), redirects: 0 };
/// How long documents are not advertised after a check that failed, in milliseconds.
const HOLD: i64 = 10 * 60 * 1_000;
/// How long no further check is made because a fetch failed, in milliseconds: attackers must not make this server ask
/// the hosts all the time.
const PAUSE: i64 = 60 * 1_000;
/// How long a document that was fetched shows that documents can be fetched, in milliseconds.
const RECENT: i64 = 60 * 60 * 1_000;

/// The setting `client_documents`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Advertised while documents can be fetched.
    #[default]
    Auto,
    /// Always advertised; nothing is checked.
    On,
    /// Never advertised, and clients that name a document are refused.
    Off,
}

impl FromStr for Mode {
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

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// The answer of a check, when it comes.
pub type Answer<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// Finds out whether this server can reach the hosts of documents.
pub trait Check: Send + Sync {
    /// Whether at least one of the hosts answers.
    fn any_answers(&self) -> Answer<'_>;
}

/// The real [`Check`]: asks the [`HOSTS`] all at once.
pub struct Hosts {
    route: Route,
    urls: Vec<String>,
}

impl Hosts {
    /// Asks the [`HOSTS`] through `route`.
    #[must_use]
    pub fn new(route: Route) -> Self {
        Self::of(route, HOSTS.iter().map(|&url| url.to_owned()).collect())
    }

    /// Asks `urls` instead.
    pub(super) fn of(route: Route, urls: Vec<String>) -> Self {
        Self { route, urls }
    }

    async fn answers(&self, url: &str) -> bool {
        let Ok(request) = Request::builder().method(Method::HEAD).uri(url).body(Vec::new()) else { return false };
        match self.route.send(request, LIMITS).await {
            // Any answer will do, also one that is refused: a connection was made.
            Ok(_) | Err(Error::TooLarge { .. } | Error::Redirect { .. }) => true,
            Err(_) => false,
        }
    }
}

impl Check for Hosts {
    fn any_answers(&self) -> Answer<'_> {
        Box::pin(async {
            let mut asked: futures::stream::FuturesUnordered<_> =
                self.urls.iter().map(|url| self.answers(url)).collect();
            while let Some(answers) = futures::StreamExt::next(&mut asked).await {
                if answers {
                    return true;
                }
            }
            false
        })
    }
}

/// A [`Check`] for [`Mode::On`], which never asks.
pub(super) struct Unchecked;

impl Check for Unchecked {
    fn any_answers(&self) -> Answer<'_> {
        Box::pin(async { true })
    }
}

/// Whether documents are advertised at the moment. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Availability(Arc<Inner>);

struct Inner {
    mode: Mode,
    /// Whether documents may also be in private networks, of which the check knows nothing.
    private: bool,
    check: Arc<dyn Check>,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
    /// Held during a check: whoever comes meanwhile waits for it.
    checking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// `None` until something is known.
    reachable: Option<bool>,
    checked_at: Option<Timestamp>,
    fetched_at: Option<Timestamp>,
}

impl Availability {
    /// Documents as `mode` says. With `private`, documents may be in private networks: then they are advertised until
    /// a fetch and the check after it have failed.
    #[must_use]
    pub fn new(mode: Mode, private: bool, check: Arc<dyn Check>, clock: Arc<dyn Clock>) -> Self {
        let (known, checking) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { mode, private, check, clock, known, checking }))
    }

    /// The setting.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.mode
    }

    /// Whether metadata says that documents are supported. The first call may wait for a check, a few seconds at most.
    pub async fn is_advertised(&self) -> bool {
        let is_advertised = match self.0.mode {
            Mode::On => true,
            Mode::Off => false,
            Mode::Auto => match self.remembered() {
                Some(reachable) => reachable,
                None => self.look().await,
            },
        };
        metrics::gauge!("waypost_client_documents_advertised").set(if is_advertised { 1.0 } else { 0.0 });
        is_advertised
    }

    /// A document was fetched.
    pub(super) fn succeeded(&self) {
        if self.0.mode != Mode::Auto {
            return;
        }
        let now = self.0.clock.now();
        let mut known = self.known();
        known.fetched_at = Some(now);
        learn(&mut known, true);
    }

    /// A host of a document could not be reached: checks in the background whether any can, if that is not known.
    pub(super) fn failed(&self) {
        if self.0.mode != Mode::Auto || self.is_settled() {
            return;
        }
        let availability = self.clone();
        waypost_jobs::spawn("client-documents", async move {
            availability.look().await;
        });
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known without a check; `None` if a check has to find out.
    fn remembered(&self) -> Option<bool> {
        let now = self.0.clock.now();
        let mut known = self.known();
        match (known.reachable, known.checked_at) {
            (Some(false), Some(at)) if now.since(at) >= HOLD => {
                known.reachable = None;
                // The next client that comes with a document finds out.
                self.0.private.then_some(true)
            }
            (Some(reachable), _) => Some(reachable),
            (None, _) => self.0.private.then_some(true),
        }
    }

    /// Whether a failed fetch is no reason for a check.
    fn is_settled(&self) -> bool {
        let now = self.0.clock.now();
        let known = self.known();
        let within = |at: Option<Timestamp>, time: i64| at.is_some_and(|at| now.since(at) < time);
        // Where documents may be in private networks, the check knows less than a document that was fetched.
        within(known.checked_at, PAUSE) || self.0.private && within(known.fetched_at, RECENT)
    }

    async fn look(&self) -> bool {
        let asked_at = self.0.clock.now();
        let _checking = self.0.checking.lock().await;
        {
            let mut known = self.known();
            // Somebody else has checked meanwhile.
            if let (Some(reachable), Some(at)) = (known.reachable, known.checked_at)
                && at >= asked_at
            {
                return reachable;
            }
            known.checked_at = Some(asked_at);
        }
        let reachable = self.0.check.any_answers().await;
        learn(&mut self.known(), reachable);
        reachable
    }
}

/// Remembers whether documents can be fetched, and tells the log if that is news.
fn learn(known: &mut Known, reachable: bool) {
    if known.reachable.replace(reachable) == Some(reachable) {
        return;
    }
    metrics::gauge!("waypost_client_documents_advertised").set(if reachable { 1.0 } else { 0.0 });
    if reachable {
        tracing::info!("client metadata documents can be fetched and are advertised");
    } else {
        tracing::warn!(
            hosts = HOSTS.join(" "),
            "client metadata documents cannot be fetched and are not advertised: clients register instead; set \
             `client_documents` to `off` if this server has no access to the internet"
        );
    }
}
