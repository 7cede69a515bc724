//! The launcher: a single-threaded process, forked before tokio starts, that makes every sandbox and reaps it.
//!
//! It is the parent of every init, so that parent-death signals come from a thread that never ends early, and it ends
//! with its worker.

mod burials;
mod on_host;
mod open;
mod remains;
mod remedy;
mod serve;

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Signal;

use crate::datagram;
use crate::kernel::{self, Forked};
use crate::layers::seccomp::Filters;

/// The worker's end of the socket to its launcher. The launcher and every sandbox end when it is closed.
#[derive(Debug)]
pub struct LauncherSocket(pub(crate) OwnedFd);

/// Forks the launcher, and makes this process the parent of what that one leaves when it is killed. Must be called by a
/// process that has one thread and, in its memory, no secret: at the very start. Returns in the parent only. Fails when there
/// are other threads already, or the rules on system calls are wrong.
pub fn fork() -> io::Result<LauncherSocket> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the launcher must be forked before any thread is started"));
    }
    // Here, since whoever starts the worker hears of an error.
    let filters = Filters::compile()?;
    let worker = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(worker))?;
    let (ours, theirs) = datagram::pair()?;
    match kernel::fork()? {
        Forked::Parent(_) => Ok(LauncherSocket(ours)),
        Forked::Child => kernel::run_and_exit(|| {
            drop(ours);
            // Blocked before it is asked for, so that it is never deadly.
            let Ok(signals) = kernel::signals() else { return 1 };
            // Not a kill, so that there is time to remove control groups; the inits themselves are killed.
            let bound = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
            // A worker that ended before the signal was asked for will never send it.
            if bound.is_err() || rustix::process::getppid() != Some(worker) {
                return 1;
            }
            serve::run(theirs, signals, filters)
        }),
    }
}
