//! Announcements of a server outside of calls: a list or a resource has changed.
//!
//! Invariants:
//! 1. A stream receives only the announcements that a list, or a resource that it has requested, has changed. All other
//!    content from the server is dropped: it could contain data of one of the callers.
//! 2. The announcements that wait for a stream are limited by its requested resources: each list and each resource
//!    waits at most once, however often it is announced, and all of them are delivered in turn.
//! 3. All streams of a session end when the session does, because the server then forgets its subscriptions.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use waypost_mcp_wire::Envelope;

/// The maximum number of streams of a session: one for each replica of the control plane, and one that replaces it.
pub(super) const MAX_STREAMS: usize = 16;

/// The notifications that say that a list has changed.
pub(super) const LIST_CHANGES: [&str; 3] =
    ["notifications/tools/list_changed", "notifications/prompts/list_changed", "notifications/resources/list_changed"];
/// The notification that says that a resource has changed.
const UPDATED: &str = "notifications/resources/updated";

/// A change that is announced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Announcement {
    /// A list has changed. Contains the method of the notification.
    List(&'static str),
    /// The resource with this URI has changed.
    Resource(String),
}

impl Announcement {
    /// Reads a notification. Returns `None` if it is not an announcement.
    fn read(notification: &Envelope<'_>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Params {
            uri: String,
        }
        let method = notification.method.as_deref()?;
        if method == UPDATED {
            let params: Params = serde_json::from_str(notification.params?.get()).ok()?;
            return Some(Self::Resource(params.uri));
        }
        LIST_CHANGES.into_iter().find(|known| *known == method).map(Self::List)
    }

    /// Returns the notification as it is sent to the control plane.
    pub(super) fn to_message(&self) -> Bytes {
        let message = match self {
            Self::List(method) => json!({ "jsonrpc": "2.0", "method": method }),
            Self::Resource(uri) => json!({ "jsonrpc": "2.0", "method": UPDATED, "params": { "uri": uri } }),
        };
        message.to_string().into()
    }
}

/// The changes that wait for a stream.
#[derive(Debug)]
pub(super) struct Inbox {
    resources: BTreeSet<String>,
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Announcement>,
    known: HashSet<Announcement>,
    is_closed: bool,
}

impl Inbox {
    pub(super) fn new(resources: BTreeSet<String>) -> Arc<Self> {
        Arc::new(Self { resources, waiting: Mutex::default(), changed: Notify::new() })
    }

    /// Adds the announcement in a notification if the stream has requested it. Returns whether it has.
    pub(super) fn receive(&self, notification: &Envelope<'_>) -> bool {
        Announcement::read(notification).is_some_and(|announcement| self.add(&announcement))
    }

    fn add(&self, announcement: &Announcement) -> bool {
        if matches!(announcement, Announcement::Resource(uri) if !self.resources.contains(uri)) {
            return false;
        }
        let mut waiting = self.waiting();
        if waiting.known.insert(announcement.clone()) {
            waiting.queue.push_back(announcement.clone());
            self.changed.notify_one();
        }
        true
    }

    fn copy_to(&self, other: &Self) {
        let queue = self.waiting().queue.clone();
        for announcement in &queue {
            other.add(announcement);
        }
    }

