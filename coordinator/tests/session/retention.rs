//! What is kept of sessions that nobody uses, and what has to go when it takes too much room.

use std::sync::Arc;
use std::time::Duration;

use codegen_audit::EventKind;
use codegen_types::{Limits, SessionId};
use coordinator::session::{CreateSession, SessionOptions, UpdateSession};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::rig::{Ground, Rig, Script, ann, call, options, stdout, until};

const BRIEF: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(3600);

/// Looks often whether the files take more than so many bytes.
fn capped(retention_bytes: u64) -> SessionOptions {
    SessionOptions { cleanup_interval: Duration::from_millis(20), retention_bytes, ..options() }
}

fn size(rig: &Rig, session: SessionId) -> Option<u64> {
    rig.sessions.get(&ann(), session).unwrap().workspace_bytes
}

/// A session whose files take so much. None is used at the same moment as another.
async fn sized(rig: &Rig, ttl: Duration, bytes: u64) -> SessionId {
    let made = rig.sessions.create(&ann(), CreateSession { ttl: Some(ttl), ..CreateSession::default() }).await.unwrap();
    rig.fleet.takes(made.id, bytes);
    is_at_rest(rig, made.id).await;
    made.id
}

/// No task runs in the session, and whatever is used from now on is used later.
async fn is_at_rest(rig: &Rig, session: SessionId) {
    let now_ms = || jiff::Timestamp::now().as_millisecond();
    let seen = || rig.sessions.get(&ann(), session).unwrap();
    until("it is at rest", || seen().running.is_empty() && seen().last_used_ms < now_ms()).await;
}

/// The session has no processes, and what its files take is known.
async fn is_kept(rig: &Rig, session: SessionId, bytes: u64) {
    until("it is counted", || rig.state(session) == "suspended" && size(rig, session) == Some(bytes)).await;
}

/// A session that was counted once and then used again; it stays open.
async fn reopened(rig: &Rig, bytes: u64) -> SessionId {
    let session = sized(rig, BRIEF, bytes).await;
    is_kept(rig, session, bytes).await;
    rig.sessions.update(&ann(), session, UpdateSession { ttl: Some(LONG), ..UpdateSession::default() }).await.unwrap();
    assert_eq!(stdout(&rig.run(call(session)).await), "ok");
    is_at_rest(rig, session).await;
    session
}

#[tokio::test]
async fn when_files_take_too_much_room_the_least_recently_used_go_first_and_none_in_use() {
    let rig = Rig::with(Ground::in_memory(), capped(15)).await;
    let used = reopened(&rig, 10).await;
    let gate = Arc::new(Notify::new());
    rig.fleet.script(Script::Gate(Arc::clone(&gate)));
    let (sessions, task) = (rig.sessions.clone(), call(used));
    let running = tokio::spawn(async move { sessions.run(task, mpsc::channel(1).0, CancellationToken::new()).await });
    until("it runs", || rig.fleet.dispatched().len() == 2).await;
    let old = sized(&rig, BRIEF, 10).await;
    is_kept(&rig, old, 10).await;
    let young = sized(&rig, BRIEF, 10).await;
    rig.reaches(old, "forgotten").await;
    assert_eq!(rig.kinds(old).last(), Some(&EventKind::SessionExpired));
    is_kept(&rig, young, 10).await;
    assert_eq!(rig.state(used), "ready", "it was made first, but it is in use");
    gate.notify_one();
    assert!(running.await.unwrap().result.is_ok());
    let brief = UpdateSession { ttl: Some(BRIEF), ..UpdateSession::default() };
    rig.sessions.update(&ann(), used, brief).await.unwrap();
    rig.reaches(young, "forgotten").await;
    is_kept(&rig, used, 10).await;
    assert_eq!(stdout(&rig.run(call(used)).await), "ok");
}

#[tokio::test]
async fn files_that_cannot_be_deleted_just_now_are_not_given_up_for_want_of_room() {
    let rig = Rig::with(Ground::in_memory(), capped(15)).await;
    let old = reopened(&rig, 10).await;
    let young = sized(&rig, BRIEF, 10).await;
    is_kept(&rig, young, 10).await;
    let gone = rig.fleet.leave();
    rig.news.send(gone).await.unwrap();
    rig.reaches(old, "closing").await;
    let given_up = until("it is given up", || rig.state(old) == "forgotten");
    assert!(tokio::time::timeout(Duration::from_millis(300), given_up).await.is_err(), "its files are still there");
    rig.news.send(rig.fleet.join()).await.unwrap();
    rig.reaches(old, "forgotten").await;
    assert!(rig.fleet.closed().last().unwrap().1, "its files are deleted");
    is_kept(&rig, young, 10).await;
}

#[tokio::test]
async fn files_that_are_due_while_their_worker_is_away_are_deleted_when_it_comes_back() {
    let retention = Duration::from_secs(4);
    let rig = Rig::with(Ground::in_memory(), SessionOptions { retention, ..capped(1 << 20) }).await;
    let (due, closed) = (sized(&rig, BRIEF, 10).await, sized(&rig, BRIEF, 10).await);
    is_kept(&rig, due, 10).await;
    is_kept(&rig, closed, 10).await;
    let gone = rig.fleet.leave();
    rig.news.send(gone).await.unwrap();
    rig.sessions.close(&ann(), closed).await.unwrap();
    rig.reaches(due, "closing").await;
    // Many looks later.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((rig.state(due), rig.state(closed)), ("closing", "closing"), "both are remembered");
    rig.news.send(rig.fleet.join()).await.unwrap();
    rig.reaches(due, "forgotten").await;
    rig.reaches(closed, "closed").await;
    assert_eq!(rig.fleet.closed().iter().filter(|(_, deleted)| *deleted).count(), 2, "their files are deleted");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.state(closed), "closed", "it is remembered since it was closed");
}

#[tokio::test]
async fn what_is_due_of_a_worker_that_never_comes_back_is_forgotten_in_the_end() {
    let retention = Duration::from_secs(3);
    let rig = Rig::with(Ground::in_memory(), SessionOptions { retention, ..capped(1 << 20) }).await;
    let session = sized(&rig, BRIEF, 10).await;
    is_kept(&rig, session, 10).await;
    let gone = rig.fleet.leave();
    rig.news.send(gone).await.unwrap();
    rig.reaches(session, "forgotten").await;
    assert_eq!(rig.kinds(session).last(), Some(&EventKind::SessionExpired));
}

#[tokio::test]
async fn a_worker_that_makes_up_a_size_is_believed_up_to_what_a_session_may_hold() {
    let limits = Limits { workspace_bytes: 12, ..Limits::default() };
    let rig = Rig::with(Ground::in_memory(), SessionOptions { limits, ..capped(25) }).await;
    let honest = sized(&rig, BRIEF, 10).await;
    is_kept(&rig, honest, 10).await;
    let liar = sized(&rig, BRIEF, u64::MAX).await;
    is_kept(&rig, liar, 12).await;
    assert_eq!(stdout(&rig.run(call(honest)).await), "ok");
}

#[tokio::test]
async fn the_last_known_size_outlives_the_server() {
    let ground = Ground::in_memory();
    let first = Rig::with(ground.clone(), options()).await;
    let session = reopened(&first, 10).await;
    let stored = ground.sessions.sessions().await.unwrap();
    assert_eq!(stored[0].workspace_bytes, Some(10));
    // It ends without having ended the session's processes.
    first.supervisor.cancel();
    let second = Rig::with(ground, options()).await;
    is_kept(&second, session, 10).await;
}
