//! The coordinator's side: every decision is `coordinator-core`'s; this carries them out over the network, and keeps
//! what a log and a store would keep when it dies.

mod placing;
mod tasks;
mod time;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use codegen_types::{Incarnation, Lease, SessionId, TaskId, WorkerId};
use coordinator_core::session::{Assignment, Effect, Input, Rules, Session, SessionState, Tie, Transition, step};
use coordinator_core::task::TaskState;
use coordinator_core::worker::{Timing, WorkerInput, WorkerState};

use crate::network::Message;
use crate::world::{Flaw, Ground};

/// The times of the product, at a fifth.
pub const TIMING: Timing = Timing {
    keep_alive: Duration::from_secs(4),
    reconnect_grace: Duration::from_secs(24),
    reassign_after: Duration::from_secs(30),
    prune_after: Duration::from_secs(60),
};
const RULES: Rules = Rules { tasks_max: 4 };
const OPENING_MAX: u64 = 10;

/// A task, as the log and the store have it.
pub struct Row {
    pub session: SessionId,
    pub state: TaskState,
    lease: Lease,
    /// The last call about it: an answer to an earlier one is none.
    call: u64,
    pub result: Option<u64>,
    /// Its caller was told that nothing was run.
    pub not_run: bool,
}

struct Entry {
    incarnation: Incarnation,
    state: WorkerState,
    link: u64,
    up: bool,
    /// Since when the link is down.
    down_since: u64,
}

#[derive(Default)]
pub struct Coordinator {
    /// What outlives it.
    pub sessions: BTreeMap<SessionId, Session>,
    pub tasks: BTreeMap<TaskId, Row>,
    /// What does not.
    workers: BTreeMap<usize, Entry>,
    awaited: BTreeMap<usize, (Incarnation, u64)>,
    promised: BTreeMap<SessionId, (usize, Incarnation, u64)>,
    opening_since: BTreeMap<SessionId, u64>,
    unlogged: Vec<(TaskId, u64)>,
    again: Vec<TaskId>,
    /// Sessions that a life of a worker still had processes of when it joined.
    left: BTreeMap<SessionId, Assignment>,
    /// Tasks that were given up, and whose worker was asked for them.
    resolving: BTreeSet<TaskId>,
    /// What is to be sent, each to a worker by a link.
    pub outbox: Vec<(usize, u64, Message)>,
    calls: u64,
    slots: Vec<u32>,
}

pub fn name(worker: usize) -> WorkerId {
    format!("w{worker}").parse().unwrap()
}

fn number(worker: &WorkerId) -> usize {
    worker.as_str()[1..].parse().unwrap()
}

fn seconds(now: u64) -> Duration {
    Duration::from_secs(now)
}

impl Coordinator {
    pub fn new(slots: Vec<u32>) -> Self {
        Self { slots, ..Self::default() }
    }

