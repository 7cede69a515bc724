//! `coordinator workers`: shows the workers.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use super::asked::{Form, show};
use super::columns::{Yields, columns, table, terminal_width};
use crate::control::{Ask, WorkersAsk};
use crate::operators::WorkerRow;

#[derive(Debug, Subcommand)]
pub(super) enum WorkersCommand {
    /// List the workers that have joined and are not gone
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &WorkersCommand, state_dir: &Path) -> ExitCode {
    match command {
        WorkersCommand::Ls { json } => {
            show(state_dir, Ask::Workers(WorkersAsk::List), Form::of(*json), |rows| list(&rows))
        }
    }
}

fn list(workers: &Vec<WorkerRow>) -> String {
    if workers.is_empty() {
        return "No worker has joined.\n".to_owned();
    }
    let columns = columns([
        ("WORKER", Yields::Shortens),
        ("STATE", Yields::Never),
        ("LEVEL", Yields::Never),
        ("USED", Yields::Never),
        ("RESERVED", Yields::Never),
        ("SLOTS", Yields::Never),
        ("LINK", Yields::Never),
        ("HEARD", Yields::Never),
        ("VERSION", Yields::Shortens),
        ("LABELS", Yields::Leaves),
        ("INCARNATION", Yields::Leaves),
    ]);
    let rows: Vec<_> = workers.iter().map(row).collect();
    table(columns, &rows, terminal_width())
}

fn row(worker: &WorkerRow) -> [String; 11] {
    let labels: Vec<String> = worker.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    [
        worker.worker_id.to_string(),
        worker.state.clone(),
        worker.isolation.clone(),
        worker.slots.used.to_string(),
        worker.slots.reserved.to_string(),
        worker.slots.total.to_string(),
        if worker.link_up { "up" } else { "down" }.to_owned(),
        format!("{:.0}s ago", worker.heartbeat_age_seconds),
        worker.version.clone(),
        labels.join(","),
        worker.incarnation.to_string(),
    ]
}
