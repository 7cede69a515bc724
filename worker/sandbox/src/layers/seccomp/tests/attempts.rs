//! Attempts at system calls, each in a child that ends after it.

use std::fmt;
use std::io;

use rustix::thread::CapabilitySet;
use seccompiler::BpfProgram;
use serde::Deserialize;

use crate::layers::seccomp::policy::Rule;

/// An attempt at a call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attempt {
    call: String,
    with: Vec<i64>,
    /// The capability without which the kernel refuses just as the rule does.
    needs: Option<String>,
}

/// The attempts at what each part of a policy denies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attempts {
    pub(super) always: Vec<Attempt>,
    pub(super) sampled: Vec<Attempt>,
    pub(super) below_full: Vec<Attempt>,
}

/// How an attempt was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// By an error.
    Answered(i32),
    /// By the end of its process.
    Ended(i32),
    /// It was not.
    Not,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(errno) => write!(f, "{}", io::Error::from_raw_os_error(*errno)),
            Self::Ended(signal) => write!(f, "signal {signal}"),
            Self::Not => write!(f, "done"),
        }
    }
}

impl Attempt {
    pub(super) fn of(call: &str, with: &[i32]) -> Self {
        Self { call: call.to_owned(), with: with.iter().map(|n| i64::from(*n)).collect(), needs: None }
    }

    /// The capability that this process would need to tell a rule from the kernel's own refusal.
    pub(super) fn missing_capability(&self) -> Option<&str> {
        let needed = self.needs.as_deref()?;
        let capability = CapabilitySet::from_name(needed.trim_start_matches("CAP_")).expect("a capability");
        let held = rustix::thread::capabilities(None).unwrap().effective;
        (!held.contains(capability)).then_some(needed)
    }
}

pub(super) fn parse(text: &str) -> Attempts {
    toml::from_str(text).unwrap()
}

/// Each rule with its own attempt: those for one call in their order. Attempts at calls of another architecture are left.
pub(super) fn pairs<'a>(rules: &'a [Rule], attempts: &'a [Attempt]) -> Vec<(&'a Rule, &'a Attempt)> {
    for call in attempts.iter().map(|attempt| &attempt.call).filter(|call| rules.iter().any(|rule| rule.call == **call))
    {
        let count = |names: Vec<&String>| names.into_iter().filter(|name| *name == call).count();
        let rules = count(rules.iter().map(|rule| &rule.call).collect());
        assert_eq!(rules, count(attempts.iter().map(|attempt| &attempt.call).collect()), "attempts at {call}");
    }
    let pair = |(index, rule): (usize, &'a Rule)| {
        let way = rules[..index].iter().filter(|earlier| earlier.call == rule.call).count();
        let attempt = attempts.iter().filter(|attempt| attempt.call == rule.call).nth(way);
        (rule, attempt.unwrap_or_else(|| panic!("nothing attempts {} {:?}", rule.call, rule.when)))
    };
    rules.iter().enumerate().map(pair).collect()
}

/// Makes the call under the programs.
pub(super) fn attempted(programs: &[BpfProgram], number: i64, attempt: &Attempt) -> Stopped {
    in_a_child(|| programs.iter().all(|program| seccompiler::apply_filter(program).is_ok()), number, attempt)
}

/// Makes the call in a child, once that is prepared.
pub(super) fn in_a_child(prepare: impl Fn() -> bool, number: i64, attempt: &Attempt) -> Stopped {
    let mut given = [0; 6];
    given[..attempt.with.len()].copy_from_slice(&attempt.with);
    let [a, b, c, d, e, f] = given;
    // SAFETY: the child makes system calls and ends; it takes no lock and frees nothing.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", io::Error::last_os_error()),
        0 => {
            // SAFETY: a session of its own has no terminal that a call could harm; the arguments point to nothing.
            let code = unsafe {
                libc::setsid();
                if !prepare() {
                    libc::_exit(254);
                }
                if libc::syscall(number, a, b, c, d, e, f) == -1 { *libc::__errno_location() } else { 0 }
            };
            // SAFETY: it ends this process.
            unsafe { libc::_exit(code) }
        }
        child => ending(child),
    }
}

fn ending(child: i32) -> Stopped {
    let mut status = 0;
    // SAFETY: the status is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    match libc::WEXITSTATUS(status) {
        _ if libc::WIFSIGNALED(status) => Stopped::Ended(libc::WTERMSIG(status)),
        254 => panic!("the filters cannot be applied"),
        0 => Stopped::Not,
        errno => Stopped::Answered(errno),
    }
}
