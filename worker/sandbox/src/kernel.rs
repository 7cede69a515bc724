//! The few system calls that have no safe wrapper. For single-threaded processes: launcher, init and supervisors.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Which side of a fork this is.
pub(crate) enum Forked {
    /// The parent, and the child's process id.
    Parent(i32),
    /// The child.
    Child,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Forks. The caller must be the process's only thread.
pub(crate) fn fork() -> io::Result<Forked> {
    // SAFETY: the process has one thread, so no lock can be held by a thread that the child lacks.
    match check(unsafe { libc::fork() }.into())? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32)),
    }
}

/// Forks into new namespaces. The caller must be the process's only thread.
pub(crate) fn fork_into(namespaces: libc::c_int) -> io::Result<Forked> {
    let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is fork(2); the process has one thread. Nothing below
    // depends on the thread id that the C library caches.
    match check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32)),
    }
}

/// Runs what a forked child does and ends the process, whatever happens: a panic must not unwind into the parent's
/// code.
pub(crate) fn run_and_exit(body: impl FnOnce() -> i32) -> ! {
    let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
    exit(code)
}

/// Ends the process without running what the parent registered for its own exit.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Leaves the given namespaces for new ones.
pub(crate) fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: the process has one thread, and no memory is touched.
    check(unsafe { libc::unshare(namespaces) }.into()).map(drop)
}

/// Adds attributes to a mount, by descriptor, and to all mounts below it when `recursive`.
pub(crate) fn mount_set_attributes(mount: impl AsFd, attributes: u64, recursive: bool) -> io::Result<()> {
    // SAFETY: mount_attr is plain integers, for which zeros are a valid value.
    let mut attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    attr.attr_set = attributes;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let fd = mount.as_fd().as_raw_fd();
    // SAFETY: the path is a NUL-terminated literal and `attr` lives through the call, with its true size.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const attr, size_of::<libc::mount_attr>())
    };
    check(result).map(drop)
}

/// Closes every descriptor from 3 on that is not among `keep`.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<libc::c_uint> = keep.iter().filter_map(|fd| (*fd).try_into().ok()).collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().filter(|fd| *fd >= 3) {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, libc::c_uint::MAX, 0)
}

/// Marks every descriptor from 3 on to be closed by `execve`.
pub(crate) fn close_all_on_exec() -> io::Result<()> {
    close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: libc::c_uint, last: libc::c_uint, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the callers never use a descriptor object of theirs that this closes: they end by exit or exec.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Copies a descriptor to the lowest free number from `least` on, closed by `execve`.
pub(crate) fn duplicate_above(fd: impl AsFd, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a borrowed descriptor is open; the result is a new descriptor that nobody else owns.
    unsafe {
        let fd = check(libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, least).into())?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Puts a copy of a descriptor under exactly this number, kept open by `execve`.
pub(crate) fn duplicate_to(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: the callers are about to exec and own no object for `number`.
    check(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }.into()).map(drop)
}

/// A signalfd for the death of children and for requests to end; blocks both signals for it.
pub(crate) fn signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is used, and lives through the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()).into())?;
        let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// What signals have asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signalled {
    /// At most to reap children.
    GoOn,
    /// To end.
    End,
}

/// Empties a signalfd.
pub(crate) fn drain(signals: &OwnedFd) -> Signalled {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut buffer = [0_u8; SIZE * 8];
    let mut found = Signalled::GoOn;
    while let Ok(len @ 1..) = rustix::io::read(signals, &mut buffer) {
        // Each record begins with the signal's number.
        let mut numbers = buffer[..len].chunks_exact(SIZE).map(|record| [record[0], record[1], record[2], record[3]]);
        if numbers.any(|number| u32::from_ne_bytes(number) == libc::SIGTERM as u32) {
            found = Signalled::End;
        }
    }
    found
}

/// Puts every signal back to its default action.
pub(crate) fn reset_signal_actions() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is always a valid action; signals that cannot be changed refuse, which is fine.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Lets every signal through.
pub(crate) fn unblock_signals() -> io::Result<()> {
    // SAFETY: the set is initialised by sigemptyset and lives through the call.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()).into()).map(drop)
    }
}

