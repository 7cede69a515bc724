//! Opening and closing a session on its worker; the lease and the limits that it is given.

use codegen_types::egress::CONTACTS_MAX;
use codegen_types::{Contact, Epoch, IsolationLevel, IsolationReport, Lease, Limits, SessionId};

use crate::egress::Egress;
use crate::field::{id, list, required};
use crate::invalid::InvalidMessage;
use crate::isolation::{level, report};
use crate::v1;

/// Make a session's workspace, if there is none, and its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// The session.
    pub session: SessionId,
    /// Who holds it.
    pub lease: Lease,
    /// What it may use.
    pub limits: Limits,
    /// The weakest isolation under which it may run.
    pub isolation_minimum: IsolationLevel,
    /// What it reaches outside its sandbox, if anything.
    pub egress: Option<Egress>,
}

/// A session is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOpened {
    /// What its sandbox really has.
    pub isolation: IsolationReport,
    /// Whether the workspace was made by this call.
    pub workspace_created: bool,
}

/// End all processes of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseSession {
    /// The session.
    pub session: SessionId,
    /// Who holds it.
    pub lease: Lease,
    /// Whether its workspace is deleted as well.
    pub delete_workspace: bool,
}

/// A session has no processes any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionClosed {
    /// How many it had.
    pub processes_killed: u32,
    /// Bytes allocated in a workspace that was kept, [`u64::MAX`] when they cannot be counted; 0 when it is deleted.
    pub workspace_bytes: u64,
    /// Whom it asked to reach since its last program ended.
    pub contacts: Vec<Contact>,
}

/// The lease of a message that must carry one.
pub(crate) fn lease(value: Option<v1::Lease>, field: &'static str) -> Result<Lease, InvalidMessage> {
    required(value, field)?.try_into()
}

impl From<Lease> for v1::Lease {
    fn from(lease: Lease) -> Self {
        Self { worker_id: lease.worker.into(), incarnation: lease.incarnation.into(), epoch: lease.epoch.0 }
    }
}

impl TryFrom<v1::Lease> for Lease {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Lease) -> Result<Self, InvalidMessage> {
        Ok(Self {
            worker: id(&wire.worker_id, "Lease.worker_id")?,
            incarnation: id(&wire.incarnation, "Lease.incarnation")?,
            epoch: Epoch(wire.epoch),
        })
    }
}

impl From<Limits> for v1::Limits {
    fn from(limits: Limits) -> Self {
        let Limits {
            task_ms,
            task_ms_max,
            memory_bytes,
            processes,
            cpu_millicores,
            output_bytes,
            workspace_bytes,
            workspace_files,
            file_bytes,
            scratch_bytes,
            open_files,
        } = limits;
        Self {
            task_ms,
            task_ms_max,
            memory_bytes,
            processes,
            cpu_millicores,
            output_bytes,
            workspace_bytes,
            workspace_files,
            file_bytes,
            scratch_bytes,
            open_files,
        }
    }
}

/// A limit of zero is one that was not sent, and must not become "no limit".
fn limit(value: u64, field: &'static str) -> Result<u64, InvalidMessage> {
    if value == 0 { Err(InvalidMessage::Missing { field }) } else { Ok(value) }
}

impl TryFrom<v1::Limits> for Limits {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Limits) -> Result<Self, InvalidMessage> {
        Ok(Self {
            task_ms: limit(wire.task_ms, "Limits.task_ms")?,
            task_ms_max: limit(wire.task_ms_max, "Limits.task_ms_max")?,
            memory_bytes: limit(wire.memory_bytes, "Limits.memory_bytes")?,
            processes: limit(wire.processes, "Limits.processes")?,
            cpu_millicores: limit(wire.cpu_millicores, "Limits.cpu_millicores")?,
            output_bytes: limit(wire.output_bytes, "Limits.output_bytes")?,
            workspace_bytes: limit(wire.workspace_bytes, "Limits.workspace_bytes")?,
            workspace_files: limit(wire.workspace_files, "Limits.workspace_files")?,
            file_bytes: limit(wire.file_bytes, "Limits.file_bytes")?,
            scratch_bytes: limit(wire.scratch_bytes, "Limits.scratch_bytes")?,
            open_files: limit(wire.open_files, "Limits.open_files")?,
        })
    }
}

impl From<OpenSession> for v1::OpenSessionRequest {
    fn from(open: OpenSession) -> Self {
        Self {
            session_id: open.session.into(),
            lease: Some(open.lease.into()),
            limits: Some(open.limits.into()),
            isolation_minimum: open.isolation_minimum.as_str().to_owned(),
            egress: open.egress.map(v1::Egress::from),
        }
    }
}

impl TryFrom<v1::OpenSessionRequest> for OpenSession {
    type Error = InvalidMessage;

    fn try_from(wire: v1::OpenSessionRequest) -> Result<Self, InvalidMessage> {
        Ok(Self {
            session: id(&wire.session_id, "OpenSessionRequest.session_id")?,
            lease: lease(wire.lease, "OpenSessionRequest.lease")?,
            limits: required(wire.limits, "OpenSessionRequest.limits")?.try_into()?,
            isolation_minimum: level(&wire.isolation_minimum, "OpenSessionRequest.isolation_minimum")?,
            egress: wire.egress.map(Egress::try_from).transpose()?,
        })
    }
}

impl From<SessionOpened> for v1::OpenSessionResponse {
    fn from(opened: SessionOpened) -> Self {
        Self { isolation: Some(opened.isolation.into()), workspace_created: opened.workspace_created }
    }
}

impl TryFrom<v1::OpenSessionResponse> for SessionOpened {
    type Error = InvalidMessage;

    fn try_from(wire: v1::OpenSessionResponse) -> Result<Self, InvalidMessage> {
        Ok(Self {
            isolation: report(wire.isolation, "OpenSessionResponse.isolation")?,
            workspace_created: wire.workspace_created,
        })
    }
}

impl From<CloseSession> for v1::CloseSessionRequest {
    fn from(close: CloseSession) -> Self {
        Self {
            session_id: close.session.into(),
            lease: Some(close.lease.into()),
            delete_workspace: close.delete_workspace,
        }
    }
}

impl TryFrom<v1::CloseSessionRequest> for CloseSession {
    type Error = InvalidMessage;

    fn try_from(wire: v1::CloseSessionRequest) -> Result<Self, InvalidMessage> {
        Ok(Self {
            session: id(&wire.session_id, "CloseSessionRequest.session_id")?,
            lease: lease(wire.lease, "CloseSessionRequest.lease")?,
            delete_workspace: wire.delete_workspace,
        })
    }
}

impl From<SessionClosed> for v1::CloseSessionResponse {
    fn from(closed: SessionClosed) -> Self {
        Self {
            processes_killed: closed.processes_killed,
            workspace_bytes: closed.workspace_bytes,
            contacts: closed.contacts.into_iter().map(v1::Contact::from).collect(),
        }
    }
}

impl TryFrom<v1::CloseSessionResponse> for SessionClosed {
    type Error = InvalidMessage;

    fn try_from(wire: v1::CloseSessionResponse) -> Result<Self, InvalidMessage> {
        Ok(Self {
            processes_killed: wire.processes_killed,
            workspace_bytes: wire.workspace_bytes,
            contacts: list(wire.contacts, CONTACTS_MAX, "CloseSessionResponse.contacts", Contact::try_from)?,
        })
    }
}
