//! Calls under idempotency keys where a policy wants calls approved: what was approved once is done once, and its
//! repetitions get what it gave.

use std::sync::Arc;
use std::time::Duration;

use codegen_audit::EventKind;
use codegen_types::{ApprovalId, Limits, Principal, SessionId};
use coordinator::admission::Admission;
use coordinator::approvals::{Approvals, Asking, Decider, Way};
use coordinator::identity::Scopes;
use coordinator::policy::{Gate, Hosts, Policies};
use coordinator::tools::{Connection, Request, SessionKeys, ToolResult};
use coordinator_core::policy::Policy;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, Script, ann, until};

const ASKING: &str = "[[rule]]\nname='all'\ntool=['run_*','session_*']\neffect='require_approval'\n";

async fn call_on(connection: &Connection, tool: &str, args: Value) -> ToolResult {
    let request = Request {
        tool: tool.to_owned(),
        args,
        scopes: Scopes::USER,
        client: None,
        trace: None,
        arrival: None,
        events: mpsc::channel(1).0,
        cancel: CancellationToken::new(),
        yield_after: Duration::from_millis(50),
        output_chars: 1_000,
        whole: None,
        asking: Asking::Nobody,
    };
    connection.serve(request).await.unwrap()
}

/// Sessions behind a policy.
struct Guarded {
    rig: Rig,
    approvals: Approvals,
    keys: Arc<SessionKeys>,
    policy: String,
}

impl Guarded {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let approvals = Approvals::new(rig.audit.clone());
        Self { rig, approvals, keys: Arc::default(), policy: ASKING.to_owned() }
    }

    /// Calls a tool on a connection of its own.
    async fn call(&self, tool: &str, args: Value) -> ToolResult {
        call_on(&self.connection(), tool, args).await
    }

    fn connection(&self) -> Connection {
        let sessions = Arc::new(self.rig.sessions.clone());
        let policies = Policies::fixed(Policy::parse(&self.policy).unwrap());
        let gate = Gate::new(policies, self.approvals.clone(), Hosts::default());
        Connection::new(sessions, self.rig.audit.clone(), Limits::default(), ann(), Arc::clone(&self.keys))
            .admitted_by(Admission::default().behind(gate))
    }

    /// Has the one request approved that is pending.
    async fn approve(&self) -> ApprovalId {
        let [pending] = self.approvals.list().try_into().unwrap_or_else(|all| panic!("one request: {all:?}"));
        let operator = Decider { principal: Principal::os_user("op"), way: Way::Command };
        self.approvals.approve(pending.id, &operator, None).await.unwrap();
        pending.id
    }

    fn details(&self, kind: EventKind) -> Vec<Value> {
        let records = self.rig.audit.memory_records();
        records.into_iter().filter(|record| record.kind == kind).map(|record| record.detail.unwrap()).collect()
    }
}

fn keyed(session: SessionId) -> Value {
    json!({"session_id": session, "code": "1", "idempotency_key": "k"})
}

#[tokio::test]
async fn a_repetition_of_an_approved_call_gets_its_result_and_is_put_before_nobody() {
    let guarded = Guarded::new().await;
    let session = guarded.rig.create().await.id;
    assert_eq!(guarded.call("run_python", keyed(session)).await.code(), "APPROVAL_REQUIRED");
    guarded.approve().await;
    let first = guarded.call("run_python", keyed(session)).await;
    let again = guarded.call("run_python", keyed(session)).await;
    assert_eq!((first.code(), again.code()), ("OK".to_owned(), "OK".to_owned()));
    assert_eq!((guarded.rig.fleet.dispatched().len(), guarded.approvals.list().len()), (1, 0));
    // Another call under the key is told so, and not put before anybody either.
    let other = guarded.call("run_python", json!({"session_id": session, "code": "2", "idempotency_key": "k"})).await;
    assert_eq!((other.code().as_str(), guarded.approvals.list().len()), ("INVALID_ARGUMENT", 0));
}

