//! The supervisor of one task: starts the program, passes signals on, and ends only when every descendant is gone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::child::{ChildEnd, SupervisorEvent};
use crate::datagram;
use crate::kernel::{self, Ending, Forked};
use crate::layers::landlock::Rules;
use crate::layers::rlimits;
use crate::protocol::{EXTRA_NUMBERS_END, SpawnOrder, read_all};

/// How long descendants may take to die; a supervisor that cannot end them gives up, and the sandbox is destroyed.
const END_DEADLINE: Duration = Duration::from_secs(2);

/// Descendants whose children are looked for: a chain that forks as fast as it is followed has no end.
const DESCENDANTS_MAX: usize = 16_384;

/// What every program of a sandbox stands on.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Where the workspace is.
    pub(crate) workspace: PathBuf,
    /// What binds it.
    pub(crate) rules: Rules,
    /// Its own memory at most, where nothing else bounds that at once.
    pub(crate) data_bytes_max: Option<u64>,
}

/// Runs the supervisor of one task, in a process of its own, and gives its exit code.
pub(crate) fn run(order: SpawnOrder, ground: &Ground) -> i32 {
    let Ok(mut supervisor) = Supervisor::start(order, ground) else { return 1 };
    if supervisor.watch().is_ok() { 0 } else { 1 }
}

/// Says on a task's socket why its program did not start.
pub(crate) fn say_failed(ctl: impl AsFd, step: &str, error: &io::Error) {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    say(ctl, &SupervisorEvent::Failed { step: step.to_owned(), errno });
}

/// Says something on a task's socket.
pub(crate) fn say(ctl: impl AsFd, event: &SupervisorEvent) {
    let text = serde_json::to_vec(event).expect("events are plain data");
    // A worker that listens no more closes its end, which is seen by polling.
    let _ = datagram::send(ctl, &text, &[]);
}

struct Supervisor {
    ctl: OwnedFd,
    signals: OwnedFd,
    program: i32,
    ending: Option<Ending>,
    end: ChildEnd,
}

impl Supervisor {
    fn start(order: SpawnOrder, ground: &Ground) -> io::Result<Self> {
        // A fresh fork is no group leader, so this cannot fail.
        let _ = rustix::process::setsid();
        let signals = take_charge().inspect_err(|error| say_failed(&order.ctl, "supervise the program", error))?;
        let started = start_program(&order, ground);
        let SpawnOrder { ctl, descriptors, .. } = order;
        drop(descriptors);
        match started {
            Ok(program) => {
                say(&ctl, &SupervisorEvent::Started { pid: program as u32 });
                kernel::close_all_but(&[ctl.as_raw_fd(), signals.as_raw_fd()])?;
                Ok(Self { ctl, signals, program, ending: None, end: ChildEnd::default() })
            }
            Err((step, error)) => {
                say_failed(&ctl, &step, &error);
                Err(error)
            }
        }
    }

