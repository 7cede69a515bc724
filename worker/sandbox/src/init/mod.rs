//! The init of a sandbox: sets it up, starts programs when the worker says so, and reaps.
//!
//! It ends when the worker closes its control socket. At level full it is PID 1 inside, and the kernel ends everything
//! with it; below, it ends everything itself first, and the launcher sees to what it may have left.

mod end;
mod etc;
mod meter;
mod on_host;
mod root;
mod setup;
mod trees;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use codegen_types::Limits;
use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

use crate::child::{ChildEnd, SupervisorEvent};
use crate::datagram;
use crate::kernel::{self, Ending, Forked, Signalled};
use crate::layers::rlimits::MemoryBound;
use crate::layers::seccomp::Filters;
use crate::protocol::{OpenRequest, SpawnOrder, Supervision};
use crate::supervisor::{self, Ground};
use end::{Everything, Launcher};
pub(crate) use on_host::Host;
pub(crate) use trees::path_of;

pub use trees::may_be_shown;

/// The exit code with which init says that the sandbox used more memory than it may.
pub(crate) const EXIT_MEMORY_LIMIT: i32 = 72;
/// The exit code with which init says that its worker let go of it.
pub(crate) const EXIT_RELEASED: i32 = 0;

const SAMPLE_INTERVAL: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// What init is made with; a copy of the launcher's memory carries it over.
pub(crate) struct Plan<'a> {
    pub(crate) request: &'a OpenRequest,
    pub(crate) filters: &'a Filters,
    pub(crate) memory: MemoryBound,
    pub(crate) cpu_bound: bool,
    /// What it lives on when it has no root of its own.
    pub(crate) host: Option<&'a Host>,
    /// What is to be shown as the certificates of its proxy.
    pub(crate) certificates: Option<&'a [u8]>,
}

/// What init says to the launcher once it is set up; the listener of its proxy comes with it, if there is to be one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SetupReport {
    Ready { landlock_version: i32 },
    Failed(crate::protocol::OpenFailure),
}

/// Runs init in the fresh namespaces and gives its exit code.
pub(crate) fn run(control: OwnedFd, workspace: OwnedFd, plan: &Plan<'_>) -> i32 {
    // First of all, since the copy of the launcher's end of `control` would hide that the launcher is gone.
    let mut keep = vec![control.as_raw_fd(), workspace.as_raw_fd()];
    keep.extend(plan.host.map(|host| host.scratch.as_raw_fd()));
    if kernel::close_all_but(&keep).is_err() {
        return EXIT_RELEASED;
    }
    // The launcher says when ids are mapped and the control group is entered.
    if !matches!(datagram::recv(&control), Ok(Some(_))) {
        return EXIT_RELEASED;
    }
    let (launcher, limits, memory) = (Launcher::of_this_process(), plan.request.limits, plan.memory);
    let made = match plan.host {
        None => setup::set_up(&control, workspace, plan),
        Some(host) => on_host::set_up(&control, workspace, host, plan),
    };
    let report = match made {
        Ok(ready) => {
            let report = SetupReport::Ready { landlock_version: kernel::landlock_version() };
            if say(&control, &report, ready.listener.as_ref()).is_err() {
                return EXIT_RELEASED;
            }
            let setup::Ready { signals, ground, everything, listener } = ready;
            // From here on the worker alone can take connections from it.
            drop(listener);
            let mut init = Init { control, signals, ground, limits, memory, everything, bare: HashMap::new() };
            let code = init.serve();
            // That memory ran out is known by this exit alone, which comes before anybody misses what ran here; the launcher
            // sees to the rest, if it is there.
            if code != EXIT_MEMORY_LIMIT || launcher.is_gone() {
                init.everything.end(launcher);
            }
            return code;
        }
        Err(failure) => SetupReport::Failed(failure),
    };
    // Without a launcher nobody wants to know.
    let _ = say(&control, &report, None);
    1
}

fn say(control: &OwnedFd, report: &SetupReport, listener: Option<&OwnedFd>) -> io::Result<()> {
    let passed: Vec<_> = listener.map(AsFd::as_fd).into_iter().collect();
    datagram::send(control, &serde_json::to_vec(report)?, &passed)
}

struct Init {
    control: OwnedFd,
    signals: OwnedFd,
    ground: Ground,
    limits: Limits,
    memory: MemoryBound,
    everything: Everything,
    /// Programs without a supervisor, and where their end is told.
    bare: HashMap<i32, OwnedFd>,
}

impl Init {
    fn serve(&mut self) -> i32 {
        let mut children = false;
        loop {
            let mut polled = [PollFd::new(&self.control, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            let sampled = children && self.memory == MemoryBound::Sampling;
            match rustix::event::poll(&mut polled, sampled.then_some(&SAMPLE_INTERVAL)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return 1,
            }
            if sampled && meter::is_over(self.limits.memory_bytes, self.everything.measured()) {
                return EXIT_MEMORY_LIMIT;
            }
            if !polled[0].revents().is_empty() {
                match datagram::recv(&self.control) {
                    Ok(Some(datagram)) => self.start(SpawnOrder::decode(datagram)),
                    Ok(None) | Err(_) => return EXIT_RELEASED,
                }
            }
            if kernel::drain(&self.signals) == Signalled::End && self.everything.ends_on_request() {
                return EXIT_RELEASED;
            }
            children = self.reap();
        }
    }

    /// Reaps all children that have ended; true while some live.
    fn reap(&mut self) -> bool {
        loop {
            match kernel::reap() {
                Ok(Some((pid, ending))) => self.tell_end(pid, ending),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn tell_end(&mut self, pid: i32, ending: Ending) {
        let Some(ctl) = self.bare.remove(&pid) else { return };
        let (code, signal) = match ending {
            Ending::Exited(code) => (Some(code), None),
            Ending::Signalled(signal) => (None, Some(signal)),
        };
        supervisor::say(ctl, &SupervisorEvent::Exited(ChildEnd { code, signal, ..ChildEnd::default() }));
    }

    fn start(&mut self, order: Option<SpawnOrder>) {
        // An order that cannot be read is dropped with its descriptors, which its sender sees at once.
        let Some(order) = order else { return };
        match order.supervision {
            Supervision::Supervised => self.start_supervised(order),
            Supervision::Bare => self.start_bare(order),
        }
    }

    fn start_supervised(&self, order: SpawnOrder) {
        match kernel::fork() {
            Ok(Forked::Parent(_)) => {}
            Ok(Forked::Child) => kernel::run_and_exit(|| supervisor::run(order, &self.ground)),
            Err(error) => supervisor::say_failed(&order.ctl, "fork", &error),
        }
    }

    fn start_bare(&mut self, order: SpawnOrder) {
        match supervisor::start_program(&order, &self.ground) {
            Ok(pid) => {
                supervisor::say(&order.ctl, &SupervisorEvent::Started { pid: pid as u32 });
                self.bare.insert(pid, order.ctl);
            }
            Err((step, error)) => supervisor::say_failed(&order.ctl, &step, &error),
        }
    }
}

/// The descriptors that init keeps after its setup.
fn kept(control: &OwnedFd, signals: &OwnedFd) -> [i32; 2] {
    [control.as_raw_fd(), signals.as_raw_fd()]
}
