//! At start: the log is the truth, and the store is brought up to it.

mod ended;
mod lost;
mod sessions;
mod tail;
mod tasks;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use codegen_audit::{Audit, AuditUnavailable, ReadError};
use codegen_types::SessionId;

use super::now_ms;
use super::receipt::Receipt;
use super::recovery::Left;
use crate::store::{Progress, SessionRow, SessionStore, StoreError, TaskStore};
use lost::Known;
use sessions::{caught_up, put};
use tail::{Seek, Tail, read_tail};
use tasks::{bring_back, close_tasks, settle_resolved};

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

/// What there is to go on with.
pub(super) struct Reconciled {
    /// Every session.
    pub(super) rows: Vec<SessionRow>,
    /// Tasks that their workers may still have.
    pub(super) left: Vec<Left>,
}

/// Reconciles, and gives every session there is and the tasks whose end is not known yet.
pub(super) async fn run(
    audit: &Audit,
    audit_dir: Option<PathBuf>,
    sessions: &dyn SessionStore,
    tasks: &dyn TaskStore,
    outcome_retention: Duration,
) -> Result<Reconciled, ReconcileError> {
    let mut rows: BTreeMap<SessionId, SessionRow> =
        sessions.sessions().await?.into_iter().map(|row| (row.id, row)).collect();
    let Some(dir) = audit_dir else {
        let left = close_tasks(audit, tasks, BTreeMap::new(), BTreeMap::new()).await?;
        return Ok(Reconciled { rows: rows.into_values().collect(), left });
    };
    let progress = sessions.progress().await?;
    let seek = Seek {
        unfinished: tasks.unfinished_tasks().await?.iter().map(|row| row.id).collect(),
        since_ms: now_ms().saturating_sub(i64::try_from(outcome_retention.as_millis()).unwrap_or(i64::MAX)),
        known: Known::of(&rows, tasks).await?,
    };
    let mut tail = read(dir.clone(), progress.clone(), seek.clone(), &rows).await?;
    if let Some(from) = tail.lost_from {
        lost::put_on_record(audit, from, seek.known.last().max(progress.settled_before)).await?;
        lost::forget_places(sessions, &mut rows, tasks, from).await?;
        let progress = Progress { settled_before: progress.settled_before.min(from), ..progress };
        tail = read(dir, progress, Seek { known: Known::default(), ..seek }, &rows).await?;
    }
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
            let row = if receipt == row.receipt {
                row
            } else {
                put(sessions, SessionRow { receipt: Receipt { through: tail.last, ..receipt }, ..row }).await?
            };
            rows.insert(session, row);
        }
    }
    bring_back(tasks, tail.keyed.into_values().chain(tail.acted.into_values())).await?;
    let left = close_tasks(audit, tasks, tail.open, tail.closed).await?;
    settle_resolved(tasks, tail.resolved).await?;
    if let Some(log_id) = tail.log_id {
        // Attempts that are still open are read again by the next start.
        let open = left.iter().map(|task| task.attempt).min();
        sessions.settle(log_id, open.map_or(tail.last, |first| first.min(tail.last))).await?;
    }
    Ok(Reconciled { rows: rows.into_values().collect(), left })
}

async fn read(
    dir: PathBuf,
    progress: Progress,
    seek: Seek,
    rows: &BTreeMap<SessionId, SessionRow>,
) -> Result<Tail, ReconcileError> {
    let receipts = rows.iter().map(|(id, row)| (*id, row.receipt.clone())).collect();
    let reading = tokio::task::spawn_blocking(move || read_tail(&dir, &progress, &seek, receipts));
    Ok(reading.await.map_err(|_| ReconcileError::CutOff)??)
}
