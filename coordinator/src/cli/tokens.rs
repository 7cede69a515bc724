//! `coordinator tokens`: makes, lists and revokes the tokens by which clients are known over HTTP.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use codegen_audit::for_terminal;
use codegen_types::WorkerId;
use serde::Deserialize;
use serde_json::Value;

use super::asked::{self, Form};
use crate::control::Ask;
use crate::identity::{NewToken, Scope, Scopes, TokenId, TokenView};
use crate::workers::BOUND_PREFIX;

#[derive(Debug, Subcommand)]
pub(super) enum TokensCommand {
    /// Make a token and print it, this once
    Create(CreateArgs),
    /// List the tokens, without their secrets
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token: the next request with it is refused
    Revoke {
        /// The token's id, as `tokens ls` shows it
        id: TokenId,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// On whose behalf it is used; tokens of one principal see the same sessions
    #[arg(long, value_name = "NAME", required_unless_present = "role")]
    principal: Option<String>,

    /// What it permits, separated by commas: tools, sessions, admin, worker [default: tools,sessions]
    #[arg(long, value_name = "SCOPES", conflicts_with = "role")]
    scope: Option<Scopes>,

    /// What it is for, instead of principal and scopes: `worker` lets workers join
    #[arg(long, conflicts_with = "principal")]
    role: Option<TokenRole>,

    /// The one worker that it lets join; any, when not given
    #[arg(long, value_name = "NAME", requires = "role")]
    worker_id: Option<WorkerId>,

    /// After how long it expires, such as 30d; never, when not given
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    expires: Option<Duration>,

    /// What it is for
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a token is for, where that is said in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum TokenRole {
    /// To join as a worker.
    Worker,
}

/// A token that was just made.
#[derive(Deserialize)]
struct Made {
    token: String,
    #[serde(flatten)]
    view: TokenView,
}

pub(super) fn run(command: &TokensCommand, state_dir: &Path) -> ExitCode {
    let (ask, json) = match command {
        TokensCommand::Create(args) => (Ask::TokensCreate(args.token()), args.json),
        TokensCommand::Ls { json } => (Ask::TokensList, *json),
        TokensCommand::Revoke { id, json } => (Ask::TokensRevoke { id: id.clone() }, *json),
    };
    asked::show_value(state_dir, ask, Form::of(json), |answer| as_text(command, answer))
}

impl CreateArgs {
    fn token(&self) -> NewToken {
        let (principal, scopes) = match (self.role, &self.worker_id) {
            (Some(TokenRole::Worker), Some(worker)) => (format!("{BOUND_PREFIX}{worker}"), Scope::Worker.into()),
            (Some(TokenRole::Worker), None) => ("worker".to_owned(), Scope::Worker.into()),
            (None, _) => (self.principal.clone().unwrap_or_default(), self.scope.unwrap_or(Scopes::USER)),
        };
        NewToken {
            principal,
            scopes,
            // A part of a second is no lifetime: zero is refused with what is allowed.
            lifetime_seconds: self.expires.map(|lifetime| lifetime.as_secs()),
            note: self.note.clone(),
        }
    }
}

fn as_text(command: &TokensCommand, answer: Value) -> Result<String, serde_json::Error> {
    Ok(match command {
        TokensCommand::Create(_) => {
            let Made { token, view } = serde_json::from_value(answer)?;
            let until = view.expires.map_or_else(|| "never expires".to_owned(), |time| format!("expires {time:.0}"));
            // Only the token goes to stdout, for `TOKEN=$(coordinator tokens create …)`.
            eprintln!("Token {} for {}: {}; {until}. It is shown this once:", view.id, view.principal, view.scopes);
            format!("{token}\n")
        }
        TokensCommand::Ls { .. } => table(&serde_json::from_value::<Vec<TokenView>>(answer)?),
        TokensCommand::Revoke { .. } => {
            let view: TokenView = serde_json::from_value(answer)?;
            format!("Token {} of {} is {}.\n", view.id, view.principal, view.state.as_str())
        }
    })
}

fn table(tokens: &[TokenView]) -> String {
    let date = |time: &jiff::Timestamp| format!("{time:.0}");
    let mut rows = vec![["ID", "PRINCIPAL", "SCOPES", "STATE", "CREATED", "EXPIRES", "NOTE"].map(str::to_owned)];
    rows.extend(tokens.iter().map(|token| {
        [
            token.id.to_string(),
            token.principal.to_string(),
            token.scopes.to_string(),
            token.state.as_str().to_owned(),
            date(&token.created),
            token.expires.as_ref().map_or_else(|| "never".to_owned(), date),
            for_terminal(token.note.as_deref().unwrap_or_default()),
        ]
    }));
    let widths: Vec<usize> =
        (0..7).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or_default()).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ").expect("writing to a string");
        }
        writeln!(text, "{}", line.trim_end()).expect("writing to a string");
    }
    text
}
