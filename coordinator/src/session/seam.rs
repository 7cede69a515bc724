//! The session layer as the tools see it.

use std::sync::Arc;
use std::time::Duration;

use codegen_types::{EventBody, Failure, Principal, Runtime, SessionId, TaskId};
use coordinator_core::egress::InForce;
use coordinator_core::quota::Standing;
use coordinator_core::session::Role;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::call::{CreateSession, SessionSnapshot, TaskCall, UpdateSession};
use super::changes::ChangesFollower;
use super::live::SessionFollower;
use super::seen::{Launched, TaskInfo, TaskSeen};
use super::service::Sessions;
use crate::tools::SessionCalls;

impl SessionCalls for Sessions {
    fn create(
        &self,
        principal: Principal,
        create: CreateSession,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        Box::pin(async move { Self::create(self, &principal, create).await })
    }

    fn knows_creation(&self, principal: &Principal, key: &str) -> bool {
        Self::knows_creation(self, principal, key)
    }

    fn get(&self, principal: &Principal, session: SessionId) -> Result<Arc<SessionSnapshot>, Failure> {
        Self::get(self, principal, session)
    }

    fn runtimes(&self, session: &SessionSnapshot) -> Vec<Runtime> {
        Self::runtimes(self, session)
    }

    fn in_force(&self, session: &SessionSnapshot) -> InForce {
        Self::in_force(self, session)
    }

    fn list(&self, principal: &Principal, include_closed: bool) -> Vec<Arc<SessionSnapshot>> {
        Self::list(self, principal, include_closed)
    }

    fn standing(&self, principal: &Principal) -> Standing {
        Self::standing(self, principal)
    }

    fn update(
        &self,
        principal: Principal,
        session: SessionId,
        update: UpdateSession,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        Box::pin(async move { Self::update(self, &principal, session, update).await })
    }

    fn share(
        &self,
        principal: Principal,
        session: SessionId,
        with: Principal,
        role: Role,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        Box::pin(async move { Self::share(self, &principal, session, with, role).await })
    }

    fn unshare(
        &self,
        principal: Principal,
        session: SessionId,
        with: Principal,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        Box::pin(async move { Self::unshare(self, &principal, session, with).await })
    }

    fn close(&self, principal: Principal, session: SessionId) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        Box::pin(async move { Self::close(self, &principal, session).await })
    }

    fn launch(
        &self,
        call: TaskCall,
        events: mpsc::Sender<EventBody>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Launched> {
        Box::pin(Self::launch(self, call, events, cancel))
    }

    fn knows_key<'a>(&'a self, principal: &'a Principal, session: SessionId, key: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(Self::knows_key(self, principal, session, key))
    }

    fn task(&self, principal: Principal, task: TaskId) -> BoxFuture<'_, Result<TaskSeen, Failure>> {
        Box::pin(async move { Self::task(self, &principal, task).await })
    }

    fn tasks(
        &self,
        principal: Principal,
        session: Option<SessionId>,
        limit: u32,
    ) -> BoxFuture<'_, Result<Vec<TaskInfo>, Failure>> {
        Box::pin(async move { Self::tasks(self, &principal, session, limit).await })
    }

    fn wait(&self, principal: Principal, task: TaskId, timeout: Duration) -> BoxFuture<'_, Result<TaskSeen, Failure>> {
        Box::pin(async move { Self::wait(self, &principal, task, timeout).await })
    }

    fn cancel_task(&self, principal: Principal, task: TaskId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move { Self::cancel_task(self, &principal, task).await })
    }

    fn follow_session(&self, principal: &Principal, session: SessionId) -> Result<SessionFollower, Failure> {
        Self::follow_session(self, principal, session)
    }

    fn changes(&self) -> ChangesFollower {
        Self::changes(self)
    }
}
