//! What the kernel counts of one sandbox: kills for the memory limit, which tells them from every other SIGKILL, and
//! processes that could not be started because there were as many as may be.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A count of the kernel, in an open file of a control group.
#[derive(Debug)]
struct Counter {
    file: OwnedFd,
    /// What its line begins with.
    name: &'static str,
}

impl Counter {
    /// The count now; zero when it cannot be read, since the group then is gone.
    fn read(&self) -> u64 {
        let mut text = [0; 512];
        let len = rustix::io::pread(&self.file, &mut text, 0).unwrap_or(0);
        parse(&String::from_utf8_lossy(&text[..len]), self.name)
    }
}

/// The counters of one sandbox, as far as control groups bound it. Cheap to clone.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counters {
    memory: Option<Arc<Counter>>,
    processes: Option<Arc<Counter>>,
}

/// What they said at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Processes that were killed for the memory limit.
    pub(crate) memory_kills: u64,
    /// Processes and threads that were not started for the process limit.
    pub(crate) processes_refused: u64,
}

impl Counters {
    /// Reads kills from an open `memory.events` (version 2) or `memory.oom_control` (version 1), and refusals from an open
    /// `pids.events` (both).
    pub(crate) fn new(memory: Option<OwnedFd>, processes: Option<OwnedFd>) -> Self {
        let counter = |name| move |file| Arc::new(Counter { file, name });
        Self { memory: memory.map(counter("oom_kill ")), processes: processes.map(counter("max ")) }
    }

    /// The open files: of memory, and of processes.
    pub(crate) fn files(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [&self.memory, &self.processes].map(|counter| counter.as_ref().map(|counter| counter.file.as_fd()))
    }

    /// The counts now.
    pub(crate) fn now(&self) -> Counts {
        let read = |counter: &Option<Arc<Counter>>| counter.as_ref().map_or(0, |counter| counter.read());
        Counts { memory_kills: read(&self.memory), processes_refused: read(&self.processes) }
    }
}

/// Every such file has lines `NAME N`.
fn parse(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn counters_are_read_from_both_versions() {
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill "), 3);
        assert_eq!(parse("low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n", "oom_kill "), 2);
        assert_eq!(parse("max 7\n", "max "), 7);
        assert_eq!(parse("", "max "), 0);
    }
}
