//! Tells a kill for the memory limit from every other SIGKILL.

use std::os::fd::OwnedFd;

/// The kernel's count of processes of one sandbox that it killed for the memory limit.
#[derive(Debug)]
pub(crate) struct OomCounter(OwnedFd);

impl OomCounter {
    /// Reads the counter from this open `memory.events` (version 2) or `memory.oom_control` (version 1).
    pub(crate) fn new(file: OwnedFd) -> Self {
        Self(file)
    }

    /// The count now; zero when it cannot be read, since the group then is gone.
    pub(crate) fn kills(&self) -> u64 {
        let mut text = [0; 512];
        let len = rustix::io::pread(&self.0, &mut text, 0).unwrap_or(0);
        parse_kills(&String::from_utf8_lossy(&text[..len]))
    }
}

/// Both files have a line `oom_kill N`.
fn parse_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::parse_kills;

    #[test]
    fn the_counter_is_read_from_both_versions() {
        assert_eq!(parse_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), 3);
        assert_eq!(parse_kills("low 0\nhigh 0\nmax 12\noom 2\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(parse_kills(""), 0);
    }
}