    fn watch(&mut self) -> io::Result<()> {
        while self.ending.is_none() {
            let mut polled = [PollFd::new(&self.ctl, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            match rustix::event::poll(&mut polled, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let told = !polled[0].revents().is_empty();
            if told {
                self.obey()?;
            }
            kernel::drain(&self.signals);
            self.reap(0);
        }
        self.end_leftovers()?;
        self.report();
        Ok(())
    }

    /// Carries out one order of the worker; its silence for ever is an order to kill.
    fn obey(&mut self) -> io::Result<()> {
        match datagram::recv(&self.ctl)?.as_ref().map(|datagram| datagram.bytes.as_slice()) {
            Some(b"i") => kernel::kill(-self.program, libc::SIGINT),
            Some(b"k") => self.kill_program(),
            Some(_) => {}
            None => {
                self.kill_program();
                self.end_leftovers()?;
                kernel::exit(0);
            }
        }
        Ok(())
    }

    fn kill_program(&self) {
        kernel::kill(-self.program, libc::SIGKILL);
        kernel::kill(self.program, libc::SIGKILL);
        for pid in descendants() {
            kernel::kill(pid, libc::SIGKILL);
        }
    }

    /// Reaps all children that have ended, counting those other than the program; true when none is left.
    fn reap(&mut self, count: u32) -> bool {
        loop {
            match kernel::reap() {
                Ok(Some((pid, ending))) if pid == self.program => self.ending = Some(ending),
                Ok(Some(_)) => self.end.leftovers_killed += count,
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Kills what the program left behind until nothing is left; orphans of descendants become our children, so the
    /// walk sees them in the next round.
    fn end_leftovers(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + END_DEADLINE;
        while !self.reap(1) {
            for pid in descendants() {
                kernel::kill(pid, libc::SIGKILL);
            }
            if Instant::now() > deadline {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            let mut polled = [PollFd::new(&self.signals, PollFlags::IN)];
            // Woken by the next death, or soon, for those that were born meanwhile.
            let _ = rustix::event::poll(&mut polled, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 2_000_000 }));
            kernel::drain(&self.signals);
        }
        Ok(())
    }

    fn report(&mut self) {
        let (code, signal) = match self.ending {
            Some(Ending::Exited(code)) => (Some(code), None),
            Some(Ending::Signalled(signal)) => (None, Some(signal)),
            None => (None, None),
        };
        let (cpu_ms, memory_peak_bytes) = kernel::use_of_children();
        let end = ChildEnd { code, signal, cpu_ms, memory_peak_bytes, ..self.end.clone() };
        say(&self.ctl, &SupervisorEvent::Exited(end));
    }
}

/// Makes orphans of descendants children of this process, and the end of any child a readable descriptor.
fn take_charge() -> io::Result<OwnedFd> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    kernel::signals()
}

/// Kills those children of this process that are meant, each before its descendants are looked for, which come here in their
/// turn: a chain of forks is cut where it is caught. True when there were some.
pub(crate) fn kill_children(is_meant: impl Fn(&i32) -> bool) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let found: Vec<i32> = children(own).into_iter().filter(is_meant).collect();
    found.iter().for_each(|pid| kernel::kill(*pid, libc::SIGKILL));
    for pid in found.iter().flat_map(|pid| descendants_of(*pid)) {
        kernel::kill(pid, libc::SIGKILL);
    }
    !found.is_empty()
}

/// Kills those children that are meant, and reaps all that have ended; true when there is no child any more.
pub(crate) fn end_children(is_meant: impl Fn(&i32) -> bool) -> bool {
    kill_children(is_meant);
    loop {
        match kernel::reap() {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// The process ids of all descendants of this process that live or wait to be reaped.
pub(crate) fn descendants() -> Vec<i32> {
    descendants_of(rustix::process::getpid().as_raw_nonzero().get())
}

/// The process ids of all descendants of a process that live or wait to be reaped, or of so many as are looked at.
pub(crate) fn descendants_of(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut next = 0;
    while next < found.len().min(DESCENDANTS_MAX) {
        found.extend(children(found[next]));
        next += 1;
    }
    found
}

/// The children of all threads of a process; none when it is gone.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let files = threads.flatten().map(|thread| thread.path().join("children"));
    let lists = files.filter_map(|file| std::fs::read_to_string(file).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Forks and starts the program; returns its process id once it really runs.
pub(crate) fn start_program(order: &SpawnOrder, ground: &Ground) -> Result<i32, (String, io::Error)> {
    let at = |step: &str| {
        let step = step.to_owned();
        move |error: io::Error| (step, error)
    };
    let (failed, say_failed) = kernel::pipe().map_err(at("pipe"))?;
    // Out of the way of the numbers that the program's descriptors get.
    let say_failed = kernel::duplicate_above(say_failed, EXTRA_NUMBERS_END).map_err(at("pipe"))?;
    let program = match kernel::fork().map_err(at("fork"))? {
        Forked::Parent(pid) => pid,
        Forked::Child => kernel::run_and_exit(|| {
            let (step, error) = become_program(order, ground);
            let text = format!("{} {step}", error.raw_os_error().unwrap_or(libc::EIO));
            // Without a reader nobody wants to know.
            let _ = rustix::io::write(&say_failed, text.as_bytes());
            127
        }),
    };
    drop(say_failed);
    let text = String::from_utf8_lossy(&read_all(failed)).into_owned();
    match text.split_once(' ') {
        None => Ok(program),
        Some((errno, step)) => {
            kernel::reap_child(program);
            Err((step.to_owned(), io::Error::from_raw_os_error(errno.parse().unwrap_or(libc::EIO))))
        }
    }
}

/// Turns this process into the program; returns only when that failed.
fn become_program(order: &SpawnOrder, ground: &Ground) -> (String, io::Error) {
    match prepare(order, ground) {
        Err((step, error)) => (step.to_owned(), error),
        Ok(()) => {
            let error = kernel::exec(&order.argv, &order.env);
            (format!("start {}", order.argv[0].to_string_lossy()), error)
        }
    }
}

fn prepare(order: &SpawnOrder, ground: &Ground) -> Result<(), (&'static str, io::Error)> {
    rustix::process::setpgid(None, None).map_err(|e| ("make a process group", e.into()))?;
    prefer_for_oom();
    let directory = order.directory(&ground.workspace);
    rustix::process::chdir(&directory).map_err(|e| ("enter the working directory", e.into()))?;
    ground.rules.restrict().map_err(|e| ("apply Landlock", e))?;
    place_descriptors(order).map_err(|e| ("place descriptors", e))?;
    kernel::reset_signal_actions();
    kernel::unblock_signals().map_err(|e| ("unblock signals", e))?;
    rlimits::apply_to_program(ground.data_bytes_max).map_err(|e| ("bound its memory", e))
}

/// Makes the kernel take the program first when memory runs out, never init or a supervisor.
fn prefer_for_oom() {
    // Its own /proc entries belong to root while the process is not dumpable; the program gets this from exec anyway.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable);
    // Without it the order of killing is the kernel's choice, which only costs a sandbox instead of a task.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// Puts every descriptor under its number and leaves nothing else open for the program.
fn place_descriptors(order: &SpawnOrder) -> io::Result<()> {
    // First out of the way of all the numbers, so that none is overwritten before it is copied.
    let high: Vec<(OwnedFd, i32)> = order
        .descriptors
        .iter()
        .map(|(fd, number)| Ok((kernel::duplicate_above(fd, EXTRA_NUMBERS_END)?, *number)))
        .collect::<io::Result<_>>()?;
    kernel::close_all_on_exec()?;
    for (fd, number) in &high {
        kernel::duplicate_to(fd, *number)?;
    }
    // They are closed by exec; dropping them here would be one more call each.
    std::mem::forget(high);
    Ok(())
}
