//! Makes one sandbox with a root and namespaces of its own: the parent's half. The child's half is [`crate::init`].

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use codegen_types::{IsolationLevel, LayerReport};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;

use super::remains::Remains;
use super::serve::Launcher;
use super::{on_host, remedy};
use crate::backend::Places;
use crate::cgroups::{Bound, Group, Means};
use crate::datagram;
use crate::init::{self, Plan, SetupReport};
use crate::kernel::{self, Forked};
use crate::layers::report::{self, Facts};
use crate::layers::rlimits::MemoryBound;
use crate::protocol::{OpenFailure, OpenRequest};

/// All but the cgroup namespace, which init makes itself once it is in its group.
const NAMESPACES: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;
const SETUP_DEADLINE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// User and group id inside.
const INSIDE_ID: u32 = 1000;
/// The longest file of certificates that fits into the root of a sandbox, in bytes.
const CERTIFICATES_BYTES_MAX: u64 = 2 << 20;

/// A sandbox that is set up.
pub(super) struct Opened {
    pub(super) pid: i32,
    pub(super) control: OwnedFd,
    pub(super) group: Group,
    pub(super) layers: Vec<LayerReport>,
    pub(super) places: Places,
    /// What is left when init is gone; nothing where the kernel ends everything with it.
    pub(super) remains: Option<Remains>,
    pub(super) listener: Option<OwnedFd>,
}

/// Makes a sandbox of the level that is asked for, or nothing at all.
pub(super) fn open(
    launcher: &mut Launcher,
    request: &OpenRequest,
    workspace: OwnedFd,
    certificates: Option<OwnedFd>,
) -> Result<Opened, OpenFailure> {
    match request.level {
        IsolationLevel::Full => open_full(launcher, request, workspace, certificates),
        // Only a network of its own keeps a program from going round the proxy.
        IsolationLevel::Portable | IsolationLevel::Reduced if request.proxy => {
            Err(OpenFailure::at("listen for the proxy", "a proxy needs level full"))
        }
        IsolationLevel::Portable | IsolationLevel::Reduced => on_host::open(launcher, request, workspace),
        IsolationLevel::None => Err(OpenFailure::at("choose a level", "none is no level")),
    }
}

fn open_full(
    launcher: &mut Launcher,
    request: &OpenRequest,
    workspace: OwnedFd,
    certificates: Option<OwnedFd>,
) -> Result<Opened, OpenFailure> {
    let certificates = certificates.map(read_certificates).transpose();
    let certificates = certificates.map_err(|e| OpenFailure::at("read the certificates of the proxy", e))?;
    let ids = outside_ids(request.uid)?;
    let group = launcher.groups.create(&request.limits).map_err(|e| OpenFailure::at("make a control group", e))?;
    let (control, init_control) = datagram::pair().map_err(|e| OpenFailure::at("socketpair", e))?;
    let means = launcher.groups.means();
    let (memory, cpu_bound) = (memory_bound(means), means.cpu != Bound::No);
    let certificates = certificates.as_deref();
    let plan = Plan { request, filters: &launcher.filters, memory, cpu_bound, host: None, certificates };
    let pid = match kernel::fork_into(NAMESPACES) {
        Ok(Forked::Parent(pid)) => pid,
        Ok(Forked::Child) => kernel::run_and_exit(|| init::run(init_control, workspace, &plan)),
        Err(error) => {
            launcher.put_away(group);
            return Err(remedy::for_clone(&error));
        }
    };
    drop(init_control);
    match map_ids(pid, ids).and_then(|()| admit(pid, &group, &control)) {
        Ok((landlock_version, listener)) => {
            let processes_counted_inside = counts_processes_inside();
            let facts =
                Facts { uid: request.uid, landlock_version, groups: means, processes_counted_inside, below_full: None };
            let (layers, places) = (report::rows(&facts), Places::on_own_root());
            Ok(Opened { pid, control, group, layers, places, remains: None, listener })
        }
        Err(failure) => {
            kernel::kill(pid, libc::SIGKILL);
            kernel::reap_child(pid);
            launcher.put_away(group);
            Err(remedy::for_setup(failure))
        }
    }
}

/// The host's user and group id of the sandbox.
fn outside_ids(uid: Option<u32>) -> Result<(u32, u32), OpenFailure> {
    let own = (rustix::process::geteuid(), rustix::process::getegid());
    match uid {
        Some(0) => Err(OpenFailure::at("choose a user id", "root's id is never given to a session")),
        Some(uid) if own.0.is_root() => Ok((uid, uid)),
        None if !own.0.is_root() => Ok((own.0.as_raw(), own.1.as_raw())),
        Some(_) => Err(OpenFailure::at("choose a user id", "only a worker that is root can give sessions an id")),
        None => Err(OpenFailure::at("choose a user id", "a worker that is root must give every session an id")),
    }
}

/// Who bounds the memory.
pub(super) fn memory_bound(means: Means) -> MemoryBound {
    if means.memory == Bound::No { MemoryBound::Sampling } else { MemoryBound::ControlGroup }
}

/// The version of Landlock, and the listener of its proxy.
pub(super) type Admitted = (i32, Option<OwnedFd>);

fn map_ids(pid: i32, (uid, gid): (u32, u32)) -> Result<(), OpenFailure> {
    let write = |file: &str, text: String| {
        fs::write(format!("/proc/{pid}/{file}"), text).map_err(|e| OpenFailure::at(format!("write {file}"), e))
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("{INSIDE_ID} {uid} 1"))?;
    write("gid_map", format!("{INSIDE_ID} {gid} 1"))
}

/// Places the process in its group, lets it set itself up and waits for its word.
pub(super) fn admit(pid: i32, group: &Group, control: &OwnedFd) -> Result<Admitted, OpenFailure> {
    group.place(pid).map_err(|e| OpenFailure::at("enter the control group", e))?;
    datagram::send(control, b"go", &[]).map_err(|e| OpenFailure::at("let init go", e))?;
    match setup_report(control).map_err(|e| OpenFailure::at("wait for init", e))? {
        (SetupReport::Ready { landlock_version }, listener) => Ok((landlock_version, listener)),
        (SetupReport::Failed(failure), _) => Err(failure),
    }
}

fn setup_report(control: &OwnedFd) -> io::Result<(SetupReport, Option<OwnedFd>)> {
    let mut polled = [PollFd::new(control, PollFlags::IN)];
    if rustix::event::poll(&mut polled, Some(&SETUP_DEADLINE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let datagram = datagram::recv(control)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((serde_json::from_slice(&datagram.bytes)?, datagram.descriptors.into_iter().next()))
}

fn read_certificates(file: OwnedFd) -> io::Result<Vec<u8>> {
    let file = fs::File::from(file);
    let length = file.metadata()?.len();
    if length > CERTIFICATES_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Whether this kernel counts RLIMIT_NPROC per user namespace (since 5.14).
fn counts_processes_inside() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (5, 14)
}
