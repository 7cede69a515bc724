//! The table: one function per state, every input named in each.

use codegen_types::{Epoch, Incarnation, Lease, TaskId};

use super::{
    Assignment, CloseReason, Effect, Files, Input, LostWhy, Purpose, Refusal, Rules, Session, SessionEvent,
    SessionState, SuspendReason, Tie, Transition,
};

type Stepped = Result<Transition, Refusal>;

pub(super) fn step(session: Option<&Session>, input: &Input, now: i64, rules: &Rules) -> Stepped {
    let Some(session) = session else { return absent(input, now) };
    match &session.state {
        SessionState::Opening { lease, purpose } => opening(session, lease, *purpose, input, now),
        SessionState::Ready { lease } => ready(session, lease, input, now, rules),
        SessionState::Suspended { lease } => suspended(session, lease, input, now),
        SessionState::Lost { lease, why, said_by, .. } => lost(session, lease, (*why, *said_by), input, now),
        SessionState::Closing { lease, reason } => closing(session, lease, *reason, input, now),
        SessionState::Closed { .. } => closed(session, input, now),
    }
}

fn absent(input: &Input, now: i64) -> Stepped {
    match input {
        Input::Create { at, ttl_ms } => {
            let lease = at.lease(Epoch::default().next());
            let state = SessionState::Opening { lease: lease.clone(), purpose: Purpose::First };
            let next = Session { state, running: [].into(), last_used_ms: now, ttl_ms: *ttl_ms, tasks: 0 };
            Ok(Transition { next, event: Some(SessionEvent::Created), effects: vec![Effect::Open { lease }] })
        }
        Input::Opened { .. }
        | Input::OpenFailed { .. }
        | Input::Reopen { .. }
        | Input::TaskStarted { .. }
        | Input::TaskResumed { .. }
        | Input::TaskEnded { .. }
        | Input::Update { .. }
        | Input::Share
        | Input::Unshare
        | Input::IdleSweep
        | Input::WorkerDraining { .. }
        | Input::ServerStopping
        | Input::ServerStarted { .. }
        | Input::WorkerJoined { .. }
        | Input::ProcessesLeft { .. }
        | Input::WorkerGone { .. }
        | Input::Misplaced { .. }
        | Input::CloseRequested { .. }
        | Input::CloseDone
        | Input::CloseFailed
        | Input::RetentionSweep { .. } => Err(Refusal::Absent),
    }
}

fn opening(session: &Session, lease: &Lease, purpose: Purpose, input: &Input, now: i64) -> Stepped {
    match input {
        Input::Create { .. } => Err(Refusal::Exists),
        Input::Opened { epoch, .. } | Input::OpenFailed { epoch } if *epoch != lease.epoch => Err(Refusal::Stale),
        // Files that were promised and are not there are not replaced by an empty directory in silence.
        Input::Opened { files: Files::Missing, .. } if purpose == Purpose::Again => {
            let effects = vec![Effect::DeleteWorkspace { lease: lease.clone() }];
            to(session, files_missing(lease, lease.incarnation, now), SessionEvent::Lost, effects)
        }
        Input::Opened { .. } => {
            let state = SessionState::Ready { lease: lease.clone() };
            let mut transition = to(session, state, SessionEvent::Opened, vec![])?;
            transition.next.last_used_ms = now;
            Ok(transition)
        }
        Input::OpenFailed { .. } => match purpose {
            Purpose::First => {
                let effects = vec![Effect::DeleteWorkspace { lease: lease.clone() }];
                close(session, CloseReason::OpenFailed, now, effects)
            }
            Purpose::Again => {
                let effects = vec![Effect::EndProcesses { lease: lease.clone() }];
                suspend(session, lease, SuspendReason::OpenFailed, effects)
            }
        },
        Input::Reopen { .. } | Input::TaskStarted { .. } | Input::TaskResumed { .. } => Err(Refusal::NotReady),
        Input::TaskEnded { task } => task_ended(session, *task, now),
        Input::Update { ttl_ms } => update(session, *ttl_ms, now),
        Input::Share => shared(session, SessionEvent::Shared, now),
        Input::Unshare => shared(session, SessionEvent::Unshared, now),
        Input::ServerStopping => suspend(session, lease, SuspendReason::ServerStopped, end_processes(lease)),
        Input::ServerStarted { .. } => match purpose {
            // It never was ready, so that nobody was told of it; whether its worker was asked for it is not known.
            Purpose::First => begin_close(session, lease, CloseReason::OpenFailed, None),
            Purpose::Again => suspend(session, lease, SuspendReason::ServerRestarted, vec![]),
        },
        Input::CloseRequested { present } => begin_close(session, lease, CloseReason::Requested, *present),
        // The worker's answer to the opening says how that ended.
        Input::IdleSweep
        | Input::WorkerDraining { .. }
        | Input::WorkerJoined { .. }
        | Input::ProcessesLeft { .. }
        | Input::WorkerGone { .. }
        | Input::Misplaced { .. }
        | Input::CloseDone
        | Input::CloseFailed
        | Input::RetentionSweep { .. } => Err(Refusal::NotDue),
    }
}