    /// Ends the stream after the waiting announcements.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
        self.changed.notify_one();
    }

    /// Waits for changes, and returns all of them; `None` at the end of the stream. Cancel-safe, for one receiver.
    pub(super) async fn take(&self) -> Option<VecDeque<Announcement>> {
        loop {
            {
                let mut waiting = self.waiting();
                if !waiting.queue.is_empty() {
                    waiting.known.clear();
                    return Some(std::mem::take(&mut waiting.queue));
                }
                if waiting.is_closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The streams of a session, and its subscriptions.
#[derive(Debug)]
pub(super) struct Announcements {
    state: Mutex<State>,
    /// Held while streams are opened and subscriptions are changed.
    pub(super) changing: tokio::sync::Mutex<()>,
    /// Notified when a stream has been closed.
    closed: Notify,
}

#[derive(Debug, Default)]
struct State {
    inboxes: HashMap<u64, Arc<Inbox>>,
    next: u64,
    /// The number of streams for each resource to which the session is subscribed.
    subscribed: HashMap<String, usize>,
    /// Increases with each session.
    epoch: u64,
    /// Whether a task reads the announcements of the server, for transports with a separate stream for them.
    is_listening: bool,
}

impl Announcements {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changing: tokio::sync::Mutex::default(), closed: Notify::new() })
    }

    /// Opens a stream, which is closed when the result is dropped.
    pub(super) fn open(self: &Arc<Self>, resources: BTreeSet<String>) -> OpenInbox {
        let inbox = Inbox::new(resources);
        let mut state = self.state();
        // The new stream may replace one that has not delivered its announcements yet.
        for earlier in state.inboxes.values() {
            earlier.copy_to(&inbox);
        }
        let id = state.next;
        state.next += 1;
        state.inboxes.insert(id, Arc::clone(&inbox));
        let epoch = state.epoch;
        drop(state);
        OpenInbox { announcements: Arc::clone(self), inbox, id, epoch, subscribed: BTreeSet::new() }
    }

    /// Passes a notification to the streams that have requested it. Returns whether it is an announcement that any of
    /// them has requested.
    pub(super) fn receive(&self, notification: &Envelope<'_>) -> bool {
        let Some(announcement) = Announcement::read(notification) else { return false };
        let state = self.state();
        state.inboxes.values().filter(|inbox| inbox.add(&announcement)).count() > 0
    }

    /// Ends all streams, because the session has ended.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        state.inboxes.drain().for_each(|(_, inbox)| inbox.close());
        state.subscribed.clear();
        state.epoch += 1;
        state.is_listening = false;
        drop(state);
        self.closed.notify_one();
    }

    /// Whether a task reads the announcements of the server.
    pub(super) fn is_listening(&self) -> bool {
        self.state().is_listening
    }

    /// Returns the handle for a task that reads the announcements of the server from now on.
    pub(super) fn listen(self: &Arc<Self>) -> Listening {
        let mut state = self.state();
        state.is_listening = true;
        let epoch = state.epoch;
        drop(state);
        Listening { announcements: Arc::clone(self), epoch, is_over: AtomicBool::new(false) }
    }

    /// Removes the subscriptions that no stream needs any more, and returns their resources.
    pub(super) fn take_unused(&self) -> Vec<String> {
        let mut state = self.state();
        let unused: Vec<_> =
            state.subscribed.iter().filter(|(_, count)| **count == 0).map(|(uri, _)| uri.clone()).collect();
        for uri in &unused {
            state.subscribed.remove(uri);
        }
        unused
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream of a session.
#[derive(Debug)]
pub(super) struct OpenInbox {
    announcements: Arc<Announcements>,
    pub(super) inbox: Arc<Inbox>,
    id: u64,
    epoch: u64,
    /// The resources for which this stream is counted.
    subscribed: BTreeSet<String>,
}

impl OpenInbox {
    /// Counts this stream for a resource if the session is subscribed to it. Returns whether it is.
    pub(super) fn join(&mut self, uri: &str) -> bool {
        let mut state = self.announcements.state();
        let is_same = state.epoch == self.epoch;
        let count = state.subscribed.get_mut(uri).filter(|_| is_same);
        let is_subscribed = count.map(|count| *count += 1).is_some();
        drop(state);
        if is_subscribed {
            self.subscribed.insert(uri.to_owned());
        }
        is_subscribed
    }

    /// Records that the session is now subscribed to a resource. Does nothing if the session has ended in the meantime.
    pub(super) fn add(&mut self, uri: &str) {
        let mut state = self.announcements.state();
        if state.epoch == self.epoch {
            *state.subscribed.entry(uri.to_owned()).or_default() += 1;
            self.subscribed.insert(uri.to_owned());
        }
    }

    /// Closes the stream. Returns whether the session has subscriptions that no stream needs any more.
    pub(super) fn close(&mut self) -> bool {
        let mut state = self.announcements.state();
        state.inboxes.remove(&self.id);
        let mut has_unused = false;
        for uri in std::mem::take(&mut self.subscribed) {
            // The counts of a later session do not include this stream.
            if state.epoch == self.epoch
                && let Some(count) = state.subscribed.get_mut(&uri)
            {
                *count = count.saturating_sub(1);
                has_unused |= *count == 0;
            }
        }
        drop(state);
        self.announcements.closed.notify_one();
        has_unused
    }
}

impl Drop for OpenInbox {
    fn drop(&mut self) {
        self.close();
    }
}

/// The handle of a task that reads the announcements of a server. Dropping it ends all streams of the session, unless
/// the task has ended because there are none.
#[derive(Debug)]
pub(super) struct Listening {
    announcements: Arc<Announcements>,
    epoch: u64,
    is_over: AtomicBool,
}

impl Listening {
    pub(super) fn receive(&self, notification: &Envelope<'_>) -> bool {
        self.announcements.receive(notification)
    }

    /// Waits until no stream needs the task any more, after which it must end.
    pub(super) async fn unused(&self) {
        loop {
            {
                let mut state = self.announcements.state();
                let is_replaced = state.epoch != self.epoch;
                if is_replaced || state.inboxes.is_empty() {
                    state.is_listening &= is_replaced;
                    return self.is_over.store(true, Ordering::Relaxed);
                }
            }
            self.announcements.closed.notified().await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if !self.is_over.load(Ordering::Relaxed) && self.announcements.state().epoch == self.epoch {
            self.announcements.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(announcements: &Announcements, text: &str) -> bool {
        announcements.receive(&Envelope::parse(text.as_bytes()).unwrap())
    }

    fn updated(uri: &str) -> String {
        json!({ "jsonrpc": "2.0", "method": UPDATED, "params": { "uri": uri, "secret": "of somebody else" } })
            .to_string()
    }

    #[tokio::test]
    async fn each_requested_change_waits_once_during_a_flood() {
        let announcements = Announcements::new();
        let stream = announcements.open(BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let other = announcements.open(BTreeSet::new());
        for number in 0..10_000 {
            assert!(receive(&announcements, &updated("b")));
            assert!(receive(&announcements, &updated("a")));
            assert!(!receive(&announcements, &updated(&number.to_string())));
            assert!(receive(&announcements, r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#));
            assert!(!receive(&announcements, r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#));
        }
        let messages = |queue: VecDeque<Announcement>| -> Vec<String> {
            queue.iter().map(|item| String::from_utf8(item.to_message().to_vec()).unwrap()).collect()
        };
        let list = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
        let resource = |uri| json!({ "jsonrpc": "2.0", "method": UPDATED, "params": { "uri": uri } }).to_string();
        let expected = [resource("b"), resource("a"), list.to_owned()];
        assert_eq!(messages(stream.inbox.take().await.unwrap()), expected);
        assert_eq!(messages(other.inbox.take().await.unwrap()), [list]);
        assert!(receive(&announcements, &updated("a")), "once more");
        announcements.reset();
        assert_eq!(messages(stream.inbox.take().await.unwrap()), [resource("a")]);
        assert!(stream.inbox.take().await.is_none() && other.inbox.take().await.is_none());
        assert!(!receive(&announcements, &updated("a")));
    }

    #[test]
    fn a_resource_is_subscribed_while_a_stream_needs_it() {
        let announcements = Announcements::new();
        let open = || announcements.open(BTreeSet::new());
        let (mut one, mut other) = (open(), open());
        assert!(!one.join("a"));
        one.add("a");
        assert!(other.join("a"));
        assert!(!one.close(), "the other one needs it");
        assert!(announcements.take_unused().is_empty());
        assert!(other.close());
        let mut third = open();
        assert!(third.join("a"), "the server has not been told yet");
        assert!(announcements.take_unused().is_empty());
        assert!(third.close());
        assert_eq!(announcements.take_unused(), ["a"]);
        // A stream of an earlier session changes nothing.
        let mut early = open();
        early.add("a");
        announcements.reset();
        let mut late = open();
        late.add("a");
        assert!(!early.close());
        early.add("b");
        assert!(!late.join("b"));
    }
}
