//! Streams that are watched: how long one has been silent, and what one has carried.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use codegen_types::packages::HostPort;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Egress;

/// When something was last carried by a connection.
#[derive(Clone)]
pub(super) struct Activity(Arc<Mutex<Instant>>);

impl Activity {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn touch(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Waits until nothing was carried for so long.
    pub async fn silent(&self, patience: Duration) {
        loop {
            let until = *self.0.lock() + patience;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Whoever wants to know what a stream carries.
pub(super) trait Watcher: Unpin {
    /// So much was read, or written.
    fn carried(&self, read: usize, written: usize);

    /// Whether any more may be read.
    fn may_read(&self) -> bool {
        true
    }
}

impl Watcher for Activity {
    fn carried(&self, _read: usize, _written: usize) {
        self.touch();
    }
}

/// Counts what a connection to a host carries.
pub(super) struct Meter {
    pub egress: Arc<Egress>,
    pub host: HostPort,
}

impl Watcher for Meter {
    fn carried(&self, read: usize, written: usize) {
        self.egress.contacts.carried(&self.host, written as u64, read as u64);
    }
}

/// A stream of which a watcher hears.
pub(super) struct Watched<S, W> {
    stream: S,
    watcher: W,
}

impl<S, W> Watched<S, W> {
    pub fn new(stream: S, watcher: W) -> Self {
        Self { stream, watcher }
    }
}

impl<S: AsyncRead + Unpin, W: Watcher> AsyncRead for Watched<S, W> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.watcher.may_read() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            self.watcher.carried(read, 0);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, W: Watcher> AsyncWrite for Watched<S, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written @ 1..)) = polled {
            self.watcher.carried(0, written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
