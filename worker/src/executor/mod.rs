//! Carrying out one task, from its start to its last event.

mod changes;
mod displays;
mod ending;
mod output;
mod program;
mod reading;
mod ready;
mod spool;
pub(crate) mod stdio;
mod subject;

use std::sync::Arc;

use codegen_proto::ExecuteTask;
use codegen_types::{ErrorCode, EventBody, Exec, Failure, Operation, OperationResult};

use crate::files;
use crate::session::{Place, Session, Turn};
use crate::tasks::{Task, Tasks};
use program::{Clock, stopped};
pub(crate) use ready::Ready;

/// A task that was just admitted, with its place in the queue for its kernel when it calls one: kernels take calls in the
/// order in which they are admitted.
pub(crate) struct Admission {
    pub task: Arc<Task>,
    pub session: Arc<Session>,
    pub request: ExecuteTask,
    /// What was done ahead for it. What was seen then is too old for a task that waits for others.
    ready: Option<Ready>,
    place: Option<Result<Place, Failure>>,
}

impl Admission {
    pub fn of(task: Arc<Task>, session: Arc<Session>, request: ExecuteTask, ready: Option<Ready>) -> Self {
        let place = match &request.operation {
            Operation::Exec(Exec { kernel: Some(name), .. }) => Some(session.kernels().queue(name)),
            _ => None,
        };
        let queued = place.as_ref().is_some_and(|place| place.as_ref().is_ok_and(Place::is_queued));
        Self { task, session, request, ready: ready.filter(|_| !queued), place }
    }
}

/// Runs a task. Its last event comes in any case.
pub(crate) async fn run(tasks: Arc<Tasks>, admission: Admission) {
    let Admission { task, session, request, ready, place } = admission;
    let end = EndGuard { tasks: &tasks, task: &task };
    let last = perform(&task, &session, request, ready, place).await;
    task.push(last);
    drop(end);
}

async fn perform(
    task: &Arc<Task>,
    session: &Arc<Session>,
    request: ExecuteTask,
    mut ready: Option<Ready>,
    place: Option<Result<Place, Failure>>,
) -> EventBody {
    let clock = Clock::start(request.timeout.min(session.task_time_max()));
    // A call waits for its kernel before it takes one of the session's slots, so that a queue holds up nobody else.
    let mut turn = match place {
        Some(Ok(place)) => {
            let awaited = format!("earlier calls on kernel `{}`", place.name());
            tokio::select! {
                turn = place.turn() => Some(turn),
                ending = stopped(task, clock) => return ending.before_it_ran(&awaited),
            }
        }
        Some(Err(failure)) => return EventBody::Failed { failure, exit: None },
        None => None,
    };
    let slot = async {
        match &request.operation {
            Operation::Exec(_) => session.program_slot().await.map(Some),
            // Kernels are looked after whatever runs, above all when it is they.
            Operation::Kernels(_) => Ok(None),
            Operation::Read(_)
            | Operation::Write(_)
            | Operation::List(_)
            | Operation::Stat(_)
            | Operation::Move(_)
            | Operation::Remove(_)
            | Operation::Search(_)
            | Operation::Edit(_) => session.files_slot().await.map(Some),
        }
    };
    let slot = tokio::select! {
        biased;
        ending = stopped(task, clock) => return ending.before_it_ran("other tasks of its session"),
        slot = slot => slot,
        () = wait_on(turn.as_mut(), &mut ready) => Err(Failure::new(ErrorCode::Internal, "A kernel's turn ended by itself.")),
    };
    let _slot = match slot {
        Ok(slot) => slot,
        Err(failure) => return EventBody::Failed { failure, exit: None },
    };
    let clock = clock.after_waiting();
    task.push(EventBody::Started);
    match request.operation {
        Operation::Exec(exec) => program::run(task, session, exec, turn, ready, clock).await,
        Operation::Kernels(asked) => last_event(session.kernels().perform(&asked).await),
        Operation::Search(_) => tokio::select! {
            result = files::perform(session.workspace(), request.operation) => last_event(result),
            ending = stopped(task, clock) => ending.failed(None),
        },
        Operation::Read(read) => last_event(reading::read(task, session, read, clock).await),
        operation => last_event(files::perform(session.workspace(), operation).await),
    }
}

/// Lets a kernel be restarted while the call that has it waits, and drops what is too old then; never ends.
async fn wait_on(turn: Option<&mut Turn>, ready: &mut Option<Ready>) {
    *ready = None;
    if let Some(turn) = turn {
        turn.restarted().await;
        turn.obey();
    }
    std::future::pending().await
}

fn last_event(result: Result<OperationResult, Failure>) -> EventBody {
    match result {
        Ok(result) => EventBody::Finished(result),
        Err(failure) => EventBody::Failed { failure, exit: None },
    }
}

/// Ends a task also when carrying it out panicked, so that no reader waits for ever.
struct EndGuard<'a> {
    tasks: &'a Tasks,
    task: &'a Task,
}

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        if !self.task.log.has_ended() {
            tracing::error!(task = %self.task.id, "a task ended without a result");
            let message = "The worker failed while it carried this out; whether it took effect is not known.";
            let failure = Failure::new(ErrorCode::Internal, message);
            self.task.push(EventBody::Failed { failure, exit: None });
        }
        self.tasks.ended(self.task);
    }
}
