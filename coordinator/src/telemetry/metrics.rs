//! Metrics in the text format of Prometheus.
//!
//! What happens is counted where it happens; what is so at the moment is looked up when somebody asks. A server that
//! shows its metrics to nobody counts nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use ::metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use coordinator_core::session::SessionState;
use coordinator_core::worker::WorkerStatus;
use dashmap::DashMap;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use parking_lot::RwLock;

use crate::workers::WorkerSnapshot;

const CALLS: &str = "codegen_calls_total";
const CALL_SECONDS: &str = "codegen_call_duration_seconds";
const TASK_QUEUE_SECONDS: &str = "codegen_task_queue_duration_seconds";
const TASK_RUN_SECONDS: &str = "codegen_task_run_duration_seconds";
const LOG_SYNC_SECONDS: &str = codegen_audit::SYNC_SECONDS;
const LOG_WRITABLE: &str = "codegen_log_writable";
const TRACE_SPANS: &str = "codegen_trace_spans_total";
const SESSIONS: &str = "codegen_sessions";
const TASKS_RUNNING: &str = "codegen_tasks_running";
const WORKERS: &str = "codegen_workers";
const SLOTS: &str = "codegen_worker_slots";
const LINKS: &str = "codegen_worker_links";

/// The upper bounds of every histogram, in seconds: from a sync of a fast disk to a long task.
const BUCKETS_SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0, 3600.0];
/// How often samples are put into their buckets when nobody asks: until then each of them takes memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installed once for the whole process, which is what the macros write to.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// What is so at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moment {
    /// How many sessions are in each state; absent is none.
    pub sessions: BTreeMap<&'static str, usize>,
    /// How many tasks run.
    pub tasks_running: usize,
    /// The workers.
    pub workers: Vec<WorkerSnapshot>,
    /// Whether the audit log can be written.
    pub log_writable: bool,
}

/// What knows how things are.
pub trait Now: Send + Sync {
    /// Looks, without waiting for anything.
    fn moment(&self) -> Moment;
}

/// The metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
    now: Arc<dyn Now>,
}

impl Metrics {
    /// Counts from now on.
    pub fn new(now: Arc<dyn Now>) -> Self {
        Self { recorder: RECORDER.get_or_init(install).clone(), now }
    }

    /// Everything that is known, as text.
    pub fn render(&self) -> String {
        show(&self.now.moment());
        self.recorder.render()
    }

    /// Keeps the memory bounded that samples take, for ever.
    pub async fn keep_up(&self) {
        loop {
            tokio::time::sleep(UPKEEP_INTERVAL).await;
            self.recorder.run_upkeep();
        }
    }
}

fn install() -> PrometheusHandle {
    let builder = PrometheusBuilder::new().set_buckets(&BUCKETS_SECONDS).expect("there are buckets");
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if ::metrics::set_global_recorder(recorder).is_err() {
        tracing::error!("something else records the metrics of this process; nothing is counted");
    }
    describe();
    handle
}

fn describe() {
    describe_counter!(CALLS, "Calls of tools, by the code that they were answered with");
    describe_histogram!(CALL_SECONDS, Unit::Seconds, "Time from a call of a tool to its answer");
    describe_histogram!(TASK_QUEUE_SECONDS, Unit::Seconds, "Time from a task's admission to its dispatch");
    describe_histogram!(TASK_RUN_SECONDS, Unit::Seconds, "Time from a task's dispatch to its end");
    describe_histogram!(LOG_SYNC_SECONDS, Unit::Seconds, "Time that syncs of the audit log take");
    describe_counter!(TRACE_SPANS, "Spans of traces, by what became of them: exported, failed, dropped");
    describe_gauge!(LOG_WRITABLE, "1 when the audit log can be written, else 0");
    describe_gauge!(SESSIONS, "Sessions, by state");
    describe_gauge!(TASKS_RUNNING, "Tasks that run");
    describe_gauge!(WORKERS, "Workers, by state");
    describe_gauge!(SLOTS, "Slots for sessions on workers: used, reserved, free");
    describe_gauge!(LINKS, "Links to workers: up, down");
}

