//! Scaffolding until sessions are there.
use crate::session::*;
use crate::tools::SessionCalls;
use codegen_types::*;
use futures::future::BoxFuture;
use std::sync::Arc;
pub struct NoSessions;
fn no<T>() -> Result<T, Failure> {
    Err(Failure::new(ErrorCode::NoCapacity, "none"))
}
impl SessionCalls for NoSessions {
    fn create(&self, _: Principal, _: CreateSession) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        Box::pin(async { no() })
    }
    fn get(&self, _: &Principal, _: SessionId) -> Result<Arc<SessionSnapshot>, Failure> {
        no()
    }
    fn list(&self, _: &Principal, _: bool) -> Vec<Arc<SessionSnapshot>> {
        vec![]
    }
    fn update(
        &self,
        _: Principal,
        _: SessionId,
        _: UpdateSession,
    ) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        Box::pin(async { no() })
    }
    fn close(&self, _: Principal, _: SessionId) -> BoxFuture<'_, Result<Arc<SessionSnapshot>, Failure>> {
        Box::pin(async { no() })
    }
    fn run(
        &self,
        call: TaskCall,
        _: tokio::sync::mpsc::Sender<EventBody>,
        _: tokio_util::sync::CancellationToken,
    ) -> BoxFuture<'_, TaskOutcome> {
        Box::pin(async move {
            TaskOutcome { task: call.task, result: no(), partial: None, audit_seq: None, replayed: false }
        })
    }
}
