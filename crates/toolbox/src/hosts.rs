//! The addresses of allowed names inside a container.
//!
//! Each name has a separate address in `127.64.0.0/16`, on which the daemon relays the allowed ports. The address
//! depends only on the destinations of the entry, so it is the same in `/etc/hosts`, which the engine writes when it
//! creates the container, and in the answers of the daemon's DNS server.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use waypost_toolbox_proto::Destination;

/// The maximum number of destinations of one container. Further ones are ignored.
pub const MAX_DESTINATIONS: usize = 100;

/// Returns the address of each allowed name. Destinations that are IP addresses have none, and neither has `localhost`,
/// which must remain the container itself.
#[must_use]
pub fn addresses(destinations: &[Destination]) -> BTreeMap<String, Ipv4Addr> {
    let mut names: Vec<&str> = destinations.iter().take(MAX_DESTINATIONS).map(|found| found.host.as_str()).collect();
    names.retain(|name| is_name(name) && !is_localhost(name));
    names.sort_unstable();
    names.dedup();
    names.into_iter().zip(0..).map(|(name, index)| (name.to_owned(), address(index))).collect()
}

/// Whether a host is a valid name. The name becomes part of a file, so it is checked again, although messages are
/// validated when they are read.
fn is_name(host: &str) -> bool {
    host.parse::<IpAddr>().is_err() && format!("{host}:1").parse::<Destination>().is_ok_and(|found| found.host == host)
}

/// Whether a name is `localhost` or a subdomain of it (RFC 6761, section 6.3).
fn is_localhost(name: &str) -> bool {
    name.rsplit('.').next() == Some("localhost")
}

/// Returns the address of the name with this index.
fn address(index: u8) -> Ipv4Addr {
    // The last octet is 1 to 100, because some programs treat 0 and 255 as network and broadcast addresses.
    Ipv4Addr::new(127, 64, 0, index.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_names_have_addresses() {
        let destinations = ["z.example:1", "a.example:443", "a.example:80", "192.0.2.1:443", "[::1]:1", "localhost:1"];
        let destinations: Vec<_> =
            destinations.iter().chain(&["a.localhost:1"]).map(|text| text.parse().unwrap()).collect();
        let expected = [("a.example", Ipv4Addr::new(127, 64, 0, 1)), ("z.example", Ipv4Addr::new(127, 64, 0, 2))];
        assert_eq!(addresses(&destinations), expected.map(|(name, address)| (name.to_owned(), address)).into());
        for host in ["", "a b", "a\n1.2.3.4 b", "a:1", "A.example", "a.example."] {
            assert!(addresses(&[Destination { host: host.to_owned(), port: 1 }]).is_empty(), "{host:?}");
        }
    }

    proptest! {
        /// Each name has a different address, which does not depend on the ports.
        #[test]
        fn addresses_are_unique(hosts in proptest::collection::vec("[a-d]{1,3}\\.example", 0..200), port in 1_u16..9) {
            let with_port = |port| hosts.iter().map(|host| Destination { host: host.clone(), port }).collect::<Vec<_>>();
            let found = addresses(&with_port(443));
            let unique: std::collections::BTreeSet<_> = found.values().collect();
            prop_assert!(unique.len() == found.len() && found.len() <= MAX_DESTINATIONS);
            prop_assert_eq!(found, addresses(&with_port(port)));
        }
    }
}
