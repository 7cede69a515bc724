//! Acting as a session's user.
//!
//! The kernel makes a process undumpable and forgets the thread's parent-death signal when these ids change. The first
//! is wanted in a worker anyway; the second belongs to the launcher, which never comes here.

use std::io;
use std::marker::PhantomData;

use nix::unistd::{Gid, Uid, getegid, geteuid, setfsgid, setfsuid};

/// The user and group as which files are reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    uid: Uid,
    gid: Gid,
}

impl Identity {
    /// The owner's identity, when it is another than the worker's and the worker can take it.
    pub(super) fn of_owner(uid: u32, gid: u32) -> Option<Self> {
        (geteuid().is_root() && uid != 0).then(|| Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) })
    }

    /// Reaches files as this user, in this thread, until the guard is dropped. The kernel takes root's power over
    /// others' files from the thread meanwhile.
    pub(super) fn assume(&self) -> io::Result<Assumed> {
        let assumed = Assumed { stays_in_its_thread: PhantomData };
        setfsgid(self.gid);
        setfsuid(self.uid);
        // Neither call reports failure, but each returns what held before it; an id that is no id changes nothing.
        let now = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
        if now == (self.uid, self.gid) { Ok(assumed) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

/// The thread reaches files as someone else.
#[derive(Debug)]
pub(super) struct Assumed {
    stays_in_its_thread: PhantomData<*const ()>,
}

impl Drop for Assumed {
    fn drop(&mut self) {
        // The effective ids are always allowed.
        setfsuid(geteuid());
        setfsgid(getegid());
    }
}
