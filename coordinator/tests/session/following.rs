//! News of workers reach every session, whatever clients do to one of them.

use std::time::{Duration, Instant};

use codegen_types::ErrorCode;
use coordinator::session::SessionOptions;
use coordinator::workers::WorkerEvent;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rig::{Double, Ground, Rig, ann, call, code, options, until};

/// Calls on one session: more than wait in its owner's mailbox.
const CALLS: usize = 128;

#[tokio::test]
async fn calls_that_wait_for_an_absent_worker_keep_no_news_from_other_sessions_and_wait_once() {
    let patience = Duration::from_secs(2);
    let options = SessionOptions { worker_patience: patience, ..options() };
    let rig = Rig::with(Ground { fleet: Double::apart(), ..Ground::in_memory() }, options).await;
    let asked = rig.create().await.id;
    rig.sessions.shutdown().await;
    rig.reaches(asked, "suspended").await;
    let mut others = Vec::new();
    for _ in 0..8 {
        others.push(rig.create().await.id);
    }
    let gone = rig.fleet.leave();
    let begun = Instant::now();
    let calls = (0..CALLS).map(|_| {
        let (sessions, call) = (rig.sessions.clone(), call(asked));
        tokio::spawn(async move { sessions.run(call, mpsc::channel(1).0, CancellationToken::new()).await })
    });
    let calls: Vec<_> = calls.collect();
    until("all calls are there", || rig.sessions.running_tasks() == 0 && begun.elapsed() > patience / 4).await;
    rig.news.send(gone).await.unwrap();
    let told = Instant::now();
    for other in others {
        rig.reaches(other, "lost").await;
    }
    assert!(told.elapsed() < patience / 2, "they heard of it after {:?}", told.elapsed());
    for call in calls {
        let code = code(&call.await.unwrap());
        assert!(matches!(code, Some(ErrorCode::SessionLost | ErrorCode::WorkerUnavailable)), "{code:?}");
    }
    assert!(begun.elapsed() < patience * 3, "they waited one after the other: {:?}", begun.elapsed());
}

#[tokio::test]
async fn calls_that_came_while_a_worker_was_waited_for_get_the_answer_of_the_first() {
    let patience = Duration::from_millis(500);
    let options = SessionOptions { worker_patience: patience, ..options() };
    let rig = Rig::with(Ground { fleet: Double::apart(), ..Ground::in_memory() }, options).await;
    let session = rig.create().await.id;
    rig.sessions.shutdown().await;
    rig.reaches(session, "suspended").await;
    drop(rig.fleet.leave());
    let begun = Instant::now();
    let calls = (0..CALLS).map(|_| rig.run(call(session)));
    let codes = futures::future::join_all(calls).await;
    assert!(codes.iter().all(|outcome| code(outcome) == Some(ErrorCode::WorkerUnavailable)));
    assert!(begun.elapsed() < patience * 4, "they waited one after the other: {:?}", begun.elapsed());
    // Whoever comes afterwards is not answered with what was true then.
    drop(rig.fleet.join());
    assert_eq!(code(&rig.run(call(session)).await), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_made_while_its_worker_s_life_ends_hears_of_it() {
    let rig = Rig::with(Ground { fleet: Double::apart(), ..Ground::in_memory() }, options()).await;
    let first = rig.create().await.id;
    let life = rig.fleet.rejoin(&[]);
    let WorkerEvent::Joined { worker, incarnation, .. } = life else { panic!("it joined") };
    let (news, sessions) = (rig.news.clone(), rig.sessions.clone());
    *rig.fleet.on_open.lock() = Some(Box::new(move || {
        let gone = WorkerEvent::Gone { worker: worker.clone(), incarnation };
        news.try_send(gone).unwrap();
        let begun = Instant::now();
        tokio::task::block_in_place(|| {
            while sessions.get(&ann(), first).unwrap().state != "lost" {
                assert!(begun.elapsed() < Duration::from_secs(60), "in time: the other session heard of it");
                std::thread::yield_now();
            }
        });
    }));
    let made = rig.create().await.id;
    rig.reaches(made, "lost").await;
}

#[tokio::test]
async fn a_life_that_was_ended_and_comes_back_takes_sessions_again() {
    let rig = Rig::with(Ground { fleet: Double::apart(), ..Ground::in_memory() }, options()).await;
    let first = rig.create().await.id;
    let again = rig.fleet.rejoin(&[]);
    let WorkerEvent::Joined { worker, incarnation, .. } = again.clone() else { panic!("it joined") };
    rig.news.send(WorkerEvent::Gone { worker, incarnation }).await.unwrap();
    rig.reaches(first, "lost").await;
    rig.news.send(again).await.unwrap();
    rig.reaches(first, "suspended").await;
    let made = rig.create().await.id;
    assert_eq!(code(&rig.run(call(made)).await), None);
    assert_eq!(rig.state(made), "ready");
}
