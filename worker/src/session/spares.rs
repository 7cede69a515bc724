//! Sandboxes made ahead of need: each with its user id, its empty workspace and its limits in force, the first ones with
//! their interpreter prepared, so that opening a session is to give one a name.
//!
//! A spare belongs to one session at most, and nothing of a session was ever in it before.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use codegen_types::{Limits, SessionId};
use parking_lot::Mutex;
use sandbox::files::{BaseError, SpareWorkspace, Workspace, WorkspaceBase};
use sandbox::{Backend, SandboxEnd, SandboxError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::lull::Lull;
use super::owners::{OwnerError, Owners};
use crate::runtimes::Runtimes;

/// Spares that wait at once. When more sessions open at once, the others wait for a sandbox of their own.
const SPARES_MAX: usize = 6;
/// Those among them whose interpreter is prepared, which takes nearly all of a session's memory.
const PREPARED_MAX: usize = 2;
/// The rest after a spare that could not be made.
const FAILED_REST: Duration = Duration::from_secs(30);

/// What spares are made of.
pub(super) struct Ground {
    pub base: Arc<WorkspaceBase>,
    pub owners: Arc<Owners>,
    pub backend: Arc<dyn Backend>,
    pub runtimes: Arc<Runtimes>,
    pub lull: Arc<Lull>,
}

/// The spares of this worker.
pub(super) struct Spares {
    ground: Ground,
    /// The limits of every spare; a session with others gets a sandbox of its own.
    limits: Limits,
    kept: Mutex<Kept>,
    wake: Notify,
    stop: CancellationToken,
    stopped: CancellationToken,
}

#[derive(Default)]
struct Kept {
    ready: VecDeque<Spare>,
    /// Spares whose sandbox is gone; never given to a session.
    dead: Vec<Spare>,
}

/// What there is to do ahead of need.
enum Work {
    Add,
    Prepare(Arc<Live>),
}

/// A sandbox that waits for its session.
struct Spare {
    name: SpareWorkspace,
    made: Adopted,
}

/// A spare that became a session's.
pub(super) struct Adopted {
    pub uid: Option<u32>,
    pub workspace: Workspace,
    pub live: Arc<Live>,
}

/// Why there is no spare.
#[derive(Debug, thiserror::Error)]
enum SpareError {
    #[error("a spare has no user id")]
    Owner(#[from] OwnerError),
    #[error("a spare has no workspace")]
    Workspace(#[from] BaseError),
    #[error("the workspace of a spare cannot be used")]
    Descriptor(#[from] io::Error),
    #[error("a spare has no sandbox")]
    Sandbox(#[from] SandboxError),
    #[error("making a spare panicked")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Spares {
    /// Begins to make spares with these limits, and goes on until [`end`](Self::end).
    pub fn start(ground: Ground, limits: Limits) -> Arc<Self> {
        let spares = Arc::new(Self {
            ground,
            limits,
            kept: Mutex::default(),
            wake: Notify::new(),
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
        });
        let done = spares.stopped.clone().drop_guard();
        let keeper = Arc::clone(&spares);
        tokio::spawn(async move {
            keeper.keep().await;
            drop(done);
        });
        spares
    }

    /// Gives a spare to a session that has no workspace yet; blocks on the disk. None: there is no spare for it.
    pub fn adopt(&self, session: SessionId, limits: &Limits) -> Option<Adopted> {
        if self.limits != *limits {
            return None;
        }
        let spare = self.take()?;
        let refused = match self.ground.base.adopt(&spare.name, session) {
            Ok(true) => return Some(spare.made),
            Ok(false) => None,
            Err(error) => Some(error),
        };
        tracing::warn!(%session, error = ?refused, "a session could not take a spare sandbox");
        self.kept.lock().dead.push(spare);
        None
    }

    fn take(&self) -> Option<Spare> {
        let mut kept = self.kept.lock();
        self.wake.notify_one();
        kept.ready.make_contiguous().sort_by_key(|spare| !spare.made.live.is_prepared());
        while let Some(spare) = kept.ready.pop_front() {
            if !spare.made.live.is_lost() {
                return Some(spare);
            }
            kept.dead.push(spare);
        }
        None
    }

    /// Ends every spare and leaves nothing of them behind.
    pub async fn end(&self) {
        self.stop.cancel();
        self.stopped.cancelled().await;
    }

    async fn keep(self: Arc<Self>) {
        while !self.stop.is_cancelled() {
            self.bury().await;
            let done = match self.next() {
                Some(Work::Add) => self.add().await,
                Some(Work::Prepare(live)) => tokio::select! {
                    // One that died meanwhile is replaced at once; only what may fail again needs a rest.
                    prepared = live.prepare(&self.ground.lull) => prepared || live.is_lost(),
                    () = self.stop.cancelled() => continue,
                },
                None => {
                    self.rest(self.wake.notified()).await;
                    self.rest(self.ground.lull.quiet()).await;
                    true
                }
            };
            if !done {
                self.rest(tokio::time::sleep(FAILED_REST)).await;
            }
        }
        {
            let mut kept = self.kept.lock();
            let ready: Vec<Spare> = kept.ready.drain(..).collect();
            kept.dead.extend(ready);
        }
        self.bury().await;
    }

    async fn rest(&self, until: impl Future<Output = ()>) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = until => {}
        }
    }

    /// What is to be done; nothing: there are as many spares as there may be.
    fn next(&self) -> Option<Work> {
        let kept = self.kept.lock();
        if kept.ready.len() < SPARES_MAX {
            return Some(Work::Add);
        }
        let first = kept.ready.iter().take(PREPARED_MAX).map(|spare| &spare.made.live);
        first.filter(|live| !live.is_prepared()).map(|live| Work::Prepare(live.clone())).next()
    }

    /// Makes one more spare; whether that went well.
    async fn add(self: &Arc<Self>) -> bool {
        match self.make().await {
            Ok(spare) => {
                self.watch(&spare);
                self.kept.lock().ready.push_back(spare);
                true
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no sandbox can be made ahead of need");
                false
            }
        }
    }

    async fn make(&self) -> Result<Spare, SpareError> {
        let (base, owners, limits) = (self.ground.base.clone(), self.ground.owners.clone(), self.limits);
        let held = self.ground.backend.held();
        let (uid, name, workspace) =
            tokio::task::spawn_blocking(move || make_workspace(&base, &owners, limits, &held)).await??;
        match Live::open(&*self.ground.backend, self.ground.runtimes.clone(), &workspace, uid, None).await {
            Ok(live) => Ok(Spare { name, made: Adopted { uid, workspace, live: Arc::new(live) } }),
            Err(error) => {
                self.clear_away(name, uid).await;
                Err(error.into())
            }
        }
    }

    /// Notices a spare whose sandbox ends before it has a session.
    fn watch(self: &Arc<Self>, spare: &Spare) {
        let this: Weak<Self> = Arc::downgrade(self);
        spare.made.live.watch(move |end| {
            if let Some(this) = this.upgrade() {
                this.sort_out(end);
            }
        });
    }

    fn sort_out(&self, end: SandboxEnd) {
        let mut kept = self.kept.lock();
        let (lost, ready): (Vec<Spare>, _) = kept.ready.drain(..).partition(|spare| spare.made.live.is_lost());
        kept.ready = ready.into();
        if !lost.is_empty() {
            tracing::warn!(?end, "a spare sandbox is gone");
            kept.dead.extend(lost);
            self.wake.notify_one();
        }
    }

    /// Puts away what no session gets.
    async fn bury(&self) {
        let dead = std::mem::take(&mut self.kept.lock().dead);
        for spare in dead {
            spare.made.live.destroy().await;
            self.clear_away(spare.name, spare.made.uid).await;
        }
    }

    async fn clear_away(&self, name: SpareWorkspace, uid: Option<u32>) {
        let (base, owners) = (self.ground.base.clone(), self.ground.owners.clone());
        let cleared = tokio::task::spawn_blocking(move || {
            base.discard(&name)?;
            // Only now that no file is its own any more.
            uid.into_iter().for_each(|uid| owners.release(uid));
            Ok::<_, io::Error>(())
        });
        match cleared.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the workspace of a spare sandbox is left until the next start"),
            Err(error) => tracing::error!(%error, "clearing a spare sandbox away panicked"),
        }
    }
}

fn make_workspace(
    base: &WorkspaceBase,
    owners: &Owners,
    limits: Limits,
    held: &BTreeSet<u32>,
) -> Result<(Option<u32>, SpareWorkspace, Workspace), SpareError> {
    let uid = owners.reserve(held)?;
    let made = base.create_spare(uid).map_err(SpareError::from).and_then(|(name, directory)| {
        let workspace = Workspace::new(directory, limits)?;
        Ok((uid, name, workspace))
    });
    if made.is_err() {
        uid.into_iter().for_each(|uid| owners.release(uid));
    }
    made
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use sandbox::FakeBackend;
    use sandbox::fake::FakeRun;

    use super::*;

    /// The longest that anything here may take.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn no_spare_gets_a_user_id_under_which_something_may_still_run() {
        let directory = tempfile::tempdir().unwrap();
        let base = Arc::new(WorkspaceBase::open(directory.path()).unwrap());
        let owners = Arc::new(Owners::of(&base).unwrap());
        let Some(first) = owners.reserve(&BTreeSet::new()).unwrap() else {
            println!("SKIPPED: only root gives sessions user ids of their own");
            return;
        };
        owners.release(first);
        let ground = Ground {
            base,
            owners,
            backend: Arc::new(FakeBackend::new(|_| FakeRun::default()).with_held([first])),
            runtimes: Arc::new(Runtimes::default()),
            lull: Arc::default(),
        };
        let spares = Spares::start(ground, Limits::default());
        let until = Instant::now() + PATIENCE;
        while spares.kept.lock().ready.len() < SPARES_MAX {
            assert!(Instant::now() < until, "the spares are made in time");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let uids: BTreeSet<_> = spares.kept.lock().ready.iter().map(|spare| spare.made.uid).collect();
        assert!(uids.len() == SPARES_MAX && !uids.contains(&Some(first)), "{first} is held: {uids:?}");
        spares.end().await;
    }
}
