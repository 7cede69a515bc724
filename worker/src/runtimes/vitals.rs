//! What the system says of a process of a sandbox, seen from outside: nothing in the sandbox can make it say otherwise.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

/// A process by its descriptor, with its id for the system's files on it.
#[derive(Debug)]
pub(super) struct Observed {
    process: OwnedFd,
    pid: u32,
}

/// How a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vitals {
    /// Whether it has one thread, no children, and no siblings but one that is known: nothing that it started is left.
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

impl Observed {
    /// `None` when it has ended, or the system does not say which it is.
    pub fn new(process: OwnedFd) -> Option<Self> {
        let mut buffer = [0; FILE_BYTES];
        let fdinfo = read(&format!("/proc/self/fdinfo/{}", process.as_raw_fd()), &mut buffer)?;
        let pid = fdinfo.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
        Some(Self { process, pid })
    }

    /// How it stands, beside a process that it did not start; `None` when it has ended, or the system does not say.
    pub fn vitals(&self, beside: Option<&Self>) -> Option<Vitals> {
        let Self { pid, .. } = *self;
        let mut buffer = [0; FILE_BYTES];
        let stat = Stat::parse(read(&format!("/proc/{pid}/stat"), &mut buffer)?)?;
        let is_alone = stat.threads == 1
            && children(pid, &mut buffer)?.is_empty()
            && has_none_but(stat.parent, pid, beside, &mut buffer)?;
        // Ticks are hundredths of a second; the scheduler's count is finer, and holds only for the one thread.
        let run_ns = read(&format!("/proc/{pid}/schedstat"), &mut buffer);
        let run_ns: u64 = run_ns.and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or_default();
        let own_ms = (stat.own_ticks * TICK_MS).max(run_ns / 1_000_000);
        let vitals = Vitals { is_alone, cpu_ms: own_ms + stat.children_ticks * TICK_MS };
        // While it has not ended its id is nobody else's.
        self.has_not_ended().then_some(vitals)
    }

    /// Lets the peak of its resident memory begin anew. Where the system does not, it stays that of its whole life.
    pub fn forget_peak(&self) {
        if self.has_not_ended() {
            // Five is for the peak alone (proc_pid_clear_refs(5)).
            let forgotten = std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5");
            tracing::trace!(?forgotten, "the peak of a kernel's memory begins anew");
        }
    }

    /// Stops it, so that it runs no more instruction.
    pub fn stop(&self) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.process, Signal::STOP)?)
    }

    fn has_not_ended(&self) -> bool {
        let mut polled = [PollFd::new(&self.process, PollFlags::IN)];
        matches!(poll(&mut polled, Some(&Timespec::default())), Ok(0))
    }
}

/// More than any of these files holds, except of lists that are too long in any case.
const FILE_BYTES: usize = 1 << 10;

/// The text of a file of the system, which gives one so short at once.
fn read<'a>(path: &str, buffer: &'a mut [u8; FILE_BYTES]) -> Option<&'a str> {
    let len = File::open(path).ok()?.read(buffer).ok()?;
    std::str::from_utf8(&buffer[..len]).ok()
}

/// The ids of the children of a process, as text, with a blank after each.
fn children(pid: u32, buffer: &mut [u8; FILE_BYTES]) -> Option<&str> {
    read(&format!("/proc/{pid}/task/{pid}/children"), buffer)
}

fn has_none_but(parent: u32, pid: u32, beside: Option<&Observed>, buffer: &mut [u8; FILE_BYTES]) -> Option<bool> {
    let is_known = |child: &str| child.parse() == Ok(pid) || beside.is_some_and(|it| child.parse() == Ok(it.pid));
    let children = children(parent, buffer)?;
    let is_there = children.split_ascii_whitespace().any(|child| child.parse() == Ok(pid));
    // While it has not ended its id is nobody else's.
    Some(is_there && children.split_ascii_whitespace().all(is_known) && beside.is_none_or(Observed::has_not_ended))
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn a_process_is_alone_until_there_is_another_beside_it() {
        let script = "sleep 600 & a=$!; echo $a; read go; sleep 600 & b=$!; echo $b; read go; \
                      kill $b; wait $b; echo; read go; kill $a; wait; echo";
        let mut shell = Command::new("sh");
        let mut shell = shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut go, said) = (shell.stdin.take().unwrap(), BufReader::new(shell.stdout.take().unwrap()));
        let mut said = said.lines().map(Result::unwrap);
        let pid: i32 = said.next().unwrap().parse().unwrap();
        let process = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        let observed = Observed::new(process).unwrap();
        assert!(observed.vitals(None).unwrap().is_alone);
        writeln!(go).unwrap();
        let other: i32 = said.next().unwrap().parse().unwrap();
        let other = Observed::new(pidfd_open(Pid::from_raw(other).unwrap(), PidfdFlags::empty()).unwrap()).unwrap();
        assert!(!observed.vitals(None).unwrap().is_alone);
        assert!(observed.vitals(Some(&other)).unwrap().is_alone, "the other is known");
        writeln!(go).unwrap();
        said.next().unwrap();
        assert!(!observed.vitals(Some(&other)).unwrap().is_alone, "the id of one that has ended may be another's");
        assert!(observed.vitals(None).unwrap().is_alone);
        writeln!(go).unwrap();
        said.next().unwrap();
        assert_eq!(observed.vitals(None), None, "it has ended");
        shell.wait().unwrap();
    }

    #[test]
    fn a_name_that_looks_like_fields_is_skipped() {
        let text = "12 (a) R 1 (b) S 7 12 12 0 -1 4194560 1 2 3 4 11 22 33 44 20 0 5 0 100 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.parent, stat.threads, stat.own_ticks, stat.children_ticks), (7, 5, 33, 77));
    }
}
