//! The entry of this server in a client's file: what it should be, and what is found under its name.

use std::ffi::OsStr;
use std::path::Path;

/// The server as a client is to start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Under what name.
    pub(super) name: String,
    /// The absolute path of the program.
    pub(super) command: String,
    /// Its arguments.
    pub(super) args: Vec<String>,
}

/// What stands in a file under the entry's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The program, when the entry has one.
    pub(super) command: Option<String>,
    /// Its arguments, when they are a list of texts.
    pub(super) args: Option<Vec<String>>,
}

/// Why a client's file is left as it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// It cannot be read.
    #[error("line {line}: {why}")]
    Syntax {
        /// Where, from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// Something that has to hold names holds something else.
    #[error("{what} is not {expected}")]
    Shape {
        /// What.
        what: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Readers do not agree about a name that stands twice.
    #[error("`{0}` stands there twice; take one away")]
    Twice(String),
    /// The name is taken by something that is not this program.
    #[error("`{name}` is another server there ({command}); choose a name for this one with --name")]
    Taken {
        /// The name.
        name: String,
        /// What it starts.
        command: String,
    },
    /// What was about to be written did not say the same about everything else.
    #[error("it is put together in a way that cannot be changed safely; add the entry by hand (--print shows it)")]
    Delicate,
}

impl Found {
    /// Whether it starts this program, in whatever place and version.
    pub(super) fn is_ours(&self) -> bool {
        self.command.as_deref().is_some_and(|command| Path::new(command).file_name() == Some(OsStr::new("coordinator")))
    }

    /// Whether it is what it should be.
    pub(super) fn is(&self, entry: &Entry) -> bool {
        self.command.as_ref() == Some(&entry.command) && self.args.as_ref() == Some(&entry.args)
    }

    /// Fails when the name belongs to another program: only entries of our own are ever changed.
    pub(super) fn must_be_ours(&self, name: &str) -> Result<(), Unfit> {
        if self.is_ours() {
            return Ok(());
        }
        let command = self.command.clone().unwrap_or_else(|| "no program of this machine".to_owned());
        Err(Unfit::Taken { name: name.to_owned(), command })
    }
}
