//! What a worker's last event comes to.

use codegen_types::{ErrorCode, EventBody, Exit, Failure, OperationResult};

use super::EndingWhy;

/// The end of a task as the coordinator reports it: the worker's last event, unless the coordinator had a reason of its
/// own to end the task. `None` when the event answers another operation than the one of that name.
pub(super) fn of(last: EventBody, asked: &str, output_exceeded: bool, ending: Option<EndingWhy>) -> Option<EventBody> {
    if let EventBody::Finished(result) = &last
        && !answers(asked, result)
    {
        return None;
    }
    if output_exceeded {
        let failure = Failure::new(ErrorCode::OutputLimit, "the task wrote more output than it may and was ended");
        return Some(EventBody::Failed { failure, exit: exit_of(last) });
    }
    // A worker that ends a task only when it is told to calls it cancelled, whatever the reason was.
    match last {
        EventBody::Failed { failure, exit }
            if ending == Some(EndingWhy::Deadline) && failure.code == ErrorCode::TaskCancelled =>
        {
            let failure = Failure::new(ErrorCode::TaskTimeout, "the task ran longer than it may and was ended");
            Some(EventBody::Failed { failure, exit })
        }
        // A worker has no word for when; its places are given back as calls end.
        EventBody::Failed { failure, exit } if failure.code == ErrorCode::RateLimited => {
            Some(EventBody::Failed { failure: failure.retry_soon(), exit })
        }
        last => Some(last),
    }
}

fn answers(asked: &str, result: &OperationResult) -> bool {
    let answered = match result {
        OperationResult::Exec(_) => "exec",
        OperationResult::Read { .. } => "read",
        OperationResult::Write { .. } => "write",
        OperationResult::List { .. } => "list",
        OperationResult::Stat { .. } => "stat",
        OperationResult::Move { .. } => "move",
        OperationResult::Remove { .. } => "remove",
        OperationResult::Search(_) => "search",
        OperationResult::Edit(_) => "edit",
        OperationResult::Kernels { .. } => "kernels",
    };
    asked == answered
}

fn exit_of(last: EventBody) -> Option<Exit> {
    match last {
        EventBody::Finished(OperationResult::Exec(exit)) => Some(exit),
        EventBody::Failed { exit, .. } => exit,
        EventBody::Finished(_)
        | EventBody::Started
        | EventBody::Output { .. }
        | EventBody::Progress { .. }
        | EventBody::Display(_)
        | EventBody::FilesChanged(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use codegen_types::operation::Stat;
    use codegen_types::{Operation, WorkspacePath};

    use super::*;

    fn stat() -> &'static str {
        Operation::Stat(Stat { path: WorkspacePath::root() }).name()
    }

    fn failed(code: ErrorCode) -> EventBody {
        EventBody::Failed { failure: Failure::new(code, ""), exit: None }
    }

    fn code(body: Option<EventBody>) -> Option<ErrorCode> {
        match body? {
            EventBody::Failed { failure, .. } => Some(failure.code),
            _ => None,
        }
    }

    #[test]
    fn an_answer_to_another_operation_is_none() {
        let removed = EventBody::Finished(OperationResult::Remove { removed: 1 });
        assert_eq!(of(removed, stat(), false, None), None);
    }

    #[test]
    fn the_coordinators_own_reason_for_ending_a_task_is_what_is_reported() {
        let cancelled = || failed(ErrorCode::TaskCancelled);
        assert_eq!(code(of(cancelled(), stat(), false, Some(EndingWhy::Deadline))), Some(ErrorCode::TaskTimeout));
        assert_eq!(code(of(cancelled(), stat(), false, Some(EndingWhy::Cancelled))), Some(ErrorCode::TaskCancelled));
        assert_eq!(code(of(cancelled(), stat(), true, Some(EndingWhy::OutputLimit))), Some(ErrorCode::OutputLimit));
        let memory = failed(ErrorCode::MemoryLimit);
        assert_eq!(code(of(memory, stat(), false, Some(EndingWhy::Deadline))), Some(ErrorCode::MemoryLimit));
    }

    #[test]
    fn whoever_finds_no_place_on_a_worker_is_told_when_to_try_again() {
        let Some(EventBody::Failed { failure, .. }) = of(failed(ErrorCode::RateLimited), stat(), false, None) else {
            panic!("it failed");
        };
        assert_eq!(failure.retry_after_ms, Some(1_000));
    }
}
