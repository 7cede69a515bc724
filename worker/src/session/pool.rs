//! The sessions of this worker: opening them, closing them, and finding them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use codegen_proto::{CloseSession, OpenSession, SessionClosed, SessionOpened};
use codegen_types::{Epoch, ErrorCode, Failure, HeldSession, IsolationLevel, Lease, Limits, SessionId};
use parking_lot::Mutex;
use sandbox::Backend;
use sandbox::files::{Workspace, WorkspaceBase};
use sandbox::uids::UidError;
use tokio_util::sync::CancellationToken;

use super::entries::{Entries, Turns};
use super::lull::Lull;
use super::owners::{OwnerError, Owners};
use super::spares::{Adopted, Ground, Spares};
use super::{FILES_PARALLEL_MAX, Kernels, Live, PARALLEL_MAX, Session, Slots};
use crate::egress::{self, Egress, Places};
use crate::runtimes::Runtimes;
use crate::tasks::{Stop, Tasks};
use crate::upstream::WayOut;

/// How long a workspace that is kept may take to count; closing waits for it.
const COUNT_DEADLINE: Duration = Duration::from_secs(5);

/// What a pool is made of.
pub(crate) struct PoolOptions {
    pub base: WorkspaceBase,
    pub owners: Owners,
    pub backend: Arc<dyn Backend>,
    pub runtimes: Runtimes,
    pub tasks: Arc<Tasks>,
    /// The way_out of the host, through which sessions reach what they may.
    pub way_out: WayOut,
    pub sessions_max: u32,
    pub isolation_minimum: IsolationLevel,
    /// Sandboxes with these limits are made ahead of need; absent: none are.
    pub spare_limits: Option<Limits>,
}

/// All sessions of this worker.
pub(crate) struct Pool {
    base: Arc<WorkspaceBase>,
    owners: Arc<Owners>,
    backend: Arc<dyn Backend>,
    runtimes: Arc<Runtimes>,
    tasks: Arc<Tasks>,
    way_out: WayOut,
    places: Places,
    sessions_max: usize,
    isolation_minimum: IsolationLevel,
    entries: Mutex<Entries>,
    turns: Turns,
    spares: Option<Arc<Spares>>,
    lull: Arc<Lull>,
    /// Workspaces are made one at a time, so that two sessions never get the same user id. Nothing is ended meanwhile, since
    /// what does not die would hold up everybody.
    making: tokio::sync::Mutex<()>,
}

