//! The launcher's loop: requests of the worker, and deaths of inits.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::time::Timespec;

use super::open;
use crate::backend::SandboxEnd;
use crate::cgroups::{Group, Groups, OomCounter};
use crate::datagram::{self, Datagram};
use crate::init::{EXIT_MEMORY_LIMIT, EXIT_RELEASED};
use crate::kernel::{self, Ending, Signalled};
use crate::layers::seccomp::Filters;
use crate::protocol::{LauncherReply, LauncherRequest, OpenFailure, OpenRequest};
use crate::supervisor;

/// How often a group that a dying process still holds is tried again.
const REMOVE_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
const REMOVE_TRIES: u32 = 50;

/// Everything the launcher holds.
pub(super) struct Launcher {
    pub(super) groups: Groups,
    pub(super) filters: Filters,
    socket: OwnedFd,
    signals: OwnedFd,
    live: HashMap<i32, Live>,
    /// Groups of sandboxes that are gone, with the tries left to remove them.
    stale: Vec<(Group, u32)>,
}

/// A sandbox that was made, under the process id of its init.
pub(super) struct Live {
    pub(super) id: u64,
    pub(super) group: Group,
    pub(super) oom: Option<OomCounter>,
    pub(super) destroyed: Option<u32>,
}

/// Runs the launcher until its worker lets go of it, and gives its exit code.
pub(super) fn run(socket: OwnedFd, signals: OwnedFd) -> i32 {
    let Ok(mut launcher) = Launcher::new(socket, signals) else { return 1 };
    let served = launcher.serve();
    launcher.end_all();
    if served.is_ok() { 0 } else { 1 }
}

impl Launcher {
    fn new(socket: OwnedFd, signals: OwnedFd) -> io::Result<Self> {
        kernel::close_all_but(&[socket.as_raw_fd(), signals.as_raw_fd()])?;
        detach_standard_descriptors()?;
        rustix::process::chdir("/")?;
        if rustix::process::geteuid().is_root() {
            // No sandbox may have the groups of whoever started the worker.
            rustix::thread::set_thread_groups(&[])?;
        }
        let (groups, filters) = (Groups::find(), Filters::compile()?);
        Ok(Self { groups, filters, socket, signals, live: HashMap::new(), stale: Vec::new() })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            let timeout = (!self.stale.is_empty()).then_some(&REMOVE_INTERVAL);
            match rustix::event::poll(&mut polled, timeout) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let asked = !polled[0].revents().is_empty();
            let signalled = kernel::drain(&self.signals);
            self.reap()?;
            if signalled == Signalled::End {
                return Ok(());
            }
            if asked {
                match datagram::recv(&self.socket)? {
                    Some(datagram) => self.handle(datagram)?,
                    None => return Ok(()),
                }
            }
            self.remove_stale();
        }
    }

    fn handle(&mut self, datagram: Datagram) -> io::Result<()> {
        // What cannot be read can only be a fault of ours; the worker's request then ends with its deadline.
        match serde_json::from_slice(&datagram.bytes) {
            Ok(LauncherRequest::Open(request)) => self.open(request, datagram.descriptors.into_iter().next()),
            Ok(LauncherRequest::Destroy { id }) => {
                self.destroy(id);
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    fn open(&mut self, request: OpenRequest, workspace: Option<OwnedFd>) -> io::Result<()> {
        let id = request.id;
        let opened = match workspace {
            Some(workspace) => open::open(self, &request, workspace),
            None => Err(OpenFailure::at("read the request", "the workspace's descriptor is missing")),
        };
        match opened {
            Ok(opened) => {
                let counter = opened.group.oom_counter();
                let mut descriptors = vec![opened.control.as_fd()];
                descriptors.extend(counter.as_ref().map(AsFd::as_fd));
                let said = self.say(&LauncherReply::Opened { id, layers: opened.layers }, &descriptors);
                let oom = counter.map(OomCounter::new);
                // Also when the worker is gone, so that everything is put away at the end.
                self.live.insert(opened.pid, Live { id, group: opened.group, oom, destroyed: None });
                said
            }
            Err(why) => self.say(&LauncherReply::Refused { id, why }, &[]),
        }
    }

    fn destroy(&mut self, id: u64) {
        // One that is gone already has been told of.
        let Some((pid, live)) = self.live.iter_mut().find(|(_, live)| live.id == id) else { return };
        live.destroyed = Some(1 + supervisor::descendants_of(*pid).len() as u32);
        kernel::kill(*pid, libc::SIGKILL);
    }

    /// Reaps inits that are gone: the kernel has ended everything inside by then.
    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some((pid, ending))) = kernel::reap() {
            let Some(live) = self.live.remove(&pid) else { continue };
            let ended =
                LauncherReply::Ended { id: live.id, end: end_of(&live, ending), killed: live.destroyed.unwrap_or(0) };
            self.put_away(live.group);
            self.say(&ended, &[])?;
        }
        Ok(())
    }

    /// Removes a group, now or as soon as nothing holds it.
    pub(super) fn put_away(&mut self, group: Group) {
        if !group.remove() {
            self.stale.push((group, REMOVE_TRIES));
        }
    }

    fn say(&self, reply: &LauncherReply, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
        datagram::send(&self.socket, &serde_json::to_vec(reply)?, descriptors)
    }

    fn end_all(&mut self) {
        for (pid, live) in self.live.drain() {
            kernel::kill(pid, libc::SIGKILL);
            kernel::reap_child(pid);
            self.stale.push((live.group, REMOVE_TRIES));
        }
        loop {
            self.remove_stale();
            if self.stale.is_empty() {
                break;
            }
            // Only the time matters here; an early return means one more try.
            let _ = rustix::event::poll(&mut [], Some(&REMOVE_INTERVAL));
        }
        self.groups.remove();
    }

    fn remove_stale(&mut self) {
        self.stale.retain_mut(|(group, tries)| {
            *tries -= 1;
            !group.remove() && *tries > 0
        });
    }
}

fn end_of(live: &Live, ending: Ending) -> SandboxEnd {
    let out_of_memory = live.oom.as_ref().is_some_and(|counter| counter.kills() > 0);
    match (live.destroyed, ending) {
        // A sandbox that ran out of memory loses its supervisors first, for which the worker has it destroyed.
        (_, Ending::Exited(EXIT_MEMORY_LIMIT)) => SandboxEnd::MemoryLimit,
        (_, Ending::Signalled(libc::SIGKILL)) if out_of_memory => SandboxEnd::MemoryLimit,
        (Some(_), _) | (None, Ending::Exited(EXIT_RELEASED)) => SandboxEnd::Destroyed,
        (None, _) => SandboxEnd::Crashed,
    }
}

/// The worker's standard input is its life line and its output belongs to others: the launcher must hold neither.
fn detach_standard_descriptors() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, 0.into())?;
    (0..3).try_for_each(|number| kernel::duplicate_to(&null, number))
}