fn ready(session: &Session, lease: &Lease, input: &Input, now: i64, rules: &Rules) -> Stepped {
    match input {
        Input::Create { .. } => Err(Refusal::Exists),
        Input::Opened { .. } | Input::OpenFailed { .. } => Err(Refusal::Stale),
        Input::Reopen { .. } => Err(Refusal::NotDue),
        Input::TaskStarted { task } => task_started(session, *task, now, rules),
        Input::TaskResumed { task, lease: held } => task_resumed(session, *task, held == lease, now),
        Input::TaskEnded { task } => task_ended(session, *task, now),
        Input::Update { ttl_ms } => update(session, *ttl_ms, now),
        Input::Share => shared(session, SessionEvent::Shared, now),
        Input::Unshare => shared(session, SessionEvent::Unshared, now),
        Input::IdleSweep => {
            let idle_ms = u64::try_from(now.saturating_sub(session.last_used_ms)).unwrap_or(0);
            if !session.running.is_empty() || idle_ms < session.ttl_ms {
                return Err(Refusal::NotDue);
            }
            suspend(session, lease, SuspendReason::Idle, end_processes(lease))
        }
        Input::WorkerDraining { worker } if *worker == lease.worker && session.running.is_empty() => {
            suspend(session, lease, SuspendReason::WorkerDrained, end_processes(lease))
        }
        Input::WorkerDraining { .. } => Err(Refusal::NotDue),
        Input::ServerStopping => suspend(session, lease, SuspendReason::ServerStopped, end_processes(lease)),
        Input::ServerStarted { tie: Tie::Child } => suspend(session, lease, SuspendReason::ServerRestarted, vec![]),
        // Its processes may be running: whether they are, its worker will say.
        Input::ServerStarted { tie: Tie::Apart } => Err(Refusal::NotDue),
        Input::WorkerJoined { at, files } => match files {
            _ if at.worker != lease.worker => Err(Refusal::NotDue),
            // What the life that opened it said of its files may be older than the session: it says it again when it is
            // asked for something.
            Files::Kept | Files::Missing if at.is_of(lease) => Err(Refusal::NotDue),
            Files::Missing => to(session, files_missing(lease, at.incarnation, now), SessionEvent::Lost, vec![]),
            Files::Kept => suspend(session, lease, SuspendReason::WorkerRestarted, vec![]),
        },
        Input::WorkerGone { at, tie: Tie::Child } if at.is_of(lease) => {
            suspend(session, lease, SuspendReason::WorkerGone, vec![])
        }
        Input::WorkerGone { at, tie: Tie::Apart } if at.is_of(lease) => {
            to(session, worker_gone(lease, now), SessionEvent::Lost, vec![])
        }
        Input::Misplaced { at } if at.is_of(lease) => suspend(session, lease, SuspendReason::Misplaced, vec![]),
        // They are what it is ready with.
        Input::ProcessesLeft { .. } | Input::WorkerGone { .. } | Input::Misplaced { .. } => Err(Refusal::NotDue),
        Input::CloseRequested { present } => begin_close(session, lease, CloseReason::Requested, *present),
        Input::CloseDone | Input::CloseFailed | Input::RetentionSweep { .. } => Err(Refusal::NotDue),
    }
}

