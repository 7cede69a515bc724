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
    /// Search the contents of files.
    Search(Search),
    /// Replace text in a file.
    Edit(Edit),
    /// Look after the session's kernels.
    Kernels(Kernels),
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
            Self::Search(_) => "search",
            Self::Edit(_) => "edit",
            Self::Kernels(_) => "kernels",
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
    /// The kernel that runs it, which keeps variables and imports; `None`: a fresh interpreter.
    #[serde(default)]
    pub kernel: Option<KernelName>,
    /// What it reaches outside the sandbox.
    #[serde(default)]
    pub network: Network,
}

impl Exec {
    /// A fresh program without input, variables of its own or network.
    pub const fn of(program: Program) -> Self {
        Self { program, stdin: Vec::new(), env: BTreeMap::new(), kernel: None, network: Network::None }
    }
}

/// What a program reaches outside its sandbox.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing.
    #[default]
    None,
    /// A package index, through the worker's proxy.
    Packages {
        /// The index (PEP 503), one that the operator permits; `None`: the worker's default.
        index_url: Option<String>,
    },
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
    /// A program for another runtime of the worker, such as Node.
    Script {
        /// The runtime by the name under which the worker lists it.
        runtime: String,
        /// What it runs.
        source: ScriptSource,
        /// Arguments after the script.
        args: Vec<String>,
    },
    /// Installs Python packages into the session. Needs [`Network::Packages`] unless every requirement is a wheel of the
    /// workspace that needs nothing else.
    Install {
        /// PEP 508 requirements without URLs, or paths of wheels in the workspace.
        requirements: Vec<String>,
        /// Whether packages that are there already are brought up to their newest version.
        upgrade: bool,
    },
}

/// Where a script's text is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScriptSource {
    /// Here.
    Code(String),
    /// In a file of the workspace.
    File(WorkspacePath),
}

/// The longest name of a kernel, in bytes.
pub const KERNEL_NAME_BYTES_MAX: usize = 64;

/// The name of a kernel inside its session: letters, digits, `_`, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct KernelName(String);

/// A text is no name of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a kernel's name has 1 to {KERNEL_NAME_BYTES_MAX} letters, digits, `_`, `-` or `.`")]
pub struct InvalidKernelName;

impl KernelName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for KernelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for KernelName {
    type Error = InvalidKernelName;

    fn try_from(text: String) -> Result<Self, InvalidKernelName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let fits = (1..=KERNEL_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
        if fits { Ok(Self(text)) } else { Err(InvalidKernelName) }
    }
}

impl From<KernelName> for String {
    fn from(name: KernelName) -> String {
        name.0
    }
}

/// Look after the kernels of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernels {
    /// Say which there are.
    List,
    /// End one, with what it runs; the next call on it starts it anew.
    Restart {
        /// Which.
        name: KernelName,
    },
}

/// Search the contents of the workspace's text files, line by line; links are not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// A file, or a directory to search with all that is below.
    pub path: WorkspacePath,
    /// A regular expression (syntax of the `regex` crate; it runs in linear time).
    pub pattern: String,
    /// Whether the pattern is plain text instead.
    pub literal: bool,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Only files whose path below `path` matches this glob; a glob without a slash is matched with the file's name.
    pub glob: Option<String>,
    /// Lines shown before and after each match.
    pub context: u32,
    /// At most so many matching lines; the result says when there were more.
    pub matches_max: u32,
}

/// Replace text in a file, atomically and only if it is there as given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The file.
    pub path: WorkspacePath,
    /// The text to replace, exactly; never empty.
    pub old: String,
    /// What to put in its place; another text than `old`.
    pub new: String,
    /// Whether all of several occurrences are replaced; else several are `PRECONDITION_FAILED`.
    pub replace_all: bool,
    /// Only if the file's present [`FileStat::etag`](crate::event::FileStat) is this one.
    pub if_match: Option<String>,
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
    /// What is given beside the bytes of a file that is a picture.
    #[serde(default)]
    pub pictures: Pictures,
}

/// What a read gives of a picture.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pictures {
    /// Its bytes, as of any file.
    #[default]
    AsBytes,
    /// Also the whole PNG or JPEG as a [`Display`](crate::Display), checked and made fit for a model, if it can be.
    Drawn,
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
