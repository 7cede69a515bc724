//! What the coordinator makes of the tasks that it sends: at most once, in order, bounded, and never a guess.

use std::time::Duration;

use codegen_types::{ErrorCode, EventBody, Incarnation, OperationResult, TraceContext};
use coordinator::workers::{DispatchEnd, WorkerEvent, WorkersOptions};
use coordinator_core::worker::Timing;

use crate::double::{Double, Spec};
use crate::rig::{Ahead, Rig, answered_code, until, within};
use crate::streams::PIECE_BYTES;

fn bytes_of(events: &[EventBody]) -> usize {
    let output = |event: &EventBody| match event {
        EventBody::Output { bytes, .. } => bytes.len(),
        _ => 0,
    };
    events.iter().map(output).sum()
}

pub fn is_finished(end: &DispatchEnd) -> bool {
    matches!(end, DispatchEnd::Answered(EventBody::Finished(OperationResult::Exec(_))))
}

fn is_unknown(end: &DispatchEnd) -> bool {
    matches!(end, DispatchEnd::Unknown(failure) if failure.code == ErrorCode::TaskOutcomeUnknown)
}

/// Gives up soon.
fn hasty() -> WorkersOptions {
    WorkersOptions {
        deadline_slack: Duration::from_millis(200),
        cancel_grace: Duration::from_millis(100),
        cancel_slack: Duration::from_millis(300),
        link_wait: Duration::from_millis(300),
        ..WorkersOptions::default()
    }
}

#[tokio::test]
async fn events_come_in_order_and_the_result_once() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    for mut run in Ahead::ALL.map(|ahead| rig.start_behind(ahead, &double, "hello")) {
        assert_eq!((run.output().await, run.output().await), ("hello".to_owned(), "world".to_owned()));
        let id = run.id;
        let (end, rest) = run.end().await;
        assert!(is_finished(&end), "{end:?}");
        assert!(rest.is_empty());
        assert_eq!(double.tasks.executed(id), 1);
    }
}

#[tokio::test]
async fn the_trace_of_a_call_goes_to_the_worker_with_its_task_and_nothing_of_whoever_asked_does() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let traced = rig.start_with(&double, "hello", |task| task.trace = TraceContext::parse(PARENT, Some("vendor=1")));
    let untraced = rig.start(&double, "hello");
    let ids = [traced.id, untraced.id];
    assert!(is_finished(&traced.end().await.0) && is_finished(&untraced.end().await.0));
    let [traced, untraced] = ids.map(|id| double.tasks.beside(id));
    assert_eq!(traced.get("traceparent").and_then(|parent| parent.to_str().ok()), Some(PARENT));
    assert_eq!(traced.get("tracestate").and_then(|state| state.to_str().ok()), Some("vendor=1"));
    assert!(!untraced.contains_key("traceparent") && !untraced.contains_key("tracestate"));
    assert!(!traced.contains_key("authorization"));
}

#[tokio::test]
async fn a_task_goes_on_over_a_broken_link_and_is_not_run_again() {
    for (over_tcp, ahead) in Ahead::ALL.into_iter().flat_map(|ahead| [(false, ahead), (true, ahead)]) {
        let mut rig = Rig::new(WorkersOptions::default()).await;
        let token = rig.workers.issue_token(&"a".parse().unwrap());
        let mut double = Double::new(rig.routes()[usize::from(over_tcp)].clone(), Spec::named("a"));
        let registered = double.register(token.expose()).await.unwrap();
        rig.event().await;
        double.open_link(&registered.link_ticket).await.unwrap();
        rig.link_up(&double, true).await;

        let mut run = rig.start_behind(ahead, &double, "gated");
        assert_eq!(run.output().await, "before");
        double.break_link();
        rig.link_up(&double, false).await;
        double.tasks.gate.notify_one();
        double.reopen_link().await;
        assert_eq!(run.output().await, "after");
        let id = run.id;
        let (end, rest) = run.end().await;
        assert!(is_finished(&end) && rest.is_empty(), "{end:?} {rest:?}");
        assert_eq!(double.tasks.executed(id), 1);
    }
}

