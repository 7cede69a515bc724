//! What an owner does after a step was recorded, stored and published.

use codegen_types::{Epoch, Failure, Lease};
use coordinator_core::session::{Assignment, Effect, Files, Input, SessionState};

use super::Owner;
use crate::workers::Closed;

impl Owner {
    /// Does what a step asks for; gives what then happened to the session.
    pub(super) async fn carry_out(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Open { lease } => Some(self.open(lease).await),
            Effect::EndProcesses { lease } => {
                let ended = self.ask_to_close(lease, false).await;
                self.left_over = ended.is_none();
                if let Some(bytes) = ended {
                    self.note_size(bytes).await;
                }
                None
            }
            Effect::DeleteWorkspace { lease } => {
                let Some(_) = self.ask_to_close(lease, true).await else { return Some(Input::CloseFailed) };
                self.row.workspace_bytes = Some(0);
                Some(Input::CloseDone)
            }
            Effect::CancelTasks => {
                self.running.values().for_each(|running| running.cancel.cancel());
                None
            }
            Effect::Forget => {
                self.forget().await;
                None
            }
        }
    }

    /// Asks once more for what its worker did not answer, or said itself. Tasks that were given up may still end there
    /// and be heard: their processes are theirs until then.
    pub(super) async fn end_left(&mut self) {
        let (SessionState::Suspended { lease } | SessionState::Lost { lease, .. }) = &self.session.state else {
            return;
        };
        let (worker, incarnation) = (lease.worker.clone(), lease.incarnation);
        // What another life of it has is another matter, and one that comes back says what it has.
        self.left_over &= self.shared.present(&worker) == Some(incarnation);
        if self.left_over && !self.shared.resolving.has_of(self.row.id) {
            self.happened(&Input::ProcessesLeft { at: Assignment { worker, incarnation } }).await;
        }
    }

    async fn open(&mut self, lease: Lease) -> Input {
        let epoch = lease.epoch;
        self.told = None;
        match self.open_on_worker(lease).await {
            Ok(opened) => {
                self.row.isolation = Some(opened.isolation);
                self.open_failure = None;
                self.left_over = false;
                let files = if opened.workspace_created { Files::Missing } else { Files::Kept };
                Input::Opened { epoch, files }
            }
            Err(failure) => self.not_opened(epoch, failure),
        }
    }

    fn not_opened(&mut self, epoch: Epoch, failure: Failure) -> Input {
        tracing::warn!(session = %self.row.id, %failure, "a session could not be opened");
        self.open_failure = Some(failure);
        Input::OpenFailed { epoch }
    }

    /// Gives the bytes that the workspace takes then, if the worker did as it was asked.
    async fn ask_to_close(&mut self, lease: Lease, delete_workspace: bool) -> Option<u64> {
        match self.shared.fleet.close(self.row.id, lease, delete_workspace).await {
            Ok(Closed { workspace_bytes, contacts }) => {
                self.note_contacts(&contacts).await;
                Some(workspace_bytes)
            }
            Err(failure) => {
                tracing::warn!(session = %self.row.id, delete_workspace, %failure, "a session could not be closed on its worker");
                None
            }
        }
    }

    /// Keeps what the workspace takes. A worker's word counts up to what a session may hold: one that makes it up must
    /// not cost the sessions of others their files.
    async fn note_size(&mut self, bytes: u64) {
        self.row.workspace_bytes = Some(bytes.min(self.shared.options.limits.workspace_bytes));
        self.write().await;
        self.shared.table.publish(self.snapshot());
    }

    async fn forget(&mut self) {
        match self.shared.sessions.remove_session(self.row.id, self.row.revision).await {
            Ok(()) => self.forgotten = true,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(session = %self.row.id, error, "a session could not be forgotten");
            }
        }
    }
}
