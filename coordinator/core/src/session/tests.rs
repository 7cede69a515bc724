//! The whole table as a snapshot, and generated histories against what must always hold.

use std::fmt::Write;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const RULES: Rules = Rules { tasks_max: 2 };
const NOW: i64 = 10_000_000;

fn incarnation(n: u128) -> Incarnation {
    Incarnation::from_uuid(Uuid::from_u128(n))
}

fn task(n: u128) -> TaskId {
    TaskId::from_uuid(Uuid::from_u128(n))
}

fn at(worker: &str, life: u128) -> Assignment {
    Assignment { worker: worker.parse().unwrap(), incarnation: incarnation(life) }
}

fn lease(epoch: u64) -> Lease {
    at("w", 1).lease(Epoch(epoch))
}

fn session(state: SessionState, running: &[u128]) -> Session {
    Session {
        state,
        running: running.iter().copied().map(task).collect(),
        last_used_ms: NOW - 60_000,
        ttl_ms: 30_000,
        tasks: 3,
    }
}

fn lost(why: LostWhy, said_by: Option<u128>) -> SessionState {
    SessionState::Lost { lease: lease(5), since: 9, why, said_by: said_by.map(incarnation) }
}

fn states() -> Vec<(&'static str, Option<Session>)> {
    let requested = CloseReason::Requested;
    vec![
        ("absent", None),
        ("opening first", Some(session(SessionState::Opening { lease: lease(1), purpose: Purpose::First }, &[]))),
        ("opening again", Some(session(SessionState::Opening { lease: lease(5), purpose: Purpose::Again }, &[]))),
        ("ready, idle", Some(session(SessionState::Ready { lease: lease(5) }, &[]))),
        ("ready, busy", Some(session(SessionState::Ready { lease: lease(5) }, &[7, 8]))),
        ("suspended", Some(session(SessionState::Suspended { lease: lease(5) }, &[]))),
        ("lost, files missing", Some(session(lost(LostWhy::FilesMissing, Some(1)), &[]))),
        ("lost, files missing in new life", Some(session(lost(LostWhy::FilesMissing, Some(2)), &[]))),
        ("lost, worker gone", Some(session(lost(LostWhy::WorkerGone, None), &[]))),
        ("closing", Some(session(SessionState::Closing { lease: lease(5), reason: requested }, &[]))),
        ("expiring", Some(session(SessionState::Closing { lease: lease(5), reason: CloseReason::Expired }, &[]))),
        ("closed", Some(session(SessionState::Closed { reason: requested, at: 9 }, &[]))),
    ]
}