#[tokio::test]
async fn a_task_whose_worker_does_not_come_back_ends_unknown() {
    let ms = Duration::from_millis;
    let timing = Timing { reconnect_grace: ms(300), ..Timing::default() };
    let keep_alive_interval = ms(100);
    let mut rig = Rig::new(WorkersOptions { timing, keep_alive_interval, ..Default::default() }).await;
    let mut double = rig.joined(Spec::named("a")).await;
    let mut run = rig.start(&double, "gated");
    run.output().await;
    double.break_link();
    let (end, _) = run.end().await;
    assert!(is_unknown(&end), "{end:?}");
}

#[tokio::test]
async fn a_new_life_of_the_worker_makes_the_tasks_of_the_old_one_unknown_at_once() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let old = rig.joined(Spec::named("a")).await;
    let mut run = rig.start(&old, "gated");
    run.output().await;
    let new = rig_replace(&mut rig).await;
    // What the old life still says is not heard.
    old.tasks.gate.notify_one();
    let (end, rest) = run.end().await;
    assert!(is_unknown(&end), "{end:?}");
    assert!(rest.is_empty(), "{rest:?}");
    // Nor can the old life's lease be used again.
    let (end, _) = rig.start(&old, "hello").end().await;
    assert!(matches!(end, DispatchEnd::NotStarted(_)), "{end:?}");
    drop(new);
}

async fn rig_replace(rig: &mut Rig) -> Double {
    let token = rig.workers.issue_token(&"a".parse().unwrap());
    let mut new = Double::new(rig.unix(), Spec { incarnation: Incarnation::mint(), ..Spec::named("a") });
    new.register(token.expose()).await.unwrap();
    assert!(matches!(rig.event().await, WorkerEvent::Gone { .. }));
    assert!(matches!(rig.event().await, WorkerEvent::Joined { .. }));
    new
}

#[tokio::test]
async fn events_out_of_order_are_asked_for_again_once() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let mut run = rig.start(&double, "gap once");
    assert_eq!(run.output().await, "in order");
    let id = run.id;
    assert!(is_finished(&run.end().await.0));
    assert_eq!(double.tasks.executed(id), 1);
    for word in ["gap", "again"] {
        let run = rig.start(&double, word);
        let id = run.id;
        let (end, rest) = run.end().await;
        assert!(is_unknown(&end), "{word}: {end:?}");
        assert_eq!(rest, [EventBody::Started], "{word}");
        assert_eq!(double.tasks.executed(id), 1);
    }
    until("both were cancelled", || double.tasks.cancels.load(std::sync::atomic::Ordering::Relaxed) == 2).await;
    let (end, _) = rig.start(&double, "another answer").end().await;
    assert!(is_unknown(&end), "an answer to what was not asked: {end:?}");
}

#[tokio::test]
async fn an_event_that_is_larger_than_any_may_be_ends_its_own_task_and_nothing_else() {
    let mut rig = Rig::new(hasty()).await;
    let double = rig.joined(Spec::named("a")).await;
    let mut other = rig.start(&double, "gated");
    assert_eq!(other.output().await, "before");
    let (end, events) = rig.start(&double, "too large").end().await;
    assert!(is_unknown(&end), "{end:?}");
    assert_eq!(bytes_of(&events), 0, "nothing of it was taken");
    double.tasks.gate.notify_one();
    let (end, _) = other.end().await;
    assert!(is_finished(&end), "{end:?}");
}

#[tokio::test]
async fn output_is_bounded_whatever_the_worker_lets_through() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let max = 3 * PIECE_BYTES + 17;
    let run = rig.start_with(&double, "flood", |task| task.output_bytes_max = max as u64);
    let (end, events) = run.end().await;
    assert_eq!(answered_code(&end), Some(ErrorCode::OutputLimit), "{end:?}");
    assert_eq!(bytes_of(&events), max);
}

#[tokio::test]
async fn a_cancelled_task_is_ended_on_its_worker_and_its_last_event_is_waited_for() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let mut run = rig.start(&double, "until cancelled");
    run.output().await;
    run.cancel.cancel();
    let (end, _) = run.end().await;
    assert_eq!(answered_code(&end), Some(ErrorCode::TaskCancelled), "{end:?}");
}

#[tokio::test]
async fn a_task_that_was_cancelled_before_it_was_sent_is_never_sent() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    for ahead in Ahead::ALL {
        let run = rig.start_behind(ahead, &double, "hello");
        run.cancel.cancel();
        let id = run.id;
        let (end, _) = run.end().await;
        assert!(matches!(&end, DispatchEnd::NotStarted(why) if why.code == ErrorCode::TaskCancelled), "{end:?}");
        assert_eq!(double.tasks.executed(id), 0);
    }
}

