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

/// A tool's answers to a client of this name: in a session of the protocol, and to a request of its own.
async fn answers(rig: &Rig, client: &str, tool: &str, mut arguments: Value) -> [Value; 2] {
    arguments["session_id"] = json!(rig.session("2025-11-25", None).await.handle().await);
    let session = rig.session_of(client, "2025-11-25", None).await;
    let older = session.tool(7, tool, arguments.clone()).send().await.answer().await;
    let params = json!({"name": tool, "arguments": arguments});
    [older, rig.stateless_by(client, "tools/call", params).send().await.answer().await]
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
