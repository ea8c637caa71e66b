//! The address of a request's client, seen through trusted proxies.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use http::{HeaderMap, header};
use ipnet::IpNet;

/// Who sent a request: it stands in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress {
    /// The client's address.
    pub address: IpAddr,
    /// Whether the connection is that of a trusted proxy.
    pub is_proxied: bool,
}

impl ClientAddress {
    /// Returns the sender of a request; `None` if the listener has not noted the peer of the connection.
    pub(super) fn of(proxies: &[IpNet], request: &Request) -> Option<Self> {
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
        Some(Self::behind(proxies, peer.ip(), request.headers()))
    }

    /// Returns the sender of a request from `peer` with these headers.
    pub(super) fn behind(proxies: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> Self {
        let peer = peer.to_canonical();
        let is_proxied = is_trusted(proxies, peer);
        let address = if is_proxied { nearest(proxies, headers).unwrap_or(peer) } else { peer };
        Self { address, is_proxied }
    }
}

/// Whether a request has several `Host` headers (RFC 9112, section 3.2): what is in front of this server may go by another
/// one of them.
pub(super) fn has_several_hosts(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().nth(1).is_some()
}

fn is_trusted(proxies: &[IpNet], address: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(&address))
}

/// Returns the address in `X-Forwarded-For` that the outermost trusted proxy saw. `None` if there is none, or if an entry
/// before it cannot be read: the entries behind that one are the client's own, so none of them counts.
fn nearest(proxies: &[IpNet], headers: &HeaderMap) -> Option<IpAddr> {
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for entry in String::from_utf8_lossy(value.as_bytes()).rsplit(',') {
            let address = parse(entry.trim())?;
            if !is_trusted(proxies, address) {
                return Some(address);
            }
        }
    }
    None
}

/// Parses `192.0.2.1`, `192.0.2.1:8080`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:8080`.
fn parse(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = entry.parse().ok().or_else(|| entry.parse().ok().map(|it: SocketAddr| it.ip())).or_else(bracketed);
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn client(forwarded: &[&str]) -> String {
        let proxies = ["192.0.2.0/24".parse().unwrap(), "2001:db8:ffff::/48".parse().unwrap()];
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 443))));
        for value in forwarded {
            request.headers_mut().append("x-forwarded-for", http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        ClientAddress::of(&proxies, &request).unwrap().address.to_string()
    }

    #[test]
    fn the_client_is_what_the_outermost_trusted_proxy_saw() {
        assert_eq!(client(&[]), "192.0.2.1");
        assert_eq!(client(&["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client(&["1.2.3.4, 198.51.100.1, 192.0.2.9"]), "198.51.100.1");
        assert_eq!(client(&["1.2.3.4", "198.51.100.1", "192.0.2.9"]), "198.51.100.1", "several headers are one list");
        assert_eq!(client(&["192.0.2.8, 192.0.2.9"]), "192.0.2.1", "proxies only");
    }

    #[test]
    fn addresses_may_have_a_port() {
        for (entry, address) in [
            ("198.51.100.1:4711", "198.51.100.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:198.51.100.1", "198.51.100.1"),
            ("[::ffff:198.51.100.1]:4711", "198.51.100.1"),
        ] {
            assert_eq!(client(&[&format!("1.2.3.4, {entry}")]), address, "{entry}");
            assert_eq!(client(&[&format!("{entry}, 192.0.2.9:80, [2001:db8:ffff::1]:80")]), address, "{entry}");
        }
    }

    #[test]
    fn an_entry_that_cannot_be_read_ends_the_list() {
        let wrong = [
            "unknown",
            "_hidden",
            "",
            "198.51.100.1:x",
            "[2001:db8::1",
            "[198.51.100.1]",
            "198.51.100",
            "é",
            "fe80::1%eth0",
        ];
        for entry in wrong {
            assert_eq!(client(&[&format!("1.2.3.4, {entry}")]), "192.0.2.1", "{entry}");
            assert_eq!(client(&[&format!("1.2.3.4, {entry}, 192.0.2.9")]), "192.0.2.1", "{entry}");
            assert_eq!(client(&["1.2.3.4", entry]), "192.0.2.1", "{entry}");
            assert_eq!(client(&[&format!("{entry}, 198.51.100.1")]), "198.51.100.1", "{entry}: what the client wrote");
        }
    }

    #[test]
    fn nobody_else_is_believed() {
        let mut request = Request::new(Body::empty());
        assert_eq!(ClientAddress::of(&[], &request), None);
        request.headers_mut().insert("x-forwarded-for", "1.2.3.4".parse().unwrap());
        assert_eq!(ClientAddress::of(&["0.0.0.0/0".parse().unwrap()], &request), None, "a connection without a peer");
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([203, 0, 113, 5], 443))));
        let sender = ClientAddress::of(&["192.0.2.0/24".parse().unwrap()], &request).unwrap();
        assert_eq!(sender, ClientAddress { address: IpAddr::from([203, 0, 113, 5]), is_proxied: false });
    }
}
