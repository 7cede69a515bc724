//! What a worker says about itself when it joins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, SessionId, TaskId};
use crate::isolation::IsolationReport;

/// What a worker can do, and for how many sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The isolation that its sandboxes have.
    pub isolation: IsolationReport,
    /// What it can run programs with.
    pub runtimes: Vec<Runtime>,
    /// How many sessions it holds at most.
    pub sessions_max: u32,
    /// Its operator's labels, for placement.
    pub labels: BTreeMap<String, String>,
    /// What its host has.
    pub resources: Resources,
}

/// What a worker's host has; zero where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processors that the worker may use.
    pub cpus: u32,
    /// Memory, in bytes, or the limit that is put on the worker's.
    pub memory_bytes: u64,
    /// Size of the file system that holds the workspaces, in bytes.
    pub disk_bytes: u64,
}

/// What of a worker's host is in use; zero where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostUse {
    /// Processes that run or wait to, averaged over a minute, in thousandths.
    pub load_permille: u32,
    /// Memory that could still be used, in bytes.
    pub memory_available_bytes: u64,
    /// What is free of the file system that holds the workspaces, in bytes.
    pub disk_free_bytes: u64,
}

/// Something that runs programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// `python` or `shell`.
    pub name: String,
    /// Its release, as it says itself.
    pub version: String,
    /// Where it is on the worker.
    pub path: String,
}

/// A session whose workspace a worker keeps, whether or not it has processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSession {
    /// The session.
    pub session: SessionId,
    /// Of the assignment by which it was opened last.
    pub epoch: Epoch,
    /// Whether it has a sandbox at present.
    pub open: bool,
    /// Tasks whose events the worker still keeps.
    pub tasks: Vec<TaskId>,
}
