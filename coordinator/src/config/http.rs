//! How HTTP is served: where, to whom, and within which bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::Authority;

use super::layers::{ConfigError, Layers, Source};
use super::settings;
use super::values::{self, Why};

/// How HTTP is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where connections are accepted. Port zero lets the system choose.
    pub listen: SocketAddr,
    /// What a request's `Host` may be besides the names of the loopback interface.
    pub allowed_hosts: Vec<AllowedHost>,
    /// What a request's `Origin` may be besides this server's own.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// What HTTP is encrypted with, if it is.
    pub tls: Option<TlsFiles>,
    /// How long clients may take.
    pub patience: Patience,
    /// How much clients may have this process hold.
    pub bounds: HttpBounds,
    /// Connections that are open at once.
    pub connections_max: u32,
    /// Connections that are open at once from one address.
    pub connections_per_address_max: u32,
}

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to its root, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// How long clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the head of a request, and to be idle between two.
    pub head: Duration,
    /// Without sending any of a body that is not over.
    pub body: Duration,
    /// Without reading any of what waits for it.
    pub unread: Duration,
    /// Without a word from a stream that has nothing to say, which then sends a comment, so that nobody on its way takes it
    /// for dead.
    pub keep_alive: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let [body, keep_alive, head, unread] = [10, 15, 30, 60].map(Duration::from_secs);
        Self { head, body, unread, keep_alive }
    }
}

/// How much clients may have this process hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpBounds {
    /// Bytes of all bodies that are being read or served.
    pub bodies_bytes: usize,
    /// Of which one principal may have so many.
    pub bodies_of_one_bytes: usize,
}

impl Default for HttpBounds {
    fn default() -> Self {
        Self { bodies_bytes: 768 << 20, bodies_of_one_bytes: 192 << 20 }
    }
}

impl HttpConfig {
    /// HTTP at this address with everything else as it is by default.
    pub fn at(listen: SocketAddr) -> Self {
        Self {
            listen,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            tls: None,
            patience: Patience::default(),
            bounds: HttpBounds::default(),
            connections_max: 4096,
            connections_per_address_max: 2048,
        }
    }
}

/// A host that requests may name: a name or an address in lower case, and a port or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost {
    name: String,
    port: Option<u16>,
}

impl AllowedHost {
    /// Whether a request that names this host is meant for us.
    pub fn permits(&self, host: &Authority) -> bool {
        self.name.eq_ignore_ascii_case(host.host()) && self.port.is_none_or(|port| host.port_u16() == Some(port))
    }
}

/// An origin that requests may come from: scheme, host and port, all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin {
    scheme: String,
    host: String,
    port: u16,
}

impl AllowedOrigin {
    /// Whether pages of this origin may make requests.
    pub fn permits(&self, origin: &Uri) -> bool {
        origin_of(origin).is_some_and(|origin| origin == *self)
    }
}

/// An origin with its port written out.
fn origin_of(uri: &Uri) -> Option<AllowedOrigin> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let default = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let host = uri.host()?.to_ascii_lowercase();
    Some(AllowedOrigin { scheme, host, port: uri.port_u16().unwrap_or(default) })
}

/// The address to listen on, from the stronger of its two settings.
pub(super) fn read(layers: &mut Layers, tls: Option<TlsFiles>) -> Result<Option<HttpConfig>, ConfigError> {
    let address = layers.get(&settings::HTTP, socket_address)?;
    let port = layers.get(&settings::HTTP_PORT, values::port)?;
    let local = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let port_wins = rank(&layers.source(&settings::HTTP_PORT)) > rank(&layers.source(&settings::HTTP));
    let listen = if port_wins { local.or(address) } else { address.or(local) };
    let allowed_hosts = layers.get(&settings::HTTP_ALLOWED_HOSTS, allowed_hosts)?.unwrap_or_default();
    let allowed_origins = layers.get(&settings::HTTP_ALLOWED_ORIGINS, allowed_origins)?.unwrap_or_default();
    let connections_max = layers.require(&settings::HTTP_CONNECTIONS_MAX, values::count(1, 1_000_000))?;
    let connections_per_address_max =
        layers.require(&settings::HTTP_CONNECTIONS_PER_ADDRESS_MAX, values::count(1, 1_000_000))?;
    Ok(listen.map(|listen| HttpConfig {
        listen,
        allowed_hosts,
        allowed_origins,
        tls,
        patience: Patience::default(),
        bounds: HttpBounds::default(),
        connections_max,
        connections_per_address_max,
    }))
}

