//! Accepting connections, within bounds in number and in time.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::stall::Stalling;
use crate::config::{HttpConfig, Patience};
use crate::tls::Tls;

/// How much is read ahead, in bytes. hyper refuses the head of a request that is longer, at the latest when it is twice
/// as long.
const BUFFER_BYTES_MAX: usize = 32 << 10;
/// The most headers of a request.
const HEADERS_MAX: usize = 100;
/// How long accepting rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// What a connection is told for which there is no room.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

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
        let room = Room { most, most_of_one, taken: Arc::default() };
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
                Ok((stream, peer)) => match room.enter(peer.ip()) {
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
    let _unheard: io::Result<usize> = stream.try_write(NO_ROOM);
}

/// Room for connections.
#[derive(Debug, Clone)]
struct Room {
    most: u32,
    most_of_one: u32,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    by_address: HashMap<IpAddr, u32>,
}

/// One connection's place, until it is dropped.
struct Place {
    address: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Room {
    fn enter(&self, peer: IpAddr) -> Option<Place> {
        let address = counted_as(peer);
        let mut taken = self.taken.lock();
        let of_one = taken.by_address.get(&address).copied().unwrap_or(0);
        if taken.all >= self.most || of_one >= self.most_of_one {
            return None;
        }
        taken.all += 1;
        taken.by_address.insert(address, of_one + 1);
        Some(Place { address, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// Whoever has one IPv6 address has the 2^64 beside it.
fn counted_as(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_room_for_others_and_gives_back_what_it_had() {
        let room = Room { most: 3, most_of_one: 2, taken: Arc::default() };
        let [near, far, third]: [IpAddr; 3] = ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|ip| ip.parse().unwrap());
        let first = room.enter(near);
        assert!(first.is_some());
        let second = room.enter(far);
        assert!(second.is_some() && room.enter(near).is_none(), "both are of one network");
        let third_place = room.enter(third);
        assert!(third_place.is_some() && room.enter(third).is_none(), "there is no room for more");
        drop(first);
        assert!(room.enter(third).is_some());
        drop((second, third_place));
        assert!(room.taken.lock().by_address.is_empty());
    }
}
