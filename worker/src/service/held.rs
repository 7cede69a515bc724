//! Tasks that are held: carried out as far as may be before the word comes by which they begin.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use codegen_proto::ExecuteTask;
use codegen_proto::status::from_failure;
use codegen_types::{EventBody, Operation, Program};
use futures::TryStreamExt as _;
use futures::future::{BoxFuture, MaybeDone, maybe_done};
use tonic::Status;

use super::{Requests, Service, given_up};
use crate::executor;
use crate::session::{Live, Session};
use crate::tasks::{Gate, Task};

/// How long what was got ready waits for the word: what was seen of the session gets old, and others want its places.
const READY_MAX: Duration = Duration::from_millis(20);
/// Tasks that have less time than this begin with the word alone: their time must not be over before.
const TIME_MIN: Duration = Duration::from_secs(1);

/// A task that is carried out behind a gate.
pub(super) struct Begun {
    pub(super) task: Arc<Task>,
    session: Arc<Session>,
    gate: Gate,
    /// The life of the sandbox in which it was begun.
    live: Option<Arc<Live>>,
    carried_out: MaybeDone<BoxFuture<'static, EventBody>>,
}

impl Begun {
    pub(super) fn new(session: Arc<Session>, request: ExecuteTask, gate: Gate) -> Self {
        let task = Arc::new(Task::new(request.task, request.session, request.lease.epoch));
        let live = session.live_now();
        let carried_out = executor::carry_out(task.clone(), session.clone(), request, gate.clone());
        Self { task, session, gate, live, carried_out: maybe_done(carried_out) }
    }

    /// Whether it may go on in this session, where it was begun. What was got ready in a sandbox that is gone is none.
    pub(super) fn is_of(&self, session: &Arc<Session>) -> bool {
        Arc::ptr_eq(&self.session, session) && self.live.as_ref().is_none_or(|live| !live.is_lost())
    }

    /// Opens its gate; its last event.
    pub(super) async fn end(mut self) -> EventBody {
        self.gate.let_pass();
        (&mut self.carried_out).await;
        Pin::new(&mut self.carried_out).take_output().expect("it is taken once")
    }
}

impl Service {
    /// Gets ready for a task that is held, and waits for the word that it may begin. Until then it is none of this worker's
    /// tasks; a request that ends without the word has left nothing.
    ///
    /// # Errors
    /// That the request ended, or broke.
    pub(super) async fn hold(&self, request: &ExecuteTask, mut word: impl Requests) -> Result<Option<Begun>, Status> {
        let mut begun = self.begin_ahead(request);
        let mut limit = pin!(tokio::time::sleep(READY_MAX));
        let said = loop {
            tokio::select! {
                biased;
                said = word.try_next() => break said,
                () = get_ready(&mut begun), if begun.is_some() => {}
                () = &mut limit, if begun.is_some() => begun = None,
            }
        };
        said?.map(|_| begun).ok_or_else(|| from_failure(given_up()))
    }

    /// What a task is begun with that may be carried out before it begins: nothing where that is refused, which is told
    /// when it begins.
    fn begin_ahead(&self, request: &ExecuteTask) -> Option<Begun> {
        let is_python = matches!(
            &request.operation,
            Operation::Exec(exec) if matches!(exec.program, Program::PythonCode { .. } | Program::PythonFile { .. })
        );
        self.check_holder(&request.lease).ok()?;
        let session = self.session(request).ok()?;
        if !is_python || request.timeout.min(session.task_time_max()) < TIME_MIN || session.live_now().is_none() {
            return None;
        }
        Some(Begun::new(session, request.clone(), Gate::closed()))
    }
}

/// Carries out what may be before the word; never ends.
async fn get_ready(begun: &mut Option<Begun>) {
    if let Some(begun) = begun {
        (&mut begun.carried_out).await;
    }
    std::future::pending().await
}
