//! The first bytes of a tunnel: TLS in it must be for the host that the tunnel is for, or a name that is not on the list could
//! be asked for at the address of one that is. What follows cannot be read, and what is no TLS passes as it is.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest greeting of a TLS client that is looked at, in bytes.
const HELLO_BYTES_MAX: usize = 32 << 10;
/// How much is read at once until it is known.
const PIECE_BYTES: usize = 4 << 10;
/// The types of records with which a TLS connection could begin.
const TLS_RECORDS: std::ops::RangeInclusive<u8> = 0x14..=0x17;
/// What a TLS client is told: a fatal alert, unrecognized_name.
pub(super) const ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// The side of a tunnel on which a program speaks.
pub(super) struct Greeted<S> {
    inside: S,
    host: String,
    held: Vec<u8>,
    state: State,
}

enum State {
    /// Nothing was said yet.
    Silent,
    /// It is TLS, and its greeting is not whole.
    Greeting(Box<Acceptor>),
    /// Whatever is said is passed on, first what was held back.
    Passing,
    /// It is for another host, or cannot be understood.
    Refused,
}

impl<S> Greeted<S> {
    /// A tunnel to the host of this name, or address.
    pub fn new(inside: S, host: String) -> Self {
        Self { inside, host, held: Vec::new(), state: State::Silent }
    }

    /// The side itself, when what was said was not passed on.
    pub fn refused(&mut self) -> Option<&mut S> {
        matches!(self.state, State::Refused).then_some(&mut self.inside)
    }

    /// What comes next after these bytes, of which nothing was passed on yet.
    fn hear(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Silent) {
            self.state = match bytes.first() {
                Some(first) if TLS_RECORDS.contains(first) => State::Greeting(Box::default()),
                Some(_) | None => State::Passing,
            };
        }
        self.held.extend_from_slice(bytes);
        let State::Greeting(acceptor) = &mut self.state else { return };
        match name_in(acceptor, bytes) {
            // Its end, or more than anybody says.
            Ok(Greeting::Unfinished) if bytes.is_empty() || self.held.len() > HELLO_BYTES_MAX => {
                self.state = State::Refused;
            }
            Ok(Greeting::Unfinished) => {}
            Ok(Greeting::For(name)) if is_for(name.as_deref(), &self.host) => self.state = State::Passing,
            Ok(Greeting::For(_)) | Err(()) => self.state = State::Refused,
        }
    }
}

enum Greeting {
    Unfinished,
    /// For this name, if it says one.
    For(Option<String>),
}

fn name_in(acceptor: &mut Acceptor, mut bytes: &[u8]) -> Result<Greeting, ()> {
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).map_err(drop)?;
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                return Ok(Greeting::For(accepted.client_hello().server_name().map(str::to_owned)));
            }
            Err(_) => return Err(()),
        }
    }
    Ok(Greeting::Unfinished)
}

/// A host that has a name is asked for by that name. An address needs none.
fn is_for(name: Option<&str>, host: &str) -> bool {
    match name {
        Some(name) => name.trim_end_matches('.').eq_ignore_ascii_case(host),
        None => host.parse::<IpAddr>().is_ok(),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match &self.state {
                State::Passing if self.held.is_empty() => return Pin::new(&mut self.inside).poll_read(cx, buf),
                State::Passing => {
                    let count = self.held.len().min(buf.remaining());
                    buf.put_slice(&self.held[..count]);
                    self.held.drain(..count);
                    return Poll::Ready(Ok(()));
                }
                State::Refused => return Poll::Ready(Err(io::ErrorKind::PermissionDenied.into())),
                State::Silent | State::Greeting(_) => {
                    let mut space = [0; PIECE_BYTES];
                    let mut piece = ReadBuf::new(&mut space);
                    ready!(Pin::new(&mut self.inside).poll_read(cx, &mut piece))?;
                    self.hear(piece.filled());
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inside).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inside).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inside).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::crypto::ring;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What a TLS client says first to a host, by name or without one.
    fn greeting(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut said = Vec::new();
        client.write_tls(&mut said).unwrap();
        said
    }

    /// What passes of these bytes in a tunnel to a host, when they come in pieces of so many; nothing when they are refused.
    async fn passed(host: &str, bytes: &[u8], pieces: usize) -> Option<Vec<u8>> {
        let (mut program, inside) = tokio::io::duplex(pieces);
        let said = bytes.to_vec();
        // Nobody hears the rest of what is refused.
        tokio::spawn(async move { program.write_all(&said).await });
        let mut tunnel = Greeted::new(inside, host.to_owned());
        let mut passed = Vec::new();
        let outcome = tunnel.read_to_end(&mut passed).await;
        assert_eq!(outcome.is_err(), tunnel.refused().is_some());
        assert!(outcome.is_ok() || passed.is_empty(), "nothing passes of what is refused");
        outcome.is_ok().then_some(passed)
    }

    #[tokio::test]
    async fn tls_passes_to_the_host_of_the_tunnel_alone_however_it_comes() {
        let (right, wrong, none) = (greeting("api.example"), greeting("other.example"), greeting("192.0.2.1"));
        let more = [right.as_slice(), b"more"].concat();
        for pieces in [1, 7, 100_000] {
            assert_eq!(passed("api.example", &more, pieces).await, Some(more.clone()));
            assert_eq!(passed("api.example", &wrong, pieces).await, None);
            assert_eq!(passed("api.example", &none, pieces).await, None, "a host with a name is asked for by it");
            assert_eq!(passed("192.0.2.1", &none, pieces).await, Some(none.clone()));
            assert_eq!(passed("192.0.2.1", &wrong, pieces).await, None);
        }
        let in_two_records = {
            let body = &right[5..];
            let record =
                |part: &[u8]| [&[0x16, 3, 1][..], &u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat();
            [record(&body[..20]), record(&body[20..])].concat()
        };
        assert_eq!(passed("api.example", &in_two_records, 9).await, Some(in_two_records.clone()));
        assert_eq!(passed("other.example", &in_two_records, 9).await, None);
    }

    #[tokio::test]
    async fn tls_that_is_cut_malformed_or_endless_is_refused_and_anything_else_passes() {
        let hello = greeting("api.example");
        assert_eq!(passed("api.example", &hello[..hello.len() - 1], 50).await, None, "an unfinished greeting");
        assert_eq!(passed("api.example", b"\x15\x03\x03\x00\x02\x01\x00", 7).await, None, "an alert comes first");
        assert_eq!(passed("api.example", &[0x16; 200], 50).await, None);
        let endless: Vec<u8> = std::iter::repeat_n([0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff], 8_000).flatten().collect();
        assert_eq!(passed("api.example", &endless, 4_096).await, None);
        for other in [&b"SSH-2.0-x\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n", b""] {
            assert_eq!(passed("api.example", other, 3).await, Some(other.to_vec()));
        }
    }
}