/// Sets a resource limit, soft and hard, but never above the hard limit that is already there.
pub(crate) fn limit(resource: libc::__rlimit_resource_t, value: u64) -> io::Result<()> {
    let mut present = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure lives through both calls.
    unsafe {
        check(libc::getrlimit(resource, &raw mut present).into())?;
        let value = value.min(present.rlim_max);
        let new = libc::rlimit { rlim_cur: value, rlim_max: value };
        check(libc::setrlimit(resource, &raw const new).into()).map(drop)
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Exited(i32),
    Signalled(i32),
}

/// Reaps one child that has ended: its process id and how it ended; `None` when none has ended yet.
/// `ECHILD` when there are no children at all.
pub(crate) fn reap() -> io::Result<Option<(i32, Ending)>> {
    let mut status = 0;
    // SAFETY: `status` lives through the call.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }.into())?;
    if pid == 0 {
        return Ok(None);
    }
    let ending = if libc::WIFSIGNALED(status) {
        Ending::Signalled(libc::WTERMSIG(status))
    } else {
        Ending::Exited(libc::WEXITSTATUS(status))
    };
    Ok(Some((pid as i32, ending)))
}

/// Waits for one certain child.
pub(crate) fn reap_child(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` lives through the call. A failure means that it is already reaped.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
}

/// Processor time in milliseconds, and peak resident memory in bytes of the largest, of all reaped descendants.
pub(crate) fn use_of_children() -> (u64, u64) {
    // SAFETY: rusage is plain integers; it lives through the call, which then fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let ms = |time: libc::timeval| time.tv_sec as u64 * 1000 + time.tv_usec as u64 / 1000;
    (ms(usage.ru_utime) + ms(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}

/// The processes of a user of the host, by their real id: those that live, not those that wait to be reaped.
pub(crate) fn processes_of(uid: u32) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        // Not the owner of the directory, which is root for a process that cannot be dumped.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
        let real = field("Uid:").and_then(|ids| ids.split_whitespace().next()?.parse::<u32>().ok());
        real == Some(uid) && !field("State:").is_some_and(|state| state.starts_with(['Z', 'X']))
    })
    .collect()
}

/// Sends a signal to a process, or to a process group when `pid` is negative; one that is gone is fine.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid, signal) };
}

/// Becomes another program. Returns only when that failed.
pub(crate) fn exec(argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (Some(program), argv_pointers, env_pointers) = (argv.first(), pointers(argv), pointers(env)) else {
        return io::Error::from_raw_os_error(libc::EINVAL);
    };
    // SAFETY: both arrays end with null and point to NUL-terminated strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv_pointers.as_ptr(), env_pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Takes the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: ifreq is plain bytes, for which zeros are valid; the name fits and stays NUL-terminated; the structure
    // lives through the call.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request).into()).map(drop)
    }
}

/// Names this UTS namespace.
pub(crate) fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and length are those of one string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// Removes a capability from the bounding set; false when there is no capability of that number.
pub(crate) fn drop_bounding_capability(number: libc::c_ulong) -> io::Result<bool> {
    // SAFETY: prctl with integers touches no memory.
    match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) }.into()) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The Landlock version of this kernel; zero when it has none.
pub(crate) fn landlock_version() -> i32 {
    const CREATE_RULESET_VERSION: libc::c_ulong = 1;
    // SAFETY: with this flag the kernel takes a null attribute of size zero.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, CREATE_RULESET_VERSION)
    };
    version.max(0) as i32
}

/// Lowers the scheduling priority of this process and its future children by so much.
pub(crate) fn be_nicer(by: i32) {
    // SAFETY: no memory is involved. Lowering is permitted to everybody; beyond the lowest it stays at that.
    unsafe { libc::nice(by) };
}

/// A reader of the program's start errors.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Binds this process and its future children to Landlock rules.
pub(crate) fn landlock_restrict(rules: impl AsFd) -> io::Result<()> {
    // SAFETY: a borrowed descriptor is open, and no memory is touched.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_fd().as_raw_fd(), 0) }).map(drop)
}
