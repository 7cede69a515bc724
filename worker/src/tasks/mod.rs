//! The task table: every task this life of the worker was ever asked to run, so that none is started twice.
//!
//! A task that ended is kept for a while, so that a coordinator that lost its link can read the outcome. After that
//! only its id is remembered: the answer is then that the outcome is not known any more, never that it did not run.

mod gate;
mod log;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{Epoch, EventBody, SessionId, TaskId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use gate::Gate;
pub(crate) use log::{EventLog, EventStream};

/// How much of the past is kept. When any bound is reached the oldest task that ended is forgotten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// How long after its end.
    pub age: Duration,
    /// How many tasks that ended.
    pub tasks: usize,
    /// Their events together, in bytes.
    pub bytes: usize,
    /// How many ids of forgotten tasks. Beyond it every id as old as the oldest dropped one counts as forgotten, which
    /// refuses too much rather than too little.
    pub ids: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(15 * 60), tasks: 256, bytes: 64 << 20, ids: 65_536 }
    }
}

/// Why a task is asked to end before its program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The coordinator cancelled it; it may take this long after the interrupt.
    Cancelled { grace: Duration },
    /// Its session is closed.
    SessionClosed,
    /// The worker stops.
    WorkerStops,
}

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    pub id: TaskId,
    pub session: SessionId,
    /// The assignment under which it was started.
    pub epoch: Epoch,
    pub log: Arc<EventLog>,
    stop: watch::Sender<Option<Stop>>,
}

impl Task {
    pub fn new(id: TaskId, session: SessionId, epoch: Epoch) -> Self {
        Self { id, session, epoch, log: Arc::new(EventLog::default()), stop: watch::Sender::new(None) }
    }

    /// Asks the task to end; the first reason stays.
    pub fn stop(&self, why: Stop) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            *stop = stop.or(Some(why));
            first
        });
    }

    /// Waits until the task is asked to end.
    pub async fn stopped(&self) -> Stop {
        let mut stop = self.stop.subscribe();
        let stopped = stop.wait_for(Option::is_some).await.map(|why| *why);
        stopped.ok().flatten().unwrap_or(Stop::WorkerStops)
    }

    /// Says once that it has begun.
    pub fn begin(&self) {
        self.log.begin();
    }

    /// Adds an event; what comes after the last one is dropped.
    pub fn push(&self, body: EventBody) {
        self.log.push(body);
    }
}

/// What is known of a task id.
#[derive(Debug)]
pub(crate) enum Known {
    /// It runs, or its events are still kept.
    Kept(Arc<Task>),
    /// It may have run; its events are not kept any more.
    Forgotten,
    /// It never came to this life of the worker.
    Never,
}

/// What becomes of a task that shall be started.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// It is new and must be run by the caller.
    New,
    /// It was started before.
    Known(Arc<Task>),
    /// It may have been started before; nobody can say how it ended.
    Forgotten,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    table: Mutex<Table>,
    retention: Retention,
}

#[derive(Debug, Default)]
struct Table {
    kept: HashMap<TaskId, Arc<Task>>,
    /// Oldest end first.
    ended: VecDeque<Ended>,
    ended_bytes: usize,
    forgotten: BTreeSet<TaskId>,
    /// Ids up to this one may have been dropped from `forgotten`; ids sort by the time they were minted.
    oldest_known: Option<TaskId>,
}

#[derive(Debug)]
struct Ended {
    task: TaskId,
    at: Instant,
    bytes: usize,
}

impl Tasks {
    #[cfg(test)]
    pub fn with_retention(retention: Retention) -> Self {
        Self { table: Mutex::default(), retention }
    }

    /// Enters a task that shall be started, unless its id was seen before.
    pub fn admit(&self, task: &Arc<Task>) -> Admitted {
        let mut table = self.table.lock();
        match table.known(task.id) {
            Known::Kept(task) => Admitted::Known(task),
            Known::Forgotten => Admitted::Forgotten,
            Known::Never => {
                table.kept.insert(task.id, task.clone());
                Admitted::New
            }
        }
    }

    /// What is known of an id.
    pub fn find(&self, id: TaskId) -> Known {
        self.table.lock().known(id)
    }

    /// Notes that a task ended, and forgets what there is no room for.
    pub fn ended(&self, task: &Task) {
        let mut table = self.table.lock();
        let bytes = task.log.bytes();
        table.ended_bytes += bytes;
        table.ended.push_back(Ended { task: task.id, at: Instant::now(), bytes });
        table.forget_old(&self.retention);
    }

