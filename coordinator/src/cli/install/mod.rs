//! `coordinator install`: tells a client of this server, in the client's own file, and nothing else there changes.

mod check;
mod clients;
mod entry;
mod file;
mod json;
mod toml;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::Given;
use clients::{Client, Format, NoPlace, Row};
use entry::{Entry, Found, Unfit};
use file::{ClientFile, FileError};

const EXIT_CODES: &str = "Settings that are given (--state-dir and the like) become arguments of the entry.\n\n\
    Exit codes: 0 done, or the entry is right; 1 the file cannot be changed, or the entry is missing or wrong; \
    2 wrong usage.";

/// What `install` is asked for.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct InstallArgs {
    /// The client
    #[arg(value_name = "CLIENT")]
    client: Client,

    /// Print what --write would put where (this is also done when nothing else is asked for)
    #[arg(long, group = "action")]
    print: bool,

    /// Put the entry into the client's file; every other entry stays, and a copy of the file is kept beside it
    #[arg(long, group = "action")]
    write: bool,

    /// Find out whether the entry is there, and its program is this one in this version
    #[arg(long, group = "action")]
    check: bool,

    /// What the client calls this server
    #[arg(long, value_name = "NAME", default_value = "codegen", value_parser = name)]
    name: String,
}

/// Why `install` did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error(transparent)]
    Place(#[from] NoPlace),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} is left as it is: {unfit}")]
    Unfit { path: PathBuf, unfit: Unfit },
    #[error("this program does not know where it is")]
    Lost(#[source] std::io::Error),
    #[error("the path of this program, {0}, is not UTF-8, and no client's file could name it")]
    Unnameable(PathBuf),
    #[error("this program is no longer at {0}; run the one that took its place")]
    Replaced(PathBuf),
}

/// A name that all clients take.
fn name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if (1..=64).contains(&text.len()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("1 to 64 letters, digits, `-` and `_` are allowed".to_owned())
    }
}

pub(super) fn run(asked: &InstallArgs, given: &Given, standalone: bool) -> ExitCode {
    let row = asked.client.row();
    let args = arguments(given, standalone);
    let done = Entry::of_this_program(&asked.name, args).and_then(|entry| {
        let path = row.path(&given.environment)?;
        match (asked.write, asked.check) {
            (true, _) => write(row, &path, &entry),
            (_, true) => check(row, &path, &entry),
            (false, false) => print(row, &path, &entry),
        }
    });
    match done {
        Ok((text, code)) => super::print(&text, code),
        Err(error) => super::complain(&error, 1),
    }
}

/// The flags that were given, as the client is to give them.
fn arguments(given: &Given, standalone: bool) -> Vec<String> {
    let switches = [("--debug", given.debug), ("--standalone", standalone)];
    let mut args: Vec<String> = switches.iter().filter(|(_, on)| *on).map(|(flag, _)| (*flag).to_owned()).collect();
    let file = given.flags.file.as_ref().map(|file| ("--config", file.display().to_string()));
    let values = given.flags.values.iter().map(|(flag, value)| (*flag, value.clone()));
    args.extend(values.chain(file).flat_map(|(flag, value)| [flag.to_owned(), value]));
    args
}

impl Entry {
    fn of_this_program(name: &str, args: Vec<String>) -> Result<Self, InstallError> {
        let exe = std::env::current_exe().map_err(InstallError::Lost)?;
        if !exe.is_file() {
            return Err(InstallError::Replaced(exe));
        }
        let command = exe.to_str().map(str::to_owned).ok_or(InstallError::Unnameable(exe))?;
        Ok(Self { name: name.to_owned(), command, args })
    }
}

impl Format {
    fn find(self, text: &str, name: &str) -> Result<Option<Found>, Unfit> {
        match self {
            Self::Json { servers, .. } => json::find(text, servers, name),
            Self::Toml => toml::find(text, name),
        }
    }

    fn merge(self, text: &str, entry: &Entry) -> Result<String, Unfit> {
        match self {
            Self::Json { servers, typed } => json::merge(text, servers, typed, entry),
            Self::Toml => toml::merge(text, entry),
        }
    }
}

fn print(row: &Row, path: &Path, entry: &Entry) -> Result<(String, ExitCode), InstallError> {
    let alone = row.format.merge("", entry).map_err(|unfit| InstallError::Unfit { path: path.to_owned(), unfit })?;
    Ok((format!("{}, {}:\n\n{}\n", row.title, path.display(), alone.trim()), ExitCode::SUCCESS))
}

fn write(row: &Row, path: &Path, entry: &Entry) -> Result<(String, ExitCode), InstallError> {
    let file = ClientFile::open(path)?;
    let unfit = |unfit| InstallError::Unfit { path: path.to_owned(), unfit };
    let shown = path.display();
    if row.format.find(file.text(), &entry.name).map_err(unfit)?.is_some_and(|found| found.is(entry)) {
        return Ok((format!("`{}` is right in {shown}; nothing was changed.\n", entry.name), ExitCode::SUCCESS));
    }
    let merged = row.format.merge(file.text(), entry).map_err(unfit)?;
    let mut said = format!("`{}` is in {shown} now.\n", entry.name);
    if let Some(backup) = file.replace(&merged)? {
        said.push_str(&format!("What the file was is in {}.\n", backup.display()));
    }
    said.push_str(&format!("Next: {}.\n", row.then));
    Ok((said, ExitCode::SUCCESS))
}

fn check(row: &Row, path: &Path, entry: &Entry) -> Result<(String, ExitCode), InstallError> {
    let file = ClientFile::open(path)?;
    let found = row.format.find(file.text(), &entry.name);
    let found = found.map_err(|unfit| InstallError::Unfit { path: path.to_owned(), unfit })?;
    let shown = path.display();
    let differences = match found {
        None => vec!["it is not there; --write puts it there".to_owned()],
        Some(found) => check::differences(&found, entry, !entry.args.is_empty()),
    };
    if differences.is_empty() {
        return Ok((format!("`{}` is right in {shown}.\n", entry.name), ExitCode::SUCCESS));
    }
    let lines: String = differences.iter().map(|difference| format!("  {difference}\n")).collect();
    Ok((format!("`{}` is not right in {shown}:\n{lines}", entry.name), ExitCode::FAILURE))
}
