//! What a worker says about a task, in order, and how a task ends.

use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::path::WorkspacePath;

/// One event of a task. Sequence numbers start at 1 and have no gaps, so that a stream can be taken up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place among the task's events, from 1.
    pub seq: u64,
    /// What happened.
    pub body: EventBody,
}

/// What happened to a task. `Finished` and `Failed` are last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventBody {
    /// The worker began to act.
    Started,
    /// The program wrote something.
    Output {
        /// Where it wrote.
        stream: OutputStream,
        /// What it wrote, cut anywhere, not necessarily text.
        bytes: Vec<u8>,
    },
    /// The worker says how far it is.
    Progress {
        /// In a few words.
        message: String,
    },
    /// The program showed something richer than text.
    Display(Display),
    /// The operation was carried out; a program that failed is a result, too.
    Finished(OperationResult),
    /// The operation was refused, or ended by a limit, a deadline or a cancellation.
    Failed {
        /// Why.
        failure: Failure,
        /// What had been used until then, when a program was run.
        exit: Option<Exit>,
    },
}

impl EventBody {
    /// Whether no event can follow.
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Finished(_) | Self::Failed { .. })
    }
}

/// Where a program wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Something to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Display {
    /// Its media type.
    pub mime: String,
    /// Its bytes.
    #[serde(with = "crate::base64_bytes")]
    pub data: Vec<u8>,
}

/// What an operation that was carried out gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum OperationResult {
    /// A program ended by itself.
    Exec(Exit),
    /// A file was read.
    Read {
        /// The bytes asked for.
        #[serde(with = "crate::base64_bytes")]
        contents: Vec<u8>,
        /// The whole file as it was then.
        stat: FileStat,
    },
    /// A file was written.
    Write {
        /// The file as it is now.
        stat: FileStat,
        /// Whether there was none before.
        created: bool,
    },
    /// A directory was listed.
    List {
        /// The entries, sorted by path.
        entries: Vec<FileStat>,
        /// Whether there were more than asked for.
        truncated: bool,
    },
    /// A file or directory was described.
    Stat {
        /// The description.
        stat: FileStat,
    },
    /// A file or directory was renamed.
    Move {
        /// It, under its new name.
        stat: FileStat,
    },
    /// A file or directory was deleted.
    Remove {
        /// How many files, links and directories are gone.
        removed: u64,
    },
}

/// How a program ended, and what it used.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its exit code, when it exited.
    pub code: Option<i32>,
    /// The signal that ended it, when one did.
    pub signal: Option<i32>,
    /// What it used.
    pub used: ResourceUse,
    /// Files of the workspace that were made, changed or deleted meanwhile.
    pub files_changed: Vec<FileChange>,
    /// Whether `files_changed` was cut at its limit.
    pub files_changed_truncated: bool,
    /// Processes that it had left behind and that were killed.
    pub leftovers_killed: u32,
}

/// What a program used.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceUse {
    /// Wall time, in milliseconds.
    pub wall_ms: u64,
    /// Processor time of all its processes, in milliseconds.
    pub cpu_ms: u64,
    /// Peak resident memory of its largest process, in bytes.
    pub memory_peak_bytes: u64,
}

/// What happened to a file while a program ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Which file.
    pub path: WorkspacePath,
    /// What happened.
    pub change: ChangeKind,
    /// Its size now, in bytes; zero when deleted.
    pub size: u64,
}

/// How a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was not there before.
    Created,
    /// It was there and is another now.
    Modified,
    /// It is no longer there.
    Deleted,
}

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket or device; it can be listed and deleted, never opened.
    Other,
}

/// A description of a file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Its path below the workspace. Bytes that are not UTF-8 are shown as U+FFFD.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Its size, in bytes.
    pub size: u64,
    /// When its contents last changed, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Names one version of a file's contents, for `if_match`; none but files have one.
    pub etag: Option<String>,
    /// Permission bits.
    pub mode: u32,
}
