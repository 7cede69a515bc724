//! What a sandbox on the host's own root leaves behind when its init is gone: processes, and the files of its scratch
//! directory. They are seen to by a process that no program of the sandbox can signal, so that a hostile heap of them holds
//! up no other session.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, chownat, mkdirat, openat, unlinkat};
use rustix::time::Timespec;

use crate::backend::Places;
use crate::files;
use crate::kernel::{self, Forked};
use crate::protocol::OpenFailure;
use crate::uids::UNDERTAKERS;

/// How long processes of a user may take to die before another undertaker tries.
const END_DEADLINE: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// The exit code of an undertaker that left nothing behind.
pub(super) const EXIT_CLEAN: i32 = 0;
/// That of one that did.
const EXIT_LEFT: i32 = 1;

/// What is to be seen to after a sandbox.
#[derive(Debug)]
pub(super) struct Remains {
    /// The user id of the sandbox alone; none: the worker's own.
    user: Option<u32>,
    /// Its directory for temporary files; none: all that is known of is a user id that has processes.
    scratch: Option<Scratch>,
}

#[derive(Debug)]
struct Scratch {
    /// The directory that holds it, and the workspaces.
    base: OwnedFd,
    name: CString,
    path: PathBuf,
}

impl Remains {
    /// Makes the scratch directory of a sandbox beside its workspace.
    pub(super) fn make(user: Option<u32>, workspace: &Path) -> Result<Self, OpenFailure> {
        let at = |step: &'static str| move |errno: rustix::io::Errno| OpenFailure::at(step, errno);
        let parent = workspace.parent().unwrap_or(Path::new("/"));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = openat(CWD, parent, flags, Mode::empty()).map_err(at("open the directory of workspaces"))?;
        let name = files::scratch_name().map_err(|error| OpenFailure::at("name a scratch directory", error))?;
        mkdirat(&base, &name, Mode::RWXU).map_err(at("make a scratch directory"))?;
        let path = parent.join(OsStr::from_bytes(name.to_bytes()));
        let scratch = Scratch { base, name, path };
        if let Some(uid) = user {
            let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
            let given = chownat(&scratch.base, &scratch.name, user, group, AtFlags::SYMLINK_NOFOLLOW);
            if let Err(errno) = given {
                scratch.remove();
                return Err(at("give the scratch directory to its user")(errno));
            }
        }
        Ok(Self { user, scratch: Some(scratch) })
    }

    /// What an earlier life left running under an id that a sandbox is to get.
    pub(super) fn of_user(uid: u32) -> Self {
        Self { user: Some(uid), scratch: None }
    }

