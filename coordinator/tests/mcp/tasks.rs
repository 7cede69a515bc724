//! The tasks extension of 2026-07-28: handles in place of "still running", for clients that declare it.

use codegen_audit::{EventKind, Outcome};
use coordinator::mcp::Options;
use serde_json::{Value, json};

use crate::client::{Client, Server, modern_meta, text, until};

const EXTENSION: &str = "io.modelcontextprotocol/tasks";
const TASK_METHODS: [&str; 3] = ["tasks/get", "tasks/update", "tasks/cancel"];

/// What every request of a client carries that declares the extension.
fn tasks_meta() -> Value {
    let mut meta = modern_meta();
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({"extensions": {EXTENSION: {}}});
    meta
}

async fn call(client: &mut Client, tool: &str, arguments: Value) -> Value {
    let params = json!({"_meta": tasks_meta(), "name": tool, "arguments": arguments});
    client.request("tools/call", params).await["result"].clone()
}

async fn handed_out(client: &mut Client, arguments: Value) -> String {
    let handle = call(client, "run_python", arguments).await;
    assert_eq!((&handle["resultType"], &handle["status"]), (&json!("task"), &json!("working")), "{handle}");
    assert!(handle["ttlMs"].as_u64() >= Some(86_400_000) && handle["pollIntervalMs"].is_u64(), "{handle}");
    assert!(handle["createdAt"].is_string() && handle["lastUpdatedAt"].is_string(), "{handle}");
    assert!(handle.get("content").is_none(), "{handle}");
    handle["taskId"].as_str().expect("an id").to_owned()
}

async fn method(client: &mut Client, method: &str, task: &str) -> Value {
    client.request(method, json!({"_meta": tasks_meta(), "taskId": task, "inputResponses": {}})).await
}

