//! The coordinator's side: every decision is `coordinator-core`'s; this carries them out over the network, and keeps
//! what a log and a store would keep when it dies.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use codegen_types::{ErrorCode, Incarnation, IsolationLevel, Lease, SessionId, TaskId, WorkerId};
use coordinator_core::placement::{Capabilities, Requirements, Slots, Trust, WorkerView, place, reopen};
use coordinator_core::session::{
    Assignment, Effect, Files, Input, Rules, Session, SessionState, Tie, Transition, step,
};
use coordinator_core::task::{TaskInput, TaskState, is_misplacement};
use coordinator_core::worker::{Admittance, Timing, WorkerInput, WorkerState};

use crate::network::{Held, Message};
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

    // ---- what clients do

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

    // ---- tasks

    fn dispatch(&mut self, task: TaskId, lease: Lease, now: u64, ground: &mut Ground) {
        let (worker, session) = (number(&lease.worker), self.tasks[&task].session);
        self.task(task, &TaskInput::Dispatch { lease: lease.clone() });
        self.tasks.get_mut(&task).unwrap().lease = lease.clone();
        let is_there =
            self.workers.get(&worker).is_some_and(|entry| entry.up && entry.incarnation == lease.incarnation);
        if is_there {
            self.call_about(task, |call| Message::Execute { task, call, session, lease });
        } else {
            self.not_started(task, ErrorCode::WorkerUnavailable, now, ground);
        }
    }

    fn task(&mut self, task: TaskId, input: &TaskInput) -> bool {
        let Some(row) = self.tasks.get_mut(&task) else { return false };
        let Ok(next) = row.state.step(input) else { return false };
        row.state = next;
        true
    }

    fn not_started(&mut self, task: TaskId, code: ErrorCode, now: u64, ground: &mut Ground) {
        if !self.task(task, &TaskInput::NotStarted { code }) {
            return;
        }
        let session = self.tasks[&task].session;
        let present = self.sessions.get(&session).map(|session| session.state.clone());
        if let (TaskState::Queued { .. }, Some(SessionState::Ready { lease })) = (&self.tasks[&task].state, present)
            && is_misplacement(code)
        {
            return self.dispatch(task, lease, now, ground);
        }
        self.task(task, &TaskInput::Failed { code });
        self.tasks.get_mut(&task).unwrap().not_run = true;
        self.ended(task, now, ground);
    }

    fn outcome_lost(&mut self, task: TaskId, now: u64, ground: &mut Ground) {
        match ground.flaw {
            Some(Flaw::RunsAgain) => self.again.push(task),
            Some(Flaw::CallsUnknownNotRun) => {
                self.task(task, &TaskInput::Failed { code: ErrorCode::WorkerUnavailable });
                self.tasks.get_mut(&task).unwrap().not_run = true;
            }
            _ if self.task(task, &TaskInput::OutcomeLost) => ground.counts.unknown += 1,
            _ => {}
        }
        self.ended(task, now, ground);
    }

    fn ended(&mut self, task: TaskId, now: u64, ground: &mut Ground) {
        let session = self.tasks[&task].session;
        self.happen(session, &Input::TaskEnded { task }, now, ground);
    }

    fn learnt(&mut self, task: TaskId, result: u64, now: u64, ground: &mut Ground) {
        let resolves = matches!(self.tasks[&task].state, TaskState::Unknown { .. });
        let input = if resolves { TaskInput::Resolved { code: None } } else { TaskInput::Finished };
        if self.task(task, &input) {
            self.tasks.get_mut(&task).unwrap().result = Some(result);
            ground.acknowledged.insert(task, result);
            ground.counts.resolved += u64::from(resolves);
            ground.counts.finished += 1;
            self.ended(task, now, ground);
        }
    }

    // ---- what comes

    /// A worker registers by a link; false when it is not let in.
    pub fn register(
        &mut self,
        worker: usize,
        link: u64,
        (incarnation, held): (Incarnation, Vec<Held>),
        now: u64,
        ground: &mut Ground,
    ) -> bool {
        match self.workers.get(&worker).map(|entry| (entry.incarnation, entry.link)) {
            Some((life, known)) if life == incarnation && link <= known => return false,
            Some((life, _)) if life != incarnation => self.gone(worker, life, now, ground),
            Some(_) | None => {}
        }
        if let Some((life, _)) = self.awaited.remove(&worker)
            && life != incarnation
        {
            self.gone(worker, life, now, ground);
        }
        let joined = WorkerState::joined(seconds(now));
        let entry =
            self.workers.entry(worker).or_insert(Entry { incarnation, state: joined, link, up: true, down_since: 0 });
        (entry.link, entry.up) = (link, true);
        let heard = entry.state.step(WorkerInput::Heartbeat, seconds(now), &TIMING);
        entry.state = heard.step(WorkerInput::LinkUp, seconds(now), &TIMING);
        self.joined(worker, incarnation, &held, now, ground);
        true
    }

    fn joined(&mut self, worker: usize, incarnation: Incarnation, held: &[Held], now: u64, ground: &mut Ground) {
        let at = Assignment { worker: name(worker), incarnation };
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let files = if held.iter().any(|held| held.session == id) { Files::Kept } else { Files::Missing };
            self.happen(id, &Input::WorkerJoined { at: at.clone(), files }, now, ground);
            // What was asked for on the link before is asked for again.
            if let SessionState::Opening { lease, .. } = &self.sessions[&id].state
                && lease.incarnation == incarnation
            {
                let lease = lease.clone();
                self.post(worker, Message::Open { session: id, lease });
            }
        }
        let offered: BTreeSet<TaskId> = held.iter().flat_map(|held| held.tasks.iter().copied()).collect();
        let mut asked = Vec::new();
        for (task, row) in &self.tasks {
            let asks = match &row.state {
                TaskState::Dispatched { .. } | TaskState::Running { .. } => true,
                TaskState::Unknown { .. } => offered.contains(task),
                TaskState::Queued { .. } | TaskState::Finished | TaskState::Failed { .. } => false,
            };
            if asks && row.lease.incarnation == incarnation {
                let present = self.sessions.get(&row.session).and_then(|session| session.state.lease());
                let present = present.filter(|lease| lease.incarnation == incarnation && row.state.is_over());
                let lease = present.unwrap_or(&row.lease).clone();
                asked.push((*task, row.session, lease));
            }
        }
        self.resolving.retain(|task| self.tasks[task].lease.incarnation != incarnation);
        for (task, session, lease) in asked {
            if self.tasks[&task].state.is_over() {
                self.resolving.insert(task);
            }
            self.call_about(task, |call| Message::Attach { task, call, session, lease });
        }
        self.end_unasked(worker, &at, held, ground);
    }

    /// Has a worker end what it goes on with unasked.
    fn end_unasked(&mut self, worker: usize, at: &Assignment, held: &[Held], ground: &Ground) {
        for Held { session, epoch, open, .. } in held {
            let is_closed = self.sessions.get(session).is_some_and(|s| matches!(s.state, SessionState::Closed { .. }));
            if is_closed && ground.flaw != Some(Flaw::ForgetsTheClosed) {
                self.post(worker, Message::Close { session: *session, lease: at.lease(*epoch), delete: true });
            } else if *open && ground.flaw != Some(Flaw::LeavesProcesses) {
                self.left.insert(*session, at.clone());
            }
        }
    }

    /// What is at rest ends its processes, once none of its tasks is waited for any more.
    fn end_left(&mut self, now: u64, ground: &mut Ground) {
        let waits = |session: &SessionId| self.resolving.iter().any(|task| self.tasks[task].session == *session);
        let due: Vec<SessionId> = self.left.keys().filter(|session| !waits(session)).copied().collect();
        for session in due {
            let at = self.left[&session].clone();
            let is_present = |entry: &Entry| entry.incarnation == at.incarnation;
            let is_busy = !self.sessions[&session].running.is_empty();
            if !self.workers.get(&number(&at.worker)).is_some_and(is_present)
                || self.happen(session, &Input::ProcessesLeft { at }, now, ground)
                || !is_busy
            {
                self.left.remove(&session);
            }
        }
    }

    /// Calls the worker that has the task, or had it, by its present link.
    fn call_about(&mut self, task: TaskId, message: impl FnOnce(u64) -> Message) {
        self.calls += 1;
        let row = self.tasks.get_mut(&task).unwrap();
        row.call = self.calls;
        let worker = number(&row.lease.worker);
        self.post(worker, message(self.calls));
    }

    fn post(&mut self, worker: usize, message: Message) {
        if let Some(link) = self.link_of(worker) {
            self.outbox.push((worker, link, message));
        }
    }

    pub fn take(&mut self, worker: usize, message: Message, now: u64, ground: &mut Ground) {
        if let Message::Ended { task, .. } | Message::NotStarted { task, .. } | Message::NotTold { task, .. } = &message
        {
            self.resolving.remove(task);
        }
        match message {
            Message::Opened { session, lease, created } => {
                let files = if created { Files::Missing } else { Files::Kept };
                if self.holds(session, &lease) {
                    self.happen(session, &Input::Opened { epoch: lease.epoch, files }, now, ground);
                }
            }
            Message::NotOpened { session, lease } if self.holds(session, &lease) => {
                self.happen(session, &Input::OpenFailed { epoch: lease.epoch }, now, ground);
            }
            Message::Deleted { session, lease } if self.holds(session, &lease) => {
                self.happen(session, &Input::CloseDone, now, ground);
            }
            Message::Ended { task, lease, result } if self.is_of(task, &lease) => {
                if ground.flaw == Some(Flaw::AnswersBeforeTheLog) {
                    ground.acknowledged.insert(task, result);
                    self.unlogged.push((task, result));
                } else {
                    self.learnt(task, result, now, ground);
                }
            }
            Message::NotStarted { task, call, lease } if self.answers(task, call) => {
                let at = Assignment { worker: name(worker), incarnation: lease.incarnation };
                let session = self.tasks[&task].session;
                if self.sessions[&session].running.len() < 2 && ground.random.one_in(2) {
                    self.happen(session, &Input::Misplaced { at: at.clone() }, now, ground);
                    self.left.insert(session, at);
                }
                self.not_started(task, ErrorCode::SessionNotFound, now, ground);
            }
            Message::NotTold { task, call } if self.answers(task, call) && !self.tasks[&task].state.is_over() => {
                self.outcome_lost(task, now, ground);
            }
            _ => {}
        }
    }

    fn holds(&self, session: SessionId, lease: &Lease) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.state.lease() == Some(lease))
    }

    fn answers(&self, task: TaskId, call: u64) -> bool {
        self.tasks.get(&task).is_some_and(|row| row.call == call)
    }

    fn is_of(&self, task: TaskId, lease: &Lease) -> bool {
        self.tasks.get(&task).is_some_and(|row| row.lease.incarnation == lease.incarnation)
    }

    // ---- time

    pub fn tick(&mut self, now: u64, ground: &mut Ground) {
        // Only a flaw leaves anything here.
        let written = if now.is_multiple_of(8) { std::mem::take(&mut self.unlogged) } else { Vec::new() };
        for (task, result) in written {
            self.learnt(task, result, now, ground);
        }
        let numbers: Vec<usize> = self.workers.keys().copied().collect();
        for worker in numbers {
            let entry = self.workers.get_mut(&worker).unwrap();
            entry.state = entry.state.step(WorkerInput::Tick, seconds(now), &TIMING);
            let (life, is_gone) = (entry.incarnation, matches!(entry.state, WorkerState::Gone { .. }));
            let is_late = !entry.up && now - entry.down_since > TIMING.reconnect_grace.as_secs();
            if is_gone {
                self.gone(worker, life, now, ground);
            } else if is_late {
                self.give_up(life, now, ground);
            }
        }
        let overdue =
            self.awaited.iter().find(|(_, (_, until))| now > *until).map(|(worker, (life, _))| (*worker, *life));
        if let Some((worker, life)) = overdue {
            self.awaited.remove(&worker);
            self.gone(worker, life, now, ground);
        }
        self.end_left(now, ground);
        self.open_promised(now, ground);
        self.give_up_openings(now, ground);
        for task in std::mem::take(&mut self.again) {
            self.run_again(task);
        }
    }

    fn give_up(&mut self, life: Incarnation, now: u64, ground: &mut Ground) {
        let lost = |row: &Row| !row.state.is_over() && row.lease.incarnation == life;
        let lost: Vec<TaskId> = self.tasks.iter().filter(|(_, row)| lost(row)).map(|(id, _)| *id).collect();
        for task in lost {
            self.outcome_lost(task, now, ground);
        }
    }

    fn gone(&mut self, worker: usize, life: Incarnation, now: u64, ground: &mut Ground) {
        if self.workers.get(&worker).is_some_and(|entry| entry.incarnation == life) {
            self.workers.remove(&worker);
        }
        let at = Assignment { worker: name(worker), incarnation: life };
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            self.happen(id, &Input::WorkerGone { at: at.clone(), tie: Tie::Apart }, now, ground);
        }
        self.give_up(life, now, ground);
        self.resolving.retain(|task| self.tasks[task].lease.incarnation != life);
    }

    fn open_promised(&mut self, now: u64, ground: &mut Ground) {
        let due: Vec<SessionId> =
            self.promised.iter().filter(|(_, (_, _, at))| *at <= now).map(|(session, _)| *session).collect();
        for session in due {
            let (worker, incarnation, _) = self.promised.remove(&session).unwrap();
            let at = Assignment { worker: name(worker), incarnation };
            let input = match self.sessions.get(&session) {
                None => Input::Create { at, ttl_ms: 60_000 },
                Some(_) => {
                    ground.counts.reopened += 1;
                    Input::Reopen { at }
                }
            };
            self.happen(session, &input, now, ground);
        }
    }

    fn give_up_openings(&mut self, now: u64, ground: &mut Ground) {
        let late: Vec<SessionId> =
            self.opening_since.iter().filter(|(_, since)| now - **since > OPENING_MAX).map(|(id, _)| *id).collect();
        for session in late {
            if let SessionState::Opening { lease, .. } = &self.sessions[&session].state {
                let epoch = lease.epoch;
                self.happen(session, &Input::OpenFailed { epoch }, now, ground);
            }
            self.opening_since.remove(&session);
        }
    }

    fn run_again(&mut self, task: TaskId) {
        let row = self.tasks.get_mut(&task).unwrap();
        let session = row.session;
        match &self.sessions[&session].state {
            SessionState::Ready { lease } if *lease != row.lease => {
                row.lease = lease.clone();
                row.state = TaskState::Dispatched { lease: lease.clone(), placements: 1 };
                let lease = lease.clone();
                self.call_about(task, |call| Message::Execute { task, call, session, lease });
            }
            _ => self.again.push(task),
        }
    }

    // ---- decisions

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

    /// The slots of a life of a worker that are taken, and promised.
    fn taken(&self, worker: usize, incarnation: Incarnation) -> (u32, u32) {
        let holds = |session: &&Session| match &session.state {
            SessionState::Opening { lease, .. } | SessionState::Ready { lease } => lease.incarnation == incarnation,
            SessionState::Suspended { .. }
            | SessionState::Lost { .. }
            | SessionState::Closing { .. }
            | SessionState::Closed { .. } => false,
        };
        let used = self.sessions.values().filter(holds).count();
        let promised = self.promised.values().filter(|(at, life, _)| (*at, *life) == (worker, incarnation)).count();
        (u32::try_from(used).unwrap(), u32::try_from(promised).unwrap())
    }

    /// A worker that has more than it can, if one has.
    pub fn overbooked(&self) -> Option<usize> {
        let is_over = |(worker, entry): (&usize, &Entry)| {
            let (used, promised) = self.taken(*worker, entry.incarnation);
            (used + promised > self.slots[*worker]).then_some(*worker)
        };
        self.workers.iter().find_map(is_over)
    }

    fn place(&self, prefer: Option<usize>, ground: &Ground) -> Option<(usize, Incarnation)> {
        let capabilities = Capabilities {
            isolation: IsolationLevel::Full,
            runtimes: BTreeSet::new(),
            labels: BTreeMap::new(),
            trust: Trust::Sessions,
        };
        let requirements = Requirements {
            isolation_minimum: IsolationLevel::Full,
            runtimes: Vec::new(),
            labels: BTreeMap::new(),
            trust: Trust::Sessions,
        };
        let names: Vec<WorkerId> = (0..self.slots.len()).map(name).collect();
        let view = |(worker, entry): (&usize, &Entry)| {
            let (used, promised) = self.taken(*worker, entry.incarnation);
            let reserved = if ground.flaw == Some(Flaw::ForgetsReservations) { 0 } else { promised };
            WorkerView {
                id: &names[*worker],
                incarnation: entry.incarnation,
                status: entry.state.status(),
                admittance: Admittance::Open,
                capabilities: &capabilities,
                slots: Slots { total: self.slots[*worker], used, reserved },
            }
        };
        let views: Vec<WorkerView<'_>> = self.workers.iter().map(view).collect();
        let chosen = match prefer.map(name) {
            Some(preferred) => {
                let view = *views.iter().find(|view| *view.id == preferred)?;
                reopen(&requirements, &view).ok()?;
                view
            }
            None => place(&requirements, views.iter().copied()).ok()?,
        };
        Some((number(chosen.id), chosen.incarnation))
    }
}
