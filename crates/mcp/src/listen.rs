//! `subscriptions/listen` (2026-07-28, "Subscriptions"): streams that notify clients when a list changes.
//!
//! A stream waits for changes of its server's organisation
//! ([`OfferCache::changes`](waypost_ops::offers::OfferCache::changes)) and compares digests of the server's lists, so
//! listeners need no queries of their own: the snapshot of a server is loaded once after a change, and its digests are
//! computed once. The handler of a stream keeps digests, not the snapshot that it started with.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::model::SubscriptionFilter;
use rmcp::service::{SubscriptionContext, SubscriptionSendError};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use waypost_core::Code;
use waypost_core::id::{ServerId, VersionId};
use waypost_core::server::Server;
use waypost_mcp_wire::canonical::Digest;
use waypost_ops::limits::network;
use waypost_ops::oauth_grants;
use waypost_ops::offers::Offers;

use crate::context::HandlerContext;
use crate::{prompts, resources, tools};

/// The method that opens a stream.
pub(crate) const METHOD: &str = "subscriptions/listen";
/// The delay between a change and the comparison, so that several changes in a row cause one notification.
const SETTLE: Duration = Duration::from_millis(300);
/// The maximum number of resources that one stream can subscribe to. Additional resources are ignored.
const MAX_RESOURCES: usize = 100;

/// Limits of the streams of this process, and how often their tokens are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// Streams in total; 0 means no limit.
    pub total: usize,
    /// Streams per server; 0 means no limit.
    pub per_server: usize,
    /// Streams per client IPv4 address or /64 network of IPv6; 0 means no limit.
    pub per_address: usize,
    /// The interval at which the token of a stream is checked, and a failed comparison is retried.
    pub check: Duration,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { total: 2_000, per_server: 1_000, per_address: 100, check: Duration::from_secs(5) }
    }
}

/// The open streams of this process.
#[derive(Clone)]
pub struct Listeners(Arc<Shared>);

struct Shared {
    options: ListenOptions,
    open: Mutex<StreamCounts>,
    stop: CancellationToken,
}

#[derive(Default)]
struct StreamCounts {
    total: usize,
    servers: HashMap<ServerId, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// The limit that prevents another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamLimit {
    /// The limit of the client's IP address.
    Address,
    /// The limit of the server or of the process.
    Server,
}

impl Listeners {
    /// Creates an empty set. Streams end with a result when `stop` is cancelled.
    #[must_use]
    pub fn new(options: ListenOptions, stop: CancellationToken) -> Self {
        Self(Arc::new(Shared { options, open: Mutex::default(), stop }))
    }

    /// Counts a stream until the returned slot is dropped.
    ///
    /// # Errors
    /// Returns the limit that was reached.
    pub(crate) fn open(&self, server: &ServerId, address: IpAddr) -> Result<Slot, StreamLimit> {
        let address = network(address);
        let ListenOptions { total, per_server, per_address, .. } = self.0.options;
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |limit: usize, count: usize| limit > 0 && count >= limit;
        let count = |count: Option<&usize>| count.copied().unwrap_or(0);
        let full = if is_full(per_address, count(open.addresses.get(&address))) {
            Some((StreamLimit::Address, "address"))
        } else if is_full(per_server, count(open.servers.get(server))) {
            Some((StreamLimit::Server, "server"))
        } else if is_full(total, open.total) {
            Some((StreamLimit::Server, "total"))
        } else {
            None
        };
        if let Some((full, limit)) = full {
            metrics::counter!("waypost_listen_refused_total", "limit" => limit).increment(1);
            return Err(full);
        }
        open.total += 1;
        *open.servers.entry(server.clone()).or_default() += 1;
        *open.addresses.entry(address).or_default() += 1;
        metrics::gauge!("waypost_listen_streams").increment(1.0);
        Ok(Slot { listeners: self.clone(), server: server.clone(), address })
    }
}

/// A counted stream.
pub(crate) struct Slot {
    listeners: Listeners,
    server: ServerId,
    address: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.listeners.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        release(&mut open.servers, &self.server);
        release(&mut open.addresses, &self.address);
        metrics::gauge!("waypost_listen_streams").decrement(1.0);
    }
}

/// Decrements a count and removes it at 0, so that the maps do not grow beyond the number of streams.
fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// A stream that is about to open, with the data that its handler needs in addition to the [`HandlerContext`].
pub(crate) struct Listener {
    slot: Slot,
    /// The server's offers when the stream was requested. Taken once the stream is open.
    first: Mutex<Option<Arc<Offers>>>,
    /// The hash of the request's token, on a server with sign-in.
    token_hash: Option<String>,
}

