//! What rules mean, and that no spelling gets past them.

use codegen_types::{Principal, WorkspacePath};
use proptest::prelude::*;

use super::*;

fn policy(text: &str) -> Policy {
    Policy::parse(text).expect("a policy")
}

fn path(text: &str) -> WorkspacePath {
    WorkspacePath::parse(text).expect("a path")
}

fn one(text: &str) -> Subject {
    Subject { path: Some(Touch::One(path(text))), ..Subject::default() }
}

fn tree(text: &str) -> Subject {
    Subject { path: Some(Touch::Tree(path(text))), ..Subject::default() }
}

fn away(from: &str, to: &str) -> Subject {
    Subject { path: Some(Touch::Away { from: path(from), to: path(to) }), ..Subject::default() }
}

fn package(name: &str, host: &str) -> Subject {
    Subject { package: Some(name.to_owned()), host: Some(host.to_owned()), ..Subject::default() }
}

fn effect(policy: &Policy, principal: &str, tool: &str, subjects: &[Subject]) -> Effect {
    let principal: Principal = principal.parse().expect("a principal");
    policy.decide(Action { principal: &principal, tool, subjects }).effect
}

#[test]
fn without_rules_the_default_holds() {
    assert_eq!(effect(&Policy::default(), "a", "fs_read", &[one("x")]), Effect::Allow);
    assert_eq!(effect(&policy("default = 'deny'"), "a", "fs_read", &[]), Effect::Deny);
}

#[test]
fn the_strictest_of_the_matching_rules_holds_wherever_it_stands() {
    let rule = |name: &str, effect: &str| format!("[[rule]]\nname = '{name}'\ntool = 'fs_*'\neffect = '{effect}'\n");
    let (allow, ask, deny) = (rule("a", "allow"), rule("b", "require_approval"), rule("c", "deny"));
    for (text, expected) in [
        (format!("{allow}{ask}{deny}"), Effect::Deny),
        (format!("{deny}{ask}{allow}"), Effect::Deny),
        (format!("{ask}{allow}"), Effect::RequireApproval),
        (format!("default = 'deny'\n{allow}"), Effect::Allow),
    ] {
        assert_eq!(effect(&policy(&text), "p", "fs.read", &[]), expected, "{text}");
    }
}

#[test]
fn every_subject_of_a_call_counts() {
    let policy = policy(
        "default = 'deny'\n[[rule]]\nname='s'\npath='src/**'\neffect='allow'\n[[rule]]\nname='d'\npath='docs'\neffect='allow'",
    );
    let moved = |from: &str, to: &str| effect(&policy, "p", "fs_move", &[away(from, to), one(to)]);
    assert_eq!(moved("src/a", "docs/a"), Effect::Allow);
    assert_eq!(moved("src/a", "other/a"), Effect::Deny);
    assert_eq!(moved("other/a", "docs/a"), Effect::Deny);
    assert_eq!(effect(&policy, "p", "run_python", &[]), Effect::Deny);
}

#[test]
fn a_tree_is_denied_when_something_in_it_may_be_and_allowed_only_as_a_whole() {
    let denying = policy("[[rule]]\nname='k'\npath=['a/keys/**','**/*.pem']\neffect='deny'");
    for (subject, expected) in [
        (one("a"), Effect::Allow),
        (one("a/keys"), Effect::Deny),
        (one("a/keys/b/c"), Effect::Deny),
        (one("A/Keys/b"), Effect::Deny),
        (one("a/keysmith"), Effect::Allow),
        (one("..a/x.pem"), Effect::Deny),
        (one("..pem"), Effect::Deny),
        (one("x.PEM/inner"), Effect::Deny),
        (tree("a"), Effect::Deny),
        (tree("b"), Effect::Deny),
        // What ends in `.pem` does so anywhere; what is in `a/keys` is so only there.
        (away("b", "c"), Effect::Allow),
        (away("a", "c"), Effect::Deny),
        (away("a/keys", "c"), Effect::Deny),
        (away("a/x", "c"), Effect::Allow),
        // What was called `d/keys` would be `a/keys`.
        (away("d", "a"), Effect::Deny),
        (away("d", "a/x"), Effect::Allow),
        (away("d", "a/keys/x"), Effect::Deny),
    ] {
        assert_eq!(effect(&denying, "p", "t", std::slice::from_ref(&subject)), expected, "{subject:?}");
    }
    let allowing = policy("default='deny'\n[[rule]]\nname='k'\npath='a/b'\neffect='allow'");
    for (subject, expected) in [
        (tree("a"), Effect::Deny),
        (tree("a/b/c"), Effect::Allow),
        (one("A/b"), Effect::Deny),
        (away("a", "a/b"), Effect::Deny),
    ] {
        assert_eq!(effect(&allowing, "p", "t", std::slice::from_ref(&subject)), expected, "{subject:?}");
    }
}

