//! `initialize` up to 2025-11-25 and the stateless 2026-07-28, in raw lines.

use e2e::Installation;
use serde_json::{Value, json};

#[test]
fn every_revision_with_a_handshake_is_answered_in_kind() {
    let installation = Installation::new();
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = installation.silent_client::<&str>([]);
        assert_eq!(client.initialize(revision)["protocolVersion"], revision);
        assert!(client.tool("echo", json!({"message": "hello"})).ok().contains("hello"));
    }
}

#[test]
fn the_stateless_revision_needs_no_handshake() {
    let installation = Installation::new();
    let mut client = installation.silent_client::<&str>([]);
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "e2e", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let discovered = client.request("server/discover", json!({"_meta": meta}));
    let versions = discovered["result"]["supportedVersions"].to_string();
    assert!(versions.contains("2026-07-28") && versions.contains("2025-11-25"), "{discovered}");
    let call = client
        .request("tools/call", json!({"_meta": meta, "name": "run_python", "arguments": {"code": "print(6 * 7)"}}));
    assert!(call["result"]["content"][0]["text"].as_str().is_some_and(|t| t.contains("42")), "{call}");
    let tools = client.request("tools/list", json!({"_meta": meta}));
    assert!(tools["result"]["tools"].as_array().is_some_and(|t| t.len() >= 14), "{tools}");
}

#[test]
fn dotted_names_are_accepted_and_underscored_ones_listed() {
    let installation = Installation::new();
    let mut client = installation.client();
    client.tool("fs.write", json!({"path": "a", "content": "dotted"})).ok();
    assert!(client.tool("fs.read", json!({"path": "a"})).ok().contains("dotted"));
    let listed = names(&client.request("tools/list", json!({})));
    assert!(listed.contains(&"fs_write".to_owned()) && listed.iter().all(|name| !name.contains('.')), "{listed:?}");
    let mut dotted = installation.client_with(["--tool-names", "dotted"]);
    let listed = names(&dotted.request("tools/list", json!({})));
    assert!(listed.contains(&"fs.write".to_owned()) && listed.iter().all(|name| !name.contains('_')), "{listed:?}");
}

fn names(answer: &Value) -> Vec<String> {
    let tools = answer["result"]["tools"].as_array().expect("tools");
    tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn output_streams_as_progress_before_the_result() {
    let installation = Installation::new();
    let mut client = installation.client();
    let code = "import time, sys\nprint('one')\ntime.sleep(0.5)\nprint('two', file=sys.stderr)\nopen('go', 'w')\ntime.sleep(1)";
    let id = client.start_tool("run_python", json!({"code": code}));
    assert!(client.progress().contains("one"));
    let answer = client.tool_answer(id);
    assert!(answer.ok().contains("one") && answer.text.contains("two"), "{}", answer.text);
}

#[test]
fn a_cancelled_call_stops_its_program() {
    let installation = Installation::new();
    let mut client = installation.client();
    let id =
        client.start_tool("run_shell", json!({"command": "echo begun; sleep 300; echo never", "timeout_seconds": 600}));
    client.progress();
    client.cancel(id);
    e2e::poll_until("nothing runs any more", std::time::Duration::from_secs(60), || {
        let info = client.tool("session_info", json!({})).structured;
        (info["running"].as_array()?.is_empty()).then_some(())
    });
}
