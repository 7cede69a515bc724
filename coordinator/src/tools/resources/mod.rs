//! Workspace files and transcripts as resources: listed, read and completed by the way of every tool call.
//!
//! Each look at a workspace is a task of the session layer, which checks whose session it is and records it under the
//! protocol's own name for what was asked, `resources/read` for instance.

mod address;
mod completion;
mod list;
mod read;
mod transcript;

use std::time::{Duration, Instant};

use codegen_types::{
    ErrorCode, Failure, Operation, OperationResult, Principal, SessionId, TaskId, TraceContext, WorkspacePath,
};
use coordinator_core::policy::Subject;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::call::{Refusal, Request};
use super::connection::Connection;
use super::resource_uri::WorkspaceUri;
use super::serve::Record;
use crate::approvals::Asking;
use crate::identity::{self, InsufficientScope, Scope, Scopes};
use crate::policy;
use crate::session::{Leave, TaskCall};

pub use address::ResourceUri;
pub use completion::{COMPLETIONS_MAX, Completions};
pub use list::{ResourceFile, ResourcePage};
pub use read::{RESOURCE_BYTES_MAX, ResourceBody, ResourceContents};

/// How much of an address is recorded and repeated, in characters.
const URI_CHARS_MAX: usize = 4_096;

/// How a client asked for something by another method than a tool call.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: &'static str,
    /// What the request's credentials permit.
    pub scopes: Scopes,
    /// The client program, as it names itself.
    pub client: Option<String>,
    /// The trace that it belongs to, when the client says so.
    pub trace: Option<TraceContext>,
    /// Cancelled when nobody wants the answer any more.
    pub cancel: CancellationToken,
}

impl Connection {
    /// Checks that an address is one that this client may follow, and records that it asked.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` and `PATH_VIOLATION` for what is no address; `SESSION_NOT_FOUND` for a foreign session as for
    /// an unknown one; `PERMISSION_DENIED`; `AUDIT_UNAVAILABLE`.
    pub async fn follow_resource(&self, uri: &str, asked: &Asked) -> Result<ResourceUri, Failure> {
        let begun = Instant::now();
        let own = || self.own_resource(uri).and_then(|address| self.may_look_at(&address).map(|()| address));
        let request = asked.request(ResourceUri::parse(uri).ok().as_ref(), uri);
        match self.counted(asked).and_then(|()| own()) {
            Ok(address) => {
                self.record(None, &request, Record::served(Some(address.session())), begun).await?;
                Ok(address)
            }
            Err(failure) => Err(self.refused(&request, failure, begun).await),
        }
    }

    /// Whether the policy lets this client look at a resource.
    fn may_look_at(&self, address: &ResourceUri) -> Result<(), Failure> {
        match address {
            ResourceUri::File(file) => self.may_read(&file.path),
            // A transcript is what task_logs shows, of several tasks.
            ResourceUri::Transcript(_) => self.may_look("task_logs", Subject::default()),
        }
    }

    /// Whether the policy lets this client list a directory without an approval.
    pub(crate) fn may_list_directory(&self, path: &WorkspacePath) -> Result<(), Failure> {
        self.may_look("fs_list", policy::of_file(path.clone()))
    }

    /// Whether the policy lets this client read a file without an approval.
    pub(crate) fn may_read(&self, path: &WorkspacePath) -> Result<(), Failure> {
        self.may_look("fs_read", policy::of_file(path.clone()))
    }

    /// Whether the policy lets this client see a file among others: its name is what fs_list shows, the rest fs_read.
    pub(crate) fn may_list(&self, path: &WorkspacePath) -> bool {
        self.may_look("fs_list", policy::of_file(path.clone())).is_ok() && self.may_read(path).is_ok()
    }

    /// Whether the policy lets this client do by another method what a tool does.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, `APPROVAL_REQUIRED`.
    pub(in crate::tools) fn may_look(&self, tool: &str, subject: Subject) -> Result<(), Failure> {
        let Some(gate) = self.admission.gate() else { return Ok(()) };
        gate.look(&self.principal, tool, subject)
    }

    /// The address of something in a session that this client's principal may read.
    ///
    /// # Errors
    /// As of [`follow_resource`](Self::follow_resource), but for the record.
    pub fn own_resource(&self, uri: &str) -> Result<ResourceUri, Failure> {
        let address = ResourceUri::parse(uri)?;
        self.sessions.get(&self.principal, address.session())?;
        Ok(address)
    }

