//! Asking a program of the host about itself.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long a program may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How much of the answer is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// Where to look when nothing else was said.
pub(crate) const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Every executable of that name on a search path, in order. Relative directories are left out: what is found must not
/// depend on where the worker was started.
pub(crate) fn executables(search_path: &OsStr, name: &str) -> Vec<PathBuf> {
    let candidates = std::env::split_paths(search_path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name));
    candidates.filter(|path| is_executable(path)).collect()
}

/// The directories of a search path that every user can reach.
pub(crate) fn open_to_everybody(search_path: &OsStr) -> OsString {
    let passable = |dir: &Path| {
        let found = dir.canonicalize().ok();
        found.is_some_and(|dir| dir.ancestors().all(|part| part.metadata().is_ok_and(|meta| meta.mode() & 0o001 != 0)))
    };
    let open = std::env::split_paths(search_path).filter(|dir| passable(dir));
    std::env::join_paths(open).unwrap_or_default()
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a program with nothing but a search path and a home in its environment, and reads what it prints.
pub(crate) async fn ask(program: &Path, args: &[&str], search_path: &OsStr) -> io::Result<String> {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", search_path).stdin(Stdio::null()).stderr(Stdio::null());
    // A version switcher such as pyenv looks for its files below the home directory.
    if let Some(home) = std::env::home_dir() {
        command.env("HOME", home);
    }
    let mut child = command.stdout(Stdio::piped()).current_dir("/").kill_on_drop(true).spawn()?;
    let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
    let answer = async {
        let mut text = String::new();
        stdout.take(ANSWER_BYTES_MAX).read_to_string(&mut text).await?;
        let status = child.wait().await?;
        if status.success() { Ok(text) } else { Err(io::Error::other(status.to_string())) }
    };
    tokio::time::timeout(ANSWER_DEADLINE, answer).await?
}
