//! What goes ahead of a task: the head of its request and, to the server's own worker, the task itself, held there.
//!
//! The attempt to run a task is on disk before the task may begin. While the disk is waited for, the head of the request is
//! written and its stream made on both sides, so that only the message is still to be sent afterwards. A worker apart hears
//! nothing of a task before that; the server's own, which ends with it, gets ready for it and waits for one more message. A
//! request that ends without it has begun nothing.

use std::fmt;
use std::sync::Arc;

use codegen_proto::{ExecuteTask, v1};
use codegen_types::Lease;
use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::workers::{Inner, Link, TaskRequests};

/// A stream to a worker for a task that may follow; given up when its last clone is dropped.
#[derive(Clone)]
pub struct Ahead(Arc<Mutex<Option<Way>>>);

/// The way of a task: a link, one of its streams, and the request that was begun on it.
pub(super) struct Way {
    pub(super) request: TaskRequests,
    /// Whether its worker has the task, and waits for one more message.
    pub(super) held: bool,
    pub(super) stream: OwnedSemaphorePermit,
    pub(super) link: Arc<Link>,
}

impl Ahead {
    /// Goes ahead to the worker that holds a session, unless that takes waiting; with the task that is to be `held` there.
    pub(crate) fn to(inner: &Inner, lease: &Lease, held: Option<ExecuteTask>) -> Option<Self> {
        let link = inner.link(&lease.worker, lease.incarnation, Instant::now()).now_or_never()?.ok()?;
        let stream = link.streams().try_acquire_owned().ok()?;
        let mut request = link.execute_later();
        let is_held = held.is_some();
        if let Some(task) = held {
            request.messages.try_send(v1::TaskRequest { held: true, ..task.into() }).ok()?;
        }
        // Polled once it is on its way; who takes it polls it again.
        if (&mut request.answer).now_or_never().is_some() {
            return None;
        }
        Some(Self(Arc::new(Mutex::new(Some(Way { request, held: is_held, stream, link })))))
    }

    /// The way, once, as long as its link holds. A worker that has answered what it was not asked yet gets no task there.
    pub(super) fn take(&self) -> Option<Way> {
        let mut way = self.0.lock().take()?;
        (!way.link.is_over() && (&mut way.request.answer).now_or_never().is_none()).then_some(way)
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").finish_non_exhaustive()
    }
}
