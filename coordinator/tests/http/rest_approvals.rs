//! Calls over REST that somebody has to approve of, and what whoever decides is shown.

use codegen_audit::{Audit, EventKind};
use codegen_types::event::{FileKind, FileStat};
use codegen_types::{ApprovalId, Principal};
use coordinator::admission::Admission;
use coordinator::approvals::{ApprovalView, Approvals, Decider, Way};
use coordinator::identity::{Scope, Scopes};
use coordinator::policy::{Gate, Hosts, Policies};
use coordinator_core::policy::Policy;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::rig::{Rig, until};

const BASE: &str = "/api/v1";
const ASKING: &str = "[[rule]]\nname='r'\ntool=['fs_read','fs_write']\neffect='require_approval'\n";
/// More than is read at once.
const LARGE: usize = 9 << 20;

async fn guarded() -> (Rig, Approvals) {
    let approvals = Approvals::new(Audit::in_memory());
    let policies = Policies::fixed(Policy::parse(ASKING).expect("a policy"));
    let gate = Gate::new(policies, approvals.clone(), Hosts::default());
    (Rig::with_admission(|_| {}, Admission::default().behind(gate)).await, approvals)
}

async fn pending(approvals: &Approvals) -> ApprovalView {
    until("a request for approval", || !approvals.list().is_empty()).await;
    approvals.list().remove(0)
}

async fn approve(approvals: &Approvals) -> ApprovalView {
    let view = pending(approvals).await;
    let operator = Decider { principal: Principal::os_user("op"), way: Way::Command };
    approvals.approve(view.id, &operator, None).await.expect("it is pending");
    view
}

async fn session(rig: &Rig, token: Option<&str>) -> String {
    let made =
        rig.request("POST", &format!("{BASE}/sessions")).bearer(token).header("content-type", "application/json");
    made.body("{}").send().await.json().await["session_id"].as_str().expect("a handle").to_owned()
}

#[tokio::test]
async fn a_download_that_is_read_in_pieces_needs_one_approval_and_every_piece_names_it() {
    let (rig, approvals) = guarded().await;
    let stat = FileStat {
        path: "large".to_owned(),
        kind: FileKind::File,
        size: LARGE as u64,
        modified_ms: 0,
        etag: Some("v".to_owned()),
        mode: 0o644,
        target: None,
    };
    let contents: Vec<u8> = (0..LARGE).map(|n| n as u8).collect();
    rig.double.files.lock().push((stat, contents.clone()));
    let path = format!("{BASE}/sessions/{}/files/large", session(&rig, None).await);
    let download = async { rig.request("GET", &path).send().await };
    let (answer, asked) = tokio::join!(download, approve(&approvals));
    assert_eq!((answer.status, &asked.arguments["path"]), (StatusCode::OK, &json!("large")));
    assert!(answer.bytes().await == Some(contents));
    assert_eq!(approvals.list(), []);
    let leaves: Vec<_> = rig.double.calls.lock().iter().map(|call| call.leave.approval()).collect();
    assert_eq!(leaves, [Some(asked.id); 3]);
    // The next one is another one.
    let download = async { rig.request("GET", &path).header("range", "bytes=0-1").send().await };
    let (answer, again) = tokio::join!(download, approve(&approvals));
    assert_eq!((answer.status, &again.arguments["limit"]), (StatusCode::PARTIAL_CONTENT, &json!(2)));
    assert_ne!(again.id, asked.id);
}

#[tokio::test]
async fn whoever_decides_gets_a_long_call_whole_and_nobody_else_does() {
    let (rig, approvals) = guarded().await;
    let (ann, bob) = (rig.token("ann", Scopes::USER).await, rig.token("bob", Scopes::USER).await);
    let operator = rig.token("op", Scope::Admin.into()).await;
    let contents = format!("{}rm -rf all", "#".repeat(5_000));
    let path = format!("{BASE}/sessions/{}/files/a", session(&rig, Some(&ann)).await);
    let upload = async { rig.request("PUT", &path).bearer(Some(&ann)).body(contents.clone()).send().await };
    let looks = async {
        let view = pending(&approvals).await;
        let show = async |id: ApprovalId, token: &str| {
            rig.request("GET", &format!("{BASE}/approvals/{id}")).bearer(Some(token)).send().await
        };
        for token in [&operator, &ann] {
            let shown: Value = show(view.id, token).await.json().await;
            let whole = shown["whole"]["contents"].as_str().expect("the contents");
            assert!(shown["rest"] == "kept" && whole.len() > 6_000, "{shown}");
            assert!(shown["arguments"]["contents"].as_str().is_some_and(|part| part.contains("SHA-256")), "{shown}");
        }
        let (foreign, unknown) = (show(view.id, &bob).await, show(ApprovalId::mint(), &bob).await);
        assert_eq!((foreign.status, unknown.status), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
        assert_eq!(foreign.json().await, unknown.json().await);
        approve(&approvals).await;
    };
    let (answer, ()) = tokio::join!(upload, looks);
    assert_eq!(answer.status, StatusCode::CREATED);
    let shown = |record: &codegen_audit::Record| record.tool.as_deref() == Some("approvals/show");
    let kinds: Vec<_> = rig.audit.memory_records().iter().filter(|record| shown(record)).map(|r| r.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::CallServed).count(), 2, "{kinds:?}");
}
