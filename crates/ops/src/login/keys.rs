//! A cache of providers' keys. Keys are cached for an hour, and refetched if a token is signed with an unknown key.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use openidconnect::core::CoreJsonWebKeySet;
use tokio::sync::Mutex;
use url::Url;
use waypost_core::Timestamp;
use waypost_outbound::{Limits, Route};

use super::error::LoginError;

/// The limits of a request for keys.
const LIMITS: Limits = Limits { max_bytes: 256 * 1024, timeout: Duration::from_secs(10), redirects: 0 };
/// The lifetime of cached keys.
const FRESH_MS: i64 = 60 * 60 * 1_000;
/// The minimum time between two refetches for an unknown key. Otherwise, anyone who sends invalid tokens could make
/// Waypost query the provider at will.
const PAUSE_MS: i64 = 10 * 1_000;
/// The maximum number of providers whose keys are cached.
const PROVIDERS: u64 = 1_000;

/// The cached keys of every provider.
#[derive(Debug, Clone)]
pub struct KeyCache(Cache<(String, String), Arc<Mutex<Option<CachedKeys>>>>);

#[derive(Debug, Clone)]
struct CachedKeys {
    keys: Arc<CoreJsonWebKeySet>,
    fetched_at: Timestamp,
    /// The time of the last refetch for an unknown key.
    refetched_at: Option<Timestamp>,
}

impl Default for KeyCache {
    fn default() -> Self {
        Self(Cache::new(PROVIDERS))
    }
}

/// The required freshness of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Cached keys are sufficient.
    Cached,
    /// Newer keys are required: the cached ones did not verify the token.
    Newer,
}

impl KeyCache {
    /// Returns the keys at `uri` of the provider `id`. Returns `None` for [`Freshness::Newer`] if the last refetch for
    /// an unknown key, successful or not, was less than [`PAUSE_MS`] ago.
    ///
    /// # Errors
    /// Returns an error if the provider does not return its keys.
    pub(super) async fn get(
        &self,
        route: &Route,
        id: &str,
        uri: &str,
        now: Timestamp,
        freshness: Freshness,
    ) -> Result<Option<Arc<CoreJsonWebKeySet>>, LoginError> {
        let cached = self.0.get_with((id.to_owned(), uri.to_owned()), Default::default);
        // Concurrent callers wait here for the same fetch.
        let mut cached = cached.lock().await;
        let mut refetched_at = cached.as_ref().and_then(|cached| cached.refetched_at);
        match (&mut *cached, freshness) {
            (Some(cached), Freshness::Cached) if now.since(cached.fetched_at) < FRESH_MS => {
                return Ok(Some(Arc::clone(&cached.keys)));
            }
            (_, Freshness::Newer) if refetched_at.is_some_and(|refetched_at| now.since(refetched_at) < PAUSE_MS) => {
                return Ok(None);
            }
            (Some(cached), Freshness::Newer) => {
                // A failed refetch counts, too.
                cached.refetched_at = Some(now);
                refetched_at = Some(now);
            }
            _ => {}
        }
        let keys = Arc::new(fetch(route, uri).await?);
        *cached = Some(CachedKeys { keys: Arc::clone(&keys), fetched_at: now, refetched_at });
        Ok(Some(keys))
    }
}

async fn fetch(route: &Route, uri: &str) -> Result<CoreJsonWebKeySet, LoginError> {
    let invalid = |reason: &str| LoginError::InvalidResponse(format!("its keys {reason}"));
    let url = Url::parse(uri).map_err(|_| invalid("have no valid URL"))?;
    let response = route.get(&url, LIMITS).await?;
    if response.status != http::StatusCode::OK {
        return Err(invalid(&format!("could not be fetched: the response has the status {}", response.status)));
    }
    serde_json::from_slice(&response.body).map_err(|_| invalid("cannot be parsed"))
}
