//! The worker: joins a coordinator, keeps a pool of sandboxed sessions and runs their tasks.
//!
//! Owner of what happens between the link and the sandbox: the task table, the session pool, the executor and the
//! runtimes. The process forks the launcher before anything else, so that no thread and no secret is in it.
//!
//! *Invariant*: no unsafe code, no decision about who may do what (the coordinator's), and nothing of a session's code
//! ever runs outside its sandbox; whatever a sandbox says is hostile until checked.

#![forbid(unsafe_code)]

mod args;
mod disk;
mod egress;
mod executor;
mod files;
mod host;
mod lineage;
mod link;
mod packages;
mod passage;
mod probe;
mod process;
mod remote;
mod render;
mod runtimes;
mod service;
mod session;
pub mod simulated;
mod start;
mod tasks;
mod upstream;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use codegen_types::IsolationLevel;
use process::Life;

pub use link::InvalidAddress;
pub use probe::Probe;
pub use process::allow_descriptors;
pub use start::{AdvertiseStart, RemoteStart, StartError, StartMessage, TlsPair, TlsStart};

/// The whole worker process. `args` begins with the program's name, as [`std::env::args_os`] does.
///
/// Must be called before the process has a second thread: the launcher is forked from here.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match args::Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to tell when the stream of the message itself is broken.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let ended = match args {
        args::Args { render: Some(mime), .. } => return drawn(render::run(&mime)),
        args::Args { command: Some(args::Command::Doctor { json }), .. } => return doctor(probe::doctor(json)),
        args::Args { probe: true, search_path, .. } => probe::run(search_path),
        args::Args { embedded: true, .. } => process::run(Life::UntilStdinEnds),
        args::Args { joined: true, .. } => process::run(Life::UntilSignal),
        args => remote::run(args),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The end of a look at this machine: a failure where no session could be run.
fn doctor(ended: anyhow::Result<IsolationLevel>) -> ExitCode {
    match ended {
        Ok(level) if level > IsolationLevel::None => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The end of the process that draws a picture: a refusal is for the client, in plain words.
fn drawn(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            render::exit_code(&error)
        }
    }
}
