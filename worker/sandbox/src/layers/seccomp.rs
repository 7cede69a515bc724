//! Seccomp: system calls that no program of a session needs are denied.
//!
//! Three programs are stacked, since each can give only one answer: the gate (foreign and unknown numbers), the list
//! of denied calls, and `clone3`. The same programs bind init, so nothing in a sandbox runs without them.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::layers::rlimits::MemoryBound;

#[cfg(target_arch = "x86_64")]
pub(super) const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
pub(super) const ARCH: TargetArch = TargetArch::aarch64;

/// The last system call that was looked at when this list was written; newer ones do not exist inside.
const LAST_KNOWN: u32 = 469;

/// The programs, compiled once and applied in every init.
#[derive(Debug, Clone)]
pub(crate) struct Filters {
    programs: Vec<BpfProgram>,
    without_hidden_memory: [BpfProgram; 2],
}

impl Filters {
    /// Compiles the programs.
    pub(crate) fn compile() -> io::Result<Self> {
        let denied = denied_calls().map_err(io::Error::other)?;
        let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        let memory_files = BTreeMap::from([(libc::SYS_memfd_create, Vec::new()), (libc::SYS_shmget, Vec::new())]);
        let shared_memory = BTreeMap::from([(libc::SYS_mmap, vec![shared_anonymous().map_err(io::Error::other)?])]);
        Ok(Self {
            programs: vec![gate(), program(denied, libc::EPERM)?, program(clone3, libc::ENOSYS)?],
            without_hidden_memory: [program(memory_files, libc::ENOSYS)?, program(shared_memory, libc::ENOMEM)?],
        })
    }

    /// Binds this process and its descendants; `no_new_privs` must be set.
    pub(crate) fn apply(&self, memory: MemoryBound) -> io::Result<()> {
        for program in &self.programs {
            seccompiler::apply_filter(program).map_err(io::Error::other)?;
        }
        match memory {
            MemoryBound::ControlGroup => Ok(()),
            // Memory that stays when no process maps it any more cannot be sampled.
            MemoryBound::Sampling => self
                .without_hidden_memory
                .iter()
                .try_for_each(|program| seccompiler::apply_filter(program).map_err(io::Error::other)),
        }
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn program(rules: Rules, errno: i32) -> io::Result<BpfProgram> {
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), ARCH)
        .map_err(io::Error::other)?;
    filter.try_into().map_err(|e: seccompiler::BackendError| io::Error::other(e))
}

/// Numbers above the last known one, x32 among them, answer ENOSYS; calls of a foreign architecture end the process
/// (by the prologue that the library puts before each of its programs, and here first of all).
fn gate() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const NUMBER_OFFSET: u32 = 0;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD_WORD, 0, 0, NUMBER_OFFSET),
        step(JUMP_GREATER, 0, 1, LAST_KNOWN),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn denied_calls() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = ALWAYS_DENIED.iter().map(|number| (*number, Vec::new())).collect();
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6].map(|family| argument(0, SeccompCmpOp::Ne, family));
    rules.insert(libc::SYS_socket, [vec![all_of(families)?], rare_protocols()?].concat());
    rules.insert(libc::SYS_socketpair, vec![all_of([argument(0, SeccompCmpOp::Ne, libc::AF_UNIX)])?]);
    let namespaces = NAMESPACES
        .iter()
        .map(|flag| all_of([SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(*flag), *flag)]));
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    let terminal = [TIOCSTI, TIOCLINUX, TIOCSETD].map(|request| all_of([argument(1, SeccompCmpOp::Eq, request)]));
    rules.insert(libc::SYS_ioctl, terminal.into_iter().collect::<Result<_, _>>()?);
    let on_others = |index| all_of([argument(index, SeccompCmpOp::Ne, 0)]);
    rules.insert(libc::SYS_prlimit64, vec![on_others(0)?]);
    for number in [libc::SYS_setpriority, libc::SYS_ioprio_set] {
        rules.insert(number, vec![on_others(1)?]);
    }
    let query = all_of([argument(0, SeccompCmpOp::Ne, 0), argument(0, SeccompCmpOp::Ne, -1)])?;
    rules.insert(libc::SYS_personality, vec![query]);
    Ok(rules)
}

/// Protocols for which the kernel would load a module that nobody here needs (DCCP, SCTP and the like).
fn rare_protocols() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    const DATAGRAM_CONGESTION: u64 = 6;
    const TYPE_BITS: u64 = 0xf;
    let inet = || argument(0, SeccompCmpOp::Ne, libc::AF_UNIX);
    let kind = |kind: u64| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(TYPE_BITS), kind);
    let other_than = |protocol| argument(2, SeccompCmpOp::Ne, protocol);
    Ok(vec![
        all_of([inet(), kind(DATAGRAM_CONGESTION)])?,
        all_of([inet(), kind(libc::SOCK_SEQPACKET as u64)])?,
        all_of([
            inet(),
            other_than(0),
            other_than(libc::IPPROTO_ICMP),
            other_than(libc::IPPROTO_TCP),
            other_than(libc::IPPROTO_UDP),
            other_than(libc::IPPROTO_ICMPV6),
            other_than(libc::IPPROTO_MPTCP),
        ])?,
    ])
}

/// A mapping that is shared and has no file.
fn shared_anonymous() -> Result<SeccompRule, seccompiler::BackendError> {
    const SHARED_ANONYMOUS: u64 = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64;
    let flags = SeccompCmpOp::MaskedEq(SHARED_ANONYMOUS);
    all_of([SeccompCondition::new(3, SeccompCmpArgLen::Dword, flags, SHARED_ANONYMOUS)])
}

/// A rule that holds when every condition does.
pub(super) fn all_of<const N: usize>(
    conditions: [Result<SeccompCondition, seccompiler::BackendError>; N],
) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

/// Compares the low 32 bits of an argument, which is all that the kernel looks at where this is used.
pub(super) fn argument(index: u8, op: SeccompCmpOp, value: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, u64::from(value as u32))
}

/// Compares those of the low 32 bits that the mask names.
pub(super) fn masked(index: u8, mask: i32, value: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    let op = SeccompCmpOp::MaskedEq(u64::from(mask as u32));
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, u64::from(value as u32))
}

const TIOCSTI: i32 = 0x5412;
const TIOCLINUX: i32 = 0x541C;
const TIOCSETD: i32 = 0x5423;

const NAMESPACES: &[u64] = &[
    libc::CLONE_NEWNS as u64,
    libc::CLONE_NEWCGROUP as u64,
    libc::CLONE_NEWUTS as u64,
    libc::CLONE_NEWIPC as u64,
    libc::CLONE_NEWUSER as u64,
    libc::CLONE_NEWPID as u64,
    libc::CLONE_NEWNET as u64,
];

const ALWAYS_DENIED: &[i64] = &[
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Large surfaces of the kernel.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_vhangup,
    libc::SYS_syslog,
    libc::SYS_acct,
    // The machine.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Listing mounts (statmount, listmount) and reaching mounts of others (open_tree_attr); not in libc everywhere.
    457,
    458,
    467,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];
