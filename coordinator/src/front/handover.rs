//! How a front hands its client over: one message with a header line and three descriptors, then lines back.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use codegen_types::IsolationLevel;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;

use crate::config::ToolNames;

/// Grows when the messages here change their meaning.
pub const PROTOCOL: u32 = 1;

/// The release of this program; front and server must be of one release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The longest header or reply, in bytes.
const LINE_BYTES_MAX: usize = 16 << 10;

/// What a front says about its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The [`PROTOCOL`] that the front speaks.
    pub protocol: u32,
    /// The front's release.
    pub version: String,
    /// The front's process id, for diagnostics alone.
    pub pid: u32,
    /// Whether the client's stderr gets diagnostics.
    pub debug: bool,
    /// How the client wants tools listed.
    pub tool_names: ToolNames,
    /// The weakest isolation that the client's configuration allows.
    pub isolation_minimum: IsolationLevel,
}

/// The client's standard streams.
#[derive(Debug)]
pub struct Streams {
    /// What the client writes to.
    pub stdin: OwnedFd,
    /// What the client reads protocol from.
    pub stdout: OwnedFd,
    /// Where diagnostics for the client go.
    pub stderr: OwnedFd,
}

/// What the server says to a front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The client is being served.
    Accepted,
    /// The server is of another release and serves none but its own fronts.
    OtherVersion {
        /// The server's release.
        version: String,
    },
    /// The client is not served.
    Refused {
        /// Why, and what to do.
        why: String,
    },
    /// The client is served no longer.
    Bye {
        /// How it ended.
        end: End,
    },
}

/// How the service of a client ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The client closed its side, or its front asked to stop.
    ClientClosed,
    /// The server ends.
    ServerStopping,
    /// The connection broke.
    Failed(String),
}

/// Hands the client over.
pub async fn send(stream: &UnixStream, header: &Header, streams: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    let line = line_of(header);
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&streams)), "the space was made for three");
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            Ok(rustix::net::sendmsg(stream, &[IoSlice::new(&line)], &mut control, flags)?)
        })
        .await?;
    if sent == line.len() { Ok(()) } else { Err(io::Error::other("the header was cut")) }
}

/// Takes a client over. Anything but one whole header with three descriptors is an error.
pub async fn receive(stream: &UnixStream) -> io::Result<(Header, Streams)> {
    let mut line = Vec::new();
    let mut fds = Vec::new();
    while !line.ends_with(b"\n") {
        let (bytes, more) = receive_part(stream).await?;
        if bytes.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        line.extend(bytes);
        fds.extend(more);
        if line.len() > LINE_BYTES_MAX || fds.len() > 3 {
            return Err(invalid("the header is too long"));
        }
    }
    let header = serde_json::from_slice(&line).map_err(|error| invalid(&error.to_string()))?;
    let [stdin, stdout, stderr] =
        <[OwnedFd; 3]>::try_from(fds).map_err(|_| invalid("three descriptors belong to a header"))?;
    Ok((header, Streams { stdin, stdout, stderr }))
}

async fn receive_part(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    stream
        .async_io(Interest::READABLE, || {
            let mut buffer = vec![0; LINE_BYTES_MAX];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let message = rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)?;
            buffer.truncate(message.bytes);
            let mut fds = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    fds.extend(received);
                }
            }
            Ok((buffer, fds))
        })
        .await
}

/// Says something to the front.
pub async fn reply(stream: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    stream.write_all(&line_of(reply)).await
}

/// Reads what a server says, line by line.
#[derive(Debug)]
pub struct Replies<R>(BufReader<R>);

impl<R: tokio::io::AsyncRead + Unpin> Replies<R> {
    /// Reads from this half of the connection.
    pub fn new(half: R) -> Self {
        Self(BufReader::new(half))
    }

    /// The next reply; not cancel-safe; `None` when the server is gone.
    pub async fn next(&mut self) -> io::Result<Option<Reply>> {
        let mut line = Vec::new();
        let read = (&mut self.0).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line).await?;
        if read == 0 || !line.ends_with(b"\n") {
            return Ok(None);
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| invalid(&error.to_string()))
    }
}

impl Replies<UnixStream> {
    /// Ends our side, which asks the server to stop serving the client.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.0.get_mut().shutdown().await
    }
}

fn line_of(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("plain data has a JSON form");
    line.push(b'\n');
    line
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    fn header() -> Header {
        Header {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            pid: 1,
            debug: false,
            tool_names: ToolNames::Underscored,
            isolation_minimum: IsolationLevel::Full,
        }
    }

    #[tokio::test]
    async fn the_descriptors_arrive_in_order_with_their_header() {
        let (front, server) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        send(&front, &header(), [null.as_fd(), writer.as_fd(), null.as_fd()]).await.unwrap();
        drop(writer);
        let (received, streams) = receive(&server).await.unwrap();
        assert_eq!(received, header());
        std::fs::File::from(streams.stdout).write_all(b"x").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[tokio::test]
    async fn a_header_without_its_descriptors_or_without_an_end_is_refused() {
        let (mut front, server) = UnixStream::pair().unwrap();
        front.write_all(&line_of(&header())).await.unwrap();
        assert_eq!(receive(&server).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        front.write_all(&vec![b'x'; LINE_BYTES_MAX + 1]).await.unwrap();
        assert_eq!(receive(&server).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(front);
        let (front, server) = UnixStream::pair().unwrap();
        drop(front);
        assert_eq!(receive(&server).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
