//! `coordinator workers`: shows the workers, and says what new work they get.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use codegen_audit::for_terminal;
use codegen_types::{HostUse, Resources, WorkerId};
use coordinator_core::worker::Admittance;

use super::asked::{AskedError, Form, ask, say, show};
use super::columns::{Yields, columns, table, terminal_width};
use super::{complain, json, print};
use crate::control::{Ask, OperateAsk};
use crate::operators::{WorkerDetail, WorkerRow};

/// How often a worker that is drained is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum WorkersCommand {
    /// List the workers that have joined and are not gone, and those that are cordoned
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a worker with its layers of isolation and its sessions
    Show(OneWorker),
    /// Give a worker no new sessions, whichever life of it comes, until it is uncordoned
    Cordon(OneWorker),
    /// Let a worker take sessions again
    Uncordon(OneWorker),
    /// Cordon a worker, end its sessions' processes as they go idle, and wait until that is done; files stay on it
    Drain(DrainArgs),
}

#[derive(Debug, Args)]
pub(super) struct OneWorker {
    /// The worker's name, as `workers ls` shows it
    worker: WorkerId,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    of: OneWorker,

    /// How long to wait until nothing runs on it any more, such as 30s; it goes on draining afterwards
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) fn run(command: &WorkersCommand, state_dir: &Path) -> ExitCode {
    let operate = |what| Ask::Operate(what);
    let admit = |one: &OneWorker, admittance| {
        let question = operate(OperateAsk::Admit { id: one.worker.clone(), admittance });
        show(state_dir, question, Form::of(one.json), |row: WorkerRow| said(&row))
    };
    match command {
        WorkersCommand::Ls { json } => {
            show(state_dir, operate(OperateAsk::Workers), Form::of(*json), |rows: Vec<WorkerRow>| list(&rows))
        }
        WorkersCommand::Show(one) => {
            let question = operate(OperateAsk::Worker { id: one.worker.clone() });
            show(state_dir, question, Form::of(one.json), |detail: WorkerDetail| describe(&detail))
        }
        WorkersCommand::Cordon(one) => admit(one, Admittance::Cordoned),
        WorkersCommand::Uncordon(one) => admit(one, Admittance::Open),
        WorkersCommand::Drain(args) => drain(args, state_dir),
    }
}

/// Has a worker drained and waits for it, telling on stderr how far it is.
fn drain(args: &DrainArgs, state_dir: &Path) -> ExitCode {
    let (id, begun) = (&args.of.worker, Instant::now());
    let begin = OperateAsk::Admit { id: id.clone(), admittance: Admittance::Draining };
    let mut told = String::new();
    let mut question = begin;
    loop {
        let row = match look(state_dir, question) {
            Ok(row) => row,
            Err(error) => return complain(&error, 1),
        };
        if row.drained || begun.elapsed() >= args.timeout {
            let code = if row.drained { ExitCode::SUCCESS } else { ExitCode::from(1) };
            let text = if args.of.json { json::pretty(&row) } else { progress(&row) + "\n" };
            return print(&text, code);
        }
        let now = progress(&row);
        if now != told {
            say(&now);
            told = now;
        }
        // Nobody unparks it: the server is asked again after a while.
        std::thread::park_timeout(LOOK_INTERVAL.min(args.timeout.saturating_sub(begun.elapsed())));
        question = OperateAsk::Worker { id: id.clone() };
    }
}

fn look(state_dir: &Path, question: OperateAsk) -> Result<WorkerRow, AskedError> {
    Ok(serde_json::from_value(ask(state_dir, Ask::Operate(question))?)?)
}

fn progress(row: &WorkerRow) -> String {
    let WorkerRow { worker_id, sessions_open, tasks_running, slots, .. } = row;
    if row.drained {
        return format!("{worker_id} is drained.");
    }
    let taken = slots.used.saturating_add(slots.reserved);
    format!(
        "{worker_id} is draining: {sessions_open} sessions open, {tasks_running} tasks running, {taken} slots taken"
    )
}

fn said(row: &WorkerRow) -> String {
    let now = row.cordon.as_ref().map_or("takes sessions", |cordon| match cordon.admittance {
        Admittance::Open => "takes sessions",
        Admittance::Cordoned => "is cordoned",
        Admittance::Draining => "is draining",
    });
    format!("{} {now}.\n", row.worker_id)
}

pub(super) fn list(workers: &[WorkerRow]) -> String {
    rows(workers, terminal_width())
}

