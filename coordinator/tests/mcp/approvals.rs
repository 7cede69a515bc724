//! The policy at the protocol's door: what is denied, and how calls wait until somebody approves of them.

use std::time::Duration;

use codegen_audit::{EventKind, Outcome, Record};
use codegen_types::{ErrorCode, Principal};
use coordinator::approvals::{ApprovalState, ApprovalView, Approvals, Decider, PENDING_PER_PRINCIPAL_MAX, Way};
use coordinator::mcp::Options;
use serde_json::{Value, json};

use crate::client::{Client, Server, modern_meta, text, until};

const ASKING: &str =
    "[[rule]]\nname='writes'\ntool='fs_write'\neffect='require_approval'\nreason='files are precious'\n";

fn server(policy: &str) -> (Server, Approvals) {
    Server::with_policy(policy, Options { yield_after: Duration::from_millis(100), ..Options::default() })
}

fn operator() -> Decider {
    Decider { principal: Principal::os_user("op"), way: Way::Command }
}

async fn pending(approvals: &Approvals) -> ApprovalView {
    until("a request for approval", || !approvals.list().is_empty()).await;
    approvals.list().remove(0)
}

fn code(result: &Value) -> &str {
    result["_meta"]["codegen/error"]["code"].as_str().unwrap_or("OK")
}

fn of(server: &Server, kind: EventKind) -> Vec<Record> {
    server.audit.memory_records().into_iter().filter(|record| record.kind == kind).collect()
}

fn decisions(server: &Server) -> Vec<Value> {
    of(server, EventKind::ApprovalDecided).into_iter().map(|record| record.detail.expect("a detail")).collect()
}

/// A client that shows forms, in a revision with a handshake.
async fn asking_client(server: &Server) -> Client {
    let mut client = server.connect();
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "t", "version": "1"}});
    client.request("initialize", hello).await;
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    client
}

/// A call's answer, when the user says so to what the client asks.
async fn saying(client: &mut Client, answer: Value) -> Value {
    let id = client.start_tool("fs_write", json!({"path": "a", "contents": "x"})).await;
    let asked = client.message(|message| message["method"] == "elicitation/create").await;
    let question = asked["params"]["message"].as_str().expect("a question");
    assert!(question.contains("fs_write") && question.contains("files are precious"), "{question}");
    assert_eq!(asked["params"]["requestedSchema"]["required"], json!(["approve"]));
    client.send(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": answer})).await;
    client.answer_to(id).await["result"].clone()
}

/// A call of a client of 2026-07-28 that shows forms.
async fn modern(client: &mut Client, args: &Value, more: Value) -> Value {
    let mut meta = modern_meta();
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {"form": {}}});
    let mut params = json!({"_meta": meta, "name": "fs_write", "arguments": args});
    for (name, value) in more.as_object().expect("an object") {
        params[name] = value.clone();
    }
    client.request("tools/call", params).await["result"].clone()
}

fn approving(state: &Value) -> Value {
    let response = json!({"action": "accept", "content": {"approve": true, "reason": "looks fine"}});
    json!({"requestState": state, "inputResponses": {"approval": response}})
}

#[tokio::test]
async fn what_is_denied_is_not_done_by_any_door_and_the_rule_is_named() {
    let (server, _) = server("[[rule]]\nname='keys'\npath='keys/**'\neffect='deny'\nreason='no keys'\n");
    let mut client = server.client().await;
    let session = client.tool("session_create", json!({})).await["structuredContent"]["session_id"].clone();
    for (tool, args) in [
        ("fs_read", json!({"path": "./keys//a"})),
        ("fs.write", json!({"path": "KEYS/a", "contents": ""})),
        ("fs_move", json!({"from": "a", "to": "keys/a"})),
        ("fs_move", json!({"from": "keys", "to": "b"})),
        ("fs_delete", json!({"path": ".", "recursive": true})),
        ("fs_search", json!({"pattern": "x"})),
        ("run_python", json!({"file": "keys/a.py"})),
    ] {
        let result = client.tool(tool, args.clone()).await;
        assert_eq!(code(&result), "PERMISSION_DENIED", "{tool} {args}: {result}");
        assert!(text(&result).contains("\"keys\" denies this: no keys"), "{result}");
    }
    assert_eq!(code(&client.tool("fs_read", json!({"path": "keysmith"})).await), "OK");
    let uri = format!("workspace://{}/keys/a", session.as_str().expect("a handle"));
    for method in ["resources/read", "resources/subscribe"] {
        let refused = client.request(method, json!({"uri": uri})).await;
        assert_eq!(refused["error"]["data"]["code"], "PERMISSION_DENIED", "{refused}");
    }
    let refused = of(&server, EventKind::CallRefused);
    assert_eq!(refused.iter().filter(|record| record.code == Some(ErrorCode::PermissionDenied)).count(), 9);
}

