//! The kill rounds, shortened: whatever is killed at any moment, each client is told the truth, nothing runs twice and
//! nothing is left. `make soak` goes on for a thousand rounds.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::Installation;

/// So many in `make test`.
const ROUNDS: &str = "50";

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("chaos")
}

fn python(arguments: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Output {
    let mut python = Command::new("python3");
    python.args(arguments).current_dir(here()).env("PYTHONDONTWRITEBYTECODE", "1");
    python.output().expect("python3 starts")
}

#[track_caller]
fn succeeded(output: Output) {
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn whatever_is_killed_each_client_is_told_the_truth_nothing_runs_twice_and_nothing_is_left() {
    let installation = Installation::new();
    let seed = std::env::var_os("CHAOS_SEED");
    let script = here().join("chaos.py");
    succeeded(python(
        [script.as_os_str(), installation.binary().as_os_str(), ROUNDS.as_ref()].into_iter().chain(seed.as_deref()),
    ));
}

#[test]
fn the_checker_finds_each_kind_of_violation_in_a_forged_history() {
    succeeded(python(["-m", "unittest", "-q", "test_checker"]));
}
