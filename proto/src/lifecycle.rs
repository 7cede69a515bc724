//! How a worker joins, lives and leaves.

use std::time::Duration;

use codegen_types::{Capabilities, Epoch, HeldSession, HostUse, Incarnation, Resources, Runtime, WorkerId};

use crate::bounds::{
    HELD_SESSIONS_MAX, HELD_TASKS_MAX, LABELS_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, RUNTIMES_MAX,
    SHOWN_PATH_BYTES_MAX, TOKEN_BYTES_MAX,
};
use crate::field::{cut, duration, id, list, map, millis, required, text, text_or_none};
use crate::invalid::InvalidMessage;
use crate::isolation::report;
use crate::secret::Secret;
use crate::v1;

/// A worker asks to join, or to join again with the same incarnation. Its token goes beside it ([`crate::metadata`]).
#[derive(Debug, Clone)]
pub struct RegisterWorker {
    /// Its name.
    pub worker: WorkerId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Its release, as `major.minor.patch`.
    pub version: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Sessions whose workspaces it keeps.
    pub held: Vec<HeldSession>,
    /// Whether it keeps more than these.
    pub held_is_partial: bool,
    /// Where the coordinator can reach it; none: over the link that it opens itself.
    pub advertise: Option<String>,
    /// Whether it takes nothing new.
    pub draining: bool,
    /// The life of it that was joined before this one, and whose disk it has.
    pub follows: Option<Incarnation>,
}

/// The answer to a worker that may join.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Authenticates the worker's later calls.
    pub worker_session: Secret,
    /// Opens the link once, whichever side dials.
    pub link_ticket: Option<Secret>,
    /// How often the worker shall say that it lives.
    pub heartbeat_interval: Duration,
}

/// A worker lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its name.
    pub worker: WorkerId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Sessions that have a sandbox.
    pub sessions_open: u32,
    /// Tasks that run.
    pub tasks_running: u32,
    /// Memory of the worker and its sandboxes, in bytes.
    pub memory_bytes: u64,
    /// Sessions whose workspaces it keeps.
    pub held: Vec<HeldSession>,
    /// Whether it takes nothing new.
    pub draining: bool,
    /// What of its host is in use.
    pub used: HostUse,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone)]
pub struct HeartbeatAnswer {
    /// Set when the link is down: opens it again, once.
    pub link_ticket: Option<Secret>,
}

/// A worker leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeregisterWorker {
    /// Its name.
    pub worker: WorkerId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Why, for people.
    pub reason: String,
}

fn secret(value: String, field: &'static str) -> Result<Secret, InvalidMessage> {
    secret_or_none(value, field)?.ok_or(InvalidMessage::Missing { field })
}

fn secret_or_none(value: String, field: &'static str) -> Result<Option<Secret>, InvalidMessage> {
    Ok(text_or_none(value, TOKEN_BYTES_MAX, field)?.map(Secret::new))
}

fn exposed(secret: Option<Secret>) -> String {
    secret.map_or_else(String::new, |secret| secret.expose().to_owned())
}

fn held_sessions(held: Vec<v1::HeldSession>, field: &'static str) -> Result<Vec<HeldSession>, InvalidMessage> {
    list(held, HELD_SESSIONS_MAX, field, HeldSession::try_from)
}

