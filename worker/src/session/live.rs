//! A sandbox that is there, and the interpreter prepared in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use codegen_types::{IsolationLevel, Limits};
use sandbox::files::Workspace;
use sandbox::{Backend, Sandbox, SandboxEnd, SandboxError, SandboxSpec};
use tokio::sync::Mutex;

use super::lull::Lull;
use crate::disk::{Outgrown, Scratch};
use crate::egress::{Egress, Proxying};
use crate::runtimes::{Runtimes, StartError, Template};

/// One life of a session's sandbox.
pub(crate) struct Live {
    sandbox: Arc<dyn Sandbox>,
    /// What programs inside reach the hosts on the session's list by, if there are some.
    proxying: Option<Proxying>,
    runtimes: Arc<Runtimes>,
    template: Mutex<Option<Arc<Template>>>,
    lost: AtomicBool,
    /// What its session had too much of between calls, where it was ended for that.
    outgrown: OnceLock<Outgrown>,
    prepared: AtomicBool,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Live {
    /// Makes a sandbox around a workspace, with the limits that the workspace has, and what its session reaches.
    pub async fn open(
        backend: &dyn Backend,
        runtimes: Arc<Runtimes>,
        workspace: &Workspace,
        uid: Option<u32>,
        egress: Option<&Arc<Egress>>,
    ) -> Result<Self, SandboxError> {
        let directory = workspace.root().try_clone_to_owned().map_err(SandboxError::Channel)?;
        let (limits, system_paths) = (*workspace.limits(), runtimes.system_paths());
        let proxy = egress.map(|egress| egress.spec()).transpose().map_err(SandboxError::Channel)?;
        let sandbox = backend.open(SandboxSpec { workspace: directory, limits, system_paths, uid, proxy }).await?;
        let proxying = match (egress, sandbox.proxy_listener()) {
            (Some(egress), Some(listener)) => Some(Proxying::start(egress, listener).map_err(SandboxError::Channel)?),
            (Some(_), None) => return Err(SandboxError::Unavailable { why: "its proxy is not there".to_owned() }),
            (None, _) => None,
        };
        Ok(Self {
            sandbox,
            proxying,
            runtimes,
            template: Mutex::default(),
            lost: AtomicBool::new(false),
            outgrown: OnceLock::new(),
            prepared: AtomicBool::new(false),
        })
    }

    pub fn sandbox(&self) -> &dyn Sandbox {
        &*self.sandbox
    }

    /// Where temporary files are, when they are bounded by looking alone.
    pub fn sampled_scratch(&self, limits: &Limits) -> Option<Scratch> {
        let has_own_root = self.sandbox.report().level == IsolationLevel::Full;
        let directory = || self.sandbox.places().scratch.clone();
        (!has_own_root).then(|| Scratch { directory: directory(), bytes_max: limits.scratch_bytes })
    }

    /// Whether there is a prepared interpreter, so that none is started.
    pub fn has_template(&self) -> bool {
        self.template.try_lock().is_ok_and(|template| template.is_some())
    }

    /// The prepared interpreter; started when there is none.
    pub async fn template(&self) -> Result<Arc<Template>, StartError> {
        let mut template = self.template.lock().await;
        if let Some(template) = &*template {
            return Ok(template.clone());
        }
        let python = self.runtimes.python().ok_or(StartError::InterpreterLost)?;
        let fresh = match Template::start(self.sandbox(), python).await {
            Ok(fresh) => Arc::new(fresh),
            Err(error) => {
                if matches!(error, StartError::Sandbox(SandboxError::Gone | SandboxError::LauncherLost)) {
                    self.lost.store(true, Ordering::Relaxed);
                }
                return Err(error);
            }
        };
        *template = Some(fresh.clone());
        Ok(fresh)
    }

    /// Makes the next program start another interpreter, unless that was done already.
    pub async fn forget_template(&self, gone: &Arc<Template>) {
        let mut template = self.template.lock().await;
        if template.as_ref().is_some_and(|template| Arc::ptr_eq(template, gone)) {
            *template = None;
        }
    }

    /// Prepares the interpreter when there is time for it; a call that needs one does not wait for this. Whether it
    /// could be prepared, or there is none to prepare.
    pub async fn prepare(&self, lull: &Lull) -> bool {
        let _turn = lull.turn().await;
        if self.runtimes.python().is_some() && !self.is_lost() {
            match self.template().await {
                Ok(template) => template.ready().await,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the interpreter cannot be prepared");
                    return false;
                }
            }
        }
        self.prepared.store(true, Ordering::Relaxed);
        true
    }

    /// Whether [`prepare`](Self::prepare) has nothing left to do.
    pub fn is_prepared(&self) -> bool {
        self.prepared.load(Ordering::Relaxed)
    }

    /// Notices the sandbox's end, so that the next call gets a new one, and then does what is given.
    pub fn watch(self: &Arc<Self>, then: impl FnOnce(SandboxEnd) + Send + 'static) {
        let sandbox = self.sandbox.clone();
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            let end = sandbox.ended().await;
            if let Some(this) = this.upgrade() {
                this.lost.store(true, Ordering::Relaxed);
                this.stop_proxying();
            }
            then(end);
        });
    }

    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Kills everything inside; how many processes.
    pub async fn destroy(&self) -> u32 {
        self.lost.store(true, Ordering::Relaxed);
        self.stop_proxying();
        let killed = self.sandbox.destroy().await;
        if let Some(proxying) = &self.proxying {
            proxying.ended().await;
        }
        killed
    }

    /// Kills everything inside since it has too much.
    pub async fn end_outgrown(&self, of: Outgrown) {
        // Before anybody learns of its end.
        let _first = self.outgrown.set(of);
        self.destroy().await;
    }

    /// What its session had too much of, if it was ended for that.
    pub fn outgrown(&self) -> Option<Outgrown> {
        self.outgrown.get().copied()
    }

    /// Why its kernels are no more once it is gone, as a sentence goes on after a colon.
    pub fn why_gone(&self) -> &'static str {
        self.outgrown().map_or("the session's sandbox was replaced", Outgrown::between_calls)
    }

    /// What the next call is told of it once it is gone.
    pub fn loss(&self) -> String {
        match self.outgrown() {
            Some(of) => format!("Earlier processes and /tmp are gone, files are kept: {}.", of.between_calls()),
            None => {
                "The session's sandbox was gone and is replaced: earlier processes and /tmp are gone, files are kept."
                    .to_owned()
            }
        }
    }

    fn stop_proxying(&self) {
        self.proxying.iter().for_each(Proxying::stop);
    }

    /// Waits until the sandbox is gone.
    pub async fn ended(&self) -> SandboxEnd {
        self.sandbox.ended().await
    }
}
