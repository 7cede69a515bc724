//! Calls that outlast their client's patience: answered with their task, which is looked after by its id.

use std::sync::atomic::Ordering;
use std::time::Duration;

use coordinator::mcp::Options;
use serde_json::{Value, json};

use crate::client::{Client, Server, text, until};

async fn yielded(client: &mut Client, arguments: Value) -> (String, Value) {
    let result = client.tool("run_python", arguments).await;
    assert_eq!(result["isError"], false, "{result}");
    assert_eq!(result["_meta"]["codegen/state"], "running", "{result}");
    (result["_meta"]["codegen/task_id"].as_str().expect("an id").to_owned(), result)
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_answered_with_its_task_and_goes_on() {
    let server = Server::new();
    let mut client = server.client().await;
    let (task, result) = yielded(&mut client, json!({"code": "wait", "yield_after_seconds": 0.05})).await;
    assert!(text(&result).starts_with("still running after "), "{}", text(&result));
    assert!(text(&result).contains(&task) && text(&result).contains("task_wait"), "{}", text(&result));
    let status = client.tool("task_status", json!({"task_id": task})).await;
    assert_eq!(status["structuredContent"]["state"], "running");
    drop(client);
    let mut other = server.client().await;
    let listed = other.tool("task_list", json!({"state": "running"})).await;
    assert_eq!(listed["structuredContent"]["tasks"][0]["task_id"], task.as_str());
    server.double.go.notify_one();
    let result = other.tool("task_wait", json!({"task_id": task})).await;
    assert!(text(&result).starts_with("exit 0") && text(&result).contains("let go"), "{}", text(&result));
    let listed = other.tool("task_list", json!({"state": "running"})).await;
    assert_eq!(listed["structuredContent"]["tasks"], json!([]));
}

#[tokio::test]
async fn a_background_call_is_answered_at_once_and_a_wait_says_when_it_is_too_early() {
    let server = Server::new();
    let mut client = server.client().await;
    let (task, _) = yielded(&mut client, json!({"code": "wait", "background": true})).await;
    let result = client.tool("task_wait", json!({"task_id": task, "timeout_seconds": 0.02})).await;
    assert_eq!(result["_meta"]["codegen/state"], "running", "{result}");
    server.double.go.notify_one();
    until("it has ended", || server.double.calls.lock().len() == 1).await;
    let calls = server.double.calls.lock();
    assert_eq!(calls[0].timeout.map(|timeout| timeout.as_secs()), Some(3600), "the longest there is");
}

#[tokio::test]
async fn a_wait_that_is_cut_short_says_so() {
    let options = Options { yield_after: Duration::from_millis(50), ..Options::default() };
    let server = Server::with_options(options);
    let mut client = server.client().await;
    let (task, _) = yielded(&mut client, json!({"code": "wait", "background": true})).await;
    let cut = client.tool("task_wait", json!({"task_id": task, "timeout_seconds": 600})).await;
    assert!(text(&cut).contains("waited 0.05 s and not `timeout_seconds`"), "{}", text(&cut));
    let whole = client.tool("task_wait", json!({"task_id": task, "timeout_seconds": 0.02})).await;
    assert!(!text(&whole).contains("waited"), "{}", text(&whole));
    server.double.go.notify_one();
}

#[tokio::test]
async fn a_yielded_task_is_ended_by_its_id_and_by_nothing_else() {
    let server = Server::new();
    let mut client = server.client().await;
    let (task, _) = yielded(&mut client, json!({"code": "for ever", "background": true})).await;
    client.tool("task_wait", json!({"task_id": task, "timeout_seconds": 0})).await;
    drop(client);
    let mut other = server.client().await;
    assert_eq!(server.double.running.load(Ordering::Relaxed), 1, "the end of its connection is not its end");
    let cancelled = other.tool("task_cancel", json!({"task_id": task})).await;
    assert_eq!(cancelled["structuredContent"]["code"], "TASK_CANCELLED", "{cancelled}");
    let result = other.tool("task_wait", json!({"task_id": task})).await;
    assert_eq!((&result["isError"], server.double.running.load(Ordering::Relaxed)), (&json!(true), 0));
}

#[tokio::test]
async fn a_task_of_nobody_is_not_found() {
    let server = Server::new();
    let mut client = server.client().await;
    for tool in ["task_wait", "task_status", "task_cancel"] {
        for task in ["tsk_x", "", "../x", "tsk_01890f3e-7d2b-7cc0-98c4-dc0c0c07398f"] {
            let result = client.tool(tool, json!({"task_id": task})).await;
            assert_eq!(result["_meta"]["codegen/error"]["code"], "NOT_FOUND", "{tool} {task}: {result}");
        }
    }
}

#[tokio::test]
async fn what_the_answer_is_to_be_like_is_checked() {
    let server = Server::new();
    let mut client = server.client().await;
    for wrong in [
        json!({"yield_after_seconds": 0}),
        json!({"yield_after_seconds": -1}),
        json!({"yield_after_seconds": 1e9}),
        json!({"max_output_chars": 199}),
        json!({"max_output_chars": 100_001}),
        json!({"background": "yes"}),
    ] {
        let mut arguments = wrong.clone();
        arguments["code"] = json!("wait");
        let result = client.tool("run_python", arguments).await;
        assert_eq!(result["_meta"]["codegen/error"]["code"], "INVALID_ARGUMENT", "{wrong}: {result}");
    }
}

#[tokio::test]
async fn output_is_read_from_a_cursor_and_by_lines() {
    let server = Server::new();
    let mut client = server.client().await;
    let (task, _) = yielded(&mut client, json!({"code": "wait", "background": true})).await;
    let first = client.tool("task_logs", json!({"task_id": task})).await;
    let part = "still running, bytes 0 to 7 of 7\n\nso far\n\n\nnext_cursor: ";
    assert!(text(&first).contains(part), "the line's end is a part of the output: {}", text(&first));
    let cursor = &first["_meta"]["codegen/next_cursor"];
    let next = client.tool("task_logs", json!({"task_id": task, "cursor": cursor})).await;
    assert!(text(&next).contains("bytes 7 to 7 of 7\n\n(no output)"), "{}", text(&next));
    for (pattern, found) in [("^so", "so far"), ("never", "(no line matches)")] {
        let lines = client.tool("task_logs", json!({"task_id": task, "grep": pattern})).await;
        assert!(text(&lines).contains(found), "{}", text(&lines));
    }
    for wrong in [json!({"grep": "("}), json!({"cursor": "zzz"}), json!({"max_chars": 1})] {
        let mut arguments = wrong.clone();
        arguments["task_id"] = json!(task);
        let result = client.tool("task_logs", arguments).await;
        assert_eq!(result["_meta"]["codegen/error"]["code"], "INVALID_ARGUMENT", "{wrong}: {result}");
    }
}
