//! Shared sessions: who may read, who may act, one at a time, and what ends when that ends.

use std::sync::Arc;
use std::time::Duration;

use codegen_audit::EventKind;
use codegen_types::operation::List;
use codegen_types::{ErrorCode, Failure, Limits, Operation, Principal, SessionId, TaskId, WorkspacePath};
use coordinator::approvals::Asking;
use coordinator::identity::Scopes;
use coordinator::session::{Role, SessionNews, SessionOptions, TaskCall, TaskPhase, UpdateSession};
use coordinator::tools::{Connection, Effect, Request, SessionKeys, TOOLS, Tool};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::restart::{after_kill, ground, records};
use super::rig::{Double, Ground, Rig, Script, ann, call, code, keyed, options, until};

fn bob() -> Principal {
    Principal::os_user("bob")
}

fn eve() -> Principal {
    Principal::os_user("eve")
}

fn by(principal: Principal, session: SessionId) -> TaskCall {
    TaskCall { principal, ..call(session) }
}

fn listing(principal: Principal, session: SessionId) -> TaskCall {
    let list = List { path: WorkspacePath::root(), recursive: false, pattern: None, entries_max: 10 };
    TaskCall { operation: Operation::List(list), read_only: true, ..by(principal, session) }
}

async fn shared_for(rig: &Rig, role: Role) -> SessionId {
    let session = rig.create().await.id;
    rig.sessions.share(&ann(), session, bob(), role).await.unwrap();
    session
}

/// A task that runs until it is cancelled or let go; its outcome comes when it has ended.
async fn running(rig: &Rig, script: Script, call: TaskCall) -> coordinator::session::Launched {
    rig.fleet.script(script);
    let before = rig.fleet.dispatched().len();
    let launched = rig.sessions.launch(call, mpsc::channel(1).0, CancellationToken::new()).await;
    until("it runs", || rig.fleet.dispatched().len() > before).await;
    launched
}

