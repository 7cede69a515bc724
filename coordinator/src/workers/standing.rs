//! A gRPC connection, and where whoever is at its other end stands: a stranger until it has joined, or has
//! shown that it had.
//!
//! Strangers have few places, and each only for a while; so none of them takes a place of a worker.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::socket::{Peer, Socket};
use crate::room::{Place, Room};

/// Who is at the other end of a gRPC connection, and the place that it takes.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) peer: Peer,
    place: Mutex<Held>,
    /// The places of those that have joined.
    members: Room,
}

#[derive(Debug)]
enum Held {
    Stranger { _place: Place },
    Member { _place: Place },
}

impl Standing {
    /// A stranger, with its place, that may yet have one of `members`.
    pub(crate) fn stranger(peer: Peer, place: Place, members: Room) -> Arc<Self> {
        Arc::new(Self { peer, place: Mutex::new(Held::Stranger { _place: place }), members })
    }

    /// It has joined. Gives whether there is a place for it.
    pub(crate) fn let_in(&self) -> bool {
        let mut held = self.place.lock();
        if let Held::Member { .. } = *held {
            return true;
        }
        let Some(place) = self.members.enter(self.peer.address()) else { return false };
        *held = Held::Member { _place: place };
        true
    }

    fn is_stranger(&self) -> bool {
        matches!(*self.place.lock(), Held::Stranger { .. })
    }
}

/// A gRPC connection: what was read of it to tell what it is, then the rest of it. It fails when it is a stranger's for
/// too long.
pub(crate) struct GrpcIo {
    read_already: Bytes,
    socket: Socket,
    standing: Arc<Standing>,
    /// When a stranger is sent away; none once it was looked at then.
    patience: Option<Pin<Box<Sleep>>>,
}

impl GrpcIo {
    pub(crate) fn new(read_already: Bytes, socket: Socket, standing: Arc<Standing>, patience: Duration) -> Self {
        Self { read_already, socket, standing, patience: Some(Box::pin(tokio::time::sleep(patience))) }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(patience) = &mut self.patience else { return Ok(()) };
        if patience.as_mut().poll(context).is_pending() {
            return Ok(());
        }
        self.patience = None;
        if self.standing.is_stranger() {
            tracing::info!(peer = %self.standing.peer, "a connection is closed: nobody has joined on it");
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Connected for GrpcIo {
    type ConnectInfo = Arc<Standing>;

    fn connect_info(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }
}

impl AsyncRead for GrpcIo {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // The connection always has a read pending, so that it feels the end of the patience.
        self.check(context)?;
        if self.read_already.is_empty() {
            return Pin::new(&mut self.socket).poll_read(context, buf);
        }
        let fits = self.read_already.len().min(buf.remaining());
        buf.put_slice(&self.read_already[..fits]);
        self.read_already.advance(fits);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GrpcIo {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
