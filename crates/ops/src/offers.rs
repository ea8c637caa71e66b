//! What each server offers at the moment, kept in memory and never older than a second.
//!
//! Every process polls one number, which each change of a server, a walkthrough or an assignment counts up in its own
//! transaction. What was read under an older number is not used again. When the poll has failed for a second, what is
//! in memory is not trusted and every request reads from the database.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moka::future::Cache;
use tokio::sync::{Semaphore, watch};
use waypost_core::id::{WalkthroughId, WebhookId};
use waypost_core::name;
use waypost_core::server::Server;
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Clock, Code, Error, Result};
use waypost_jobs::{Job, Jobs};
use waypost_store::offer;
pub use waypost_store::offer::Offer;
use waypost_store::{Db, system, webhook};

/// How often the number is read.
const POLL: Duration = Duration::from_millis(200);
/// How long a poll may take: somewhat longer than the database is given.
const POLL_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait after polls that failed.
const POLL_PAUSE: Duration = Duration::from_secs(1);
/// This process should get no requests after polls have failed for so long.
const POLL_LATE: Duration = Duration::from_secs(30);
/// How old the last successful poll may be, in milliseconds.
const TRUST_MS: i64 = 1_000;
/// Servers that are read from the database at once for clients that listen: a change must not crowd out calls.
const REFRESHES: usize = 4;
/// Servers whose offers are kept.
const SERVERS: u64 = 10_000;

/// A server with what it offers.
#[derive(Debug)]
pub struct Offers {
    /// The server.
    pub server: Server,
    /// The receivers of webhooks that want to know who completes a walkthrough.
    pub(crate) completion_receivers: Vec<WebhookId>,
    list: Vec<Offer>,
    by_id: HashMap<WalkthroughId, usize>,
    digests: OnceLock<[u64; 3]>,
}

impl Offers {
    fn new(mut server: Server, list: Vec<Offer>, completion_receivers: Vec<WebhookId>) -> Self {
        // Agents read these names, and they may have been stored under a laxer rule.
        server.name = name::clean(&server.name);
        server.product_name = name::clean(&server.product_name);
        let by_id = list.iter().enumerate().map(|(at, offer)| (offer.walkthrough_id.clone(), at)).collect();
        Self { server, completion_receivers, list, by_id, digests: OnceLock::new() }
    }

    /// Everything that is offered, in display order; empty while the server's walkthrough tools are switched off.
    #[must_use]
    pub fn list(&self) -> &[Offer] {
        if self.server.walkthrough_tools_enabled { &self.list } else { &[] }
    }

    /// The server without what it offers, for work that lasts and must not keep the whole snapshot in memory.
    #[must_use]
    pub fn without_list(&self) -> Self {
        Self::new(self.server.clone(), Vec::new(), Vec::new())
    }

    /// Digests of what the server lists: computed by `compute` at the first call, then kept with this snapshot.
    pub fn digests(&self, compute: impl FnOnce() -> [u64; 3]) -> [u64; 3] {
        *self.digests.get_or_init(compute)
    }

    /// The offer of a walkthrough, by id or by slug.
    ///
    /// # Errors
    /// `walkthrough_not_found` when it is not offered here, for whatever reason.
    pub fn get(&self, id_or_slug: &str) -> Result<&Offer> {
        let by_id = WalkthroughId::from_store(id_or_slug.to_owned());
        let found = match self.by_id.get(&by_id) {
            Some(&at) => self.list().get(at),
            None => self.list().iter().find(|offer| offer.slug == id_or_slug),
        };
        found.ok_or_else(|| {
            Error::new(
                Code::WalkthroughNotFound,
                "There is no such walkthrough on this server. list_walkthroughs shows what there is.",
            )
        })
    }
}

struct Shared {
    db: Db,
    clock: Arc<dyn Clock>,
    version: AtomicI64,
    polled_at: AtomicI64,
    changes: watch::Sender<i64>,
    refreshes: Semaphore,
    cache: Cache<(String, i64), Arc<Offers>>,
}

/// What every server offers.
#[derive(Clone)]
pub struct OfferCache(Arc<Shared>);

