//! What went wrong with a file, in words for the client.

use codegen_types::event::FileKind;
use codegen_types::{ErrorCode, Failure, WorkspacePath};
use rustix::io::Errno;

use super::describe::Node;

/// Paths in messages are shortened to so many characters.
const SHOWN_CHARS_MAX: usize = 200;

/// The failure that a system call's error means for the client.
pub(super) fn of_errno(errno: Errno, path: &WorkspacePath) -> Failure {
    let shown = shown(path);
    let (code, message) = match errno {
        Errno::NOENT => (ErrorCode::NotFound, format!("{shown} does not exist; fs_list shows what does")),
        Errno::EXIST => (ErrorCode::AlreadyExists, format!("{shown} is already there")),
        Errno::LOOP | Errno::XDEV => (
            ErrorCode::PathViolation,
            format!("{shown} goes through a link or mount that leaves the workspace; use a path inside it"),
        ),
        Errno::AGAIN => (
            ErrorCode::PathViolation,
            format!("{shown} is held or is being renamed all the time; stop what does it and try again"),
        ),
        Errno::BUSY => (ErrorCode::PathViolation, format!("{shown} is a mount point or in use by the system")),
        Errno::NXIO | Errno::NODEV => return irregular(path),
        Errno::NOTDIR => (ErrorCode::NotADirectory, format!("a part of {shown} is no directory")),
        Errno::ISDIR => return Failure::new(ErrorCode::NotAFile, format!("{shown} is a directory, not a file")),
        Errno::NOTEMPTY => (ErrorCode::InvalidArgument, format!("{shown} is a directory with something in it")),
        Errno::NAMETOOLONG => (ErrorCode::InvalidArgument, format!("{shown} is too long for the file system")),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => (
            ErrorCode::PermissionDenied,
            format!("the permission bits of {shown}, or of a directory above it, do not allow this; chmod them"),
        ),
        Errno::NOSPC | Errno::DQUOT => {
            (ErrorCode::DiskLimit, format!("there is no room on the disk for {shown}; delete files first"))
        }
        Errno::FBIG | Errno::OVERFLOW => (ErrorCode::FileTooLarge, format!("{shown} would be too large")),
        _ => return internal(&format!("{shown} could not be reached ({errno})")),
    };
    Failure::new(code, message)
}

/// A fault of the worker's.
pub(super) fn internal(what: &str) -> Failure {
    Failure::new(ErrorCode::Internal, format!("{what}; try again, and tell the operator if it stays"))
}

/// Refuses all but a regular file with one name.
pub(super) fn require_plain_file(node: &Node, path: &WorkspacePath) -> Result<(), Failure> {
    match node.kind() {
        FileKind::File if node.links > 1 => Err(Failure::new(
            ErrorCode::PathViolation,
            format!("{} has more than one hard link and could be a file outside; copy it to a new one", shown(path)),
        )),
        FileKind::File => Ok(()),
        FileKind::Directory => Err(of_errno(Errno::ISDIR, path)),
        FileKind::Symlink => Err(Failure::new(
            ErrorCode::PathViolation,
            format!("{} is a symbolic link; name what it points to, or delete it first", shown(path)),
        )),
        FileKind::Other => Err(irregular(path)),
    }
}

/// The workspace itself was named where something in it is needed.
pub(super) fn is_workspace(what: &str) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, format!("the workspace itself cannot be {what}; name something in it"))
}

pub(super) fn too_large(path: &WorkspacePath, size: u64, max: u64) -> Failure {
    Failure::new(
        ErrorCode::FileTooLarge,
        format!("{} has {size} bytes, and {max} is the limit for one call; take it in parts", shown(path)),
    )
}

pub(super) fn not_matching(path: &WorkspacePath) -> Failure {
    Failure::new(
        ErrorCode::PreconditionFailed,
        format!("{} is not the version that if_match names; read it again", shown(path)),
    )
}

fn irregular(path: &WorkspacePath) -> Failure {
    let shown = shown(path);
    Failure::new(ErrorCode::PathViolation, format!("{shown} is a FIFO, socket or device; only plain files are opened"))
}

/// A path as messages show it: quoted, without control characters, shortened.
pub(super) fn shown(path: &WorkspacePath) -> String {
    let text: String = path.to_string().escape_debug().take(SHOWN_CHARS_MAX).collect();
    format!("`{text}`")
}
