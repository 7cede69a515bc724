//! Everything at one moment, for whoever watches.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use codegen_audit::Health;
use serde::{Deserialize, Serialize};

use super::{Operators, TaskLine, WorkerRow};
use crate::front::handover::VERSION;
use crate::telemetry;

/// Tasks that are shown: those that run longest.
const TASKS_SHOWN: usize = 100;

/// How everything is at one moment. Two of them say how much happened in between.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// The server's release.
    pub version: String,
    /// The server's process.
    pub pid: u32,
    /// How long it has served, in seconds.
    pub up_seconds: f64,
    /// Calls of tools that it has answered.
    pub calls: u64,
    /// Sessions by state; absent is none.
    pub sessions: BTreeMap<String, usize>,
    /// Tasks that run.
    pub tasks_running: usize,
    /// The audit log.
    pub log: LogLine,
    /// The workers.
    pub workers: Vec<WorkerRow>,
    /// The running tasks that began first, at most a hundred.
    pub tasks: Vec<TaskLine>,
}

/// How the audit log is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// Whether it can be written.
    pub writable: bool,
    /// Syncs so far.
    pub syncs: u64,
    /// How long they took together, in seconds.
    pub sync_seconds: f64,
}

impl Operators {
    /// Looks at everything.
    pub fn top(&self) -> Top {
        let sessions = self.0.sessions.count_by_state();
        let workers = self.workers_of_sessions();
        let mut running = self.0.sessions.running_of_everybody();
        let tasks_running = running.len();
        running.sort_by_key(|info| (info.begun_ms, Reverse(info.task)));
        running.truncate(TASKS_SHOWN);
        let (syncs, synced_for) = codegen_audit::syncs();
        Top {
            version: VERSION.to_owned(),
            pid: std::process::id(),
            up_seconds: self.0.began.elapsed().as_secs_f64(),
            calls: telemetry::calls_ended(),
            sessions: sessions.into_iter().map(|(state, count)| (state.to_owned(), count)).collect(),
            tasks_running,
            log: LogLine {
                writable: matches!(*self.0.audit.health().borrow(), Health::Writable),
                syncs,
                sync_seconds: synced_for.as_secs_f64(),
            },
            workers: self.workers(),
            tasks: running.iter().map(|info| TaskLine::of(info, workers.get(&info.session))).collect(),
        }
    }
}
