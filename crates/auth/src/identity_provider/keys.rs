//! The keys of providers, remembered for an hour, and fetched anew when a token is signed with one that is not known.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use openidconnect::core::CoreJsonWebKeySet;
use tokio::sync::Mutex;
use url::Url;
use waypost_core::Timestamp;
use waypost_core::oauth_config::OauthConfig;
use waypost_outbound::{Limits, Route};

use super::failure::Failure;

const LIMITS: Limits = Limits { max_bytes: 256 * 1024, timeout: Duration::from_secs(10), redirects: 0 };
/// Keys are fetched anew after this long.
const FRESH_MS: i64 = 60 * 60 * 1_000;
/// Between two looks for a key that is not known lies at least this long: else whoever sends nonsense would make
/// Waypost ask the provider as often as they like.
const PAUSE_MS: i64 = 10 * 1_000;
/// Providers whose keys are remembered.
const PROVIDERS: u64 = 1_000;

/// The keys of every provider.
#[derive(Debug, Clone)]
pub(super) struct KeyCache(Cache<(String, String), Arc<Mutex<Option<Known>>>>);

#[derive(Debug, Clone)]
struct Known {
    keys: Arc<CoreJsonWebKeySet>,
    fetched_at: Timestamp,
    /// When a key that was not among them was last looked for.
    sought_at: Option<Timestamp>,
}

impl Default for KeyCache {
    fn default() -> Self {
        Self(Cache::new(PROVIDERS))
    }
}

/// How urgently keys are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Those that are remembered will do.
    Any,
    /// Those that are remembered did not do.
    Newer,
}

impl KeyCache {
    /// The keys of a provider; with [`Want::Newer`] none when newer ones were looked for a moment ago.
    ///
    /// # Errors
    /// When the provider does not give them.
    pub async fn get(
        &self,
        route: &Route,
        config: &OauthConfig,
        now: Timestamp,
        want: Want,
    ) -> Result<Option<Arc<CoreJsonWebKeySet>>, Failure> {
        let uri = config.jwks_uri.clone().unwrap_or_default();
        let known = self.0.get_with((config.id.as_str().to_owned(), uri.clone()), Default::default);
        // Who comes while the keys are being fetched waits for them here and does not fetch them, too.
        let mut known = known.lock().await;
        let mut sought_at = known.as_ref().and_then(|known| known.sought_at);
        match (&mut *known, want) {
            (Some(known), Want::Any) if now.since(known.fetched_at) < FRESH_MS => {
                return Ok(Some(Arc::clone(&known.keys)));
            }
            (_, Want::Newer) if sought_at.is_some_and(|sought_at| now.since(sought_at) < PAUSE_MS) => return Ok(None),
            (Some(known), Want::Newer) => {
                // Also a look that fails counts.
                known.sought_at = Some(now);
                sought_at = Some(now);
            }
            _ => {}
        }
        let keys = Arc::new(fetch(route, &uri).await?);
        *known = Some(Known { keys: Arc::clone(&keys), fetched_at: now, sought_at });
        Ok(Some(keys))
    }
}

async fn fetch(route: &Route, uri: &str) -> Result<CoreJsonWebKeySet, Failure> {
    let unusable = |why: &str| Failure::Answer(format!("its keys {why}"));
    let url = Url::parse(uri).map_err(|_| unusable("have no address"))?;
    let answer = route.get(&url, LIMITS).await?;
    if answer.status != http::StatusCode::OK {
        return Err(unusable(&format!("are answered with {}", answer.status)));
    }
    serde_json::from_slice(&answer.body).map_err(|_| unusable("cannot be read"))
}
