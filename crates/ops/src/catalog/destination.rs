//! The destinations that an entry may name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use waypost_core::catalog::Destination;

/// Addresses at which clouds serve the metadata and credentials of a machine, outside of the link-local networks.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// The names of the services at these addresses.
const METADATA_NAMES: [&str; 3] = ["metadata.google.internal", "metadata.goog", "metadata"];

/// Returns the reason why an entry may not name a destination; `None` if it may. The toolbox checks the addresses of
/// names when it connects, and rejects private networks unless its operator allows them.
pub(super) fn find_problem(destination: &Destination) -> Option<&'static str> {
    let host = destination.host.as_str();
    if let Ok(address) = host.parse::<IpAddr>() {
        return address_problem(address);
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Some("is a loopback address, which is never allowed. Remove it.");
    }
    if METADATA_NAMES.contains(&host) {
        return Some("serves the metadata of a cloud, which is never allowed. Remove it.");
    }
    // Programs read such names as IPv4 addresses in other notations (WHATWG URL, "ends in a number").
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    is_number.then_some("is neither a domain name nor an IP address. Write an address as in `192.0.2.1:443`.")
}

fn address_problem(address: IpAddr) -> Option<&'static str> {
    let address = address.to_canonical();
    if METADATA.contains(&address) {
        return Some("serves the metadata of a cloud, which is never allowed. Remove it.");
    }
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || is_translated(address),
    };
    if address.is_loopback() || is_link_local {
        return Some("is a loopback or link-local address, which is never allowed. Remove it.");
    }
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    let is_this_network = matches!(address, IpAddr::V4(address) if address.octets()[0] == 0);
    if address.is_unspecified() || address.is_multicast() || is_broadcast || is_this_network {
        return Some("is not the address of one machine. Remove it.");
    }
    None
}

/// Whether an IPv6 address embeds an IPv4 address that is loopback or link-local: IPv4-compatible, NAT64 (RFC 6052) and
/// 6to4 (RFC 3056) addresses.
fn is_translated(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    let inner = match segments {
        [0, 0, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => return false,
    };
    inner.is_loopback() || inner.is_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_metadata_addresses_are_rejected() {
        for text in [
            "localhost:80",
            "a.LOCALHOST.:80",
            "127.0.0.1:80",
            "127.9.9.9:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[64:ff9b::169.254.169.254]:80",
            "[2002:7f00:1::]:80",
            "[::7f00:1]:80",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "[::ffff:100.100.100.200]:80",
            "168.63.129.16:80",
            "192.0.0.192:80",
            "metadata.google.internal:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "[::]:80",
            "255.255.255.255:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "127.1:80",
            "2130706433:80",
            "0x7f.1:80",
            "example.0x7f:80",
        ] {
            let destination = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(find_problem(&destination).is_some(), "{text}");
        }
        for text in ["api.example.com:443", "db.internal:5432", "10.1.2.3:80", "[fd12::1]:80", "8.8.8.8:53", "a1:80"] {
            assert_eq!(find_problem(&text.parse().unwrap()), None, "{text}");
        }
    }
}