#[tokio::test]
async fn a_user_approves_and_declines_while_the_call_waits() {
    let (server, approvals) = Server::with_policy(ASKING, Options::default());
    let mut client = asking_client(&server).await;
    let done = saying(&mut client, json!({"action": "accept", "content": {"approve": true, "reason": "fine"}})).await;
    assert_eq!(code(&done), "OK", "{done}");
    for refusal in [json!({"action": "accept", "content": {"approve": false}}), json!({"action": "decline"})] {
        let denied = saying(&mut client, refusal).await;
        assert_eq!(code(&denied), "PERMISSION_DENIED", "{denied}");
    }
    let told: Vec<_> = decisions(&server).iter().map(|detail| detail["decision"].clone()).collect();
    assert_eq!(told, [json!("approved"), json!("denied"), json!("denied")]);
    let first = &of(&server, EventKind::ApprovalDecided)[0];
    let detail = first.detail.as_ref().expect("a detail");
    assert_eq!((&detail["why"], &detail["way"], &detail["rule"]), (&json!("fine"), &json!("client"), &json!("writes")));
    assert_eq!(first.principal, Some(Principal::os_user("ann")));
    assert_eq!(first.cites, Some(of(&server, EventKind::ApprovalRequested)[0].seq));
    assert_eq!(approvals.list(), []);
}

#[tokio::test]
async fn a_user_who_is_asked_about_a_long_call_sees_both_ends_and_learns_where_the_rest_is() {
    let (server, approvals) = Server::with_policy(ASKING, Options::default());
    for (bytes, says) in [(5_000, "coordinator approvals show "), (100_000, "cannot be seen anywhere")] {
        let mut client = asking_client(&server).await;
        let contents = format!("begin{}the end", "x".repeat(bytes));
        let id = client.start_tool("fs_write", json!({"path": "a", "contents": contents})).await;
        let asked = client.message(|message| message["method"] == "elicitation/create").await;
        let question = asked["params"]["message"].as_str().expect("a question");
        for part in ["begin", "the end", "SHA-256", says] {
            assert!(question.contains(part), "{part}: {question}");
        }
        let request = pending(&approvals).await.id;
        let whole = approvals.show(request).expect("it waits").whole;
        assert_eq!(whole.map(|whole| whole["contents"] == json!(contents)), (bytes < 64 << 10).then_some(true));
        approvals.deny(request, &operator(), None).await.expect("it waits");
        client.answer_to(id).await;
    }
}

#[tokio::test]
async fn a_client_of_the_stateless_revision_is_asked_between_two_calls_and_an_approval_is_good_once() {
    let (server, _) = server(ASKING);
    let mut client = server.connect();
    let args = json!({"path": "a", "contents": "x"});
    let asked = modern(&mut client, &args, json!({})).await;
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    assert_eq!(asked["inputRequests"]["approval"]["method"], "elicitation/create");
    let again = approving(&asked["requestState"]);
    let done = modern(&mut client, &args, again.clone()).await;
    assert_eq!((code(&done), &done["resultType"]), ("OK", &json!("complete")), "{done}");
    // What was used is used.
    let replayed = modern(&mut client, &args, again).await;
    assert_eq!(code(&replayed), "INVALID_ARGUMENT", "{replayed}");
}

#[tokio::test]
async fn a_state_that_is_tampered_with_foreign_or_for_another_call_is_refused_and_decides_nothing() {
    let (server, approvals) = server(ASKING);
    let mut client = server.connect();
    let args = json!({"path": "a", "contents": "x"});
    let state = modern(&mut client, &args, json!({})).await["requestState"].clone();
    let mut tampered = state.as_str().expect("a state").to_owned();
    let last = tampered.pop().expect("not empty");
    tampered.push(if last == 'A' { 'B' } else { 'A' });
    let mut other = server.connect_as("bob");
    let other_args = json!({"path": "b", "contents": "x"});
    for (args, state) in [(&args, &json!(tampered)), (&args, &json!("")), (&other_args, &state)] {
        let refused = modern(&mut client, args, approving(state)).await;
        assert_eq!(code(&refused), "INVALID_ARGUMENT", "{refused}");
    }
    let refused = modern(&mut other, &args, approving(&state)).await;
    assert_eq!(code(&refused), "INVALID_ARGUMENT", "{refused}");
    assert_eq!(decisions(&server), [] as [Value; 0]);
    assert_eq!(approvals.list().len(), 1);
    assert_eq!(code(&modern(&mut client, &args, approving(&state)).await), "OK");
}