fn show(moment: &Moment) {
    let Moment { sessions, tasks_running, workers, log_writable } = moment;
    for state in SessionState::NAMES {
        gauge!(SESSIONS, "state" => state).set(count(sessions.get(state).copied().unwrap_or_default()));
    }
    gauge!(TASKS_RUNNING).set(count(*tasks_running));
    gauge!(LOG_WRITABLE).set(count(usize::from(*log_writable)));
    for state in [WorkerStatus::Joining, WorkerStatus::Healthy, WorkerStatus::Suspect, WorkerStatus::Draining] {
        let in_state = workers.iter().filter(|worker| worker.state == state).count();
        gauge!(WORKERS, "state" => state.as_str()).set(count(in_state));
    }
    for (state, is_up) in [("up", true), ("down", false)] {
        gauge!(LINKS, "state" => state).set(count(workers.iter().filter(|worker| worker.link_up == is_up).count()));
    }
    let sum = |of: fn(&WorkerSnapshot) -> u32| count(workers.iter().map(|worker| of(worker) as usize).sum());
    gauge!(SLOTS, "state" => "used").set(sum(|worker| worker.slots.used));
    gauge!(SLOTS, "state" => "reserved").set(sum(|worker| worker.slots.reserved));
    gauge!(SLOTS, "state" => "free").set(sum(|worker| {
        let slots = worker.slots;
        slots.total.saturating_sub(slots.used).saturating_sub(slots.reserved)
    }));
}

#[expect(clippy::cast_precision_loss, reason = "no count comes near 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Calls of tools that this process has answered, also while nobody looks at its metrics.
static CALLS_ENDED: AtomicU64 = AtomicU64::new(0);

/// How many calls of tools this process has answered.
pub(crate) fn calls_ended() -> u64 {
    CALLS_ENDED.load(Ordering::Relaxed)
}

/// A call of a tool was answered, with `OK` or the code of what went wrong.
pub(crate) fn call_ended(tool: &'static str, code: String, took: Duration) {
    CALLS_ENDED.fetch_add(1, Ordering::Relaxed);
    if RECORDER.get().is_none() {
        return;
    }
    if !CALLS_OF.contains_key(tool) {
        CALLS_OF.entry(tool).or_insert_with(|| CallsOf::tool(tool));
    }
    if let Some(of_tool) = CALLS_OF.get(tool) {
        of_tool.seconds.record(took);
        of_tool.count(tool, code);
    }
}

/// What is counted of the calls of each tool. Every look-up by labels would make a key of several strings.
static CALLS_OF: LazyLock<DashMap<&'static str, CallsOf>> = LazyLock::new(DashMap::new);

struct CallsOf {
    seconds: Histogram,
    /// By the code that they were answered with, of which there are few.
    by_code: RwLock<Vec<(String, Counter)>>,
}

impl CallsOf {
    fn tool(tool: &'static str) -> Self {
        Self { seconds: histogram!(CALL_SECONDS, "tool" => tool), by_code: RwLock::default() }
    }

    fn count(&self, tool: &'static str, code: String) {
        if let Some((_, counter)) = self.by_code.read().iter().find(|(known, _)| *known == code) {
            return counter.increment(1);
        }
        // Whoever else comes here with the same code at this moment has the same counter.
        let counter = counter!(CALLS, "tool" => tool, "code" => code.clone());
        counter.increment(1);
        self.by_code.write().push((code, counter));
    }
}

/// A task is about to be dispatched.
pub(crate) fn task_queued(waited: Duration) {
    histogram!(TASK_QUEUE_SECONDS).record(waited);
}

/// A dispatched task has ended.
pub(crate) fn task_ran(tool: &'static str, took: Duration) {
    histogram!(TASK_RUN_SECONDS, "tool" => tool).record(took);
}

/// Spans were taken by the collector, or were not.
pub(super) fn spans_ended(outcome: &'static str, count: u64) {
    counter!(TRACE_SPANS, "outcome" => outcome).increment(count);
}
