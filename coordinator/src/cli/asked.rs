//! Asking the running server something, and showing what it said.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{complain, json, print};
use crate::control::{self, Ask, AskError};

/// Why a command has nothing to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskedError {
    /// The server refused, or there is none.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// What the server answered is not what was asked for.
    #[error("the answer cannot be read")]
    Unreadable(#[from] serde_json::Error),
}

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Form {
    pub(super) const fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Asks and waits for the answer.
///
/// # Errors
/// [`AskedError::Ask`].
pub(super) fn ask(state_dir: &Path, ask: Ask) -> Result<Value, AskedError> {
    let asked = super::roles::run_on(tokio::runtime::Builder::new_current_thread(), control::ask(state_dir, ask));
    Ok(asked.unwrap_or_else(|error| Err(AskError::Talk(error)))?)
}

/// Asks once and prints what was answered, as JSON or as `text` makes it.
pub(super) fn show<T: DeserializeOwned>(
    state_dir: &Path,
    question: Ask,
    form: Form,
    text: impl FnOnce(T) -> String,
) -> ExitCode {
    show_value(state_dir, question, form, |answer| serde_json::from_value(answer).map(text))
}

/// The same where what is answered depends on what was asked.
pub(super) fn show_value(
    state_dir: &Path,
    question: Ask,
    form: Form,
    text: impl FnOnce(Value) -> Result<String, serde_json::Error>,
) -> ExitCode {
    let shown = ask(state_dir, question).and_then(|answer| match form {
        Form::Json => Ok(json::pretty(&answer)),
        Form::Text => Ok(text(answer)?),
    });
    match shown {
        Ok(text) => print(&text, ExitCode::SUCCESS),
        Err(error) => complain(&error, 1),
    }
}

/// Says something on stderr that is no part of the result. That nobody reads it any more ends nothing.
pub(super) fn say(text: &str) {
    let _unread = writeln!(std::io::stderr(), "{}", codegen_audit::for_terminal(text));
}
