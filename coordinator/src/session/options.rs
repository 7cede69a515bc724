//! What the session layer can be told, and what it needs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codegen_audit::Audit;
use codegen_types::{IsolationLevel, Limits, Principal, SessionNetwork};
use coordinator_core::egress::{InForce, PermittedHosts};
use coordinator_core::placement::{Requirements, Trust};
use coordinator_core::policy::Policy;
use coordinator_core::quota::Quotas;
use coordinator_core::session::Rules;

use crate::policy::Policies;
use crate::secrets::Secrets;
use crate::store::{SessionStore, TaskStore};
use crate::supervisor::Supervisor;
use crate::workers::Fleet;

/// How long the outcome of a task is kept unless settings say else.
pub const OUTCOME_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Settings of the session layer.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Idle time after which a session's processes are ended, when the session names none.
    pub ttl_default: Duration,
    /// How often old sessions and old results are looked for.
    pub cleanup_interval: Duration,
    /// How long a session that nobody uses is kept with its files.
    pub retention: Duration,
    /// Bytes that the files of all sessions without processes may take; beyond it the least recently used are deleted.
    /// A workspace counts as it was when its processes were last ended in good order, so that one whose first
    /// processes a crash ended counts for nothing until its next suspension.
    pub retention_bytes: u64,
    /// How long the outcome of a task is kept.
    pub outcome_retention: Duration,
    /// Sessions of all principals, but for closed ones.
    pub sessions_max: usize,
    /// Tasks of one session at once, those included that wait for their kernel or for a place among its programs.
    pub tasks_per_session_max: usize,
    /// How long a principal that acted in a shared session alone may go on acting there.
    pub writer_lease: Duration,
    /// How long a call waits for a worker that is just not there, as when it is being started again.
    pub worker_patience: Duration,
    /// How long a worker that runs by itself is waited for when the server has started again.
    pub reconnect_grace: Duration,
    /// What each session and task may use.
    pub limits: Limits,
    /// What each principal may use, all its sessions together.
    pub quotas: Quotas,
    /// Below this isolation no session is run.
    pub isolation_minimum: IsolationLevel,
    /// Which hosts sessions may reach.
    pub egress: PermittedHosts,
    /// What workers put into requests of sessions.
    pub secrets: Secrets,
    /// The rules of the operator, which may be other ones later.
    pub policies: Policies,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            ttl_default: Duration::from_secs(30 * 60),
            cleanup_interval: Duration::from_secs(5 * 60),
            retention: Duration::from_secs(7 * 24 * 3600),
            retention_bytes: 20 << 30,
            outcome_retention: OUTCOME_KEPT,
            sessions_max: 1_000,
            tasks_per_session_max: 32,
            writer_lease: Duration::from_secs(30),
            worker_patience: Duration::from_secs(10),
            reconnect_grace: Duration::from_secs(120),
            limits: Limits::default(),
            quotas: Quotas::default(),
            isolation_minimum: IsolationLevel::Full,
            egress: PermittedHosts::default(),
            secrets: Secrets::default(),
            policies: Policies::fixed(Policy::default()),
        }
    }
}

impl SessionOptions {
    pub(super) fn rules(&self) -> Rules {
        Rules { tasks_max: self.tasks_per_session_max }
    }

    pub(super) fn writer_lease_ms(&self) -> i64 {
        i64::try_from(self.writer_lease.as_millis()).unwrap_or(i64::MAX)
    }

    /// What the worker of a session must have. What a session reaches is bounded by a network of its own alone.
    pub(super) fn requirements(&self, network: &SessionNetwork) -> Requirements {
        let isolation_minimum = if network.is_none() { self.isolation_minimum } else { IsolationLevel::Full };
        let trust = if network.secrets.is_empty() { Trust::Sessions } else { Trust::Secrets };
        Requirements { isolation_minimum, runtimes: Vec::new(), labels: [].into(), trust }
    }

    /// What a session of somebody reaches today of what it asked for.
    pub(super) fn in_force(&self, owner: &Principal, network: &SessionNetwork) -> InForce {
        self.egress.of(&self.policies.current(), owner, network)
    }
}

/// What the session layer needs of the others.
pub struct SessionsDeps {
    /// Where everything is recorded.
    pub audit: Audit,
    /// Where that log is read from at start; absent for a log in memory.
    pub audit_dir: Option<PathBuf>,
    /// Where sessions are remembered.
    pub sessions: Arc<dyn SessionStore>,
    /// Where tasks are remembered.
    pub tasks: Arc<dyn TaskStore>,
    /// Who runs them.
    pub fleet: Arc<dyn Fleet>,
    /// Runs the owners.
    pub supervisor: Supervisor,
    /// Settings.
    pub options: SessionOptions,
}
