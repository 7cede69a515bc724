//! Both eras of the protocol, and what differs between them.

use hyper::StatusCode;
use serde_json::json;

use crate::rig::{Rig, text_of, until};

#[tokio::test]
async fn a_client_of_each_revision_makes_a_session_and_runs_a_program() {
    let rig = Rig::new().await;
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let session = rig.session(revision, None).await;
        let handle = session.handle().await;
        let ran = session.tool(1, "run_python", json!({"session_id": handle, "code": "say hi"})).send().await;
        assert!(text_of(&ran.answer().await).contains("hi"), "{revision}");
        assert_eq!(session.delete().send().await.status, StatusCode::NO_CONTENT);
        let gone = session.tool(2, "echo", json!({"message": "x"})).send().await;
        assert_eq!(gone.status, StatusCode::NOT_FOUND, "{revision}");
    }
}

#[tokio::test]
async fn a_client_of_2026_needs_no_session_of_the_protocol() {
    let rig = Rig::new().await;
    let found = rig.stateless("server/discover", json!({})).send().await.answer().await;
    assert!(found["result"]["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")));
    let made = rig.stateless_tool("session_create", json!({})).send().await;
    assert!(!made.headers.contains_key("mcp-session-id"));
    let made = made.answer().await;
    let handle = &made["result"]["structuredContent"]["session_id"];
    let mut ran = rig.stateless_tool("run_python", json!({"session_id": handle, "code": "count 3"})).send().await;
    let first = ran.message().await.unwrap();
    assert_eq!(first["method"], "notifications/progress");
    assert!(text_of(&ran.answer().await).contains("counted"));
    let listed = rig.stateless("resources/list", json!({})).send().await.answer().await;
    assert!(listed["result"]["resources"].is_array(), "the sessions of the principal are known: {listed}");
}

#[tokio::test]
async fn a_handshake_that_names_the_revision_without_any_begins_a_session_of_the_last_that_has_one() {
    let rig = Rig::new().await;
    let params =
        json!({"protocolVersion": "2026-07-28", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    for method in [None, Some("initialize")] {
        let mut asked = rig.post(&hello).header("mcp-protocol-version", "2026-07-28");
        if let Some(method) = method {
            asked = asked.header("mcp-method", method);
        }
        let reply = asked.send().await;
        let id = reply.headers["mcp-session-id"].to_str().unwrap().to_owned();
        assert_eq!(reply.answer().await["result"]["protocolVersion"], "2025-11-25");
        let said =
            |asked: crate::rig::Asked| asked.header("mcp-session-id", &id).header("mcp-protocol-version", "2025-11-25");
        let noted = said(rig.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))).send().await;
        assert_eq!(noted.status, StatusCode::ACCEPTED);
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        let listed = said(rig.post(&list)).send().await.answer().await;
        assert!(listed["result"]["tools"].is_array() && listed["result"].get("ttlMs").is_none(), "{listed}");
    }
}

#[tokio::test]
async fn headers_that_contradict_the_body_are_refused() {
    let rig = Rig::new().await;
    let params = json!({"name": "echo", "arguments": {"message": "x"}, "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    for (method, name) in [("tools/list", "echo"), ("tools/call", "run_shell")] {
        let asked = rig.post(&call).header("mcp-protocol-version", "2026-07-28");
        let reply = asked.header("mcp-method", method).header("mcp-name", name).send().await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{method} {name}");
    }
}

#[tokio::test]
async fn what_is_no_request_of_the_protocol_is_refused_in_the_one_shape() {
    let rig = Rig::new().await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let unknown = rig.post(&list).header("mcp-session-id", "none").send().await;
    assert_eq!((unknown.status, unknown.refusal().await.as_str()), (StatusCode::NOT_FOUND, "NOT_FOUND"));
    let unnamed = rig.post(&list).send().await;
    assert_eq!((unnamed.status, unnamed.refusal().await.as_str()), (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"));
    let other = rig.request("PUT", "/mcp").send().await;
    assert!(other.headers.contains_key("allow"));
    assert_eq!((other.status, other.refusal().await.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "INVALID_ARGUMENT"));
    let text = rig.request("POST", "/mcp").header("content-type", "text/plain").body("{}").send().await;
    assert_eq!((text.status, text.refusal().await.as_str()), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_ARGUMENT"));
}

#[tokio::test]
async fn a_call_must_name_its_session_in_every_era() {
    let rig = Rig::new().await;
    let session = rig.session("2025-06-18", None).await;
    let arguments = json!({"code": "say hi"});
    let old = session.tool(1, "run_python", arguments.clone()).send().await.answer().await;
    let new = rig.stateless_tool("run_python", arguments).send().await.answer().await;
    for answer in [old, new] {
        assert_eq!(answer["result"]["isError"], true);
        let said = text_of(&answer);
        assert!(said.starts_with("INVALID_ARGUMENT") && said.contains("session_create"), "{said}");
    }
    assert!(rig.double.calls.lock().is_empty());
}

#[tokio::test]
async fn closing_the_stream_cancels_a_call_of_2026_and_none_of_2025() {
    let rig = Rig::new().await;
    let session = rig.session("2025-11-25", None).await;
    let handle = session.handle().await;
    let arguments = json!({"session_id": handle, "code": "for ever"});
    let running = || rig.double.running.load(std::sync::atomic::Ordering::Relaxed);

    let mut reply = rig.stateless_tool("run_python", arguments.clone()).send().await;
    assert_eq!(reply.message().await.unwrap()["method"], "notifications/progress");
    assert_eq!(running(), 1);
    drop(reply);
    until("the call is cancelled", || running() == 0).await;

    let mut reply = session.tool(5, "run_python", arguments).send().await;
    assert_eq!(reply.message().await.unwrap()["method"], "notifications/progress");
    drop(reply);
    // What is served after it shows that the end of the connection was seen.
    for id in 10..20 {
        session.tool(id, "echo", json!({"message": "x"})).send().await.answer().await;
    }
    assert_eq!(running(), 1);
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}});
    assert_eq!(session.post(&cancel).send().await.status, StatusCode::ACCEPTED);
    until("the call is cancelled", || running() == 0).await;
}
