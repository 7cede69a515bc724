//! What those who run the server see of workers, sessions and tasks of everybody, and do to them, whichever way they ask:
//! by a command or over REST.
//!
//! *Invariant*: it decides nothing about a session, a task or a worker by itself, it asks the rooms that own them; and what
//! changes something is in the log, with who did it, before it is done.

mod cordons;
mod drain;
mod sessions;
mod tasks;
mod top;
mod workers;

use std::sync::Arc;
use std::time::Instant;

use codegen_audit::{Audit, Entry, EventKind};
use codegen_types::{ErrorCode, Failure, Principal, SessionId, TaskId};
use serde_json::Value;

pub use sessions::{SessionDetail, SessionLine, SessionPage, SessionsFilter};
pub use tasks::{TaskDetail, TaskLine, TaskLog, TaskPage, TasksFilter};
pub use top::{LogLine, Top};
pub use workers::{CordonView, SlotsView, WorkerDetail, WorkerRow};

use crate::approvals::Way;
use crate::session::Sessions;
use crate::store::{CordonStore, StoreResult};
use crate::workers::Workers;

/// The most entries of one page.
pub const PAGE_MAX: u32 = 500;
/// Entries of a page when none are asked for.
pub const PAGE_DEFAULT: u32 = 50;

/// What operators see and do. Cheap to clone.
#[derive(Clone)]
pub struct Operators(Arc<Inner>);

struct Inner {
    workers: Workers,
    sessions: Sessions,
    audit: Audit,
    cordons: cordons::Cordons,
    readings: tasks::Readings,
    began: Instant,
}

/// Who acts as an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// On whose behalf.
    pub principal: Principal,
    /// By which way.
    pub way: Way,
}

impl Operators {
    /// Operators of these workers and sessions. What was said about workers before holds from now on.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(
        workers: Workers,
        sessions: Sessions,
        store: Arc<dyn CordonStore>,
        audit: Audit,
    ) -> StoreResult<Self> {
        let cordons = cordons::Cordons::load(store, &workers).await?;
        let readings = tasks::Readings::default();
        Ok(Self(Arc::new(Inner { workers, sessions, audit, cordons, readings, began: Instant::now() })))
    }
}

impl Inner {
    /// Puts on record that somebody is about to do something.
    async fn record(&self, actor: &Actor, what: &str, about: About, detail: Value) -> Result<(), Failure> {
        self.audit.append(entry(actor, what, about, detail)).await.map(drop).map_err(|error| {
            let message =
                format!("the audit log cannot be written ({error}), so nothing was done; it recovers by itself");
            Failure::new(ErrorCode::AuditUnavailable, message)
        })
    }

    /// Puts on record that somebody is about to end something, which is never refused: a log that cannot be written keeps
    /// the record until it can.
    async fn record_end(&self, actor: &Actor, what: &str, about: About, detail: Value) {
        if let Err(error) = self.audit.queue(entry(actor, what, about, detail)).await {
            tracing::error!(%error, what, "an operator ends something before that is in the log");
        }
    }
}

fn entry(actor: &Actor, what: &str, about: About, mut detail: Value) -> Entry {
    detail["way"] = Value::from(actor.way.as_str());
    Entry {
        kind: EventKind::OperatorActed,
        principal: Some(actor.principal.clone()),
        session: about.session,
        task: about.task,
        tool: Some(what.to_owned()),
        detail: Some(detail),
        ..Entry::default()
    }
}

/// What an operator's act is about.
#[derive(Debug, Clone, Copy, Default)]
struct About {
    session: Option<SessionId>,
    task: Option<TaskId>,
}

/// How many entries a page has.
///
/// # Errors
/// `INVALID_ARGUMENT`.
fn page_size(limit: Option<u32>) -> Result<usize, Failure> {
    match limit.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit as usize),
        _ => Err(Failure::new(ErrorCode::InvalidArgument, format!("`limit`: must be from 1 to {PAGE_MAX}"))),
    }
}

/// One of these words, or no filter.
///
/// # Errors
/// `INVALID_ARGUMENT`.
fn one_of(field: &str, given: Option<&str>, words: &[&str]) -> Result<(), Failure> {
    match given {
        Some(word) if !words.contains(&word) => {
            let message = format!("`{field}`: must be one of {}", words.join(", "));
            Err(Failure::new(ErrorCode::InvalidArgument, message))
        }
        Some(_) | None => Ok(()),
    }
}

/// A point in time, given in milliseconds since the Unix epoch.
fn time(ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}
