//! Asks the worker, in a process of its own with an empty environment, what isolation and interpreters it finds.

use std::io::Read as _;
use std::process::{Command, Stdio};

use codegen_types::IsolationReport;
use serde::Deserialize;

use crate::config::Environment;

/// The most that a probe can say, in bytes.
const PROBE_BYTES_MAX: u64 = 1 << 20;

/// What a worker found.
#[derive(Debug, Deserialize)]
pub(super) struct Probed {
    /// Every layer, as found by making a sandbox.
    pub(super) isolation: IsolationReport,
    /// The interpreters.
    pub(super) runtimes: Vec<Runtime>,
}

/// One interpreter.
#[derive(Debug, Deserialize)]
pub(super) struct Runtime {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) path: String,
}

/// Runs the probe. The error is what went wrong, for people.
pub(super) fn run(environment: &Environment) -> Result<Probed, String> {
    let exe = std::env::current_exe().map_err(|error| format!("this program cannot find itself: {error}"))?;
    let mut command = Command::new(exe);
    command.args(["worker", "--probe"]);
    if let Some(path) = environment.search_path() {
        command.arg("--search-path").arg(path);
    }
    command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("the probe cannot be started: {error}"))?;
    let mut said = Vec::new();
    let stdout = child.stdout.take().expect("a pipe was asked for");
    let read = stdout.take(PROBE_BYTES_MAX).read_to_end(&mut said);
    let ended = child.wait_with_output().map_err(|error| format!("the probe cannot be waited for: {error}"))?;
    read.map_err(|error| format!("the probe cannot be read: {error}"))?;
    if !ended.status.success() {
        let why = String::from_utf8_lossy(&ended.stderr);
        return Err(format!("the probe failed ({}): {}", ended.status, why.trim()));
    }
    serde_json::from_slice(&said).map_err(|error| format!("the probe's answer makes no sense: {error}"))
}