#[tokio::test]
async fn a_worker_that_ignores_a_cancellation_does_not_hold_the_call() {
    let mut rig = Rig::new(hasty()).await;
    let double = rig.joined(Spec::named("a")).await;
    let mut run = rig.start(&double, "for ever");
    run.output().await;
    run.cancel.cancel();
    let (end, _) = run.end().await;
    assert!(is_unknown(&end), "{end:?}");
}

#[tokio::test]
async fn a_worker_that_does_not_end_a_task_in_time_is_told_to() {
    let mut rig = Rig::new(hasty()).await;
    let double = rig.joined(Spec::named("a")).await;
    let soon = Duration::from_millis(50);
    let (end, _) = rig.start_with(&double, "until cancelled", |task| task.timeout = soon).end().await;
    assert_eq!(answered_code(&end), Some(ErrorCode::TaskTimeout), "{end:?}");
    let (end, _) = rig.start_with(&double, "for ever", |task| task.timeout = soon).end().await;
    assert!(is_unknown(&end), "{end:?}");
}

#[tokio::test]
async fn a_task_that_never_reached_its_worker_is_not_started() {
    let mut rig = Rig::new(hasty()).await;
    let mut double = rig.joined(Spec::named("a")).await;
    for ahead in Ahead::ALL {
        // The link breaks while the task is being sent, and the same life denies that it has it.
        let run = rig.start_behind(ahead, &double, "never arrived");
        let id = run.id;
        rig.link_up(&double, false).await;
        double.reopen_link().await;
        rig.link_up(&double, true).await;
        let (end, _) = run.end().await;
        assert!(matches!(end, DispatchEnd::NotStarted(_)), "{end:?}");
        assert_eq!(double.tasks.executed(id), 0);
    }
    // There is no link to send it on.
    double.break_link();
    rig.link_up(&double, false).await;
    let (end, _) = rig.start(&double, "hello").end().await;
    assert!(
        matches!(&end, DispatchEnd::NotStarted(failure) if failure.code == ErrorCode::WorkerUnavailable),
        "{end:?}"
    );
}

#[tokio::test]
async fn a_refusal_of_the_worker_is_passed_on_as_it_states_it() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let (end, _) = rig.start(&double, "refused").end().await;
    assert!(matches!(&end, DispatchEnd::NotStarted(failure) if failure.code == ErrorCode::SessionNotFound), "{end:?}");
}

#[tokio::test]
async fn sixty_stalled_readers_do_not_freeze_the_link() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let stalled: Vec<_> =
        (0..60).map(|_| rig.start_reading(&double, "flood", 1, |task| task.output_bytes_max = u64::MAX)).collect();
    until("all sixty run", || stalled.iter().all(|run| double.tasks.executed(run.id) == 1)).await;
    for _ in 0..20 {
        let (end, events) = rig.start(&double, "a megabyte").end().await;
        assert!(is_finished(&end), "{end:?}");
        assert_eq!(bytes_of(&events), 16 * PIECE_BYTES);
    }
    // They are stalled, not dead: each can still be cancelled and read to its end.
    for run in stalled {
        run.cancel.cancel();
        let (end, _) = run.end().await;
        assert_eq!(answered_code(&end), Some(ErrorCode::TaskCancelled));
    }
}

#[tokio::test]
async fn a_reader_who_does_not_read_does_not_make_the_outcome_unknown() {
    let mut rig = Rig::new(hasty()).await;
    let double = rig.joined(Spec::named("a")).await;
    let soon = Duration::from_millis(50);
    let run = rig.start_reading(&double, "a megabyte", 1, |task| task.timeout = soon);
    let end = within(run.end_unread()).await;
    assert!(is_finished(&end), "{end:?}");
}

#[tokio::test]
async fn a_caller_who_is_gone_does_not_end_the_task() {
    let mut rig = Rig::new(WorkersOptions::default()).await;
    let double = rig.joined(Spec::named("a")).await;
    let mut run = rig.start(&double, "gated");
    run.output().await;
    run.events.close();
    double.tasks.gate.notify_one();
    let (end, _) = run.end().await;
    assert!(is_finished(&end), "{end:?}");
}
