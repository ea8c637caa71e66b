//! The walkthroughs that each server currently offers, cached in memory. Cached data is at most a second out of date.
//!
//! Every process polls one number, the configuration version. Every change to a server, a walkthrough, an assignment or
//! a webhook increments it in its own transaction. If it has increased, the poll lists the organisations that changed;
//! cached data of these organisations is not used again. If polls have failed for a second, the cache is bypassed and
//! every request reads from the database.

mod changes;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use waypost_content::clean;
use waypost_content::name;
use waypost_core::id::{OrganizationId, WalkthroughId, WebhookId};
use waypost_core::server::Server;
use waypost_core::webhook::WebhookEvent;
use waypost_core::{Clock, Code, Error, Result};
use waypost_jobs::{Job, Jobs};
use waypost_store::offer;
pub use waypost_store::offer::Offer;
use waypost_store::{Db, system, webhook};

use changes::{Changes, Poll};

/// The interval between polls of the configuration version.
const POLL: Duration = Duration::from_millis(200);
/// The time limit of a poll, somewhat longer than that of a database query.
const POLL_LIMIT: Duration = Duration::from_secs(10);
/// The longest pause after failed polls.
const POLL_PAUSE: Duration = Duration::from_secs(1);
/// The time without a successful poll after which the process reports that it is not ready.
const POLL_LATE: Duration = Duration::from_secs(30);
/// The maximum age of the last successful poll, in milliseconds.
const MAX_AGE_MS: i64 = 1_000;
/// The maximum number of concurrent database reads for listening clients, so that a change does not block calls.
const REFRESHES: usize = 4;
/// The maximum number of cached servers.
const SERVERS: u64 = 10_000;
/// The maximum number of changed organisations that a poll lists. If there are more, everything is evicted.
const LISTED: u32 = 1_000;
/// The time for which the result of a database read is shared with requests that did not find it in the cache.
const SHARED: Duration = Duration::from_secs(1);

/// A server and the walkthroughs that it offers.
#[derive(Debug)]
pub struct Offers {
    /// The server.
    pub server: Server,
    /// The webhooks that receive `walkthrough.completed` events.
    pub(crate) completion_receivers: Vec<WebhookId>,
    list: Vec<Arc<Offer>>,
    by_id: HashMap<WalkthroughId, usize>,
    digests: OnceLock<[[u8; 32]; 3]>,
}

impl Offers {
    /// Creates a snapshot from the stored rows. All text is cleaned: agents read it, and the rules may have become
    /// stricter since it was stored.
    fn new(mut server: Server, mut list: Vec<Offer>, completion_receivers: Vec<WebhookId>) -> Self {
        for offer in &mut list {
            offer.title = clean::title(&offer.title);
            offer.description = clean::description(&offer.description);
            offer.tags = clean::tags(&offer.tags);
        }
        server.name = name::clean(&server.name);
        server.product_name = name::clean(&server.product_name);
        let list: Vec<_> = list.into_iter().map(Arc::new).collect();
        let by_id = list.iter().enumerate().map(|(index, offer)| (offer.walkthrough_id.clone(), index)).collect();
        Self { server, completion_receivers, list, by_id, digests: OnceLock::new() }
    }

    /// Returns the offered walkthroughs in display order. Empty while the server's walkthrough tools are disabled.
    #[must_use]
    pub fn list(&self) -> &[Arc<Offer>] {
        if self.server.walkthrough_tools_enabled { &self.list } else { &[] }
    }

    /// Returns a copy with only the server, for long-running work that must not keep the snapshot in memory.
    #[must_use]
    pub fn without_list(&self) -> Self {
        Self::new(self.server.clone(), Vec::new(), Vec::new())
    }

    /// Returns the digests of the server's lists. The first call computes them with `compute` and stores them in this
    /// snapshot.
    pub fn digests(&self, compute: impl FnOnce() -> [[u8; 32]; 3]) -> [[u8; 32]; 3] {
        *self.digests.get_or_init(compute)
    }

    /// Returns the offer of a walkthrough, by ID or slug.
    ///
    /// # Errors
    /// `walkthrough_not_found` if the server does not offer it.
    pub fn get(&self, id_or_slug: &str) -> Result<&Arc<Offer>> {
        let by_id = WalkthroughId::from_store(id_or_slug.to_owned());
        let found = match self.by_id.get(&by_id) {
            Some(&at) => self.list().get(at),
            None => self.list().iter().find(|offer| offer.slug == id_or_slug),
        };
        found.ok_or_else(|| {
            Error::new(
                Code::WalkthroughNotFound,
                "This server has no such walkthrough. Call list_walkthroughs to see the available ones.",
            )
        })
    }
}

