//! One tool call, and what a tool may do with it.

use codegen_types::{ErrorCode, EventBody, Failure, Operation, SessionId, TaskId, TraceContext};
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::result::ToolResult;
use super::{Effect, Tool, args};
use crate::approvals::Asking;
use crate::arrivals::Arrival;
use crate::identity::Scopes;
use crate::policy::Whole;
use crate::session::{Launched, Leave, TaskCall, TaskOutcome};
use crate::telemetry::traces::{self, Span};

/// The longest path that a record repeats as the client sent it, in characters.
const PATH_CHARS_MAX: usize = 4_096;

/// A tool call as the client sent it.
#[derive(Debug)]
pub struct Request {
    /// The tool, by either of its names.
    pub tool: String,
    /// Its arguments, a JSON object.
    pub args: Value,
    /// What the request's credentials permit.
    pub scopes: Scopes,
    /// The client program, as it names itself; for records only.
    pub client: Option<String>,
    /// The trace that it belongs to: as the client says, and with traces on our own span in it.
    pub trace: Option<TraceContext>,
    /// Its place among the calls on its kernel, where its connection has an order.
    pub arrival: Option<Arrival>,
    /// Leave for the whole of what it is a part of.
    pub whole: Option<Whole>,
    /// How the user of the client can be asked to approve of it.
    pub asking: Asking,
    /// Where the events of its task go. Full means that the task waits.
    pub events: mpsc::Sender<EventBody>,
    /// Cancelled when the client wants the call no more.
    pub cancel: CancellationToken,
    /// After how long the call is answered with its task, unless it says so itself.
    pub yield_after: Duration,
    /// Characters of output that reach the client's model, if those are fewer than a result has otherwise.
    pub output_chars: usize,
}

/// A call of a known tool.
pub(super) struct Call<'a> {
    pub(super) connection: &'a Connection,
    pub(super) tool: &'static Tool,
    pub(super) request: &'a Request,
    /// On what ground it was let in.
    pub(super) leave: Leave,
    /// How long it took to be let in, which was its client's patience, too.
    pub(super) waited: Duration,
}

/// What a tool gives: a result, or the refusal that the dispatch records.
pub(super) type Answer = Result<Reply, Refusal>;

/// How a tool is implemented.
pub(super) type Run = for<'a> fn(&'a Call<'a>) -> BoxFuture<'a, Answer>;

/// A tool's result, and whether the log has it already.
pub(super) enum Reply {
    /// The session layer recorded what was done.
    Recorded(ToolResult),
    /// Nobody has recorded it; the dispatch does before the client gets it.
    Unrecorded(ToolResult, Option<SessionId>),
}

/// A call that was refused before anything was done.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) failure: Failure,
    pub(super) session: Option<SessionId>,
    pub(super) task: Option<TaskId>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, session: None, task: None }
    }
}

impl Refusal {
    pub(super) fn of_session(failure: Failure, session: SessionId) -> Self {
        Self { session: Some(session), ..failure.into() }
    }
}

impl Call<'_> {
    /// The tool's input.
    pub(super) fn input<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        args::parse(&self.request.args)
    }

    /// Runs an operation in a session.
    ///
    /// # Errors
    /// What the session layer refused before there was a task in the log.
    pub(super) async fn act(&self, session: SessionId, act: Act) -> Result<TaskOutcome, Refusal> {
        let launched = self.launch(session, act, self.request.cancel.clone()).await;
        self.ran(session, launched.outcome.await)
    }

    /// Sets an operation going in a session.
    pub(super) async fn launch(&self, session: SessionId, act: Act, cancel: CancellationToken) -> Launched {
        let call = TaskCall {
            principal: self.connection.principal.clone(),
            session,
            task: TaskId::mint(),
            tool: self.tool.name,
            called_as: self.request.tool.clone(),
            args: self.request.args.clone(),
            path: self.request.path(),
            operation: act.operation,
            read_only: self.tool.effect == Effect::Reads,
            timeout: act.timeout,
            idempotency_key: act.idempotency_key,
            client: self.request.client.clone(),
            trace: self.request.trace.clone(),
            arrival: self.request.arrival.clone(),
            leave: self.leave,
        };
        self.connection.sessions.launch(call, self.request.events.clone(), cancel).await
    }

    /// The outcome of a task, unless it is a refusal that nobody has recorded.
    pub(super) fn ran(&self, session: SessionId, outcome: TaskOutcome) -> Result<TaskOutcome, Refusal> {
        match &outcome.result {
            Err(failure) if outcome.audit_seq.is_none() => {
                let task = (failure.code == ErrorCode::AuditUnavailable).then_some(outcome.task);
                Err(Refusal { failure: failure.clone(), session: Some(session), task })
            }
            _ => Ok(outcome),
        }
    }
}

/// An operation with what a call may say about it.
pub(super) struct Act {
    pub(super) operation: Operation,
    pub(super) timeout: Option<Duration>,
    pub(super) idempotency_key: Option<String>,
}

impl From<Operation> for Act {
    fn from(operation: Operation) -> Self {
        Self { operation, timeout: None, idempotency_key: None }
    }
}

impl Request {
    /// Begins the span of the request; its records and its task belong to that from now on.
    pub(super) fn begin(&mut self, method: &'static str, tool: Option<&'static str>) -> Span {
        let mut span = traces::asked(self.trace.as_ref(), method, tool);
        if let Some(context) = span.context() {
            self.trace = Some(context.clone());
            span.set_id("codegen.session.id", self.session());
        }
        span
    }

    /// The path that the call is about, as the client wrote it, for records.
    pub(super) fn path(&self) -> Option<String> {
        let text = ["path", "file", "from"].iter().find_map(|name| self.args.get(name)?.as_str())?;
        Some(text.chars().take(PATH_CHARS_MAX).collect())
    }

    /// The session that the call names, when it is a handle, for records.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.args.get("session_id")?.as_str()?.parse().ok()
    }
}
