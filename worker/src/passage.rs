//! Who may pass the directories above the workspaces of sessions.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sandbox::files::WorkspaceBase;

/// To others than its owner a directory is closed, or can be passed by whoever knows a name in it.
const CLOSED: u32 = 0o700;
const PASSABLE: u32 = 0o711;

/// Lets sessions pass to their workspaces, which they must where they have the host's root and user ids of their own.
/// Everywhere else nobody does, whatever an earlier life needed.
///
/// # Errors
/// The kernel refused.
pub(crate) fn arrange(base: &WorkspaceBase, closed_above: &[PathBuf], passed: bool) -> io::Result<()> {
    base.let_sessions_pass(passed)?;
    let mode = if passed { PASSABLE } else { CLOSED };
    closed_above.iter().try_for_each(|directory| set(directory, mode))
}

fn set(directory: &Path, mode: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(directory)?;
    let is_ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || found.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(mode))
}
