//! Tasks that run at present: what can be seen of them while they run, and how they are ended from outside.

use codegen_types::{ErrorCode, EventBody, Principal, SessionId, TaskId};
use dashmap::DashMap;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::call::{Captured, TaskOutcome};
use super::live::SessionNews;
use super::seen::{TaskInfo, TaskPhase};
use super::transcript::Transcript;
use crate::store::TasksOf;

/// One task tells transcripts of its output at most once in this time, in milliseconds. Who hears of it looks again a
/// moment later, too.
const TRANSCRIPT_INTERVAL_MS: u64 = 250;

/// Running tasks by id; they are independent of each other. Each leaves when its outcome has been stored.
#[derive(Default)]
pub(super) struct RunningTasks {
    by_id: DashMap<TaskId, Arc<Run>>,
}

/// One running task.
pub(super) struct Run {
    pub(super) principal: Principal,
    pub(super) session: SessionId,
    pub(super) task: TaskId,
    pub(super) tool: Cow<'static, str>,
    /// Whether transcripts tell of it.
    acts: bool,
    /// From when on a transcript tells of its output again, in milliseconds since `began`: the clock may be set meanwhile.
    tells_from_ms: AtomicU64,
    began: Instant,
    pub(super) begun_ms: i64,
    pub(super) cancel: CancellationToken,
    pub(super) transcript: Mutex<Transcript>,
    /// Told only when somebody waits; others find the outcome in the store.
    outcome: watch::Sender<Option<TaskOutcome>>,
    /// Whether its caller has the outcome already.
    told: AtomicBool,
    /// Cancelled when it has left, for those that began to wait too late to be told.
    over: CancellationToken,
}

/// A place among the running tasks; left when dropped.
pub(super) struct Registered {
    tasks: Arc<RunningTasks>,
    pub(super) run: Arc<Run>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.tasks.by_id.remove(&self.run.task);
        self.run.over.cancel();
    }
}

impl Registered {
    /// Tells those that wait. From now on nobody is told that the task runs.
    pub(super) fn tell(&self, outcome: &TaskOutcome) {
        self.run.told.store(true, Ordering::Release);
        if self.run.outcome.receiver_count() > 0 {
            self.run.outcome.send_replace(Some(outcome.clone()));
        }
    }
}

impl RunningTasks {
    /// Adds a task that has just begun.
    pub(super) fn add(self: &Arc<Self>, run: Run) -> Registered {
        let run = Arc::new(run);
        self.by_id.insert(run.task, Arc::clone(&run));
        Registered { tasks: Arc::clone(self), run }
    }

    /// The task, if it runs, whoever began it.
    pub(super) fn get(&self, task: TaskId) -> Option<Arc<Run>> {
        Some(Arc::clone(&*self.by_id.get(&task)?))
    }

    /// The running tasks of a principal or of a session.
    pub(super) fn list(&self, of: &TasksOf) -> Vec<Arc<Run>> {
        let wanted = |run: &Run| match of {
            TasksOf::Principal(principal) => run.principal == *principal,
            TasksOf::Session(session) => run.session == *session,
            TasksOf::Everybody => true,
        };
        self.by_id.iter().filter(|run| wanted(run)).map(|run| Arc::clone(&run)).collect()
    }
}

impl Run {
    /// A task that begins now.
    pub(super) fn new(
        (principal, session, task): (Principal, SessionId, TaskId),
        tool: impl Into<Cow<'static, str>>,
        acts: bool,
        cancel: CancellationToken,
    ) -> Self {
        let (transcript, outcome, over) = (Mutex::default(), watch::Sender::new(None), CancellationToken::new());
        let tool = tool.into();
        let (tells_from_ms, told) = Default::default();
        let (began, begun_ms) = (Instant::now(), super::now_ms());
        Self {
            principal,
            session,
            task,
            tool,
            acts,
            tells_from_ms,
            began,
            begun_ms,
            cancel,
            transcript,
            outcome,
            told,
            over,
        }
    }

    /// The same, for one that began then, in milliseconds since the Unix epoch.
    pub(super) fn begun_at(self, begun_ms: i64) -> Self {
        Self { begun_ms, ..self }
    }

