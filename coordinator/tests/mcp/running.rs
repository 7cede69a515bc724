//! While a task runs: progress, cancellation.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::client::{Client, Server, modern_meta, text, until};

async fn run_with_progress(client: &mut Client, code: &str, mut meta: Value) -> (Vec<Value>, Value) {
    meta["progressToken"] = json!("p");
    let params = json!({"name": "run_python", "arguments": {"code": code}, "_meta": meta});
    let id = client.start("tools/call", params).await;
    let mut progress = Vec::new();
    loop {
        let message = client.next().await.expect("an answer");
        if message["id"] == id {
            return (progress, message["result"].clone());
        }
        assert_eq!(message["method"], "notifications/progress");
        assert_eq!(message["params"]["progressToken"], "p");
        progress.push(message["params"].clone());
    }
}

fn grows(progress: &[Value]) -> bool {
    progress.windows(2).all(|pair| pair[0]["progress"].as_f64() < pair[1]["progress"].as_f64())
}

#[tokio::test]
async fn output_is_told_in_order_and_all_before_the_result() {
    let server = Server::new();
    let mut classic = server.client().await;
    let mut modern = server.connect();
    for (client, meta) in [(&mut classic, json!({})), (&mut modern, modern_meta())] {
        let (progress, result) = run_with_progress(client, "count 200", meta).await;
        let told: String = progress.iter().filter_map(|p| p["message"].as_str()).collect();
        assert_eq!(told, (0..200).map(|n| format!("line {n}\n")).collect::<String>());
        assert!(progress.len() <= 3 && grows(&progress), "at most four a second: {progress:?}");
        assert!(text(&result).contains("counted"));
    }
}

#[tokio::test]
async fn a_client_that_asked_for_none_gets_no_progress() {
    let server = Server::new();
    let mut client = server.client().await;
    client.tool("run_python", json!({"code": "count 200"})).await;
    assert_eq!(client.seen, [] as [Value; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_task_is_said_to_run_still() {
    let server = Server::new();
    let mut client = server.client().await;
    let (progress, _) = run_with_progress(&mut client, "quiet", json!({})).await;
    let told: Vec<&str> = progress.iter().filter_map(|p| p["message"].as_str()).collect();
    assert_eq!(told, ["still running after 10 s", "still running after 20 s"]);
}

#[tokio::test]
async fn a_flood_of_output_is_bounded_in_progress() {
    let server = Server::new();
    let mut client = server.client().await;
    let (progress, _) = run_with_progress(&mut client, "count 100000", json!({})).await;
    assert!(progress.iter().all(|p| p["message"].as_str().is_some_and(|m| m.len() < 20_000)));
    let last = progress.last().expect("progress")["message"].as_str().expect("text");
    assert!(last.ends_with("line 99999\n"), "{last}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_hold_up_its_task() {
    let server = Server::new();
    let mut client = server.client().await;
    for _ in 0..10 {
        client.start_tool("echo", json!({"message": "x".repeat(100_000)})).await;
    }
    let params = json!({
        "name": "run_python", "arguments": {"code": "count 100000"}, "_meta": {"progressToken": 1},
    });
    let id = client.start("tools/call", params).await;
    until("it has ended", || server.double.calls.lock().len() == 1).await;
    assert!(text(&client.answer_to(id).await["result"]).contains("counted"));
}

#[tokio::test]
async fn a_cancelled_call_ends_its_task_and_is_not_answered() {
    let server = Server::new();
    let mut client = server.client().await;
    let id = client.start_tool("run_python", json!({"code": "for ever"})).await;
    until("it runs", || server.double.running.load(Ordering::Relaxed) == 1).await;
    let cancelled = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    client.send(&cancelled).await;
    until("it has ended", || server.double.running.load(Ordering::Relaxed) == 0).await;
    assert_eq!(text(&client.tool("echo", json!({"message": "x"})).await), "x");
    assert_eq!(client.seen, [] as [Value; 0], "a cancelled request is not answered");
    let unknown = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 999}});
    client.send(&unknown).await;
    assert_eq!(text(&client.tool("echo", json!({"message": "x"})).await), "x");
}
