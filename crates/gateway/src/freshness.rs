//! Checks that a server still lists what was approved, before it is called.
//!
//! A server is read by one call at a time, and the others use the result: there is one check per server, not one per call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hashlink::LruCache;
use tokio::time::Instant;
use waypost_core::id::InstanceId;
use waypost_core::instance::Instance;
use waypost_core::{Error, Result};
use waypost_ops::tool_definitions::{fetch, observe};

use crate::Gateway;

/// The time for which the failure of a check applies to other calls: they do not wait for a dead server one after another.
const FAILURE_AGE: Duration = Duration::from_secs(1);

/// The maximum number of servers whose last check is remembered. The check of another one is repeated.
const SERVERS: usize = 10_000;

/// The last check of each server.
#[derive(Debug)]
pub(crate) struct Freshness {
    servers: Mutex<LruCache<InstanceId, Arc<tokio::sync::Mutex<LastCheck>>>>,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { servers: Mutex::new(LruCache::new(SERVERS)) }
    }
}

#[derive(Debug, Default)]
struct LastCheck {
    succeeded: Option<Instant>,
    failed: Option<(Instant, Error)>,
}

impl Freshness {
    fn server(&self, instance: &InstanceId) -> Arc<tokio::sync::Mutex<LastCheck>> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(instance) {
            return Arc::clone(server);
        }
        let server = Arc::default();
        servers.insert(instance.clone(), Arc::clone(&server));
        server
    }
}

impl Gateway {
    /// Reads what the server of an instance lists, unless it was read within the maximum age. Returns whether something has
    /// changed, so that access must be read again.
    ///
    /// # Errors
    /// Those of [`fetch`].
    pub(crate) async fn check_definitions(&self, instance: &Instance) -> Result<bool> {
        let max_age = self.options.definition_max_age;
        let arrived = Instant::now();
        let server = self.freshness.server(&instance.id);
        let mut last = server.lock().await;
        // With a maximum age of zero, a check that began after this call arrived is sufficient.
        let is_fresh = |at: Instant| at >= arrived || at.elapsed() < max_age;
        if last.succeeded.is_some_and(is_fresh) {
            return Ok(false);
        }
        if let Some((at, error)) = last.failed.as_ref().filter(|(at, _)| *at >= arrived || at.elapsed() < FAILURE_AGE) {
            tracing::debug!(seconds = at.elapsed().as_secs_f64(), "a failed check of definitions applies to this call");
            return Err(error.without_cause());
        }
        let begun = Instant::now();
        // Most calls come no further, so the rest is not part of their futures.
        let listed = match Box::pin(fetch(&self.ops, instance)).await {
            Ok(listed) => listed,
            Err(error) => {
                last.failed = Some((Instant::now(), error.without_cause()));
                return Err(error);
            }
        };
        let observation = Box::pin(observe(&self.cx, &self.ops, instance, &listed)).await?;
        *last = LastCheck { succeeded: Some(begun), failed: None };
        if observation.is_changed {
            self.access.evict(&instance.organization_id);
        }
        Ok(observation.is_changed)
    }
}
