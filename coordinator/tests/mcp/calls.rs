//! Tool calls: sessions, arguments, results, and calls beside each other.

use coordinator::mcp::Options;
use serde_json::{Value, json};

use crate::client::{Client, Server, text};

async fn session_of(client: &mut Client) -> String {
    let info = client.tool("session_info", json!({})).await;
    info["structuredContent"]["session_id"].as_str().expect("a handle").to_owned()
}

#[tokio::test]
async fn a_connection_has_one_default_session_of_its_own() {
    let server = Server::new();
    let (mut one, mut other) = (server.client().await, server.client().await);
    let first = session_of(&mut one).await;
    assert_eq!(session_of(&mut one).await, first);
    assert_ne!(session_of(&mut other).await, first);
    one.tool("fs_read", json!({"path": "a"})).await;
    assert_eq!(server.double.calls.lock()[0].session.to_string(), first);
    let listed = one.tool("session_list", json!({})).await;
    let sessions = listed["structuredContent"]["sessions"].as_array().expect("sessions").clone();
    assert_eq!(sessions.len(), 2);
    for session in sessions {
        assert_eq!(session["name"], "default");
        assert_eq!(session["is_default"], session["session_id"] == *first);
    }
}

#[tokio::test]
async fn calls_that_arrive_together_share_the_default_session() {
    let server = Server::new();
    let mut client = server.client().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(client.start_tool("fs_stat", json!({"path": "a"})).await);
    }
    for id in ids {
        client.answer_to(id).await;
    }
    let calls = server.double.calls.lock();
    assert!(calls.iter().all(|call| call.session == calls[0].session));
}

#[tokio::test]
async fn a_default_session_that_ended_is_replaced_and_a_lost_one_is_told_first() {
    let server = Server::new();
    let mut client = server.client().await;
    let first = session_of(&mut client).await;
    client.tool("session_close", json!({"session_id": first})).await;
    let second = session_of(&mut client).await;
    assert_ne!(second, first);
    server.double.set_state(second.parse().expect("a handle"), "lost");
    assert!(text(&client.tool("fs_read", json!({"path": "a"})).await).starts_with("SESSION_LOST"));
    assert_ne!(session_of(&mut client).await, second);
}

#[tokio::test]
async fn a_handle_works_from_another_connection_of_its_principal_only() {
    let server = Server::new();
    let mut maker = server.client().await;
    let made = maker.tool("session_create", json!({"name": "shared", "metadata": {"n": 1}, "ttl_seconds": 60})).await;
    let view = &made["structuredContent"];
    assert_eq!(
        (&view["name"], &view["metadata"], &view["ttl_seconds"]),
        (&json!("shared"), &json!({"n": 1}), &json!(60))
    );
    let session = view["session_id"].clone();
    let mut friend = server.client().await;
    assert_eq!(friend.tool("fs_read", json!({"session_id": session, "path": "a"})).await["isError"], false);
    let mut stranger = server.connect_as("bob");
    stranger.initialize("2025-11-25").await;
    for tool in ["session_info", "session_close", "session_update"] {
        let refused = stranger.tool(tool, json!({"session_id": session})).await;
        assert!(text(&refused).starts_with("SESSION_NOT_FOUND"), "{refused}");
    }
    let refused = stranger.tool("fs_read", json!({"session_id": session, "path": "a"})).await;
    assert!(text(&refused).starts_with("SESSION_NOT_FOUND"), "{refused}");
    let nonsense = stranger.tool("session_info", json!({"session_id": "nonsense"})).await;
    assert!(text(&nonsense).starts_with("SESSION_NOT_FOUND"), "{nonsense}");
}

#[tokio::test]
async fn bad_arguments_are_refused_by_name_and_nothing_is_done() {
    let server = Server::new();
    let mut client = server.client().await;
    let bad: Vec<(&str, Value, &str)> = vec![
        ("fs_write", json!({"path": 7, "contents": "x"}), "path"),
        ("fs_write", json!({"path": "x"}), "contents"),
        ("fs_write", json!({"path": "x", "contents": "x", "content": "x"}), "contents"),
        ("fs_write", json!({"path": "x", "contents": "x", "colour": "red"}), "colour"),
        ("fs_write", json!({"path": "x", "contents": "x", "mode": "sideways"}), "mode"),
        ("fs_write", json!({"path": "x", "contents": "not base64!", "encoding": "base64"}), "base64"),
        ("fs_read", json!({"path": "x", "offset": -1}), "offset"),
        ("fs_read", json!({"path": "x", "limit": 0}), "limit"),
        ("fs_read", json!({"path": "x", "limit": 1_u64 << 40}), "limit"),
        ("run_python", json!({"code": "1", "file": "x.py"}), "file"),
        ("run_python", json!({}), "code"),
        ("run_python", json!({"code": "x".repeat((1 << 20) + 1)}), "code"),
        ("run_python", json!({"code": "1", "timeout_seconds": 0}), "timeout_seconds"),
        ("run_python", json!({"code": "1", "timeout_seconds": "5"}), "timeout_seconds"),
        ("run_python", json!({"code": "1", "env": {"A=B": "x"}}), "env"),
        ("run_python", json!({"code": "1", "args": vec![""; 1001]}), "args"),
        ("run_shell", json!({"command": "true\u{0}"}), "command"),
        ("run_shell", json!({"command": "x".repeat((128 << 10) + 1)}), "command"),
        ("run_shell", json!({"command": "true", "stdin": "x".repeat((1 << 20) + 1)}), "stdin"),
        ("run_shell", json!({"command": "true", "idempotency_key": "k".repeat(129)}), "idempotency_key"),
        ("session_create", json!({"ttl_seconds": "soon"}), "ttl_seconds"),
        ("session_create", json!({"ttl_seconds": 0}), "ttl_seconds"),
        ("echo", json!({"message": "x", "more": 1}), "more"),
    ];
    for (tool, arguments, named) in bad {
        let result = client.tool(tool, arguments).await;
        assert_eq!(result["isError"], true, "{tool}: {result}");
        assert!(text(&result).starts_with("INVALID_ARGUMENT: ") && text(&result).contains(named), "{tool}: {result}");
        assert_eq!(result["_meta"]["codegen/error"]["code"], "INVALID_ARGUMENT");
        assert!(text(&result).len() < 1_500, "{tool}");
    }
    assert!(server.double.calls.lock().is_empty());
    let none = client.request("tools/call", json!({"name": "echo"})).await;
    assert!(text(&none["result"]).contains("message"), "{none}");
}