#[tokio::test]
async fn an_answer_after_the_time_is_over_approves_of_nothing() {
    let (server, _) = server(&format!("{ASKING}timeout='1s'\n"));
    let mut client = server.connect();
    let args = json!({"path": "a", "contents": "x"});
    let state = modern(&mut client, &args, json!({})).await["requestState"].clone();
    until("the request to expire", || decisions(&server).len() == 1).await;
    let refused = modern(&mut client, &args, approving(&state)).await;
    // The state, which is sealed a moment after the request is made, may outlive it by as much: then the code is another.
    assert_ne!(code(&refused), "OK", "{refused}");
    assert_eq!(decisions(&server)[0]["decision"], "expired");
}

#[tokio::test]
async fn a_client_that_cannot_ask_gets_the_request_and_makes_the_call_again_once_it_is_approved() {
    let (server, approvals) = server(ASKING);
    let mut client = server.client().await;
    let args = json!({"path": "a", "contents": "x"});
    let waits = client.tool("fs_write", args.clone()).await;
    let view = pending(&approvals).await;
    assert_eq!(code(&waits), "APPROVAL_REQUIRED");
    assert!(text(&waits).contains(&view.id.to_string()) && text(&waits).contains("Next: "), "{waits}");
    assert_eq!((view.state, view.tool.as_str(), &view.arguments), (ApprovalState::Pending, "fs_write", &args));
    // The same call joins the request; another one makes one of its own.
    assert_eq!(code(&client.tool("fs.write", args.clone()).await), "APPROVAL_REQUIRED");
    assert_eq!(approvals.list().len(), 1);
    approvals.approve(view.id, &operator(), Some("once")).await.expect("pending");
    let twice = approvals.deny(view.id, &operator(), None).await.expect_err("decided");
    assert_eq!(twice.code, ErrorCode::PreconditionFailed);
    let mut bob = server.connect_as("bob");
    bob.initialize("2025-11-25").await;
    assert_eq!(code(&bob.tool("fs_write", args.clone()).await), "APPROVAL_REQUIRED");
    let keyed = json!({"path": "a", "contents": "x", "idempotency_key": "k"});
    assert_eq!(code(&client.tool("fs_write", keyed).await), "OK");
    assert_eq!(code(&client.tool("fs_write", args).await), "APPROVAL_REQUIRED");
}

#[tokio::test]
async fn a_denial_is_told_to_whoever_waits_and_to_who_asks_again() {
    let (server, approvals) = Server::with_policy(ASKING, Options::default());
    let mut client = server.client().await;
    let id = client.start_tool("fs_write", json!({"path": "a", "contents": "x"})).await;
    let view = pending(&approvals).await;
    approvals.deny(view.id, &operator(), Some("not today")).await.expect("pending");
    let denied = client.answer_to(id).await["result"].clone();
    assert!(code(&denied) == "PERMISSION_DENIED" && text(&denied).contains("not today"), "{denied}");
    let kinds: Vec<EventKind> = server.audit.memory_records().iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [EventKind::ApprovalRequested, EventKind::ApprovalDecided, EventKind::CallRefused]);
    let decided = &of(&server, EventKind::ApprovalDecided)[0];
    assert_eq!((decided.principal.clone(), decided.outcome), (Some(operator().principal), Some(Outcome::Refused)));
}

#[tokio::test]
async fn silence_denies_and_a_cancelled_call_takes_its_request_back() {
    let (server, approvals) = Server::with_policy(&format!("{ASKING}timeout='1s'\n"), Options::default());
    let mut client = server.client().await;
    let denied = client.tool("fs_write", json!({"path": "a", "contents": "x"})).await;
    assert!(code(&denied) == "PERMISSION_DENIED" && text(&denied).contains("nobody approved"), "{denied}");
    let id = client.start_tool("fs_write", json!({"path": "b", "contents": "x"})).await;
    pending(&approvals).await;
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})).await;
    until("the request to be withdrawn", || approvals.list().is_empty()).await;
    let told: Vec<_> = decisions(&server).iter().map(|detail| detail["decision"].clone()).collect();
    assert_eq!(told, [json!("expired"), json!("withdrawn")]);
}

