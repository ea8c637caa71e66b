//! The open connections of a port: their limits, and the eviction of connections when a limit is reached.
//!
//! If the limit rejected new connections, a client could use it to lock out others. Therefore the connection that has
//! been waiting for its client the longest is closed in favour of a new one. Connections whose requests are being
//! processed or whose responses are being sent are never closed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::activity::{Activity, Reason};

/// Maximum number of connections considered for eviction.
const MAX_EVICTION_CANDIDATES: usize = 1_024;

/// The limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The total number of connections.
    Total,
    /// The number of connections of one client address.
    Address,
}

impl Limit {
    /// Returns the value of the metric label.
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
    next_id: u64,
    /// Start index of the next search for eviction.
    cursor: usize,
    connections: Vec<Entry>,
    indexes: HashMap<u64, usize>,
    /// The connections of each limited address.
    addresses: HashMap<IpAddr, Vec<u64>>,
}

struct Entry {
    id: u64,
    address: Option<IpAddr>,
    activity: Activity,
}

impl Registry {
    /// Creates a registry for `port` with at most `total` connections, and at most `per_address` per client address or IPv6
    /// /64 network, except for trusted proxies; 0 for no limit.
    pub fn new(port: &'static str, total: usize, per_address: usize, trusted_proxies: Vec<IpNet>) -> Self {
        Self(Arc::new(Shared { port, total, per_address, trusted_proxies, table: Mutex::default() }))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the value of the metric label `port`.
    pub fn port(&self) -> &'static str {
        self.0.port
    }

    /// Registers a connection until the returned slot is dropped. If a limit is reached, closes the connection that has been
    /// waiting for its client the longest.
    ///
    /// # Errors
    /// The limit that was reached, if no connection is waiting for its client.
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

    /// Closes the connection that has been waiting for its client the longest. Returns `false` if none is waiting.
    pub fn evict(&self) -> bool {
        self.table().evict(None)
    }

    /// Returns the number of connections that are not waiting for their client.
    pub fn active_count(&self) -> usize {
        self.table().connections.iter().filter(|entry| entry.activity.waiting_since().is_none()).count()
    }
}

impl Table {
    fn insert(&mut self, address: Option<IpAddr>, activity: Activity) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.indexes.insert(id, self.connections.len());
        self.connections.push(Entry { id, address, activity });
        if let Some(address) = address {
            self.addresses.entry(address).or_default().push(id);
        }
        id
    }

    fn remove(&mut self, id: u64) {
        let Some(index) = self.indexes.remove(&id) else { return };
        let Entry { address, .. } = self.connections.swap_remove(index);
        if let Some(moved) = self.connections.get(index) {
            self.indexes.insert(moved.id, index);
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
                let indexes = ids.iter().take(MAX_EVICTION_CANDIDATES).filter_map(|id| self.indexes.get(id).copied());
                self.longest_waiting(indexes)
            }
            None => {
                let count = self.connections.len();
                let start = self.cursor;
                self.cursor = (start + MAX_EVICTION_CANDIDATES) % count.max(1);
                self.longest_waiting((start..start + count.min(MAX_EVICTION_CANDIDATES)).map(|index| index % count))
            }
        };
        let Some(id) = longest else { return false };
        if let Some(index) = self.indexes.get(&id) {
            self.connections[*index].activity.close(Reason::Evicted);
        }
        self.remove(id);
        true
    }

    fn longest_waiting(&self, indexes: impl Iterator<Item = usize>) -> Option<u64> {
        let entries = indexes.filter_map(|index| self.connections.get(index));
        let waiting = entries.filter_map(|entry| Some((entry.activity.waiting_since()?, entry.id)));
        waiting.min().map(|(_, id)| id)
    }
}

/// A registered connection. Unregistered when dropped.
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

/// Returns the /64 network of an IPv6 address, whose owner controls all addresses in it. IPv4 addresses are unchanged.
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

    /// A connection in a test.
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
    async fn the_connection_that_has_waited_longest_is_evicted() {
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
        assert_eq!(
            [first.is_closed(), third.is_closed()],
            [false, true],
            "the first connection was active more recently"
        );
        drop(second.slot);
        assert_eq!(registry.table().connections.len(), 3, "an evicted connection is removed only once");
    }

    #[tokio::test(start_paused = true)]
    async fn the_address_limit_evicts_connections_of_that_address_only() {
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
    async fn connections_with_active_requests_are_not_evicted() {
        let registry = Registry::new("test", 2, 1, Vec::new());
        let here = open(&registry, HERE).await.unwrap();
        let _processed = here.activity.begin(false);
        assert_eq!(open(&registry, HERE).await.err(), Some(Limit::Address));
        let there = open(&registry, THERE).await.unwrap();
        let uploading = there.activity.begin(false);
        assert_eq!(open(&registry, [192, 0, 2, 3]).await.err(), Some(Limit::Total));
        let receiving = there.activity.begin_receiving();
        let _third = open(&registry, [192, 0, 2, 3]).await.unwrap();
        assert!(there.is_closed(), "a connection with an incomplete body can be evicted");
        drop((receiving, uploading, there, here));
        assert_eq!(registry.table().addresses.len(), 1);
    }
}