async fn ended(client: &mut Client, task: &str) -> Value {
    loop {
        let got = method(client, "tasks/get", task).await;
        if got["result"]["status"] != "working" {
            return got["result"].clone();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_gives_a_handle_that_leads_to_its_result() {
    let server = Server::new();
    let mut client = server.connect();
    let task = handed_out(&mut client, json!({"code": "wait", "yield_after_seconds": 0.05})).await;
    drop(client);
    let mut other = server.connect();
    let working = method(&mut other, "tasks/get", &task).await;
    assert_eq!(
        (&working["result"]["status"], &working["result"]["resultType"]),
        (&json!("working"), &json!("complete"))
    );
    assert_eq!(method(&mut other, "tasks/update", &task).await["result"], json!({"resultType": "complete"}));
    server.double.go.notify_one();
    let completed = ended(&mut other, &task).await;
    assert_eq!((&completed["status"], &completed["taskId"]), (&json!("completed"), &json!(task)), "{completed}");
    let waited = call(&mut other, "task_wait", json!({"task_id": task})).await;
    assert!(text(&waited).contains("let go"), "{waited}");
    assert_eq!((&completed["result"]["content"], &completed["result"]["isError"]), (&waited["content"], &json!(false)));
}

#[tokio::test]
async fn a_handle_is_given_only_for_a_run_that_goes_on() {
    let server = Server::new();
    let mut client = server.connect();
    let failed = call(&mut client, "run_python", json!({"code": "fail"})).await;
    assert_eq!((&failed["resultType"], &failed["isError"]), (&json!("complete"), &json!(true)), "{failed}");
    let task = handed_out(&mut client, json!({"code": "wait", "background": true})).await;
    let early = call(&mut client, "task_wait", json!({"task_id": task, "timeout_seconds": 0})).await;
    assert_eq!((&early["resultType"], &early["_meta"]["codegen/state"]), (&json!("complete"), &json!("running")));
    server.double.go.notify_one();
}

#[tokio::test]
async fn a_task_is_cancelled_by_the_method_and_stays_as_it_ended() {
    let server = Server::new();
    let mut client = server.connect();
    let task = handed_out(&mut client, json!({"code": "for ever", "background": true})).await;
    assert_eq!(method(&mut client, "tasks/cancel", &task).await["result"], json!({"resultType": "complete"}));
    assert_eq!(ended(&mut client, &task).await["status"], "cancelled");
    assert!(method(&mut client, "tasks/cancel", &task).await.get("error").is_none());
    let done = handed_out(&mut client, json!({"code": "wait", "background": true})).await;
    server.double.go.notify_one();
    ended(&mut client, &done).await;
    method(&mut client, "tasks/cancel", &done).await;
    assert_eq!(ended(&mut client, &done).await["status"], "completed");
}

#[tokio::test]
async fn foreign_unknown_and_malformed_ids_are_refused_alike() {
    let server = Server::new();
    let mut client = server.connect();
    let task = handed_out(&mut client, json!({"code": "wait", "background": true})).await;
    let mut bob = server.connect_as("bob");
    let long = "t".repeat(10_000);
    for name in TASK_METHODS {
        let foreign = method(&mut bob, name, &task).await["error"].clone();
        assert_eq!((&foreign["code"], &foreign["data"]["code"]), (&json!(-32602), &json!("NOT_FOUND")), "{foreign}");
        for id in ["tsk_01890f3e-7d2b-7cc0-98c4-dc0c0c07398f", "tsk_x", "", "../x", &long] {
            assert_eq!(method(&mut client, name, id).await["error"], foreign, "{name} {id:.20}");
        }
        let shapeless = client.request(name, json!({"_meta": tasks_meta(), "taskId": 7})).await;
        assert_eq!(shapeless["error"]["code"], -32602, "{shapeless}");
    }
    assert_eq!(method(&mut client, "tasks/get", &task).await["result"]["status"], "working", "bob ended nothing");
    server.double.go.notify_one();
    ended(&mut client, &task).await;
}

#[tokio::test]
async fn every_look_at_a_task_is_recorded_and_without_a_log_there_is_none() {
    let server = Server::new();
    let mut client = server.connect();
    let task = handed_out(&mut client, json!({"code": "wait", "background": true})).await;
    for name in TASK_METHODS {
        method(&mut client, name, &task).await;
        method(&mut client, name, "tsk_x").await;
    }
    until("it has ended", || server.double.calls.lock().len() == 1).await;
    let records = server.audit.memory_records();
    for name in TASK_METHODS {
        let of: Vec<_> = records.iter().filter(|record| record.tool.as_deref() == Some(name)).collect();
        let [served, refused] = of[..] else { panic!("{name}: {of:?}") };
        assert_eq!((served.kind, served.outcome), (EventKind::CallServed, Some(Outcome::Ok)), "{name}");
        assert_eq!((refused.kind, refused.outcome), (EventKind::CallRefused, Some(Outcome::Refused)), "{name}");
        assert!(served.session.is_some() && served.args == Some(json!({"task_id": task})), "{served:?}");
    }
    server.audit.set_memory_fault(Some("the disk is gone"));
    for id in [task.as_str(), "tsk_x"] {
        let answer = method(&mut client, "tasks/get", id).await;
        assert_eq!(answer["error"]["data"]["code"], "AUDIT_UNAVAILABLE", "{answer}");
    }
}

#[tokio::test]
async fn the_extension_is_declared_by_discovery_and_by_no_handshake() {
    let server = Server::new();
    let mut client = server.connect();
    let discovered = client.request("server/discover", json!({"_meta": modern_meta()})).await;
    assert_eq!(discovered["result"]["capabilities"]["extensions"], json!({EXTENSION: {}}), "{discovered}");
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let hello = server.connect().initialize(revision).await;
        assert!(hello["capabilities"].get("extensions").is_none(), "{hello}");
    }
}

#[tokio::test]
async fn clients_that_do_not_declare_it_get_a_text_as_before() {
    let server = Server::new();
    let mut client = server.connect();
    let arguments = json!({"code": "wait", "background": true});
    let params = json!({"_meta": modern_meta(), "name": "run_python", "arguments": arguments});
    let result = client.request("tools/call", params).await["result"].clone();
    assert_eq!((&result["resultType"], &result["_meta"]["codegen/state"]), (&json!("complete"), &json!("running")));
    let task = &result["_meta"]["codegen/task_id"];
    for name in TASK_METHODS {
        let params = json!({"_meta": modern_meta(), "taskId": task, "inputResponses": {}});
        let refused = client.request(name, params).await;
        assert_eq!(refused["error"]["code"], -32021, "{refused}");
    }
    server.double.go.notify_one();
}

#[tokio::test]
async fn earlier_revisions_have_no_handles_whatever_their_client_declares() {
    let server = Server::new();
    let mut client = server.connect();
    let capabilities = json!({"extensions": {EXTENSION: {}}});
    let client_info = json!({"name": "t", "version": "1"});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": client_info});
    client.request("initialize", hello).await;
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    let result = client.tool("run_python", json!({"code": "wait", "background": true})).await;
    assert!(text(&result).starts_with("still running after "), "{result}");
    let task = &result["_meta"]["codegen/task_id"];
    for name in TASK_METHODS {
        for params in [json!({"taskId": task, "inputResponses": {}}), json!({"taskId": 7})] {
            let refused = client.request(name, params).await;
            assert_eq!(refused["error"]["code"], -32601, "{refused}");
        }
    }
    server.double.go.notify_one();
}

#[tokio::test]
async fn what_the_policy_denies_of_tasks_is_denied_by_the_method_too() {
    let denying = |tool: &str| format!("[[rule]]\nname='t'\ntool='{tool}'\neffect='deny'\n");
    for (tool, denied) in [("task_cancel", "tasks/cancel"), ("task_status", "tasks/get"), ("task_wait", "tasks/get")] {
        let (server, _) = Server::with_policy(&denying(tool), Options::default());
        let mut client = server.connect();
        let task = handed_out(&mut client, json!({"code": "wait", "background": true})).await;
        for name in ["tasks/get", "tasks/cancel"] {
            let code = method(&mut client, name, &task).await["error"]["data"]["code"].clone();
            assert_eq!(code == "PERMISSION_DENIED", name == denied, "{tool} {name} {code}");
        }
        server.double.go.notify_one();
    }
}
