//! The launcher's loop: requests of the worker, and deaths of inits.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::time::Timespec;

use super::burials::{Burial, Burials};
use super::remains::Remains;
use super::{on_host, open};
use crate::backend::SandboxEnd;
use crate::cgroups::{Counters, Group, Groups};
use crate::datagram::{self, Datagram};
use crate::init::{EXIT_MEMORY_LIMIT, EXIT_RELEASED};
use crate::kernel::{self, Ending, Signalled};
use crate::layers::seccomp::Filters;
use crate::protocol::{LauncherReply, LauncherRequest, OpenFailure, OpenRequest};
use crate::supervisor;

/// How often a group that a dying process still holds is tried again.
const REMOVE_INTERVAL: Duration = Duration::from_millis(20);
const REMOVE_TRIES: u32 = 50;
/// How long orphans are killed that multiply meanwhile, before requests have their turn.
const ORPHANS_TURN: Duration = Duration::from_millis(10);
/// How soon their next turn comes; later, when they go on for long.
const ORPHANS_REST: Duration = Duration::from_millis(2);
const ORPHANS_REST_LONG: Duration = Duration::from_millis(100);
const ORPHANS_PATIENCE: Duration = Duration::from_secs(10);
/// How long a request waits for its user id to be free of processes.
const USER_PATIENCE: Duration = Duration::from_secs(10);
/// How long everything may take to die at the launcher's own end; what is left then is the next start's.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// Everything the launcher holds.
pub(super) struct Launcher {
    pub(super) groups: Groups,
    pub(super) filters: Filters,
    socket: OwnedFd,
    signals: OwnedFd,
    live: HashMap<i32, Live>,
    /// What sandboxes without namespaces left whose init is gone.
    burials: Burials,
    /// Since when there have been orphans.
    orphans_since: Option<Instant>,
    /// Requests whose user id is not free yet. Bounded by the sandboxes that the worker asks for at once.
    waiting: Vec<Waiting>,
    /// User ids under which nothing is left, each for the request that waited for that.
    cleared: HashSet<u32>,
    /// Groups of sandboxes that are gone, with the tries left to remove them.
    stale: Vec<(Group, u32)>,
}

/// A sandbox that was made, under the process id of its init.
pub(super) struct Live {
    pub(super) id: u64,
    pub(super) group: Group,
    pub(super) counters: Counters,
    pub(super) destroyed: Option<u32>,
    remains: Option<Remains>,
}

/// A request for a sandbox, and how long it waits at most.
struct Waiting {
    request: OpenRequest,
    descriptors: Vec<OwnedFd>,
    until: Instant,
}

/// Runs the launcher until its worker lets go of it, and gives its exit code.
pub(super) fn run(socket: OwnedFd, signals: OwnedFd, filters: Filters) -> i32 {
    let Ok(mut launcher) = Launcher::new(socket, signals, filters) else { return 1 };
    let served = launcher.serve();
    launcher.end_all();
    if served.is_ok() { 0 } else { 1 }
}

