//! A writer whose n-th system call of a kind fails, or that is killed at it, for every n of a run: what it acknowledged is
//! in the log, and the next one goes on. Calls are counted for each thread, and whichever comes to n first is struck first:
//! of the thread that writes, calls are out of reach of a kill that come after as many by the one that opens the log.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use codegen_audit::{EventKind, Record, Verdict, verify};

use crate::forger::runtime;
use crate::stored::{self, Stored};

/// What is asked for in one run.
const LINES: [&str; 9] = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
/// The files that are written from their beginning; what else is written that way is no file.
const NEW_FILES: [&str; 4] =
    ["checkpoints/.new", "keys/.checkpoint.key.new", "keys/.checkpoint.vkey.new", "keys/.redaction.key.new"];
/// Calls that do the same as those under faults, and are made on no file of the log.
const NEVER: [&str; 16] = [
    "open",
    "creat",
    "openat2",
    "writev",
    "pwritev",
    "pwritev2",
    "sendfile",
    "copy_file_range",
    "splice",
    "renameat",
    "renameat2",
    "sync",
    "syncfs",
    "sync_file_range",
    "msync",
    "truncate",
];
/// More system calls of one name than a run has in any thread.
const CALLS_MAX: usize = 200;

/// The program that is watched, which `cargo test` builds beside this one.
fn program() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let found = me.ancestors().map(|dir| dir.join("examples/append")).find(|path| path.is_file());
    found.expect("examples/append is not built: run `cargo build -p codegen-audit --examples`")
}

fn strace() -> PathBuf {
    let named = std::env::var_os("CODEGEN_TEST_STRACE").map(PathBuf::from);
    let found = named.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join("strace")).find(|path| path.is_file())
    });
    found.expect("strace is needed: `make test` brings it (Debian, Ubuntu: apt install strace)")
}

/// A log in a file system in memory, since thousands of syncs are waited for.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// What one run said.
struct Said {
    acknowledged: Vec<String>,
    refused: Vec<String>,
    is_closed: bool,
    /// Whether the fault came about.
    is_faulty: bool,
    is_opened: bool,
    stderr: String,
}

