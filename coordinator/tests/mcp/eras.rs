//! Both eras of the protocol, and what is listed in each.

use coordinator::mcp::{Options, ToolNames};
use serde_json::{Value, json};

use crate::client::{Server, modern_meta, text};

#[tokio::test]
async fn every_revision_with_a_handshake_is_answered_in_kind() {
    let server = Server::new();
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = server.connect();
        let hello = client.initialize(revision).await;
        assert_eq!(hello["protocolVersion"], revision);
        let mut capabilities =
            json!({"tools": {}, "prompts": {}, "resources": {"subscribe": true, "listChanged": true}});
        if revision != "2024-11-05" {
            capabilities["completions"] = json!({});
        }
        assert_eq!(hello["capabilities"], capabilities);
        assert!(hello["instructions"].as_str().is_some_and(|text| text.len() < 2_000));
        let echoed = client.tool("echo", json!({"message": "hello"})).await;
        assert_eq!(text(&echoed), "hello");
        assert!(echoed.get("resultType").is_none(), "a word of a later revision: {echoed}");
        assert_eq!(client.request("ping", json!({})).await["result"], json!({}));
    }
}

#[tokio::test]
async fn an_unknown_revision_is_answered_with_one_that_is_spoken() {
    let server = Server::new();
    for revision in ["2023-01-01", "2999-01-01", "2026-07-28"] {
        assert_eq!(server.connect().initialize(revision).await["protocolVersion"], "2025-11-25");
    }
}

#[tokio::test]
async fn the_stateless_revision_needs_no_handshake() {
    let server = Server::new();
    let mut client = server.connect();
    let discovered = client.request("server/discover", json!({"_meta": modern_meta()})).await;
    let result = &discovered["result"];
    let versions = result["supportedVersions"].as_array().expect("versions");
    assert!(versions.contains(&json!("2026-07-28")) && versions.contains(&json!("2024-11-05")), "{discovered}");
    assert!(result["instructions"].is_string() && result["capabilities"]["tools"].is_object(), "{discovered}");
    let call = json!({"_meta": modern_meta(), "name": "echo", "arguments": {"message": "hello"}});
    let answer = client.request("tools/call", call).await;
    assert_eq!(text(&answer["result"]), "hello");
    assert_eq!(answer["result"]["resultType"], "complete");
    let listed = client.request("tools/list", json!({"_meta": modern_meta()})).await;
    assert_eq!(listed["result"]["tools"].as_array().map(Vec::len), Some(coordinator::tools::TOOLS.len()));
    let bare = client.request("tools/list", json!({})).await;
    assert_eq!(bare["error"]["code"], -32602, "{bare}");
}

#[tokio::test]
async fn what_is_the_same_for_everybody_may_be_kept_for_a_while_and_nothing_else() {
    let server = Server::new();
    let mut client = server.connect();
    let mut hints = async |method: &str, mut params: Value| {
        params["_meta"] = modern_meta();
        let result = client.request(method, params).await["result"].clone();
        (result["ttlMs"].clone(), result["cacheScope"].clone())
    };
    for method in ["server/discover", "tools/list", "prompts/list", "resources/templates/list"] {
        assert_eq!(hints(method, json!({})).await, (json!(300_000), json!("public")), "{method}");
    }
    assert_eq!(hints("resources/list", json!({})).await, (json!(0), json!("private")));
    let mut earlier = server.client().await;
    for method in ["tools/list", "prompts/list", "resources/templates/list", "resources/list"] {
        let result = earlier.request(method, json!({})).await["result"].clone();
        assert!(result.get("ttlMs").is_none() && result.get("cacheScope").is_none(), "{method}: {result}");
    }
}

#[tokio::test]
async fn discovery_may_be_followed_by_a_handshake() {
    let server = Server::new();
    let mut client = server.connect();
    client.request("server/discover", json!({"_meta": modern_meta()})).await;
    assert_eq!(client.initialize("2025-06-18").await["protocolVersion"], "2025-06-18");
    assert_eq!(text(&client.tool("echo", json!({"message": "x"})).await), "x");
}