impl Listener {
    pub(crate) fn new(slot: Slot, first: Arc<Offers>, token_hash: Option<String>) -> Self {
        Self { slot, first: Mutex::new(Some(first)), token_hash }
    }

    fn first(&self) -> Option<Arc<Offers>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the subset of `requested` that is honoured: all lists, and the outlines of offered walkthroughs. The
    /// resource of a step depends on the user, so its changes cannot be announced.
    pub(crate) fn accepted(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let first = self.first()?;
        let mut accepted = requested.clone();
        if let Some(uris) = &mut accepted.resource_subscriptions {
            uris.retain(|uri| outline(&first, uri).is_some());
            uris.truncate(MAX_RESOURCES);
        }
        accepted.resource_subscriptions = accepted.resource_subscriptions.filter(|uris| !uris.is_empty());
        Some(accepted)
    }

    /// Serves the stream until the client disconnects, the program stops, or the client has to reconnect because the
    /// server was deleted, its access rules changed or the token is no longer valid.
    pub(crate) async fn run(&self, context: &HandlerContext, subscription: &SubscriptionContext) {
        let offer_cache = context.hosting.offer_cache();
        // Subscribe before the first comparison, so that no change in between is lost.
        let mut changes = offer_cache.changes(&context.offers.server.organization_id);
        let Some(first) = self.first.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let mut stream = OpenStream {
            context,
            listener: self,
            subscription,
            seen: KnownState::of(context, &first, subscription.accepted()),
        };
        drop(first);
        let mut checks = interval(self.slot.listeners.0.options.check);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        checks.reset();
        let mut is_stale = true;
        loop {
            if is_stale {
                match stream.send_changes().await {
                    CheckOutcome::Done => is_stale = false,
                    CheckOutcome::Failed => {}
                    CheckOutcome::Ended => return,
                }
            }
            tokio::select! {
                () = subscription.cancelled() => return,
                () = self.slot.listeners.0.stop.cancelled() => return,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    is_stale = true;
                    tokio::select! {
                        () = subscription.cancelled() => return,
                        () = self.slot.listeners.0.stop.cancelled() => return,
                        () = sleep(SETTLE) => {}
                    }
                }
                _ = checks.tick() => {
                    if stream.is_authorized().await == Some(false) {
                        return;
                    }
                }
            }
        }
    }
}

/// The state that a stream's client knows.
struct KnownState {
    rules: AccessRules,
    lists: [[u8; 32]; 3],
    /// The subscribed outlines and the version of each.
    outlines: Vec<(String, Option<VersionId>)>,
}

/// The server settings that decide who may listen. If they change, the client has to reconnect.
#[derive(PartialEq)]
struct AccessRules(String, Digest);

impl AccessRules {
    fn of(server: &Server) -> Self {
        let parts = (server.auth_type, server.sign_in, &server.oauth_config_id, &server.allowed_origins);
        Self(server.id.to_string(), digest(&parts))
    }
}

impl KnownState {
    fn of(context: &HandlerContext, offers: &Arc<Offers>, accepted: &SubscriptionFilter) -> Self {
        let uris = accepted.resource_subscriptions.iter().flatten();
        Self {
            rules: AccessRules::of(&offers.server),
            lists: lists(context, offers),
            outlines: uris.map(|uri| (uri.clone(), outline(offers, uri))).collect(),
        }
    }
}

/// Returns the newest version of the walkthrough whose outline is at `uri`, or `None` if there is no such resource.
fn outline(offers: &Offers, uri: &str) -> Option<VersionId> {
    let id = resources::outline_id(uri)?;
    let offer = offers.list().iter().find(|offer| offer.walkthrough_id.as_str() == id)?;
    Some(offer.version_id.clone())
}

/// Returns digests of the lists of tools, prompts and resources.
fn lists(context: &HandlerContext, offers: &Arc<Offers>) -> [[u8; 32]; 3] {
    offers.digests(|| {
        let context = HandlerContext { offers: Arc::clone(offers), listener: None, ..context.clone() };
        // A new version changes the content of its prompt and resource, even if title and description stay the same.
        let versions: Vec<&str> = offers.list().iter().map(|offer| offer.version_id.as_str()).collect();
        let tools = digest(&tools::list(&context));
        let prompts = digest(&(prompts::list(offers), &versions));
        let resources = digest(&(resources::list(offers), &versions));
        [tools, prompts, resources].map(Digest::into_bytes)
    })
}

