//! The addresses that connections may reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use waypost_outbound::is_public;

/// Addresses that connections may never reach, even if the operator of the machine allows the network that contains
/// them. An IPv6 address that embeds an IPv4 address is treated like the IPv4 address.
const NEVER_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),     // link-local; metadata of most clouds
    (Ipv4Addr::new(100, 100, 100, 200), 32), // metadata of Alibaba Cloud
    (Ipv4Addr::new(168, 63, 129, 16), 32),   // the platform's own services on Azure
    (Ipv4Addr::new(192, 0, 0, 192), 32),     // metadata of Oracle Cloud
    (Ipv4Addr::new(224, 0, 0, 0), 3),        // multicast, reserved and broadcast
];
const NEVER_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::UNSPECIFIED, 127),                              // `::` and `::1`
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),          // link-local
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128), // metadata of Amazon
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128),  // metadata of Google
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),           // multicast
];

/// Decides which addresses connections may reach.
#[derive(Debug, Clone, Default)]
pub struct EgressPolicy {
    /// Private networks that the operator of the machine allows.
    pub allow: Vec<IpNet>,
    /// Networks that connections may never reach, such as those of the containers.
    pub never: Vec<IpNet>,
}

impl EgressPolicy {
    /// Returns a copy of the policy that also never permits the current addresses of this machine. They change while
    /// the daemon runs, for example with the networks of the engine.
    ///
    /// # Errors
    /// Returns an error if the tables of the kernel cannot be read.
    pub fn with_own_addresses(&self) -> std::io::Result<Self> {
        let mut policy = self.clone();
        policy.never.extend(own_addresses()?);
        Ok(policy)
    }

    /// Whether connections may reach `address`: it must be public or in a network that the operator allows, and must
    /// not be one of those that may never be reached.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_never = |address: IpAddr| {
            let is_listed = match address {
                IpAddr::V4(address) => NEVER_V4.iter().any(|(network, length)| {
                    (address.to_bits() ^ network.to_bits()).leading_zeros() >= u32::from(*length)
                }),
                IpAddr::V6(address) => NEVER_V6.iter().any(|(network, length)| {
                    (address.to_bits() ^ network.to_bits()).leading_zeros() >= u32::from(*length)
                }),
            };
            is_listed || self.never.iter().any(|network| network.contains(&address))
        };
        if is_never(address) || embedded_v4(address).is_some_and(|address| is_never(IpAddr::V4(address))) {
            return false;
        }
        is_public(address) || self.allow.iter().any(|network| network.contains(&address))
    }
}

/// Returns the IPv4 address that is embedded in an IPv6 address of NAT64 (RFC 6052, RFC 8215) or 6to4 (RFC 3056);
/// `None` for other addresses.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0x64, 0xff9b, 0 | 1, .., high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// Returns the addresses of this machine, from the kernel's tables: a container must not reach services of its host.
///
/// # Errors
/// Returns an error if the tables cannot be read.
fn own_addresses() -> std::io::Result<Vec<IpNet>> {
    let v4 = std::fs::read_to_string("/proc/net/fib_trie")?;
    // Absent if IPv6 is disabled.
    let v6 = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    Ok(parse_v4(&v4)
        .into_iter()
        .map(IpAddr::V4)
        .chain(parse_v6(&v6).into_iter().map(IpAddr::V6))
        .map(IpNet::from)
        .collect())
}

/// Returns the local addresses in `/proc/net/fib_trie`. Each is a line with the address, followed by a line with `/32
/// host LOCAL`.
fn parse_v4(table: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in table.lines() {
        if let Some(address) = line.trim().strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.trim() == "/32 host LOCAL" {
            addresses.extend(last);
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Returns the addresses in `/proc/net/if_inet6`: the first column, as 32 hexadecimal digits.
fn parse_v6(table: &str) -> Vec<Ipv6Addr> {
    let digits = table.lines().filter_map(|line| line.split_whitespace().next());
    digits.filter_map(|digits| u128::from_str_radix(digits, 16).ok()).map(Ipv6Addr::from_bits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> EgressPolicy {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        EgressPolicy {
            allow: nets(&["10.0.0.0/8", "0.0.0.0/0", "::/0"]),
            never: nets(&["10.213.0.0/16", "192.0.2.7/32"]),
        }
    }

    #[test]
    fn an_allowed_network_never_opens_loopback_metadata_containers_or_the_machine() {
        for address in [
            "127.0.0.1",
            "127.64.0.1",
            "0.0.0.0",
            "::1",
            "::",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fe80::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "224.0.0.1",
            "255.255.255.255",
            "10.213.4.2",
            "192.0.2.7",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::7f00:1",
            "2002:a9fe:a9fe::1",
            "::ffff:10.213.0.1",
        ] {
            assert!(!policy().permits(address.parse().unwrap()), "{address}");
        }
        assert!(policy().permits("10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn private_networks_are_closed_by_default() {
        let policy = EgressPolicy::default();
        for address in ["10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "fd00::1"] {
            assert!(!policy.permits(address.parse().unwrap()), "{address}");
        }
        for address in ["8.8.8.8", "2606:4700::1111"] {
            assert!(policy.permits(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_addresses_of_the_machine_are_found() {
        let table = "Local:\n  +-- 10.0.0.0/8 2 0 2\n     |-- 10.1.2.0\n        /24 link UNICAST\n     |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 10.1.2.255\n        /32 link BROADCAST\n";
        assert_eq!(parse_v4(table), [Ipv4Addr::new(10, 1, 2, 3)]);
        let table = "fe800000000000000042acfffe110002 02 40 20 80     eth0\n00000000000000000000000000000001 01 80 10 80       lo\n";
        assert_eq!(parse_v6(table), ["fe80::42:acff:fe11:2".parse::<Ipv6Addr>().unwrap(), Ipv6Addr::LOCALHOST]);
        assert!(own_addresses().unwrap().contains(&"127.0.0.1/32".parse().unwrap()));
    }
}
