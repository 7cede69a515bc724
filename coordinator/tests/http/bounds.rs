//! Clients that send too much, too slowly, or too often.

use std::time::Duration;

use coordinator::config::HttpBounds;
use coordinator::identity::Scopes;
use hyper::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::{PATIENCE, Rig, text_of, until};

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
    let refused = said_to(&rig, b"").await;
    let (head, body) = refused.split_once("\r\n\r\n").expect("a whole answer");
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("content-type: application/json"), "{refused}");
    assert!(head.ends_with(&format!("content-length: {}", body.len())), "{refused}");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((&body["error"]["code"], &body["error"]["details"]), (&json!("NO_CAPACITY"), &json!({})), "{body}");
    assert!(body["error"]["message"].is_string(), "{body}");
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

/// Begins a body of which so much comes, and then nothing.
async fn unfinished(rig: &Rig, token: &str, bytes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(rig.address).await.expect("a connection");
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-length: 90000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a connection");
    // What is refused is no longer read.
    let _refused = stream.write_all(&vec![b' '; bytes]).await;
    stream
}

async fn status(stream: &mut TcpStream) -> String {
    let mut said = vec![0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut said)).await.expect("an answer in time").expect("an answer");
    String::from_utf8(said).expect("a status line")
}

#[tokio::test]
async fn bodies_of_one_user_leave_room_for_those_of_others_and_large_ones_for_small_ones() {
    let rig = Rig::with(|config| {
        config.bounds = HttpBounds { bodies_bytes: 16 << 20, bodies_of_one_bytes: 8 << 20 };
    })
    .await;
    let (ann, bob) = (rig.token("ann", Scopes::USER).await, rig.token("bob", Scopes::USER).await);
    let large = 6 << 20;
    let _held = unfinished(&rig, &ann, large).await;
    let mut second = unfinished(&rig, &ann, large).await;
    assert_eq!(status(&mut second).await, "HTTP/1.1 429", "it would be more than her share");
    let _of_bob = unfinished(&rig, &bob, large).await;
    let eve = rig.token("eve", Scopes::USER).await;
    let mut third = unfinished(&rig, &eve, large).await;
    assert_eq!(status(&mut third).await, "HTTP/1.1 503", "all together");
    for token in [&ann, &bob, &eve] {
        let small = rig.stateless("tools/list", json!({})).bearer(Some(token)).send().await;
        assert_eq!(small.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_body_s_room_is_taken_until_its_call_is_over() {
    let rig = Rig::with(|config| {
        config.bounds = HttpBounds { bodies_bytes: 64 << 20, bodies_of_one_bytes: 4 << 20 };
    })
    .await;
    let session = rig.session("2025-11-25", None).await;
    let handle = session.handle().await;
    let call = |id: u64| {
        let params = json!({"name": "run_python", "arguments": {"session_id": handle, "code": "wait"}});
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        session.post(&message).body(format!("{message}{}", " ".repeat(3 << 20)))
    };
    let first = call(1).send().await;
    until("it runs", || rig.double.running.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    let second = call(2).send().await;
    assert_eq!(second.status, StatusCode::TOO_MANY_REQUESTS);
    rig.double.go.notify_one();
    assert!(text_of(&first.answer().await).contains("let go"));
    let third = call(3).send().await;
    assert_eq!(third.status, StatusCode::OK);
    rig.double.go.notify_one();
    third.answer().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_for_too_long_is_cut_off() {
    let rig = Rig::with(|config| config.patience.unread = Duration::from_millis(300)).await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let list = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1_000);
    let cut = async {
        // Answers that nobody reads fill both buffers; then the server reads no more, and ends.
        while stream.write_all(list.as_bytes()).await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, cut).await.expect("the connection is cut");
}
