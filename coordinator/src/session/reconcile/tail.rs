//! What the log says beyond what was reconciled before.

use std::collections::BTreeMap;
use std::path::Path;

use codegen_audit::{EventKind, ReadError, Record, records};
use codegen_types::{LogSeq, SessionId, TaskId};
use coordinator_core::task::{TaskInput, TaskState};

use super::lost::Known;
use crate::session::receipt::{Charge, Receipt};
use crate::session::record::{is_read_only, key_of};
use crate::session::repeat::DIGEST_LOST;
use crate::store::{Progress, TaskRow};

/// How many tasks without an idempotency key come back that the store does not have.
const ACTED_MAX: usize = 1_000;

/// What the log says beyond what was reconciled before.
#[derive(Default)]
pub(super) struct Tail {
    /// The last word on each session.
    pub(super) sessions: BTreeMap<SessionId, Vec<Record>>,
    /// Attempts that no record closes.
    pub(super) open: BTreeMap<TaskId, Record>,
    /// The closing records of tasks that the store does not know to have ended, or may not know at all.
    pub(super) closed: BTreeMap<TaskId, Record>,
    /// Rows of calls under idempotency keys, as they were before their tasks were dispatched.
    pub(super) keyed: BTreeMap<TaskId, TaskRow>,
    /// The same of other calls that acted, the newest of them. The store may have lost them, or not have had them yet.
    pub(super) acted: BTreeMap<TaskId, TaskRow>,
    /// What the tasks of each session used, those before included.
    pub(super) receipts: BTreeMap<SessionId, Receipt>,
    /// Late results of tasks that had been given up.
    pub(super) resolved: BTreeMap<TaskId, Record>,
    pub(super) last: LogSeq,
    pub(super) log_id: Option<String>,
    /// The first place where the log has not the record that the store knows of.
    pub(super) lost_from: Option<LogSeq>,
}

/// What is looked for.
#[derive(Clone)]
pub(super) struct Seek {
    /// Tasks of which the store does not know the end.
    pub(super) unfinished: Vec<TaskId>,
    /// Outcomes are kept of calls since then, in milliseconds since the Unix epoch.
    pub(super) since_ms: i64,
    /// What must be in its place.
    pub(super) known: Known,
}

impl Tail {
    /// Compares a record with what the store knows to be in its place.
    fn compare(&mut self, record: &Record, seek: &Seek) {
        if seek.known.contradicts(record) {
            self.lost_from.get_or_insert(record.seq);
        }
    }

    fn attempted(&mut self, task: TaskId, record: Record, seek: &Seek) {
        if record.ts.as_millisecond() >= seek.since_ms {
            self.remember(task, &record, seek);
        }
        // A task that is placed again is open again.
        self.closed.remove(&task);
        self.open.insert(task, record);
    }

    fn remember(&mut self, task: TaskId, attempt: &Record, seek: &Seek) {
        let Some(row) = lost_row(task, attempt) else { return };
        if row.key.is_some() {
            self.keyed.insert(task, row);
        } else if !is_read_only(attempt) {
            self.acted.insert(task, row);
            if self.acted.len() > ACTED_MAX
                && let Some((oldest, _)) = self.acted.pop_first()
                && !seek.unfinished.contains(&oldest)
            {
                self.closed.remove(&oldest);
            }
        }
    }

    fn charge(&mut self, record: &Record) {
        let (Some(session), Some(charge)) = (record.session, Charge::of(record.outcome, record.detail.as_ref())) else {
            return;
        };
        let receipt = self.receipts.entry(session).or_default();
        if record.seq > receipt.through {
            match record.kind {
                EventKind::TaskResolved | EventKind::SessionNetwork => receipt.add_late(&charge),
                _ => receipt.add(&charge),
            }
        }
    }

    fn close(&mut self, task: TaskId, record: Record, seek: &Seek) {
        // A task that was placed again has an attempt that is newer than the record that closes the first.
        let is_its = |attempt: &Record| record.cites.is_none_or(|cited| cited == attempt.seq);
        if self.open.get(&task).is_some_and(is_its) {
            self.open.remove(&task);
            let has_row = self.keyed.contains_key(&task) || self.acted.contains_key(&task);
            if has_row || seek.unfinished.contains(&task) {
                self.closed.insert(task, record);
            }
        }
    }
}

pub(super) fn read_tail(
    dir: &Path,
    progress: &Progress,
    seek: &Seek,
    receipts: BTreeMap<SessionId, Receipt>,
) -> Result<Tail, ReadError> {
    let mut tail = Tail { receipts, ..Tail::default() };
    let from = progress.log_id.is_some().then_some(progress.settled_before);
    for record in records(dir, from) {
        let record = record?;
        if progress.log_id.as_ref().is_some_and(|known| *known != record.log_id) {
            // Another log was put in the place of the one that the store knows: all of it counts.
            tail.receipts.values_mut().for_each(|receipt| receipt.through = LogSeq(0));
            let seek = Seek { known: Known::default(), ..seek.clone() };
            return read_tail(dir, &Progress::default(), &seek, tail.receipts);
        }
        tail.compare(&record, seek);
        (tail.last, tail.log_id) = (record.seq, Some(record.log_id.clone()));
        match (record.kind, record.session, record.task) {
            (EventKind::TaskAttempt, _, Some(task)) => tail.attempted(task, record, seek),
            (EventKind::TaskOutcome | EventKind::TaskUnknown, _, Some(task)) => {
                tail.charge(&record);
                tail.close(task, record, seek);
            }
            (EventKind::TaskResolved, _, Some(task)) => {
                tail.charge(&record);
                tail.resolved.insert(task, record);
            }
            // What was withdrawn was never acted upon.
            (EventKind::LogWithdrawn, _, _) => {
                tail.open.retain(|_, attempt| Some(attempt.seq) != record.cites);
                tail.keyed.retain(|_, row| Some(row.attempt) != record.cites);
                tail.acted.retain(|_, row| Some(row.attempt) != record.cites);
                tail.sessions.values_mut().for_each(|records| records.retain(|r| Some(r.seq) != record.cites));
            }
            (EventKind::SessionNetwork, Some(_), None) => tail.charge(&record),
            (kind, Some(session), None) if is_of_session(kind) => {
                tail.sessions.entry(session).or_default().push(record);
            }
            _ => {}
        }
    }
    if from.is_some_and(|from| tail.last < from) {
        // Not even what was reconciled before is there.
        tail = read_tail(dir, &Progress::default(), seek, tail.receipts)?;
        tail.lost_from.get_or_insert(LogSeq(tail.last.0 + 1));
    }
    if seek.known.last() > tail.last {
        tail.lost_from.get_or_insert(LogSeq(tail.last.0 + 1));
    }
    Ok(tail)
}

/// The row of a task as it was before it was dispatched, but for what the log does not have.
fn lost_row(id: TaskId, attempt: &Record) -> Option<TaskRow> {
    Some(TaskRow {
        id,
        session: attempt.session?,
        key: key_of(attempt),
        principal: attempt.principal.clone()?,
        tool: attempt.tool.clone()?,
        digest: DIGEST_LOST,
        state: TaskState::admitted().step(&TaskInput::Dispatch { lease: attempt.lease.clone()? }).ok()?,
        attempt: attempt.seq,
        outcome_seq: None,
        begun_ms: attempt.ts.as_millisecond(),
        ended_ms: None,
        outcome: None,
        revision: 1,
    })
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
            | EventKind::SessionShared
            | EventKind::SessionUnshared
            | EventKind::SessionClosing
            | EventKind::SessionClosed
            | EventKind::SessionExpired
    )
}
