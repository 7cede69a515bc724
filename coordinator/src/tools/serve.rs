//! The one way from a request to a tool and back: alias, refusal and record, the same for every tool.

use std::time::Instant;

use codegen_audit::{AuditUnavailable, Entry, EventKind, Outcome};
use codegen_types::{ApprovalId, ErrorCode, Failure, LogSeq, SessionId};
use serde_json::{Map, Value, json};

use super::call::{Call, Refusal, Reply, Request};
use super::connection::Connection;
use super::result::ToolResult;
use super::session_keys::SessionKeys;
use super::{Tool, find};
use crate::admission::Asked;
use crate::policy::Whole;
use crate::{identity, telemetry};

/// The longest name of a tool that is repeated, in characters.
const NAME_CHARS_MAX: usize = 128;
/// A tool that takes an idempotency key like every tool that acts, and keeps none: done twice, it is done once.
const TASK_CANCEL: &str = "task_cancel";
/// What ends something, by the names of tools and methods.
const STOPPING: &[&str] = &[TASK_CANCEL, "tasks/cancel", "session_close", "session_unshare"];
/// The tool whose keys belong to no session.
const SESSION_CREATE: &str = "session_create";
/// The method by which tools are called.
const TOOLS_CALL: &str = "tools/call";
/// The code of a call that succeeded.
const OK: &str = "OK";
/// What metrics call every tool that there is not.
const UNKNOWN_TOOL: &str = "unknown";

/// There is no tool of that name. The call is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown tool {0:?}; tools/list names all there are")]
pub struct UnknownTool(pub String);

impl Connection {
    /// Answers a tool call. Whatever it is answered with is in the log before this returns, or is
    /// `AUDIT_UNAVAILABLE`, or one of a flood of `RATE_LIMITED`.
    ///
    /// # Errors
    /// There is no such tool.
    pub async fn serve(&self, mut request: Request) -> Result<ToolResult, UnknownTool> {
        let begun = Instant::now();
        let mut span = request.begin(TOOLS_CALL, Some(find(&request.tool).map_or(UNKNOWN_TOOL, |tool| tool.name)));
        let answer = self.answer(&request, begun).await;
        let (tool, code) = match &answer {
            Ok(result) => (find(&request.tool).map_or(UNKNOWN_TOOL, |tool| tool.name), result.code()),
            Err(UnknownTool(_)) => (UNKNOWN_TOOL, ErrorCode::InvalidArgument.to_string()),
        };
        if code != OK {
            span.fail_tool(code.clone());
        }
        telemetry::call_ended(tool, code, begun.elapsed());
        answer
    }

    async fn answer(&self, request: &Request, begun: Instant) -> Result<ToolResult, UnknownTool> {
        let Some(tool) = find(&request.tool) else {
            if let Err(limited) = self.admission.count_only(&self.principal, self.door(), UNKNOWN_TOOL) {
                return Ok(self.refuse(None, request, limited.into(), begun).await);
            }
            let name: String = request.tool.chars().take(NAME_CHARS_MAX).collect();
            let unknown = UnknownTool(name);
            let failure = Failure::new(ErrorCode::InvalidArgument, unknown.to_string());
            return match self.record(None, request, Record::refused(failure.into()), begun).await {
                Ok(_) => Err(unknown),
                Err(unavailable) => Ok(ToolResult::failure(&unavailable)),
            };
        };
        if let Err(insufficient) = identity::permit(request.scopes, identity::needed_scopes(tool.name)) {
            let counted = self.admission.count_only(&self.principal, self.door(), tool.name);
            let failure = counted.err().unwrap_or_else(|| Failure::from(insufficient));
            return Ok(self.refuse(Some(tool), request, failure.into(), begun).await);
        }
        let admitted = match self.admission.admit(&self.asked(tool.name, request), self.repeats(tool, request)).await {
            Ok(admitted) => admitted,
            Err(failure) => return Ok(self.refuse(Some(tool), request, failure.into(), begun).await),
        };
        let call = Call { connection: self, tool, request, leave: admitted.leave(), waited: begun.elapsed() };
        Ok(match (tool.run)(&call).await {
            Ok(Reply::Recorded(result)) => result,
            Ok(Reply::Unrecorded(result, session)) => {
                let record = Record { approval: call.leave.approval(), ..Record::served(session) };
                match self.record(Some(tool), request, record, begun).await {
                    Ok(seq) => result.recorded_at(Some(seq)),
                    Err(unavailable) => ToolResult::failure(&unavailable),
                }
            }
            Err(refusal) => self.refuse(Some(tool), request, refusal, begun).await,
        })
    }

