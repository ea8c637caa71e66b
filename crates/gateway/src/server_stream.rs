//! The streams on which servers announce changes outside of calls: remote servers, and containers that all agents share.
//!
//! Invariants:
//! 1. This process has at most one stream of each server, and at most [`MAX_STREAMS`] in total, at most half of them
//!    for one organisation ([`crate::slots`]). A server without a stream is checked before it is called, like every
//!    other.
//! 2. A stream is open only while its server is used: until [`IDLE_TIME`] after the last call, or while an agent is
//!    subscribed to one of its resources. It uses the same connection as calls do, which lasts as long. It neither
//!    starts a container nor prevents one from being stopped.
//! 3. If a server sends too much, or its stream breaks, the stream is opened again after an increasing pause.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use waypost_core::id::{InstanceId, OrganizationId};
use waypost_core::instance::Instance;
use waypost_core::{Code, Error, Result};
use waypost_mcp_wire::strict::{Message, MessageKind, OwnedMessage, text_of};
use waypost_ops::instances::server_stream::{ServerStream, can_have_stream, find_running};

use crate::Gateway;
use crate::slots::has_share;
use crate::subscribe::no_shared_stream;
use crate::upstreams::ServerKey;

/// The maximum number of streams of this process. Each is a connection and little memory.
const MAX_STREAMS: usize = 400;
/// The time after the last call until a stream is closed. The connection that calls use is dropped after the same time.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// The interval at which the gateway checks whether a stream is still needed, and still uses the same connection as
/// calls do.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The first and the longest pause before a stream is opened again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The maximum number of messages of a stream, and of their bytes, within [`FLOOD_TIME`].
const MAX_MESSAGES: usize = 10_000;
const MAX_BYTES: usize = 16 * 1024 * 1024;
const FLOOD_TIME: Duration = Duration::from_secs(600);
/// The reason of the error for a server without such a stream.
const NOT_SUPPORTED: &str = "not_supported";
/// The reason of the error for a server that is stopped, perhaps only until its next call.
const NOT_RUNNING: &str = "not_running";

/// The streams of this process.
#[derive(Debug, Default)]
pub(crate) struct ServerStreams(Mutex<HashMap<InstanceId, Arc<Entry>>>);

#[derive(Debug)]
struct Entry {
    organization: OrganizationId,
    /// When the server was last used.
    used_at: Mutex<Instant>,
    /// Notified when the topics of the server have changed.
    wake: Arc<Notify>,
    /// Notified when the server is used again.
    used: Notify,
    /// Whether the server declares that it announces changes to single resources; `None` until its stream has been
    /// opened.
    can_subscribe: Mutex<Option<bool>>,
}

impl Entry {
    fn new(organization: OrganizationId) -> Arc<Self> {
        let (used_at, wake) = (Mutex::new(Instant::now()), Arc::default());
        Arc::new(Self { organization, used_at, wake, used: Notify::new(), can_subscribe: Mutex::default() })
    }

