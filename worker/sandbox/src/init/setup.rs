//! The steps from a fresh clone to a sandbox, in the only order that works.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::mount::MountPropagationFlags;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{Gid, Uid};

use super::end::Everything;
use super::trees::Trees;
use super::{Plan, kept, root};
use crate::backend::{PROXY_PORT, Places};
use crate::kernel;
use crate::layers::landlock::Rules;
use crate::layers::{capabilities, rlimits};
use crate::protocol::OpenFailure;
use crate::supervisor::Ground;

/// User and group id of everything inside a sandbox.
const INSIDE_ID: u32 = 1000;
/// By how much whatever runs in a sandbox is nicer than the launcher and the worker, which are to get a turn among all the
/// processes that a session may have, where no control group sees to it.
const NICER_BY: i32 = 5;

/// What init needs afterwards.
pub(super) struct Ready {
    pub(super) signals: OwnedFd,
    pub(super) ground: Ground,
    pub(super) everything: Everything,
    /// Where programs find the worker's proxy.
    pub(super) listener: Option<OwnedFd>,
}

/// Names the step of an error.
pub(super) trait Step<T> {
    fn step(self, step: &str) -> Result<T, OpenFailure>;
}

impl<T, E: ToString> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, OpenFailure> {
        self.map_err(|error| OpenFailure::at(step, error))
    }
}

/// Makes the sandbox around this process.
pub(super) fn set_up(control: &OwnedFd, workspace: OwnedFd, plan: &Plan<'_>) -> Result<Ready, OpenFailure> {
    kernel::reset_signal_actions();
    let signals = kernel::signals().step("signalfd")?;
    // After the launcher placed us, so that the namespace's root is our own control group.
    kernel::unshare(libc::CLONE_NEWCGROUP).step("make a cgroup namespace")?;
    rustix::process::setsid().step("setsid")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).step("make mounts private")?;
    // Still under the launcher's user id, which may pass directories that the session's id may not.
    let trees = Trees::clone_from_host(workspace, &plan.request.system_paths)?;
    become_inside_user()?;
    let system_trees = trees.system_targets();
    root::build(trees, &plan.request.limits, plan.certificates)?;
    kernel::loopback_up().step("take loopback up")?;
    let listener = plan.request.proxy.then(listen).transpose().step("listen for the proxy")?;
    kernel::set_host_name("sandbox").step("set the host name")?;
    let rules = Rules::make(&system_trees).step("make Landlock rules")?;
    close_in(plan, control, &signals, &rules, listener.as_ref())?;
    let data_bytes_max = rlimits::data_bytes_max(&plan.request.limits, plan.memory);
    let ground = Ground { workspace: Places::on_own_root().workspace, rules, data_bytes_max };
    Ok(Ready { signals, ground, everything: Everything::Namespace, listener })
}

/// Where programs find the worker's proxy; nobody inside keeps it, so that nobody but the worker answers there.
fn listen() -> io::Result<OwnedFd> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, PROXY_PORT))?.into())
}

/// Inside, the user has no name of the host's: the id that the launcher mapped.
fn become_inside_user() -> Result<(), OpenFailure> {
    let (gid, uid) = (Gid::from_raw(INSIDE_ID), Uid::from_raw(INSIDE_ID));
    // Capabilities over the new namespaces are needed until the root is built.
    rustix::thread::set_keep_capabilities(true).step("keep capabilities")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).step("switch the group id")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step("switch the user id")?;
    let sets = rustix::thread::capabilities(None).step("read capabilities")?;
    rustix::thread::set_capabilities(None, rustix::thread::CapabilitySets { effective: sets.permitted, ..sets })
        .step("raise capabilities")
}

/// Gives up everything that building needed.
fn close_in(
    plan: &Plan<'_>,
    control: &OwnedFd,
    signals: &OwnedFd,
    rules: &Rules,
    listener: Option<&OwnedFd>,
) -> Result<(), OpenFailure> {
    bound(plan, 0)?;
    capabilities::drop_all().step("drop capabilities")?;
    seal(plan, Signal::KILL)?;
    let mut keep = kept(control, signals).to_vec();
    keep.extend(rules.descriptor());
    keep.extend(listener.map(AsRawFd::as_raw_fd));
    kernel::close_all_but(&keep).step("close descriptors")
}

/// Sets what everything inside inherits and cannot raise again. `others` are processes that are counted together with
/// those of the sandbox.
pub(super) fn bound(plan: &Plan<'_>, others: u64) -> Result<(), OpenFailure> {
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, 0.into())
        .step("open /dev/null")?;
    for number in 0..3 {
        kernel::duplicate_to(&null, number).step("replace standard descriptors")?;
    }
    drop(null);
    if !plan.cpu_bound {
        kernel::be_nicer(NICER_BY);
    }
    rlimits::apply(&plan.request.limits, others).step("set resource limits")
}

/// Makes the way back impossible. `at_its_end` is what the launcher's end sends.
pub(super) fn seal(plan: &Plan<'_>, at_its_end: Signal) -> Result<(), OpenFailure> {
    rustix::thread::set_no_new_privs(true).step("no_new_privs")?;
    plan.filters.apply(plan.request.level, plan.memory).step("seccomp")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("forbid dumps")?;
    // Set last, since every change of credentials clears it.
    rustix::process::set_parent_process_death_signal(Some(at_its_end)).step("parent-death signal")
}
