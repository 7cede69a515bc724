//! Connections to the outside: straight, or through the host's HTTP proxy.

use std::io;
use std::time::Duration;

use codegen_types::PackageAccess;
use codegen_types::packages::HostPort;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::gate::Reach;

/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
/// The longest answer of a proxy, in bytes.
const PROXY_ANSWER_BYTES_MAX: usize = 8 << 10;

/// Why there is no connection. Written for the person who asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
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

/// Connects to a host that the gate permits.
pub(super) async fn connect(
    access: &PackageAccess,
    host: &HostPort,
    encrypted: bool,
    reach: Reach,
) -> Result<TcpStream, UpstreamError> {
    let proxy = if encrypted { &access.https_proxy } else { &access.http_proxy };
    let proxy = proxy.as_deref().filter(|_| !is_exempt(host, access.no_proxy.as_deref().unwrap_or_default()));
    let connecting = async {
        match proxy {
            Some(proxy) => through(proxy, host).await,
            None => straight(host, reach).await,
        }
    };
    let stream = tokio::time::timeout(CONNECT_DEADLINE, connecting).await.map_err(|_| UpstreamError::Late)??;
    // Nothing is lost but a little speed.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn straight(host: &HostPort, reach: Reach) -> Result<TcpStream, UpstreamError> {
    let addresses = tokio::net::lookup_host((host.name.as_str(), host.port)).await.map_err(UpstreamError::Resolve)?;
    let mut last = UpstreamError::Private;
    for address in addresses.filter(|address| reach.permits(address.ip())) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = UpstreamError::Connect(error),
        }
    }
    Err(last)
}

/// Asks a proxy for a tunnel.
async fn through(proxy: &str, host: &HostPort) -> Result<TcpStream, UpstreamError> {
    let Proxy { address, credentials } = Proxy::parse(proxy).ok_or(UpstreamError::ProxyUrl)?;
    let mut stream = TcpStream::connect((address.name.as_str(), address.port)).await.map_err(UpstreamError::Connect)?;
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
        let access = PackageAccess { https_proxy: Some(proxy), ..PackageAccess::default() };
        // Nobody can resolve this name, and nobody has to.
        let host = HostPort::parse("index.invalid", 443).unwrap();
        let mut stream = connect(&access, &host, true, Reach::Public).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "hello", "nothing of what follows the proxy's answer is lost");
        let refused = connect(&access, &host, true, Reach::Public).await;
        assert!(matches!(refused, Err(UpstreamError::ProxyRefused)));
        for head in proxying.await.unwrap() {
            assert!(
                head.starts_with("CONNECT index.invalid:443 HTTP/1.1\r\n") && head.contains("Basic dXM6cHc="),
                "{head}"
            );
        }
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
