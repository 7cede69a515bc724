//! The command's side: asks the running server, or does it alone.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::{Audit, OpenError, Options as AuditOptions};
use codegen_types::Failure;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{ANSWER_BYTES_MAX, Answer, Ask, Control, Envelope};
use crate::approvals::Approvals;
use crate::caller;
use crate::front::handover::VERSION;
use crate::identity::Tokens;
use crate::secrets::Secrets;
use crate::server::state_dir::{LockedStateDir, StateDir, StateDirError};
use crate::store::{Sqlite, StoreError};

/// How long a server that is just starting or ending is waited for.
const HOLDER_PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// How often a state directory is looked at whose holder answers no commands yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The state directory cannot be used, or a process has it that answers no commands.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The running server is of another release.
    #[error("the running server is of version {0}, this program of version {VERSION}; use its own program")]
    OtherVersion(String),
    /// It was refused.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// Talking to the server failed; whether it did what was asked is not known.
    #[error("talking to the server failed; look whether it was done")]
    Talk(#[source] io::Error),
    /// Nothing may be done unaudited.
    #[error("the audit log cannot be opened; `coordinator audit verify` says more")]
    Audit(#[from] OpenError),
    /// The store cannot be used.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
}

/// Asks whoever holds the state directory, or does it while nobody does.
///
/// # Errors
/// [`AskError`]; after `Talk` it may have been done.
pub async fn ask(state_dir: &Path, ask: Ask) -> Result<Value, AskError> {
    let deadline = tokio::time::Instant::now() + HOLDER_PATIENCE;
    loop {
        let state = StateDir::open_or_create(state_dir)?;
        if let Some(stream) = connect(&state.control_socket()).await {
            return talk(stream, ask).await;
        }
        match state.lock(Duration::ZERO).await {
            Ok(locked) => return alone(&locked, ask).await,
            Err(StateDirError::InUse { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A connection to the server, if one listens. Why not is found out by trying the lock.
async fn connect(socket: &Path) -> Option<UnixStream> {
    UnixStream::connect(socket).await.ok()
}

async fn talk(mut stream: UnixStream, ask: Ask) -> Result<Value, AskError> {
    let answer = tokio::time::timeout(ANSWER_PATIENCE, exchange(&mut stream, ask)).await;
    match answer.map_err(io::Error::from).and_then(|answer| answer).map_err(AskError::Talk)? {
        Answer::Done(value) => Ok(value),
        Answer::Refused(failure) => Err(AskError::Refused(failure)),
        Answer::OtherVersion(version) => Err(AskError::OtherVersion(version)),
    }
}

async fn exchange(stream: &mut UnixStream, ask: Ask) -> io::Result<Answer> {
    let mut line = serde_json::to_vec(&Envelope { version: VERSION.to_owned(), body: ask })?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    BufReader::new(stream).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer).await?;
    let envelope: Envelope<Answer> = serde_json::from_slice(&answer)?;
    Ok(envelope.body)
}

/// Does it in this process, which has the state directory to itself.
async fn alone(state: &LockedStateDir, ask: Ask) -> Result<Value, AskError> {
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    // A look is not recorded, and leaves no log where there was none.
    let audit = match &ask {
        // No call waits where no server runs.
        Ask::TokensList
        | Ask::SecretsList
        | Ask::Operate(_)
        | Ask::ApprovalsList
        | Ask::ApprovalsShow { .. }
        | Ask::ApprovalsApprove { .. }
        | Ask::ApprovalsDeny { .. } => Audit::in_memory(),
        Ask::TokensCreate(_) | Ask::TokensRevoke { .. } | Ask::SecretsSet(_) | Ask::SecretsRemove { .. } => {
            Audit::open(AuditOptions::new(state.audit_dir())).await?.0
        }
    };
    let store = Sqlite::open(&state.database()).await?;
    let tokens = Tokens::load(Arc::new(store.clone()), audit.clone()).await?;
    let control = Control::new(tokens, Approvals::new(audit.clone()), caller::this_user());
    let answer = control.keeping(Secrets::new(state.path(), audit.clone())).answer(ask).await;
    store.close().await;
    audit.close().await;
    answer.map_err(AskError::Refused)
}
