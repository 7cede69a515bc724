//! What becomes of the workers, told to the sessions.

use std::collections::{HashSet, VecDeque};

use codegen_types::{HeldSession, Incarnation, SessionId, WorkerId};
use coordinator_core::session::{Assignment, Files, Input};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::call::SessionSnapshot;
use super::recovery::{look_at, strangers, tie};
use super::service::Sessions;
use crate::workers::WorkerEvent;

/// Lives that are remembered after their end. Making a session takes no longer than so many workers take to end.
const ENDED_MAX: usize = 1_024;

/// Lives of workers that ended lately: a session that was being made there just then has not heard of it.
#[derive(Default)]
pub(super) struct EndedLives(Mutex<VecDeque<Incarnation>>);

impl EndedLives {
    fn note(&self, life: Incarnation) {
        let mut lives = self.0.lock();
        if lives.len() == ENDED_MAX {
            lives.pop_front();
        }
        lives.push_back(life);
    }

    /// It has joined again: a life that was ended since nothing was heard of it, or since its token was revoked.
    fn forget(&self, life: Incarnation) {
        self.0.lock().retain(|ended| *ended != life);
    }

    fn has(&self, life: Incarnation) -> bool {
        self.0.lock().contains(&life)
    }
}

impl Sessions {
    /// Follows what becomes of the workers, until the process stops. No session holds it up: each hears what concerns it
    /// when it can.
    pub async fn follow(self, mut events: mpsc::Receiver<WorkerEvent>) {
        let stopping = self.shared.supervisor.token();
        while let Some(Some(event)) = stopping.run_until_cancelled(events.recv()).await {
            match event {
                WorkerEvent::Joined { worker, incarnation, held, held_is_partial } => {
                    self.joined(worker, incarnation, held, held_is_partial);
                }
                WorkerEvent::Gone { worker, incarnation } => self.gone(worker, incarnation),
            }
        }
    }

    fn joined(&self, worker: WorkerId, incarnation: Incarnation, held: Vec<HeldSession>, held_is_partial: bool) {
        self.shared.ended.forget(incarnation);
        self.shared.workers.write().insert(worker.clone(), incarnation);
        let kept: HashSet<SessionId> = held.iter().map(|held| held.session).collect();
        let at = Assignment { worker, incarnation };
        // Before anything changes by what is told now.
        let strangers = strangers(&self.shared, &held);
        for entry in self.shared.table.of_worker(&at.worker) {
            let may_have = held_is_partial || kept.contains(&entry.snapshot.id);
            let files = if may_have { Files::Kept } else { Files::Missing };
            entry.news.tell(Input::WorkerJoined { at: at.clone(), files });
        }
        look_at(&self.shared, at, held, strangers);
    }

    fn gone(&self, worker: WorkerId, incarnation: Incarnation) {
        self.shared.workers.write().retain(|id, life| *id != worker || *life != incarnation);
        // Before the table is looked at: a session that comes into it afterwards looks here.
        self.shared.ended.note(incarnation);
        let tie = tie(&worker);
        let at = Assignment { worker, incarnation };
        for entry in self.shared.table.of_worker(&at.worker) {
            entry.news.tell(Input::WorkerGone { at: at.clone(), tie });
        }
    }

    /// Lets a session that has just come into the table know that its worker's life ended while it was made.
    pub(super) fn tell_if_over(&self, made: &SessionSnapshot) {
        let Some(lease) = made.lease.as_ref().filter(|lease| self.shared.ended.has(lease.incarnation)) else { return };
        if let Some(entry) = self.shared.table.get(made.id) {
            let at = Assignment { worker: lease.worker.clone(), incarnation: lease.incarnation };
            entry.news.tell(Input::WorkerGone { at, tie: tie(&lease.worker) });
        }
    }
}
