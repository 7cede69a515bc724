//! `coordinator policy`: checks a policy, and explains what it says of a call.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use codegen_audit::for_terminal;
use codegen_types::{Failure, Principal};
use coordinator_core::policy::{Action, Approvers, Decision, Effect, KnownTool, Policy, Subject, Touch};
use serde_json::{Value, json};

use super::{complain, print};
use crate::policy::{Hosts, PolicyError, names_paths, of_call, read};
use crate::tools::{TOOLS, Tool, find};

/// The file is no policy.
const INVALID: u8 = 1;
/// The tool that packages and hosts are about.
const PACKAGE_TOOL: &str = "pkg_install";
/// The tool that takes hosts alone.
const NETWORK_TOOL: &str = "session_create";

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Check a file: what is wrong with it (exit code 1), and what it does not do that its author may think
    Check {
        /// The file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say which rule decides a call, and why
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Who would make the call
    #[arg(long, value_name = "NAME")]
    principal: Principal,

    /// The tool, by either of its names
    #[arg(long, value_name = "TOOL")]
    tool: String,

    /// A path that the call names; may be repeated, for fs_move from and to
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,

    /// A package that the call names; may be repeated
    #[arg(long, value_name = "REQUIREMENT")]
    package: Vec<String>,

    /// A host that may be reached; may be repeated [default: those of the configuration, for pkg_install]
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// There is nothing to explain.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error("no policy is configured; name one with --policy")]
    NoPolicy,
    #[error("there is no tool {0:?}; the README lists all there are")]
    NoTool(String),
    #[error("such a call is refused by the tool itself: {0}")]
    Refused(Failure),
}

pub(super) fn run(command: &PolicyCommand, configured: Option<&Path>, hosts: &Hosts) -> ExitCode {
    match command {
        PolicyCommand::Check { file, json } => check(file, *json),
        PolicyCommand::Explain(args) => {
            let Some(file) = configured else { return complain(&ExplainError::NoPolicy, super::USAGE) };
            match read(file) {
                Ok((policy, _)) => explain(args, &policy, hosts),
                Err(error) => complain(&error, INVALID),
            }
        }
    }
}

fn check(file: &Path, json: bool) -> ExitCode {
    let known = |tool: &Tool| KnownTool { name: tool.name, names_paths: names_paths(tool) };
    let known: Vec<KnownTool<'_>> = TOOLS.iter().map(known).collect();
    let (errors, warnings, rules, sha256) = match read(file) {
        Ok((policy, sha256)) => (Vec::new(), policy.warnings(&known), policy.rules().len(), Some(sha256)),
        Err(PolicyError::Invalid { source, .. }) => (source.0, Vec::new(), 0, None),
        Err(error) => return complain(&error, INVALID),
    };
    let code = if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(INVALID) };
    if json {
        let report = json!({"errors": errors, "warnings": warnings, "rules": rules, "sha256": sha256});
        return print(&super::json::pretty(&report), code);
    }
    let mut text = String::new();
    let place = for_terminal(&file.display().to_string());
    for error in &errors {
        writeln!(text, "{place}:{}: error: {}", error.line, for_terminal(&error.message)).expect("writing to a string");
    }
    for warning in &warnings {
        let (rule, message) = (for_terminal(&warning.rule), for_terminal(&warning.message));
        writeln!(text, "{place}:{}: warning: rule {rule:?}: {message}", warning.line).expect("writing to a string");
    }
    if errors.is_empty() {
        writeln!(text, "{place}: {rules} rules, {} warnings", warnings.len()).expect("writing to a string");
    }
    print(&text, code)
}

fn explain(args: &ExplainArgs, policy: &Policy, hosts: &Hosts) -> ExitCode {
    let Some(tool) = find(&args.tool) else {
        return complain(&ExplainError::NoTool(args.tool.clone()), super::USAGE);
    };
    let subjects = match subjects(args, tool.name, hosts) {
        Ok(subjects) => subjects,
        Err(failure) => return complain(&ExplainError::Refused(failure), super::USAGE),
    };
    let decision = policy.decide(Action { principal: &args.principal, tool: tool.name, subjects: &subjects });
    let text =
        if args.json { super::json::pretty(&as_json(&decision)) } else { as_text(&decision, policy.default_effect()) };
    print(&text, ExitCode::SUCCESS)
}

/// What a call with such arguments would be about.
fn subjects(args: &ExplainArgs, tool: &str, hosts: &Hosts) -> Result<Vec<Subject>, Failure> {
    if tool == PACKAGE_TOOL {
        let named = Hosts::new(&[], &args.host);
        let packages: Vec<&String> = args.package.iter().chain(&args.path).collect();
        let hosts = if args.host.is_empty() { hosts } else { &named };
        return of_call(tool, &json!({ "packages": packages }), hosts);
    }
    if tool == NETWORK_TOOL {
        return of_call(tool, &json!({"network": {"allow": args.host}}), hosts);
    }
    match args.path.as_slice() {
        [from, to] if tool == "fs_move" => of_call(tool, &json!({"from": from, "to": to}), hosts),
        [] => of_call(tool, &json!({}), hosts),
        paths => {
            let each = paths.iter().map(|path| of_call(tool, &json!({ "path": path }), hosts));
            Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
        }
    }
}

fn as_json(decision: &Decision<'_>) -> Value {
    let names: Vec<&str> = decision.matching.iter().map(|rule| rule.name.as_str()).collect();
    let mut report = json!({
        "effect": decision.effect,
        "rule": decision.rule.map(|rule| json!({"name": rule.name, "line": rule.line, "reason": rule.reason})),
        "about": decision.subject.map(about),
        "matching": names,
    });
    if decision.effect == Effect::RequireApproval {
        report["approvers"] = json!(decision.terms.approvers);
        report["timeout_ms"] = json!(u64::try_from(decision.terms.timeout.as_millis()).ok());
    }
    report
}

fn as_text(decision: &Decision<'_>, default: Effect) -> String {
    let mut text = format!("{}\n", decision.effect.as_str());
    let mut line = |said: String| {
        text.push_str("  ");
        text.push_str(&for_terminal(&said));
        text.push('\n');
    };
    if let Some(subject) = decision.subject {
        line(format!("about: {}", about(subject)));
    }
    match decision.rule {
        Some(rule) => {
            line(format!("because of rule {:?} (line {})", rule.name, rule.line));
            rule.reason.iter().for_each(|reason| line(format!("reason: {reason}")));
        }
        None => line(format!("because no rule matches, and the default is {}", default.as_str())),
    }
    if decision.effect == Effect::RequireApproval {
        let who = match decision.terms.approvers {
            Approvers::Operator => "the operator",
            Approvers::OperatorOrUser => "the operator or the caller's own user",
        };
        line(format!("approved by {who}, within {}", humantime::format_duration(decision.terms.timeout)));
    }
    let others = decision.matching.iter().filter(|rule| decision.rule != Some(**rule));
    for rule in others {
        line(format!("rule {:?} (line {}) matches as well: {}", rule.name, rule.line, rule.effect.as_str()));
    }
    text
}

fn about(subject: &Subject) -> String {
    let path = subject.path.as_ref().map(|touch| match touch {
        Touch::One(path) => format!("path {path}"),
        Touch::Tree(path) => format!("path {path} and all below it"),
        Touch::Away { from, to } => format!("path {from}, taken to {to}"),
    });
    let package = subject.package.as_ref().map(|name| format!("package {name}"));
    let host = subject.host.as_ref().map(|name| format!("host {name}"));
    [package, path, host].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
