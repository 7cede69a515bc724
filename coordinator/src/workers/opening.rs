//! The first bytes of a connection, which tell an ordinary gRPC connection from a reversed link.

use std::io;

use bytes::Bytes;
use codegen_proto::Secret;
use codegen_types::Incarnation;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How every HTTP/2 connection of a client begins.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How the preamble of a reversed link begins; ticket, incarnation and a newline follow.
const LINK_PREAMBLE: &[u8] = b"codegen-link/1 ";
/// The longest preamble, in bytes.
const OPENING_BYTES_MAX: usize = 256;

/// What a connection is for.
#[derive(Debug)]
pub(crate) enum Opening {
    /// gRPC; the bytes that were read of it belong to it.
    Grpc(Bytes),
    /// A worker that wants to be called on this connection.
    Link { ticket: Secret, incarnation: Incarnation },
}

/// Why a connection is closed before it was known what it is for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpeningRefused {
    #[error("the connection broke before it said what it is for")]
    Io(#[from] io::Error),
    #[error("the connection ended before it said what it is for")]
    Ended,
    #[error("it speaks TLS, which is not on")]
    Tls,
    #[error("it speaks neither HTTP/2 nor the preamble of a link")]
    Foreign,
    #[error("the preamble of a link is malformed")]
    Malformed,
}

/// Reads until it is clear what the connection is for. The caller bounds the time.
///
/// The whole preface is awaited, since nothing after it bounds how long a half-written one may hang.
pub(crate) async fn read(input: &mut (impl AsyncRead + Unpin)) -> Result<Opening, OpeningRefused> {
    let mut buffer = [0; OPENING_BYTES_MAX];
    let mut filled = 0;
    loop {
        let got = input.read(&mut buffer[filled..]).await?;
        if got == 0 {
            return Err(OpeningRefused::Ended);
        }
        filled += got;
        if let Some(opening) = classify(&buffer[..filled])? {
            return Ok(opening);
        }
    }
}

/// What the bytes read so far say; `None` asks for more, which there always is room for.
fn classify(bytes: &[u8]) -> Result<Option<Opening>, OpeningRefused> {
    const TLS_HANDSHAKE: u8 = 0x16;
    if bytes.starts_with(HTTP2_PREFACE) {
        return Ok(Some(Opening::Grpc(Bytes::copy_from_slice(bytes))));
    }
    if let Some(rest) = bytes.strip_prefix(LINK_PREAMBLE) {
        return match rest.iter().position(|byte| *byte == b'\n') {
            // Nothing may follow the newline: a worker waits for the answer.
            Some(end) if end + 1 == rest.len() => preamble(&rest[..end]).map(Some),
            Some(_) => Err(OpeningRefused::Malformed),
            None if bytes.len() == OPENING_BYTES_MAX => Err(OpeningRefused::Malformed),
            None => Ok(None),
        };
    }
    match bytes {
        [] => Ok(None),
        bytes if HTTP2_PREFACE.starts_with(bytes) || LINK_PREAMBLE.starts_with(bytes) => Ok(None),
        [TLS_HANDSHAKE, ..] => Err(OpeningRefused::Tls),
        [_, ..] => Err(OpeningRefused::Foreign),
    }
}

fn preamble(rest: &[u8]) -> Result<Opening, OpeningRefused> {
    let text = std::str::from_utf8(rest).map_err(|_| OpeningRefused::Malformed)?;
    let (ticket, incarnation) = text.split_once(' ').ok_or(OpeningRefused::Malformed)?;
    let incarnation = incarnation.parse().map_err(|_| OpeningRefused::Malformed)?;
    Ok(Opening::Link { ticket: Secret::new(ticket), incarnation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prefix_of_a_legal_opening_asks_for_more() {
        let link = format!("codegen-link/1 ticket {}\n", Incarnation::mint());
        for whole in [HTTP2_PREFACE, link.as_bytes()] {
            for cut in 0..whole.len() {
                assert!(matches!(classify(&whole[..cut]), Ok(None)), "{cut}");
            }
            assert!(matches!(classify(whole), Ok(Some(_))));
        }
    }

    #[test]
    fn an_opening_that_is_none_of_ours_is_refused_at_once() {
        let incarnation = Incarnation::mint();
        let long = format!("codegen-link/1 {}", "x".repeat(OPENING_BYTES_MAX));
        let early = format!("codegen-link/1 ticket {incarnation}\nearly");
        let refused: [&[u8]; 7] = [
            b"GET / HTTP/1.1",
            b"\x16\x03\x01",
            b"codegen-link/2 ",
            b"codegen-link/1 ticket\n",
            b"codegen-link/1 ticket inc_1\n",
            &long.as_bytes()[..OPENING_BYTES_MAX],
            early.as_bytes(),
        ];
        for bytes in refused {
            assert!(classify(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[tokio::test]
    async fn bytes_that_belong_to_grpc_are_handed_on() {
        let sent = [HTTP2_PREFACE, b"settings"].concat();
        let opening = read(&mut sent.as_slice()).await.unwrap();
        assert!(matches!(opening, Opening::Grpc(bytes) if bytes == sent));
        assert!(matches!(read(&mut &sent[..10]).await, Err(OpeningRefused::Ended)));
    }
}