impl Pool {
    /// Needs a tokio runtime.
    pub fn new(options: PoolOptions) -> Self {
        let (base, owners) = (Arc::new(options.base), Arc::new(options.owners));
        let (backend, runtimes) = (options.backend, Arc::new(options.runtimes));
        let lull = Arc::<Lull>::default();
        let ground = || Ground {
            base: base.clone(),
            owners: owners.clone(),
            backend: backend.clone(),
            runtimes: runtimes.clone(),
            lull: lull.clone(),
        };
        Self {
            spares: options.spare_limits.map(|limits| Spares::start(ground(), limits)),
            lull,
            base,
            owners,
            backend,
            runtimes,
            tasks: options.tasks,
            way_out: options.way_out,
            places: Places::default(),
            sessions_max: options.sessions_max as usize,
            isolation_minimum: options.isolation_minimum,
            entries: Mutex::default(),
            turns: Turns::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// Opens a session. The same epoch again is answered as before; a higher one replaces what a lower one opened.
    pub async fn open(&self, request: OpenSession) -> Result<SessionOpened, Failure> {
        self.check_isolation(&request)?;
        self.lull.disturb();
        let session = {
            let _turn = self.turns.of(request.session).await;
            let earlier = self.entries.lock().fence(request.session, request.lease.epoch)?;
            match earlier {
                Some(session) if session.epoch == request.lease.epoch => {
                    session.permit(request.egress.clone()).await?;
                    session
                }
                Some(earlier) => self.replace(&earlier, &request).await?,
                None => self.make(&request).await?,
            }
        };
        match session.open(&self.lull).await {
            Ok(isolation) => Ok(SessionOpened { isolation, workspace_created: session.workspace_created }),
            Err(failure) => {
                self.entries.lock().remove(&session);
                Err(failure)
            }
        }
    }

    fn check_isolation(&self, request: &OpenSession) -> Result<(), Failure> {
        let minimum = request.isolation_minimum.max(self.isolation_minimum);
        let level = self.backend.report().level;
        if request.egress.is_some() && level < IsolationLevel::Full {
            return Err(egress::unavailable(level));
        }
        if level >= minimum {
            return Ok(());
        }
        Err(Failure::new(
            ErrorCode::IsolationUnavailable,
            format!("This worker isolates at level `{level}`, at least `{minimum}` is asked for. Nothing was run."),
        ))
    }

    /// Ends an earlier life of a session, which keeps its place among the sessions for the next one.
    async fn replace(&self, earlier: &Arc<Session>, request: &OpenSession) -> Result<Arc<Session>, Failure> {
        self.end_processes(earlier).await;
        let made = self.make(request).await;
        if made.is_err() {
            self.entries.lock().remove(earlier);
        }
        made
    }

    async fn make(&self, request: &OpenSession) -> Result<Arc<Session>, Failure> {
        let _making = self.making.lock().await;
        let id = request.session;
        if self.entries.lock().others(id) >= self.sessions_max {
            let message = format!("This worker has {} sessions, as many as it may.", self.sessions_max);
            return Err(Failure::new(ErrorCode::NoCapacity, message));
        }
        let (base, owners, limits) = (self.base.clone(), self.owners.clone(), request.limits);
        let held = self.backend.held();
        // A spare has no proxy, and none can be added to it.
        let spares = self.spares.clone().filter(|_| request.egress.is_none());
        let egress = match request.egress.clone() {
            Some(permitted) => {
                let (way_out, places) = (self.way_out.of_one(), self.places.clone());
                // What was not told of the earlier life is told of this one.
                let contacts = self.entries.lock().contacts(id);
                let make = move || Egress::of(permitted, way_out, &places, contacts);
                let made = tokio::task::spawn_blocking(make).await;
                Some(made.unwrap_or_else(|error| Err(internal(&error)))?)
            }
            None => None,
        };
        let housing = move || {
            let spare = spares.filter(|_| base.owner(id).is_none()).and_then(|spares| spares.adopt(id, &limits));
            spare.map_or_else(|| make_workspace(&base, &owners, id, limits, &held), |spare| Ok(spare.into()))
        };
        let housed = tokio::task::spawn_blocking(housing).await;
        let Housed { uid, workspace, created, live } = housed.unwrap_or_else(|error| Err(internal(&error)))?;
        let session = Arc::new(Session {
            id,
            epoch: request.lease.epoch,
            limits,
            uid,
            workspace: Arc::new(workspace),
            workspace_created: created,
            backend: self.backend.clone(),
            runtimes: self.runtimes.clone(),
            live: tokio::sync::Mutex::new(live.clone()),
            egress,
            kernels: Kernels::new(!created),
            looked_after: AtomicBool::new(false),
            programs: Slots::of(PARALLEL_MAX),
            files: Slots::of(FILES_PARALLEL_MAX),
            closed: CancellationToken::new(),
        });
        if let Some(live) = live {
            session.watch(&live);
        }
        self.entries.lock().insert(Arc::clone(&session));
        Ok(session)
    }

    /// Ends a session's processes and, when asked, deletes its workspace; one that is kept is counted. Closing again is
    /// no error.
    pub async fn close(&self, request: CloseSession) -> Result<SessionClosed, Failure> {
        let (session, epoch) = (request.session, request.lease.epoch);
        {
            // At once, so that nothing more begins under this lease while others have their turn with the session.
            let mut entries = self.entries.lock();
            entries.fence_close(session, epoch)?;
            entries.note_closed(session, epoch);
        }
        let _turn = self.turns.of(session).await;
        let open = self.entries.lock().fence_close(session, epoch)?;
        let processes_killed = match open {
            Some(session) => self.end(&session).await,
            None => 0,
        };
        let workspace_bytes = self.put_away(session, request.delete_workspace).await?;
        // Not before: who is not answered is told by the next answer.
        let contacts = self.entries.lock().take_contacts(session);
        Ok(SessionClosed { processes_killed, workspace_bytes, contacts })
    }

    /// Deletes a workspace, or counts it; the bytes that are left of it.
    async fn put_away(&self, session: SessionId, delete: bool) -> Result<u64, Failure> {
        let (base, owners) = (self.base.clone(), self.owners.clone());
        if delete {
            let deleted = tokio::task::spawn_blocking(move || delete_workspace(&base, &owners, session)).await;
            return deleted.unwrap_or_else(|error| Err(internal(&error))).map(|()| 0);
        }
        let counting = tokio::task::spawn_blocking(move || workspace_bytes(&base, session));
        let counted = tokio::time::timeout(COUNT_DEADLINE, counting).await;
        Ok(counted.ok().and_then(Result::ok).unwrap_or(u64::MAX))
    }

    async fn end(&self, session: &Arc<Session>) -> u32 {
        let killed = self.end_processes(session).await;
        self.entries.lock().remove(session);
        killed
    }

    async fn end_processes(&self, session: &Session) -> u32 {
        for task in self.tasks.of_session(session.id) {
            task.stop(Stop::SessionClosed);
        }
        session.close().await
    }

    /// The session that a lease names, for a new task.
    pub fn get(&self, session: SessionId, lease: &Lease) -> Result<Arc<Session>, Failure> {
        match self.entries.lock().fence(session, lease.epoch)? {
            Some(open) if open.epoch == lease.epoch => Ok(open),
            Some(_) | None => Err(Failure::new(
                ErrorCode::SessionNotFound,
                "The session is not open on this worker under this lease.",
            )),
        }
    }

    /// Fails for a lease that another one has superseded.
    pub fn check_lease(&self, session: SessionId, lease: &Lease) -> Result<(), Failure> {
        self.entries.lock().check(session, lease.epoch)
    }

    /// Every session whose workspace is here.
    ///
    /// # Errors
    /// The workspaces cannot be listed: which there are is not known, and not that there are none.
    pub async fn held(&self) -> std::io::Result<Vec<HeldSession>> {
        let base = self.base.clone();
        let on_disk = tokio::task::spawn_blocking(move || base.held()).await.map_err(std::io::Error::other)??;
        Ok(on_disk.into_iter().map(|session| self.describe(session)).collect())
    }

    fn describe(&self, session: SessionId) -> HeldSession {
        let entries = self.entries.lock();
        let (open, epoch) = (entries.get(session), entries.epoch(session).unwrap_or_default());
        let tasks = self.tasks.of_session(session).iter().map(|task| task.id).collect();
        HeldSession { session, epoch, open: open.is_some_and(|open| open.is_live()), tasks }
    }

    /// The sessions that are open, each with the epoch of its lease.
    pub fn open_now(&self) -> Vec<(SessionId, Epoch)> {
        self.entries.lock().open().map(|session| (session.id, session.epoch)).collect()
    }

    /// How many sessions are open.
    pub fn len(&self) -> usize {
        self.entries.lock().open().len()
    }

    /// Ends every process of every session, and the spares; the workspaces of sessions stay.
    pub async fn close_all(&self) {
        let open: Vec<Arc<Session>> = self.entries.lock().open().cloned().collect();
        let spares = async {
            if let Some(spares) = &self.spares {
                spares.end().await;
            }
        };
        tokio::join!(spares, futures::future::join_all(open.iter().map(|session| self.end(session))));
    }
}

/// What a session lives in.
struct Housed {
    uid: Option<u32>,
    workspace: Workspace,
    created: bool,
    live: Option<Arc<Live>>,
}

impl From<Adopted> for Housed {
    fn from(Adopted { uid, workspace, live }: Adopted) -> Self {
        Self { uid, workspace, created: true, live: Some(live) }
    }
}

fn make_workspace(
    base: &WorkspaceBase,
    owners: &Owners,
    session: SessionId,
    limits: Limits,
    held: &BTreeSet<u32>,
) -> Result<Housed, Failure> {
    let uid = owners.choose(base, session, held).map_err(|error| match error {
        OwnerError::Uids(UidError::NoUid) => {
            Failure::new(ErrorCode::NoCapacity, "Every user id for sessions is taken by a workspace.")
        }
        error => internal(&error),
    })?;
    let (directory, created) = base.open_or_create(session, uid).map_err(|error| internal(&error))?;
    let workspace = Workspace::new(directory, limits).map_err(|error| internal(&error))?;
    Ok(Housed { uid, workspace, created, live: None })
}

fn delete_workspace(base: &WorkspaceBase, owners: &Owners, session: SessionId) -> Result<(), Failure> {
    let owner = base.owner(session);
    base.delete(session).map_err(|error| internal(&error))?;
    if let Some(uid) = owner {
        owners.release(uid);
    }
    Ok(())
}

/// What a workspace takes on disk. Files that are hidden from the count must not make it look small.
fn workspace_bytes(base: &WorkspaceBase, session: SessionId) -> u64 {
    match base.disk_usage(session) {
        Ok(usage) if usage.complete => usage.bytes,
        Ok(_) => u64::MAX,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => {
            tracing::warn!(%session, %error, "a workspace cannot be counted");
            u64::MAX
        }
    }
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::error!(error, "a workspace cannot be had");
    Failure::new(ErrorCode::Internal, "The worker cannot reach the session's workspace.")
}