    /// What is known of it besides its output.
    pub(super) fn info(&self) -> TaskInfo {
        TaskInfo {
            task: self.task,
            session: self.session,
            principal: self.principal.clone(),
            tool: self.tool.to_string(),
            phase: TaskPhase::Running,
            begun_ms: self.begun_ms,
            ended_ms: None,
        }
    }

    /// What is known of it once it has ended so.
    pub(super) fn ended_info(&self, outcome: &TaskOutcome) -> TaskInfo {
        let phase = match &outcome.result {
            Ok(_) => TaskPhase::Finished,
            Err(failure) if failure.code == ErrorCode::TaskOutcomeUnknown => TaskPhase::Unknown,
            Err(failure) => TaskPhase::Failed(failure.code),
        };
        TaskInfo { phase, ended_ms: Some(super::now_ms()), ..self.info() }
    }

    /// Tells those who follow the session that it began.
    pub(super) fn tell_began(&self, shared: &Shared) {
        if self.acts {
            shared.live.tell(self.session, || SessionNews::Began(self.info()));
            shared.changes.tell_transcript(self.session);
        }
    }

    /// Takes down what it does, and tells those who follow the session what it wrote.
    pub(super) fn saw(&self, shared: &Shared, event: &EventBody) {
        let mut transcript = self.transcript.lock();
        let from = transcript.bytes();
        transcript.add(event);
        drop(transcript);
        if !self.acts || !matches!(event, EventBody::Output { .. }) {
            return;
        }
        shared.live.tell_output(self.session, self.task, from, event);
        let passed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        if passed_ms >= self.tells_from_ms.load(Ordering::Relaxed) {
            self.tells_from_ms.store(passed_ms.saturating_add(TRANSCRIPT_INTERVAL_MS), Ordering::Relaxed);
            shared.changes.tell_transcript(self.session);
        }
    }

    /// Tells those who follow the session how it ended.
    pub(super) fn tell_ended(&self, shared: &Shared, outcome: &TaskOutcome) {
        if self.acts {
            shared.live.tell(self.session, || SessionNews::Ended(self.ended_info(outcome)));
            shared.changes.tell_transcript(self.session);
        }
    }

    /// Whether its caller has the outcome already. It is in the store, too, once this is said.
    pub(super) async fn was_told(&self) -> bool {
        let told = self.told.load(Ordering::Acquire);
        if told {
            self.over.cancelled().await;
        }
        told
    }

    /// Both streams so far, in the order of arrival.
    pub(super) fn log(&self) -> Captured {
        self.transcript.lock().log()
    }

    /// Waits for its end. `None`: it ended, and its outcome is in the store.
    pub(super) async fn ended(&self) -> Option<TaskOutcome> {
        let mut outcome = self.outcome.subscribe();
        tokio::select! {
            biased;
            told = outcome.wait_for(Option::is_some) => told.ok().and_then(|outcome| outcome.clone()),
            () = self.over.cancelled() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use codegen_types::Failure;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_too_late_to_be_told_waits_no_longer() {
        let tasks = Arc::new(RunningTasks::default());
        let (ann, task) = (Principal::os_user("ann"), TaskId::mint());
        let ids = (ann.clone(), SessionId::mint(), task);
        let registered = tasks.add(Run::new(ids, "run_shell", true, CancellationToken::new()));
        let run = tasks.get(task).unwrap();
        let of = |principal: &Principal| tasks.list(&TasksOf::Principal(principal.clone())).len();
        assert_eq!((of(&ann), of(&Principal::os_user("bob"))), (1, 0));
        let result = Err(Failure::new(ErrorCode::TaskTimeout, "too long"));
        let outcome = TaskOutcome { task, result, partial: None, audit_seq: None, replayed: false };
        let (told, ()) = tokio::join!(run.ended(), async { registered.tell(&outcome) });
        assert_eq!(told, Some(outcome));
        let late = tasks.get(task).unwrap();
        late.outcome.send_replace(None);
        drop(registered);
        assert_eq!(late.ended().await, None);
        assert!(tasks.get(task).is_none());
    }
}
