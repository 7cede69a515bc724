//! Nothing unaudited: what the coordinator answers or refuses by itself is in the log, or is not answered.

use codegen_audit::{EventKind, Outcome, Record};
use codegen_types::ErrorCode;
use serde_json::json;
use std::sync::atomic::Ordering;

use crate::client::{Server, text};

fn of_kind(server: &Server, kind: EventKind) -> Vec<Record> {
    server.audit.memory_records().into_iter().filter(|record| record.kind == kind).collect()
}

#[tokio::test]
async fn what_the_coordinator_serves_itself_is_recorded_before_the_answer() {
    let server = Server::new();
    let mut client = server.client().await;
    let echoed = client.tool("echo", json!({"message": "hello"})).await;
    client.tool("session.list", json!({})).await;
    client.tool("session_info", json!({})).await;
    client.tool("session_create", json!({"name": "n"})).await;
    let served = of_kind(&server, EventKind::CallServed);
    let tools: Vec<_> = served.iter().map(|record| record.tool.as_deref()).collect();
    assert_eq!(tools, [Some("echo"), Some("session_list"), Some("session_info"), Some("session_create")]);
    assert_eq!(served[1].called_as.as_deref(), Some("session.list"));
    assert_eq!(served[0].args, Some(json!({"message": "hello"})));
    assert_eq!(served[0].outcome, Some(Outcome::Ok));
    assert_eq!(echoed["_meta"]["codegen/audit_seq"], json!(served[0].seq));
    assert!(served[2].session.is_some());
}

#[tokio::test]
async fn what_is_refused_is_recorded_with_its_code_and_path() {
    let server = Server::new();
    let mut client = server.client().await;
    client.tool("fs.read", json!({"path": "../../etc/passwd"})).await;
    client.tool("fs_stat", json!({"path": 7})).await;
    client.tool("fs_stat", json!({"path": "a", "session_id": "ses_00000000000000000000000000000000"})).await;
    client.request("tools/call", json!({"name": "no_such", "arguments": {"path": "x"}})).await;
    let refused = of_kind(&server, EventKind::CallRefused);
    let codes: Vec<_> = refused.iter().filter_map(|record| record.code).collect();
    let expected =
        [ErrorCode::PathViolation, ErrorCode::InvalidArgument, ErrorCode::SessionNotFound, ErrorCode::InvalidArgument];
    assert_eq!(codes, expected);
    assert_eq!(refused[0].path.as_deref(), Some("../../etc/passwd"));
    assert_eq!(refused[0].tool.as_deref(), Some("fs_read"));
    assert_eq!(refused[0].principal.as_ref().map(|p| p.as_str()), Some("os:ann"));
    assert!(refused[2].session.is_some());
    assert_eq!(refused[3].tool.as_deref(), Some("no_such"));
    assert!(refused.iter().all(|record| record.outcome == Some(Outcome::Refused)));
}

#[tokio::test]
async fn without_a_log_nothing_is_answered_but_that() {
    let server = Server::new();
    let mut client = server.client().await;
    server.audit.set_memory_fault(Some("the disk is gone"));
    server.double.log_is_gone.store(true, Ordering::Relaxed);
    for (tool, arguments) in [
        ("echo", json!({"message": "x"})),
        ("echo", json!({})),
        ("session_list", json!({})),
        ("fs_read", json!({"path": "../x"})),
        ("fs_read", json!({"path": "x"})),
        ("no_such", json!({})),
    ] {
        let result = client.tool(tool, arguments).await;
        assert!(text(&result).starts_with("AUDIT_UNAVAILABLE: "), "{tool}: {result}");
    }
    server.audit.set_memory_fault(None);
    assert_eq!(text(&client.tool("echo", json!({"message": "x"})).await), "x");
}

#[tokio::test]
async fn an_answer_lost_to_the_log_names_its_task() {
    let server = Server::new();
    let mut client = server.client().await;
    server.double.log_is_gone.store(true, Ordering::Relaxed);
    let result = client.tool("run_python", json!({"code": "say x"})).await;
    assert_eq!(result["_meta"]["codegen/error"]["code"], "AUDIT_UNAVAILABLE");
    assert!(result["_meta"]["codegen/task_id"].as_str().is_some_and(|id| id.starts_with("tsk_")), "{result}");
}