#[tokio::test]
async fn a_repetition_joins_an_approved_call_that_runs() {
    let guarded = Guarded::new().await;
    let session = guarded.rig.create().await.id;
    let go = Arc::new(Notify::new());
    guarded.rig.fleet.script(Script::Gate(Arc::clone(&go)));
    assert_eq!(guarded.call("run_python", keyed(session)).await.code(), "APPROVAL_REQUIRED");
    guarded.approve().await;
    let (first, again) = tokio::join!(guarded.call("run_python", keyed(session)), async {
        until("the task to run", || guarded.rig.fleet.dispatched().len() == 1).await;
        guarded.call("run_python", keyed(session)).await
    });
    let task = |result: &ToolResult| result.goes_on.as_ref().unwrap().task;
    assert_eq!(task(&first), task(&again));
    assert_eq!((guarded.rig.fleet.dispatched().len(), guarded.approvals.list().len()), (1, 0));
    go.notify_one();
}

#[tokio::test]
async fn what_is_denied_by_now_is_denied_to_a_repetition_too() {
    let mut guarded = Guarded::new().await;
    let session = guarded.rig.create().await.id;
    guarded.call("run_python", keyed(session)).await;
    guarded.approve().await;
    assert_eq!(guarded.call("run_python", keyed(session)).await.code(), "OK");
    guarded.policy = format!("{ASKING}[[rule]]\nname='no'\ntool='run_*'\neffect='deny'\n");
    assert_eq!(guarded.call("run_python", keyed(session)).await.code(), "PERMISSION_DENIED");
}

#[tokio::test]
async fn a_tool_that_keeps_no_keys_is_put_to_approval_whatever_its_key() {
    let guarded = Guarded {
        policy: "[[rule]]\nname='c'\ntool='task_cancel'\neffect='require_approval'\n".into(),
        ..Guarded::new().await
    };
    let connection = guarded.connection();
    let done = call_on(&connection, "run_python", json!({"code": "1", "idempotency_key": "k"})).await;
    assert_eq!(done.code(), "OK");
    let task = guarded.rig.fleet.dispatched()[0].task;
    let cancel = json!({"task_id": task, "idempotency_key": "k"});
    assert_eq!(call_on(&connection, "task_cancel", cancel).await.code(), "APPROVAL_REQUIRED");
}

#[tokio::test]
async fn a_session_that_was_made_under_a_key_is_given_again_without_an_approval() {
    let guarded = Guarded::new().await;
    let args = json!({"name": "a", "idempotency_key": "k"});
    assert_eq!(guarded.call("session_create", args.clone()).await.code(), "APPROVAL_REQUIRED");
    let approval = guarded.approve().await;
    let (first, again) =
        (guarded.call("session_create", args.clone()).await, guarded.call("session_create", args).await);
    let id = |result: &ToolResult| result.structured.as_ref().unwrap()["session_id"].clone();
    assert_eq!(id(&first), id(&again));
    let named: Vec<Option<String>> = guarded
        .rig
        .audit
        .memory_records()
        .iter()
        .filter(|r| r.kind == EventKind::CallServed)
        .map(|r| r.detail.as_ref().map(|d| d["approval"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(named, [Some(approval.to_string()), None]);
}

#[tokio::test]
async fn the_attempt_names_the_approval_that_let_it_through() {
    let guarded = Guarded::new().await;
    let session = guarded.rig.create().await.id;
    let args = json!({"session_id": session, "code": "1"});
    guarded.call("run_python", args.clone()).await;
    let approval = guarded.approve().await;
    assert_eq!(guarded.call("run_python", args).await.code(), "OK");
    let attempts = guarded.details(EventKind::TaskAttempt);
    assert_eq!(attempts.iter().map(|detail| &detail["approval"]).collect::<Vec<_>>(), [&json!(approval)]);
}