/// Appends lines to the log in `dir`, under a fault if one is given in the words of strace.
fn run(dir: &Path, lines: &[&str], fault: Option<&str>) -> Said {
    let trace = tempfile::NamedTempFile::new_in(dir.parent().unwrap()).unwrap();
    let patience_ms = if fault.is_some_and(|fault| fault.ends_with('+')) { "50" } else { "10000" };
    let mut command = match fault {
        None => Command::new(program()),
        Some(fault) => {
            let mut command = Command::new(strace());
            let calls = fault.split(':').next().unwrap();
            command.args(["-f", "-qq", "-o"]).arg(trace.path());
            let files = NEW_FILES.iter().filter(|_| calls == "write").map(|file| dir.join(file));
            command.args(files.flat_map(|file| ["-P".into(), file.into_os_string()]));
            command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={fault}")]).arg(program());
            command
        }
    };
    command
        .arg(dir)
        .args(["1500", "1", patience_ms])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // Whoever is killed or refuses does not read it.
    let _unread = child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let of = |what: &str| said.lines().filter_map(|line| Some(line.strip_prefix(what)?.to_owned())).collect();
    let traced = String::from_utf8_lossy(&std::fs::read(trace.path()).unwrap()).into_owned();
    Said {
        acknowledged: of("ack "),
        refused: of("refused "),
        is_closed: said.lines().any(|line| line == "closed"),
        is_faulty: traced.contains("(INJECTED)") || traced.contains("killed by SIGKILL"),
        is_opened: said.starts_with("opened "),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// How often each line is in the log.
fn counts(records: &[Record]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let of_lines = records.iter().filter(|record| record.kind == EventKind::CallServed);
    of_lines.filter_map(|record| record.path.clone()).for_each(|path| *counts.entry(path).or_default() += 1);
    counts
}

/// Runs under one fault, then without any, and checks what is in the log then. Gives whether the fault came about.
fn survives(before: &Stored, fault: &str) -> bool {
    let root = place();
    let dir = root.path().join("log");
    before.copy_to(&dir);
    let said = run(&dir, &LINES, Some(fault));
    let what = || format!("{fault}: {} acknowledged; {}", said.acknowledged.len(), said.stderr);
    let again = run(&dir, &["again"], None);
    assert!(again.is_opened && again.is_closed, "{}: the next start is refused: {}", what(), again.stderr);
    assert_eq!(again.acknowledged, ["again"], "{}", what());
    let verified = verify(&dir, None);
    assert_eq!(verified.verdict, Verdict::Whole, "{}", what());
    let records = stored::all(&dir);
    let old: Vec<Vec<u8>> = before.whole_lines();
    let first: Vec<&[u8]> = records.iter().map(|record| record.line.as_bytes()).take(old.len()).collect();
    assert_eq!(first, old, "{}: records from before were changed", what());
    let counts = counts(&records);
    for line in &said.acknowledged {
        assert_eq!(counts.get(line), Some(&1), "{}: {line} was acknowledged", what());
    }
    let withdrawn: BTreeSet<_> = records
        .iter()
        .filter(|record| record.kind == EventKind::LogWithdrawn)
        .filter_map(|record| record.cites)
        .collect();
    for line in &said.refused {
        let of_line = records.iter().find(|record| record.path.as_ref() == Some(line));
        // Of a writer that found back nothing is left that was refused, unless it says so.
        let is_settled = of_line.is_none_or(|record| withdrawn.contains(&record.seq)) || !said.is_closed;
        assert!(is_settled && counts.get(line).is_none_or(|count| *count == 1), "{}: {line} was refused", what());
    }
    if said.is_opened && !fault.contains("KILL") && !fault.ends_with('+') && said.is_closed {
        let answered = said.acknowledged.len() + said.refused.len();
        assert_eq!(answered, LINES.len(), "{}: it found back", what());
    }
    said.is_faulty
}

/// Puts the fault under every call of these names, one at a time, in a new log and in one that a crash has torn.
fn every_call_of(names: &[&str], fault: &str) {
    let nothing = Stored::empty();
    let mut torn = runtime().block_on(stored::crashed(3));
    torn.tear();
    for name in names {
        let mut faults = 0;
        for before in [&nothing, &torn] {
            for n in 1..=CALLS_MAX {
                assert!(n < CALLS_MAX, "{name} is called without end");
                if !survives(before, &format!("{name}:{fault}:when={n}")) {
                    break;
                }
                faults += 1;
            }
        }
        // Old checkpoints go when there was the time to make so many.
        assert!(faults > 0 || *name == "unlink", "{name} is never called");
    }
}

#[test]
fn an_error_of_the_disk_at_the_nth_write_or_sync_of_a_thread_loses_nothing_that_was_acknowledged() {
    every_call_of(&["pwrite64", "write", "fdatasync", "fsync", "fallocate", "ftruncate"], "error=EIO");
}

#[test]
fn an_error_of_the_disk_at_the_nth_open_rename_or_reading_of_a_thread_loses_nothing_that_was_acknowledged() {
    every_call_of(&["openat", "rename", "unlink", "getdents64", "mkdir", "flock"], "error=EIO");
    every_call_of(&["openat"], "error=EMFILE");
}

#[test]
fn no_space_for_the_nth_write_or_file_of_a_thread_loses_nothing_that_was_acknowledged() {
    every_call_of(&["pwrite64", "fallocate", "write", "rename", "mkdir", "openat"], "error=ENOSPC");
}

/// Of a disk that gives room only when it must.
#[test]
fn no_space_at_the_nth_sync_of_a_thread_loses_nothing_that_was_acknowledged() {
    every_call_of(&["fdatasync", "fsync"], "error=ENOSPC");
}

#[test]
fn a_kill_at_the_nth_write_or_sync_of_a_thread_loses_nothing_that_was_acknowledged() {
    every_call_of(&["pwrite64", "fdatasync", "fsync", "fallocate", "ftruncate", "write"], "signal=KILL");
}

#[test]
fn a_kill_at_the_nth_open_or_rename_of_a_thread_loses_nothing_that_was_acknowledged() {
    every_call_of(&["openat", "rename", "unlink", "mkdir", "flock"], "signal=KILL");
}

/// So there is no fault that none of these tests makes.
#[test]
fn no_other_call_opens_writes_syncs_or_renames_a_file_of_the_log() {
    let root = place();
    let dir = root.path().join("log");
    let made = calls_on(&dir, &NEVER.map(|name| format!("?{name}")).join(","));
    assert_eq!(made, [""; 0], "add these to the faults");
    // Records are written where they belong, and what is written from the beginning are new files alone.
    let written = calls_on(&dir, "write");
    let is_new = |line: &&String| NEW_FILES.iter().any(|file| line.contains(&format!("{}>", dir.join(file).display())));
    assert!(!written.is_empty() && written.iter().all(|line| is_new(&line)), "{written:?}");
}

/// The calls of these names on files of the log in `dir`, in a run that makes it and in the next, in the words of strace.
fn calls_on(dir: &Path, names: &str) -> Vec<String> {
    let trace = tempfile::NamedTempFile::new_in(dir.parent().unwrap()).unwrap();
    let mut made = Vec::new();
    for _ in 0..2 {
        let mut command = Command::new(strace());
        command.args(["-f", "-qq", "-y", "-e", &format!("trace={names}"), "-o"]).arg(trace.path()).arg(program());
        let mut child =
            command.arg(dir).args(["1500", "1", "10000"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all((LINES.join("\n") + "\n").as_bytes()).unwrap();
        let said = child.wait_with_output().unwrap().stdout;
        assert!(String::from_utf8_lossy(&said).ends_with("closed\n"), "it is a whole run");
        let traced = std::fs::read(trace.path()).unwrap();
        let traced = String::from_utf8_lossy(&traced).into_owned();
        let of_log = |line: &&str| line.contains(&*dir.to_string_lossy());
        made.extend(traced.lines().filter(of_log).map(str::to_owned));
    }
    made
}

#[test]
fn a_disk_that_fails_for_good_from_the_nth_call_of_a_thread_acknowledges_nothing_more() {
    let nothing = Stored::empty();
    for (name, error) in [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("fsync", "EIO"), ("fallocate", "ENOSPC")] {
        let faulty = (1..CALLS_MAX).take_while(|n| survives(&nothing, &format!("{name}:error={error}:when={n}+")));
        assert!(faulty.count() > 0, "{name} is never called");
    }
}
