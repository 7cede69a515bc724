//! Connections to the outside, for installations and for what sessions may reach: straight, or through the host's HTTP
//! proxy.
//!
//! Straight, the worker resolves the name and dials an address that it has looked at, so that no name means something
//! else between the two. Through a proxy it is the proxy that resolves, and what an address is cannot be said here.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use codegen_types::packages::HostPort;
use codegen_types::{PackageAccess, Reach};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// How long one of several addresses may take, before the next is tried.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(8);
/// The longest answer of a proxy, in bytes.
const PROXY_ANSWER_BYTES_MAX: usize = 8 << 10;

/// Names that one session or installation has resolved at once, each by a thread that cannot be given up.
const RESOLVING_OF_ONE_MAX: usize = 4;
/// Names that the worker resolves at once, far fewer than it has threads that block: files are read and written by these.
const RESOLVING_MAX: usize = 64;

static RESOLVING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(RESOLVING_MAX)));

/// Why there is no connection. Written for the person who asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// The name is unknown.
    #[error("its name cannot be resolved")]
    Resolve(#[source] io::Error),
    /// Every address is private.
    #[error("its name leads to a private address, and the operator did not name the host")]
    Private,
    /// It cannot be reached.
    #[error("it cannot be reached")]
    Connect(#[source] io::Error),
    /// It took too long.
    #[error("it did not answer in time")]
    Late,
    /// The proxy's address is not understood.
    #[error("the host's proxy is not one of HTTP")]
    ProxyUrl,
    /// The proxy does not make the connection.
    #[error("the host's proxy refused it")]
    ProxyRefused,
}

/// How the worker's host reaches the outside: its HTTP proxies, and whom it trusts. An address may hold a password, so
/// there is no `Debug`.
#[derive(Clone, Default)]
pub(crate) struct WayOut {
    https: Option<String>,
    http: Option<String>,
    exempt: Option<String>,
    /// A file of certificates (PEM) that are trusted in place of the system's own.
    pub trusted: Option<PathBuf>,
    resolving: Resolving,
}

/// Places for names that are being resolved.
#[derive(Clone)]
struct Resolving(Arc<Semaphore>);

impl Default for Resolving {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(RESOLVING_OF_ONE_MAX)))
    }
}

impl Resolving {
    /// Resolves when there is a place, which is taken until the thread is through: whoever asked may be gone long before.
    async fn run<R>(&self, resolve: R) -> Result<Vec<SocketAddr>, UpstreamError>
    where
        R: FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    {
        let closed = |_| UpstreamError::Late;
        let own = Arc::clone(&self.0).acquire_owned().await.map_err(closed)?;
        let place = Arc::clone(&RESOLVING).acquire_owned().await.map_err(closed)?;
        let resolving = tokio::task::spawn_blocking(move || {
            let _places = (own, place);
            resolve()
        });
        resolving.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(UpstreamError::Resolve)
    }

    async fn look_up(&self, HostPort { name, port }: &HostPort) -> Result<Vec<SocketAddr>, UpstreamError> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, *port)]);
        }
        let (name, port) = (name.clone(), *port);
        self.run(move || Ok((name.as_str(), port).to_socket_addrs()?.collect())).await
    }
}

impl WayOut {
    /// The same for one session, whose names wait for nobody else's while the worker has places.
    pub fn of_one(&self) -> Self {
        Self { resolving: Resolving::default(), ..self.clone() }
    }
}

impl From<&PackageAccess> for WayOut {
    fn from(access: &PackageAccess) -> Self {
        let PackageAccess { https_proxy, http_proxy, no_proxy, ca_file, .. } = access.clone();
        Self {
            https: https_proxy,
            http: http_proxy,
            exempt: no_proxy,
            trusted: ca_file,
            resolving: Resolving::default(),
        }
    }
}

/// Connects to a host that somebody permitted.
pub(crate) async fn connect(
    way_out: &WayOut,
    host: &HostPort,
    encrypted: bool,
    reach: Reach,
) -> Result<TcpStream, UpstreamError> {
    let proxy = if encrypted { &way_out.https } else { &way_out.http };
    let proxy = proxy.as_deref().filter(|_| !is_exempt(host, way_out.exempt.as_deref().unwrap_or_default()));
    // What can be said of an address without resolving is said before a proxy could dial it.
    if host.name.parse::<IpAddr>().is_ok_and(|address| !reach.permits(address)) {
        return Err(UpstreamError::Private);
    }
    let connecting = async {
        match proxy {
            Some(proxy) => through(way_out, proxy, host).await,
            None => straight(way_out, host, reach).await,
        }
    };
    let stream = tokio::time::timeout(CONNECT_DEADLINE, connecting).await.map_err(|_| UpstreamError::Late)??;
    // Nothing is lost but a little speed.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn straight(way_out: &WayOut, host: &HostPort, reach: Reach) -> Result<TcpStream, UpstreamError> {
    let addresses = way_out.resolving.look_up(host).await?;
    let mut last = UpstreamError::Private;
    for address in addresses.into_iter().filter(|address| reach.permits(address.ip())) {
        match tokio::time::timeout(ADDRESS_DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = UpstreamError::Connect(error),
            Err(_) => last = UpstreamError::Late,
        }
    }
    Err(last)
}

