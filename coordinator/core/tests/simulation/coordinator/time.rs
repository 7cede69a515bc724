//! What comes about by time alone.

use codegen_types::{Incarnation, SessionId, TaskId};
use coordinator_core::session::{Assignment, Input, SessionState, Tie};
use coordinator_core::task::TaskState;
use coordinator_core::worker::{WorkerInput, WorkerState};

use super::{Coordinator, OPENING_MAX, Row, TIMING, name, seconds};
use crate::network::Message;
use crate::world::Ground;

impl Coordinator {
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

    pub(super) fn give_up(&mut self, life: Incarnation, now: u64, ground: &mut Ground) {
        let lost = |row: &Row| !row.state.is_over() && row.lease.incarnation == life;
        let lost: Vec<TaskId> = self.tasks.iter().filter(|(_, row)| lost(row)).map(|(id, _)| *id).collect();
        for task in lost {
            self.outcome_lost(task, now, ground);
        }
    }

    pub(super) fn gone(&mut self, worker: usize, life: Incarnation, now: u64, ground: &mut Ground) {
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

    pub(super) fn open_promised(&mut self, now: u64, ground: &mut Ground) {
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

    pub(super) fn give_up_openings(&mut self, now: u64, ground: &mut Ground) {
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

    pub(super) fn run_again(&mut self, task: TaskId) {
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
}
