//! `coordinator doctor`: whether this machine can run sessions well, layer by layer, and what to do where it cannot.

mod checks;
mod probe;

use std::fmt::Write as _;
use std::process::ExitCode;

use codegen_audit::for_terminal;
use codegen_types::IsolationReport;
use serde::Serialize;

use super::Given;

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was looked at.
    name: &'static str,
    verdict: Verdict,
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// Sessions do not work as configured.
    Problem,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, detail: detail.into(), remedy: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    fn problem(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Problem, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    ok: bool,
    checks: Vec<Check>,
    isolation: Option<IsolationReport>,
}

pub(super) fn run(given: &Given, json: bool) -> ExitCode {
    let config = &given.config;
    let probed = probe::run(&given.environment);
    let checks = vec![
        checks::isolation(config, probed.as_ref()),
        checks::python(probed.as_ref().ok()),
        checks::runtimes(probed.as_ref().ok()),
        checks::state_dir(config),
        checks::server(config),
        checks::grpc_port(config),
        checks::disk(config),
        checks::audit_log(config),
    ];
    let ok = checks.iter().all(|check| check.verdict != Verdict::Problem);
    let isolation = probed.ok().map(|found| found.isolation);
    let report = Report { version: env!("CARGO_PKG_VERSION"), ok, checks, isolation };
    let text = if json { super::json::pretty(&report) } else { as_text(&report) };
    super::print(&text, if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_text(report: &Report) -> String {
    let mut text = format!("coordinator {}\n\n", report.version);
    for check in &report.checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Problem => "PROBLEM",
        };
        line(&mut text, mark, check.name, &check.detail, check.remedy.as_deref());
    }
    if let Some(isolation) = &report.isolation {
        writeln!(text, "\n{}", isolation.matrix().trim_end()).expect("writing to a string");
    }
    let verdict = if report.ok { "Sessions can run as configured." } else { "Something has to be mended first." };
    writeln!(text, "\n{verdict}").expect("writing to a string");
    text
}

fn line(text: &mut String, mark: &str, name: &str, detail: &str, remedy: Option<&str>) {
    writeln!(text, "  {mark}  {name:<18}  {}", for_terminal(detail)).expect("writing to a string");
    if let Some(remedy) = remedy {
        let remedy = for_terminal(remedy);
        writeln!(text, "  {:width$}  {:<18}  -> {remedy}", "", "", width = mark.len()).expect("writing to a string");
    }
}
