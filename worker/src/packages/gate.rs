//! Which hosts an installation may reach. Pure; the names are resolved elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use codegen_types::packages::HostPort;
use codegen_types::{ErrorCode, Failure, IndexUrl, Network, PackageAccess};

/// What one installation may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Gate {
    /// The index that pip is told; none: nothing is reached.
    pub index: Option<IndexUrl>,
    hosts: Vec<(HostPort, Reach)>,
}

/// Which addresses a host may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those of the public Internet: a name that leads into a private network leads astray.
    Public,
    /// Any, since the operator named the host.
    Any,
}

impl Gate {
    /// The gate for a network that a call asks for.
    ///
    /// # Errors
    /// The operator permits no index, or not this one.
    pub fn of(network: &Network, access: &PackageAccess) -> Result<Self, Failure> {
        let Network::Packages { index_url } = network else { return Ok(Self::default()) };
        let denied = |message: String| Failure::new(ErrorCode::PermissionDenied, message);
        let Some(default) = access.indexes.first() else {
            return Err(denied(
                "The operator permits no package index; only wheels of the workspace can be installed.".to_owned(),
            ));
        };
        let index = match index_url {
            None => default,
            Some(text) => {
                let wanted = IndexUrl::parse(text)
                    .map_err(|error| Failure::new(ErrorCode::InvalidArgument, format!("`index_url`: {error}.")))?;
                let known = access.indexes.iter().find(|known| **known == wanted);
                known.ok_or_else(|| {
                    denied(format!("The operator does not permit the package index {}.", wanted.as_str()))
                })?
            }
        };
        let reach = |host: &HostPort| if access.named_hosts.contains(host) { Reach::Any } else { Reach::Public };
        let hosts = std::iter::once(index.host()).chain(&access.file_hosts);
        Ok(Self { index: Some(index.clone()), hosts: hosts.map(|host| (host.clone(), reach(host))).collect() })
    }

    /// Whether a host may be reached, and at which addresses.
    pub fn reach(&self, host: &HostPort) -> Option<Reach> {
        self.hosts.iter().find(|(permitted, _)| permitted == host).map(|(_, reach)| *reach)
    }
}

impl Reach {
    /// Whether an address may be dialled.
    pub fn permits(self, address: IpAddr) -> bool {
        self == Self::Any || is_public(address)
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match (address.to_ipv4_mapped(), embedded(address)) {
            (Some(inner), _) | (None, Some(inner)) => is_public_v4(inner),
            (None, None) => {
                let local = address.is_unique_local() || address.is_unicast_link_local();
                !(local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
            }
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    // Addresses between a provider and its customers, and those for measurements between networks.
    let shared = first == 100 && (64..128).contains(&second);
    let benchmark = first == 198 && (18..20).contains(&second);
    let special = address.is_private() || address.is_loopback() || address.is_link_local() || address.is_multicast();
    !(special || shared || benchmark || first == 0 || first >= 240)
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

    fn access() -> PackageAccess {
        let host = |text: &str| HostPort::parse(text, 443).unwrap();
        PackageAccess {
            indexes: ["https://index.example/simple", "http://127.0.0.1:8080/simple"]
                .map(|url| IndexUrl::parse(url).unwrap())
                .to_vec(),
            file_hosts: vec![host("files.example")],
            named_hosts: vec![host("127.0.0.1:8080")],
            ..PackageAccess::default()
        }
    }

    fn gate(index_url: Option<&str>) -> Result<Gate, ErrorCode> {
        let network = Network::Packages { index_url: index_url.map(str::to_owned) };
        Gate::of(&network, &access()).map_err(|failure| failure.code)
    }

    #[test]
    fn only_the_index_that_was_asked_for_and_the_hosts_of_files_are_reached() {
        let host = |text: &str| HostPort::parse(text, 443).unwrap();
        let default = gate(None).unwrap();
        assert_eq!(default.reach(&host("index.example")), Some(Reach::Public));
        assert_eq!(default.reach(&host("files.example:443")), Some(Reach::Public));
        for other in ["index.example:80", "files.example:22", "127.0.0.1:8080", "other.example", "a.index.example"] {
            assert_eq!(default.reach(&host(other)), None, "{other}");
        }
        let local = gate(Some("http://127.0.0.1:8080/simple/")).unwrap();
        assert_eq!(local.reach(&host("127.0.0.1:8080")), Some(Reach::Any));
        assert_eq!(local.reach(&host("index.example")), None);
        assert_eq!(Gate::of(&Network::None, &access()).unwrap(), Gate::default());
    }

    #[test]
    fn a_foreign_index_is_refused_and_so_is_any_when_installs_are_off() {
        assert_eq!(gate(Some("https://evil.example/simple")), Err(ErrorCode::PermissionDenied));
        assert_eq!(gate(Some("https://index.example/other")), Err(ErrorCode::PermissionDenied));
        assert_eq!(gate(Some("--index-url")), Err(ErrorCode::InvalidArgument));
        let off = Gate::of(&Network::Packages { index_url: None }, &PackageAccess::default());
        assert_eq!(off.map_err(|failure| failure.code), Err(ErrorCode::PermissionDenied));
    }

    #[test]
    fn an_address_that_is_not_of_the_public_internet_is_told_apart() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ] {
            assert!(!Reach::Public.permits(private.parse().unwrap()), "{private}");
            assert!(Reach::Any.permits(private.parse().unwrap()), "{private}");
        }
        for public in ["151.101.0.223", "8.8.8.8", "2a04:4e42::223", "64:ff9b::808:808"] {
            assert!(Reach::Public.permits(public.parse().unwrap()), "{public}");
        }
    }
}
