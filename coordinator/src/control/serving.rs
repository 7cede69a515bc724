//! The server's side: one question and one answer for each connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use codegen_types::{ErrorCode, Failure, Principal};
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::{ASK_BYTES_MAX, Answer, Ask, Envelope, running};
use crate::approvals::{Approvals, Decider, Way};
use crate::front::handover::VERSION;
use crate::identity::{TokenView, Tokens};
use crate::operators::{Actor, Operators};
use crate::secrets::Secrets;
use crate::supervisor::{OnEnd, Supervisor};

/// Questions that are answered at once; whoever comes then waits to be accepted.
const PLACES: usize = 16;
/// How long a question may take to arrive, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long accepting rests when the process is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Answers the operator's commands. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    tokens: Tokens,
    approvals: Approvals,
    operator: Principal,
    secrets: Secrets,
    /// What there is to see while a server runs.
    operators: Option<Operators>,
    places: Arc<Semaphore>,
}

/// A token that was just made, with its text.
#[derive(Serialize)]
struct MadeToken<'a> {
    #[serde(flatten)]
    view: TokenView,
    token: &'a str,
}

impl Control {
    /// Answers about these tokens and approvals. `operator` is on whose behalf changes are recorded.
    pub fn new(tokens: Tokens, approvals: Approvals, operator: Principal) -> Self {
        Self {
            tokens,
            approvals,
            operator,
            secrets: Secrets::default(),
            operators: None,
            places: Arc::new(Semaphore::new(PLACES)),
        }
    }

    /// Answers also about these secrets.
    #[must_use]
    pub fn keeping(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }

    /// Answers also what only a running server can.
    #[must_use]
    pub fn of_running(self, operators: Operators) -> Self {
        Self { operators: Some(operators), ..self }
    }

    /// Accepts commands until the process is to stop.
    pub(crate) async fn accept(self, listener: UnixListener, supervisor: Supervisor) {
        let stop = supervisor.token();
        loop {
            let next = async {
                let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
                (place, listener.accept().await)
            };
            let Some((place, accepted)) = stop.run_until_cancelled(next).await else { return };
            match accepted {
                Ok((stream, _)) => {
                    let control = self.clone();
                    supervisor.spawn("command", OnEnd::Ignore, async move {
                        if let Err(error) = control.attend(stream).await {
                            tracing::debug!(%error, "a command went away");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a command could not be accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    async fn attend(&self, mut stream: UnixStream) -> io::Result<()> {
        let uid = stream.peer_cred()?.uid();
        if uid != rustix::process::geteuid().as_raw() {
            tracing::warn!(uid, "a command of another user was turned away");
            return Ok(());
        }
        let question = tokio::time::timeout(PATIENCE, read_line(&mut stream)).await??;
        let answer = self.answer_line(&question).await;
        let mut line = serde_json::to_vec(&Envelope { version: VERSION.to_owned(), body: answer })?;
        line.push(b'\n');
        tokio::time::timeout(PATIENCE, stream.write_all(&line)).await?
    }

    async fn answer_line(&self, line: &[u8]) -> Answer {
        // The release first: another one's question may look different.
        match serde_json::from_slice::<Envelope<Value>>(line) {
            Ok(envelope) if envelope.version != VERSION => return Answer::OtherVersion(VERSION.to_owned()),
            _ => {}
        }
        match serde_json::from_slice::<Envelope<Ask>>(line) {
            Ok(envelope) => match self.answer(envelope.body).await {
                Ok(value) => Answer::Done(value),
                Err(failure) => Answer::Refused(failure),
            },
            Err(error) => Answer::Refused(Failure::new(ErrorCode::InvalidArgument, error.to_string())),
        }
    }

    /// Does what was asked; the answer as JSON.
    pub(super) async fn answer(&self, ask: Ask) -> Result<Value, Failure> {
        match ask {
            Ask::TokensCreate(new) => {
                let (view, text) = self.tokens.create(new, &self.operator).await?;
                Ok(json(&MadeToken { view, token: text.expose() }))
            }
            Ask::TokensList => Ok(json(&self.tokens.list())),
            Ask::SecretsSet(new) => Ok(json(&self.secrets.set(new, &self.operator).await?)),
            Ask::SecretsList => Ok(json(&self.secrets.list().await?)),
            Ask::SecretsRemove { name } => Ok(json(&self.secrets.remove(&name, &self.operator).await?)),
            Ask::Operate(ask) => {
                let actor = Actor { principal: self.operator.clone(), way: Way::Command };
                running::answer(self.running()?, ask, actor).await
            }
            Ask::ApprovalsList => Ok(json(&self.approvals.list())),
            Ask::ApprovalsShow { id } => Ok(json(&self.approvals.show(id)?)),
            Ask::ApprovalsApprove { id, why } => {
                Ok(json(&self.approvals.approve(id, &self.decider(), why.as_deref()).await?))
            }
            Ask::ApprovalsDeny { id, why } => {
                Ok(json(&self.approvals.deny(id, &self.decider(), why.as_deref()).await?))
            }
            Ask::TokensRevoke { id } => Ok(json(&self.tokens.revoke(&id, &self.operator).await?)),
        }
    }

    fn running(&self) -> Result<&Operators, Failure> {
        let why = "no server runs with this state directory, so that there is nothing to see or to do";
        self.operators.as_ref().ok_or_else(|| Failure::new(ErrorCode::PreconditionFailed, why))
    }

    fn decider(&self) -> Decider {
        Decider { principal: self.operator.clone(), way: Way::Command }
    }
}

pub(super) fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("plain data has a JSON form")
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream).take(ASK_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if line.ends_with(b"\n") { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
