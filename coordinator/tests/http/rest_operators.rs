//! REST for those who run the server, its description, and what holds of every operation.

use codegen_audit::Audit;
use codegen_types::Principal;
use coordinator::admission::Admission;
use coordinator::approvals::Approvals;
use coordinator::identity::{Scope, Scopes};
use coordinator::policy::{Gate, Hosts, Policies};
use coordinator_core::policy::Policy;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::rig::{Asked, Rig};

const BASE: &str = "/api/v1";

/// Every operation of the description: method, path, what it is called, and whether it takes JSON.
pub async fn operations(rig: &Rig) -> Vec<(String, String, String, bool)> {
    let described = rig.request("GET", "/api/openapi.json").send().await.json().await;
    let mut operations = Vec::new();
    for (path, item) in described["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let name = operation["operationId"].as_str().expect("a name").to_owned();
            let takes_json = operation["requestBody"]["content"].get("application/json").is_some();
            operations.push((method.to_uppercase(), path.clone(), name, takes_json));
        }
    }
    assert!(operations.len() > 20, "{operations:?}");
    operations
}

/// A body that each operation understands.
fn body(operation: &str) -> Value {
    match operation {
        "create_task" => json!({"kind": "python", "code": "say x"}),
        "move_file" => json!({"from": "a", "to": "b"}),
        "create_token" => json!({"principal": "bob", "scopes": ["tools"]}),
        _ => json!({}),
    }
}

pub fn asked(rig: &Rig, (method, path, name, takes_json): &(String, String, String, bool), session: &str) -> Asked {
    let path = path.replace("{session_id}", session).replace("{path}", "a").replace("{task_id}", "tsk_x");
    let path = path.replace("{token_id}", "tok_x").replace("{approval_id}", "apr_x");
    let path = path.replace("{worker_id}", "nobody");
    let asked = rig.request(method, &path);
    match name.as_str() {
        // The end of an archive, with nothing before it.
        "write_archive" => asked.body(vec![0; 1_024]),
        _ if *takes_json => asked.header("content-type", "application/json").body(body(name).to_string()),
        _ => asked,
    }
}

#[tokio::test]
async fn every_operation_is_in_the_log_whatever_it_is_answered_with() {
    let rig = Rig::new().await;
    let operator: Scopes = Scopes::USER.with(Scope::Admin);
    let token = rig.token("ann", operator).await;
    let session = session(&rig, &token).await;
    let mut operations = operations(&rig).await;
    // What ends the session comes last.
    operations.sort_by_key(|(_, _, name, _)| name == "close_session");
    for operation in &operations {
        let (records, calls) = (rig.audit.memory_records().len(), rig.double.calls.lock().len());
        let answer = asked(&rig, operation, &session).bearer(Some(&token)).send().await;
        assert!(!answer.status.is_server_error(), "{operation:?}: {}", answer.status);
        assert_ne!(answer.status, StatusCode::BAD_REQUEST, "{operation:?} is understood");
        let records = rig.audit.memory_records().split_off(records);
        let is_theirs = records.iter().any(|record| record.principal == Some("ann".parse::<Principal>().unwrap()));
        // What is a task is recorded by the session layer, of which there is a double here.
        let is_task = rig.double.calls.lock().len() > calls;
        assert!(is_theirs || is_task, "{operation:?}: {records:?}");
    }
}

