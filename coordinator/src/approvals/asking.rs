//! How the user of a calling client can be asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::ApprovalId;
use futures::future::BoxFuture;
use parking_lot::Mutex;

/// How the user of a calling client can be asked.
#[derive(Default, Clone)]
pub enum Asking {
    /// Not at all.
    #[default]
    Nobody,
    /// While the call waits.
    Meanwhile(Arc<dyn AskUser>),
    /// The call is answered with the question and made again with what the user says.
    Again(Arc<Round>),
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Meanwhile(_) => "Meanwhile",
            Self::Again(_) => "Again",
        })
    }
}

/// Asks the user of a client.
pub trait AskUser: Send + Sync {
    /// What the user says.
    ///
    /// # Errors
    /// The client does not ask, or gives nothing that is an answer.
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Said, CannotAsk>>;
}

/// The client does not ask its user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client does not ask its user: {0}")]
pub struct CannotAsk(pub String);

/// What a user is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Which request it is about.
    pub approval: ApprovalId,
    /// The question in words.
    pub message: String,
    /// For how long an answer is waited for.
    pub remaining: Duration,
}

/// What a user said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whether the call may go on.
    pub approves: bool,
    /// Why.
    pub why: Option<String>,
}

/// One of several calls that are the same: what it brought along, and what it is answered with.
#[derive(Debug, Default)]
pub struct Round {
    /// What the client gave back.
    pub given: Given,
    question: Mutex<Option<Question>>,
}

/// What a client gave back with a call that it makes again.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub enum Given {
    /// Nothing: it is the first call.
    #[default]
    Nothing,
    /// What it was given, untouched, and what the user said, if anything.
    Answer(ApprovalId, Option<Said>),
    /// Something that was never given to this principal for this call, or that is too old.
    Forged,
}

impl Round {
    /// A call that brought this along.
    pub fn new(given: Given) -> Self {
        Self { given, question: Mutex::default() }
    }

    /// Has the call answered with a question.
    pub(super) fn put(&self, question: Question) {
        *self.question.lock() = Some(question);
    }

    /// The question that the call is to be answered with.
    pub fn take(&self) -> Option<Question> {
        self.question.lock().take()
    }
}