fn suspended(session: &Session, lease: &Lease, input: &Input, now: i64) -> Stepped {
    match input {
        Input::Create { .. } => Err(Refusal::Exists),
        Input::Opened { .. } | Input::OpenFailed { .. } => Err(Refusal::Stale),
        Input::Reopen { at } if at.worker != lease.worker => Err(Refusal::Stale),
        Input::Reopen { at } => {
            let lease = at.lease(lease.epoch.next());
            let state = SessionState::Opening { lease: lease.clone(), purpose: Purpose::Again };
            let mut transition = to(session, state, SessionEvent::Opening, vec![Effect::Open { lease }])?;
            transition.next.last_used_ms = now;
            Ok(transition)
        }
        Input::TaskStarted { .. } | Input::TaskResumed { .. } => Err(Refusal::NotReady),
        Input::TaskEnded { task } => task_ended(session, *task, now),
        Input::Update { ttl_ms } => update(session, *ttl_ms, now),
        Input::Share => shared(session, SessionEvent::Shared, now),
        Input::Unshare => shared(session, SessionEvent::Unshared, now),
        Input::WorkerJoined { at, files: Files::Missing } if at.worker == lease.worker && !at.is_of(lease) => {
            to(session, files_missing(lease, at.incarnation, now), SessionEvent::Lost, vec![])
        }
        // Where a task that outlived its server goes on, they are its own.
        Input::ProcessesLeft { at } if at.is_of(lease) && session.running.is_empty() => {
            let effects = vec![Effect::EndProcesses { lease: lease.clone() }];
            Ok(Transition { next: session.clone(), event: None, effects })
        }
        // Whichever life of it that was: the files were on its disk.
        Input::WorkerGone { at, tie: Tie::Apart } if at.worker == lease.worker => {
            to(session, worker_gone(lease, now), SessionEvent::Lost, vec![])
        }
        Input::CloseRequested { present } => begin_close(session, lease, CloseReason::Requested, *present),
        Input::RetentionSweep { present } => begin_close(session, lease, CloseReason::Expired, *present),
        Input::IdleSweep
        | Input::WorkerDraining { .. }
        | Input::ServerStopping
        | Input::ServerStarted { .. }
        | Input::WorkerJoined { .. }
        | Input::ProcessesLeft { .. }
        | Input::WorkerGone { .. }
        | Input::Misplaced { .. }
        | Input::CloseDone
        | Input::CloseFailed => Err(Refusal::NotDue),
    }
}

fn lost(
    session: &Session,
    lease: &Lease,
    (why, said_by): (LostWhy, Option<Incarnation>),
    input: &Input,
    now: i64,
) -> Stepped {
    match input {
        Input::Create { .. } => Err(Refusal::Exists),
        Input::Opened { .. } | Input::OpenFailed { .. } => Err(Refusal::Stale),
        Input::Reopen { .. }
        | Input::TaskStarted { .. }
        | Input::TaskResumed { .. }
        | Input::Update { .. }
        | Input::Share => Err(Refusal::Lost),
        Input::TaskEnded { task } => task_ended(session, *task, now),
        Input::Unshare => shared(session, SessionEvent::Unshared, now),
        Input::WorkerJoined { at, files } if at.worker == lease.worker => match (files, why) {
            (Files::Kept, LostWhy::WorkerGone) => suspend(session, lease, SuspendReason::FilesFound, vec![]),
            // What a life has now under that name, after it had nothing, is not what was lost. Whoever else has files may
            // have been away while another spoke in its name.
            (Files::Kept, LostWhy::FilesMissing) if said_by.unwrap_or(lease.incarnation) != at.incarnation => {
                suspend(session, lease, SuspendReason::FilesFound, vec![])
            }
            (Files::Missing, LostWhy::WorkerGone) => {
                to(session, files_missing(lease, at.incarnation, now), SessionEvent::Lost, vec![])
            }
            (Files::Kept | Files::Missing, LostWhy::FilesMissing) => Err(Refusal::NotDue),
        },
        // As when it was opened anew, and its worker was not reached to undo that.
        Input::ProcessesLeft { at } if at.is_of(lease) => {
            let effects = vec![Effect::EndProcesses { lease: lease.clone() }];
            Ok(Transition { next: session.clone(), event: None, effects })
        }
        // What its worker may have of it all the same is deleted.
        Input::CloseRequested { present: Some(life) } => {
            begin_close(session, lease, CloseReason::Requested, Some(*life))
        }
        Input::RetentionSweep { present: Some(life) } => begin_close(session, lease, CloseReason::Expired, Some(*life)),
        // There is nobody to ask. Should the worker come back, it is told then.
        Input::CloseRequested { .. } => close(session, CloseReason::Requested, now, vec![]),
        Input::RetentionSweep { .. } => close(session, CloseReason::Expired, now, vec![]),
        Input::IdleSweep
        | Input::WorkerDraining { .. }
        | Input::ServerStopping
        | Input::ServerStarted { .. }
        | Input::WorkerJoined { .. }
        | Input::ProcessesLeft { .. }
        | Input::WorkerGone { .. }
        | Input::Misplaced { .. }
        | Input::CloseDone
        | Input::CloseFailed => Err(Refusal::NotDue),
    }
}