struct Shared {
    db: Db,
    clock: Arc<dyn Clock>,
    polled_at: AtomicI64,
    changes: Changes,
    refreshes: Semaphore,
    /// The cached offers by slug.
    cache: moka::sync::Cache<String, CachedOffers>,
    /// Database reads by slug and the last detected change when they began, so that concurrent requests share one
    /// query, but no request receives data from before a change that had been detected when the request began.
    reads: moka::future::Cache<(String, i64), Arc<Offers>>,
}

#[derive(Clone)]
struct CachedOffers {
    offers: Arc<Offers>,
    /// The last detected change when the read began.
    number: i64,
}

/// A cache of the servers' offers.
#[derive(Clone)]
pub struct OfferCache(Arc<Shared>);

impl OfferCache {
    /// Creates the cache and starts polling, as a job of `jobs`.
    #[must_use]
    pub fn start(db: Db, clock: Arc<dyn Clock>, jobs: &Jobs) -> Self {
        let offer_cache = Self(Arc::new(Shared {
            db,
            clock,
            polled_at: AtomicI64::new(i64::MIN),
            changes: Changes::default(),
            refreshes: Semaphore::new(REFRESHES),
            cache: moka::sync::Cache::builder().max_capacity(SERVERS).time_to_idle(Duration::from_secs(600)).build(),
            reads: moka::future::Cache::builder().max_capacity(SERVERS).time_to_live(SHARED).build(),
        }));
        let poller = offer_cache.clone();
        let job = Job { limit: POLL_LIMIT, max_pause: POLL_PAUSE, late_after: POLL_LATE, ..Job::new("offers", POLL) };
        jobs.start(job.serving(), move || {
            let poller = poller.clone();
            async move { Ok(poller.poll().await?) }
        });
        offer_cache
    }

    /// Polls once.
    ///
    /// # Errors
    /// `unavailable` if the database cannot be reached.
    pub async fn poll(&self) -> Result<()> {
        // Taken before the read, because later changes may be missing from the result.
        let started_at = self.0.clock.now();
        let db = &self.0.db;
        let read = async {
            let mut conn = db.read().await?;
            let version = conn.config_version().await?;
            // Read after the version: another poll may have been applied in the meantime.
            let seen = self.0.changes.newest();
            let is_first = seen == 0;
            let changed = match !is_first && version.version > seen {
                true => conn.list_changed_organizations(seen, LISTED).await?,
                false => Vec::new(),
            };
            let is_complete = !is_first && changed.len() < LISTED as usize;
            Ok(Poll { version, changed, is_complete })
        };
        let poll = db.with_timeout(read).await?;
        self.0.changes.apply(poll);
        self.0.polled_at.store(started_at.0, Ordering::Release);
        Ok(())
    }

    /// Returns a receiver that is notified of every later change to a server, walkthrough, assignment or webhook of
    /// `organization` that a poll detects. Waiting for it needs no query; [`Self::refresh`] then returns the new state.
    #[must_use]
    pub fn changes(&self, organization: &OrganizationId) -> watch::Receiver<i64> {
        self.0.changes.subscribe(organization)
    }

    /// Whether the server `slug` is cached, so that [`Self::get`] probably needs no query.
    #[must_use]
    pub fn has_loaded(&self, slug: &str) -> bool {
        self.find_cached(slug).is_some()
    }

    fn find_cached(&self, slug: &str) -> Option<Arc<Offers>> {
        let cached = self.0.cache.get(slug)?;
        let organization = &cached.offers.server.organization_id;
        self.0.changes.is_current(organization, cached.number).then_some(cached.offers)
    }

    /// Same as [`Self::get`], for work that can wait: the number of concurrent database reads is limited.
    ///
    /// # Errors
    /// The same as for [`Self::get`].
    pub async fn refresh(&self, slug: &str) -> Result<Arc<Offers>> {
        let _permit = self.0.refreshes.acquire().await;
        self.get(slug).await
    }

    /// Returns the server with this slug or former slug, and its offers. Reads the database if the slug is not cached.
    ///
    /// # Errors
    /// `not_found` if there is no such server; `unavailable` if the database cannot be reached.
    pub async fn get(&self, slug: &str) -> Result<Arc<Offers>> {
        let age = self.0.clock.now().0.saturating_sub(self.0.polled_at.load(Ordering::Acquire));
        if age > MAX_AGE_MS {
            return Box::pin(self.load(slug)).await;
        }
        if let Some(offers) = self.find_cached(slug) {
            return Ok(offers);
        }
        // Boxed, because most calls do not get here, but their futures would otherwise include this one.
        Box::pin(self.load_and_cache(slug)).await
    }

    /// Reads a server from the database, once for concurrent callers, and caches it.
    async fn load_and_cache(&self, slug: &str) -> Result<Arc<Offers>> {
        let number = self.0.changes.newest();
        let read = async {
            let offers = self.load(slug).await?;
            self.0.cache.insert(slug.to_owned(), CachedOffers { offers: Arc::clone(&offers), number });
            Ok(offers)
        };
        self.0
            .reads
            .try_get_with((slug.to_owned(), number), read)
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