#[tokio::test]
async fn a_stranger_is_told_what_is_told_of_a_session_that_never_was() {
    let rig = Rig::new().await;
    let session = shared_for(&rig, Role::Writer).await;
    let task = rig.run(call(session)).await.task;
    let (never, no_task) = (SessionId::mint(), TaskId::mint());
    let (ann, eve) = (&ann(), &eve());
    for session_of in [session, never] {
        let unknown = Failure::new(ErrorCode::SessionNotFound, "there is no such session of yours");
        let asked: Vec<Result<(), Failure>> = vec![
            rig.sessions.get(eve, session_of).map(drop),
            rig.sessions.update(eve, session_of, UpdateSession::default()).await.map(drop),
            rig.sessions.share(eve, session_of, ann.clone(), Role::Writer).await.map(drop),
            rig.sessions.unshare(eve, session_of, ann.clone()).await.map(drop),
            rig.sessions.close(eve, session_of).await.map(drop),
            rig.sessions.tasks(eve, Some(session_of), 9).await.map(drop),
            rig.run(by(eve.clone(), session_of)).await.result.map(drop),
            rig.run(listing(eve.clone(), session_of)).await.result.map(drop),
        ];
        assert!(asked.iter().all(|answer| *answer == Err(unknown.clone())), "{asked:?}");
    }
    for wait in [Duration::ZERO, Duration::from_secs(1)] {
        let foreign = rig.sessions.wait(eve, task, wait).await;
        assert_eq!(foreign, rig.sessions.wait(eve, no_task, wait).await);
        assert_eq!(foreign.map_err(|failure| failure.code), Err(ErrorCode::NotFound));
    }
    assert_eq!(rig.sessions.cancel_task(eve, task).await, rig.sessions.cancel_task(eve, no_task).await);
    assert!(rig.sessions.list(eve, true).is_empty() && rig.sessions.tasks(eve, None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_observer_reads_and_acts_in_nothing() {
    let rig = Rig::new().await;
    let session = shared_for(&rig, Role::Observer).await;
    let launched = running(&rig, Script::Hang, call(session)).await;
    let (task, bob) = (launched.task, &bob());
    assert_eq!(rig.sessions.list(bob, false).iter().map(|s| s.id).collect::<Vec<_>>(), [session]);
    assert!(rig.run(listing(bob.clone(), session)).await.result.is_ok());
    assert_eq!(rig.sessions.task(bob, task).await.unwrap().info.principal, ann());
    let listed = rig.sessions.tasks(bob, Some(session), 9).await.unwrap();
    assert!(listed.iter().any(|info| info.task == task && info.phase == TaskPhase::Running), "{listed:?}");
    let denied = Some(ErrorCode::PermissionDenied);
    let refused = |asked: Result<(), Failure>| asked.err().map(|failure| failure.code);
    assert_eq!(refused(rig.sessions.cancel_task(bob, task).await), denied);
    assert_eq!(code(&rig.run(by(bob.clone(), session)).await), denied);
    let disguised = TaskCall { read_only: true, ..by(bob.clone(), session) };
    assert_eq!(code(&rig.run(disguised).await), denied, "what runs a program reads in name alone");
    assert_eq!(refused(rig.sessions.update(bob, session, UpdateSession::default()).await.map(drop)), denied);
    assert_eq!(refused(rig.sessions.share(bob, session, eve(), Role::Observer).await.map(drop)), denied);
    assert_eq!(refused(rig.sessions.unshare(bob, session, bob.clone()).await.map(drop)), denied);
    assert_eq!(refused(rig.sessions.close(bob, session).await.map(drop)), denied);
    rig.sessions.cancel_task(&ann(), task).await.unwrap();
    assert_eq!(code(&launched.outcome.await), Some(ErrorCode::TaskCancelled));
    let seen = rig.sessions.wait(bob, task, Duration::from_secs(30)).await.unwrap();
    assert_eq!(seen.info.phase, TaskPhase::Failed(ErrorCode::TaskCancelled), "its outcome, too");
}

#[tokio::test]
async fn one_principal_acts_at_a_time_and_a_while_longer_than_its_tasks() {
    let options = SessionOptions { writer_lease: Duration::from_millis(400), ..options() };
    let rig = Rig::with(Ground::in_memory(), options).await;
    let session = shared_for(&rig, Role::Writer).await;
    let gate = Arc::new(Notify::new());
    let launched = running(&rig, Script::Gate(Arc::clone(&gate)), by(bob(), session)).await;
    let refused = rig.run(call(session)).await.result.unwrap_err();
    assert_eq!(refused.code, ErrorCode::PreconditionFailed);
    assert!(refused.message.contains("os:bob"), "{refused}");
    assert!(rig.run(by(bob(), session)).await.result.is_ok(), "its holder goes on");
    assert!(rig.run(listing(ann(), session)).await.result.is_ok(), "reading goes on");
    let writing = rig.sessions.get(&ann(), session).unwrap().writer.clone().unwrap();
    assert_eq!((writing.by, writing.until_ms), (bob(), None));
    gate.notify_one();
    launched.outcome.await.result.unwrap();
    let refused = rig.run(call(session)).await.result.unwrap_err();
    assert!(refused.message.contains("until 20") && refused.retry_after_ms.is_some_and(|ms| ms <= 400), "{refused:?}");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while rig.run(call(session)).await.result.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the lease ends by itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(code(&rig.run(by(bob(), session)).await), Some(ErrorCode::PreconditionFailed), "now it is the owner's");
}

#[tokio::test]
async fn the_owner_takes_the_right_to_act_away_and_what_acted_ends() {
    let rig = Rig::new().await;
    let session = shared_for(&rig, Role::Writer).await;
    let acting = running(&rig, Script::Hang, by(bob(), session)).await;
    let reading = running(&rig, Script::Hang, listing(bob(), session)).await;
    rig.sessions.share(&ann(), session, bob(), Role::Observer).await.unwrap();
    assert!(rig.run(call(session)).await.result.is_ok());
    assert_eq!(code(&acting.outcome.await), Some(ErrorCode::TaskCancelled));
    assert!(rig.sessions.task(&bob(), reading.task).await.unwrap().outcome.is_none(), "it still reads");
    rig.sessions.unshare(&ann(), session, bob()).await.unwrap();
    assert_eq!(code(&reading.outcome.await), Some(ErrorCode::TaskCancelled));
    assert!(rig.sessions.task(&bob(), reading.task).await.is_err());
    let kinds = rig.kinds(session);
    for (kind, times) in [(EventKind::SessionShared, 2), (EventKind::SessionUnshared, 1)] {
        assert_eq!(kinds.iter().filter(|other| **other == kind).count(), times, "{kinds:?}");
    }
}

#[tokio::test]
async fn whoever_waits_for_anothers_task_waits_no_longer_than_it_may() {
    let rig = Rig::new().await;
    let session = shared_for(&rig, Role::Observer).await;
    let launched = running(&rig, Script::Hang, call(session)).await;
    let (sessions, task) = (rig.sessions.clone(), launched.task);
    let waiting = tokio::spawn(async move { sessions.wait(&bob(), task, Duration::from_secs(60)).await });
    // Whether it waits by now or begins to later, it hears the same.
    rig.sessions.unshare(&ann(), session, bob()).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap().unwrap();
    assert_eq!(told.map_err(|failure| failure.code), Err(ErrorCode::NotFound));
    assert!(rig.sessions.task(&ann(), task).await.unwrap().outcome.is_none(), "the task itself goes on");
}

#[tokio::test]
async fn a_key_is_each_principals_own() {
    let options = SessionOptions { writer_lease: Duration::ZERO, ..options() };
    let rig = Rig::with(Ground::in_memory(), options).await;
    let session = shared_for(&rig, Role::Writer).await;
    let theirs = || TaskCall { principal: bob(), ..keyed(session, "k") };
    let (mine, others) = (rig.run(keyed(session, "k")).await, rig.run(theirs()).await);
    assert_ne!(mine.task, others.task);
    let again = [rig.run(keyed(session, "k")).await, rig.run(theirs()).await];
    assert_eq!(
        again.each_ref().map(|outcome| (outcome.task, outcome.replayed)),
        [(mine.task, true), (others.task, true)]
    );
    assert_eq!(rig.fleet.dispatched().len(), 2);
}

#[tokio::test]
async fn shares_outlive_the_server_and_the_loss_of_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let first = Rig::with(ground(dir.path(), Double::default()).await, options()).await;
    let session = shared_for(&first, Role::Writer).await;
    first.sessions.share(&ann(), session, eve(), Role::Observer).await.unwrap();
    first.sessions.share(&ann(), session, bob(), Role::Observer).await.unwrap();
    first.sessions.unshare(&ann(), session, eve()).await.unwrap();
    first
        .sessions
        .update(&ann(), session, UpdateSession { name: Some("n".to_owned()), ..Default::default() })
        .await
        .unwrap();
    for lose_the_store in [false, true] {
        let copy = after_kill(dir.path());
        if lose_the_store {
            for file in ["state.db", "state.db-wal", "state.db-shm"] {
                let _absent = std::fs::remove_file(copy.path().join(file));
            }
        }
        let second = Rig::with(ground(copy.path(), first.fleet.clone()).await, options()).await;
        let snapshot = second.sessions.get(&bob(), session).expect("bob still sees it");
        let shares: Vec<_> = snapshot.shares.iter().map(|(with, role)| (with.clone(), role)).collect();
        assert_eq!((shares, snapshot.name.as_deref()), (vec![(bob(), Role::Observer)], Some("n")));
        assert!(second.sessions.get(&eve(), session).is_err());
        assert_eq!(code(&second.run(by(bob(), session)).await), Some(ErrorCode::PermissionDenied));
    }
    let shared = records(dir.path()).into_iter().find(|record| record.kind == EventKind::SessionShared).unwrap();
    assert_eq!(shared.args, Some(json!({"principal": "os:bob", "role": "writer"})));
}

#[tokio::test]
async fn a_session_is_not_shared_with_its_owner_nor_with_too_many() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let refused = rig.sessions.share(&ann(), session, ann(), Role::Writer).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidArgument);
    for n in 0..32 {
        let with = Principal::os_user(&n.to_string());
        rig.sessions.share(&ann(), session, with, Role::Observer).await.unwrap();
    }
    let refused = rig.sessions.share(&ann(), session, bob(), Role::Observer).await.unwrap_err();
    assert!(refused.message.contains("32"), "{refused}");
    rig.sessions.close(&ann(), session).await.unwrap();
    let refused = rig.sessions.share(&ann(), session, Principal::os_user("0"), Role::Writer).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::SessionClosed);
    let unshared = rig.sessions.unshare(&ann(), session, Principal::os_user("0")).await.unwrap();
    assert_eq!(unshared.shares.iter().count(), 31, "that is never refused");
}