/// Asks a proxy for a tunnel.
async fn through(way_out: &WayOut, proxy: &str, host: &HostPort) -> Result<TcpStream, UpstreamError> {
    let Proxy { address, credentials } = Proxy::parse(proxy).ok_or(UpstreamError::ProxyUrl)?;
    let addresses = way_out.resolving.look_up(&address).await?;
    let mut stream = TcpStream::connect(addresses.as_slice()).await.map_err(UpstreamError::Connect)?;
    let authorization =
        credentials.map(|credentials| format!("Proxy-Authorization: Basic {credentials}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(UpstreamError::Connect)?;
    let mut answer = Vec::new();
    // Byte by byte, so that nothing of what follows is taken; a tunnel is asked for a few times in an installation.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == PROXY_ANSWER_BYTES_MAX {
            return Err(UpstreamError::ProxyRefused);
        }
        answer.push(stream.read_u8().await.map_err(UpstreamError::Connect)?);
    }
    let status = answer.split(|byte| *byte == b' ').nth(1);
    if status == Some(b"200") { Ok(stream) } else { Err(UpstreamError::ProxyRefused) }
}

/// A proxy's address, and the credentials in it as its header wants them.
#[derive(PartialEq, Eq)]
struct Proxy {
    address: HostPort,
    credentials: Option<String>,
}

impl Proxy {
    fn parse(text: &str) -> Option<Self> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return None,
            None => text,
        };
        let authority = rest.split('/').next()?;
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(base64(&unquoted(credentials))), address),
            None => (None, authority),
        };
        Some(Self { address: HostPort::parse(address, 80).ok()?, credentials })
    }
}

/// Percent-encoding undone, as user names and passwords in URLs need it.
fn unquoted(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    plain
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Whether `NO_PROXY` lists a host: by its name, by a domain above it, or all with `*`.
fn is_exempt(host: &HostPort, no_proxy: &str) -> bool {
    no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let (name, port) = entry.rsplit_once(':').filter(|(name, _)| !name.contains(':')).unwrap_or((entry, ""));
        let name = name.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        let same = host.name == name || host.name.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.'));
        entry == "*" || (same && !name.is_empty() && (port.is_empty() || port == host.port.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_with_its_credentials() {
        let proxy = Proxy::parse("http://us%40er:p%3Aw@proxy.example:3128/").unwrap();
        assert_eq!(
            (proxy.address.to_string().as_str(), proxy.credentials.as_deref()),
            ("proxy.example:3128", Some("dXNAZXI6cDp3"))
        );
        assert!(Proxy::parse("proxy.example:3128").is_some_and(|proxy| proxy.credentials.is_none()));
        assert!(Proxy::parse("socks5://proxy.example").is_none());
    }

    #[tokio::test]
    async fn a_proxy_makes_every_connection_and_resolves_every_name() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://us:pw@{}", listener.local_addr().unwrap());
        let proxying = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answer in ["HTTP/1.1 200 Connection established\r\n\r\nhello", "HTTP/1.1 403 Forbidden\r\n\r\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                heads.push(String::from_utf8(head).unwrap());
            }
            heads
        });
        let way_out = WayOut { https: Some(proxy), ..WayOut::default() };
        // Nobody can resolve this name, and nobody has to.
        let host = HostPort::parse("index.invalid", 443).unwrap();
        let mut stream = connect(&way_out, &host, true, Reach::Public).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "hello", "nothing of what follows the proxy's answer is lost");
        let refused = connect(&way_out, &host, true, Reach::Public).await;
        assert!(matches!(refused, Err(UpstreamError::ProxyRefused)));
        let private = connect(&way_out, &HostPort::new("10.0.0.1", 443).unwrap(), true, Reach::Public).await;
        assert!(matches!(private, Err(UpstreamError::Private)), "an address needs no resolving to be refused");
        for head in proxying.await.unwrap() {
            assert!(
                head.starts_with("CONNECT index.invalid:443 HTTP/1.1\r\n") && head.contains("Basic dXM6cHc="),
                "{head}"
            );
        }
    }

    #[tokio::test]
    async fn a_slow_name_server_takes_few_threads_of_a_session_even_when_nobody_waits_any_more() {
        let way_out = WayOut::default();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (begun, held) = (Arc::new(Semaphore::new(0)), Arc::new(parking_lot::Mutex::new(held)));
        for _ in 0..RESOLVING_OF_ONE_MAX {
            let (resolving, begins, held) = (way_out.resolving.clone(), Arc::clone(&begun), Arc::clone(&held));
            let asking = tokio::spawn(async move {
                let resolve = move || {
                    begins.add_permits(1);
                    let _ = held.lock().recv();
                    Ok(Vec::new())
                };
                resolving.run(resolve).await
            });
            while begun.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_err() {
                tokio::task::yield_now().await;
            }
            asking.abort();
        }
        let host = HostPort::new("localhost", 9).unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(100), way_out.resolving.look_up(&host)).await;
        assert!(waits.is_err(), "its places are taken");
        assert!(way_out.of_one().resolving.look_up(&host).await.is_ok(), "another session has its own");
        drop(release);
        assert!(way_out.resolving.look_up(&host).await.is_ok(), "they are given back");
    }

    #[test]
    fn hosts_that_no_proxy_lists_are_reached_straight() {
        let host = HostPort::parse("pkg.corp.example", 443).unwrap();
        for listed in ["*", "pkg.corp.example", "a,.corp.example", "corp.example:443", "*.example"] {
            assert!(is_exempt(&host, listed), "{listed}");
        }
        for other in ["", ",", "kg.corp.example", "corp.example:80", "other"] {
            assert!(!is_exempt(&host, other), "{other}");
        }
    }
}
