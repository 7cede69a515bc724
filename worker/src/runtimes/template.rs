//! The worker's end of a prepared interpreter.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::WorkspacePath;
use parking_lot::Mutex;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use sandbox::{Sandbox, Spawn, datagram};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::StartError;
use super::forked::Forked;
use super::lane::Lanes;
use super::python::{Job, Python};
use crate::executor::stdio::Stdio;
use crate::tasks::Gate;

/// What the prepared interpreter runs; its own text explains it.
const SOURCE: &str = concat!(
    include_str!("interpreter/template.py"),
    include_str!("interpreter/lane.py"),
    include_str!("interpreter/program.py"),
    include_str!("interpreter/display.py"),
    include_str!("interpreter/kernel.py"),
    include_str!("interpreter/start.py"),
);
/// Where the first lane gets its orders, and where it reads its own source.
const LANE_FD: i32 = 3;
const SOURCE_FD: i32 = 4;
/// What the template closes when it is prepared.
const READY_FD: i32 = 5;
/// How long preparing is waited for.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// How much the interpreter may say on its own account, in bytes.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// An interpreter that waits in a sandbox with the standard library imported. Dropped, it ends as soon as none of its
/// programs runs.
#[derive(Debug)]
pub(crate) struct Template {
    lanes: Arc<Lanes>,
    /// Ends when the interpreter is prepared; absent once somebody waited for that.
    ready: Mutex<Option<pipe::Receiver>>,
}

impl Template {
    /// Starts one; returns before it is ready, since orders wait in its socket.
    pub async fn start(sandbox: &dyn Sandbox, python: &Python) -> Result<Self, StartError> {
        let (orders, theirs) = datagram::pair().map_err(StartError::Descriptors)?;
        let (complaints, stderr) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(descriptors)?;
        let (ready, preparing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(descriptors)?;
        let ready = pipe::Receiver::from_owned_fd(ready).map_err(StartError::Descriptors)?;
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let spawn = Spawn {
            argv: python.argv(SOURCE_FD),
            env: python.environment().pairs(sandbox.places()),
            cwd: WorkspacePath::root(),
            stdin: null().map_err(StartError::Descriptors)?,
            stdout: null().map_err(StartError::Descriptors)?,
            stderr,
            extra: vec![(theirs, LANE_FD), (memory_file(SOURCE.as_bytes())?, SOURCE_FD), (preparing, READY_FD)],
        };
        sandbox.spawn_bare(spawn).await?;
        report_complaints(complaints).map_err(StartError::Descriptors)?;
        Ok(Self { lanes: Lanes::new(orders).await?, ready: Mutex::new(Some(ready)) })
    }

    /// Waits until it is prepared, or gone.
    pub async fn ready(&self) {
        let ready = self.ready.lock().take();
        if let Some(mut ready) = ready {
            // Nothing is written; only the end matters.
            let _ended = tokio::time::timeout(READY_DEADLINE, ready.read(&mut [0])).await;
        }
    }

    /// Gives a job to a program of it, and waits until the gate is open and the program runs.
    pub async fn fork(
        &self,
        sandbox: &dyn Sandbox,
        job: &Job,
        stdio: &Stdio,
        extra: &OwnedFd,
        gate: &Gate,
    ) -> Result<Forked, StartError> {
        Forked::start(&self.lanes, sandbox, job, stdio, extra, gate).await
    }
}

/// A file in memory, read from its beginning.
pub(crate) fn memory_file(bytes: &[u8]) -> Result<OwnedFd, StartError> {
    let fill = || -> io::Result<OwnedFd> {
        let mut file = File::from(rustix::fs::memfd_create("codegen", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        file.rewind()?;
        Ok(file.into())
    };
    fill().map_err(StartError::Descriptors)
}

fn descriptors(errno: Errno) -> StartError {
    StartError::Descriptors(errno.into())
}

/// Logs what the interpreter says when it cannot start, or cannot fork. Its programs have streams of their own; what is
/// taken from this one is bounded, and nobody else reads it.
fn report_complaints(pipe: OwnedFd) -> io::Result<()> {
    let pipe = pipe::Receiver::from_owned_fd(pipe)?;
    tokio::spawn(async move {
        let mut text = Vec::new();
        if pipe.take(COMPLAINT_BYTES_MAX).read_to_end(&mut text).await.is_ok() && !text.is_empty() {
            let text = String::from_utf8_lossy(&text);
            tracing::warn!(%text, "the prepared interpreter complained");
        }
    });
    Ok(())
}
