//! The open attempts that the writer wrote or read last.
//!
//! An entry may be out of date: another process, a join or a deletion may have changed the row since. The database
//! therefore checks it: a change that was decided on an entry is written only if the row still equals the entry
//! (`progress::unread`). An outdated entry costs a retry, but never loses an update. For the same reason, entries need
//! no invalidation. A call that changes nothing is not answered from an entry, because no write would check it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;
use waypost_core::progress::Attempt;

use crate::progress::ProgressKey;

/// The maximum number of cached attempts: about 4 MB.
const MAX_ATTEMPTS: usize = 4_096;

/// A bounded cache of open attempts. The least recently used entry is evicted. Clones share the entries.
#[derive(Clone)]
pub(super) struct AttemptCache(Arc<Mutex<LruCache<ProgressKey, Arc<Attempt>>>>);

impl AttemptCache {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MAX_ATTEMPTS))))
    }

    /// Returns the entries of the given keys, in their order.
    pub(super) fn get_all<'k>(&self, keys: impl Iterator<Item = &'k ProgressKey>) -> Vec<Option<Arc<Attempt>>> {
        let mut entries = self.lock();
        keys.map(|key| entries.get(key).map(Arc::clone)).collect()
    }

    /// Replaces the entries of the given keys. `None` removes an entry.
    pub(super) fn replace_all(&self, attempts: impl IntoIterator<Item = (ProgressKey, Option<Arc<Attempt>>)>) {
        let mut entries = self.lock();
        for (key, attempt) in attempts {
            match attempt {
                Some(attempt) => entries.insert(key, attempt),
                None => entries.remove(&key),
            };
        }
    }

    // A panic cannot leave an entry in an invalid state, and a wrong entry is harmless.
    fn lock(&self) -> MutexGuard<'_, LruCache<ProgressKey, Arc<Attempt>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