#[tokio::test]
async fn nothing_is_done_without_credentials_that_permit_it() {
    let rig = Rig::new().await;
    let worker = rig.token("ann", Scope::Worker.into()).await;
    let user = rig.token("bob", Scopes::USER).await;
    let session = codegen_types::SessionId::mint().to_string();
    for operation in operations(&rig).await {
        let name = operation.2.as_str();
        let nobody = asked(&rig, &operation, &session).send().await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED, "{name}");
        if name != "show_usage" {
            let too_little = asked(&rig, &operation, &session).bearer(Some(&worker)).send().await;
            assert_eq!(too_little.status, StatusCode::FORBIDDEN, "{name}");
            assert!(too_little.headers.contains_key("www-authenticate"), "{name}");
        }
        let for_operators = [
            "list_workers",
            "get_worker",
            "cordon_worker",
            "uncordon_worker",
            "drain_worker",
            "query_audit",
            "verify_audit",
            "create_token",
            "list_tokens",
            "revoke_token",
        ];
        if for_operators.contains(&name) {
            let refused = asked(&rig, &operation, &session).bearer(Some(&user)).send().await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{name}");
            let refused = refused.json().await;
            assert_eq!(refused["error"]["details"]["needed_scopes"], json!(["admin"]), "{name}");
        }
    }
    for path in ["/events?all=true", "/usage?principal=ann"] {
        let refused = rig.request("GET", &format!("{BASE}{path}")).bearer(Some(&user)).send().await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn what_operators_do_takes_no_key_and_no_description_says_otherwise() {
    let rig = Rig::new().await;
    let token = rig.token("op", Scopes::USER.with(Scope::Admin)).await;
    let described = rig.request("GET", "/api/openapi.json").send().await.json().await;
    let mut takes_none = Vec::new();
    for operation in operations(&rig).await.iter().filter(|(method, ..)| method != "GET") {
        let (method, path, name, _) = operation;
        let parameters = &described["paths"][path][method.to_lowercase()]["parameters"];
        let is_described = parameters.as_array().is_some_and(|all| all.iter().any(|p| p["name"] == "idempotency-key"));
        let session = session(&rig, &token).await;
        let asked = asked(&rig, operation, &session).header("idempotency-key", name).bearer(Some(&token));
        let answer = asked.send().await;
        let is_taken = answer.status != StatusCode::BAD_REQUEST;
        assert!(is_taken || answer.text().await.contains("Idempotency-Key"), "{name}");
        assert_eq!(is_taken, is_described, "{name}");
        takes_none.extend((!is_taken).then(|| name.clone()));
    }
    takes_none.sort();
    let of_operators = [
        "approve_call",
        "cordon_worker",
        "create_token",
        "deny_call",
        "drain_worker",
        "revoke_token",
        "uncordon_worker",
        "verify_audit",
    ];
    assert_eq!(takes_none, of_operators);
}

pub async fn session(rig: &Rig, token: &str) -> String {
    let made = rig.request("POST", &format!("{BASE}/sessions")).header("content-type", "application/json").body("{}");
    let made = made.bearer(Some(token)).send().await.json().await;
    made["session_id"].as_str().expect("a handle").to_owned()
}

#[tokio::test]
async fn the_last_page_of_the_log_says_that_it_is_the_last_also_where_it_is_full() {
    let dir = tempfile::tempdir().expect("a directory");
    let rig = Rig::with_log(dir.path()).await;
    let token = rig.token("op", Scope::Admin.into()).await;
    let page = async |limit: usize| {
        let asked = rig.request("GET", &format!("{BASE}/audit/records?limit={limit}"));
        let page = asked.bearer(Some(&token)).send().await.json().await;
        (page["records"].as_array().expect("records").len(), page.get("next_cursor").is_some())
    };
    // Each look at the log is a record of its own, after what it gives.
    let (before, more) = page(500).await;
    assert!(before > 0 && !more);
    assert_eq!(page(before + 1).await, (before + 1, false));
    assert_eq!(page(before + 1).await, (before + 1, true));
}

#[tokio::test]
async fn an_open_server_lets_nobody_be_an_operator() {
    let rig = Rig::new().await;
    for path in ["/tokens", "/workers", "/audit/records"] {
        let refused = rig.request("GET", &format!("{BASE}{path}")).send().await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
    }
    let made = rig.request("POST", &format!("{BASE}/tokens")).header("content-type", "application/json");
    let made = made.body(json!({"principal": "x", "scopes": ["admin"]}).to_string()).send().await;
    assert_eq!(made.status, StatusCode::FORBIDDEN);
    assert!(rig.tokens.list().is_empty());
}

#[tokio::test]
async fn no_rule_stands_between_operators_and_what_they_decide() {
    let policies = Policies::fixed(Policy::parse("default = 'require_approval'").expect("a policy"));
    let gate = Gate::new(policies, Approvals::new(Audit::in_memory()), Hosts::default());
    let rig = Rig::with_admission(|_| {}, Admission::default().behind(gate)).await;
    let operator = rig.token("op", Scopes::USER.with(Scope::Admin)).await;
    let ask = |method: &str, path: &str| {
        let asked = rig.request(method, &format!("{BASE}{path}")).bearer(Some(&operator));
        asked.header("content-type", "application/json").body("{}")
    };
    assert_eq!(ask("GET", "/approvals").send().await.status, StatusCode::OK);
    let id = codegen_types::ApprovalId::mint();
    assert_eq!(ask("POST", &format!("/approvals/{id}/approve")).send().await.status, StatusCode::NOT_FOUND);
    assert_eq!(ask("GET", "/tokens").send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_is_made_shown_once_used_and_revoked() {
    let rig = Rig::new().await;
    let operator = rig.token("op", Scope::Admin.into()).await;
    let ask = |method: &str, path: &str| rig.request(method, &format!("{BASE}{path}")).bearer(Some(&operator));
    let new = json!({"principal": "ann", "scopes": ["tools", "sessions"], "note": "n"}).to_string();
    let create = || ask("POST", "/tokens").header("content-type", "application/json").body(new.clone());
    assert_eq!(create().header("idempotency-key", "k").send().await.status, StatusCode::BAD_REQUEST);
    let made = create().send().await;
    assert_eq!(made.status, StatusCode::CREATED);
    let made = made.json().await;
    let (id, text) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    let listed = || rig.request("GET", &format!("{BASE}/sessions")).bearer(Some(text));
    assert_eq!(listed().send().await.status, StatusCode::OK);
    let all = ask("GET", "/tokens").send().await.text().await;
    let secret = text.rsplit('_').next().unwrap();
    assert!(all.contains(id) && !all.contains(secret));
    assert!(rig.audit.memory_records().iter().all(|record| !record.line.contains(secret)));
    let revoked = ask("DELETE", &format!("/tokens/{id}")).send().await.json().await;
    assert_eq!(revoked["state"], "revoked");
    assert_eq!(listed().send().await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_page_of_the_description_asks_nobody_for_anything_and_shows_every_operation() {
    let rig = Rig::new().await;
    rig.token("ann", Scopes::USER).await;
    let page = rig.request("GET", "/api/docs").send().await;
    assert_eq!(page.status, StatusCode::OK);
    let policy = page.headers["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let page = page.text().await;
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"), "{page}");
    for (method, path, ..) in operations(&rig).await {
        assert!(page.contains(&format!("<b>{method}</b> <code>{path}</code>")), "{method} {path}");
    }
    let style = rig.request("GET", "/api/docs.css").send().await;
    assert_eq!(style.headers["content-type"], "text/css; charset=utf-8");
}

#[tokio::test]
async fn a_page_of_another_origin_gets_nothing_and_a_form_is_not_taken() {
    let rig = Rig::new().await;
    let post = || rig.request("POST", &format!("{BASE}/sessions"));
    let foreign = post().header("origin", "http://evil.example").header("content-type", "application/json").body("{}");
    assert_eq!(foreign.send().await.status, StatusCode::FORBIDDEN);
    let rebound = post().host("evil.example").header("content-type", "application/json").body("{}").send().await;
    assert_eq!(rebound.status, StatusCode::FORBIDDEN);
    for kind in ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"] {
        let form = post().header("content-type", kind).body("{}").send().await;
        assert_eq!(form.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    assert!(rig.audit.memory_records().is_empty());
}
