//! Which worker gets a session, and that no slot is given twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use codegen_types::{ErrorCode, Incarnation, IsolationLevel, SessionId, WorkerId};
use coordinator::workers::{Fleet as _, Growth, WorkersOptions};
use coordinator_core::placement::Requirements;

use crate::double::Spec;
use crate::rig::{LONG, Rig, lease, opening, requirements, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_creates_at_once_never_overbook() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec { sessions_max: 7, ..Spec::named("a") }).await;
    let start = Arc::new(tokio::sync::Barrier::new(50));
    let creates: Vec<_> = (0..50)
        .map(|at| {
            let (workers, start, lease) = (rig.workers.clone(), Arc::clone(&start), lease(&double, 1));
            tokio::spawn(async move {
                start.wait().await;
                let reservation = workers.reserve(&requirements(), None).map_err(|failure| failure.code);
                // Nobody opens before everybody has reserved.
                start.wait().await;
                let reservation = reservation?;
                // Some give up, as a create does that fails in between.
                if at % 10 == 0 {
                    drop(reservation);
                    return Ok(false);
                }
                let opened = workers.open(opening(SessionId::mint(), lease)).await;
                opened.map(|_| true).map_err(|failure| failure.code)
            })
        })
        .collect();
    let mut opened = 0;
    for create in creates {
        match within(create).await.unwrap() {
            Ok(open) => opened += u32::from(open),
            Err(code) => assert_eq!(code, ErrorCode::NoCapacity),
        }
    }
    assert!(opened <= 7, "{opened}");
    assert_eq!(double.tasks.opened.load(Ordering::Relaxed), opened);
    let slots = rig.workers.snapshot()[0].slots;
    assert_eq!((slots.used, slots.reserved), (opened, 0), "every reservation has ended");
    let rest: Vec<_> = (opened..7).map(|_| rig.workers.reserve(&requirements(), None).unwrap()).collect();
    assert_eq!(rig.workers.reserve(&requirements(), None).err().unwrap().code, ErrorCode::NoCapacity);
    drop(rest);
}

#[tokio::test]
async fn a_dropped_reservation_and_a_closed_session_free_their_slot() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec { sessions_max: 1, ..Spec::named("a") }).await;
    let reservation = rig.workers.reserve(&requirements(), None).unwrap();
    assert_eq!(reservation.worker(), (&double.spec.id, double.spec.incarnation));
    assert!(rig.workers.reserve(&requirements(), None).is_err());
    drop(reservation);
    let reservation = rig.workers.reserve(&requirements(), None).unwrap();
    let session = SessionId::mint();
    rig.open(session, &lease(&double, 1)).await.unwrap();
    drop(reservation);
    assert!(rig.workers.reserve(&requirements(), None).is_err());
    within(rig.workers.close(session, lease(&double, 1), false)).await.unwrap();
    assert!(rig.workers.reserve(&requirements(), None).is_ok());
}

#[tokio::test]
async fn the_worker_with_the_files_is_the_only_one_that_will_do() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    rig.joined(Spec::named("a")).await;
    let full = rig.joined(Spec { sessions_max: 1, ..Spec::named("b") }).await;
    let session = SessionId::mint();
    let reservation = rig.workers.reserve(&requirements(), Some((&full.spec.id, session))).unwrap();
    assert_eq!(reservation.worker().0, &full.spec.id);
    let code = |prefer: &str| {
        let prefer: WorkerId = prefer.parse().unwrap();
        rig.workers.reserve(&requirements(), Some((&prefer, session))).err().map(|failure| failure.code)
    };
    assert_eq!(code("b"), Some(ErrorCode::NoCapacity));
    assert_eq!(code("c"), Some(ErrorCode::WorkerUnavailable), "it has not joined");
    assert_eq!(code("a"), None);
}

#[tokio::test]
async fn a_session_that_still_has_its_slot_on_a_full_worker_is_opened_again_in_it() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec { sessions_max: 1, ..Spec::named("a") }).await;
    let (session, other) = (SessionId::mint(), SessionId::mint());
    rig.open(session, &lease(&double, 1)).await.unwrap();
    let reserve = |session| rig.workers.reserve(&requirements(), Some((&double.spec.id, session)));
    assert_eq!(reserve(other).err().unwrap().code, ErrorCode::NoCapacity);
    let reservation = reserve(session).unwrap();
    rig.open(session, &lease(&double, 2)).await.unwrap();
    drop(reservation);
    let slots = rig.workers.snapshot()[0].slots;
    assert_eq!((slots.used, slots.reserved), (1, 0));
}