impl From<RegisterWorker> for v1::RegisterWorkerRequest {
    fn from(register: RegisterWorker) -> Self {
        Self {
            worker_id: register.worker.into(),
            incarnation: register.incarnation.into(),
            version: register.version,
            capabilities: Some(register.capabilities.into()),
            held: register.held.into_iter().map(v1::HeldSession::from).collect(),
            held_is_partial: register.held_is_partial,
            advertise: register.advertise.unwrap_or_default(),
            draining: register.draining,
            follows_incarnation: register.follows.map(String::from).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::RegisterWorkerRequest> for RegisterWorker {
    type Error = InvalidMessage;

    fn try_from(wire: v1::RegisterWorkerRequest) -> Result<Self, InvalidMessage> {
        Ok(Self {
            worker: id(&wire.worker_id, "RegisterWorkerRequest.worker_id")?,
            incarnation: id(&wire.incarnation, "RegisterWorkerRequest.incarnation")?,
            version: text(wire.version, NAME_BYTES_MAX, "RegisterWorkerRequest.version")?,
            capabilities: required(wire.capabilities, "RegisterWorkerRequest.capabilities")?.try_into()?,
            held: held_sessions(wire.held, "RegisterWorkerRequest.held")?,
            held_is_partial: wire.held_is_partial,
            advertise: text_or_none(wire.advertise, TOKEN_BYTES_MAX, "RegisterWorkerRequest.advertise")?,
            draining: wire.draining,
            follows: match wire.follows_incarnation.as_str() {
                "" => None,
                follows => Some(id(follows, "RegisterWorkerRequest.follows_incarnation")?),
            },
        })
    }
}

impl From<Registered> for v1::RegisterWorkerResponse {
    fn from(registered: Registered) -> Self {
        Self {
            worker_session: registered.worker_session.expose().to_owned(),
            link_ticket: exposed(registered.link_ticket),
            heartbeat_interval_ms: u32::try_from(millis(registered.heartbeat_interval)).unwrap_or(u32::MAX),
        }
    }
}

impl TryFrom<v1::RegisterWorkerResponse> for Registered {
    type Error = InvalidMessage;

    fn try_from(wire: v1::RegisterWorkerResponse) -> Result<Self, InvalidMessage> {
        let field = "RegisterWorkerResponse.heartbeat_interval_ms";
        if wire.heartbeat_interval_ms == 0 {
            return Err(InvalidMessage::OutOfRange { field, expected: "more than zero" });
        }
        Ok(Self {
            worker_session: secret(wire.worker_session, "RegisterWorkerResponse.worker_session")?,
            link_ticket: secret_or_none(wire.link_ticket, "RegisterWorkerResponse.link_ticket")?,
            heartbeat_interval: duration(wire.heartbeat_interval_ms.into(), field)?,
        })
    }
}

impl From<Heartbeat> for v1::HeartbeatRequest {
    fn from(beat: Heartbeat) -> Self {
        Self {
            worker_id: beat.worker.into(),
            incarnation: beat.incarnation.into(),
            sessions_open: beat.sessions_open,
            tasks_running: beat.tasks_running,
            memory_bytes: beat.memory_bytes,
            held: beat.held.into_iter().map(v1::HeldSession::from).collect(),
            draining: beat.draining,
            used: Some(v1::HostUse {
                load_permille: beat.used.load_permille,
                memory_available_bytes: beat.used.memory_available_bytes,
                disk_free_bytes: beat.used.disk_free_bytes,
            }),
        }
    }
}

impl TryFrom<v1::HeartbeatRequest> for Heartbeat {
    type Error = InvalidMessage;

    fn try_from(wire: v1::HeartbeatRequest) -> Result<Self, InvalidMessage> {
        Ok(Self {
            worker: id(&wire.worker_id, "HeartbeatRequest.worker_id")?,
            incarnation: id(&wire.incarnation, "HeartbeatRequest.incarnation")?,
            sessions_open: wire.sessions_open,
            tasks_running: wire.tasks_running,
            memory_bytes: wire.memory_bytes,
            held: held_sessions(wire.held, "HeartbeatRequest.held")?,
            draining: wire.draining,
            // A worker of the release before says nothing of it.
            used: wire.used.map_or_else(HostUse::default, |used| HostUse {
                load_permille: used.load_permille,
                memory_available_bytes: used.memory_available_bytes,
                disk_free_bytes: used.disk_free_bytes,
            }),
        })
    }
}

impl From<HeartbeatAnswer> for v1::HeartbeatResponse {
    fn from(answer: HeartbeatAnswer) -> Self {
        Self { link_ticket: exposed(answer.link_ticket) }
    }
}

impl TryFrom<v1::HeartbeatResponse> for HeartbeatAnswer {
    type Error = InvalidMessage;

    fn try_from(wire: v1::HeartbeatResponse) -> Result<Self, InvalidMessage> {
        Ok(Self { link_ticket: secret_or_none(wire.link_ticket, "HeartbeatResponse.link_ticket")? })
    }
}

impl From<DeregisterWorker> for v1::DeregisterWorkerRequest {
    fn from(leave: DeregisterWorker) -> Self {
        Self { worker_id: leave.worker.into(), incarnation: leave.incarnation.into(), reason: cut(leave.reason) }
    }
}

impl TryFrom<v1::DeregisterWorkerRequest> for DeregisterWorker {
    type Error = InvalidMessage;

    fn try_from(wire: v1::DeregisterWorkerRequest) -> Result<Self, InvalidMessage> {
        Ok(Self {
            worker: id(&wire.worker_id, "DeregisterWorkerRequest.worker_id")?,
            incarnation: id(&wire.incarnation, "DeregisterWorkerRequest.incarnation")?,
            reason: text(wire.reason, MESSAGE_BYTES_MAX, "DeregisterWorkerRequest.reason")?,
        })
    }
}

impl From<Capabilities> for v1::Capabilities {
    fn from(capabilities: Capabilities) -> Self {
        Self {
            isolation: Some(capabilities.isolation.into()),
            runtimes: capabilities.runtimes.into_iter().map(v1::Runtime::from).collect(),
            sessions_max: capabilities.sessions_max,
            labels: capabilities.labels.into_iter().collect(),
            resources: Some(v1::Resources {
                cpus: capabilities.resources.cpus,
                memory_bytes: capabilities.resources.memory_bytes,
                disk_bytes: capabilities.resources.disk_bytes,
            }),
        }
    }
}

impl TryFrom<v1::Capabilities> for Capabilities {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Capabilities) -> Result<Self, InvalidMessage> {
        Ok(Self {
            isolation: report(wire.isolation, "Capabilities.isolation")?,
            runtimes: list(wire.runtimes, RUNTIMES_MAX, "Capabilities.runtimes", Runtime::try_from)?,
            sessions_max: wire.sessions_max,
            labels: map(wire.labels, LABELS_MAX, LABELS_MAX * NAME_BYTES_MAX, "Capabilities.labels")?,
            resources: wire.resources.map_or_else(Resources::default, |resources| Resources {
                cpus: resources.cpus,
                memory_bytes: resources.memory_bytes,
                disk_bytes: resources.disk_bytes,
            }),
        })
    }
}

impl From<Runtime> for v1::Runtime {
    fn from(runtime: Runtime) -> Self {
        Self { name: runtime.name, version: runtime.version, path: runtime.path }
    }
}

impl TryFrom<v1::Runtime> for Runtime {
    type Error = InvalidMessage;

    fn try_from(wire: v1::Runtime) -> Result<Self, InvalidMessage> {
        Ok(Self {
            name: text(wire.name, NAME_BYTES_MAX, "Runtime.name")?,
            version: text(wire.version, NAME_BYTES_MAX, "Runtime.version")?,
            path: text(wire.path, SHOWN_PATH_BYTES_MAX, "Runtime.path")?,
        })
    }
}

impl From<HeldSession> for v1::HeldSession {
    fn from(held: HeldSession) -> Self {
        Self {
            session_id: held.session.into(),
            epoch: held.epoch.0,
            open: held.open,
            task_ids: held.tasks.into_iter().map(String::from).collect(),
        }
    }
}

impl TryFrom<v1::HeldSession> for HeldSession {
    type Error = InvalidMessage;

    fn try_from(wire: v1::HeldSession) -> Result<Self, InvalidMessage> {
        let field = "HeldSession.task_ids";
        Ok(Self {
            session: id(&wire.session_id, "HeldSession.session_id")?,
            epoch: Epoch(wire.epoch),
            open: wire.open,
            tasks: list(wire.task_ids, HELD_TASKS_MAX, field, |task| id(&task, field))?,
        })
    }
}
