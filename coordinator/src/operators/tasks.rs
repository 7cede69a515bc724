//! Everybody's tasks as operators see them: what they are, what they wrote, and their end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use codegen_types::{Failure, Principal, SessionId, TaskId, WorkerId};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{About, Actor, Operators, one_of, page_size, time};
use crate::session::{Captured, TaskInfo, TaskSeen};

/// The newest tasks that are looked through for those that are wanted.
const LOOKED_AT_MAX: u32 = 2_000;
/// How long one question may wait for more output.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);

/// Readings of the same output by the same operator within this time are one record.
const READING_LASTS: Duration = Duration::from_secs(600);
/// Readings that are kept in mind. Of one more, each part is recorded.
const READINGS_MAX: usize = 1_024;

/// Whose reading of which task's output is on record.
#[derive(Default)]
pub(super) struct Readings(Mutex<HashMap<(Principal, TaskId), Instant>>);

impl Readings {
    fn are_recorded(&self, reading: &(Principal, TaskId)) -> bool {
        let mut noted = self.0.lock();
        noted.retain(|_, since| since.elapsed() < READING_LASTS);
        noted.contains_key(reading)
    }

    fn note(&self, reading: (Principal, TaskId)) {
        let mut noted = self.0.lock();
        if noted.len() < READINGS_MAX {
            noted.insert(reading, Instant::now());
        }
    }
}

/// Which tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TasksFilter {
    /// In this session.
    pub session: Option<SessionId>,
    /// Begun by this principal.
    pub principal: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// In sessions that are on this worker.
    pub worker: Option<WorkerId>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// The newest tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPage {
    /// The tasks, the newest first.
    pub tasks: Vec<TaskLine>,
    /// Whether there may be older ones.
    pub more: bool,
}

/// One task in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLine {
    /// The task.
    pub task_id: TaskId,
    /// Its session.
    pub session_id: SessionId,
    /// Who began it.
    pub principal: String,
    /// The tool that began it.
    pub tool: String,
    /// `running`, `finished`, `failed` or `unknown`.
    pub state: String,
    /// Why it failed, or why nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The worker of its session, or the one that has the session's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
}

/// One task with how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDetail {
    /// What the list has of it, too.
    #[serde(flatten)]
    pub line: TaskLine,
    /// What was said of its failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Bytes that it wrote so far.
    pub output_bytes: u64,
    /// The record of its outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_seq: Option<u64>,
}

/// A part of what a task wrote, both streams in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLog {
    /// Where the task stands.
    pub state: String,
    /// The bytes.
    #[serde(with = "codegen_types::base64_bytes")]
    pub bytes: Vec<u8>,
    /// Bytes before these that are not kept here.
    pub omitted: u64,
    /// Where the next part begins.
    pub next: u64,
}

impl Operators {
    /// The newest of everybody's tasks.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`; `INTERNAL` when the store cannot be read.
    pub async fn tasks(&self, filter: &TasksFilter) -> Result<TaskPage, Failure> {
        let TasksFilter { session, principal, state, worker, limit } = filter;
        one_of("state", state.as_deref(), &["running", "finished", "failed", "unknown"])?;
        let limit = page_size(*limit)?;
        let looked_at = self.0.sessions.tasks_of_everybody(*session, LOOKED_AT_MAX).await?;
        let is_cut = looked_at.len() == LOOKED_AT_MAX as usize;
        let workers = self.workers_of_sessions();
        let lines = looked_at.into_iter().map(|info| TaskLine::of(&info, workers.get(&info.session)));
        let wanted = |line: &TaskLine| {
            principal.as_deref().is_none_or(|wanted| line.principal == wanted)
                && state.as_deref().is_none_or(|wanted| line.state == wanted)
                && worker.as_ref().is_none_or(|wanted| line.worker.as_ref() == Some(wanted))
        };
        let mut tasks: Vec<TaskLine> = lines.filter(wanted).take(limit + 1).collect();
        let more = is_cut || tasks.len() > limit;
        tasks.truncate(limit);
        Ok(TaskPage { tasks, more })
    }

    /// One task.
    ///
    /// # Errors
    /// `NOT_FOUND`, `AUDIT_UNAVAILABLE`.
    pub async fn task(&self, task: TaskId) -> Result<TaskDetail, Failure> {
        let seen = self.0.sessions.anybodys_task(task).await?;
        Ok(self.detail(&seen))
    }

    /// Asks a running task to end; one that has ended stays as it is. That is in the log before it is done, where that can
    /// be written.
    ///
    /// # Errors
    /// `NOT_FOUND`, `AUDIT_UNAVAILABLE`.
    pub async fn cancel_task(&self, task: TaskId, actor: &Actor) -> Result<TaskDetail, Failure> {
        let seen = self.0.sessions.anybodys_task(task).await?;
        if seen.outcome.is_none() {
            let about = About { session: Some(seen.info.session), task: Some(task) };
            self.0.record_end(actor, "tasks/cancel", about, json!({"of": seen.info.principal})).await;
            self.0.sessions.cancel_anybodys(task).await?;
        }
        Ok(self.detail(&seen))
    }

