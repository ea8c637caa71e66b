//! The egress of a container: connections to the destinations in its catalogue entry, and to no others.
//!
//! A container's network has no route to the outside. The daemon opens sockets inside the container's network namespace
//! and connects them to the allowed destinations from the namespace of the host:
//!
//! - a DNS server on `127.0.0.1:53`, to which the engine's resolver forwards queries. It knows only the allowed names,
//!   and resolves each of them to a separate address in `127.64.0.0/16` ([`dns`]). Engines with the first fix of
//!   CVE-2024-29018, such as Docker Engine 25.0.5 to 26.1.2, do not forward on internal networks, so the engine also
//!   writes these addresses to `/etc/hosts` of the container ([`hosts`]);
//! - a relay on every allowed port of these addresses, for clients that do not support proxies ([`relay`]);
//! - an HTTP proxy on `127.0.0.1:3128` that supports CONNECT (RFC 9110, section 9.3.6), for clients that use
//!   `HTTPS_PROXY`, and for destinations that are IP addresses ([`proxy`]).
//!
//! The name of a destination is resolved by the host for every connection, and every address is checked ([`policy`]).
//! In learning mode, rejected destinations are recorded ([`learning`]), but still rejected. If the engine does not
//! forward DNS queries, names that are not allowed do not resolve, so only destinations that clients request from the
//! proxy are recorded.

mod dns;
mod learning;
mod policy;
mod proxy;
mod relay;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use waypost_toolbox_proto::Destination;

pub use policy::EgressPolicy;

use self::learning::Rejections;
use crate::engine::NetworkNamespace;
use crate::hosts::{self, MAX_DESTINATIONS};

/// The address of the proxy inside a container.
pub const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
/// The address of the DNS server inside a container.
pub const DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
/// The maximum number of open connections of one container.
const MAX_CONNECTIONS: usize = 256;
/// The timeout for resolving a name and connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket that is being opened.
pub type Opening<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// Opens sockets inside the network namespace of a container. An error means that the namespace no longer exists, or
/// that the address is in use.
pub trait Sockets: Send + Sync {
    /// Listens for TCP connections.
    fn listen(&self, address: SocketAddr) -> Opening<'_, TcpListener>;

    /// Opens a UDP socket.
    fn bind_udp(&self, address: SocketAddr) -> Opening<'_, UdpSocket>;
}

impl Sockets for NetworkNamespace {
    fn listen(&self, address: SocketAddr) -> Opening<'_, TcpListener> {
        Box::pin(self.tcp_listen(address))
    }

    fn bind_udp(&self, address: SocketAddr) -> Opening<'_, UdpSocket> {
        Box::pin(self.udp_bind(address))
    }
}

/// The destinations that a container may reach.
#[derive(Debug, Clone)]
pub struct EgressRules {
    /// The allowed destinations; at most [`MAX_DESTINATIONS`] are used.
    pub destinations: Vec<Destination>,
    /// Whether rejected destinations are recorded.
    pub learn: bool,
}

/// The open egress of one container. Dropping it closes the egress with all its connections.
pub struct Egress {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// The state that all connections of a container share.
struct Shared {
    /// The allowed ports by host.
    hosts: BTreeMap<String, Vec<u16>>,
    /// The address of each allowed name inside the container.
    addresses: BTreeMap<String, Ipv4Addr>,
    policy: EgressPolicy,
    connections: Semaphore,
    rejections: Option<Rejections>,
}

impl Egress {
    /// Opens the sockets of a container and serves them until this is dropped.
    ///
    /// # Errors
    /// Returns an error if a socket cannot be opened.
    pub async fn start(sockets: &dyn Sockets, rules: &EgressRules, policy: EgressPolicy) -> io::Result<Self> {
        let mut hosts: BTreeMap<String, Vec<u16>> = BTreeMap::new();
        for Destination { host, port } in rules.destinations.iter().take(MAX_DESTINATIONS) {
            hosts.entry(host.clone()).or_default().push(*port);
        }
        let addresses = hosts::addresses(&rules.destinations);
        let rejections = rules.learn.then(Rejections::default);
        let connections = Semaphore::new(MAX_CONNECTIONS);
        let shared = Arc::new(Shared { hosts, addresses, policy, connections, rejections });
        let stop = CancellationToken::new();
        dns::start(sockets.bind_udp(DNS).await?, sockets.listen(DNS).await?, &shared, &stop);
        proxy::start(sockets.listen(PROXY).await?, &shared, &stop);
        for (name, address) in &shared.addresses {
            for port in shared.hosts.get(name).into_iter().flatten() {
                // The DNS server and the proxy are on another address, so every port is free.
                let listener = sockets.listen(SocketAddr::from((*address, *port))).await?;
                let destination = Destination { host: name.clone(), port: *port };
                relay::start(listener, destination, &shared, &stop);
            }
        }
        if let Some(rejections) = &shared.rejections {
            for port in learning::PORTS {
                let listener = sockets.listen(SocketAddr::from((learning::SINK, port))).await?;
                rejections.start(listener, port, &stop);
            }
        }
        Ok(Self { shared, _stop: stop.drop_guard() })
    }

    /// Returns the destinations, as `host:port`, that were rejected for the first time since the last call. Always
    /// empty if learning mode is off.
    #[must_use]
    pub fn take_rejected(&self) -> Vec<String> {
        self.shared.rejections.as_ref().map(Rejections::take).unwrap_or_default()
    }
}

impl Shared {
    /// Whether the container may connect to this destination.
    fn allows(&self, destination: &Destination) -> bool {
        self.hosts.get(&destination.host).is_some_and(|ports| ports.contains(&destination.port))
    }

    /// Records a destination that is not allowed, in learning mode.
    fn record_rejection(&self, destination: &Destination) {
        if let Some(rejections) = &self.rejections {
            rejections.record(destination);
        }
    }

    /// Connects to an allowed destination from the host's namespace: resolves the name, checks every address, and tries
    /// the permitted ones in order.
    async fn connect(&self, destination: &Destination) -> io::Result<TcpStream> {
        let connect = async {
            let addresses = tokio::net::lookup_host((destination.host.as_str(), destination.port)).await?;
            let policy = self.policy.with_own_addresses()?;
            let mut last = io::Error::new(io::ErrorKind::PermissionDenied, "no permitted address");
            for address in addresses.filter(|address| policy.permits(address.ip())) {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(stream);
                    }
                    Err(error) => last = error,
                }
            }
            Err(last)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
