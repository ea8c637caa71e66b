//! The client address of a request, as reported by trusted proxies.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use http::{HeaderMap, header};
use ipnet::IpNet;

/// The client address of a request, stored in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress {
    /// The client's address.
    pub address: IpAddr,
    /// Whether the request came through a trusted proxy.
    pub is_proxied: bool,
}

impl ClientAddress {
    /// Returns the client address of a request; `None` if the listener has not recorded the peer address.
    pub(super) fn from_request(proxies: &[IpNet], request: &Request) -> Option<Self> {
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
        Some(Self::from_headers(proxies, peer.ip(), request.headers()))
    }

    /// Returns the client address of a request from `peer` with the given headers.
    pub(super) fn from_headers(proxies: &[IpNet], peer: IpAddr, headers: &HeaderMap) -> Self {
        let peer = peer.to_canonical();
        let is_proxied = is_trusted(proxies, peer);
        let address = if is_proxied { forwarded_client(proxies, headers).unwrap_or(peer) } else { peer };
        Self { address, is_proxied }
    }
}

/// Whether a request has several `Host` headers (RFC 9112, section 3.2). This server and a proxy in front of it could
/// use different ones.
pub(super) fn has_several_hosts(headers: &HeaderMap) -> bool {
    headers.get_all(header::HOST).iter().nth(1).is_some()
}

fn is_trusted(proxies: &[IpNet], address: IpAddr) -> bool {
    proxies.iter().any(|network| network.contains(&address))
}

/// Returns the address in `X-Forwarded-For` that the outermost trusted proxy reported. `None` if there is none, or if an
/// entry to its right is invalid: entries to the left of an invalid entry cannot be trusted.
fn forwarded_client(proxies: &[IpNet], headers: &HeaderMap) -> Option<IpAddr> {
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        for entry in String::from_utf8_lossy(value.as_bytes()).rsplit(',') {
            let address = parse_address(entry.trim())?;
            if !is_trusted(proxies, address) {
                return Some(address);
            }
        }
    }
    None
}

/// Parses `192.0.2.1`, `192.0.2.1:8080`, `2001:db8::1`, `[2001:db8::1]` and `[2001:db8::1]:8080`.
fn parse_address(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address =
        entry.parse().ok().or_else(|| entry.parse().ok().map(|address: SocketAddr| address.ip())).or_else(bracketed);
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
        ClientAddress::from_request(&proxies, &request).unwrap().address.to_string()
    }

    #[test]
    fn the_client_is_the_address_reported_by_the_outermost_trusted_proxy() {
        assert_eq!(client(&[]), "192.0.2.1");
        assert_eq!(client(&["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client(&["1.2.3.4, 198.51.100.1, 192.0.2.9"]), "198.51.100.1");
        assert_eq!(client(&["1.2.3.4", "198.51.100.1", "192.0.2.9"]), "198.51.100.1", "several headers form one list");
        assert_eq!(client(&["192.0.2.8, 192.0.2.9"]), "192.0.2.1", "the list contains only proxies");
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
    fn an_invalid_entry_ends_the_list() {
        let invalid = [
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
        for entry in invalid {
            assert_eq!(client(&[&format!("1.2.3.4, {entry}")]), "192.0.2.1", "{entry}");
            assert_eq!(client(&[&format!("1.2.3.4, {entry}, 192.0.2.9")]), "192.0.2.1", "{entry}");
            assert_eq!(client(&["1.2.3.4", entry]), "192.0.2.1", "{entry}");
            assert_eq!(
                client(&[&format!("{entry}, 198.51.100.1")]),
                "198.51.100.1",
                "{entry}: entries left of the client are ignored"
            );
        }
    }

    #[test]
    fn headers_from_untrusted_peers_are_ignored() {
        let mut request = Request::new(Body::empty());
        assert_eq!(ClientAddress::from_request(&[], &request), None);
        request.headers_mut().insert("x-forwarded-for", "1.2.3.4".parse().unwrap());
        assert_eq!(
            ClientAddress::from_request(&["0.0.0.0/0".parse().unwrap()], &request),
            None,
            "the connection has no peer address"
        );
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([203, 0, 113, 5], 443))));
        let client = ClientAddress::from_request(&["192.0.2.0/24".parse().unwrap()], &request).unwrap();
        assert_eq!(client, ClientAddress { address: IpAddr::from([203, 0, 113, 5]), is_proxied: false });
    }
}
