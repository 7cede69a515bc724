//! Answers every call on sessions with a refusal, for as long as the session layer is not part of the assembly.

use std::sync::Arc;

use codegen_types::{ErrorCode, EventBody, Failure, Principal, SessionId};
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::session::{CreateSession, SessionSnapshot, TaskCall, TaskOutcome, UpdateSession};
use crate::tools::SessionCalls;

pub(super) struct NoSessions;

type Answer = Result<Arc<SessionSnapshot>, Failure>;

fn refused<T>() -> Result<T, Failure> {
    Err(Failure::new(ErrorCode::NoCapacity, "this server runs no sessions"))
}

impl SessionCalls for NoSessions {
    fn create(&self, _: Principal, _: CreateSession) -> BoxFuture<'_, Answer> {
        Box::pin(async { refused() })
    }

    fn get(&self, _: &Principal, _: SessionId) -> Answer {
        refused()
    }

    fn list(&self, _: &Principal, _: bool) -> Vec<Arc<SessionSnapshot>> {
        Vec::new()
    }

    fn update(&self, _: Principal, _: SessionId, _: UpdateSession) -> BoxFuture<'_, Answer> {
        Box::pin(async { refused() })
    }

    fn close(&self, _: Principal, _: SessionId) -> BoxFuture<'_, Answer> {
        Box::pin(async { refused() })
    }

    fn run(&self, call: TaskCall, _: mpsc::Sender<EventBody>, _: CancellationToken) -> BoxFuture<'_, TaskOutcome> {
        Box::pin(async move {
            TaskOutcome { task: call.task, result: refused(), partial: None, audit_seq: None, replayed: false }
        })
    }
}