fn inputs() -> Vec<(&'static str, Input)> {
    let (same, new, other) = (at("w", 1), at("w", 2), at("x", 3));
    vec![
        ("create", Input::Create { at: same.clone(), ttl_ms: 30_000 }),
        ("opened, files kept", Input::Opened { epoch: Epoch(5), files: Files::Kept }),
        ("opened, files missing", Input::Opened { epoch: Epoch(5), files: Files::Missing }),
        ("opened by first lease", Input::Opened { epoch: Epoch(1), files: Files::Missing }),
        ("open failed", Input::OpenFailed { epoch: Epoch(5) }),
        ("open failed by first lease", Input::OpenFailed { epoch: Epoch(1) }),
        ("reopen", Input::Reopen { at: new.clone() }),
        ("reopen elsewhere", Input::Reopen { at: other.clone() }),
        ("task 7 started", Input::TaskStarted { task: task(7) }),
        ("task 9 resumed", Input::TaskResumed { task: task(9), lease: lease(5) }),
        ("task 9 of an earlier lease resumed", Input::TaskResumed { task: task(9), lease: lease(4) }),
        ("task 7 ended", Input::TaskEnded { task: task(7) }),
        ("update", Input::Update { ttl_ms: Some(9) }),
        ("share", Input::Share),
        ("unshare", Input::Unshare),
        ("idle sweep", Input::IdleSweep),
        ("worker draining", Input::WorkerDraining { worker: same.worker.clone() }),
        ("other worker draining", Input::WorkerDraining { worker: other.worker.clone() }),
        ("server stopping", Input::ServerStopping),
        ("server started", Input::ServerStarted { tie: Tie::Child }),
        ("server started, worker apart", Input::ServerStarted { tie: Tie::Apart }),
        ("worker joined again, files kept", Input::WorkerJoined { at: same.clone(), files: Files::Kept }),
        ("worker joined again, files missing", Input::WorkerJoined { at: same.clone(), files: Files::Missing }),
        ("worker's new life, files kept", Input::WorkerJoined { at: new.clone(), files: Files::Kept }),
        ("worker's new life, files missing", Input::WorkerJoined { at: new.clone(), files: Files::Missing }),
        ("other worker joined", Input::WorkerJoined { at: other, files: Files::Missing }),
        ("processes left", Input::ProcessesLeft { at: same.clone() }),
        ("processes left by new life", Input::ProcessesLeft { at: new.clone() }),
        ("worker gone", Input::WorkerGone { at: same.clone(), tie: Tie::Child }),
        ("worker's other life gone", Input::WorkerGone { at: new.clone(), tie: Tie::Child }),
        ("worker apart gone", Input::WorkerGone { at: same.clone(), tie: Tie::Apart }),
        ("other life of worker apart gone", Input::WorkerGone { at: new, tie: Tie::Apart }),
        ("misplaced", Input::Misplaced { at: same }),
        ("close requested", Input::CloseRequested { present: Some(incarnation(1)) }),
        ("close requested, new life", Input::CloseRequested { present: Some(incarnation(2)) }),
        ("close requested, worker away", Input::CloseRequested { present: None }),
        ("close done", Input::CloseDone),
        ("close failed", Input::CloseFailed),
        ("retention sweep", Input::RetentionSweep { present: Some(incarnation(2)) }),
    ]
}

fn show_state(session: &Session) -> String {
    let lease = session.state.lease().map(|lease| {
        let life = if lease.incarnation == incarnation(1) { 1 } else { 2 };
        format!(" at {}/{life} epoch {}", lease.worker, lease.epoch.0)
    });
    format!("{}{} running {}", session.state.name(), lease.unwrap_or_default(), session.running.len())
}

fn show(result: &Result<Transition, Refusal>) -> String {
    match result {
        Err(refusal) => format!("refused: {refusal}"),
        Ok(transition) => {
            let effects: Vec<String> = transition
                .effects
                .iter()
                .map(|effect| match effect {
                    Effect::Open { lease } => format!("open by epoch {}", lease.epoch.0),
                    Effect::EndProcesses { lease } => format!("end processes by epoch {}", lease.epoch.0),
                    Effect::DeleteWorkspace { lease } => format!("delete workspace by epoch {}", lease.epoch.0),
                    Effect::CancelTasks => "cancel tasks".to_owned(),
                    Effect::Forget => "forget".to_owned(),
                })
                .collect();
            format!("{}; record {:?}; do [{}]", show_state(&transition.next), transition.event, effects.join(", "))
        }
    }
}

#[test]
fn the_whole_table() {
    let mut table = String::new();
    for (state_name, state) in states() {
        for (input_name, input) in inputs() {
            let result = step(state.as_ref(), &input, NOW, &RULES);
            writeln!(table, "{state_name} + {input_name} -> {}", show(&result)).unwrap();
        }
        table.push('\n');
    }
    insta::assert_snapshot!(table);
}

