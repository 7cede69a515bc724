//! What one session and one task may use.

use serde::{Deserialize, Serialize};

/// The limits of one session's sandbox and of each task in it. Every limit has a documented outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Wall time of one task, in milliseconds, when the call names none. Outcome: `TASK_TIMEOUT`.
    pub task_ms: u64,
    /// The longest wall time that a call may ask for, in milliseconds.
    pub task_ms_max: u64,
    /// Memory of all processes of a session together, in bytes. Outcome: `MEMORY_LIMIT`.
    pub memory_bytes: u64,
    /// Processes and threads of a session together. Outcome: fork fails inside; `PROCESS_LIMIT` when that ends the task.
    pub processes: u64,
    /// Processor cores that a session may keep busy, in thousandths.
    pub cpu_millicores: u64,
    /// Stdout and stderr of one task that are kept, in bytes; the task is ended when it writes more. Outcome:
    /// `OUTPUT_LIMIT`.
    pub output_bytes: u64,
    /// All files of a workspace together, in bytes. Outcome: `DISK_LIMIT`.
    pub workspace_bytes: u64,
    /// Files, directories and links of a workspace together. Outcome: `DISK_LIMIT`.
    pub workspace_files: u64,
    /// One file, read or written, in bytes. Outcome: `FILE_TOO_LARGE`.
    pub file_bytes: u64,
    /// `/tmp` and `/dev/shm` of a session, in bytes each. Outcome: writing fails inside with ENOSPC.
    pub scratch_bytes: u64,
    /// Open file descriptors of one process, at least [`Self::OPEN_FILES_MIN`]. Outcome: opening fails inside with EMFILE.
    pub open_files: u64,
}

impl Limits {
    /// As many as the processes of our own in a sandbox need to start a program; they have the same limit.
    pub const OPEN_FILES_MIN: u64 = 128;
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            task_ms: 60_000,
            task_ms_max: 3_600_000,
            memory_bytes: 1024 * MIB,
            processes: 128,
            cpu_millicores: 2_000,
            output_bytes: 10 * MIB,
            workspace_bytes: 1024 * MIB,
            workspace_files: 500_000,
            file_bytes: 64 * MIB,
            scratch_bytes: 256 * MIB,
            open_files: 1_024,
        }
    }
}