#[tokio::test]
async fn a_worker_that_is_too_weak_gets_no_session() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    rig.joined(Spec { level: IsolationLevel::Reduced, ..Spec::named("a") }).await;
    let refused = rig.workers.reserve(&requirements(), None).err().unwrap();
    assert_eq!(refused.code, ErrorCode::IsolationUnavailable);
    assert!(refused.message.contains("reduced"), "{refused}");
}

#[tokio::test]
async fn what_no_worker_can_do_is_refused_for_good_unless_one_may_come_or_come_back_by_itself() {
    let elsewhere = || Requirements { labels: [("zone".to_owned(), "b".to_owned())].into(), ..requirements() };
    let refused = |rig: &Rig, requirements: &Requirements| {
        let refused = rig.workers.reserve(requirements, None).err().expect("a refusal");
        assert!(refused.message.contains("the only one lacks the label zone=b"), "{refused}");
        (refused.code, refused.retry_after_ms)
    };
    let mut rig = Rig::new(WorkersOptions::default()).await;
    rig.joined(Spec::named("a")).await;
    assert_eq!(refused(&rig, &elsewhere()), (ErrorCode::NoWorkerFits, None));
    rig.workers.expect(vec![("b".parse().expect("a name"), Incarnation::mint())]);
    let back_shortly = (ErrorCode::WorkerUnavailable, Some(1_000));
    assert_eq!(refused(&rig, &elsewhere()), back_shortly, "a worker of an earlier server may come");
    let mut unknown = Rig::new(WorkersOptions::default()).await;
    unknown.joined(Spec { level: IsolationLevel::Reduced, ..Spec::named("a") }).await;
    let code = |rig: &Rig| rig.workers.reserve(&requirements(), None).err().map(|refused| refused.code);
    assert_eq!(code(&unknown), Some(ErrorCode::IsolationUnavailable));
    unknown.workers.expect_others();
    assert_eq!(code(&unknown), Some(ErrorCode::WorkerUnavailable), "one that isolates better may come");
    let mut growing = Rig::new(WorkersOptions { growth: Growth::ByItself, ..WorkersOptions::default() }).await;
    growing.joined(Spec::named("a")).await;
    assert_eq!(refused(&growing, &elsewhere()), (ErrorCode::NoCapacity, Some(60_000)));
}

#[tokio::test]
async fn a_session_that_turns_out_weaker_than_asked_for_is_closed_again() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec { level: IsolationLevel::Portable, ..Spec::named("a") }).await;
    let refused = rig.open(SessionId::mint(), &lease(&double, 1)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::IsolationUnavailable);
    assert_eq!(double.tasks.closed.load(Ordering::Relaxed), 1);
    assert_eq!(rig.workers.snapshot()[0].slots.used, 0);
}

#[tokio::test]
async fn a_session_is_opened_over_a_link_that_comes_back() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut double = rig.joined(Spec::named("a")).await;
    double.break_link();
    rig.link_up(&double, false).await;
    let (workers, held) = (rig.workers.clone(), lease(&double, 1));
    let opening = tokio::spawn(async move { workers.open(opening(SessionId::mint(), held)).await });
    double.reopen_link().await;
    within(opening).await.unwrap().unwrap();
}

#[tokio::test]
async fn before_a_worker_joins_the_failure_says_what_is_known_and_readiness_waits() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    rig.workers.note_start_failure(Some("the embedded worker ended (exit code 3)".to_owned()));
    let refused = rig.workers.reserve(&requirements(), None).err().unwrap();
    assert_eq!(refused.code, ErrorCode::WorkerUnavailable);
    assert!(refused.message.contains("no worker has joined; the embedded worker ended (exit code 3)"), "{refused}");
    let waited = rig.workers.ready(std::time::Duration::from_millis(20)).await.unwrap_err();
    assert!(waited.message.contains("exit code 3"), "{waited}");

    let workers = rig.workers.clone();
    let ready = tokio::spawn(async move { workers.ready(LONG).await });
    rig.joined(Spec::named("a")).await;
    within(ready).await.unwrap().unwrap();
    assert!(rig.workers.reserve(&requirements(), None).is_ok());
}
