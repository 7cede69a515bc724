//! How the end of a dispatch is understood: what the caller gets, what the store keeps, what the record says.

use codegen_audit::{Entry, EventKind, Outcome as Verdict};
use codegen_types::event::Edited;
use codegen_types::{ErrorCode, EventBody, Exit, Failure, OperationResult};
use coordinator_core::task::TaskInput;
use serde_json::{Value, json};

use super::call::Completed;
use crate::store::StoredOutcome;
use crate::workers::DispatchEnd;

/// What a dispatch came to, and what that means for the task.
pub(super) fn outcome_of(end: DispatchEnd, transcriptd: Completed) -> (StoredOutcome, TaskInput) {
    match end {
        DispatchEnd::Answered(EventBody::Finished(result)) => {
            let completed = Completed { result: Some(result), ..transcriptd };
            (StoredOutcome { result: Ok(completed), partial: None }, TaskInput::Finished)
        }
        DispatchEnd::Answered(EventBody::Failed { failure, exit }) => {
            let input = TaskInput::Failed { code: failure.code };
            let partial = Completed { result: exit.map(OperationResult::Exec), ..transcriptd };
            (StoredOutcome { result: Err(failure), partial: Some(partial) }, input)
        }
        DispatchEnd::NotStarted(failure) => {
            let input = TaskInput::Failed { code: failure.code };
            (StoredOutcome { result: Err(failure), partial: None }, input)
        }
        DispatchEnd::Unknown(failure) => {
            let failure = Failure::new(ErrorCode::TaskOutcomeUnknown, failure.message);
            (StoredOutcome { result: Err(failure), partial: Some(transcriptd) }, TaskInput::OutcomeLost)
        }
        DispatchEnd::Answered(other) => {
            tracing::error!(?other, "a dispatch ended with an event that is not the last");
            let failure = Failure::new(ErrorCode::TaskOutcomeUnknown, "the worker's last word was not understood");
            (StoredOutcome { result: Err(failure), partial: Some(transcriptd) }, TaskInput::OutcomeLost)
        }
    }
}

/// Says in the record how it ended.
pub(super) fn describe(entry: &mut Entry, outcome: &StoredOutcome, input: &TaskInput, written: u64) {
    let unknown = matches!(input, TaskInput::OutcomeLost);
    entry.kind = if unknown { EventKind::TaskUnknown } else { EventKind::TaskOutcome };
    entry.code = outcome.result.as_ref().err().map(|failure| failure.code);
    let result = match (&outcome.result, &outcome.partial) {
        (Ok(completed), _) | (Err(_), Some(completed)) => completed.result.as_ref(),
        (Err(_), None) => None,
    };
    entry.outcome = Some(match (&outcome.result, result) {
        _ if unknown => Verdict::Unknown,
        (Err(_), _) => Verdict::Failed,
        (Ok(_), Some(OperationResult::Exec(exit))) if exit.code != Some(0) => Verdict::Failed,
        (Ok(_), _) => Verdict::Ok,
    });
    entry.bytes = bytes_of(result).or((written > 0).then_some(written));
    entry.detail = result.and_then(detail_of);
}

const fn bytes_of(result: Option<&OperationResult>) -> Option<u64> {
    match result {
        Some(OperationResult::Read { contents, .. }) => Some(contents.len() as u64),
        Some(OperationResult::Write { stat, .. } | OperationResult::Edit(Edited { stat, .. })) => Some(stat.size),
        Some(
            OperationResult::Exec(_)
            | OperationResult::List { .. }
            | OperationResult::Stat { .. }
            | OperationResult::Move { .. }
            | OperationResult::Remove { .. }
            | OperationResult::Search(_)
            | OperationResult::Kernels { .. },
        )
        | None => None,
    }
}

fn detail_of(result: &OperationResult) -> Option<Value> {
    let OperationResult::Exec(Exit { code, signal, used, files_changed, leftovers_killed, hosts, packages, .. }) =
        result
    else {
        return None;
    };
    let mut detail = json!({
        "exit_code": code,
        "signal": signal,
        "cpu_ms": used.cpu_ms,
        "memory_peak_bytes": used.memory_peak_bytes,
        "files_changed": files_changed.len(),
        "leftovers_killed": leftovers_killed,
    });
    if let Value::Object(detail) = &mut detail {
        if !packages.is_empty() {
            let named = packages.iter().map(|package| format!("{} {}", package.name, package.version));
            detail.insert("packages".to_owned(), named.collect());
        }
        if !hosts.is_empty() {
            detail.insert("hosts".to_owned(), json!(hosts));
        }
    }
    Some(detail)
}
