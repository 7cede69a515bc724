//! Acting as a session's user.
//!
//! The kernel makes a process undumpable and forgets the thread's parent-death signal when these ids change. The first
//! is wanted in a worker anyway; the second belongs to the launcher, which never comes here.

use std::io;
use std::marker::PhantomData;
use std::sync::OnceLock;

use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};
use rustix::thread::CapabilitySet;

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

    /// The owner's identity, when this process has no power over others' files: root without CAP_DAC_OVERRIDE, as in a
    /// container that was left few capabilities.
    pub(super) fn if_needed(uid: u32, gid: u32) -> Option<Self> {
        static HAS_POWER: OnceLock<bool> = OnceLock::new();
        let has_power = *HAS_POWER.get_or_init(|| {
            let wanted = CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER;
            rustix::thread::capabilities(None).is_ok_and(|sets| sets.permitted.contains(wanted))
        });
        Self::of_owner(uid, gid).filter(|_| !has_power)
    }

    /// Reaches files as this user, in this thread, until the guard is dropped. The kernel takes root's power over
    /// others' files from the thread meanwhile.
    pub(super) fn assume(&self) -> io::Result<Assumed> {
        let (gid, uid) = (setfsgid(self.gid), setfsuid(self.uid));
        let assumed = Assumed { before: Self { uid, gid }, stays_in_its_thread: PhantomData };
        // Neither call reports failure, but each returns what held before it; an id that is no id changes nothing.
        let now = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
        if now == (self.uid, self.gid) { Ok(assumed) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

/// The thread reaches files as someone else.
#[derive(Debug)]
pub(super) struct Assumed {
    /// Whoever it was, which is another's identity where one is assumed within the time of another.
    before: Identity,
    stays_in_its_thread: PhantomData<*const ()>,
}

impl Drop for Assumed {
    fn drop(&mut self) {
        // Who could change to another can change back.
        setfsuid(self.before.uid);
        setfsgid(self.before.gid);
    }
}
