//! What the tools need of the session layer.

use std::sync::Arc;

use codegen_types::{EventBody, Failure, Principal, SessionId};
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::session::{CreateSession, SessionSnapshot, TaskCall, TaskOutcome, UpdateSession};

/// The session layer as the tools see it: the real one in the product, a double in tests of the protocol.
///
/// Every change and every task is audited below this seam, before it is answered.
pub trait SessionCalls: Send + Sync + 'static {
    /// Makes a session and waits until it is ready.
    fn create(
        &self,
        principal: Principal,
        create: CreateSession,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>>;

    /// The session as it was last published.
    fn get(&self, principal: &Principal, session: SessionId) -> Result<Arc<SessionSnapshot>, Failure>;

    /// The principal's sessions, oldest first.
    fn list(&self, principal: &Principal, include_closed: bool) -> Vec<Arc<SessionSnapshot>>;

    /// Changes a session's description.
    fn update(
        &self,
        principal: Principal,
        session: SessionId,
        update: UpdateSession,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>>;

    /// Ends a session for good.
    fn close(&self, principal: Principal, session: SessionId) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>>;

    /// Runs a task to its end. Cancelling `cancel` ends the task and still waits for its outcome.
    fn run(
        &self,
        call: TaskCall,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, TaskOutcome>;
}
