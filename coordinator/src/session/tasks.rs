//! Tasks from outside: begun by a call, looked after by their id, until their outcome is given up.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::Health;
use codegen_types::{ErrorCode, EventBody, Failure, Principal, SessionId, TaskId};
use coordinator_core::session::Need;
use futures::future::{FutureExt as _, ready};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::call::{Leave, TaskCall, TaskOutcome};
use super::repeat::{self, Claim};
use super::running::Run;
use super::seen::{Launched, TaskInfo, TaskSeen};
use super::service::Sessions;
use super::task::Runner;
use crate::store::{StoreError, TaskRow, TasksOf};
use crate::supervisor::OnEnd;

/// What comes of a call's idempotency key.
enum Claiming {
    /// The call runs, and tells those that join it.
    Run(Option<repeat::Claimed>),
    /// It joins one that runs, or gets what one gave.
    Is(Launched),
}

impl Sessions {
    /// Runs a task to its end and its record. Cancelling `cancel` ends it and still gives its outcome; dropping the
    /// future loses the answer and nothing else.
    pub async fn run(&self, call: TaskCall, events: mpsc::Sender<EventBody>, cancel: CancellationToken) -> TaskOutcome {
        self.launch(call, events, cancel).await.outcome.await
    }

    /// Sets a task going. Cancelling `cancel` ends it.
    pub async fn launch(&self, call: TaskCall, events: mpsc::Sender<EventBody>, cancel: CancellationToken) -> Launched {
        let task = call.task;
        let entry = match self.shared.table.of(&call.principal, call.session, call.need()) {
            Ok(entry) => entry,
            Err(failure) => return over(failed(task, failure)),
        };
        let claimed = match self.claim(&call).await {
            Ok(Claiming::Run(claimed)) => claimed,
            Ok(Claiming::Is(launched)) => return launched,
            Err(failure) => return over(failed(task, failure)),
        };
        let place = match self.shared.ledger.begin(&call.principal) {
            Ok(place) => place,
            Err(failure) => return over(failed(task, failure)),
        };
        let (begins, begun) = oneshot::channel();
        let runner = Runner { shared: Arc::clone(&self.shared), owner: entry.owner, call, events, cancel };
        let (reply, outcome) = oneshot::channel();
        self.shared.supervisor.spawn("session task", OnEnd::Ignore, async move {
            let answer = |outcome: TaskOutcome| {
                // First, so that whoever has the answer has the place, too.
                drop(place);
                if let Some(claimed) = claimed {
                    claimed.tell(&outcome);
                }
                // A caller that is gone finds the outcome by its id, under its key, and in the log.
                let _ = reply.send(outcome);
            };
            runner.run(begins, answer).await;
        });
        Launched {
            task,
            begun: begun.map(|begun| begun.is_ok()).boxed(),
            outcome: outcome.map(move |outcome| outcome.unwrap_or_else(|_| failed(task, cut_off()))).boxed(),
        }
    }