#[test]
fn a_rule_is_about_whom_and_what_it_names() {
    let policy = policy(
        "[[rule]]\nname='a'\nprincipal=['team/*','os:eve']\ntool='run.*'\neffect='deny'\n\
         [[rule]]\nname='b'\npackage=['Evil__Pkg','torch*']\neffect='deny'\n\
         [[rule]]\nname='c'\nhost='*.Example'\neffect='require_approval'",
    );
    for (principal, tool, subjects, expected) in [
        ("team/a", "run_python", vec![], Effect::Deny),
        ("os:eve", "run.shell", vec![], Effect::Deny),
        ("xteam/a", "run_python", vec![], Effect::Allow),
        ("team/a", "fs_read", vec![], Effect::Allow),
        ("os:eva", "run_python", vec![], Effect::Allow),
        ("p", "pkg_install", vec![package("six", "pypi.org"), package("EVIL.pkg", "pypi.org")], Effect::Deny),
        ("p", "pkg_install", vec![package("TorchVision", "pypi.org")], Effect::Deny),
        ("p", "pkg_install", vec![package("six", "a.EXAMPLE.")], Effect::RequireApproval),
        ("p", "pkg_install", vec![package("six", "example.org")], Effect::Allow),
    ] {
        assert_eq!(effect(&policy, principal, tool, &subjects), expected, "{principal} {tool} {subjects:?}");
    }
}

#[test]
fn of_several_rules_that_require_approval_the_strictest_terms_hold() {
    let policy = policy(
        "[[rule]]\nname='a'\neffect='require_approval'\ntimeout='1m'\n\
         [[rule]]\nname='b'\ntool='run_*'\neffect='require_approval'\napprovers=['operator']\ntimeout='1h'",
    );
    let principal: Principal = "p".parse().unwrap();
    let decision = policy.decide(Action { principal: &principal, tool: "run_shell", subjects: &[] });
    assert_eq!(decision.rule.map(|rule| rule.name.as_str()), Some("a"));
    let expected = Terms { approvers: Approvers::Operator, timeout: Duration::from_secs(60) };
    assert_eq!((decision.terms, decision.matching.len()), (expected, 2));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let rule = "[[rule]]\nname = 'a'\neffect = 'deny'\n";
    for (text, line, part) in [
        ("default = 'perhaps'".to_owned(), 1, "perhaps"),
        ("\nrules = []".to_owned(), 2, "rules"),
        (format!("{rule}colour = 'red'"), 4, "colour"),
        (format!("{rule}path = '/etc'"), 4, "begins with `/`"),
        (format!("{rule}path = ['a', '../b']"), 4, "`..`"),
        (format!("{rule}path = ''"), 4, "empty"),
        (format!("{rule}path = './'"), 4, "matches nothing"),
        (format!("{rule}path = 'a[b'"), 4, "a[b"),
        (format!("{rule}path = 'a/**b'"), 4, "whole components"),
        (format!("{rule}tool = []"), 4, "empty list"),
        (format!("{rule}tool = 7"), 4, "a pattern"),
        (format!("{rule}tool = 'fs read'"), 4, "characters"),
        (format!("{rule}package = 'six>=1'"), 4, "characters"),
        (format!("{rule}host = 'https://a'"), 4, "characters"),
        (format!("{rule}timeout = '5m'"), 4, "require approval"),
        (format!("{rule}\n{rule}"), 6, "line 2"),
        ("[[rule]]\nname = 'a'\neffect = 'require_approval'\ntimeout = '5'".to_owned(), 4, "5m"),
        ("[[rule]]\nname = 'a'\neffect = 'require_approval'\napprovers = []".to_owned(), 4, "nobody"),
        ("[[rule]]\nname = 'a'\neffect = 'require_approval'\napprovers = ['me']".to_owned(), 4, "me"),
        ("[[rule]]\nname = 'a'".to_owned(), 1, "effect"),
        ("[[rule]\n".to_owned(), 1, ""),
    ] {
        let InvalidPolicy(problems) = Policy::parse(&text).expect_err(&text);
        assert_eq!(problems[0].line, line, "{text}: {problems:?}");
        assert!(problems[0].message.contains(part), "{text}: {problems:?}");
    }
    let two = format!("{rule}path = '/a'\ntool = 'a b'");
    assert_eq!(Policy::parse(&two).expect_err("two").0.len(), 2);
}

