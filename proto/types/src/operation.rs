//! The small closed set of things that a worker can do. Tools live in the coordinator and are made of these.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::path::WorkspacePath;

/// One thing a worker can do in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Operation {
    /// Run a program in the session's sandbox.
    Exec(Exec),
    /// Read a file.
    Read(Read),
    /// Write a file.
    Write(Write),
    /// List a directory.
    List(List),
    /// Describe a file or directory.
    Stat(Stat),
    /// Rename a file or directory.
    Move(Move),
    /// Delete a file or directory.
    Remove(Remove),
}

impl Operation {
    /// The operation as records name it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::List(_) => "list",
            Self::Stat(_) => "stat",
            Self::Move(_) => "move",
            Self::Remove(_) => "remove",
        }
    }
}

/// Run a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// What to run.
    pub program: Program,
    /// Bytes given to it on standard input, which then ends.
    #[serde(default, with = "crate::base64_bytes")]
    pub stdin: Vec<u8>,
    /// Variables added to the sandbox's own small environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// Python source text, run as `__main__` in a fresh interpreter.
    PythonCode {
        /// The source.
        code: String,
        /// `sys.argv[1:]`.
        args: Vec<String>,
    },
    /// A Python file of the workspace, run as `__main__` in a fresh interpreter.
    PythonFile {
        /// The file.
        path: WorkspacePath,
        /// `sys.argv[1:]`.
        args: Vec<String>,
    },
    /// A command line for the shell (`bash`, or `sh` where there is none).
    Shell {
        /// The command line.
        command: String,
    },
}

/// Read a file, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The file.
    pub path: WorkspacePath,
    /// The first byte wanted.
    pub offset: u64,
    /// At most so many bytes; `None` reads to the end, within the file size limit.
    pub limit: Option<u64>,
}

/// How a write treats what is already there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Replace the file or make it.
    Overwrite,
    /// Make the file; fail with `ALREADY_EXISTS` if there is one.
    Create,
    /// Add to the end of the file or make it.
    Append,
}

/// Write a file atomically; missing parent directories are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The file.
    pub path: WorkspacePath,
    /// The bytes.
    #[serde(with = "crate::base64_bytes")]
    pub contents: Vec<u8>,
    /// How to treat what is there.
    pub mode: WriteMode,
    /// Only if the file's present [`FileStat::etag`](crate::event::FileStat) is this one.
    pub if_match: Option<String>,
}

/// List a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The directory.
    pub path: WorkspacePath,
    /// Whether directories below it are listed too. Links are named, never followed.
    pub recursive: bool,
    /// A glob that the path below `path` must match (`*` does not cross a slash, `**` does).
    pub pattern: Option<String>,
    /// At most so many entries; the result says when there were more.
    pub entries_max: u32,
}

/// Describe a file or directory; a link is described itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// What to describe.
    pub path: WorkspacePath,
}

/// Rename a file or directory inside the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// What to rename.
    pub from: WorkspacePath,
    /// Its new name; missing parent directories are made.
    pub to: WorkspacePath,
    /// Whether a file that is already there is replaced; else `ALREADY_EXISTS`.
    pub overwrite: bool,
}

/// Delete a file or directory; links are deleted, never followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remove {
    /// What to delete.
    pub path: WorkspacePath,
    /// Whether a directory may be deleted with all that is in it.
    pub recursive: bool,
}
