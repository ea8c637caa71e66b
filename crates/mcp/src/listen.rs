//! `subscriptions/listen` (2026-07-28, "Subscriptions"): streams that tell clients when a list has changed.
//!
//! A stream waits on the process's change signal ([`Catalog::changes`](waypost_ops::offers::OfferCache::changes)) and
//! compares digests of what the server lists, so listeners cost no query of their own: the snapshot of a server is
//! loaded once after a change, and its digests are computed once. The handler of a stream keeps digests, not the
//! snapshot that it began with.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;
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
use waypost_ops::limits::network;
use waypost_ops::oauth_grants;
use waypost_ops::offers::Offers;

use crate::target::Target;
use crate::{prompts, resources, tools};

/// The method that opens a stream.
pub(crate) const METHOD: &str = "subscriptions/listen";
/// How long a stream waits after a change before it looks: several changes in a row are one notification.
const SETTLE: Duration = Duration::from_millis(300);
/// Resources that one stream may subscribe to; the rest is not honoured.
const MAX_RESOURCES: usize = 100;

/// How many streams may be open in this process, and how often their tokens are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// In total; 0 is no limit.
    pub total: usize,
    /// To one server; 0 is no limit.
    pub per_server: usize,
    /// From one client address, or one /64 network of IPv6; 0 is no limit.
    pub per_address: usize,
    /// How often the token of a stream is checked, and a failed look at the server is repeated.
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
    open: Mutex<Open>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Open {
    total: usize,
    servers: HashMap<ServerId, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// Why no further stream may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The client's address has too many.
    Address,
    /// The server or the process has too many.
    Server,
}

impl Listeners {
    /// No open streams. Streams end with a result when `stop` is cancelled.
    #[must_use]
    pub fn new(options: ListenOptions, stop: CancellationToken) -> Self {
        Self(Arc::new(Shared { options, open: Mutex::default(), stop }))
    }

    /// Counts a stream until the returned value is dropped.
    ///
    /// # Errors
    /// Which limit is reached.
    pub(crate) fn open(&self, server: &ServerId, address: IpAddr) -> Result<Slot, Full> {
        let address = network(address);
        let ListenOptions { total, per_server, per_address, .. } = self.0.options;
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |limit: usize, count: usize| limit > 0 && count >= limit;
        let count = |count: Option<&usize>| count.copied().unwrap_or(0);
        let full = if is_full(per_address, count(open.addresses.get(&address))) {
            Some((Full::Address, "address"))
        } else if is_full(per_server, count(open.servers.get(server))) {
            Some((Full::Server, "server"))
        } else if is_full(total, open.total) {
            Some((Full::Server, "total"))
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

/// Counts one less, and forgets a key that has none, so that the maps stay as small as the number of streams.
fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// A stream that is about to open: what its handler needs beside the request's [`Target`].
pub(crate) struct Listener {
    slot: Slot,
    /// The server as the client sees it when the stream opens; taken when it has opened.
    first: Mutex<Option<Arc<Offers>>>,
    /// The hash of the request's token, on a server whose users sign in.
    token_hash: Option<String>,
}

impl Listener {
    pub(crate) fn new(slot: Slot, first: Arc<Offers>, token_hash: Option<String>) -> Self {
        Self { slot, first: Mutex::new(Some(first)), token_hash }
    }

    fn first(&self) -> Option<Arc<Offers>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The subset of `requested` that is honoured: every list, and the outlines of walkthroughs that are offered. What
    /// a step's resource shows depends on its user, so nobody can be told when it changes.
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

    /// Serves the stream until the client leaves, the program stops, or the client has to ask again: the server is
    /// gone, its rules have changed, or the token is not valid any more.
    pub(crate) async fn run(&self, target: &Target, context: &SubscriptionContext) {
        let offer_cache = target.hosting.offer_cache();
        // Before the first look: a change between the look and the signal must not be lost.
        let mut changes = offer_cache.changes();
        let Some(first) = self.first.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let mut stream = Stream { target, listener: self, context, seen: Seen::of(target, &first, context.accepted()) };
        drop(first);
        let mut checks = interval(self.slot.listeners.0.options.check);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        checks.reset();
        let mut is_stale = true;
        loop {
            if is_stale {
                match stream.look().await {
                    Look::Done => is_stale = false,
                    Look::Failed => {}
                    Look::Ended => return,
                }
            }
            tokio::select! {
                () = context.cancelled() => return,
                () = self.slot.listeners.0.stop.cancelled() => return,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    is_stale = true;
                    tokio::select! {
                        () = context.cancelled() => return,
                        () = self.slot.listeners.0.stop.cancelled() => return,
                        () = sleep(SETTLE) => {}
                    }
                }
                _ = checks.tick() => {
                    if stream.is_admitted().await == Some(false) {
                        return;
                    }
                }
            }
        }
    }
}

/// What a stream's client knows.
struct Seen {
    rules: Rules,
    lists: [u64; 3],
    /// The subscribed outlines with the version that each shows.
    outlines: Vec<(String, Option<VersionId>)>,
}

/// What decides who may listen. If it changes, the client has to ask again.
#[derive(PartialEq)]
struct Rules(String, u64);

impl Rules {
    fn of(server: &Server) -> Self {
        let parts = (server.auth_type, server.sign_in, &server.oauth_config_id, &server.allowed_origins);
        Self(server.id.to_string(), digest(&parts))
    }
}

impl Seen {
    fn of(target: &Target, offers: &Arc<Offers>, accepted: &SubscriptionFilter) -> Self {
        let uris = accepted.resource_subscriptions.iter().flatten();
        Self {
            rules: Rules::of(&offers.server),
            lists: lists(target, offers),
            outlines: uris.map(|uri| (uri.clone(), outline(offers, uri))).collect(),
        }
    }
}

/// The newest version of the walkthrough whose outline is at `uri`; `None` if there is no such resource.
fn outline(offers: &Offers, uri: &str) -> Option<VersionId> {
    let id = resources::outline_id(uri)?;
    let offer = offers.list().iter().find(|offer| offer.walkthrough_id.as_str() == id)?;
    Some(offer.version_id.clone())
}

/// Digests of the lists of tools, prompts and resources.
fn lists(target: &Target, offers: &Arc<Offers>) -> [u64; 3] {
    offers.digests(|| {
        let target = Target { offers: Arc::clone(offers), listener: None, ..target.clone() };
        // A new version changes what a prompt and a resource say, also if it changes neither title nor description.
        let versions: Vec<&str> = offers.list().iter().map(|offer| offer.version_id.as_str()).collect();
        let tools = digest(&tools::listed(&target));
        [tools, digest(&(prompts::list(offers), &versions)), digest(&(resources::list(offers), &versions))]
    })
}

/// Compared within this process only.
fn digest(value: &impl Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(&serde_json::to_vec(value).unwrap_or_default());
    hasher.finish()
}

/// What came of a look at the server.
enum Look {
    /// The client knows everything.
    Done,
    /// The database is away: look again later.
    Failed,
    /// The stream has ended.
    Ended,
}

/// An open stream.
struct Stream<'a> {
    target: &'a Target,
    listener: &'a Listener,
    context: &'a SubscriptionContext,
    seen: Seen,
}

impl Stream<'_> {
    /// Looks at the server and sends what has changed.
    async fn look(&mut self) -> Look {
        let offers = match self.target.hosting.offer_cache().refresh(&self.target.offers.server.slug).await {
            Ok(offers) => offers,
            Err(error) if error.code == Code::NotFound => return Look::Ended,
            Err(_) => return Look::Failed,
        };
        let now = Seen::of(self.target, &offers, self.context.accepted());
        drop(offers);
        if now.rules != self.seen.rules {
            return Look::Ended;
        }
        if now.lists == self.seen.lists && now.outlines == self.seen.outlines {
            return Look::Done;
        }
        match self.is_admitted().await {
            Some(true) => {}
            Some(false) => return Look::Ended,
            None => return Look::Failed,
        }
        match self.send(&now).await {
            Ok(()) => {
                self.seen = now;
                Look::Done
            }
            Err(_) => Look::Ended,
        }
    }

