//! The kill rounds, shortened: whatever is killed at any moment, each client is told the truth, nothing runs twice and
//! nothing is left. `make soak` goes on for a thousand rounds.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::{Installation, User};

/// So many in `make test`, and so many at each level below full.
const ROUNDS: &str = "50";
const ROUNDS_BELOW_FULL: &str = "10";

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

fn survives(user: User, rounds: &str) {
    let installation = Installation::for_user(user);
    let mut arguments = vec![here().join("chaos.py").into_os_string(), installation.binary().into(), rounds.into()];
    arguments.extend(std::env::var_os("CHAOS_SEED"));
    if user.level() != "full" {
        arguments.extend(["--below".into(), user.level().into(), installation.confined().into()]);
    }
    succeeded(python(arguments));
}

#[test]
fn whatever_is_killed_each_client_is_told_the_truth_nothing_runs_twice_and_nothing_is_left() {
    survives(User::Myself, ROUNDS);
}

#[test]
fn the_same_holds_where_sessions_have_user_ids_and_no_namespaces() {
    if !User::below_full().contains(&User::Portable) {
        println!("SKIPPED: only root can give sessions user ids of their own");
        return;
    }
    survives(User::Portable, ROUNDS_BELOW_FULL);
}

#[test]
fn the_same_holds_where_sessions_share_the_worker_s_user_id() {
    survives(User::Reduced, ROUNDS_BELOW_FULL);
}

#[test]
fn the_checker_finds_each_kind_of_violation_in_a_forged_history() {
    succeeded(python(["-m", "unittest", "-q", "test_checker"]));
}
