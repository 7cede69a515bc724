//! Who is slow, or answers nothing, takes a bounded part of the coordinator: the rest waits at the other end or is told so.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use codegen_types::ErrorCode;
use coordinator::workers::{DispatchEnd, WorkersOptions};

use crate::double::Spec;
use crate::rig::{LONG, Rig, answered_code, until};
use crate::streams::PIECE_BYTES;

/// The most of one task's output that is on its way while nobody takes it: windows of the link, and what lies between.
const ON_ITS_WAY_MAX: usize = 2 << 20;

#[tokio::test]
async fn output_that_nobody_takes_stays_with_its_worker() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let run = rig.start_reading(&double, "without end", 1, |task| task.output_bytes_max = u64::MAX);
    let given = || double.tasks.given.load(Ordering::SeqCst);
    until("it has begun", || given() > 0).await;
    // Until it stands still for a while.
    let (begun, mut before, mut since) = (Instant::now(), 0, Instant::now());
    while since.elapsed() < Duration::from_millis(400) {
        assert!(begun.elapsed() < LONG, "it never stands still: {} pieces", given());
        if given() != before {
            (before, since) = (given(), Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(before * PIECE_BYTES <= ON_ITS_WAY_MAX, "{before} pieces were taken for nobody");
    run.cancel.cancel();
    let (end, _) = run.end().await;
    assert_eq!(answered_code(&end), Some(ErrorCode::TaskCancelled));
}

#[tokio::test]
async fn a_worker_that_ends_nothing_holds_so_many_tasks_and_the_rest_are_told_so() {
    let wait = Duration::from_millis(300);
    let options = WorkersOptions { tasks_per_link_max: 4, link_wait: wait, ..WorkersOptions::default() };
    let mut rig = Rig::new(options).await;
    let double = rig.joined(Spec::named("a")).await;
    let held: Vec<_> = (0..4).map(|_| rig.start(&double, "until cancelled")).collect();
    until("they run", || held.iter().all(|run| double.tasks.executed(run.id) == 1)).await;
    let begun = Instant::now();
    let more: Vec<_> = (0..200).map(|_| rig.start(&double, "hello")).collect();
    for run in more {
        let id = run.id;
        let (end, _) = run.end().await;
        let DispatchEnd::NotStarted(failure) = end else { panic!("it was not to be sent: {end:?}") };
        assert_eq!((failure.code, double.tasks.executed(id)), (ErrorCode::NoCapacity, 0));
    }
    assert!(begun.elapsed() < wait * 20, "they waited one after the other: {:?}", begun.elapsed());
    for run in held {
        run.cancel.cancel();
        run.end().await;
    }
    let (end, _) = rig.start(&double, "hello").end().await;
    assert!(matches!(end, DispatchEnd::Answered(_)), "there is room again: {end:?}");
}