fn closing(session: &Session, lease: &Lease, reason: CloseReason, input: &Input, now: i64) -> Stepped {
    let retry = |lease: &Lease| vec![Effect::DeleteWorkspace { lease: lease.clone() }];
    match input {
        Input::Create { .. } => Err(Refusal::Exists),
        Input::Opened { .. } | Input::OpenFailed { .. } => Err(Refusal::Stale),
        Input::Reopen { .. }
        | Input::TaskStarted { .. }
        | Input::TaskResumed { .. }
        | Input::Update { .. }
        | Input::Share
        | Input::CloseRequested { .. } => Err(Refusal::Closed),
        Input::TaskEnded { task } => task_ended(session, *task, now),
        Input::Unshare => shared(session, SessionEvent::Unshared, now),
        Input::IdleSweep | Input::ServerStarted { .. } => {
            Ok(Transition { next: session.clone(), event: None, effects: retry(lease) })
        }
        Input::WorkerJoined { at, .. } if at.worker != lease.worker => Err(Refusal::NotDue),
        Input::CloseDone => close(session, reason, now, vec![]),
        Input::WorkerJoined { at, .. } if at.is_of(lease) => {
            Ok(Transition { next: session.clone(), event: None, effects: retry(lease) })
        }
        Input::WorkerJoined { files: Files::Missing, .. } => close(session, reason, now, vec![]),
        Input::WorkerJoined { at, files: Files::Kept } => begin_close(session, lease, reason, Some(at.incarnation)),
        // Its worker has been away for so long that nobody will hear of it again.
        Input::RetentionSweep { .. } => close(session, reason, now, vec![]),
        Input::WorkerDraining { .. }
        | Input::ServerStopping
        | Input::ProcessesLeft { .. }
        | Input::WorkerGone { .. }
        | Input::Misplaced { .. }
        | Input::CloseFailed => Err(Refusal::NotDue),
    }
}

fn closed(session: &Session, input: &Input, now: i64) -> Stepped {
    match input {
        Input::Create { .. } => Err(Refusal::Exists),
        Input::TaskEnded { task } => task_ended(session, *task, now),
        Input::Unshare => shared(session, SessionEvent::Unshared, now),
        Input::RetentionSweep { .. } => {
            Ok(Transition { next: session.clone(), event: None, effects: vec![Effect::Forget] })
        }
        Input::Opened { .. } | Input::OpenFailed { .. } => Err(Refusal::Stale),
        Input::Reopen { .. }
        | Input::TaskStarted { .. }
        | Input::TaskResumed { .. }
        | Input::Update { .. }
        | Input::Share
        | Input::CloseRequested { .. } => Err(Refusal::Closed),
        Input::IdleSweep
        | Input::WorkerDraining { .. }
        | Input::ServerStopping
        | Input::ServerStarted { .. }
        | Input::WorkerJoined { .. }
        | Input::ProcessesLeft { .. }
        | Input::WorkerGone { .. }
        | Input::Misplaced { .. }
        | Input::CloseDone
        | Input::CloseFailed => Err(Refusal::NotDue),
    }
}

