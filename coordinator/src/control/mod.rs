//! What the operator's commands ask of whoever holds the state directory: over a Unix socket of the running server, or,
//! when none runs, done by the command itself while it holds the lock.
//!
//! Either way the log has one writer and the store one process. Who may ask is whoever may use the state directory: its
//! owner, by the kernel's word.

mod asking;
mod running;
mod serving;

use codegen_types::{ApprovalId, Failure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::identity::{NewToken, TokenId};
use crate::secrets::NewSecret;

pub use asking::{AskError, ask};
pub use running::OperateAsk;
pub use serving::Control;

/// The longest question, in bytes.
const ASK_BYTES_MAX: u64 = 64 << 10;
/// The longest answer, in bytes: every token there can be, and room to spare.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// To make a token.
    TokensCreate(NewToken),
    /// To list the tokens.
    TokensList,
    /// To revoke a token.
    TokensRevoke {
        /// Which.
        id: TokenId,
    },
    /// To keep a secret.
    SecretsSet(NewSecret),
    /// To list the secrets.
    SecretsList,
    /// To forget a secret.
    SecretsRemove {
        /// Which.
        name: String,
    },
    /// Something about the workers, sessions and tasks of a running server.
    Operate(OperateAsk),
    /// To list the calls that wait for approval.
    ApprovalsList,
    /// To see one of them whole.
    ApprovalsShow {
        /// Which request.
        id: ApprovalId,
    },
    /// To approve of a call.
    ApprovalsApprove {
        /// Which request.
        id: ApprovalId,
        /// Why.
        why: Option<String>,
    },
    /// To deny a call.
    ApprovalsDeny {
        /// Which request.
        id: ApprovalId,
        /// Why.
        why: Option<String>,
    },
}

/// A question with the release of whoever asks; only the same release is answered.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope<T> {
    version: String,
    #[serde(flatten)]
    body: T,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    /// It was done.
    Done(Value),
    /// It was not done.
    Refused(Failure),
    /// The server is of another release.
    OtherVersion(String),
}
