//! A worker that joins a coordinator on another host.
//!
//! What it was told is put into a start message, as a coordinator gives one to its embedded worker, and the process
//! begins again with that and an empty environment: a variable of a process can be read from inside every process that
//! was forked from it, sandboxes included.

mod packages;
mod settings;
pub(crate) mod token;

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::args::Args;
use crate::start::StartMessage;

/// What a pipe takes before anybody reads, in bytes; the kernel's default and more than a start message has.
const PIPE_BYTES: usize = 60 << 10;

/// Begins again as a worker that has its start message. Returns only when that is not possible.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let start = settings::resolve(args, &settings::Environment::of_process())?;
    Err(begin_again(&start)?).context("the worker cannot begin anew with an empty environment")
}

/// The error of a program that could not be executed; where it could, nothing returns.
fn begin_again(start: &StartMessage) -> anyhow::Result<std::io::Error> {
    let mut line = serde_json::to_vec(start)?;
    line.push(b'\n');
    anyhow::ensure!(line.len() <= PIPE_BYTES, "the settings take more than {PIPE_BYTES} bytes");
    let (reader, mut writer) = std::io::pipe()?;
    // It fits, so nobody need read it yet.
    writer.write_all(&line)?;
    drop(writer);
    let mut command = Command::new("/proc/self/exe");
    command.arg0("worker");
    // The one binary of the product is a worker only with this word.
    command.args(std::env::args_os().nth(1).filter(|role| role == "worker"));
    command.arg("--joined").env_clear().stdin(Stdio::from(reader));
    Ok(command.exec())
}
