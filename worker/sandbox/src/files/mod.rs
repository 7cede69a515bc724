//! Path-safe files: every path is reached from a workspace's directory descriptor, never by checking a string and then
//! opening it.
//!
//! The attacker is the session's own code, which swaps directories for links while we work. What holds against it:
//! - Paths are resolved by `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV`. Links that stay
//!   inside the workspace are followed for reads and in the directory part of writes; the last component of a write,
//!   move or delete never is. A link with an absolute target is refused, even one to `/workspace/…`.
//! - Only regular files with one hard link are read or replaced. A replaced file is a new one under a name that cannot
//!   be predicted, renamed into place, so a link to something else is never written through.
//! - A root worker acts under the session's own user id (`setfsuid`), so that it can do nothing to a file that the
//!   session could not do itself, and new files are the session's without any `chown`.
//!
//! Workspace files are not synced to disk: after a power failure they may be older, which the audit log's own syncs do
//! not depend on. Names that are not UTF-8 are listed with U+FFFD and cannot be addressed. Everything here blocks; the
//! worker calls it off its event loop.

mod base;
mod describe;
mod edit;
mod fault;
mod identity;
mod list;
mod moving;
mod names;
mod output;
mod read;
mod removal;
mod resolve;
mod scan;
mod scratch;
mod search;
mod temporary;
mod tree;
mod usage;
mod walk;
mod workspace;
mod write;

pub use base::{BaseError, SpareWorkspace, WorkspaceBase};
pub use output::OutputFile;
pub use scan::{CHANGES_MAX, SCAN_ENTRIES_MAX, Scan};
pub use scratch::scratch_usage;
pub(crate) use scratch::{clear_scratch, scratch_name};
pub use usage::Usage;
pub use workspace::Workspace;
