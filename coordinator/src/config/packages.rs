//! Where packages may come from: our own settings first, then what the host tells its own pip.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use codegen_types::packages::HostPort;
use codegen_types::{IndexUrl, PackageAccess};

use super::layers::{ConfigError, Environment, Layers, Source};
use super::settings::{PACKAGE_HOSTS, PACKAGE_INDEXES};
use super::values;

/// The index of everybody, and the host of its files.
const PUBLIC_INDEX: &str = "https://pypi.org/simple";
const PUBLIC_FILES: &str = "files.pythonhosted.org";
/// The largest configuration file of pip that is read, in bytes.
const PIP_CONF_BYTES_MAX: u64 = 256 << 10;
/// Variables that name certificates, in the order in which pip looks.
const CERTIFICATES: [&str; 4] = ["PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"];

/// Variables of the host that say how package indexes are reached.
pub(super) const VARIABLES: [&str; 14] = [
    "PIP_INDEX_URL",
    "PIP_CONFIG_FILE",
    "PIP_PROXY",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
];

/// Reads how package indexes are reached.
pub(super) fn access(layers: &mut Layers, environment: &Environment) -> Result<PackageAccess, ConfigError> {
    let host = Host::read(environment);
    let given = layers.get(&PACKAGE_INDEXES, values::indexes)?;
    let (indexes, named) = match given {
        Some(indexes) => (indexes, true),
        None => host.indexes(layers),
    };
    let public = |index: &IndexUrl| index.as_str() == PUBLIC_INDEX;
    let files = layers.get(&PACKAGE_HOSTS, values::hosts)?;
    let mut named_hosts: Vec<HostPort> = files.iter().flatten().cloned().collect();
    if named {
        named_hosts.extend(indexes.iter().filter(|index| !public(index)).map(|index| index.host().clone()));
    }
    let file_hosts = match files {
        Some(files) => files,
        None => {
            let needed = indexes.iter().any(public);
            let value = if needed { PUBLIC_FILES } else { "none" };
            layers.note(&PACKAGE_HOSTS, value.to_owned(), Source::Default);
            needed.then(|| HostPort::new(PUBLIC_FILES, 443)).flatten().into_iter().collect()
        }
    };
    let proxy = |names: &[&str]| host.setting("PIP_PROXY", "proxy").or_else(|| environment.first(names));
    Ok(PackageAccess {
        indexes,
        file_hosts,
        named_hosts,
        https_proxy: proxy(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY"]),
        http_proxy: proxy(&["http_proxy", "HTTP_PROXY", "ALL_PROXY"]),
        no_proxy: environment.first(&["NO_PROXY", "no_proxy"]),
        ca_file: certificates(environment, &host),
    })
}

/// What the host tells its own pip.
struct Host<'a> {
    environment: &'a Environment,
    files: BTreeMap<String, String>,
}

impl<'a> Host<'a> {
    fn read(environment: &'a Environment) -> Self {
        let mut files = BTreeMap::new();
        let given = environment.first(&["PIP_CONFIG_FILE"]).map(PathBuf::from);
        // The later ones win. A file that is not there, or is none, says nothing.
        let places = [PathBuf::from("/etc/pip.conf")].into_iter().chain(environment.pip_files()).chain(given.clone());
        if given.as_deref() != Some(Path::new("/dev/null")) {
            for text in places.filter_map(|path| read_bounded(&path)) {
                files.extend(settings(&text));
            }
        }
        Self { environment, files }
    }

    fn setting(&self, variable: &str, name: &str) -> Option<String> {
        self.environment.first(&[variable]).or_else(|| self.files.get(name).cloned())
    }

    /// The index of the host's pip, or the public one. One that cannot be used is not replaced by another: the host may
    /// have its reasons.
    fn indexes(&self, layers: &mut Layers) -> (Vec<IndexUrl>, bool) {
        let (text, named) = match self.setting("PIP_INDEX_URL", "index-url") {
            Some(text) => (text, true),
            None => (PUBLIC_INDEX.to_owned(), false),
        };
        let source = match (named, self.environment.first(&["PIP_INDEX_URL"])) {
            (true, Some(_)) => Source::Environment("PIP_INDEX_URL"),
            (true, None) => Source::File(PathBuf::from("pip.conf")),
            (false, _) => Source::Default,
        };
        match IndexUrl::parse(&text) {
            Ok(index) => {
                layers.note(&PACKAGE_INDEXES, index.as_str().to_owned(), source);
                (vec![index], named)
            }
            Err(error) => {
                layers.note(&PACKAGE_INDEXES, format!("none (pip's own cannot be used: {error})"), source);
                (Vec::new(), named)
            }
        }
    }
}

