//! What credentials permit is kept to by every way to tools, sessions, files and tasks.

use codegen_audit::EventKind;
use codegen_types::ErrorCode;
use coordinator::identity::{Scope, Scopes};
use serde_json::{Value, json};

use crate::client::{Client, Server, text};

async fn client(server: &Server, scopes: Scopes) -> Client {
    let mut client = server.connect_with("ann", scopes);
    client.initialize("2025-11-25").await;
    client
}

fn is_denied(answer: &Value, scope: &str) -> bool {
    answer.to_string().contains("PERMISSION_DENIED") && answer.to_string().contains(scope)
}

#[tokio::test]
async fn a_tool_is_used_with_its_own_scope_alone_and_a_refusal_is_recorded() {
    let server = Server::new();
    let mut owner = server.client().await;
    let made = owner.tool("session_create", json!({})).await;
    let session = made["structuredContent"]["session_id"].as_str().expect("a handle").to_owned();
    let mut tools = client(&server, Scope::Tools.into()).await;
    let denied = tools.tool("session.close", json!({"session_id": session})).await;
    assert!(is_denied(&denied, "codegen:sessions") && denied["isError"] == true, "{denied}");
    assert!(!is_denied(&tools.tool("fs_read", json!({"path": "a", "session_id": session})).await, ""));
    let before = server.double.calls.lock().len();
    for scopes in [Scope::Sessions.into(), Scope::Admin.into(), Scope::Worker.into(), Scopes::NONE] {
        let mut other = client(&server, scopes).await;
        let denied = other.tool("run_python", json!({"code": "1", "session_id": session})).await;
        assert!(text(&denied).starts_with("PERMISSION_DENIED") && is_denied(&denied, "codegen:tools"), "{denied}");
    }
    assert_eq!(server.double.calls.lock().len(), before, "nothing reached a session");
    let records = server.audit.memory_records();
    let refused = records.iter().filter(|record| record.code == Some(ErrorCode::PermissionDenied));
    assert_eq!(refused.filter(|record| record.kind == EventKind::CallRefused).count(), 5);
}

#[tokio::test]
async fn files_and_tasks_are_not_reached_without_the_scope_by_any_other_method() {
    let server = Server::new();
    let mut owner = server.client().await;
    let made = owner.tool("session_create", json!({})).await;
    let session = made["structuredContent"]["session_id"].as_str().expect("a handle").to_owned();
    let uri = format!("workspace://{session}/a");
    let mut other = client(&server, Scope::Sessions.into()).await;
    // The session is now one that this connection uses, so that its files would be listed.
    other.tool("session_info", json!({"session_id": session})).await;
    let asked = [
        ("resources/list", json!({})),
        ("resources/read", json!({"uri": uri})),
        ("resources/subscribe", json!({"uri": uri})),
    ];
    for (method, params) in asked {
        let answer = other.request(method, params).await;
        assert!(is_denied(&answer, "codegen:tools"), "{method}: {answer}");
    }
    let template = json!({"type": "ref/resource", "uri": "workspace://{session}/{+path}"});
    for argument in ["session", "path"] {
        let params = json!({
            "ref": template, "argument": {"name": argument, "value": ""},
            "context": {"arguments": {"session": session}},
        });
        let answer = other.request("completion/complete", params).await;
        assert_eq!(answer["result"]["completion"]["values"], json!([]), "{argument}: {answer}");
    }
    assert!(server.double.calls.lock().is_empty());
}
