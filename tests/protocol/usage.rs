//! What each user may do and did, as the product tells it to clients and operators.

use serde_json::{Value, json};

use crate::http::Server;

fn token(server: &Server, principal: &str) -> String {
    let made = server.installation().run(["tokens", "create", "--principal", principal]);
    assert!(made.status.success(), "{made:?}");
    String::from_utf8_lossy(&made.stdout).split_whitespace().next().expect("a token").to_owned()
}

fn call(server: &Server, token: &str, name: &str, arguments: Value) -> String {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "counted", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"name": name, "arguments": arguments, "_meta": meta});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    server.says(&format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         authorization: Bearer {token}\r\naccept: application/json, text/event-stream\r\n\
         mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: {name}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// The rows of a report.
fn usage(server: &Server, arguments: &[&str]) -> Vec<Value> {
    let output = server.installation().run([&["usage", "--json"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    let mut report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report["through"].as_u64().is_some_and(|seq| seq > 0), "{report}");
    serde_json::from_value(report["rows"].take()).expect("rows")
}

#[test]
fn a_rate_is_each_users_own_and_usage_agrees_with_what_was_done() {
    let server = Server::start(&["--http-rate", "1/h burst 4"]);
    let (ann, bob) = (token(&server, "ann"), token(&server, "bob"));
    let made = call(&server, &ann, "session_create", json!({}));
    let session = made.split('"').find(|word| word.starts_with("ses_") && word.len() > 8).expect("a handle");
    let ran = call(&server, &ann, "run_python", json!({"code": "print(sum(range(10**7)))", "session_id": session}));
    assert!(ran.contains("49999995000000"), "{ran}");
    let info = call(&server, &ann, "session_info", json!({"session_id": session}));
    assert!(info.contains("1/h burst 4") && info.contains("cpu_seconds_per_day"), "{info}");
    call(&server, &ann, "echo", json!({"message": "x"}));
    let refused = call(&server, &ann, "echo", json!({"message": "x"}));
    assert!(refused.contains("RATE_LIMITED") && refused.contains("retry_after_ms"), "{refused}");
    assert!(!call(&server, &bob, "echo", json!({"message": "x"})).contains("RATE_LIMITED"));

    let by_user = usage(&server, &["--by", "user", "--since", "1h"]);
    let [ann, bob] = by_user.as_slice() else { panic!("two users: {by_user:?}") };
    assert_eq!((&ann["name"], &ann["calls"], &ann["refusals"]), (&json!("ann"), &json!(5), &json!(1)), "{ann}");
    assert!(ann["cpu_ms"].as_u64() > Some(0) && ann["memory_peak_bytes"].as_u64() > Some(0), "{ann}");
    assert_eq!((&bob["calls"], &bob["refusals"], &bob["cpu_ms"]), (&json!(1), &json!(0), &json!(0)), "{bob}");
    let by_tool = usage(&server, &["--by", "tool", "--principal", "ann"]);
    let ran = by_tool.iter().find(|row| row["name"] == "run_python").expect("a row of the tool");
    assert_eq!((&ran["calls"], &ran["failures"], &ran["bytes_out"]), (&json!(1), &json!(0), &json!(15)), "{ran}");
    assert_eq!(usage(&server, &["--by", "day"]).len(), 1);

    let log = server.installation().state_dir().join("audit").display().to_string();
    let elsewhere = server.installation().run(["usage", "--log", &log]);
    let said = String::from_utf8_lossy(&elsewhere.stdout);
    assert!(said.contains("ann") && said.contains("Up to record"), "{said}");
}
