//! The client's own descriptors, read and written without changing them.
//!
//! A descriptor that was handed over shares its open file description with the client, the front and perhaps a
//! terminal: switching it to `O_NONBLOCK` would break them. So pipes and terminals are opened anew, as a description
//! of our own; sockets are asked per call not to wait; files go through the blocking pool.

use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{RecvFlags, SendFlags};
use tokio::fs::File;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// What the client writes to.
#[derive(Debug)]
pub struct ClientInput(Stream);

/// What the client reads from.
#[derive(Debug)]
pub struct ClientOutput(Stream);

impl ClientInput {
    /// Takes a descriptor for reading. Needs a tokio runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Stream::new(fd, Interest::READABLE).map(Self)
    }
}

impl ClientOutput {
    /// Takes a descriptor for writing. Needs a tokio runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Stream::new(fd, Interest::WRITABLE).map(Self)
    }
}

#[derive(Debug)]
enum Stream {
    /// A pipe or terminal, opened anew without blocking.
    Own(AsyncFd<OwnedFd>),
    /// A socket, asked per call not to wait.
    Socket(AsyncFd<OwnedFd>),
    /// Something that never waits for long (a file), or that could not be opened anew.
    Blocking(File),
    /// A pipe that nobody reads any more.
    Gone,
}

impl Stream {
    fn new(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::Socket => watch(fd, interest).map(Self::Socket),
            FileType::Fifo => Self::open_anew(fd, interest),
            FileType::CharacterDevice if fd.as_fd().is_terminal() => Self::open_anew(fd, interest),
            _ => Ok(Self::Blocking(File::from_std(fd.into()))),
        }
    }

    fn open_anew(fd: OwnedFd, interest: Interest) -> io::Result<Self> {
        let access = if interest.is_readable() { OFlags::RDONLY } else { OFlags::WRONLY };
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty()) {
            Ok(own) => watch(own, interest).map(Self::Own),
            Err(rustix::io::Errno::NXIO) => Ok(Self::Gone),
            // Another user's pipe or terminal (after `su`) can be used but not opened.
            Err(_) => Ok(Self::Blocking(File::from_std(fd.into()))),
        }
    }
}

#[expect(deprecated, reason = "its successor is unsafe for types that could swap their descriptor; an OwnedFd cannot")]
fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, interest)
}

impl AsyncRead for ClientInput {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (fd, socket) = match &mut self.get_mut().0 {
            Stream::Own(fd) => (fd, false),
            Stream::Socket(fd) => (fd, true),
            Stream::Blocking(file) => return Pin::new(file).poll_read(cx, buf),
            Stream::Gone => return Poll::Ready(Ok(())),
        };
        loop {
            let mut guard = ready!(fd.poll_read_ready(cx))?;
            let unfilled = buf.initialize_unfilled();
            let read = guard.try_io(|fd| match socket {
                true => Ok(rustix::net::recv(fd, &mut *unfilled, RecvFlags::DONTWAIT)?.0),
                false => Ok(rustix::io::read(fd, &mut *unfilled)?),
            });
            match read {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for ClientOutput {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (fd, socket) = match &mut self.get_mut().0 {
            Stream::Own(fd) => (fd, false),
            Stream::Socket(fd) => (fd, true),
            Stream::Blocking(file) => return Pin::new(file).poll_write(cx, bytes),
            Stream::Gone => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        loop {
            let mut guard = ready!(fd.poll_write_ready(cx))?;
            let written = guard.try_io(|fd| match socket {
                true => Ok(rustix::net::send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?),
                false => Ok(rustix::io::write(fd, bytes)?),
            });
            match written {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Stream::Blocking(file) => Pin::new(file).poll_flush(cx),
            Stream::Own(_) | Stream::Socket(_) | Stream::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use rustix::fs::fcntl_getfl;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn carries_bytes_and_leaves_the_descriptors_as_they_are(reader: OwnedFd, writer: OwnedFd) {
        let kept = [reader.try_clone().unwrap(), writer.try_clone().unwrap()];
        let before = kept.each_ref().map(|fd| fcntl_getfl(fd).unwrap());
        let mut input = ClientInput::new(reader).unwrap();
        let mut output = ClientOutput::new(writer).unwrap();
        // More than any kernel buffer holds, so that both sides must wait for each other.
        let sent = vec![7_u8; 1 << 20];
        let mut received = vec![0; sent.len()];
        let (wrote, read) = tokio::join!(output.write_all(&sent), input.read_exact(&mut received));
        wrote.unwrap();
        read.unwrap();
        assert_eq!(sent, received);
        assert_eq!(before, kept.each_ref().map(|fd| fcntl_getfl(fd).unwrap()));
        assert!(before.iter().all(|flags| !flags.contains(OFlags::NONBLOCK)));
    }

    #[tokio::test]
    async fn a_pipe_stays_as_its_other_users_know_it() {
        let (reader, writer) = io::pipe().unwrap();
        carries_bytes_and_leaves_the_descriptors_as_they_are(reader.into(), writer.into()).await;
    }

    #[tokio::test]
    async fn a_socket_stays_as_its_other_users_know_it() {
        let (reader, writer) = UnixStream::pair().unwrap();
        carries_bytes_and_leaves_the_descriptors_as_they_are(reader.into(), writer.into()).await;
    }

    #[tokio::test]
    async fn a_file_is_read_to_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"{}\n").unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let mut text = String::new();
        ClientInput::new(file.into()).unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "{}\n");
    }

    #[tokio::test]
    async fn the_end_of_the_client_is_the_end_of_its_input() {
        let (reader, writer) = io::pipe().unwrap();
        (&writer).write_all(b"last").unwrap();
        drop(writer);
        let mut text = String::new();
        ClientInput::new(reader.into()).unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "last");
    }

    #[tokio::test]
    async fn writing_to_a_client_that_is_gone_is_a_broken_pipe() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let error = ClientOutput::new(writer.into()).unwrap().write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let (gone, socket) = UnixStream::pair().unwrap();
        drop(gone);
        let error = ClientOutput::new(socket.into()).unwrap().write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
