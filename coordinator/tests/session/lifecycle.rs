//! One test for each transition that a user can see.

use std::time::Duration;

use codegen_audit::EventKind;
use codegen_types::{Epoch, ErrorCode, Failure};
use coordinator::session::{CreateSession, SessionOptions, UpdateSession};
use coordinator_core::quota::Quotas;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rig::{Ground, Rig, Script, ann, call, code, options, stdout, until};

fn lasting(ttl: Duration) -> CreateSession {
    CreateSession { ttl: Some(ttl), ..CreateSession::default() }
}

#[tokio::test]
async fn a_new_session_is_ready_and_on_record() {
    let rig = Rig::new().await;
    let session = rig.create().await;
    assert_eq!((session.state, session.lease.as_ref().unwrap().epoch), ("ready", Epoch(1)));
    assert!(session.isolation.is_some());
    assert_eq!(rig.kinds(session.id), [EventKind::SessionCreated, EventKind::SessionOpened]);
}

#[tokio::test]
async fn a_session_that_cannot_be_opened_is_closed_and_says_why() {
    let rig = Rig::new().await;
    rig.fleet.fail_open(Some(Failure::new(ErrorCode::IsolationUnavailable, "too weak")));
    let failure = rig.sessions.create(&ann(), CreateSession::default()).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::IsolationUnavailable);
    assert!(rig.sessions.list(&ann(), false).is_empty());
    let last = rig.audit.memory_records().pop().unwrap();
    assert_eq!(last.kind, EventKind::SessionClosed);
}

#[tokio::test]
async fn without_a_worker_a_create_waits_a_while_and_then_fails() {
    let rig = Rig::new().await;
    let gone = rig.fleet.leave();
    rig.news.send(gone).await.unwrap();
    let failure = rig.sessions.create(&ann(), CreateSession::default()).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::WorkerUnavailable);
    let joining = async {
        tokio::task::yield_now().await;
        rig.news.send(rig.fleet.join()).await.unwrap();
    };
    let ann = ann();
    let (created, ()) = tokio::join!(rig.sessions.create(&ann, CreateSession::default()), joining);
    assert_eq!(created.unwrap().state, "ready");
}

#[tokio::test]
async fn an_idle_session_loses_its_processes_and_the_next_call_opens_it_again() {
    let rig = Rig::new().await;
    let session = rig.sessions.create(&ann(), lasting(Duration::from_secs(1))).await.unwrap().id;
    rig.reaches(session, "suspended").await;
    until("its processes are ended", || rig.fleet.closed().len() == 1).await;
    assert!(!rig.fleet.closed()[0].1, "the files stay");
    assert_eq!(stdout(&rig.run(call(session)).await), "ok");
    let epochs: Vec<Epoch> = rig.fleet.opened().iter().map(|lease| lease.epoch).collect();
    assert_eq!(epochs, [Epoch(1), Epoch(2)]);
    assert_eq!(rig.fleet.dispatched()[0].lease.epoch, Epoch(2));
    assert_eq!(rig.state(session), "ready");
}

#[tokio::test]
async fn a_running_task_keeps_its_session_awake() {
    let rig = Rig::new().await;
    let session = rig.sessions.create(&ann(), lasting(Duration::from_secs(1))).await.unwrap().id;
    rig.fleet.script(Script::Hang);
    let cancel = CancellationToken::new();
    let running = rig.sessions.run(call(session), mpsc::channel(1).0, cancel.clone());
    let watching = async {
        let asleep = until("it sleeps", || rig.state(session) == "suspended");
        assert!(tokio::time::timeout(Duration::from_millis(2_200), asleep).await.is_err(), "it slept");
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(running, watching);
    assert_eq!(code(&outcome), Some(ErrorCode::TaskCancelled));
    rig.reaches(session, "suspended").await;
}

#[tokio::test]
async fn a_worker_that_is_gone_suspends_its_sessions_and_its_new_life_takes_them_up() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let gone = rig.fleet.leave();
    rig.news.send(gone).await.unwrap();
    rig.reaches(session, "suspended").await;
    assert_eq!(code(&rig.run(call(session)).await), Some(ErrorCode::WorkerUnavailable));
    rig.news.send(rig.fleet.join()).await.unwrap();
    assert_eq!(stdout(&rig.run(call(session)).await), "ok");
}

#[tokio::test]
async fn a_new_life_without_the_files_means_that_the_session_is_lost() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    rig.fleet.lose_files();
    rig.news.send(rig.fleet.join()).await.unwrap();
    rig.reaches(session, "lost").await;
    assert_eq!(code(&rig.run(call(session)).await), Some(ErrorCode::SessionLost));
    assert_eq!(rig.sessions.close(&ann(), session).await.unwrap().state, "closed");
}

#[tokio::test]
async fn missing_files_are_not_replaced_by_an_empty_directory_in_silence() {
    let rig = Rig::new().await;
    let session = rig.sessions.create(&ann(), lasting(Duration::from_secs(1))).await.unwrap().id;
    rig.reaches(session, "suspended").await;
    rig.fleet.lose_files();
    assert_eq!(code(&rig.run(call(session)).await), Some(ErrorCode::SessionLost));
    assert_eq!((rig.state(session), rig.fleet.dispatched().len()), ("lost", 0));
}

