//! The stored state of the session with a container, with which a restarted daemon continues the session.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::interface::Failure;
use super::wire::Negotiated;
use crate::files;

/// The number of request IDs that are reserved on disk at once.
const BLOCK: u64 = 65_536;
/// The first ID is chosen from this many numbers. This keeps IDs within 32 bits for a billion requests, because some
/// servers do not accept larger ones.
const FIRST_IDS: i64 = 1 << 30;
/// The maximum size of the stored file in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The content of the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Saved {
    /// All IDs below this one may have been used.
    reserved_ids: u64,
    /// `None` until the handshake is complete.
    negotiated: Option<Negotiated>,
}

/// The file of one container, and the source of its request IDs.
///
/// IDs are never reused on a container: a block of IDs is reserved on disk before the first of them is used, and a
/// restarted daemon continues after the block. If there is no file, IDs start at a number derived from the time.
pub(super) struct SessionFile {
    path: PathBuf,
    saved: Mutex<Saved>,
    next: AtomicU64,
    reserved: AtomicU64,
}

impl SessionFile {
    /// Opens the file, and returns the negotiated session if it was saved. A file that cannot be read is treated as
    /// missing.
    pub(super) async fn open(path: PathBuf, now: i64) -> Result<(Self, Option<Negotiated>), Failure> {
        let file = path.clone();
        let saved = blocking(move || Ok(read(&file))).await?;
        let first = u64::try_from(now.rem_euclid(FIRST_IDS)).unwrap_or_default() + 1;
        let saved = saved.unwrap_or(Saved { reserved_ids: first, negotiated: None });
        let (next, negotiated) = (saved.reserved_ids, saved.negotiated.clone());
        let (reserved, saved) = (AtomicU64::new(next), Mutex::new(saved));
        let session = Self { path, saved, next: AtomicU64::new(next), reserved };
        session.reserve(next).await?;
        Ok((session, negotiated))
    }

    /// Returns an ID that has never been used on this container.
    pub(super) async fn next_id(&self) -> Result<u64, Failure> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        if id >= self.reserved.load(Ordering::Acquire) {
            self.reserve(id).await?;
        }
        Ok(id)
    }

    /// Stores the negotiated session.
    pub(super) async fn save(&self, negotiated: &Negotiated) -> Result<(), Failure> {
        let mut saved = self.saved.lock().await;
        let new = Saved { negotiated: Some(negotiated.clone()), ..saved.clone() };
        self.write(&new).await?;
        *saved = new;
        Ok(())
    }

    /// Reserves IDs so that `id` can be used.
    async fn reserve(&self, id: u64) -> Result<(), Failure> {
        let mut saved = self.saved.lock().await;
        if id < saved.reserved_ids && id < self.reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        let new = Saved { reserved_ids: id.max(saved.reserved_ids) + BLOCK, ..saved.clone() };
        self.write(&new).await?;
        self.reserved.store(new.reserved_ids, Ordering::Release);
        *saved = new;
        Ok(())
    }

    async fn write(&self, saved: &Saved) -> Result<(), Failure> {
        let content = serde_json::to_vec(saved).map_err(|error| Failure::Storage(error.to_string()))?;
        let path = self.path.clone();
        blocking(move || files::replace(&path, &content)).await
    }
}

fn read(path: &Path) -> Option<Saved> {
    let is_sane = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_BYTES);
    let content = is_sane.then(|| std::fs::read(path).ok())??;
    let saved = serde_json::from_slice(&content);
    saved.inspect_err(|error| tracing::warn!(%error, "failed to read a saved session")).ok()
}

/// Runs a blocking file system operation.
pub(super) async fn blocking<T: Send + 'static>(
    operation: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let result = tokio::task::spawn_blocking(operation).await.map_err(io::Error::other).and_then(|result| result);
    result.map_err(|error| Failure::Storage(error.to_string()))
}

/// Returns the path of the session file of a container.
pub(super) fn session_path(folder: &Path, container_id: &str) -> PathBuf {
    let name: String = container_id.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
    folder.join(format!("session-{name}.json"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test]
    async fn ids_are_never_reused() {
        let folder = tempfile::tempdir().unwrap();
        let path = session_path(folder.path(), "../c1");
        assert_eq!(path.parent(), Some(folder.path()));
        let negotiated = Negotiated { revision: "r".into(), result: "{}".into(), session: None, is_announced: true };
        let mut used = HashSet::new();
        for restart in 0..3 {
            // The clock is set back at every restart.
            let (session, known) = SessionFile::open(path.clone(), 1_000 - restart).await.unwrap();
            assert_eq!(known, (restart > 0).then(|| negotiated.clone()));
            session.save(&negotiated).await.unwrap();
            for _ in 0..BLOCK + 10 {
                assert!(used.insert(session.next_id().await.unwrap()));
            }
        }
        std::fs::write(&path, "{").unwrap();
        let (session, known) = SessionFile::open(path, 5_000_000).await.unwrap();
        assert_eq!(known, None);
        assert!(used.insert(session.next_id().await.unwrap()), "a lost file");
    }
}