#[tokio::test]
async fn what_comes_before_the_beginning_does_not_end_the_connection() {
    let server = Server::new();
    let mut client = server.connect();
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    client.send(&json!({"jsonrpc": "2.0", "id": 77, "result": {}})).await;
    client.write(b"\n{not json\n").await;
    assert_eq!(client.message(|m| m["error"]["code"] == -32700).await["id"], Value::Null);
    assert!(client.request("tools/list", json!({})).await["error"]["code"].is_i64());
    client.initialize("2025-11-25").await;
    assert_eq!(text(&client.tool("echo", json!({"message": "x"})).await), "x");
}

#[tokio::test]
async fn the_list_is_the_same_for_everyone_and_not_large() {
    let server = Server::new();
    let one = server.client().await.request("tools/list", json!({})).await;
    let mut other = server.connect_as("bob");
    other.initialize("2025-06-18").await;
    let other = other.request("tools/list", json!({})).await;
    assert_eq!(one["result"]["tools"], other["result"]["tools"]);
    let size = one["result"]["tools"].to_string().len();
    assert!(size < 45_000, "tools/list has {size} bytes");
}

#[tokio::test]
async fn annotations_tell_reading_from_acting() {
    let answer = Server::new().client().await.request("tools/list", json!({})).await;
    for tool in answer["result"]["tools"].as_array().expect("tools") {
        let acts = tool["inputSchema"]["properties"].get("idempotency_key").is_some();
        assert_eq!(tool["annotations"]["readOnlyHint"], !acts, "{tool}");
        assert_eq!(tool["annotations"]["openWorldHint"], false);
        assert!(tool["title"].is_string() && tool["description"].is_string());
        let name = tool["name"].as_str().expect("a name");
        // Beside pictures and output, structure would hide what a model is to read.
        let runs = tool["inputSchema"]["properties"].get("max_output_chars").is_some();
        let structured = name.starts_with("session_") || name.ends_with("_list") || name.ends_with("_stat");
        assert!(!(runs && tool.get("outputSchema").is_some()), "{name}");
        assert!(!structured || tool.get("outputSchema").is_some(), "{name}");
    }
}

#[tokio::test]
async fn names_are_listed_in_one_form_and_taken_in_both() {
    for (names, listed_so) in [(ToolNames::Underscored, "fs_read"), (ToolNames::Dotted, "fs.read")] {
        let server = Server::with_options(Options { tool_names: names, ..Options::default() });
        let mut client = server.client().await;
        let answer = client.request("tools/list", json!({})).await;
        let listed: Vec<&str> =
            answer["result"]["tools"].as_array().expect("tools").iter().filter_map(|t| t["name"].as_str()).collect();
        assert!(listed.contains(&listed_so));
        assert!(
            listed.iter().all(|name| name.contains('_') != listed_so.contains('.') || *name == "echo"),
            "{listed:?}"
        );
        for name in ["fs_read", "fs.read"] {
            assert_eq!(text(&client.tool(name, json!({"path": "a"})).await), "hello");
        }
    }
}

#[tokio::test]
async fn unknown_methods_tools_and_cursors_are_protocol_errors() {
    let mut client = Server::new().client().await;
    assert_eq!(client.request("no/such", json!({})).await["error"]["code"], -32601);
    assert_eq!(client.request("tools/call", json!({"name": "nope", "arguments": {}})).await["error"]["code"], -32602);
    assert_eq!(client.request("tools/call", json!({"arguments": {}})).await["error"]["code"], -32602);
    assert_eq!(client.request("tools/call", json!({"name": "echo", "arguments": [1]})).await["error"]["code"], -32602);
    assert_eq!(client.request("tools/list", json!({"cursor": "2"})).await["error"]["code"], -32602);
    assert_eq!(text(&client.tool("echo", json!({"message": "x"})).await), "x");
}