    /// The right to run a call, or the outcome of the earlier one under the same key.
    async fn claim(&self, call: &TaskCall) -> Result<Claiming, Failure> {
        let Some(key) = call.idempotency_key.clone() else {
            return if call.leave == Leave::OfEarlier { Err(repeat::forgotten()) } else { Ok(Claiming::Run(None)) };
        };
        let digest = repeat::digest(call);
        let claimed = match repeat::claim(&self.shared.repeats, call, &key, digest)? {
            Claim::First(claimed) => claimed,
            Claim::Join(task, outcome) => return Ok(Claiming::Is(joined(task, outcome))),
        };
        let earlier =
            self.shared.tasks.task_by_key(call.session, call.principal.clone(), key).await.map_err(|error| {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "an idempotency key could not be looked up");
                Failure::new(ErrorCode::Internal, "the idempotency key could not be looked up, so nothing was run")
            })?;
        match repeat::replay(earlier, &digest, self.log_is_writable())? {
            Some(outcome) => Ok(Claiming::Is(over(outcome))),
            None if call.leave == Leave::OfEarlier => Err(repeat::forgotten()),
            None => Ok(Claiming::Run(Some(claimed))),
        }
    }

    /// Whether a principal used an idempotency key in a session for a task that runs, or whose outcome is kept. When that
    /// cannot be looked up, it is as good as unused.
    pub async fn knows_key(&self, principal: &Principal, session: SessionId, key: &str) -> bool {
        if self.shared.repeats.contains_key(&(principal.clone(), session, key.to_owned())) {
            return true;
        }
        let earlier = self.shared.tasks.task_by_key(session, principal.clone(), key.to_owned()).await;
        earlier.is_ok_and(|row| row.is_some())
    }

    fn log_is_writable(&self) -> bool {
        matches!(*self.shared.audit.health().borrow(), Health::Writable)
    }

    /// A task with its output so far, or its outcome.
    ///
    /// # Errors
    /// `NOT_FOUND` for a foreign task as for an unknown one, or one whose outcome was given up; `AUDIT_UNAVAILABLE` while
    /// its outcome is kept back.
    pub async fn task(&self, principal: &Principal, task: TaskId) -> Result<TaskSeen, Failure> {
        self.look_at_task(task, |session| self.sees(principal, session)).await
    }

    /// A task in a session that `sees` lets through.
    pub(super) async fn look_at_task(
        &self,
        task: TaskId,
        sees: impl Fn(SessionId) -> bool,
    ) -> Result<TaskSeen, Failure> {
        if let Some(run) = self.shared.running.get(task).filter(|run| sees(run.session))
            && !run.was_told().await
        {
            return Ok(TaskSeen { info: run.info(), log: run.log(), outcome: None });
        }
        let row = self.shared.tasks.task(task).await.map_err(|error| unreadable(&error))?;
        self.kept(row.filter(|row| sees(row.session)).ok_or_else(not_found)?)
    }

    /// Waits until a task has ended, at most so long; then it is as [`task`](Self::task) gives it.
    ///
    /// # Errors
    /// As of [`task`](Self::task).
    pub async fn wait(&self, principal: &Principal, task: TaskId, timeout: Duration) -> Result<TaskSeen, Failure> {
        let Some(run) = self.run_seen(principal, task) else { return self.task(principal, task).await };
        let waited = tokio::select! {
            biased;
            () = self.shared.table.revoked(principal, run.session) => return Err(not_found()),
            waited = tokio::time::timeout(timeout, run.ended()) => waited,
        };
        match waited {
            Ok(Some(outcome)) => Ok(told(&run, outcome)),
            Ok(None) | Err(_) => {
                drop(run);
                self.task(principal, task).await
            }
        }
    }

    /// The tasks of one session, whoever began them, or the principal's own in all sessions that it may read; the newest
    /// first, at most so many.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`; `INTERNAL` when the store cannot be read.
    pub async fn tasks(
        &self,
        principal: &Principal,
        session: Option<SessionId>,
        limit: u32,
    ) -> Result<Vec<TaskInfo>, Failure> {
        let of = match session {
            Some(session) => {
                self.shared.table.of(principal, session, Need::Read)?;
                TasksOf::Session(session)
            }
            None => TasksOf::Principal(principal.clone()),
        };
        self.newest_tasks(of, limit, |session| self.sees(principal, session)).await
    }

    /// Tasks in the sessions that `sees` lets through, the newest first.
    pub(super) async fn newest_tasks(
        &self,
        of: TasksOf,
        limit: u32,
        sees: impl Fn(SessionId) -> bool,
    ) -> Result<Vec<TaskInfo>, Failure> {
        let mut infos = Vec::new();
        for run in self.shared.running.list(&of).into_iter().filter(|run| sees(run.session)) {
            if !run.was_told().await {
                infos.push(run.info());
            }
        }
        let running: HashSet<TaskId> = infos.iter().map(|info| info.task).collect();
        let kept = self.shared.tasks.recent_tasks(of, limit).await.map_err(|error| unreadable(&error))?;
        let ended = kept.iter().filter(|row| sees(row.session) && !running.contains(&row.id));
        infos.extend(ended.map(TaskInfo::of_row));
        infos.sort_by_key(|info| std::cmp::Reverse((info.begun_ms, info.task)));
        infos.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(infos)
    }

    /// Asks a running task to end; one that has ended stays as it is. Whoever began it may, and the session's owner.
    ///
    /// # Errors
    /// As of [`task`](Self::task); `PERMISSION_DENIED`.
    pub async fn cancel_task(&self, principal: &Principal, task: TaskId) -> Result<(), Failure> {
        match self.run_seen(principal, task) {
            Some(run) => {
                if run.principal != *principal {
                    self.shared.table.of(principal, run.session, Need::Own).map_err(|_| not_yours())?;
                }
                run.cancel.cancel();
            }
            None => drop(self.task(principal, task).await?),
        }
        Ok(())
    }

    /// A running task, when it is in a session that the principal may read.
    fn run_seen(&self, principal: &Principal, task: TaskId) -> Option<Arc<Run>> {
        self.shared.running.get(task).filter(|run| self.sees(principal, run.session))
    }

    fn sees(&self, principal: &Principal, session: SessionId) -> bool {
        self.shared.table.of(principal, session, Need::Read).is_ok()
    }

    /// A task that is over, from its row.
    fn kept(&self, row: TaskRow) -> Result<TaskSeen, Failure> {
        if row.outcome_seq.is_none() && row.state.is_over() && !self.log_is_writable() {
            return Err(repeat::kept_back());
        }
        let info = TaskInfo::of_row(&row);
        let outcome = TaskOutcome { replayed: false, ..repeat::stored(row) };
        Ok(TaskSeen { info, log: log_of(&outcome), outcome: Some(outcome) })
    }
}

