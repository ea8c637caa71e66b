//! The open connections of a port, how many there may be, and which one has to go when there are too many.
//!
//! A limit that rejected whoever comes last would be a means to lock people out. So a connection that waits for its client
//! gives way to a new one, the longest waiting first; only connections whose requests are being processed, or whose
//! responses are being sent, keep their place.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::activity::{Activity, Reason};

/// Connections that are looked at to find one that gives way.
const MAX_EVICTION_CANDIDATES: usize = 1_024;

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Connections in total.
    Total,
    /// Connections of one client address.
    Address,
}

impl Limit {
    /// The value of the metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Address => "address",
        }
    }
}

/// The open connections of a port.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    port: &'static str,
    total: usize,
    per_address: usize,
    trusted_proxies: Vec<IpNet>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// Where the next look begins.
    cursor: usize,
    connections: Vec<Entry>,
    places: HashMap<u64, usize>,
    /// The connections of each address that is limited.
    addresses: HashMap<IpAddr, Vec<u64>>,
}

struct Entry {
    id: u64,
    address: Option<IpAddr>,
    activity: Activity,
}

impl Registry {
    /// At most `total` connections on `port`, and at most `per_address` of one client address, or one /64 network of
    /// IPv6, that is no trusted proxy; 0 is no limit.
    pub fn new(port: &'static str, total: usize, per_address: usize, trusted_proxies: Vec<IpNet>) -> Self {
        Self(Arc::new(Shared { port, total, per_address, trusted_proxies, table: Mutex::default() }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of the metrics' label `port`.
    pub fn port(&self) -> &'static str {
        self.0.port
    }

    /// Counts a connection until the returned value is dropped. If there are too many, the one that has waited for its
    /// client the longest is closed.
    ///
    /// # Errors
    /// The limit that is reached, if no connection waits for its client.
    pub fn admit(&self, peer: IpAddr, activity: &Activity) -> Result<ConnectionSlot, Limit> {
        let Shared { total, per_address, trusted_proxies, .. } = &*self.0;
        let peer = peer.to_canonical();
        let is_limited = *per_address > 0 && !trusted_proxies.iter().any(|proxies| proxies.contains(&peer));
        let address = is_limited.then(|| network(peer));
        let mut table = self.table();
        if let Some(address) = address
            && table.addresses.get(&address).is_some_and(|ids| ids.len() >= *per_address)
            && !table.evict(Some(address))
        {
            return Err(Limit::Address);
        }
        if *total > 0 && table.connections.len() >= *total && !table.evict(None) {
            return Err(Limit::Total);
        }
        let id = table.insert(address, activity.clone());
        drop(table);
        metrics::gauge!("waypost_connections", "port" => self.0.port).increment(1.0);
        Ok(ConnectionSlot { registry: self.clone(), id })
    }

    /// Closes the connection that has waited for its client the longest; returns whether there was one.
    pub fn evict(&self) -> bool {
        self.table().evict(None)
    }

    /// Connections that do not wait for their client.
    pub fn active_count(&self) -> usize {
        self.table().connections.iter().filter(|entry| entry.activity.waiting_since().is_none()).count()
    }
}

impl Table {
    fn insert(&mut self, address: Option<IpAddr>, activity: Activity) -> u64 {
        self.next += 1;
        let id = self.next;
        self.places.insert(id, self.connections.len());
        self.connections.push(Entry { id, address, activity });
        if let Some(address) = address {
            self.addresses.entry(address).or_default().push(id);
        }
        id
    }

    fn remove(&mut self, id: u64) {
        let Some(place) = self.places.remove(&id) else { return };
        let Entry { address, .. } = self.connections.swap_remove(place);
        if let Some(moved) = self.connections.get(place) {
            self.places.insert(moved.id, place);
        }
        let Some(address) = address else { return };
        if let Some(ids) = self.addresses.get_mut(&address) {
            if let Some(index) = ids.iter().position(|other| *other == id) {
                ids.swap_remove(index);
            }
            if ids.is_empty() {
                self.addresses.remove(&address);
            }
        }
    }

    fn evict(&mut self, address: Option<IpAddr>) -> bool {
        let longest = match address.and_then(|address| self.addresses.get(&address)) {
            Some(ids) => {
                let places = ids.iter().take(MAX_EVICTION_CANDIDATES).filter_map(|id| self.places.get(id).copied());
                self.longest_waiting(places)
            }
            None => {
                let count = self.connections.len();
                let begin = self.cursor;
                self.cursor = (begin + MAX_EVICTION_CANDIDATES) % count.max(1);
                self.longest_waiting((begin..begin + count.min(MAX_EVICTION_CANDIDATES)).map(|place| place % count))
            }
        };
        let Some(id) = longest else { return false };
        if let Some(place) = self.places.get(&id) {
            self.connections[*place].activity.close(Reason::Evicted);
        }
        self.remove(id);
        true
    }

    fn longest_waiting(&self, places: impl Iterator<Item = usize>) -> Option<u64> {
        let entries = places.filter_map(|place| self.connections.get(place));
        let waiting = entries.filter_map(|entry| Some((entry.activity.waiting_since()?, entry.id)));
        waiting.min().map(|(_, id)| id)
    }
}

/// A counted connection.
pub struct ConnectionSlot {
    registry: Registry,
    id: u64,
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.registry.table().remove(self.id);
        metrics::gauge!("waypost_connections", "port" => self.registry.0.port).decrement(1.0);
    }
}

/// The /64 network of an IPv6 address: its owner has all the addresses in it.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::from((u128::from(address) & !u128::from(u64::MAX)).to_be_bytes()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    const HERE: [u8; 4] = [192, 0, 2, 1];
    const THERE: [u8; 4] = [192, 0, 2, 2];

