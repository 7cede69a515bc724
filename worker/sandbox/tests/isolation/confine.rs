//! Takes from this process what an engine's default container has not got, so that a worker finds a lower level.

use std::collections::BTreeMap;
use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// What a worker at level portable needs of root's power.
const FOUR: CapabilitySet =
    CapabilitySet::CHOWN.union(CapabilitySet::SETUID).union(CapabilitySet::SETGID).union(CapabilitySet::KILL);
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Calls that the default profile of an engine denies a container without capabilities.
const DENIED: [i64; 12] = [
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_sethostname,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
];

/// Confines this process, which must have one thread, and all that it starts. Root keeps four capabilities, and like in a
/// container set-user-id programs go on to work; of others the kernel wants that they do not.
pub fn confine() -> io::Result<()> {
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|number| (*number, Vec::new())).collect();
    let into = |flag: &libc::c_int| {
        let flag = *flag as u64;
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag);
        SeccompRule::new(vec![condition.map_err(io::Error::other)?]).map_err(io::Error::other)
    };
    denied.insert(libc::SYS_clone, NAMESPACES.iter().map(into).collect::<io::Result<_>>()?);
    apply(denied, libc::EPERM)?;
    // The flags of clone3 are out of a filter's sight, and the C library then takes clone.
    apply(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?;
    if rustix::process::geteuid().is_root() { keep_four() } else { Ok(()) }
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: libc::c_int) -> io::Result<()> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch);
    let program = filter.and_then(BpfProgram::try_from).map_err(io::Error::other)?;
    if !rustix::process::geteuid().is_root() {
        return seccompiler::apply_filter(&program).map_err(io::Error::other);
    }
    let length = program.len().try_into().map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: the program and the structure that points to it live through the call, which reads them alone.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn keep_four() -> io::Result<()> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // Those that the kernel does not know cannot be taken away.
        if !FOUR.contains(one) && rustix::thread::capability_is_in_bounding_set(one).unwrap_or(false) {
            rustix::thread::remove_capability_from_bounding_set(one)?;
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective: FOUR, permitted: FOUR, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}