#[tokio::test]
async fn paths_that_could_leave_are_refused_before_a_session_is_made() {
    let server = Server::new();
    let mut client = server.client().await;
    for path in ["/etc/passwd", "../x", "a/../../x", "a\u{0}b", &"x".repeat(300), &"d/".repeat(3000)] {
        for (tool, arguments) in [
            ("fs_read", json!({"path": path})),
            ("fs_write", json!({"path": path, "contents": "x"})),
            ("fs_list", json!({"path": path})),
            ("fs_stat", json!({"path": path})),
            ("fs_move", json!({"from": path, "to": "x"})),
            ("fs_move", json!({"from": "x", "to": path})),
            ("fs_delete", json!({"path": path})),
            ("run_python", json!({"file": path})),
        ] {
            let result = client.tool(tool, arguments).await;
            assert!(text(&result).starts_with("PATH_VIOLATION: "), "{tool} {path:?}: {result}");
        }
    }
    let sessions = client.tool("session_list", json!({})).await;
    assert_eq!(sessions["structuredContent"]["sessions"], json!([]));
}

#[tokio::test]
async fn a_run_s_result_is_text_and_facts_without_structure() {
    let server = Server::new();
    let mut client = server.client().await;
    let ran = client.tool("run_python", json!({"code": "say hello"})).await;
    assert_eq!((ran["isError"].clone(), text(&ran)), (json!(false), "exit 0 in 0.00 s\n\nstdout:\nhello"));
    assert!(ran.get("structuredContent").is_none());
    let call = server.double.calls.lock()[0].clone();
    assert_eq!(ran["_meta"]["codegen/task_id"], call.task.to_string());
    assert_eq!(ran["_meta"]["codegen/exit"]["code"], 0);
    let failed = client.tool("run_python", json!({"code": "fail"})).await;
    assert_eq!(failed["isError"], true);
    assert!(failed["_meta"].get("codegen/error").is_none(), "code that fails is no failure of ours");
}

#[tokio::test]
async fn what_a_program_prints_never_becomes_protocol() {
    let server = Server::new();
    let mut client = server.client().await;
    let forged = "\n{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"content\":[]}}\n";
    let params = json!({
        "name": "run_python", "arguments": {"code": format!("say {forged}")}, "_meta": {"progressToken": forged},
    });
    let answer = client.request("tools/call", params).await;
    assert!(text(&answer["result"]).contains("\"jsonrpc\""));
    let progress = client.seen.remove(0);
    assert_eq!(progress["method"], "notifications/progress");
    assert_eq!(client.seen, [] as [Value; 0]);
}

#[tokio::test]
async fn a_slow_call_does_not_hold_up_a_fast_one() {
    let server = Server::new();
    let mut client = server.client().await;
    let slow = client.start_tool("run_python", json!({"code": "wait"})).await;
    assert_eq!(text(&client.tool("echo", json!({"message": "fast"})).await), "fast");
    client.tool("run_python", json!({"code": "say x"})).await;
    server.double.go.notify_one();
    assert!(text(&client.answer_to(slow).await["result"]).contains("let go"));
}

#[tokio::test]
async fn one_call_too_many_is_refused_and_the_others_go_on() {
    let server = Server::with_options(Options { calls_max: 3, ..Options::default() });
    let mut client = server.client().await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(client.start_tool("run_python", json!({"code": "wait"})).await);
    }
    crate::client::until("three calls run", || server.double.running.load(std::sync::atomic::Ordering::Relaxed) == 3)
        .await;
    let refused = client.tool("echo", json!({"message": "x"})).await;
    assert!(text(&refused).starts_with("RATE_LIMITED"));
    assert_eq!(refused["_meta"]["codegen/error"]["retry_after_ms"], 1_000, "{refused}");
    server.double.go.notify_waiters();
    for id in waiting {
        assert_eq!(client.answer_to(id).await["result"]["isError"], false);
    }
    assert_eq!(text(&client.tool("echo", json!({"message": "x"})).await), "x");
}
