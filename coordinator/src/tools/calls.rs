//! What the tools need of the session layer.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::{EventBody, Failure, Principal, Runtime, SessionId, TaskId};
use coordinator_core::quota::Standing;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::session::{
    ChangesFollower, CreateSession, InForce, Launched, Role, SessionFollower, SessionSnapshot, TaskCall, TaskInfo,
    TaskSeen, UpdateSession,
};

/// The session layer as the tools see it: the real one in the product, a double in tests of the protocol.
///
/// Every change and every task is audited below this seam, before it is answered.
pub trait SessionCalls: Send + Sync + 'static {
    /// Makes a session and waits until it is ready, unless its key says that it was made already.
    fn create(
        &self,
        principal: Principal,
        create: CreateSession,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>>;

    /// Whether a principal used an idempotency key for a session that is being made or was.
    fn knows_creation(&self, principal: &Principal, key: &str) -> bool;

    /// The session as it was last published.
    fn get(&self, principal: &Principal, session: SessionId) -> Result<Arc<SessionSnapshot>, Failure>;

    /// What a session's worker runs programs with; nothing while it is not known.
    fn runtimes(&self, session: &SessionSnapshot) -> Vec<Runtime>;

    /// What a session reaches today of what it asked for.
    fn in_force(&self, session: &SessionSnapshot) -> InForce;

    /// The sessions that a principal may see, oldest first.
    fn list(&self, principal: &Principal, include_closed: bool) -> Vec<Arc<SessionSnapshot>>;

    /// What a principal may use, uses and has used today.
    fn standing(&self, principal: &Principal) -> Standing;

    /// Changes a session's description.
    fn update(
        &self,
        principal: Principal,
        session: SessionId,
        update: UpdateSession,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>>;

    /// Shares a session with another principal.
    fn share(
        &self,
        principal: Principal,
        session: SessionId,
        with: Principal,
        role: Role,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>>;

    /// Shares a session with a principal no longer.
    fn unshare(
        &self,
        principal: Principal,
        session: SessionId,
        with: Principal,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>>;

    /// Ends a session for good.
    fn close(&self, principal: Principal, session: SessionId) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>>;

    /// Sets a task going. Cancelling `cancel` ends the task, which still has its outcome.
    fn launch(
        &self,
        call: TaskCall,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Launched>;

    /// Whether a principal used an idempotency key in a session for a task that runs, or whose outcome is kept.
    fn knows_key<'a>(&'a self, principal: &'a Principal, session: SessionId, key: &'a str) -> BoxFuture<'a, bool>;

    /// A task with its output so far, or its outcome. A foreign one is not found, like one that never was.
    fn task(&self, principal: Principal, task: TaskId) -> BoxFuture<'_, Result<TaskSeen, Failure>>;

    /// The tasks of a session, or the principal's own in all, the newest first, at most so many.
    fn tasks(
        &self,
        principal: Principal,
        session: Option<SessionId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<TaskInfo>, Failure>>;

    /// As [`task`](Self::task) gives it once it has ended, or after so long.
    fn wait(&self, principal: Principal, task: TaskId, timeout: Duration) -> BoxFuture<'_, Result<TaskSeen, Failure>>;

    /// Asks a running task to end; one that has ended stays as it is.
    fn cancel_task(&self, principal: Principal, task: TaskId) -> BoxFuture<'_, Result<(), Failure>>;

    /// Follows what runs in a session from now on, for as long as the principal may read it.
    fn follow_session(&self, principal: &Principal, session: SessionId) -> Result<SessionFollower, Failure>;

    /// Follows what changes in workspaces from now on, in everybody's: whoever follows sorts out what is theirs.
    fn changes(&self) -> ChangesFollower;
}
