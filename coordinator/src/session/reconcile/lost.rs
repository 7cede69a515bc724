//! A log that has not all the records that the store knows of: somebody cut it, or put an older copy in its place, behind its
//! last checkpoint. Nobody can bring them back; that they are lost is put on record.

use std::collections::BTreeMap;

use codegen_audit::{Audit, AuditUnavailable, Entry, EventKind, Record};
use codegen_types::{LogSeq, SessionId, TaskId};
use serde_json::json;

use super::sessions::put;
use crate::store::{SessionRow, SessionStore, StoreError, TaskRow, TaskStore, TasksOf};

/// How many of the newest tasks are looked at for what the store knows of records.
const TASKS_MAX: u32 = 1_000;

/// Whose record it is that the store knows of.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Session(SessionId),
    Task(TaskId),
}

/// Records that the store knows of, by their places.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(BTreeMap<LogSeq, Whose>);

impl Known {
    /// Those that the rows of sessions and the newest rows of tasks have the word of.
    pub(super) async fn of(rows: &BTreeMap<SessionId, SessionRow>, tasks: &dyn TaskStore) -> Result<Self, StoreError> {
        let mut known: BTreeMap<_, _> = rows.values().map(|row| (row.audit_seq, Whose::Session(row.id))).collect();
        for row in tasks.recent_tasks(TasksOf::Everybody, TASKS_MAX).await? {
            known.extend(places(&row).map(|place| (place, Whose::Task(row.id))));
        }
        Ok(Self(known))
    }

    /// The last one.
    pub(super) fn last(&self) -> LogSeq {
        self.0.keys().next_back().copied().unwrap_or_default()
    }

    /// Whether a record is not the one that is known to be in its place.
    pub(super) fn contradicts(&self, record: &Record) -> bool {
        self.0.get(&record.seq).is_some_and(|whose| match whose {
            Whose::Session(session) => record.session != Some(*session),
            Whose::Task(task) => record.task != Some(*task),
        })
    }
}

fn places(row: &TaskRow) -> impl Iterator<Item = LogSeq> {
    [Some(row.attempt), row.outcome_seq].into_iter().flatten()
}

/// Puts on record that what the log had from this place on is lost, of which the store knows the records up to `known_to`.
pub(super) async fn put_on_record(audit: &Audit, from: LogSeq, known_to: LogSeq) -> Result<(), AuditUnavailable> {
    tracing::error!(%from, %known_to, "the audit log has lost records; sessions and tasks are as the store has them");
    let detail = json!({"after": "loss", "lost_from": from, "known_to": known_to});
    let entry = Entry { kind: EventKind::LogRecovered, detail: Some(detail), ..Entry::default() };
    audit.append(entry).await.map(drop)
}

/// Takes out of all rows the places of lost records, which others take from now on.
pub(super) async fn forget_places(
    sessions: &dyn SessionStore,
    rows: &mut BTreeMap<SessionId, SessionRow>,
    tasks: &dyn TaskStore,
    from: LogSeq,
) -> Result<(), StoreError> {
    let last = LogSeq(from.0.saturating_sub(1));
    for row in rows.values_mut().filter(|row| row.audit_seq > last || row.receipt.through > last) {
        row.audit_seq = row.audit_seq.min(last);
        row.receipt.through = row.receipt.through.min(last);
        *row = put(sessions, row.clone()).await?;
    }
    for row in tasks.recent_tasks(TasksOf::Everybody, TASKS_MAX).await? {
        if places(&row).all(|place| place <= last) {
            continue;
        }
        // With its outcome, which the list leaves out.
        let Some(row) = tasks.task(row.id).await? else { continue };
        let attempt = Some(row.attempt).filter(|attempt| *attempt <= last).unwrap_or_default();
        let outcome_seq = row.outcome_seq.filter(|outcome| *outcome <= last);
        tasks.put_task(TaskRow { attempt, outcome_seq, revision: row.revision + 1, ..row }).await?;
    }
    Ok(())
}