#[tokio::test]
async fn a_follower_hears_what_runs_while_it_may_and_holds_nothing_up() {
    let rig = Rig::new().await;
    let session = shared_for(&rig, Role::Observer).await;
    assert!(rig.sessions.follow_session(&eve(), session).is_err());
    let mut following = rig.sessions.follow_session(&bob(), session).unwrap();
    let task = rig.run(call(session)).await.task;
    let mut heard = Vec::new();
    while heard.len() < 3 {
        heard.push(tokio::time::timeout(Duration::from_secs(60), following.next()).await.unwrap().unwrap());
    }
    assert!(matches!(&heard[0], SessionNews::Began(info) if info.task == task && info.principal == ann()), "{heard:?}");
    assert!(matches!(&heard[1], SessionNews::Wrote { from: 0, bytes, .. } if **bytes == *b"ok"), "{heard:?}");
    assert!(matches!(&heard[2], SessionNews::Ended(info) if info.phase == TaskPhase::Finished), "{heard:?}");
    rig.fleet.script(Script::Flood(1_000));
    assert!(rig.run(call(session)).await.result.is_ok(), "nobody waits for who does not listen");
    assert!(matches!(following.next().await, Some(SessionNews::Missed)));
    rig.sessions.unshare(&ann(), session, bob()).await.unwrap();
    assert!(following.next().await.is_none(), "what waited for it is not for it any more");
    let mut own = rig.sessions.follow_session(&ann(), session).unwrap();
    rig.sessions.close(&ann(), session).await.unwrap();
    assert!(own.next().await.is_none());
    assert!(rig.sessions.follow_session(&ann(), session).is_err());
}

