//! Sessions of the protocol: whose they are, and what a lost connection costs.

use hyper::StatusCode;
use serde_json::json;

use coordinator::identity::Scopes;

use crate::rig::{Rig, text_of, until};

#[tokio::test]
async fn a_session_of_somebody_else_is_as_unknown_as_one_that_never_was() {
    let rig = Rig::new().await;
    let (ann, eve) = (rig.token("ann", Scopes::USER).await, rig.token("eve", Scopes::USER).await);
    let session = rig.session("2025-06-18", Some(&ann)).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    for id in [session.id.as_str(), "00000000-0000-4000-8000-000000000000"] {
        let as_eve = |asked: crate::rig::Asked| asked.header("mcp-session-id", id).bearer(Some(&eve));
        let post = as_eve(rig.post(&list)).send().await;
        let get = as_eve(rig.request("GET", "/mcp")).send().await;
        let resumed = as_eve(rig.request("GET", "/mcp")).header("last-event-id", "0-0").send().await;
        assert_eq!([post.status, get.status, resumed.status], [StatusCode::NOT_FOUND; 3]);
        assert_eq!(post.text().await, get.text().await);
        let ended = as_eve(rig.request("DELETE", "/mcp")).send().await;
        assert_eq!((ended.status, ended.refusal().await.as_str()), (StatusCode::NOT_FOUND, "NOT_FOUND"));
    }
    let mine = session.post(&list).send().await;
    assert_eq!(mine.status, StatusCode::OK, "nobody else ends it");
}

