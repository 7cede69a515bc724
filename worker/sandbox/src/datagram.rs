//! Datagrams with descriptors over `SOCK_SEQPACKET` socket pairs: blocking for the launcher and everything below it,
//! asynchronous for the worker.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use tokio::io::unix::AsyncFd;

/// The longest datagram, in bytes; longer payloads travel in a memory file.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// Descriptors in one datagram, at most.
pub(crate) const DESCRIPTORS_MAX: usize = 72;

thread_local! {
    /// Where a datagram is received, so that none costs room for the longest one.
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM_BYTES_MAX]);
}

/// One datagram, and the descriptors that came with it.
#[derive(Debug)]
pub struct Datagram {
    /// What was sent.
    pub bytes: Vec<u8>,
    /// What was passed.
    pub descriptors: Vec<OwnedFd>,
}

/// Two connected ends.
///
/// # Errors
/// When there are no descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one datagram and waits for room.
pub(crate) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(socket.as_fd(), bytes, descriptors, SendFlags::NOSIGNAL)
}

/// Waits for one datagram; `None` when the other end is closed.
pub(crate) fn recv(socket: impl AsFd) -> io::Result<Option<Datagram>> {
    recv_with(socket.as_fd(), RecvFlags::CMSG_CLOEXEC)
}

fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn recv_with(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<Option<Datagram>> {
    ROOM.with_borrow_mut(|room| recv_into(room, socket, flags))
}

fn recv_into(room: &mut [u8], socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<Option<Datagram>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(room)], &mut control, flags) {
            Ok(received) => received,
            // A peer that closed with something unread is said so once, before what it had sent; then the kernel goes on.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        let bytes = room[..received.bytes].to_vec();
        return Ok((!bytes.is_empty()).then_some(Datagram { bytes, descriptors }));
    }
}

/// One end, for the worker's asynchronous code.
#[derive(Debug)]
pub struct AsyncSocket(AsyncFd<OwnedFd>);

impl AsyncSocket {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// When the event loop takes no more.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` owns its descriptor and always gives the same one, until it is dropped with the AsyncFd.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    /// Sends one datagram. Cancel-safe: it is sent or not.
    ///
    /// # Errors
    /// When the other end is closed.
    pub async fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(sent) = ready.try_io(|socket| send_with(socket.as_fd(), bytes, descriptors, flags)) {
                return sent;
            }
        }
    }

    /// Whether nobody has the other end any more; what it sent may still wait to be received.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(self.0.get_ref(), PollFlags::empty())];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut polled, Some(&at_once)), Ok(1..))
            && polled[0].revents().contains(PollFlags::HUP)
    }

    /// Waits for one datagram; `None` when the other end is closed. Cancel-safe.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn recv(&self) -> io::Result<Option<Datagram>> {
        // A peer that never stops sending must not keep whoever receives from its time limits.
        tokio::task::coop::consume_budget().await;
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(received) = ready.try_io(|socket| recv_with(socket.as_fd(), flags)) {
                return received;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_datagram_keeps_its_bounds_and_its_descriptors() {
        let (one, other) = pair().unwrap();
        let (one, other) = (AsyncSocket::new(one).unwrap(), AsyncSocket::new(other).unwrap());
        let null = std::fs::File::open("/dev/null").unwrap();
        one.send(b"first", &[null.as_fd(), null.as_fd()]).await.unwrap();
        one.send(b"second", &[]).await.unwrap();
        let first = other.recv().await.unwrap().unwrap();
        assert_eq!((first.bytes.as_slice(), first.descriptors.len()), (b"first".as_slice(), 2));
        assert_eq!(other.recv().await.unwrap().unwrap().bytes, b"second");
        assert!(!other.is_hung_up());
        one.send(b"last", &[]).await.unwrap();
        drop(one);
        assert!(other.is_hung_up(), "also before what it sent is received");
        assert_eq!(other.recv().await.unwrap().unwrap().bytes, b"last");
        assert!(other.recv().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_socket_that_is_never_empty_lets_time_limits_pass() {
        let (one, other) = pair().unwrap();
        let other = AsyncSocket::new(other).unwrap();
        let flood = async {
            loop {
                send(&one, b"x", &[]).unwrap();
                other.recv().await.unwrap().unwrap();
            }
        };
        let limit = std::time::Duration::from_millis(10);
        assert!(tokio::time::timeout(limit, flood).await.is_err());
    }

    #[test]
    fn the_last_word_arrives_although_the_peer_left_something_unread() {
        let (one, other) = pair().unwrap();
        send(&one, b"unread", &[]).unwrap();
        send(&other, b"last word", &[]).unwrap();
        drop(other);
        assert_eq!(recv(&one).unwrap().unwrap().bytes, b"last word");
        assert!(recv(&one).unwrap().is_none());
    }
}