    /// Whether a call repeats an earlier one under its idempotency key: then it begins nothing.
    async fn repeats(&self, tool: &Tool, request: &Request) -> bool {
        let Some(key) = request.args.get("idempotency_key").and_then(Value::as_str) else { return false };
        if tool.name == TASK_CANCEL {
            return false;
        }
        let session = match request.args.get("session_id").and_then(Value::as_str) {
            Some(text) => match text.parse() {
                Ok(session) => Some(session),
                Err(_) => return false,
            },
            None if tool.name == SESSION_CREATE => return self.sessions.knows_creation(&self.principal, key),
            None => self.default_session_made().await,
        };
        match session {
            Some(session) if SessionKeys::keeps(tool.name) => self.session_keys.knows(&self.principal, session, key),
            Some(session) => self.sessions.knows_key(&self.principal, session, key).await,
            None => false,
        }
    }

    /// A call as the admission sees it.
    fn asked<'a>(&'a self, tool: &'static str, request: &'a Request) -> Asked<'a> {
        Asked {
            principal: &self.principal,
            scopes: request.scopes,
            door: self.door(),
            tool,
            args: &request.args,
            session: request.session(),
            client: request.client.as_deref(),
            whole: request.whole.as_ref(),
            asking: &request.asking,
            patience: request.yield_after,
            cancel: &request.cancel,
        }
    }

    /// Asks for leave for all calls of a tool that a request consists of, which then say so. A refusal is recorded.
    ///
    /// # Errors
    /// What the policy's gate gives.
    pub(crate) async fn leave_for(&self, request: &Request) -> Result<Whole, Failure> {
        let begun = Instant::now();
        let Some(tool) = find(&request.tool) else { return Ok(Whole::default()) };
        // What its calls need, they are asked for.
        if identity::permit(request.scopes, identity::needed_scopes(tool.name)).is_err() {
            return Ok(Whole::default());
        }
        match self.admission.admit_whole(&self.asked(tool.name, request)).await {
            Ok(whole) => Ok(whole),
            Err(failure) => {
                // Calls are counted one by one; what never becomes one counts, too.
                let counted = self.admission.count_only(&self.principal, self.door(), tool.name);
                let failure = counted.err().unwrap_or(failure);
                let refused = self.refuse(Some(tool), request, failure.clone().into(), begun).await;
                Err(refused.failure.unwrap_or(failure))
            }
        }
    }

    /// Refuses a call before any tool sees it, for a reason that lies in the connection.
    pub async fn refuse_unserved(&self, request: &Request, failure: Failure) -> ToolResult {
        let (tool, begun) = (find(&request.tool), Instant::now());
        let result = self.refuse(tool, request, failure.into(), begun).await;
        telemetry::call_ended(tool.map_or(UNKNOWN_TOOL, |tool| tool.name), result.code(), begun.elapsed());
        result
    }

    async fn refuse(
        &self,
        tool: Option<&'static Tool>,
        request: &Request,
        refusal: Refusal,
        begun: Instant,
    ) -> ToolResult {
        let task = refusal.task;
        let failure = refusal.failure.clone();
        let with_task = |result: ToolResult| match task {
            Some(task) => result.of_task(task),
            None => result,
        };
        if failure.code == ErrorCode::AuditUnavailable {
            return with_task(ToolResult::failure(&failure));
        }
        let Some(record) = self.recorded_refusal(refusal) else {
            return with_task(ToolResult::failure(&failure));
        };
        match self.record(tool, request, record, begun).await {
            Ok(seq) => with_task(ToolResult::failure(&failure)).recorded_at(Some(seq)),
            Err(unavailable) => with_task(ToolResult::failure(&unavailable)),
        }
    }

    /// The record of a refusal; of a flood for coming too often some are only counted, in the record after them.
    pub(super) fn recorded_refusal(&self, refusal: Refusal) -> Option<Record> {
        let suppressed = match refusal.failure.code {
            ErrorCode::RateLimited => self.admission.record_refusal(&self.principal)?,
            _ => 0,
        };
        Some(Record { suppressed, ..Record::refused(refusal) })
    }

    pub(super) async fn record(
        &self,
        tool: Option<&'static Tool>,
        request: &Request,
        record: Record,
        begun: Instant,
    ) -> Result<LogSeq, Failure> {
        let name: String = request.tool.chars().take(NAME_CHARS_MAX).collect();
        let entry = Entry {
            kind: record.kind,
            principal: Some(self.principal.clone()),
            session: record.session.or_else(|| request.session()),
            tool: Some(tool.map_or(name.clone(), |tool| tool.name.to_owned())),
            called_as: tool.is_some_and(|tool| tool.name != name).then_some(name),
            args: Some(request.args.clone()),
            path: request.path(),
            outcome: Some(record.outcome),
            code: record.code,
            duration_ms: u64::try_from(begun.elapsed().as_millis()).ok(),
            trace: request.trace.as_ref().map(ToString::to_string),
            detail: detail(request, &record),
            ..Entry::default()
        };
        let name = tool.map_or(request.tool.as_str(), |tool| tool.name);
        let stopped = entry.kind == EventKind::CallServed && STOPPING.contains(&name);
        // Stopping is never refused. What has been stopped is kept for the log until that can be written.
        let recorded = if stopped { self.audit.queue(entry).await } else { self.audit.append(entry).await };
        recorded.map_err(|error| {
            tracing::error!(%error, "the record of a call is not durable, so its answer is withheld");
            let withheld = "the audit log cannot be written just now, so the answer is withheld";
            let message = match (stopped, &error) {
                (false, _) => withheld.to_owned(),
                (true, AuditUnavailable::Failing(_) | AuditUnavailable::Deadline) => {
                    format!("it was done; {withheld}, and its record follows once the log can be written")
                }
                (true, AuditUnavailable::QueueFull | AuditUnavailable::Closed) => {
                    format!("it was done; {withheld}, and the log will not have its record")
                }
            };
            Failure::new(ErrorCode::AuditUnavailable, message)
        })
    }
}