    async fn send(&self, now: &Seen) -> Result<(), SubscriptionSendError> {
        let (sink, accepted) = (self.context.sink(), self.context.accepted());
        let changed: [bool; 3] = std::array::from_fn(|at| now.lists[at] != self.seen.lists[at]);
        if changed[0] && accepted.tools_list_changed == Some(true) {
            sink.notify_tool_list_changed().await?;
        }
        if changed[1] && accepted.prompts_list_changed == Some(true) {
            sink.notify_prompt_list_changed().await?;
        }
        if changed[2] && accepted.resources_list_changed == Some(true) {
            sink.notify_resource_list_changed().await?;
        }
        for ((uri, now), (_, before)) in now.outlines.iter().zip(&self.seen.outlines) {
            if now != before {
                sink.notify_resource_updated(uri).await?;
            }
        }
        Ok(())
    }

    /// Whether the client may still listen; `None` if the database is away.
    async fn is_admitted(&self) -> Option<bool> {
        let Some(token_hash) = &self.listener.token_hash else { return Some(true) };
        oauth_grants::is_token_active(&self.target.hosting, &self.target.offers.server, token_hash).await.ok()
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
        assert_eq!(listeners.open(&server(2), address(1)).err(), Some(Full::Address));
        let third = listeners.open(&server(1), address(2));
        assert_eq!(listeners.open(&server(1), address(3)).err(), Some(Full::Server));
        let fourth = listeners.open(&server(2), address(3));
        assert_eq!(listeners.open(&server(2), address(4)).err(), Some(Full::Server), "in total");
        drop((first, second, third, fourth));
        let open = listeners.0.open.lock().unwrap();
        assert_eq!((open.total, open.servers.len(), open.addresses.len()), (0, 0, 0), "nothing is left behind");
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let listeners = listeners(0, 0, 1);
        let open = |address: &str| listeners.open(&server(1), address.parse().unwrap());
        let _first = open("2001:db8::1").unwrap();
        assert_eq!(open("2001:db8::2").err(), Some(Full::Address));
        let _other = open("2001:db8:0:1::1").unwrap();
        let _unlimited: Vec<_> = (0..50_u8).map(|n| open(&format!("192.0.2.{n}")).unwrap()).collect();
    }
}
