//! Clients that do things their own way get results that they show.

use serde_json::{Value, json};

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