#[test]
fn authors_are_told_what_a_rule_does_not_do() {
    const TOOLS: [&str; 6] = ["fs_read", "run_python", "run_shell", "run_code", "test_run", "pkg_install"];
    let known = TOOLS.map(|name| KnownTool { name, names_paths: name != "run_shell" });
    let said = |text: &str| policy(text).warnings(&known);
    let paths = "[[rule]]\nname='p'\npath='keys/**'\neffect='deny'\n";
    let warnings = said(paths);
    assert!(warnings[0].message.contains("run_python, run_shell, run_code, test_run"), "{warnings:?}");
    assert_eq!(said(&format!("{paths}[[rule]]\nname='r'\ntool=['run_*','test_run']\neffect='deny'")), []);
    assert_eq!(said(&format!("default='deny'\n{paths}")), []);
    let asked = "[[rule]]\nname='r'\ntool=['run_*','test_run']\neffect='require_approval'";
    assert_eq!(said(&format!("{paths}{asked}")).len(), 1);
    let others = "[[rule]]\nname='r'\nprincipal='eve'\ntool=['run_*','test_run']\neffect='deny'";
    assert_eq!(said(&format!("{paths}{others}")).len(), 1);
    for (text, part) in [
        ("[[rule]]\nname='a'\ntool='fs.raed'\neffect='deny'", "no tool \"fs_raed\""),
        ("[[rule]]\nname='a'\neffect='allow'", "changes nothing"),
        ("[[rule]]\nname='a'\npackage='x'\neffect='deny'", "depend on"),
        ("[[rule]]\nname='a'\ntool='run_shell'\npath='x'\neffect='deny'", "it never matches: calls of run_shell"),
        ("[[rule]]\nname='a'\ntool='run_*'\npath='x'\neffect='deny'", "it never matches calls of run_shell, which"),
        ("[[rule]]\nname='a'\ntool='fs_read'\nhost='x'\neffect='deny'", "never matches"),
    ] {
        assert!(said(text).iter().any(|warning| warning.message.contains(part)), "{text}: {:?}", said(text));
    }
}

/// Components, among them those that look like something else.
fn component() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-cA-C]{1,3}",
        1 => Just("..foo".to_owned()),
        1 => Just("...".to_owned()),
        1 => Just("keys".to_owned()),
        1 => Just("KEYS".to_owned()),
        1 => Just("b.pem".to_owned()),
    ]
}

proptest! {
    /// Whatever the spelling, if the place that the worker comes to is below `keys`, the rule denies it; and whatever is
    /// no path for the worker is none here.
    #[test]
    fn no_spelling_of_a_path_evades_a_rule(
        parts in proptest::collection::vec(component(), 0..5),
        noise in proptest::collection::vec(prop_oneof![Just("/"), Just("//"), Just("/./"), Just("/.//./")], 5),
        lead in prop_oneof![Just(""), Just("./"), Just(".//")],
        tail in prop_oneof![Just(""), Just("/"), Just("/.")],
    ) {
        let denying = policy("[[rule]]\nname='k'\npath='keys/**'\neffect='deny'");
        let mut spelt = lead.to_owned();
        for (place, part) in parts.iter().enumerate() {
            if place > 0 {
                spelt.push_str(noise[place]);
            }
            spelt.push_str(part);
        }
        if !parts.is_empty() {
            spelt.push_str(tail);
        }
        let below = parts.first().is_some_and(|first| first.eq_ignore_ascii_case("keys"));
        let expected = if below { Effect::Deny } else { Effect::Allow };
        prop_assert_eq!(effect(&denying, "p", "t", &[one(&spelt)]), expected, "{}", spelt);
    }

    /// Taking a tree somewhere else never lets out what was denied in it.
    #[test]
    fn a_move_that_is_allowed_leaves_what_is_denied_denied(
        from in proptest::collection::vec(component(), 1..4),
        to in proptest::collection::vec(component(), 1..4),
        inner in proptest::collection::vec(component(), 0..3),
        pattern in proptest::collection::vec(prop_oneof![component(), Just("*".to_owned()), Just("**".to_owned())], 1..4),
    ) {
        let denying = policy(&format!("[[rule]]\nname='k'\npath='{}'\neffect='deny'", pattern.join("/")));
        let (from, to) = (from.join("/"), to.join("/"));
        let below = |top: &str| format!("{top}/{}", inner.join("/"));
        let moved = effect(&denying, "p", "fs_move", &[away(&from, &to), one(&to)]);
        if moved == Effect::Allow && effect(&denying, "p", "t", &[one(&below(&from))]) == Effect::Deny {
            prop_assert_eq!(effect(&denying, "p", "t", &[one(&below(&to))]), Effect::Deny);
        }
    }

    /// Bringing a tree from somewhere else never puts anything where it is denied, unless it was denied already.
    #[test]
    fn a_move_that_is_allowed_puts_nothing_where_it_is_denied(
        from in proptest::collection::vec(component(), 1..4),
        to in proptest::collection::vec(component(), 1..4),
        inner in proptest::collection::vec(component(), 0..3),
        pattern in proptest::collection::vec(prop_oneof![component(), Just("*".to_owned()), Just("**".to_owned())], 1..4),
    ) {
        let denying = policy(&format!("[[rule]]\nname='k'\npath='{}'\neffect='deny'", pattern.join("/")));
        let (from, to) = (from.join("/"), to.join("/"));
        let below = |top: &str| format!("{top}/{}", inner.join("/"));
        let moved = effect(&denying, "p", "fs_move", &[away(&from, &to), one(&to)]);
        if moved == Effect::Allow && effect(&denying, "p", "t", &[one(&below(&to))]) == Effect::Deny {
            prop_assert_eq!(effect(&denying, "p", "t", &[one(&below(&from))]), Effect::Deny);
        }
    }

    /// Whatever a file holds, reading it ends with a policy or with a line.
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        if let Err(InvalidPolicy(problems)) = Policy::parse(&text) {
            prop_assert!(problems.iter().all(|problem| problem.line >= 1));
        }
    }
}
