//! Measures the memory of a whole sandbox where no control group does.

use std::fs;

use crate::supervisor;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measured {
    /// All that can be seen, which is the sandbox alone, and its scratch file systems.
    Namespace,
    /// This process and its descendants; their scratch space is no memory.
    Descendants,
}

/// Whether everything inside uses more than `bytes_max` of memory.
///
/// The quick sum counts pages that forked processes share once for each; only when it is over the limit are shares
/// weighed, which costs more.
pub(super) fn is_over(bytes_max: u64, measured: Measured) -> bool {
    let (scratch, pids) = match measured {
        Measured::Namespace => (scratch_bytes(), processes()),
        Measured::Descendants => (0, family()),
    };
    if pids.is_empty() {
        // This process is always there: what cannot be measured may be too much.
        return true;
    }
    let quick: u64 = pids.iter().map(|pid| resident_anonymous(*pid)).sum();
    if scratch.saturating_add(quick) <= bytes_max {
        return false;
    }
    let weighed: u64 = pids.iter().map(|pid| proportional(*pid).unwrap_or_else(|| resident_anonymous(*pid))).sum();
    scratch.saturating_add(weighed) > bytes_max
}

fn family() -> Vec<u32> {
    let below = supervisor::descendants().into_iter().filter_map(|pid| u32::try_from(pid).ok());
    below.chain([std::process::id()]).collect()
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Resident pages that belong to no file, in bytes; a process that is gone has none.
fn resident_anonymous(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let mut pages = text.split_whitespace().skip(1).map(|n| n.parse::<u64>().unwrap_or(0));
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(shared).saturating_mul(rustix::param::page_size() as u64)
}

/// Anonymous pages weighed by how many processes share them, in bytes; `None` when the process does not let us see.
fn proportional(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    parse_anonymous_share(&text)
}

fn parse_anonymous_share(smaps_rollup: &str) -> Option<u64> {
    let line = smaps_rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Bytes in the scratch file systems, which are memory, too.
fn scratch_bytes() -> u64 {
    let used = |path| {
        rustix::fs::statfs(path).map_or(0, |stat| (stat.f_blocks - stat.f_bfree).saturating_mul(stat.f_bsize as u64))
    };
    used("/tmp") + used("/dev/shm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_anonymous_memory_are_read() {
        assert_eq!(parse_anonymous_share("Rss: 9 kB\nPss_Anon:           12 kB\nPss_File: 3 kB\n"), Some(12 * 1024));
        assert_eq!(parse_anonymous_share("Rss: 9 kB\n"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident_anonymous(std::process::id()) > 0);
        assert_eq!(resident_anonymous(u32::MAX), 0);
    }
}
