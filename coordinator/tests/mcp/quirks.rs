//! Clients that do things their own way get results that they show.

use std::time::Duration;

use codegen_types::event::{FileKind, FileStat};
use coordinator::mcp::Options;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::{Server, modern_meta, text};

/// The result of a tool with structured content, for a client of this name, by handshake and by request.
async fn results_for(name: &str) -> [Value; 2] {
    let server = Server::new();
    let mut older = server.connect();
    older.initialize_as(name, "2025-11-25").await;
    let mut meta = modern_meta();
    meta["io.modelcontextprotocol/clientInfo"]["name"] = json!(name);
    let mut newer = server.connect();
    let call = json!({"_meta": meta, "name": "session_list", "arguments": {}});
    let answer = newer.request("tools/call", call).await;
    [older.tool("session_list", json!({})).await, answer["result"].clone()]
}

#[tokio::test]
async fn structured_content_is_left_out_for_clients_that_would_show_it_in_place_of_the_text() {
    for name in ["codex-mcp-client", "Visual Studio Code - Insiders"] {
        for result in results_for(name).await {
            assert!(result.get("structuredContent").is_none(), "{name}: {result}");
            assert!(!text(&result).is_empty());
        }
    }
}

#[tokio::test]
async fn structured_content_that_a_tool_declares_is_given_to_clients_that_insist_and_to_unknown_ones() {
    for name in ["claude-code", "cursor-vscode", "claude-ai", "t", ""] {
        for result in results_for(name).await {
            assert!(result["structuredContent"]["sessions"].is_array(), "{name}: {result}");
            assert!(!text(&result).is_empty());
        }
    }
}

/// A file of the double, of so many bytes of text.
fn large(path: &str, bytes: usize) -> (FileStat, Vec<u8>) {
    let (path, etag) = (path.to_owned(), None);
    let stat =
        FileStat { path, kind: FileKind::File, size: bytes as u64, modified_ms: 0, etag, mode: 0o644, target: None };
    (stat, vec![b'x'; bytes])
}

#[tokio::test]
async fn a_part_of_a_file_or_listing_ends_with_the_way_to_the_rest_where_the_client_still_shows_it() {
    for (name, chars) in [("codex-mcp-client", 10_000), ("claude-code", 30_000), ("t", 20_000)] {
        let server = Server::new();
        *server.double.files.lock() = vec![large("a.txt", 300_000), large("artifacts/b.txt", 300_000)];
        server.double.files.lock().extend((0..600).map(|n| large(&format!("many/{n}"), 1)));
        let mut client = server.connect();
        client.initialize_as(name, "2025-11-25").await;
        for (tool, args, way) in [
            ("fs_read", json!({"path": "a.txt"}), "bytes follow; go on with offset "),
            ("fs_read", json!({"path": "a.txt", "encoding": "base64"}), "bytes follow; go on with offset "),
            ("artifact_get", json!({"path": "b.txt"}), "reads on]"),
            ("fs_list", json!({"path": "many"}), "or raise max_entries]"),
        ] {
            let result = client.tool(tool, args).await;
            let shown: String = text(&result).chars().take(chars).collect();
            assert!(shown.contains(way), "{name} {tool}: {} characters", text(&result).chars().count());
            let structured = result.get("structuredContent").map(|found| found.to_string().len()).unwrap_or_default();
            assert!(structured < chars, "{name} {tool}: {structured}");
        }
        let read = client.tool("fs_read", json!({"path": "a.txt"})).await;
        assert!(text(&read).len() > chars - 600, "{name} gets what it shows: {}", text(&read).len());
        let ran = client.tool("run_python", json!({"code": format!("say {}", "x".repeat(60_000))})).await;
        let (most, shown) = (chars.min(20_000), text(&ran).len());
        assert!((most - 600..=most + 600).contains(&shown), "{name}: {shown}");
        let whole = client.tool("fs_read", json!({"path": "a.txt", "limit": 300_000})).await;
        assert_eq!(text(&whole).len(), 300_000, "what is asked for is given");
        let all = client.tool("fs_list", json!({"path": "many", "max_entries": 1000})).await;
        assert!(text(&all).starts_with("many: 600 entries"), "{name}");
        for entries in [0, 1001] {
            let refused = client.tool("fs_list", json!({"max_entries": entries})).await;
            assert_eq!(refused["_meta"]["codegen/error"]["code"], "INVALID_ARGUMENT", "{refused}");
        }
    }
}

#[tokio::test]
async fn a_link_is_in_a_result_only_where_a_client_is_known_to_take_it() {
    for (name, links) in
        [("claude-code", true), ("Visual Studio Code", true), ("claude-ai", false), ("codex", false), ("t", false)]
    {
        let server = Server::new();
        let (stat, _) = large("artifacts/a.bin", 2_000_000);
        *server.double.files.lock() = vec![(stat, vec![0; 2_000_000])];
        let mut client = server.connect();
        client.initialize_as(name, "2025-11-25").await;
        let got = client.tool("artifact_get", json!({"path": "a.bin"})).await;
        let kinds: Vec<_> = got["content"].as_array().expect("blocks").iter().map(|block| &block["type"]).collect();
        let expected: &[&str] = if links { &["text", "resource_link"] } else { &["text"] };
        assert_eq!(kinds, expected, "{name}");
        assert!(text(&got).contains("workspace://"), "the text names the address all the same: {}", text(&got));
    }
}

/// To the next whole one: the clock of tests goes on by milliseconds.
fn seconds_since(begun: Instant) -> u64 {
    (begun.elapsed() + Duration::from_millis(500)).as_secs()
}

/// The operator lets calls be answered later than most clients wait.
#[tokio::test(start_paused = true)]
async fn a_call_is_answered_before_its_client_cuts_it_and_else_when_the_operator_says() {
    let options = Options { yield_after: Duration::from_secs(50), ..Options::default() };
    for (name, seconds) in [("codex", 45), ("claude-ai", 45), ("t", 45), ("cursor", 50), ("Visual Studio Code", 50)] {
        let server = Server::with_options(options.clone());
        let mut client = server.connect();
        client.initialize_as(name, "2025-11-25").await;
        let begun = Instant::now();
        let running = client.tool("run_python", json!({"code": "wait"})).await;
        assert_eq!((seconds_since(begun), &running["_meta"]["codegen/state"]), (seconds, &json!("running")), "{name}");
        let begun = Instant::now();
        let wait = json!({"task_id": running["_meta"]["codegen/task_id"], "timeout_seconds": 600});
        let waited = client.tool("task_wait", wait).await;
        assert_eq!(seconds_since(begun), seconds, "{name}");
        assert!(text(&waited).contains(&format!("waited {seconds}.0 s and not")), "{name}: {}", text(&waited));
    }
}

#[tokio::test]
async fn a_client_is_who_it_says_with_each_request() {
    let server = Server::new();
    let mut client = server.connect();
    for (name, structured) in [("codex-mcp-client", false), ("t", true), ("codex-mcp-client", false)] {
        let mut meta = modern_meta();
        meta["io.modelcontextprotocol/clientInfo"]["name"] = json!(name);
        let call = json!({"_meta": meta, "name": "session.list", "arguments": {}});
        let answer = client.request("tools/call", call).await;
        assert_eq!(answer["result"].get("structuredContent").is_some(), structured, "{name}: {answer}");
    }
}
