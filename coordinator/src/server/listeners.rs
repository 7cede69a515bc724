//! The sockets on which workers join and commands ask.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::{TcpListener, UnixListener};

use super::state_dir::LockedStateDir;
use crate::config::{GrpcConfig, GrpcListen, Plaintext};
use crate::tls::{Purpose, Tls, TlsError};

/// Why workers could not join, or commands not ask.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket of the embedded worker, or of commands, cannot be bound.
    #[error("the socket {path} cannot be bound")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The port that the operator chose cannot be bound.
    #[error("workers cannot register at {address}; free it or choose another with --grpc")]
    Port {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Workers could not be spoken to privately.
    #[error("the port of workers cannot be encrypted")]
    Tls(#[from] TlsError),
    /// Whoever is in between could read and change what is sent.
    #[error(
        "workers would register at {0}, beyond this machine, without TLS; give --tls-cert and --tls-key, or permit it with \
         --insecure-plaintext"
    )]
    Plaintext(SocketAddr),
}

/// Bound, not yet accepting.
pub(super) struct Listeners {
    pub(super) embedded: UnixListener,
    pub(super) control: UnixListener,
    /// Absent when the default port is taken.
    pub(super) remote: Option<TcpListener>,
    /// What remote workers are spoken to with.
    pub(super) tls: Option<Tls>,
}

impl Listeners {
    pub(super) async fn bind(state: &LockedStateDir, grpc: &GrpcConfig) -> Result<Self, ListenError> {
        let (embedded, control) = (bind_socket(state.worker_socket())?, bind_socket(state.control_socket())?);
        let purpose = Purpose::Workers { authority: grpc.authority.clone() };
        let tls = grpc.tls.clone().map(|files| Tls::load(files, purpose)).transpose()?;
        Ok(Self { embedded, control, remote: bind_remote(grpc).await?, tls })
    }
}

fn bind_socket(path: PathBuf) -> Result<UnixListener, ListenError> {
    UnixListener::bind(&path).map_err(|source| ListenError::Socket { path, source })
}

/// A default port that is taken is no reason not to serve; one that the operator chose is.
async fn bind_remote(grpc: &GrpcConfig) -> Result<Option<TcpListener>, ListenError> {
    let address = grpc.listen.address();
    if grpc.tls.is_none() && !address.ip().is_loopback() && grpc.plaintext == Plaintext::Local {
        return Err(ListenError::Plaintext(address));
    }
    match (TcpListener::bind(address).await, grpc.listen) {
        (Ok(listener), _) => Ok(Some(listener)),
        (Err(error), GrpcListen::Default(_)) => {
            tracing::warn!(%address, %error, "remote workers cannot join; going on without");
            Ok(None)
        }
        (Err(source), GrpcListen::Chosen(_)) => Err(ListenError::Port { address, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::Reflection;

    fn at(listen: GrpcListen, plaintext: Plaintext) -> GrpcConfig {
        let (tls, authority, advertise_allow, reflection) = (None, None, Vec::new(), Reflection::Off);
        GrpcConfig { listen, plaintext, tls, authority, advertise_allow, reflection }
    }

    #[tokio::test]
    async fn a_taken_port_is_fatal_only_when_it_was_chosen() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = taken.local_addr().unwrap();
        assert!(bind_remote(&at(GrpcListen::Default(address), Plaintext::Local)).await.unwrap().is_none());
        let chosen = bind_remote(&at(GrpcListen::Chosen(address), Plaintext::Local)).await;
        assert!(matches!(chosen, Err(ListenError::Port { .. })));
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        assert!(bind_remote(&at(GrpcListen::Chosen(free), Plaintext::Local)).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn plain_text_leaves_the_machine_only_where_the_operator_said_so() {
        let everywhere = GrpcListen::Chosen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let refused = bind_remote(&at(everywhere, Plaintext::Local)).await.unwrap_err();
        assert!(refused.to_string().contains("--insecure-plaintext"), "{refused}");
        assert!(bind_remote(&at(everywhere, Plaintext::Anywhere)).await.unwrap().is_some());
    }
}
