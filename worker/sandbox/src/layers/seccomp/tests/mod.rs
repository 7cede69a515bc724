//! The rules on system calls: what they say, and that each of them is needed.

mod attempts;
mod numbers;

use codegen_types::IsolationLevel;
use seccompiler::TargetArch;

use super::policy::{Policy, Rule};
use super::*;
use attempts::{Stopped, attempted, pairs};

const X86_64: &str = include_str!("../policy/x86_64.toml");
const AARCH64: &str = include_str!("../policy/aarch64.toml");
const ATTEMPTS: &str = include_str!("../policy/attempts.toml");

/// Calls that only x86_64 has.
const OLD_CALLS: [&str; 7] = ["iopl", "ioperm", "modify_ldt", "uselib", "ustat", "sysfs", "inotify_init"];

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

#[test]
fn every_rule_stops_its_call_which_nothing_else_stops() {
    let (policy, attempts) = (policy(POLICY), attempts::parse(ATTEMPTS));
    let sections = [
        ("always", &policy.always, &attempts.always),
        ("sampled", &policy.sampled, &attempts.sampled),
        ("below full", &policy.below_full, &attempts.below_full),
    ];
    let (mut needless, mut not_told_apart) = (Vec::new(), Vec::new());
    for (section, rules, attempts) in sections {
        let all = programs(rules, ARCH).unwrap();
        for (index, (rule, attempt)) in pairs(rules, attempts).into_iter().enumerate() {
            let others: Vec<Rule> =
                rules.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, r)| r.clone()).collect();
            let with = attempted(&all, rule.number, attempt);
            let without = attempted(&programs(&others, ARCH).unwrap(), rule.number, attempt);
            println!(
                "{section:<10} {:<18} {:<48} {with}; without the rule: {without}",
                rule.call,
                rule.when.join(", ")
            );
            assert_eq!(with, Stopped::Answered(rule.answer.errno()), "{section}: {} is not denied", rule.call);
            if without != with {
                continue;
            }
            match attempt.missing_capability() {
                Some(name) => not_told_apart.push(format!("{} ({name})", rule.call)),
                None => needless.push(format!("{section}: {} {:?}", rule.call, rule.when)),
            }
        }
    }
    assert!(needless.is_empty(), "rules that change nothing: {needless:#?}");
    if !not_told_apart.is_empty() {
        let count = not_told_apart.len();
        println!("SKIPPED: {count} rules whose need only who has capabilities can show: {not_told_apart:?}");
    }
}

#[test]
fn calls_newer_than_the_rules_and_calls_of_x32_do_not_exist() {
    let descriptor_of_a_process = attempts::Attempt::of("pidfd_open", &[-1, 0]);
    let number = libc::SYS_pidfd_open;
    let under = |newest| attempted(&[gate(newest)], number, &descriptor_of_a_process);
    assert_eq!(under(number as u32), Stopped::Answered(libc::EINVAL));
    assert_eq!(under(number as u32 - 1), Stopped::Answered(libc::ENOSYS));
    let newest = policy(POLICY).newest;
    for number in [i64::from(newest) + 1, 0x4000_0000 + libc::SYS_getpid, -1] {
        let attempt = attempts::Attempt::of("a foreign call", &[]);
        assert_eq!(attempted(&[gate(newest)], number, &attempt), Stopped::Answered(libc::ENOSYS), "{number}");
    }
}

#[test]
fn what_is_denied_besides_depends_on_level_and_memory() {
    let filters = Filters::compile().unwrap();
    let socket = attempts::Attempt::of("socket", &[libc::AF_UNIX, libc::SOCK_STREAM, 0]);
    let memory = attempts::Attempt::of("memfd_create", &[1, 0]);
    let at = |level, bound, number, attempt: &attempts::Attempt| {
        attempts::in_a_child(|| filters.apply(level, bound).is_ok(), number, attempt)
    };
    for (level, denied) in [
        (IsolationLevel::Full, Stopped::Not),
        (IsolationLevel::Portable, Stopped::Answered(libc::EPERM)),
        (IsolationLevel::Reduced, Stopped::Answered(libc::EPERM)),
    ] {
        assert_eq!(at(level, MemoryBound::ControlGroup, libc::SYS_socket, &socket), denied, "{level}");
        assert_eq!(at(level, MemoryBound::Sampling, libc::SYS_socket, &socket), denied, "{level}");
        let memory = |bound| at(level, bound, libc::SYS_memfd_create, &memory);
        assert_eq!(memory(MemoryBound::Sampling), Stopped::Answered(libc::ENOSYS), "{level}");
        assert_eq!(memory(MemoryBound::ControlGroup), Stopped::Answered(libc::EFAULT), "{level}");
    }
}

#[test]
fn the_rules_are_the_same_on_every_architecture() {
    let rules = |text| {
        let Policy { newest, always, sampled, below_full } = policy(text);
        let words = |rule: Rule| (rule.call, rule.when, rule.answer.errno());
        let is_everywhere = |rule: &(String, _, _)| !OLD_CALLS.contains(&&*rule.0);
        let words = |rules: Vec<Rule>| rules.into_iter().map(words).filter(is_everywhere).collect::<Vec<_>>();
        (newest, words(always), words(sampled), words(below_full))
    };
    assert_eq!(rules(X86_64), rules(AARCH64));
}

#[test]
fn the_rules_of_every_architecture_compile() {
    for (text, arch) in [(X86_64, TargetArch::x86_64), (AARCH64, TargetArch::aarch64)] {
        let filters = Filters::of(&policy(text), arch).unwrap();
        assert_eq!((filters.always.len(), filters.sampled.len(), filters.below_full.len()), (3, 2, 2));
    }
}

#[test]
fn a_malformed_policy_is_refused_with_its_line() {
    let changed = |from: &str, to: &str| Policy::parse(&X86_64.replacen(from, to, 1)).unwrap_err();
    let line_of = |part: &str| 1 + X86_64.lines().position(|line| line.contains(part)).unwrap();
    let setns = r#"call = "setns", number = 308, why = "enters namespaces""#;
    for (to, what) in [
        (r#"call = "setns", number = 308, why = " ""#, "setns has no reason"),
        (r#"call = "setns", number = 308"#, "missing field `why`"),
        (r#"call = "setns", number = 470, why = "x""#, "setns is newer than the newest call"),
        (r#"call = "setns", number = 272, why = "x""#, "unshare and setns cannot both be number 272"),
        (r#"call = "unshare", number = 272, why = "x""#, "unshare is denied already"),
        (r#"call = "setns", number = 308, why = "x", answer = "EOK""#, "unknown variant `EOK`"),
        (r#"call = "setns", number = 308, why = "x", whe = []"#, "unknown field `whe`"),
        (r#"call = "setns", number = 308, why = "x", when = ["0 = 0"]"#, "compares in a way"),
        (r#"call = "setns", number = 308, why = "x", when = ["9 == 0"]"#, "`9 == 0`"),
        (r#"call = "setns", number = 308, why = "x", when = ["0 == AF_X"]"#, "`AF_X` is not among the values"),
        (r#"call = "setns", number = 308, why = "x", when = ["0 =="]"#, "is no condition"),
    ] {
        let error = changed(setns, to);
        assert!(error.what.contains(what), "{error}");
        assert_eq!(error.line, line_of("\"setns\""), "{error}");
    }
    let unused = changed("[values]", "[values]\nAF_ALG = 38");
    assert_eq!((unused.line, &*unused.what), (line_of("[values]") + 1, "no condition names AF_ALG"));
    assert!(changed("newest = 469", "").what.contains("newest"));
}
