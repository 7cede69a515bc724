//! The sockets on which workers join and commands ask.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use tokio::net::{TcpListener, UnixListener};

use super::state_dir::LockedStateDir;
use crate::config::GrpcPort;

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
    #[error("port {port} on 127.0.0.1 cannot be bound; free it or choose another with --grpc-port")]
    Port {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
}

/// Bound, not yet accepting.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) embedded: UnixListener,
    pub(super) control: UnixListener,
    /// Absent when the default port is taken.
    pub(super) remote: Option<TcpListener>,
}

impl Listeners {
    pub(super) async fn bind(state: &LockedStateDir, port: GrpcPort) -> Result<Self, ListenError> {
        let (embedded, control) = (bind_socket(state.worker_socket())?, bind_socket(state.control_socket())?);
        Ok(Self { embedded, control, remote: bind_port(port).await? })
    }
}

fn bind_socket(path: PathBuf) -> Result<UnixListener, ListenError> {
    UnixListener::bind(&path).map_err(|source| ListenError::Socket { path, source })
}

/// A default port that is taken is no reason not to serve; one that the operator chose is.
async fn bind_port(port: GrpcPort) -> Result<Option<TcpListener>, ListenError> {
    let (GrpcPort::Default(number) | GrpcPort::Chosen(number)) = port;
    match (TcpListener::bind((Ipv4Addr::LOCALHOST, number)).await, port) {
        (Ok(listener), _) => Ok(Some(listener)),
        (Err(error), GrpcPort::Default(_)) => {
            tracing::warn!(port = number, %error, "remote workers cannot join; going on without");
            Ok(None)
        }
        (Err(source), GrpcPort::Chosen(_)) => Err(ListenError::Port { port: number, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_fatal_only_when_it_was_chosen() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let number = taken.local_addr().unwrap().port();
        assert!(bind_port(GrpcPort::Default(number)).await.unwrap().is_none());
        assert!(matches!(bind_port(GrpcPort::Chosen(number)).await, Err(ListenError::Port { .. })));
        assert!(bind_port(GrpcPort::Chosen(0)).await.unwrap().is_some());
    }
}
