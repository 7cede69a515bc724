//! Sockets on which workers reach the coordinator, whatever their family.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsStream;

use crate::tls::Tls;

/// Where workers connect.
pub enum Listener {
    /// TCP in plain text; a loopback address unless the operator said otherwise.
    Tcp(TcpListener),
    /// TCP, and TLS in every connection.
    Tls(TcpListener, Tls),
    /// A Unix socket in the state directory.
    Unix(UnixListener),
    /// Connections of a network that is not the kernel's, such as one that a test simulates.
    Given(Box<dyn Incoming>),
}

/// A source of connections in plain text.
pub trait Incoming: Send + Sync {
    /// The next connection, and where it comes from.
    fn accept(&self) -> BoxFuture<'_, io::Result<(Box<dyn Stream>, SocketAddr)>>;
}

/// A connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl Listener {
    /// What connections are encrypted with, if they are.
    pub(crate) fn tls(&self) -> Option<Tls> {
        match self {
            Self::Tls(_, tls) => Some(tls.clone()),
            Self::Tcp(_) | Self::Unix(_) | Self::Given(_) => None,
        }
    }

    /// The next connection. A Unix peer of another user is refused here, by what the kernel says of it.
    pub(crate) async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Socket::Tcp(stream), Peer::Tcp { address, certificate: None }))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = stream.peer_cred()?;
                if peer.uid() != rustix::process::geteuid().as_raw() {
                    let error = format!("a process of user {} connected", peer.uid());
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
                }
                Ok((Socket::Unix(stream), Peer::Unix { pid: peer.pid() }))
            }
            Self::Given(incoming) => {
                let (stream, address) = incoming.accept().await?;
                Ok((Socket::Given(stream), Peer::Tcp { address, certificate: None }))
            }
        }
    }
}

/// Shakes hands where there is TLS; the peer is then known by the certificate that it showed, if it did.
pub(crate) async fn secured(tls: Option<&Tls>, socket: Socket, peer: Peer) -> io::Result<(Socket, Peer)> {
    match (tls, socket, peer) {
        (Some(tls), Socket::Tcp(stream), Peer::Tcp { address, .. }) => {
            let stream = tls.accept(stream).await?;
            let shown = stream.get_ref().1.peer_certificates().filter(|chain| !chain.is_empty());
            let chain = shown.map(|chain| chain.iter().map(|one| one.clone().into_owned()).collect());
            let certificate = chain.map(|chain| Certificate { chain, tls: tls.clone() });
            Ok((Socket::Tls(Box::new(stream.into())), Peer::Tcp { address, certificate }))
        }
        (_, socket, peer) => Ok((socket, peer)),
    }
}

/// A certificate that was shown, with what else came with it.
#[derive(Clone)]
pub(crate) struct Certificate {
    /// Its own first; never empty.
    chain: Arc<[CertificateDer<'static>]>,
    /// Who says whom to trust.
    tls: Tls,
}

impl Certificate {
    pub(crate) fn own(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// Whether it is still trusted, as it was in the handshake.
    pub(crate) fn is_trusted(&self) -> bool {
        self.tls.trusts(&self.chain)
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    Tcp {
        address: SocketAddr,
        /// Of an authority that the operator trusts to say who a worker is.
        certificate: Option<Certificate>,
    },
    Unix {
        pid: Option<i32>,
    },
}

impl Peer {
    /// Where it is, if it is elsewhere.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp { address, .. } => Some(address.ip().to_canonical()),
            Self::Unix { .. } => None,
        }
    }

    /// The certificate that it showed.
    pub(crate) fn certificate(&self) -> Option<&Certificate> {
        match self {
            Self::Tcp { certificate, .. } => certificate.as_ref(),
            Self::Unix { .. } => None,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { address, .. } => write!(f, "tcp {address}"),
            Self::Unix { pid: Some(pid) } => write!(f, "unix, process {pid}"),
            Self::Unix { pid: None } => f.write_str("unix"),
        }
    }
}

/// A connection of any kind.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    Given(Box<dyn Stream>),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Given(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Given(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Given(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Given(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Given(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => true,
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Given(stream) => stream.is_write_vectored(),
        }
    }
}
