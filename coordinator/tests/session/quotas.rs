//! What each principal may use: counted where tasks begin and end, and again as the log has it.

use codegen_types::{ErrorCode, Principal, SessionId};
use coordinator::session::{CreateSession, SessionOptions, TaskCall};
use coordinator_core::quota::Quotas;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::restart::{after_kill, ground};
use super::rig::{Double, Ground, Rig, Script, ann, call, code, options, until};

fn bob() -> Principal {
    Principal::os_user("bob")
}

fn of_bob(session: SessionId) -> TaskCall {
    TaskCall { principal: bob(), ..call(session) }
}

fn with(quotas: Quotas) -> SessionOptions {
    SessionOptions { quotas, ..options() }
}

/// Code and output of two calls.
const TWO_CALLS: u64 = 2 * (1 + 5);

#[tokio::test]
async fn a_day_that_is_used_up_stays_so_over_a_kill_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let options = with(Quotas { bytes_per_day: Some(TWO_CALLS), ..Quotas::default() });
    let first = Rig::with(ground(dir.path(), Double::default()).await, options.clone()).await;
    let session = first.create().await.id;
    for _ in 0..2 {
        first.fleet.script(Script::Say("hello"));
        assert_eq!(code(&first.run(call(session)).await), None);
    }
    let refused = first.run(call(session)).await.result.unwrap_err();
    assert_eq!(refused.code, ErrorCode::QuotaExceeded);
    assert!(refused.retry_after_ms.is_some_and(|wait| wait > 0) && refused.message.contains("12 bytes"), "{refused}");
    let place = after_kill(dir.path());
    let second = Rig::with(ground(place.path(), first.fleet.clone()).await, options).await;
    let standing = second.sessions.standing(&ann());
    assert_eq!((standing.bytes, standing.tasks), (TWO_CALLS, 0));
    assert_eq!(code(&second.run(call(session)).await), Some(ErrorCode::QuotaExceeded));
    let others = second.sessions.create(&bob(), CreateSession::default()).await.unwrap().id;
    assert_eq!(code(&second.run(of_bob(others)).await), None);
    assert_eq!(second.sessions.standing(&ann()).bytes, TWO_CALLS);
}

#[tokio::test]
async fn a_place_among_the_running_tasks_is_given_back_before_the_answer() {
    let rig = Rig::with(Ground::in_memory(), with(Quotas { tasks: Some(1), ..Quotas::default() })).await;
    let (session, gate) = (rig.create().await.id, Arc::new(Notify::new()));
    for _ in 0..20 {
        assert_eq!(code(&rig.run(call(session)).await), None);
    }
    rig.fleet.script(Script::Gate(Arc::clone(&gate)));
    let launched = rig.sessions.launch(call(session), mpsc::channel(1).0, CancellationToken::new()).await;
    until("it runs", || rig.sessions.running_tasks() == 1).await;
    let refused = rig.run(call(session)).await;
    assert_eq!((code(&refused), refused.audit_seq), (Some(ErrorCode::QuotaExceeded), None));
    let others = rig.sessions.create(&bob(), CreateSession::default()).await.unwrap().id;
    assert_eq!(code(&rig.run(of_bob(others)).await), None);
    gate.notify_one();
    assert_eq!(code(&launched.outcome.await), None);
    assert_eq!(code(&rig.run(call(session)).await), None);
}

#[tokio::test]
async fn what_is_refused_takes_no_place() {
    let rig = Rig::with(Ground::in_memory(), with(Quotas { tasks: Some(1), ..Quotas::default() })).await;
    let session = rig.create().await.id;
    for script in [Script::NotStarted, Script::Refuse(ErrorCode::NoCapacity), Script::Vanish, Script::Exit(1)] {
        rig.fleet.script(script);
        rig.run(call(session)).await;
        assert_eq!(rig.sessions.standing(&ann()).tasks, 0);
    }
    assert_eq!(code(&rig.run(of_bob(session)).await), Some(ErrorCode::SessionNotFound));
    assert_eq!(rig.sessions.standing(&bob()).tasks, 0);
}