    /// Dies and starts again: only what is on disk is left, and is brought up.
    pub fn restart(&mut self, now: u64, ground: &mut Ground) {
        let (sessions, tasks) = (std::mem::take(&mut self.sessions), std::mem::take(&mut self.tasks));
        *self = Self { sessions, tasks, ..Self::new(std::mem::take(&mut self.slots)) };
        let until = now + TIMING.reconnect_grace.as_secs();
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let session = self.sessions.get_mut(&id).unwrap();
            session.running.clear();
            if let SessionState::Ready { lease } = &session.state {
                self.awaited.insert(number(&lease.worker), (lease.incarnation, until));
            }
            self.happen(id, &Input::ServerStarted { tie: Tie::Apart }, now, ground);
        }
        let open: Vec<(TaskId, SessionId, Lease)> = self
            .tasks
            .iter()
            .filter(|(_, row)| !row.state.is_over())
            .map(|(id, row)| (*id, row.session, row.lease.clone()))
            .collect();
        for (task, session, lease) in open {
            ground.counts.recovered += 1;
            self.awaited.insert(number(&lease.worker), (lease.incarnation, until));
            self.happen(session, &Input::TaskResumed { task, lease }, now, ground);
        }
    }

    pub fn link_of(&self, worker: usize) -> Option<u64> {
        self.workers.get(&worker).filter(|entry| entry.up).map(|entry| entry.link)
    }

    pub fn link_down(&mut self, worker: usize, now: u64) {
        if let Some(entry) = self.workers.get_mut(&worker).filter(|entry| entry.up) {
            (entry.up, entry.down_since) = (false, now);
            entry.state = entry.state.step(WorkerInput::LinkDown, seconds(now), &TIMING);
        }
    }

    pub fn heartbeat(&mut self, worker: usize, now: u64) {
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.state = entry.state.step(WorkerInput::Heartbeat, seconds(now), &TIMING);
        }
    }

    pub fn create(&mut self, id: SessionId, now: u64, ground: &mut Ground) {
        if let Some((worker, incarnation)) = self.place(None, ground) {
            self.promised.insert(id, (worker, incarnation, now + ground.random.below(3)));
        }
    }

    pub fn run(&mut self, task: TaskId, session: SessionId, now: u64, ground: &mut Ground) {
        let Some(state) = self.sessions.get(&session).map(|session| session.state.clone()) else { return };
        if let SessionState::Suspended { lease } = &state {
            let prefer = number(&lease.worker);
            if let Some((worker, incarnation)) = self.place(Some(prefer), ground) {
                self.promised.insert(session, (worker, incarnation, now + ground.random.below(3)));
            }
            return;
        }
        let SessionState::Ready { lease } = state else { return };
        if self.happen(session, &Input::TaskStarted { task }, now, ground) {
            let admitted = TaskState::admitted();
            let row = Row { session, state: admitted, lease: lease.clone(), call: 0, result: None, not_run: false };
            self.tasks.insert(task, row);
            self.dispatch(task, lease, now, ground);
        }
    }

    pub fn close(&mut self, session: SessionId, now: u64, ground: &mut Ground) {
        let lease = self.sessions.get(&session).and_then(|session| session.state.lease().cloned());
        let present = lease.and_then(|lease| Some(self.workers.get(&number(&lease.worker))?.incarnation));
        self.happen(session, &Input::CloseRequested { present }, now, ground);
    }

    pub fn idle(&mut self, session: SessionId, now: u64, ground: &mut Ground) {
        self.happen(session, &Input::IdleSweep, now, ground);
    }

    fn happen(&mut self, id: SessionId, input: &Input, now: u64, ground: &mut Ground) -> bool {
        let now_ms = i64::try_from(now * 1_000).unwrap();
        let Ok(Transition { mut next, effects, .. }) = step(self.sessions.get(&id), input, now_ms, &RULES) else {
            return false;
        };
        let mut effects = effects;
        if ground.flaw == Some(Flaw::UsesAnEpochTwice)
            && let (SessionState::Opening { lease, .. }, Some(before)) = (&mut next.state, self.sessions.get(&id))
            && let Some(before) = before.state.lease()
        {
            lease.epoch = before.epoch;
            effects = vec![Effect::Open { lease: lease.clone() }];
        }
        let was_lost = self.sessions.get(&id).is_some_and(|session| matches!(session.state, SessionState::Lost { .. }));
        ground.counts.lost_sessions += u64::from(!was_lost && matches!(next.state, SessionState::Lost { .. }));
        ground.tell(|| format!("{now}: {id} by {input:?} is {:?}", next.state));
        if let SessionState::Opening { .. } = next.state {
            self.opening_since.entry(id).or_insert(now);
        } else {
            self.opening_since.remove(&id);
        }
        self.sessions.insert(id, next);
        for effect in effects {
            match effect {
                Effect::Open { lease } => {
                    self.post(number(&lease.worker), Message::Open { session: id, lease });
                }
                Effect::EndProcesses { lease } => {
                    self.post(number(&lease.worker), Message::Close { session: id, lease, delete: false });
                }
                Effect::DeleteWorkspace { lease } => {
                    self.post(number(&lease.worker), Message::Close { session: id, lease, delete: true });
                }
                Effect::CancelTasks | Effect::Forget => {}
            }
        }
        true
    }
}