fn to(session: &Session, state: SessionState, event: SessionEvent, effects: Vec<Effect>) -> Stepped {
    Ok(Transition { next: Session { state, ..session.clone() }, event: Some(event), effects })
}

fn suspend(session: &Session, lease: &Lease, reason: SuspendReason, effects: Vec<Effect>) -> Stepped {
    to(session, SessionState::Suspended { lease: lease.clone() }, SessionEvent::Suspended(reason), effects)
}

fn end_processes(lease: &Lease) -> Vec<Effect> {
    vec![Effect::CancelTasks, Effect::EndProcesses { lease: lease.clone() }]
}

fn worker_gone(lease: &Lease, now: i64) -> SessionState {
    SessionState::Lost { lease: lease.clone(), since: now, why: LostWhy::WorkerGone, said_by: None }
}

fn files_missing(lease: &Lease, said_by: Incarnation, now: i64) -> SessionState {
    SessionState::Lost { lease: lease.clone(), since: now, why: LostWhy::FilesMissing, said_by: Some(said_by) }
}

/// A worker that began a new life since it held the session gets a new assignment, or it would refuse to listen.
fn begin_close(session: &Session, lease: &Lease, reason: CloseReason, present: Option<Incarnation>) -> Stepped {
    let lease = match present {
        Some(incarnation) if incarnation != lease.incarnation => {
            Assignment { worker: lease.worker.clone(), incarnation }.lease(lease.epoch.next())
        }
        Some(_) | None => lease.clone(),
    };
    let effects = vec![Effect::CancelTasks, Effect::DeleteWorkspace { lease: lease.clone() }];
    to(session, SessionState::Closing { lease, reason }, SessionEvent::Closing(reason), effects)
}

fn close(session: &Session, reason: CloseReason, now: i64, mut effects: Vec<Effect>) -> Stepped {
    match reason {
        CloseReason::Expired => effects.push(Effect::Forget),
        CloseReason::Requested | CloseReason::OpenFailed => {}
    }
    to(session, SessionState::Closed { reason, at: now }, SessionEvent::Closed(reason), effects)
}

fn update(session: &Session, ttl_ms: Option<u64>, now: i64) -> Stepped {
    let next = Session { ttl_ms: ttl_ms.unwrap_or(session.ttl_ms), last_used_ms: now, ..session.clone() };
    Ok(Transition { next, event: Some(SessionEvent::Updated), effects: vec![] })
}

fn shared(session: &Session, event: SessionEvent, now: i64) -> Stepped {
    let next = Session { last_used_ms: now, ..session.clone() };
    Ok(Transition { next, event: Some(event), effects: vec![] })
}

fn task_started(session: &Session, task: TaskId, now: i64, rules: &Rules) -> Stepped {
    if session.running.len() >= rules.tasks_max {
        return Err(Refusal::TooManyTasks);
    }
    let mut next = Session { last_used_ms: now, tasks: session.tasks + 1, ..session.clone() };
    if !next.running.insert(task) {
        return Err(Refusal::WrongTask);
    }
    Ok(Transition { next, event: None, effects: vec![] })
}

/// It was counted when it began, and it has its place whatever came since.
fn task_resumed(session: &Session, task: TaskId, is_held: bool, now: i64) -> Stepped {
    let mut next = Session { last_used_ms: now, ..session.clone() };
    if !is_held {
        return Err(Refusal::Stale);
    }
    if !next.running.insert(task) {
        return Err(Refusal::WrongTask);
    }
    Ok(Transition { next, event: None, effects: vec![] })
}

fn task_ended(session: &Session, task: TaskId, now: i64) -> Stepped {
    let mut next = Session { last_used_ms: now, ..session.clone() };
    if !next.running.remove(&task) {
        return Err(Refusal::WrongTask);
    }
    Ok(Transition { next, event: None, effects: vec![] })
}