#[tokio::test]
async fn a_handle_of_somebody_else_is_unknown() {
    let rig = Rig::new().await;
    let (ann, eve) = (rig.token("ann", Scopes::USER).await, rig.token("eve", Scopes::USER).await);
    let handle = rig.session("2025-06-18", Some(&ann)).await.handle().await;
    let (old, new) = (rig.session("2025-06-18", Some(&eve)).await, json!({"session_id": handle, "code": "say hi"}));
    let old = old.tool(1, "run_python", new.clone()).send().await.answer().await;
    let new = rig.stateless_tool("run_python", new).bearer(Some(&eve)).send().await.answer().await;
    for answer in [old, new] {
        assert!(text_of(&answer).starts_with("SESSION_NOT_FOUND"), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_on_its_way_is_had_by_resuming() {
    let rig = Rig::new().await;
    let session = rig.session("2025-11-25", None).await;
    let handle = session.handle().await;
    let mut reply = session.tool(1, "run_python", json!({"session_id": handle, "code": "wait"})).send().await;
    let primed = reply.event().await.unwrap();
    assert!(primed.data.is_empty());
    let last = primed.id.expect("an id to resume from");
    drop(reply);
    rig.double.go.notify_one();
    until("the program has ended", || rig.double.running.load(std::sync::atomic::Ordering::Relaxed) == 0).await;
    for _again in 0..2 {
        let resumed = session.get().header("last-event-id", &last).send().await;
        assert_eq!(resumed.status, StatusCode::OK);
        assert!(text_of(&resumed.answer().await).contains("let go"));
    }
    let unknown = session.get().header("last-event-id", "77-0").send().await;
    assert_eq!(unknown.text().await, "");
}

#[tokio::test]
async fn a_stream_that_broke_off_is_resumed_from_its_middle_with_what_came_before_the_answer() {
    let rig = Rig::new().await;
    let session = rig.session("2025-11-25", None).await;
    let handle = session.handle().await;
    let mut reply = session.tool(1, "run_python", json!({"session_id": handle, "code": "for ever"})).send().await;
    let primed = reply.event().await.unwrap().id.expect("an id to resume from");
    let told = reply.message().await.unwrap();
    assert_eq!(told["method"], "notifications/progress");
    let listed = session.tool(2, "task_list", json!({"session_id": handle})).send().await.answer().await;
    let task = &listed["result"]["structuredContent"]["tasks"][0]["task_id"];
    session.tool(3, "task_cancel", json!({"task_id": task})).send().await.answer().await;
    let answer = reply.answer().await;
    assert_eq!(answer["id"], 1);
    let mut resumed = session.get().header("last-event-id", &primed).send().await;
    assert_eq!(resumed.message().await.unwrap(), told, "a client that says where it was has not got it");
    assert_eq!(resumed.answer().await, answer);
}

#[tokio::test]
async fn only_clients_that_know_events_without_a_message_get_them() {
    let rig = Rig::new().await;
    let session = rig.session("2025-06-18", None).await;
    let mut reply = session.tool(1, "echo", json!({"message": "x"})).send().await;
    let first = reply.event().await.unwrap();
    assert!(!first.data.is_empty() && first.id.is_some());
}

#[tokio::test]
async fn changes_are_told_on_the_standalone_stream_and_on_streams_of_2026() {
    use codegen_types::event::{ChangeKind, FileChange};
    use codegen_types::{SessionId, WorkspacePath};
    let rig = Rig::new().await;
    let session = rig.session("2025-11-25", None).await;
    let handle = session.handle().await;
    let uri = format!("workspace://{handle}/a.txt");
    let subscribe = json!({"jsonrpc": "2.0", "id": 3, "method": "resources/subscribe", "params": {"uri": uri}});
    let subscribed = session.post(&subscribe).send().await.answer().await;
    assert!(subscribed.get("result").is_some(), "{subscribed}");
    let mut old = session.get().send().await;
    let filter = json!({"notifications": {"resourceSubscriptions": [uri]}});
    let mut new = rig.stateless("subscriptions/listen", filter).send().await;
    let acknowledged = new.message().await.unwrap();
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{acknowledged}");
    let id: SessionId = handle.parse().unwrap();
    let change = FileChange { path: WorkspacePath::parse("a.txt").unwrap(), change: ChangeKind::Modified, size: 1 };
    rig.double.changes.tell(id, Some(vec![change]));
    for stream in [&mut old, &mut new] {
        let told = stream.message().await.unwrap();
        assert_eq!(told["method"], "notifications/resources/updated", "{told}");
        assert_eq!(told["params"]["uri"], uri);
    }
}

#[tokio::test]
async fn two_requests_with_one_id_are_not_mixed_up() {
    let rig = Rig::new().await;
    let session = rig.session("2025-06-18", None).await;
    let handle = session.handle().await;
    let mut first = session.tool(1, "run_python", json!({"session_id": handle, "code": "for ever"})).send().await;
    first.message().await.unwrap();
    let second = session.tool(1, "echo", json!({"message": "x"})).send().await;
    assert_eq!(second.status, StatusCode::BAD_REQUEST);
    assert_eq!(second.refusal().await, "INVALID_ARGUMENT");
}

#[tokio::test]
async fn a_request_that_was_cancelled_ends_at_once_and_is_resumed_by_nobody() {
    let rig = Rig::new().await;
    let session = rig.session("2025-11-25", None).await;
    let handle = session.handle().await;
    let mut reply = session.tool(1, "run_python", json!({"session_id": handle, "code": "for ever"})).send().await;
    let primed = reply.event().await.unwrap().id.expect("an id to resume from");
    let told = reply.event().await.unwrap();
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(session.post(&cancel).send().await.status, StatusCode::ACCEPTED);
    while reply.message().await.is_some() {}
    for last in [primed, told.id.unwrap()] {
        assert_eq!(session.get().header("last-event-id", &last).send().await.text().await, "");
    }
    let again = session.tool(1, "echo", json!({"message": "x"})).send().await.answer().await;
    assert_eq!(text_of(&again), "x");
}

#[tokio::test]
async fn an_event_that_never_was_silences_nothing() {
    let rig = Rig::new().await;
    let session = rig.session("2025-11-25", None).await;
    let handle = session.handle().await;
    let mut reply = session.tool(1, "run_python", json!({"session_id": handle, "code": "wait"})).send().await;
    let primed = reply.event().await.unwrap().id.unwrap();
    let (stream, _) = primed.split_once('-').unwrap();
    for never in ["1000", "18446744073709551615"] {
        let resumed = session.get().header("last-event-id", &format!("{stream}-{never}")).send().await;
        assert_eq!(resumed.text().await, "");
    }
    rig.double.go.notify_one();
    assert!(text_of(&reply.answer().await).contains("let go"));
}

#[tokio::test]
async fn a_batch_is_served_in_the_one_revision_that_knows_them() {
    let rig = Rig::new().await;
    let ping = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
    let session = rig.session("2025-03-26", None).await;
    let noted = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let mut answers = session.post(&json!([ping(1), noted, ping(2)])).send().await;
    assert_eq!(answers.status, StatusCode::OK);
    let mut answered = Vec::new();
    while let Some(message) = answers.message().await {
        answered.push(message["id"].as_u64().unwrap());
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2]);
    assert_eq!(session.post(&json!([noted])).send().await.status, StatusCode::ACCEPTED);
    for bad in [json!([]), json!(vec![ping(1); 101])] {
        assert_eq!(session.post(&bad).send().await.status, StatusCode::BAD_REQUEST);
    }
    let later = rig.session("2025-06-18", None).await;
    for asked in [later.post(&json!([ping(1)])), rig.post(&json!([ping(1)]))] {
        let refused = asked.send().await;
        assert_eq!((refused.status, refused.refusal().await.as_str()), (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"));
    }
}

#[tokio::test]
async fn what_is_no_message_is_answered_in_the_protocol_s_terms() {
    let rig = Rig::new().await;
    let session = rig.session("2025-06-18", None).await;
    for (body, code, id) in [("{", -32_700, json!(null)), (r#"{"id": 7, "method": 1}"#, -32_600, json!(7))] {
        for asked in [session.post(&json!({})), rig.stateless("ping", json!({}))] {
            let refused = asked.body(body).send().await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{body}");
            let said = refused.json().await;
            assert_eq!((&said["error"]["code"], &said["id"]), (&json!(code), &id), "{said}");
        }
    }
    let text = rig.request("POST", "/mcp").header("content-type", "text/plain").body("{").send().await;
    assert_eq!(text.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}
