//! What comes from workers: that they join, and what they answer.

use std::collections::BTreeSet;

use codegen_types::{ErrorCode, Incarnation, Lease, SessionId, TaskId};
use coordinator_core::session::{Assignment, Files, Input, SessionState};
use coordinator_core::task::TaskState;
use coordinator_core::worker::{WorkerInput, WorkerState};

use super::{Coordinator, Entry, TIMING, name, number, seconds};
use crate::network::{Held, Message};
use crate::world::{Flaw, Ground};

impl Coordinator {
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

    pub(super) fn joined(
        &mut self,
        worker: usize,
        incarnation: Incarnation,
        held: &[Held],
        now: u64,
        ground: &mut Ground,
    ) {
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
    pub(super) fn end_unasked(&mut self, worker: usize, at: &Assignment, held: &[Held], ground: &Ground) {
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
    pub(super) fn end_left(&mut self, now: u64, ground: &mut Ground) {
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
    pub(super) fn call_about(&mut self, task: TaskId, message: impl FnOnce(u64) -> Message) {
        self.calls += 1;
        let row = self.tasks.get_mut(&task).unwrap();
        row.call = self.calls;
        let worker = number(&row.lease.worker);
        self.post(worker, message(self.calls));
    }

    pub(super) fn post(&mut self, worker: usize, message: Message) {
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

    pub(super) fn holds(&self, session: SessionId, lease: &Lease) -> bool {
        self.sessions.get(&session).is_some_and(|session| session.state.lease() == Some(lease))
    }

    pub(super) fn answers(&self, task: TaskId, call: u64) -> bool {
        self.tasks.get(&task).is_some_and(|row| row.call == call)
    }

    pub(super) fn is_of(&self, task: TaskId, lease: &Lease) -> bool {
        self.tasks.get(&task).is_some_and(|row| row.lease.incarnation == lease.incarnation)
    }
}