#[tokio::test]
async fn closing_ends_tasks_and_deletes_the_files_and_is_final() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    rig.fleet.script(Script::Hang);
    let running = rig.sessions.run(call(session), mpsc::channel(1).0, CancellationToken::new());
    let closing = async {
        until("it runs", || rig.fleet.dispatched().len() == 1).await;
        rig.sessions.close(&ann(), session).await.unwrap()
    };
    let (outcome, closed) = tokio::join!(running, closing);
    assert_eq!(code(&outcome), Some(ErrorCode::TaskCancelled));
    assert_eq!(closed.state, "closed");
    assert!(rig.fleet.closed().iter().any(|(_, deleted)| *deleted));
    assert_eq!(code(&rig.run(call(session)).await), Some(ErrorCode::SessionClosed));
    let update = rig.sessions.update(&ann(), session, UpdateSession::default()).await;
    assert_eq!(update.unwrap_err().code, ErrorCode::SessionClosed);
    assert!(rig.sessions.list(&ann(), false).is_empty());
    assert_eq!(rig.sessions.list(&ann(), true).len(), 1);
}

#[tokio::test]
async fn files_on_a_worker_that_is_away_are_deleted_when_it_is_back() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let gone = rig.fleet.leave();
    rig.news.send(gone).await.unwrap();
    rig.reaches(session, "suspended").await;
    assert_eq!(rig.sessions.close(&ann(), session).await.unwrap().state, "closing");
    assert_eq!(code(&rig.run(call(session)).await), Some(ErrorCode::SessionClosed));
    rig.news.send(rig.fleet.join()).await.unwrap();
    rig.reaches(session, "closed").await;
    let (lease, deleted) = rig.fleet.closed().pop().unwrap();
    assert!(deleted && lease.epoch > Epoch(1), "by a new assignment: {lease:?}");
}

#[tokio::test]
async fn a_session_that_nobody_uses_is_forgotten_with_its_files() {
    let sweeping =
        SessionOptions { cleanup_interval: Duration::from_millis(50), retention: Duration::from_secs(2), ..options() };
    let rig = Rig::with(Ground::in_memory(), sweeping).await;
    let session = rig.sessions.create(&ann(), lasting(Duration::from_secs(1))).await.unwrap().id;
    rig.reaches(session, "suspended").await;
    rig.reaches(session, "forgotten").await;
    assert!(rig.fleet.closed().iter().any(|(_, deleted)| *deleted));
    assert_eq!(rig.kinds(session).last(), Some(&EventKind::SessionExpired));
}

fn sessions_quota(sessions: u32) -> Quotas {
    Quotas { sessions, ..Quotas::default() }
}

#[tokio::test]
async fn sessions_are_bounded_for_each_principal() {
    let rig = Rig::with(Ground::in_memory(), SessionOptions { quotas: sessions_quota(2), ..options() }).await;
    let first = rig.create().await.id;
    rig.create().await;
    let refused = rig.sessions.create(&ann(), CreateSession::default()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::QuotaExceeded);
    let ttl_ms = u64::try_from(options().ttl_default.as_millis()).unwrap();
    let idle_soon = refused.retry_after_ms.expect("a time");
    assert!((ttl_ms / 2..=ttl_ms).contains(&idle_soon), "until the first of both is idle: {idle_soon}");
    assert_eq!((rig.sessions.standing(&ann()).sessions, rig.sessions.standing(&ann()).quotas.sessions), (2, 2));
    let bob = codegen_types::Principal::os_user("bob");
    assert!(rig.sessions.create(&bob, CreateSession::default()).await.is_ok());
    rig.sessions.close(&ann(), first).await.unwrap();
    rig.create().await;
}

#[tokio::test]
async fn a_session_without_processes_takes_no_place_of_an_open_one() {
    let rig = Rig::with(Ground::in_memory(), SessionOptions { quotas: sessions_quota(1), ..options() }).await;
    let asleep = rig.sessions.create(&ann(), lasting(Duration::from_secs(1))).await.unwrap().id;
    assert!(rig.sessions.create(&ann(), CreateSession::default()).await.is_err());
    rig.reaches(asleep, "suspended").await;
    rig.create().await;
}

#[tokio::test]
async fn a_description_changes_within_bounds_and_only_on_record() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    let noted = |value: serde_json::Value| UpdateSession {
        name: Some("a name".to_owned()),
        metadata: serde_json::from_value(value).unwrap(),
        ..UpdateSession::default()
    };
    rig.sessions.update(&ann(), session, noted(json!({"a": 1, "b": 2}))).await.unwrap();
    let merged = rig.sessions.update(&ann(), session, noted(json!({"a": null, "c": 3}))).await.unwrap();
    assert_eq!(json!(merged.metadata), json!({"b": 2, "c": 3}));
    let large = rig.sessions.update(&ann(), session, noted(json!({"k": "x".repeat(17_000)}))).await;
    assert_eq!(large.unwrap_err().code, ErrorCode::InvalidArgument);
    rig.audit.set_memory_fault(Some("the disk is full"));
    let unrecorded = rig.sessions.update(&ann(), session, noted(json!({"d": 4}))).await;
    assert_eq!(unrecorded.unwrap_err().code, ErrorCode::AuditUnavailable);
    assert_eq!(rig.sessions.get(&ann(), session).unwrap(), merged);
}

#[tokio::test]
async fn closing_is_never_refused_for_want_of_a_log() {
    let rig = Rig::new().await;
    let session = rig.create().await.id;
    rig.audit.set_memory_fault(Some("the disk is full"));
    assert_eq!(rig.sessions.close(&ann(), session).await.unwrap().state, "closed");
    rig.audit.set_memory_fault(None);
    let other = rig.create().await;
    assert_eq!(other.state, "ready");
    until("its end is on record", || rig.kinds(session).contains(&EventKind::SessionClosed)).await;
}
