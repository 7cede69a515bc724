//! Clients that send too much, too slowly, or too often.

use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::{PATIENCE, Rig, until};

/// What the server says to a client that wrote this and then nothing, until it closes the connection.
async fn said_to(rig: &Rig, written: &[u8]) -> String {
    let mut stream = TcpStream::connect(rig.address).await.expect("a connection");
    stream.write_all(written).await.expect("a connection");
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("an end in time");
    String::from_utf8(said).expect("a connection")
}

#[tokio::test]
async fn heads_that_never_end_are_cut_off() {
    let rig = Rig::with(|config| config.patience.head = Duration::from_millis(300)).await;
    let begun = tokio::time::Instant::now();
    for slow in [&b"POST /mcp HTTP/1.1\r\nhost: localhost\r\n"[..], b"P", b""] {
        said_to(&rig, slow).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(900));
    // A header line now and then does not help.
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let cut = tokio::time::timeout(PATIENCE, async {
        while stream.write_all(b"a: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    cut.await.expect("the connection is cut");
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let rig = Rig::new().await;
    let long = format!("GET /mcp HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    assert!(said_to(&rig, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET /mcp HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert!(said_to(&rig, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn bodies_that_are_too_large_are_refused_by_their_length_alone() {
    let rig = Rig::new().await;
    let head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let said = said_to(&rig, format!("{head}content-length: 999999999999\r\n\r\n").as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("INVALID_ARGUMENT"), "{said}");
}

#[tokio::test]
async fn bodies_without_a_length_are_refused_when_they_have_become_too_large() {
    let rig = Rig::new().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b' '; 0x10_0000], b"\r\n"].concat();
    let (mut read, mut write) = stream.into_split();
    let writing = tokio::spawn(async move {
        let mut chunks = 0;
        while chunks < 1000 && write.write_all(&chunk).await.is_ok() {
            chunks += 1;
        }
        chunks
    });
    let mut said = vec![0; 12];
    tokio::time::timeout(PATIENCE, read.read_exact(&mut said)).await.expect("an answer in time").unwrap();
    assert_eq!(String::from_utf8(said).unwrap(), "HTTP/1.1 413");
    drop(read);
    assert!(writing.await.unwrap() < 200, "not much more than the bound was taken");
}

#[tokio::test]
async fn bodies_that_never_end_are_given_up() {
    let rig = Rig::with(|config| config.patience.body = Duration::from_millis(300)).await;
    let head =
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let said = said_to(&rig, head.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
}

#[tokio::test]
async fn one_address_cannot_take_every_connection() {
    let rig = Rig::with(|config| config.connections_per_address_max = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(TcpStream::connect(rig.address).await.unwrap());
    }
    assert!(said_to(&rig, b"").await.starts_with("HTTP/1.1 503"));
    drop(held);
    until("there is room again", || {
        let mut stream = std::net::TcpStream::connect(rig.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let refused = std::io::Read::read(&mut stream, &mut [0; 12]);
        refused.is_err()
    })
    .await;
    assert_eq!(rig.request("GET", "/healthz").send().await.status, StatusCode::OK);
}