    /// The scratch directory.
    pub(super) fn scratch(&self) -> Result<OwnedFd, OpenFailure> {
        let failed = |why: &dyn ToString| OpenFailure::at("open the scratch directory", why.to_string());
        let scratch = self.scratch.as_ref().ok_or_else(|| failed(&"there is none"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&scratch.base, &scratch.name, flags, Mode::empty()).map_err(|errno| failed(&errno))
    }

    pub(super) fn places(&self, workspace: PathBuf) -> Places {
        let scratch = self.scratch.as_ref().map(|scratch| scratch.path.clone()).unwrap_or_default();
        Places { workspace, scratch }
    }

    /// The user id that its processes are known by; without one they are known by the parent that they have lost.
    pub(super) fn user(&self) -> Option<u32> {
        self.user
    }

    /// Whether processes of its user live.
    pub(super) fn has_processes(&self) -> bool {
        self.user.is_some_and(|uid| !kernel::processes_of(uid).is_empty())
    }

    /// Begins to see to everything in a process of its own, whose end is a child's; `None` when there can be none now.
    pub(super) fn bury(&self) -> Option<i32> {
        match kernel::fork() {
            Ok(Forked::Parent(pid)) => Some(pid),
            Ok(Forked::Child) => kernel::run_and_exit(|| self.undertake()),
            Err(_) => None,
        }
    }

    /// The undertaker's work, and its exit code.
    fn undertake(&self) -> i32 {
        let keep: Vec<_> = self.scratch.iter().map(|scratch| scratch.base.as_raw_fd()).collect();
        if kernel::close_all_but(&keep).is_err() {
            return EXIT_LEFT;
        }
        if let Some(uid) = self.user
            && !(become_undertaker_of(uid) && end_user(uid))
        {
            return EXIT_LEFT;
        }
        let Some(scratch) = &self.scratch else { return EXIT_CLEAN };
        if files::clear_scratch(scratch.base.as_fd(), &scratch.name).is_ok() { EXIT_CLEAN } else { EXIT_LEFT }
    }

    /// Removes the scratch directory itself. One that still holds something goes at the worker's next start.
    pub(super) fn discard(&self) {
        self.scratch.iter().for_each(Scratch::remove);
    }
}

impl Scratch {
    fn remove(&self) {
        let _ = unlinkat(&self.base, &self.name, AtFlags::REMOVEDIR);
    }
}

/// Gives up the launcher's ids for some that can end the processes of a session's user and remove its files, and that none
/// of those can signal: of who signals the kernel looks at the effective id, of who is signalled at the real and the saved
/// one. Landlock's scopes would see to that as well, where the kernel has them.
fn become_undertaker_of(uid: u32) -> bool {
    let (user, own, group) = (Uid::from_raw(uid), Uid::from_raw(uid + UNDERTAKERS), Gid::from_raw(uid));
    let groups =
        rustix::thread::set_thread_groups(&[]).and_then(|()| rustix::thread::set_thread_res_gid(group, group, group));
    let users = rustix::thread::set_thread_res_uid(own, user, own)
        // Where few ids are mapped, that of the sandbox has to do.
        .or_else(|_| rustix::thread::set_thread_res_uid(user, user, user));
    groups.is_ok() && users.is_ok() && rustix::process::geteuid() == user && !rustix::process::getuid().is_root()
}

/// Kills all processes of a user but this one, until none is left; false when they would not die. All at once each time,
/// so that none is between two forks.
fn end_user(uid: u32) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let deadline = Instant::now() + END_DEADLINE;
    while Instant::now() < deadline {
        kernel::kill(-1, libc::SIGKILL);
        if kernel::processes_of(uid).iter().all(|pid| *pid == own) {
            return true;
        }
        // Only the time matters.
        let _ = rustix::event::poll(&mut [], Some(&LOOK_INTERVAL));
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::kernel::Ending;

    fn ending(pid: i32) -> Ending {
        let mut status = 0;
        // SAFETY: the status is ours, and the process a child of this one.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        if libc::WIFSIGNALED(status) {
            Ending::Signalled(libc::WTERMSIG(status))
        } else {
            Ending::Exited(libc::WEXITSTATUS(status))
        }
    }

    /// A process that does something and then waits for a byte to go on with; it says that it is there by one of its own.
    fn child(body: impl FnOnce(&mut dyn FnMut())) -> (i32, std::io::PipeReader, std::io::PipeWriter) {
        let ((said, mut say), (mut heard, hear)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
        match kernel::fork().unwrap() {
            Forked::Parent(pid) => (pid, said, hear),
            Forked::Child => kernel::run_and_exit(|| {
                body(&mut || {
                    let _ = say.write_all(b"x");
                    let _ = heard.read_exact(&mut [0]);
                });
                3
            }),
        }
    }

    #[test]
    fn no_process_of_a_user_can_signal_what_ends_it() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: only root can have another user id");
            return;
        }
        let uid = crate::uids::probe_uid().unwrap();
        let (undertaker, mut said, mut hear) = child(|wait| {
            let became = become_undertaker_of(uid);
            wait();
            kernel::exit(i32::from(!(became && end_user(uid))));
        });
        said.read_exact(&mut [0]).unwrap();
        let (hostile, mut tried, _hear) = child(|wait| {
            let user = Uid::from_raw(uid);
            if rustix::thread::set_thread_res_uid(user, user, user).is_err() {
                kernel::exit(4);
            }
            for signal in [0, libc::SIGSTOP, libc::SIGKILL] {
                // SAFETY: no memory is involved.
                if unsafe { libc::kill(undertaker, signal) } == 0 {
                    kernel::exit(5);
                }
            }
            wait();
        });
        tried.read_exact(&mut [0]).expect("all its signals were refused");
        hear.write_all(b"x").unwrap();
        assert_eq!(ending(undertaker), Ending::Exited(0));
        assert_eq!(ending(hostile), Ending::Signalled(libc::SIGKILL));
    }
}