    /// Waits until every task that ended and is kept was read to its end.
    pub async fn were_read(&self) {
        let ended: Vec<Arc<Task>> = {
            let table = self.table.lock();
            table.ended.iter().filter_map(|ended| table.kept.get(&ended.task).cloned()).collect()
        };
        for task in ended {
            task.log.was_read().await;
        }
    }

    /// Forgets tasks that ended too long ago.
    pub fn sweep(&self) {
        self.table.lock().forget_old(&self.retention);
    }

    /// The tasks of a session that are kept, running ones included.
    pub fn of_session(&self, session: SessionId) -> Vec<Arc<Task>> {
        self.table.lock().kept.values().filter(|task| task.session == session).cloned().collect()
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        let table = self.table.lock();
        table.kept.len() - table.ended.len()
    }

    /// Asks every running task to end.
    pub fn stop_all(&self, why: Stop) {
        for task in self.table.lock().kept.values() {
            task.stop(why);
        }
    }
}

impl Table {
    fn known(&self, id: TaskId) -> Known {
        match self.kept.get(&id) {
            Some(task) => Known::Kept(task.clone()),
            None if self.forgotten.contains(&id) || self.oldest_known.is_some_and(|oldest| id <= oldest) => {
                Known::Forgotten
            }
            None => Known::Never,
        }
    }

    fn forget_old(&mut self, retention: &Retention) {
        while let Some(oldest) = self.ended.front() {
            let within = self.ended.len() <= retention.tasks
                && self.ended_bytes <= retention.bytes
                && oldest.at.elapsed() <= retention.age;
            if within {
                break;
            }
            let Some(Ended { task, bytes, .. }) = self.ended.pop_front() else { break };
            self.ended_bytes -= bytes;
            self.kept.remove(&task);
            self.forgotten.insert(task);
        }
        while self.forgotten.len() > retention.ids {
            self.oldest_known = self.oldest_known.max(self.forgotten.pop_first());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(tasks: &Tasks, id: TaskId) {
        let task = admitted(tasks, id);
        task.begin();
        tasks.ended(&task);
    }

    fn admitted(tasks: &Tasks, id: TaskId) -> Arc<Task> {
        let task = Arc::new(Task::new(id, SessionId::mint(), Epoch(1)));
        assert!(matches!(tasks.admit(&task), Admitted::New), "{id} is known");
        task
    }

    #[test]
    fn a_task_id_is_never_new_twice() {
        let tasks = Tasks::with_retention(Retention { tasks: 1, ids: 2, ..Retention::default() });
        let ids: Vec<TaskId> = (0..6).map(|_| TaskId::mint()).collect();
        for id in &ids {
            end(&tasks, *id);
        }
        for id in &ids[..5] {
            assert!(matches!(tasks.find(*id), Known::Forgotten), "{id}");
            let again = Arc::new(Task::new(*id, SessionId::mint(), Epoch(1)));
            assert!(matches!(tasks.admit(&again), Admitted::Forgotten), "{id}");
        }
        assert!(matches!(tasks.find(ids[5]), Known::Kept(_)));
        assert!(matches!(tasks.find(TaskId::mint()), Known::Never));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ended_is_kept_for_its_time_and_no_longer() {
        let tasks = Tasks::default();
        let id = TaskId::mint();
        end(&tasks, id);
        tokio::time::advance(Duration::from_secs(14 * 60)).await;
        tasks.sweep();
        assert!(matches!(tasks.find(id), Known::Kept(_)));
        tokio::time::advance(Duration::from_secs(2 * 60)).await;
        tasks.sweep();
        assert!(matches!(tasks.find(id), Known::Forgotten));
    }

    #[test]
    fn the_bytes_of_ended_tasks_are_bounded() {
        let tasks = Tasks::with_retention(Retention { bytes: 3_000, ..Retention::default() });
        let big = EventBody::Progress { message: "x".repeat(2_000) };
        let ids = [TaskId::mint(), TaskId::mint()];
        for id in ids {
            let task = admitted(&tasks, id);
            task.push(big.clone());
            tasks.ended(&task);
        }
        assert!(matches!(tasks.find(ids[0]), Known::Forgotten));
        assert!(matches!(tasks.find(ids[1]), Known::Kept(_)));
    }
}
