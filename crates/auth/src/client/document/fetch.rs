//! Fetches metadata documents and caches them for as long as their headers allow.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use moka::sync::Cache;
use tokio::sync::{OnceCell, Semaphore};
use url::Url;
use waypost_core::{Clock, Timestamp};
use waypost_outbound::{Error, Limits, Outbound, OutboundResponse, Route, RouteScope};

use super::availability::{Availability, ClientDocumentsMode, NoCheck};
use super::{ClientDocument, DocumentError, check_url};

/// The limits of a fetch: 5 KiB (section 6.6 of the draft) and 5 seconds. Redirects are not followed.
const LIMITS: Limits = Limits { max_bytes: 5 * 1024, timeout: Duration::from_secs(5), redirects: 0 };
/// The maximum number of concurrent fetches. A slow server can make each of them take as long as [`LIMITS`] allow.
const MAX_CONCURRENT: usize = 64;
/// The maximum number of cached documents.
const MAX_CACHED: u64 = 1_000;
/// The lifetime of a cached document without caching headers, in seconds.
const DEFAULT_SECONDS: i64 = 5 * 60;
/// The maximum lifetime of a cached document, in seconds.
const MAX_SECONDS: i64 = 24 * 60 * 60;

/// The cache of documents by route scope and URL. Cheap to clone; clones share the cache.
///
/// Each key has one slot, which holds the running fetch, for which concurrent callers wait, and then its result. A
/// result that must not be cached is returned only to the callers that waited for it.
#[derive(Clone)]
pub struct ClientDocuments {
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    pub(super) limits: Limits,
    pub(super) permits: Arc<Semaphore>,
    availability: Availability,
    slots: Cache<(RouteScope, String), Arc<OnceCell<FetchOutcome>>>,
}

/// The result of a fetch.
struct FetchOutcome {
    result: Result<Arc<ClientDocument>, DocumentError>,
    /// `None` if the result must not be cached.
    fresh_until: Option<Timestamp>,
}

impl ClientDocuments {
    /// Creates a cache of documents that are fetched through `outbound`, expire by the time of `clock`, and are always
    /// advertised.
    #[must_use]
    pub fn new(outbound: Outbound, clock: Arc<dyn Clock>) -> Self {
        let availability = Availability::new(ClientDocumentsMode::On, false, Arc::new(NoCheck), clock.clone());
        let permits = Arc::new(Semaphore::new(MAX_CONCURRENT));
        Self { outbound, clock, limits: LIMITS, permits, availability, slots: Cache::new(MAX_CACHED) }
    }

    /// Sets when documents are advertised.
    #[must_use]
    pub fn with_availability(self, availability: Availability) -> Self {
        Self { availability, ..self }
    }

    /// Whether the server metadata advertises documents. The first call may wait a few seconds for a check.
    pub async fn is_advertised(&self) -> bool {
        self.availability.is_advertised().await
    }

    /// Returns the HTTP client, which creates the routes for [`Self::get`].
    #[must_use]
    pub fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Returns the document at `url`, from the cache or fetched through `route`, which must be the one for the issuer
    /// that the client uses.
    ///
    /// # Errors
    /// Returns a [`DocumentError`] if the document cannot be used. Errors are never cached: the next call fetches
    /// again.
    pub async fn get(&self, route: &Route, url: &str) -> Result<Arc<ClientDocument>, DocumentError> {
        let target = check_url(url)?;
        if self.availability.mode() == ClientDocumentsMode::Off {
            return Err(DocumentError::Off);
        }
        let now = self.clock.now();
        let is_stale = |slot: &Arc<OnceCell<FetchOutcome>>| {
            slot.get().is_some_and(|fetched| fetched.fresh_until.is_none_or(|until| until <= now))
        };
        // Documents that an organisation may fetch from its own network are not shared with other organisations.
        let key = (route.scope(), url.to_owned());
        let slot = self.slots.entry(key).or_insert_with_if(Arc::default, is_stale).into_value();
        slot.get_or_init(|| self.fetch(route, url, &target)).await.result.clone()
    }

    /// Whether [`ClientDocuments::get`] can return without sending a new request to the URL of the document.
    #[must_use]
    pub fn is_cached(&self, route: &Route, url: &str) -> bool {
        let now = self.clock.now();
        let is_fresh = |fetched: &FetchOutcome| fetched.fresh_until.is_some_and(|until| until > now);
        let slot = self.slots.get(&(route.scope(), url.to_owned()));
        slot.is_some_and(|slot| slot.get().is_none_or(is_fresh))
    }

    async fn fetch(&self, route: &Route, client_id: &str, url: &Url) -> FetchOutcome {
        let Ok(_permit) = self.permits.try_acquire() else {
            count("busy");
            return FetchOutcome { result: Err(DocumentError::Busy), fresh_until: None };
        };
        let response = match route.get(url, self.limits).await {
            Ok(response) => response,
            Err(error) => {
                count("unreachable");
                if matches!(error, Error::Unreachable { .. } | Error::Timeout { .. }) {
                    self.availability.failed();
                }
                return FetchOutcome { result: Err(DocumentError::Fetch(Arc::new(error))), fresh_until: None };
            }
        };
        let result = read(client_id, &response).map(Arc::new);
        count(if result.is_ok() { "ok" } else { "invalid" });
        if result.is_ok() {
            self.availability.succeeded();
        }
        let seconds = if result.is_ok() { lifetime(&response.headers) } else { 0 };
        let fresh_until = (seconds > 0).then(|| self.clock.now().plus(seconds * 1000));
        FetchOutcome { result, fresh_until }
    }
}

fn count(result: &'static str) {
    metrics::counter!("waypost_client_documents_total", "result" => result).increment(1);
}

fn read(client_id: &str, response: &OutboundResponse) -> Result<ClientDocument, DocumentError> {
    if response.status != StatusCode::OK {
        return Err(DocumentError::Status(response.status.as_u16()));
    }
    if !is_json(&response.headers) {
        return Err(DocumentError::ContentType);
    }
    ClientDocument::parse(client_id, &response.body)
}

/// Whether the content type is `application/json` or a type with the suffix `+json` (RFC 6839, section 3.1).
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Returns the number of seconds for which a document may be cached (RFC 9111, sections 4.2 and 5.2.2), within the
/// limits of this module.
pub(super) fn lifetime(headers: &HeaderMap) -> i64 {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let mut seconds = None;
    for directive in lines.flat_map(|line| line.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return 0,
            // A malformed value counts as 0; of several values, the smallest applies.
            "max-age" => {
                let value = value.trim().trim_matches('"').parse::<u64>().unwrap_or(0).min(MAX_SECONDS.unsigned_abs());
                seconds = Some(seconds.map_or(value, |before: u64| before.min(value)));
            }
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return DEFAULT_SECONDS };
    // `Age` is the time that the response has spent in other caches.
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()).and_then(|age| age.trim().parse::<u64>().ok());
    i64::try_from(seconds.saturating_sub(age.unwrap_or(0))).unwrap_or(MAX_SECONDS)
}