/// Returns the digest of a list or of settings, which always have a canonical form.
fn digest(value: &impl Serialize) -> Digest {
    Digest::of(value).unwrap_or_default()
}

/// The outcome of comparing the server with what the client knows.
enum CheckOutcome {
    /// The client is up to date.
    Done,
    /// The database is unavailable. The comparison has to be retried.
    Failed,
    /// The stream has ended.
    Ended,
}

/// An open stream.
struct OpenStream<'a> {
    context: &'a HandlerContext,
    listener: &'a Listener,
    subscription: &'a SubscriptionContext,
    seen: KnownState,
}

impl OpenStream<'_> {
    /// Compares the server with what the client knows and sends notifications of changes.
    async fn send_changes(&mut self) -> CheckOutcome {
        let offers = match self.context.hosting.offer_cache().refresh(&self.context.offers.server.slug).await {
            Ok(offers) => offers,
            Err(error) if error.code == Code::NotFound => return CheckOutcome::Ended,
            Err(_) => return CheckOutcome::Failed,
        };
        let now = KnownState::of(self.context, &offers, self.subscription.accepted());
        drop(offers);
        if now.rules != self.seen.rules {
            return CheckOutcome::Ended;
        }
        if now.lists == self.seen.lists && now.outlines == self.seen.outlines {
            return CheckOutcome::Done;
        }
        match self.is_authorized().await {
            Some(true) => {}
            Some(false) => return CheckOutcome::Ended,
            None => return CheckOutcome::Failed,
        }
        match self.send(&now).await {
            Ok(()) => {
                self.seen = now;
                CheckOutcome::Done
            }
            Err(_) => CheckOutcome::Ended,
        }
    }

    async fn send(&self, new: &KnownState) -> Result<(), SubscriptionSendError> {
        let (sink, accepted) = (self.subscription.sink(), self.subscription.accepted());
        let changed: [bool; 3] = std::array::from_fn(|at| new.lists[at] != self.seen.lists[at]);
        if changed[0] && accepted.tools_list_changed == Some(true) {
            sink.notify_tool_list_changed().await?;
        }
        if changed[1] && accepted.prompts_list_changed == Some(true) {
            sink.notify_prompt_list_changed().await?;
        }
        if changed[2] && accepted.resources_list_changed == Some(true) {
            sink.notify_resource_list_changed().await?;
        }
        for ((uri, now), (_, before)) in new.outlines.iter().zip(&self.seen.outlines) {
            if now != before {
                sink.notify_resource_updated(uri).await?;
            }
        }
        Ok(())
    }

    /// Whether the client's token is still valid. `None` if the database is unavailable.
    async fn is_authorized(&self) -> Option<bool> {
        let Some(token_hash) = &self.listener.token_hash else { return Some(true) };
        oauth_grants::is_token_active(&self.context.hosting, &self.context.offers.server, token_hash).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listeners(total: usize, per_server: usize, per_address: usize) -> Listeners {
        Listeners::new(
            ListenOptions { total, per_server, per_address, ..ListenOptions::default() },
            CancellationToken::new(),
        )
    }

    fn server(n: u8) -> ServerId {
        ServerId::from_store(format!("srv_{n}"))
    }

    #[test]
    fn streams_are_limited_by_address_server_and_total() {
        let listeners = listeners(4, 3, 2);
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let (first, second) = (listeners.open(&server(1), address(1)), listeners.open(&server(1), address(1)));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(listeners.open(&server(2), address(1)).err(), Some(StreamLimit::Address));
        let third = listeners.open(&server(1), address(2));
        assert_eq!(listeners.open(&server(1), address(3)).err(), Some(StreamLimit::Server));
        let fourth = listeners.open(&server(2), address(3));
        assert_eq!(listeners.open(&server(2), address(4)).err(), Some(StreamLimit::Server), "in total");
        drop((first, second, third, fourth));
        let open = listeners.0.open.lock().unwrap();
        assert_eq!((open.total, open.servers.len(), open.addresses.len()), (0, 0, 0), "all counts are released");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let listeners = listeners(0, 0, 1);
        let open = |address: &str| listeners.open(&server(1), address.parse().unwrap());
        let _first = open("2001:db8::1").unwrap();
        assert_eq!(open("2001:db8::2").err(), Some(StreamLimit::Address));
        let _other = open("2001:db8:0:1::1").unwrap();
        let _unlimited: Vec<_> = (0..50_u8).map(|n| open(&format!("192.0.2.{n}")).unwrap()).collect();
    }
}
