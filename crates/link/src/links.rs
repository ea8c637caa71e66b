//! The open links of this process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use waypost_core::id::ToolboxId;

use crate::error::LinkError;
use crate::forward::Forward;

/// The maximum number of concurrent handshakes. Each takes at most
/// [`HANDSHAKE_SECONDS`](waypost_toolbox_proto::handshake::HANDSHAKE_SECONDS).
const MAX_HANDSHAKES: usize = 256;

/// The open links of this process. Cheap to clone; clones share the same links.
#[derive(Clone)]
pub struct Links {
    inner: Arc<Inner>,
    forward: Option<Arc<dyn Forward>>,
}

struct Inner {
    open: Mutex<HashMap<ToolboxId, Arc<Link>>>,
    handshakes: Semaphore,
    /// Cancelled when the process stops.
    stopped: CancellationToken,
}

/// An open link.
pub(crate) struct Link {
    /// Sends requests to the daemon.
    pub(crate) client: SendRequest<Bytes>,
    /// Cancelled when the link is to be closed.
    pub(crate) closed: CancellationToken,
    /// Notified when the desired state may have changed.
    pub(crate) desired: Notify,
    /// Notified when the daemon is to replace its key.
    pub(crate) rotate_key: Notify,
}

/// Removes a link from the open links when it is dropped.
pub(crate) struct Registration<'a> {
    links: &'a Links,
    toolbox: ToolboxId,
    pub(crate) link: Arc<Link>,
}

/// Shows the toolboxes, not the connections.
impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Links").field(&self.toolboxes()).finish()
    }
}

impl Default for Links {
    fn default() -> Self {
        Self::new()
    }
}

impl Links {
    /// Creates an empty registry.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            open: Mutex::default(),
            handshakes: Semaphore::new(MAX_HANDSHAKES),
            stopped: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner), forward: None }
    }

    /// Forwards requests to other replicas if the toolbox has no link to this process.
    #[must_use]
    pub fn with_forward(self, forward: Arc<dyn Forward>) -> Self {
        Self { forward: Some(forward), ..self }
    }

    /// Whether this process holds a link to `toolbox`.
    #[must_use]
    pub fn is_connected(&self, toolbox: &ToolboxId) -> bool {
        self.open().contains_key(toolbox)
    }

    /// Returns the toolboxes to which this process holds a link.
    #[must_use]
    pub fn toolboxes(&self) -> Vec<ToolboxId> {
        self.open().keys().cloned().collect()
    }

    /// Sends the desired state to `toolbox` again. Must be called after every change, and after a revocation. Does
    /// nothing if this process has no link to it.
    pub fn notify_desired(&self, toolbox: &ToolboxId) {
        if let Some(link) = self.open().get(toolbox) {
            link.desired.notify_one();
        }
    }

    /// Closes the link to `toolbox`, for example because the toolbox is revoked. Calls in progress fail. The daemon can
    /// reconnect only if [`Directory::authenticate`](crate::Directory::authenticate) accepts it.
    pub fn close(&self, toolbox: &ToolboxId) {
        let link = self.open().remove(toolbox);
        if let Some(link) = link {
            link.closed.cancel();
            self.count();
        }
    }

    /// Closes all links when the process stops. The daemons reconnect.
    pub fn close_all(&self) {
        self.inner.stopped.cancel();
        let links = std::mem::take(&mut *self.open());
        links.values().for_each(|link| link.closed.cancel());
        self.count();
    }

    /// Returns a token that is cancelled by [`Links::close_all`], for streaming responses that do not use a link.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.inner.stopped.clone()
    }

    /// Tells the daemon to replace its key. The daemon reconnects with the new key.
    ///
    /// # Errors
    /// Returns [`LinkError::Offline`] if this process has no link to `toolbox`.
    pub fn rotate_key(&self, toolbox: &ToolboxId) -> Result<(), LinkError> {
        self.find(toolbox).ok_or(LinkError::Offline)?.rotate_key.notify_one();
        Ok(())
    }

    pub(crate) fn forward(&self) -> Option<&dyn Forward> {
        self.forward.as_deref()
    }

    pub(crate) fn find(&self, toolbox: &ToolboxId) -> Option<Arc<Link>> {
        self.open().get(toolbox).cloned()
    }

    pub(crate) fn handshakes(&self) -> &Semaphore {
        &self.inner.handshakes
    }

    /// Adds a link, and closes the previous link of the toolbox.
    pub(crate) fn register(&self, toolbox: ToolboxId, client: SendRequest<Bytes>) -> Registration<'_> {
        let link = Arc::new(Link {
            client,
            closed: CancellationToken::new(),
            desired: Notify::new(),
            rotate_key: Notify::new(),
        });
        let previous = self.open().insert(toolbox.clone(), Arc::clone(&link));
        if let Some(previous) = previous {
            tracing::info!(%toolbox, "closed a link because the toolbox opened a newer one");
            previous.closed.cancel();
        }
        self.count();
        Registration { links: self, toolbox, link }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<ToolboxId, Arc<Link>>> {
        self.inner.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn count(&self) {
        metrics::gauge!("waypost_toolbox_links").set(self.open().len() as f64);
    }
}

impl Registration<'_> {
    /// Removes the link. Returns whether this process now has no link to the toolbox.
    pub(crate) fn remove(&self) -> bool {
        let mut open = self.links.open();
        if open.get(&self.toolbox).is_some_and(|current| Arc::ptr_eq(current, &self.link)) {
            open.remove(&self.toolbox);
        }
        let is_last = !open.contains_key(&self.toolbox);
        drop(open);
        self.links.count();
        is_last
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}
