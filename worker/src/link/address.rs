//! Where a coordinator listens, and connecting to it.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use super::tls;
use crate::start::TlsStart;

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A connection to a coordinator.
pub(crate) type Socket = Either<UnixStream, Either<TcpStream, Box<dyn Stream>>>;

/// A connection on top of others, or of a network that is not the kernel's.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections in plain text by a network that is not the kernel's, such as one that a test simulates.
pub trait Dial: Send + Sync {
    /// Connects to `host:port`.
    fn dial(&self, address: &str) -> BoxFuture<'_, io::Result<Box<dyn Stream>>>;
}

/// By what connections are made.
#[derive(Clone, Default)]
pub(crate) enum Network {
    #[default]
    Kernel,
    Given(Arc<dyn Dial>),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To call the coordinator.
    Calls,
    /// To be called by it.
    Link,
}

/// The way to a coordinator.
#[derive(Clone)]
pub(crate) struct Route {
    /// Where it listens.
    pub address: Address,
    /// How it is spoken to privately, if it is.
    pub tls: Option<TlsStart>,
    /// By what.
    pub network: Network,
}

/// Where a coordinator listens: `unix:/path` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(String),
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an address of a coordinator: expected `unix:/absolute/path` or `host:port`")]
pub struct InvalidAddress;

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(InvalidAddress) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress)?;
        let port_is_usable = port.parse::<u16>().is_ok_and(|port| port != 0);
        if host.is_empty() || !port_is_usable { Err(InvalidAddress) } else { Ok(Self::Tcp(text.to_owned())) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

impl Address {
    /// Whether nobody but this machine can listen in on what is sent there.
    pub fn is_local(&self) -> bool {
        let host = match self {
            Self::Unix(_) => return true,
            Self::Tcp(_) => self.host(),
        };
        let address = host.parse::<IpAddr>();
        address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
    }

    /// The host without port and brackets; empty for a Unix socket.
    fn host(&self) -> &str {
        let Self::Tcp(text) = self else { return "" };
        let host = text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

impl Route {
    /// Connects. Small messages are not held back to be sent together.
    pub async fn connect(&self, purpose: Purpose) -> io::Result<Socket> {
        let connecting = async {
            match (&self.address, &self.network) {
                (Address::Unix(path), _) => UnixStream::connect(path).await.map(Either::Left),
                (Address::Tcp(address), Network::Given(network)) => {
                    Ok(Either::Right(Either::Right(network.dial(address).await?)))
                }
                (Address::Tcp(address), Network::Kernel) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    let Some(files) = &self.tls else { return Ok(Either::Right(Either::Left(stream))) };
                    let secured = tls::connect(files, self.address.host(), stream, purpose).await?;
                    let secured: Box<dyn Stream> = Box::new(secured);
                    Ok(Either::Right(Either::Right(secured)))
                }
            }
        };
        tokio::time::timeout(CONNECT_DEADLINE, connecting).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_local() {
        let local = |text: &str| text.parse::<Address>().unwrap().is_local();
        for here in ["unix:/run/worker.sock", "127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "localhost:1"] {
            assert!(local(here), "{here}");
        }
        for there in ["10.0.0.1:1", "[fe80::1]:1", "localhost.example:1", "0.0.0.0:1", "coordinator:50050"] {
            assert!(!local(there), "{there}");
        }
    }

    #[test]
    fn only_what_can_be_connected_to_is_an_address() {
        for good in ["unix:/run/worker.sock", "127.0.0.1:50050", "[::1]:50050", "coordinator.example:50050"] {
            assert_eq!(good.parse::<Address>().map(|address| address.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "unix:worker.sock", "localhost", ":50050", "host:0", "host:99999", "host:http"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
