//! Sessions and tasks of everybody, for operators.
//!
//! Whose they are is not asked here: whoever calls has found out that an operator asks, and records what is done.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::{Failure, SessionId, TaskId, WorkerId};
use coordinator_core::session::Input;

use super::access;
use super::call::SessionSnapshot;
use super::owner::Message;
use super::seen::{TaskInfo, TaskSeen};
use super::service::{Sessions, ask_owner};
use crate::store::TasksOf;

impl Sessions {
    /// Every session, in no order.
    pub(crate) fn of_everybody(&self) -> Vec<Arc<SessionSnapshot>> {
        self.shared.table.all().into_iter().map(|entry| entry.snapshot).collect()
    }

    /// A session, whoever has it.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`.
    pub(crate) fn anybodys(&self, session: SessionId) -> Result<Arc<SessionSnapshot>, Failure> {
        self.shared.table.get(session).map(|entry| entry.snapshot).ok_or_else(access::unknown)
    }

    /// Ends a session for good, whoever has it.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`, `SESSION_CLOSED`.
    pub(crate) async fn close_anybodys(&self, session: SessionId) -> Result<Arc<SessionSnapshot>, Failure> {
        let entry = self.shared.table.get(session).ok_or_else(access::unknown)?;
        let closed = ask_owner(&entry, |reply| Message::Close { reply }).await?;
        self.tell_closed(session);
        Ok(closed)
    }

    /// Tasks of one session, or of all, the newest first, at most so many.
    ///
    /// # Errors
    /// `INTERNAL` when the store cannot be read.
    pub(crate) async fn tasks_of_everybody(
        &self,
        session: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<TaskInfo>, Failure> {
        let of = session.map_or(TasksOf::Everybody, TasksOf::Session);
        self.newest_tasks(of, limit, |_| true).await
    }

    /// Tasks that run, in no order.
    pub(crate) fn running_of_everybody(&self) -> Vec<TaskInfo> {
        self.shared.running.list(&TasksOf::Everybody).iter().map(|run| run.info()).collect()
    }

    /// A task with its output so far, or its outcome, whoever began it.
    ///
    /// # Errors
    /// As of [`task`](Self::task).
    pub(crate) async fn anybodys_task(&self, task: TaskId) -> Result<TaskSeen, Failure> {
        self.look_at_task(task, |_| true).await
    }

    /// A task once it wrote more than so many bytes or has ended, or as it is after this time.
    ///
    /// # Errors
    /// As of [`task`](Self::task).
    pub(crate) async fn anybodys_task_beyond(
        &self,
        task: TaskId,
        bytes: u64,
        patience: Duration,
    ) -> Result<TaskSeen, Failure> {
        let seen = self.anybodys_task(task).await?;
        // News from here on: what came in between is seen below.
        let mut news = self.shared.live.follow(seen.info.session, Box::pin(std::future::pending()));
        let waiting = async {
            loop {
                let seen = self.anybodys_task(task).await?;
                if seen.outcome.is_some() || seen.log.written() > bytes || news.next().await.is_none() {
                    return Ok(seen);
                }
            }
        };
        tokio::time::timeout(patience, waiting).await.unwrap_or(Ok(seen))
    }

    /// Asks a running task to end, whoever began it; one that has ended stays as it is.
    ///
    /// # Errors
    /// As of [`task`](Self::task).
    pub(crate) async fn cancel_anybodys(&self, task: TaskId) -> Result<(), Failure> {
        match self.shared.running.get(task) {
            Some(run) => run.cancel.cancel(),
            None => drop(self.anybodys_task(task).await?),
        }
        Ok(())
    }

    /// Has the sessions end their processes that are idle on a worker that is drained. Who is asked in vain just now is
    /// asked again the next time.
    pub(crate) fn end_idle_on(&self, worker: &WorkerId) {
        for entry in self.shared.table.all() {
            let snapshot = &entry.snapshot;
            let is_there = snapshot.lease.as_ref().is_some_and(|lease| lease.worker == *worker);
            if is_there && snapshot.state == "ready" && snapshot.running.is_empty() {
                let input = Input::WorkerDraining { worker: worker.clone() };
                // Its mailbox is full only while it is not idle.
                let _ = entry.owner.try_send(Message::Happened { input });
            }
        }
    }
}