/// A task whose end was just told.
fn told(run: &Run, outcome: TaskOutcome) -> TaskSeen {
    let info = run.ended_info(&outcome);
    TaskSeen { info, log: log_of(&outcome), outcome: Some(outcome) }
}

fn log_of(outcome: &TaskOutcome) -> super::Captured {
    let completed = outcome.result.as_ref().ok().or(outcome.partial.as_ref());
    completed.map_or_else(Default::default, |completed| completed.log().clone())
}

fn failed(task: TaskId, failure: Failure) -> TaskOutcome {
    TaskOutcome { task, result: Err(failure), partial: None, audit_seq: None, replayed: false }
}

/// A call that has its outcome already.
fn over(outcome: TaskOutcome) -> Launched {
    Launched { task: outcome.task, begun: ready(false).boxed(), outcome: ready(outcome).boxed() }
}

/// A call that joins one that runs.
fn joined(task: TaskId, mut outcome: tokio::sync::watch::Receiver<Option<TaskOutcome>>) -> Launched {
    let outcome = async move {
        let told = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        told.map_or_else(|| failed(task, cut_off()), |told| TaskOutcome { replayed: true, ..told })
    };
    Launched { task, begun: ready(true).boxed(), outcome: outcome.boxed() }
}

/// What is said of a task that was cut off in the midst: whether it was run is not known.
fn cut_off() -> Failure {
    let text = "the server ended the call before its outcome was known; it is not run again by itself";
    Failure::new(ErrorCode::TaskOutcomeUnknown, text)
}

fn not_yours() -> Failure {
    Failure::new(ErrorCode::PermissionDenied, "only who began a task and the owner of its session end it")
}

/// What is said of a task that is not there, and of one that belongs to somebody else.
fn not_found() -> Failure {
    let text = "there is no such task of yours, or its result is no longer kept; task_list shows those there are";
    Failure::new(ErrorCode::NotFound, text)
}

fn unreadable(error: &StoreError) -> Failure {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, "a task could not be looked up");
    Failure::new(ErrorCode::Internal, "the task could not be looked up")
}
