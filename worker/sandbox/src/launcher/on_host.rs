//! Makes one sandbox on the host's own root: the parent's half of levels portable and reduced.

use std::os::fd::OwnedFd;

use codegen_types::IsolationLevel;
use rustix::process::{DumpableBehavior, Pid};

use super::open::{Opened, admit, memory_bound};
use super::remains::Remains;
use super::serve::Launcher;
use crate::cgroups::Bound;
use crate::datagram;
use crate::init::{self, Host, Plan, path_of};
use crate::kernel::{self, Forked};
use crate::layers::report::{self, BelowFull, Facts};
use crate::protocol::{OpenFailure, OpenRequest};

/// The version of Landlock from which it denies TCP.
const LANDLOCK_TCP: i32 = 4;
/// The version from which it denies signals as well; cutting files by their path it denies from version 3 on.
const LANDLOCK_SIGNALS: i32 = 6;
const NEEDS_CAPABILITIES: &str = "run the worker as root with the capabilities SETUID, SETGID, CHOWN and KILL";

/// Makes a sandbox, or nothing at all. No process has its user id, if it has one of its own, as the launcher sees to.
pub(super) fn open(launcher: &mut Launcher, request: &OpenRequest, workspace: OwnedFd) -> Result<Opened, OpenFailure> {
    let user = user(request)?;
    require_landlock(request.level)?;
    watch_over_orphans()?;
    let workspace_path = path_of(&workspace)?;
    let remains = Remains::make(user, &workspace_path)?;
    let made = make(
        launcher,
        request,
        workspace,
        Host { scratch: remains.scratch()?, places: remains.places(workspace_path) },
    );
    match made {
        Ok(opened) => Ok(Opened { remains: Some(remains), ..opened }),
        Err(failure) => {
            remains.discard();
            Err(failure)
        }
    }
}

fn make(launcher: &mut Launcher, request: &OpenRequest, workspace: OwnedFd, host: Host) -> Result<Opened, OpenFailure> {
    let group = launcher.groups.create(&request.limits).map_err(|e| OpenFailure::at("make a control group", e))?;
    let (control, init_control) = datagram::pair().map_err(|e| OpenFailure::at("socketpair", e))?;
    let means = launcher.groups.means();
    let (memory, cpu_bound) = (memory_bound(means), means.cpu != Bound::No);
    let plan = Plan { request, filters: &launcher.filters, memory, cpu_bound, host: Some(&host), certificates: None };
    let pid = match kernel::fork() {
        Ok(Forked::Parent(pid)) => pid,
        Ok(Forked::Child) => kernel::run_and_exit(|| init::run(init_control, workspace, &plan)),
        Err(error) => {
            launcher.put_away(group);
            return Err(OpenFailure::at("fork init", error));
        }
    };
    drop(init_control);
    match admit(pid, &group, &control) {
        Ok((landlock_version, _)) => {
            let not_better = request.not_better.clone();
            let below_full = Some(BelowFull { level: request.level, not_better });
            let processes_counted_inside = false;
            let facts =
                Facts { uid: request.uid, landlock_version, groups: means, processes_counted_inside, below_full };
            let layers = report::rows(&facts);
            Ok(Opened { pid, control, group, layers, places: host.places, remains: None, listener: None })
        }
        Err(failure) => {
            kernel::kill(pid, libc::SIGKILL);
            kernel::reap_child(pid);
            launcher.put_away(group);
            Err(failure)
        }
    }
}

/// The user id that a sandbox is to have for itself, on the host's own root.
pub(super) fn own_user(request: &OpenRequest) -> Option<u32> {
    let is_on_host = request.level < IsolationLevel::Full;
    if is_on_host { user(request).ok().flatten() } else { None }
}

/// The user id of the sandbox: one of its own, or the worker's.
fn user(request: &OpenRequest) -> Result<Option<u32>, OpenFailure> {
    let root = rustix::process::geteuid().is_root();
    let refused = |why: &str| {
        let remedy = Some(NEEDS_CAPABILITIES.to_owned());
        Err(OpenFailure { remedy, ..OpenFailure::at("choose a user id", why) })
    };
    match (request.level, request.uid) {
        (IsolationLevel::Portable, Some(uid)) if root && uid != 0 => Ok(Some(uid)),
        (IsolationLevel::Portable, _) => refused("the worker is not root, so sessions share its user id"),
        (_, None) if !root => Ok(None),
        // Root's own files are all over the host, and no limit of processes binds it.
        _ => refused("the worker is root and cannot give sessions a user id of their own"),
    }
}

fn require_landlock(level: IsolationLevel) -> Result<(), OpenFailure> {
    let version = kernel::landlock_version();
    let Some((wanted, kernel)) = wanted_of_landlock(level, version) else { return Ok(()) };
    let why = format!("this kernel has version {version}, at least {wanted} is needed");
    let remedy = format!("boot a kernel {kernel} or newer with `landlock` in its `lsm=` list");
    Err(OpenFailure { remedy: Some(remedy), ..OpenFailure::at("find Landlock", why) })
}

/// What a level needs of Landlock, its version and the kernel's, where this version is older.
fn wanted_of_landlock(level: IsolationLevel, version: i32) -> Option<(i32, &'static str)> {
    // A user id of its own keeps a session from the worker's files and processes; without it Landlock alone does.
    let wanted = if level == IsolationLevel::Portable { (LANDLOCK_TCP, "6.7") } else { (LANDLOCK_SIGNALS, "6.12") };
    (version < wanted.0).then_some(wanted)
}

/// Makes the launcher the parent of what a dead init leaves behind, and closes its memory to others of its user. Not
/// before it is needed: an init with namespaces of its own could not be given ids by a launcher that cannot be dumped.
fn watch_over_orphans() -> Result<(), OpenFailure> {
    let own: Pid = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(|e| OpenFailure::at("take orphans", e))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| OpenFailure::at("forbid dumps", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_with_the_worker_s_user_id_need_a_landlock_that_denies_signals() {
        for version in 0..6 {
            assert_eq!(wanted_of_landlock(IsolationLevel::Reduced, version), Some((6, "6.12")));
        }
        assert_eq!(wanted_of_landlock(IsolationLevel::Reduced, 6), None);
        assert_eq!(wanted_of_landlock(IsolationLevel::Portable, 3), Some((4, "6.7")));
        assert_eq!(wanted_of_landlock(IsolationLevel::Portable, 4), None);
    }
}