/// The workers as lines of at most so many cells.
pub(super) fn rows(workers: &[WorkerRow], width: Option<usize>) -> String {
    if workers.is_empty() {
        return "No worker has joined.\n".to_owned();
    }
    let columns = columns([
        ("WORKER", Yields::Shortens),
        ("STATE", Yields::Never),
        ("LEVEL", Yields::Never),
        ("USED", Yields::Never),
        ("RES", Yields::Never),
        ("MAX", Yields::Never),
        ("LINK", Yields::Never),
        ("HEARD", Yields::Never),
        ("VERSION", Yields::Shortens),
        ("LABELS", Yields::Leaves),
        ("INCARNATION", Yields::Leaves),
    ]);
    let rows: Vec<_> = workers.iter().map(row).collect();
    table(columns, &rows, width)
}

fn row(worker: &WorkerRow) -> [String; 11] {
    let none = || "-".to_owned();
    let life = worker.life.as_ref();
    [
        worker.worker_id.to_string(),
        state(worker),
        life.map_or_else(none, |life| life.isolation.clone()),
        worker.slots.used.to_string(),
        worker.slots.reserved.to_string(),
        worker.slots.total.to_string(),
        life.map_or_else(none, |life| if life.link_up { "up" } else { "down" }.to_owned()),
        life.map_or_else(none, |life| format!("{:.0}s", life.heartbeat_age_seconds)),
        life.map_or_else(none, |life| life.version.clone()),
        life.map_or_else(none, |life| labels(&life.labels)),
        life.map_or_else(none, |life| life.incarnation.to_string()),
    ]
}

/// Its state, with what an operator said.
fn state(worker: &WorkerRow) -> String {
    match &worker.cordon {
        _ if worker.drained => format!("{},drained", worker.state),
        Some(cordon) => format!("{},{}", worker.state, cordon.admittance.as_str()),
        None => worker.state.clone(),
    }
}

fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(",")
}

/// What a host has and what of it is free; nothing of what it did not say.
fn host(resources: &Resources, used: &HostUse) -> String {
    let amount = |bytes: u64, what: &str| (bytes > 0).then(|| format!("{} {what}", gibibytes(bytes)));
    let load = (used.load_permille > 0).then(|| {
        let (whole, thousandths) = (used.load_permille / 1_000, used.load_permille % 1_000);
        format!("load {whole}.{:02}", thousandths / 10)
    });
    let parts = [
        (resources.cpus > 0).then(|| format!("{} processors", resources.cpus)),
        load,
        amount(resources.memory_bytes, "memory"),
        amount(used.memory_available_bytes, "of it free"),
        amount(resources.disk_bytes, "disk"),
        amount(used.disk_free_bytes, "of it free"),
    ];
    let said: Vec<String> = parts.into_iter().flatten().collect();
    if said.is_empty() { "says nothing of what it has".to_owned() } else { said.join(", ") }
}

fn gibibytes(bytes: u64) -> String {
    let tenths = bytes / ((1 << 30) / 10);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

fn describe(detail: &WorkerDetail) -> String {
    let row = &detail.row;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(text, "{name:<12} {}", for_terminal(value)).expect("writing to a string");
    };
    line("worker", row.worker_id.as_str());
    line("state", &state(row));
    if let Some(cordon) = &row.cordon {
        line("", &format!("{} by {} since {:.0}", cordon.admittance.as_str(), cordon.by, cordon.since));
    }
    let slots = row.slots;
    line("slots", &format!("{} used, {} reserved, {} at most", slots.used, slots.reserved, slots.total));
    line("sessions", &format!("{} open, {} tasks running", row.sessions_open, row.tasks_running));
    if let Some(life) = &row.life {
        line("incarnation", &life.incarnation.to_string());
        line("version", &life.version);
        let link = if life.link_up { "up" } else { "down" };
        line("link", &format!("{link}, heard of {:.0} s ago", life.heartbeat_age_seconds));
        line("labels", &labels(&life.labels));
        for runtime in &life.runtimes {
            line("runtime", &format!("{} {} at {}", runtime.name, runtime.version, runtime.path));
        }
        if let (Some(resources), Some(used)) = (&detail.resources, &detail.used) {
            line("host", &host(resources, used));
        }
        line("isolation", &life.isolation);
    }
    for layer in detail.layers.iter().flat_map(|report| &report.layers) {
        let state = serde_json::json!(layer.state);
        line("", &format!("{:<14} {}", layer.layer.as_str(), state.as_str().unwrap_or_default()));
    }
    if !detail.sessions.is_empty() {
        writeln!(text).expect("writing to a string");
        text += &super::sessions::rows(&detail.sessions, terminal_width());
    }
    text
}
