//! Where packages may come from on this worker's host: our own variables first, then those of its pip.

use codegen_types::packages::HostPort;
use codegen_types::{IndexUrl, PackageAccess};

use super::settings::{Environment, Refused, refused};

/// The index of everybody, and the host of its files.
const PUBLIC_INDEX: &str = "https://pypi.org/simple";
const PUBLIC_FILES: &str = "files.pythonhosted.org";

/// Reads how package indexes are reached. No file of pip's is read: what a worker may reach is said to it.
pub(super) fn access(environment: &Environment) -> Result<PackageAccess, Refused> {
    let named = environment.first(&["PACKAGE_INDEXES", "PIP_INDEX_URL"]);
    let indexes = match &named {
        Some(text) => listed(text)
            .map(|url| IndexUrl::parse(url).map_err(|error| refused("PACKAGE_INDEXES", error.to_string())))
            .collect::<Result<Vec<_>, _>>()?,
        None => IndexUrl::parse(PUBLIC_INDEX).into_iter().collect(),
    };
    let is_public = |index: &IndexUrl| index.as_str() == PUBLIC_INDEX;
    let file_hosts = match environment.first(&["PACKAGE_HOSTS"]) {
        Some(text) => listed(&text)
            .map(|host| HostPort::parse(host, 443).map_err(|error| refused("PACKAGE_HOSTS", error.to_string())))
            .collect::<Result<Vec<_>, _>>()?,
        None if indexes.iter().any(is_public) => HostPort::new(PUBLIC_FILES, 443).into_iter().collect(),
        None => Vec::new(),
    };
    // What the operator named may lie in a private network; the public index may not.
    let mut named_hosts: Vec<HostPort> = match environment.first(&["PACKAGE_HOSTS"]) {
        Some(_) => file_hosts.clone(),
        None => Vec::new(),
    };
    named_hosts.extend(indexes.iter().filter(|index| !is_public(index)).map(|index| index.host().clone()));
    let proxy = |names: &[&str]| environment.first(&["PIP_PROXY"]).or_else(|| environment.first(names));
    let ca_file = environment.first(&["PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"]);
    Ok(PackageAccess {
        indexes,
        file_hosts,
        named_hosts,
        https_proxy: proxy(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY"]),
        http_proxy: proxy(&["http_proxy", "HTTP_PROXY", "ALL_PROXY"]),
        no_proxy: environment.first(&["NO_PROXY", "no_proxy"]),
        ca_file: ca_file.map(std::path::PathBuf::from).filter(|path| path.is_absolute() && path.is_file()),
    })
}

/// The parts of a text that lists them with commas; `none` is none.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    let text = if text.trim() == "none" { "" } else { text };
    text.split(',').map(str::trim).filter(|one| !one.is_empty())
}
