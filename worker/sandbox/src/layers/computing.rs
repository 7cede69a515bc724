//! For a process that only turns bytes into bytes: a list of the calls that computing needs, and an end for all others.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::seccomp::ARCH;

/// Calls that take nothing from the outside but what is open already.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    // Memory that is there already.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // This thread.
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_sched_yield,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The clock, and chance for hash maps.
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
];

/// Leaves this process what is open, memory of its own that holds no code, and its end. Any other call kills it.
///
/// # Errors
/// When the kernel has no seccomp.
pub fn only_computing() -> io::Result<()> {
    seccompiler::apply_filter_all_threads(&filter()?).map_err(io::Error::other)
}

fn filter() -> io::Result<BpfProgram> {
    let rules = rules().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, ARCH);
    filter.and_then(BpfProgram::try_from).map_err(io::Error::other)
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    const HOW: i32 = libc::MAP_SHARED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    const OWN: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let mut rules: BTreeMap<_, _> = ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    let no_code = || masked(2, libc::PROT_EXEC, 0);
    rules.insert(libc::SYS_mmap, vec![all_of([no_code(), masked(3, HOW, OWN)])?]);
    rules.insert(libc::SYS_mprotect, vec![all_of([no_code()])?]);
    // How a program without memory ends itself.
    rules.insert(libc::SYS_tgkill, vec![all_of([argument(2, SeccompCmpOp::Eq, libc::SIGABRT)])?]);
    Ok(rules)
}

/// A rule that holds when every condition does.
fn all_of<const N: usize>(
    conditions: [Result<SeccompCondition, BackendError>; N],
) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into_iter().collect::<Result<_, _>>()?)
}

/// Compares the low 32 bits of an argument, which is all that the kernel looks at where this is used.
fn argument(index: u8, op: SeccompCmpOp, value: i32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, u64::from(value as u32))
}

/// Compares those of the low 32 bits that the mask names.
fn masked(index: u8, mask: i32, value: i32) -> Result<SeccompCondition, BackendError> {
    let op = SeccompCmpOp::MaskedEq(u64::from(mask as u32));
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, u64::from(value as u32))
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use super::*;

    /// Calls something in a process of its own under the filter, and gives the signal that ended it, if one did.
    fn signal_after(call: impl FnOnce()) -> Option<i32> {
        let filter = filter().unwrap();
        // SAFETY: the child makes system calls and ends; it takes no lock and frees nothing.
        match unsafe { libc::fork() } {
            -1 => panic!("{}", io::Error::last_os_error()),
            0 => {
                let applied = seccompiler::apply_filter_all_threads(&filter).is_ok();
                if applied {
                    call();
                }
                // SAFETY: it ends this process.
                unsafe { libc::_exit(i32::from(!applied)) }
            }
            child => {
                let mut status = 0;
                // SAFETY: the status is ours.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert!(!libc::WIFEXITED(status) || libc::WEXITSTATUS(status) == 0, "the filter was applied");
                libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
            }
        }
    }

    /// A raw call with up to four arguments.
    fn call(number: i64, arguments: [usize; 4]) {
        let [a, b, c, d] = arguments;
        // SAFETY: what is called with is of this test, and the process has no other purpose.
        unsafe { libc::syscall(number, a, b, c, d, usize::MAX, 0) };
    }

    #[test]
    fn what_computing_needs_none_of_ends_the_process() {
        let path = c"/tmp/codegen-no-such-file".as_ptr() as usize;
        let here = libc::AT_FDCWD as usize;
        let writing = (libc::O_WRONLY | libc::O_CREAT) as usize;
        let page = 4096;
        let (code, own) = (libc::PROT_EXEC as usize, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize);
        let shared = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as usize;
        let denied = [
            ("socket", libc::SYS_socket, [libc::AF_INET as usize, libc::SOCK_STREAM as usize, 0, 0]),
            ("execve", libc::SYS_execve, [path, 0, 0, 0]),
            ("open for writing", libc::SYS_openat, [here, path, writing, 0o600]),
            ("open for reading", libc::SYS_openat, [here, path, 0, 0]),
            ("unlink", libc::SYS_unlinkat, [here, path, 0, 0]),
            ("fork", libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0]),
            ("kill", libc::SYS_kill, [usize::MAX, 0, 0, 0]),
            ("a signal to others", libc::SYS_tgkill, [1, 1, libc::SIGTERM as usize, 0]),
            ("code", libc::SYS_mmap, [0, page, code, own]),
            ("shared memory", libc::SYS_mmap, [0, page, 0, shared]),
            ("a file in memory", libc::SYS_memfd_create, [path, 0, 0, 0]),
            ("ioctl", libc::SYS_ioctl, [0, 0x5412, 0, 0]),
            ("prctl", libc::SYS_prctl, [0; 4]),
            ("ptrace", libc::SYS_ptrace, [0; 4]),
            ("bpf", libc::SYS_bpf, [0; 4]),
            ("a call that is not known", 5_000, [0; 4]),
        ];
        for (what, number, arguments) in denied {
            assert_eq!(signal_after(|| call(number, arguments)), Some(libc::SIGSYS), "{what}");
        }
    }

    #[test]
    fn memory_pipes_and_chance_are_left() {
        let (input, output) = rustix::pipe::pipe().unwrap();
        let ended = signal_after(|| {
            let page = 4096;
            // SAFETY: a mapping of this process alone, and buffers that outlive the calls.
            unsafe {
                let readable = libc::PROT_READ | libc::PROT_WRITE;
                let own = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                let memory = libc::mmap(null_mut(), page, readable, own, -1, 0);
                libc::getrandom(memory, page, 0);
                libc::munmap(memory, page);
            }
            rustix::io::write(&output, b"x").unwrap();
            let mut byte = [0];
            rustix::io::read(&input, &mut byte).unwrap();
        });
        assert_eq!(ended, None);
    }
}