fn certificates(environment: &Environment, host: &Host<'_>) -> Option<PathBuf> {
    let of_pip = environment.first(&CERTIFICATES[..1]).or_else(|| host.files.get("cert").cloned());
    let path = PathBuf::from(of_pip.or_else(|| environment.first(&CERTIFICATES[1..]))?);
    // A directory of certificates is nothing that could be handed on as a file.
    path.metadata().is_ok_and(|metadata| metadata.is_file() && path.is_absolute()).then_some(path)
}

/// The settings of a file of pip's that matter here, from its sections `global` and `install`.
fn settings(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut matters = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            matters = section == "global" || section == "install";
        } else if let Some((name, value)) =
            line.split_once(['=', ':']).filter(|_| matters && !line.starts_with(['#', ';']))
        {
            let name = name.trim().replace('_', "-");
            if ["index-url", "cert", "proxy"].contains(&name.as_str()) && !value.trim().is_empty() {
                found.insert(name, value.trim().to_owned());
            }
        }
    }
    found
}

fn read_bounded(path: &Path) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(PIP_CONF_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Flags};

    fn access(pairs: &[(&str, &str)]) -> (PackageAccess, String) {
        let fixed = [("HOME", "/nonexistent"), ("PIP_CONFIG_FILE", "/dev/null")];
        let environment = Environment::from_pairs(fixed.into_iter().chain(pairs.iter().copied()));
        let config = Config::load(&Flags::default(), &environment).expect("a configuration");
        let row = config.show().into_iter().find(|row| row.name == "package_indexes").expect("a row");
        (config.packages, format!("{} ({})", row.value, row.source))
    }

    #[test]
    fn without_a_word_it_is_the_public_index_at_public_addresses() {
        let (access, row) = access(&[]);
        assert_eq!(row, "https://pypi.org/simple (default)");
        assert_eq!(access.indexes.iter().map(IndexUrl::as_str).collect::<Vec<_>>(), [PUBLIC_INDEX]);
        assert_eq!(access.file_hosts, [HostPort::new(PUBLIC_FILES, 443).expect("a host")]);
        assert!(access.named_hosts.is_empty());
    }

    #[test]
    fn the_hosts_own_index_and_proxy_are_taken_over_and_ours_win() {
        let (ours, row) = access(&[
            ("PACKAGE_INDEXES", "http://10.0.0.1/simple, https://b.example/x"),
            ("PIP_INDEX_URL", "https://c.example"),
        ]);
        assert_eq!(row, "http://10.0.0.1/simple, https://b.example/x (environment PACKAGE_INDEXES)");
        assert_eq!((ours.indexes.len(), ours.file_hosts.len(), ours.named_hosts.len()), (2, 0, 2));
        let (hosts, row) =
            access(&[("PIP_INDEX_URL", "https://c.example/simple/"), ("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "x")]);
        assert_eq!(row, "https://c.example/simple (environment PIP_INDEX_URL)");
        assert_eq!((hosts.https_proxy.as_deref(), hosts.no_proxy.as_deref()), (Some("http://p:1"), Some("x")));
        let (off, _) = access(&[("PACKAGE_INDEXES", "none")]);
        assert!(off.indexes.is_empty());
        let (unusable, row) = access(&[("PIP_INDEX_URL", "https://user:secret@c.example/simple")]);
        assert!(unusable.indexes.is_empty() && !row.contains("secret") && row.contains("credentials"), "{row}");
    }

    #[test]
    fn a_file_of_pips_is_read_for_what_matters() {
        let text = "[global]\nindex_url = https://a/x\n# cert=/no\ncert: /etc/c.pem\n[list]\nproxy = p\n[install]\nproxy = q\n";
        let found = settings(text);
        let expected = [("cert", "/etc/c.pem"), ("index-url", "https://a/x"), ("proxy", "q")];
        assert_eq!(found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>(), expected);
    }
}
