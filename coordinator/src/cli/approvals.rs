//! `coordinator approvals`: shows and decides the calls that wait for approval.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use codegen_audit::for_terminal;
use codegen_types::ApprovalId;
use serde_json::Value;

use super::asked::{self, Form};
use crate::approvals::{ApprovalView, ApprovalWhole, Rest};
use crate::control::Ask;

#[derive(Debug, Subcommand)]
pub(super) enum ApprovalsCommand {
    /// List the calls that wait for approval, and those decided of which the caller has not made use yet
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a call with all there is of its arguments
    Show {
        /// The request's id, as `approvals ls` shows it
        id: ApprovalId,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Approve of a call: it goes on, once
    Approve(DecideArgs),
    /// Deny a call
    Deny(DecideArgs),
}

#[derive(Debug, Args)]
pub(super) struct DecideArgs {
    /// The request's id, as `approvals ls` shows it
    id: ApprovalId,

    /// Why; kept in the audit log, and told to a caller who is denied
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &ApprovalsCommand, state_dir: &Path) -> ExitCode {
    let (ask, json) = match command {
        ApprovalsCommand::Ls { json } => (Ask::ApprovalsList, *json),
        ApprovalsCommand::Show { id, json } => (Ask::ApprovalsShow { id: *id }, *json),
        ApprovalsCommand::Approve(args) => (Ask::ApprovalsApprove { id: args.id, why: args.why.clone() }, args.json),
        ApprovalsCommand::Deny(args) => (Ask::ApprovalsDeny { id: args.id, why: args.why.clone() }, args.json),
    };
    asked::show_value(state_dir, ask, Form::of(json), |answer| as_text(command, answer))
}

fn as_text(command: &ApprovalsCommand, answer: Value) -> Result<String, serde_json::Error> {
    if matches!(command, ApprovalsCommand::Ls { .. }) {
        let views: Vec<ApprovalView> = serde_json::from_value(answer)?;
        let shown: Vec<String> = views.iter().map(entry).collect();
        return Ok(if shown.is_empty() { "Nothing waits for approval.\n".to_owned() } else { shown.join("\n") });
    }
    if matches!(command, ApprovalsCommand::Show { .. }) {
        let shown: ApprovalWhole = serde_json::from_value(answer)?;
        return Ok(whole(&shown));
    }
    let view: ApprovalView = serde_json::from_value(answer)?;
    Ok(format!("{} of {} is {}.\n", view.id, view.principal, view.state.as_str()))
}

/// A request, and its arguments with their line breaks.
fn whole(shown: &ApprovalWhole) -> String {
    let mut text = entry(&shown.view);
    let arguments = shown.whole.as_ref().unwrap_or(&shown.view.arguments);
    for (name, value) in arguments.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(text, "\n{}:", for_terminal(name)).expect("writing to a string");
        for line in value.split('\n') {
            writeln!(text, "  {}", for_terminal(line)).expect("writing to a string");
        }
    }
    text
}

fn entry(view: &ApprovalView) -> String {
    let mut text = format!("{}  {}\n", view.id, view.state.as_str());
    let client = view.client.as_ref().map_or_else(String::new, |client| format!(" through {client}"));
    let reason = view.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    let lines = [
        format!("{} calls {}{client}", view.principal, view.tool),
        format!("arguments: {}", view.arguments),
        format!("rule {:?}{reason}", view.rule),
        match view.rest {
            Rest::Nothing => "these are all".to_owned(),
            Rest::Kept => format!("shown in part; `coordinator approvals show {}` shows them whole", view.id),
            Rest::NotKept => "shown in part, and TOO LONG TO BE KEPT: nobody can see the rest".to_owned(),
        },
        format!("since {:.0}, until {:.0}", view.created, view.expires),
    ];
    for line in lines {
        writeln!(text, "  {}", for_terminal(&line)).expect("writing to a string");
    }
    text
}
