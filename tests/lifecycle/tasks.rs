//! The tasks extension of 2026-07-28 against the product, in raw lines.

use std::time::Duration;

use e2e::{Client, Installation, poll_until};
use serde_json::{Value, json};

/// Sends a request as a client of 2026-07-28 does that declares the extension.
fn request(client: &mut Client, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "e2e", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
    });
    client.request(method, params)
}

fn handed_out(client: &mut Client, code: &str) -> Value {
    let arguments = json!({"code": code, "background": true});
    let handle = request(client, "tools/call", json!({"name": "run_python", "arguments": arguments}));
    assert_eq!((&handle["result"]["resultType"], &handle["result"]["status"]), (&json!("task"), &json!("working")));
    handle["result"]["taskId"].clone()
}

fn get(client: &mut Client, task: &Value) -> Value {
    let got = request(client, "tasks/get", json!({"taskId": task}));
    assert!(got.get("error").is_none(), "{got}");
    got["result"].clone()
}

#[test]
fn the_result_of_a_task_handed_out_is_there_after_the_server_was_killed() {
    let installation = Installation::new();
    let mut client = installation.silent_client::<&str>([]);
    let task = handed_out(&mut client, "import time; time.sleep(0.5); print(6 * 7); raise SystemExit(3)");
    let ended = poll_until("it has ended", Duration::from_secs(20), || {
        let got = get(&mut client, &task);
        (got["status"] != "working").then_some(got)
    });
    let cut_off = handed_out(&mut client, "import time; time.sleep(1000)");
    installation.kill_server();
    let mut client = installation.silent_client::<&str>([]);
    let kept = get(&mut client, &task);
    assert_eq!((&kept["status"], &kept["result"]["isError"]), (&json!("completed"), &json!(true)), "{kept}");
    let text = kept["result"]["content"][0]["text"].as_str().expect("text");
    assert!(text.starts_with("exit 3") && text.contains("42"), "{text}");
    assert_eq!(
        (&kept["result"], &kept["createdAt"], &kept["ttlMs"]),
        (&ended["result"], &ended["createdAt"], &ended["ttlMs"])
    );
    let unknown = get(&mut client, &cut_off);
    assert_eq!(
        (&unknown["status"], &unknown["error"]["data"]["code"]),
        (&json!("failed"), &json!("TASK_OUTCOME_UNKNOWN"))
    );
}

#[test]
fn a_task_handed_out_is_cancelled_from_another_connection() {
    let installation = Installation::new();
    let mut first = installation.silent_client::<&str>([]);
    let task = handed_out(&mut first, "import time; time.sleep(1000)");
    first.close();
    let mut second = installation.silent_client::<&str>([]);
    assert_eq!(get(&mut second, &task)["status"], "working");
    let acknowledged = request(&mut second, "tasks/cancel", json!({"taskId": task}));
    assert_eq!(acknowledged["result"], json!({"resultType": "complete"}));
    poll_until("it is cancelled", Duration::from_secs(20), || {
        (get(&mut second, &task)["status"] == "cancelled").then_some(())
    });
}
