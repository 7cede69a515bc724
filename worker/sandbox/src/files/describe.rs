//! What a file is: one `statx`, kept in plain numbers.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use codegen_types::event::{FileKind, FileStat};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;

/// A file, directory, link or other thing as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    pub(super) mode: u32,
    pub(super) links: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Bytes on disk, which a sparse file has fewer of than its size.
    pub(super) allocated: u64,
    pub(super) mtime_ns: i128,
    pub(super) ctime_ns: i128,
}

impl Node {
    /// What a descriptor refers to.
    pub(super) fn of(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(|found| Self::from(&found))
    }

    /// What a name in a directory refers to; a link is described itself.
    pub(super) fn at(directory: BorrowedFd<'_>, name: &CStr) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        statx(directory, name, flags, StatxFlags::BASIC_STATS).map(|found| Self::from(&found))
    }

    pub(super) fn kind(&self) -> FileKind {
        kind_of(FileType::from_raw_mode(self.mode))
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind() == FileKind::Directory
    }

    pub(super) fn permissions(&self) -> u32 {
        self.mode & 0o777
    }

    /// Names one version of a file: its place on disk, size, and times of modification and of change. A program that
    /// writes in place, keeps the size and does it within one tick of the kernel's clock after the last change (up to
    /// 4 ms before Linux 6.13) is not seen; a tool call always makes a new file and always is.
    pub(super) fn etag(&self) -> Option<String> {
        let (major, minor) = self.device;
        (self.kind() == FileKind::File).then(|| {
            let Self { inode, size, mtime_ns, ctime_ns, .. } = self;
            format!("{major:x}.{minor:x}-{inode:x}-{size:x}-{mtime_ns:x}-{ctime_ns:x}")
        })
    }

    pub(super) fn stat(&self, path: String) -> FileStat {
        FileStat {
            path,
            kind: self.kind(),
            size: self.size,
            modified_ms: i64::try_from(self.mtime_ns.div_euclid(1_000_000)).unwrap_or(i64::MAX),
            etag: self.etag(),
            mode: self.mode & 0o7777,
            target: None,
        }
    }
}

impl From<&Statx> for Node {
    fn from(found: &Statx) -> Self {
        Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            mode: found.stx_mode.into(),
            links: found.stx_nlink,
            uid: found.stx_uid,
            gid: found.stx_gid,
            size: found.stx_size,
            allocated: found.stx_blocks.saturating_mul(512),
            mtime_ns: nanoseconds(&found.stx_mtime),
            ctime_ns: nanoseconds(&found.stx_ctime),
        }
    }
}

pub(super) fn kind_of(file_type: FileType) -> FileKind {
    match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

fn nanoseconds(time: &StatxTimestamp) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
