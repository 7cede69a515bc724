//! A user id of the host for each session, when the worker is root.

use std::collections::HashSet;
use std::io;

use codegen_types::SessionId;
use sandbox::files::WorkspaceBase;

/// The ids that sessions get: in the part of the id space that no allocator of a common distribution hands out.
const FIRST: u32 = 1_900_000_000;
const COUNT: u32 = 65_536;

/// The id under which a session runs: that of its files, or one that no other workspace belongs to. `used` are ids of
/// sessions that are open. None when this worker is not root, or has no id left.
pub(crate) fn choose(base: &WorkspaceBase, session: SessionId, used: &HashSet<u32>) -> io::Result<Uid> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Uid::Own);
    }
    if let Some(owner) = base.owner(session) {
        return Ok(Uid::Of(owner));
    }
    let taken: HashSet<u32> = base.owners()?.into_iter().map(|(_, uid)| uid).collect();
    let free = (FIRST..FIRST + COUNT).find(|uid| !taken.contains(uid) && !used.contains(uid));
    Ok(free.map_or(Uid::Exhausted, Uid::Of))
}

/// Which user id a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uid {
    /// The worker's own, since it is not root.
    Own,
    /// This one.
    Of(u32),
    /// Every id belongs to some workspace.
    Exhausted,
}