fn any_input() -> impl Strategy<Value = Input> {
    let life = (1u128..4).prop_map(incarnation);
    let place = (prop::sample::select(vec!["w", "x"]), 1u128..4).prop_map(|(worker, life)| at(worker, life));
    let files = prop::sample::select(vec![Files::Kept, Files::Missing]);
    let tie = prop::sample::select(vec![Tie::Child, Tie::Apart]);
    prop_oneof![
        place.clone().prop_map(|at| Input::Create { at, ttl_ms: 5_000 }),
        (0u64..12, files.clone()).prop_map(|(epoch, files)| Input::Opened { epoch: Epoch(epoch), files }),
        (0u64..12).prop_map(|epoch| Input::OpenFailed { epoch: Epoch(epoch) }),
        place.clone().prop_map(|at| Input::Reopen { at }),
        (0u128..4).prop_map(|n| Input::TaskStarted { task: task(n) }),
        (4u128..6, 0u64..12).prop_map(|(n, epoch)| Input::TaskResumed { task: task(n), lease: lease(epoch) }),
        (0u128..6).prop_map(|n| Input::TaskEnded { task: task(n) }),
        prop::option::of(1u64..60_000).prop_map(|ttl_ms| Input::Update { ttl_ms }),
        Just(Input::IdleSweep),
        prop::sample::select(vec!["w", "x"]).prop_map(|w| Input::WorkerDraining { worker: w.parse().unwrap() }),
        Just(Input::ServerStopping),
        tie.clone().prop_map(|tie| Input::ServerStarted { tie }),
        (place.clone(), files).prop_map(|(at, files)| Input::WorkerJoined { at, files }),
        (place.clone(), tie).prop_map(|(at, tie)| Input::WorkerGone { at, tie }),
        place.clone().prop_map(|at| Input::ProcessesLeft { at }),
        place.prop_map(|at| Input::Misplaced { at }),
        prop::option::of(life.clone()).prop_map(|present| Input::CloseRequested { present }),
        Just(Input::CloseDone),
        Just(Input::CloseFailed),
        prop::option::of(life).prop_map(|present| Input::RetentionSweep { present }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn every_history_keeps_the_promises(history in prop::collection::vec((any_input(), 0i64..20_000), 0..80)) {
        let (mut session, mut now): (Option<Session>, i64) = (None, 0);
        let mut resumed = 0;
        let mut epoch_max = Epoch::default();
        for (mut input, passed) in history {
            now += passed;
            // Answers of the worker mostly belong to the present assignment.
            if let (Input::Opened { epoch, .. } | Input::OpenFailed { epoch }, Some(lease)) =
                (&mut input, session.as_ref().and_then(|session| session.state.lease()))
                && epoch.0 % 4 != 0
            {
                *epoch = lease.epoch;
            }
            let Ok(transition) = step(session.as_ref(), &input, now, &RULES) else { continue };
            resumed += usize::from(matches!(input, Input::TaskResumed { .. }));
            let (before, after) = (session.take(), &transition.next);
            if let Some(lease) = after.state.lease() {
                prop_assert!(lease.epoch >= epoch_max, "an epoch shrank");
                let assigned_anew = before.as_ref().and_then(|s| s.state.lease()).is_none_or(|old| old.epoch < lease.epoch);
                let same_holder = before.as_ref().and_then(|s| s.state.lease()).is_some_and(|old| {
                    (&old.worker, old.incarnation) == (&lease.worker, lease.incarnation)
                });
                prop_assert!(assigned_anew || same_holder, "two holders by one epoch");
                epoch_max = lease.epoch;
            }
            for effect in &transition.effects {
                if let Effect::Open { lease } = effect {
                    let held = matches!(&after.state, SessionState::Opening { lease: held, .. } if held == lease);
                    prop_assert!(held, "an epoch is used that the session does not hold");
                    let older = before.as_ref().and_then(|s| s.state.lease()).is_none_or(|old| old.epoch < lease.epoch);
                    prop_assert!(older, "an epoch is used twice");
                    prop_assert!(transition.event.is_some(), "an epoch is used unrecorded");
                }
            }
            if let Some(before) = &before {
                if matches!(before.state, SessionState::Closed { .. }) {
                    prop_assert_eq!(&before.state, &after.state);
                }
                if before.state != after.state {
                    prop_assert!(transition.event.is_some(), "a state changed unrecorded");
                }
                if matches!(input, Input::IdleSweep | Input::WorkerDraining { .. }) && !before.running.is_empty() {
                    prop_assert_eq!(&before.state, &after.state);
                }
            }
            prop_assert!(after.running.len() <= RULES.tasks_max + resumed);
            session = Some(transition.next);
        }
    }
}
