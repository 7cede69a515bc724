//! `coordinator secrets`: keeps, lists and removes what workers put into requests of sessions.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use codegen_types::packages::{HostPort, InvalidUrl};
use serde_json::Value;

use super::asked::{self, Form};
use super::complain;
use crate::control::Ask;
use crate::secrets::{NewSecret, SecretText, SecretView, Users};

/// The longest value that is read, in bytes; a little more than is kept.
const VALUE_BYTES_MAX: u64 = 16 << 10;

#[derive(Debug, Subcommand)]
pub(super) enum SecretsCommand {
    /// Keep a secret; what it says is read from stdin, and shown to nobody again
    Set(SetArgs),
    /// List the secrets, without what they say
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget a secret
    Rm {
        /// Its name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// What sessions call it
    name: String,

    /// The host whose requests get it, with or without a port
    #[arg(long, value_name = "HOST", value_parser = host)]
    host: HostPort,

    /// The header that it is
    #[arg(long, value_name = "NAME", default_value = "Authorization")]
    header: String,

    /// A principal that may use it, as `session_info` names the owner of a session; may be repeated
    #[arg(long, value_name = "NAME", required_unless_present = "everybody")]
    principal: Vec<String>,

    /// Let every principal of the server use it
    #[arg(long, conflicts_with = "principal")]
    everybody: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// There is nothing to keep.
#[derive(Debug, thiserror::Error)]
#[error("what the secret says cannot be read from stdin")]
struct NoValue(#[source] std::io::Error);

fn host(text: &str) -> Result<HostPort, InvalidUrl> {
    HostPort::parse(text, 443)
}

pub(super) fn run(command: &SecretsCommand, state_dir: &Path) -> ExitCode {
    let (ask, json) = match command {
        SecretsCommand::Set(args) => match value() {
            Ok(value) => (Ask::SecretsSet(args.secret(value)), args.json),
            Err(error) => return complain(&NoValue(error), 1),
        },
        SecretsCommand::Ls { json } => (Ask::SecretsList, *json),
        SecretsCommand::Rm { name, json } => (Ask::SecretsRemove { name: name.clone() }, *json),
    };
    asked::show_value(state_dir, ask, Form::of(json), |answer| as_text(command, answer))
}

/// The value, without the line end that an editor or `echo` puts behind it.
fn value() -> std::io::Result<SecretText> {
    let mut text = String::new();
    std::io::stdin().lock().take(VALUE_BYTES_MAX).read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(SecretText::new(line.strip_suffix('\r').unwrap_or(line)))
}

impl SetArgs {
    fn secret(&self, value: SecretText) -> NewSecret {
        let users = if self.everybody { Users::Everybody } else { Users::Only(self.principal.clone()) };
        NewSecret { name: self.name.clone(), host: self.host.clone(), header: self.header.clone(), users, value }
    }
}

fn as_text(command: &SecretsCommand, answer: Value) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    match command {
        SecretsCommand::Ls { .. } => {
            for view in serde_json::from_value::<Vec<SecretView>>(answer)? {
                writeln!(text, "{}", line(&view)).expect("writing to a string");
            }
        }
        SecretsCommand::Set(_) => {
            writeln!(text, "Kept: {}", line(&serde_json::from_value(answer)?)).expect("writing to a string");
        }
        SecretsCommand::Rm { .. } => {
            writeln!(text, "Forgotten: {}", line(&serde_json::from_value(answer)?)).expect("writing to a string");
        }
    }
    Ok(text)
}

fn line(view: &SecretView) -> String {
    let users = match &view.users {
        Users::Everybody => "everybody".to_owned(),
        Users::Only(names) => codegen_audit::for_terminal(&names.join(", ")),
    };
    format!("{}  {} of {}, for {users}, set {:.0}", view.name, view.header, view.host, view.set)
}
