//! Sessions on this worker: their workspaces, sandboxes and prepared interpreters.

mod between;
mod entries;
mod kernels;
mod live;
mod lull;
mod owners;
mod pool;
mod spares;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use codegen_types::{Epoch, ErrorCode, Failure, IsolationReport, Limits, SessionId};
use sandbox::Backend;
use sandbox::files::Workspace;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::egress::Egress;
use crate::runtimes::Runtimes;
pub(crate) use kernels::{Kernels, Place, Turn};
pub(crate) use live::Live;
use lull::Lull;
pub(crate) use owners::Owners;
pub(crate) use pool::{Pool, PoolOptions};

/// Programs of one session that run at once.
const PARALLEL_MAX: u32 = 8;
/// Operations on files of one session that are under way at once, whatever runs beside.
const FILES_PARALLEL_MAX: u32 = 4;
/// Tasks of one session that wait for a turn of each kind; further ones are refused with `RATE_LIMITED`.
const WAITING_MAX: usize = 64;
/// How long tasks of a session that is closed may take to notice.
const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// One open session.
pub(crate) struct Session {
    id: SessionId,
    epoch: Epoch,
    limits: Limits,
    uid: Option<u32>,
    workspace: Arc<Workspace>,
    workspace_created: bool,
    backend: Arc<dyn Backend>,
    runtimes: Arc<Runtimes>,
    live: Mutex<Option<Arc<Live>>>,
    egress: Option<Arc<Egress>>,
    kernels: Kernels,
    /// Whether somebody sees to what lives between calls.
    looked_after: AtomicBool,
    programs: Slots,
    files: Slots,
    closed: CancellationToken,
}

/// A turn to run a task.
pub(crate) struct Slot<'a>(#[expect(dead_code, reason = "held until the task ends")] SemaphorePermit<'a>);

impl Session {
    pub fn id(&self) -> SessionId {
        self.id
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The host's user id of this session, when the worker is root.
    pub fn uid(&self) -> Option<u32> {
        self.uid
    }

    pub fn workspace(&self) -> &Arc<Workspace> {
        &self.workspace
    }

    pub fn runtimes(&self) -> &Runtimes {
        &self.runtimes
    }

    /// Its interpreters that keep variables between calls.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// What it reaches outside its sandbox, if anything.
    pub fn egress(&self) -> Option<&Egress> {
        self.egress.as_deref()
    }

    /// What it reaches from now on. One that has no proxy keeps having none.
    async fn permit(&self, permitted: Option<codegen_proto::Egress>) -> Result<(), Failure> {
        let Some(egress) = &self.egress else { return Ok(()) };
        let Some(permitted) = permitted else {
            egress.permit_nothing();
            return Ok(());
        };
        let permitting = Arc::clone(egress);
        let permitting = tokio::task::spawn_blocking(move || permitting.permit(permitted));
        permitting.await.unwrap_or_else(|error| {
            egress.permit_nothing();
            tracing::error!(error = &error as &dyn std::error::Error, "what a session reaches could not be changed");
            Err(Failure::new(ErrorCode::Internal, "What the session reaches cannot be changed."))
        })
    }

    pub fn task_time_max(&self) -> Duration {
        Duration::from_millis(self.limits.task_ms_max)
    }

    /// Waits for a turn to run a program.
    pub async fn program_slot(&self) -> Result<Slot<'_>, Failure> {
        self.programs.turn(&self.closed).await
    }

    /// Waits for a turn to work on files, which no program holds up.
    pub async fn files_slot(&self) -> Result<Slot<'_>, Failure> {
        self.files.turn(&self.closed).await
    }

    /// The session's sandbox, where it has one.
    pub fn live_now(&self) -> Option<Arc<Live>> {
        self.live.try_lock().ok()?.clone().filter(|live| !live.is_lost())
    }

    /// The session's sandbox. One that is gone is replaced, with a sentence on what that means.
    pub async fn live(&self) -> Result<(Arc<Live>, Option<String>), Failure> {
        let mut live = self.live.lock().await;
        if self.closed.is_cancelled() {
            return Err(closed());
        }
        if let Some(live) = live.as_ref().filter(|live| !live.is_lost()) {
            return Ok((live.clone(), None));
        }
        let fresh =
            Live::open(&*self.backend, self.runtimes.clone(), &self.workspace, self.uid, self.egress.as_ref()).await;
        let fresh = Arc::new(fresh.map_err(|error| {
            tracing::warn!(session = %self.id, error = &error as &dyn std::error::Error, "no sandbox");
            error.failure()
        })?);
        self.watch(&fresh);
        let news = live.replace(fresh.clone()).map(|gone| {
            tracing::warn!(session = %self.id, "the session's sandbox was gone; it has a new one");
            gone.loss()
        });
        Ok((fresh, news))
    }

    fn watch(&self, live: &Arc<Live>) {
        let session = self.id;
        live.watch(move |end| tracing::info!(%session, ?end, "a sandbox is gone"));
    }

    /// Opens the sandbox and begins to prepare its interpreter, without waiting for that one.
    async fn open(&self, lull: &Arc<Lull>) -> Result<IsolationReport, Failure> {
        let (live, _) = self.live().await?;
        let report = live.sandbox().report().clone();
        let lull = lull.clone();
        tokio::spawn(async move { live.is_prepared() || live.prepare(&lull).await });
        Ok(report)
    }

    /// Whether it has a sandbox at present.
    fn is_live(&self) -> bool {
        self.live.try_lock().map_or(true, |live| live.as_ref().is_some_and(|live| !live.is_lost()))
    }

    /// Ends every process, then waits for tasks to notice; how many processes were killed.
    async fn close(&self) -> u32 {
        self.closed.cancel();
        let live = self.live.lock().await.take();
        let killed = match live {
            Some(live) => live.destroy().await,
            None => 0,
        };
        let all = async { tokio::join!(self.programs.all(), self.files.all()) };
        if tokio::time::timeout(CLOSE_DEADLINE, all).await.is_err() {
            tracing::warn!(session = %self.id, "tasks of a closed session are still at work");
        }
        killed
    }
}

fn closed() -> Failure {
    Failure::new(ErrorCode::SessionClosed, "The session is closed.")
}

/// Turns of one kind, so many at once.
struct Slots {
    free: Semaphore,
    waiting: AtomicUsize,
    parallel_max: u32,
}

impl Slots {
    fn of(parallel_max: u32) -> Self {
        Self { free: Semaphore::new(parallel_max as usize), waiting: AtomicUsize::new(0), parallel_max }
    }

    async fn turn(&self, closed_token: &CancellationToken) -> Result<Slot<'_>, Failure> {
        let waiting = Waiting::enter(self)?;
        let permit = tokio::select! {
            biased;
            () = closed_token.cancelled() => return Err(closed()),
            permit = self.free.acquire() => permit.map_err(|_| closed())?,
        };
        drop(waiting);
        Ok(Slot(permit))
    }

    /// Waits until nobody has a turn.
    async fn all(&self) {
        let _ = self.free.acquire_many(self.parallel_max).await;
    }
}

/// Counts a task among those that wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(slots: &'a Slots) -> Result<Self, Failure> {
        let this = Self(&slots.waiting);
        if slots.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            let text = format!(
                "{} tasks of this session run and {WAITING_MAX} wait. Wait for some to end.",
                slots.parallel_max
            );
            return Err(Failure::new(ErrorCode::RateLimited, text));
        }
        Ok(this)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
