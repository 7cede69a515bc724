//! What this machine has to offer, for the operator: nothing is joined and nothing is served.

use std::ffi::OsString;
use std::io::Write;

use anyhow::Context;
use codegen_types::terminal::{for_terminal, json_for_terminal};
use codegen_types::{IsolationLevel, IsolationReport, Runtime};
use sandbox::{Backend, ProcessBackend, launcher};
use serde::{Deserialize, Serialize};

use crate::runtimes::Runtimes;
use crate::runtimes::find::SYSTEM_PATH;

/// What `worker --probe` prints, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What isolation sandboxes have here, by making one.
    pub isolation: IsolationReport,
    /// What programs can be run with.
    pub runtimes: Vec<Runtime>,
}

/// Probes, prints and ends.
pub(crate) fn run(search_path: Option<OsString>) -> anyhow::Result<()> {
    print_json(&probe(search_path)?)
}

/// Says to the operator what was found, and gives the level.
pub(crate) fn doctor(json: bool) -> anyhow::Result<IsolationLevel> {
    let found = probe(std::env::var_os("PATH"))?;
    let level = found.isolation.level;
    if json {
        print_json(&found)?;
        return Ok(level);
    }
    let mut text = format!("worker {}\n\n{}\n", env!("CARGO_PKG_VERSION"), found.isolation.matrix());
    for Runtime { name, version, path } in &found.runtimes {
        // Programs say their own version, and directories are called anything.
        text.push_str(&format!("  {}\n", for_terminal(&format!("{name} {version} at {path}"))));
    }
    let verdict = match level {
        IsolationLevel::Full => "Sessions can run.".to_owned(),
        IsolationLevel::None => "No session can run here.".to_owned(),
        level => format!("Sessions can run where the operator permits less: ISOLATION_MINIMUM={level}."),
    };
    text.push_str(&format!("\n{verdict}\n"));
    Ok(std::io::stdout().lock().write_all(text.as_bytes()).map(|()| level)?)
}

fn print_json(found: &Probe) -> anyhow::Result<()> {
    let json = json_for_terminal(&serde_json::to_string_pretty(found)?);
    Ok(writeln!(std::io::stdout().lock(), "{json}")?)
}

fn probe(search_path: Option<OsString>) -> anyhow::Result<Probe> {
    let socket = launcher::fork().context("the launcher cannot be started")?;
    let search_path = search_path.unwrap_or_else(|| SYSTEM_PATH.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let backend = ProcessBackend::start(socket).await.context("no sandbox can be made")?;
        let level = backend.report().level;
        let runtimes = Runtimes::find(&search_path).await.for_sessions_at(level, &search_path).await;
        Ok(Probe { isolation: backend.report().clone(), runtimes: runtimes.listed() })
    })
}
