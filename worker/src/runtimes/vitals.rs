//! What the system says of a process of a sandbox, seen from outside: nothing in the sandbox can make it say otherwise.

use std::os::fd::{AsRawFd, OwnedFd};

/// How a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vitals {
    /// Whether it has one thread, no children, and no siblings: nothing that it started is left.
    pub is_alone: bool,
    /// Processor time of it and of the children that it waited for, in milliseconds.
    pub cpu_ms: u64,
}

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)) after the name.
struct Stat {
    parent: u32,
    threads: u64,
    own_ticks: u64,
    children_ticks: u64,
}

impl Vitals {
    /// Of a process that a descriptor stands for; `None` when it has ended, or the system does not say.
    pub fn of(process: &OwnedFd) -> Option<Self> {
        let pid = pid_of(process)?;
        let stat = Stat::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let is_alone = stat.threads == 1 && children(pid)?.is_empty() && children(stat.parent)? == [pid];
        // Ticks are hundredths of a second; the scheduler's count is finer, and holds only for the one thread.
        let run_ns = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok();
        let run_ns: u64 = run_ns.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or_default();
        let own_ms = (stat.own_ticks * TICK_MS).max(run_ns / 1_000_000);
        Some(Self { is_alone, cpu_ms: own_ms + stat.children_ticks * TICK_MS })
    }
}

/// Lets the peak of a process's resident memory begin anew. Where the system does not, it stays that of its whole life.
pub(super) fn forget_peak(process: &OwnedFd) {
    // Five is for the peak alone (proc_pid_clear_refs(5)).
    let forgotten = pid_of(process).map(|pid| std::fs::write(format!("/proc/{pid}/clear_refs"), "5"));
    tracing::trace!(?forgotten, "the peak of a kernel's memory begins anew");
}

fn pid_of(process: &OwnedFd) -> Option<u32> {
    let fdinfo = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// `USER_HZ` is 100 on every architecture that we run on.
const TICK_MS: u64 = 10;

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name is in parentheses and may hold anything.
        let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        Some(Self {
            parent: u32::try_from(number(1)?).ok()?,
            own_ticks: number(11)? + number(12)?,
            children_ticks: number(13)? + number(14)?,
            threads: number(17)?,
        })
    }
}

fn children(pid: u32) -> Option<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    text.split_whitespace().map(|child| child.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_fields_is_skipped() {
        let text = "12 (a) R 1 (b) S 7 12 12 0 -1 4194560 1 2 3 4 11 22 33 44 20 0 5 0 100 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.parent, stat.threads, stat.own_ticks, stat.children_ticks), (7, 5, 33, 77));
    }
}
