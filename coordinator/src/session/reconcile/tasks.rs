//! Tasks that the last server left open, and those that the store has lost.

use std::collections::BTreeMap;

use codegen_audit::{Audit, Entry, EventKind, Outcome as Verdict, Record};
use codegen_types::{ErrorCode, LogSeq, SessionId, TaskId};
use coordinator_core::task::{TaskInput, TaskState};

use super::ReconcileError;
use super::ended::told_by;
use crate::session::now_ms;
use crate::session::outcome::{Traffic, describe};
use crate::session::recovery::{LEFT_MAX, Left};
use crate::store::{StoreError, TaskRow, TaskStore};

/// Makes rows again that the store has lost. No call under an idempotency key is then run again, and of other tasks that
/// acted it can be told how they ended; what they wrote is lost.
pub(super) async fn bring_back(
    tasks: &dyn TaskStore,
    rows: impl IntoIterator<Item = TaskRow>,
) -> Result<(), StoreError> {
    for row in rows {
        if tasks.task(row.id).await?.is_some() {
            continue;
        }
        match tasks.insert_task(row).await {
            // A later call under the key came after this one was given up.
            Ok(()) | Err(StoreError::Exists) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Closes every task that the last server left open, but for those that their workers may have gone on with.
pub(super) async fn close_tasks(
    audit: &Audit,
    tasks: &dyn TaskStore,
    mut open: BTreeMap<TaskId, Record>,
    mut closed: BTreeMap<TaskId, Record>,
) -> Result<Vec<Left>, ReconcileError> {
    let mut left = Vec::new();
    for row in tasks.unfinished_tasks().await? {
        let attempt = open.remove(&row.id);
        if let Some(attempt) = attempt.as_ref().filter(|_| left.len() < LEFT_MAX)
            && let Some(task) = Left::of(attempt, Some(row.clone())).filter(Left::may_run)
        {
            left.push(task);
            continue;
        }
        let record = closed.remove(&row.id);
        let (state, seq, ended_ms) = match &record {
            Some(record) => (state_after(&row.state, record), record.seq, record.ts.as_millisecond()),
            None => {
                let seq = audit.append(unknown(row.session, row.id, attempt.as_ref(), row.attempt)).await?;
                let state = row.state.step(&TaskInput::ServerStarted).unwrap_or(TaskState::Unknown { lease: None });
                (state, seq, now_ms())
            }
        };
        let outcome = Some(told_by(row.id, record.as_ref()));
        let revision = row.revision + 1;
        tasks
            .put_task(TaskRow { state, outcome, ended_ms: Some(ended_ms), revision, outcome_seq: Some(seq), ..row })
            .await?;
    }
    for (task, attempt) in open {
        let Some(session) = attempt.session else { continue };
        let entry = unknown(session, task, Some(&attempt), attempt.seq);
        match tasks.task(task).await? {
            Some(row) => record_late(audit, tasks, row, entry).await?,
            None => match Left::of(&attempt, None).filter(|task| left.len() < LEFT_MAX && task.may_run()) {
                Some(task) => left.push(task),
                None => drop(audit.append(entry).await?),
            },
        }
    }
    Ok(left)
}

/// Lets the store know of late results that the log has. What the tasks wrote is lost with the server.
pub(super) async fn settle_resolved(
    tasks: &dyn TaskStore,
    resolved: BTreeMap<TaskId, Record>,
) -> Result<(), StoreError> {
    for (task, record) in resolved {
        let Some(row) = tasks.task(task).await? else { continue };
        let Ok(state) = row.state.step(&TaskInput::Resolved { code: record.code }) else { continue };
        let outcome = Some(told_by(task, Some(&record)));
        let revision = row.revision + 1;
        tasks.put_task(TaskRow { state, outcome, outcome_seq: Some(record.seq), revision, ..row }).await?;
    }
    Ok(())
}

/// Records how a task ended whose outcome was kept, while the log could not be written until the server ended.
async fn record_late(
    audit: &Audit,
    tasks: &dyn TaskStore,
    row: TaskRow,
    mut entry: Entry,
) -> Result<(), ReconcileError> {
    let input = match &row.state {
        TaskState::Finished => TaskInput::Finished,
        TaskState::Failed { code } => TaskInput::Failed { code: *code },
        TaskState::Queued { .. }
        | TaskState::Dispatched { .. }
        | TaskState::Running { .. }
        | TaskState::Unknown { .. } => TaskInput::OutcomeLost,
    };
    if let Some(outcome) = &row.outcome {
        let traffic = Traffic { written: outcome.bytes(), ..Traffic::default() };
        describe(&mut entry, outcome, &input, traffic);
    }
    let seq = audit.append(entry).await?;
    tasks.put_task(TaskRow { outcome_seq: Some(seq), revision: row.revision + 1, ..row }).await?;
    Ok(())
}

fn state_after(state: &TaskState, record: &Record) -> TaskState {
    let input = match (record.outcome, record.code) {
        (Some(Verdict::Ok), _) | (_, None) => TaskInput::Finished,
        (Some(Verdict::Unknown), _) => TaskInput::OutcomeLost,
        (_, Some(code)) => TaskInput::Failed { code },
    };
    state.step(&input).unwrap_or(TaskState::Unknown { lease: None })
}

fn unknown(session: SessionId, task: TaskId, attempt: Option<&Record>, cites: LogSeq) -> Entry {
    Entry {
        kind: EventKind::TaskUnknown,
        principal: attempt.and_then(|attempt| attempt.principal.clone()),
        session: Some(session),
        task: Some(task),
        lease: attempt.and_then(|attempt| attempt.lease.clone()),
        level: attempt.and_then(|attempt| attempt.level),
        tool: attempt.and_then(|attempt| attempt.tool.clone()),
        outcome: Some(Verdict::Unknown),
        code: Some(ErrorCode::TaskOutcomeUnknown),
        cites: Some(attempt.map_or(cites, |attempt| attempt.seq)),
        ..Entry::default()
    }
}
