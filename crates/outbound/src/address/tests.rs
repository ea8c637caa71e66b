use proptest::prelude::*;

use super::*;

/// Networks that must be rejected, listed independently of the implementation's tables, from the same registries.
const NON_PUBLIC_V4: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

const NON_PUBLIC_V6: &[&str] = &[
    "::/128",
    "::1/128",
    "::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:2::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:db8::/32",
    "3fff::/20",
    "4000::/3",
    "5f00::/16",
    "fc00::/7",
    "fd00:ec2::254/128",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// Returns the address in `network` whose host bits are taken from `host`.
fn pick(network: &str, host: u128) -> IpAddr {
    match network.parse().unwrap() {
        IpNet::V4(network) => {
            let host = u32::try_from(host & u128::from(u32::MAX)).unwrap() & network.hostmask().to_bits();
            IpAddr::V4(Ipv4Addr::from_bits(network.network().to_bits() | host))
        }
        IpNet::V6(network) => {
            IpAddr::V6(Ipv6Addr::from_bits(network.network().to_bits() | (host & network.hostmask().to_bits())))
        }
    }
}

/// Returns all representations of an IPv4 address that reach its network: plain, mapped, NAT64 and 6to4.
fn representations(address: Ipv4Addr, rest: u128) -> [IpAddr; 4] {
    let bits = u128::from(address.to_bits());
    let six_to_four = 0x2002 << 112 | bits << 80 | rest & ((1 << 80) - 1);
    [
        IpAddr::V4(address),
        IpAddr::V6(address.to_ipv6_mapped()),
        IpAddr::V6(Ipv6Addr::from_bits(0x0064_ff9b << 96 | bits)),
        IpAddr::V6(Ipv6Addr::from_bits(six_to_four)),
    ]
}

fn v4(network: &str, host: u128) -> Ipv4Addr {
    match pick(network, host) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("the list contains IPv4 networks only"),
    }
}

proptest! {
    #[test]
    fn every_address_in_a_special_v4_network_is_not_public(index in 0..NON_PUBLIC_V4.len(), host: u128) {
        for address in representations(v4(NON_PUBLIC_V4[index], host), host) {
            prop_assert!(!is_public(address), "{address}");
        }
    }

    #[test]
    fn every_address_in_a_special_v6_network_is_not_public(index in 0..NON_PUBLIC_V6.len(), host: u128) {
        let address = pick(NON_PUBLIC_V6[index], host);
        // `::ffff:a.b.c.d` is outside `::/96`, so no listed network contains IPv4-mapped addresses.
        prop_assert!(!is_public(address), "{address}");
    }

    #[test]
    fn other_ipv6_representations_of_ipv4_are_not_public(bits: u32, server: u32, flags: u16, port: u16) {
        let (bits, server) = (u128::from(bits), u128::from(server));
        let teredo = 0x2001_0000 << 96 | server << 64 | u128::from(flags) << 48 | u128::from(port) << 32 | !bits & 0xffff_ffff;
        for bits in [teredo, bits, 0xffff << 48 | bits | 0xffff << 32 << 16, 0x0064_ff9b_0001 << 80 | bits] {
            let address = Ipv6Addr::from_bits(bits);
            if address.to_ipv4_mapped().is_none() {
                prop_assert!(!is_public(address.into()), "{address}");
            }
        }
    }

    #[test]
    fn agrees_with_the_standard_library_on_v4(bits: u32) {
        let address = Ipv4Addr::from_bits(bits);
        let special = address.is_private() || address.is_loopback() || address.is_link_local() || address.is_multicast()
            || address.is_broadcast() || address.is_documentation() || address.is_unspecified();
        prop_assert!(!(special && is_public(address.into())), "{address}");
        // All representations of an address give the same result.
        for representation in representations(address, u128::from(bits)) {
            prop_assert_eq!(is_public(representation), is_public(address.into()), "{} as {}", address, representation);
        }
    }

    #[test]
    fn agrees_with_the_standard_library_on_v6(bits: u128) {
        let address = Ipv6Addr::from_bits(bits);
        let special = address.is_loopback() || address.is_multicast() || address.is_unspecified()
            || address.is_unique_local() || address.is_unicast_link_local();
        prop_assert!(!(special && is_public(address.into())), "{address}");
    }

    #[test]
    fn addresses_outside_the_listed_networks_are_public(bits: u32) {
        let address = IpAddr::V4(Ipv4Addr::from_bits(bits));
        let listed = NON_PUBLIC_V4.iter().any(|network| network.parse::<IpNet>().unwrap().contains(&address));
        prop_assert_eq!(is_public(address), !listed, "{}", address);
    }
}

#[test]
fn the_neighbours_of_special_networks_are_public() {
    let mut public = 0;
    for network in NON_PUBLIC_V4 {
        let (first, last) = (v4(network, 0).to_bits(), v4(network, u128::MAX).to_bits());
        assert!(!is_public(IpAddr::V4(Ipv4Addr::from_bits(first))), "{network}");
        assert!(!is_public(IpAddr::V4(Ipv4Addr::from_bits(last))), "{network}");
        for neighbour in [first.checked_sub(1), last.checked_add(1)].into_iter().flatten() {
            let address = IpAddr::V4(Ipv4Addr::from_bits(neighbour));
            let listed = NON_PUBLIC_V4.iter().any(|other| other.parse::<IpNet>().unwrap().contains(&address));
            assert_eq!(is_public(address), !listed, "{address}");
            public += usize::from(!listed);
        }
    }
    assert!(public > 20, "only {public} of the neighbours are public");
}

#[test]
fn known_public_addresses_are_public() {
    for address in [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "168.63.129.17",
        "172.32.0.1",
        "::ffff:8.8.8.8",
        "2606:4700:4700::1111",
        "2a00:1450:4001:80b::200e",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2001:4860:4860::8888",
    ] {
        assert!(is_public(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn cloud_metadata_addresses_are_not_public() {
    for address in
        ["169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254"]
    {
        assert!(!is_public(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn an_allowed_v4_network_includes_mapped_addresses() {
    let allow = ["127.0.0.0/8".parse().unwrap(), "fd00:1::/32".parse().unwrap()];
    for (address, allowed) in [
        ("127.0.0.1", true),
        ("::ffff:127.0.0.1", true),
        ("fd00:1::7", true),
        ("fd00:2::7", false),
        ("::1", false),
        ("10.0.0.1", false),
        // The target of a NAT64 translator is not known here.
        ("64:ff9b::127.0.0.1", false),
    ] {
        assert_eq!(is_allowed(address.parse().unwrap(), &allow), allowed, "{address}");
    }
}