/// What is known about a call that only the coordinator dealt with.
pub(super) struct Record {
    kind: EventKind,
    outcome: Outcome,
    session: Option<SessionId>,
    code: Option<ErrorCode>,
    /// Refusals for coming too often that have no record of their own.
    suppressed: u64,
    /// The approval that let it in.
    approval: Option<ApprovalId>,
}

fn detail(request: &Request, record: &Record) -> Option<Value> {
    let client = request.client.as_ref().map(|client| ("client", json!(client)));
    let suppressed = (record.suppressed > 0).then(|| ("suppressed", json!(record.suppressed)));
    let approval = record.approval.map(|approval| ("approval", json!(approval)));
    let facts = client.into_iter().chain(suppressed).chain(approval);
    let facts: Map<String, Value> = facts.map(|(key, v)| (key.to_owned(), v)).collect();
    (!facts.is_empty()).then_some(Value::Object(facts))
}

impl Record {
    pub(super) const fn served(session: Option<SessionId>) -> Self {
        Self { kind: EventKind::CallServed, outcome: Outcome::Ok, session, code: None, suppressed: 0, approval: None }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        let (session, code) = (refusal.session, Some(refusal.failure.code));
        let (kind, outcome) = (EventKind::CallRefused, Outcome::Refused);
        Self { kind, outcome, session, code, suppressed: 0, approval: None }
    }
}
