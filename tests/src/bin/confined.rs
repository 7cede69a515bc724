//! Runs a command as an engine's default container would: without namespaces, and with four capabilities where it is root.
//!
//! `confined COMMAND...`

#[path = "../../../worker/sandbox/tests/isolation/confine.rs"]
mod confine;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("confined: no command");
        return ExitCode::from(2);
    };
    let error = match confine::confine() {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    };
    eprintln!("confined: {error}");
    ExitCode::FAILURE
}
