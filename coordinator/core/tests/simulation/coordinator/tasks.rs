//! Tasks: sent, told of, and over.

use codegen_types::{ErrorCode, Lease, TaskId};
use coordinator_core::session::{Input, SessionState};
use coordinator_core::task::{TaskInput, TaskState, is_misplacement};

use super::{Coordinator, number};
use crate::network::Message;
use crate::world::{Flaw, Ground};

impl Coordinator {
    pub(super) fn dispatch(&mut self, task: TaskId, lease: Lease, now: u64, ground: &mut Ground) {
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

    pub(super) fn task(&mut self, task: TaskId, input: &TaskInput) -> bool {
        let Some(row) = self.tasks.get_mut(&task) else { return false };
        let Ok(next) = row.state.step(input) else { return false };
        row.state = next;
        true
    }

    pub(super) fn not_started(&mut self, task: TaskId, code: ErrorCode, now: u64, ground: &mut Ground) {
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

    pub(super) fn outcome_lost(&mut self, task: TaskId, now: u64, ground: &mut Ground) {
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

    pub(super) fn ended(&mut self, task: TaskId, now: u64, ground: &mut Ground) {
        let session = self.tasks[&task].session;
        self.happen(session, &Input::TaskEnded { task }, now, ground);
    }

    pub(super) fn learnt(&mut self, task: TaskId, result: u64, now: u64, ground: &mut Ground) {
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
}