    fn can_subscribe(&self) -> MutexGuard<'_, Option<bool>> {
        self.can_subscribe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used_at(&self) -> MutexGuard<'_, Instant> {
        self.used_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerStreams {
    /// Records that a server is used now. Returns its entry, and whether the entry is new; `None` if there are too many
    /// entries.
    fn touch(&self, organization: &OrganizationId, instance: &InstanceId) -> Option<(Arc<Entry>, bool)> {
        let mut entries = self.entries();
        if let Some(entry) = entries.get(instance) {
            *entry.used_at() = Instant::now();
            entry.used.notify_one();
            return Some((Arc::clone(entry), false));
        }
        let own = entries.values().filter(|entry| entry.organization == *organization).count();
        if !has_share(own, entries.len(), MAX_STREAMS) {
            return None;
        }
        let entry = Entry::new(organization.clone());
        entries.insert(instance.clone(), Arc::clone(&entry));
        Some((entry, true))
    }

    /// Whether a server declares that it announces changes to single resources; `None` if it has had no stream lately.
    pub(crate) fn can_subscribe(&self, instance: &InstanceId) -> Option<bool> {
        self.entries().get(instance).and_then(|entry| *entry.can_subscribe())
    }

    /// Removes the entry of a server that has not been used for [`IDLE_TIME`] and has no topics. Returns whether this
    /// applies.
    fn remove_unused(&self, instance: &InstanceId, has_topics: impl Fn() -> bool) -> bool {
        let mut entries = self.entries();
        let is_used = entries.get(instance).is_some_and(|entry| entry.used_at().elapsed() < IDLE_TIME);
        let is_unused = !is_used && !has_topics();
        if is_unused {
            entries.remove(instance);
        }
        is_unused
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Keeps the stream of a server open, and opens it in the background if there is none. Returns the [`Notify`] that
    /// tells the stream that the topics have changed; `None` if the server cannot have a stream, or there are too many
    /// streams.
    pub(crate) fn keep_stream(self: &Arc<Self>, instance: &Instance) -> Option<Arc<Notify>> {
        if !can_have_stream(instance) {
            return None;
        }
        let (entry, is_new) = self.server_streams.touch(&instance.organization_id, &instance.id)?;
        let wake = Arc::clone(&entry.wake);
        if is_new {
            let task = StreamTask {
                gateway: Arc::downgrade(self),
                stop: self.stop.clone(),
                organization: instance.organization_id.clone(),
                instance: instance.id.clone(),
                entry,
            };
            waypost_jobs::spawn("gateway-server-stream", task.run());
        }
        Some(wake)
    }

    /// Processes an announcement of a server, on any connection. Returns whether the message is an announcement.
    pub(crate) fn receive_announcement(
        self: &Arc<Self>,
        organization: &OrganizationId,
        server: &ServerKey,
        message: &Message<'_>,
    ) -> bool {
        match message.method.as_deref().filter(|_| message.kind == MessageKind::Notification) {
            Some(
                "notifications/tools/list_changed"
                | "notifications/prompts/list_changed"
                | "notifications/resources/list_changed",
            ) => self.announce_change(organization, server),
            Some("notifications/resources/updated") => {
                if let Some(uri) = text_of(message.params.uri) {
                    self.subscriptions.publish(server.instance(), &uri);
                }
            }
            _ => return false,
        }
        true
    }
}

/// Keeps the stream of one server open.
struct StreamTask {
    gateway: Weak<Gateway>,
    stop: CancellationToken,
    organization: OrganizationId,
    instance: InstanceId,
    entry: Arc<Entry>,
}

/// The reason why a stream is no longer followed.
enum End {
    /// It has to be opened again.
    Outdated,
    /// It is no longer needed, or the process stops.
    Unneeded,
    Failed(Error),
}

/// Counts the messages and bytes that a server sends.
struct Flood {
    since: Instant,
    messages: usize,
    bytes: usize,
}

impl Flood {
    fn new() -> Self {
        Self { since: Instant::now(), messages: 0, bytes: 0 }
    }

    /// Counts a message. Returns whether the server has sent too much.
    fn add(&mut self, bytes: usize) -> bool {
        if self.since.elapsed() >= FLOOD_TIME {
            *self = Self::new();
        }
        self.messages += 1;
        self.bytes += bytes;
        self.messages > MAX_MESSAGES || self.bytes > MAX_BYTES
    }
}

impl StreamTask {
    async fn run(self) {
        let (mut pause, mut was_open) = (PAUSES.0, false);
        while self.is_needed() {
            let begun = Instant::now();
            let end = match self.open().await {
                Ok((instance, stream)) => {
                    if std::mem::replace(&mut was_open, true) {
                        self.check_definitions();
                    }
                    self.follow(instance, stream).await
                }
                Err(error) => End::Failed(error),
            };
            if begun.elapsed() > PAUSES.1 {
                pause = PAUSES.0;
            }
            match end {
                End::Outdated => {}
                End::Unneeded => return,
                End::Failed(error) => {
                    tracing::debug!(instance = %self.instance, %error, "the stream of a server is not open");
                    let is_final = error.reason() == Some(NOT_SUPPORTED);
                    pause = if is_final { PAUSES.1 } else { pause };
                    let is_used = self.wait(pause, &error).await;
                    pause = if is_used { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
                }
            }
        }
    }

    /// Whether the stream is still needed. If not, its entry is removed.
    fn is_needed(&self) -> bool {
        let Some(gateway) = self.gateway.upgrade().filter(|_| !self.stop.is_cancelled()) else { return false };
        let has_topics = || gateway.subscriptions.has_topics(&self.instance);
        !gateway.server_streams.remove_unused(&self.instance, has_topics)
    }

    async fn open(&self) -> Result<(Instance, ServerStream)> {
        let gateway = self.gateway.upgrade().ok_or_else(no_stream)?;
        let instance = find_running(&gateway.ops, &self.organization, &self.instance).await?.ok_or_else(not_running)?;
        if !can_have_stream(&instance) {
            // Each agent has its own connection now. What a server tells one account must not reach other agents.
            gateway.subscriptions.forget(&self.instance, &no_shared_stream(&instance));
        }
        let uris = gateway.subscriptions.uris(&self.instance);
        let opened = Box::pin(ServerStream::open(&gateway.ops, &instance, &uris)).await;
        if let Err(error) = &opened
            && error.reason() == Some(NOT_SUPPORTED)
        {
            // Each agent has its own container now. What a container announces during a call must not reach other
            // subscribers.
            gateway.subscriptions.forget(&self.instance, error);
        }
        let stream = opened?.ok_or_else(no_stream)?;
        *self.entry.can_subscribe() = Some(stream.can_subscribe());
        gateway.subscriptions.decide(&self.instance, &uris, |uri| stream.refusal(uri));
        Ok((instance, stream))
    }

    /// Processes the server's announcements until the stream fails, is outdated or is no longer needed.
    async fn follow(&self, instance: Instance, mut stream: ServerStream) -> End {
        let mut flood = Flood::new();
        let mut check_at = Instant::now() + CHECK_INTERVAL;
        loop {
            let changed = tokio::select! {
                () = self.stop.cancelled() => return End::Unneeded,
                message = stream.next() => match message {
                    Some(message) if !flood.add(message.text().len()) => self.receive(&message),
                    Some(_) => return End::Failed(interrupted("The server announces too many changes.")),
                    None => return End::Failed(interrupted("The server has closed the stream of changes.")),
                },
                () = self.entry.wake.notified() => self.subscribe(&instance, &mut stream).await,
                () = tokio::time::sleep_until(check_at) => {
                    check_at = Instant::now() + CHECK_INTERVAL;
                    self.check(&instance, &mut stream).await
                }
            };
            if let Some(end) = changed {
                return end;
            }
        }
    }

    /// Returns the key of the server, which all agents share: a server with personal secrets has no stream.
    fn key(&self) -> ServerKey {
        ServerKey::shared(self.instance.clone())
    }

    /// Schedules a check of the server's definitions, because it may have announced a change while there was no stream.
    fn check_definitions(&self) {
        if let Some(gateway) = self.gateway.upgrade() {
            gateway.announce_change(&self.organization, &self.key());
        }
    }

    fn receive(&self, received: &OwnedMessage) -> Option<End> {
        let Some(gateway) = self.gateway.upgrade() else { return Some(End::Unneeded) };
        gateway.receive_announcement(&self.organization, &self.key(), received.message());
        None
    }

    /// Subscribes to the topics of the server.
    async fn subscribe(&self, instance: &Instance, stream: &mut ServerStream) -> Option<End> {
        let Some(gateway) = self.gateway.upgrade() else { return Some(End::Unneeded) };
        let uris = gateway.subscriptions.uris(&self.instance);
        if let Err(error) = Box::pin(stream.subscribe(&gateway.ops, instance, &uris)).await {
            return Some(End::Failed(error));
        }
        gateway.subscriptions.decide(&self.instance, &uris, |uri| stream.refusal(uri));
        None
    }

    /// Checks whether the stream is still needed, and still the one on which the server announces changes.
    async fn check(&self, instance: &Instance, stream: &mut ServerStream) -> Option<End> {
        if !self.is_needed() {
            return Some(End::Unneeded);
        }
        let Some(gateway) = self.gateway.upgrade() else { return Some(End::Unneeded) };
        gateway.session_subscriptions.expire();
        match find_running(&gateway.ops, &self.organization, &self.instance).await {
            Ok(Some(current)) => {
                let configuration = |instance: &Instance| (instance.generation, instance.restarts);
                let is_same = configuration(&current) == configuration(instance);
                let is_current = is_same && stream.is_current(&gateway.ops, instance);
                (!is_current).then_some(End::Outdated)
            }
            Ok(None) => Some(End::Failed(not_running())),
            // The stream itself does not need the database.
            Err(_) => None,
        }
    }

    /// Waits before the stream is opened again. Meanwhile, subscriptions are refused. Returns whether a stopped server
    /// was used during the wait: it may have been started, so the wait then ends after the shortest pause.
    async fn wait(&self, pause: Duration, error: &Error) -> bool {
        let refuse = || {
            if let Some(gateway) = self.gateway.upgrade() {
                let uris = gateway.subscriptions.uris(&self.instance);
                gateway.subscriptions.decide(&self.instance, &uris, |_| Some(error.without_cause()));
                gateway.session_subscriptions.expire();
            }
        };
        let is_stopped = error.reason() == Some(NOT_RUNNING);
        let (mut end, earliest) = (Instant::now() + pause, Instant::now() + PAUSES.0);
        let mut is_needed = false;
        refuse();
        loop {
            let is_wanted = tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep_until(end) => return is_needed,
                () = self.entry.wake.notified() => true,
                () = self.entry.used.notified(), if is_stopped => true,
            };
            match is_stopped {
                true => (is_needed, end) = (is_wanted, end.min(earliest)),
                false => refuse(),
            }
        }
    }
}

fn no_stream() -> Error {
    Error::new(Code::Conflict, "The server announces no changes.").with("reason", NOT_SUPPORTED)
}

fn not_running() -> Error {
    let message = "The server is stopped. Ask an admin of the organisation to start it.";
    Error::new(Code::Conflict, message).with("reason", NOT_RUNNING)
}

fn interrupted(message: &str) -> Error {
    Error::new(Code::ToolServerError, message).with("reason", "unreachable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> InstanceId {
        InstanceId::from_store(format!("ins_{number}"))
    }

    #[tokio::test(start_paused = true)]
    async fn streams_are_limited_and_removed_when_they_are_not_used() {
        let streams = ServerStreams::default();
        let [one, two] = ["org_1", "org_2"].map(|id| OrganizationId::from_store(id.to_owned()));
        for number in 0..MAX_STREAMS / 2 {
            assert!(streams.touch(&one, &id(number)).unwrap().1, "new");
        }
        assert!(streams.touch(&one, &id(MAX_STREAMS)).is_none());
        for number in 0..MAX_STREAMS / 4 {
            assert!(streams.touch(&two, &id(MAX_STREAMS + number)).unwrap().1, "another organisation has its share");
        }
        assert!(streams.touch(&two, &id(MAX_STREAMS * 2)).is_none());
        for number in 0..MAX_STREAMS / 4 {
            streams.entries().remove(&id(MAX_STREAMS + number));
        }
        tokio::time::advance(IDLE_TIME / 2).await;
        assert!(!streams.touch(&one, &id(0)).unwrap().1, "there is one already");
        tokio::time::advance(IDLE_TIME / 2).await;
        assert!(!streams.remove_unused(&id(0), || false), "it was used");
        assert!(!streams.remove_unused(&id(1), || true), "an agent is subscribed");
        assert!(streams.remove_unused(&id(1), || false));
        assert!(streams.touch(&one, &id(MAX_STREAMS)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_sends_too_much_is_noticed() {
        let mut flood = Flood::new();
        assert!((0..MAX_MESSAGES).all(|_| !flood.add(1)));
        assert!(flood.add(1));
        tokio::time::advance(FLOOD_TIME).await;
        assert!(!flood.add(MAX_BYTES));
        assert!(flood.add(1));
    }
}
