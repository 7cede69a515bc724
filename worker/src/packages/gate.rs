//! Which hosts an installation may reach. Pure; the names are resolved elsewhere.

use codegen_types::packages::HostPort;
use codegen_types::{ErrorCode, Failure, IndexUrl, Network, PackageAccess, Reach};

/// What one installation may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Gate {
    /// The index that pip is told; none: nothing is reached.
    pub index: Option<IndexUrl>,
    hosts: Vec<(HostPort, Reach)>,
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
        let reach = |host: &HostPort| if access.named_hosts.contains(host) { Reach::Private } else { Reach::Public };
        let hosts = std::iter::once(index.host()).chain(&access.file_hosts);
        Ok(Self { index: Some(index.clone()), hosts: hosts.map(|host| (host.clone(), reach(host))).collect() })
    }

    /// Whether a host may be reached, and at which addresses.
    pub fn reach(&self, host: &HostPort) -> Option<Reach> {
        self.hosts.iter().find(|(permitted, _)| permitted == host).map(|(_, reach)| *reach)
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
        assert_eq!(local.reach(&host("127.0.0.1:8080")), Some(Reach::Private));
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
}
