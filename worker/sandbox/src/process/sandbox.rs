//! One sandbox, as the worker holds it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{IsolationLevel, IsolationReport};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::connection::{Connection, End, OpenError, Wanted};
use crate::backend::{BoxFuture, Places, Sandbox, SandboxEnd, SandboxError, SandboxSpec, Spawn};
use crate::cgroups::Counters;
use crate::child::{Child, SupervisorLost};
use crate::datagram::{self, AsyncSocket};
use crate::layers::report;
use crate::protocol::{EncodedSpawn, OpenFailure, Supervision};

/// How long what was killed may take to be gone before its session goes on without it; its user id is held meanwhile.
const END_PATIENCE: Duration = Duration::from_secs(20);

/// A sandbox made by the launcher. Dropping it ends it.
#[derive(Debug)]
pub(super) struct ProcessSandbox {
    connection: Arc<Connection>,
    id: u64,
    uid: Option<u32>,
    report: IsolationReport,
    places: Places,
    control: AsyncSocket,
    listener: Mutex<Option<TcpListener>>,
    counters: Counters,
    end: watch::Receiver<End>,
}

impl ProcessSandbox {
    pub(super) async fn open(
        connection: &Arc<Connection>,
        spec: SandboxSpec,
        level: IsolationLevel,
        not_better: Option<OpenFailure>,
    ) -> Result<Self, SandboxError> {
        let SandboxSpec { workspace, limits, system_paths, uid, proxy } = spec;
        let wanted = Wanted { workspace, level, not_better, limits, system_paths, uid, proxy };
        Self::make(connection, wanted).await.map_err(|error| match error {
            OpenError::Refused(failure) => SandboxError::Unavailable { why: explain(&failure) },
            OpenError::Channel(error) => error,
        })
    }

    pub(super) async fn make(connection: &Arc<Connection>, wanted: Wanted) -> Result<Self, OpenError> {
        let (level, uid) = (wanted.level, wanted.uid);
        let opened = connection.open(wanted).await?;
        let control = AsyncSocket::new(opened.control).map_err(|e| OpenError::Channel(SandboxError::Channel(e)))?;
        Ok(Self {
            connection: Arc::clone(connection),
            id: opened.id,
            uid,
            report: report::probed(level, opened.layers),
            places: opened.places,
            control,
            listener: Mutex::new(opened.listener.map(TcpListener::from)),
            counters: opened.counters,
            end: opened.end,
        })
    }

    async fn start(&self, spawn: Spawn, supervision: Supervision) -> Result<Child, SandboxError> {
        let is_supervised = supervision == Supervision::Supervised;
        let encoded =
            EncodedSpawn::new(spawn, supervision).map_err(|e| SandboxError::Refused { why: e.to_string() })?;
        let (ours, theirs) = datagram::pair().map_err(SandboxError::Channel)?;
        let mut child = Child::from_ctl(ours).map_err(SandboxError::Channel)?.watching(self.counters.clone());
        self.control
            .send(&encoded.bytes, &encoded.descriptors(theirs.as_fd()))
            .await
            .map_err(|_| SandboxError::Gone)?;
        // Copies that stayed here would keep pipes open after the program has ended.
        drop((encoded, theirs));
        match child.started().await {
            Ok(Ok(_)) => Ok(child),
            Ok(Err((step, source))) => Err(SandboxError::NotStarted { step, source }),
            // The program runs before its supervisor can say so: whoever waits for its end learns that nobody knows.
            Err(SupervisorLost) if is_supervised => Ok(child),
            Err(SupervisorLost) => Err(SandboxError::Gone),
        }
    }
}

/// The step that failed and the remedy, in one sentence.
fn explain(failure: &OpenFailure) -> String {
    match &failure.remedy {
        Some(remedy) => format!("{failure} (remedy: {remedy})"),
        None => failure.to_string(),
    }
}

impl Sandbox for ProcessSandbox {
    fn report(&self) -> &IsolationReport {
        &self.report
    }

    fn places(&self) -> &Places {
        &self.places
    }

    fn spawn(&self, spawn: Spawn) -> BoxFuture<'_, Result<Child, SandboxError>> {
        Box::pin(self.start(spawn, Supervision::Supervised))
    }

    fn spawn_bare(&self, spawn: Spawn) -> BoxFuture<'_, Result<u32, SandboxError>> {
        Box::pin(async move {
            let child = self.start(spawn, Supervision::Bare).await?;
            child.pid().ok_or(SandboxError::Gone)
        })
    }

    fn adopt(&self, ctl: OwnedFd) -> io::Result<Child> {
        Ok(Child::from_ctl(ctl)?.watching(self.counters.clone()))
    }

    fn proxy_listener(&self) -> Option<TcpListener> {
        self.listener.lock().take()
    }

    fn destroy(&self) -> BoxFuture<'_, u32> {
        Box::pin(async move {
            if let Err(error) = self.connection.destroy(self.id).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the launcher was not told to end a sandbox");
            }
            match tokio::time::timeout(END_PATIENCE, wait(self.end.clone())).await {
                Ok((_, killed)) => killed,
                Err(_) => {
                    let uid = self.uid;
                    tracing::error!(
                        uid,
                        "processes of a sandbox do not die; their user id is given to no other session"
                    );
                    0
                }
            }
        })
    }

    fn ended(&self) -> BoxFuture<'_, SandboxEnd> {
        let end = self.end.clone();
        Box::pin(async move { wait(end).await.0 })
    }
}

async fn wait(mut end: watch::Receiver<End>) -> (SandboxEnd, u32) {
    let ended = end.wait_for(Option::is_some).await.map(|end| *end);
    // The sender goes away only with the whole connection, and the launcher with it.
    ended.ok().flatten().unwrap_or((SandboxEnd::Crashed, 0))
}
