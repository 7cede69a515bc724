//! Sessions that are made under idempotency keys: each key makes one, whatever dies meanwhile.

use std::path::Path;
use std::sync::Arc;

use codegen_types::{ErrorCode, Failure, Principal};
use coordinator::session::{CreateSession, CreationKey, Leave};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::restart::{after_kill, ground};
use super::rig::{Double, Ground, Rig, ann, options, until};

fn under(key: &str, digest: u8) -> CreateSession {
    let key = CreationKey { key: key.to_owned(), digest: [digest; 32] };
    CreateSession { key: Some(key), ..CreateSession::default() }
}

async fn on_disk(dir: &Path, fleet: Double) -> Rig {
    Rig::with(ground(dir, fleet).await, options()).await
}

#[tokio::test]
async fn a_key_makes_one_session_and_is_bound_to_its_arguments() {
    let rig = Rig::new().await;
    let ann = ann();
    let (first, at_once) =
        tokio::join!(rig.sessions.create(&ann, under("k", 1)), rig.sessions.create(&ann, under("k", 1)));
    let first = first.unwrap().id;
    assert_eq!(at_once.unwrap().id, first);
    assert_eq!(rig.sessions.create(&ann, under("k", 1)).await.unwrap().id, first);
    let other = rig.sessions.create(&ann, under("k", 2)).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::InvalidArgument);
    let bob = Principal::os_user("bob");
    assert_ne!(rig.sessions.create(&bob, under("k", 2)).await.unwrap().id, first);
    assert!(rig.sessions.knows_creation(&ann, "k") && !rig.sessions.knows_creation(&ann, "other"));
    rig.sessions.close(&ann, first).await.unwrap();
    assert_eq!(rig.sessions.create(&ann, under("k", 1)).await.unwrap().id, first, "though it is closed");
    assert_eq!(rig.fleet.opened().len(), 2);
}

#[tokio::test]
async fn a_key_whose_call_failed_can_be_used_again_and_a_repetition_alone_makes_nothing() {
    let rig = Rig::new().await;
    let repetition = CreateSession { leave: Leave::OfEarlier, ..under("k", 1) };
    let nothing = rig.sessions.create(&ann(), repetition.clone()).await.unwrap_err();
    assert_eq!(nothing.code, ErrorCode::PreconditionFailed);
    rig.fleet.fail_open(Some(Failure::new(ErrorCode::WorkerUnavailable, "it is away")));
    assert_eq!(rig.sessions.create(&ann(), under("k", 1)).await.unwrap_err().code, ErrorCode::WorkerUnavailable);
    assert!(!rig.sessions.knows_creation(&ann(), "k"));
    rig.fleet.fail_open(None);
    let made = rig.sessions.create(&ann(), under("k", 2)).await.unwrap().id;
    assert_eq!(
        rig.sessions.create(&ann(), CreateSession { leave: Leave::OfEarlier, ..under("k", 2) }).await.unwrap().id,
        made
    );
}

#[tokio::test]
async fn a_client_that_goes_away_while_its_session_is_made_finds_it_by_its_key() {
    let rig = Rig::new().await;
    let opening = Arc::new(Notify::new());
    let opened = Arc::clone(&opening);
    *rig.fleet.on_open.lock() = Some(Box::new(move || opened.notify_one()));
    let ann = ann();
    {
        // Dropped as soon as its worker was asked.
        let calls = tokio::select! {
            biased;
            () = opening.notified() => "gone",
            made = rig.sessions.create(&ann, under("k", 1)) => if made.is_ok() { "answered" } else { "failed" },
        };
        assert_eq!(calls, "gone");
    }
    let made = rig.sessions.create(&ann, under("k", 1)).await.unwrap().id;
    let listed: Vec<_> = rig.sessions.list(&ann, true).iter().map(|session| session.id).collect();
    assert_eq!(listed, [made]);
}

#[tokio::test]
async fn after_a_kill_the_same_key_gives_the_same_session_also_where_the_store_was_lost_or_the_session_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let first = on_disk(dir.path(), Double::default()).await;
    let made = first.sessions.create(&ann(), under("k", 1)).await.unwrap().id;
    let with_store = after_kill(dir.path());
    let without = after_kill(dir.path());
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(without.path().join(name));
    }
    let second = on_disk(with_store.path(), first.fleet.clone()).await;
    assert_eq!(second.sessions.create(&ann(), under("k", 1)).await.unwrap().id, made);
    assert_eq!(second.sessions.create(&ann(), under("k", 2)).await.unwrap_err().code, ErrorCode::InvalidArgument);
    let third = on_disk(without.path(), first.fleet.clone()).await;
    assert_eq!(third.sessions.create(&ann(), under("k", 1)).await.unwrap().id, made);
    // What the key was used with was in the store alone: a second session would be worse than the first one again.
    assert_eq!(third.sessions.create(&ann(), under("k", 2)).await.unwrap().id, made);
    assert_eq!(third.sessions.list(&ann(), true).len(), 1);
    first.fleet.lose_files();
    first.news.send(first.fleet.join()).await.unwrap();
    first.reaches(made, "lost").await;
    assert_eq!(first.sessions.create(&ann(), under("k", 1)).await.unwrap().id, made);
}

#[tokio::test]
async fn a_session_that_was_only_being_made_when_the_server_was_killed_is_closed_and_its_key_makes_one() {
    let dir = tempfile::tempdir().unwrap();
    let first = on_disk(dir.path(), Double::default()).await;
    let killed: Arc<Mutex<Option<tempfile::TempDir>>> = Arc::default();
    let (at, copy) = (dir.path().to_owned(), Arc::clone(&killed));
    *first.fleet.on_open.lock() = Some(Box::new(move || *copy.lock() = Some(after_kill(&at))));
    let told = first.sessions.create(&ann(), under("k", 1)).await.unwrap().id;
    *first.fleet.on_open.lock() = None;
    let copy = killed.lock().take().unwrap();
    let second = on_disk(copy.path(), first.fleet.clone()).await;
    let made = second.sessions.create(&ann(), under("k", 1)).await.unwrap().id;
    assert_ne!(made, told);
    second.reaches(told, "closed").await;
    assert!(second.fleet.closed().iter().any(|(_, deleted)| *deleted), "whatever its worker made of it");
    assert_eq!(second.sessions.create(&ann(), under("k", 1)).await.unwrap().id, made);
    let open: Vec<_> = second.sessions.list(&ann(), false).iter().map(|session| session.id).collect();
    assert_eq!(open, [made]);
}

#[tokio::test]
async fn a_key_is_forgotten_with_time() {
    let kept = std::time::Duration::from_millis(50);
    let options = coordinator::session::SessionOptions { outcome_retention: kept, ..options() };
    let rig = Rig::with(Ground::in_memory(), options).await;
    let first = rig.sessions.create(&ann(), under("k", 1)).await.unwrap().id;
    until("the key is forgotten", || !rig.sessions.knows_creation(&ann(), "k")).await;
    assert_ne!(rig.sessions.create(&ann(), under("k", 2)).await.unwrap().id, first);
}
