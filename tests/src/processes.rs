//! What runs on this machine, read from `/proc`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Asks again and again until the answer is `Some`, and fails the test when it is not within `deadline`.
///
/// # Panics
/// When the deadline passes.
pub fn poll_until<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < deadline, "{what}: not within {deadline:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Whether a process is there and is no zombie.
pub fn is_running(pid: u32) -> bool {
    stat_fields(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// All living processes below `pid`, not itself.
pub fn descendants(pid: u32) -> Vec<u32> {
    let all: Vec<(u32, u32)> = pids()
        .filter_map(|p| stat_fields(p).filter(|(state, _)| *state != 'Z').map(|(_, parent)| (p, parent)))
        .collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|(_, p)| *p == parent).map(|(child, _)| *child));
        next += 1;
    }
    found.remove(0);
    found
}

/// All living processes whose command line names `path`, for instance the state directory of a test.
pub fn processes_of(path: &Path) -> Vec<u32> {
    let wanted = path.as_os_str().as_encoded_bytes();
    let names_it = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.windows(wanted.len()).any(|part| part == wanted))
    };
    pids().filter(|pid| *pid != std::process::id() && is_running(*pid)).filter(names_it).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// State and parent. The name before them is in parentheses and may hold anything.
fn stat_fields(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
