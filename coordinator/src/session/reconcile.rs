//! At start: the log is the truth, and the store is brought up to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use codegen_audit::{Audit, AuditUnavailable, Entry, EventKind, Outcome as Verdict, ReadError, Record, records};
use codegen_types::{ErrorCode, Failure, LogSeq, SessionId, TaskId};
use coordinator_core::session::SessionState;
use coordinator_core::task::{TaskInput, TaskState};
use serde_json::Value;

use super::now_ms;
use super::outcome::{Traffic, describe};
use super::receipt::{Charge, Receipt};
use super::record::key_of;
use super::repeat::DIGEST_LOST;
use crate::store::{Progress, SessionRow, SessionStore, StoreError, StoredOutcome, TaskRow, TaskStore};

/// Why the store could not be brought up to the log.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The log cannot be read.
    #[error("the audit log cannot be read")]
    Read(#[from] ReadError),
    /// The log cannot be written.
    #[error("the audit log cannot be written")]
    Write(#[from] AuditUnavailable),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// Reading the log panicked.
    #[error("reading the audit log was cut off")]
    CutOff,
}

/// What the log says beyond what was reconciled before.
#[derive(Default)]
struct Tail {
    /// The last word on each session.
    sessions: BTreeMap<SessionId, Vec<Record>>,
    /// Attempts that no record closes.
    open: BTreeMap<TaskId, Record>,
    /// The closing records of tasks that the store does not know to have ended, or may not know at all.
    closed: BTreeMap<TaskId, Record>,
    /// Attempts under idempotency keys.
    keyed: BTreeMap<TaskId, Record>,
    /// What the tasks of each session used, those before included.
    receipts: BTreeMap<SessionId, Receipt>,
    last: LogSeq,
    log_id: Option<String>,
}

impl Tail {
    fn attempted(&mut self, task: TaskId, record: Record, keys_since_ms: i64) {
        if record.ts.as_millisecond() >= keys_since_ms && key_of(&record).is_some() {
            self.keyed.insert(task, record.clone());
        }
        // A task that is placed again is open again.
        self.closed.remove(&task);
        self.open.insert(task, record);
    }

    fn charge(&mut self, record: &Record) {
        let (Some(session), Some(charge)) = (record.session, Charge::of(record.outcome, record.detail.as_ref())) else {
            return;
        };
        let receipt = self.receipts.entry(session).or_default();
        if record.seq > receipt.through {
            receipt.add(&charge);
        }
    }

    fn close(&mut self, task: TaskId, record: Record, unfinished: &[TaskId]) {
        // A task that was placed again has an attempt that is newer than the record that closes the first.
        let is_its = |attempt: &Record| record.cites.is_none_or(|cited| cited == attempt.seq);
        if self.open.get(&task).is_some_and(is_its) {
            self.open.remove(&task);
            if unfinished.contains(&task) || self.keyed.contains_key(&task) {
                self.closed.insert(task, record);
            }
        }
    }
}

/// Reconciles, and gives every session there is.
pub(super) async fn run(
    audit: &Audit,
    audit_dir: Option<PathBuf>,
    sessions: &dyn SessionStore,
    tasks: &dyn TaskStore,
    outcome_retention: Duration,
) -> Result<Vec<SessionRow>, ReconcileError> {
    let mut rows: BTreeMap<SessionId, SessionRow> =
        sessions.sessions().await?.into_iter().map(|row| (row.id, row)).collect();
    let Some(dir) = audit_dir else {
        close_tasks(audit, tasks, BTreeMap::new(), BTreeMap::new()).await?;
        return Ok(rows.into_values().collect());
    };
    let progress = sessions.progress().await?;
    let unfinished: Vec<TaskId> = tasks.unfinished_tasks().await?.iter().map(|row| row.id).collect();
    let keys_since_ms = now_ms().saturating_sub(i64::try_from(outcome_retention.as_millis()).unwrap_or(i64::MAX));
    let receipts = rows.iter().map(|(id, row)| (*id, row.receipt.clone())).collect();
    let reading = tokio::task::spawn_blocking(move || read_tail(&dir, &progress, &unfinished, keys_since_ms, receipts));
    let tail = reading.await.map_err(|_| ReconcileError::CutOff)??;
    for (session, records) in tail.sessions {
        let row = rows.remove(&session);
        let stored = row.as_ref().map(|row| row.revision);
        match (caught_up(row, &records), stored) {
            (Some(row), _) => drop(rows.insert(session, put(sessions, row).await?)),
            // Its end is on record, and it was to be forgotten when the server ended.
            (None, Some(revision)) => sessions.remove_session(session, revision).await?,
            (None, None) => {}
        }
    }
    for (session, receipt) in tail.receipts {
        if let Some(row) = rows.remove(&session) {
            let row = if receipt.tasks == row.receipt.tasks {
                row
            } else {
                put(sessions, SessionRow { receipt: Receipt { through: tail.last, ..receipt }, ..row }).await?
            };
            rows.insert(session, row);
        }
    }
    bring_back_keys(tasks, tail.keyed).await?;
    close_tasks(audit, tasks, tail.open, tail.closed).await?;
    if let Some(log_id) = tail.log_id {
        sessions.settle(log_id, tail.last).await?;
    }
    Ok(rows.into_values().collect())
}

/// Makes the rows of calls under idempotency keys again that the store has lost, so that none of them is run again.
async fn bring_back_keys(tasks: &dyn TaskStore, keyed: BTreeMap<TaskId, Record>) -> Result<(), StoreError> {
    for (task, attempt) in keyed {
        if tasks.task(task).await?.is_some() {
            continue;
        }
        let Some(row) = lost_row(task, attempt) else { continue };
        match tasks.insert_task(row).await {
            // A later call under the key came after this one was given up.
            Ok(()) | Err(StoreError::Exists) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The row of a task as it was before it was dispatched, but for what the log does not have.
fn lost_row(id: TaskId, attempt: Record) -> Option<TaskRow> {
    Some(TaskRow {
        id,
        session: attempt.session?,
        key: key_of(&attempt),
        principal: attempt.principal?,
        tool: attempt.tool?,
        digest: DIGEST_LOST,
        state: TaskState::admitted().step(&TaskInput::Dispatch { lease: attempt.lease? }).ok()?,
        attempt: attempt.seq,
        outcome_seq: None,
        begun_ms: attempt.ts.as_millisecond(),
        ended_ms: None,
        outcome: None,
        revision: 1,
    })
}

fn read_tail(
    dir: &Path,
    progress: &Progress,
    unfinished: &[TaskId],
    keys_since_ms: i64,
    receipts: BTreeMap<SessionId, Receipt>,
) -> Result<Tail, ReadError> {
    let mut tail = Tail { receipts, ..Tail::default() };
    let from = progress.log_id.is_some().then_some(progress.settled_before);
    for record in records(dir, from) {
        let record = record?;
        if progress.log_id.as_ref().is_some_and(|known| *known != record.log_id) {
            // Another log was put in the place of the one that the store knows: all of it counts.
            tail.receipts.values_mut().for_each(|receipt| receipt.through = LogSeq(0));
            return read_tail(dir, &Progress::default(), unfinished, keys_since_ms, tail.receipts);
        }
        (tail.last, tail.log_id) = (record.seq, Some(record.log_id.clone()));
        match (record.kind, record.session, record.task) {
            (EventKind::TaskAttempt, _, Some(task)) => tail.attempted(task, record, keys_since_ms),
            (EventKind::TaskOutcome | EventKind::TaskUnknown, _, Some(task)) => {
                tail.charge(&record);
                tail.close(task, record, unfinished);
            }
            // What was withdrawn was never acted upon.
            (EventKind::LogWithdrawn, _, _) => {
                tail.open.retain(|_, attempt| Some(attempt.seq) != record.cites);
                tail.keyed.retain(|_, attempt| Some(attempt.seq) != record.cites);
                tail.sessions.values_mut().for_each(|records| records.retain(|r| Some(r.seq) != record.cites));
            }
            (kind, Some(session), None) if is_of_session(kind) => {
                tail.sessions.entry(session).or_default().push(record);
            }
            _ => {}
        }
    }
    Ok(tail)
}

const fn is_of_session(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::SessionCreated
            | EventKind::SessionOpening
            | EventKind::SessionOpened
            | EventKind::SessionSuspended
            | EventKind::SessionLost
            | EventKind::SessionUpdated
            | EventKind::SessionClosing
            | EventKind::SessionClosed
            | EventKind::SessionExpired
    )
}

/// The row as the log has it: what it says after the row was written last, applied in order.
fn caught_up(row: Option<SessionRow>, records: &[Record]) -> Option<SessionRow> {
    let mut row = row;
    for record in records {
        if row.as_ref().is_some_and(|row| row.audit_seq >= record.seq) {
            continue;
        }
        if record.kind == EventKind::SessionExpired {
            return None;
        }
        row = match row {
            None => rebuilt(record),
            Some(row) => Some(applied(row, record)),
        };
    }
    row
}

fn rebuilt(record: &Record) -> Option<SessionRow> {
    if record.kind != EventKind::SessionCreated {
        return None;
    }
    let created_ms = record.ts.as_millisecond();
    let row = SessionRow {
        id: record.session?,
        principal: record.principal.clone()?,
        name: None,
        metadata: BTreeMap::new(),
        ttl_ms: 0,
        created_ms,
        last_used_ms: created_ms,
        isolation: None,
        tasks: 0,
        workspace_bytes: None,
        receipt: Receipt::default(),
        state: state_of(record)?,
        revision: 0,
        audit_seq: record.seq,
    };
    Some(applied(row, record))
}

fn applied(mut row: SessionRow, record: &Record) -> SessionRow {
    if let Some(state) = state_of(record) {
        row.state = state;
    }
    if let Some(Value::Object(description)) = &record.args {
        row.name = description.get("name").and_then(Value::as_str).map(str::to_owned);
        if let Some(Value::Object(metadata)) = description.get("metadata") {
            row.metadata = metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        row.ttl_ms = description.get("ttl_ms").and_then(Value::as_u64).unwrap_or(row.ttl_ms);
    }
    row.last_used_ms = row.last_used_ms.max(record.ts.as_millisecond());
    row.audit_seq = record.seq;
    row
}

fn state_of(record: &Record) -> Option<SessionState> {
    serde_json::from_value(record.detail.as_ref()?.get("state")?.clone()).ok()
}

async fn put(sessions: &dyn SessionStore, row: SessionRow) -> Result<SessionRow, StoreError> {
    let row = SessionRow { revision: row.revision + 1, ..row };
    match row.revision {
        1 => sessions.insert_session(row.clone()).await?,
        _ => sessions.put_session(row.clone()).await?,
    }
    Ok(row)
}

/// Closes every task that the last server left open.
async fn close_tasks(
    audit: &Audit,
    tasks: &dyn TaskStore,
    mut open: BTreeMap<TaskId, Record>,
    mut closed: BTreeMap<TaskId, Record>,
) -> Result<(), ReconcileError> {
    for row in tasks.unfinished_tasks().await? {
        let attempt = open.remove(&row.id);
        let (state, code, seq) = match closed.remove(&row.id) {
            Some(record) => (state_after(&row.state, &record), record.code, record.seq),
            None => {
                let seq = audit.append(unknown(row.session, row.id, attempt.as_ref(), row.attempt)).await?;
                (TaskState::Unknown, Some(ErrorCode::TaskOutcomeUnknown), seq)
            }
        };
        let text = format!("the server ended before the result of {} was kept; it is not run again", row.id);
        let failure = Failure::new(code.unwrap_or(ErrorCode::TaskOutcomeUnknown), text);
        let outcome = Some(StoredOutcome { result: Err(failure), partial: None });
        let revision = row.revision + 1;
        tasks
            .put_task(TaskRow { state, outcome, ended_ms: Some(now_ms()), revision, outcome_seq: Some(seq), ..row })
            .await?;
    }
    for (task, attempt) in open {
        let Some(session) = attempt.session else { continue };
        let entry = unknown(session, task, Some(&attempt), attempt.seq);
        match tasks.task(task).await? {
            Some(row) => record_late(audit, tasks, row, entry).await?,
            None => drop(audit.append(entry).await?),
        }
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
        TaskState::Queued { .. } | TaskState::Dispatched { .. } | TaskState::Running { .. } | TaskState::Unknown => {
            TaskInput::OutcomeLost
        }
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
    state.step(&input).unwrap_or(TaskState::Unknown)
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