/// Both files, or neither.
pub(super) fn tls_files(layers: &mut Layers) -> Result<Option<TlsFiles>, ConfigError> {
    let certificate = layers.get(&settings::TLS_CERT, values::directory)?;
    let key = layers.get(&settings::TLS_KEY, values::directory)?;
    let (lacking, given) = match (certificate, key) {
        (Some(certificate), Some(key)) => return Ok(Some(TlsFiles { certificate, key })),
        (None, None) => return Ok(None),
        (Some(_), None) => (&settings::TLS_KEY, &settings::TLS_CERT),
        (None, Some(_)) => (&settings::TLS_CERT, &settings::TLS_KEY),
    };
    Err(ConfigError::NotAllowed {
        name: lacking.name.to_owned(),
        value: String::new(),
        source_of_value: layers.source(lacking),
        why: format!("{} is given without it", given.name),
        allowed: lacking.allowed.to_owned(),
    })
}

pub(super) const fn rank(source: &Source) -> u8 {
    match source {
        Source::Default => 0,
        Source::File(_) => 1,
        Source::Environment(_) => 2,
        Source::Flag(_) => 3,
    }
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Why> {
    text.parse().map_err(|_| "not an address with a port".to_owned())
}

fn allowed_hosts(text: &str) -> Result<Vec<AllowedHost>, Why> {
    values::listed(text)
        .map(|host| {
            let authority = Authority::try_from(host).map_err(|_| format!("{host:?} is no host"))?;
            if authority.as_str().contains('@') || authority.host().is_empty() {
                return Err(format!("{host:?} is no host"));
            }
            Ok(AllowedHost { name: authority.host().to_ascii_lowercase(), port: authority.port_u16() })
        })
        .collect()
}

fn allowed_origins(text: &str) -> Result<Vec<AllowedOrigin>, Why> {
    values::listed(text)
        .map(|origin| {
            let uri = Uri::try_from(origin).ok().filter(|uri| uri.query().is_none() && uri.path() == "/");
            uri.as_ref().and_then(origin_of).ok_or_else(|| format!("{origin:?} is no origin"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_compared_whole_and_its_port_where_one_is_given() {
        let allowed = allowed_hosts("Code.example, 10.0.0.5:8080").unwrap();
        let permits = |host: &str| allowed.iter().any(|one| one.permits(&Authority::try_from(host).unwrap()));
        assert!(permits("code.EXAMPLE") && permits("code.example:1") && permits("10.0.0.5:8080"));
        for other in ["10.0.0.5", "10.0.0.5:80", "xcode.example", "code.example.evil", "code.example."] {
            assert!(!permits(other), "{other}");
        }
        assert!(allowed_hosts("a@b").is_err() && allowed_hosts("http://a").is_err());
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let allowed = allowed_origins("https://app.example, http://app.example:3000").unwrap();
        let permits = |origin: &str| allowed.iter().any(|one| one.permits(&Uri::try_from(origin).unwrap()));
        assert!(permits("https://app.example") && permits("https://app.example:443"));
        assert!(permits("http://APP.example:3000"));
        for other in ["http://app.example", "https://app.example:3000", "https://app.example.evil", "ftp://app.example"]
        {
            assert!(!permits(other), "{other}");
        }
        for bad in ["app.example", "https://app.example/path", "*", "null"] {
            assert!(allowed_origins(bad).is_err(), "{bad}");
        }
    }
}