/// Arguments with which each tool does something in a session; none for the tools that are about no session.
fn arguments(tool: &str, session: SessionId) -> Option<Value> {
    let more = match tool {
        "echo" | "session_create" | "session_list" | "task_wait" | "task_logs" | "task_status" | "task_cancel" => {
            return None;
        }
        "session_share" => json!({"principal": "os:eve", "role": "observer"}),
        "session_unshare" => json!({"principal": "os:eve"}),
        "session_update" => json!({"name": "n"}),
        "fs_write" => json!({"path": "a", "contents": "x"}),
        "fs_edit" => json!({"path": "a", "old": "x", "new": "y"}),
        "fs_move" => json!({"from": "a", "to": "b"}),
        "fs_read" | "fs_stat" | "fs_delete" | "artifact_get" => json!({"path": "a"}),
        "fs_search" => json!({"pattern": "x"}),
        "kernel_restart" => json!({"kernel": "k"}),
        "run_python" => json!({"code": "1"}),
        "run_shell" => json!({"command": "true"}),
        "run_code" => json!({"runtime": "node", "code": "1"}),
        "pkg_install" => json!({"packages": ["name-1.0-py3-none-any.whl"]}),
        _ => json!({}),
    };
    let mut arguments = json!({"session_id": session});
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Some(arguments)
}

/// The code with which a tool answers a principal.
async fn answer(rig: &Rig, principal: Principal, tool: &Tool, arguments: Value) -> String {
    let sessions = Arc::new(rig.sessions.clone());
    let keys = Arc::<SessionKeys>::default();
    let connection = Connection::new(sessions, rig.audit.clone(), Limits::default(), principal, keys);
    let request = Request {
        tool: tool.name.to_owned(),
        args: arguments,
        scopes: Scopes::USER,
        client: None,
        trace: None,
        arrival: None,
        events: mpsc::channel(1).0,
        cancel: CancellationToken::new(),
        yield_after: Duration::from_secs(30),
        output_chars: 1_000,
        whole: None,
        asking: Asking::Nobody,
    };
    connection.serve(request).await.unwrap().code()
}

#[tokio::test]
async fn each_tool_needs_no_less_than_what_it_does() {
    let rig = Rig::new().await;
    let session = shared_for(&rig, Role::Observer).await;
    let writable = rig.create().await.id;
    rig.sessions.share(&ann(), writable, bob(), Role::Writer).await.unwrap();
    for tool in TOOLS {
        let Some(arguments_here) = arguments(tool.name, session) else { continue };
        assert_eq!(answer(&rig, eve(), tool, arguments_here.clone()).await, "SESSION_NOT_FOUND", "{}", tool.name);
        let never = arguments(tool.name, SessionId::mint()).unwrap();
        assert_eq!(answer(&rig, eve(), tool, never).await, "SESSION_NOT_FOUND", "{}", tool.name);
        let observer = answer(&rig, bob(), tool, arguments_here).await;
        let reads = tool.effect == Effect::Reads;
        assert_eq!(observer == "PERMISSION_DENIED", !reads, "{} gives an observer {observer}", tool.name);
        assert_ne!(observer, "INVALID_ARGUMENT", "{} needs arguments in the table above", tool.name);
        let writer = answer(&rig, bob(), tool, arguments(tool.name, writable).unwrap()).await;
        let owns = ["session_update", "session_close", "session_share", "session_unshare"].contains(&tool.name);
        assert_eq!(writer == "PERMISSION_DENIED", owns, "{} gives a writer {writer}", tool.name);
    }
}