    /// What a task wrote from this byte on. With `waits`, an answer without bytes comes a second later at the latest.
    /// That its output is read is in the log before it is.
    ///
    /// # Errors
    /// `NOT_FOUND`, `AUDIT_UNAVAILABLE`.
    pub async fn task_log(&self, task: TaskId, from: u64, waits: bool, actor: &Actor) -> Result<TaskLog, Failure> {
        let reading = (actor.principal.clone(), task);
        if !self.0.readings.are_recorded(&reading) {
            let info = self.0.sessions.anybodys_task(task).await?.info;
            let about = About { session: Some(info.session), task: Some(task) };
            self.0.record(actor, "tasks/logs", about, json!({"of": info.principal})).await?;
            self.0.readings.note(reading);
        }
        let seen = if waits {
            self.0.sessions.anybodys_task_beyond(task, from, OUTPUT_PATIENCE).await?
        } else {
            self.0.sessions.anybodys_task(task).await?
        };
        Ok(TaskLog::of(&seen, from))
    }

    pub(super) fn workers_of_sessions(&self) -> HashMap<SessionId, WorkerId> {
        let all = self.0.sessions.of_everybody();
        all.iter().filter_map(|session| Some((session.id, session.lease.as_ref()?.worker.clone()))).collect()
    }

    fn detail(&self, seen: &TaskSeen) -> TaskDetail {
        let worker = self.0.sessions.anybodys(seen.info.session).ok();
        let worker = worker.and_then(|session| session.lease.as_ref().map(|lease| lease.worker.clone()));
        let failure = seen.outcome.as_ref().and_then(|outcome| outcome.result.as_ref().err());
        TaskDetail {
            line: TaskLine::of(&seen.info, worker.as_ref()),
            message: failure.map(|failure| failure.message.clone()),
            output_bytes: seen.log.written(),
            audit_seq: seen.outcome.as_ref().and_then(|outcome| outcome.audit_seq).map(|seq| seq.0),
        }
    }
}

impl TaskLine {
    pub(super) fn of(info: &TaskInfo, worker: Option<&WorkerId>) -> Self {
        Self {
            task_id: info.task,
            session_id: info.session,
            principal: info.principal.to_string(),
            tool: info.tool.clone(),
            state: info.phase.name().to_owned(),
            code: info.phase.code().map(|code| code.to_string()),
            worker: worker.cloned(),
            began: time(info.begun_ms),
            ended: info.ended_ms.map(time),
        }
    }
}

impl TaskLog {
    fn of(seen: &TaskSeen, from: u64) -> Self {
        let (omitted, bytes, next) = rest(&seen.log, from);
        Self { state: seen.info.phase.name().to_owned(), bytes, omitted, next }
    }
}

/// How much of the output from this byte on is not kept, what follows that, and where that ends. What is not kept is
/// said when what comes before it was told.
fn rest(log: &Captured, from: u64) -> (u64, Vec<u8>, u64) {
    let head = usize::try_from(from).ok().and_then(|from| log.head.get(from..)).unwrap_or_default();
    let tail_begins = log.head.len() as u64 + log.omitted;
    let into_tail = usize::try_from(from.saturating_sub(tail_begins)).unwrap_or(usize::MAX);
    let tail = log.tail.get(into_tail..).unwrap_or_default();
    let omitted = tail_begins.saturating_sub(from.max(log.head.len() as u64));
    if omitted > 0 && !head.is_empty() {
        return (0, head.to_vec(), log.head.len() as u64);
    }
    (omitted, [head, tail].concat(), from.max(log.written()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_said_where_it_is_missing() {
        let whole = Captured { head: b"0123456789".to_vec(), tail: vec![], omitted: 0 };
        assert_eq!(rest(&whole, 0), (0, b"0123456789".to_vec(), 10));
        assert_eq!(rest(&whole, 10), (0, vec![], 10));
        assert_eq!(rest(&whole, 99), (0, vec![], 99));
        let cut = Captured { head: b"01".to_vec(), tail: b"89".to_vec(), omitted: 6 };
        assert_eq!(rest(&cut, 1), (0, b"1".to_vec(), 2));
        assert_eq!(rest(&cut, 2), (6, b"89".to_vec(), 10));
        assert_eq!(rest(&cut, 5), (3, b"89".to_vec(), 10));
        assert_eq!(rest(&cut, 9), (0, b"9".to_vec(), 10));
    }
}
