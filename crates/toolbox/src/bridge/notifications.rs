//! Notification streams: the announcements of a server outside of calls, for all agents that use its container.
//!
//! | Server | Source |
//! |---|---|
//! | stdio, HTTP+SSE | messages that belong to no call |
//! | Streamable HTTP with a handshake | a GET request ("Listening for Messages from the Server"), one per session |
//! | 2026-07-28 | `subscriptions/listen`, one request per stream |
//!
//! A session with a handshake subscribes to a resource once for all streams, until the last stream that needs it is
//! closed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use waypost_mcp_wire::sse::EventParser;
use waypost_mcp_wire::{Body, Envelope};
use waypost_toolbox_proto::http::NotificationsOpened;

use super::announcements::{Announcement, Inbox, Listening, OpenInbox};
use super::http::{Exchange, HttpClient, Post, get_events};
use super::interface::Failure;
use super::mux::{Counters, answer};
use super::session::{RawMessages, Session, Transport};
use super::streamable::Streamable;
use super::wire::Wire;
use crate::logs::Bucket;
use crate::supervisor::servers::{CallFailure, Notifications};
use crate::tasks;

/// The time within which a server must open its stream.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// The time within which a server must answer all new subscriptions of a stream.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(8);
/// The time after which `subscriptions/listen` is sent again.
const LISTEN_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest time between two deliveries. Several changes of a resource within this time result in one notification.
const INTERVAL: Duration = Duration::from_millis(500);
/// The maximum size in bytes of a message from the server that belongs to no call.
const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// The long-term rate in bytes per second at which a server may send announcements. A server that sends more is read
/// more slowly.
const BYTES_PER_SECOND: u32 = 256 * 1024;
/// The cost of a message in addition to its bytes.
const MESSAGE_COST: usize = 64;

impl Session {
    /// Opens a stream of the server's announcements: changed lists, and changes of these resources. Returns `None` if
    /// the server makes no announcements. The stream does not keep the session open, and ends when the session does.
    ///
    /// # Errors
    /// Returns a [`CallFailure`]: 429 if there are too many streams, or another status if the server does not answer.
    pub async fn notifications(
        self: Arc<Self>,
        resources: BTreeSet<String>,
    ) -> Result<Option<Notifications>, CallFailure> {
        Ok(Box::pin(self.open_notifications(resources)).await?)
    }

