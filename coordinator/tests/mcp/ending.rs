//! How connections end, and what becomes of their calls.

use std::sync::atomic::Ordering;
use std::time::Duration;

use coordinator::mcp::Options;
use serde_json::json;

use crate::client::{Server, text, until};

#[tokio::test]
async fn an_idle_connection_ends_at_once_with_its_input() {
    let server = Server::new();
    for mut client in [server.connect(), server.client().await] {
        let begun = std::time::Instant::now();
        client.close_input();
        client.ended().await.expect("a clean end");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_call_that_is_nearly_done_is_still_answered_after_the_input_ends() {
    let server = Server::new();
    let mut client = server.client().await;
    let id = client.start_tool("run_python", json!({"code": "wait"})).await;
    until("it runs", || server.double.running.load(Ordering::Relaxed) == 1).await;
    client.close_input();
    server.double.go.notify_one();
    assert!(text(&client.answer_to(id).await["result"]).contains("let go"));
    client.ended().await.expect("a clean end");
}

#[tokio::test]
async fn progress_after_the_input_ended_is_told_and_keeps_no_answer_back() {
    let server = Server::new();
    let mut client = server.client().await;
    let call = json!({"name": "run_python", "arguments": {"code": "wait"}, "_meta": {"progressToken": "p"}});
    let id = client.start("tools/call", call).await;
    until("it runs", || server.double.running.load(Ordering::Relaxed) == 1).await;
    client.close_input();
    server.double.go.notify_one();
    assert!(text(&client.answer_to(id).await["result"]).contains("let go"));
    assert!(client.seen.iter().any(|message| message["method"] == "notifications/progress"), "{:?}", client.seen);
    client.ended().await.expect("a clean end");
}

#[tokio::test]
async fn a_last_line_without_a_newline_counts() {
    let server = Server::new();
    let mut client = server.client().await;
    client.write(br#"{"jsonrpc":"2.0","id":"last","method":"ping"}"#).await;
    client.close_input();
    assert_eq!(client.message(|m| m["id"] == "last").await["result"], json!({}));
}

#[tokio::test]
async fn calls_that_run_on_after_the_input_ended_are_cancelled() {
    let server = Server::with_options(Options { eof_grace: Duration::from_millis(50), ..Options::default() });
    let mut client = server.client().await;
    let id = client.start_tool("run_python", json!({"code": "for ever"})).await;
    until("it runs", || server.double.running.load(Ordering::Relaxed) == 1).await;
    client.close_input();
    assert!(text(&client.answer_to(id).await["result"]).starts_with("TASK_CANCELLED"));
    client.ended().await.expect("a clean end");
    assert_eq!(server.double.running.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_client_that_vanishes_takes_its_calls_with_it() {
    let server = Server::with_options(Options { eof_grace: Duration::from_millis(50), ..Options::default() });
    let mut client = server.client().await;
    client.start_tool("run_python", json!({"code": "for ever"})).await;
    until("it runs", || server.double.running.load(Ordering::Relaxed) == 1).await;
    let served = client.vanish();
    until("the task has ended", || server.double.running.load(Ordering::Relaxed) == 0).await;
    let _ = tokio::time::timeout(Duration::from_secs(60), served).await.expect("the connection ends");
    let mut next = server.client().await;
    assert_eq!(text(&next.tool("echo", json!({"message": "x"})).await), "x");
}

#[tokio::test]
async fn a_server_that_stops_cancels_and_still_answers() {
    let server = Server::new();
    let mut client = server.client().await;
    let id = client.start_tool("run_python", json!({"code": "for ever"})).await;
    until("it runs", || server.double.running.load(Ordering::Relaxed) == 1).await;
    server.stop.cancel();
    assert!(text(&client.answer_to(id).await["result"]).starts_with("TASK_CANCELLED"));
    client.ended().await.expect("a clean end");
    assert_eq!(server.double.running.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_does_not_keep_the_server() {
    let server = Server::with_options(Options { eof_grace: Duration::from_millis(50), ..Options::default() });
    let mut client = server.client().await;
    let long = "x".repeat(100_000);
    for _ in 0..50 {
        client.start_tool("echo", json!({"message": long})).await;
    }
    client.close_input();
    client.ended().await.expect("a clean end");
}
