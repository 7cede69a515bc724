//! Which addresses the coordinator may dial because a worker named them.
//!
//! An address that a worker advertises is a wish of somebody who may be hostile: dialled blindly, it would have the
//! coordinator knock on doors that only it can reach.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use codegen_types::address::is_off_limits;

/// A range of addresses, as `10.0.0.0/8` or `fd00:1::/64`; without `/` one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

/// A text that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a range of addresses is written as `10.0.0.0/8` or `fd00:1::/64`, with no bit set behind its prefix")]
pub struct InvalidNetwork;

impl Network {
    /// Whether an address lies in it. An IPv4 address inside an IPv6 one counts as what it stands for.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, width) = bits(address.to_canonical());
        let (first, first_width) = bits_of(self);
        width == first_width && masked(bits, width, self.prefix) == first
    }
}

/// Whether an address may be dialled: it lies in one of the operator's ranges, and is none that never is a worker's.
pub fn may_dial(allowed: &[Network], address: IpAddr) -> bool {
    !is_off_limits(address.to_canonical()) && allowed.iter().any(|network| network.contains(address))
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn bits_of(network: &Network) -> (u128, u8) {
    bits(network.first)
}

/// The leading bits, the rest zero.
fn masked(bits: u128, width: u8, prefix: u8) -> u128 {
    let behind = u32::from(width - prefix.min(width));
    bits.checked_shr(behind).and_then(|kept| kept.checked_shl(behind)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let first: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let (first_bits, width) = bits(first);
        let prefix = match prefix {
            None => width,
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= width).ok_or(InvalidNetwork)?,
        };
        let mapped = first != first.to_canonical();
        if mapped || masked(first_bits, width, prefix) != first_bits {
            return Err(InvalidNetwork);
        }
        Ok(Self { first, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn may(networks: &[&str], address: &str) -> bool {
        may_dial(&allowed(networks), address.parse().unwrap())
    }

    #[test]
    fn only_what_the_operator_permits_is_dialled() {
        assert!(may(&["10.0.0.0/8"], "10.255.0.1") && !may(&["10.0.0.0/8"], "11.0.0.1"));
        assert!(may(&["10.1.2.3"], "10.1.2.3") && !may(&["10.1.2.3"], "10.1.2.4"));
        assert!(may(&["fd00:1::/64"], "fd00:1::5") && !may(&["fd00:1::/64"], "fd00:1:0:1::5"));
        assert!(may(&["10.0.0.0/8"], "::ffff:10.0.0.1"), "it is that IPv4 address");
        assert!(!may(&["0.0.0.0/0"], "2001:db8::1") && !may(&["::/0"], "10.0.0.1"), "each family for itself");
        assert!(may(&["0.0.0.0/0"], "127.0.0.1") && !may(&["10.0.0.0/8"], "127.0.0.1"));
        assert!(!may(&[], "10.0.0.1"));
    }

    #[test]
    fn metadata_services_and_the_like_are_never_dialled() {
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "ff02::1",
            "::",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "240.0.0.1",
        ] {
            assert!(!may(&["0.0.0.0/0", "::/0"], address), "{address}");
        }
    }

    #[test]
    fn a_range_is_written_one_way() {
        assert_eq!(allowed(&["10.0.0.0/8"])[0].to_string(), "10.0.0.0/8");
        for bad in
            ["", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "host", "::ffff:10.0.0.0/104"]
        {
            assert_eq!(bad.parse::<Network>(), Err(InvalidNetwork), "{bad}");
        }
    }
}
