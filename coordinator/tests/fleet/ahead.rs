//! What goes ahead of a task while its attempt is put on record: a place and a way, and no word of a task that is not to be
//! held.

use std::sync::atomic::Ordering;

use codegen_types::ErrorCode;
use coordinator::workers::{DispatchEnd, Fleet as _, WorkersOptions};

use crate::double::{Double, Spec};
use crate::rig::{Ahead, EVENTS, Rig, until};
use crate::tasks::is_finished;

/// Waits until so many heads of calls came to a worker.
async fn heads(double: &Double, count: u32) {
    until("the heads of calls", || double.tasks.heads.load(Ordering::SeqCst) == count).await;
}

#[tokio::test]
async fn a_worker_hears_of_no_task_before_it_follows_and_of_none_that_does_not() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let ahead = rig.workers.go_ahead(&double.lease(), None).expect("there is a link");
    let given_up = rig.workers.go_ahead(&double.lease(), None).expect("there is a link");
    heads(&double, 2).await;
    assert_eq!(double.tasks.executed_at_all(), 0);
    drop(given_up);
    let run = rig.start_with(&double, "hello", |task| task.ahead = Some(ahead));
    let id = run.id;
    assert!(is_finished(&run.end().await.0));
    assert_eq!((double.tasks.executed(id), double.tasks.executed_at_all()), (1, 1));
    heads(&double, 2).await;
}

#[tokio::test]
async fn what_went_ahead_on_a_link_that_is_gone_is_forgotten() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut double = rig.joined(Spec::named("a")).await;
    let ahead = rig.workers.go_ahead(&double.lease(), None).expect("there is a link");
    double.break_link();
    rig.link_up(&double, false).await;
    assert!(rig.workers.go_ahead(&double.lease(), None).is_none(), "there is no link");
    double.reopen_link().await;
    rig.link_up(&double, true).await;
    let run = rig.start_with(&double, "hello", |task| task.ahead = Some(ahead));
    let id = run.id;
    let (end, _) = run.end().await;
    assert!(is_finished(&end), "{end:?}");
    assert_eq!(double.tasks.executed(id), 1);
}

#[tokio::test]
async fn a_task_that_is_cancelled_behind_what_went_ahead_is_never_sent() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let ahead = rig.workers.go_ahead(&double.lease(), None).expect("there is a link");
    heads(&double, 1).await;
    let run = rig.start_with(&double, "hello", |task| task.ahead = Some(ahead));
    run.cancel.cancel();
    let (end, _) = run.end().await;
    assert!(matches!(&end, DispatchEnd::NotStarted(failure) if failure.code == ErrorCode::TaskCancelled), "{end:?}");
    // What is sent after it comes after it.
    assert!(is_finished(&rig.start(&double, "hello").end().await.0));
    assert_eq!(double.tasks.executed_at_all(), 1);
}

#[tokio::test]
async fn what_goes_ahead_has_one_of_the_places_of_tasks_until_it_is_given_up() {
    let mut rig = Rig::new(WorkersOptions { tasks_per_link_max: 1, ..WorkersOptions::default() }).await;
    let double = rig.joined(Spec::named("a")).await;
    let ahead = rig.workers.go_ahead(&double.lease(), None);
    assert!(ahead.is_some() && rig.workers.go_ahead(&double.lease(), None).is_none());
    drop(ahead);
    assert!(rig.workers.go_ahead(&double.lease(), None).is_some());
}

#[tokio::test]
async fn a_task_behind_what_was_lost_unseen_runs_once_or_is_denied_by_its_worker() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut double = rig.joined(Spec::named("a")).await;
    let ahead = rig.workers.go_ahead(&double.lease(), None).expect("there is a link");
    // The server may not know of it yet.
    double.break_link();
    let run = rig.start_with(&double, "hello", |task| task.ahead = Some(ahead));
    let id = run.id;
    rig.link_up(&double, false).await;
    double.reopen_link().await;
    let (end, _) = run.end().await;
    let times = if is_finished(&end) { 1 } else { 0 };
    assert!(times == 1 || matches!(end, DispatchEnd::NotStarted(_)), "{end:?}");
    assert_eq!(double.tasks.executed(id), times);
}

#[tokio::test]
async fn a_task_that_is_held_begins_when_it_follows_and_never_otherwise() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let [given_up, follows] = [0; 2].map(|_| rig.task_behind(Ahead::Held, &double, "hello"));
    until("tasks to be held", || double.tasks.held.load(Ordering::SeqCst) == 2).await;
    assert_eq!(double.tasks.executed_at_all(), 0);
    drop(given_up);
    let run = rig.run(follows, EVENTS);
    let id = run.id;
    assert!(is_finished(&run.end().await.0));
    assert_eq!((double.tasks.executed(id), double.tasks.executed_at_all()), (1, 1));
}

#[tokio::test]
async fn a_task_that_was_held_on_a_link_that_is_gone_runs_once_on_the_next() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let mut double = rig.joined(Spec::named("a")).await;
    let task = rig.task_behind(Ahead::Held, &double, "hello");
    until("a task to be held", || double.tasks.held.load(Ordering::SeqCst) == 1).await;
    double.break_link();
    rig.link_up(&double, false).await;
    double.reopen_link().await;
    rig.link_up(&double, true).await;
    let run = rig.run(task, EVENTS);
    let id = run.id;
    assert!(is_finished(&run.end().await.0));
    assert_eq!((double.tasks.executed(id), double.tasks.executed_at_all()), (1, 1));
}
