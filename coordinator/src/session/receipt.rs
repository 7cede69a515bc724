//! What a session has used, added up at the end of each task.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// What a session has used since it was made.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Receipt {
    /// Tasks that ended.
    pub tasks: u64,
    /// Those of them that failed: refused, ended by a limit, or programs that did not exit with 0.
    pub failed: u64,
    /// Processor time of all programs, in milliseconds.
    pub cpu_ms: u64,
    /// Peak resident memory of the largest process, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes of code, input and file contents that came in.
    pub bytes_in: u64,
    /// Bytes of output and file contents that went out.
    pub bytes_out: u64,
    /// Packages that were installed, and their versions.
    pub packages: BTreeMap<String, String>,
    /// Hosts that were reached, as `name:port`.
    pub hosts: BTreeSet<String>,
}
