//! Clients that do things their own way get over HTTP what they show, as they do over stdio.

use codegen_types::event::{FileKind, FileStat};
use serde_json::{Value, json};

use crate::rig::{Rig, text_of};

fn file(path: &str, byte: u8) -> (FileStat, Vec<u8>) {
    let contents = vec![byte; 300_000];
    let stat = FileStat {
        path: path.to_owned(),
        kind: FileKind::File,
        size: contents.len() as u64,
        modified_ms: 0,
        etag: None,
        mode: 0o644,
        target: None,
    };
    (stat, contents)
}

/// The answer to a client of this name that calls a tool over HTTP+SSE.
async fn over_sse(rig: &Rig, client: &str, call: &Value) -> Value {
    let mut stream = rig.request("GET", "/sse").send().await;
    let endpoint = stream.endpoint().await;
    let about = json!({"name": client, "version": "1"});
    let hello = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": about});
    for message in [
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}),
    ] {
        let posted = rig.request("POST", &endpoint).header("content-type", "application/json");
        posted.body(message.to_string()).send().await;
    }
    loop {
        let message = stream.message().await.expect("an answer before the end");
        if message["id"] == 1 {
            return message;
        }
    }
}

/// A tool's answers to a client of this name: in a session of the protocol, to a request of its own, and over HTTP+SSE.
async fn answers(rig: &Rig, client: &str, tool: &str, mut arguments: Value) -> [Value; 3] {
    arguments["session_id"] = json!(rig.session("2025-11-25", None).await.handle().await);
    let session = rig.session_of(client, "2025-11-25", None).await;
    let older = session.tool(7, tool, arguments.clone()).send().await.answer().await;
    let params = json!({"name": tool, "arguments": arguments});
    let newer = rig.stateless_by(client, "tools/call", params.clone()).send().await.answer().await;
    [older, newer, over_sse(rig, client, &params).await]
}

#[tokio::test]
async fn how_much_of_a_file_is_given_depends_on_what_the_client_shows() {
    let rig = Rig::new().await;
    *rig.double.files.lock() = vec![file("a.txt", b'x')];
    for (client, chars) in [("codex-mcp-client", 10_000), ("t", 20_000), ("claude-code", 30_000)] {
        for read in answers(&rig, client, "fs_read", json!({"path": "a.txt"})).await {
            let given = text_of(&read).len();
            assert!((chars - 600..=chars).contains(&given), "{client}: {given}");
        }
    }
}

#[tokio::test]
async fn links_and_structured_content_are_given_to_clients_that_are_known_to_take_them() {
    let rig = Rig::new().await;
    *rig.double.files.lock() = vec![file("artifacts/a.bin", 0)];
    for (client, links, structured) in
        [("claude-code", true, true), ("Visual Studio Code", true, false), ("codex", false, false), ("t", false, true)]
    {
        for got in answers(&rig, client, "artifact_get", json!({"path": "a.bin"})).await {
            let blocks = got["result"]["content"].as_array().expect("blocks");
            assert_eq!(blocks.iter().any(|block| block["type"] == "resource_link"), links, "{client}: {got}");
        }
        for info in answers(&rig, client, "session_info", json!({})).await {
            assert_eq!(info["result"].get("structuredContent").is_some(), structured, "{client}: {info}");
        }
    }
}