impl Launcher {
    fn new(socket: OwnedFd, signals: OwnedFd, filters: Filters) -> io::Result<Self> {
        kernel::close_all_but(&[socket.as_raw_fd(), signals.as_raw_fd()])?;
        detach_standard_descriptors()?;
        rustix::process::chdir("/")?;
        if rustix::process::geteuid().is_root() {
            // No sandbox may have the groups of whoever started the worker.
            rustix::thread::set_thread_groups(&[])?;
        }
        // The product's allocator does without huge pages, for its process and all that descend from it; programs may have them.
        // Where the kernel has no say in that, they only go without.
        let _ = rustix::thread::disable_transparent_huge_pages(false);
        let groups = Groups::find();
        Ok(Self {
            groups,
            filters,
            socket,
            signals,
            live: HashMap::new(),
            burials: Burials::default(),
            orphans_since: None,
            waiting: Vec::new(),
            cleared: HashSet::new(),
            stale: Vec::new(),
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let mut polled = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            let timeout = self.next_look().and_then(|rest| Timespec::try_from(rest).ok());
            match rustix::event::poll(&mut polled, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let asked = !polled[0].revents().is_empty();
            let signalled = kernel::drain(&self.signals);
            self.reap()?;
            self.go_on_burying()?;
            self.open_waiting()?;
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

    /// How long nothing need be looked at that nobody tells of.
    fn next_look(&self) -> Option<Duration> {
        let now = Instant::now();
        let orphans = self.orphans_since.map(|since| {
            let rest = if now - since > ORPHANS_PATIENCE { ORPHANS_REST_LONG } else { ORPHANS_REST };
            now + rest
        });
        let stale = (!self.stale.is_empty()).then(|| now + REMOVE_INTERVAL);
        let waiting = self.waiting.iter().map(|waiting| waiting.until).min();
        let burials = self.burials.next_look(orphans.is_some());
        let next = [orphans, stale, waiting, burials].into_iter().flatten().min();
        next.map(|next| next.saturating_duration_since(now))
    }

    fn handle(&mut self, datagram: Datagram) -> io::Result<()> {
        // What cannot be read can only be a fault of ours; the worker's request then ends with its deadline.
        match serde_json::from_slice(&datagram.bytes) {
            Ok(LauncherRequest::Open(request)) => {
                let until = Instant::now() + USER_PATIENCE;
                self.open_or_wait(Waiting { request, descriptors: datagram.descriptors, until })
            }
            Ok(LauncherRequest::Destroy { id }) => {
                self.destroy(id);
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// Opens a sandbox whose user id nothing else has. What an earlier life left under it is ended first, and the launcher
    /// goes on meanwhile. That there is nothing is not to be seen: of a chain of forks each process may be gone when it is
    /// looked at.
    fn open_or_wait(&mut self, wanted: Waiting) -> io::Result<()> {
        let Some(uid) = on_host::own_user(&wanted.request) else {
            return self.open(wanted.request, wanted.descriptors);
        };
        let lives = self.live.values().filter_map(|live| live.remains.as_ref()).any(|own| own.user() == Some(uid));
        if !lives && !self.burials.hold(uid) {
            if self.cleared.remove(&uid) {
                return self.open(wanted.request, wanted.descriptors);
            }
            self.burials.add(Remains::of_user(uid), None);
        }
        if Instant::now() < wanted.until {
            self.waiting.push(wanted);
            return Ok(());
        }
        let held = self.burials.hold(uid).then_some(uid);
        let why = OpenFailure::at("end what an earlier session left", format!("processes of user id {uid} do not die"));
        self.say(&LauncherReply::Refused { id: wanted.request.id, why, held }, &[])
    }

    fn open_waiting(&mut self) -> io::Result<()> {
        std::mem::take(&mut self.waiting).into_iter().try_for_each(|waiting| self.open_or_wait(waiting))
    }

    fn open(&mut self, request: OpenRequest, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let id = request.id;
        let mut descriptors = descriptors.into_iter();
        let opened = match descriptors.next() {
            Some(workspace) => open::open(self, &request, workspace, descriptors.next()),
            None => Err(OpenFailure::at("read the request", "the workspace's descriptor is missing")),
        };
        match opened {
            Ok(opened) => {
                let counters = opened.group.counters();
                let mut descriptors = vec![opened.control.as_fd()];
                descriptors.extend(opened.listener.as_ref().map(AsFd::as_fd));
                descriptors.extend(counters.files().into_iter().flatten());
                let (layers, places, proxy) = (opened.layers, opened.places, opened.listener.is_some());
                let counted = counters.files().map(|file| file.is_some());
                let reply = LauncherReply::Opened { id, init: opened.pid, layers, places, proxy, counted };
                let said = self.say(&reply, &descriptors);
                // Also when the worker is gone, so that everything is put away at the end.
                let live = Live { id, group: opened.group, counters, destroyed: None, remains: opened.remains };
                self.live.insert(opened.pid, live);
                said
            }
            Err(why) => self.say(&LauncherReply::Refused { id, why, held: None }, &[]),
        }
    }

    fn destroy(&mut self, id: u64) {
        // One that is gone already has been told of.
        let Some((pid, live)) = self.live.iter_mut().find(|(_, live)| live.id == id) else { return };
        live.destroyed = Some(1 + supervisor::descendants_of(*pid).len() as u32);
        kernel::kill(*pid, libc::SIGKILL);
    }

    /// Reaps inits that are gone: with namespaces, the kernel has ended everything inside by then.
    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some((pid, ending))) = kernel::reap() {
            let Some(live) = self.live.remove(&pid) else {
                self.burials.note_end(pid, ending);
                continue;
            };
            let ended =
                LauncherReply::Ended { id: live.id, end: end_of(&live, ending), killed: live.destroyed.unwrap_or(0) };
            match live.remains {
                Some(remains) => self.burials.add(remains, Some((live.group, ended))),
                None => {
                    self.put_away(live.group);
                    self.say(&ended, &[])?;
                }
            }
        }
        Ok(())
    }

    /// Ends the orphans of inits that are gone, has the rest seen to, and tells the end of what is through.
    fn go_on_burying(&mut self) -> io::Result<()> {
        let orphaned = self.burials.have_orphans() && self.end_orphans()?;
        let since = self.orphans_since.take().unwrap_or_else(Instant::now);
        self.orphans_since = orphaned.then_some(since);
        let mut replies = Vec::new();
        // All is put away before anything is said, which fails once nobody listens.
        for Burial { remains, after, .. } in self.burials.go_on(orphaned) {
            remains.discard();
            match (after, remains.user()) {
                (Some((group, ended)), _) => {
                    self.put_away(group);
                    replies.push(ended);
                }
                (None, Some(uid)) if self.waiting.iter().any(|one| on_host::own_user(&one.request) == Some(uid)) => {
                    self.cleared.insert(uid);
                }
                (None, _) => {}
            }
            replies.extend(remains.user().map(|uid| LauncherReply::Freed { uid }));
        }
        replies.iter().try_for_each(|reply| self.say(reply, &[]))
    }

    /// Kills what lost its parent with an init that is gone, for one turn; whether there is something left.
    fn end_orphans(&mut self) -> io::Result<bool> {
        let until = Instant::now() + ORPHANS_TURN;
        loop {
            let is_orphan = |pid: &i32| !self.live.contains_key(pid) && !self.burials.is_undertaker(*pid);
            if !supervisor::kill_children(is_orphan) {
                return Ok(false);
            }
            self.reap()?;
            if Instant::now() >= until {
                return Ok(true);
            }
        }
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

    /// Ends everything, as far as that can be brought about in time.
    fn end_all(&mut self) {
        self.waiting.clear();
        self.live.keys().for_each(|pid| kernel::kill(*pid, libc::SIGKILL));
        let until = Instant::now() + END_PATIENCE;
        while !(self.live.is_empty() && self.burials.is_empty()) && Instant::now() < until {
            // Nobody listens any more; what cannot be said is no reason to leave anything behind.
            let _ = self.reap();
            let _ = self.go_on_burying();
            rest(ORPHANS_REST);
        }
        // Those whose init does not die go at the next start.
        while !self.stale.is_empty() {
            self.remove_stale();
            rest(REMOVE_INTERVAL);
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

/// Only the time matters here; an early return means one more try.
fn rest(time: Duration) {
    let _ = rustix::event::poll(&mut [], Timespec::try_from(time).ok().as_ref());
}

fn end_of(live: &Live, ending: Ending) -> SandboxEnd {
    let out_of_memory = live.counters.now().memory_kills > 0;
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