#[tokio::test]
async fn what_is_for_the_operator_is_not_asked_of_the_user() {
    let (server, approvals) = server(&format!("{ASKING}approvers=['operator']\n"));
    let args = json!({"path": "a", "contents": "x"});
    let mut older = asking_client(&server).await;
    assert_eq!(code(&older.tool("fs_write", args.clone()).await), "APPROVAL_REQUIRED");
    assert!(older.seen.iter().all(|message| message["method"] != "elicitation/create"), "{:?}", older.seen);
    let mut newer = server.connect();
    assert_eq!(code(&modern(&mut newer, &args, json!({})).await), "APPROVAL_REQUIRED");
    let view = pending(&approvals).await;
    let user = Decider { principal: view.principal, way: Way::Client };
    let refused = approvals.approve(view.id, &user, None).await.expect_err("the operator's");
    assert_eq!(refused.code, ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn an_operator_may_be_faster_than_the_user_who_is_asked() {
    let (server, approvals) = Server::with_policy(ASKING, Options::default());
    let mut client = asking_client(&server).await;
    let id = client.start_tool("fs_write", json!({"path": "a", "contents": "x"})).await;
    let asked = client.message(|message| message["method"] == "elicitation/create").await;
    approvals.approve(pending(&approvals).await.id, &operator(), None).await.expect("pending");
    assert_eq!(code(&client.answer_to(id).await["result"]), "OK");
    let ended = client.message(|message| message["method"] == "notifications/cancelled").await;
    assert_eq!(ended["params"]["requestId"], asked["id"]);
}

#[tokio::test]
async fn a_user_who_thinks_for_long_is_asked_again_by_the_call_made_again() {
    let (server, approvals) = server(ASKING);
    let mut client = asking_client(&server).await;
    let args = json!({"path": "a", "contents": "x"});
    for _ in 0..2 {
        assert_eq!(code(&client.tool("fs_write", args.clone()).await), "APPROVAL_REQUIRED");
        client.message(|message| message["method"] == "elicitation/create").await;
    }
    assert_eq!(approvals.list().len(), 1);
}

#[tokio::test]
async fn one_principal_s_requests_are_bounded_and_leave_room_for_others() {
    let (server, approvals) = server(ASKING);
    let mut client = server.client().await;
    for number in 0..PENDING_PER_PRINCIPAL_MAX {
        client.start_tool("fs_write", json!({"path": number.to_string(), "contents": ""})).await;
    }
    until("as many requests as can be", || approvals.list().len() == PENDING_PER_PRINCIPAL_MAX).await;
    let refused = client.tool("fs_write", json!({"path": "more", "contents": ""})).await;
    assert_eq!(code(&refused), "QUOTA_EXCEEDED", "{refused}");
    let mut bob = server.connect_as("bob");
    bob.initialize("2025-11-25").await;
    assert_eq!(code(&bob.tool("fs_write", json!({"path": "b", "contents": ""})).await), "APPROVAL_REQUIRED");
}

#[tokio::test]
async fn nothing_is_asked_that_cannot_be_recorded_and_no_decision_holds_that_is_not() {
    let (server, approvals) = server(ASKING);
    let mut client = server.client().await;
    server.audit.set_memory_fault(Some("the disk is full"));
    let unavailable = client.tool("fs_write", json!({"path": "a", "contents": ""})).await;
    assert_eq!((code(&unavailable), approvals.list().len()), ("AUDIT_UNAVAILABLE", 0), "{unavailable}");
    server.audit.set_memory_fault(None);
    client.tool("fs_write", json!({"path": "a", "contents": ""})).await;
    let view = pending(&approvals).await;
    server.audit.set_memory_fault(Some("the disk is full"));
    let failure = approvals.approve(view.id, &operator(), None).await.expect_err("no record");
    assert_eq!(failure.code, ErrorCode::AuditUnavailable);
    server.audit.set_memory_fault(None);
    assert_eq!(approvals.list()[0].state, ApprovalState::Pending);
    approvals.approve(view.id, &operator(), None).await.expect("still pending");
}
