//! `coordinator completions` and `coordinator man`: made from the command line's own description, so that they agree
//! with it.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

/// The pages cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the pages cannot be written to {dir}")]
struct PagesError {
    dir: String,
    source: io::Error,
}

/// Prints what a shell needs to complete the command line.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "coordinator", &mut script);
    super::print(&String::from_utf8_lossy(&script), ExitCode::SUCCESS)
}

/// Prints the main page, or writes those of all commands to a directory, which is made if need be.
pub(super) fn man(dir: Option<&Path>) -> ExitCode {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page).expect("writing to memory");
        return super::print(&String::from_utf8_lossy(&page), ExitCode::SUCCESS);
    };
    match fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(source) => super::complain(&PagesError { dir: dir.display().to_string(), source }, 1),
    }
}
