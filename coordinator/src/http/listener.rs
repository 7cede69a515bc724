//! Accepting connections, within bounds in number and in time.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::stall::Stalling;
use crate::config::{HttpConfig, Patience};
use crate::room::Room;
use crate::tls::Tls;

/// How much is read ahead, in bytes. hyper refuses the head of a request that is longer, at the latest when it is twice
/// as long.
const BUFFER_BYTES_MAX: usize = 32 << 10;
/// The most headers of a request.
const HEADERS_MAX: usize = 100;
/// How long accepting rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// What a connection is told for which there is no room: what `ApiError` says, in a form that needs no request.
const NO_ROOM: &str =
    r#"{"error":{"code":"NO_CAPACITY","details":{},"message":"too many connections are open; try again shortly"}}"#;

/// The address that a request came from, in its extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Accepts connections.
pub(super) struct Listener {
    socket: TcpListener,
    room: Room,
    patience: Patience,
    tls: Option<Tls>,
}

impl Listener {
    pub(super) fn new(socket: TcpListener, config: &HttpConfig, tls: Option<Tls>) -> Self {
        let (most, most_of_one) = (config.connections_max, config.connections_per_address_max);
        let room = Room::new(most, most_of_one);
        Self { socket, room, patience: config.patience, tls }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("a bound socket has an address")
    }

    /// Serves until `drain`; then lets what was begun end, until `force`. Returns when no connection is left.
    pub(super) async fn run(self, router: Router, drain: CancellationToken, force: CancellationToken) {
        let Self { socket, room, patience, tls } = self;
        let serving = Serving { router, patience, tls, drain: drain.clone(), force };
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = drain.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => match room.enter(Some(peer.ip())) {
                    Some(place) => {
                        let serving = serving.clone();
                        connections.spawn(async move {
                            serving.serve(stream, peer.ip().to_canonical()).await;
                            drop(place);
                        });
                    }
                    None => refuse(&stream, peer, serving.tls.is_some()),
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
        drop(socket);
        connections.close();
        connections.wait().await;
    }
}

/// How connections are served.
#[derive(Clone)]
struct Serving {
    router: Router,
    patience: Patience,
    tls: Option<Tls>,
    drain: CancellationToken,
    force: CancellationToken,
}

impl Serving {
    async fn serve(self, stream: TcpStream, peer: IpAddr) {
        // Without it answers in two parts would wait for the client's acknowledgement.
        let _best_effort = stream.set_nodelay(true);
        match &self.tls {
            None => self.converse(stream, peer).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => self.converse(stream, peer).await,
                Err(error) => tracing::debug!(%peer, %error, "a handshake failed"),
            },
        }
    }

    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: IpAddr) {
        // A layer around the router would be a copy of every route for each connection.
        let router = self.router.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience.head)
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(
                TokioIo::new(Stalling::new(stream, self.patience.unread)),
                TowerToHyperService::new(router),
            );
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = self.drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = self.force.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }
}

/// Says without waiting that there is no room.
fn refuse(stream: &TcpStream, peer: SocketAddr, is_tls: bool) {
    tracing::warn!(%peer, "too many connections: one more is refused");
    if is_tls {
        return;
    }
    let refusal = format!(
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{NO_ROOM}",
        NO_ROOM.len()
    );
    let _unheard: io::Result<usize> = stream.try_write(refusal.as_bytes());
}