    /// Whether this client may read a session, as far as is known now.
    pub fn may_follow(&self, session: SessionId) -> bool {
        self.sessions.get(&self.principal, session).is_ok()
    }

    /// Looks at a workspace; the recorded outcome.
    async fn look(
        &self,
        asked: &Asked,
        address: &WorkspaceUri,
        uri: &str,
        operation: Operation,
    ) -> Result<OperationResult, Failure> {
        let begun = Instant::now();
        let mut request = asked.request(Some(&ResourceUri::File(address.clone())), uri);
        let mut span = request.begin(asked.method, None);
        if let Err(failure) = self.counted(asked) {
            return Err(self.refused(&request, failure, begun).await);
        }
        // A look is what the tool of that name does, too.
        let tool = if matches!(operation, Operation::List(_)) { "fs_list" } else { "fs_read" };
        if let Err(failure) = self.may_look(tool, policy::of_file(address.path.clone())) {
            return Err(self.refused(&request, failure, begun).await);
        }
        let call = task_call(&self.principal, address.session, &request, asked.method, operation);
        let outcome = self.sessions.launch(call, request.events.clone(), asked.cancel.clone()).await.outcome.await;
        if let Err(failure) = &outcome.result {
            span.fail(failure.code);
        }
        match outcome.result {
            Ok(completed) => completed.result.ok_or_else(another_result),
            Err(failure) if outcome.audit_seq.is_none() => Err(self.refused(&request, failure, begun).await),
            Err(failure) => Err(failure),
        }
    }

    /// Lets a request by another method than a tool call go on when its credentials permit it, and it does not come too
    /// often.
    pub(in crate::tools) fn counted(&self, asked: &Asked) -> Result<(), Failure> {
        self.admission.count_only(&self.principal, self.door(), asked.method)?;
        asked.permitted().map_err(Failure::from)
    }

    /// Records a refusal; what the client is told.
    pub(in crate::tools) async fn refused(&self, request: &Request, failure: Failure, begun: Instant) -> Failure {
        if failure.code == ErrorCode::AuditUnavailable {
            return failure;
        }
        let Some(record) = self.recorded_refusal(Refusal::from(failure.clone())) else { return failure };
        match self.record(None, request, record, begun).await {
            Ok(_) => failure,
            Err(unavailable) => unavailable,
        }
    }
}

impl Asked {
    /// Lets the request go on when its credentials permit the use of tools, which looking at files and tasks is.
    pub(in crate::tools) fn permitted(&self) -> Result<(), InsufficientScope> {
        identity::permit(self.scopes, Scope::Tools.into())
    }

    /// The request as records tell it.
    fn request(&self, address: Option<&ResourceUri>, uri: &str) -> Request {
        let uri: String = uri.chars().take(URI_CHARS_MAX).collect();
        let args = match address {
            Some(ResourceUri::File(file)) => {
                json!({"uri": uri, "session_id": file.session, "path": file.path.to_string()})
            }
            Some(ResourceUri::Transcript(session)) => json!({"uri": uri, "session_id": session}),
            None => json!({"uri": uri}),
        };
        self.with_args(args)
    }

    /// The request with these arguments, for the records.
    pub(in crate::tools) fn with_args(&self, args: Value) -> Request {
        // Nobody follows a look.
        let (events, _) = mpsc::channel(1);
        let (trace, cancel) = (self.trace.clone(), self.cancel.clone());
        Request {
            tool: self.method.to_owned(),
            args,
            scopes: self.scopes,
            client: self.client.clone(),
            trace,
            arrival: None,
            whole: None,
            asking: Asking::Nobody,
            events,
            cancel,
            yield_after: Duration::MAX,
            output_chars: usize::MAX,
        }
    }
}

fn task_call(
    principal: &Principal,
    session: SessionId,
    request: &Request,
    method: &'static str,
    operation: Operation,
) -> TaskCall {
    TaskCall {
        principal: principal.clone(),
        session,
        task: TaskId::mint(),
        tool: method,
        called_as: request.tool.clone(),
        args: request.args.clone(),
        path: request.path(),
        operation,
        read_only: true,
        timeout: None,
        idempotency_key: None,
        client: request.client.clone(),
        trace: request.trace.clone(),
        arrival: None,
        leave: Leave::Free,
    }
}

fn another_result() -> Failure {
    Failure::new(ErrorCode::Internal, "the worker answered with the result of another operation")
}
