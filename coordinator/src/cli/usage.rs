//! `coordinator usage`: who used how much, added up from the audit log.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use codegen_audit::for_terminal;
use serde_json::json;

use super::audit::parse_time;
use super::audit::text::cut;
use crate::usage::{By, Report, Row, Wanted, report};

/// What to add up.
#[derive(Debug, Args)]
pub(super) struct UsageArgs {
    /// One row for each of these
    #[arg(long, value_enum, default_value = "user")]
    by: By,

    /// Calls that ended at or after this time: RFC 3339, or how long ago (`2h`, `30m`)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<jiff::Timestamp>,

    /// Calls that ended before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<jiff::Timestamp>,

    /// Calls of this principal alone
    #[arg(long)]
    principal: Option<String>,

    /// The directory of the log, such as an archive [default: that of the state directory]
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries the command out on the log in `audit_dir`, or on the one that is asked for.
pub(super) fn run(args: &UsageArgs, audit_dir: &Path) -> ExitCode {
    let wanted = Wanted { since: args.since, until: args.until, principal: args.principal.clone() };
    match report(args.log.as_deref().unwrap_or(audit_dir), args.by, &wanted) {
        Ok(report) if args.json => super::print(&as_json(&report, args), ExitCode::SUCCESS),
        Ok(report) => super::print(&as_text(&report), ExitCode::SUCCESS),
        Err(error) => super::complain(&error, 1),
    }
}

fn as_json(report: &Report, args: &UsageArgs) -> String {
    let mut value = json!(report);
    value["since"] = json!(args.since);
    value["until"] = json!(args.until);
    super::json::pretty(&value)
}

fn as_text(report: &Report) -> String {
    let mut text = format!(
        "{:<24}  {:>8}  {:>8}  {:>8}  {:>10}  {:>10}  {:>12}  {:>12}  {:>10}  PACKAGES\n",
        "NAME", "CALLS", "FAILED", "REFUSED", "CPU S", "PEAK MIB", "BYTES IN", "BYTES OUT", "WALL S"
    );
    for Row { name, calls, failures, refusals, memory_peak_bytes, bytes_in, bytes_out, packages, cpu_ms, wall_ms } in
        &report.rows
    {
        let _ = writeln!(
            text,
            "{:<24}  {calls:>8}  {failures:>8}  {refusals:>8}  {:>10}  {:>10}  {bytes_in:>12}  {bytes_out:>12}  {:>10}  {}",
            cut(name, 24),
            seconds(*cpu_ms),
            memory_peak_bytes >> 20,
            seconds(*wall_ms),
            for_terminal(&packages.iter().take(5).cloned().collect::<Vec<_>>().join(", ")),
        );
    }
    let _ = writeln!(text, "Up to record {} of the log.", report.through);
    if report.damaged_lines > 0 {
        let _ = writeln!(text, "{} lines are no records; `coordinator audit verify` says more.", report.damaged_lines);
    }
    text
}

fn seconds(ms: u64) -> String {
    format!("{}.{}", ms / 1000, ms % 1000 / 100)
}
