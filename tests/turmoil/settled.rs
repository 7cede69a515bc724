//! What must be so when there has been peace for long enough.

use std::time::Duration;

use codegen_types::{ErrorCode, OperationResult};
use coordinator::session::{Completed, Sessions, TaskPhase};

use crate::clients::ann;
use crate::ground::{Call, Ground, Told, output_of};

/// Waits until it is time, and looks at everything.
pub async fn when_asked(ground: &Ground, sessions: &Sessions) {
    while !ground.with(|truth| truth.must_settle) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let calls = ground.with(|truth| truth.calls.clone());
    for (number, call) in calls {
        let starts = ground.with(|truth| truth.starts.get(&number).copied().unwrap_or_default());
        if let Err(broken) = check(sessions, number, &call, starts).await {
            ground.with(|truth| truth.settled = Some(Err(format!("program {number}: {broken}"))));
            return;
        }
    }
    ground.with(|truth| truth.settled = Some(Ok(())));
}

/// Whether what is known of a call in the end agrees with what happened, and with what was told of it.
async fn check(sessions: &Sessions, number: u64, call: &Call, starts: u32) -> Result<(), String> {
    let mut may_have_run = false;
    for (task, told) in &call.attempts {
        let seen = match sessions.task(&ann(), *task).await {
            Ok(seen) => seen,
            Err(failure) if failure.code != ErrorCode::NotFound => return Err(format!("{task}: {failure}")),
            // A call that never got so far, or joined another.
            Err(_) if matches!(told, Some(Told::Result(_))) => return Err(format!("{task} was told and is lost")),
            Err(_) => continue,
        };
        let result = seen.outcome.as_ref().and_then(|outcome| outcome.result.as_ref().ok());
        let output = result.map(|completed| completed.stdout.head.clone());
        let is_lost = result.is_some_and(says_that_its_output_is_lost);
        match seen.info.phase {
            TaskPhase::Running => return Err(format!("{task} is still running")),
            TaskPhase::Finished if starts != 1 => return Err(format!("{task} finished after {starts} starts")),
            TaskPhase::Finished if !is_lost && output.as_ref().is_some_and(|output| *output != output_of(number)) => {
                return Err(format!("{task} has a result that is not its own"));
            }
            TaskPhase::Finished | TaskPhase::Unknown => may_have_run = true,
            TaskPhase::Failed(code) => may_have_run |= !was_not_run(code),
        }
        if matches!(told, Some(Told::Result(told)) if !is_lost && output.as_ref() != Some(told)) {
            return Err(format!("the result of {task} was told and is not the same any more: {:?}", seen.info.phase));
        }
    }
    if starts > 0 && !may_have_run {
        return Err(format!("it was started, and is said not to have been: {call:?}"));
    }
    Ok(())
}

/// Whether a program's end is known by its record alone, since its server was killed before the result was kept.
pub fn says_that_its_output_is_lost(completed: &Completed) -> bool {
    let Some(OperationResult::Exec(exit)) = &completed.result else { return false };
    completed.stdout.head.is_empty() && exit.notes.iter().any(|note| note.contains("output is lost"))
}

/// Codes by which a caller knows that nothing was run.
const fn was_not_run(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NoCapacity
            | ErrorCode::WorkerUnavailable
            | ErrorCode::SessionNotFound
            | ErrorCode::SessionClosed
            | ErrorCode::SessionLost
    )
}
