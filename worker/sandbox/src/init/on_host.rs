//! From a plain fork to a sandbox on the host's own root: no namespace, but a user id of its own where the launcher can
//! give one, Landlock, seccomp and limits.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::Signal;
use rustix::thread::{Gid, Uid};

use super::end::Everything;
use super::setup::{Ready, Step, bound, seal};
use super::{Plan, kept, trees};
use crate::backend::Places;
use crate::kernel;
use crate::layers::landlock::{OnHost, Rules};
use crate::layers::{capabilities, rlimits};
use crate::protocol::OpenFailure;
use crate::supervisor::Ground;

/// What a sandbox on the host's own root lives on.
#[derive(Debug)]
pub(crate) struct Host {
    /// The directory for temporary files.
    pub(crate) scratch: OwnedFd,
    pub(crate) places: Places,
}

/// Makes the sandbox around this process.
pub(super) fn set_up(
    control: &OwnedFd,
    workspace: OwnedFd,
    host: &Host,
    plan: &Plan<'_>,
) -> Result<Ready, OpenFailure> {
    kernel::reset_signal_actions();
    let signals = kernel::signals().step("signalfd")?;
    rustix::process::setsid().step("setsid")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).step("take orphans")?;
    let Places { workspace: path, scratch } = &host.places;
    let readable = trees::readable_on_host(&plan.request.system_paths, path)?;
    let own = [&workspace, &host.scratch].map(std::os::fd::AsFd::as_fd);
    let rules = Rules::make_on_host(&OnHost { readable: &readable, own }).step("make Landlock rules")?;
    // A user id of the sandbox alone has no other processes.
    let others = if plan.request.uid.is_some() { 0 } else { processes_of_this_user() };
    bound(plan, others)?;
    capabilities::narrow();
    let everything = match plan.request.uid {
        Some(uid) => {
            become_user(uid)?;
            Everything::User
        }
        None => Everything::Descendants,
    };
    capabilities::give_up().step("drop capabilities")?;
    trees::reach(&workspace, path)?;
    trees::reach(&host.scratch, scratch)?;
    // Not a kill, so that there is time to end all that has no namespace to end with.
    seal(plan, Signal::TERM)?;
    let mut keep = kept(control, &signals).to_vec();
    keep.extend(rules.descriptor());
    drop(workspace);
    kernel::close_all_but(&keep).step("close descriptors")?;
    let data_bytes_max = rlimits::data_bytes_max(&plan.request.limits, plan.memory);
    let ground = Ground { workspace: path.clone(), rules, data_bytes_max };
    Ok(Ready { signals, ground, everything, listener: None })
}

/// Gives up the launcher's ids for those of one session, with its groups and its capabilities.
fn become_user(uid: u32) -> Result<(), OpenFailure> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    rustix::thread::set_thread_groups(&[]).step("leave the host's groups")?;
    rustix::thread::set_thread_res_gid(group, group, group).step("switch the group id")?;
    rustix::thread::set_thread_res_uid(user, user, user).step("switch the user id")?;
    if rustix::process::getuid() != user || rustix::process::geteuid() != user {
        return Err(OpenFailure::at("switch the user id", "it is still another"));
    }
    Ok(())
}

/// Threads of this process's user, which RLIMIT_NPROC counts.
fn processes_of_this_user() -> u64 {
    let uid = rustix::process::getuid().as_raw();
    kernel::processes_of(uid)
        .iter()
        .filter_map(|pid| Some(fs::read_dir(format!("/proc/{pid}/task")).ok()?.count() as u64))
        .sum()
}
