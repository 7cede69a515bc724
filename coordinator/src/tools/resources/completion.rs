//! Completing what a client has begun to write: session handles and paths.

use codegen_types::event::FileKind;
use codegen_types::operation::List;
use codegen_types::path::PATH_BYTES_MAX;
use codegen_types::{Operation, OperationResult, SessionId, WorkspacePath};

use super::Asked;
use crate::tools::connection::Connection;
use crate::tools::resource_uri::WorkspaceUri;

/// The most values of one answer, as the protocol has it.
pub const COMPLETIONS_MAX: usize = 100;
/// Files and directories that are looked at for one answer.
const ENTRIES_MAX: u32 = 1_000;
/// The longest pattern that a worker takes, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;

/// How something that was begun may go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completions {
    /// At most [`COMPLETIONS_MAX`], sorted.
    pub values: Vec<String>,
    /// Whether there are more.
    pub has_more: bool,
}

impl Connection {
    /// Handles of the principal's open sessions that begin so.
    pub fn complete_session(&self, begun: &str, asked: &Asked) -> Completions {
        if self.counted(asked).is_err() {
            return Completions::default();
        }
        let sessions = self.sessions.list(&self.principal, false);
        let usable = sessions.iter().filter(|session| !matches!(session.state, "closing" | "lost"));
        Completions::of(usable.map(|session| session.id.to_string()).filter(|id| id.starts_with(begun)).collect())
    }

    /// Paths that begin so, directories with a slash at their end: in the session that is named, else in the default
    /// session if there is one. Nothing for a session that is not there or not the client's.
    pub async fn complete_path(&self, session: Option<&str>, begun: &str, asked: &Asked) -> Completions {
        let session = match session {
            Some(text) => text.parse().ok(),
            None => self.default_session_made().await,
        };
        let own = session.filter(|session| self.sessions.get(&self.principal, *session).is_ok());
        match own {
            Some(session) => self.paths(session, begun, asked).await.unwrap_or_default(),
            None => Completions::default(),
        }
    }

    async fn paths(&self, session: SessionId, begun: &str, asked: &Asked) -> Option<Completions> {
        if begun.len() > PATH_BYTES_MAX {
            return None;
        }
        let (directory, name) = begun.rsplit_once('/').unwrap_or(("", begun));
        let address = WorkspaceUri { session, path: WorkspacePath::parse(directory).ok()? };
        let pattern = pattern(name).filter(|pattern| pattern.len() <= PATTERN_BYTES_MAX)?;
        let list =
            List { path: address.path.clone(), recursive: true, pattern: Some(pattern), entries_max: ENTRIES_MAX };
        let looked = self.look(asked, &address, &address.to_string(), Operation::List(list)).await;
        let Ok(OperationResult::List { entries, truncated }) = looked else { return None };
        // What was written may have `./` or repeated slashes, which paths of listings have not.
        let below = address.path.as_str().len() + usize::from(!address.path.is_root());
        let before = &begun[..begun.len() - name.len()];
        let paths = entries.iter().filter_map(|entry| {
            let rest = entry.path.get(below..)?;
            let hidden = rest.get(name.len()..)?.contains("/.") || (name.is_empty() && rest.starts_with('.'));
            let end = if entry.kind == FileKind::Directory { "/" } else { "" };
            let shown = || WorkspacePath::parse(&entry.path).is_ok_and(|path| self.may_list(&path));
            (!hidden && !rest.contains('\u{fffd}') && shown()).then(|| format!("{before}{rest}{end}"))
        });
        let mut found = Completions::of(paths.collect());
        found.has_more |= truncated;
        Some(found)
    }
}

impl Completions {
    /// The first of so many, sorted.
    pub fn of(mut values: Vec<String>) -> Self {
        values.sort_unstable();
        let has_more = values.len() > COMPLETIONS_MAX;
        values.truncate(COMPLETIONS_MAX);
        Self { values, has_more }
    }
}

/// The glob of everything whose first component begins with `name`, and of what is below it.
fn pattern(name: &str) -> Option<String> {
    if name.contains('\0') {
        return None;
    }
    let mut plain = String::new();
    for character in name.chars() {
        match character {
            '*' | '?' | '[' | '{' | '}' | ',' => plain.extend(['[', character, ']']),
            ']' | '!' | '^' | '-' => plain.push(character),
            '\\' => plain.push_str("[\\\\]"),
            plain_character => plain.push(plain_character),
        }
    }
    Some(format!("{{{plain}*,{plain}*/**}}"))
}