    /// A connection, and whether it was closed.
    struct TestConnection {
        slot: ConnectionSlot,
        activity: Activity,
    }

    impl TestConnection {
        fn is_closed(&self) -> bool {
            use futures::FutureExt;
            self.activity.closed().now_or_never().is_some()
        }
    }

    async fn open(registry: &Registry, peer: impl Into<IpAddr>) -> Result<TestConnection, Limit> {
        advance(Duration::from_millis(1)).await;
        let activity = Activity::new(0);
        registry.admit(peer.into(), &activity).map(|slot| TestConnection { slot, activity })
    }

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_waits_longest_gives_way() {
        let registry = Registry::new("test", 3, 0, Vec::new());
        let [first, second, third] = [
            open(&registry, HERE).await.unwrap(),
            open(&registry, HERE).await.unwrap(),
            open(&registry, HERE).await.unwrap(),
        ];
        let served = first.activity.begin(false);
        let _fourth = open(&registry, THERE).await.unwrap();
        assert_eq!([first.is_closed(), second.is_closed(), third.is_closed()], [false, true, false]);
        drop(served);
        let _fifth = open(&registry, THERE).await.unwrap();
        assert_eq!([first.is_closed(), third.is_closed()], [false, true], "the first was active later");
        drop(second.slot);
        assert_eq!(registry.table().connections.len(), 3, "what was evicted is not counted out twice");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_takes_places_from_itself_only() {
        let registry = Registry::new("test", 10, 2, vec!["10.0.0.0/8".parse().unwrap()]);
        let other = open(&registry, THERE).await.unwrap();
        let first = open(&registry, HERE).await.unwrap();
        let _second = open(&registry, HERE).await.unwrap();
        let _third = open(&registry, HERE).await.unwrap();
        assert_eq!([other.is_closed(), first.is_closed()], [false, true]);
        let mut proxied = Vec::new();
        for _ in 0..5 {
            proxied.push(open(&registry, [10, 0, 0, 1]).await.unwrap());
        }
        assert!(!proxied.iter().any(TestConnection::is_closed), "a trusted proxy is exempt");
        let network = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 0, n, n, n, n]);
        let mut ipv6 = Vec::new();
        for n in 0..3 {
            ipv6.push(open(&registry, network(n)).await.unwrap());
        }
        assert!(ipv6[0].is_closed(), "a /64 network counts as one address");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_are_processed_keep_their_place() {
        let registry = Registry::new("test", 2, 1, Vec::new());
        let here = open(&registry, HERE).await.unwrap();
        let _processed = here.activity.begin(false);
        assert_eq!(open(&registry, HERE).await.err(), Some(Limit::Address));
        let there = open(&registry, THERE).await.unwrap();
        let uploading = there.activity.begin(false);
        assert_eq!(open(&registry, [192, 0, 2, 3]).await.err(), Some(Limit::Total));
        let receiving = there.activity.receive();
        let _third = open(&registry, [192, 0, 2, 3]).await.unwrap();
        assert!(there.is_closed(), "an incomplete body is no reason to stay");
        drop((receiving, uploading, there, here));
        assert_eq!(registry.table().addresses.len(), 1);
    }
}
