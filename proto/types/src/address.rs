//! Which addresses of the network may be reached in somebody else's name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses a host may have that a session or an installation of packages names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Those of the public Internet: a name that leads into a private network leads astray.
    Public,
    /// Also those of private networks and of loopback, since the operator named the host.
    Private,
}

impl Reach {
    /// Whether an address may be dialled.
    pub fn permits(self, address: IpAddr) -> bool {
        match self {
            Self::Public => is_public(address),
            // What translates to a public address is what `Public` permits, though the form is off limits.
            Self::Private => is_public(address) || !is_off_limits(address.to_canonical()),
        }
    }
}

/// Whether an address belongs to no host, to many, or to the link, where clouds keep the secrets of a machine. An IPv4
/// address inside an IPv6 one is given as what it stands for.
pub fn is_off_limits(address: IpAddr) -> bool {
    /// Where clouds have that service outside the link.
    const METADATA_V4: [Ipv4Addr; 3] =
        [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
    const METADATA_V6: [Ipv6Addr; 2] =
        [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            address.is_link_local()
                || address.is_multicast()
                || METADATA_V4.contains(&address)
                || first == 0
                || first >= 240
        }
        IpAddr::V6(address) => {
            // What is translated to IPv4 elsewhere (`::a.b.c.d`, NAT64, 6to4, Teredo) would reach what its IPv4 form may not.
            let segments = address.segments();
            let translated = segments[..2] == [0x64, 0xff9b] || segments[0] == 0x2002 || segments[..2] == [0x2001, 0];
            let compatible = segments[..6] == [0; 6] && address != Ipv6Addr::LOCALHOST;
            address.is_unicast_link_local()
                || address.is_multicast()
                || METADATA_V6.contains(&address)
                || translated
                || compatible
        }
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match (address.to_ipv4_mapped(), embedded(address)) {
            (Some(inner), _) | (None, Some(inner)) => is_public_v4(inner),
            (None, None) => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    // Addresses between a provider and its customers, those for measurements between networks, and those for protocols.
    let shared = first == 100 && (64..128).contains(&second);
    let benchmark = first == 198 && (18..20).contains(&second);
    let protocols = (first, second, third) == (192, 0, 0);
    let special = address.is_private() || address.is_loopback() || address.is_documentation();
    !(special || shared || benchmark || protocols || is_off_limits(address.into()))
}

/// Only what is assigned to hosts of the Internet (`2000::/3`), and of it neither tunnels nor examples.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let documentation = segments[..2] == [0x2001, 0xdb8] || segments[0] == 0x3fff;
    segments[0] & 0xe000 == 0x2000 && !documentation && !is_off_limits(address.into())
}

/// The IPv4 address inside one for translation between the two (`64:ff9b::/96`, `2002::/16`).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let at = |bytes: [u8; 16], place: usize| {
        Ipv4Addr::new(bytes[place], bytes[place + 1], bytes[place + 2], bytes[place + 3])
    };
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(at(address.octets(), 12)),
        [0x2002, ..] => Some(at(address.octets(), 2)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses that nobody may reach, whoever named the host.
    const OFF_LIMITS: [&str; 19] = [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "::ffff:168.63.129.16",
        "64:ff9b::a83f:8110",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "240.0.0.1",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "::",
        "::169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
    ];

    #[test]
    fn an_address_that_is_not_of_the_public_internet_is_told_apart() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!Reach::Public.permits(private.parse().unwrap()), "{private}");
            assert!(Reach::Private.permits(private.parse().unwrap()), "{private}");
        }
        for public in ["151.101.0.223", "8.8.8.8", "2a04:4e42::223", "64:ff9b::808:808"] {
            assert!(Reach::Public.permits(public.parse().unwrap()), "{public}");
            assert!(Reach::Private.permits(public.parse().unwrap()), "{public}");
        }
        for other in ["fec0::1", "100::1", "2001:db8::1", "64:ff9b::a00:1", "2002:a00:1::", "::10.0.0.1"] {
            assert!(!Reach::Public.permits(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn metadata_services_and_the_like_are_reached_by_nobody() {
        for address in OFF_LIMITS {
            let address: IpAddr = address.parse().unwrap();
            assert!(!Reach::Public.permits(address) && !Reach::Private.permits(address), "{address}");
        }
    }
}
