//! What becomes of the workers, told to the sessions.

use codegen_types::{HeldSession, Incarnation, SessionId, WorkerId};
use coordinator_core::session::{Assignment, Files, Input};
use std::collections::HashSet;
use tokio::sync::mpsc;

use super::owner::Message;
use super::recovery::{follow_offers, tie};
use super::service::Sessions;
use crate::workers::WorkerEvent;

impl Sessions {
    /// Follows what becomes of the workers, until the process stops.
    pub async fn follow(self, mut events: mpsc::Receiver<WorkerEvent>) {
        let stopping = self.shared.supervisor.token();
        while let Some(Some(event)) = stopping.run_until_cancelled(events.recv()).await {
            match event {
                WorkerEvent::Joined { worker, incarnation, held } => self.joined(worker, incarnation, &held).await,
                WorkerEvent::Gone { worker, incarnation } => self.gone(worker, incarnation).await,
            }
        }
    }

    async fn joined(&self, worker: WorkerId, incarnation: Incarnation, held: &[HeldSession]) {
        self.shared.workers.write().insert(worker.clone(), incarnation);
        let kept: HashSet<SessionId> = held.iter().map(|held| held.session).collect();
        let at = Assignment { worker, incarnation };
        self.tell_all(|session| {
            let files = if kept.contains(&session) { Files::Kept } else { Files::Missing };
            Input::WorkerJoined { at: at.clone(), files }
        })
        .await;
        follow_offers(&self.shared, &at.worker, incarnation, held);
    }

    async fn gone(&self, worker: WorkerId, incarnation: Incarnation) {
        self.shared.workers.write().retain(|id, life| *id != worker || *life != incarnation);
        let tie = tie(&worker);
        let at = Assignment { worker, incarnation };
        self.tell_all(|_| Input::WorkerGone { at: at.clone(), tie }).await;
    }

    async fn tell_all(&self, input: impl Fn(SessionId) -> Input) {
        for entry in self.shared.table.all() {
            let input = input(entry.snapshot.id);
            // An owner that is gone has no session any more.
            let _ = entry.owner.send(Message::Happened { input }).await;
        }
    }
}
