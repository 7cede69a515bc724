//! Bad lines: answered, skipped, and the connection goes on.

use coordinator::mcp::LINE_BYTES_MAX;
use serde_json::{Value, json};

use crate::client::{Client, Server, text};

async fn still_works(client: &mut Client) {
    assert_eq!(text(&client.tool("echo", json!({"message": "fine"})).await), "fine");
}

async fn refused(client: &mut Client, line: &[u8]) -> Value {
    client.write(line).await;
    client.write(b"\n").await;
    let answer = client.message(|m| m.get("error").is_some()).await;
    still_works(client).await;
    answer
}

#[tokio::test]
async fn what_is_no_json_is_a_parse_error_without_an_id() {
    let server = Server::new();
    let mut client = server.client().await;
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    for line in [&b"{nonsense"[..], b"\xff\xfe", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xc3\x28\"}", b"}", &deep]
    {
        let answer = refused(&mut client, line).await;
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32700), &Value::Null), "{answer}");
        assert!(answer.as_object().is_some_and(|a| a.contains_key("id")), "the id is there, and null");
    }
}

#[tokio::test]
async fn json_that_is_no_message_is_an_invalid_request() {
    let server = Server::new();
    let mut client = server.client().await;
    let lines: [&[u8]; 7] = [
        b"42",
        b"\"text\"",
        b"[]",
        b"{}",
        b"{\"jsonrpc\":\"2.0\"}",
        b"{\"id\":[],\"method\":7}",
        b"{\"jsonrpc\":\"1.0\",\"id\":[],\"method\":\"ping\"}",
    ];
    for line in lines {
        let answer = refused(&mut client, line).await;
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32600), &Value::Null), "{answer}");
    }
    let answer = refused(&mut client, b"{\"jsonrpc\":\"1.0\",\"id\":\"a\",\"method\":\"ping\"}").await;
    assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32600), &json!("a")), "{answer}");
}

#[tokio::test]
async fn notifications_that_mean_nothing_are_not_answered() {
    let server = Server::new();
    let mut client = server.client().await;
    for line in ["{\"jsonrpc\":\"2.0\",\"method\":\"what/ever\"}", "{\"method\":\"no/version\"}"] {
        client.write(format!("{line}\n").as_bytes()).await;
    }
    still_works(&mut client).await;
    assert_eq!(client.seen, [] as [Value; 0]);
}

#[tokio::test]
async fn blank_lines_carriage_returns_and_a_byte_order_mark_are_taken() {
    let server = Server::new();
    let mut client = server.client().await;
    client.write(b"\n\r\n   \n").await;
    client.write(b"\xef\xbb\xbf{\"jsonrpc\":\"2.0\",\"id\":\"crlf\",\"method\":\"ping\"}\r\n").await;
    assert_eq!(client.message(|m| m["id"] == "crlf").await["result"], json!({}));
    still_works(&mut client).await;
}

#[tokio::test]
async fn a_batch_is_answered_message_by_message() {
    let server = Server::new();
    let mut client = server.client().await;
    let batch = json!([
        {"jsonrpc": "2.0", "id": "b1", "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        7,
        {"jsonrpc": "2.0", "id": "b2", "method": "tools/call", "params": {"name": "echo", "arguments": {"message": "b"}}},
    ]);
    client.send(&batch).await;
    assert_eq!(client.message(|m| m["id"] == "b1").await["result"], json!({}));
    assert_eq!(text(&client.message(|m| m["id"] == "b2").await["result"]), "b");
    assert_eq!(client.message(|m| m["id"].is_null()).await["error"]["code"], -32600);
    let many = json!(vec![json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}); 101]);
    assert_eq!(refused(&mut client, many.to_string().as_bytes()).await["error"]["code"], -32600);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_skipped_to_its_end() {
    let server = Server::new();
    let mut client = server.client().await;
    let block = vec![b'x'; 1 << 20];
    for _ in 0..=LINE_BYTES_MAX >> 20 {
        client.write(&block).await;
    }
    let answer = client.message(|m| m.get("error").is_some()).await;
    assert_eq!(answer["error"]["code"], -32600);
    client.write(&block).await;
    client.write(b"\n").await;
    still_works(&mut client).await;
    assert_eq!(client.seen, [] as [Value; 0], "one error for one line");
}

#[tokio::test]
async fn a_file_of_the_largest_size_comes_through_whole() {
    let server = Server::new();
    let mut client = server.client().await;
    let contents = "AAAA".repeat((64 << 20) / 3);
    let written = client.tool("fs_write", json!({"path": "a", "contents": contents, "encoding": "base64"})).await;
    assert_eq!(written["isError"], false, "{written}");
    let calls = server.double.calls.lock();
    let codegen_types::Operation::Write(write) = &calls[0].operation else { panic!("a write") };
    assert_eq!(write.contents.len(), (64 << 20) / 3 * 3);
}
