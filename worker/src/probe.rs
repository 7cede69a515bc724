//! What this machine has to offer, for the operator: nothing is joined and nothing is served.

use std::ffi::OsString;
use std::io::Write;

use anyhow::Context;
use codegen_types::{IsolationReport, Runtime};
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
    let socket = launcher::fork().context("the launcher cannot be started")?;
    let search_path = search_path.unwrap_or_else(|| SYSTEM_PATH.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let probe = runtime.block_on(async {
        let backend = ProcessBackend::start(socket).await.context("no sandbox can be made")?;
        let runtimes = Runtimes::find(&search_path).await;
        anyhow::Ok(Probe { isolation: backend.report().clone(), runtimes: runtimes.listed() })
    })?;
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, &probe)?;
    Ok(writeln!(stdout)?)
}