    async fn open_notifications(
        self: Arc<Self>,
        resources: BTreeSet<String>,
    ) -> Result<Option<Notifications>, Failure> {
        if self.negotiated().wire().is_modern() {
            return self.listen(resources).await;
        }
        let slot = self.streams.clone().try_acquire_owned().map_err(|_| Failure::Busy)?;
        let _changing = self.link.announcements.changing.lock().await;
        let mut is_renewed = false;
        loop {
            let negotiated = self.negotiated();
            // The stream is opened before the task that listens, because the task ends if there is no stream.
            let mut open = self.link.announcements.open(resources.clone());
            match self.start_listening(&negotiated.wire()).await {
                Ok(true) => {
                    let opened = self.subscribe(&mut open, &resources).await;
                    let inbox = Arc::clone(&open.inbox);
                    let guard = StreamGuard { session: Arc::downgrade(&self), open };
                    return Ok(Some(deliver(opened, inbox, (guard, slot))));
                }
                Ok(false) => return Ok(None),
                Err(Failure::SessionLost) if !is_renewed => {
                    is_renewed = true;
                    drop(open);
                    self.renew(&negotiated).await?;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Ensures that the announcements of the server are received. Returns `false` if the server makes none.
    async fn start_listening(&self, wire: &Wire) -> Result<bool, Failure> {
        match &self.link.transport {
            Transport::Stdio(stdio) if stdio.mux().is_closed() => Err(Failure::Closed("the server exited".to_owned())),
            Transport::Stdio(_) => Ok(true),
            Transport::Sse(sse) if sse.is_open() => Ok(true),
            Transport::Sse(_) => Err(Failure::SessionLost),
            Transport::Streamable(_) if self.link.announcements.is_listening() => Ok(true),
            Transport::Streamable(streamable) => streamable.listen(wire).await,
        }
    }

    /// Subscribes to the resources to which the session is not subscribed yet ("Resources", "Subscriptions").
    async fn subscribe(&self, open: &mut OpenInbox, resources: &BTreeSet<String>) -> NotificationsOpened {
        let can_subscribe = self.negotiated().has_subscriptions();
        let mut opened = NotificationsOpened { can_subscribe, ..NotificationsOpened::default() };
        if !can_subscribe {
            return opened;
        }
        let deadline = Instant::now() + SUBSCRIBE_TIMEOUT;
        for uri in resources {
            if !open.join(uri) {
                let left = deadline.duration_since(Instant::now());
                let subscribed = self.request("resources/subscribe", json!({ "uri": uri }), left).await;
                if let Err(cause) = subscribed {
                    opened.rejected.insert(uri.clone(), cause);
                    continue;
                }
                open.add(uri);
            }
            opened.accepted.insert(uri.clone());
        }
        opened
    }

    /// Ends the subscriptions that no stream needs any more. The server may have forgotten them, or not know the method.
    async fn unsubscribe(&self) {
        let _changing = self.link.announcements.changing.lock().await;
        let deadline = Instant::now() + SUBSCRIBE_TIMEOUT;
        for uri in self.link.announcements.take_unused() {
            let left = deadline.duration_since(Instant::now());
            let _ = self.request("resources/unsubscribe", json!({ "uri": uri }), left).await;
        }
    }

    /// Opens a stream as revision 2026-07-28 specifies ("Subscriptions").
    async fn listen(&self, resources: BTreeSet<String>) -> Result<Option<Notifications>, Failure> {
        let slot = self.streams.clone().try_acquire_owned().map_err(|_| Failure::Busy)?;
        let mut filter = json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true });
        if !resources.is_empty() {
            filter["resourceSubscriptions"] = json!(resources);
        }
        let params = json!({ "notifications": filter });
        let request = json!({ "jsonrpc": "2.0", "id": 0, "method": "subscriptions/listen", "params": params });
        let acknowledged = async {
            let mut messages = match self.relay(request.to_string().into(), LISTEN_TIME, (slot, None)).await {
                Err(Failure::Status(400..=499)) => return Ok(None),
                messages => messages?,
            };
            let accepted = read_acknowledgement(&mut messages).await?;
            Ok(accepted.map(|accepted| (messages, accepted)))
        };
        let acknowledged = tokio::time::timeout(LISTEN_TIMEOUT, acknowledged).await.map_err(|_| Failure::Timeout)?;
        let Some((messages, accepted)) = acknowledged? else { return Ok(None) };
        let opened = NotificationsOpened {
            can_subscribe: self.negotiated().has_subscriptions(),
            accepted: accepted.intersection(&resources).cloned().collect(),
            ..NotificationsOpened::default()
        };
        // The server may announce a requested change even if it did not acknowledge the request.
        let open = self.link.announcements.open(resources);
        let (inbox, stop) = (Arc::clone(&open.inbox), CancellationToken::new());
        tasks::spawn("notifications", follow(messages, Arc::clone(&inbox), stop.clone()));
        let guard: (OpenInbox, DropGuard) = (open, stop.drop_guard());
        Ok(Some(deliver(opened, inbox, guard)))
    }
}

/// Closes a stream of a session with a handshake.
struct StreamGuard {
    session: Weak<Session>,
    open: OpenInbox,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        if self.open.close()
            && let Some(session) = self.session.upgrade()
        {
            tasks::spawn("unsubscribe", async move { session.unsubscribe().await });
        }
    }
}

/// Returns the stream of announcements that arrive in an inbox. `guard` is held until the stream is dropped.
fn deliver(opened: NotificationsOpened, inbox: Arc<Inbox>, guard: impl Send + 'static) -> Notifications {
    struct Delivery<G> {
        inbox: Arc<Inbox>,
        ready: VecDeque<Announcement>,
        next_at: Option<Instant>,
        _guard: G,
    }
    let delivery = Delivery { inbox, ready: VecDeque::new(), next_at: None, _guard: guard };
    let messages = stream::unfold(delivery, |mut delivery| async move {
        if delivery.ready.is_empty() {
            if let Some(at) = delivery.next_at {
                tokio::time::sleep_until(at).await;
            }
            delivery.ready = delivery.inbox.take().await?;
            delivery.next_at = Some(Instant::now() + INTERVAL);
        }
        let message: Bytes = delivery.ready.pop_front()?.to_message();
        Some((message, delivery))
    });
    Notifications { opened, messages: messages.boxed() }
}

/// Reads the acknowledgement of a stream of revision 2026-07-28, and returns the resources whose changes the server
/// announces; `None` if the server makes no announcements.
async fn read_acknowledgement(messages: &mut RawMessages) -> Result<Option<BTreeSet<String>>, Failure> {
    #[derive(Deserialize)]
    struct Params {
        notifications: Accepted,
    }
    #[derive(Deserialize)]
    struct Accepted {
        #[serde(default, rename = "resourceSubscriptions")]
        resources: BTreeSet<String>,
    }
    while let Some(message) = messages.next().await {
        let message = message?;
        let Ok(envelope) = Envelope::parse(&message) else { continue };
        match envelope.method.as_deref() {
            None => return Ok(None),
            Some("notifications/subscriptions/acknowledged") => {
                let params = envelope.params.and_then(|params| serde_json::from_str::<Params>(params.get()).ok());
                return Ok(Some(params.map(|params| params.notifications.resources).unwrap_or_default()));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

/// Passes on the messages of a stream of revision 2026-07-28 until it ends. The number of waiting messages is limited
/// by the inbox, not by how fast the control plane reads.
async fn follow(mut messages: RawMessages, inbox: Arc<Inbox>, stop: CancellationToken) {
    let mut bucket = Bucket::new(BYTES_PER_SECOND);
    let read = async {
        while let Some(Ok(message)) = messages.next().await {
            if let Ok(envelope) = Envelope::parse(&message) {
                inbox.receive(&envelope);
            }
            throttle(&mut bucket, message.len() + MESSAGE_COST).await;
        }
    };
    stop.run_until_cancelled(read).await;
    inbox.close();
}

/// Waits until the server may send more.
async fn throttle(bucket: &mut Bucket, cost: usize) {
    bucket.take(cost);
    if let Some(delay) = bucket.delay(Instant::now()) {
        tokio::time::sleep(delay.max(Duration::from_millis(1))).await;
    }
}

impl Streamable {
    /// Opens the stream on which the server sends messages that belong to no call, and reads it in the background while
    /// there are notification streams. Returns `false` if the server has no such stream.
    async fn listen(&self, wire: &Wire) -> Result<bool, Failure> {
        let request = get_events(&self.path, wire, None)?;
        let opened = tokio::time::timeout(LISTEN_TIMEOUT, self.client.send(request)).await;
        let exchange = opened.map_err(|_| Failure::Timeout)??;
        match exchange.status {
            StatusCode::NOT_FOUND if wire.session.is_some() => return Err(Failure::SessionLost),
            status if status.is_client_error() => return Ok(false),
            status if !status.is_success() => return Err(Failure::Status(status.as_u16())),
            _ if !exchange.is_event_stream().unwrap_or(false) => return Ok(false),
            _ => {}
        }
        let listener = Listener {
            listening: self.announcements.listen(),
            client: self.client.clone(),
            path: self.path.clone(),
            wire: wire.clone(),
            counters: self.counters.clone(),
        };
        tasks::spawn("http-notifications", listener.run(exchange));
        Ok(true)
    }
}

/// Reads the stream on which a server sends messages that belong to no call.
struct Listener {
    listening: Listening,
    client: Arc<HttpClient>,
    path: String,
    wire: Wire,
    counters: Arc<Counters>,
}

impl Listener {
    async fn run(self, mut exchange: Exchange) {
        tokio::select! {
            () = self.listening.unused() => {}
            () = self.read(&mut exchange) => {}
        }
    }

    async fn read(&self, exchange: &mut Exchange) {
        let (mut parser, mut bucket) = (EventParser::new(), Bucket::new(BYTES_PER_SECOND));
        while let Some(Ok(chunk)) = exchange.chunk().await {
            let mut cost = chunk.len();
            for event in parser.push(&chunk) {
                self.receive(event.data.as_bytes());
                cost += MESSAGE_COST;
            }
            if parser.buffered() > MAX_EVENT_BYTES {
                return Counters::add(&self.counters.oversized_messages);
            }
            throttle(&mut bucket, cost).await;
        }
    }

    fn receive(&self, text: &[u8]) {
        // An event without data only announces an event ID.
        if text.is_empty() {
            return;
        }
        match Body::parse(text) {
            Ok(Body::Single(envelope)) => self.receive_one(&envelope),
            Ok(Body::Batch(batch)) => batch.iter().for_each(|envelope| self.receive_one(envelope)),
            Err(_) => Counters::add(&self.counters.noise_lines),
        }
    }

    fn receive_one(&self, envelope: &Envelope<'_>) {
        match (&envelope.method, &envelope.id) {
            // The request belongs to no call, so there is no caller to ask.
            (Some(_), Some(_)) => {
                let Some(text) = answer(envelope) else { return };
                let post = Post { path: &self.path, wire: &self.wire, target: None, text: text.into() };
                if let Ok(request) = post.into_request() {
                    self.client.send_detached(request);
                }
            }
            (Some(_), None) if self.listening.receive(envelope) => {}
            (Some(_), None) => Counters::add(&self.counters.dropped_notifications),
            (None, _) => Counters::add(&self.counters.unmatched_responses),
        }
    }
}