impl OfferCache {
    /// Starts polling, as one of `jobs`.
    #[must_use]
    pub fn start(db: Db, clock: Arc<dyn Clock>, jobs: &Jobs) -> Self {
        let cache = Cache::builder().max_capacity(SERVERS).time_to_idle(Duration::from_secs(600)).build();
        let offer_cache = Self(Arc::new(Shared {
            db,
            clock,
            version: AtomicI64::new(0),
            polled_at: AtomicI64::new(i64::MIN),
            changes: watch::Sender::new(0),
            refreshes: Semaphore::new(REFRESHES),
            cache,
        }));
        let poller = offer_cache.clone();
        let job = Job { limit: POLL_LIMIT, max_pause: POLL_PAUSE, late_after: POLL_LATE, ..Job::new("offers", POLL) };
        jobs.start(job.serving(), move || {
            let poller = poller.clone();
            async move { Ok(poller.poll().await?) }
        });
        offer_cache
    }

    /// Reads the number once.
    ///
    /// # Errors
    /// `unavailable` when the database is away.
    pub async fn poll(&self) -> Result<()> {
        // The time before the read: a change that is committed after the read is newer than this.
        let asked_at = self.0.clock.now();
        let db = &self.0.db;
        let version = db.with_timeout(async { db.read().await?.config_version().await }).await?;
        // Polls can overlap: one that read the database before a change must not take back what a later one has seen.
        let newest = self.0.version.fetch_max(version, Ordering::AcqRel).max(version);
        self.0.polled_at.store(asked_at.0, Ordering::Release);
        // After the number is stored: a listener that wakes up reads the offers of that number.
        self.0.changes.send_if_modified(|seen| newest > *seen && std::mem::replace(seen, newest) != newest);
        Ok(())
    }

    /// A signal for every change of any server, walkthrough or assignment that this process has noticed. Waiting for it
    /// costs no query; [`Self::refresh`] then shows what has changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<i64> {
        self.0.changes.subscribe()
    }

    /// Whether [`Self::get`] probably needs no query for `slug`.
    #[must_use]
    pub fn has_loaded(&self, slug: &str) -> bool {
        self.0.cache.contains_key(&(slug.to_owned(), self.0.version.load(Ordering::Acquire)))
    }

    /// Same as [`Self::get`], for work that can wait: only a few of these read the database at once.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn refresh(&self, slug: &str) -> Result<Arc<Offers>> {
        let _permit = self.0.refreshes.acquire().await;
        self.get(slug).await
    }

    /// The server that answers to `slug`, with what it offers. A slug that is not in memory is always looked up.
    ///
    /// # Errors
    /// `not_found` when no server answers to `slug`; `unavailable` when the database is away.
    pub async fn get(&self, slug: &str) -> Result<Arc<Offers>> {
        let age = self.0.clock.now().0.saturating_sub(self.0.polled_at.load(Ordering::Acquire));
        if age > TRUST_MS {
            return self.load(slug).await;
        }
        let key = (slug.to_owned(), self.0.version.load(Ordering::Acquire));
        if let Some(offers) = self.0.cache.get(&key).await {
            return Ok(offers);
        }
        // Many requests at once wait for one look-up.
        self.0
            .cache
            .try_get_with(key, self.load(slug))
            .await
            .map_err(|error: Arc<Error>| Error::new(error.code, error.message.clone()).caused_by(error))
    }

    async fn load(&self, slug: &str) -> Result<Arc<Offers>> {
        let db = &self.0.db;
        let read = async {
            let mut conn = db.read().await?;
            let Some((server, _)) = system::find_server_by_slug(&mut conn, slug).await? else { return Ok(None) };
            let list = offer::list(&mut conn, &server.organization_id, &server.id).await?;
            let event = WebhookEvent::WalkthroughCompleted;
            let receivers = webhook::list_receivers(&mut conn, &server.organization_id, event).await?;
            Ok(Some(Arc::new(Offers::new(server, list, receivers))))
        };
        db.with_timeout(read).await?.ok_or_else(|| Error::not_found("server"))
    }
}
