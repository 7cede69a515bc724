//! Seccomp: system calls that no program of a session needs are denied.
//!
//! What is denied, and why, is data: `policy/`, one file for each architecture. From it several programs are made and
//! stacked, since each can give only one answer: the gate (unknown numbers), then one for each answer of the rules. The
//! same programs bind init, so nothing in a sandbox runs without them.

mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

use codegen_types::IsolationLevel;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter};

use crate::layers::rlimits::MemoryBound;
use policy::{Policy, Rule};

#[cfg(target_arch = "x86_64")]
pub(super) const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
pub(super) const ARCH: TargetArch = TargetArch::aarch64;

#[cfg(target_arch = "x86_64")]
const POLICY: &str = include_str!("policy/x86_64.toml");
#[cfg(target_arch = "aarch64")]
const POLICY: &str = include_str!("policy/aarch64.toml");

/// The programs, compiled once and applied in every init.
#[derive(Debug, Clone)]
pub(crate) struct Filters {
    always: Vec<BpfProgram>,
    sampled: Vec<BpfProgram>,
    below_full: Vec<BpfProgram>,
}

impl Filters {
    /// Compiles the policy of this architecture.
    ///
    /// # Errors
    /// A policy that cannot be used is refused with the line that is wrong.
    pub(crate) fn compile() -> io::Result<Self> {
        Self::of(&Policy::parse(POLICY).map_err(io::Error::other)?, ARCH)
    }

    fn of(policy: &Policy, arch: TargetArch) -> io::Result<Self> {
        Ok(Self {
            always: [vec![gate(policy.newest)], programs(&policy.always, arch)?].concat(),
            sampled: programs(&policy.sampled, arch)?,
            below_full: programs(&policy.below_full, arch)?,
        })
    }

    /// Binds this process and its descendants; `no_new_privs` must be set.
    pub(crate) fn apply(&self, level: IsolationLevel, memory: MemoryBound) -> io::Result<()> {
        let sampled = match memory {
            MemoryBound::ControlGroup => &[][..],
            MemoryBound::Sampling => &self.sampled,
        };
        let below_full = match level {
            IsolationLevel::Full => &[][..],
            IsolationLevel::Portable | IsolationLevel::Reduced | IsolationLevel::None => &self.below_full,
        };
        let programs = self.always.iter().chain(sampled).chain(below_full);
        programs.into_iter().try_for_each(|program| seccompiler::apply_filter(program).map_err(io::Error::other))
    }
}

/// One program for each answer that the rules give.
fn programs(rules: &[Rule], arch: TargetArch) -> io::Result<Vec<BpfProgram>> {
    let mut by_answer: BTreeMap<i32, BTreeMap<i64, Vec<SeccompRule>>> = BTreeMap::new();
    for rule in rules {
        let same_call = by_answer.entry(rule.answer.errno()).or_default().entry(rule.number).or_default();
        // A call without conditions has an empty list, which stands for every call of it.
        if !rule.conditions.is_empty() {
            same_call.push(SeccompRule::new(rule.conditions.clone()).map_err(io::Error::other)?);
        }
    }
    let program = |(errno, rules)| {
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch);
        filter.and_then(BpfProgram::try_from).map_err(io::Error::other)
    };
    by_answer.into_iter().map(program).collect()
}

/// Numbers above the newest known one, x32 among them, answer ENOSYS; calls of a foreign architecture end the process
/// (by the prologue that the library puts before each of its programs).
fn gate(newest: u32) -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const NUMBER_OFFSET: u32 = 0;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD_WORD, 0, 0, NUMBER_OFFSET),
        step(JUMP_GREATER, 0, 1, newest),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}
