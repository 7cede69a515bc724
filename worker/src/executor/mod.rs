//! Carrying out one task, from its start to its last event.

mod changes;
mod displays;
mod ending;
mod output;
mod program;
mod reading;
mod spool;
pub(crate) mod stdio;
mod subject;

use std::sync::Arc;

use codegen_proto::ExecuteTask;
use codegen_types::{ErrorCode, EventBody, Exec, Failure, Operation, OperationResult};
use futures::future::BoxFuture;

use crate::files;
use crate::session::{Place, Session, Turn};
use crate::tasks::{Gate, Task, Tasks};
use program::{Clock, stopped};

/// Carries out a task as far as its gate lets it; gives its last event. Before that nothing that its programs could see is
/// changed, and this may be dropped. Kernels take calls in the order in which this is called.
pub(crate) fn carry_out(
    task: Arc<Task>,
    session: Arc<Session>,
    request: ExecuteTask,
    gate: Gate,
) -> BoxFuture<'static, EventBody> {
    let place = match &request.operation {
        Operation::Exec(Exec { kernel: Some(name), .. }) => Some(session.kernels().queue(name)),
        _ => None,
    };
    Box::pin(async move { perform(&task, &session, request, place, &gate).await })
}

/// Runs a task that was admitted. Its last event comes in any case.
pub(crate) async fn run(tasks: Arc<Tasks>, task: Arc<Task>, carried_out: impl Future<Output = EventBody>) {
    let end = EndGuard { tasks: &tasks, task: &task };
    let last = carried_out.await;
    task.push(last);
    drop(end);
}

async fn perform(
    task: &Arc<Task>,
    session: &Arc<Session>,
    request: ExecuteTask,
    place: Option<Result<Place, Failure>>,
    gate: &Gate,
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
        () = heed(turn.as_mut()) => Err(Failure::new(ErrorCode::Internal, "A kernel's turn ended by itself.")),
    };
    let _slot = match slot {
        Ok(slot) => slot,
        Err(failure) => return EventBody::Failed { failure, exit: None },
    };
    let clock = clock.after_waiting();
    let operation = match request.operation {
        Operation::Exec(exec) => return program::run(task, session, exec, turn, clock, gate).await,
        operation => operation,
    };
    gate.pass().await;
    task.begin();
    match operation {
        Operation::Kernels(asked) => last_event(session.kernels().perform(&asked).await),
        Operation::Search(_) => tokio::select! {
            result = files::perform(session.workspace(), operation) => last_event(result),
            ending = stopped(task, clock) => ending.failed(None),
        },
        Operation::Read(read) => last_event(reading::read(task, session, read, clock).await),
        operation => last_event(files::perform(session.workspace(), operation).await),
    }
}

/// Lets a kernel be restarted while the call that has it waits; never ends.
async fn heed(turn: Option<&mut Turn>) {
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
