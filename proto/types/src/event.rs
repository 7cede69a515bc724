//! What a worker says about a task, in order, and how a task ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::egress::Contact;
use crate::error::Failure;
use crate::operation::KernelName;
use crate::path::WorkspacePath;

/// One event of a task. Sequence numbers start at 1 and have no gaps, so that a stream can be taken up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place among the task's events, from 1.
    pub seq: u64,
    /// What happened.
    pub body: EventBody,
}

/// How long a task was with its worker, by the worker's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskTimes {
    /// From its arrival until it was started; all of it, for one that never was.
    pub waited: Duration,
    /// From there to its end.
    pub ran: Duration,
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
    /// Files changed while the program still runs, since the task began or this was said last. Empty: more than can be
    /// named.
    FilesChanged(Vec<FileChange>),
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

/// Something to show: a picture, the value of a kernel's last expression (`text/plain`), or a report in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Display {
    /// Its media type.
    pub mime: String,
    /// Where the workspace keeps it in full, when it does.
    #[serde(default)]
    pub path: Option<WorkspacePath>,
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
    /// Files were searched.
    Search(Found),
    /// Text in a file was replaced.
    Edit(Edited),
    /// The session's kernels, in order of name.
    Kernels {
        /// Each of them.
        kernels: Vec<KernelInfo>,
    },
}

/// What a search found.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The files with matches, sorted by path.
    pub files: Vec<FileMatches>,
    /// Files that were searched.
    pub files_searched: u64,
    /// Files that were not.
    pub skipped: SkippedFiles,
    /// Why the search ended before its end, when it did.
    pub cut: Option<SearchCut>,
}

/// Files that a search came by and did not search, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFiles {
    /// They hold a NUL byte, so they are no text.
    pub binary: u64,
    /// They, or a line of theirs, are too large.
    pub too_large: u64,
    /// Their permission bits forbid it, or they have several hard links, or they were gone or replaced meanwhile.
    pub unreadable: u64,
}

/// Why a search ended before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchCut {
    /// There are more matches than asked for.
    Matches,
    /// The lines found are too many or too long together.
    Volume,
    /// There are more files and directories than one search looks at, or some directory could not be read.
    Files,
    /// It took too long.
    Time,
}

/// What an edit did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    /// The file as it is now.
    pub stat: FileStat,
    /// How many occurrences were replaced.
    pub replaced: u64,
    /// The first changes as a unified diff, shortened. Bytes that are not UTF-8 are shown as U+FFFD.
    pub diff: String,
}

/// The matches in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMatches {
    /// Its path below the workspace, as listings show it.
    pub path: String,
    /// Matching lines and the lines around them, in order.
    pub lines: Vec<FoundLine>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundLine {
    /// Its number, from 1.
    pub number: u64,
    /// Whether it matches; else it is context.
    pub is_match: bool,
    /// Its text without the line end, cut when it is very long. Bytes that are not UTF-8 are shown as U+FFFD.
    pub text: String,
}

/// A kernel as it is at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelInfo {
    /// Its name.
    pub name: KernelName,
    /// Whether it runs a call.
    pub busy: bool,
    /// Calls that wait for it.
    pub waiting: u32,
    /// Calls that it has run since it was started.
    pub calls: u64,
    /// When it was started, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Its resident memory, in bytes.
    pub memory_bytes: u64,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
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
    /// What the client should know beside the outcome, a sentence each: that a kernel was started anew, for instance.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The file of the workspace that holds all it wrote, when that is too much for a result.
    #[serde(default)]
    pub output_file: Option<WorkspacePath>,
    /// Hosts that it reached, as `name:port`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Packages that it installed.
    #[serde(default)]
    pub packages: Vec<Package>,
    /// Whom the session asked to reach since the task before told of it, by the worker's proxy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<Contact>,
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
    /// Where a symbolic link leads, in its own words, when a listing could read it; only text is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}
